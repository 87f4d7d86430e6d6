//! Where a body ends, from its head: one `Content-Length` of plain digits, or `chunked` alone
//! (RFC 9112 6.3, without its leniencies).

use super::grammar;

/// How the end of a request's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// Exactly this many bytes, at most 2^63-1; may be zero.
    Length(u64),
    Chunked,
}

/// What is wrong with the two framing fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFraming {
    LengthInvalid,
    /// Also when the values are equal: two fields are one too many for somebody.
    LengthRepeated,
    CodingUnsupported,
    CodingRepeated,
    CodingInHttp10,
    /// Both fields.
    Conflict,
}

/// Collects the framing fields of one head.
#[derive(Clone, Copy, Debug, Default)]
pub struct FramingFields {
    length: Option<u64>,
    chunked: bool,
}

impl FramingFields {
    /// Takes a `Content-Length` value.
    pub fn length(&mut self, value: &[u8]) -> Result<(), BadFraming> {
        if self.length.is_some() {
            return Err(BadFraming::LengthRepeated);
        }
        self.length = Some(grammar::decimal(value).ok_or(BadFraming::LengthInvalid)?);
        Ok(())
    }

    /// Takes a `Transfer-Encoding` value.
    pub fn coding(&mut self, value: &[u8]) -> Result<(), BadFraming> {
        if self.chunked {
            return Err(BadFraming::CodingRepeated);
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(BadFraming::CodingUnsupported);
        }
        self.chunked = true;
        Ok(())
    }

    /// What the fields of a whole head say. `http11` is false for HTTP/1.0.
    pub fn framing(&self, http11: bool) -> Result<Framing, BadFraming> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(BadFraming::Conflict),
            (true, None) if !http11 => Err(BadFraming::CodingInHttp10),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::None),
        }
    }
}
