//! What somebody meets who uses the program for the first time, by its README alone.

use crate::harness::client::raw;
use crate::harness::gateway::{Gateway, tollgate};
use crate::harness::{PATIENCE, repository};

#[test]
fn a_redirect_to_https_needs_a_host_to_lead_to() {
    let gateway = Gateway::start(
        r#"
        [server]
        listen = [{ address = "127.0.0.1:0", redirect_https = true }]
        [[route]]
        respond = { status = 200, body = "never" }
        "#,
    );
    let answer = raw(gateway.address(), b"GET /a HTTP/1.0\r\n\r\n", PATIENCE);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains(" 400 "), "{answer}");
    assert!(answer.contains("host_missing"), "{answer}");
}

#[test]
fn a_mistake_on_the_command_line_ends_with_2() {
    let reference = repository("gateway.toml");
    let reference = reference.to_str().expect("UTF-8 paths");
    let mistakes: [&[&str]; 4] = [
        &["explain", "--config", reference, "GET", "shop.example/"],
        &["upgrade", "--config", reference],
        &["run", "--upstream", "nowhere"],
        &["certs", "--dir", "/dev/null/certs", "--host", "a b"],
    ];
    for mistake in mistakes {
        let output = tollgate(mistake);
        assert_eq!(output.status.code(), Some(2), "{mistake:?}");
        assert!(!output.stderr.is_empty());
    }
}
