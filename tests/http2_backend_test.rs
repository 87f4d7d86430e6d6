//! Every wait for a backend of `protocol = "h2"` or `"h2c"` ends too: as the documentation says, in time.

use std::time::{Duration, Instant};

use crate::harness::gateway::Gateway;
use crate::harness::h2_origin::{Conduct, H2Origin};
use crate::harness::port::{bind_free, full_port};
use crate::harness::response::Response;

/// The timeout that each test sets; the others are long, or shorter and to no effect.
const SHORT: Duration = Duration::from_millis(300);
/// A wait that ends by itself ends before this, on a busy machine too.
const BOUND: Duration = Duration::from_secs(8);

/// A gateway over one backend, which is asked once.
fn start(backend: impl ToString, protocol: &str, timeouts: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [log]
        access = "all"
        [upstream.app]
        backends = ["{}"]
        protocol = "{protocol}"
        retry = {{ attempts = 1 }}
        timeouts = {{ {timeouts} }}
        [[route]]
        upstream = "app"
        "#,
        backend.to_string()
    ))
}

fn in_time<T>(act: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = act();
    let took = began.elapsed();
    let early = SHORT - Duration::from_millis(5);
    assert!((early..BOUND).contains(&took), "after {took:?}");
    result
}

fn get(gateway: &Gateway) -> Response {
    gateway.connect().get("/").expect("a response")
}

fn assert_timed_out(answer: &Response) {
    assert_eq!(answer.status(), 504, "{}", answer.text());
    assert_eq!(answer.json()["reason"], "upstream_timeout");
}

#[test]
fn a_connection_that_is_not_made_in_time_is_a_504() {
    for protocol in [
        "h2c",
        "h2\"\ntls = { insecure = true }\nbalance = \"least-connections",
    ] {
        let (address, _held) = full_port();
        let gateway = start(address, protocol, "connect = \"300ms\"");
        assert_timed_out(&in_time(|| get(&gateway)));
    }
}

#[test]
fn a_tls_handshake_counts_as_connecting() {
    // It accepts, and never says hello.
    let (_listener, address) = bind_free();
    let over_tls = "h2\"\ntls = { insecure = true }\nbalance = \"least-connections";
    let gateway = start(address, over_tls, "connect = \"300ms\"");
    assert_timed_out(&in_time(|| get(&gateway)));
}

#[test]
fn the_larger_of_first_byte_and_read_bounds_the_wait_for_a_response() {
    for timeouts in [
        "first_byte = \"300ms\", read = \"100ms\"",
        "first_byte = \"100ms\", read = \"300ms\"",
    ] {
        let origin = H2Origin::start(Conduct::SaysNothing);
        let gateway = start(origin.address(), "h2c", timeouts);
        assert_timed_out(&in_time(|| get(&gateway)));
        gateway.wait_until_idle(1);
    }
}

#[test]
fn a_port_that_speaks_no_http_2_is_a_504_in_time() {
    let (_listener, address) = bind_free();
    let timeouts = "first_byte = \"300ms\", read = \"300ms\"";
    let gateway = start(address, "h2c", timeouts);
    assert_timed_out(&in_time(|| get(&gateway)));
}

#[test]
fn the_larger_of_first_byte_and_read_bounds_a_pause_of_the_body() {
    for timeouts in [
        "first_byte = \"300ms\", read = \"100ms\"",
        "first_byte = \"100ms\", read = \"300ms\"",
    ] {
        let origin = H2Origin::start(Conduct::StopsInItsBody);
        let gateway = start(origin.address(), "h2c", timeouts);
        in_time(|| gateway.connect().get_broken_off("/"));
        gateway.wait_for_log("whose fault it was", |line| {
            line.contains("upstream_truncated")
        });
        gateway.wait_until_idle(1);
    }
}

#[test]
fn a_backend_that_does_not_read_an_upload_is_given_up_when_its_answer_is_due() {
    let origin = H2Origin::start(Conduct::ReadsNothing);
    let timeouts = "write = \"100ms\", first_byte = \"300ms\", read = \"300ms\"";
    let gateway = start(origin.address(), "h2c", timeouts);
    // More than the window of a stream, 64 KiB, until it is enlarged.
    let body = vec![b'x'; 1024 * 1024];
    let answer = in_time(|| {
        let mut client = gateway.connect();
        let head = format!(
            "PUT / HTTP/1.1\r\nHost: test.example\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.send(head.as_bytes()).expect("the gateway reads");
        // It may refuse before it has read all.
        let _ = client.send(&body);
        client.response().expect("an answer")
    });
    // Who of the two paused is not known here.
    assert_eq!(answer.status(), 408, "{}", answer.text());
    gateway.wait_until_idle(1);
}
