//! What gateways have in common by one Redis: pages, and who asks for them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::cache_test::{Gate, MINUTE, ask, counting, get, page, send, told};
use crate::harness::client::Connection;
use crate::harness::forwarder::Forwarder;
use crate::harness::gateway::Gateway;
use crate::harness::load::Load;
use crate::harness::origin::{Origin, Reply};
use crate::harness::process::Signal;
use crate::harness::redis::{RedisCluster, RedisServer};
use crate::harness::wait_for;

/// A gateway with one route, one policy and this Redis.
fn in_front_of(origin: &Origin, redis: &RedisServer) -> Gateway {
    configured(origin, redis, "", "")
}

fn configured(origin: &Origin, redis: &RedisServer, cache: &str, policy: &str) -> Gateway {
    at_nodes(origin, &format!("{:?}", redis.url()), cache, policy)
}

fn at_nodes(origin: &Origin, nodes: &str, cache: &str, policy: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        max_connections_per_client = 2000
        [log]
        access = "all"
        [redis]
        nodes = [{nodes}]
        deadline = "1s"
        [upstream.app]
        backends = ["{}"]
        max_fails = 0
        [cache]
        {cache}
        [cache.policy.pages]
        {policy}
        [[route]]
        upstream = "app"
        cache = "pages"
        "#,
        origin.address()
    ))
}

/// The names of the entries in Redis, and of the places that say how variants differ.
fn keys(redis: &RedisServer) -> Vec<String> {
    let mut keys: Vec<String> = redis.command(&["KEYS", "tollgate:c1:*"]);
    keys.retain(|key| !key.ends_with(":lock"));
    keys.sort();
    keys
}

fn wait_for_keys(redis: &RedisServer, count: usize) -> Vec<String> {
    wait_for("what was fetched to stand in Redis", || {
        let keys = keys(redis);
        (keys.len() == count).then_some(keys)
    })
}

fn tier(gateway: &Gateway, from: usize) -> Value {
    let line = gateway.wait_for_log_after(from, "its record", |line| line.contains("cache_tier"));
    let record: Value = serde_json::from_str(&line).expect("JSON");
    record["cache_tier"].clone()
}

#[test]
fn a_page_that_one_gateway_has_fetched_is_a_hit_on_another() {
    let redis = RedisServer::start();
    let origin = counting(MINUTE);
    let first = in_front_of(&origin, &redis);
    assert_eq!(told(&get(&first, "/")), ("MISS", "page 1".to_owned()));
    let keys = wait_for_keys(&redis, 1);
    // It survives those who fetched it.
    drop(first);
    let second = in_front_of(&origin, &redis);
    for expected in ["redis", "memory"] {
        let from = second.log().position();
        let hit = get(&second, "/");
        assert_eq!(told(&hit), ("HIT", "page 1".to_owned()));
        let age: u64 = hit
            .field("age")
            .expect("of a hit")
            .parse()
            .expect("seconds");
        assert!(age < 60);
        assert_eq!(tier(&second, from), expected);
    }
    assert_eq!(origin.received().len(), 1);
    let left: i64 = redis.command(&["PTTL", &keys[0]]);
    // Fresh for a minute, and in place of errors for ten more.
    assert!((1..=660_000).contains(&left), "{left}");
}

#[test]
fn a_policy_may_keep_to_the_memory_of_each_gateway() {
    let redis = RedisServer::start();
    let origin = counting(MINUTE);
    let gateways = [(); 2].map(|()| configured(&origin, &redis, "", "redis = false"));
    for (gateway, page) in gateways.iter().zip(["page 1", "page 2"]) {
        assert_eq!(told(&get(gateway, "/")), ("MISS", page.to_owned()));
        assert_eq!(told(&get(gateway, "/")), ("HIT", page.to_owned()));
    }
    assert_eq!(keys(&redis), [""; 0]);
}

