//! What stands in a running gateway for a request: `POST /cache/look`, and `tollgate explain --running`.

use serde_json::{Value, json};

use crate::cache_test::{ask, configured, get, page, told};
use crate::harness::client::Connection;
use crate::harness::gateway::{Gateway, tollgate};
use crate::harness::origin::Origin;
use crate::harness::port::free_port;
use crate::harness::redis::RedisServer;
use crate::harness::response::Response;
use crate::harness::wait_for;

const TOKEN: &str = "a-token-of-the-test";

/// A gateway whose pages are of two themes, tagged, and good for a minute.
fn gateway(policy: &str, rest: &str) -> (Origin, Gateway) {
    let origin = Origin::with(|request| {
        let fields = "Cache-Control: max-age=60, stale-while-revalidate=30\r\nVary: X-Theme\r\n\
                      Surrogate-Key: news front\r\nContent-Type: text/html\r\n";
        page(fields, &request.fields("x-theme").join("+"))
    });
    let admin = format!("[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"{TOKEN}\"");
    let gateway = configured(&origin, policy, &format!("{rest}\n{admin}"));
    (origin, gateway)
}

fn post(gateway: &Gateway, path: &str, token: &str, body: &Value) -> Response {
    let admin = gateway.addresses().last();
    let mut client = Connection::open(*admin.expect("the admin listener is the last"));
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(request.as_bytes()).expect("it is read");
    client.response().expect("an answer")
}

/// What the gateway says of a request for the front page.
fn look(gateway: &Gateway, headers: &[&str]) -> Value {
    let order = json!({ "url": "http://a.example/", "headers": headers });
    let answer = post(gateway, "/cache/look", TOKEN, &order);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    serde_json::from_str(&answer.text()).expect("JSON")
}

fn purge(gateway: &Gateway, order: &Value) {
    let purged = post(gateway, "/cache/purge", TOKEN, order);
    assert_eq!(purged.status(), 200, "{}", purged.text());
}

