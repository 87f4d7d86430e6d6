//! Plans: what clients may do by the plan of their key, and who they are by a token that is verified.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::client::Connection;
use crate::harness::gateway::Gateway;
use crate::harness::origin::{Origin, Reply};
use crate::harness::redis::RedisServer;
use crate::harness::response::Response;
use crate::harness::wait_for;

const SECRET: &str = "a secret of thirty-two bytes, or more";

/// Two requests of the plan `free`, four of `gold`, one of who has no key.
fn config(origin: &Origin, keys: &str, rest: &str) -> String {
    format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [upstream.app]
        backends = ["{}"]
        [plan.anonymous]
        quota = "1 per hour"
        [plan.free]
        quota = "2 per hour"
        [plan.gold]
        quota = "4 per hour"
        [limit.api]
        key = "header:x-api-key | client-ip"
        plans = {{ keys = "{keys}", default = "free", none = "anonymous" }}
        [[route]]
        upstream = "app"
        limit = ["api"]
        {rest}
        "#,
        origin.address()
    )
}

fn put(folder: &Path, name: &str, text: &str) {
    let new = folder.join(format!("{name}.new"));
    std::fs::write(&new, text).expect("it is written");
    std::fs::rename(new, folder.join(name)).expect("it is put in place");
}

fn gateway(origin: &Origin, keys: &str) -> Gateway {
    let folder = tempfile::tempdir().expect("a temporary folder");
    put(folder.path(), "keys.txt", keys);
    Gateway::start_in(folder, &config(origin, "keys.txt", ""))
}

fn asked(gateway: &Gateway, fields: &str) -> Response {
    let request = format!("GET / HTTP/1.1\r\nHost: test.example\r\n{fields}\r\n");
    let mut client = Connection::open(gateway.address());
    client.send(request.as_bytes()).expect("it is taken");
    client.response().expect("an answer")
}

fn by_key(gateway: &Gateway, key: &str) -> Response {
    asked(gateway, &format!("X-API-Key: {key}\r\n"))
}

fn admitted(gateway: &Gateway, key: &str, times: usize) -> usize {
    let all = (0..times).map(|_| by_key(gateway, key).status());
    all.filter(|status| *status == 200).count()
}

fn plan(response: &Response) -> &str {
    let policy = response.field("ratelimit-policy").expect("it is told");
    policy.split('"').nth(1).expect("it is called something")
}

#[test]
fn each_key_has_the_quota_of_its_plan_and_is_told_its_name() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = gateway(
        &origin,
        "k1 gold # ada\nsha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad free\n",
    );
    assert_eq!(plan(&by_key(&gateway, "k1")), "gold");
    assert_eq!(admitted(&gateway, "k1", 5), 3);
    assert_eq!(plan(&by_key(&gateway, "abc")), "free");
    assert_eq!(admitted(&gateway, "abc", 5), 1);
    let first = asked(&gateway, "");
    assert_eq!((first.status(), plan(&first)), (200, "anonymous"));
    let refused = asked(&gateway, "");
    assert_eq!(refused.status(), 429);
    let problem: Value = refused.json();
    assert_eq!(problem["violated-policies"], json!(["anonymous"]));
}

#[test]
fn keys_that_are_made_up_are_one_client() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = gateway(&origin, "k1 gold\n");
    let made_up = (0..20).map(|number| by_key(&gateway, &format!("made-up-{number}")));
    assert_eq!(made_up.filter(|one| one.status() == 200).count(), 2);
    assert_eq!(admitted(&gateway, "k1", 5), 4);
}

#[test]
fn a_change_of_plan_holds_from_the_next_request_on_and_keeps_what_was_used() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = gateway(&origin, "k1 free\n");
    assert_eq!(admitted(&gateway, "k1", 5), 2);

    put(gateway.folder(), "keys.txt", "k1 gold\n");
    gateway.wait_for_log("the file is read", |line| {
        line.contains("key file taken from disk")
    });
    // Two of the four have been used.
    assert_eq!(admitted(&gateway, "k1", 5), 2);
    assert_eq!(plan(&by_key(&gateway, "k1")), "gold");
}