#[test]
fn variants_stand_side_by_side_for_all_gateways() {
    let redis = RedisServer::start();
    let origin = Origin::with(|request| {
        let fields = "Cache-Control: max-age=60\r\nVary: X-Theme\r\n";
        page(fields, &request.fields("x-theme").join("+"))
    });
    let (one, other) = (in_front_of(&origin, &redis), in_front_of(&origin, &redis));
    for theme in ["dark", "light"] {
        ask(&one, "GET", "/", &format!("X-Theme: {theme}\r\n"));
    }
    wait_for_keys(&redis, 3);
    for theme in ["dark", "light"] {
        let answer = ask(&other, "GET", "/", &format!("X-Theme: {theme}\r\n"));
        assert_eq!(told(&answer), ("HIT", theme.to_owned()));
    }
    let third = ask(&other, "GET", "/", "X-Theme: blue\r\n");
    assert_eq!(told(&third), ("MISS", "blue".to_owned()));
    let status = third.field("cache-status").expect("it is always told");
    assert!(status.contains("fwd=vary-miss"), "{status}");
    assert_eq!(origin.received().len(), 3);
}

#[test]
fn a_cluster_keeps_pages_and_variants_too() {
    let redis = RedisCluster::start();
    let origin = Origin::with(|request| {
        let vary = match request.head_text().contains("/varies") {
            true => "Cache-Control: max-age=60\r\nVary: X-Theme\r\n",
            false => MINUTE,
        };
        page(vary, &request.fields("x-theme").join("+"))
    });
    let (one, other) = [(); 2]
        .map(|()| at_nodes(&origin, &redis.urls(), "", ""))
        .into();
    // Enough for every master to have some.
    let paths: Vec<_> = (0..8)
        .map(|n| format!("/{n}"))
        .chain(["/varies".to_owned()])
        .collect();
    for path in &paths {
        ask(&one, "GET", path, "X-Theme: dark\r\n");
    }
    // Orderly gone, it has written everything.
    one.signal(Signal::Terminate);
    one.wait_for_log("its end", |line| line.contains("ended"));
    for path in &paths {
        let answer = ask(&other, "GET", path, "X-Theme: dark\r\n");
        assert_eq!(told(&answer), ("HIT", "dark".to_owned()), "{path}");
    }
}

#[test]
fn ranges_and_heads_are_answered_from_redis() {
    let redis = RedisServer::start();
    let origin = counting("Cache-Control: max-age=60\r\nETag: \"1\"\r\n");
    let first = in_front_of(&origin, &redis);
    get(&first, "/");
    wait_for_keys(&redis, 1);
    let range = ask(
        &in_front_of(&origin, &redis),
        "GET",
        "/",
        "Range: bytes=5-5\r\n",
    );
    assert_eq!((range.status(), range.text()), (206, "1".to_owned()));
    let head = ask(&in_front_of(&origin, &redis), "HEAD", "/", "");
    assert_eq!(told(&head), ("HIT", String::new()));
    assert_eq!(head.field("content-length"), Some("6"));
    let same = ask(
        &in_front_of(&origin, &redis),
        "GET",
        "/",
        "If-None-Match: \"1\"\r\n",
    );
    assert_eq!(same.status(), 304);
    assert_eq!(origin.received().len(), 1);
}

/// Stale at once, and fresh for a minute when it is asked about.
fn renewed() -> Origin {
    Origin::with(|request| match &*request.fields("if-none-match") {
        [] => page("Cache-Control: no-cache\r\nETag: \"1\"\r\n", "page"),
        _ => Reply::raw(
            "HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\nETag: \"1\"\r\n\r\n",
        ),
    })
}

fn meta(redis: &RedisServer, key: &str) -> Vec<u8> {
    redis.command(&["HGET", key, "meta"])
}

