//! Connections to real Redis servers: what is asked of them, and what becomes of a question when they are away.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::{Script, Value, cmd};
use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use tollgate::config::{self, problem::Problems};
use tollgate::plan;
use tollgate::redis::{Away, Event, Lane, Redis, State};

use crate::harness::client::get;
use crate::harness::gateway::Gateway;
use crate::harness::port::{free_port, loopback};
use crate::harness::redis::{RedisCluster, RedisServer, Sentinel};
use crate::harness::tls::TestCa;
use crate::harness::{PATIENCE, wait_for};

/// Long enough for a machine under load, and short beside [`PATIENCE`].
const DEADLINE: &str = "2s";

/// Opens what `[redis]` says, as the gateway does, and waits for the first connections.
async fn open(table: &str) -> Arc<Redis> {
    let redis = Redis::open(settings(table));
    redis.settled(PATIENCE).await;
    redis
}

fn settings(table: &str) -> tollgate::redis::Settings {
    let text = format!(
        r#"
        [server]
        listen = ["127.0.0.1:8080"]
        [[route]]
        respond = {{ body = "" }}
        [redis]
        health_interval = "1s"
        {table}
        "#
    );
    let config = config::parse(&text, "test", &|_| None).unwrap_or_else(|wrong| panic!("{wrong}"));
    let mut problems = Problems::new("test");
    let settings = plan::redis_settings(&config, &mut problems);
    settings.unwrap_or_else(|| panic!("{problems}"))
}

fn of(server: &RedisServer) -> String {
    with_deadline(server, DEADLINE)
}

fn with_deadline(server: &RedisServer, deadline: &str) -> String {
    format!(
        "nodes = [{:?}]\ndeadline = {deadline:?}\nconnections = 2",
        server.url()
    )
}

async fn set(redis: &Redis, name: &str) -> Result<(), Away> {
    let mut command = cmd("SET");
    command.arg(redis.key(name)).arg("kept");
    redis.ask(Lane::Bodies, &command).await
}

async fn get_back(redis: &Redis, name: &str) -> Result<Option<String>, Away> {
    let mut command = cmd("GET");
    command.arg(redis.key(name));
    redis.ask(Lane::Bodies, &command).await
}

fn until(redis: &Redis, state: State) {
    wait_for(&format!("{state:?}"), || {
        (redis.state() == state).then_some(())
    });
}

