//! What the plan of a key changes on every lane: what is told, how much at once, who goes first; and what operators see
//! of it.

use http::Request;
use serde_json::{Value, json};

use crate::harness::client::Connection;
use crate::harness::gateway::{Gateway, tollgate};
use crate::harness::h2_client::H2;
use crate::harness::origin::{Origin, Reply};
use crate::harness::redis::RedisServer;
use crate::harness::response::Response;
use crate::limit_modes_test::told;
use crate::pace_test::{gated, wait_for_queued};

const KEYS: &str = "k1 gold\nk2 free\n";

/// On a listener of both versions of HTTP.
fn gateway(origin: &Origin, keys: &str, upstream: &str, rest: &str) -> Gateway {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("keys.txt"), KEYS).expect("there is space");
    let config = format!(
        r#"
        [server]
        listen = [{{ address = "127.0.0.1:0", h2c = true }}]
        [admin]
        listen = "127.0.0.1:0"
        token = "a-token-of-the-test"
        [upstream.app]
        backends = ["{}"]
        {upstream}
        [plan.anonymous]
        quota = "1 per hour"
        [plan.free]
        quota = "3 per hour"
        priority = "low"
        [plan.gold]
        quota = ["100 per hour", "1000 per day"]
        in_flight = 2
        priority = "high"
        [limit.api]
        key = "header:x-api-key | client-ip"
        plans = {{ keys = "{keys}", default = "free", none = "anonymous" }}
        [[route]]
        upstream = "app"
        limit = ["api"]
        {rest}
        "#,
        origin.address()
    );
    Gateway::start_in(folder, &config)
}

fn of_file(origin: &Origin) -> Gateway {
    gateway(origin, "keys.txt", "", "")
}

/// A request under way, of a lane: the express lane serves GET, the full lane POST.
fn send(gateway: &Gateway, method: &str, key: &str) -> Connection {
    let length = match method {
        "POST" => "Content-Length: 0\r\n",
        _ => "",
    };
    let request =
        format!("{method} / HTTP/1.1\r\nHost: a.example\r\nX-API-Key: {key}\r\n{length}\r\n");
    let mut client = gateway.connect();
    client.send(request.as_bytes()).expect("it is taken");
    client
}

fn ask(gateway: &Gateway, method: &str, key: &str) -> Response {
    send(gateway, method, key).response().expect("an answer")
}

/// What is said of a request with the key `k1`, of one without a plan, and of one without a key.
fn explained(gateway: &Gateway, options: &[&str]) -> [String; 3] {
    let config = gateway.config_path();
    let config = config.to_str().expect("a path of text");
    [
        &["--header", "x-api-key: k1"][..],
        &["--header", "x-api-key: k9"],
        &[],
    ]
    .map(|fields| {
        let command = ["explain", "--config", config, "--client", "127.0.0.1"];
        let request = ["GET", "http://a.example/"];
        let output = tollgate(&[&command[..], options, fields, &request].concat());
        String::from_utf8(output.stdout).expect("text")
    })
}

fn assert_says(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
}