#[test]
fn a_wrong_file_of_keys_changes_nothing_and_says_why() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = gateway(&origin, "k1 gold\n");
    put(gateway.folder(), "keys.txt", "k1 free\nk2 goldd\n");
    let wrong = gateway.wait_for_log("the wrong line", |line| line.contains("key file refused"));
    assert!(
        wrong.contains("keys.txt:2: ") && wrong.contains("goldd"),
        "{wrong}"
    );
    assert_eq!(admitted(&gateway, "k1", 5), 4);
}

#[test]
fn a_hash_in_redis_says_the_plans_and_nobody_fails_while_it_is_away() {
    let origin = Origin::always(Reply::ok("ok"));
    let mut redis = RedisServer::start();
    let hashed = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    redis.command::<i64>(&[
        "HSET",
        "tollgate:plans",
        "k1",
        "gold",
        hashed,
        "gold",
        "k2",
        "platinum",
    ]);
    let tables = format!("[redis]\nnodes = [{:?}]\ndeadline = \"1s\"", redis.url());
    let gateway = Gateway::start(&config(&origin, "redis:plans", &tables));
    assert_eq!(plan(&by_key(&gateway, "k1")), "gold");
    assert_eq!(plan(&by_key(&gateway, "abc")), "gold");
    assert_eq!(
        plan(&by_key(&gateway, "k2")),
        "free",
        "there is no such plan"
    );
    // The hash of a key is not the key.
    assert_eq!(plan(&by_key(&gateway, hashed)), "free");

    redis.command::<i64>(&["HSET", "tollgate:plans", "k1", "free"]);
    wait_for("the change is seen", || {
        (plan(&by_key(&gateway, "k1")) == "free").then_some(())
    });

    redis.kill();
    for (key, known) in [("k1", "free"), ("abc", "gold"), ("k3", "free")] {
        let response = by_key(&gateway, key);
        assert!([200, 429].contains(&response.status()), "{key}");
        assert_eq!(plan(&response), known, "{key}");
    }
}

/// base64url without padding.
fn encoded(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |three: &[u8]| {
        let bits = three
            .iter()
            .fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        let digit = move |place| char::from(DIGITS[(bits >> (18 - 6 * place) & 63) as usize]);
        (0..=three.len()).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

fn token(subject: &str, secret: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let until = now.expect("it is after 1970").as_secs() + 600;
    let claims = json!({ "sub": subject, "exp": until }).to_string();
    let message = format!(
        "{}.{}",
        encoded(br#"{"alg":"HS256"}"#),
        encoded(claims.as_bytes())
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let signature = ring::hmac::sign(&key, message.as_bytes());
    format!(
        "Authorization: Bearer {message}.{}\r\n",
        encoded(signature.as_ref())
    )
}

#[test]
fn a_verified_claim_is_who_counts_and_a_forged_one_is_only_its_address() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [upstream.app]
        backends = ["{}"]
        [limits.jwt]
        secret = "{SECRET}"
        [limit.users]
        quota = "2 per hour"
        key = "claim:sub | client-ip"
        [[route]]
        upstream = "app"
        limit = ["users"]
        "#,
        origin.address()
    ));
    let statuses = |fields: &str| [(); 3].map(|()| asked(&gateway, fields).status());
    assert_eq!(statuses(&token("ada", SECRET)), [200, 200, 429]);
    assert_eq!(statuses(&token("bob", SECRET)), [200, 200, 429]);
    let forged = token("eve", "another secret that has thirty-two bytes");
    assert_eq!(statuses(&forged), [200, 200, 429]);
    let forged = token("mallory", "another secret that has thirty-two bytes");
    assert_eq!(statuses(&forged), [429, 429, 429]);
    assert_eq!(statuses(""), [429, 429, 429]);
}
