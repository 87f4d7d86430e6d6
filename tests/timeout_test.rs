//! Every wait for a backend ends: with the right answer, in time, and without its connection.

use std::io::Read;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use http::Request;
use tokio::net::TcpStream;

use crate::harness::client::Connection;
use crate::harness::gateway::Gateway;
use crate::harness::h2_client::runtime;
use crate::harness::origin::{Origin, Reply};
use crate::harness::port::{bind_free, full_port};
use crate::harness::response::{Broken, Response};
use crate::harness::wait_for;

/// The timeout that each test sets; the others are long.
const SHORT: Duration = Duration::from_millis(300);
/// So coarse are the timers of the gateway.
const TICK: Duration = Duration::from_millis(15);
/// A wait that ends by itself ends before this, on a busy machine too.
const BOUND: Duration = Duration::from_secs(8);

const UPGRADE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A gateway over one backend, with these timeouts of the upstream and of the route.
fn start(backend: impl ToString, timeouts: &str, of_route: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [log]
        access = "all"
        [upstream.app]
        backends = ["{}"]
        retry = {{ attempts = 1 }}
        timeouts = {{ {timeouts} }}
        [[route]]
        upstream = "app"
        timeouts = {{ {of_route} }}
        "#,
        backend.to_string()
    ))
}

/// Runs `act` and holds it to the short timeout and the bound.
fn in_time<T>(act: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = act();
    let took = began.elapsed();
    assert!(took >= SHORT - TICK, "after {took:?} already");
    assert!(took < BOUND, "after {took:?} only");
    result
}

fn get(gateway: &Gateway) -> Response {
    gateway.connect().get("/").expect("a response")
}

fn assert_refused(answer: &Response, status: u16, reason: &str) {
    assert_eq!(answer.status(), status);
    assert!(answer.text().contains(reason), "{}", answer.text());
}

fn assert_connection_is_discarded(origin: &Origin) {
    wait_for("the connection to be closed", || {
        (origin.open() == 0).then_some(())
    });
}

#[test]
fn a_connection_that_is_not_made_in_time_is_a_504() {
    let (address, _held) = full_port();
    let gateway = start(address, "connect = \"300ms\"", "");
    assert_refused(&in_time(|| get(&gateway)), 504, "upstream_timeout");
}

#[test]
fn a_tls_handshake_counts_as_connecting() {
    // It accepts, and never says hello.
    let (listener, address) = bind_free();
    let gateway = Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [upstream.app]
        backends = ["{address}"]
        tls = {{ sni = "app.example" }}
        retry = {{ attempts = 1 }}
        timeouts = {{ connect = "300ms" }}
        [[route]]
        upstream = "app"
        "#
    ));
    assert_refused(&in_time(|| get(&gateway)), 504, "upstream_timeout");
    let (mut socket, _) = listener.accept().expect("it was connected to");
    let mut hello = Vec::new();
    // To its end: the gateway has closed it.
    let _ = socket.read_to_end(&mut hello);
    assert!(!hello.is_empty());
}

#[test]
fn a_response_that_does_not_begin_in_time_is_a_504() {
    for beginning in ["", "HTTP/1.1 200 OK\r\nContent-"] {
        let origin = Origin::always(Reply::raw(beginning).then_stall());
        let gateway = start(origin.address(), "first_byte = \"300ms\"", "");
        assert_refused(&in_time(|| get(&gateway)), 504, "upstream_timeout");
        assert_connection_is_discarded(&origin);
        gateway.wait_for_log("which backend and why", |line| {
            line.contains("timed out") && line.contains(&origin.address().to_string())
        });
        gateway.wait_until_idle(1);
    }
}

#[test]
fn interim_responses_do_not_prolong_the_wait() {
    let origin = Origin::always(Reply::raw("HTTP/1.1 102 Processing\r\n\r\n").then_stall());
    let gateway = start(origin.address(), "first_byte = \"300ms\"", "");
    assert_refused(&in_time(|| get(&gateway)), 504, "upstream_timeout");
    assert_connection_is_discarded(&origin);
}

