//! Messages that two programs could read differently: nothing is ever hidden in one.

use std::io::{Read, Write};

use crate::harness::client::connect;
use crate::harness::gateway::Gateway;
use crate::harness::h2_frames::{Frames, Outcome};
use crate::harness::origin::{Origin, Reply};

const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";

fn in_front_of(origin: &Origin) -> Gateway {
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0", {{ address = "127.0.0.1:0", h2c = true }}]
        header_timeout = "200ms"
        idle_timeout = "200ms"
        body_timeout = "200ms"
        max_headers = 30
        max_header_bytes = "8 KiB"
        [log]
        access = "off"
        [upstream.app]
        backends = ["{}"]
        [upstream.app.retry]
        attempts = 1
        [[route]]
        upstream = "app"
        "#,
        origin.address()
    ))
}

/// Everything that comes back for these bytes, and a request behind them that ends the connection.
fn answers(gateway: &Gateway, message: &[u8]) -> String {
    let mut socket = connect(gateway.address());
    let last = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    // A gateway that has refused already reads no further.
    let _ = socket
        .write_all(message)
        .and_then(|()| socket.write_all(last));
    let mut answers = Vec::new();
    let _ = socket.read_to_end(&mut answers);
    String::from_utf8_lossy(&answers).into_owned()
}

/// Spellings of Transfer-Encoding that some program takes for `chunked` and another does not.
const CODINGS: [&str; 36] = [
    "Transfer-Encoding: chunked",
    "transfer-encoding: CHUNKED",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    " Transfer-Encoding: chunked",
    "Transfer-Encoding:\x0bchunked",
    "Transfer-Encoding:\x0cchunked",
    "Transfer-Encoding: \x00chunked",
    "Transfer-Encoding: chunked\x00",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked;x=y",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: 'chunked'",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding:",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "X: y\r\n Transfer-Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\r\rTransfer-Encoding: chunked",
    "Transfer_Encoding: chunked",
    "Transfer.Encoding: chunked",
    "Transfer-Encoding\x0b: chunked",
    "Transfer-Encoding\x00: chunked",
    "Transfer-\u{212a}ncoding: chunked",
    "Transfer-Encoding: chun\u{212a}ed",
    "TE: chunked",
    "X-Transfer-Encoding: chunked",
];

/// Spellings of a Content-Length, `N` its number.
const LENGTHS: [&str; 24] = [
    "X: y",
    "Content-Length: N",
    "Content-Length: 0N",
    "Content-Length: +N",
    "Content-Length: -N",
    "Content-Length: 0xN",
    "Content-Length: N, N",
    "Content-Length: N,",
    "Content-Length: N 0",
    "Content-Length: N\x0b",
    "Content-Length: \"N\"",
    "Content-Length: N.0",
    "Content-Length: Ne0",
    "Content-Length: 1_N",
    "Content-Length: N\r\nContent-Length: N",
    "Content-Length: N\r\nContent-Length: 0",
    "Content-Length: 0\r\nContent-Length: N",
    "Content-Length : N",
    "Content-Length\x0b: N",
    "Content_Length: N",
    "Content-Length:\r\n N",
    "Content-Length: N\nX: y",
    "Content-Length: 18446744073709551616",
    "Content-Length:",
];

/// Sends every pair of spellings before this body and checks that what reached the backend is what
/// the client was answered, request by request.
fn assert_nothing_hides(body: &str, number: usize) {
    let origin = Origin::with(|request| {
        let head = request.head_text();
        Reply::ok(head.split(' ').nth(1).unwrap_or_default())
    });
    let gateway = in_front_of(&origin);
    for coding in CODINGS {
        for length in LENGTHS {
            let length = length.replace('N', &number.to_string());
            let head = format!("POST /outer HTTP/1.1\r\nHost: a\r\n{coding}\r\n{length}\r\n\r\n");
            let before = origin.received().len();
            let answers = answers(&gateway, format!("{head}{body}").as_bytes());
            let received = &origin.received()[before..];
            let answered = answers.matches("HTTP/1.1 200 ").count();
            let what = format!("{head:?}\n{answers}");
            assert!(received.len() <= answered, "more than was answered: {what}");
            let both = is_coding(coding) && length.starts_with("Content-Length");
            if both {
                assert_eq!(received.len(), 0, "both framings: {what}");
            }
            if !answers.starts_with("HTTP/1.1 200 ") {
                assert_eq!(received.len(), 0, "a part of what was refused: {what}");
                continue;
            }
            // What was accepted says its framing once, and so that everyone knows it.
            let first = &received[0];
            let lengths = first.fields("content-length");
            let codings = first.fields("transfer-encoding");
            assert!(lengths.len() + codings.len() <= 1, "{what}");
            let plain = |text: &String| text.bytes().all(|byte| byte.is_ascii_digit());
            assert!(lengths.iter().all(plain), "{what}");
            assert!(codings.iter().all(|coding| coding == "chunked"), "{what}");
            for name in ["transfer_encoding", "transfer.encoding", "content_length"] {
                assert_eq!(first.fields(name), [""; 0], "{what}");
            }
        }
    }
}

