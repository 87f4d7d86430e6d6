//! How many requests one HTTP/2 connection may have open.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::harness::gateway::Gateway;
use crate::harness::h2_frames::{Frames, Outcome};
use crate::harness::origin::{Origin, Reply};

/// RFC 9113 7: the request was not looked at and may be sent again.
const REFUSED_STREAM: u32 = 7;

fn get(path: &str) -> [(&str, &str); 4] {
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test.example"),
    ]
}

#[test]
fn a_stream_too_many_is_refused_and_the_others_are_served() {
    let (release_first, first) = channel();
    let (release_second, second) = channel();
    let gates = [Mutex::new(first), Mutex::new(second)];
    let origin = Origin::with(move |request| {
        let gate = match request.head.starts_with(b"GET /first ") {
            true => &gates[0],
            false => &gates[1],
        };
        let gate = gate.lock().expect("no holder panics");
        gate.recv().map_or(Reply::nothing().then_close(), Reply::ok)
    });
    let gateway = Gateway::start(&format!(
        r#"
        [server]
        listen = [{{ address = "127.0.0.1:0", h2c = true }}]
        max_h2_streams = 2
        [upstream.app]
        backends = ["{}"]
        [[route]]
        upstream = "app"
        "#,
        origin.address()
    ));
    let mut client = Frames::open(gateway.address());
    let first = client.ask(&get("/first"));
    let second = client.ask(&get("/second"));
    origin.wait_for_requests(2);

    let one_too_many = client.ask(&get("/third"));
    let refused = Outcome::Reset {
        code: REFUSED_STREAM,
    };
    assert_eq!(client.outcome(one_too_many), refused);

    let answered = |body: &str| Outcome::Answered {
        status: 200,
        body: body.into(),
    };
    release_first.send("one").expect("the origin waits for it");
    assert_eq!(client.outcome(first), answered("one"));
    release_second.send("two").expect("the origin waits for it");
    assert_eq!(client.outcome(second), answered("two"));
    assert_eq!(origin.received().len(), 2);

    // The places are free again.
    release_first.send("again").expect("the origin will wait");
    assert_eq!(client.request(&get("/first"), &[]), answered("again"));
}
