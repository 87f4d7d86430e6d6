//! One path segment: which bytes may stand in it, what they decode to, and whether it is a dot
//! segment to anyone.

use super::path::{BadPath, PathParameters, PathRules};

/// Whether a path is canonical at first sight, as most are: nothing encoded, no parameter, no
/// segment that begins with a dot or is empty.
pub(super) fn is_plain(raw: &[u8]) -> bool {
    let mut before = 0;
    let mut plain = true;
    for &byte in raw {
        plain &= PLAIN[usize::from(byte)];
        plain &= before != b'/' || !matches!(byte, b'.' | b'/');
        before = byte;
    }
    plain
}

/// Whether a segment is `.` or `..`, however encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dots {
    None,
    One,
    Two,
}

/// What one segment turned out to be.
pub(super) struct Segment {
    pub dots: Dots,
    /// Already canonical, byte for byte.
    pub as_sent: bool,
}

impl Segment {
    pub(super) fn read(raw: &[u8], rules: &PathRules) -> Result<Segment, BadPath> {
        let mut as_sent = true;
        // Dots since the last separator, encoded ones included; `None` once something else came.
        let mut dots = Some(0u32);
        let mut has_encoded_separator = false;
        let mut rest = raw;
        while let [byte, tail @ ..] = rest {
            rest = tail;
            let mut decoded = *byte;
            match CLASS[usize::from(*byte)] {
                Class::Plain => {}
                Class::Encode => as_sent = false,
                Class::Refuse(why) => return Err(why),
                Class::Percent => {
                    let [high, low, tail @ ..] = rest else {
                        return Err(BadPath::PercentEncoding);
                    };
                    decoded = hex(*high)
                        .zip(hex(*low))
                        .map(|(high, low)| high << 4 | low)
                        .ok_or(BadPath::PercentEncoding)?;
                    if decoded < 0x20 || decoded == 0x7f {
                        return Err(BadPath::EncodedControl);
                    }
                    if is_overlong(decoded, tail) {
                        return Err(BadPath::Overlong);
                    }
                    as_sent &= !is_unreserved(decoded)
                        && !high.is_ascii_lowercase()
                        && !low.is_ascii_lowercase();
                    if matches!(decoded, b'/' | b'\\') {
                        if matches!(dots, Some(1 | 2)) {
                            return Err(BadPath::HiddenDotSegment);
                        }
                        has_encoded_separator = true;
                        dots = Some(0);
                        rest = tail;
                        continue;
                    }
                    rest = tail;
                }
            }
            match (decoded, dots) {
                (b'.', Some(seen)) => dots = Some(seen + 1),
                (b';', Some(1 | 2)) => return Err(BadPath::HiddenDotSegment),
                _ => dots = None,
            }
            if *byte == b';' && rules.parameters == PathParameters::Refuse {
                return Err(BadPath::Parameter);
            }
        }
        let dots = match dots {
            Some(1 | 2) if has_encoded_separator => return Err(BadPath::HiddenDotSegment),
            Some(1) => Dots::One,
            Some(2) => Dots::Two,
            _ => Dots::None,
        };
        Ok(Segment { dots, as_sent })
    }

    /// Appends a valid segment in canonical form.
    pub(super) fn push_canonical(path: &mut String, raw: &[u8]) {
        let mut rest = raw;
        while let [byte, tail @ ..] = rest {
            rest = tail;
            match (CLASS[usize::from(*byte)], rest) {
                (Class::Percent, [high, low, tail @ ..]) => {
                    rest = tail;
                    let decoded = hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0);
                    if is_unreserved(decoded) {
                        path.push(char::from(decoded));
                    } else {
                        push_encoded(path, decoded);
                    }
                }
                (Class::Encode, _) => push_encoded(path, *byte),
                _ => path.push(char::from(*byte)),
            }
        }
    }
}

fn push_encoded(path: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    path.push('%');
    path.push(char::from(DIGITS[usize::from(byte >> 4)]));
    path.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// Whether the encoded byte `first` and the encoded byte that `rest` begins with spell a character
/// in more bytes than it needs: `%C0%AE` is a dot to a careless decoder.
fn is_overlong(first: u8, rest: &[u8]) -> bool {
    if !matches!(first, 0xc0 | 0xc1 | 0xe0 | 0xf0) {
        return false;
    }
    let [b'%', high, low, ..] = rest else {
        return false;
    };
    let Some(second) = hex(*high).zip(hex(*low)).map(|(h, l)| h << 4 | l) else {
        return false;
    };
    match first {
        0xc0 | 0xc1 => matches!(second, 0x80..=0xbf),
        0xe0 => matches!(second, 0x80..=0x9f),
        _ => matches!(second, 0x80..=0x8f),
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// RFC 3986 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[derive(Clone, Copy)]
enum Class {
    /// Stands for itself.
    Plain,
    Percent,
    /// Legal only percent-encoded, harmless, and sent raw by browsers: encoded for them.
    Encode,
    Refuse(BadPath),
}

/// The bytes that stand for themselves and begin nothing special.
static PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(CLASS[byte], Class::Plain) && byte != b';' as usize;
        byte += 1;
    }
    table
};

/// What a raw byte of a path segment is.
static CLASS: [Class; 256] = {
    let mut table = [Class::Refuse(BadPath::Control); 256];
    let mut byte = 0x21;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'%' => Class::Percent,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':'
            | b'@' | b'/' => Class::Plain,
            b if is_unreserved(b) => Class::Plain,
            b'[' | b']' | b'^' | b'{' | b'|' | b'}' => Class::Encode,
            b'#' => Class::Refuse(BadPath::Fragment),
            b'\\' => Class::Refuse(BadPath::Backslash),
            0x7f => Class::Refuse(BadPath::Control),
            0x80.. => Class::Refuse(BadPath::NotAscii),
            _ => Class::Refuse(BadPath::Character),
        };
        byte += 1;
    }
    table
};
