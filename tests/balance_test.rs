//! Which backend a request goes to, and that the count of requests in flight is always true.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::apps::Gunicorn;
use crate::harness::client::Connection;
use crate::harness::gateway::Gateway;
use crate::harness::load::Load;
use crate::harness::origin::{Origin, Received, Reply};
use crate::harness::process::Signal;
use crate::harness::response::Response;
use crate::harness::wait_for;

/// A gateway that believes everyone about the client's address, with these backends as TOML.
fn config(backends: &str, more: &str) -> String {
    format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [clients]
        trusted_proxies = ["127.0.0.0/8"]
        [log]
        access = "off"
        slow_after = "1m"
        [upstream.app]
        backends = [{backends}]
        {more}
        [[route]]
        upstream = "app"
        "#
    )
}

fn start(backends: &[&Origin], more: &str) -> Gateway {
    Gateway::start(&config(&plain(backends), more))
}

fn plain(backends: &[&Origin]) -> String {
    let quoted = |origin: &&Origin| format!("\"{}\"", origin.address());
    backends.iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// A backend with more keys than its address.
fn with(origin: &Origin, keys: &str) -> String {
    format!("{{ address = \"{}\", {keys} }}", origin.address())
}

/// Backends that answer with their own name: a, b, c…
fn named<const N: usize>() -> [Origin; N] {
    std::array::from_fn(|index| Origin::always(Reply::ok(&name_of(index))))
}

fn name_of(index: usize) -> String {
    char::from(b'a' + u8::try_from(index).expect("few backends")).to_string()
}

/// GET with one more field.
fn get_with(client: &mut Connection, field: &str) -> Response {
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
    client.send(request.as_bytes()).expect("the gateway reads");
    client.response().expect("a response")
}

/// How often each backend answered this many requests, one after the other.
fn answers(gateway: &Gateway, requests: usize) -> BTreeMap<String, usize> {
    let mut client = gateway.connect();
    let mut answers = BTreeMap::new();
    for _ in 0..requests {
        let answer = client.get("/").expect("a response");
        assert_eq!(answer.status(), 200);
        *answers.entry(answer.text()).or_default() += 1;
    }
    answers
}

fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

/// A backend whose requests wait until the test releases them, one by one.
struct Gated {
    origin: Origin,
    release: mpsc::Sender<()>,
}

impl Gated {
    fn new(name: &str) -> Self {
        let (release, gate) = mpsc::channel();
        let (gate, name) = (Mutex::new(gate), name.to_owned());
        let origin = Origin::with(move |_| {
            // The test may end with requests still waiting.
            let _ = gate.lock().expect("no holder panics").recv();
            Reply::ok(&name)
        });
        Self { origin, release }
    }

    fn release(&self, requests: usize) {
        for _ in 0..requests {
            self.release.send(()).expect("the origin lives");
        }
    }
}

fn send_get(gateway: &Gateway, path: &str) -> Connection {
    let mut client = gateway.connect();
    client
        .send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
        .expect("the gateway reads");
    client
}

/// What was in flight at this many moments under load.
fn looks(gateway: &Gateway, looks: usize) -> Vec<Vec<u64>> {
    (0..looks).map(|_| gateway.in_flight(3)).collect()
}

/// The three loads are one apart at most: at nearly every moment, and on the whole. Between the
/// end of one request and the next of the same client there may be more.
fn assert_even(looks: &[Vec<u64>]) {
    let mean = |index: usize| {
        let sum: u64 = looks.iter().map(|look| look[index]).sum();
        sum as f64 / looks.len() as f64
    };
    let means = [mean(0), mean(1), mean(2)];
    for (one, other) in [(0, 1), (1, 2), (2, 0)] {
        assert!((means[one] - means[other]).abs() <= 1.0, "{means:?}");
    }
    let within_one =
        |look: &&Vec<u64>| look.iter().max() <= look.iter().min().map(|min| min + 1).as_ref();
    let even = looks.iter().filter(within_one).count();
    assert!(even * 2 >= looks.len(), "{looks:?}");
}

#[test]
fn a_backend_200_ms_slower_has_as_many_requests_in_flight_as_the_others() {
    let slept = |time: u64| {
        let count = AtomicUsize::new(0);
        Origin::with(move |_| {
            // The latency of the application, not a wait for something; it varies, as latency does.
            let jitter = count.fetch_add(37, Ordering::Relaxed) as u64 % 60;
            thread::sleep(Duration::from_millis(time + jitter));
            Reply::ok("hello")
        })
    };
    let [fast, faster, slow] = [slept(30), slept(30), slept(230)];
    let gateway = start(&[&fast, &faster, &slow], "");
    let load = Load::start(gateway.address(), "/", 64);
    load.wait_for_more(300);
    let looks = looks(&gateway, 60);
    let tally = load.stop();
    assert_even(&looks);
    assert!(tally.statuses.keys().eq([&200]), "{:?}", tally.statuses);
    gateway.wait_until_idle(3);
    let served = slow.received().len();
    assert!(
        served * 4 < fast.received().len() * 2,
        "it was served {served}"
    );
}

#[test]
fn a_gunicorn_200_ms_slower_has_as_many_requests_in_flight_as_the_others() {
    let apps = ["200", "200", "400"].map(|ms| Gunicorn::start(ms, &[("LATENCY_MS", ms)]));
    let backends = apps.each_ref().map(|app| format!("\"{}\"", app.address()));
    let gateway = Gateway::start(&config(&backends.join(", "), ""));
    let load = Load::start(gateway.address(), "/whoami", 64);
    load.wait_for_more(300);
    let looks = looks(&gateway, 40);
    let tally = load.stop();
    assert_even(&looks);
    assert!(tally.statuses.keys().eq([&200]), "{:?}", tally.statuses);
    gateway.wait_until_idle(3);
}

/// The same numbers in every run, in no order that anyone could see.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A backend that fails in every way there is, now and then.
fn moody(seed: u64) -> Origin {
    let dice = Mutex::new(Dice(seed));
    let body = "x".repeat(100_000);
    Origin::with(move |_| {
        let roll = dice.lock().expect("no holder panics").roll(100);
        match roll {
            0..4 => Reply::status(503, "busy"),
            4..6 => Reply::nothing().then_reset(),
            6..8 => Reply::raw("HTTP/1.1 200 OK\r\nContent-").then_reset(),
            8..10 => {
                Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nbegun").then_close()
            }
            10..12 => Reply::raw("nonsense\r\n\r\n"),
            12..40 => Reply::ok(&body),
            _ => Reply::ok("hello"),
        }
    })
}

/// One request of a client that is as moody, to its end or to where it breaks off.
fn moody_request(gateway: &Gateway, dice: &mut Dice) {
    let upload = "PUT /moody HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n";
    let download = "GET /moody HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = gateway.connect();
    // Every step may fail: the backend is killed meanwhile, or the gateway has refused early.
    let complete = match dice.roll(8) {
        0 => client.send(&download.as_bytes()[..20]).is_err(),
        1 => client.send(download.as_bytes()).is_err(),
        2 => client.send(download.as_bytes()).is_ok() && client.head().is_err(),
        3 => client.send(upload.as_bytes()).is_err(),
        4 => client.send(upload.as_bytes()).is_ok() && client.send(&[b'x'; 9000]).is_err(),
        5 => client.send(upload.as_bytes()).is_ok() && client.send(&[b'x'; 30_000]).is_ok(),
        _ => client.send(download.as_bytes()).is_ok(),
    };
    if complete {
        let _ = client.response();
    } else if dice.roll(2) == 0 {
        client.reset();
    }
}

#[test]
fn every_count_returns_to_zero_after_ten_thousand_requests_of_every_fate() {
    const CLIENTS: u64 = 16;
    const REQUESTS: usize = 10_000 / CLIENTS as usize;
    let mut origins: [Origin; 3] = std::array::from_fn(|index| moody(index as u64));
    let more = "fail_timeout = \"20ms\"\nretry = { attempts = 3 }\nlast_resort = \"try-anyway\"";
    let gateway = start(&[&origins[0], &origins[1], &origins[2]], more);
    let left = AtomicUsize::new(CLIENTS as usize);
    thread::scope(|scope| {
        for seed in 0..CLIENTS {
            let (gateway, left) = (&gateway, &left);
            scope.spawn(move || {
                let mut dice = Dice(seed);
                for _ in 0..REQUESTS {
                    moody_request(gateway, &mut dice);
                }
                left.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let mut killed = 0;
        while left.load(Ordering::Relaxed) > 0 {
            let arrived = origins[0].received().len();
            origins[killed % 3].refuse();
            origins[killed % 3].accept_again();
            killed += 1;
            // The next kill when some requests have come through, or nobody is left to send any.
            wait_for("requests between two kills", || {
                let more = origins[0].received().len() > arrived + 20;
                (more || left.load(Ordering::Relaxed) == 0).then_some(())
            });
        }
        assert!(killed > 3, "killed only {killed} times");
    });
    gateway.wait_until_idle(3);
    assert_eq!(answers_anything(&gateway), 200);
}

/// The status of a request that is repeated until the moody backends are in the mood.
fn answers_anything(gateway: &Gateway) -> u16 {
    wait_for("an answer", || {
        let answer = gateway.connect().get("/").ok()?;
        (answer.status() == 200).then_some(200)
    })
}

#[test]
fn weights_are_shares_in_turn() {
    let [a, b] = named();
    let backends = format!("{}, {}", with(&a, "weight = 3"), with(&b, "weight = 1"));
    let gateway = Gateway::start(&config(&backends, "balance = \"round-robin\""));
    assert_eq!(answers(&gateway, 40), counts([("a", 30), ("b", 10)]));
}

#[test]
fn weights_are_shares_of_the_requests_in_flight() {
    let [a, b] = [Gated::new("a"), Gated::new("b")];
    let backends = format!(
        "{}, {}",
        with(&a.origin, "weight = 3"),
        with(&b.origin, "weight = 1")
    );
    let gateway = Gateway::start(&config(&backends, ""));
    let clients: Vec<_> = (0..8).map(|_| send_get(&gateway, "/")).collect();
    wait_for("eight requests", || {
        (gateway.in_flight(2) == [6, 2]).then_some(())
    });
    a.release(6);
    b.release(2);
    for mut client in clients {
        assert_eq!(client.response().expect("a response").status(), 200);
    }
    gateway.wait_until_idle(2);
}

#[test]
fn random_two_uses_all_and_spares_the_one_that_is_busy() {
    let [a, b] = named();
    let busy = Gated::new("busy");
    let gateway = start(&[&a, &b, &busy.origin], "balance = \"random-two\"");
    // It holds what it gets, so the less loaded of any two is another.
    let held: Vec<_> = (0..60).map(|_| send_get(&gateway, "/")).collect();
    wait_for("the others to be done", || {
        let load = gateway.in_flight(3);
        (load[0] == 0 && load[1] == 0 && load[2] > 0).then_some(())
    });
    let answers = answers(&gateway, 200);
    assert_eq!(answers.values().sum::<usize>(), 200);
    assert!(answers.values().all(|count| *count > 40), "{answers:?}");
    busy.release(60);
    drop(held);
    gateway.wait_until_idle(3);
}

/// Which backend serves each of these keys; asked twice, and twice the same.
fn homes(gateway: &Gateway, field: &dyn Fn(usize) -> String) -> Vec<String> {
    let mut client = gateway.connect();
    let mut ask = |key: usize| get_with(&mut client, &field(key)).text();
    let first: Vec<_> = (0..60).map(&mut ask).collect();
    let second: Vec<_> = (0..60).map(&mut ask).collect();
    assert_eq!(first, second);
    first
}

fn reload(gateway: &Gateway, config: &str) {
    let position = gateway.log().position();
    gateway.write_config(config);
    gateway.signal(Signal::Hangup);
    gateway.wait_for_log_after(position, "the reload", |line| line.contains("reloaded"));
}

/// A removed backend's keys move, and nobody else's; when it is back, so are they.
fn only_the_keys_of_a_removed_backend_move(balance: &str, field: &dyn Fn(usize) -> String) {
    let [a, b, c] = named();
    let more = format!("balance = \"consistent-hash:{balance}\"");
    let all = config(&plain(&[&a, &b, &c]), &more);
    let gateway = Gateway::start(&all);
    let before = homes(&gateway, field);
    for name in ["a", "b", "c"] {
        let share = before.iter().filter(|home| *home == name).count();
        assert!(share >= 8, "{name} has {share} of 60 keys");
    }
    reload(&gateway, &config(&plain(&[&a, &c]), &more));
    for (old, new) in before.iter().zip(homes(&gateway, field)) {
        assert!(new == *old || old == "b", "{old} became {new}");
    }
    reload(&gateway, &all);
    assert_eq!(homes(&gateway, field), before);
}

#[test]
fn a_client_keeps_its_backend() {
    only_the_keys_of_a_removed_backend_move("client-ip", &|key| {
        format!("X-Forwarded-For: 198.51.100.{key}")
    });
}

#[test]
fn a_header_keeps_its_backend() {
    only_the_keys_of_a_removed_backend_move("header:X-Tenant", &|key| format!("X-Tenant: t{key}"));
}

#[test]
fn a_cookie_keeps_its_backend_whatever_stands_beside_it() {
    only_the_keys_of_a_removed_backend_move("cookie:sid", &|key| {
        format!("Cookie: a=b; sid=s{key}; xsid={}", key * 7)
    });
}

#[test]
fn a_request_without_its_key_goes_to_the_least_loaded() {
    let [a, b] = named();
    let gateway = start(&[&a, &b], "balance = \"consistent-hash:cookie:sid\"");
    assert_eq!(answers(&gateway, 20).len(), 2);
}

#[test]
fn a_backup_is_used_only_while_no_primary_is_up() {
    let [mut a, b, c] = named();
    let backends = format!(
        "{}, {}, {}",
        with(&a, "weight = 1"),
        with(&b, "weight = 1"),
        with(&c, "backup = true")
    );
    let more = "balance = \"round-robin\"\nfail_timeout = \"300ms\"\nmax_fails = 1\nretry = { attempts = 3, budget = \"100%\" }";
    let gateway = Gateway::start(&config(&backends, more));
    assert_eq!(answers(&gateway, 10), counts([("a", 5), ("b", 5)]));
    a.refuse();
    assert_eq!(answers(&gateway, 2), counts([("b", 2)]));
    let mut b = b;
    b.refuse();
    assert_eq!(answers(&gateway, 2), counts([("c", 2)]));
    a.accept_again();
    wait_for("the primary to be used again", || {
        (answers(&gateway, 1) == counts([("a", 1)])).then_some(())
    });
    assert!(!answers(&gateway, 10).contains_key("c"));
}

/// One backend that takes one request at a time, and a queue.
fn one_at_a_time(backend: &Gated, queue: &str) -> Gateway {
    start(&[&backend.origin], &format!("max_connections = 1\n{queue}"))
}

fn wait_for_waiting(gateway: &Gateway, count: u64) {
    wait_for(&format!("{count} to wait"), || {
        (gateway.status(1)[0].waiting == count).then_some(())
    });
}

fn path_of(request: &Received) -> String {
    let head = request.head_text();
    head.split(' ').nth(1).expect("a request line").to_owned()
}

#[test]
fn requests_beyond_the_cap_are_served_in_the_order_they_came() {
    let backend = Gated::new("a");
    let gateway = one_at_a_time(&backend, "queue = 3\nqueue_timeout = \"30s\"");
    let mut clients = vec![send_get(&gateway, "/0")];
    backend.origin.wait_for_requests(1);
    for place in 1..=3 {
        clients.push(send_get(&gateway, &format!("/{place}")));
        wait_for_waiting(&gateway, place);
    }
    let refused = gateway.connect().get("/4").expect("a response");
    assert_eq!(refused.status(), 503);
    assert!(refused.text().contains("queue_full"), "{}", refused.text());
    assert!(refused.field("retry-after").is_some());
    assert_eq!(gateway.in_flight(1), [1]);
    backend.release(4);
    for client in &mut clients {
        assert_eq!(client.response().expect("a response").text(), "a");
    }
    let order: Vec<_> = backend.origin.received().iter().map(path_of).collect();
    assert_eq!(order, ["/0", "/1", "/2", "/3"]);
    gateway.wait_until_idle(1);
}

#[test]
fn nobody_waits_longer_than_the_queue_timeout() {
    let backend = Gated::new("a");
    let gateway = one_at_a_time(&backend, "queue_timeout = \"300ms\"");
    let mut held = send_get(&gateway, "/0");
    backend.origin.wait_for_requests(1);
    let began = Instant::now();
    let refused = gateway.connect().get("/1").expect("a response");
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(refused.status(), 503);
    assert!(
        refused.text().contains("queue_timeout"),
        "{}",
        refused.text()
    );
    assert!(refused.field("retry-after").is_some());
    backend.release(1);
    assert_eq!(held.response().expect("a response").text(), "a");
    assert_eq!(backend.origin.received().len(), 1);
    gateway.wait_until_idle(1);
}

#[test]
fn clients_that_leave_while_they_wait_cost_nothing() {
    let backend = Gated::new("a");
    let gateway = one_at_a_time(&backend, "queue = 10\nqueue_timeout = \"30s\"");
    let mut held = send_get(&gateway, "/0");
    backend.origin.wait_for_requests(1);
    for _ in 0..4 {
        let client = send_get(&gateway, "/gone");
        wait_for_waiting(&gateway, 1);
        client.reset();
        // Its place is free at once, not when its turn comes.
        wait_for_waiting(&gateway, 0);
    }
    backend.release(1);
    assert_eq!(held.response().expect("a response").text(), "a");
    gateway.wait_until_idle(1);
    assert_eq!(gateway.status(1)[0].waiting, 0);
    backend.release(10);
    assert_eq!(
        gateway.connect().get("/last").expect("a response").text(),
        "a"
    );
}

#[test]
fn a_client_that_leaves_frees_the_place_of_its_request() {
    let backend = Gated::new("a");
    let gateway = one_at_a_time(&backend, "queue_timeout = \"30s\"");
    let client = send_get(&gateway, "/gone");
    backend.origin.wait_for_requests(1);
    let mut next = send_get(&gateway, "/next");
    wait_for_waiting(&gateway, 1);
    drop(client);
    backend.release(2);
    assert_eq!(next.response().expect("a response").text(), "a");
    gateway.wait_until_idle(1);
}

#[test]
fn a_recovered_backend_rises_slowly() {
    let [mut a, b] = named();
    let more =
        "balance = \"round-robin\"\nslow_start = \"1m\"\nmax_fails = 1\nfail_timeout = \"200ms\"";
    let gateway = start(&[&a, &b], more);
    let address = a.address().to_string();
    a.refuse();
    answers(&gateway, 2);
    gateway.wait_for_state(2, &address, "Failed");
    a.accept_again();
    wait_for("a trial", || {
        answers(&gateway, 2).contains_key("a").then_some(())
    });
    gateway.wait_for_state(2, &address, "Rising");
    let share = answers(&gateway, 40)["a"];
    assert!((1..10).contains(&share), "it got {share} of 40");
}

#[test]
fn a_websocket_is_load_until_it_is_closed() {
    const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let origin = Origin::always(Reply::raw(SWITCHING).then_stall());
    let gateway = start(&[&origin], "");
    let open = || {
        let mut client = gateway.connect();
        let request = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        client.send(request.as_bytes()).expect("the gateway reads");
        assert_eq!(client.head().expect("a head").status, 101);
        client
    };
    // So many, because a tunnel that closes at once does so only sometimes.
    let mut tunnels: Vec<_> = (0..100).map(|_| open()).collect();
    assert_eq!(gateway.in_flight(1), [100]);
    tunnels.pop().expect("a hundred").reset();
    wait_for("one to be gone", || {
        (gateway.in_flight(1) == [99]).then_some(())
    });
    drop(tunnels);
    gateway.wait_until_idle(1);
}
