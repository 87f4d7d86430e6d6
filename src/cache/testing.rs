//! Requests, responses and times for the tests of this module.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::target::PathRules;

use super::admission::may_store;
use super::entry::{Content, Entry, Times};
use super::key::Key;
use super::tombstones::Epoch;
use super::{Exchange, Policy, Request, Response};

/// 2026-11-21 12:00:00.
pub fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_262_400)
}

/// So many seconds after noon, or before.
pub fn at(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        noon() - distance
    } else {
        noon() + distance
    }
}

/// The date that is so many seconds from noon.
pub fn date(seconds: i64) -> String {
    httpdate::fmt_http_date(at(seconds))
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn fields<V: AsRef<str>>(lines: &[(&str, V)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().unwrap();
        fields.append(name, HeaderValue::from_str(value.as_ref()).unwrap());
    }
    fields
}

/// A request for https://a.example/page.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub query: Option<String>,
    pub is_trusted: bool,
    pub fields: HeaderMap,
}

impl Asked {
    pub fn head(&self) -> Request<'_> {
        Request {
            method: &self.method,
            scheme: "https",
            host: "a.example",
            path: &self.path,
            path_rules: PathRules::default(),
            query: self.query.as_deref(),
            fields: &self.fields,
            is_trusted: self.is_trusted,
        }
    }
}

pub fn request(method: &str, lines: &[(&str, &str)]) -> Asked {
    Asked {
        method: method.parse().unwrap(),
        path: "/page".to_owned(),
        query: None,
        is_trusted: false,
        fields: fields(lines),
    }
}

pub fn get(lines: &[(&str, &str)]) -> Asked {
    request("GET", lines)
}

#[derive(Clone, Debug)]
pub struct Answered {
    pub status: StatusCode,
    pub fields: HeaderMap,
}

impl Answered {
    pub fn head(&self) -> Response<'_> {
        Response {
            status: self.status,
            fields: &self.fields,
        }
    }
}

pub fn response<V: AsRef<str>>(status: u16, lines: &[(&str, V)]) -> Answered {
    Answered {
        status: StatusCode::from_u16(status).unwrap(),
        fields: fields(lines),
    }
}

/// Asked and answered at noon.
pub fn at_noon() -> Exchange {
    Exchange {
        sent: noon(),
        received: noon(),
    }
}

pub fn anonymous() -> Policy {
    Policy::anonymous()
}

pub fn rfc9111() -> Policy {
    Policy::rfc9111()
}

/// A page that this was answered just now, good for a minute, with its key.
pub fn kept(asked: &Asked) -> (Key, Arc<Entry>) {
    let now = SystemTime::now();
    let exchange = Exchange {
        sent: now,
        received: now,
    };
    let times = Times {
        asked: Epoch::default(),
        received: now,
    };
    let (policy, answered) = (
        anonymous(),
        response(200, &[("cache-control", "max-age=60")]),
    );
    let admission = may_store(&asked.head(), &answered.head(), exchange, &policy);
    let content = Content::Whole(Bytes::from_static(b"page"));
    let entry = Entry::new(admission.unwrap(), b"OK", content, times, &policy);
    (Key::of(&asked.head(), "pages", &policy), Arc::new(entry))
}