#[test]
fn a_304_to_one_gateway_renews_the_page_for_all() {
    let redis = RedisServer::start();
    let origin = renewed();
    get(&in_front_of(&origin, &redis), "/");
    let key = wait_for_keys(&redis, 1).remove(0);
    let before = meta(&redis, &key);
    let second = in_front_of(&origin, &redis);
    assert_eq!(told(&get(&second, "/")), ("REVALIDATED", "page".to_owned()));
    wait_for("the renewed page", || {
        (meta(&redis, &key) != before).then_some(())
    });
    let third = in_front_of(&origin, &redis);
    assert_eq!(told(&get(&third, "/")), ("HIT", "page".to_owned()));
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn a_304_sends_the_body_to_redis_only_where_it_is_gone() {
    let redis = RedisServer::start();
    let origin = renewed();
    let gateway = in_front_of(&origin, &redis);
    get(&gateway, "/");
    let key = wait_for_keys(&redis, 1).remove(0);
    let before = meta(&redis, &key);
    redis.command::<()>(&["HDEL", &key, "body"]);
    get(&gateway, "/");
    wait_for("the renewed page", || {
        (meta(&redis, &key) != before).then_some(())
    });
    assert!(!redis.command::<bool>(&["HEXISTS", &key, "body"]));
    get(&gateway, "/other");
    let keys = wait_for_keys(&redis, 2);
    let key = keys
        .iter()
        .find(|other| **other != key)
        .expect("another one");
    redis.command::<()>(&["DEL", key]);
    get(&gateway, "/other");
    wait_for_keys(&redis, 2);
    assert_eq!(redis.command::<String>(&["HGET", key, "body"]), "page");
}

#[test]
fn large_bodies_are_compressed_in_redis() {
    let redis = RedisServer::start();
    let large = "what is said twice is said once. ".repeat(1000);
    let body = large.clone();
    let origin = Origin::with(
        move |request| match request.head_text().contains("/small") {
            true => page(MINUTE, "small"),
            false => page(MINUTE, &body),
        },
    );
    let first = in_front_of(&origin, &redis);
    get(&first, "/large");
    let key = wait_for_keys(&redis, 1).remove(0);
    let packed: usize = redis.command(&["HSTRLEN", &key, "zstd"]);
    let plain: usize = redis.command(&["HSTRLEN", &key, "body"]);
    assert!(
        packed > 0 && packed < large.len() / 20 && plain == 0,
        "{packed} {plain}"
    );
    get(&first, "/small");
    let keys = wait_for_keys(&redis, 2);
    let key = keys
        .iter()
        .find(|other| **other != key)
        .expect("another one");
    assert_eq!(redis.command::<String>(&["HGET", key, "body"]), "small");
    let second = in_front_of(&origin, &redis);
    assert_eq!(told(&get(&second, "/large")), ("HIT", large));
}

#[test]
fn what_is_odd_in_redis_is_a_miss_and_is_replaced() {
    let redis = RedisServer::start();
    let origin = counting(MINUTE);
    let spoil = [
        "redis.call('HSET', KEYS[1], 'meta', 'garbage')",
        "redis.call('HSET', KEYS[1], 'meta', string.sub(redis.call('HGET', KEYS[1], 'meta'), 1, -2))",
        "redis.call('HSET', KEYS[1], 'body', 'page 9')",
        "redis.call('HDEL', KEYS[1], 'body')",
        "redis.call('HSET', KEYS[1], 'zstd', redis.call('HGET', KEYS[1], 'body')) redis.call('HDEL', KEYS[1], 'body')",
        "redis.call('HSET', KEYS[1], 'vary', 'not a name')",
        "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], 'of somebody else')",
    ];
    get(&in_front_of(&origin, &redis), "/");
    let key = wait_for_keys(&redis, 1).remove(0);
    for (before, script) in spoil.into_iter().enumerate() {
        let script = format!("{script} return 0");
        redis.command::<i64>(&["EVAL", &script, "1", &key]);
        let gateway = in_front_of(&origin, &redis);
        let expected = format!("page {}", before + 2);
        assert_eq!(
            told(&get(&gateway, "/")),
            ("MISS", expected.clone()),
            "{script}"
        );
        wait_for("the new page to stand there", || {
            let body = redis.try_command::<String>(&["HGET", &key, "body"]);
            (body.ok()? == expected).then_some(())
        });
    }
}

#[test]
fn what_one_gateway_has_outdated_no_other_gives_from_redis() {
    let redis = RedisServer::start();
    let origin = counting(MINUTE);
    let first = in_front_of(&origin, &redis);
    assert_eq!(told(&get(&first, "/")), ("MISS", "page 1".to_owned()));
    wait_for_keys(&redis, 1);
    ask(&first, "POST", "/", "Content-Length: 0\r\n");
    wait_for("the purge to stand in Redis", || {
        let scopes: usize = redis.command(&["EXISTS", "tollgate:{purge}:history"]);
        (scopes > 0).then_some(())
    });
    let second = in_front_of(&origin, &redis);
    assert_eq!(told(&get(&second, "/")), ("MISS", "page 3".to_owned()));
    // And what was asked for since is good for both.
    let key = wait_for_keys(&redis, 1).remove(0);
    wait_for("the new page to stand there", || {
        let body: String = redis.command(&["HGET", &key, "body"]);
        (body == "page 3").then_some(())
    });
    assert_eq!(told(&get(&first, "/")), ("HIT", "page 3".to_owned()));
}

fn clients(gateways: &[Gateway], each: usize) -> Vec<Connection> {
    let all = gateways
        .iter()
        .flat_map(|gateway| (0..each).map(move |_| gateway.connect()));
    let mut clients: Vec<_> = all.collect();
    for client in &mut clients {
        send(client, "GET", "/", "");
    }
    clients
}

#[test]
fn a_thousand_misses_over_four_gateways_ask_once() {
    let redis = RedisServer::start();
    let gate = Gate::default();
    let origin = {
        let gate = gate.clone();
        Origin::with(move |_| {
            gate.pass();
            page(MINUTE, "page")
        })
    };
    let gateways = [(); 4].map(|()| in_front_of(&origin, &redis));
    let clients = clients(&gateways, 250);
    origin.wait_for_requests(1);
    gate.open();
    for mut client in clients {
        assert_eq!(client.response().expect("an answer").text(), "page");
    }
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn when_the_gateway_that_asks_is_killed_one_other_asks() {
    let redis = RedisServer::start();
    let (gate, count) = (Gate::default(), AtomicUsize::new(0));
    let origin = {
        let gate = gate.clone();
        Origin::with(move |_| {
            if count.fetch_add(1, Ordering::Relaxed) == 0 {
                gate.pass();
            }
            page(MINUTE, "page")
        })
    };
    let start = || configured(&origin, &redis, "fill_lock = \"1s\"", "");
    let leader = start();
    let mut abandoned = leader.connect();
    send(&mut abandoned, "GET", "/", "");
    origin.wait_for_requests(1);
    let others = [start(), start(), start()];
    let clients = clients(&others, 20);
    leader.signal(Signal::Kill);
    for mut client in clients {
        assert_eq!(client.response().expect("an answer").text(), "page");
    }
    assert!(origin.received().len() <= 2);
    gate.open();
}

#[test]
fn a_fill_that_takes_longer_than_its_lock_lives_is_still_one() {
    let redis = RedisServer::start();
    let gate = Gate::default();
    let origin = {
        let gate = gate.clone();
        Origin::with(move |_| {
            gate.pass();
            page(MINUTE, "page")
        })
    };
    let start = || configured(&origin, &redis, "fill_lock = \"600ms\"", "");
    let gateways = [start(), start()];
    let mut clients = clients(&gateways, 1);
    origin.wait_for_requests(1);
    let lock: Vec<String> = redis.command(&["KEYS", "*:lock"]);
    let token: String = redis.command(&["GET", &lock[0]]);
    // Renewed after a third of its life: each time what is left of it rises.
    for _ in 0..4 {
        let left = |redis: &RedisServer| redis.command::<i64>(&["PTTL", &lock[0]]);
        let mut last = left(&redis);
        wait_for("the lock to be renewed", || {
            let now = left(&redis);
            let rises = now > last;
            last = now;
            rises.then_some(())
        });
        assert_eq!(redis.command::<String>(&["GET", &lock[0]]), token);
    }
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().expect("an answer").text(), "page");
    }
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn what_is_for_one_visitor_holds_up_no_other_gateway() {
    let redis = RedisServer::start();
    let count = Mutex::new(0);
    let gate = Gate::default();
    let origin = {
        let gate = gate.clone();
        Origin::with(move |_| {
            gate.pass();
            let mut count = count.lock().expect("no holder panics");
            *count += 1;
            page("Cache-Control: private\r\n", &format!("page {count}"))
        })
    };
    let start = || configured(&origin, &redis, "fill_lock = \"5m\"", "");
    let gateways = [start(), start()];
    let clients = clients(&gateways, 2);
    origin.wait_for_requests(1);
    gate.open();
    let pages = clients
        .into_iter()
        .map(|mut client| client.response().expect("an answer").text());
    let mut pages: Vec<_> = pages.collect();
    pages.sort();
    assert_eq!(pages, ["page 1", "page 2", "page 3", "page 4"]);
    assert_eq!(keys(&redis), [""; 0]);
}

#[test]
fn whatever_becomes_of_redis_every_request_is_answered() {
    let mut redis = RedisServer::start();
    let origin = Origin::with(|request| match request.head_text().contains("/shared") {
        true => page(
            "Cache-Control: max-age=1\r\nETag: \"1\"\r\n",
            &"x".repeat(5000),
        ),
        false => page("Cache-Control: no-cache\r\nETag: \"1\"\r\n", "page"),
    });
    let gateway = in_front_of(&origin, &redis);
    let loads = ["/shared", "/revalidated"].map(|path| Load::start(gateway.address(), path, 4));
    let go_on = || loads.iter().for_each(|load| load.wait_for_more(40));
    go_on();
    redis.pause();
    go_on();
    redis.resume();
    go_on();
    redis.kill();
    go_on();
    redis.restart();
    go_on();
    redis.command::<()>(&["FLUSHALL"]);
    go_on();
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    go_on();
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    go_on();
    for load in loads {
        let tally = load.stop();
        assert_eq!(tally.failures, [""; 0]);
        assert_eq!(tally.statuses.keys().collect::<Vec<_>>(), [&200]);
    }
    // It is noticed that Redis is back.
    wait_for("pages to stand in Redis again", || {
        get(&gateway, "/again");
        (!keys(&redis).is_empty()).then_some(())
    });
}

#[test]
fn when_a_cluster_fails_over_under_load_every_request_is_answered_and_pages_are_shared_again() {
    let mut redis = RedisCluster::start();
    let origin = Origin::with(|_| page("Cache-Control: max-age=1\r\n", "page"));
    let [one, other] = [(); 2].map(|()| at_nodes(&origin, &redis.urls(), "", ""));
    // Enough for every master to have some.
    let loads: Vec<_> = (0..8)
        .map(|number| Load::start(one.address(), &format!("/{number}"), 1))
        .collect();
    let go_on = || loads.iter().for_each(|load| load.wait_for_more(40));
    let attempts = AtomicUsize::new(0);
    // Of 24 pages hardly none has its place on the master that was lost.
    let are_shared = || {
        let attempt = attempts.fetch_add(1, Ordering::Relaxed);
        let is_shared = |number| {
            let path = format!("/shared/{attempt}/{number}");
            get(&one, &path);
            let from = other.log().position();
            told(&get(&other, &path)).0 == "HIT" && tier(&other, from) == "redis"
        };
        (0..24).all(is_shared).then_some(())
    };
    wait_for("pages to be shared", are_shared);
    go_on();
    redis.fail_over(0);
    go_on();
    wait_for("pages to be shared again", are_shared);
    go_on();
    for load in loads {
        let tally = load.stop();
        assert_eq!(tally.failures, [""; 0]);
        assert_eq!(tally.statuses.keys().collect::<Vec<_>>(), [&200]);
    }
}

#[test]
fn a_kind_of_larger_responses_than_the_route_stores_is_a_hit_on_another_gateway() {
    let redis = RedisServer::start();
    let large = "x".repeat(5000);
    let body = large.clone();
    let fields = "Cache-Control: max-age=60\r\nTollgate-Cache-Policy: assets\r\n";
    let origin = Origin::with(move |_| page(fields, &body));
    let policies = "largest_object = \"1 KiB\"\n[cache.policy.assets]\nlargest_object = \"1 MiB\"";
    let gateways = [(); 2].map(|()| configured(&origin, &redis, "", policies));
    assert_eq!(told(&get(&gateways[0], "/")).0, "MISS");
    wait_for_keys(&redis, 1);
    assert_eq!(told(&get(&gateways[1], "/")), ("HIT", large));
}

#[test]
fn a_flood_of_changes_does_not_keep_a_new_gateway_from_what_stands_in_redis() {
    let redis = RedisServer::start();
    let origin = counting(MINUTE);
    let first = in_front_of(&origin, &redis);
    assert_eq!(told(&get(&first, "/")), ("MISS", "page 1".to_owned()));
    wait_for_keys(&redis, 1);
    // As many changed URLs as are remembered one by one, all in one bucket.
    let flood = "for number = 1, 65536 do \
                 redis.call('ZADD', KEYS[1], ARGV[1] + number, 'hu' .. string.format('%032x', number)) \
                 end return 0";
    let now: Vec<u64> = redis.command(&["TIME"]);
    let now = (now[0] * 1_000_000 + now[1]).to_string();
    redis.command::<i64>(&["EVAL", flood, "1", "tollgate:{purge}:urls", &now]);
    for path in ["/a", "/b"] {
        ask(&first, "POST", path, "Content-Length: 0\r\n");
    }
    wait_for("the oldest to be folded", || {
        let buckets: u64 = redis.command(&["ZCARD", "tollgate:{purge}:buckets"]);
        (buckets == 1).then_some(())
    });
    assert!(redis.command::<u64>(&["ZCARD", "tollgate:{purge}:urls"]) <= 65_536);
    let second = in_front_of(&origin, &redis);
    assert_eq!(told(&get(&second, "/")), ("HIT", "page 1".to_owned()));
}

#[test]
fn a_miss_waits_for_all_that_it_asks_of_a_slow_redis_no_longer_than_for_one_answer() {
    let redis = RedisServer::start();
    let wire = Forwarder::to(redis.address());
    let origin = Origin::with(|request| {
        let fields = "Cache-Control: max-age=60\r\nVary: X-Theme\r\n";
        page(fields, &request.fields("x-theme").join("+"))
    });
    ask(
        &in_front_of(&origin, &redis),
        "GET",
        "/",
        "X-Theme: dark\r\n",
    );
    wait_for_keys(&redis, 2);
    let nodes = format!("\"redis://{}\"", wire.address());
    let gateway = at_nodes(&origin, &nodes, "fill_lock = \"5m\"", "");
    // Where the variant stands, whether it does, and whose turn it is: each is answered in time.
    wire.delay(Duration::from_millis(400));
    let from = gateway.log().position();
    let miss = ask(&gateway, "GET", "/", "X-Theme: light\r\n");
    assert_eq!(told(&miss), ("MISS", "light".to_owned()));
    let line = gateway.wait_for_log_after(from, "its record", |line| line.contains("duration_ms"));
    let record: Value = serde_json::from_str(&line).expect("JSON");
    let took = record["duration_ms"].as_f64().expect("a number");
    // The deadline is a second; one after the other they would take two.
    assert!(took < 1600.0, "{record}");
    wire.delay(Duration::ZERO);
    wait_for("no other gateway to be made to wait", || {
        let locks: Vec<String> = redis.command(&["KEYS", "*:lock"]);
        locks.is_empty().then_some(())
    });
}
