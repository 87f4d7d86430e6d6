//! What may enter over HTTP/1.x, and what reaches the backend of it.

use std::collections::BTreeSet;
use std::io::{Cursor, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::PATIENCE;
use crate::harness::client::{Connection, connect};
use crate::harness::corpus::{cases, unescape};
use crate::harness::gateway::Gateway;
use crate::harness::origin::{Origin, Received, Reply};
use crate::harness::response::{Broken, request_framing};
use crate::harness::wire::Wire;

macro_rules! requests {
    ($($path:literal),*) => {
        [$(include_str!(concat!("corpus/http1/requests/", $path, ".http"))),*]
    };
}

/// A gateway with the limits that the corpus was written for, and these lines under `[server]`.
fn in_front_of(origin: &Origin, server: &str) -> Gateway {
    let address = origin.address();
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        {server}
        [log]
        access = "all"
        [upstream.app]
        backends = ["{address}"]
        [[route]]
        upstream = "app"
        "#
    ))
}

fn with_corpus_limits(origin: &Origin) -> Gateway {
    in_front_of(
        origin,
        "max_request_line = 256\nmax_headers = 16\nmax_header_bytes = 1024",
    )
}

/// Sends `bytes` in pieces of this size, and everything that comes back until the gateway closes.
fn all_answers(address: SocketAddr, bytes: &[u8], piece: usize) -> String {
    let mut socket = connect(address);
    for piece in bytes.chunks(piece) {
        // A gateway that has refused early reads no further.
        if socket.write_all(piece).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let end = socket.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if let Err(error) = end
        && error.kind() != std::io::ErrorKind::ConnectionReset
    {
        panic!("the gateway did not close after {answer:?}: {error}");
    }
    answer
}

/// The status that goes with a reason of the corpus.
fn status_of(reason: &str) -> u16 {
    match reason {
        "request_line_too_long" => 414,
        "head_too_large" | "too_many_fields" | "trailers_too_large" => 431,
        "method_connect" | "method_trace" => 405,
        "method_unknown" | "transfer_encoding_unsupported" => 501,
        "version_unsupported" | "http2_preface" => 505,
        "expectation_unknown" => 417,
        _ => 400,
    }
}

#[test]
fn every_invalid_request_of_the_corpus_is_refused_and_reaches_no_backend() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = with_corpus_limits(&origin);
    let files = requests!(
        "invalid/request-line",
        "invalid/target",
        "invalid/host",
        "invalid/fields",
        "invalid/framing",
        "invalid/chunked"
    );
    // The long ones last: of them the backend may see the head.
    let mut cases: Vec<_> = files.iter().flat_map(|file| cases(file)).collect();
    cases.sort_by_key(|case| unescape(case.text).len());
    for case in cases {
        let bytes = unescape(case.text);
        let answer = all_answers(gateway.address(), &bytes, bytes.len());
        assert_is_refusal(&answer, case.outcome, case.name);
        // A fault that comes later than the first read of the gateway comes after the head.
        if bytes.len() <= 4096 {
            assert_eq!(origin.accepted(), 0, "{} reached the backend", case.name);
        }
    }
    assert_eq!(origin.received().len(), 0);
}

#[test]
fn an_invalid_request_in_pieces_is_refused_alike() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = with_corpus_limits(&origin);
    let files = requests!(
        "invalid/request-line",
        "invalid/target",
        "invalid/host",
        "invalid/fields",
        "invalid/framing"
    );
    for case in files.iter().flat_map(|file| cases(file)).step_by(4) {
        let answer = all_answers(gateway.address(), &unescape(case.text), 1);
        assert_is_refusal(&answer, case.outcome, case.name);
        assert_eq!(origin.accepted(), 0, "{} reached the backend", case.name);
    }
    // The head of these is right and may be on its way before the fault in the body arrives.
    for case in requests!("invalid/chunked").iter().flat_map(|f| cases(f)) {
        let answer = all_answers(gateway.address(), &unescape(case.text), 1);
        assert_is_refusal(&answer, case.outcome, case.name);
        assert_eq!(origin.received().len(), 0, "{} was completed", case.name);
    }
}

fn assert_is_refusal(answer: &str, reason: &str, what: &str) {
    let start = format!("HTTP/1.1 {} ", status_of(reason));
    assert!(answer.starts_with(&start), "{what}: {answer}");
    assert!(
        answer.contains(&format!("\"reason\":\"{reason}\"")),
        "{what}: {answer}"
    );
    assert!(answer.contains("Connection: close\r\n"), "{what}: {answer}");
}

