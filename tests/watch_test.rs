//! What operators see of the cache, on the admin listener.

use serde_json::{Value, json};

use crate::cache_test::{MINUTE, configured, get, page};
use crate::harness::client::Connection;
use crate::harness::gateway::Gateway;
use crate::harness::origin::Origin;
use crate::harness::redis::RedisServer;
use crate::harness::response::Response;
use crate::harness::wait_for;

const TOKEN: &str = "a-token-of-the-test";

fn watched(rest: &str) -> (Origin, Gateway) {
    let origin = Origin::with(|_| page(MINUTE, "page"));
    let admin = format!("[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"{TOKEN}\"");
    let gateway = configured(&origin, "", &format!("{rest}\n{admin}"));
    (origin, gateway)
}

fn look(gateway: &Gateway, path: &str, fields: &str) -> Response {
    let admin = gateway.addresses().last();
    let mut client = Connection::open(*admin.expect("the admin listener is the last"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    client.send(request.as_bytes()).expect("it is read");
    client.response().expect("an answer")
}

fn opened(gateway: &Gateway, path: &str) -> String {
    let answer = look(gateway, path, &format!("Authorization: Bearer {TOKEN}\r\n"));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.text()
}

fn cache(gateway: &Gateway) -> Value {
    serde_json::from_str(&opened(gateway, "/cache")).expect("JSON")
}

#[test]
fn a_miss_and_three_hits_are_counted_as_such() {
    let (_origin, gateway) = watched("");
    for _ in 0..4 {
        get(&gateway, "/");
    }
    // A request is counted when its answer has been sent.
    wait_for("four answers", || {
        (cache(&gateway)["all"]["answers"]["memory"]["hit"] == 3).then_some(())
    });
    let seen = cache(&gateway);
    assert_eq!(seen["all"]["answers"]["origin"]["miss"], 1, "{seen}");
    assert_eq!(seen["all"]["hit_ratio_by_minutes"]["5"], 0.75, "{seen}");
    assert_eq!(seen["memory"]["keys"], 1, "{seen}");
    assert_eq!(
        seen["memory"]["capacity"],
        256 << 20,
        "as configured: {seen}"
    );
    assert_eq!(seen["redis"], json!(null));
    let routes = seen["routes"].as_object().expect("routes");
    assert!(routes.values().any(|route| *route == seen["all"]), "{seen}");

    let metrics = opened(&gateway, "/metrics");
    let hits = metrics
        .lines()
        .find(|line| line.contains("outcome=\"hit\""));
    let hits = hits.expect("a line of hits");
    assert!(
        hits.starts_with("tollgate_cache_requests_total{route="),
        "{hits}"
    );
    assert!(
        hits.ends_with(",tier=\"memory\",outcome=\"hit\"} 3"),
        "{hits}"
    );
}

#[test]
fn numbers_need_the_token_and_health_does_not() {
    let (_origin, gateway) = watched("");
    assert_eq!(look(&gateway, "/cache", "").status(), 401);
    assert_eq!(look(&gateway, "/metrics", "").status(), 401);
    assert_eq!(look(&gateway, "/health", "").status(), 200);
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let metrics = look(&gateway, "/metrics", &token);
    let content_type = metrics.field("content-type");
    assert_eq!(content_type, Some("text/plain; version=0.0.4"));
}

#[test]
fn the_end_of_redis_is_seen_and_the_gateway_stays_healthy() {
    let redis = RedisServer::start();
    let settings = format!("[redis]\nnodes = [\"{}\"]", redis.url());
    let (_origin, gateway) = watched(&settings);
    let health = || look(&gateway, "/health", "");
    let says = |state: &str| health().text().contains(state).then_some(());
    wait_for("Redis", || says("\"redis\":\"up\""));
    assert!(opened(&gateway, "/metrics").contains("\ntollgate_redis_up 1\n"));
    drop(redis);
    wait_for("its end", || says("\"redis\":\"away: "));
    assert_eq!(health().status(), 200);
    assert!(opened(&gateway, "/metrics").contains("\ntollgate_redis_up 0\n"));
}

#[test]
fn a_redis_that_refuses_writes_is_up_and_said_to_refuse_them() {
    let redis = RedisServer::start();
    let settings = format!("[redis]\nnodes = [\"{}\"]", redis.url());
    let (_origin, gateway) = watched(&settings);
    let says = |line: &str| opened(&gateway, "/metrics").contains(line).then_some(());
    wait_for("Redis", || says("\ntollgate_redis_takes_writes 1\n"));
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    get(&gateway, "/");
    wait_for("the refusal", || says("\ntollgate_redis_takes_writes 0\n"));
    assert!(says("\ntollgate_redis_up 1\n").is_some());
    let health = look(&gateway, "/health", "").text();
    assert!(
        health.contains("takes no writes: out-of-memory"),
        "{health}"
    );
}

#[test]
fn what_waits_to_be_written_to_redis_is_counted() {
    let redis = RedisServer::start();
    let settings = format!(
        "[redis]\nnodes = [\"{}\"]\ndeadline = \"10ms\"",
        redis.url()
    );
    let (_origin, gateway) = watched(&settings);
    let queued = || cache(&gateway)["shared"]["queued"].clone();
    let says = |line: &str| opened(&gateway, "/metrics").contains(line).then_some(());
    wait_for("Redis", || {
        let answer = look(&gateway, "/health", "").text();
        answer.contains("\"redis\":\"up\"").then_some(())
    });
    assert_eq!(queued(), json!({ "writes": 0, "bytes": 0 }));
    redis.pause();
    get(&gateway, "/");
    wait_for("a write that waits", || {
        says("\ntollgate_redis_cache_queued_writes 1\n").and_then(|()| {
            let bytes = queued()["bytes"].as_u64();
            (bytes > Some(0)).then_some(())
        })
    });
    redis.resume();
    wait_for("the end of the queue", || {
        (queued()["writes"] == 0).then_some(())
    });
}