/// Writes until that succeeds: one connection that stands makes Redis up, and another may still be on its way.
async fn set_at_last(redis: &Redis, name: &str) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(away) = set(redis, name).await {
        assert!(Instant::now() < deadline, "{name} is not kept: {away}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_pipelines_and_scripts_are_answered_and_counted() {
    let server = RedisServer::start();
    let redis = open(&format!("{}\nprefix = \"shop:\"", of(&server))).await;
    let deadline = redis.deadline();

    set(&redis, "page").await.unwrap();
    assert_eq!(server.command::<String>(&["GET", "shop:page"]), "kept");

    let mut all = vec![cmd("GET"); 3];
    all[0].arg(redis.key("page"));
    all[1].arg(redis.key("none"));
    all[2] = cmd("INCR");
    all[2].arg(redis.key("page"));
    let answers = redis.ask_each(Lane::Bodies, deadline, &all).await.unwrap();
    assert_eq!(
        answers,
        [
            Ok(Value::BulkString(b"kept".into())),
            Ok(Value::Nil),
            Err(Away::Unexpected)
        ]
    );

    let script = Script::new("return ARGV[1] .. redis.call('GET', KEYS[1])");
    let mut run = script.prepare_invoke();
    run.key(redis.key("page")).arg("well ");
    for _ in 0..2 {
        let answer: String = redis.run(Lane::Control, deadline, &run).await.unwrap();
        assert_eq!(answer, "well kept");
        // The next run finds it gone and loads it again.
        server.command::<()>(&["SCRIPT", "FLUSH"]);
        server.command::<()>(&["SET", "shop:page", "kept"]);
    }

    let counts = redis.counts();
    assert_eq!(counts.questions, 4);
    assert_eq!(counts.away, []);
    assert_eq!(counts.times.iter().map(|(_, count)| count).sum::<u64>(), 4);
    let clients: String = server.command(&["CLIENT", "LIST"]);
    // Two for bodies, one for the rest, and the one that asks here.
    assert!(clients.lines().count() >= 4, "{clients}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nobody_there_a_question_is_refused_at_once_and_a_start_is_noticed() {
    let port = free_port();
    let nodes = format!(
        "nodes = [\"redis://{}\"]\ndeadline = {DEADLINE:?}",
        loopback(port)
    );
    let redis = open(&nodes).await;
    assert_eq!(redis.state(), State::Away(Away::Refused));
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(get_back(&redis, "page").await, Err(Away::Refused));
    }
    assert!(began.elapsed() < Duration::from_secs(2), "none has waited");

    let _server = RedisServer::start_on(port);
    until(&redis, State::Up);
    set_at_last(&redis, "page").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_silent_costs_a_few_deadlines_and_no_more() {
    let server = RedisServer::start();
    let redis = open(&with_deadline(&server, "100ms")).await;
    server.pause();
    let began = Instant::now();
    for _ in 0..200 {
        assert_eq!(get_back(&redis, "page").await, Err(Away::Deadline));
    }
    // Two connections, each given up after three: 0.6 s of the 20 s that all would have cost.
    assert!(began.elapsed() < Duration::from_secs(8), "all have waited");
    until(&redis, State::Away(Away::Deadline));
    server.resume();
    until(&redis, State::Up);
    set_at_last(&redis, "page").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_beyond_those_in_flight_do_not_wait_and_each_lane_has_its_own() {
    let server = RedisServer::start();
    let table = format!(
        "nodes = [{:?}]\nconnections = 1\nmax_in_flight = 1\ndeadline = {DEADLINE:?}",
        server.url()
    );
    let redis = open(&table).await;
    server.pause();
    let get = cmd("GET").arg(redis.key("page")).take();
    let ask = |lane| redis.ask::<Value>(lane, &get);
    let (first, second, other) =
        tokio::join!(ask(Lane::Bodies), ask(Lane::Bodies), ask(Lane::Control));
    assert_eq!((first, second), (Err(Away::Deadline), Err(Away::Busy)));
    assert_eq!(other, Err(Away::Deadline));
    server.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_is_used_again_when_it_is_back() {
    let mut server = RedisServer::start();
    let redis = open(&of(&server)).await;
    set(&redis, "page").await.unwrap();
    server.kill();
    let away = get_back(&redis, "page").await.unwrap_err();
    assert!(matches!(away, Away::Lost | Away::Refused), "{away}");
    until(&redis, State::Away(Away::Refused));
    server.restart();
    until(&redis, State::Up);
    set_at_last(&redis, "other").await;
    assert_eq!(get_back(&redis, "page").await, Ok(None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_is_still_read_and_the_end_of_it_is_noticed_without_a_write() {
    let server = RedisServer::start();
    let redis = open(&of(&server)).await;
    set(&redis, "page").await.unwrap();
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(set(&redis, "more").await, Err(Away::OutOfMemory));
    assert_eq!(redis.state(), State::WritesRefused(Away::OutOfMemory));
    assert!(redis.is_up() && !redis.takes_writes());
    assert_eq!(get_back(&redis, "page").await, Ok(Some("kept".into())));
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    until(&redis, State::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_became_a_replica_is_still_read() {
    let server = RedisServer::start();
    let redis = open(&of(&server)).await;
    set(&redis, "page").await.unwrap();
    // Of a master that does not answer, so that it keeps what it has.
    server.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(set(&redis, "more").await, Err(Away::ReadOnly));
    assert_eq!(redis.state(), State::WritesRefused(Away::ReadOnly));
    assert_eq!(get_back(&redis, "page").await, Ok(Some("kept".into())));
    server.command::<()>(&["REPLICAOF", "NO", "ONE"]);
    until(&redis, State::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_answers_for_every_slot_after_a_failover() {
    let mut cluster = RedisCluster::start();
    let redis = open(&format!(
        "nodes = [{}]\ndeadline = {DEADLINE:?}\nconnections = 1",
        cluster.urls()
    ))
    .await;
    let names: Vec<String> = (0..24).map(|number| format!("page-{number}")).collect();
    for name in &names {
        set(&redis, name).await.unwrap();
    }
    let gets: Vec<_> = names
        .iter()
        .map(|name| cmd("GET").arg(redis.key(name)).take())
        .collect();
    let answers = redis.ask_each(Lane::Bodies, redis.deadline(), &gets).await;
    let kept = Ok(Value::BulkString(b"kept".into()));
    assert!(answers.unwrap().iter().all(|answer| *answer == kept));

    let mut events = redis.subscribe(vec![redis.key("purges")]);
    assert_eq!(next(&mut events).await, Event::Subscribed);
    cluster.fail_over(0);
    for name in &names {
        set_at_last(&redis, name).await;
    }
    assert_eq!(redis.state(), State::Up);

    // It was the first node that was listened to; what any other is told is heard from the next.
    assert_eq!(next(&mut events).await, Event::Lost);
    assert_eq!(next(&mut events).await, Event::Subscribed);
    cluster.nodes()[2].command::<i64>(&["PUBLISH", "tollgate:purges", "all"]);
    let message = Event::Message {
        channel: "tollgate:purges".into(),
        payload: "all".into(),
    };
    assert_eq!(next(&mut events).await, message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_found_while_one_of_its_servers_is_silent() {
    let cluster = RedisCluster::start();
    // A replica: no key needs it.
    cluster.nodes()[5].pause();
    let redis = open(&format!(
        "nodes = [{}]\ndeadline = {DEADLINE:?}\nconnect_timeout = \"4s\"\nconnections = 1",
        cluster.urls()
    ))
    .await;
    until(&redis, State::Up);
    set_at_last(&redis, "page").await;
    cluster.nodes()[5].resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_that_the_sentinel_names_is_the_one_that_is_written_to() {
    let sentinel = Sentinel::start();
    let table = format!(
        "nodes = [{:?}]\nsentinel = {{ master = {:?} }}\ndeadline = {DEADLINE:?}",
        sentinel.url(),
        Sentinel::NAME
    );
    let redis = open(&table).await;
    set(&redis, "page").await.unwrap();
    assert_eq!(sentinel.master.command::<i64>(&["DBSIZE"]), 1);

    sentinel.fail_over();
    set_at_last(&redis, "after").await;
    let key = redis.key("after");
    assert_eq!(sentinel.replica.command::<i64>(&["EXISTS", &key]), 1);

    let unknown = table.replace(Sentinel::NAME, "nobody");
    assert_eq!(open(&unknown).await.state(), State::Away(Away::NoMaster));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_verified_on_both_sides() {
    let authority = TestCa::new();
    let folder = TempDir::new().unwrap();
    authority.issue_into(folder.path(), "server", &["localhost"]);
    authority.issue_into(folder.path(), "client", &["client"]);
    fs::write(folder.path().join("ca.pem"), authority.certificate()).unwrap();
    fs::write(folder.path().join("other.pem"), TestCa::new().certificate()).unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let port = free_port();
    let _server = RedisServer::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &file("server.crt"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-ca-cert-file",
        &file("ca.pem"),
    ]);
    let table = |ca: &str, identity: &str| {
        format!(
            "nodes = [\"rediss://localhost:{port}\"]\ndeadline = {DEADLINE:?}\nca = {:?}\n{identity}",
            file(ca)
        )
    };
    let identity = format!(
        "certificate = {:?}\nkey = {:?}",
        file("client.crt"),
        file("client.key")
    );

    let redis = open(&table("ca.pem", &identity)).await;
    assert_eq!(redis.state(), State::Up);
    set(&redis, "page").await.unwrap();
    let redis = open(&table("other.pem", &identity)).await;
    assert_eq!(redis.state(), State::Away(Away::Tls));
    let redis = open(&table("ca.pem", "")).await;
    assert!(matches!(redis.state(), State::Away(_)), "who are you?");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_few_rights_is_enough_and_a_wrong_password_is_told() {
    let server = RedisServer::start();
    let rules = [
        "ACL", "SETUSER", "gate", "on", ">s3cret", "~gate:*", "&gate:*",
    ];
    // As docs/redis.md has them.
    let rights = "-@all +@read +@write +@scripting +@pubsub +@connection +@transaction -@dangerous";
    let rights: Vec<&str> = rights.split(' ').collect();
    server.command::<()>(&[&rules[..], &rights[..]].concat());
    server.command::<()>(&["CONFIG", "SET", "requirepass", "other"]);

    let table = |name: &str, password: &str| {
        format!(
            "nodes = [\"redis://{name}:{password}@{}/2\"]\ndeadline = {DEADLINE:?}\nprefix = \"gate:\"",
            server.address()
        )
    };
    let redis = open(&table("gate", "s3cret")).await;
    assert_eq!(redis.state(), State::Up);
    set(&redis, "page").await.unwrap();
    let foreign = cmd("GET").arg("foreign").take();
    assert_eq!(
        redis.ask::<Value>(Lane::Control, &foreign).await,
        Err(Away::Denied)
    );
    assert_eq!(
        redis.state(),
        State::Up,
        "one key that is denied is not the loss of all"
    );

    for table in [table("gate", "wrong"), table("", "wrong"), of(&server)] {
        assert_eq!(
            open(&table).await.state(),
            State::Away(Away::Denied),
            "{table}"
        );
    }
}

async fn next(events: &mut Receiver<Event>) -> Event {
    let event = timeout(PATIENCE, events.recv()).await;
    event
        .expect("an event comes")
        .expect("the subscription lives")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_hears_every_message_and_of_every_gap() {
    let mut server = RedisServer::start();
    let redis = open(&of(&server)).await;
    let mut events = redis.subscribe(vec![redis.key("purges"), redis.key("news")]);
    assert_eq!(next(&mut events).await, Event::Subscribed);
    let message = |payload: &'static str| Event::Message {
        channel: "tollgate:purges".into(),
        payload: payload.into(),
    };
    for payload in ["first", "second"] {
        server.command::<i64>(&["PUBLISH", "tollgate:purges", payload]);
    }
    assert_eq!(next(&mut events).await, message("first"));
    assert_eq!(next(&mut events).await, message("second"));

    server.kill();
    assert_eq!(next(&mut events).await, Event::Lost);
    server.restart();
    assert_eq!(next(&mut events).await, Event::Subscribed);
    server.command::<i64>(&["PUBLISH", "tollgate:purges", "third"]);
    assert_eq!(next(&mut events).await, message("third"));

    // Silence is a gap too.
    server.pause();
    assert_eq!(next(&mut events).await, Event::Lost);
    server.resume();
    assert_eq!(next(&mut events).await, Event::Subscribed);
}

#[test]
fn a_gateway_serves_without_its_redis_and_says_once_that_it_is_away_and_that_it_is_back() {
    let port = free_port();
    let gateway = Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [redis]
        nodes = ["redis://gate:s3cret@{}"]
        health_interval = "1s"
        [[route]]
        respond = {{ body = "served" }}
        "#,
        loopback(port)
    ));
    gateway.wait_for_log("that Redis is away", |line| line.contains("Redis is away"));
    let answer = get(gateway.address(), "/");
    assert_eq!(answer.status(), 200);

    let server = RedisServer::start_on(port);
    gateway.wait_for_log("why it is not let in", |line| {
        line.contains(r#""Redis is still away""#) && line.contains(r#""denied""#)
    });
    server.command::<()>(&["ACL", "SETUSER", "gate", "on", ">s3cret", "+@all", "~*"]);
    gateway.wait_for_log("its return", |line| {
        line.contains(r#""Redis answers again""#)
    });
    let lines = gateway.log().lines();
    let said = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!(said("Redis is away"), 1);
    assert_eq!(said("s3cret"), 0);
}
