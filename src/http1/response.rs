//! Decides whether what an upstream sends back may be believed (RFC 9112 4, 6).
//!
//! One gate watches one upstream connection: every response head and the framing of every body.
//! Knows nothing of status policy, retries or how a 502 is written.

use thiserror::Error;

use super::body::BodyScanner;
use super::framing::{BadFraming, Framing, FramingFields};
use super::grammar::{self, BadField};
use super::lines::{BadLine, Bounds, FirstLine, Line, Lines};
use super::malformed::Malformed;

/// What a response may measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseLimits {
    /// Bytes of one head, its status line included.
    pub head_bytes: usize,
    pub fields: usize,
    /// Interim (1xx) responses before the final one.
    pub interim: usize,
}

impl Default for ResponseLimits {
    fn default() -> Self {
        ResponseLimits {
            head_bytes: 64 << 10,
            fields: 256,
            interim: 8,
        }
    }
}

/// Why the bytes of an upstream are not a response to what was asked. The connection must be
/// discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("{}", self.detail())]
pub enum BadResponse {
    UnsolicitedBytes,
    StatusLine,
    StatusOutOfRange,
    BareLineFeed,
    BareCarriageReturn,
    ControlCharacter,
    HeadTooLarge,
    TooManyFields,
    FieldFolded,
    FieldInvalid,
    ContentLengthInvalid,
    ContentLengthRepeated,
    TransferEncodingUnsupported,
    TransferEncodingRepeated,
    TransferEncodingInHttp10,
    FramingConflict,
    FramingForbidden,
    InterimInHttp10,
    TooManyInterim,
    UnsolicitedUpgrade,
    Body(Malformed),
    ClosedBeforeHead,
    ClosedInHead,
    ClosedInBody,
    OverlappingRequest,
}

impl BadResponse {
    /// Every variant but [`BadResponse::Body`], for tables and tests.
    pub const PLAIN: [BadResponse; 24] = [
        BadResponse::UnsolicitedBytes,
        BadResponse::StatusLine,
        BadResponse::StatusOutOfRange,
        BadResponse::BareLineFeed,
        BadResponse::BareCarriageReturn,
        BadResponse::ControlCharacter,
        BadResponse::HeadTooLarge,
        BadResponse::TooManyFields,
        BadResponse::FieldFolded,
        BadResponse::FieldInvalid,
        BadResponse::ContentLengthInvalid,
        BadResponse::ContentLengthRepeated,
        BadResponse::TransferEncodingUnsupported,
        BadResponse::TransferEncodingRepeated,
        BadResponse::TransferEncodingInHttp10,
        BadResponse::FramingConflict,
        BadResponse::FramingForbidden,
        BadResponse::InterimInHttp10,
        BadResponse::TooManyInterim,
        BadResponse::UnsolicitedUpgrade,
        BadResponse::ClosedBeforeHead,
        BadResponse::ClosedInHead,
        BadResponse::ClosedInBody,
        BadResponse::OverlappingRequest,
    ];

    /// Stable snake_case code.
    pub fn reason(self) -> &'static str {
        self.row().0
    }

    /// One English sentence for the log, without a full stop.
    pub fn detail(self) -> &'static str {
        self.row().1
    }

    #[rustfmt::skip]
    fn row(self) -> (&'static str, &'static str) {
        use BadResponse::*;
        match self {
            UnsolicitedBytes => ("unsolicited_bytes", "bytes came that no request asked for"),
            StatusLine => ("status_line", "the status line is not version, status and reason"),
            StatusOutOfRange => ("status_out_of_range", "the status is outside 100 to 599"),
            BareLineFeed => ("bare_line_feed", "a line ends in a bare line feed"),
            BareCarriageReturn => ("bare_carriage_return", "a carriage return is not followed by a line feed"),
            ControlCharacter => ("control_character", "the head has a control character"),
            HeadTooLarge => ("head_too_large", "the head is larger than max_response_head"),
            TooManyFields => ("too_many_fields", "the head has too many fields"),
            FieldFolded => ("field_folded", "a field line begins with white space"),
            FieldInvalid => ("field_invalid", "a field line is not a name, a colon and a value"),
            ContentLengthInvalid => ("content_length_invalid", "Content-Length is not a plain decimal number"),
            ContentLengthRepeated => ("content_length_repeated", "there is more than one Content-Length field"),
            TransferEncodingUnsupported => ("transfer_encoding_unsupported", "the transfer coding is not chunked alone"),
            TransferEncodingRepeated => ("transfer_encoding_repeated", "there is more than one Transfer-Encoding field"),
            TransferEncodingInHttp10 => ("transfer_encoding_in_http_1_0", "an HTTP/1.0 response has a transfer coding"),
            FramingConflict => ("framing_conflict", "there are both Content-Length and Transfer-Encoding"),
            FramingForbidden => ("framing_forbidden", "a response that has no body announces one"),
            InterimInHttp10 => ("interim_in_http_1_0", "an HTTP/1.0 response has an interim status"),
            TooManyInterim => ("too_many_interim", "too many interim responses came before the final one"),
            UnsolicitedUpgrade => ("unsolicited_upgrade", "the protocol was switched though no request asked for it"),
            Body(bad) => (bad.reason(), bad.detail()),
            ClosedBeforeHead => ("closed_before_head", "the connection ended before a response began"),
            ClosedInHead => ("closed_in_head", "the connection ended within a response head"),
            ClosedInBody => ("closed_in_body", "the connection ended within a response body"),
            OverlappingRequest => ("overlapping_request", "a request was written before the last response ended"),
        }
    }
}

