//! Decides whether a request head may enter, and what its body will be (RFC 9112 3 to 6).
//!
//! Stricter than the RFC wherever two programs in a row have read one head differently. Knows
//! nothing of routes, clients or how a refusal is written.

use std::ops::Range;

use bytes::{BufMut, BytesMut};
use http::{Method, Version};

use super::framing::{BadFraming, Framing, FramingFields};
use super::grammar::{self, BadField};
use super::lines::{BadLine, Bounds, FirstLine, Line, Lines};
use super::malformed::Malformed;
pub use super::request_line::Form;
use super::request_line::{LONGEST_METHOD, RequestLine};
use crate::target::{Authority, PathRules};

/// Empty lines tolerated before a request line (RFC 9112 2.2).
const LEADING_EMPTY_LINES: u8 = 2;

/// What a request head may measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the request line without its line end; beyond it 414. At least 64.
    pub request_line: usize,
    /// Bytes of the whole head; beyond it 431. At least 128.
    pub head_bytes: usize,
    /// Field lines; beyond it 431.
    pub fields: usize,
    /// How the path is canonicalised, hence which paths are refused.
    pub path: PathRules,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_line: 8 << 10,
            head_bytes: 32 << 10,
            fields: 100,
            path: PathRules::default(),
        }
    }
}

/// A request head that may enter. Ranges are offsets into the buffer it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    pub method: Method,
    pub form: Form,
    /// HTTP/1.1 or HTTP/1.0.
    pub version: Version,
    pub framing: Framing,
    /// The client is willing to send another request after this one (RFC 9112 9.3).
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body. HTTP/1.1 only.
    pub expect_continue: bool,
    /// `Upgrade` is present and `Connection` names it. HTTP/1.1 only.
    pub upgrade: bool,
    /// From the request line (empty lines before it left out) to the empty line, included. The body
    /// begins at its end.
    pub bytes: Range<usize>,
    /// The target as it was sent.
    pub target: Range<usize>,
    /// Path and query within the target; empty for `*` and for an absolute form that ends with
    /// its authority (then the path is `/`, or what `?` begins).
    pub path_and_query: Range<usize>,
    /// The `Host` value, or else the authority of the target; empty in HTTP/1.0 without either.
    pub host: Range<usize>,
    /// How many field lines there are.
    pub fields: usize,
}

impl RequestHead {
    /// Checks a head in one go; `None` while it is incomplete and nothing in it is wrong yet.
    ///
    /// For bytes that arrive in pieces use [`HeadScanner`]: it does not begin again each time.
    pub fn check(buf: &[u8], limits: &Limits) -> Result<Option<RequestHead>, Malformed> {
        HeadScanner::new(*limits).scan(buf)
    }

    /// The head as it is passed on, where that is not how it was sent: an absolute-form target in
    /// origin-form, with a `Host` where HTTP/1.0 had none (RFC 9112 3.2.2), and in the query
    /// percent-encoded what RFC 3986 3.4 does not allow there. `buf` is what the head was read from.
    pub fn rewritten(&self, buf: &[u8]) -> Option<BytesMut> {
        let path_and_query = &buf[self.path_and_query.clone()];
        let is_illegal = |byte: &u8| matches!(byte, b'"' | b'<' | b'>');
        if self.form != Form::Absolute && !path_and_query.iter().any(is_illegal) {
            return None;
        }
        let line_end = self.target.end + " HTTP/1.1\r\n".len();
        let mut head = BytesMut::with_capacity(self.bytes.len() + "Host: \r\n".len());
        head.put_slice(&buf[self.bytes.start..self.target.start]);
        match path_and_query {
            // RFC 9112 3.2.4: what the last proxy makes of a target without a path.
            b"" if self.method == Method::OPTIONS => head.put_slice(b"*"),
            [b'/', ..] => {}
            _ => head.put_slice(b"/"),
        }
        for byte in path_and_query {
            match byte {
                b'"' => head.put_slice(b"%22"),
                b'<' => head.put_slice(b"%3C"),
                b'>' => head.put_slice(b"%3E"),
                _ => head.put_u8(*byte),
            }
        }
        head.put_slice(&buf[self.target.end..line_end]);
        if self.target.contains(&self.host.start) {
            head.put_slice(b"Host: ");
            head.put_slice(&buf[self.host.clone()]);
            head.put_slice(b"\r\n");
        }
        head.put_slice(&buf[line_end..self.bytes.end]);
        Some(head)
    }
}

