//! When a request is given to another backend, and when it must not be.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::client::{Connection, get};
use crate::harness::gateway::Gateway;
use crate::harness::origin::{Origin, Reply};
use crate::harness::response::{Broken, Response};

/// Backends in turn, so that a test knows who is asked first; nobody is taken down.
fn start(backends: &[&Origin], retry: &str) -> Gateway {
    let backends: Vec<_> = backends
        .iter()
        .map(|one| one.address().to_string())
        .collect();
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [log]
        access = "all"
        [upstream.app]
        backends = {backends:?}
        balance = "round-robin"
        max_fails = 0
        timeouts = {{ connect = "1s", first_byte = "300ms" }}
        retry = {{ {retry} }}
        [[route]]
        upstream = "app"
        "#
    ))
}

/// Two backends: the first is asked first, and gives this reply to every request.
fn first_gives(reply: Reply, retry: &str) -> ([Origin; 2], Gateway) {
    let origins = [Origin::always(reply), Origin::always(Reply::ok("second"))];
    let gateway = start(&[&origins[0], &origins[1]], retry);
    (origins, gateway)
}

fn ask(gateway: &Gateway, method: &str, body: &[u8]) -> Response {
    try_ask(gateway, method, body).expect("a response")
}

fn try_ask(gateway: &Gateway, method: &str, body: &[u8]) -> Result<Response, Broken> {
    let mut client = gateway.connect();
    send(&mut client, method, body);
    client.response_to(method)
}

fn send(client: &mut Connection, method: &str, body: &[u8]) {
    let length = body.len();
    let head = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    client
        .send(&[head.as_bytes(), body].concat())
        .expect("the gateway reads");
}

fn requests(origins: &[Origin]) -> Vec<usize> {
    origins
        .iter()
        .map(|origin| origin.received().len())
        .collect()
}

/// Waits for the record of the only request and returns it.
fn record(gateway: &Gateway) -> serde_json::Value {
    let line = gateway.wait_for_log("the record", |line| line.contains("\"access\""));
    serde_json::from_str(&line).expect("a line of JSON")
}

#[test]
fn what_never_left_the_gateway_is_tried_elsewhere_whatever_its_method() {
    for method in ["GET", "POST", "PATCH"] {
        let (mut origins, gateway) = first_gives(Reply::ok("first"), "");
        origins[0].refuse();
        assert_eq!(ask(&gateway, method, b"once").text(), "second");
        let received = origins[1].received();
        assert_eq!(received.len(), 1, "{method}");
        assert_eq!(received[0].body, b"once");
        let record = record(&gateway);
        assert_eq!(record["attempts"], 2);
        assert_eq!(record["status"], 200);
        assert_eq!(record["reason"], serde_json::Value::Null, "{record}");
    }
}

#[test]
fn connect_errors_are_not_tried_again_where_they_are_not_named() {
    let (mut origins, gateway) = first_gives(Reply::ok("first"), "on = [\"503\"]");
    origins[0].refuse();
    let refused = ask(&gateway, "GET", b"");
    assert_eq!(refused.status(), 502);
    assert!(
        refused.text().contains("upstream_connect"),
        "{}",
        refused.text()
    );
    assert_eq!(requests(&origins), [0, 0]);
}

#[test]
fn by_default_what_may_be_asked_twice_is_asked_twice() {
    let failures = [
        Reply::nothing().then_reset(),
        Reply::nothing().then_close(),
        Reply::nothing().then_stall(),
        Reply::raw("HTTP/1.1 200 OK\r\nConten").then_reset(),
        Reply::raw("220 not http\r\n\r\n"),
        Reply::status(502, "a"),
        Reply::status(503, "a"),
        Reply::status(504, "a"),
    ];
    let methods = ["PUT", "DELETE", "OPTIONS"];
    let every_method = methods.map(|method| (method, Reply::nothing().then_reset()));
    let every_failure = failures.map(|failure| ("GET", failure));
    for (method, failure) in every_failure.into_iter().chain(every_method) {
        let (origins, gateway) = first_gives(failure.clone(), "");
        let answer = ask(&gateway, method, b"");
        assert_eq!(answer.status(), 200, "{method} {failure:?}");
        assert_eq!(requests(&origins), [1, 1]);
    }
}

