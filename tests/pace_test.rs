//! What an upstream is given, how fast and how much at once, and who goes first when it is given no more.

use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::client::Connection;
use crate::harness::gateway::Gateway;
use crate::harness::load::Load;
use crate::harness::origin::{Origin, Reply};
use crate::harness::response::Response;
use crate::harness::wait_for;

const TOKEN: &str = "a-token-of-the-test";

fn start(origin: &Origin, upstream: &str) -> Gateway {
    start_with(origin, upstream, "[[route]]\nupstream = \"app\"")
}

fn start_with(origin: &Origin, upstream: &str, routes: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [admin]
        listen = "127.0.0.1:0"
        token = "{TOKEN}"
        [log]
        access = "off"
        slow_after = "1m"
        [upstream.app]
        backends = ["{}"]
        {upstream}
        {routes}
        "#,
        origin.address()
    ))
}

/// A sample of the metrics.
fn metric(gateway: &Gateway, name: &str) -> f64 {
    let mut admin = Connection::open(gateway.addresses()[1]);
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    admin.send(request.as_bytes()).expect("it is read");
    let metrics = admin.response().expect("an answer").text();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name} in\n{metrics}"));
    value.trim().parse().expect("a number")
}

fn health(gateway: &Gateway) -> String {
    let mut admin = Connection::open(gateway.addresses()[1]);
    admin.get("/health").expect("an answer").text()
}

fn queued(class: &str) -> String {
    format!("tollgate_upstream_queued{{upstream=\"app\",priority=\"{class}\"}}")
}

pub fn wait_for_queued(gateway: &Gateway, class: &str, count: f64) {
    wait_for("requests in the queue", || {
        (metric(gateway, &queued(class)) == count).then_some(())
    });
}

/// A request under way, of a lane: the express lane serves GET, the full lane POST.
fn send(gateway: &Gateway, method: &str, path: &str) -> Connection {
    let mut client = gateway.connect();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let request = match method {
        "GET" => request.replace("Content-Length: 0\r\n", ""),
        _ => request,
    };
    client.send(request.as_bytes()).expect("the gateway reads");
    client
}

fn ask(gateway: &Gateway, method: &str) -> Response {
    send(gateway, method, "/").response().expect("a response")
}

fn too_many(retry_after: &str) -> Reply {
    Reply::raw(format!(
        "HTTP/1.1 429 Slow Down\r\n{retry_after}Content-Length: 4\r\n\r\nslow"
    ))
}

/// When each request arrived at an origin that answers them by `reply`.
fn timed(
    reply: impl Fn(usize) -> Reply + Send + Sync + 'static,
) -> (Origin, Arc<Mutex<Vec<Instant>>>) {
    let times = Arc::new(Mutex::new(Vec::new()));
    let seen = times.clone();
    let origin = Origin::with(move |_| {
        let mut times = seen.lock().expect("no holder panics");
        times.push(Instant::now());
        reply(times.len())
    });
    (origin, times)
}

fn arrivals(times: &Mutex<Vec<Instant>>) -> Vec<Instant> {
    times.lock().expect("no holder panics").clone()
}

/// A backend that works on so many requests at once, each for this long; the others wait for it to have time.
fn with_workers(count: usize, time: Duration) -> Origin {
    let workers = Arc::new((Mutex::new(count), Condvar::new()));
    Origin::with(move |_| {
        let (free, ended) = &*workers;
        let is_busy = |free: &mut usize| *free == 0;
        let mut free_now = ended
            .wait_while(free.lock().expect("no holder panics"), is_busy)
            .expect("no holder panics");
        *free_now -= 1;
        drop(free_now);
        // The work of the application.
        thread::sleep(time);
        *free.lock().expect("no holder panics") += 1;
        ended.notify_one();
        Reply::ok("done")
    })
}

/// What clients saw of an upstream that was asked for more than it can do.
struct Seen {
    /// Good answers a second.
    goodput: f64,
    /// 99 of 100 were as fast, or faster.
    p99: Duration,
    refused: usize,
}