/// Reads one request head from a growing buffer, each byte once.
///
/// The answer does not depend on how the bytes were cut into reads; a fault is reported as soon as
/// its first byte is there. After an answer other than `Ok(None)` the scanner is spent.
#[derive(Clone, Debug)]
pub struct HeadScanner {
    path: PathRules,
    lines: Lines,
    leading: u8,
    /// Up to here the method's bytes were found to be token characters.
    method_checked: usize,
    method_done: bool,
    request_line: Option<RequestLine>,
    fields: Fields,
}

/// What the field lines so far have said.
#[derive(Clone, Debug, Default)]
struct Fields {
    framing: FramingFields,
    host: Option<Range<usize>>,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    upgrade: bool,
    expect_continue: bool,
}

impl HeadScanner {
    pub fn new(limits: Limits) -> Self {
        HeadScanner {
            path: limits.path,
            lines: Lines::new(
                FirstLine::Ascii,
                Bounds {
                    first_line: limits.request_line,
                    head: limits.head_bytes,
                    fields: limits.fields,
                },
            ),
            leading: 0,
            method_checked: 0,
            method_done: false,
            request_line: None,
            fields: Fields::default(),
        }
    }

    /// Reads on from where the last call stopped. `buf` holds everything since the first byte of
    /// this head; it may have grown since the last call.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Option<RequestHead>, Malformed> {
        loop {
            if self.request_line.is_none() {
                self.check_method_bytes(buf)?;
            }
            match self.lines.next(buf)? {
                Line::Partial => return Ok(None),
                Line::First(line) if line.is_empty() => self.skip_empty_line()?,
                Line::First(line) => {
                    self.request_line = Some(RequestLine::read(buf, line, &self.path)?);
                }
                Line::Field(line) => self.fields.read(buf, line)?,
                Line::End(end) => {
                    let line = self
                        .request_line
                        .take()
                        .expect("the request line comes first");
                    return self.finish(buf, line, end).map(Some);
                }
            }
        }
    }

    fn skip_empty_line(&mut self) -> Result<(), Malformed> {
        if self.leading == LEADING_EMPTY_LINES {
            return Err(Malformed::EmptyLines);
        }
        self.leading += 1;
        self.lines.expect_first_again();
        self.method_checked = self.lines.line_start();
        Ok(())
    }

    /// Refuses what is not HTTP at its first wrong byte rather than at the end of a line that may
    /// never come. Line ends and controls are left to [`Lines`].
    fn check_method_bytes(&mut self, buf: &[u8]) -> Result<(), Malformed> {
        const TLS_HANDSHAKE: u8 = 0x16;
        if self.method_done {
            return Ok(());
        }
        let start = self.lines.line_start();
        while let Some(&byte) = buf.get(self.method_checked) {
            match byte {
                TLS_HANDSHAKE if self.method_checked == 0 => return Err(Malformed::TlsOnPlaintext),
                b' ' if self.method_checked == start => return Err(Malformed::MethodInvalid),
                b' ' => {
                    self.method_done = true;
                    return Ok(());
                }
                b'\r' | b'\n' => return Ok(()),
                0..=0x1f | 0x7f.. => return Ok(()),
                _ if !grammar::is_tchar(byte) => return Err(Malformed::MethodInvalid),
                _ if self.method_checked - start >= LONGEST_METHOD => {
                    return Err(Malformed::MethodUnknown);
                }
                _ => self.method_checked += 1,
            }
        }
        Ok(())
    }

    fn finish(&self, buf: &[u8], line: RequestLine, end: usize) -> Result<RequestHead, Malformed> {
        let fields = &self.fields;
        let http11 = line.version == Version::HTTP_11;
        let host = self.host(buf, &line)?;
        Ok(RequestHead {
            framing: fields.framing.framing(http11)?,
            keep_alive: !fields.close && (http11 || fields.keep_alive),
            expect_continue: http11 && fields.expect_continue,
            upgrade: http11 && fields.upgrade && fields.connection_upgrade,
            bytes: line.start..end,
            method: line.method,
            form: line.form,
            version: line.version,
            target: line.target,
            path_and_query: line.path_and_query,
            host,
            fields: self.lines.fields(),
        })
    }

    /// Exactly one valid Host in HTTP/1.1, at most one in HTTP/1.0, the same as the target's.
    fn host(&self, buf: &[u8], line: &RequestLine) -> Result<Range<usize>, Malformed> {
        let Some(host) = self.fields.host.clone() else {
            if line.version == Version::HTTP_11 {
                return Err(Malformed::HostMissing);
            }
            return Ok(line.authority.clone().unwrap_or(0..0));
        };
        if let Some(authority) = &line.authority {
            let named = Authority::parse(&buf[authority.clone()])?;
            let field = Authority::parse(&buf[host.clone()])?;
            if !named.same_as(&field, line.default_port) {
                return Err(Malformed::HostDisagrees);
            }
        }
        Ok(host)
    }
}

