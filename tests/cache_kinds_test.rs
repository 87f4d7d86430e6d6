//! Policies by kind of data, and what else of a policy is decided by the response.

use crate::cache_test::{MINUTE, ask, configured, counting, get, in_front_of, page, told};
use crate::harness::origin::{Origin, Received, Reply};

/// A policy of pages without a lifetime of its own, and one that has it.
const KINDS: &str = "[cache.policy.assets]\nttl = \"1h\"\n";

#[test]
fn what_is_of_another_type_is_stored_by_another_policy() {
    let origin = Origin::with(|request: &Received| {
        let image = request.head_text().contains("/logo");
        let content = if image { "image/png" } else { "text/html" };
        page(&format!("Content-Type: {content}\r\n"), "x")
    });
    // The last table is the route.
    let policy = format!(
        "{KINDS}[[route]]\npath = \"/by-type\"\nupstream = \"app\"\ncache = \"pages\"\n\
                          cache_types = {{ \"image/*\" = \"assets\" }}\n"
    );
    let gateway = in_front_of(&origin, &policy);
    for (path, second) in [
        ("/by-type/logo", "HIT"),
        ("/by-type/page", "MISS"),
        ("/logo", "MISS"),
    ] {
        assert_eq!(told(&get(&gateway, path)).0, "MISS", "{path}");
        assert_eq!(told(&get(&gateway, path)).0, second, "{path}");
    }
    let status = get(&gateway, "/by-type/logo");
    let status = status.field("cache-status").unwrap_or_default();
    assert!(
        status.contains("ttl=3600") || status.contains("ttl=359"),
        "{status}"
    );
}

#[test]
fn an_application_names_the_policy_of_a_response_and_nobody_sees_it() {
    for (name, second) in [("assets", "HIT"), ("pages", "MISS"), ("asets", "MISS")] {
        let origin = Origin::always(page(&format!("Tollgate-Cache-Policy: {name}\r\n"), "x"));
        let gateway = in_front_of(&origin, KINDS);
        let first = get(&gateway, "/");
        assert_eq!(first.field("tollgate-cache-policy"), None);
        let answer = get(&gateway, "/");
        assert_eq!(told(&answer).0, second, "{name}");
        assert_eq!(answer.field("tollgate-cache-policy"), None);
    }
}

#[test]
fn a_status_has_a_lifetime_of_its_own() {
    let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone";
    let origin = Origin::always(Reply::raw(missing));
    for (policy, second) in [
        ("ttl = \"1h\"", "MISS"),
        ("ttl_by_status = { 404 = \"1h\" }", "HIT"),
        ("ttl_by_status = { 404 = \"0s\" }", "MISS"),
    ] {
        let gateway = in_front_of(&origin, policy);
        get(&gateway, "/");
        assert_eq!(told(&get(&gateway, "/")).0, second, "{policy}");
    }
}

#[test]
fn a_page_that_was_just_stored_has_all_of_its_lifetime() {
    let origin = counting(MINUTE);
    let gateway = in_front_of(&origin, "");
    let miss = get(&gateway, "/");
    let expected = "tollgate; fwd=uri-miss; stored; ttl=60";
    assert_eq!(miss.field("cache-status"), Some(expected));
}

#[test]
fn what_only_the_cache_is_to_read_is_not_passed_on_in_any_lane() {
    let origin = counting("Cache-Control: max-age=60\r\nSurrogate-Key: news\r\nCache-Tag: a\r\n");
    let gateway = in_front_of(&origin, "");
    let mut old = gateway.connect();
    old.send(b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n")
        .expect("the gateway reads");
    for answer in [
        old.response().expect("an answer"),
        ask(&gateway, "POST", "/", "Content-Length: 0\r\n"),
    ] {
        assert_eq!(answer.field("x-cache"), Some("BYPASS"));
        for name in ["surrogate-key", "cache-tag"] {
            assert_eq!(answer.field(name), None, "{name}");
        }
    }
}

#[test]
fn a_page_that_is_fetched_anew_for_nobody_leaves_a_record_of_its_own() {
    let origin = counting("Cache-Control: max-age=1, stale-while-revalidate=60\r\nAge: 1\r\n");
    let gateway = configured(&origin, "", "");
    get(&gateway, "/");
    let stale = get(&gateway, "/");
    assert_eq!(told(&stale).0, "STALE");
    let line = gateway.wait_for_log("its record", |line| line.contains("\"refresh\""));
    let record: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(record["status"], 200);
    assert_ne!(record["id"].as_str(), stale.field("x-request-id"));
    origin.wait_for_requests(2);
    let asked = &origin.received()[1];
    assert_eq!(
        asked.fields("x-request-id"),
        [record["id"].as_str().unwrap_or_default()]
    );
}