#[test]
fn a_client_that_pauses_in_its_upload_is_not_the_fault_of_the_backend() {
    let heads = [
        ("Content-Length: 10", "abcde", "fghij"),
        (
            "Transfer-Encoding: chunked",
            "5\r\nabcde\r\n",
            "5\r\nfghij\r\n0\r\n\r\n",
        ),
    ];
    for (framing, begin, end) in heads {
        let origin = Origin::always(Reply::ok("thanks"));
        let gateway = start(
            origin.address(),
            "first_byte = \"100ms\", read = \"100ms\"",
            "",
        );
        let mut client = gateway.connect();
        let head = format!("PUT / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{begin}");
        client.send(head.as_bytes()).expect("the gateway reads");
        // Nothing is to happen meanwhile, several first_bytes long.
        client
            .socket()
            .set_read_timeout(Some(SHORT))
            .expect("above zero");
        assert!(matches!(client.head(), Err(Broken::Silent)), "{framing}");
        client
            .socket()
            .set_read_timeout(Some(BOUND))
            .expect("above zero");
        client.send(end.as_bytes()).expect("the gateway reads");
        assert_eq!(client.response().expect("a response").text(), "thanks");
        assert_eq!(origin.received()[0].body, b"abcdefghij");
    }
}

#[test]
fn the_wait_for_a_response_begins_when_the_upload_is_whole() {
    let origin = Origin::always(Reply::nothing().then_stall());
    let gateway = start(origin.address(), "first_byte = \"300ms\"", "");
    let mut client = gateway.connect();
    let head = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n";
    client.send(head).expect("the gateway reads");
    let answer = in_time(|| {
        client.send(b"0\r\n\r\n").expect("the gateway reads");
        client.response().expect("a response")
    });
    assert_refused(&answer, 504, "upstream_timeout");
    assert_connection_is_discarded(&origin);
}

#[test]
fn a_body_that_pauses_for_too_long_ends_the_response_visibly() {
    for head in [
        "Content-Length: 1000\r\n\r\nbegun",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n",
        "\r\nbegun",
    ] {
        let origin = Origin::always(Reply::raw(format!("HTTP/1.1 200 OK\r\n{head}")).then_stall());
        let gateway = start(origin.address(), "read = \"300ms\"", "");
        let end = in_time(|| gateway.connect().get("/").expect_err("no whole response"));
        assert!(
            matches!(end, Broken::Truncated | Broken::Reset),
            "{head:?}: {end}"
        );
        assert_connection_is_discarded(&origin);
        gateway.wait_for_log("the record", |line| line.contains("upstream_truncated"));
        gateway.wait_until_idle(1);
    }
}

#[test]
fn a_client_that_reads_slowly_is_not_a_body_that_pauses() {
    let body = "x".repeat(20_000_000);
    let origin = Origin::always(Reply::ok(&body));
    let gateway = start(
        origin.address(),
        "read = \"100ms\", first_byte = \"10s\"",
        "",
    );
    let mut client = gateway.connect();
    client
        .send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("the gateway reads");
    let head = client.head().expect("a head");
    // The client's own pause, several times as long as the backend may make one.
    std::thread::sleep(SHORT);
    let received = client.body(&head, |_| {}).expect("the whole body").bytes;
    assert_eq!(received, body.len() as u64);
}

/// A backend that accepts and reads nothing, and a client that sends it more than buffers hold.
fn upload_to_one_who_does_not_read(timeouts: &str) -> (TcpListener, Result<Response, Broken>) {
    const LENGTH: usize = 40_000_000;
    let (listener, address) = bind_free();
    let gateway = start(address, timeouts, "");
    let mut client = gateway.connect();
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
    client.send(head.as_bytes()).expect("the gateway reads");
    let block = vec![0; 1_000_000];
    // The gateway may give up before it has read all of it.
    let _ = (0..LENGTH / block.len()).try_for_each(|_| client.send(&block));
    let answer = client.response();
    gateway.wait_until_idle(1);
    gateway.wait_for_log("which backend and why", |line| {
        line.contains("attempt failed") && line.contains("timed out")
    });
    (listener, answer)
}

#[test]
fn a_backend_that_does_not_read_an_upload_is_given_up() {
    let (_listener, answer) =
        in_time(|| upload_to_one_who_does_not_read("write = \"300ms\", first_byte = \"60s\""));
    // The upload is broken off: the answer may be lost with it, as RFC 9112 9.6 has it.
    if let Ok(answer) = answer {
        assert_refused(&answer, 504, "upstream_timeout");
    }
}

#[test]
fn a_websocket_that_is_silent_for_too_long_is_closed() {
    let origin = Origin::always(Reply::raw(SWITCHING).then_stall());
    let gateway = start(origin.address(), "websocket_idle = \"300ms\"", "");
    let mut client = gateway.connect();
    in_time(|| {
        client.send(UPGRADE).expect("the gateway reads");
        assert_eq!(client.head().expect("a head").status, 101);
        client.wait_for_close()
    })
    .expect("it is closed");
    assert_connection_is_discarded(&origin);
    gateway.wait_until_idle(1);
}