fn is_coding(line: &str) -> bool {
    line.to_ascii_lowercase().starts_with("transfer-encoding")
}

#[test]
fn nothing_hides_behind_an_ended_chunked_body() {
    let body = format!("0\r\n\r\n{HIDDEN}");
    assert_nothing_hides(&body, body.len());
}

#[test]
fn nothing_hides_within_a_chunk() {
    let chunk = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    assert_nothing_hides(&chunk, 4);
}

#[test]
fn no_chunk_extension_hides_a_request() {
    let origin = Origin::always(Reply::ok("yes"));
    let gateway = in_front_of(&origin);
    let size = format!("{:x}", HIDDEN.len());
    for chunked in [
        format!("2;\nxx\r\n{size}\r\n0\r\n\r\n{HIDDEN}"),
        format!("2;a=\"\r\nxx\r\n{size}\r\n0\r\n\r\n{HIDDEN}\""),
        format!("0;a\n\r\n{HIDDEN}"),
        format!("0;a\r\r\n\r\n{HIDDEN}"),
        format!("{size};\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("{size} \r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("0{}\r\n\r\n{HIDDEN}", "0".repeat(16)),
        format!("1{}\r\n{HIDDEN}", "0".repeat(16)),
        format!("0x0\r\n\r\n{HIDDEN}"),
        format!("0_0\r\n\r\n{HIDDEN}"),
        format!("-0\r\n\r\n{HIDDEN}"),
        format!("1\r\nx{HIDDEN}\r\n0\r\n\r\n"),
        format!("1\r\nxY\n0\r\n\r\n{HIDDEN}"),
        format!("0\r\nX: y\nZ: w\r\n\r\n{HIDDEN}"),
        format!("0\r\n{HIDDEN}"),
        format!("0\n\n{HIDDEN}"),
        format!("0\r\n\n{HIDDEN}"),
    ] {
        let head = "POST /outer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answers = answers(&gateway, format!("{head}{chunked}").as_bytes());
        assert!(
            answers.starts_with("HTTP/1.1 400 "),
            "{chunked:?}: {answers}"
        );
        assert_eq!(
            answers.matches("HTTP/1.1 ").count(),
            1,
            "{chunked:?}: {answers}"
        );
        assert_eq!(origin.received().len(), 0, "{chunked:?}");
    }
}

#[test]
fn an_upgrade_that_the_backend_declines_leaves_no_tunnel() {
    let origin = Origin::always(Reply::ok("declined"));
    let gateway = in_front_of(&origin);
    let head = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answers = answers(&gateway, format!("{head}{HIDDEN}").as_bytes());
    // Each of them is a request of its own, with its own answer and its own fields from us.
    let received = origin.received();
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), received.len());
    for request in received {
        assert_eq!(request.fields("x-request-id").len(), 1);
    }
}

type Fields<'a> = Vec<(&'a str, &'a str)>;

/// The pseudo-fields of a request that is right.
const GOOD: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "a"),
    (":path", "/good"),
];

