//! Backends that have a name: what its name server says is what they are.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Instant;

use crate::harness::client::{Connection, get};
use crate::harness::gateway::Gateway;
use crate::harness::name_server::{NameServer, Zone};
use crate::harness::origin::{Origin, Reply};
use crate::harness::process::Signal;
use crate::harness::wait_for;

const FIRST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The shortest time that an answer holds.
const BRIEFLY: u32 = 1;

fn config(names: &NameServer, origin: &Origin, of_upstream: &str) -> String {
    format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        watch = false
        [resolver]
        servers = ["{}"]
        timeout = "100ms"
        [upstream.app]
        backends = ["app.example:{}"]
        balance = "round-robin"
        {of_upstream}
        [[route]]
        upstream = "app"
        "#,
        names.address(),
        origin.address().port(),
    )
}

/// Ready, and with the first answer.
fn start(names: &NameServer, origin: &Origin, of_upstream: &str) -> Gateway {
    let gateway = Gateway::start(&config(names, origin, of_upstream));
    gateway.wait_for_log("its start", |line| line.contains(r#""ready""#));
    gateway
}

fn says<'a>(message: &'a str, address: Ipv4Addr) -> impl Fn(&str) -> bool + 'a {
    move |line| line.contains(message) && line.contains(&format!("\"{address}:"))
}

/// Two instances of one name, which say who they are.
fn instances() -> (Origin, Origin) {
    let first = Origin::always(Reply::ok("first"));
    let second = Origin::beside(&first, SECOND, Reply::ok("second"));
    (first, second)
}

#[test]
fn an_instance_that_joins_a_name_gets_its_share() {
    let (first, second) = instances();
    let names = NameServer::start(Zone::Addresses(vec![FIRST], BRIEFLY));
    let gateway = start(&names, &first, "");
    for _ in 0..4 {
        assert_eq!(get(gateway.address(), "/").text(), "first");
    }

    names.say(Zone::Addresses(vec![FIRST, SECOND], BRIEFLY));
    gateway.wait_for_log("the new instance", says("backend joins", SECOND));

    for _ in 0..4 {
        assert_eq!(get(gateway.address(), "/").status(), 200);
    }
    assert_eq!((first.received().len(), second.received().len()), (6, 2));
}