#[test]
fn a_websocket_lives_by_its_own_timeout() {
    let origin = Origin::always(Reply::raw(SWITCHING).then_stall());
    let timeouts = "first_byte = \"100ms\", read = \"100ms\", write = \"100ms\"";
    let gateway = start(origin.address(), timeouts, "");
    let mut client = gateway.connect();
    client.send(UPGRADE).expect("the gateway reads");
    assert_eq!(client.head().expect("a head").status, 101);
    client
        .socket()
        .set_read_timeout(Some(SHORT))
        .expect("above zero");
    assert!(matches!(client.some(), Err(Broken::Silent)));
    assert_eq!(origin.open(), 1);
}

#[test]
fn a_route_has_timeouts_of_its_own() {
    let long = "connect = \"20s\", first_byte = \"20s\", read = \"20s\", write = \"20s\"";
    let silent = Origin::always(Reply::nothing().then_stall());
    let gateway = start(silent.address(), long, "first_byte = \"300ms\"");
    assert_refused(&in_time(|| get(&gateway)), 504, "upstream_timeout");

    let pauses = Origin::always(
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun").then_stall(),
    );
    let gateway = start(pauses.address(), long, "read = \"300ms\"");
    assert!(in_time(|| gateway.connect().get("/")).is_err());

    let (address, _held) = full_port();
    let gateway = start(address, long, "connect = \"300ms\"");
    assert_refused(&in_time(|| get(&gateway)), 504, "upstream_timeout");

    let websocket = Origin::always(Reply::raw(SWITCHING).then_stall());
    let gateway = start(
        websocket.address(),
        "websocket_idle = \"1h\"",
        "websocket_idle = \"300ms\"",
    );
    let mut client: Connection = gateway.connect();
    client.send(UPGRADE).expect("the gateway reads");
    assert_eq!(client.head().expect("a head").status, 101);
    in_time(|| client.wait_for_close()).expect("it is closed");
}

#[test]
fn a_route_may_wait_longer_than_its_upstream() {
    let origin = Origin::with(|_| {
        std::thread::sleep(SHORT);
        Reply::ok("at last")
    });
    let gateway = start(
        origin.address(),
        "first_byte = \"100ms\"",
        "first_byte = \"20s\"",
    );
    assert_eq!(in_time(|| get(&gateway)).text(), "at last");
}

#[test]
fn a_client_that_never_reads_frees_its_backend_whatever_the_answers_are_like() {
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(16)
    );
    let backend = Origin::always(Reply::raw(chunked));
    let gateway = Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        send_timeout = "500ms"
        [log]
        access = "all"
        [upstream.app]
        backends = ["{}"]
        max_connections = 1
        queue = 0
        [[route]]
        upstream = "app"
        "#,
        backend.address()
    ));
    let mut greedy = gateway.connect();
    // Many times what the sockets between can hold, asked for and never read.
    let pipelined = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(400);
    greedy.send(pipelined.as_bytes()).expect("it is read ahead");
    gateway.wait_for_log("the one that is held up", |line| {
        line.contains(r#""aborted":true"#)
    });
    gateway.wait_until_idle(1);
}

#[test]
fn a_client_of_http2_that_opens_no_window_frees_its_backend() {
    // Many times the 64 KiB that HTTP/2 lets a server send unasked.
    let backend = Origin::always(Reply::ok(&"x".repeat(1 << 20)));
    let gateway = Gateway::start(&format!(
        r#"
        [server]
        listen = [{{ address = "127.0.0.1:0", h2c = true }}]
        send_timeout = "500ms"
        [log]
        access = "all"
        [upstream.app]
        backends = ["{}"]
        [[route]]
        upstream = "app"
        "#,
        backend.address()
    ));
    let runtime = runtime();
    let _unread = runtime.block_on(async {
        let socket = TcpStream::connect(gateway.address()).await;
        let socket = socket.expect("it listens");
        let handshake = h2::client::handshake(socket).await;
        let (mut sender, connection) = handshake.expect("an HTTP/2 server");
        tokio::spawn(async { connection.await.ok() });
        let request = Request::get("http://a/").body(()).expect("a valid URL");
        let (response, _) = sender.send_request(request, true).expect("it is open");
        (sender, response.await.expect("a head"))
    });
    gateway.wait_for_log("the one that is held up", |line| {
        line.contains(r#""aborted":true"#)
    });
    gateway.wait_until_idle(1);
}
