//! Fields and records: what applications and clients are told, and what the log says of it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::client::Connection;
use crate::harness::gateway::Gateway;
use crate::harness::h2_client::H2;
use crate::harness::origin::{Origin, Received, Reply};
use crate::harness::response::Response;
use crate::harness::tls::TestCa;

/// A plaintext, an h2c and a TLS listener over one backend; `rest` has the routes.
fn in_front_of(origin: &Origin, ca: &TestCa, rest: &str) -> Gateway {
    let folder = tempfile::tempdir().expect("a temporary folder");
    ca.issue_into(&folder.path().join("certs"), "site", &["test.example"]);
    Gateway::start_in(
        folder,
        &format!(
            r#"
            [server]
            listen = [
                "127.0.0.1:0",
                {{ address = "127.0.0.1:0", h2c = true }},
                {{ address = "127.0.0.1:0", tls = "certs/" }},
            ]
            [upstream.app]
            backends = ["{}"]
            {rest}
            "#,
            origin.address()
        ),
    )
}

fn ask(mut client: Connection, path: &str, fields: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test.example\r\n{fields}\r\n");
    client.send(request.as_bytes()).expect("the gateway reads");
    client.response().expect("an answer")
}

const ROUTES: &str = r#"
    [[route]]
    upstream = "app"
    [[route]]
    path = "/strict"
    upstream = "app"
    headers = "strict"
    [[route]]
    path = "/off"
    upstream = "app"
    headers = "off"
    [[route]]
    path = "/own"
    respond = { status = 200, body = "own" }
"#;

