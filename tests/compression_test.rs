//! Bodies in fewer bytes: who gets which, that each decodes to what the application sent, and what is left alone.

use std::process::Command;

use http::Request;

use crate::harness::apps::Uvicorn;
use crate::harness::coding::decoded;
use crate::harness::gateway::{Gateway, tollgate};
use crate::harness::h2_client::H2;
use crate::harness::origin::{Origin, Reply};
use crate::harness::response::Response;

/// Makes a request one of the full lane, and changes nothing of its meaning.
const NOT_PLAIN: &str = "Content-Length: 0\r\n";
const LANES: [&str; 2] = ["", NOT_PLAIN];

const TEXT: &str = "Content-Type: text/html; charset=utf-8\r\n";
const MINUTE: &str = "Cache-Control: max-age=60\r\n";

/// Two listeners, of HTTP/1.1 and HTTP/2; `/stored/` stores, `/off/` does not compress, the rest compresses.
fn in_front_of(backend: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0", {{ address = "127.0.0.1:0", h2c = true }}]
        [log]
        access = "all"
        [upstream.app]
        backends = ["{backend}"]
        max_fails = 0
        [cache.policy.pages]
        [[route]]
        upstream = "app"
        [[route]]
        path = "/stored/"
        upstream = "app"
        cache = "pages"
        [[route]]
        path = "/off/"
        upstream = "app"
        compress = false
        "#
    ))
}

fn page() -> String {
    "<p>all the same</p>\n".repeat(500)
}

/// 200 with these fields, each line with its end.
fn reply(fields: &str, body: &str) -> Reply {
    Reply::raw(head(fields, body.len()) + body)
}

fn head(fields: &str, length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{fields}\r\n")
}

/// Says the same to everybody.
fn saying(fields: &str) -> Origin {
    let fields = fields.to_owned();
    Origin::with(move |received| match received.head.starts_with(b"HEAD ") {
        true => Reply::raw(head(&fields, page().len())),
        false => reply(&fields, &page()),
    })
}

fn ask(gateway: &Gateway, method: &str, path: &str, fields: &str) -> Response {
    let mut client = gateway.connect();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
    client.send(request.as_bytes()).expect("the gateway reads");
    client.response_to(method).expect("an answer")
}

fn get(gateway: &Gateway, path: &str, fields: &str) -> Response {
    ask(gateway, "GET", path, fields)
}

fn text(response: &Response) -> String {
    let body = decoded(response.field("content-encoding"), &response.body);
    String::from_utf8(body).expect("pages are text")
}

#[test]
fn a_page_comes_in_the_coding_that_its_client_likes_best() {
    let origin = saying(&format!(
        "{TEXT}ETag: \"v1\"\r\nAccept-Ranges: bytes\r\nContent-Digest: sha-256=:AA==:\r\nVary: Cookie\r\n"
    ));
    let gateway = in_front_of(&origin.address().to_string());
    for lane in LANES {
        for (accept, coding) in [
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("gzip, deflate, br", Some("br")),
            ("gzip, zstd;q=0.9", Some("gzip")),
            ("zstd", Some("zstd")),
            ("*", Some("zstd")),
            ("deflate", None),
            ("gzip;q=0", None),
            ("identity, gzip;q=0.5", None),
            ("gzip;", None),
        ] {
            let fields = format!("{lane}Accept-Encoding: {accept}\r\n");
            let answer = get(&gateway, "/", &fields);
            assert_eq!(answer.field("content-encoding"), coding, "{fields}");
            assert_eq!(text(&answer), page(), "{fields}");
            let vary: Vec<_> = answer.head.fields("vary").collect();
            assert_eq!(vary, ["Cookie", "Accept-Encoding"], "{fields}");
            let changed = coding.is_some();
            let tag = if changed { "W/\"v1\"" } else { "\"v1\"" };
            assert_eq!(answer.field("etag"), Some(tag), "{fields}");
            for gone in ["content-length", "accept-ranges", "content-digest"] {
                assert_eq!(answer.field(gone).is_none(), changed, "{gone}: {fields}");
            }
            assert!(answer.body.len() < 500 || !changed, "{fields}");
            let head = ask(&gateway, "HEAD", "/", &fields);
            for same in ["content-encoding", "etag", "content-length", "vary"] {
                assert_eq!(
                    head.field(same),
                    answer.field(same),
                    "{same}: HEAD, {fields}"
                );
            }
        }
    }
    let h2 = H2::cleartext(gateway.addresses()[1]);
    let request = |method: &str, body: &[u8]| {
        let request = Request::builder().method(method).uri("http://a.example/");
        let request = request.header("accept-encoding", "gzip");
        request.body(body.to_vec()).expect("a valid request")
    };
    for request in [request("GET", b""), request("POST", b"x")] {
        let answer = h2.request(request).expect("an answer").response;
        assert_eq!(answer.headers()["content-encoding"], "gzip");
        assert!(!answer.headers().contains_key("content-length"));
        assert!(decoded(Some("gzip"), answer.body()) == page().as_bytes());
    }
}