#[test]
fn every_valid_request_of_the_corpus_arrives_as_it_was_meant() {
    let origin = Origin::with(|request| match request.head.starts_with(b"HEAD") {
        true => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"),
        false => Reply::ok("yes"),
    });
    let gateway = with_corpus_limits(&origin);
    let files = requests!("valid/heads", "valid/bodies");
    for (number, case) in files.iter().flat_map(|file| cases(file)).enumerate() {
        let words: BTreeSet<_> = case.outcome.split(' ').collect();
        // What does not end is a test of its own, and so is the one that the gateway answers.
        if case.outcome.contains("incomplete") || case.name == "the asterisk form" {
            continue;
        }
        let bytes = unescape(case.text);
        let position = origin.received().len();
        let mut client = gateway.connect();
        let piece = if number % 3 == 0 { 1 } else { bytes.len() };
        for piece in bytes.chunks(piece) {
            client.send(piece).expect("the gateway reads");
        }
        let method = words_after_ok(case.outcome);
        let response = client
            .response_to(method)
            .unwrap_or_else(|broken| panic!("{}: {broken}", case.name));
        assert_eq!(response.status(), 200, "{}: {}", case.name, response.text());
        let received = origin.wait_for_requests(position + 1);
        assert_means_the_same(&bytes, &received[position], case.name);
        let closes = response.field("connection") == Some("close");
        // pingora knows the keep-alive of HTTP/1.0 only where Connection says nothing else.
        let listed = case.name == "HTTP/1.0 has no upgrade and no expectation";
        assert_eq!(closes, words.contains("close") || listed, "{}", case.name);
        if closes {
            client.wait_for_close().expect(case.name);
        } else if !case.outcome.contains("rest=") {
            let again = client.get("/again").expect(case.name);
            assert_eq!(again.status(), 200, "{}", case.name);
        }
    }
}

fn words_after_ok(outcome: &str) -> &str {
    outcome.split(' ').nth(1).expect("ok METHOD")
}

/// Reads both messages with parsers that are not the gateway's and compares what they say.
fn assert_means_the_same(sent: &[u8], received: &Received, what: &str) {
    let start = sent
        .iter()
        .take_while(|byte| b"\r\n".contains(byte))
        .count();
    let mut wire = Wire::new(Cursor::new(sent[start..].to_vec()));
    let head = wire.head().expect(what);
    let mut body = Vec::new();
    let framing = request_framing(&head).expect(what);
    wire.body(framing, |bytes| body.extend_from_slice(bytes))
        .expect(what);
    assert_eq!(received.body, body, "{what}: body");
    let [sent, received] = [&head, &received.head].map(|head| meaning(head, what));
    assert_eq!(received.1, sent.1, "{what}: path");
    assert_eq!(received.0, sent.0, "{what}: method");
    assert_eq!(received.2, sent.2, "{what}: host");
    assert_eq!(received.3, sent.3, "{what}: other fields");
}

type Meaning = (String, String, Option<String>, Vec<(String, String)>);

/// Method, path and query, host, and the fields that are an application's.
fn meaning(head: &[u8], what: &str) -> Meaning {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let status = request.parse(head).expect(what);
    assert!(status.is_complete(), "{what}");
    let target = request.path.expect(what);
    let path = match target.split_once("://") {
        Some((_, rest)) => match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('?') => format!("/{}", &rest[at..]),
            Some(at) => rest[at..].to_owned(),
            None => "/".to_owned(),
        },
        None => target.to_owned(),
    };
    let value = |field: &httparse::Header<'_>| String::from_utf8_lossy(field.value).into_owned();
    let mut others = Vec::new();
    let mut host = None;
    for field in request.headers.iter() {
        let name = field.name.to_ascii_lowercase();
        if name == "host" {
            let text = value(field).trim().to_ascii_lowercase();
            host = Some(text.trim_end_matches('.').to_owned());
        } else if name.len() == 1 || name.starts_with("x-empty") {
            others.push((name, value(field)));
        }
    }
    others.sort();
    let method = request.method.expect(what).to_owned();
    // The one dot-segment path of the corpus, resolved by hand, and what a query may not hold.
    let path = path.replace("/a/./b/../c", "/a/c");
    let path = path
        .replace('"', "%22")
        .replace('<', "%3C")
        .replace('>', "%3E");
    (method, path, host, others)
}

