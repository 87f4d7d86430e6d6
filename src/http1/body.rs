//! Finds the end of one message's body, byte-exactly, as the bytes pass (RFC 9112 6 and 7).
//!
//! Decides which bytes belong to this message and refuses chunked framing that two programs could
//! read differently. Keeps none of the body.

use std::ops::Range;

use super::framing::Framing;
use super::grammar::{self, is_field_byte, is_tchar};
use super::malformed::Malformed;

/// Hexadecimal digits of a chunk size; more are refused even if they are zeros.
const CHUNK_SIZE_DIGITS: u8 = 16;
/// Bytes of all the chunk extensions of one body (RFC 9112 7.1.1 asks for a limit).
const EXTENSION_BYTES: usize = 4 << 10;
/// Bytes of all the trailer lines of one body.
const TRAILER_BYTES: usize = 16 << 10;
/// Trailer lines of one body.
const TRAILER_FIELDS: usize = 64;

/// Follows one body through any number of reads.
///
/// The outcome does not depend on how the bytes are cut. After an error the scanner is spent and
/// repeats it.
#[derive(Clone, Debug)]
pub struct BodyScanner {
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Done,
    Length(u64),
    UntilClose,
    Chunked(Box<Chunks>),
    Failed(Malformed),
}

impl BodyScanner {
    pub fn new(framing: Framing) -> Self {
        BodyScanner {
            state: match framing {
                Framing::None | Framing::Length(0) => State::Done,
                Framing::Length(length) => State::Length(length),
                Framing::Chunked => State::Chunked(Box::default()),
            },
        }
    }

    /// A response body that ends with its connection.
    pub fn until_close() -> Self {
        BodyScanner {
            state: State::UntilClose,
        }
    }

    /// How many of these bytes, from the first, belong to this message.
    ///
    /// Fewer than given means that the body is [`done`](Self::done) and the rest is another message.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match &mut self.state {
            State::Done => Ok(0),
            State::UntilClose => Ok(bytes.len()),
            State::Failed(why) => Err(*why),
            State::Length(left) => {
                let taken =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                if *left == 0 {
                    self.state = State::Done;
                }
                Ok(taken)
            }
            State::Chunked(chunks) => match chunks.feed(bytes) {
                Ok(taken) => {
                    if chunks.at == At::Done {
                        self.state = State::Done;
                    }
                    Ok(taken)
                }
                Err(why) => {
                    self.state = State::Failed(why);
                    Err(why)
                }
            },
        }
    }

    /// Passes over framing up to the next data of the body: how many bytes went by, and where among them the data lies.
    ///
    /// An empty range where there is none yet. Fewer bytes than given are no end: what is left is to be asked for again
    /// unless the body is [`done`](Self::done).
    pub fn data(&mut self, bytes: &[u8]) -> Result<(usize, Range<usize>), Malformed> {
        let State::Chunked(chunks) = &mut self.state else {
            let taken = self.feed(bytes)?;
            return Ok((taken, 0..taken));
        };
        let mut framing = 0;
        while framing < bytes.len() && !matches!(chunks.at, At::Data | At::Done) {
            chunks.at = match chunks.step(bytes[framing]) {
                Ok(at) => at,
                Err(why) => {
                    self.state = State::Failed(why);
                    return Err(why);
                }
            };
            framing += 1;
        }
        let left = bytes.len() - framing;
        let data = usize::try_from(chunks.size).map_or(left, |size| size.min(left));
        let data = if chunks.at == At::Data { data } else { 0 };
        let taken = framing + data;
        self.feed(&bytes[framing..taken])?;
        if matches!(&self.state, State::Chunked(chunks) if chunks.at == At::Done) {
            self.state = State::Done;
        }
        Ok((taken, framing..taken))
    }

    /// Whether the whole body has passed. Never so for one that ends with its connection.
    pub fn done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// How many bytes are still to come, where the head said.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Whether the body may end here if the connection does.
    pub fn may_close(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }
}

/// The chunked coding (RFC 9112 7.1), without the "bad white space" that it tolerates.
#[derive(Clone, Debug, Default)]
struct Chunks {
    at: At,
    /// Of the chunk in hand: its size while the digits pass, then what is left of its data.
    size: u64,
    digits: u8,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailer_fields: usize,
    /// The trailer line in hand.
    trailer: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    ExtensionName {
        empty: bool,
    },
    ExtensionValue {
        empty: bool,
    },
    Quoted,
    QuotedPair,
    AfterQuoted,
    SizeLineFeed,
    Data,
    DataCarriageReturn,
    DataLineFeed,
    Trailer,
    TrailerLineFeed,
    Done,
}