#[test]
fn by_default_a_post_that_was_sent_is_not_sent_again() {
    let failures = [
        (Reply::nothing().then_reset(), 502, "upstream_reset"),
        (Reply::nothing().then_close(), 502, "upstream_reset"),
        (Reply::nothing().then_stall(), 504, "upstream_timeout"),
        (Reply::raw("220 not http\r\n\r\n"), 502, "upstream_protocol"),
        (
            Reply::status(503, "from the application"),
            503,
            "from the application",
        ),
    ];
    for (failure, status, text) in failures {
        for method in ["POST", "PATCH"] {
            let (origins, gateway) = first_gives(failure.clone(), "");
            let answer = ask(&gateway, method, b"once");
            assert_eq!(answer.status(), status, "{failure:?}");
            assert!(answer.text().contains(text), "{}", answer.text());
            assert_eq!(requests(&origins), [1, 0]);
        }
    }
}

#[test]
fn where_it_is_asked_for_a_post_is_sent_again() {
    for failure in [Reply::nothing().then_reset(), Reply::status(503, "a")] {
        let (origins, gateway) = first_gives(failure, "non_idempotent = true");
        assert_eq!(ask(&gateway, "POST", b"twice").text(), "second");
        assert_eq!(origins[1].received()[0].body, b"twice");
    }
}

#[test]
fn a_status_is_tried_again_only_where_it_is_named() {
    for (on, status, tried) in [
        ("\"429\"", 429, true),
        ("\"500\"", 500, true),
        ("\"502\", \"503\"", 500, false),
        ("\"connect\"", 503, false),
        ("\"503\"", 404, false),
    ] {
        let (origins, gateway) =
            first_gives(Reply::status(status, "first"), &format!("on = [{on}]"));
        let expected = if tried { "second" } else { "first" };
        assert_eq!(
            ask(&gateway, "GET", b"").text(),
            expected,
            "{status} with {on}"
        );
        assert_eq!(requests(&origins)[1], usize::from(tried));
    }
}

#[test]
fn a_lost_connection_and_a_silent_one_are_tried_again_only_where_they_are_named() {
    for (on, failure, status) in [
        ("timeout", Reply::nothing().then_reset(), 502),
        ("reset", Reply::nothing().then_stall(), 504),
    ] {
        let (origins, gateway) = first_gives(failure, &format!("on = [\"{on}\"]"));
        assert_eq!(ask(&gateway, "GET", b"").status(), status);
        assert_eq!(requests(&origins), [1, 0]);
    }
}

#[test]
fn no_more_attempts_are_made_than_allowed_and_each_elsewhere() {
    for attempts in 1..=3 {
        let origins: [Origin; 4] =
            std::array::from_fn(|_| Origin::always(Reply::nothing().then_reset()));
        let all: Vec<_> = origins.iter().collect();
        let gateway = start(&all, &format!("attempts = {attempts}"));
        assert_eq!(ask(&gateway, "GET", b"").status(), 502);
        let mut asked = requests(&origins);
        asked.sort_unstable();
        let expected: Vec<_> = (0..4).map(|one| usize::from(one >= 4 - attempts)).collect();
        assert_eq!(asked, expected);
        assert_eq!(record(&gateway)["attempts"], attempts);
    }
}

#[test]
fn the_only_backend_is_asked_again() {
    let origin = Origin::in_turn([Reply::status(503, "not yet"), Reply::ok("now")]);
    let gateway = start(&[&origin], "");
    assert_eq!(ask(&gateway, "GET", b"").text(), "now");
}

#[test]
fn when_attempts_are_used_up_the_answer_is_the_applications_own() {
    let reply = |name: &str| {
        let length = name.len();
        Reply::raw(format!(
            "HTTP/1.1 503 Test\r\nX-From: {name}\r\nRetry-After: 77\r\nContent-Length: {length}\r\n\r\n{name}"
        ))
    };
    let origins = [
        Origin::always(reply("first")),
        Origin::always(reply("second")),
    ];
    let gateway = start(&[&origins[0], &origins[1]], "");
    let answer = ask(&gateway, "GET", b"");
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.text(), "second");
    assert_eq!(answer.field("x-from"), Some("second"));
    assert_eq!(answer.field("retry-after"), Some("77"));
    let record = record(&gateway);
    assert_eq!(record["reason"], serde_json::Value::Null, "{record}");
}

