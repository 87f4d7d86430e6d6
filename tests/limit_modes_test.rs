//! The modes of limits other than refusing: shadow, delay and tarpit; and what operators see and change.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::client::Connection;
use crate::harness::gateway::{Gateway, tollgate};
use crate::harness::origin::{Origin, Reply};
use crate::harness::response::Response;
use crate::harness::wait_for;

const TOKEN: &str = "a-token-of-the-test";

/// A gateway before the origin with one limit. GET goes by the express lane, POST by the full one. Requests come by
/// a proxy that is believed, so that there are many clients.
fn gateway(origin: &Origin, limit: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [clients]
        trusted_proxies = ["127.0.0.1"]
        [admin]
        listen = "127.0.0.1:0"
        token = "{TOKEN}"
        [upstream.app]
        backends = ["{}"]
        [limit.api]
        {limit}
        [[route]]
        upstream = "app"
        limit = ["api"]
        "#,
        origin.address()
    ))
}

fn ask_as(client: &mut Connection, method: &str, address: &str, fields: &str) -> Response {
    let length = match method {
        "POST" => "Content-Length: 0\r\n",
        _ => "",
    };
    let request = format!(
        "{method} / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: {address}\r\n{length}{fields}\r\n"
    );
    client.send(request.as_bytes()).expect("it is taken");
    client.response().expect("an answer")
}

fn ask(gateway: &Gateway, method: &str, address: &str) -> Response {
    let mut client = Connection::open(gateway.address());
    ask_as(&mut client, method, address, "")
}

fn admin(gateway: &Gateway, method: &str, path: &str, body: &Value) -> Response {
    let admin = gateway.addresses().last();
    let mut client = Connection::open(*admin.expect("the admin listener is the last"));
    let body = match method {
        "GET" => String::new(),
        _ => body.to_string(),
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(request.as_bytes()).expect("it is read");
    client.response().expect("an answer")
}

/// What a command says that this gateway is asked by.
pub fn told(gateway: &Gateway, arguments: &[&str]) -> String {
    let config = gateway.config_path();
    let config = config.to_str().expect("a path of text");
    let arguments = [&["limit"], arguments, &["--config", config]].concat();
    let output = tollgate(&arguments);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).expect("text");
    assert!(output.status.success(), "{said}");
    said
}

fn waiting(gateway: &Gateway) -> bool {
    let metrics = admin(gateway, "GET", "/metrics", &json!(null)).text();
    !metrics.contains("tollgate_limit_waiting{limit=\"api\"} 0")
}

#[test]
fn requests_over_the_rate_wait_for_their_turn_and_those_that_would_wait_too_long_are_refused() {
    let origin = Origin::always(Reply::ok("ok"));
    let limit = r#"
        quota = "5 per second, burst 1"
        mode = "delay"
        delay = { up_to = "500ms" }
    "#;
    for method in ["GET", "POST"] {
        let gateway = gateway(&origin, limit);
        let began = Instant::now();
        let mut answers: Vec<(u16, Duration)> = thread::scope(|scope| {
            let one = || {
                let status = ask(&gateway, method, "192.0.2.1").status();
                (status, began.elapsed())
            };
            let all: Vec<_> = (0..5).map(|_| scope.spawn(one)).collect();
            all.into_iter()
                .map(|one| one.join().expect("it asks"))
                .collect()
        });
        answers.sort_by_key(|(_, after)| *after);
        let served: Vec<_> = answers
            .iter()
            .filter(|(status, _)| *status == 200)
            .collect();
        let refused = answers.iter().filter(|(status, _)| *status == 429);
        assert!((3..=4).contains(&served.len()), "{method}: {answers:?}");
        assert_eq!(refused.count(), 5 - served.len(), "{method}: {answers:?}");
        for (place, (_, after)) in served.iter().enumerate() {
            let turn = Duration::from_millis(200) * place as u32;
            assert!(
                *after >= turn.saturating_sub(Duration::from_millis(50)),
                "{method}: {answers:?}"
            );
        }
        // Others have a bucket of their own.
        assert_eq!(ask(&gateway, method, "192.0.2.2").status(), 200);
    }
}

