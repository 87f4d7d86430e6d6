//! Every way in which the gateway says no, as its client and its operator see it.

use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};

use http::Request;
use serde_json::Value;

use crate::harness::client::{Connection, get};
use crate::harness::gateway::Gateway;
use crate::harness::h2_client::H2;
use crate::harness::h2_frames::{Frames, Outcome};
use crate::harness::origin::{Origin, Reply};
use crate::harness::response::Response;
use crate::harness::tls::TestCa;

/// A gateway over one backend, with these lines for its upstream and everything else after it.
fn in_front_of(origin: &Origin, upstream: &str, rest: &str) -> Gateway {
    let address = format!("\"{}\"", origin.address());
    in_front_of_all(&address, upstream, rest)
}

fn in_front_of_all(addresses: &str, upstream: &str, rest: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0", {{ address = "127.0.0.1:0", h2c = true }}]
        max_request_line = 256
        max_header_bytes = 1024
        header_timeout = "300ms"
        [upstream.app]
        backends = [{addresses}]
        {upstream}
        [upstream.app.retry]
        attempts = 1
        [[route]]
        host = "shop.example"
        path = "/app"
        upstream = "app"
        [[route]]
        host = "shop.example"
        path = "/read"
        methods = ["GET", "HEAD"]
        upstream = "app"
        {rest}
        "#
    ))
}

fn ask(gateway: &Gateway, request: &str) -> Response {
    let mut client = gateway.connect();
    client.send(request.as_bytes()).expect("the gateway reads");
    let method = request.split(' ').next().unwrap_or_default();
    client.response_to(method).expect("an answer")
}

fn get_of(gateway: &Gateway, target: &str) -> Response {
    ask(
        gateway,
        &format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n"),
    )
}

/// What holds of every refusal: its body names status, reason and request, and so does the log.
fn assert_refused(gateway: &Gateway, answer: &Response, status: u16, reason: &str) -> Value {
    assert_eq!(answer.status(), status, "{}", answer.text());
    assert_eq!(
        answer.field("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    assert_eq!(answer.field("server"), None);
    assert!(answer.field("date").is_some());
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["reason"], reason);
    assert!(
        problem["title"]
            .as_str()
            .is_some_and(|title| !title.is_empty())
    );
    let id = problem["request_id"].as_str().expect("a request id");
    assert_eq!(answer.field("x-request-id"), Some(id));
    assert_is_logged(gateway, id, status, reason);
    problem
}

fn assert_is_logged(gateway: &Gateway, id: &str, status: u16, reason: &str) {
    let of_access = "\"target\":\"access\"";
    let line = gateway.wait_for_log("the refusal", |line| {
        line.contains(id) && line.contains(of_access)
    });
    let line: Value = serde_json::from_str(&line).expect("a line is an object");
    assert_eq!(line["id"], id);
    assert_eq!(line["status"], status);
    assert_eq!(line["reason"], reason);
}

#[test]
fn a_message_that_breaks_the_rules_is_refused_with_the_rule() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "", "");
    let long = "a".repeat(300);
    let large = "b".repeat(1100);
    for (request, status, reason) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "host_missing"),
        (
            "GET /../a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            400,
            "path_above_root",
        ),
        (
            format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            414,
            "request_line_too_long",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {large}\r\n\r\n"),
            431,
            "head_too_large",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: soon\r\n\r\n".to_owned(),
            417,
            "expectation_unknown",
        ),
        (
            "FOOBAR2 / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(),
            501,
            "transfer_encoding_unsupported",
        ),
        (
            "GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(),
            505,
            "version_unsupported",
        ),
    ] {
        let answer = ask(&gateway, &request);
        assert_refused(&gateway, &answer, status, reason);
        assert_eq!(answer.field("connection"), Some("close"));
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
    }
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn a_tunnel_and_an_echo_are_405_and_say_what_is_allowed() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "", "");
    for (request, reason) in [
        (
            "CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n\r\n",
            "method_connect",
        ),
        (
            "TRACE /app HTTP/1.1\r\nHost: shop.example\r\n\r\n",
            "method_trace",
        ),
    ] {
        let answer = ask(&gateway, request);
        assert_refused(&gateway, &answer, 405, reason);
        let allow = answer.field("allow").expect("Allow");
        assert!(allow.contains("GET") && !allow.contains("TRACE"), "{allow}");
    }
}

