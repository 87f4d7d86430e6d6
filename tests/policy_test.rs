//! Header policies of an operator's own, and Forwarded: the settings that `header_test` leaves out.

use crate::harness::client::Connection;
use crate::harness::gateway::Gateway;
use crate::harness::origin::{Origin, Reply};
use crate::harness::response::Response;
use crate::harness::tls::TestCa;

/// What a client gets over https of an application that says who it is, under this policy.
fn answer_under(policy: &str) -> Response {
    let reply =
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nServer: app/1\r\nX-Powered-By: x\r\n\r\nabc";
    let origin = Origin::always(Reply::raw(reply));
    let ca = TestCa::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    ca.issue_into(&folder.path().join("certs"), "site", &["test.example"]);
    let gateway = Gateway::start_in(
        folder,
        &format!(
            r#"
            [server]
            listen = [{{ address = "127.0.0.1:0", tls = "certs/" }}]
            [upstream.app]
            backends = ["{}"]
            [headers.site]
            {policy}
            [[route]]
            upstream = "app"
            headers = "site"
            "#,
            origin.address()
        ),
    );
    let mut client = ca.connect(gateway.address(), "test.example");
    client
        .send(b"GET / HTTP/1.1\r\nHost: test.example\r\n\r\n")
        .expect("the gateway reads");
    client.response().expect("an answer")
}

const CSP: &str = "content-security-policy";
const REPORT: &str = "content-security-policy-report-only";
const HSTS: &str = "strict-transport-security";

#[test]
fn a_csp_may_only_report() {
    let own = r#"csp = { default-src = ["'self'"] }"#;
    let blocking = answer_under(own);
    assert_eq!(blocking.field(CSP), Some("default-src 'self'"));
    assert_eq!(blocking.field(REPORT), None);

    let reporting = answer_under(&format!("{own}\ncsp_report_only = true"));
    assert_eq!(reporting.field(CSP), None);
    assert_eq!(reporting.field(REPORT), Some("default-src 'self'"));
}

#[test]
fn the_csp_of_the_strict_preset_may_only_report() {
    let reporting = answer_under("preset = \"strict\"\ncsp_report_only = true");
    assert_eq!(reporting.field(CSP), None);
    let policy = reporting.field(REPORT).expect("the preset's");
    assert!(policy.starts_with("default-src 'self'"), "{policy}");
}

#[test]
fn a_policy_starts_from_the_preset_it_names() {
    let strict = answer_under("preset = \"strict\"\nset = { \"X-Own\" = \"1\" }");
    assert_eq!(strict.field("referrer-policy"), Some("no-referrer"));
    assert_eq!(strict.field("server"), None);
    assert_eq!(strict.field("x-own"), Some("1"));

    let off = answer_under("preset = \"off\"\nset = { \"X-Own\" = \"1\" }");
    for name in ["referrer-policy", "x-frame-options", HSTS, CSP] {
        assert_eq!(off.field(name), None, "{name}");
    }
    assert_eq!(off.field("server"), Some("app/1"));
    assert_eq!(off.field("x-powered-by"), Some("x"));
    assert_eq!(off.field("x-own"), Some("1"));
    assert!(off.field("x-request-id").is_some());
}

#[test]
fn hsts_is_what_the_policy_says_or_not_sent() {
    for (policy, wanted) in [
        ("", Some("max-age=31536000")),
        ("hsts = false", None),
        ("hsts = \"1h\"", Some("max-age=3600")),
        ("preset = \"strict\"\nhsts = false", None),
        ("preset = \"off\"\nhsts = \"1h\"", Some("max-age=3600")),
    ] {
        assert_eq!(answer_under(policy).field(HSTS), wanted, "{policy}");
    }
}

#[test]
fn forwarded_is_sent_only_where_it_is_asked_for() {
    for (setting, wanted) in [
        ("", None),
        ("forwarded = false", None),
        (
            "forwarded = true",
            Some("for=127.0.0.1;proto=http;host=test.example"),
        ),
    ] {
        let origin = Origin::always(Reply::ok("abc"));
        let gateway = Gateway::start(&format!(
            r#"
            [server]
            listen = ["127.0.0.1:0"]
            [clients]
            {setting}
            [upstream.app]
            backends = ["{}"]
            [[route]]
            upstream = "app"
            "#,
            origin.address()
        ));
        let mut client = Connection::open(gateway.address());
        client
            .send(b"GET / HTTP/1.1\r\nHost: test.example\r\nForwarded: for=evil.example\r\n\r\n")
            .expect("the gateway reads");
        client.response().expect("an answer");
        let sent = origin.received().remove(0).fields("forwarded");
        assert_eq!(sent.first().map(String::as_str), wanted, "{setting}");
        assert!(sent.len() <= 1, "{sent:?}");
    }
}
