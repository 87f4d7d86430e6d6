//! A whole answer of our own, head and body: a refusal in the form the client prefers, a redirect,
//! a fixed response. Knows how it looks on an HTTP/1.1 wire; who writes it is not its business.

use std::fmt::Write;
use std::time::SystemTime;

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use pingora_http::ResponseHeader;
use serde::Serialize;

use super::page::Values;
use super::{Pages, Refusal};
use crate::client::RequestId;

/// What the answer depends on besides its reason.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The `Accept` field lines joined by commas, if there was one.
    pub accept: Option<&'a [u8]>,
    /// The method is HEAD: the same head, no body.
    pub head: bool,
    pub request_id: &'a RequestId,
}

/// What happens to an HTTP/1 connection after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Close,
    /// Kept, which HTTP/1.1 does without a word.
    Keep,
    /// Kept for an HTTP/1.0 client that asked for it, and must be told.
    KeepHttp10,
}

/// Head and body, ready to be dressed by a header policy and written.
#[derive(Debug)]
pub struct Answer {
    /// With `Content-Length` of the body (of the one not sent, for HEAD).
    pub head: ResponseHeader,
    /// Empty for HEAD.
    pub body: Bytes,
}

/// The media types we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Problem,
    Html,
    Text,
}

impl Answer {
    /// An answer with a body; `Content-Length` is set, the body is left out for `head_only`.
    pub fn fixed(
        status: StatusCode,
        content_type: &HeaderValue,
        body: Bytes,
        head_only: bool,
    ) -> Self {
        let mut head = ResponseHeader::build(status, Some(8)).expect("a status is a status");
        // RFC 9110 8.6: no Content-Length in 1xx and 204; 304 has no body either.
        let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
        if !bodiless {
            put(&mut head, "Content-Type", content_type.clone());
            put(&mut head, "Content-Length", HeaderValue::from(body.len()));
        }
        let body = if head_only || bodiless || status == StatusCode::NOT_MODIFIED {
            Bytes::new()
        } else {
            body
        };
        Self { head, body }
    }

    /// A redirect without a body. `location` is an absolute URL or path.
    pub fn redirect(status: StatusCode, location: HeaderValue) -> Self {
        let mut head = ResponseHeader::build(status, Some(8)).expect("a status is a status");
        put(&mut head, "Location", location);
        put(&mut head, "Content-Length", HeaderValue::from_static("0"));
        Self {
            head,
            body: Bytes::new(),
        }
    }

    pub(super) fn of(refusal: &Refusal, asked: &Asked<'_>, pages: &Pages) -> Self {
        let row = refusal.row();
        let form = preferred(asked.accept.unwrap_or(b""));
        let (content_type, body) = match form {
            Form::Problem => ("application/problem+json", problem(refusal, &row, asked)),
            Form::Html => ("text/html; charset=utf-8", html(&row, asked, pages)),
            Form::Text => ("text/plain; charset=utf-8", text(refusal, &row, asked)),
        };
        let mut answer = Self::fixed(
            row.status,
            &HeaderValue::from_static(content_type),
            body.into(),
            asked.head,
        );
        let head = &mut answer.head;
        put(head, "Cache-Control", HeaderValue::from_static("no-store"));
        put(
            head,
            "X-Content-Type-Options",
            HeaderValue::from_static("nosniff"),
        );
        put(head, "Vary", HeaderValue::from_static("Accept"));
        if form == Form::Html && pages.is_ours {
            // Without it the strict policy of a route would take the page's own style away.
            put(
                head,
                "Content-Security-Policy",
                HeaderValue::from_static(
                    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
                ),
            );
        }
        if let Refusal::MethodNotAllowed { allow } = refusal
            && let Ok(allow) = HeaderValue::from_str(allow)
        {
            put(head, "Allow", allow);
        }
        let wait = match refusal {
            Refusal::TooManyRequests { retry_after } => *retry_after,
            Refusal::TooManyConnections => pages.retry_after,
            _ if row.status == StatusCode::SERVICE_UNAVAILABLE => pages.retry_after,
            _ => std::time::Duration::ZERO,
        };
        if !wait.is_zero() {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            put(head, "Retry-After", HeaderValue::from(seconds));
        }
        answer
    }

    /// The bytes of an HTTP/1.1 response, for a connection on which no codec runs yet.
    pub fn to_wire(&self, after: After, now: SystemTime) -> BytesMut {
        let mut wire = BytesMut::with_capacity(512 + self.body.len());
        wire.put_slice(b"HTTP/1.1 ");
        wire.put_slice(self.head.status.as_str().as_bytes());
        wire.put_u8(b' ');
        wire.put_slice(self.head.get_reason_phrase().unwrap_or_default().as_bytes());
        wire.put_slice(b"\r\n");
        self.head.header_to_h1_wire(&mut wire);
        let _ = write!(wire, "Date: {}\r\n", httpdate::HttpDate::from(now));
        match after {
            After::Close => wire.put_slice(b"Connection: close\r\n"),
            After::KeepHttp10 => wire.put_slice(b"Connection: keep-alive\r\n"),
            After::Keep => {}
        }
        wire.put_slice(b"\r\n");
        wire.put_slice(&self.body);
        wire
    }
}