#[test]
fn a_request_that_stops_halfway_reaches_no_backend_whole() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = with_corpus_limits(&origin);
    let files = requests!("valid/heads", "valid/bodies");
    for case in files.iter().flat_map(|file| cases(file)) {
        if !case.outcome.contains("incomplete") {
            continue;
        }
        let mut client = gateway.connect();
        client
            .send(&unescape(case.text))
            .expect("the gateway reads");
        client.finish_sending().expect("open");
        // Nothing, or a refusal; in any case the end.
        if let Ok(answer) = client.response() {
            assert!(answer.status() >= 400, "{}: {answer:?}", case.name);
            client.wait_for_close().expect(case.name);
        }
    }
    assert_eq!(origin.received().len(), 0);
}

#[test]
fn pipelined_requests_are_answered_in_order_up_to_the_bad_one() {
    let origin = Origin::with(|request| {
        let head = request.head_text();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let body = String::from_utf8_lossy(&request.body);
        match head.starts_with("HEAD") {
            true => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"),
            false => Reply::ok(&format!("{path}:{body}")),
        }
    });
    let gateway = with_corpus_limits(&origin);
    let mut client = gateway.connect();
    client
        .send(
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
              POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
              POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n\
              HEAD /4 HTTP/1.1\r\nHost: a\r\n\r\n\
              GET /5 HTTP/1.1\r\nHost: a\r\n\r\n\
              GET /6 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n\
              GET /7 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .expect("the gateway reads");
    for (method, body) in [
        ("GET", "/1:"),
        ("POST", "/2:abc"),
        ("POST", "/3:de"),
        ("HEAD", ""),
        ("GET", "/5:"),
    ] {
        let answer = client.response_to(method).expect("an answer");
        assert_eq!((answer.status(), answer.text().as_str()), (200, body));
    }
    let refused = client.response().expect("the refusal");
    assert_eq!(refused.json()["reason"], "host_repeated");
    client.wait_for_close().expect("closed after the refusal");
    assert_eq!(origin.received().len(), 5);
}

#[test]
fn two_hundred_pipelined_requests_in_small_pieces_are_all_answered() {
    let origin = Origin::with(|request| {
        Reply::ok(request.head_text().split(' ').nth(1).unwrap_or_default())
    });
    let gateway = in_front_of(&origin, "");
    let mut client = gateway.connect();
    let all: String = (0..200)
        .map(|n| format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /"))
        .collect();
    for piece in all.as_bytes().chunks(37) {
        client.send(piece).expect("the gateway reads");
    }
    for n in 0..200 {
        let answer = client.response().expect("an answer");
        assert_eq!(answer.text(), format!("/{n}"));
    }
}

#[test]
fn a_client_of_http_1_0_is_served_without_chunks() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let origin = Origin::always(Reply::raw(chunked));
    let gateway = in_front_of(&origin, "");
    for keep in ["", "Connection: keep-alive\r\n"] {
        let answer = all_answers(
            gateway.address(),
            format!("GET / HTTP/1.0\r\nHost: a\r\n{keep}\r\n").as_bytes(),
            1024,
        );
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert_eq!(body, "abc", "{head}");
        let head = head.to_ascii_lowercase();
        assert!(!head.contains("transfer-encoding"), "{head}");
        assert!(head.contains("connection: close"), "{head}");
    }
}

#[test]
fn a_client_of_http_1_0_keeps_its_connection_if_it_asks() {
    let origin = Origin::always(Reply::ok("abc"));
    let gateway = in_front_of(&origin, "");
    let mut client = gateway.connect();
    for _ in 0..2 {
        client
            .send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            .expect("the gateway reads");
        let answer = client.response().expect("an answer");
        assert_eq!(answer.text(), "abc");
        assert_eq!(answer.field("connection"), Some("keep-alive"));
    }
    client.send(b"GET / HTTP/1.0\r\n\r\n").expect("open");
    let answer = client.response().expect("an answer");
    assert_eq!(answer.field("connection"), Some("close"));
    client.wait_for_close().expect("closed");
}

#[test]
fn a_body_is_asked_for_before_it_is_sent() {
    let origin = Origin::with(|request| Reply::ok(&String::from_utf8_lossy(&request.body)));
    let gateway = in_front_of(&origin, "");
    let mut client = gateway.connect();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    for _ in 0..2 {
        client.send(head.as_bytes()).expect("the gateway reads");
        assert_eq!(client.head().expect("an interim response").status, 100);
        client.send(b"abc").expect("the gateway reads");
        assert_eq!(client.response().expect("an answer").text(), "abc");
    }
}

#[test]
fn a_body_nobody_wants_is_not_asked_for() {
    let origin = Origin::always(Reply::status(403, "no")).replying_at_head();
    let gateway = in_front_of(&origin, "");
    let mut client = gateway.connect();
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        .expect("the gateway reads");
    assert_eq!(client.head().expect("a final response").status, 403);
}

#[test]
fn head_has_the_length_of_the_body_it_does_not_get() {
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n";
    let origin = Origin::always(Reply::raw(reply));
    let gateway = in_front_of(&origin, "");
    let mut client = gateway.connect();
    for _ in 0..2 {
        client
            .send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect("the gateway reads");
        let answer = client.response_to("HEAD").expect("an answer");
        assert_eq!(answer.field("content-length"), Some("12345"));
    }
}

#[test]
fn the_asterisk_asks_the_gateway_itself() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "");
    let mut client = gateway.connect();
    for target in ["*", "http://a"] {
        let request = format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        client.send(request.as_bytes()).expect("the gateway reads");
        let answer = client.response().expect("an answer");
        assert_eq!(answer.status(), 204);
        assert!(
            answer
                .field("allow")
                .is_some_and(|allow| allow.contains("GET"))
        );
        assert_eq!(answer.field("content-length"), None);
    }
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn trailers_reach_no_backend_unless_they_are_right() {
    let origin = Origin::with(|request| Reply::ok(&String::from_utf8_lossy(&request.body)));
    let gateway = in_front_of(&origin, "");
    let mut client = gateway.connect();
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n")
        .expect("the gateway reads");
    assert_eq!(client.response().expect("an answer").text(), "abc");
    assert_eq!(client.get("/").expect("the connection stays").status(), 200);
}