/// Asks `each` second so many times from so many clients, whatever is answered, and counts after `warm_up`.
fn overload(gateway: &Gateway, clients: u32, each: u32, warm_up: Duration, time: Duration) -> Seen {
    let began = Instant::now();
    let (from, to) = (began + warm_up, began + warm_up + time);
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        for client in 0..clients {
            let tell = tell.clone();
            scope.spawn(move || {
                let period = Duration::from_secs(1) * clients / each;
                let mut next = began + period * client / clients;
                let mut kept = gateway.connect();
                while next < to {
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                    let sent = Instant::now();
                    let answer = kept.get("/").expect("a response");
                    let now = Instant::now();
                    if now >= from && now < to {
                        tell.send((answer.status(), now - sent))
                            .expect("it is awaited");
                    }
                    next = (next + period).max(now);
                }
            });
        }
        drop(tell);
        let mut good = Vec::new();
        let mut refused = 0;
        for (status, took) in told {
            match status {
                200 => good.push(took),
                503 => refused += 1,
                status => panic!("{status}"),
            }
        }
        good.sort_unstable();
        Seen {
            goodput: good.len() as f64 / time.as_secs_f64(),
            p99: good[good.len() * 99 / 100],
            refused,
        }
    })
}

#[test]
fn an_upstream_asked_for_five_times_what_it_can_do_does_what_it_can_and_answers_soon() {
    // 25 a second: the work is what takes time here, not the machine.
    let origin = with_workers(10, Duration::from_millis(400));
    let seconds = Duration::from_secs;
    // Without a limit each of 100 clients waits for the others, some four seconds.
    let measure = |gateway: &Gateway| overload(gateway, 100, 125, seconds(5), seconds(10));

    let without = measure(&start(&origin, ""));
    let gateway = start(
        &origin,
        "concurrency = \"adaptive\"\nqueue = 5\nqueue_timeout = \"1s\"",
    );
    let with = measure(&gateway);

    let limit = metric(&gateway, "tollgate_upstream_limit{upstream=\"app\"}");
    assert!(
        with.goodput >= 0.9 * without.goodput,
        "{} and {} a second, limit {limit}",
        with.goodput,
        without.goodput
    );
    assert!(
        with.p99 * 3 < without.p99 * 2,
        "{:?} {:?}",
        with.p99,
        without.p99
    );
    assert_eq!(without.refused, 0);
    assert!(with.refused > 0);
    assert!((5.0..40.0).contains(&limit), "{limit}");
    let shed = "tollgate_upstream_shed_total{upstream=\"app\",priority=\"normal\"}";
    assert!(metric(&gateway, shed) >= with.refused as f64);
    let refused = wait_for("a refusal", || {
        let load = Load::start(gateway.address(), "/", 60);
        let answer = ask(&gateway, "GET");
        drop(load);
        (answer.status() == 503).then_some(answer)
    });
    assert!(
        refused.text().contains("\"overloaded\""),
        "{}",
        refused.text()
    );
    assert_eq!(refused.field("retry-after"), Some("5"));
}

#[test]
fn requests_go_at_the_pace_of_the_upstream_and_none_is_lost() {
    let (origin, times) = timed(|_| Reply::ok("hello"));
    let gateway = start(
        &origin,
        "pace = \"50 per second, burst 5\"\nqueue_timeout = \"30s\"",
    );
    let load = Load::start(gateway.address(), "/", 20);
    load.wait_for_more(150);
    let tally = load.stop();
    assert!(tally.statuses.keys().eq([&200]), "{:?}", tally.statuses);
    let arrivals = arrivals(&times);
    let took = *arrivals.last().expect("some") - arrivals[0];
    let least = Duration::from_millis(20) * (arrivals.len() as u32 - 6);
    assert!(took >= least, "{} in {took:?}", arrivals.len());
    let paced = metric(&gateway, "tollgate_upstream_paced_total{upstream=\"app\"}");
    assert!(paced > 100.0, "{paced}");
}

