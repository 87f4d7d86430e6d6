//! What may come back: responses of a backend, right and wrong, as the client sees them.

use std::collections::BTreeSet;
use std::io::Read;
use std::time::{Duration, Instant};

use crate::harness::client::{Connection, connect};
use crate::harness::corpus::{cases, unescape};
use crate::harness::gateway::Gateway;
use crate::harness::origin::{Origin, Reply};
use crate::harness::port::full_port;
use crate::harness::response::Broken;
use crate::harness::wait_for;

fn in_front_of(origin: &Origin, upstream: &str) -> Gateway {
    at(&origin.address().to_string(), upstream)
}

fn at(backend: &str, upstream: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [log]
        access = "all"
        [upstream.app]
        backends = ["{backend}"]
        max_fails = 0
        {upstream}
        [upstream.app.retry]
        attempts = 1
        [[route]]
        upstream = "app"
        "#
    ))
}

/// The request that stands in brackets before a response of the corpus.
fn request(asked: &str) -> String {
    match asked {
        "UPGRADE" => {
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
                .to_owned()
        }
        method => format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"),
    }
}

fn split(text: &str) -> (&str, Vec<u8>) {
    let (asked, text) = text[1..].split_once(']').expect("[request] first");
    (asked, unescape(text))
}

fn method(asked: &str) -> &str {
    if asked == "HEAD" { "HEAD" } else { "GET" }
}

#[test]
fn every_invalid_response_of_the_corpus_is_a_502_or_visibly_broken() {
    let origin = Origin::always(Reply::nothing());
    let gateway = in_front_of(&origin, "max_response_head = 1024");
    for case in cases(include_str!(
        "corpus/http1/responses/invalid/responses.http"
    )) {
        let (asked, bytes) = split(case.text);
        if asked.is_empty() || case.outcome == "too_many_fields" {
            continue;
        }
        let before = origin.accepted();
        origin.reply_with(Reply::raw(&bytes).then_stall());
        let mut client = gateway.connect();
        client
            .send(request(asked).as_bytes())
            .expect("the gateway reads");
        match client.response_to(method(asked)) {
            Ok(answer) if answer.status() == 502 => {
                assert_eq!(answer.field("server"), None);
            }
            // The message was whole and right; what followed it was not, and is nobody's.
            Ok(answer) => {
                assert_eq!(
                    case.outcome, "unsolicited_bytes",
                    "{}: {answer:?}",
                    case.name
                );
                assert!(
                    !answer.text().contains("HTTP/1"),
                    "{}: {answer:?}",
                    case.name
                );
            }
            Err(broken) => {
                let visible = matches!(broken, Broken::Truncated | Broken::Reset);
                assert!(visible, "{}: {broken}", case.name);
                assert!(is_in_body(case.outcome), "{}: {broken}", case.name);
            }
        }
        assert_eq!(
            origin.accepted(),
            before + 1,
            "{}: not a new connection",
            case.name
        );
        let what = format!("the connection of {:?} to close", case.name);
        wait_for(&what, || (origin.open() == 0).then_some(()));
    }
}

/// Faults that may be seen after the head went out.
fn is_in_body(reason: &str) -> bool {
    reason.starts_with("chunk_") || reason.starts_with("trailer_")
}

