//! A response head as it came, and where its parts lie: fields are looked up, left out and written again without
//! being taken apart.
//!
//! Made from bytes that a [`ResponseGate`](super::ResponseGate) has let through: nothing here judges.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use super::framing::Framing;
use super::grammar;

/// Fields that most responses do not exceed.
const USUAL_FIELDS: usize = 24;

/// Bytes of a head that most responses do not exceed.
const USUAL_HEAD: usize = 1024;

/// Bytes of added lines that most responses do not exceed: more than the `strict` preset has.
const USUAL_ADDED: usize = 1024;

/// One response head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    bytes: Bytes,
    status: StatusCode,
    http11: bool,
    reason: Range<u32>,
    fields: SmallVec<[Field; USUAL_FIELDS]>,
    /// Lines that it gains, each with its end.
    added: Vec<u8>,
}

/// Where a line lies in the bytes.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub name: Range<u32>,
    pub value: Range<u32>,
}

/// Where a head ends in `bytes`, its empty line included, if it does.
pub fn end_of_head(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

impl ResponseHead {
    /// Takes a whole head apart. `None` for bytes that no gate would have let through.
    pub fn read(bytes: Bytes) -> Option<Self> {
        let mut lines = Lines {
            bytes: &bytes,
            at: 0,
        };
        let first = lines.next()?;
        let line = bytes.get(first.clone())?;
        let status = StatusCode::from_bytes(line.get(9..12)?).ok()?;
        let http11 = line.get(7) == Some(&b'1');
        let reason = range((first.start + 13).min(first.end)..first.end)?;
        let mut fields = SmallVec::new();
        for line in lines {
            if line.is_empty() {
                return Some(Self {
                    status,
                    http11,
                    reason,
                    fields,
                    bytes,
                    added: Vec::new(),
                });
            }
            let text = &bytes[line.clone()];
            let (name, value) = grammar::field(text).ok()?;
            let value_at = match value {
                [] => line.end,
                // Where it lies in the line: the value is a part of it.
                _ => line.start + (value.as_ptr() as usize - text.as_ptr() as usize),
            };
            fields.push(Field {
                name: range(line.start..line.start + name.len())?,
                value: range(value_at..value_at + value.len())?,
            });
        }
        None
    }

    /// A head with these fields, each name in lower case. `reason` is one that came, or empty.
    pub fn compose<'a>(
        status: StatusCode,
        reason: &[u8],
        fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    ) -> Self {
        let mut bytes = Vec::with_capacity(USUAL_HEAD);
        for part in [
            b"HTTP/1.1 " as &[u8],
            status.as_str().as_bytes(),
            b" ",
            reason,
            b"\r\n",
        ] {
            bytes.extend_from_slice(part);
        }
        for (name, value) in fields {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        Self::read(bytes.into_boxed_slice().into())
            .expect("names and values that are valid make a head")
    }

    /// A head whose parts are known to lie there.
    pub(super) fn of_parts(
        bytes: Bytes,
        status: StatusCode,
        reason: Range<u32>,
        fields: impl Iterator<Item = Field>,
    ) -> Self {
        Self {
            bytes,
            status,
            http11: true,
            reason,
            fields: fields.collect(),
            added: Vec::new(),
        }
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The phrase behind the status; may be empty.
    pub fn reason(&self) -> &[u8] {
        self.part(&self.reason)
    }

    /// The values of a field, line by line.
    pub fn values<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |field| self.is(field, name))
            .map(|field| self.part(&field.value))
    }

    /// The name of every line that came and is left, as it is written.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().map(|field| self.part(&field.name))
    }

    /// Visits every line that came and is left, name and value.
    pub fn each_line(&self, mut visit: impl FnMut(&[u8], &[u8])) {
        for field in &self.fields {
            visit(self.part(&field.name), self.part(&field.value));
        }
    }

    /// Every line that came and is left, name and value.
    pub fn lines(&self) -> impl ExactSizeIterator<Item = (&[u8], Bytes)> {
        let whole = |range: &Range<u32>| range.start as usize..range.end as usize;
        self.fields.iter().map(move |field| {
            (
                self.part(&field.name),
                self.bytes.slice(whole(&field.value)),
            )
        })
    }

    pub fn has(&self, name: &HeaderName) -> bool {
        self.fields.iter().any(|field| self.is(field, name))
    }

    /// Leaves every line of this field out.
    pub fn remove(&mut self, name: &HeaderName) {
        let bytes = &self.bytes;
        self.fields
            .retain(|field| !same(part(bytes, &field.name), name));
    }

    /// Lines that it gains, each valid and with its end. They are written behind the others, and look-ups do not see them.
    pub fn added(&mut self) -> &mut Vec<u8> {
        if self.added.capacity() == 0 {
            self.added.reserve(USUAL_ADDED);
        }
        &mut self.added
    }

    /// How its body ends, for a response that has one (RFC 9112 6.3); `None` is the end of the connection.
    pub fn framing(&self) -> Framing {
        if self.has(&TRANSFER_ENCODING) {
            return Framing::Chunked;
        }
        let length = self.values(&CONTENT_LENGTH).next();
        length
            .and_then(grammar::decimal)
            .map_or(Framing::None, Framing::Length)
    }

    /// Whether the connection may carry another request when the response is over (RFC 9112 9.3).
    pub fn keeps_connection(&self) -> bool {
        let mut keep = self.http11;
        for option in self.values(&CONNECTION).flat_map(grammar::list) {
            if option.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keep |= option.eq_ignore_ascii_case(b"keep-alive");
        }
        keep
    }

    /// Writes the status line, in our own version (RFC 9110 2.5), and the fields that are left; more may follow, and the
    /// empty line.
    pub fn write(&self, out: &mut BytesMut) {
        out.put_slice(b"HTTP/1.1 ");
        out.put_slice(self.status.as_str().as_bytes());
        out.put_u8(b' ');
        out.put_slice(self.reason());
        out.put_slice(b"\r\n");
        // Lines that follow each other as they are to be written leave in one piece.
        let mut run = 0..0;
        for field in &self.fields {
            match self.line_as_written(field) {
                Some(line) if line.start == run.end => run.end = line.end,
                Some(line) => out.put_slice(&self.bytes[std::mem::replace(&mut run, line)]),
                None => {
                    out.put_slice(&self.bytes[std::mem::take(&mut run)]);
                    out.put_slice(self.part(&field.name));
                    out.put_slice(b": ");
                    out.put_slice(self.part(&field.value));
                    out.put_slice(b"\r\n");
                }
            }
        }
        out.put_slice(&self.bytes[run]);
        out.put_slice(&self.added);
    }

    /// Where a line lies that is written as it came, its end included.
    fn line_as_written(&self, field: &Field) -> Option<Range<usize>> {
        let [name_end, value, end] =
            [field.name.end, field.value.start, field.value.end].map(|at| at as usize);
        let is_tight = value == name_end + 2
            && self.bytes[name_end..value] == *b": "
            && self.bytes.get(end..end + 2) == Some(b"\r\n");
        is_tight.then_some(field.name.start as usize..end + 2)
    }

    /// Bytes that [`write`](Self::write) takes at the most: it spaces what came without a space.
    pub fn longest(&self) -> usize {
        self.bytes.len() + 1 + self.fields.len() + self.added.len()
    }

    fn is(&self, field: &Field, name: &HeaderName) -> bool {
        same(self.part(&field.name), name)
    }

    fn part(&self, range: &Range<u32>) -> &[u8] {
        part(&self.bytes, range)
    }
}

