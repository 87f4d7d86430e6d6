//! How backends are connected to, and what of a request they receive.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use tempfile::TempDir;

use crate::harness::client::get;
use crate::harness::gateway::Gateway;
use crate::harness::h2_origin::{Conduct, H2Origin};
use crate::harness::load::Load;
use crate::harness::origin::{Origin, Reply};
use crate::harness::response::Response;
use crate::harness::tls::TestCa;
use crate::harness::tls_origin::TlsOrigin;
use crate::harness::wait_for;

fn config(backend: impl ToString, of_upstream: &str, of_route: &str) -> String {
    format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [log]
        access = "all"
        [upstream.app]
        backends = ["{}"]
        {of_upstream}
        [[route]]
        upstream = "app"
        {of_route}
        "#,
        backend.to_string()
    )
}

fn start(backend: impl ToString, of_upstream: &str, of_route: &str) -> Gateway {
    Gateway::start(&config(backend, of_upstream, of_route))
}

/// A folder with the certificate of this authority as `ca.pem`.
fn folder_trusting(ca: &TestCa) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    std::fs::write(folder.path().join("ca.pem"), ca.certificate()).expect("there is space");
    folder
}

fn over_tls(ca: &TestCa, origin: &TlsOrigin, tls: &str) -> Gateway {
    let folder = folder_trusting(ca);
    ca.issue_into(folder.path(), "client", &["gateway.example"]);
    let config = config(origin.address(), &format!("tls = {{ {tls} }}"), "");
    Gateway::start_in(folder, &config)
}

fn assert_refused(gateway: &Gateway, origin: &TlsOrigin, why: &str) {
    let refused = get(gateway.address(), "/");
    assert_eq!(refused.status(), 502);
    assert!(
        refused.text().contains("upstream_connect"),
        "{}",
        refused.text()
    );
    let address = origin.address().to_string();
    gateway.wait_for_log("which backend and why", |line| {
        line.contains("attempt failed") && line.contains(&address) && line.contains(why)
    });
    assert_eq!(origin.served(), 0, "it was sent a request");
}

#[test]
fn a_backend_proves_its_name_by_an_authority_that_is_trusted() {
    let ca = TestCa::new();
    let origin = TlsOrigin::start(&ca, "app.example", &["http/1.1"]);
    let gateway = over_tls(&ca, &origin, r#"sni = "app.example", ca = "ca.pem""#);
    for _ in 0..10 {
        assert_eq!(get(gateway.address(), "/").text(), "hello");
    }
    assert!(origin.served() < 10, "no connection was used again");
}

#[test]
fn a_backend_of_another_name_is_refused() {
    let ca = TestCa::new();
    let origin = TlsOrigin::start(&ca, "other.example", &[]);
    let gateway = over_tls(&ca, &origin, r#"sni = "app.example", ca = "ca.pem""#);
    assert_refused(&gateway, &origin, "app.example");
}

#[test]
fn a_backend_of_an_unknown_authority_is_refused() {
    let (ca, stranger) = (TestCa::new(), TestCa::new());
    let origin = TlsOrigin::start(&stranger, "app.example", &[]);
    for trust in ["", r#", ca = "ca.pem""#] {
        let gateway = over_tls(&ca, &origin, &format!(r#"sni = "app.example"{trust}"#));
        assert_refused(&gateway, &origin, "invalid peer certificate");
    }
}

#[test]
fn who_says_insecure_gets_any_certificate() {
    let (ca, stranger) = (TestCa::new(), TestCa::new());
    let origin = TlsOrigin::start(&stranger, "other.example", &[]);
    let gateway = over_tls(&ca, &origin, "insecure = true");
    assert_eq!(get(gateway.address(), "/").text(), "hello");
}

#[test]
fn a_backend_that_asks_who_we_are_is_told() {
    let ca = TestCa::new();
    let origin = TlsOrigin::for_clients_of(&ca, &ca, "app.example");
    let anonymous = r#"sni = "app.example", ca = "ca.pem""#;
    let gateway = over_tls(&ca, &origin, anonymous);
    assert_eq!(get(gateway.address(), "/").status(), 502);
    gateway.wait_for_log("why", |line| line.contains("CertificateRequired"));
    let known = format!(r#"{anonymous}, certificate = "client.crt", key = "client.key""#);
    let gateway = over_tls(&ca, &origin, &known);
    assert_eq!(get(gateway.address(), "/").text(), "hello");
}

#[test]
fn http2_over_tls_reaches_a_backend_that_has_it() {
    let ca = TestCa::new();
    let origin = Origin::always(Reply::ok("hello"));
    let folder = TempDir::new().expect("a temporary folder");
    ca.issue_into(&folder.path().join("certs"), "app", &["app.example"]);
    let backend = config(origin.address(), "", "").replace(
        r#"["127.0.0.1:0"]"#,
        r#"[{ address = "127.0.0.1:0", tls = "certs/" }]"#,
    );
    // A second gateway is the backend: it says which version it was asked in.
    let backend = Gateway::start_in(folder, &backend);
    let upstream = r#"
        protocol = "h2"
        host = "app.example"
        tls = { sni = "app.example", ca = "ca.pem" }
    "#;
    let gateway = Gateway::start_in(
        folder_trusting(&ca),
        &config(backend.address(), upstream, ""),
    );
    let mut client = gateway.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/x").expect("a response").text(), "hello");
    }
    let line = backend.wait_for_log("the record", |line| line.contains("\"access\""));
    assert!(line.contains("HTTP/2"), "{line}");
}

#[test]
fn a_backend_that_was_to_speak_http2_and_does_not_say_so_is_refused() {
    let ca = TestCa::new();
    let origin = TlsOrigin::start(&ca, "app.example", &[]);
    let upstream = r#"
        protocol = "h2"
        tls = { sni = "app.example", ca = "ca.pem" }
    "#;
    let gateway = Gateway::start_in(
        folder_trusting(&ca),
        &config(origin.address(), upstream, ""),
    );
    for _ in 0..3 {
        let refused = get(gateway.address(), "/");
        assert_eq!(refused.status(), 502);
        assert!(
            refused.text().contains("upstream_protocol"),
            "{}",
            refused.text()
        );
    }
    gateway.wait_for_log("why", |line| line.contains("did not choose h2 by ALPN"));
    assert_eq!(origin.served(), 0, "it was sent a request");
}

#[test]
fn a_backend_may_be_a_unix_socket() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).expect("a short path");
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("the gateway connects");
        let (mut head, mut block) = (Vec::new(), [0; 4096]);
        for _ in 0..2 {
            while !head.ends_with(b"\r\n\r\n") {
                let length = socket.read(&mut block).expect("a request");
                assert_ne!(length, 0, "both requests come on one connection");
                head.extend_from_slice(&block[..length]);
            }
            head.clear();
            let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
            socket.write_all(reply).expect("the gateway reads");
        }
    });
    let gateway = start(format!("unix:{}", path.display()), "", "");
    let mut client = gateway.connect();
    for _ in 0..2 {
        assert_eq!(client.get("/").expect("a response").text(), "hello");
    }
    server.join().expect("it was content");
    // The file is there and nobody listens.
    assert_eq!(get(gateway.address(), "/").status(), 502);
}

