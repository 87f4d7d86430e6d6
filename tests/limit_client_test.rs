//! A client that obeys what it is told: `httpx` before a FastAPI service, and a limit between them.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::apps::{Uvicorn, expect_success, python_program};
use crate::harness::gateway::Gateway;
use crate::harness::repository;
use crate::harness::tls::TestCa;

/// Ten times what the limits of these tests allow at once.
const BATCH: u64 = 100;
const KEY: &str = "3f7a9c51d0e84b62";

/// A gateway on `listener` before `service`, with one limit for all and one page that is cached.
fn config(listener: &str, service: &str, limit: &str) -> String {
    format!(
        r#"
        [server]
        listen = [{listener}]
        [upstream.app]
        backends = ["{service}"]
        {limit}
        [cache.policy.pages]
        ttl = "1h"
        [[route]]
        upstream = "app"
        limit = ["api"]
        [[route]]
        path = "/whoami"
        upstream = "app"
        limit = ["api"]
        cache = "pages"
        "#
    )
}

/// Has the client send its batch; it ends badly where a field is none, or what fields say does not fit. What it has
/// seen.
fn sent(requests: u64, url: &str, options: &[&str]) -> Value {
    let mut client = Command::new(python_program("python"));
    client
        .arg(repository("tests/apps/limit_client.py"))
        .args([url, KEY, "--requests", &requests.to_string()])
        .args(options);
    let output = expect_success("limit_client.py", &mut client);
    serde_json::from_slice(&output.stdout).expect("a summary in JSON")
}

/// All were admitted in the end, some after they were refused, and none was refused again.
fn assert_obeyed(summary: &Value, requests: u64, version: &str, policies: &Value) {
    let seen = &summary["seen"];
    assert_eq!(seen["200"], requests, "{summary}");
    assert!(seen["429"].as_u64() > Some(0), "{summary}");
    assert_eq!(seen["retries"], seen["429"], "{summary}");
    assert_eq!(seen["refused retries"], 0, "{summary}");
    assert!(seen["hits"].as_u64() > Some(requests / 5), "{summary}");
    assert_eq!(summary["versions"], json!([version]));
    assert_eq!(summary["policies"], *policies);
}

#[test]
fn a_client_that_obeys_retry_after_sends_ten_times_its_quota_and_no_retry_is_refused() {
    let service = Uvicorn::start("limited", &[]);
    let limit = r#"
        [limit.api]
        quota = "10 per second"
        key = "header:x-api-key | client-ip"
    "#;
    let service = service.address().to_string();
    let gateway = Gateway::start(&config(r#""127.0.0.1:0""#, &service, limit));
    let summary = sent(BATCH, &format!("http://{}", gateway.address()), &[]);
    assert_obeyed(
        &summary,
        BATCH,
        "HTTP/1.1",
        &json!({ "api": { "q": 10, "w": 1 } }),
    );
}

#[test]
fn a_request_that_costs_all_there_is_comes_back_when_all_of_it_is_there() {
    let service = Uvicorn::start("limited", &[]);
    let limit = r#"
        [limit.api]
        quota = "10 per 2s"
        costs = [{ path = "/upload", cost = 10 }]
        key = "header:x-api-key | client-ip"
    "#;
    let service = service.address().to_string();
    let gateway = Gateway::start(&config(r#""127.0.0.1:0""#, &service, limit));
    let url = format!("http://{}", gateway.address());
    let summary = sent(13, &url, &["--upload-cost", "10"]);
    assert_obeyed(
        &summary,
        13,
        "HTTP/1.1",
        &json!({ "api": { "q": 10, "w": 2 } }),
    );
}

#[test]
fn workers_of_one_key_that_pause_together_are_not_refused_again() {
    let service = Uvicorn::start("limited", &[]);
    let limit = r#"
        [limit.api]
        quota = ["10 per second", "1000 per hour"]
        in_flight = 20
        key = "header:x-api-key | client-ip"
    "#;
    let service = service.address().to_string();
    let gateway = Gateway::start(&config(r#""127.0.0.1:0""#, &service, limit));
    let summary = sent(
        BATCH,
        &format!("http://{}", gateway.address()),
        &["--workers", "5"],
    );
    let policies = json!({
        "api": { "q": 10, "w": 1 },
        "api-2": { "q": 1000, "w": 3600 },
        "api-in-flight": { "q": 20, "qu": "concurrent-requests" },
    });
    assert_obeyed(&summary, BATCH, "HTTP/1.1", &policies);
}

#[test]
fn http_2_gets_the_same_and_the_name_of_the_plan_too() {
    let service = Uvicorn::start("limited", &[]);
    let ca = TestCa::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    ca.issue_into(&folder.path().join("certs"), "api", &["api.example"]);
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("there is space");
    };
    write("ca.pem", &ca.certificate());
    write("keys.txt", &format!("{KEY} gold\n"));
    let limit = r#"
        [plan.free]
        quota = "1 per hour"
        [plan.gold]
        quota = "10 per second"
        in_flight = 20
        [limit.api]
        key = "header:x-api-key | client-ip"
        plans = { keys = "keys.txt", default = "free" }
    "#;
    let listener = r#"{ address = "127.0.0.1:0", tls = "certs/" }"#;
    let config = config(listener, &service.address().to_string(), limit);
    let gateway = Gateway::start_in(folder, &config);
    let ca: &Path = &gateway.folder().join("ca.pem");
    let ca = ca.to_str().expect("UTF-8 paths");
    let summary = sent(
        BATCH,
        &format!("https://{}", gateway.address()),
        &["--workers", "5", "--http2", ca, "api.example"],
    );
    let policies = json!({
        "gold": { "q": 10, "w": 1 },
        "gold-in-flight": { "q": 20, "qu": "concurrent-requests" },
    });
    assert_obeyed(&summary, BATCH, "HTTP/2", &policies);
}