#[test]
fn what_no_route_serves_is_a_404_that_names_host_and_path() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "", "");
    let mut client = gateway.connect();
    for _ in 0..2 {
        client
            .send(b"GET /App/../x?secret=1 HTTP/1.1\r\nHost: Shop.Example\r\n\r\n")
            .expect("the gateway reads");
        let answer = client.response().expect("an answer");
        let problem = assert_refused(&gateway, &answer, 404, "no_route");
        assert_eq!(problem["host"], "shop.example");
        assert_eq!(problem["path"], "/x");
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|text| text.contains("shop.example/x"))
        );
        assert_ne!(answer.field("connection"), Some("close"));
    }
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn a_method_that_the_route_does_not_serve_is_a_405_with_allow() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "", "");
    let answer = ask(
        &gateway,
        "DELETE /read HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    );
    assert_refused(&gateway, &answer, 405, "method_not_allowed");
    assert_eq!(answer.field("allow"), Some("GET, HEAD"));
}

#[test]
fn a_head_that_does_not_end_is_a_408() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "", "");
    let answer = ask(&gateway, "GET /app HTTP/1.1\r\n");
    assert_refused(&gateway, &answer, 408, "request_timeout");
    assert_eq!(answer.field("connection"), Some("close"));
}

#[test]
fn a_body_that_is_too_large_is_a_413() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "max_body = 10", "");
    for body in [
        "Content-Length: 11\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nb\r\nabcdefghijk\r\n0\r\n\r\n",
    ] {
        let request = format!("POST /app HTTP/1.1\r\nHost: shop.example\r\n{body}");
        let answer = ask(&gateway, &request);
        let problem = assert_refused(&gateway, &answer, 413, "body_too_large");
        assert_eq!(problem["title"], "Content Too Large");
        assert_eq!(answer.field("connection"), Some("close"));
    }
}

#[test]
fn a_host_of_another_certificate_is_a_421() {
    let origin = Origin::always(Reply::ok("yes"));
    let ca = TestCa::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let certificates = folder.path().join("certs");
    ca.issue_into(&certificates, "one", &["one.example", "also-one.example"]);
    ca.issue_into(&certificates, "two", &["two.example"]);
    let gateway = Gateway::start_in(
        folder,
        &format!(
            r#"
            [server]
            listen = [{{ address = "127.0.0.1:0", tls = "certs/" }}]
            [upstream.app]
            backends = ["{}"]
            [[route]]
            upstream = "app"
            "#,
            origin.address()
        ),
    );
    let mut client = ca.connect(gateway.address(), "one.example");
    for (host, status) in [
        ("one.example", 200),
        ("also-one.example", 200),
        ("two.example", 421),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        client.send(request.as_bytes()).expect("the gateway reads");
        let answer = client.response().expect("an answer");
        assert_eq!(answer.status(), status, "{host}");
        if status == 421 {
            assert_refused(&gateway, &answer, 421, "misdirected");
        }
    }
    let client = H2::tls(gateway.address(), "one.example", &ca);
    for (host, status) in [("two.example", 421), ("one.example", 200)] {
        let answer = client.get(&format!("https://{host}/")).expect("an answer");
        assert_eq!(answer.response.status(), status, "{host}");
    }
}

#[test]
fn a_backend_at_fault_is_a_502_with_its_reason() {
    let origin = Origin::always(Reply::nothing());
    let gateway = in_front_of(&origin, "max_fails = 0", "");
    for (reply, reason) in [
        (Reply::raw("nonsense\r\n\r\n"), "upstream_protocol"),
        (Reply::nothing().then_close(), "upstream_reset"),
    ] {
        origin.reply_with(reply);
        assert_refused(&gateway, &get_of(&gateway, "/app"), 502, reason);
    }
    let mut origin = origin;
    origin.refuse();
    assert_refused(&gateway, &get_of(&gateway, "/app"), 502, "upstream_connect");
}