#[test]
fn no_more_idle_connections_are_kept_than_asked_for() {
    for keepalive in [0, 2] {
        let origin = Origin::always(Reply::ok("hello"));
        let gateway = start(origin.address(), &format!("keepalive = {keepalive}"), "");
        let load = Load::start(gateway.address(), "/", 8);
        load.wait_for_more(200);
        let tally = load.stop();
        assert!(tally.statuses.keys().eq([&200]), "{:?}", tally.statuses);
        wait_for("the idle ones to be few", || {
            (origin.open() <= keepalive).then_some(())
        });
        let requests = origin.received().len();
        if keepalive == 0 {
            assert_eq!(origin.accepted(), requests);
        } else {
            assert!(origin.accepted() < requests, "none was used again");
        }
    }
}

#[test]
fn a_connection_that_idles_for_too_long_is_closed() {
    let origin = Origin::always(Reply::ok("hello"));
    let gateway = start(origin.address(), "keepalive_idle = \"200ms\"", "");
    get(gateway.address(), "/");
    assert_eq!(origin.open(), 1);
    wait_for("it to be closed", || (origin.open() == 0).then_some(()));
    assert_eq!(get(gateway.address(), "/").text(), "hello");
}

#[test]
fn a_backend_may_have_a_name() {
    let origin = Origin::always(Reply::ok("hello"));
    let name = format!("localhost:{}", origin.address().port());
    // Where localhost is ::1 as well, nobody listens there: the retry goes to 127.0.0.1.
    let gateway = start(&name, "", "");
    for _ in 0..4 {
        assert_eq!(get(gateway.address(), "/").text(), "hello");
    }
}

#[test]
fn a_name_that_does_not_exist_is_a_503_that_is_explained() {
    let gateway = start("no-such-host.invalid:80", "", "");
    let refused = get(gateway.address(), "/");
    assert_eq!(refused.status(), 503);
    assert!(
        refused.text().contains("upstream_unavailable"),
        "{}",
        refused.text()
    );
    gateway.wait_for_log("which name", |line| line.contains("no-such-host.invalid"));
}

#[test]
fn the_host_that_is_sent_is_the_one_that_was_set() {
    let origin = Origin::always(Reply::ok("hello"));
    let address = origin.address().to_string();
    for (host, expected) in [
        ("client", "test.example"),
        ("backend", address.as_str()),
        ("shop.internal", "shop.internal"),
    ] {
        let gateway = start(&address, &format!("host = \"{host}\""), "");
        get(gateway.address(), "/");
        let received = origin.received();
        let last = received.last().expect("a request");
        assert_eq!(last.fields("host"), [expected]);
        assert_eq!(last.fields("x-forwarded-host"), ["test.example"]);
    }
}

