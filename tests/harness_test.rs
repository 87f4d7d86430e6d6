//! The harness is tested too: a check that cannot fail proves nothing.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::harness::client::{Connection, get, raw};
use crate::harness::load::Load;
use crate::harness::origin::{Origin, Reply};
use crate::harness::port::{bind_free, free_port, loopback};
use crate::harness::process::{Process, Signal};
use crate::harness::response::Broken;
use crate::harness::{stats, wait_for, wait_within};

#[test]
fn a_port_is_handed_out_once_and_can_be_bound() {
    let ports: std::collections::HashSet<_> = (0..100).map(|_| free_port()).collect();
    assert_eq!(ports.len(), 100);
    let (listener, address) = bind_free();
    assert_eq!(listener.local_addr().expect("bound"), address);
}

#[test]
fn a_process_ends_with_its_children() {
    let process = Process::spawn("shell", Command::new("sh").args(["-c", "sleep 600 & wait"]));
    let members = wait_for("the shell's child", || {
        let members = process.members();
        (members.len() == 2).then_some(members)
    });
    assert!(members.contains(&process.pid()));
    let group = process.pid();
    drop(process);
    assert_eq!(stats::group_members(group), [0_u32; 0]);
}

#[test]
fn a_process_that_ignores_sigterm_is_killed() {
    let script = "trap '' TERM; echo trapped; while :; do sleep 1; done";
    let mut process = Process::spawn("stubborn shell", Command::new("sh").args(["-c", script]));
    process.wait_for_log("that it is deaf", |line| line == "trapped");
    process.stop();
    assert!(process.members().is_empty());
}

#[test]
fn signals_reach_the_process_and_its_log_can_be_awaited() {
    let script = "trap 'echo hup' HUP; trap 'echo quit; exit 3' QUIT; echo ready; \
                  while :; do sleep 0.02; done";
    let mut process = Process::spawn("shell", Command::new("sh").args(["-c", script]));
    process.wait_for_log("ready", |line| line == "ready");
    let position = process.log().position();
    process.signal(Signal::Hangup);
    process.wait_for_log_after(position, "hup", |line| line == "hup");
    assert!(
        process
            .log()
            .wait_after(position, |line| line == "ready", Duration::ZERO)
            .is_none()
    );
    process.signal(Signal::Quit);
    assert_eq!(process.wait_for_exit().code(), Some(3));
    assert_eq!(process.log().lines()[0], "ready");
}

#[test]
fn memory_and_sockets_of_a_process_are_seen() {
    let own = std::process::id();
    assert!(stats::rss_kib(own) > 1024);
    let (listener, address) = bind_free();
    let before = stats::connections_to(address.port());
    let _client = TcpStream::connect(address).expect("it listens");
    let (_server, _) = listener.accept().expect("someone connects");
    assert_eq!(stats::connections_to(address.port()), before + 1);
    assert!(stats::open_sockets(own) >= 3);
}

#[test]
fn an_origin_records_requests_byte_for_byte() {
    let origin = Origin::always(Reply::ok("hello"));
    let mut client = Connection::open(origin.address());
    let request = b"POST /a HTTP/1.1\r\nX-Odd:  two  spaces \r\nContent-Length: 4\r\n\r\nbody";
    for _ in 0..2 {
        client.send(request).expect("it reads");
        assert_eq!(client.response().expect("a response").text(), "hello");
    }
    let received = origin.wait_for_requests(2);
    assert_eq!(received[0].head, &request[..request.len() - 4]);
    assert_eq!(received[1].body, b"body");
    assert_eq!(received[1].body_bytes, 4);
    assert_eq!(received[1].fields("x-odd"), ["two  spaces"]);
    assert_eq!((received[0].connection, received[1].connection), (0, 0));
    assert_eq!((origin.accepted(), origin.open()), (1, 1));
    drop(client);
    wait_for("the origin to see the close", || {
        (origin.open() == 0).then_some(())
    });
}

#[test]
fn chunked_bodies_and_trailers_are_understood_both_ways() {
    let chunked = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n";
    let origin = Origin::always(Reply::raw(format!("HTTP/1.1 200 OK\r\n{chunked}")));
    let mut client = Connection::open(origin.address());
    client
        .send(format!("PUT / HTTP/1.1\r\n{chunked}").as_bytes())
        .expect("it reads");
    let response = client.response().expect("a response");
    assert_eq!(response.text(), "abcde");
    assert_eq!(response.trailers, [("T".to_owned(), "1".to_owned())]);
    assert_eq!(origin.received()[0].body, b"abcde");
}

