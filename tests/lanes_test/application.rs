//! The application behind both lanes. What it answers depends on the request alone, and on how often a page was changed,
//! so that a stored answer that is right has the body that it would give now.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Mutex;

use crate::harness::origin::{Origin, Received, Reply};

/// What it says under `x/NAME`, well or badly.
#[rustfmt::skip]
pub const REPLIES: &[(&str, &str)] = &[
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
    ("dear", "HTTP/1.1 200 OK\r\nX-Cost: 4\r\nContent-Length: 3\r\n\r\nabc"),
];

/// Kinds of pages below a place that is cached: `/c/KIND/NAME`.
#[rustfmt::skip]
const PAGES: &[(&str, u16, &[&str])] = &[
    ("fresh", 200, &["Cache-Control: max-age=3600"]),
    ("public", 200, &["Cache-Control: public, max-age=3600"]),
    ("dated", 200, &["Cache-Control: max-age=3600", "Last-Modified: Sun, 01 Nov 2026 10:00:00 GMT"]),
    ("silent", 200, &[]),
    ("stale", 200, &["Cache-Control: max-age=30", "Age: 60"]),
    ("while", 200, &["Cache-Control: max-age=30, stale-while-revalidate=3600", "Age: 60"]),
    ("asked", 200, &["Cache-Control: no-cache"]),
    ("private", 200, &["Cache-Control: private, max-age=3600"]),
    ("unstored", 200, &["Cache-Control: no-store"]),
    ("cookie", 200, &["Cache-Control: max-age=3600", "Set-Cookie: sid=new"]),
    ("lang", 200, &["Cache-Control: max-age=3600", "Vary: Accept-Language"]),
    ("visitor", 200, &["Cache-Control: max-age=3600", "Vary: Cookie"]),
    ("star", 200, &["Cache-Control: max-age=3600", "Vary: *"]),
    ("account", 200, &["Cache-Control: max-age=3600"]),
    ("changing", 200, &["Cache-Control: max-age=3600"]),
    ("missing", 404, &["Cache-Control: max-age=3600"]),
    ("gone", 410, &[]),
    ("moved", 301, &["Location: /elsewhere", "Cache-Control: max-age=3600"]),
    ("broken", 500, &["Cache-Control: max-age=3600"]),
];

/// Those of them that are no answers, and end as 502.
pub const FAILURES: &[&str] = &["bad-chunk", "both", "switching", "status-600", "garbage"];

pub fn kinds() -> impl Iterator<Item = &'static str> {
    PAGES.iter().map(|(kind, ..)| *kind)
}

/// One application, which remembers how often its pages were changed.
pub fn start() -> Origin {
    let changes = Mutex::new(BTreeMap::new());
    Origin::with(move |received| {
        let asked = Asked::of(received);
        let page = PAGES.iter().find(|(kind, ..)| asked.is_page(kind));
        match page {
            Some(page) => {
                let mut changes = changes.lock().expect("no holder panics");
                let version = changes.entry(asked.place()).or_insert(0);
                // What has failed has changed nothing.
                *version += u32::from(asked.is_unsafe() && page.1 < 400);
                asked.page(page, *version)
            }
            None => asked.scripted(),
        }
    })
}

/// What tells one body from another.
pub fn digest(body: &str) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("{:x}", hasher.finish())
}

struct Asked {
    method: String,
    path: String,
    query: String,
    fields: Vec<(String, String)>,
}

impl Asked {
    fn of(received: &Received) -> Self {
        let head = received.head_text();
        let mut lines = head.lines();
        let mut words = lines.next().expect("a request line").split(' ');
        let method = words.next().expect("a method").to_owned();
        let target = words.next().expect("a target");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let fields = lines.filter_map(|line| line.split_once(':'));
        Self {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            fields: fields
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect(),
        }
    }

    fn all(&self, name: &str) -> String {
        let values = self.fields.iter().filter(|(field, _)| field == name);
        let values: Vec<_> = values.map(|(_, value)| value.as_str()).collect();
        values.join(", ")
    }

    /// The first cookie of this name.
    fn cookie(&self, name: &str) -> String {
        let cookies = self.all("cookie");
        let mut pairs = cookies
            .split([';', ','])
            .filter_map(|pair| pair.trim().split_once('='));
        let cookie = pairs.find(|(named, _)| *named == name);
        cookie.map_or_else(String::new, |(_, value)| value.to_owned())
    }

    /// Where a page stands: what makes another one of it for everybody.
    fn place(&self) -> String {
        let counts = |pair: &&str| !pair.starts_with("utm_") && !pair.is_empty();
        let mut query: Vec<_> = self.query.split('&').filter(counts).collect();
        query.sort_unstable();
        let [proto, forwarded, host] =
            ["x-forwarded-proto", "x-forwarded-host", "host"].map(|name| self.all(name));
        format!(
            "{proto}://{forwarded} {host} {}?{}",
            self.path,
            query.join("&")
        )
    }