/// Every field of the gateway's own, by preset: what differs from response to response is "*".
fn expected(preset: &str, https: bool) -> BTreeMap<&'static str, &'static str> {
    let mut fields = BTreeMap::from([
        ("content-length", "3"),
        ("date", "*"),
        ("server-timing", "*"),
        ("x-request-id", "*"),
        ("x-request-time", "*"),
    ]);
    let security: &[(&str, &str)] = match preset {
        "basic" => &[
            ("referrer-policy", "strict-origin-when-cross-origin"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "SAMEORIGIN"),
            ("x-permitted-cross-domain-policies", "none"),
        ],
        "strict" => &[
            (
                "content-security-policy",
                "default-src 'self'; form-action 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'none'; upgrade-insecure-requests",
            ),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("permissions-policy", "*"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("x-dns-prefetch-control", "off"),
            ("x-frame-options", "deny"),
            ("x-permitted-cross-domain-policies", "none"),
        ],
        _ => &[],
    };
    fields.extend(security.iter().copied());
    match preset {
        "basic" if https => drop(fields.insert("strict-transport-security", "max-age=31536000")),
        "strict" if https => {
            let value = "max-age=63072000; includeSubDomains";
            fields.insert("strict-transport-security", value);
        }
        _ => {}
    }
    fields
}

fn assert_fields(answer: &Response, wanted: &BTreeMap<&str, &str>, what: &str) {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in answer.head.all() {
        let before = found.insert(name.to_ascii_lowercase(), value.to_owned());
        assert_eq!(before, None, "{what}: {name} twice");
    }
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(names, wanted.keys().copied().collect::<Vec<_>>(), "{what}");
    for (name, value) in wanted {
        if *value != "*" {
            assert_eq!(found[*name], *value, "{what}: {name}");
        }
    }
}

#[test]
fn every_preset_sends_exactly_its_fields() {
    let origin = Origin::always(Reply::ok("abc"));
    let ca = TestCa::new();
    let gateway = in_front_of(&origin, &ca, ROUTES);
    for (path, preset) in [("/", "basic"), ("/strict", "strict"), ("/off", "off")] {
        let http = ask(gateway.connect(), path, "");
        assert_fields(&http, &expected(preset, false), preset);
        let tls = ca.connect(gateway.addresses()[2], "test.example");
        let https = ask(tls, path, "");
        assert_fields(&https, &expected(preset, true), preset);
    }
    let mut own = expected("basic", false);
    own.insert("content-type", "text/plain; charset=utf-8");
    assert_fields(&ask(gateway.connect(), "/own", ""), &own, "own");
}

#[test]
fn what_the_application_says_wins_and_what_it_reveals_is_removed() {
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nServer: apache/1\r\nX-Powered-By: PHP\r\n\
        X-Frame-Options: ALLOWALL\r\nreferrer-policy: origin\r\nServer-Timing: db;dur=5\r\n\
        X-Request-ID: its-own\r\n\r\nabc";
    let origin = Origin::always(Reply::raw(reply));
    let gateway = in_front_of(&origin, &TestCa::new(), ROUTES);
    let answer = ask(gateway.connect(), "/strict", "");
    assert_eq!(answer.field("server"), None);
    assert_eq!(answer.field("x-powered-by"), None);
    let all = |name| answer.head.fields(name).collect::<Vec<_>>();
    assert_eq!(all("x-frame-options"), ["ALLOWALL"]);
    assert_eq!(all("referrer-policy"), ["origin"]);
    assert_eq!(all("server-timing").len(), 2);
    assert_eq!(all("x-request-id").len(), 1);
    assert_ne!(all("x-request-id"), ["its-own"]);
    let off = ask(gateway.connect(), "/off", "");
    assert_eq!(off.field("server"), Some("apache/1"));
}

#[test]
fn a_policy_sets_defaults_adds_and_removes() {
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A: app\r\nX-B: app\r\nX-C: app\r\n\
        X-Runtime: 5\r\n\r\nabc";
    let origin = Origin::always(Reply::raw(reply));
    let ca = TestCa::new();
    let gateway = in_front_of(
        &origin,
        &ca,
        r#"
        [headers.site]
        preset = "basic"
        set = { "X-A" = "gate" }
        default = { "X-B" = "gate", "X-D" = "gate" }
        add = { "X-C" = "gate" }
        remove = ["X-Frame-Options"]
        csp = { default-src = ["'self'"], img-src = ["'self'", "data:"] }
        hsts = "1d"
        request_set = { "X-To-App" = "yes" }
        request_remove = ["X-Secret"]
        [[route]]
        upstream = "app"
        headers = "site"
        "#,
    );
    let tls = ca.connect(gateway.addresses()[2], "test.example");
    let answer = ask(tls, "/", "X-Secret: 1\r\nX-To-App: no\r\n");
    let all = |name| answer.head.fields(name).collect::<Vec<_>>();
    assert_eq!(all("x-a"), ["gate"]);
    assert_eq!(all("x-b"), ["app"]);
    assert_eq!(all("x-c"), ["app", "gate"]);
    assert_eq!(all("x-d"), ["gate"]);
    assert_eq!(all("x-frame-options"), [""; 0]);
    assert_eq!(
        all("content-security-policy"),
        ["default-src 'self'; img-src 'self' data:"]
    );
    assert_eq!(all("strict-transport-security"), ["max-age=86400"]);
    let received = origin.received().remove(0);
    assert_eq!(received.fields("x-to-app"), ["yes"]);
    assert_eq!(received.fields("x-secret"), [""; 0]);
}

const CLAIMS: &str = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: evil.example\r\nX-Forwarded-Port: 99\r\nX-Real-IP: 203.0.113.8\r\n\
    Forwarded: for=203.0.113.9\r\nX-Request-ID: claimed-0123456789\r\n\
    traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
    X_Forwarded_For: 203.0.113.6\r\nX-Original-URL: /admin\r\nProxy: http://evil\r\n";

fn received_with_claims(trusted: &str) -> (Received, Response, u16) {
    let origin = Origin::always(Reply::ok("abc"));
    let rest = format!("[clients]\ntrusted_proxies = {trusted}\nforwarded = true\n{ROUTES}");
    let gateway = in_front_of(&origin, &TestCa::new(), &rest);
    let answer = ask(gateway.connect(), "/", CLAIMS);
    (
        origin.received().remove(0),
        answer,
        gateway.address().port(),
    )
}

#[test]
fn claims_of_an_untrusted_peer_are_replaced() {
    let (received, answer, port) = received_with_claims("[]");
    let one = |name| {
        let mut values = received.fields(name);
        assert_eq!(values.len(), 1, "{name}");
        values.remove(0)
    };
    assert_eq!(one("x-forwarded-for"), "127.0.0.1");
    assert_eq!(one("x-real-ip"), "127.0.0.1");
    assert_eq!(one("x-forwarded-proto"), "http");
    assert_eq!(one("x-forwarded-host"), "test.example");
    assert_eq!(one("x-forwarded-port"), port.to_string());
    assert_eq!(
        one("forwarded"),
        "for=127.0.0.1;proto=http;host=test.example"
    );
    assert_eq!(
        one("x-request-id"),
        answer.field("x-request-id").expect("an id")
    );
    assert_ne!(one("x-request-id"), "claimed-0123456789");
    assert!(!one("traceparent").contains("0af7651916cd43dd8448eb211c80319c"));
    for name in ["x_forwarded_for", "x-original-url", "proxy"] {
        assert_eq!(received.fields(name), [""; 0], "{name}");
    }
    assert_eq!(answer.field("strict-transport-security"), None);
}

#[test]
fn claims_of_a_trusted_proxy_are_kept_and_continued() {
    let (received, answer, _) = received_with_claims(r#"["127.0.0.0/8"]"#);
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.7, 127.0.0.1"),
        ("x-real-ip", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-port", "99"),
        ("x-request-id", "claimed-0123456789"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ] {
        assert_eq!(received.fields(name), [value], "{name}");
    }
    assert_eq!(received.fields("proxy"), [""; 0]);
    assert_eq!(received.fields("x_forwarded_for"), [""; 0]);
    assert_eq!(answer.field("x-request-id"), Some("claimed-0123456789"));
    // Its client came by https, so the promise of https reaches it.
    assert!(answer.field("strict-transport-security").is_some());
}

#[test]
fn what_belongs_to_a_hop_stays_there() {
    let reply = "HTTP/1.1 200 OK\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\n\
        Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTrailer: x\r\n\
        Content-Length: 3\r\n\r\nabc";
    let origin = Origin::always(Reply::raw(reply));
    let gateway = in_front_of(&origin, &TestCa::new(), ROUTES);
    let answer = ask(
        gateway.connect(),
        "/",
        "Connection: X-Mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n\
         Proxy-Authorization: Basic eA==\r\nTE: trailers, gzip\r\nTrailer: x\r\nHTTP2-Settings: AA\r\n",
    );
    let h2 = H2::cleartext(gateway.addresses()[1]);
    let over_h2 = h2.get("http://test.example/").expect("an answer").response;
    for name in [
        "x-hop",
        "keep-alive",
        "proxy-authenticate",
        "upgrade",
        "trailer",
    ] {
        assert_eq!(answer.field(name), None, "{name}");
        assert!(!over_h2.headers().contains_key(name), "{name}");
    }
    assert!(!over_h2.headers().contains_key("connection"));
    let received = origin.received().remove(0);
    for name in [
        "connection",
        "x-mine",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "trailer",
        "http2-settings",
    ] {
        assert_eq!(received.fields(name), [""; 0], "{name}");
    }
}

#[test]
fn timings_are_on_forwarded_and_on_own_responses() {
    let origin = Origin::always(Reply::ok("abc"));
    let gateway = in_front_of(&origin, &TestCa::new(), ROUTES);
    for (path, is_forwarded) in [("/", true), ("/own", false)] {
        let answer = ask(gateway.connect(), path, "");
        let timing = answer.field("server-timing").expect("a timing");
        assert!(timing.contains("total;dur="), "{timing}");
        assert_eq!(timing.contains("first-byte;dur="), is_forwarded, "{timing}");
        let time = answer.field("x-request-time").expect("a time");
        assert!(time.ends_with('s') && time.contains('.'), "{time}");
    }
}

/// The records of the requests `/1` to `/n` with this `[log]`, once `/last` has been recorded.
fn records(log: &str, requests: &[&str]) -> Vec<Value> {
    let origin = Origin::with(|request| match request.head.starts_with(b"GET /bad") {
        true => Reply::status(500, "no"),
        false => Reply::ok("abc"),
    });
    let rest = format!(
        "[log]\n{log}\n[upstream.app.retry]\nattempts = 1\n{ROUTES}\n[[route]]\npath = \"/last\"\nupstream = \"app\"\naccess_log = \"all\""
    );
    let gateway = in_front_of(&origin, &TestCa::new(), &rest);
    // On one connection: a request is recorded before the next one is read.
    let mut client = gateway.connect();
    for target in requests.iter().chain(&["/last"]) {
        let fields =
            "Authorization: Basic c2VjcmV0MQ==\r\nCookie: sid=secret2\r\nUser-Agent: test/1\r\n";
        let request = format!("GET {target} HTTP/1.1\r\nHost: test.example\r\n{fields}\r\n");
        client.send(request.as_bytes()).expect("the gateway reads");
        client.response().expect("an answer");
    }
    gateway.wait_for_log("the last request", |line| line.contains("\"/last\""));
    let lines = gateway.log().lines();
    for line in &lines {
        assert!(
            !line.contains("secret") && !line.contains("c2Vjcm"),
            "{line}"
        );
    }
    lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["target"] == "access" && line["path"] != "/last")
        .collect()
}

fn paths(records: &[Value]) -> Vec<&str> {
    records
        .iter()
        .filter_map(|line| line["path"].as_str())
        .collect()
}

#[test]
fn the_log_says_every_fact_once_and_no_secret() {
    let lines = records(
        "access = \"all\"",
        &["/1?token=secret3&page=2&password=secret4"],
    );
    assert_eq!(lines.len(), 1);
    let line = lines[0].as_object().expect("an object");
    for (name, value) in [
        ("level", "INFO"),
        ("client", "127.0.0.1"),
        ("method", "GET"),
        ("host", "test.example"),
        ("path", "/1"),
        ("query", "token=***&page=2&password=***"),
        ("route", "/"),
        ("upstream", "app"),
        ("protocol", "HTTP/1.1"),
        ("user_agent", "test/1"),
    ] {
        assert_eq!(line[name], value, "{name}");
    }
    for (name, value) in [
        ("status", 200),
        ("attempts", 1),
        ("bytes_in", 0),
        ("bytes_out", 3),
    ] {
        assert_eq!(line[name], value, "{name}");
    }
    for name in [
        "id",
        "timestamp",
        "backend",
        "duration_ms",
        "connect_ms",
        "first_byte_ms",
    ] {
        assert!(line.contains_key(name), "{name}");
    }
    for name in ["reason", "aborted", "tls", "peer"] {
        assert!(!line.contains_key(name), "{name}");
    }
}

#[test]
fn each_access_mode_records_its_requests() {
    let requests = ["/1", "/bad", "/2", "/3", "/4"];
    let of = |mode: &str| records(&format!("access = \"{mode}\""), &requests);
    assert_eq!(paths(&of("all")), requests);
    assert_eq!(paths(&of("errors")), ["/bad"]);
    assert_eq!(paths(&of("slow")), [""; 0]);
    assert_eq!(paths(&of("off")), [""; 0]);
    assert_eq!(of("sampled:5").len(), 1);
}

#[test]
fn a_slow_request_is_a_warning_in_every_mode() {
    let slow = Origin::with(|_| {
        // As slow as the setting asks for, not in the hope of something.
        std::thread::sleep(std::time::Duration::from_millis(30));
        Reply::ok("abc")
    });
    for mode in ["off", "slow", "errors", "all"] {
        let rest = format!("[log]\naccess = \"{mode}\"\nslow_after = \"20ms\"\n{ROUTES}");
        let gateway = in_front_of(&slow, &TestCa::new(), &rest);
        ask(gateway.connect(), "/slow", "");
        let line = gateway.wait_for_log("the warning", |line| line.contains("slow request"));
        let line: Value = serde_json::from_str(&line).expect("an object");
        assert_eq!(line["level"], "WARN", "{mode}");
        assert!(
            line["first_byte_ms"]
                .as_f64()
                .is_some_and(|took| took >= 30.0),
            "{mode}: {line}"
        );
        assert!(line["duration_ms"].as_f64() >= line["first_byte_ms"].as_f64());
    }
}
