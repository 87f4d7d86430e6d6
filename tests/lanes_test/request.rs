//! Generated requests: plain ones and odd ones, for places that a generated plan has or has not.

use super::application::{FAILURES, REPLIES, kinds};
use super::dice::Dice;
use super::plan::Plan;
use crate::harness::corpus::{Case, unescape};

/// What makes sense to the application, or to the rules before it, in a head of HTTP/1.x.
pub struct Request {
    pub method: String,
    /// From the request line to the end of the body.
    pub bytes: Vec<u8>,
    /// It may end its connection, or what is behind it is read by others.
    pub is_last: bool,
    /// Its User-Agent, by which it is known where it has gone.
    pub tag: String,
}

impl Request {
    /// The request of this number, to a gateway with this plan.
    pub fn any(dice: &mut Dice, number: usize, plan: &Plan) -> Self {
        let method = match dice.below(60) {
            0 => "POST",
            1 => "DELETE",
            2 => "OPTIONS",
            3..=12 => "HEAD",
            _ => "GET",
        };
        let version = match dice.below(90) {
            0 => "HTTP/1.2",
            1 => "HTTP/1.0",
            _ => "HTTP/1.1",
        };
        let is_page = dice.one_in(3);
        let target = match is_page {
            true => page(dice, matches!(method, "POST" | "DELETE")),
            // After a failure the full lane ends the connection and the express lane does not: they would count apart.
            false => loop {
                let target = target(dice);
                if !(plan.counts && fails(&target)) {
                    break target;
                }
            },
        };
        let tag = format!("request-{number}");
        let mut text = format!("{method} {target} {version}\r\n");
        let mut fields = fields(dice, &tag, is_page, plan.believes);
        let is_odd = dice.one_in(40);
        if is_odd {
            fields.push(dice.pick(ODD).to_owned());
        }
        let host_at = dice.below(fields.len());
        fields.swap(0, host_at);
        for line in fields {
            text += &format!("{line}\r\n");
        }
        text += match (method, dice.below(2)) {
            ("POST", 0) => "Content-Length: 3\r\n\r\nabc",
            ("POST", _) => "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            _ => "\r\n",
        };
        Self {
            method: method.to_owned(),
            bytes: text.into_bytes(),
            is_last: version != "HTTP/1.1" || is_odd,
            tag,
        }
    }

