//! What a lane made of a request, without what differs from request to request.

use std::collections::BTreeSet;

use serde_json::Value;

use super::application;
use crate::harness::coding::decoded;
use crate::harness::origin::Received;
use crate::harness::response::Head;

/// What the client saw. Fields are lines as `name: value`, in an order of their own.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// Status and fields, interim answers included.
    pub heads: Vec<(u16, Vec<String>)>,
    /// `None` for one that broke off.
    pub body: Option<String>,
    /// The connection carries another request.
    pub kept: bool,
}

impl Outcome {
    pub fn status(&self) -> u16 {
        self.heads.last().map_or(0, |(status, _)| *status)
    }

    /// Whether the length of the body is its own: of one that is encoded it depends on how many pieces it came in, and of
    /// one that says how long to wait on the digits of that.
    pub fn has_any_length(&self) -> bool {
        let is_encoded = self.field("content-encoding: ").is_some();
        is_encoded || self.field("content-length: ") == Some(ANY_LENGTH)
    }

    /// Whether the route has a cache.
    pub fn is_of_cache(&self) -> bool {
        self.cache_status().is_some()
    }

    /// Whether a stored answer was given.
    pub fn is_hit(&self) -> bool {
        self.cache_status()
            .is_some_and(|status| status.contains("; hit"))
    }

    fn cache_status(&self) -> Option<&str> {
        self.field("cache-status: ")
    }

    fn field(&self, name: &str) -> Option<&str> {
        let (_, fields) = self.heads.last()?;
        fields.iter().find_map(|line| line.strip_prefix(name))
    }

    /// Whether this is the page that another lane says has not changed. Who asks for all who want to know asks for all
    /// of it; a page that then is for nobody else is given as a whole.
    pub fn is_page_of(&self, unchanged: &Self) -> bool {
        let [page, same] = [self, unchanged].map(|outcome| {
            ["etag: ", "x-body: "]
                .map(|name| outcome.field(name).map(|tag| tag.trim_start_matches("W/")))
        });
        (self.status(), unchanged.status()) == (200, 304)
            && page == same
            && self.body.as_deref().map(application::digest).as_deref() == page[1]
    }

    /// As of a lane that keeps the connection on which it has told of a failure. pingora ends it, which is of no use
    /// where the request has no body.
    pub fn as_if_kept(&mut self) {
        self.kept = true;
        if let Some((_, fields)) = self.heads.last_mut() {
            fields.retain(|line| line != "connection: close");
        }
    }

    /// Takes out what a cache may add or change: how old an answer is and where it came from; how the body is framed
    /// and encoded, which for a stored one is decided when it is stored, for everybody; hints from the application,
    /// which a hit does not ask.
    pub fn without_cache(mut self) -> Self {
        const OF_CACHE: &[&str] = &[
            "age: ",
            "cache-status: ",
            "x-cache: ",
            "x-cache-hits: ",
            "x-cache-misses: ",
            "content-length: ",
            "content-encoding: ",
            "transfer-encoding: ",
        ];
        let last = self.heads.pop();
        self.heads.clear();
        if let Some((status, mut fields)) = last {
            fields.retain(|line| !OF_CACHE.iter().any(|name| line.starts_with(name)));
            if matches!(status, 206 | 304) {
                // Whether the whole could be compressed is known of what is stored, and not of what the application
                // says here.
                fields.retain(|line| line != "vary: Accept-Encoding");
            }
            if status == 304 {
                // RFC 9110 15.4.5: of what is stored these need not be said again.
                fields.retain(|line| {
                    !line.starts_with("set-cookie: ") && !line.starts_with("x-body: ")
                });
            }
            for line in &mut fields {
                if let Some(weak) = line.strip_prefix("etag: W/") {
                    *line = format!("etag: {weak}");
                }
            }
            self.heads.push((status, fields));
        }
        self
    }
}

/// In place of a length that says how many digits the seconds of a wait have.
const ANY_LENGTH: &str = "*";

/// The fields of an answer.
pub fn fields(head: &Head) -> Vec<String> {
    let says_seconds = head.field("retry-after").is_some();
    canonical(head.all().map(|(name, value)| match name {
        "Content-Length" | "content-length" if says_seconds && value != "0" => (name, ANY_LENGTH),
        _ => (name, value),
    }))
}