#[test]
fn nothing_is_tried_again_once_the_client_has_a_byte_of_the_answer() {
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun";
    let (origins, gateway) = first_gives(Reply::raw(begun).then_reset(), "non_idempotent = true");
    let end = try_ask(&gateway, "GET", b"").expect_err("no whole response");
    assert!(matches!(end, Broken::Truncated | Broken::Reset), "{end}");
    assert_eq!(requests(&origins), [1, 0]);
    assert_eq!(record(&gateway)["reason"], "upstream_truncated");
}

#[test]
fn a_body_of_64_kib_is_sent_again_whole() {
    let body: Vec<_> = (0..64 * 1024_u32).map(|n| (n % 251) as u8).collect();
    let (origins, gateway) = first_gives(Reply::status(503, "first"), "");
    assert_eq!(ask(&gateway, "PUT", &body).text(), "second");
    for origin in &origins {
        assert_eq!(origin.received()[0].body, body);
    }
}

#[test]
fn a_longer_body_is_not_sent_again() {
    let body = vec![b'x'; 64 * 1024 + 1];
    let (origins, gateway) = first_gives(Reply::status(503, "first"), "");
    let answer = ask(&gateway, "PUT", &body);
    assert_eq!((answer.status(), answer.text().as_str()), (503, "first"));
    assert_eq!(requests(&origins), [1, 0]);
}

#[test]
fn a_body_that_is_sent_twice_counts_once_towards_its_limit() {
    let origins = [
        Origin::always(Reply::status(503, "first")),
        Origin::always(Reply::ok("second")),
    ];
    let backends = origins.each_ref().map(|one| one.address().to_string());
    let gateway = Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [upstream.app]
        backends = {backends:?}
        balance = "round-robin"
        max_body = 1000
        [[route]]
        upstream = "app"
        "#
    ));
    assert_eq!(ask(&gateway, "PUT", &[b'x'; 1000]).text(), "second");
    assert_eq!(ask(&gateway, "PUT", &[b'x'; 1001]).status(), 413);
}

#[test]
fn a_client_that_leaves_is_not_a_reason_to_ask_another() {
    let (origins, gateway) = first_gives(Reply::nothing().then_stall(), "on = [\"reset\"]");
    let mut client = gateway.connect();
    send(&mut client, "GET", b"");
    origins[0].wait_for_requests(1);
    client.reset();
    gateway.wait_until_idle(2);
    assert_eq!(requests(&origins), [1, 0]);
    let record = record(&gateway);
    assert_eq!(record["reason"], "client_left", "{record}");
}

#[test]
fn an_upstream_in_trouble_is_not_asked_twice_as_much() {
    const REQUESTS: usize = 200;
    for (budget, allowed) in [
        ("20%", REQUESTS / 5),
        ("5%", 10),
        ("0%", 0),
        ("100%", REQUESTS),
    ] {
        let origins: [Origin; 2] = std::array::from_fn(|_| Origin::always(Reply::status(503, "a")));
        let gateway = start(
            &[&origins[0], &origins[1]],
            &format!("budget = \"{budget}\""),
        );
        let mut client = gateway.connect();
        for _ in 0..REQUESTS {
            assert_eq!(client.get("/").expect("a response").status(), 503);
        }
        let asked: usize = requests(&origins).iter().sum();
        assert_eq!(asked - REQUESTS, allowed, "with a budget of {budget}");
    }
}

#[test]
fn a_storm_of_lost_connections_stays_within_the_budget() {
    let count = AtomicUsize::new(0);
    let origin = Origin::with(move |_| match count.fetch_add(1, Ordering::Relaxed) % 2 {
        0 => Reply::nothing().then_reset(),
        _ => Reply::nothing().then_close(),
    });
    let gateway = start(&[&origin], "attempts = 5");
    for _ in 0..100 {
        assert_eq!(get(gateway.address(), "/").status(), 502);
    }
    // A fifth of a hundred; ten are always allowed, and the share grows with the requests.
    let again = origin.received().len() - 100;
    assert!((10..=20).contains(&again), "{again}");
}

#[test]
fn a_chunked_upload_that_the_backend_cut_short_is_not_sent_to_another() {
    let (origins, gateway) = first_gives(Reply::nothing().then_reset(), "");
    let mut client = gateway.connect();
    let mut request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    write!(request, "5\r\nabcde\r\n0\r\n\r\n").expect("memory");
    client.send(&request).expect("the gateway reads");
    assert_eq!(client.response().expect("a response").status(), 502);
    assert_eq!(requests(&origins), [1, 0]);
}
