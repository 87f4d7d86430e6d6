//! A whole answer of our own, head and body: a refusal in the form the client prefers, a redirect,
//! a fixed response. Knows how it looks on an HTTP/1.1 wire; who writes it is not its business.

use std::fmt::Write;
use std::time::SystemTime;

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use http::header::HeaderValue;
use pingora_http::ResponseHeader;
use serde::Serialize;

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

    /// What `OPTIONS *` is told: it asks the gateway itself, not an application (RFC 9110 9.3.7).
    pub fn options() -> Self {
        let mut head = ResponseHeader::build(StatusCode::NO_CONTENT, Some(8)).expect("a status");
        put(&mut head, "Allow", HeaderValue::from_static(ALLOW));
        Self {
            head,
            body: Bytes::new(),
        }
    }

    pub(super) fn of(refusal: &Refusal, asked: &Asked<'_>, pages: &Pages) -> Self {
        let (status, reason, detail) = refusal.row();
        let facts = Problem {
            kind: "about:blank",
            title: Refusal::title(status),
            status: status.as_u16(),
            detail: &detail,
            reason,
            request_id: asked.request_id.as_str(),
            tried: match refusal {
                Refusal::NotFound { host, path } => Some(Tried { host, path }),
                _ => None,
            },
        };
        let form = preferred(asked.accept.unwrap_or_default());
        let (content_type, body) = match form {
            Form::Problem => ("application/problem+json", facts.json()),
            Form::Html => ("text/html; charset=utf-8", pages.render(&facts)),
            Form::Text => ("text/plain; charset=utf-8", facts.text()),
        };
        let content_type = HeaderValue::from_static(content_type);
        let mut answer = Self::fixed(status, &content_type, body.into(), asked.head);
        let mut set = |name, value| put(&mut answer.head, name, value);
        set("Cache-Control", HeaderValue::from_static("no-store"));
        set(
            "X-Content-Type-Options",
            HeaderValue::from_static("nosniff"),
        );
        set("Vary", HeaderValue::from_static("Accept"));
        if form == Form::Html && pages.are_ours() {
            // Without it the strict policy of a route would take the page's own style away.
            set("Content-Security-Policy", HeaderValue::from_static(OWN_CSP));
        }
        // RFC 9110 15.5.6: every 405 says what is allowed.
        if let Refusal::MethodNotAllowed { allow } = refusal
            && let Ok(allow) = HeaderValue::from_str(allow)
        {
            set("Allow", allow);
        } else if status == StatusCode::METHOD_NOT_ALLOWED {
            set("Allow", HeaderValue::from_static(ALLOW));
        }
        if let Some(seconds) = retry_after(refusal, status, pages) {
            set("Retry-After", HeaderValue::from(seconds));
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
    head.insert_header(name, value)
        .expect("our own names are right");
}

/// Whole seconds, rounded up: a client that comes back in time must not be early.
fn retry_after(refusal: &Refusal, status: StatusCode, pages: &Pages) -> Option<u64> {
    let wait = match refusal {
        Refusal::TooManyRequests { retry_after } => *retry_after,
        Refusal::TooManyConnections => pages.retry_after(),
        _ if status == StatusCode::SERVICE_UNAVAILABLE => pages.retry_after(),
        _ => return None,
    };
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    (seconds > 0).then_some(seconds)
}

/// What a refusal says in every form; as JSON it is RFC 9457 with our own members behind.
#[derive(Serialize)]
pub(super) struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    pub title: &'a str,
    pub status: u16,
    pub detail: &'a str,
    pub reason: &'a str,
    pub request_id: &'a str,
    #[serde(flatten)]
    tried: Option<Tried<'a>>,
}

/// What no route was found for.
#[derive(Serialize)]
struct Tried<'a> {
    host: &'a str,
    path: &'a str,
}

