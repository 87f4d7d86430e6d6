//! Limits that several gateways share through a Redis: never more than the quota in sum, and never the cause of an outage.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::client::Connection;
use crate::harness::gateway::Gateway;
use crate::harness::process::Signal;
use crate::harness::redis::{RedisCluster, RedisServer, Sentinel};
use crate::harness::response::Response;
use crate::harness::wait_for;

const TOKEN: &str = "a-token-of-the-test-0123456789abcdef";

/// A gateway that answers by itself, under one limit of all gateways, which has found Redis.
fn gateway(redis: &str, quota: &str, more: &str) -> Gateway {
    gateway_with_env(redis, quota, more, &[])
}

fn gateway_with_env(redis: &str, quota: &str, more: &str, env: &[(&str, &OsStr)]) -> Gateway {
    let folder = TempDir::new().expect("a temporary folder");
    let gateway = Gateway::start_with_env(folder, &config(redis, quota, more), env);
    // A slow machine starts a gateway before it has an answer from Redis.
    wait_for("it to know the others", || {
        (!is_away(&gateway)).then_some(())
    });
    gateway
}

fn config(redis: &str, quota: &str, more: &str) -> String {
    format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        workers = 1
        [admin]
        listen = "127.0.0.1:0"
        token = "{TOKEN}"
        [redis]
        {redis}
        deadline = "200ms"
        connections = 1
        [limit.api]
        quota = "{quota}"
        key = "header:x-api-key | client-ip"
        share = "all-gateways"
        {more}
        [[route]]
        respond = {{ body = "ok" }}
        limit = ["api"]
        "#
    )
}

fn of(server: &RedisServer) -> String {
    format!("nodes = [{:?}]", server.url())
}

/// How many of these requests, one after the other, are let in; fails the test on anything but 200 and 429.
fn admitted(gateway: &Gateway, key: &str, requests: usize) -> usize {
    let mut client = gateway.connect();
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n");
    let one = |_: &usize| match ask(&mut client, &request) {
        200 => true,
        429 => false,
        other => panic!("status {other}"),
    };
    (0..requests).filter(one).count()
}

fn ask(client: &mut Connection, request: &str) -> u16 {
    client.send(request.as_bytes()).expect("it is taken");
    client.response().expect("an answer").status()
}

fn metric(gateway: &Gateway, name: &str) -> u64 {
    let mut client = Connection::open(gateway.addresses()[1]);
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    client.send(request.as_bytes()).expect("it is taken");
    let text = client.response().expect("an answer").text();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .expect("a number")
}

fn is_away(gateway: &Gateway) -> bool {
    metric(gateway, "tollgate_limit_store_away") == 1
}

/// Clients of one key that ask a gateway at a pace, on a thread of their own, until they are told to end.
struct Traffic {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    admitted: AtomicU64,
    refused: AtomicU64,
    others: AtomicU64,
    is_over: AtomicBool,
}