#[test]
fn a_head_that_comes_too_slowly_is_answered_408() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "header_timeout = \"200ms\"");
    let mut client = gateway.connect();
    client
        .send(b"GET / HTTP/1.1\r\nHo")
        .expect("the gateway reads");
    let answer = client.response().expect("an answer");
    assert_eq!(answer.status(), 408);
    assert_eq!(answer.json()["reason"], "request_timeout");
    client.wait_for_close().expect("closed");
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn a_head_one_byte_at_a_time_has_no_longer_than_a_head_at_rest() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "header_timeout = \"300ms\"");
    let mut client = gateway.connect();
    let began = std::time::Instant::now();
    // Each byte is early enough; all of them together are not.
    client
        .socket()
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("above zero");
    client
        .send(b"GET / HTTP/1.1\r\nX: ")
        .expect("the gateway reads");
    let answer = loop {
        match client.response() {
            Ok(answer) => break answer,
            Err(Broken::Silent) => client.send(b"x").expect("the gateway reads"),
            Err(broken) => panic!("{broken}"),
        }
        assert!(began.elapsed() < PATIENCE, "never refused");
    };
    assert_eq!(answer.status(), 408);
}

#[test]
fn a_body_that_stops_is_answered_408_and_never_reaches_the_backend_whole() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = in_front_of(&origin, "body_timeout = \"200ms\"");
    let mut client = gateway.connect();
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        .expect("the gateway reads");
    let answer = client.response().expect("an answer");
    assert_eq!(answer.status(), 408, "{}", answer.text());
    client.wait_for_close().expect("closed");
    assert_eq!(origin.received().len(), 0);
}

#[test]
fn a_connection_that_asks_nothing_is_closed_without_a_word() {
    let origin = Origin::always(Reply::ok("yes"));
    let gateway = in_front_of(
        &origin,
        "header_timeout = \"200ms\"\nidle_timeout = \"200ms\"",
    );
    gateway.connect().wait_for_close().expect("closed");
    let mut client = gateway.connect();
    client.get("/").expect("an answer");
    client.wait_for_close().expect("closed when it rests");
}

#[test]
fn a_body_over_the_limit_is_refused_announced_or_counted() {
    let origin = Origin::always(Reply::ok("never"));
    let address = origin.address();
    let gateway = Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [upstream.app]
        backends = ["{address}"]
        max_body = 10
        [[route]]
        upstream = "app"
        "#
    ));
    let announced = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n";
    let counted = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nabcdefghijk\r\n0\r\n\r\n";
    for request in [announced, counted] {
        let mut client = gateway.connect();
        client.send(request.as_bytes()).expect("the gateway reads");
        let answer = client.response().expect("an answer");
        assert_eq!(answer.status(), 413, "{request}");
        assert_eq!(answer.json()["reason"], "body_too_large");
        client.wait_for_close().expect("closed");
    }
    assert_eq!(origin.received().len(), 0);
}