#[test]
fn who_leaves_while_waiting_frees_its_place_and_no_application_is_asked() {
    let origin = Origin::always(Reply::ok("ok"));
    let limit = r#"
        quota = "1 per minute"
        mode = "delay"
        delay = { up_to = "1m", waiting = 1 }
    "#;
    for method in ["GET", "POST"] {
        let gateway = gateway(&origin, limit);
        let before = origin.received().len();
        assert_eq!(ask(&gateway, method, "192.0.2.1").status(), 200);
        let mut waits = Connection::open(gateway.address());
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nContent-Length: 0\r\n\r\n"
        );
        waits.send(request.as_bytes()).expect("it is taken");
        wait_for("it waits", || waiting(&gateway).then_some(()));
        drop(waits);
        wait_for("its place is free", || (!waiting(&gateway)).then_some(()));
        assert_eq!(origin.received().len(), before + 1, "{method}");
    }
}

#[test]
fn refusals_come_after_a_pause_and_at_once_where_too_many_wait() {
    let origin = Origin::always(Reply::ok("ok"));
    let limit = r#"
        quota = "1 per hour"
        mode = "tarpit"
        tarpit = { pause = "700ms", waiting = 1 }
    "#;
    for method in ["GET", "POST"] {
        let gateway = gateway(&origin, limit);
        assert_eq!(ask(&gateway, method, "192.0.2.1").status(), 200);
        thread::scope(|scope| {
            let slow = scope.spawn(|| {
                let began = Instant::now();
                let refused = ask(&gateway, method, "192.0.2.1");
                (refused, began.elapsed())
            });
            wait_for("a refusal waits", || waiting(&gateway).then_some(()));
            let at_once = ask(&gateway, method, "192.0.2.1");
            assert_eq!(at_once.status(), 429);
            assert!(
                !slow.is_finished(),
                "{method}: the first has waited no longer"
            );
            let (refused, after) = slow.join().expect("it asks");
            assert_eq!(refused.status(), 429);
            assert!(refused.field("retry-after").is_some());
            assert!(after >= Duration::from_millis(700), "{method}: {after:?}");
        });
        assert!(!waiting(&gateway));
    }
}

/// Requests of several clients, at times that a Poisson process might have: microseconds since the one before, whose.
fn trace() -> Vec<(u64, String)> {
    let mut state: u64 = 42;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1_u64 << 24) as f64
    };
    let all = (0..2_000).map(|_| {
        let pause = -1_000.0 * (1.0 - random()).ln();
        let client = (random() * random() * 8.0) as u8;
        (pause as u64, format!("192.0.2.{client}"))
    });
    all.collect()
}

#[test]
fn a_shadow_reports_what_a_limit_refuses_of_the_same_requests() {
    let origin = Origin::always(Reply::ok("ok"));
    let quota = r#"quota = "60 per second, burst 40""#;
    let shadow = gateway(&origin, &format!("{quota}\nmode = \"shadow\""));
    let enforced = gateway(&origin, quota);
    let mut refused = 0_u64;
    let mut both = [&shadow, &enforced].map(|gateway| Connection::open(gateway.address()));
    let mut due = Instant::now();
    for (pause, client) in trace() {
        due += Duration::from_micros(pause);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let [in_shadow, enforced] = &mut both;
        assert_eq!(ask_as(in_shadow, "GET", &client, "").status(), 200);
        refused += u64::from(ask_as(enforced, "GET", &client, "").status() == 429);
    }
    let report = |gateway| -> Value {
        let report = admin(gateway, "GET", "/limit/report", &json!(null));
        report.json()["limits"][0].clone()
    };
    let (would, were) = (report(&shadow), report(&enforced));
    assert_eq!(were["refused"], json!(refused), "{were}");
    assert_eq!(
        (&would["requests"], &were["requests"]),
        (&json!(2_000), &json!(2_000))
    );
    let near = |one: &Value, other: &Value| {
        let (one, other) = (
            one.as_f64().expect("a count"),
            other.as_f64().expect("a count"),
        );
        (one - other).abs() <= (other * 0.01).max(1.0)
    };
    assert!(refused > 200, "{were}");
    assert!(
        near(&would["would_be_refused"], &were["refused"]),
        "{would} {were}"
    );
    let of = |report: &Value, client: &str| {
        let clients = report["clients"].as_array().expect("a list").iter();
        let mut found = clients.filter(|one| one["client"] == client);
        found.next().map(|one| one["times"].clone())
    };
    let heaviest = were["clients"][0]["client"].as_str().expect("a client");
    let times = |report| of(report, heaviest).expect("both have refused it");
    assert!(near(&times(&would), &times(&were)), "{would} {were}");
    let text = told(&shadow, &["report", "api"]);
    assert!(
        text.starts_with("api, shadow: of 2000 requests in "),
        "{text}"
    );
    assert!(text.contains("would have been refused"), "{text}");
}

