//! A backend fails under load, in each of the ways that backends do: who asked for something that
//! may be asked twice never notices, and the log says which backend and why.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use crate::harness::apps::{App, Gunicorn};
use crate::harness::client::{Connection, get};
use crate::harness::gateway::Gateway;
use crate::harness::load::{Load, Tally};
use crate::harness::origin::{Origin, Reply};
use crate::harness::response::Broken;
use crate::harness::wait_for;

/// A gateway that asks everything of these backends and waits a second for a first byte.
fn in_front_of(backends: &[String], more: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [upstream.app]
        backends = {backends:?}
        timeouts = {{ first_byte = "1s", read = "1s" }}
        {more}
        [[route]]
        upstream = "app"
        "#
    ))
}

fn origins<const N: usize>() -> [Origin; N] {
    std::array::from_fn(|_| Origin::always(Reply::ok("hello")))
}

fn addresses(origins: &[Origin]) -> Vec<String> {
    let address = |origin: &Origin| origin.address().to_string();
    origins.iter().map(address).collect()
}

fn assert_nobody_noticed(tally: &Tally) {
    assert_eq!(tally.failures, [""; 0]);
    assert!(tally.statuses.keys().eq([&200]), "{:?}", tally.statuses);
    assert_eq!(tally.replayed, 0);
}

/// Leaves out the responses that had begun: gunicorn writes head and body apart, and what has
/// begun cannot be asked for again. There are no more of them than the instance worked on.
fn without_those_begun(mut tally: Tally) -> Tally {
    // By least connections no instance of three has more of sixteen clients.
    const SHARE: usize = 6;
    let begun = Broken::Truncated.to_string();
    let all = tally.failures.len();
    tally.failures.retain(|failure| *failure != begun);
    let begun = all - tally.failures.len();
    assert!(begun <= SHARE, "{begun} responses were cut short");
    tally
}

/// Waits for the line that takes `backend` out of use and says why.
fn wait_for_blame(gateway: &Gateway, backend: &str, why: &str) {
    gateway.wait_for_log("which backend and why", |line| {
        line.contains("backend is down") && line.contains(backend) && line.contains(why)
    });
    gateway.wait_for_log("each failed attempt", |line| {
        line.contains("attempt failed") && line.contains(backend) && line.contains(why)
    });
}

/// Puts three Django instances under load, lets `harm` happen to the first, and returns what the
/// clients saw.
fn one_of_three_instances(harm: impl FnOnce(&mut App), why: &str) -> Tally {
    let mut apps = ["a", "b", "c"].map(|name| Gunicorn::start(name, &[]));
    let backends = apps.each_ref().map(|app| app.address().to_string());
    let gateway = in_front_of(&backends, "");
    let load = Load::start(gateway.address(), "/whoami", 16);
    load.wait_for_more(300);
    harm(&mut apps[0]);
    wait_for_blame(&gateway, &backends[0], why);
    load.wait_for_more(300);
    let tally = load.stop();
    gateway.wait_until_idle(3);
    assert_eq!(tally.bodies.len(), 3, "{:?}", tally.bodies);
    tally
}

#[test]
fn no_client_sees_an_instance_killed() {
    let tally = one_of_three_instances(App::kill, "connect failed");
    assert_nobody_noticed(&without_those_begun(tally));
}

#[test]
fn no_client_sees_an_instance_frozen() {
    let tally = one_of_three_instances(|app| app.freeze(), "timed out");
    assert_nobody_noticed(&without_those_begun(tally));
}

#[test]
fn no_client_sees_a_port_closed() {
    let mut backends = origins::<3>();
    let gateway = in_front_of(&addresses(&backends), "");
    let load = Load::start(gateway.address(), "/", 16);
    load.wait_for_more(300);
    backends[0].refuse();
    wait_for_blame(
        &gateway,
        &backends[0].address().to_string(),
        "connect failed",
    );
    load.wait_for_more(300);
    assert_nobody_noticed(&load.stop());
    gateway.wait_until_idle(3);
}

#[test]
fn no_client_sees_a_reset_in_the_middle_of_a_head() {
    let backends = origins::<3>();
    let gateway = in_front_of(&addresses(&backends), "");
    let load = Load::start(gateway.address(), "/", 16);
    load.wait_for_more(300);
    backends[0].reply_with(Reply::raw("HTTP/1.1 200 OK\r\nContent-Le").then_reset());
    wait_for_blame(
        &gateway,
        &backends[0].address().to_string(),
        "connection lost",
    );
    load.wait_for_more(300);
    assert_nobody_noticed(&load.stop());
    gateway.wait_until_idle(3);
}

#[test]
fn no_client_sees_a_backend_that_closes_without_an_answer() {
    let backends = origins::<3>();
    let gateway = in_front_of(&addresses(&backends), "");
    let load = Load::start(gateway.address(), "/", 16);
    load.wait_for_more(300);
    backends[0].reply_with(Reply::nothing().then_close());
    wait_for_blame(
        &gateway,
        &backends[0].address().to_string(),
        "connection lost",
    );
    load.wait_for_more(300);
    assert_nobody_noticed(&load.stop());
}