#[test]
fn every_lane_and_version_counts_by_the_plan_and_tells_its_name() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = of_file(&origin);
    let h2 = H2::cleartext(gateway.address());
    let over_h2 = |method: &str| {
        let request = Request::builder()
            .method(method)
            .uri("http://a.example/")
            .header("x-api-key", "k2");
        let request = request.body(Vec::new()).expect("valid");
        let answer = h2.request(request).expect("an answer").response;
        let told = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
        (
            answer.status().as_u16(),
            told("ratelimit-policy"),
            told("ratelimit"),
            answer,
        )
    };
    let policies = r#""free";q=3;w=3600"#;
    let (status, policy, limit, _) = over_h2("GET");
    assert_eq!((status, &*policy), (200, policies));
    assert!(limit.starts_with(r#""free";r=2;"#), "{limit}");
    let response = ask(&gateway, "POST", "k2");
    assert_eq!(response.field("ratelimit-policy"), Some(policies));
    let limit = response.field("ratelimit").expect("it is told");
    assert!(limit.starts_with(r#""free";r=1;"#), "{limit}");
    assert_eq!(ask(&gateway, "GET", "k2").status(), 200);

    let is_of_plan = |problem: &Value| {
        assert_eq!(problem["violated-policies"], json!(["free"]));
        assert_eq!(problem["reason"], "too_many_requests");
    };
    for method in ["GET", "POST"] {
        let refused = ask(&gateway, method, "k2");
        assert_eq!(refused.status(), 429, "{method}");
        assert_eq!(refused.field("ratelimit-policy"), Some(policies));
        is_of_plan(&refused.json());
        let (status, policy, limit, answer) = over_h2(method);
        assert_eq!((status, &*policy), (429, policies), "{method}");
        assert!(limit.starts_with(r#""free";r=0;"#), "{limit}");
        assert!(answer.headers().contains_key("retry-after"));
        is_of_plan(&serde_json::from_slice(answer.body()).expect("a problem document"));
    }
    assert_eq!(origin.received().len(), 3);
}

#[test]
fn a_plan_says_how_many_requests_of_a_key_may_be_under_way() {
    for method in ["GET", "POST"] {
        let (origin, release) = gated();
        let gateway = of_file(&origin);
        let mut under_way: Vec<_> = (0..2).map(|_| send(&gateway, method, "k1")).collect();
        origin.wait_for_requests(2);
        let refused = ask(&gateway, method, "k1");
        assert_eq!(refused.status(), 429);
        let problem: Value = refused.json();
        assert_eq!(problem["reason"], "too_many_in_flight");
        assert_eq!(problem["violated-policies"], json!(["gold-in-flight"]));

        // Another plan has no such bound.
        under_way.extend((0..3).map(|_| send(&gateway, method, "k2")));
        origin.wait_for_requests(5);
        for _ in 0..5 {
            release.send(()).expect("the origin lives");
        }
        for client in &mut under_way {
            assert_eq!(client.response().expect("an answer").status(), 200);
        }
    }
}

#[test]
fn when_the_queue_is_full_a_free_plan_gives_way_to_a_paid_one() {
    for method in ["GET", "POST"] {
        let (origin, release) = gated();
        let upstream = "max_connections = 1\nqueue = 1\nqueue_timeout = \"30s\"";
        let gateway = gateway(&origin, "keys.txt", upstream, "");
        let mut busy = send(&gateway, method, "k1");
        origin.wait_for_requests(1);
        let mut free = send(&gateway, method, "k2");
        wait_for_queued(&gateway, "low", 1.0);
        let mut paid = send(&gateway, method, "k1");
        let shed = free.response().expect("an answer");
        assert_eq!(shed.status(), 503);
        assert_eq!(shed.json()["reason"], "queue_full");
        for client in [&mut busy, &mut paid] {
            release.send(()).expect("the origin lives");
            assert_eq!(client.response().expect("an answer").status(), 200);
        }
    }
}

#[test]
fn an_explanation_names_the_plan_of_a_key_its_quotas_and_its_priority() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = of_file(&origin);
    assert_eq!(ask(&gateway, "GET", "k1").status(), 200);
    let [gold, unknown, none] = explained(&gateway, &["--running"]);
    assert_says(
        &gold,
        &[
            "limit       api: plan gold, 100 per hour, 1000 per day, 2 at once, by header:x-api-key | client-ip",
            "takes 1, counted by header:x-api-key",
            "priority    high",
            ", plan gold: 1 used, 99 left of 100 per hour",
            ", plan gold: 1 used, 999 left of 1000 per day",
            ", plan gold: 0 of 2 under way",
        ],
    );
    assert_says(
        &unknown,
        &[
            "limit       api: plan free, 3 per hour, by client-ip",
            "takes 1, counted by client-ip",
            "priority    low",
            "limit       api 127.0.0.1, plan free: 0 used, 3 left of 3 per hour",
        ],
    );
    assert_says(
        &none,
        &[
            "limit       api: plan anonymous, 1 per hour, by client-ip",
            "priority    normal",
            "limit       api 127.0.0.1, plan anonymous: 0 used, 1 left of 1 per hour",
        ],
    );
}

#[test]
fn an_explanation_does_not_guess_what_redis_says_of_a_key() {
    let origin = Origin::always(Reply::ok("ok"));
    let redis = RedisServer::start();
    redis.command::<i64>(&["HSET", "tollgate:plans", "k1", "gold"]);
    let tables = format!("[redis]\nnodes = [{:?}]\ndeadline = \"1s\"", redis.url());
    let gateway = gateway(&origin, "redis:plans", "", &tables);
    let [gold, _, none] = explained(&gateway, &["--running"]);
    assert_says(
        &gold,
        &[
            "limit       api: plan free, 3 per hour",
            "unless its key has another plan in Redis; --running asks there",
            ", plan gold: 0 used, 100 left of 100 per hour",
        ],
    );
    assert!(!none.contains("in Redis"), "{none}");
    let shown = told(&gateway, &["show", "header:x-api-key=k1"]);
    assert_says(&shown, &[", plan gold: 0 used, 1000 left of 1000 per day"]);
}

#[test]
fn an_operator_sees_the_plan_of_a_key_and_its_buckets_and_gives_it_a_fresh_start() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = of_file(&origin);
    for _ in 0..2 {
        assert_eq!(ask(&gateway, "GET", "k1").status(), 200);
        assert_eq!(ask(&gateway, "GET", "made-up").status(), 200);
    }
    let gold = [
        ", plan gold: 2 used, 98 left of 100 per hour",
        ", plan gold: 2 used, 998 left of 1000 per day",
        ", plan gold: 0 of 2 under way",
    ];
    let shown = told(&gateway, &["show", "header:x-api-key=k1"]);
    assert_says(&shown, &gold);
    assert!(!shown.contains("free"), "{shown}");

    // An address is that of those who have no plan, and of those who have no key.
    let shown = told(&gateway, &["show", "client-ip=127.0.0.1"]);
    assert_says(
        &shown,
        &[
            "api 127.0.0.1, plan free: 2 used, 1 left of 3 per hour",
            "api 127.0.0.1, plan anonymous: ",
        ],
    );
    assert!(!shown.contains("gold"), "{shown}");

    // A digest may be of any plan.
    let top = told(&gateway, &["top", "--minutes", "1"]);
    let digest = top.split_whitespace().find(|word| word.starts_with('#'));
    let shown = told(
        &gateway,
        &["show", digest.expect("the client with the key")],
    );
    assert_says(&shown, &gold);

    let reset = told(&gateway, &["reset", "header:x-api-key=k1"]);
    assert!(reset.contains("begins anew with 2 quotas"), "{reset}");
    let shown = told(&gateway, &["show", "header:x-api-key=k1"]);
    assert_says(&shown, &[", plan gold: 0 used, 100 left of 100 per hour"]);
    let reset = told(&gateway, &["reset", "client-ip=127.0.0.1"]);
    assert_eq!(reset.trim(), "api 127.0.0.1: begins anew with 1 quota");
}

#[test]
fn a_key_without_a_plan_is_none_that_is_counted_and_that_is_said() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = of_file(&origin);
    let config = gateway.config_path();
    let config = config.to_str().expect("a path of text");
    let output = tollgate(&["limit", "show", "header:x-api-key=k9", "--config", config]);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).expect("text");
    assert_says(
        &said,
        &["api by header:x-api-key | client-ip, keys without a plan by client-ip"],
    );
}