impl Chunks {
    fn feed(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.at {
                At::Done => break,
                At::Data => {
                    let left = bytes.len() - taken;
                    let data = usize::try_from(self.size).map_or(left, |size| size.min(left));
                    taken += data;
                    self.size -= data as u64;
                    if self.size == 0 {
                        self.at = At::DataCarriageReturn;
                    }
                }
                _ => {
                    self.at = self.step(bytes[taken])?;
                    taken += 1;
                }
            }
        }
        Ok(taken)
    }

    fn step(&mut self, byte: u8) -> Result<At, Malformed> {
        match self.at {
            At::Size => self.size(byte),
            At::ExtensionName { .. }
            | At::ExtensionValue { .. }
            | At::Quoted
            | At::QuotedPair
            | At::AfterQuoted => self.extension(byte),
            At::SizeLineFeed if byte != b'\n' => Err(Malformed::ChunkLineEnd),
            At::SizeLineFeed => {
                self.digits = 0;
                Ok(if self.size == 0 {
                    At::Trailer
                } else {
                    At::Data
                })
            }
            At::DataCarriageReturn if byte == b'\r' => Ok(At::DataLineFeed),
            At::DataLineFeed if byte == b'\n' => Ok(At::Size),
            At::DataCarriageReturn | At::DataLineFeed => Err(Malformed::ChunkDataEnd),
            At::Trailer => self.trailer(byte),
            At::TrailerLineFeed => self.trailer_end(byte),
            At::Data | At::Done => unreachable!("data is taken whole, and nothing follows the end"),
        }
    }

    fn size(&mut self, byte: u8) -> Result<At, Malformed> {
        let Some(digit) = char::from(byte).to_digit(16) else {
            return match byte {
                _ if self.digits == 0 => Err(Malformed::ChunkSizeInvalid),
                b'\r' => Ok(At::SizeLineFeed),
                b'\n' => Err(Malformed::ChunkLineEnd),
                b';' => self
                    .count_extension()
                    .map(|()| At::ExtensionName { empty: true }),
                _ => Err(Malformed::ChunkSizeInvalid),
            };
        };
        if self.digits == 0 {
            self.size = 0;
        }
        if self.digits == CHUNK_SIZE_DIGITS {
            return Err(Malformed::ChunkSizeTooLarge);
        }
        self.digits += 1;
        self.size = self.size << 4 | u64::from(digit);
        if self.size > i64::MAX as u64 {
            return Err(Malformed::ChunkSizeTooLarge);
        }
        Ok(At::Size)
    }

    /// `*( ";" token [ "=" ( token / quoted-string ) ] )`
    fn extension(&mut self, byte: u8) -> Result<At, Malformed> {
        const INVALID: Malformed = Malformed::ChunkExtensionInvalid;
        let next = match self.at {
            At::ExtensionName { .. } if is_tchar(byte) => At::ExtensionName { empty: false },
            At::ExtensionName { empty: false } if byte == b'=' => {
                At::ExtensionValue { empty: true }
            }
            At::ExtensionValue { .. } if is_tchar(byte) => At::ExtensionValue { empty: false },
            At::ExtensionValue { empty: true } if byte == b'"' => At::Quoted,
            At::Quoted if byte == b'"' => At::AfterQuoted,
            At::Quoted if byte == b'\\' => At::QuotedPair,
            At::Quoted | At::QuotedPair if is_field_byte(byte) => At::Quoted,
            At::ExtensionName { empty: false }
            | At::ExtensionValue { empty: false }
            | At::AfterQuoted => match byte {
                b';' => At::ExtensionName { empty: true },
                b'\r' => return Ok(At::SizeLineFeed),
                b'\n' => return Err(Malformed::ChunkLineEnd),
                _ => return Err(INVALID),
            },
            _ => return Err(INVALID),
        };
        self.count_extension().map(|()| next)
    }

    fn count_extension(&mut self) -> Result<(), Malformed> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES {
            return Err(Malformed::ChunkExtensionsTooLong);
        }
        Ok(())
    }

    fn trailer(&mut self, byte: u8) -> Result<At, Malformed> {
        if byte == b'\r' {
            return Ok(At::TrailerLineFeed);
        }
        if !is_field_byte(byte) {
            return Err(Malformed::TrailerInvalid);
        }
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES {
            return Err(Malformed::TrailersTooLarge);
        }
        self.trailer.push(byte);
        Ok(At::Trailer)
    }

    fn trailer_end(&mut self, byte: u8) -> Result<At, Malformed> {
        if byte != b'\n' {
            return Err(Malformed::TrailerInvalid);
        }
        if self.trailer.is_empty() {
            return Ok(At::Done);
        }
        self.trailer_fields += 1;
        if self.trailer_fields > TRAILER_FIELDS {
            return Err(Malformed::TrailersTooLarge);
        }
        let (name, _) = grammar::field(&self.trailer).map_err(|_| Malformed::TrailerInvalid)?;
        if is_forbidden_trailer(name) {
            return Err(Malformed::TrailerForbidden);
        }
        self.trailer.clear();
        Ok(At::Trailer)
    }
}

/// Fields that frame, route, authenticate or control a message, and would come too late to do so
/// in a trailer (RFC 9110 6.5.1).
fn is_forbidden_trailer(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 24] = [
        b"transfer-encoding",
        b"content-length",
        b"host",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"upgrade",
        b"te",
        b"trailer",
        b"expect",
        b"max-forwards",
        b"cache-control",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"range",
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"set-cookie",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
    ];
    NAMES
        .iter()
        .any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}