#[test]
fn every_valid_response_of_the_corpus_arrives_and_its_connection_is_used_again() {
    let origin = Origin::always(Reply::nothing());
    let gateway = in_front_of(&origin, "max_response_head = 1024");
    for case in cases(include_str!("corpus/http1/responses/valid/responses.http")) {
        let (asked, bytes) = split(case.text);
        let words: BTreeSet<_> = case.outcome.split(' ').collect();
        if asked.is_empty() {
            continue;
        }
        let reply = Reply::raw(&bytes);
        let is_idle = words.contains("idle");
        origin.reply_with(if is_idle { reply } else { reply.then_close() });
        let mut client = gateway.connect();
        client
            .send(request(asked).as_bytes())
            .expect("the gateway reads");
        let answer = client.response_to(method(asked));
        if !words.contains("whole") {
            match answer {
                Ok(answer) => assert_eq!(answer.status(), 502, "{}", case.name),
                Err(Broken::Truncated | Broken::Reset) => {}
                Err(broken) => panic!("{}: {broken}", case.name),
            }
            continue;
        }
        let answer = answer.unwrap_or_else(|broken| panic!("{}: {broken}", case.name));
        let mut there = crate::harness::wire::Wire::new(std::io::Cursor::new(bytes));
        let head = loop {
            let head = crate::harness::response::Head::parse(&there.head().expect(case.name));
            let head = head.expect(case.name);
            if head.status >= 200 || head.status == 101 {
                break head;
            }
        };
        assert_eq!(answer.status(), head.status, "{}", case.name);
        if head.status != 101 {
            let mut body = Vec::new();
            let framing = head.framing(method(asked)).expect(case.name);
            there
                .body(framing, |bytes| body.extend_from_slice(bytes))
                .expect(case.name);
            assert_eq!(answer.body, body, "{}", case.name);
            if !body.is_empty() || method(asked) == "HEAD" || head.status == 304 {
                assert_eq!(answer.field("content-length"), head.field("content-length"));
            }
        }
        // HTTP/1.0 ends a connection unless it says otherwise.
        if is_idle && head.version == "HTTP/1.1" {
            let used = origin.accepted();
            client
                .send(request(asked).as_bytes())
                .expect("the gateway reads");
            let again = client.response_to(method(asked)).expect(case.name);
            assert_eq!(again.status(), head.status);
            assert_eq!(origin.accepted(), used, "{}: a new connection", case.name);
        }
    }
}

#[test]
fn a_client_of_http_1_0_sees_that_its_answer_was_cut_short() {
    for partial in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    ] {
        for reply in [
            Reply::raw(partial).then_close(),
            Reply::raw(partial).then_reset(),
        ] {
            let origin = Origin::always(reply);
            let gateway = in_front_of(&origin, "");
            let mut client = gateway.connect();
            client
                .send(b"GET / HTTP/1.0\r\n\r\n")
                .expect("the gateway reads");
            let broken = client.response().expect_err("no whole answer");
            assert!(
                matches!(broken, Broken::Reset | Broken::Truncated),
                "{broken}"
            );
            gateway.wait_for_log("why", |line| line.contains("\"upstream_truncated\""));
        }
    }
}

#[test]
fn an_interim_response_does_not_reach_a_client_of_http_1_0() {
    let reply = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    let origin = Origin::always(Reply::raw(reply));
    let gateway = in_front_of(&origin, "");
    let mut client = gateway.connect();
    client
        .send(b"GET / HTTP/1.0\r\n\r\n")
        .expect("the gateway reads");
    assert_eq!(client.head().expect("a head").status, 200);
}

#[test]
fn a_backend_that_says_nothing_is_a_504_in_time() {
    let origin = Origin::always(Reply::nothing().then_stall());
    let gateway = in_front_of(&origin, "timeouts.first_byte = \"300ms\"");
    assert_is_late(gateway.connect(), 504);
}

#[test]
fn a_backend_that_stops_in_its_head_is_a_504_in_time() {
    let origin = Origin::always(Reply::raw("HTTP/1.1 200 OK\r\nContent-").then_stall());
    let gateway = in_front_of(&origin, "timeouts.first_byte = \"300ms\"");
    assert_is_late(gateway.connect(), 504);
    wait_for("its connection to close", || {
        (origin.open() == 0).then_some(())
    });
}

#[test]
fn a_backend_that_sends_interim_heads_for_ever_is_a_504_in_time() {
    let origin = Origin::always(Reply::raw("HTTP/1.1 102 Processing\r\n\r\n").then_stall());
    let gateway = in_front_of(&origin, "timeouts.first_byte = \"300ms\"");
    assert_is_late(gateway.connect(), 504);
}