impl Problem<'_> {
    fn json(&self) -> String {
        let mut json = serde_json::to_string(self).expect("strings and numbers are JSON");
        json.push('\n');
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
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn pages() -> Pages {
        Pages::built_in(Duration::from_millis(4200))
    }

    fn id() -> RequestId {
        RequestId::parse(b"id-1").unwrap()
    }

    fn answer(refusal: &Refusal, accept: Option<&str>) -> Answer {
        let id = id();
        let asked = Asked {
            accept: accept.map(str::as_bytes),
            head: false,
            request_id: &id,
        };
        refusal.answer(&asked, &pages())
    }

    fn field<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
        answer
            .head
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap())
    }

    fn not_found() -> Refusal {
        Refusal::NotFound {
            host: "a.example".into(),
            path: "/<script>".into(),
        }
    }

    #[test]
    fn the_form_follows_accept() {
        use Form::{Html, Problem, Text};
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let cases = [
            ("", Problem),
            ("*/*", Problem),
            ("application/json", Problem),
            ("application/problem+json", Problem),
            ("application/vnd.api+json", Problem),
            ("APPLICATION/JSON", Problem),
            ("application/*", Problem),
            ("application/json, text/plain, */*", Problem),
            ("text/html", Html),
            (browser, Html),
            ("text/*", Html),
            ("*/*, text/html", Html),
            ("text/html;q=0.5, application/json;q=0.4", Html),
            ("text/html;q=0.4, application/json;q=0.5", Problem),
            ("text/plain", Text),
            ("text/plain, */*;q=0.1", Text),
            ("text/html;level=1;q=0.2, text/plain;q=0.3", Text),
            ("application/json;q=0, */*;q=0.5", Html),
            ("text/html;q=0, application/json;q=0", Text),
            ("image/png", Text),
            ("nonsense", Text),
            ("text/html;q=wrong, text/plain;q=0.1", Text),
            (" , text/html , ", Html),
        ];
        for (accept, expected) in cases {
            assert_eq!(preferred(accept.as_bytes()), expected, "of {accept:?}");
        }
    }

    #[test]
    fn a_weight_is_read_as_rfc_9110_writes_it() {
        let cases = [
            ("q=1", Some(1000)),
            ("Q=1.000", Some(1000)),
            ("q=0", Some(0)),
            ("q=0.", Some(0)),
            ("q=0.5", Some(500)),
            ("q=0.123", Some(123)),
            ("q=0.1234", Some(0)),
            ("q=1.5", Some(0)),
            ("q=-1", Some(0)),
            ("q=", Some(0)),
            ("level=1", None),
            ("", None),
        ];
        for (parameter, expected) in cases {
            assert_eq!(quality(parameter.as_bytes()), expected, "of {parameter:?}");
        }
    }

    #[test]
    fn a_problem_document_names_what_was_tried() {
        let answer = answer(&not_found(), None);
        assert_eq!(
            field(&answer, "content-type"),
            Some("application/problem+json")
        );
        let text = std::str::from_utf8(&answer.body).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"type":"about:blank","title":"Not Found","status":404,"#,
                r#""detail":"nothing is served at a.example/<script>","reason":"no_route","#,
                r#""request_id":"id-1","host":"a.example","path":"/<script>"}"#,
                "\n",
            )
        );
    }

    #[test]
    fn the_page_escapes_what_it_is_told_and_loads_nothing() {
        let answer = answer(&not_found(), Some("text/html"));
        let html = std::str::from_utf8(&answer.body).unwrap();
        assert!(
            html.contains("nothing is served at a.example/&lt;script&gt;"),
            "{html}"
        );
        assert!(!html.contains("<script"), "{html}");
        assert!(!html.contains("http"), "{html}");
        assert!(html.contains("id-1") && html.contains("no_route"), "{html}");
        assert_eq!(field(&answer, "content-security-policy"), Some(OWN_CSP));
    }

    #[test]
    fn the_plain_form_is_four_lines() {
        let answer = answer(&Refusal::UpstreamTimeout, Some("text/plain"));
        let expected = "504 Gateway Timeout\nthe application did not answer in time\n\
                        reason: upstream_timeout\nrequest: id-1\n";
        assert_eq!(answer.body, expected);
    }

    #[test]
    fn every_answer_forbids_storing_and_states_its_length() {
        for accept in [None, Some("text/html"), Some("text/plain")] {
            let answer = answer(&Refusal::Forbidden, accept);
            assert_eq!(field(&answer, "cache-control"), Some("no-store"));
            assert_eq!(field(&answer, "vary"), Some("Accept"));
            assert_eq!(
                field(&answer, "content-length"),
                Some(answer.body.len().to_string().as_str())
            );
        }
    }

    #[test]
    fn head_gets_the_head_of_get_and_no_body() {
        let id = id();
        let asked = Asked {
            accept: None,
            head: true,
            request_id: &id,
        };
        let head = Refusal::Forbidden.answer(&asked, &pages());
        let get = answer(&Refusal::Forbidden, None);
        assert_eq!(head.head.headers, get.head.headers);
        assert!(head.body.is_empty());
        let wire = head.to_wire(After::Close, UNIX_EPOCH);
        assert!(wire.ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn retry_after_is_whole_seconds_and_never_early() {
        let seconds = |refusal: &Refusal| {
            answer(refusal, None)
                .head
                .headers
                .get("retry-after")
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let throttled = |millis| Refusal::TooManyRequests {
            retry_after: Duration::from_millis(millis),
        };
        assert_eq!(seconds(&throttled(1)).as_deref(), Some("1"));
        assert_eq!(seconds(&throttled(1001)).as_deref(), Some("2"));
        assert_eq!(seconds(&throttled(2000)).as_deref(), Some("2"));
        assert_eq!(seconds(&throttled(0)), None);
        for refusal in [
            Refusal::QueueFull,
            Refusal::QueueTimeout,
            Refusal::UpstreamUnavailable,
            Refusal::Draining,
            Refusal::TooManyConnections,
        ] {
            assert_eq!(seconds(&refusal).as_deref(), Some("5"), "{refusal:?}");
        }
        for refusal in [
            Refusal::UpstreamTimeout,
            Refusal::UpstreamReset,
            Refusal::Forbidden,
        ] {
            assert_eq!(seconds(&refusal), None, "{refusal:?}");
        }
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        let answer = answer(
            &Refusal::MethodNotAllowed {
                allow: "GET, HEAD".into(),
            },
            None,
        );
        assert_eq!(field(&answer, "allow"), Some("GET, HEAD"));
    }

    #[test]
    fn the_wire_is_a_whole_response() {
        let content_type = HeaderValue::from_static("text/plain");
        let answer = Answer::fixed(StatusCode::OK, &content_type, "ok\n".into(), false);
        let wire = |after| String::from_utf8(answer.to_wire(after, UNIX_EPOCH).to_vec()).unwrap();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\
                    Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
        assert_eq!(
            wire(After::Close),
            format!("{head}Connection: close\r\n\r\nok\n")
        );
        assert_eq!(wire(After::Keep), format!("{head}\r\nok\n"));
        assert_eq!(
            wire(After::KeepHttp10),
            format!("{head}Connection: keep-alive\r\n\r\nok\n")
        );
    }

    #[test]
    fn a_status_without_content_has_no_length() {
        let content_type = HeaderValue::from_static("text/plain");
        let answer = Answer::fixed(StatusCode::NO_CONTENT, &content_type, "ok".into(), false);
        assert!(answer.head.headers.is_empty() && answer.body.is_empty());
        let redirect = Answer::redirect(
            StatusCode::PERMANENT_REDIRECT,
            HeaderValue::from_static("/x"),
        );
        assert_eq!(field(&redirect, "location"), Some("/x"));
        assert_eq!(field(&redirect, "content-length"), Some("0"));
    }

    proptest! {
        #[test]
        fn any_path_is_json_and_any_page_is_inert(path in any::<String>()) {
            let refusal = Refusal::NotFound { host: "a".into(), path: path.clone() };
            let json: serde_json::Value = serde_json::from_slice(&answer(&refusal, None).body).unwrap();
            prop_assert_eq!(json["path"].as_str(), Some(path.as_str()));
            let page = answer(&refusal, Some("text/html"));
            let tags = |html: &[u8]| html.iter().filter(|&&byte| byte == b'<').count();
            prop_assert_eq!(tags(&page.body), tags(&answer(&Refusal::Forbidden, Some("text/html")).body));
        }

        #[test]
        fn no_accept_field_is_too_odd(accept in proptest::collection::vec(any::<u8>(), 0..64)) {
            preferred(&accept);
        }
    }
}