#[test]
fn a_client_keeps_its_connection_when_a_backend_fails_it() {
    let origin = Origin::always(Reply::nothing().then_close());
    let gateway = in_front_of(&origin, "max_fails = 0", "");
    let mut client = gateway.connect();
    let request = b"GET /app HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    for _ in 0..3 {
        client.send(request).expect("the connection is open");
        let answer = client.response().expect("an answer");
        assert_eq!(answer.status(), 502);
        assert_eq!(answer.field("connection"), None);
    }
}

#[test]
fn a_backend_that_is_down_is_a_503_that_says_when_to_come_again() {
    // Two of them: the only backend there is would be tried whatever happened.
    let mut origins = [(); 2].map(|()| Origin::always(Reply::ok("never")));
    let addresses = origins.each_ref().map(|one| one.address().to_string());
    let gateway = in_front_of_all(
        &format!("{:?}, {:?}", addresses[0], addresses[1]),
        "max_fails = 1\nfail_timeout = \"10m\"",
        "[errors]\nretry_after = \"7s\"",
    );
    origins.iter_mut().for_each(Origin::refuse);
    for _ in 0..2 {
        assert_eq!(get_of(&gateway, "/app").status(), 502);
    }
    let answer = get_of(&gateway, "/app");
    assert_refused(&gateway, &answer, 503, "upstream_unavailable");
    assert_eq!(answer.field("retry-after"), Some("7"));
}

/// A backend that answers once the sender is used or dropped.
fn held_back() -> (Origin, mpsc::Sender<()>) {
    let (release, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    let origin = Origin::with(move |_| {
        let gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = gate.recv();
        Reply::ok("late")
    });
    (origin, release)
}

fn occupy(gateway: &Gateway, origin: &Origin) -> Connection {
    let mut busy = gateway.connect();
    busy.send(b"GET /app HTTP/1.1\r\nHost: shop.example\r\n\r\n")
        .expect("the gateway reads");
    origin.wait_for_requests(1);
    busy
}

#[test]
fn a_request_too_many_for_the_queue_is_a_503() {
    let (origin, release) = held_back();
    let gateway = in_front_of(&origin, "max_connections = 1\nqueue = 0", "");
    let mut busy = occupy(&gateway, &origin);
    let answer = get_of(&gateway, "/app");
    assert_refused(&gateway, &answer, 503, "queue_full");
    assert_eq!(answer.field("retry-after"), Some("5"));
    drop(release);
    assert_eq!(busy.response().expect("an answer").text(), "late");
}

#[test]
fn a_request_that_waited_too_long_is_a_503() {
    let (origin, release) = held_back();
    let upstream = "max_connections = 1\nqueue_timeout = \"200ms\"";
    let gateway = in_front_of(&origin, upstream, "");
    let mut busy = occupy(&gateway, &origin);
    let answer = get_of(&gateway, "/app");
    assert_refused(&gateway, &answer, 503, "queue_timeout");
    assert_eq!(answer.field("retry-after"), Some("5"));
    drop(release);
    assert_eq!(busy.response().expect("an answer").text(), "late");
}

#[test]
fn a_backend_that_is_too_slow_is_a_504() {
    let origin = Origin::always(Reply::nothing().then_stall());
    let gateway = in_front_of(&origin, "timeouts.first_byte = \"200ms\"", "");
    assert_refused(&gateway, &get_of(&gateway, "/app"), 504, "upstream_timeout");
}

#[test]
fn what_the_gateway_cannot_do_is_a_500_and_no_fault_of_the_backend() {
    // The longest target that may enter, and a prefix with which it is longer than any may be.
    let origin = Origin::always(Reply::ok("never"));
    let gateway = Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        max_request_line = "64 KiB"
        max_header_bytes = "128 KiB"
        [upstream.app]
        backends = ["{}"]
        max_fails = 1
        [[route]]
        path = "/app"
        upstream = "app"
        replace_prefix = "/{}"
        "#,
        origin.address(),
        "x".repeat(1000)
    ));
    let target = format!("/app/{}", "y".repeat(65_000));
    let fields = "Host: shop.example\r\nContent-Length: 0\r\n";
    let request = format!("POST {target} HTTP/1.1\r\n{fields}\r\n");
    let mut client = gateway.connect();
    client.send(request.as_bytes()).expect("the gateway reads");
    let answer = client.response().expect("an answer");
    assert_refused(&gateway, &answer, 500, "internal");
    assert_eq!(answer.field("connection"), Some("close"));
    client.wait_for_close().expect("it is closed");
    assert_eq!(origin.received().len(), 0);
    assert_eq!(gateway.status(1)[0].state, "Up");
    assert_eq!(gateway.in_flight(1), [0]);
}