#[test]
fn what_is_not_to_be_changed_is_sent_as_it_is() {
    let origin = Origin::with(|received| {
        let path = received.head_text();
        let path = path.split(' ').nth(1).expect("a target");
        let fields = match path.trim_start_matches("/off") {
            "/no-transform" => format!("{TEXT}Cache-Control: public, no-transform\r\n"),
            "/encoded" => format!("{TEXT}Content-Encoding: x\r\n"),
            "/image" => "Content-Type: image/png\r\n".to_owned(),
            "/events" => "Content-Type: text/event-stream\r\n".to_owned(),
            "/untyped" => String::new(),
            "/small" => return reply(TEXT, "small"),
            "/public" => format!("{TEXT}Cache-Control: public\r\n"),
            "/vary" => format!("{TEXT}Vary: accept-encoding\r\n"),
            _ => TEXT.to_owned(),
        };
        reply(&fields, &page())
    });
    let gateway = in_front_of(&origin.address().to_string());
    for lane in LANES {
        for (path, fields, encoded, varies) in [
            ("/", "", true, true),
            ("/no-transform", "", false, false),
            ("/encoded", "", false, false),
            ("/image", "", false, false),
            ("/events", "", false, false),
            ("/untyped", "", false, false),
            ("/small", "", false, false),
            ("/off/", "", false, false),
            ("/vary", "", true, true),
            ("/", "Range: bytes=0-9\r\n", false, true),
            ("/", "Cookie: sessionid=1\r\n", false, true),
            ("/", "Cookie: mystery=1\r\n", false, true),
            ("/", "Cookie: _ga=1\r\n", true, true),
            ("/", "Authorization: Basic eA==\r\n", false, true),
            ("/public", "Cookie: sessionid=1\r\n", true, true),
        ] {
            let fields = format!("{lane}Accept-Encoding: gzip\r\n{fields}");
            let answer = get(&gateway, path, &fields);
            let coding = answer
                .field("content-encoding")
                .filter(|coding| *coding != "x");
            assert_eq!(coding, encoded.then_some("gzip"), "{path} {fields}");
            let vary = answer.head.fields("vary").count();
            assert_eq!(vary, usize::from(varies), "{path} {fields}");
            if !encoded {
                assert_eq!(
                    answer.field("content-length"),
                    Some(&*answer.body.len().to_string())
                );
            }
        }
    }
    let mut old = gateway.connect();
    let request = b"GET / HTTP/1.0\r\nHost: a.example\r\nAccept-Encoding: gzip\r\n\r\n";
    old.send(request).expect("the gateway reads");
    let answer = old.response().expect("an answer");
    assert_eq!(answer.field("content-encoding"), None);
    assert_eq!(text(&answer), page());
}