impl Fields {
    fn read(&mut self, buf: &[u8], line: Range<usize>) -> Result<(), Malformed> {
        let text = &buf[line.clone()];
        let (name, value) = grammar::field(text)?;
        // By length first: most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if self.host.is_some() {
                    return Err(Malformed::HostRepeated);
                }
                Authority::parse(value)?;
                let start = line.start + (value.as_ptr() as usize - text.as_ptr() as usize);
                self.host = Some(start..start + value.len());
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                if self.expect_continue || !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Malformed::ExpectationUnknown);
                }
                self.expect_continue = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection(value)?,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.framing.request_length(value)?
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.framing.coding(value)?,
            _ => {}
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), Malformed> {
        for option in grammar::list(value) {
            if !grammar::is_token(option) {
                return Err(Malformed::ConnectionInvalid);
            }
            if is_protected(option) {
                return Err(Malformed::ConnectionNominatesProtected);
            }
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
        Ok(())
    }
}

/// Fields that must reach the application whatever `Connection` says: a proxy that removed them
/// would change what the message means or who it is from (RFC 9110 7.6.1).
fn is_protected(option: &[u8]) -> bool {
    const NAMES: [&[u8]; 14] = [
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"content-encoding",
        b"authorization",
        b"cookie",
        b"origin",
        b"expect",
        b"range",
        b"cache-control",
        b"forwarded",
        b"x-real-ip",
        b"x-request-id",
    ];
    const FORWARDED: &[u8] = b"x-forwarded-";
    NAMES.iter().any(|name| option.eq_ignore_ascii_case(name))
        || option
            .get(..FORWARDED.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(FORWARDED))
}

impl From<BadLine> for Malformed {
    fn from(bad: BadLine) -> Self {
        match bad {
            BadLine::LineFeed => Malformed::BareLineFeed,
            BadLine::CarriageReturn => Malformed::BareCarriageReturn,
            BadLine::Control => Malformed::ControlCharacter,
            BadLine::NotAscii => Malformed::RequestLineNotAscii,
            BadLine::FirstLineTooLong => Malformed::RequestLineTooLong,
            BadLine::HeadTooLarge => Malformed::HeadTooLarge,
            BadLine::TooManyFields => Malformed::TooManyFields,
        }
    }
}

impl From<BadField> for Malformed {
    fn from(bad: BadField) -> Self {
        match bad {
            BadField::Folded => Malformed::FieldFolded,
            BadField::NameEmpty => Malformed::FieldNameEmpty,
            BadField::NameInvalid => Malformed::FieldNameInvalid,
            BadField::NameSpace => Malformed::FieldNameSpace,
            BadField::ColonMissing => Malformed::FieldColonMissing,
        }
    }
}

impl From<BadFraming> for Malformed {
    fn from(bad: BadFraming) -> Self {
        match bad {
            BadFraming::LengthInvalid => Malformed::ContentLengthInvalid,
            BadFraming::LengthRepeated => Malformed::ContentLengthRepeated,
            BadFraming::CodingUnsupported => Malformed::TransferEncodingUnsupported,
            BadFraming::CodingInvalid => Malformed::TransferEncodingInvalid,
            BadFraming::CodingRepeated => Malformed::TransferEncodingRepeated,
            BadFraming::CodingInHttp10 => Malformed::TransferEncodingInHttp10,
            BadFraming::Conflict => Malformed::FramingConflict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_rewritten_only_where_it_would_be_read_differently() {
        for (sent, passed_on) in [
            ("GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", None),
            (
                "\r\nGET http://A:80/a?b HTTP/1.1\r\nHost: a\r\n\r\n",
                Some("GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n"),
            ),
            (
                "GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n",
                Some("GET /?b HTTP/1.1\r\nHost: a\r\n\r\n"),
            ),
            (
                "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
                Some("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
            ),
            (
                "GET http://a:8/ HTTP/1.0\r\nX: y\r\n\r\n",
                Some("GET / HTTP/1.0\r\nHost: a:8\r\nX: y\r\n\r\n"),
            ),
            (
                "GET /?a=\"<b>\" HTTP/1.1\r\nHost: a\r\n\r\n",
                Some("GET /?a=%22%3Cb%3E%22 HTTP/1.1\r\nHost: a\r\n\r\n"),
            ),
        ] {
            let head = RequestHead::check(sent.as_bytes(), &Limits::default());
            let head = head.unwrap().unwrap();
            let found = head.rewritten(sent.as_bytes());
            assert_eq!(found.as_deref(), passed_on.map(str::as_bytes), "{sent}");
        }
    }
}