#[test]
fn a_wrong_http2_request_is_refused_alone() {
    let origin = Origin::always(Reply::ok("yes"));
    let gateway = in_front_of(&origin);
    let large = "x".repeat(15_000);
    let post = [(":method", "POST"), GOOD[1], GOOD[2], (":path", "/bad")];
    let with = |name, value| {
        let mut fields = vec![GOOD[0], GOOD[1], GOOD[2], (":path", "/bad")];
        fields.push((name, value));
        fields
    };
    let pseudo = |name, value| {
        let mut fields = GOOD.to_vec();
        fields[3].1 = "/bad";
        for field in fields.iter_mut().filter(|field| field.0 == name) {
            field.1 = value;
        }
        fields
    };
    let posted = |fields: &[(&'static str, &'static str)]| [&post[..], fields].concat();
    let mut many = pseudo("", "");
    many.extend([("x", "y"); 40]);
    let cases: Vec<(Fields<'_>, &[u8])> = vec![
        (vec![GOOD[0], GOOD[1], (":path", "/bad")], b""),
        (vec![GOOD[0], GOOD[1], GOOD[2]], b""),
        (with("host", "b"), b""),
        (with("host", "a@b"), b""),
        ([with("host", "a"), vec![("host", "a")]].concat(), b""),
        (pseudo(":authority", "u@a"), b""),
        (pseudo(":authority", "a,b"), b""),
        (pseudo(":authority", "a/b"), b""),
        (pseudo(":authority", ""), b""),
        (pseudo(":path", ""), b""),
        (pseudo(":path", "bad"), b""),
        (pseudo(":path", "http://a/bad"), b""),
        (pseudo(":path", "/bad /b"), b""),
        (pseudo(":path", "/../bad"), b""),
        (pseudo(":path", "/bad%00"), b""),
        (pseudo(":path", "/bad\\b"), b""),
        (pseudo(":path", "/bad\r\nX: y"), b""),
        (pseudo(":path", "*"), b""),
        (pseudo(":method", "get"), b""),
        (pseudo(":method", "TRACE"), b""),
        (with(":status", "200"), b""),
        (with(":path", "/bad"), b""),
        (with("connection", "close"), b""),
        (with("transfer-encoding", "chunked"), b""),
        (with("upgrade", "websocket"), b""),
        (with("keep-alive", "5"), b""),
        (with("te", "gzip"), b""),
        (with("expect", "soon"), b""),
        (with("x", &large), b""),
        (many, b""),
        (posted(&[("content-length", "4")]), b"abc"),
        (posted(&[("content-length", "2")]), b"abc"),
        (
            posted(&[("content-length", "3"), ("content-length", "4")]),
            b"abc",
        ),
        (posted(&[("content-length", "+3")]), b"abc"),
        (posted(&[("content-length", "3, 3")]), b"abc"),
    ];
    for chunk in cases.chunks(10) {
        let mut client = Frames::open(gateway.addresses()[1]);
        for (fields, body) in chunk {
            match client.request(fields, body) {
                Outcome::Answered { status, .. } => {
                    assert!((400..=505).contains(&status), "{fields:?}: {status}");
                }
                Outcome::Reset { .. } => {}
                Outcome::Closed => panic!("{fields:?} closed the connection"),
            }
            let good = client.request(&GOOD, b"");
            let yes = Outcome::Answered {
                status: 200,
                body: b"yes".to_vec(),
            };
            assert_eq!(good, yes, "the connection died of {fields:?}");
        }
    }
    // What is no field at all ends its connection (RFC 9113 8.1.1 allows it; it is the codec's way).
    for fields in [
        pseudo(":method", "GET /hidden HTTP/1.1\r\nX:"),
        with("X-Upper", "y"),
        with("x y", "z"),
        with("x", "y\r\nhidden: z"),
        with("x", "y\0"),
        with("", "y"),
    ] {
        let mut client = Frames::open(gateway.addresses()[1]);
        assert_eq!(client.request(&fields, b""), Outcome::Closed, "{fields:?}");
    }
    for request in origin.received() {
        assert!(
            request.head.starts_with(b"GET /good "),
            "{}",
            request.head_text()
        );
    }
}

#[test]
fn a_refused_http2_request_hears_its_reason() {
    let origin = Origin::always(Reply::ok("yes"));
    let gateway = in_front_of(&origin);
    let mut client = Frames::open(gateway.addresses()[1]);
    for (name, value, status, reason) in [
        (":path", "/../bad", 400, "path_above_root"),
        (":path", "/a/..;/b", 400, "path_hidden_dot_segment"),
        (":authority", "a,b", 400, "host_list"),
        (":method", "TRACE", 405, "method_trace"),
        ("expect", "soon", 417, "expectation_unknown"),
        (":path", "/\u{e9}", 400, "target_not_ascii"),
        ("x", " b", 400, "field_value_invalid"),
        ("x", "b\t", 400, "field_value_invalid"),
        ("http2-settings", "x", 400, "connection_field_in_http_2"),
    ] {
        let mut fields = GOOD.to_vec();
        match fields.iter_mut().find(|field| field.0 == name) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
        match client.request(&fields, b"") {
            Outcome::Answered {
                status: found,
                body,
            } => {
                let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
                assert_eq!(
                    (found, &body["reason"]),
                    (status, &reason.into()),
                    "{value}"
                );
            }
            other => panic!("{name} {value}: {other:?}"),
        }
    }
    assert_eq!(origin.accepted(), 0);
}
