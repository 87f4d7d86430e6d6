//! A whole answer of our own, head and body: a refusal in the form the client prefers, a redirect,
//! a fixed response. Knows how it looks on an HTTP/1.1 wire; who writes it is not its business.

use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use pingora_http::ResponseHeader;

use super::{Pages, Refusal};
use crate::client::RequestId;
use crate::headers::policy::OnWire;
use crate::limit::whole_seconds;
use crate::moment::date;
use crate::short::Short;
use crate::telemetry::line::escape_json;

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

/// Bytes of the lines, and of the problem document, that most answers do not exceed.
const USUAL_LINES: usize = 1024;

/// draft-ietf-httpapi-ratelimit-headers, problem types.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

const OWN_CSP: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// What the gateway as a whole allows; an application may allow less, or methods of its own.
const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

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
        let mut head =
            ResponseHeader::build_no_case(status, Some(8)).expect("a status is a status");
        // RFC 9110 8.6: no Content-Length in 1xx and 204; 304 has no body either.
        let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
        if !bodiless {
            put(&mut head, header::CONTENT_TYPE, content_type.clone());
            put(
                &mut head,
                header::CONTENT_LENGTH,
                HeaderValue::from(body.len()),
            );
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
        let mut head =
            ResponseHeader::build_no_case(status, Some(8)).expect("a status is a status");
        put(&mut head, header::LOCATION, location);
        put(
            &mut head,
            header::CONTENT_LENGTH,
            HeaderValue::from_static("0"),
        );
        Self {
            head,
            body: Bytes::new(),
        }
    }

    /// What `OPTIONS *` is told: it asks the gateway itself, not an application (RFC 9110 9.3.7).
    pub fn options() -> Self {
        let mut head =
            ResponseHeader::build_no_case(StatusCode::NO_CONTENT, Some(8)).expect("a status");
        put(&mut head, header::ALLOW, HeaderValue::from_static(ALLOW));
        Self {
            head,
            body: Bytes::new(),
        }
    }

    pub(super) fn of(refusal: &Refusal, asked: &Asked<'_>, pages: &Pages) -> Self {
        let (status, reason, detail) = refusal.row();
        let facts = Problem {
            kind: match refusal {
                Refusal::Limited(_) => QUOTA_EXCEEDED,
                _ => "about:blank",
            },
            title: Refusal::title(status),
            status: status.as_u16(),
            detail: &detail,
            reason,
            request_id: asked.request_id.as_str(),
            tried: match refusal {
                Refusal::NotFound { host, path } => Some(Tried { host, path }),
                _ => None,
            },
            violated_policies: match refusal {
                Refusal::Limited(limited) => Some([&*limited.policy]),
                _ => None,
            },
        };
        let form = preferred(asked.accept.unwrap_or_default());
        let (content_type, body) = match form {
            Form::Problem => ("application/problem+json", facts.json().into()),
            Form::Html => (
                "text/html; charset=utf-8",
                Bytes::from(pages.render(&facts)),
            ),
            Form::Text => ("text/plain; charset=utf-8", facts.text().into()),
        };
        let content_type = HeaderValue::from_static(content_type);
        let mut answer = Self::fixed(status, &content_type, body, asked.head);
        let mut set = |name, value| put(&mut answer.head, name, value);
        set(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        set(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        set(header::VARY, HeaderValue::from_static("Accept"));
        if form == Form::Html && pages.are_ours() {
            // Without it the strict policy of a route would take the page's own style away.
            set(
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(OWN_CSP),
            );
        }
        // RFC 9110 15.5.6: every 405 says what is allowed.
        if let Refusal::MethodNotAllowed { allow } = refusal
            && let Ok(allow) = HeaderValue::from_str(allow)
        {
            set(header::ALLOW, allow);
        } else if status == StatusCode::METHOD_NOT_ALLOWED {
            set(header::ALLOW, HeaderValue::from_static(ALLOW));
        }
        if let Some(seconds) = retry_after(refusal, status, pages) {
            set(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }

    /// The bytes of an HTTP/1.1 response, for a connection on which no codec runs; `dress` gives it what every answer has.
    pub fn to_wire(
        mut self,
        after: After,
        now: SystemTime,
        dress: impl FnOnce(&mut OnWire<'_>),
    ) -> BytesMut {
        let mut lines = Vec::with_capacity(USUAL_LINES);
        dress(&mut OnWire {
            head: &mut self.head,
            lines: &mut lines,
        });
        let mut wire = BytesMut::with_capacity(USUAL_LINES + lines.len() + self.body.len());
        wire.put_slice(b"HTTP/1.1 ");
        wire.put_slice(self.head.status.as_str().as_bytes());
        wire.put_u8(b' ');
        wire.put_slice(self.head.get_reason_phrase().unwrap_or_default().as_bytes());
        wire.put_slice(b"\r\n");
        self.head.header_to_h1_wire(&mut wire);
        wire.put_slice(&lines);
        wire.put_slice(b"Date: ");
        wire.put_slice(&date(now));
        wire.put_slice(match after {
            After::Close => b"\r\nConnection: close\r\n\r\n",
            After::KeepHttp10 => b"\r\nConnection: keep-alive\r\n\r\n",
            After::Keep => b"\r\n\r\n",
        });
        wire.put_slice(&self.body);
        wire
    }
}

fn put(head: &mut ResponseHeader, name: HeaderName, value: HeaderValue) {
    head.insert_header(name, value)
        .expect("our own names are right");
}

fn retry_after(refusal: &Refusal, status: StatusCode, pages: &Pages) -> Option<u64> {
    let wait = match refusal {
        Refusal::Limited(limited) => limited.retry_after,
        Refusal::UpstreamPaced { retry_after } | Refusal::UpstreamPaused { retry_after } => {
            (*retry_after).max(Duration::from_secs(1))
        }
        Refusal::Banned { left, .. } if status == StatusCode::TOO_MANY_REQUESTS => *left,
        Refusal::TooManyConnections => pages.retry_after(),
        _ if status == StatusCode::SERVICE_UNAVAILABLE => pages.retry_after(),
        _ => return None,
    };
    let seconds = whole_seconds(wait);
    (seconds > 0).then_some(seconds)
}

/// What a refusal says in every form; as JSON it is RFC 9457 with our own members behind.
pub(super) struct Problem<'a> {
    kind: &'static str,
    pub title: &'a str,
    pub status: u16,
    pub detail: &'a str,
    pub reason: &'a str,
    pub request_id: &'a str,
    tried: Option<Tried<'a>>,
    violated_policies: Option<[&'a str; 1]>,
}

/// What no route was found for.
struct Tried<'a> {
    host: &'a str,
    path: &'a str,
}

impl Problem<'_> {
    fn json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(USUAL_LINES);
        let mut status = Short::<5>::default();
        status.push_decimal(self.status);
        json.extend_from_slice(b"{\"type\":\"");
        json.extend_from_slice(self.kind.as_bytes());
        let member = |json: &mut Vec<u8>, name: &str, value: &str| {
            json.extend_from_slice(b"\",\"");
            json.extend_from_slice(name.as_bytes());
            json.extend_from_slice(b"\":\"");
            escape_json(json, value);
        };
        member(&mut json, "title", self.title);
        json.extend_from_slice(b"\",\"status\":");
        json.extend_from_slice(status.as_bytes());
        json.extend_from_slice(b",\"detail\":\"");
        escape_json(&mut json, self.detail);
        member(&mut json, "reason", self.reason);
        member(&mut json, "request_id", self.request_id);
        if let Some(Tried { host, path }) = self.tried {
            member(&mut json, "host", host);
            member(&mut json, "path", path);
        }
        json.push(b'"');
        if let Some([policy]) = self.violated_policies {
            json.extend_from_slice(b",\"violated-policies\":[\"");
            escape_json(&mut json, policy);
            json.extend_from_slice(b"\"]");
        }
        json.extend_from_slice(b"}\n");
        json
    }

    fn text(&self) -> String {
        let Self {
            title,
            status,
            detail,
            reason,
            request_id,
            ..
        } = self;
        format!("{status} {title}\n{detail}\nreason: {reason}\nrequest: {request_id}\n")
    }
}

/// The form the client prefers (RFC 9110 12.5.1). Of equal weights the one it named more closely
/// wins, and then JSON before HTML before text; so programs that say nothing or `*/*` get the
/// problem document, browsers the page. A client that accepts none of them gets text.
fn preferred(accept: &[u8]) -> Form {
    if accept.trim_ascii().is_empty() {
        return Form::Problem;
    }
    let mut best = (Weight::default(), Form::Text);
    for form in [Form::Problem, Form::Html, Form::Text] {
        let weight = weight(accept, form);
        if weight.thousandths > 0 && weight > best.0 {
            best = (weight, form);
        }
    }
    best.1
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Weight {
    thousandths: u16,
    closeness: u8,
}

/// The weight of a form: that of the range that names it most closely.
fn weight(accept: &[u8], form: Form) -> Weight {
    let mut best = Weight::default();
    for range in accept.split(|&byte| byte == b',') {
        let mut parts = range.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let Some(closeness) = parts.next().and_then(|media| form.closeness(media)) else {
            continue;
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

impl Form {
    /// How closely a media range names this form: 1 as anything, 2 by type, 3 by subtype. Whoever
    /// reads some `+json` reads ours.
    fn closeness(self, media: &[u8]) -> Option<u8> {
        let media = media.to_ascii_lowercase();
        let (kind, subtype) = match self {
            Self::Problem => (&b"application/"[..], &b"json"[..]),
            Self::Html => (&b"text/"[..], &b"html"[..]),
            Self::Text => (&b"text/"[..], &b"plain"[..]),
        };
        if media == b"*/*" {
            return Some(1);
        }
        match media.strip_prefix(kind)? {
            b"*" => Some(2),
            found if found == subtype => Some(3),
            found if self == Self::Problem && found.ends_with(b"+json") => Some(3),
            _ => None,
        }
    }
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

#[cfg(test)]
mod tests;
