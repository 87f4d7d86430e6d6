//! Decides whether what an upstream sends back may be believed (RFC 9112 4, 6).
//!
//! One gate watches one upstream connection: every response head and the framing of every body.
//! Knows nothing of status policy, retries or how a 502 is written.

pub use super::bad_response::BadResponse;
use super::body::BodyScanner;
use super::framing::{Framing, FramingFields};
use super::grammar;
use super::lines::{Bounds, FirstLine, Line, Lines};

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
    /// See [`ResponseGate::whole_before`].
    whole_before: Option<usize>,
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
            whole_before: None,
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

    /// How many of the bytes that were refused last ended a whole response: only what came behind them was wrong.
    ///
    /// The response may be believed, as if the rest had come a moment later; the connection may not.
    pub fn whole_before(&self) -> Option<usize> {
        self.whole_before
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

    /// Whether a fault was found, so that the connection is of no further use.
    pub fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed(_))
    }

    /// Whether a final response head is still awaited.
    pub fn in_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// Whether the outstanding request asks to leave HTTP.
    pub fn asks_to_upgrade(&self) -> bool {
        self.in_head() && self.asked.upgrade
    }

    /// Whether a 101 has ended HTTP on this connection.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.state, State::Tunnel)
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), BadResponse> {
        let given = bytes.len();
        self.whole_before = None;
        while !bytes.is_empty() {
            match &mut self.state {
                State::Idle => {
                    let whole = given - bytes.len();
                    self.whole_before = Some(whole).filter(|whole| *whole > 0);
                    return Err(BadResponse::UnsolicitedBytes);
                }
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
                    // Given back, not kept: the connection may idle in a pool for long.
                    self.partial = Vec::new();
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
            101 if !head.upgrade => Err(BadResponse::UpgradeUnnamed),
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
        const UPGRADE: &[u8] = b"upgrade:";
        let mut asked = Asked {
            head: head.starts_with(b"HEAD "),
            upgrade: false,
        };
        for feed in memchr::memchr_iter(b'\n', head) {
            let line = &head[feed + 1..];
            if line.starts_with(b"\r\n") {
                break;
            }
            asked.upgrade |= line
                .get(..UPGRADE.len())
                .is_some_and(|name| name.eq_ignore_ascii_case(UPGRADE));
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
    upgrade: bool,
}

/// A response head that may be believed.
struct ResponseHead {
    status: u16,
    http11: bool,
    framing: Framing,
    /// There is an `Upgrade` field.
    upgrade: bool,
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
            upgrade: false,
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
                        7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
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
                        upgrade: self.upgrade,
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

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    fn gate() -> ResponseGate {
        ResponseGate::new(ResponseLimits::default())
    }

    #[test]
    fn one_connection_serves_many_requests() {
        let mut gate = gate();
        for _ in 0..3 {
            gate.request_started(GET);
            assert!(!gate.is_idle());
            gate.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .unwrap();
            assert!(gate.is_idle());
            gate.request_started(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
            gate.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
                .unwrap();
            assert!(gate.is_idle());
        }
        assert_eq!(gate.feed(b"H"), Err(BadResponse::UnsolicitedBytes));
    }

    #[test]
    fn a_head_that_comes_whole_is_not_copied() {
        let mut gate = gate();
        gate.request_started(GET);
        gate.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
            .unwrap();
        assert_eq!(gate.partial.capacity(), 0);
    }

    #[test]
    fn a_head_that_came_in_pieces_leaves_nothing_behind() {
        let mut gate = gate();
        gate.request_started(GET);
        gate.feed(b"HTTP/1.1 200 OK\r\nX: y").unwrap();
        gate.feed(b"\r\nContent-Length: 1\r\n\r\nx").unwrap();
        assert!(gate.is_idle());
        assert_eq!(gate.partial.capacity(), 0);
    }

    #[test]
    fn interim_responses_are_counted_for_each_request_anew() {
        let mut gate = gate();
        for _ in 0..3 {
            gate.request_started(GET);
            for _ in 0..8 {
                gate.feed(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            }
            gate.feed(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        }
    }

    #[test]
    fn a_request_on_top_of_another_breaks_the_connection() {
        let mut gate = gate();
        gate.request_started(GET);
        gate.request_started(GET);
        let why = BadResponse::OverlappingRequest;
        assert_eq!(gate.feed(b"HTTP/1.1 200 OK\r\n"), Err(why));
    }

    #[test]
    fn a_tunnel_is_not_judged() {
        let mut gate = gate();
        gate.request_started(b"GET /ws HTTP/1.1\r\nHost: a\r\nUPGRADE: websocket\r\n\r\n");
        gate.feed(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x00\xff\n")
            .unwrap();
        gate.feed(b"anything").unwrap();
        assert_eq!(gate.eof(), Ok(()));
        assert!(!gate.is_idle());
    }

    #[test]
    fn only_the_head_of_a_request_says_what_was_asked() {
        for (head, upgrade) in [
            (
                &b"POST / HTTP/1.1\r\nHost: a\r\n\r\nX\nUpgrade: x\r\n"[..],
                false,
            ),
            (b"GET / HTTP/1.1\r\nX-Upgrade: x\r\n\r\n", false),
            (b"GET / HTTP/1.1\r\nX: Upgrade: x\r\n\r\n", false),
            (b"GET / HTTP/1.1\r\nX: y\r\nupgrade: x\r\n\r\n", true),
        ] {
            assert_eq!(Asked::read(head).upgrade, upgrade);
        }
    }
}
