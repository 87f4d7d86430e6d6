//! One set of decisions, two lanes: a plain request, and the same request made not plain, get the same answer and
//! reach the backend alike.
//!
//! `Content-Length: 0` says what a GET without it means, and yet is framing, which only the full lane serves.

use std::collections::BTreeMap;

use crate::harness::client::Connection;
use crate::harness::coding::decoded;
use crate::harness::gateway::Gateway;
use crate::harness::origin::{Origin, Received, Reply};
use crate::harness::response::{Broken, Head};

const PAIRS: usize = 500;
const NOT_PLAIN: &str = "Content-Length: 0\r\n";

/// Random choices that are the same in every run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

/// What the application says under `/x/NAME`.
#[rustfmt::skip]
const REPLIES: &[(&str, &str)] = &[
    ("length", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("empty", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n05;a=\"b\"\r\nhello\r\n1\r\n!\r\n000\r\n\r\n"),
    ("trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n1\r\na\r\n0\r\nX-T: 1\r\n\r\n"),
    ("bad-chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n"),
    ("both", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("surplus", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef"),
    ("http-1.0", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc"),
    ("no-content", "HTTP/1.1 204 No Content\r\n\r\n"),
    ("no-content-length", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
    ("not-modified", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 9\r\n\r\n"),
    ("hints", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ("switching", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
    ("status-600", "HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n"),
    ("status-599", "HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n"),
    ("no-reason", "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n"),
    ("busy", "HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 2\r\n\r\nno"),
    ("garbage", "ICY 200 OK\r\n\r\n"),
    ("hops", "HTTP/1.1 200 OK\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\na"),
    ("page", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"a\"\r\nAccept-Ranges: bytes\r\nVary: Cookie\r\nContent-Length: 9\r\n\r\n<p>hello!"),
    ("pieces", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: public\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"),
    ("fixed", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: no-transform\r\nContent-Length: 3\r\n\r\nabc"),
    ("own", "HTTP/1.1 200 OK\r\nServer: x\r\nX-Powered-By: y\r\nX-Frame-Options: DENY\r\nContent-Security-Policy: default-src *\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Empty:\r\nX-Obs: \u{e9}\r\nContent-Length: 1\r\n\r\na"),
];

fn reply(received: &Received) -> Reply {
    let head = received.head_text();
    let path = head.split(' ').nth(1).expect("a target");
    let name = path
        .split('?')
        .next()
        .and_then(|path| path.rsplit_once("x/"));
    let scripted = REPLIES
        .iter()
        .find(|(named, _)| name.is_some_and(|(_, name)| name == *named));
    match scripted {
        _ if head.starts_with("HEAD ") => {
            Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
        }
        Some((_, bytes)) => Reply::raw(bytes),
        None if path.ends_with("/until-close") => {
            Reply::raw("HTTP/1.1 200 OK\r\n\r\nabc").then_close()
        }
        None if path.ends_with("/cut") => {
            Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").then_close()
        }
        None if path.ends_with("/gone") => Reply::nothing().then_close(),
        None => Reply::ok("ok"),
    }
}

#[rustfmt::skip]
fn target(dice: &mut Dice) -> String {
    const PLACES: &[&str] = &["/", "/", "/strip/", "/fixed/", "/moved/", "/post/", "/fixed/../strip/"];
    const SEGMENTS: &[&str] = &[
        "a", "b", "..", ".", "%2e%2E", "%2f", "%61", "%zz", "a;b=1", "", "%00", "%7e", "<", "\"", "%25",
        "\\", "|", "'", "%c3%a9", "#", "until-close", "cut", "gone",
    ];
    const QUERIES: &[&str] = &["a=b", "", "?", "%20", "<>", "%", "/../", "{", "#", "\x7f"];
    let mut target = dice.pick(PLACES).to_owned();
    if dice.one_in(2) {
        target += "x/";
        target += REPLIES[dice.below(REPLIES.len())].0;
    } else {
        let segments: Vec<_> = (0..dice.below(5)).map(|_| dice.pick(SEGMENTS)).collect();
        target += &segments.join("/");
    }
    if dice.one_in(4) {
        target = format!("{target}?{}", dice.pick(QUERIES));
    }
    match dice.below(30) {
        0 => format!("http://a.example{target}"),
        1 => format!("http://other.example{target}"),
        2 => dice
            .pick(&["*", "a.example:80", "http://", "//a"])
            .to_owned(),
        _ => target,
    }
}

#[rustfmt::skip]
fn fields(dice: &mut Dice) -> String {
    const USUAL: &[&str] = &[
        "Accept: text/html", "Accept: application/json", "User-Agent: t", "Cookie: a=1", "Cookie: b=2",
        "X-Forwarded-For: 192.0.2.1, 192.0.2.2", "X-Forwarded-Proto: https", "X-Forwarded-Host: b.example",
        "X-Forwarded-Port: 99", "X-Real-IP: 192.0.2.9", "Forwarded: for=192.0.2.1",
        "X-Request-ID: abcdefgh-123", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate: a=b", "Range: bytes=0-3", "If-None-Match: \"a\"", "If-None-Match: W/\"a\"", "TE: trailers", "Trailer: x",
        "Connection: keep-alive", "Connection: x-a, keep-alive", "Connection: close", "X-A: 1", "x_a: 1",
        "X_Forwarded_For: 1", "Proxy: evil", "Proxy-Connection: keep-alive", "Keep-Alive: 5", "Upgrade: h2c",
        "HTTP2-Settings: AAAA", "Authorization: Basic eA==", "X-Empty:", "X-Spaced:    a   b  ",
        "X-Tab:\tv\t", "Accept-Encoding: gzip, br", "Accept-Encoding: zstd;q=0.5, gzip;q=0.4", "X-Obs: \u{e9}",
    ];
    const ODD: &[&str] = &[
        "Expect: other", "Host: b.example", "Connection: host", "Connection: a b",
        "X-Bad : 1", " folded", "no colon", ": no name", "X-Control: \x01", "X-Nul: \0",
        "Transfer-Encoding: gzip", "X-(: 1",
    ];
    const HOSTS: &[&str] = &[
        "a.example", "A.Example", "a.example:8080", "plain.test", "nowhere.test", "a b", "[::1]", "",
    ];
    let host = if dice.one_in(4) {
        dice.pick(HOSTS)
    } else {
        "a.example"
    };
    let mut lines = vec![format!("Host: {host}")];
    for _ in 0..dice.below(7) {
        lines.push(dice.pick(USUAL).to_owned());
    }
    if dice.one_in(12) {
        lines.push(dice.pick(ODD).to_owned());
    }
    let host_at = dice.below(lines.len());
    lines.swap(0, host_at);
    lines.iter().map(|line| format!("{line}\r\n")).collect()
}

/// A request without the empty line at its end.
struct Request {
    method: &'static str,
    text: String,
}

impl Request {
    fn any(dice: &mut Dice) -> Self {
        let method = if dice.one_in(5) { "HEAD" } else { "GET" };
        let version = if dice.one_in(60) {
            "HTTP/1.2"
        } else {
            "HTTP/1.1"
        };
        let (target, fields) = (target(dice), fields(dice));
        let text = format!("{method} {target} {version}\r\n{fields}");
        Self { method, text }
    }
}

/// What a lane made of a request.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// Status and fields, interim answers included.
    heads: Vec<(u16, Vec<String>)>,
    /// `None` for one that broke off.
    body: Option<String>,
    kept: bool,
    /// The first line and the fields of what the backend received.
    received: Vec<Vec<String>>,
}

/// The fields in an order of their own, without what differs from request to request.
fn canonical<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    const OF_ONE_REQUEST: &[&str] = &[
        "x-request-id",
        "x-request-time",
        "server-timing",
        "date",
        "traceparent",
    ];
    let mut lines: Vec<_> = fields
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .map(
            |(name, value)| match OF_ONE_REQUEST.contains(&name.as_str()) {
                true => format!("{name}: *"),
                false => format!("{name}: {value}"),
            },
        )
        // pingora says of a connection what HTTP/1.1 means without a word.
        .filter(|line| line != "connection: keep-alive" && line != "content-length: 0")
        .collect();
    lines.sort();
    lines
}

struct Bench {
    origin: Origin,
    gateway: Gateway,
}

impl Bench {
    /// Every request comes to the backend over a connection of its own: on one that rested it may be sent twice.
    fn new(trusted: &str) -> Self {
        let origin = Origin::with(reply);
        let gateway = Gateway::start(&format!(
            r#"
            [server]
            listen = ["127.0.0.1:0"]
            [compression]
            min_size = "0 B"
            [clients]
            trusted_proxies = ["{trusted}"]
            [log]
            access = "off"
            [upstream.app]
            backends = ["{}"]
            max_fails = 0
            keepalive = 0
            [upstream.app.retry]
            attempts = 1
            [[route]]
            host = "*.example"
            path = "/fixed/"
            respond = {{ status = 200, body = "hello" }}
            [[route]]
            host = "*.example"
            path = "/moved/"
            redirect = {{ status = 301, to = "https://{{host}}{{path}}" }}
            [[route]]
            host = "*.example"
            path = "/strip/"
            strip_prefix = true
            upstream = "app"
            [[route]]
            host = "*.example"
            path = "/post/"
            methods = ["POST"]
            upstream = "app"
            [[route]]
            host = "*.example"
            path = "/"
            headers = "strict"
            upstream = "app"
            [[route]]
            host = "plain.test"
            path = "/"
            upstream = "app"
            "#,
            origin.address()
        ));
        Self { origin, gateway }
    }

    fn outcome(&self, request: &Request, more: &str) -> Outcome {
        let before = self.origin.received().len();
        let mut client = self.gateway.connect();
        let text = format!("{}{more}\r\n", request.text);
        client.send(text.as_bytes()).expect("the gateway reads");
        let mut heads = Vec::new();
        let mut last = None;
        let mut body = None;
        // What ends before a head is one of the outcomes.
        while let Ok(head) = client.head() {
            heads.push((head.status, canonical(head.all())));
            if head.status >= 200 {
                body = read_body(&mut client, request.method, &head).ok();
                last = Some(head);
                break;
            }
        }
        let received = self.origin.received().split_off(before);
        let mut kept = body.is_some() && client.get("/fixed/").is_ok();
        if last.is_some_and(|head| head.status == 502) {
            // pingora ends a connection whose request it could not serve; there is no need to.
            kept = false;
            heads
                .iter_mut()
                .for_each(|(_, fields)| fields.retain(|line| line != "connection: close"));
        }
        let received = received.iter().map(|received| lines(&received.head_text()));
        Outcome {
            heads,
            body,
            kept,
            received: received.collect(),
        }
    }
}

fn read_body(client: &mut Connection, method: &str, head: &Head) -> Result<String, Broken> {
    let mut body = Vec::new();
    if method != "HEAD" {
        client.body(head, |bytes| body.extend_from_slice(bytes))?;
    }
    let body = decoded(head.field("content-encoding"), &body);
    let text = String::from_utf8_lossy(&body).into_owned();
    Ok(match head.field("x-request-id") {
        Some(id) => text.replace(id, "*"),
        None => text,
    })
}

fn lines(head: &str) -> Vec<String> {
    let mut lines = head.trim_end().split("\r\n");
    let first = lines.next().expect("a request line").to_owned();
    let mut all = canonical(lines.map(|line| line.split_once(':').expect("a field")));
    all.insert(0, first);
    all
}

#[test]
fn a_request_is_answered_alike_whichever_lane_serves_it() {
    let mut dice = Dice(20_261_121);
    let mut statuses = BTreeMap::new();
    for trusted in ["192.0.2.0/24", "127.0.0.0/8"] {
        let bench = Bench::new(trusted);
        for _ in 0..PAIRS / 2 {
            let request = Request::any(&mut dice);
            let express = bench.outcome(&request, "");
            let full = bench.outcome(&request, NOT_PLAIN);
            assert_eq!(
                express, full,
                "express and full lane differ over {:?}",
                request.text
            );
            let status = express.heads.last().map_or(0, |(status, _)| *status);
            *statuses.entry(status).or_insert(0) += 1;
        }
    }
    // Else the generator has gone blind to one side of the rules.
    for status in [200, 204, 301, 304, 400, 404, 405, 502] {
        assert!(
            statuses.contains_key(&status),
            "no {status} among {statuses:?}"
        );
    }
    let served = statuses[&200];
    assert!(
        served > PAIRS / 4,
        "only {served} were answered by the application"
    );
}