#[test]
fn who_would_wait_for_the_pace_too_long_is_told_when_to_come_again() {
    let (origin, _) = timed(|_| Reply::ok("hello"));
    let gateway = start(&origin, "pace = \"1 per minute\"\nqueue_timeout = \"2s\"");
    for method in ["GET", "POST"] {
        if method == "GET" {
            assert_eq!(ask(&gateway, method).status(), 200);
        }
        let refused = ask(&gateway, method);
        assert_eq!(refused.status(), 503);
        assert!(
            refused.text().contains("\"upstream_paced\""),
            "{}",
            refused.text()
        );
        let wait: u64 = refused
            .field("retry-after")
            .expect("a field")
            .parse()
            .expect("seconds");
        assert!((40..=60).contains(&wait), "{wait}");
    }
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn after_a_429_nobody_goes_until_the_upstream_said_and_then_all_do() {
    for method in ["GET", "POST"] {
        let (origin, times) = timed(|request| match request {
            1 => too_many("Retry-After: 2\r\n"),
            _ => Reply::ok("hello"),
        });
        let gateway = start(&origin, "pace = {}\nqueue_timeout = \"20s\"");
        let met = ask(&gateway, method);
        assert_eq!((met.status(), met.text().as_str()), (429, "slow"));
        assert_eq!(met.field("retry-after"), Some("2"));
        assert!(
            health(&gateway).contains("\"app\":\"paused for "),
            "{}",
            health(&gateway)
        );

        let mut waiting: Vec<_> = (0..5).map(|_| send(&gateway, method, "/")).collect();
        for client in &mut waiting {
            assert_eq!(client.response().expect("a response").status(), 200);
        }
        let arrivals = arrivals(&times);
        assert_eq!(arrivals.len(), 6, "{method}");
        let pause = arrivals[1] - arrivals[0];
        assert!(pause >= Duration::from_secs(2), "{method} {pause:?}");
        assert!(
            health(&gateway).contains("\"held_upstreams\":{}"),
            "{}",
            health(&gateway)
        );
        assert_eq!(
            metric(&gateway, "tollgate_upstream_pauses_total{upstream=\"app\"}"),
            1.0
        );
    }
}

#[test]
fn a_pause_longer_than_anybody_waits_is_told_at_once() {
    for method in ["GET", "POST"] {
        let (origin, _) = timed(|_| {
            Reply::raw("HTTP/1.1 503 Busy\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n")
        });
        let gateway = start(&origin, "pace = {}");
        assert_eq!(ask(&gateway, method).status(), 503);
        let refused = ask(&gateway, method);
        assert_eq!(refused.status(), 503);
        assert!(
            refused.text().contains("\"upstream_paused\""),
            "{}",
            refused.text()
        );
        let wait: u64 = refused
            .field("retry-after")
            .expect("a field")
            .parse()
            .expect("seconds");
        assert!((20..=33).contains(&wait), "{wait}");
        assert_eq!(origin.received().len(), 1, "{method}");
    }
}

#[test]
fn a_429_is_tried_again_after_the_pause_where_the_operator_says_so() {
    let (origin, times) = timed(|request| match request {
        1 => too_many("Retry-After: 1\r\n"),
        _ => Reply::ok("hello"),
    });
    let gateway = start(
        &origin,
        "pace = {}\nqueue_timeout = \"20s\"\nretry = { on = [\"429\"] }",
    );
    assert_eq!(ask(&gateway, "GET").status(), 200);
    let arrivals = arrivals(&times);
    assert_eq!(arrivals.len(), 2);
    assert!(arrivals[1] - arrivals[0] >= Duration::from_secs(1));
}

#[test]
fn a_429_that_asks_for_more_time_than_there_is_reaches_its_client() {
    let (origin, _) = timed(|_| too_many("Retry-After: 60\r\n"));
    let gateway = start(&origin, "pace = {}\nretry = { on = [\"429\"] }");
    let answer = ask(&gateway, "GET");
    assert_eq!((answer.status(), answer.text().as_str()), (429, "slow"));
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn an_upstream_that_says_nothing_but_429_is_hardly_asked_any_more() {
    let (origin, _) = timed(|_| too_many(""));
    let gateway = start(
        &origin,
        "pace = {}\nretry = { attempts = 5, on = [\"429\"] }",
    );
    let load = Load::start(gateway.address(), "/", 20);
    load.wait_for_more(100);
    let tally = load.stop();
    assert!(
        tally
            .statuses
            .keys()
            .all(|status| [429, 503].contains(status))
    );
    let asked = origin.received().len();
    assert!(
        asked <= 30,
        "{asked}, of which 20 were under way when the first was answered"
    );
}

#[test]
fn an_application_without_a_pace_may_refuse_one_client_and_serve_the_others() {
    let (origin, _) = timed(|request| match request {
        1 => too_many("Retry-After: 60\r\n"),
        _ => Reply::ok("hello"),
    });
    let gateway = start(&origin, "");
    assert_eq!(ask(&gateway, "GET").status(), 429);
    assert_eq!(ask(&gateway, "GET").status(), 200);
}

/// A backend that answers when the test says so.
pub fn gated() -> (Origin, mpsc::Sender<()>) {
    let (release, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    let origin = Origin::with(move |request| {
        // The test may end with requests still waiting.
        let _ = gate.lock().expect("no holder panics").recv();
        let head = request.head_text();
        let path = head.split(' ').nth(1).unwrap_or_default();
        Reply::ok(path)
    });
    (origin, release)
}

const CLASSES: &str = r#"
    [[route]]
    upstream = "app"
    [[route]]
    path = "/healthz"
    upstream = "app"
    priority = "critical"
    [[route]]
    path = "/export"
    upstream = "app"
    priority = "low"
"#;

#[test]
fn when_the_queue_is_full_exports_give_way_to_pages_and_those_to_health_checks() {
    for method in ["GET", "POST"] {
        let (origin, release) = gated();
        let upstream = "max_connections = 1\nqueue = 2\nqueue_timeout = \"30s\"";
        let gateway = start_with(&origin, upstream, CLASSES);
        let mut busy = send(&gateway, method, "/");
        origin.wait_for_requests(1);
        let mut first = send(&gateway, method, "/export/1");
        wait_for_queued(&gateway, "low", 1.0);
        let mut second = send(&gateway, method, "/export/2");
        wait_for_queued(&gateway, "low", 2.0);

        let mut page = send(&gateway, method, "/page");
        let refused = second.response().expect("a response");
        assert_eq!(refused.status(), 503);
        assert!(refused.text().contains("\"queue_full\""));
        let mut check = send(&gateway, method, "/healthz");
        assert_eq!(first.response().expect("a response").status(), 503);
        assert_eq!(
            send(&gateway, method, "/export/3")
                .response()
                .expect("a response")
                .status(),
            503
        );

        for _ in 0..3 {
            release.send(()).expect("the origin lives");
        }
        for client in [&mut busy, &mut page, &mut check] {
            assert_eq!(client.response().expect("a response").status(), 200);
        }
        let order: Vec<String> = origin
            .received()
            .iter()
            .map(|request| {
                request
                    .head_text()
                    .split(' ')
                    .nth(1)
                    .expect("a path")
                    .to_owned()
            })
            .collect();
        assert_eq!(order, ["/", "/healthz", "/page"], "{method}");
        let shed = |class: &str| {
            let name =
                format!("tollgate_upstream_shed_total{{upstream=\"app\",priority=\"{class}\"}}");
            metric(&gateway, &name)
        };
        assert_eq!((shed("low"), shed("critical")), (3.0, 0.0));
    }
}

#[test]
fn a_client_that_leaves_the_queue_frees_its_place() {
    for method in ["GET", "POST"] {
        let (origin, _) = timed(|_| Reply::ok("hello"));
        let upstream = "pace = \"1 per 20s\"\nqueue = 1\nqueue_timeout = \"30s\"";
        let gateway = start(&origin, upstream);
        assert_eq!(ask(&gateway, method).status(), 200);
        let client = send(&gateway, method, "/");
        wait_for_queued(&gateway, "normal", 1.0);
        client.reset();
        wait_for_queued(&gateway, "normal", 0.0);
    }
}
