//! A plain request: its head as values for the decisions, and as text for a backend.

use std::cell::RefCell;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{HeaderName, HeaderValue, USER_AGENT};
use http::uri::Authority;
use http::{HeaderMap, Method};
use pingora_http::RequestHeader;

use crate::http1::{Malformed, grammar};

/// Fields that most requests do not exceed, those included that they gain on their way.
const USUAL_FIELDS: usize = 32;

/// A map that is kept for the next request has no more room than for so many.
const MOST_SPARE_FIELDS: usize = 128;

thread_local! {
    static SPARE: RefCell<Option<HeaderMap>> = const { RefCell::new(None) };
}

/// An empty map: that of the last request of this worker, where it is there.
fn spare() -> HeaderMap {
    let spare = SPARE.with_borrow_mut(Option::take);
    spare.unwrap_or_else(|| HeaderMap::with_capacity(USUAL_FIELDS))
}

/// What a head says.
#[derive(Clone)]
pub struct Request {
    pub method: Method,
    /// As it came.
    pub target: Bytes,
    /// What HTTP/2 says in place of Host.
    pub authority: Option<Authority>,
    pub fields: HeaderMap,
    pub user_agent: Option<HeaderValue>,
}

impl Request {
    /// Reads a head that the scanner has let through. An error says that the two disagree.
    pub fn read(head: &Bytes) -> Result<Self, Malformed> {
        let mut lines = memchr::memchr_iter(b'\n', head);
        let first = lines.next().ok_or(Malformed::MethodInvalid)?;
        let line = &head[..first];
        let method_end = memchr::memchr(b' ', line).ok_or(Malformed::MethodInvalid)?;
        let method =
            Method::from_bytes(&line[..method_end]).map_err(|_| Malformed::MethodInvalid)?;
        let target_end = memchr::memrchr(b' ', line).ok_or(Malformed::TargetForm)?;
        let mut fields = spare();
        let mut start = first + 1;
        for feed in lines {
            // Each line ends in CRLF, the last one is empty.
            let line = &head[start..feed.saturating_sub(1).max(start)];
            if line.is_empty() {
                break;
            }
            let colon = memchr::memchr(b':', line).ok_or(Malformed::FieldValueInvalid)?;
            let (name, value) = (&line[..colon], grammar::trim(&line[colon + 1..]));
            let name = HeaderName::from_bytes(name).map_err(|_| Malformed::FieldValueInvalid)?;
            let value = HeaderValue::from_maybe_shared(head.slice_ref(value))
                .map_err(|_| Malformed::FieldValueInvalid)?;
            fields.append(name, value);
            start = feed + 1;
        }
        Ok(Self {
            method,
            target: head.slice(method_end + 1..target_end.max(method_end + 1)),
            authority: None,
            user_agent: fields.get(USER_AGENT).cloned(),
            fields,
        })
    }

    /// Is over: its map of fields serves another one on this worker.
    pub fn spend(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        if fields.capacity() <= MOST_SPARE_FIELDS {
            fields.clear();
            SPARE.with_borrow_mut(|spare| *spare = Some(fields));
        }
    }

    /// The head that a backend receives.
    pub fn to_wire(&self, target: &str) -> BytesMut {
        let fields = self.fields.iter();
        let size: usize = fields
            .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
            .sum();
        let line = self.method.as_str().len() + target.len() + "  HTTP/1.1\r\n\r\n".len();
        let mut wire = BytesMut::with_capacity(line + size);
        wire.put_slice(self.method.as_str().as_bytes());
        wire.put_u8(b' ');
        wire.put_slice(target.as_bytes());
        wire.put_slice(b" HTTP/1.1\r\n");
        for (name, value) in &self.fields {
            wire.put_slice(name.as_str().as_bytes());
            wire.put_slice(b": ");
            wire.put_slice(value.as_bytes());
            wire.put_slice(b"\r\n");
        }
        wire.put_slice(b"\r\n");
        wire
    }
}

/// A request of HTTP/2, read by its codec.
impl From<&RequestHeader> for Request {
    fn from(request: &RequestHeader) -> Self {
        let mut fields = HeaderMap::with_capacity(USUAL_FIELDS.max(request.headers.len()));
        for (name, value) in &request.headers {
            fields.append(name.clone(), value.clone());
        }
        Self {
            method: request.method.clone(),
            target: Bytes::copy_from_slice(request.raw_path()),
            authority: request.uri.authority().cloned(),
            user_agent: request.headers.get(USER_AGENT).cloned(),
            fields,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &'static str) -> Request {
        Request::read(&Bytes::from_static(head.as_bytes())).unwrap()
    }

    #[test]
    fn a_head_is_read_and_written_again() {
        let text =
            "GET /a?b=%20 HTTP/1.1\r\nHost: a\r\nX-Odd:\tb c\t\r\nempty:\r\nx-odd: \u{e9}\r\n\r\n";
        let request = read(text);
        assert_eq!(request.target, "/a?b=%20");
        assert_eq!(
            request.to_wire("/other"),
            "GET /other HTTP/1.1\r\nhost: a\r\nx-odd: b c\r\nx-odd: \u{e9}\r\nempty: \r\n\r\n"
        );
    }

    #[test]
    fn a_head_without_fields_is_read_too() {
        let request = read("HEAD / HTTP/1.1\r\n\r\n");
        assert_eq!(
            (request.method.as_str(), &*request.target),
            ("HEAD", &b"/"[..])
        );
        assert!(request.fields.is_empty());
    }

    #[test]
    fn what_the_scanner_would_refuse_is_an_error_and_no_panic() {
        for head in [
            "",
            "GET",
            "GET /",
            "\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "\n\n\n",
        ] {
            let head = Bytes::from_static(head.as_bytes());
            let _ = Request::read(&head);
        }
        let head = Bytes::from_static(b"GET / HTTP/1.1\r\nA: \x01\r\n\r\n");
        assert!(Request::read(&head).is_err());
    }
}