fn put(head: &mut ResponseHeader, name: &'static str, value: HeaderValue) {
    debug_assert!(HeaderName::from_bytes(name.as_bytes()).is_ok());
    let _ = head.insert_header(name, value);
}

/// RFC 9457, with our own members behind the standard ones.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    reason: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
}

fn problem(refusal: &Refusal, row: &super::Row, asked: &Asked<'_>) -> String {
    let (host, path) = tried(refusal).unzip();
    let problem = Problem {
        kind: "about:blank",
        title: row.title,
        status: row.status.as_u16(),
        detail: &row.detail,
        reason: row.reason,
        request_id: asked.request_id.as_str(),
        host,
        path,
    };
    let mut json = serde_json::to_string(&problem).expect("strings and numbers are JSON");
    json.push('\n');
    json
}

fn html(row: &super::Row, asked: &Asked<'_>, pages: &Pages) -> String {
    pages.render(&Values {
        status: row.status.as_str(),
        title: row.title,
        detail: &row.detail,
        reason: row.reason,
        request_id: asked.request_id.as_str(),
    })
}

fn text(refusal: &Refusal, row: &super::Row, asked: &Asked<'_>) -> String {
    let mut text = format!("{} {}\n{}\n", row.status.as_str(), row.title, row.detail);
    if let Some((host, path)) = tried(refusal) {
        let _ = write!(text, "host: {host}\npath: {path}\n");
    }
    let _ = write!(
        text,
        "reason: {}\nrequest: {}\n",
        row.reason, asked.request_id
    );
    text
}

fn tried(refusal: &Refusal) -> Option<(&str, &str)> {
    match refusal {
        Refusal::NotFound { host, path } => Some((host, path)),
        _ => None,
    }
}

/// The form the client prefers (RFC 9110 12.5.1). Of equal weights the one it named more closely
/// wins, and then JSON before HTML before text; so programs that say nothing or `*/*` get the
/// problem document, browsers the page. A client that accepts none of them gets text.
fn preferred(accept: &[u8]) -> Form {
    let forms = [
        (
            Form::Problem,
            weight(accept, "application", &["problem+json", "json"]),
        ),
        (Form::Html, weight(accept, "text", &["html"])),
        (Form::Text, weight(accept, "text", &["plain"])),
    ];
    if accept.trim_ascii().is_empty() {
        return Form::Problem;
    }
    let mut best = (
        Form::Text,
        Weight {
            thousandths: 0,
            closeness: 0,
        },
    );
    for (form, weight) in forms {
        if weight.thousandths > 0 && weight > best.1 {
            best = (form, weight);
        }
    }
    best.0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Weight {
    thousandths: u16,
    closeness: u8,
}

/// The weight of a media type: that of the range that names it most closely.
fn weight(accept: &[u8], kind: &str, subtypes: &[&str]) -> Weight {
    let mut best = Weight {
        thousandths: 0,
        closeness: 0,
    };
    for range in accept.split(|&byte| byte == b',') {
        let mut parts = range.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let media = parts.next().unwrap_or_default();
        let Some(slash) = media.iter().position(|&byte| byte == b'/') else {
            continue;
        };
        let (range_kind, range_subtype) = (&media[..slash], &media[slash + 1..]);
        let is = |text: &[u8], wanted: &str| text.eq_ignore_ascii_case(wanted.as_bytes());
        let closeness = match (range_kind, range_subtype) {
            (b"*", b"*") => 1,
            (found, b"*") if is(found, kind) => 2,
            (found, subtype)
                if is(found, kind) && subtypes.iter().any(|wanted| is(subtype, wanted)) =>
            {
                3
            }
            _ => continue,
        };
        let thousandths = parts.find_map(quality).unwrap_or(1000);
        if closeness > best.closeness {
            best = Weight {
                thousandths,
                closeness,
            };
        } else if closeness == best.closeness {
            best.thousandths = best.thousandths.max(thousandths);
        }
    }
    best
}

/// `q=0.8` in thousandths (RFC 9110 12.4.2); a broken weight counts as 0. `None`: not a weight.
fn quality(parameter: &[u8]) -> Option<u16> {
    let value = match parameter {
        [b'q' | b'Q', b'=', value @ ..] => value,
        _ => return None,
    };
    let parsed = match value {
        [b'1'] => Some(1000),
        [b'1', b'.', zeros @ ..] if zeros.len() <= 3 && zeros.iter().all(|&byte| byte == b'0') => {
            Some(1000)
        }
        [b'0'] => Some(0),
        [b'0', b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => {
            let scale = [100, 10, 1];
            Some(
                digits
                    .iter()
                    .zip(scale)
                    .map(|(&digit, scale)| u16::from(digit - b'0') * scale)
                    .sum(),
            )
        }
        _ => None,
    };
    Some(parsed.unwrap_or(0))
}