#[test]
fn a_response_that_had_begun_ends_visibly_and_is_not_asked_for_again() {
    let backends = origins::<2>();
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun";
    for origin in &backends {
        origin.reply_with(Reply::raw(begun).then_reset());
    }
    let gateway = in_front_of(&addresses(&backends), "");
    let mut client = gateway.connect();
    let end = client.get("/").expect_err("no whole response");
    assert!(matches!(end, Broken::Truncated | Broken::Reset), "{end}");
    gateway.wait_until_idle(2);
    let asked: usize = backends.iter().map(|origin| origin.received().len()).sum();
    assert_eq!(asked, 1);
}

#[test]
fn an_instance_that_was_restarted_is_used_again_without_an_error() {
    let mut apps = ["a", "b"].map(|name| Gunicorn::start(name, &[]));
    let backends = apps.each_ref().map(|app| app.address().to_string());
    let gateway = in_front_of(&backends, "fail_timeout = \"200ms\"");
    let load = Load::start(gateway.address(), "/whoami", 8);
    load.wait_for_more(100);
    apps[0].kill();
    wait_for_blame(&gateway, &backends[0], "connect failed");
    let position = gateway.log().position();
    apps[0].restart();
    gateway.wait_for_log_after(position, "the recovery", |line| {
        line.contains("backend is up") && line.contains(&backends[0])
    });
    load.wait_for_more(100);
    assert_nobody_noticed(&without_those_begun(load.stop()));
}

#[test]
fn pooled_connections_of_an_application_that_restarted_cost_no_request() {
    let mut origin = Origin::always(Reply::ok("hello"));
    let gateway = in_front_of(&addresses(std::slice::from_ref(&origin)), "");
    // Eight requests side by side leave eight idle connections.
    let load = Load::start(gateway.address(), "/", 8);
    load.wait_for_more(200);
    load.stop();
    assert!(origin.open() > 1);
    origin.refuse();
    origin.accept_again();
    for _ in 0..20 {
        assert_eq!(get(gateway.address(), "/").text(), "hello");
        let mut client = gateway.connect();
        let answer = post(&mut client, "x");
        assert_eq!(answer, 200);
    }
}

/// The status that a POST of this body gets.
fn post(client: &mut Connection, body: &str) -> u16 {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client
        .send(format!("{head}{body}").as_bytes())
        .expect("the gateway reads");
    client.response().expect("a response").status()
}

/// Answers the first request of each connection and resets it on the second: a server whose idle
/// timeout always ends in the very moment of the next request.
fn never_twice_on_one_connection() -> Origin {
    let served = Mutex::new(HashSet::new());
    Origin::with(move |request| {
        let mut served = served.lock().expect("no holder panics");
        match served.insert(request.connection) {
            true => Reply::ok("hello"),
            false => Reply::nothing().then_reset(),
        }
    })
}

#[test]
fn a_get_on_a_connection_that_dies_is_asked_again_on_a_new_one() {
    let origin = never_twice_on_one_connection();
    let gateway = in_front_of(&addresses(std::slice::from_ref(&origin)), "");
    for _ in 0..10 {
        assert_eq!(get(gateway.address(), "/").text(), "hello");
    }
    assert_eq!(origin.accepted(), 10);
}

#[test]
fn applications_that_answer_head_with_a_body_are_not_taken_down_by_it() {
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    let origins = [(); 2].map(|()| Origin::always(Reply::raw(reply)));
    let gateway = in_front_of(&addresses(&origins), "max_fails = 1");
    for _ in 0..20 {
        let mut client = gateway.connect();
        client
            .send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect("the gateway reads");
        assert_eq!(client.response_to("HEAD").expect("an answer").status(), 200);
    }
    assert_eq!(get(gateway.address(), "/").text(), "abc");
    for backend in gateway.status(2) {
        assert_eq!(backend.state, "Up", "{}", backend.backend);
    }
}

/// Longer than a connection may have rested that takes a POST.
const REST: Duration = Duration::from_millis(1100);

#[test]
fn a_post_takes_no_connection_that_has_rested() {
    let origin = never_twice_on_one_connection();
    let gateway = in_front_of(&addresses(std::slice::from_ref(&origin)), "");
    assert_eq!(get(gateway.address(), "/").text(), "hello");
    wait_for("the connection to be kept", || {
        (gateway.in_flight(1) == [0] && origin.open() == 1).then_some(())
    });
    // Servers close what has rested for a while, and what cannot be repeated must not cross that.
    std::thread::sleep(REST);
    assert_eq!(post(&mut gateway.connect(), "x"), 200);
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn a_post_on_a_connection_that_dies_is_sent_once_and_takes_nobody_down() {
    let backends = [
        never_twice_on_one_connection(),
        never_twice_on_one_connection(),
    ];
    let gateway = in_front_of(&addresses(&backends), "");
    let post = |_| post(&mut gateway.connect(), "x");
    let statuses: Vec<_> = (0..20).map(post).collect();
    // Nobody can know whether it took effect (RFC 9110 9.2.2): the client is told, and decides.
    assert!(statuses.contains(&502), "{statuses:?}");
    let sent: usize = backends.iter().map(|origin| origin.received().len()).sum();
    assert_eq!(sent, 20);
    for backend in gateway.status(2) {
        assert_eq!(backend.state, "Up", "{}", backend.backend);
    }
}