/// Watches one upstream connection, from its first request to its last byte.
///
/// The outcome does not depend on how the bytes are cut into reads. A fault stays: every later call
/// repeats it.
#[derive(Clone, Debug)]
pub struct ResponseGate {
    limits: ResponseLimits,
    state: State,
    asked: Asked,
    interim: usize,
    /// The beginning of a head that came in more than one read; empty otherwise.
    partial: Vec<u8>,
}

#[derive(Clone, Debug)]
enum State {
    /// No request is outstanding.
    Idle,
    Head(HeadReader),
    Body(BodyScanner),
    /// After 101: the bytes are no longer HTTP.
    Tunnel,
    Failed(BadResponse),
}

/// What the outstanding request means for its response.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    head: bool,
    upgrade: bool,
}

impl ResponseGate {
    pub fn new(limits: ResponseLimits) -> Self {
        ResponseGate {
            limits,
            state: State::Idle,
            asked: Asked::default(),
            interim: 0,
            partial: Vec::new(),
        }
    }

    /// Tells that this request head was written. `head` begins with its request line; what follows
    /// the empty line is ignored.
    pub fn request_started(&mut self, head: &[u8]) {
        match self.state {
            State::Idle => {
                self.asked = Asked::read(head);
                self.interim = 0;
                self.state = State::Head(HeadReader::new(&self.limits));
            }
            State::Failed(_) => {}
            State::Head(_) | State::Body(_) | State::Tunnel => {
                self.state = State::Failed(BadResponse::OverlappingRequest);
            }
        }
    }

    /// Judges the next bytes from the upstream, before anyone else reads them.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), BadResponse> {
        self.take(bytes).inspect_err(|&why| {
            self.state = State::Failed(why);
            self.partial = Vec::new();
        })
    }

    /// Whether the connection may end here: `Err` means that the response is cut off.
    pub fn eof(&self) -> Result<(), BadResponse> {
        match &self.state {
            State::Idle | State::Tunnel => Ok(()),
            State::Body(body) if body.may_close() => Ok(()),
            State::Body(_) => Err(BadResponse::ClosedInBody),
            State::Head(_) if !self.partial.is_empty() => Err(BadResponse::ClosedInHead),
            State::Head(_) => Err(BadResponse::ClosedBeforeHead),
            State::Failed(why) => Err(*why),
        }
    }

    /// Whether every request was answered in full, so that the connection may serve another.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), BadResponse> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Idle => return Err(BadResponse::UnsolicitedBytes),
                State::Failed(why) => return Err(*why),
                State::Tunnel => return Ok(()),
                State::Body(body) => {
                    let taken = body.feed(bytes).map_err(BadResponse::Body)?;
                    if body.done() {
                        self.state = State::Idle;
                    }
                    bytes = &bytes[taken..];
                }
                State::Head(reader) => {
                    let before = self.partial.len();
                    let head = if before == 0 {
                        reader.read(bytes)?
                    } else {
                        self.partial.extend_from_slice(bytes);
                        reader.read(&self.partial)?
                    };
                    let Some(head) = head else {
                        if before == 0 {
                            self.partial.extend_from_slice(bytes);
                        }
                        return Ok(());
                    };
                    self.partial.clear();
                    bytes = &bytes[head.end - before..];
                    self.state = self.after(&head)?;
                }
            }
        }
        Ok(())
    }

    /// What follows this head (RFC 9112 6.3).
    fn after(&mut self, head: &ResponseHead) -> Result<State, BadResponse> {
        let has_framing = head.framing != Framing::None;
        match head.status {
            100..=199 if !head.http11 => Err(BadResponse::InterimInHttp10),
            100..=199 if has_framing => Err(BadResponse::FramingForbidden),
            101 if !self.asked.upgrade => Err(BadResponse::UnsolicitedUpgrade),
            101 => Ok(State::Tunnel),
            100..=199 => {
                self.interim += 1;
                if self.interim > self.limits.interim {
                    return Err(BadResponse::TooManyInterim);
                }
                Ok(State::Head(HeadReader::new(&self.limits)))
            }
            // `Content-Length: 0` on a 204 is forbidden (RFC 9110 8.6), common, and harmless: all
            // agree where such a response ends.
            204 if !matches!(head.framing, Framing::None | Framing::Length(0)) => {
                Err(BadResponse::FramingForbidden)
            }
            204 | 304 => Ok(State::Idle),
            _ if self.asked.head => Ok(State::Idle),
            _ => Ok(match head.framing {
                Framing::None => State::Body(BodyScanner::until_close()),
                Framing::Length(0) => State::Idle,
                framing => State::Body(BodyScanner::new(framing)),
            }),
        }
    }
}