#[test]
fn an_instance_that_joins_a_name_rises_slowly() {
    let (first, _second) = instances();
    let names = NameServer::start(Zone::Addresses(vec![FIRST], BRIEFLY));
    let gateway = start(&names, &first, r#"slow_start = "1m""#);
    assert_eq!(gateway.status(1)[0].state, "Up", "who is there at first");

    names.say(Zone::Addresses(vec![FIRST, SECOND], BRIEFLY));
    gateway.wait_for_log("the new instance", says("backend joins", SECOND));
    let [old, new] = &gateway.status(2)[..] else {
        panic!("not two backends");
    };
    assert_eq!(old.state, "Up");
    assert!(new.state.starts_with("Rising"), "{new:?}");
}

#[test]
fn an_instance_that_leaves_a_name_finishes_what_it_has_and_gets_no_more() {
    let first = Origin::always(Reply::ok("first"));
    let second = Origin::beside(&first, SECOND, Reply::ok("second"));
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    second.answer(move |_| {
        let held = released.lock().expect("no holder panics");
        held.recv().expect("the test releases it");
        Reply::ok("late")
    });
    let names = NameServer::start(Zone::Addresses(vec![SECOND], BRIEFLY));
    let gateway = start(&names, &first, "");
    let mut under_way = Connection::open(gateway.address());
    under_way
        .send(b"GET / HTTP/1.1\r\nHost: test.example\r\n\r\n")
        .expect("the gateway reads");
    second.wait_for_requests(1);

    names.say(Zone::Addresses(vec![FIRST], BRIEFLY));
    gateway.wait_for_log("the drain", says("backend is drained", SECOND));
    for _ in 0..4 {
        assert_eq!(get(gateway.address(), "/").text(), "first");
    }

    release.send(()).expect("the origin waits for it");
    assert_eq!(under_way.response().expect("a whole answer").text(), "late");
    assert_eq!(second.received().len(), 1);
}

#[test]
fn while_a_name_does_not_resolve_its_last_addresses_serve() {
    let (first, second) = instances();
    let known = Zone::Addresses(vec![FIRST, SECOND], BRIEFLY);
    let names = NameServer::start(known.clone());
    let gateway = start(&names, &first, "");
    for outage in [Zone::Failing, Zone::Silent, Zone::NoSuchName, Zone::Empty] {
        let position = gateway.log().position();
        let before = (first.received().len(), second.received().len());
        names.say(outage.clone());
        let line = gateway.wait_for_log_after(position, "the outage", |line| {
            line.contains("name does not resolve; its last addresses are kept")
        });
        assert!(line.contains(r#""name":"app.example""#), "{line}");
        assert!(line.contains(r#""kept":2"#), "{outage:?}: {line}");

        for _ in 0..4 {
            assert_eq!(get(gateway.address(), "/").status(), 200, "{outage:?}");
        }
        let now = (first.received().len(), second.received().len());
        assert_eq!(now, (before.0 + 2, before.1 + 2), "{outage:?}");

        names.say(known.clone());
        gateway.wait_for_log_after(position, "its end", |line| {
            line.contains("name resolves again")
        });
    }
    let drained = |line: &String| line.contains("backend is drained");
    assert!(!gateway.log().lines().iter().any(drained));
}

#[test]
fn a_name_server_that_fails_for_one_family_takes_no_backend_of_it() {
    let (first, _second) = instances();
    let names = NameServer::start(Zone::Addresses(vec![FIRST, SECOND], BRIEFLY));
    let gateway = start(&names, &first, "");
    names.say(Zone::FailingForIpv4);
    // Two rounds of both questions at least: the answers of the first have been taken in.
    names.wait_for_more(8);
    let backends: Vec<_> = gateway
        .status(2)
        .into_iter()
        .map(|status| status.backend)
        .collect();
    let port = first.address().port();
    assert_eq!(
        backends,
        [format!("{FIRST}:{port}"), format!("{SECOND}:{port}")]
    );
}

#[test]
fn a_failure_of_dns_is_not_said_to_be_a_name_without_address() {
    let origin = Origin::always(Reply::ok("hello"));
    let names = NameServer::start(Zone::FailingForIpv4);
    let gateway = start(&names, &origin, "");
    let line = gateway.wait_for_log("the failure", |line| line.contains("does not resolve"));
    assert!(line.contains(r#""why":"the resolver failed""#), "{line}");
}

#[test]
fn a_name_that_is_unknown_at_the_start_serves_once_it_is_known() {
    let origin = Origin::always(Reply::ok("hello"));
    let names = NameServer::start(Zone::NoSuchName);
    let gateway = start(&names, &origin, "");
    let refused = get(gateway.address(), "/");
    assert_eq!(refused.status(), 503);
    assert!(refused.text().contains("upstream_unavailable"));

    names.say(Zone::Addresses(vec![FIRST], BRIEFLY));
    wait_for("the name to serve", || {
        let answer = get(gateway.address(), "/");
        (answer.status() == 200).then_some(())
    });
}

#[test]
fn a_name_server_that_is_silent_holds_up_the_start_for_two_seconds_at_most() {
    let origin = Origin::always(Reply::ok("hello"));
    let names = NameServer::start(Zone::Silent);
    let slow = config(&names, &origin, "").replace("100ms", "60s");
    let gateway = Gateway::start(&slow);
    gateway.wait_for_log("what is missing", |line| {
        line.contains("some names of backends are not resolved yet")
    });
    let refused = get(gateway.address(), "/");
    assert_eq!(refused.status(), 503);
}

#[test]
fn an_answer_that_holds_for_long_is_asked_for_again_all_the_same() {
    const AN_HOUR: u32 = 3600;
    let (first, _second) = instances();
    let names = NameServer::start(Zone::Addresses(vec![FIRST], AN_HOUR));
    let gateway = start(&names, &first, r#"resolve_every = "1s""#);
    names.say(Zone::Addresses(vec![SECOND], AN_HOUR));
    gateway.wait_for_log("the new address", says("backend joins", SECOND));
    assert_eq!(get(gateway.address(), "/").text(), "second");
}

#[test]
fn an_answer_that_does_not_hold_is_asked_for_once_a_second() {
    let (first, _second) = instances();
    let names = NameServer::start(Zone::Addresses(vec![FIRST], 0));
    let _gateway = start(&names, &first, "");
    let begun = Instant::now();
    // Both families, three times.
    names.wait_for_more(6);
    let seconds = begun.elapsed().as_secs_f64();
    assert!(seconds > 1.5, "six questions in {seconds} s");
}

#[test]
fn other_name_servers_are_asked_after_a_reload() {
    let (first, _second) = instances();
    let old = NameServer::start(Zone::Addresses(vec![FIRST], BRIEFLY));
    let new = NameServer::start(Zone::Addresses(vec![SECOND], BRIEFLY));
    let gateway = start(&old, &first, "");
    assert_eq!(get(gateway.address(), "/").text(), "first");

    gateway.write_config(&config(&new, &first, ""));
    gateway.signal(Signal::Hangup);
    gateway.wait_for_log("the drain", says("backend is drained", FIRST));
    assert_eq!(get(gateway.address(), "/").text(), "second");

    // The old one is left alone: the new one is asked for two rounds meanwhile.
    let asked = old.asked();
    new.wait_for_more(4);
    assert_eq!(old.asked(), asked);
}

#[test]
fn a_second_name_server_answers_for_the_first() {
    let origin = Origin::always(Reply::ok("hello"));
    let silent = NameServer::start(Zone::Silent);
    let names = NameServer::start(Zone::Addresses(vec![FIRST], BRIEFLY));
    let both = format!(
        r#"servers = ["{}", "{}"]"#,
        silent.address(),
        names.address()
    );
    let one = format!(r#"servers = ["{}"]"#, names.address());
    let gateway = Gateway::start(&config(&names, &origin, "").replace(&one, &both));
    assert_eq!(get(gateway.address(), "/").text(), "hello");
}