#[test]
fn a_response_head_over_its_limit_is_a_502_and_its_connection_is_discarded() {
    let head = |bytes: usize| {
        let field = format!("X-Long: {}\r\n", "x".repeat(bytes));
        Reply::raw(format!(
            "HTTP/1.1 200 OK\r\n{field}Content-Length: 2\r\n\r\nok"
        ))
    };
    let origin = Origin::always(head(1800));
    let gateway = start(origin.address(), "max_response_head = \"2 KiB\"", "");
    assert_eq!(get(gateway.address(), "/").text(), "ok");
    origin.reply_with(head(2100));
    let refused = get(gateway.address(), "/");
    assert_eq!(refused.status(), 502);
    assert!(
        refused.text().contains("upstream_protocol"),
        "{}",
        refused.text()
    );
    gateway.wait_for_log("why", |line| line.contains("larger than max_response_head"));
    wait_for("it to be closed", || (origin.open() == 0).then_some(()));
}

/// The target that the backend receives for this one.
fn target_received(origin: &Origin, gateway: &Gateway, target: &str) -> String {
    let before = origin.received().len();
    let answer: Response = get(gateway.address(), target);
    assert_eq!(answer.status(), 200, "{target}: {}", answer.text());
    let received = origin.received();
    assert_eq!(received.len(), before + 1, "{target}");
    let head = received[before].head_text();
    head.split(' ').nth(1).expect("a request line").to_owned()
}

#[test]
fn a_prefix_is_taken_away_or_replaced() {
    let origin = Origin::always(Reply::ok("hello"));
    for (route, cases) in [
        (
            "path = \"/api\"\nstrip_prefix = true",
            [
                ("/api", "/"),
                ("/api/", "/"),
                ("/api/x?y=/api", "/x?y=/api"),
                ("/api/api", "/api"),
            ],
        ),
        (
            "path = \"/api\"\nreplace_prefix = \"/v2\"",
            [
                ("/api", "/v2"),
                ("/api/", "/v2/"),
                ("/api/x?y", "/v2/x?y"),
                ("/api/%2F", "/v2/%2F"),
            ],
        ),
    ] {
        let gateway = start(origin.address(), "", route);
        for (target, expected) in cases {
            assert_eq!(
                target_received(&origin, &gateway, target),
                expected,
                "{target}"
            );
        }
        assert_eq!(get(gateway.address(), "/apiary").status(), 404);
    }
}

#[test]
fn the_path_that_is_routed_is_the_path_that_is_forwarded() {
    let origin = Origin::always(Reply::ok("hello"));
    let gateway = start(origin.address(), "", "path = \"/a\"");
    for (target, expected) in [
        ("/a/b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/x/../a/b", "/a/b"),
        ("/x/%2e%2E/a/b", "/a/b"),
        ("/%61/b", "/a/b"),
        ("/a/%7Eme?q=%7E", "/a/~me?q=%7E"),
        ("/a/%2fb", "/a/%2Fb"),
        ("/a//b", "/a//b"),
        ("/a/b;c=d", "/a/b;c=d"),
        ("/a/%252e%252e/b", "/a/%252e%252e/b"),
        ("/a?", "/a?"),
    ] {
        assert_eq!(
            target_received(&origin, &gateway, target),
            expected,
            "{target}"
        );
    }
    for target in ["/a/../b", "/a/%2e%2e/b", "/b/a"] {
        assert_eq!(get(gateway.address(), target).status(), 404, "{target}");
    }
}

#[test]
fn a_status_above_599_of_an_http2_backend_is_a_502() {
    let origin = H2Origin::start(Conduct::Answers(700));
    let gateway = start(origin.address(), "protocol = \"h2c\"", "");
    let refused = get(gateway.address(), "/");
    assert_eq!(refused.status(), 502, "{}", refused.text());
    assert!(
        refused.text().contains("upstream_protocol"),
        "{}",
        refused.text()
    );
}

#[test]
fn a_slow_upload_to_an_http2_backend_is_not_the_backends_fault() {
    let origins = [(); 2].map(|()| H2Origin::start(Conduct::Answers(200)));
    let backends = format!("{}\", \"{}", origins[0].address(), origins[1].address());
    let upstream = "protocol = \"h2c\"\nmax_fails = 1\n\
        timeouts = { first_byte = \"300ms\", read = \"300ms\" }";
    let gateway = start(backends, upstream, "");
    let mut client = gateway.connect();
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1")
        .expect("the gateway reads");
    let refused = client.response().expect("an answer");
    assert_eq!(refused.status(), 408, "{}", refused.text());
    for backend in gateway.status(2) {
        assert!(backend.state.starts_with("Up"), "{backend:?}");
    }
}