impl Asked {
    fn read(head: &[u8]) -> Self {
        let mut asked = Asked {
            head: head.starts_with(b"HEAD "),
            upgrade: false,
        };
        for line in head.split(|&byte| byte == b'\n').skip(1) {
            match line.split(|&byte| byte == b':').next() {
                Some(b"\r" | b"") | None => break,
                Some(name) => asked.upgrade |= name.eq_ignore_ascii_case(b"upgrade"),
            }
        }
        asked
    }
}

/// Reads one response head from a growing buffer, each byte once.
#[derive(Clone, Debug)]
struct HeadReader {
    lines: Lines,
    status: u16,
    http11: bool,
    framing: FramingFields,
}

/// A response head that may be believed.
struct ResponseHead {
    status: u16,
    http11: bool,
    framing: Framing,
    /// Where the head ends in the buffer.
    end: usize,
}

impl HeadReader {
    fn new(limits: &ResponseLimits) -> Self {
        HeadReader {
            lines: Lines::new(
                FirstLine::Text,
                Bounds {
                    first_line: limits.head_bytes,
                    head: limits.head_bytes,
                    fields: limits.fields,
                },
            ),
            status: 0,
            http11: false,
            framing: FramingFields::default(),
        }
    }

    fn read(&mut self, buf: &[u8]) -> Result<Option<ResponseHead>, BadResponse> {
        // At the first wrong byte: what is not HTTP may never send a line end.
        const START: &[u8] = b"HTTP/1.";
        if buf.iter().zip(START).any(|(found, wanted)| found != wanted) {
            return Err(BadResponse::StatusLine);
        }
        loop {
            match self.lines.next(buf)? {
                Line::Partial => return Ok(None),
                Line::First(line) => {
                    (self.http11, self.status) = status_line(&buf[line])?;
                }
                Line::Field(line) => {
                    let (name, value) = grammar::field(&buf[line])?;
                    match name.len() {
                        14 if name.eq_ignore_ascii_case(b"content-length") => {
                            self.framing.length(value)?;
                        }
                        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                            self.framing.coding(value)?;
                        }
                        _ => {}
                    }
                }
                Line::End(end) => {
                    return Ok(Some(ResponseHead {
                        status: self.status,
                        http11: self.http11,
                        framing: self.framing.framing(self.http11)?,
                        end,
                    }));
                }
            }
        }
    }
}

/// `HTTP/1.x SP 3DIGIT [ SP reason ]`. The space before an absent reason may be missing, as in many
/// servers.
fn status_line(line: &[u8]) -> Result<(bool, u16), BadResponse> {
    let [
        b'H',
        b'T',
        b'T',
        b'P',
        b'/',
        b'1',
        b'.',
        minor @ (b'0' | b'1'),
        b' ',
        rest @ ..,
    ] = line
    else {
        return Err(BadResponse::StatusLine);
    };
    let digits = match rest {
        [_, _, _] | [_, _, _, b' ', ..] => &rest[..3],
        _ => return Err(BadResponse::StatusLine),
    };
    let status = grammar::decimal(digits).ok_or(BadResponse::StatusLine)?;
    let status = u16::try_from(status).expect("three digits");
    if !(100..=599).contains(&status) {
        return Err(BadResponse::StatusOutOfRange);
    }
    Ok((*minor == b'1', status))
}

impl From<BadLine> for BadResponse {
    fn from(bad: BadLine) -> Self {
        match bad {
            BadLine::LineFeed => BadResponse::BareLineFeed,
            BadLine::CarriageReturn => BadResponse::BareCarriageReturn,
            BadLine::Control | BadLine::NotAscii => BadResponse::ControlCharacter,
            BadLine::FirstLineTooLong | BadLine::HeadTooLarge => BadResponse::HeadTooLarge,
            BadLine::TooManyFields => BadResponse::TooManyFields,
        }
    }
}

impl From<BadField> for BadResponse {
    fn from(bad: BadField) -> Self {
        match bad {
            BadField::Folded => BadResponse::FieldFolded,
            BadField::NameEmpty
            | BadField::NameInvalid
            | BadField::NameSpace
            | BadField::ColonMissing => BadResponse::FieldInvalid,
        }
    }
}

impl From<BadFraming> for BadResponse {
    fn from(bad: BadFraming) -> Self {
        match bad {
            BadFraming::LengthInvalid => BadResponse::ContentLengthInvalid,
            BadFraming::LengthRepeated => BadResponse::ContentLengthRepeated,
            BadFraming::CodingUnsupported => BadResponse::TransferEncodingUnsupported,
            BadFraming::CodingRepeated => BadResponse::TransferEncodingRepeated,
            BadFraming::CodingInHttp10 => BadResponse::TransferEncodingInHttp10,
            BadFraming::Conflict => BadResponse::FramingConflict,
        }
    }
}