fn assert_is_late(mut client: Connection, status: u16) {
    let began = Instant::now();
    let answer = client.get("/").expect("an answer");
    assert_eq!(answer.status(), status, "{}", answer.text());
    assert_eq!(answer.json()["reason"], "upstream_timeout");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_backend_that_accepts_no_connection_is_a_504_in_time() {
    let (address, _held) = full_port();
    let gateway = at(&address.to_string(), "timeouts.connect = \"300ms\"");
    assert_is_late(gateway.connect(), 504);
}

#[test]
fn a_backend_that_refuses_is_a_502() {
    let mut origin = Origin::always(Reply::ok("never"));
    origin.refuse();
    let gateway = in_front_of(&origin, "");
    let answer = gateway.connect().get("/").expect("an answer");
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.json()["reason"], "upstream_connect");
}

#[test]
fn a_backend_that_stops_in_its_body_is_cut_short_in_time() {
    for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let body = if head.starts_with('C') {
            "abc"
        } else {
            "3\r\nabc\r\n"
        };
        let reply = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}");
        let origin = Origin::always(Reply::raw(reply).then_stall());
        let gateway = in_front_of(&origin, "timeouts.read = \"300ms\"");
        let mut client = gateway.connect();
        let began = Instant::now();
        let broken = client.get("/").expect_err("no whole answer");
        assert!(
            matches!(broken, Broken::Truncated | Broken::Reset),
            "{broken}"
        );
        assert!(began.elapsed() < Duration::from_secs(5));
        wait_for("its connection to close", || {
            (origin.open() == 0).then_some(())
        });
    }
}

#[test]
fn a_backend_that_dies_is_a_502_with_its_reason() {
    for (reply, reason) in [
        (Reply::nothing().then_close(), "upstream_reset"),
        (Reply::nothing().then_reset(), "upstream_reset"),
        (
            Reply::raw("HTTP/1.1 200 OK\r\nX: ").then_reset(),
            "upstream_reset",
        ),
        (
            Reply::raw("garbage\r\n\r\n").then_close(),
            "upstream_protocol",
        ),
    ] {
        let origin = Origin::always(reply);
        let gateway = in_front_of(&origin, "");
        let answer = gateway.connect().get("/").expect("an answer");
        assert_eq!(answer.status(), 502);
        assert_eq!(answer.json()["reason"], reason);
    }
}

#[test]
fn an_upgrade_without_its_name_is_no_answer() {
    let origin = Origin::always(Reply::raw("HTTP/1.1 101 Switching Protocols\r\n\r\n"));
    let gateway = in_front_of(&origin, "");
    let mut client = gateway.connect();
    client
        .send(request("UPGRADE").as_bytes())
        .expect("the gateway reads");
    assert_eq!(client.response().expect("an answer").status(), 502);
}

#[test]
fn a_large_upload_that_is_refused_still_hears_why() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "max_body = 100_000");
    for head in ["Content-Length: 8000000", "Transfer-Encoding: chunked"] {
        let mut socket = connect(gateway.address());
        let mut writing = socket.try_clone().expect("descriptors are left");
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n");
        let chunked = head.contains("chunked");
        // A client that does not look at the answer before it has sent everything.
        let sender = std::thread::spawn(move || {
            use std::io::Write;
            let block = vec![b'x'; 80_000];
            writing.write_all(head.as_bytes())?;
            for _ in 0..100 {
                if chunked {
                    writing.write_all(b"13880\r\n")?;
                }
                writing.write_all(&block)?;
                if chunked {
                    writing.write_all(b"\r\n")?;
                }
            }
            std::io::Result::Ok(())
        });
        sender
            .join()
            .expect("no panic")
            .expect("everything is read");
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 413");
    }
}