#[test]
fn an_operator_sees_what_stands_there_for_a_request_and_nothing_is_asked() {
    let (origin, gateway) = gateway("", "");
    let nothing = look(&gateway, &[]);
    assert_eq!(nothing["cache"]["memory"]["finds"], "uri-miss", "{nothing}");
    assert_eq!(nothing["cache"]["redis"], json!(null));
    assert_eq!(origin.received().len(), 0);
    for _ in 0..3 {
        ask(&gateway, "GET", "/", "X-Theme: dark\r\n");
    }
    ask(&gateway, "GET", "/", "X-Theme: light\r\n");
    let seen = look(&gateway, &["X-Theme: dark"]);
    let cache = &seen["cache"];
    assert_eq!(cache["policy"], "pages", "{seen}");
    assert_eq!(cache["audience"], "anonymous");
    assert_eq!(cache["memory"]["finds"], "fresh");
    let entries = cache["memory"]["entries"].as_array().expect("entries");
    assert_eq!(entries.len(), 2);
    let of = |is_asked: bool| {
        let mut entries = entries.iter();
        let found = entries.find(|entry| entry["is_asked"] == is_asked);
        found.expect("one of each").clone()
    };
    let dark = of(true);
    assert_eq!(dark["status"], 200);
    assert_eq!(dark["bytes"], 4);
    assert_eq!(dark["hits"], 2);
    assert_eq!(dark["content_type"], "text/html");
    assert_eq!(dark["varies_by"], json!(["x-theme"]));
    assert_eq!(dark["tags"], json!(["front", "news"]));
    let seconds = |name: &str| dark[name].as_f64().expect("seconds");
    assert!(
        seconds("age") < 60.0 && seconds("fresh_for") > 0.0,
        "{dark}"
    );
    assert!(seconds("stale_while_revalidate_for") > seconds("fresh_for"));
    assert_eq!(of(false)["hits"], 0);
    let blue = look(&gateway, &["X-Theme: blue"]);
    assert_eq!(blue["cache"]["memory"]["finds"], "vary-miss", "{blue}");
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn a_look_says_why_a_request_would_not_be_looked_up_and_tells_no_cookie() {
    let (_origin, gateway) = gateway("key_cookies = [\"country\"]", "");
    let seen = look(&gateway, &["Cookie: sessionid=hidden; country=inland"]);
    assert_eq!(seen["cache"]["bypass"], "personal_cookie", "{seen}");
    assert_eq!(seen["cache"]["memory"]["finds"], json!(null));
    let text = seen.to_string();
    assert!(text.contains(" country"), "{text}");
    assert!(
        !text.contains("hidden") && !text.contains("inland"),
        "{text}"
    );
    let order = json!({ "url": "http://a.example/", "headers": ["Cookie hidden"] });
    let refused = post(&gateway, "/cache/look", TOKEN, &order);
    assert_eq!(refused.status(), 400);
    assert!(!refused.text().contains("hidden"), "{}", refused.text());
    assert_eq!(post(&gateway, "/cache/look", "wrong", &order).status(), 401);
}

#[test]
fn what_was_purged_is_shown_with_the_purge_that_did_it_in_both_tiers() {
    let redis = RedisServer::start();
    let settings = format!("[redis]\nnodes = [\"{}\"]\ndeadline = \"1s\"", redis.url());
    let (_origin, gateway) = gateway("", &settings);
    get(&gateway, "/");
    let of = |seen: &Value, tier: &str| seen["cache"][tier]["entries"][0].clone();
    let seen = wait_for("the page to stand in Redis", || {
        let seen = look(&gateway, &[]);
        (seen["cache"]["redis"]["finds"] == "fresh").then_some(seen)
    });
    assert_eq!(of(&seen, "redis")["bytes"], 0);
    assert_eq!(of(&seen, "redis")["hits"], json!(null));
    purge(&gateway, &json!({ "host": "a.example", "soft": true }));
    let soft = look(&gateway, &[]);
    purge(&gateway, &json!({ "tag": "news" }));
    let hard = look(&gateway, &[]);
    for tier in ["memory", "redis"] {
        assert_eq!(
            soft["cache"][tier]["finds"], "stale_while_revalidate",
            "{soft}"
        );
        let by = &of(&soft, tier)["purged_by"];
        assert_eq!(*by, "soft purge of host a.example", "{soft}");
        let found = hard["cache"][tier]["finds"].as_str().expect("a word");
        assert!(found.ends_with("-miss"), "{hard}");
        assert_eq!(of(&hard, tier)["purged_by"], "purge of tag news", "{hard}");
    }
    assert_eq!(told(&get(&gateway, "/")).0, "MISS");
    drop(redis);
    let seen = look(&gateway, &[]);
    assert_eq!(seen["cache"]["memory"]["finds"], "fresh", "{seen}");
    assert!(seen["cache"]["redis"]["away"].is_string(), "{seen}");
}

/// Exit code, stdout and stderr of `tollgate explain` of the front page.
fn explain(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String, String) {
    let config = gateway.config_path();
    let config = ["--config", config.to_str().expect("UTF-8 paths")];
    let request = ["GET", "http://a.example/"];
    let output = tollgate(&[&["explain"], &request[..], &config, arguments].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn explain_adds_what_stands_in_the_running_gateway() {
    let (_origin, gateway) = gateway("", "");
    get(&gateway, "/");
    get(&gateway, "/");
    let (code, text, _) = explain(&gateway, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("running"), "{text}");
    let (code, text, _) = explain(&gateway, &["--running"]);
    assert_eq!(code, Some(0), "{text}");
    for expected in [
        "\naction      forward to upstream app",
        "\nin the running gateway\n",
        "\nmemory      fresh\n",
        "200, 0 bytes",
        "given 1 times",
        "tags front news",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn explain_says_that_no_gateway_runs_and_explains_the_file_all_the_same() {
    let (_origin, gateway) = gateway("", "");
    let token = gateway.folder().join("token");
    std::fs::write(&token, TOKEN).expect("the folder is writable");
    let nobody = format!("127.0.0.1:{}", free_port());
    let token = token.to_str().expect("UTF-8 paths");
    let elsewhere = ["--running", "--admin", &nobody, "--token-file", token];
    let (code, text, error) = explain(&gateway, &elsewhere);
    assert_eq!(code, Some(1), "{error}");
    assert!(text.contains("cache       pages for anonymous"), "{text}");
    assert!(error.contains("cannot reach"), "{error}");
    assert!(error.contains(&nobody), "{error}");
}