fn part<'a>(bytes: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    &bytes[range.start as usize..range.end as usize]
}

fn same(name: &[u8], wanted: &HeaderName) -> bool {
    name.eq_ignore_ascii_case(wanted.as_str().as_bytes())
}

fn range(range: Range<usize>) -> Option<Range<u32>> {
    Some(u32::try_from(range.start).ok()?..u32::try_from(range.end).ok()?)
}

/// The lines of a head, without their ends.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for Lines<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let feed = memchr::memchr(b'\n', self.bytes.get(self.at..)?)?;
        let line = self.at..(self.at + feed).checked_sub(1)?;
        self.at += feed + 1;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_TYPE, HeaderName, SERVER, SET_COOKIE};

    use super::*;

    fn head(text: &str) -> ResponseHead {
        ResponseHead::read(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    fn written(head: &ResponseHead) -> String {
        let mut out = BytesMut::with_capacity(head.longest());
        let room = out.capacity();
        head.write(&mut out);
        assert_eq!(
            out.capacity(),
            room,
            "longest() says how much room it takes"
        );
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn what_is_not_touched_is_written_as_it_came() {
        let head = head("HTTP/1.0 404 Nicht da\r\nX-Odd:  a b \r\nEmpty:\r\nset-cookie:1\r\n\r\n");
        assert_eq!(
            written(&head),
            "HTTP/1.1 404 Nicht da\r\nX-Odd: a b\r\nEmpty: \r\nset-cookie: 1\r\n"
        );
    }

    #[test]
    fn a_head_is_made_of_fields() {
        let fields = [(SERVER, "x"), (CONTENT_TYPE, ""), (SET_COOKIE, "\u{e9}")]
            .map(|(name, value)| (name, HeaderValue::from_str(value).unwrap()));
        let fields = fields.iter().map(|(name, value)| (name, value));
        let head = ResponseHead::compose(StatusCode::NOT_FOUND, b"Nicht da", fields);
        assert_eq!(
            written(&head),
            "HTTP/1.1 404 Nicht da\r\nserver: x\r\ncontent-type: \r\nset-cookie: \u{e9}\r\n"
        );
    }

    #[test]
    fn a_status_line_may_end_with_its_status() {
        for text in ["HTTP/1.1 200\r\n\r\n", "HTTP/1.1 200 \r\n\r\n"] {
            assert_eq!(written(&head(text)), "HTTP/1.1 200 \r\n");
        }
    }

    #[test]
    fn fields_are_found_and_left_out_in_any_case() {
        let mut head =
            head("HTTP/1.1 200 OK\r\nSERVER: x\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\r\n");
        let cookies: Vec<&[u8]> = head.values(&SET_COOKIE).collect();
        assert_eq!(cookies, [b"a=1", b"b=2"]);
        assert!(head.has(&SERVER) && !head.has(&CONTENT_TYPE));
        head.remove(&SERVER);
        head.remove(&SET_COOKIE);
        assert_eq!(written(&head), "HTTP/1.1 200 OK\r\n");
        assert!(!head.has(&HeaderName::from_static("set-cookie")));
    }

    #[test]
    fn the_connection_is_kept_unless_something_says_otherwise() {
        let table = [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\n\r\n", true),
        ];
        for (text, kept) in table {
            assert_eq!(head(text).keeps_connection(), kept, "{text}");
        }
    }

    #[test]
    fn the_end_of_the_body_is_read_from_its_fields() {
        let table = [
            ("Content-Length: 7\r\n", Framing::Length(7)),
            ("transfer-encoding: Chunked\r\n", Framing::Chunked),
            ("", Framing::None),
        ];
        for (fields, framing) in table {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert_eq!(head(&text).framing(), framing);
        }
    }
}