impl Traffic {
    fn start(address: SocketAddr, per_second: u64) -> Self {
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let thread = std::thread::spawn(move || {
            let began = Instant::now();
            let mut client = Connection::open(address);
            let request = "GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: one\r\n\r\n";
            let mut asked = 0_u64;
            while !shared.is_over.load(Ordering::Relaxed) {
                // As many as are due by now: a slow machine catches up.
                let due = began.elapsed().as_micros() as u64 * per_second / 1_000_000;
                if asked >= due {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                asked += 1;
                let sent = client.send(request.as_bytes());
                let Ok(response) = sent
                    .map_err(drop)
                    .and_then(|()| client.response().map_err(drop))
                else {
                    // A connection is for so many requests; or the gateway was killed.
                    match Connection::try_open(address) {
                        Ok(another) => client = another,
                        Err(_) => return,
                    }
                    continue;
                };
                let counter = match response.status() {
                    200 => &shared.admitted,
                    429 => &shared.refused,
                    _ => &shared.others,
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            seen,
            thread: Some(thread),
        }
    }

    fn admitted(&self) -> u64 {
        self.seen.admitted.load(Ordering::Relaxed)
    }

    fn requests(&self) -> u64 {
        self.admitted() + self.seen.refused.load(Ordering::Relaxed)
    }

    fn others(&self) -> u64 {
        self.seen.others.load(Ordering::Relaxed)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.seen.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it counts and does not panic");
        }
    }
}

#[test]
fn what_was_used_at_one_gateway_is_used_at_all() {
    let redis = RedisServer::start();
    let gateways = [(); 3].map(|()| gateway(&of(&redis), "30 per hour", ""));
    let all: usize = gateways.iter().map(|one| admitted(one, "one", 30)).sum();
    assert!((28..=30).contains(&all), "{all}");
    // Another client has its own.
    assert!(admitted(&gateways[1], "two", 5) == 5);
}

#[test]
fn the_user_that_the_documentation_recommends_may_do_all_of_it() {
    let redis = RedisServer::start();
    let docs = include_str!("../docs/redis.md");
    let line = docs
        .lines()
        .find_map(|line| line.strip_prefix("ACL SETUSER "));
    let mut user = vec!["ACL", "SETUSER"];
    user.extend(line.expect("it is there").split_whitespace());
    redis.command::<()>(&user);
    let address = redis.url().replace("redis://", "redis://gateway:PASSWORD@");
    let nodes = format!("nodes = [{address:?}]");
    let gateways = [(); 2].map(|()| gateway(&nodes, "30 per hour", ""));
    let all: usize = gateways.iter().map(|one| admitted(one, "one", 30)).sum();
    assert!((28..=30).contains(&all), "{all}");
}

#[test]
fn an_exact_limit_lets_in_exactly_its_quota() {
    let redis = RedisServer::start();
    let gateways = [(); 3].map(|()| gateway(&of(&redis), "30 per hour", "exact = true"));
    let all: usize = gateways.iter().map(|one| admitted(one, "one", 25)).sum();
    assert_eq!(all, 30);
}

#[test]
fn a_day_is_counted_by_all_gateways_together() {
    let redis = RedisServer::start();
    let gateways = [(); 2].map(|()| gateway(&of(&redis), "30 per day", ""));
    let all: usize = gateways.iter().map(|one| admitted(one, "one", 40)).sum();
    assert!((28..=30).contains(&all), "{all}");
}

#[test]
fn a_gateway_that_ends_gives_back_what_it_holds() {
    let redis = RedisServer::start();
    let mut first = gateway(&of(&redis), "40 per hour", "");
    let second = gateway(&of(&redis), "40 per hour", "");
    // Many in one second: it holds some for more.
    assert_eq!(admitted(&first, "one", 12), 12);
    first.signal(Signal::Terminate);
    assert!(first.wait_for_exit().success());
    assert_eq!(admitted(&second, "one", 60), 28);
}

#[test]
fn what_nobody_has_used_for_a_while_comes_back() {
    let redis = RedisServer::start();
    let gateways = [(); 2].map(|()| gateway(&of(&redis), "40 per hour", ""));
    assert_eq!(admitted(&gateways[0], "one", 12), 12);
    let keys: Vec<String> = redis.command(&["KEYS", "tollgate:limit:{api:*"]);
    assert_eq!(keys.len(), 1);
    wait_for("the lease to be given back", || {
        let fields: BTreeMap<String, String> = redis.command(&["HGETALL", &keys[0]]);
        let holds = |(name, value): (&String, &String)| name.contains('.') && value[..2] != *"0 ";
        (!fields.iter().any(holds)).then_some(())
    });
    assert_eq!(admitted(&gateways[1], "one", 60), 28);
}

#[test]
fn a_redis_that_was_restarted_grants_no_fresh_burst() {
    let mut redis = RedisServer::start();
    let gateway = gateway(&of(&redis), "20 per hour", "");
    assert_eq!(admitted(&gateway, "one", 30), 20);
    redis.restart();
    // Whether the gateway has noticed or not.
    assert_eq!(admitted(&gateway, "one", 30), 0);
    wait_for("the gateway to be back", || {
        (!is_away(&gateway)).then_some(())
    });
    assert_eq!(admitted(&gateway, "one", 30), 0);
    // Nor when it was emptied without a sound.
    redis.command::<()>(&["FLUSHALL"]);
    assert_eq!(admitted(&gateway, "one", 30), 0);
}

#[test]
fn a_redis_that_lost_everything_gives_a_part_to_those_whom_a_gateway_does_not_know() {
    let mut redis = RedisServer::start();
    let gateways = [(); 2].map(|()| gateway(&of(&redis), "20 per hour", ""));
    let know_each_other = || {
        let knows = |gateway| metric(gateway, "tollgate_limit_gateways") == 2;
        gateways.iter().all(knows).then_some(())
    };
    wait_for("both to know each other", know_each_other);
    assert_eq!(admitted(&gateways[0], "one", 30), 20);
    redis.restart();
    wait_for("both to be back", || {
        (!gateways.iter().any(is_away)).then_some(())
    });
    gateways[1].wait_for_log("it to be noticed", |line| {
        line.contains("has lost what clients")
    });
    wait_for("both to know each other", know_each_other);
    assert!((1..=10).contains(&admitted(&gateways[1], "one", 30)));
    assert_eq!(admitted(&gateways[0], "one", 30), 0);
}

#[test]
fn a_gateway_that_starts_without_redis_lets_in_its_share_and_counts_it_when_redis_comes() {
    let mut redis = RedisServer::start();
    redis.kill();
    let gateway = Gateway::start(&config(&of(&redis), "20 per hour", ""));
    assert!(is_away(&gateway));
    assert_eq!(admitted(&gateway, "one", 12), 12);
    redis.restart();
    wait_for("it to be back", || (!is_away(&gateway)).then_some(()));
    assert_eq!(admitted(&gateway, "one", 30), 8);
}

#[test]
fn a_change_of_plan_keeps_what_was_used_at_all_gateways() {
    let redis = RedisServer::start();
    redis.command::<i64>(&["HSET", "tollgate:plans", "one", "gold"]);
    let config = format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [admin]
        listen = "127.0.0.1:0"
        token = "{TOKEN}"
        [redis]
        {}
        deadline = "200ms"
        [plan.free]
        quota = "20 per hour"
        [plan.gold]
        quota = ["60 per hour", "100 per day"]
        [limit.api]
        key = "header:x-api-key | client-ip"
        plans = {{ keys = "redis:plans", default = "free" }}
        costs = [{{ path = "/plan", cost = 0 }}]
        share = "all-gateways"
        [[route]]
        respond = {{ body = "ok" }}
        limit = ["api"]
        "#,
        of(&redis)
    );
    let gateways = [(); 2].map(|()| Gateway::start(&config));
    for gateway in &gateways {
        wait_for("it to know the others", || {
            (!is_away(gateway)).then_some(())
        });
    }
    // 50 of 60, at both.
    let all: usize = gateways.iter().map(|one| admitted(one, "one", 25)).sum();
    assert_eq!(all, 50);
    let change = |plan: &str| {
        redis.command::<i64>(&["HSET", "tollgate:plans", "one", plan]);
        for gateway in &gateways {
            wait_for("it to be the plan", || {
                let response = asked(gateway, "/plan");
                let policy = response.field("ratelimit-policy").expect("it is told");
                policy.contains(plan).then_some(())
            });
        }
    };
    change("free");
    let all: usize = gateways.iter().map(|one| admitted(one, "one", 25)).sum();
    assert_eq!(all, 0, "more than twenty were used");
    change("gold");
    let all: usize = gateways.iter().map(|one| admitted(one, "one", 25)).sum();
    assert!((8..=10).contains(&all), "{all}");
}

fn asked(gateway: &Gateway, path: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: one\r\n\r\n");
    let mut client = gateway.connect();
    client.send(request.as_bytes()).expect("it is taken");
    client.response().expect("an answer")
}

#[test]
fn while_redis_is_away_each_limit_does_what_was_said() {
    let mut redis = RedisServer::start();
    let policy = |word: &str| {
        let more = format!("when_store_is_away = {word:?}");
        gateway(&of(&redis), "40 per hour", &more)
    };
    let [fair, fair_too] = [(); 2].map(|()| policy("fair-share"));
    let (open, closed) = (policy("open"), policy("closed"));
    let all = [&fair, &fair_too, &open, &closed];
    for gateway in all {
        wait_for("all to know each other", || {
            (metric(gateway, "tollgate_limit_gateways") == 4).then_some(())
        });
    }
    redis.kill();
    let killed = Instant::now();
    for gateway in all {
        wait_for("it to be noticed", || is_away(gateway).then_some(()));
    }
    assert!(killed.elapsed() < Duration::from_secs(2));
    assert_eq!(admitted(&fair, "one", 30), 10);
    assert_eq!(admitted(&fair_too, "one", 30), 10);
    assert_eq!(admitted(&open, "one", 60), 60);
    assert_eq!(admitted(&closed, "one", 5), 0);
    redis.restart();
    let back = Instant::now();
    for gateway in all {
        wait_for("it to be back", || (!is_away(gateway)).then_some(()));
        gateway.wait_for_log("it to be said", |line| {
            line.contains("shared limits are decided with Redis")
        });
    }
    assert!(back.elapsed() < Duration::from_secs(2));
    wait_for("what was used meanwhile to be known", || {
        let keys: Vec<String> = redis.command(&["KEYS", "tollgate:limit:{api:*"]);
        let level = |key: &String| -> f64 { redis.command(&["HGET", key, "level"]) };
        keys.iter().any(|key| level(key) <= 20.1).then_some(())
    });
}

#[test]
fn a_redis_that_is_stalled_holds_up_nobody_for_long() {
    let redis = RedisServer::start();
    let gateway = gateway(&of(&redis), "1000 per second", "");
    let traffic = Traffic::start(gateway.address(), 300);
    wait_for("some requests", || (traffic.requests() > 100).then_some(()));
    redis.pause();
    wait_for("it to be noticed", || is_away(&gateway).then_some(()));
    let before = traffic.requests();
    wait_for("more requests", || {
        (traffic.requests() > before + 200).then_some(())
    });
    redis.resume();
    wait_for("it to be back", || (!is_away(&gateway)).then_some(()));
    let before = traffic.admitted();
    wait_for("more requests", || {
        (traffic.admitted() > before + 100).then_some(())
    });
    assert_eq!(traffic.others(), 0);
}

#[test]
fn a_cluster_counts_too_also_when_a_master_has_died() {
    let mut redis = RedisCluster::start();
    let nodes = format!("nodes = [{}]", redis.urls());
    let gateways = [(); 2].map(|()| gateway(&nodes, "30 per hour", ""));
    for key in ["one", "two", "three", "four"] {
        let all: usize = gateways.iter().map(|one| admitted(one, key, 30)).sum();
        assert!((28..=30).contains(&all), "{all} of {key}");
    }
    for index in 0..1 {
        redis.fail_over(index);
    }
    wait_for("the gateways to find the new master", || {
        let all = gateways.iter().map(|one| admitted(one, "five", 1));
        let _ = all.sum::<usize>();
        (!gateways.iter().any(is_away)).then_some(())
    });
    for key in ["one", "two", "three", "four"] {
        let all: usize = gateways.iter().map(|one| admitted(one, key, 30)).sum();
        assert!(all <= 2, "{all} of {key}");
    }
}

#[test]
fn the_loss_of_one_master_of_a_cluster_is_not_the_loss_of_all() {
    let redis = RedisCluster::start();
    for node in redis.nodes() {
        node.command::<()>(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let nodes = format!("nodes = [{}]", redis.urls());
    let gateway = gateway(&nodes, "30 per hour", "");
    let slot: usize = redis.nodes()[0].command(&["CLUSTER", "KEYSLOT", "{limit}"]);
    let of_heartbeats = slot / 5461;
    let silent = &redis.nodes()[(of_heartbeats + 1) % 3];
    silent.pause();
    for number in 0..30 {
        assert_eq!(admitted(&gateway, &format!("client {number}"), 1), 1);
        assert!(!is_away(&gateway));
    }
    silent.resume();
}

#[test]
fn behind_a_sentinel_the_new_master_counts_on() {
    let redis = Sentinel::start();
    let nodes = format!(
        "nodes = [{:?}]\nsentinel = {{ master = {:?} }}",
        redis.url(),
        Sentinel::NAME
    );
    let gateways = [(); 2].map(|()| gateway(&nodes, "30 per hour", ""));
    let before: usize = gateways.iter().map(|one| admitted(one, "one", 10)).sum();
    assert_eq!(before, 20);
    // What no replica has heard of is lost with a master.
    let keys: Vec<String> = redis.master.command(&["KEYS", "tollgate:limit:{api:*"]);
    wait_for("the replica to have heard of it", || {
        let [here, there] = [&redis.master, &redis.replica].map(|server| {
            let bucket: BTreeMap<String, String> = server.command(&["HGETALL", &keys[0]]);
            bucket
        });
        (here == there).then_some(())
    });
    redis.fail_over();
    wait_for("the gateways to find the new master", || {
        let all = gateways.iter().map(|one| admitted(one, "other", 1));
        let _ = all.sum::<usize>();
        (!gateways.iter().any(is_away)).then_some(())
    });
    let after: usize = gateways.iter().map(|one| admitted(one, "one", 30)).sum();
    // What is given back to the old master meanwhile is lost with it.
    assert!((1..=10).contains(&after), "{after}");
}

/// The quota of the test with eight gateways.
const RATE: u64 = 400;
const BURST: u64 = 800;

/// Gives a process another time, by `setup.sh`.
static FAKETIME: LazyLock<String> = LazyLock::new(|| {
    let kinds = std::fs::read_dir("/usr/lib").expect("a system with libraries");
    let paths = kinds.map(|kind| kind.expect("it is read").path());
    let mut places = paths.map(|path| path.join("faketime/libfaketimeMT.so.1"));
    let found = places.find(|place| place.exists()).expect("libfaketime");
    found.to_str().expect("it is a text").to_owned()
});

#[test]
fn eight_gateways_let_in_the_quota_and_no_more_whoever_is_killed() {
    let mut redis = RedisServer::start();
    let quota = format!("{RATE} per second, burst {BURST}");
    // Their clocks are up to ten and a half minutes off.
    let mut gateways: Vec<_> = (0..8_i32)
        .map(|number| {
            let off = format!("{:+}", (number - 4) * 157);
            let env = [
                ("LD_PRELOAD", OsStr::new(&*FAKETIME)),
                ("FAKETIME", OsStr::new(&off)),
                ("FAKETIME_DONT_FAKE_MONOTONIC", OsStr::new("1")),
            ];
            gateway_with_env(&of(&redis), &quota, "", &env)
        })
        .collect();
    let times = [&gateways[0], &gateways[7]].map(|gateway| {
        let response = asked(gateway, "/");
        httpdate::parse_http_date(response.field("date").expect("a time")).expect("a time")
    });
    assert!(times[1].duration_since(times[0]).expect("it is ahead") > Duration::from_secs(900));
    wait_for("all to know each other", || {
        (metric(&gateways[0], "tollgate_limit_gateways") == 8).then_some(())
    });
    let began = Instant::now();
    // 90 % at one of them.
    let traffic: Vec<_> = gateways
        .iter()
        .enumerate()
        .map(|(number, gateway)| {
            let per_second = if number == 0 { 1080 } else { 17 };
            Traffic::start(gateway.address(), per_second)
        })
        .collect();
    let admitted = || traffic.iter().map(Traffic::admitted).sum::<u64>();
    let requests = || traffic.iter().map(Traffic::requests).sum::<u64>();
    let quota = || BURST as f64 + began.elapsed().as_secs_f64() * RATE as f64;
    let until = |seconds: u64| {
        wait_for("time to pass", || {
            let (sum, may) = (admitted() as f64, quota());
            assert!(sum <= may, "{sum} of {may}");
            (began.elapsed() > Duration::from_secs(seconds)).then_some(())
        });
    };
    let questions = || -> u64 {
        let name = "tollgate_limit_store_questions_total";
        gateways.iter().map(|one| metric(one, name)).sum()
    };
    // The burst is shared out by then.
    until(4);
    // A machine that is busy with something else offers less than the quota: then once more.
    let is_whole = (0..4).any(|_| {
        let since = Instant::now();
        let before = (admitted(), requests(), questions());
        until(began.elapsed().as_secs() + 6);
        let steady = (admitted() - before.0) as f64;
        let may = since.elapsed().as_secs_f64() * RATE as f64;
        let (asked, all) = (questions() - before.2, requests() - before.1);
        println!("{steady} of {may} by {all} requests and {asked} questions");
        steady >= 0.98 * may && asked * 100 <= all
    });
    assert!(is_whole);

    let killed = gateways.pop().expect("there are eight");
    killed.signal(Signal::Kill);
    redis.kill();
    wait_for("it to be noticed", || {
        gateways.iter().all(is_away).then_some(())
    });
    until(began.elapsed().as_secs() + 4);
    redis.restart();
    wait_for("all to be back", || {
        (!gateways.iter().any(is_away)).then_some(())
    });
    until(began.elapsed().as_secs() + 4);
    let others: u64 = traffic.iter().map(Traffic::others).sum();
    assert_eq!(others, 0, "no 5xx");
}