    pub fn of_the_corpus(case: &Case<'_>) -> Self {
        let bytes = unescape(case.text);
        let method: Vec<_> = bytes
            .iter()
            .copied()
            .take_while(u8::is_ascii_uppercase)
            .collect();
        Self {
            method: String::from_utf8_lossy(&method).into_owned(),
            bytes,
            is_last: true,
            tag: case.name.to_owned(),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

fn fails(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    name == "gone" || FAILURES.contains(&name)
}

/// A page that may be stored. One that is changed has one name: what others a plan gives it, its application need not.
fn page(dice: &mut Dice, is_changed: bool) -> String {
    const STORED: &[&str] = &["fresh", "public", "dated", "while", "lang", "visitor"];
    let kinds: Vec<_> = kinds().collect();
    let is_stored = dice.one_in(2);
    let kind = dice.pick(if is_stored { STORED } else { &kinds });
    // A cache by the letter of HTTP stores what is said to be for everybody, whoever asks.
    let place = if kind == "account" {
        "c"
    } else {
        dice.pick(&["c", "r"])
    };
    let query = match dice.below(12) {
        0 if !is_changed => "?b=2&a=1",
        1 if !is_changed => "?a=1&b=2",
        2 => "?utm_source=x",
        3 => "?a=1&utm_source=x",
        _ => "",
    };
    format!("/{place}/{kind}/{}{query}", dice.below(4))
}

#[rustfmt::skip]
fn target(dice: &mut Dice) -> String {
    const PLACES: &[&str] = &[
        "/", "/", "/api/", "/api/v1/", "/api/v1", "/shop", "/shop/", "/shopping", "/strip/", "/fixed/", "/moved/",
        "/post/", "/fixed/../strip/",
    ];
    const SEGMENTS: &[&str] = &[
        "a", "b", "..", ".", "%2e%2E", "%2f", "%61", "%zz", "a;b=1", "", "%00", "%7e", "<", "\"", "%25",
        "\\", "|", "'", "%c3%a9", "#",
    ];
    const ENDS: &[&str] = &["x/until-close", "x/cut", "x/gone", ".env", "wp-login.php"];
    const QUERIES: &[&str] = &[
        "a=b", "", "?", "%20", "<>", "%", "/../", "{", "#", "\x7f", "k=1", "k=2", "a&k=3", "token=secret&a=b",
    ];
    let mut target = dice.pick(PLACES).to_owned();
    match dice.below(20) {
        0..=1 => target = format!("/few/{}", dice.pick(&["a", "b", "c", "d", "e"])),
        2 => target += dice.pick(ENDS),
        3..=9 => {
            target += "x/";
            target += REPLIES[dice.below(REPLIES.len())].0;
        }
        10..=14 => target += dice.pick(&["a", "b", "d/e"]),
        _ => {
            let segments: Vec<_> = (0..dice.below(5)).map(|_| dice.pick(SEGMENTS)).collect();
            target += &segments.join("/");
        }
    }
    if dice.one_in(4) {
        target = format!("{target}?{}", dice.pick(QUERIES));
    }
    match dice.below(60) {
        0 => format!("http://a.example{target}"),
        1 => format!("http://other.example{target}"),
        2 => dice.pick(&["*", "a.example:80", "http://", "//a"]).to_owned(),
        _ => target,
    }
}

#[rustfmt::skip]
const ODD: &[&str] = &[
    "Expect: other", "Host: b.example", "Connection: host", "Connection: a b", "Connection: close",
    "X-Bad : 1", " folded", "no colon", ": no name", "X-Control: \x01", "X-Nul: \0",
    "Transfer-Encoding: gzip", "X-(: 1", "Upgrade: h2c", "HTTP2-Settings: AAAA", "Expect: 100-continue",
];

#[rustfmt::skip]
fn fields(dice: &mut Dice, tag: &str, is_page: bool, believed: bool) -> Vec<String> {
    const USUAL: &[&str] = &[
        "Accept: text/html", "Accept: application/json", "X-Forwarded-Port: 99", "X-Real-IP: 192.0.2.9",
        "Forwarded: for=192.0.2.1", "X-Request-ID: abcdefgh-123",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate: a=b", "TE: trailers",
        "Connection: keep-alive", "Connection: x-a, keep-alive", "X-A: 1", "x_a: 1", "X_Forwarded_For: 1",
        "Proxy: evil", "Proxy-Connection: keep-alive", "Keep-Alive: 5", "X-Empty:", "X-Spaced:    a   b  ",
        "X-Tab:\tv\t", "Accept-Encoding: gzip, br", "Accept-Encoding: zstd;q=0.5, gzip;q=0.4",
        "Accept-Encoding: gzip", "X-Obs: \u{e9}", "X-Internal: let me in", "X-Cost: 9",
    ];
    const OF_PAGES: &[&str] = &[
        "Accept-Encoding: gzip, br", "Accept-Language: de", "Accept-Language: fr", "Cookie: a=1", "Cookie: sid=me",
        "Cookie: sessionid=alice", "Cookie: sessionid=bob", "Cookie: _ga=1", "Authorization: Basic eA==",
        "Authorization: Basic eQ==", "If-None-Match: \"v0\"", "If-None-Match: W/\"v0\"", "If-None-Match: \"v0de\"",
        "If-None-Match: \"v1\", \"v2\"", "Range: bytes=0-3", "Range: bytes=5-", "Range: bytes=-4",
        "Range: bytes=99999-", "Cache-Control: no-cache", "Cache-Control: max-age=0", "Pragma: no-cache",
        "X-Forwarded-Proto: https", "X-Forwarded-Host: b.example",
    ];
    const OF_OTHERS: &[&str] = &[
        "Cookie: a=1", "Cookie: sid=me", "Cookie: sid=you; a=1", "Cookie: sid=they", "Authorization: Basic eA==",
        "Range: bytes=0-3", "If-None-Match: \"a\"", "If-None-Match: W/\"a\"", "X-Api-Key: one", "X-Api-Key: two",
        "X-Api-Key: three", "X-Api-Key: four", "X-Forwarded-Proto: https", "X-Forwarded-Host: b.example", "Trailer: x",
    ];
    const HOSTS: &[&str] = &[
        "a.example", "A.Example", "a.example:8080", "plain.test", "nowhere.test", "b.example", "[::1]",
    ];
    const NO_HOSTS: &[&str] = &["a b", "", "a.example,b"];
    let host = match dice.below(160) {
        0 => dice.pick(NO_HOSTS),
        1..=30 => dice.pick(HOSTS),
        _ => "a.example",
    };
    let mut lines = vec![format!("Host: {host}"), format!("User-Agent: {tag}")];
    if believed && !dice.one_in(4) {
        lines.push(format!("X-Forwarded-For: 192.0.2.1, 198.51.100.{}", 1 + dice.below(25)));
    } else if dice.one_in(6) {
        lines.push("X-Forwarded-For: 192.0.2.1, 192.0.2.2".to_owned());
    }
    (0..dice.below(4)).for_each(|_| lines.push(dice.pick(USUAL).to_owned()));
    let (these, most) = if is_page { (OF_PAGES, 3) } else { (OF_OTHERS, 4) };
    (0..dice.below(most)).for_each(|_| lines.push(dice.pick(these).to_owned()));
    lines
}