#[test]
fn a_request_line_and_a_head_within_the_limits_pass() {
    let origin = Origin::always(Reply::ok("yes"));
    let gateway = in_front_of(&origin, "max_request_line = 1000\nmax_header_bytes = 2000");
    let status = |path: usize, field: usize| {
        let request = format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "p".repeat(path),
            "f".repeat(field)
        );
        let mut client = gateway.connect();
        client.send(request.as_bytes()).expect("the gateway reads");
        client.response().expect("an answer").status()
    };
    assert_eq!(status(900, 900), 200);
    assert_eq!(status(1000, 10), 414);
    assert_eq!(status(900, 1100), 431);
}

#[test]
fn connections_over_the_limit_of_a_client_are_closed() {
    let origin = Origin::always(Reply::ok("yes"));
    let gateway = in_front_of(&origin, "max_connections_per_client = 3");
    // Ready may have been asked by a connection that is not yet forgotten.
    let mut open: Vec<Connection> = Vec::new();
    crate::harness::wait_for("three connections that are served", || {
        let mut client = gateway.connect();
        if client.get("/").is_ok() {
            open.push(client);
        }
        (open.len() == 3).then_some(())
    });
    for _ in 0..5 {
        let mut refused = gateway.connect();
        assert!(refused.get("/").is_err());
    }
    drop(open.pop());
    crate::harness::wait_for("the place to be free again", || {
        gateway.connect().get("/").ok()
    });
    for client in &mut open {
        assert_eq!(client.get("/").expect("still served").status(), 200);
    }
}

#[test]
fn connections_over_the_limit_of_all_are_closed() {
    let origin = Origin::always(Reply::ok("yes"));
    let gateway = in_front_of(&origin, "max_connections = 2");
    let mut open: Vec<Connection> = Vec::new();
    crate::harness::wait_for("two connections that are served", || {
        let mut client = gateway.connect();
        if client.get("/").is_ok() {
            open.push(client);
        }
        (open.len() == 2).then_some(())
    });
    assert!(gateway.connect().get("/").is_err());
    open.clear();
    crate::harness::wait_for("room again", || gateway.connect().get("/").ok());
}

#[test]
fn an_absolute_form_is_served_whatever_its_case_and_default_port() {
    let origin = Origin::always(Reply::ok("yes"));
    let gateway = in_front_of(&origin, "");
    let mut client = gateway.connect();
    for (target, host) in [
        ("http://A/x?y", "a"),
        ("HTTP://a:80/x?y", "A"),
        ("http://a/x?y", "a:80"),
        ("http://a./x?y", "a"),
    ] {
        let position = gateway.log().position();
        client
            .send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
            .expect("the gateway reads");
        let answer = client.response().expect("an answer");
        assert_eq!(answer.status(), 200, "{target}: {}", answer.text());
        let received = origin.received().pop().expect("a request");
        assert!(received.head.starts_with(b"GET /x?y HTTP/1.1\r\n"));
        assert_eq!(received.fields("host").len(), 1);
        gateway.wait_for_log_after(position, "the request", |line| {
            line.contains("\"path\":\"/x\"") && line.contains("\"host\":\"a\"")
        });
    }
}

#[test]
fn upgrade_that_connection_does_not_name_is_an_ordinary_request() {
    let origin = Origin::always(Reply::ok("yes"));
    let gateway = in_front_of(&origin, "");
    let mut client = gateway.connect();
    client
        .send(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("the gateway reads");
    for _ in 0..2 {
        assert_eq!(client.response().expect("an answer").text(), "yes");
    }
    let received = origin.received();
    assert_eq!(received[0].fields("upgrade"), [""; 0]);
    assert_eq!(received[0].fields("connection"), [""; 0]);
}

#[test]
fn every_character_in_a_target_passes_or_is_refused_with_its_reason() {
    let origin = Origin::always(Reply::ok("yes"));
    let gateway = in_front_of(&origin, "");
    for byte in (b'!'..=b'~').map(char::from) {
        for target in [
            format!("/a{byte}b"),
            format!("/?a{byte}b"),
            format!("/a%{byte}1"),
        ] {
            let position = gateway.log().position();
            let mut client = gateway.connect();
            client
                .send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
                .expect("the gateway reads");
            let answer = client.response().expect("an answer");
            match answer.status() {
                200 => {}
                400 => drop(answer.json()["reason"].as_str().expect("a reason")),
                status => panic!("{target}: {status}"),
            }
            gateway.wait_for_log_after(position, "the request", |line| {
                line.contains("\"target\":\"access\"")
            });
        }
    }
}
