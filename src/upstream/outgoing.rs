//! Whether a request has been sent whole: only then does its response have a deadline.

use crate::http1::{BodyScanner, Framing};

/// Follows one request on its way out.
pub(super) struct Outgoing {
    /// Bytes of the head that have not been written.
    head_left: usize,
    body: BodyScanner,
    /// More was written than the head announced: what the backend makes of it is unknown.
    overrun: bool,
}

impl Outgoing {
    /// Nothing is on its way.
    pub fn nothing() -> Self {
        Self {
            head_left: 0,
            body: BodyScanner::new(Framing::None),
            overrun: false,
        }
    }

    /// `bytes` begin with a whole head, of which nothing has been written yet.
    pub fn request(bytes: &[u8]) -> Self {
        let mut framing = None;
        let mut end = bytes.len();
        for feed in memchr::memchr_iter(b'\n', bytes) {
            let line = &bytes[feed + 1..];
            if line.starts_with(b"\r\n") {
                end = feed + 3;
                break;
            }
            framing = framing.or_else(|| framing_of(line));
        }
        Self {
            head_left: end,
            body: BodyScanner::new(framing.unwrap_or(Framing::None)),
            overrun: false,
        }
    }

    /// These bytes were written.
    pub fn written(&mut self, bytes: &[u8]) {
        let of_head = self.head_left.min(bytes.len());
        self.head_left -= of_head;
        let of_body = &bytes[of_head..];
        self.overrun |= self.body.feed(of_body) != Ok(of_body.len());
    }

    pub fn is_whole(&self) -> bool {
        self.head_left == 0 && self.body.done() && !self.overrun
    }
}

/// How the body ends, by a field of a head that we have made ourselves: `line` begins with it.
fn framing_of(line: &[u8]) -> Option<Framing> {
    const CODING: &[u8] = b"transfer-encoding:";
    const LENGTH: &[u8] = b"content-length:";
    let is_named = |name: &[u8]| {
        line.get(..name.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    match line.first()?.to_ascii_lowercase() {
        b't' if is_named(CODING) => Some(Framing::Chunked),
        b'c' if is_named(LENGTH) => {
            let value = line[LENGTH.len()..].split(|byte| *byte == b'\r').next();
            let length = value
                .and_then(|value| std::str::from_utf8(value.trim_ascii()).ok())
                .and_then(|text| text.parse().ok());
            Some(length.map_or(Framing::None, Framing::Length))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_with_its_last_byte_however_it_is_cut() {
        let requests: [&[u8]; 4] = [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PUT / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            b"PUT / HTTP/1.1\r\ncontent-length: 5\r\n\r\nabcde",
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n",
        ];
        for request in requests {
            for cut in 1..request.len() {
                let mut outgoing = Outgoing::request(request);
                outgoing.written(&request[..cut]);
                assert!(!outgoing.is_whole(), "{cut}");
                outgoing.written(&request[cut..]);
                assert!(outgoing.is_whole(), "{cut}");
            }
        }
    }
}