#[test]
fn the_body_is_what_the_client_accepts() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "", "");
    for (accept, expected) in [
        ("*/*", "application/problem+json"),
        ("application/json", "application/problem+json"),
        (
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/html; charset=utf-8",
        ),
        ("text/plain", "text/plain; charset=utf-8"),
        (
            "text/html;q=0.1, application/json",
            "application/problem+json",
        ),
        ("image/png", "text/plain; charset=utf-8"),
    ] {
        let request =
            format!("GET /<x> HTTP/1.1\r\nHost: shop.example\r\nAccept: {accept}\r\n\r\n")
                .replace("<x>", "nothing");
        let answer = ask(&gateway, &request);
        assert_eq!(answer.status(), 404);
        assert_eq!(answer.field("content-type"), Some(expected), "{accept}");
        assert_eq!(answer.field("vary"), Some("Accept"));
        let id = answer.field("x-request-id").expect("an id");
        assert!(answer.text().contains(id), "{accept}: {}", answer.text());
        assert!(answer.text().contains("404"), "{accept}: {}", answer.text());
    }
}

#[test]
fn a_browser_whose_cookies_have_grown_too_large_is_shown_a_page() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "", "");
    let cookie = "c".repeat(2000);
    let browser = "GET /app HTTP/1.1\r\nHost: shop.example\r\naccept: text/html,*/*;q=0.8\r\n";
    for (request, status) in [
        (format!("{browser}Cookie: {cookie}\r\n\r\n"), 431),
        (format!("{browser}Cookie : a\r\n\r\n"), 400),
        (
            browser.replace(" /app", &format!(" /{cookie}")) + "\r\n",
            414,
        ),
    ] {
        let answer = ask(&gateway, &request);
        assert_eq!(answer.status(), status);
        let form = answer.field("content-type");
        assert_eq!(form, Some("text/html; charset=utf-8"), "{status}");
    }
    // A field after the head is none of it, and no word is not a wish.
    let answer = ask(&gateway, "NONSENSE\r\n\r\nAccept: text/html\r\n\r\n");
    assert_eq!(
        answer.field("content-type"),
        Some("application/problem+json")
    );
}