#[test]
fn a_stored_page_is_encoded_once_and_each_form_has_its_length() {
    let origin = saying(&format!("{TEXT}{MINUTE}ETag: \"v1\"\r\n"));
    let gateway = in_front_of(&origin.address().to_string());
    const GZIP: &str = "Accept-Encoding: gzip\r\n";
    let miss = get(&gateway, "/stored/", GZIP);
    assert_eq!(miss.field("content-encoding"), Some("gzip"));
    assert_eq!(text(&miss), page());
    for coding in ["gzip", "br", "zstd"] {
        // With a cookie that may be a login under a name of its own, too: what is stored is nobody's.
        let accept = format!("Accept-Encoding: {coding}\r\nCookie: mystery=1\r\n");
        let early = ask(&gateway, "HEAD", "/stored/", &accept);
        assert_eq!(early.field("content-encoding"), Some(coding));
        assert_eq!(early.field("content-length"), None);
        let hit = get(&gateway, "/stored/", &accept);
        assert_eq!(hit.field("x-cache"), Some("HIT"));
        assert_eq!(hit.field("content-encoding"), Some(coding));
        assert_eq!(hit.field("etag"), Some("W/\"v1\""));
        assert_eq!(hit.field("vary"), Some("Accept-Encoding"));
        assert_eq!(
            hit.field("content-length"),
            Some(&*hit.body.len().to_string())
        );
        assert_eq!(text(&hit), page());
        assert_eq!(get(&gateway, "/stored/", &accept).body, hit.body);
        let late = ask(&gateway, "HEAD", "/stored/", &accept);
        assert_eq!(late.field("content-length"), hit.field("content-length"));
    }
    let plain = get(&gateway, "/stored/", "");
    assert_eq!(plain.field("etag"), Some("\"v1\""));
    assert_eq!(plain.field("vary"), Some("Accept-Encoding"));
    assert_eq!(plain.text(), page());
    let range = get(&gateway, "/stored/", &format!("{GZIP}Range: bytes=0-2\r\n"));
    assert_eq!((range.status(), range.text()), (206, "<p>".to_owned()));
    assert_eq!(range.field("content-encoding"), None);
    assert_eq!(range.field("vary"), Some("Accept-Encoding"));
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn a_version_is_known_again_by_the_tag_it_was_given() {
    let origin = Origin::with(|received| {
        let tags = received.fields("if-none-match");
        if tags.iter().any(|tags| tags.contains("\"v1\"")) {
            return Reply::raw("HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n");
        }
        reply(&format!("{TEXT}{MINUTE}ETag: \"v1\"\r\n"), &page())
    });
    let gateway = in_front_of(&origin.address().to_string());
    get(&gateway, "/stored/", "");
    let asked = origin.received().len();
    for (path, lane) in [("/stored/", ""), ("/", ""), ("/", NOT_PLAIN)] {
        for tag in ["W/\"v1\"", "\"v1\""] {
            let fields = format!("{lane}Accept-Encoding: br\r\nIf-None-Match: {tag}\r\n");
            let answer = get(&gateway, path, &fields);
            assert_eq!(answer.status(), 304, "{path} {fields}");
            assert_eq!(answer.field("etag"), Some(tag), "{path} {fields}");
            let varies = path == "/stored/" || tag.starts_with('W');
            let vary = varies.then_some("Accept-Encoding");
            assert_eq!(answer.field("vary"), vary, "{path} {fields}");
        }
        let part =
            format!("{lane}Accept-Encoding: br\r\nRange: bytes=0-2\r\nIf-Range: W/\"v1\"\r\n");
        let whole = get(&gateway, path, &part);
        assert_eq!(
            (whole.status(), whole.text()),
            (200, page()),
            "{path} {part}"
        );
    }
    let stored = origin.received()[asked..].to_vec();
    assert!(
        stored
            .iter()
            .all(|received| !received.head_text().contains("/stored/"))
    );
}

#[test]
fn a_page_that_is_made_bit_by_bit_arrives_so() {
    let first = "<p>the rest is not made yet</p>";
    let origin = Origin::with(move |_| {
        let length = first.len();
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n";
        Reply::raw(format!("{head}{TEXT}{MINUTE}\r\n{length:x}\r\n{first}\r\n")).then_stall()
    });
    let gateway = in_front_of(&origin.address().to_string());
    for (path, lane) in [("/", ""), ("/", NOT_PLAIN), ("/stored/", "")] {
        for coding in ["br", "zstd", "gzip"] {
            let mut client = gateway.connect();
            let fields = format!("Host: a.example\r\nAccept-Encoding: {coding}\r\n{lane}");
            let request = format!("GET {path}{coding} HTTP/1.1\r\n{fields}\r\n");
            client.send(request.as_bytes()).expect("the gateway reads");
            let head = client.head().expect("a head");
            assert_eq!(head.field("content-encoding"), Some(coding));
            let mut arrived = Vec::new();
            while decoded(Some(coding), &arrived) != first.as_bytes() {
                // One chunk after the other: each has a line before it and one behind.
                let chunk = client.chunk().expect("the backend has said so much");
                arrived.extend_from_slice(&chunk);
            }
        }
    }
}

#[test]
fn curl_reads_what_a_real_service_streams() {
    let service = Uvicorn::start("one", &[]);
    let gateway = in_front_of(&service.address().to_string());
    let curl = |path: &str, more: &[&str]| {
        let url = format!("http://{}{path}", gateway.addresses()[0]);
        let output = Command::new("curl")
            .args(["-sS", "-i"])
            .args(more)
            .arg(url)
            .output();
        let output = output.expect("curl is installed");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        (head.to_ascii_lowercase(), body.to_owned())
    };
    let path = "/stream?chunks=300&ms=0";
    let (head, plain) = curl(path, &[]);
    assert!(
        !head.contains("content-encoding") && head.contains("vary: accept-encoding"),
        "{head}"
    );
    assert!(plain.len() > 2000, "it streams all of it: {plain}");
    for more in [
        &["--compressed"][..],
        &["--compressed", "-H", "Content-Length: 0"],
    ] {
        let (head, compressed) = curl(path, more);
        assert!(head.contains("content-encoding: "), "{head}");
        assert_eq!(compressed, plain);
    }
}

#[test]
fn explain_says_what_a_route_compresses_with() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("gateway.toml");
    let config = r#"
        server = { listen = ["127.0.0.1:8080"] }
        compression = { codings = ["gzip", "br"], min_size = "2 KiB" }
        upstream.app.backends = ["127.0.0.1:8000"]
        [[route]]
        upstream = "app"
        [[route]]
        path = "/off/"
        upstream = "app"
        compress = false
    "#;
    std::fs::write(&file, config).expect("the folder is writable");
    let file = file.to_str().expect("UTF-8");
    for (url, says) in [
        ("http://a.example/", true),
        ("http://a.example/off/", false),
    ] {
        let output = tollgate(&["explain", "--config", file, "GET", url]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = "compresses  gzip, br from 2048 bytes on";
        assert_eq!(text.contains(line), says, "{text}");
    }
}
