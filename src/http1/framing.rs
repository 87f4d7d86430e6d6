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
    /// Codings that a server may know, and this one does not.
    CodingUnsupported,
    /// No list of codings, or one in which `chunked` is not once, last and bare (RFC 9112 6.3): nobody could say where
    /// the body ends.
    CodingInvalid,
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

    /// Takes the `Content-Length` of a request, which may end at another application's parser: one that begins with a
    /// zero, and is more than it, is an octal number to some.
    pub fn request_length(&mut self, value: &[u8]) -> Result<(), BadFraming> {
        match value {
            [b'0', _, ..] => Err(BadFraming::LengthInvalid),
            _ => self.length(value),
        }
    }

    /// Takes a `Transfer-Encoding` value.
    pub fn coding(&mut self, value: &[u8]) -> Result<(), BadFraming> {
        if self.chunked {
            return Err(BadFraming::CodingRepeated);
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(if is_unknown(value) {
                BadFraming::CodingUnsupported
            } else {
                BadFraming::CodingInvalid
            });
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

/// Whether a `Transfer-Encoding` that is not `chunked` alone is a well-formed list of codings, with `chunked` at its end
/// or not at all.
fn is_unknown(value: &[u8]) -> bool {
    let mut members = value.split(|&byte| byte == b',').map(grammar::trim);
    let last = members.next_back().unwrap_or_default();
    let is_last_possible = grammar::is_token(last) || is_other(last);
    is_last_possible && members.all(is_other)
}

/// A coding other than `chunked`, perhaps with parameters.
fn is_other(coding: &[u8]) -> bool {
    let name = coding.split(|&byte| byte == b';').next();
    let name = grammar::trim(name.unwrap_or_default());
    grammar::is_token(name) && !name.eq_ignore_ascii_case(b"chunked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_is_unknown_only_where_the_list_is_one() {
        let coding = |value: &str| FramingFields::default().coding(value.as_bytes());
        assert_eq!(coding("Chunked"), Ok(()));
        for unknown in [
            "gzip",
            "identity",
            "xchunked",
            "gzip, chunked",
            "gzip;q=1 ,\tdeflate,CHUNKED",
        ] {
            let expected = Err(BadFraming::CodingUnsupported);
            assert_eq!(coding(unknown), expected, "{unknown}");
        }
        for invalid in [
            "",
            ",chunked",
            "chunked,",
            "chunked, chunked",
            "chunked, gzip",
            "chunked;q=1",
            "chunked ;q=1, gzip",
            "gzip,,chunked",
            "\"chunked\"",
            "chunked gzip",
            "chun\u{212a}ed",
        ] {
            let expected = Err(BadFraming::CodingInvalid);
            assert_eq!(coding(invalid), expected, "{invalid}");
        }
    }
}