    fn is_page(&self, kind: &str) -> bool {
        let mut segments = self.path.split('/').skip(1);
        matches!(segments.next(), Some("c" | "r")) && segments.next() == Some(kind)
    }

    fn is_unsafe(&self) -> bool {
        matches!(&*self.method, "POST" | "DELETE")
    }

    fn scripted(&self) -> Reply {
        let name = self.path.rsplit_once("x/").map(|(_, name)| name);
        let script = REPLIES.iter().find(|(named, _)| name == Some(named));
        match (script, name) {
            _ if self.method == "HEAD" => {
                Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
            }
            (Some((_, bytes)), _) => Reply::raw(bytes),
            (_, Some("until-close")) => Reply::raw("HTTP/1.1 200 OK\r\n\r\nabc").then_close(),
            (_, Some("cut")) => {
                Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").then_close()
            }
            (_, Some("gone")) => Reply::nothing().then_close(),
            _ => Reply::ok("ok"),
        }
    }

    /// All that the page depends on stands in its body: what another visitor may not be given is seen there.
    fn page(&self, (kind, status, said): &(&str, u16, &[&str]), version: u32) -> Reply {
        let mut body = format!("<p>{kind} {}", self.place());
        let mut tag = format!("\"v{version}");
        let varies_by = match *kind {
            "lang" => &["accept-language"][..],
            "visitor" => &["a", "sid"],
            "account" => &["sessionid", "authorization"],
            // With an audience by the letter of HTTP all is everybody's that does not say otherwise.
            "cookie" if self.path.starts_with("/r/") => &[],
            "private" | "unstored" | "cookie" => &["cookie", "authorization", "accept-language"],
            _ => &[],
        };
        for name in varies_by {
            let value = match *name {
                "a" | "sid" | "sessionid" => self.cookie(name),
                name => self.all(name),
            };
            body += &format!(" {name}={value}");
            tag.extend(value.chars().filter(char::is_ascii_alphanumeric));
        }
        tag.push('"');
        body += &format!(" version {version}");
        // Above what is worth compressing, in every third place.
        if self.path.ends_with('3') {
            body += &" and more of the same".repeat(100);
        }
        let mut head = format!("ETag: {tag}\r\nX-Body: {}\r\n", digest(&body));
        said.iter().for_each(|line| head += &format!("{line}\r\n"));
        if self.path.starts_with("/r/") {
            // With an audience by the letter of HTTP it is for the application to say so.
            head += "Vary: X-Forwarded-Host\r\n";
        }
        self.answer(*status, &head, &tag, body.as_bytes())
    }

    fn answer(&self, status: u16, head: &str, tag: &str, body: &[u8]) -> Reply {
        let reads = matches!(&*self.method, "GET" | "HEAD") && status == 200;
        let known = self.all("if-none-match");
        if reads
            && known
                .split(", ")
                .any(|one| one.trim_start_matches("W/") == tag)
        {
            return Reply::raw(format!("HTTP/1.1 304 Not Modified\r\n{head}\r\n"));
        }
        let range = self
            .range(body.len())
            .filter(|_| reads && self.method == "GET");
        if range == Some(None) {
            let length = body.len();
            return Reply::raw(format!(
                "HTTP/1.1 416 Range\r\nContent-Range: bytes */{length}\r\nContent-Length: 0\r\n\r\n"
            ));
        }
        let (status, part, more) = match range.flatten() {
            Some((first, last)) => {
                let of = format!("Content-Range: bytes {first}-{last}/{}\r\n", body.len());
                (206, &body[first..=last], of)
            }
            None => (status, body, String::new()),
        };
        let length = part.len();
        let mut bytes =
            format!("HTTP/1.1 {status} Page\r\nContent-Type: text/html\r\n{head}{more}Content-Length: {length}\r\n\r\n")
                .into_bytes();
        if self.method != "HEAD" {
            bytes.extend_from_slice(part);
        }
        Reply::raw(bytes)
    }

    /// The one range that is asked for; `Some(None)` lies outside.
    fn range(&self, length: usize) -> Option<Option<(usize, usize)>> {
        let asked = self.all("range");
        let (first, last) = asked.strip_prefix("bytes=")?.split_once('-')?;
        let end = length - 1;
        if asked.contains(',') {
            // Two fields make no list of ranges.
            return None;
        }
        Some(match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), _) if first > end => None,
            (Ok(first), Ok(last)) => Some((first, last.min(end))),
            (Ok(first), Err(_)) => Some((first, end)),
            (Err(_), Ok(suffix)) => Some((length.saturating_sub(suffix), end)),
            (Err(_), Err(_)) => return None,
        })
    }
}