#[test]
fn an_operator_replaces_the_page_by_a_file() {
    let origin = Origin::always(Reply::ok("never"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let page = "<h1>Our {{status}} {{title}}</h1>{{detail}} {{reason}} {{request_id}}";
    std::fs::write(folder.path().join("error.html"), page).expect("there is space");
    let gateway = Gateway::start_in(
        folder,
        &format!(
            r#"
            [server]
            listen = ["127.0.0.1:0"]
            [errors]
            page = "error.html"
            [upstream.app]
            backends = ["{}"]
            [[route]]
            path = "/app"
            upstream = "app"
            "#,
            origin.address()
        ),
    );
    let request = "GET /a'b HTTP/1.1\r\nHost: shop.example\r\nAccept: text/html\r\n\r\n";
    let answer = ask(&gateway, request);
    let text = answer.text();
    assert!(text.starts_with("<h1>Our 404 Not Found</h1>"), "{text}");
    assert!(text.contains("no_route"), "{text}");
    assert!(!text.contains("a'b"), "unescaped: {text}");
    assert!(text.contains(answer.field("x-request-id").expect("an id")));
    // A machine still gets JSON.
    assert_eq!(get(gateway.address(), "/x").json()["reason"], "no_route");
}

#[test]
fn head_gets_the_head_of_the_refusal_alone() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "", "");
    let mut client = gateway.connect();
    for _ in 0..2 {
        client
            .send(b"HEAD /nothing HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            .expect("the gateway reads");
        let answer = client.response_to("HEAD").expect("an answer");
        assert_eq!(answer.status(), 404);
        let length: usize = answer
            .field("content-length")
            .expect("a length")
            .parse()
            .expect("a number");
        assert!(length > 0);
    }
}

#[test]
fn a_body_of_http2_that_stops_is_a_408_and_no_fault_of_the_backend() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "timeouts.write = \"200ms\"", "");
    let mut client = Frames::open(gateway.addresses()[1]);
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "shop.example"),
        (":path", "/app"),
        ("content-length", "10"),
    ];
    // More often than `max_fails` allows a backend at fault.
    for _ in 0..5 {
        match client.unfinished(&fields, b"abc") {
            Outcome::Answered { status, body } => {
                let problem: Value = serde_json::from_slice(&body).expect("a JSON body");
                assert_eq!(
                    (status, &problem["reason"]),
                    (408, &"request_timeout".into())
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(get_of(&gateway, "/app").status(), 200);
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn a_client_of_http2_that_is_refused_may_send_its_body_to_the_end() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "", "");
    let mut client = Frames::open(gateway.addresses()[1]);
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "shop.example"),
        (":path", "/nothing"),
    ];
    let is_404 = |outcome: Outcome| matches!(outcome, Outcome::Answered { status: 404, .. });
    for rest in [1, 16_000] {
        let stream = client.ask_with(&fields, b"abc");
        assert!(is_404(client.outcome(stream)));
        let rest = vec![b'x'; rest];
        assert!(!client.ends_in_a_reset(stream, &rest));
    }

    // One that goes on and on is told to stop.
    let stream = client.ask_with(&fields, b"abc");
    assert!(is_404(client.outcome(stream)));
    assert_eq!(client.outcome(stream), Outcome::Reset { code: 0 });
}

#[test]
fn http2_is_refused_alike_and_stays_open() {
    let origin = Origin::always(Reply::raw("nonsense\r\n\r\n"));
    let gateway = in_front_of(&origin, "max_fails = 0\nmax_body = 10", "");
    let client = H2::cleartext(gateway.addresses()[1]);
    let request = |method: &str, path: &str, body: &[u8]| {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://shop.example{path}"))
            .body(body.to_vec())
            .expect("a valid request");
        client.request(request).expect("an answer")
    };
    for (method, path, body, status, reason) in [
        ("GET", "/nothing", &b""[..], 404, "no_route"),
        ("DELETE", "/read", b"", 405, "method_not_allowed"),
        ("TRACE", "/app", b"", 405, "method_trace"),
        ("POST", "/app", b"abcdefghijk", 413, "body_too_large"),
        ("GET", "/app", b"", 502, "upstream_protocol"),
    ] {
        let answer = request(method, path, body);
        assert_eq!(answer.response.status(), status, "{method} {path}");
        let problem: Value = serde_json::from_slice(answer.response.body()).expect("a JSON body");
        assert_eq!(problem["reason"], reason);
        let id = problem["request_id"].as_str().expect("an id");
        assert_eq!(answer.response.headers()["x-request-id"], id);
        assert_is_logged(&gateway, id, status, reason);
    }
    let head = request("HEAD", "/nothing", b"");
    assert_eq!(head.response.status(), 404);
    assert!(head.response.body().is_empty());
}