fn canonical<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    const OF_ONE_REQUEST: &[&str] = &[
        "x-request-id",
        "x-request-time",
        "server-timing",
        "date",
        "traceparent",
        "retry-after",
        "x-ratelimit-reset",
    ];
    let mut lines: Vec<_> = fields
        .map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            match &*name {
                "ratelimit" => format!("{name}: {}", without_reset(value)),
                _ if OF_ONE_REQUEST.contains(&&*name) => format!("{name}: *"),
                _ => format!("{name}: {}", value.trim()),
            }
        })
        // pingora says of a connection what HTTP/1.1 means without a word.
        .filter(|line| line != "connection: keep-alive" && line != "content-length: 0")
        .collect();
    lines.sort();
    lines
}

/// `"api";r=3;t=*`: the seconds may pass between one gateway and the other.
fn without_reset(value: &str) -> String {
    let items = value.split(", ").map(|item| match item.split_once(";t=") {
        Some((left, _)) => format!("{left};t=*"),
        None => item.to_owned(),
    });
    items.collect::<Vec<_>>().join(", ")
}

/// A body as its client reads it.
pub fn body(head: &Head, bytes: &[u8]) -> String {
    let body = decoded(head.field("content-encoding"), bytes);
    let mut text = String::from_utf8_lossy(&body).into_owned();
    if let Some(id) = head.field("x-request-id") {
        text = text.replace(id, "*");
    }
    if let Some(seconds) = head.field("retry-after") {
        text = text.replace(&format!("come back in {seconds} s"), "come back in * s");
    }
    text
}

/// What the backend received: the first line, and the fields.
pub fn received(received: &Received) -> Vec<String> {
    let head = received.head_text();
    let mut lines = head.trim_end().split("\r\n");
    let first = lines.next().expect("a request line").to_owned();
    let mut all = canonical(lines.map(|line| line.split_once(':').expect("a field")));
    all.insert(0, first);
    all
}

/// What the records of some requests need not agree in, by what the requests are called.
#[derive(Default)]
pub struct Leeway {
    /// Their routes have caches.
    pub of_cache: BTreeSet<String>,
    /// The length of the body is its own.
    pub of_any_length: BTreeSet<String>,
    /// One is told that nothing has changed, the other what there is.
    pub of_either_status: BTreeSet<String>,
}

/// The line of the access log; `None` for any other line. On a route with a cache without what that changes: who was
/// asked, how often, what for, and the bytes of a body that may be encoded.
pub fn record(line: &str, leeway: &Leeway) -> Option<String> {
    const OF_ONE_REQUEST: &[&str] = &[
        "timestamp",
        "id",
        "duration_ms",
        "connect_ms",
        "first_byte_ms",
    ];
    const OF_CACHE: &[&str] = &[
        "cache",
        "cache_tier",
        "cache_detail",
        "upstream",
        "backend",
        "attempts",
        "bytes_out",
    ];
    let mut line: Value = serde_json::from_str(line).ok()?;
    if line["target"] != "access" {
        return None;
    }
    let is_of_cache = line.get("cache").is_some();
    if is_of_cache && line.get("user_agent").is_none() {
        // What the gateway asks by itself, about a page that is stale.
        return None;
    }
    let tag = line["user_agent"].as_str().unwrap_or_default();
    let has_any_length = leeway.of_any_length.contains(tag);
    let has_either_status = leeway.of_either_status.contains(tag);
    let facts = line.as_object_mut().expect("a record has names");
    facts.retain(|name, _| {
        !(OF_ONE_REQUEST.contains(&name.as_str())
            || is_of_cache && OF_CACHE.contains(&name.as_str())
            || has_any_length && name == "bytes_out"
            || has_either_status && name == "status")
    });
    if let Some(backend) = facts.get_mut("backend") {
        *backend = "*".into();
    }
    Some(line.to_string())
}

/// What an administrator is told, without times.
pub fn told(mut told: Value) -> Value {
    strip_times(&mut told);
    told
}

fn strip_times(value: &mut Value) {
    const TIMES: &[&str] = &["since", "since_seconds", "reset_seconds", "left_seconds"];
    match value {
        Value::Object(facts) => {
            facts.retain(|name, _| !TIMES.contains(&name.as_str()));
            facts.values_mut().for_each(strip_times);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_times),
        _ => {}
    }
}