#[test]
fn an_operator_sees_how_a_client_stands_and_gives_it_a_fresh_start() {
    let origin = Origin::always(Reply::ok("ok"));
    let limit = r#"
        quota = ["3 per hour", "100 per day"]
        in_flight = 5
        key = "header:x-api-key | client-ip"
    "#;
    let gateway = gateway(&origin, limit);
    let with_key = || {
        let mut client = Connection::open(gateway.address());
        ask_as(
            &mut client,
            "GET",
            "192.0.2.9",
            "X-API-Key: correct horse\r\n",
        )
        .status()
    };
    let statuses: Vec<_> = (0..4).map(|_| with_key()).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    ask(&gateway, "GET", "192.0.2.7");

    let shown = admin(
        &gateway,
        "POST",
        "/limit/show",
        &json!({ "key": "header:x-api-key=correct horse" }),
    );
    let standing = &shown.json()["limits"][0];
    assert_eq!(standing["quotas"][0]["used"], 3, "{standing}");
    assert_eq!(standing["quotas"][0]["left"], 0);
    assert_eq!(standing["quotas"][1]["left"], 97);
    assert_eq!(standing["in_flight"]["most"], 5);
    assert!(!shown.text().contains("horse"), "{}", shown.text());

    let by_address = told(&gateway, &["show", "client-ip=192.0.2.7"]);
    assert!(
        by_address.contains("api 192.0.2.7: 1 used, 2 left of 3 per hour"),
        "{by_address}"
    );
    assert!(by_address.contains("no ban"), "{by_address}");

    // The list has no name of a client but its address; what it says instead finds it again.
    let top = told(&gateway, &["top", "--minutes", "5"]);
    assert!(top.contains("192.0.2.7 1 requests"), "{top}");
    assert!(!top.contains("horse"), "{top}");
    let line = top
        .lines()
        .find(|line| line.contains("4 requests, 1 too many"));
    let digest = line.and_then(|line| line.split_whitespace().next());
    let digest = digest.expect("the client with the key");
    assert!(
        told(&gateway, &["show", digest]).contains("3 used, 0 left"),
        "{top}"
    );

    let reset = told(&gateway, &["reset", digest]);
    assert!(reset.contains("begins anew with 2 quotas"), "{reset}");
    assert_eq!(with_key(), 200);
    gateway.wait_for_log("the fresh start", |line| {
        line.contains("what a client has used is forgotten")
    });
    let log = gateway.log().lines().join("\n");
    assert!(!log.contains("horse"), "{log}");
}

#[test]
fn who_is_meant_has_to_be_one_that_a_limit_counts() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = gateway(&origin, "quota = \"3 per hour\"");
    let show = |order: Value| {
        let answer = admin(&gateway, "POST", "/limit/show", &order);
        (answer.status(), answer.json()["error"].to_string())
    };
    let (status, why) = show(json!({ "key": "header:x-api-key=abc" }));
    assert!(
        status == 404 && why.contains("api by client-ip"),
        "{status} {why}"
    );
    let (status, why) = show(json!({ "key": "client-ip=nobody" }));
    assert!(
        status == 400 && why.contains("client-ip=203.0.113.7"),
        "{status} {why}"
    );
    let (status, why) = show(json!({ "key": "client-ip=192.0.2.1", "limit": "apii" }));
    assert!(
        status == 404 && why.contains("defined: api"),
        "{status} {why}"
    );
    let (status, why) = show(json!({ "key": "#0123456789abcdef" }));
    assert!(
        status == 404 && why.contains("#0123456789abcdef"),
        "{status} {why}"
    );
}

#[test]
fn an_explanation_names_the_limits_of_a_request_and_how_its_client_stands() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = gateway(&origin, "quota = \"3 per hour\"\nin_flight = 2");
    ask(&gateway, "GET", "192.0.2.7");
    let config = gateway.config_path();
    let config = config.to_str().expect("a path of text");
    let explained = tollgate(&[
        "explain",
        "--config",
        config,
        "--running",
        "--client",
        "192.0.2.7",
        "GET",
        "http://a.example/",
    ]);
    let text = String::from_utf8(explained.stdout).expect("text");
    for line in [
        "limit       api: 3 per hour, 2 at once, by client-ip",
        "takes 1, counted by client-ip",
        "limit       api 192.0.2.7: 1 used, 2 left of 3 per hour",
        "limit       api 192.0.2.7: 0 of 2 under way",
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
    // It has taken nothing.
    assert!(told(&gateway, &["show", "client-ip=192.0.2.7"]).contains("1 used, 2 left"));
}