#[test]
fn an_origin_replies_in_turn_and_can_change_its_mind() {
    let origin = Origin::in_turn([Reply::status(503, "no"), Reply::ok("yes")]);
    assert_eq!(get(origin.address(), "/").status(), 503);
    assert_eq!(get(origin.address(), "/").status(), 200);
    assert_eq!(get(origin.address(), "/").text(), "yes");
    origin.reply_with(Reply::status(500, ""));
    assert_eq!(get(origin.address(), "/").status(), 500);
}

#[test]
fn an_origin_dies_in_every_way() {
    let half = || Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    let origin = Origin::in_turn([
        Reply::nothing().then_close(),
        half().then_close(),
        half().then_reset(),
        Reply::nothing().then_reset(),
    ]);
    let outcome = || {
        Connection::open(origin.address())
            .get("/")
            .expect_err("no whole response")
    };
    assert!(matches!(outcome(), Broken::Closed));
    assert!(matches!(outcome(), Broken::Truncated));
    assert!(matches!(outcome(), Broken::Reset));
    assert!(matches!(outcome(), Broken::Reset));
}

#[test]
fn an_origin_stalls_until_the_client_leaves() {
    let origin = Origin::always(Reply::raw("HTTP/1.1 200 OK\r\n").then_stall());
    let patience = Duration::from_millis(50);
    let answer = raw(origin.address(), b"GET / HTTP/1.1\r\n\r\n", patience);
    assert_eq!(answer, b"HTTP/1.1 200 OK\r\n");
    wait_for("the origin to see the close", || {
        (origin.open() == 0).then_some(())
    });
}

#[test]
fn an_origin_refuses_and_comes_back_on_the_same_port() {
    let mut origin = Origin::always(Reply::ok("here"));
    let mut client = Connection::open(origin.address());
    assert_eq!(client.get("/").expect("a response").text(), "here");
    origin.refuse();
    assert!(matches!(client.some(), Err(Broken::Reset)));
    assert!(TcpStream::connect(origin.address()).is_err());
    origin.accept_again();
    assert_eq!(get(origin.address(), "/").text(), "here");
}

#[test]
fn an_origin_can_reply_before_the_body_has_come() {
    let origin = Origin::with(|request| Reply::ok(&request.head_text())).replying_at_head();
    let mut client = Connection::open(origin.address());
    client
        .send(b"POST /early HTTP/1.1\r\nContent-Length: 5\r\n\r\n")
        .expect("it reads");
    let response = client.response().expect("a response");
    assert!(response.text().starts_with("POST /early "));
    assert_eq!(response.head.reason, "Test");
    assert_eq!(response.head.version, "HTTP/1.1");
}

#[test]
fn a_client_can_crash_and_half_close() {
    let origin = Origin::always(Reply::nothing().then_stall());
    let mut client = Connection::open(origin.address());
    client.send(b"GET / HTTP/1.1\r\n\r\n").expect("it reads");
    origin.wait_for_requests(1);
    client.reset();
    wait_for("the origin to see the reset", || {
        (origin.open() == 0).then_some(())
    });
    let mut client = Connection::open(origin.address());
    assert_eq!(client.socket().peer_addr().ok(), Some(origin.address()));
    client.finish_sending().expect("an open socket");
    client.wait_for_close().expect("the origin closes too");
}

#[test]
fn load_counts_answers_replays_and_failures_apart() {
    let mut origin = Origin::always(Reply::ok("a"));
    let load = Load::start(origin.address(), "/", 4);
    load.wait_for_more(100);
    origin.reset_connections();
    load.wait_for_more(100);
    origin.reply_with(Reply::status(503, "b"));
    load.wait_for_more(10);
    let tally = load.stop();
    assert!(tally.statuses[&200] >= 200, "{tally:?}");
    assert!(tally.statuses[&503] >= 4, "{tally:?}");
    assert_eq!(tally.bodies["a"], tally.statuses[&200]);
    assert!((1..=4).contains(&tally.replayed), "{tally:?}");
    assert_eq!(tally.failures, [""; 0]);
    assert!(origin.received()[0].head_text().starts_with("GET / "));

    origin.refuse();
    let load = Load::start(origin.address(), "/", 1);
    load.wait_for_more(1);
    let tally = load.stop();
    assert!(tally.failures[0].contains("refused"), "{tally:?}");
}

#[test]
fn waiting_ends_at_its_deadline() {
    assert_eq!(wait_within(Duration::from_millis(20), || None::<()>), None);
    let closed = loopback(free_port());
    assert!(TcpStream::connect(closed).is_err());
}
