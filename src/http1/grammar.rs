//! Tokens, field lines, numbers and lists, byte by byte (RFC 9110 5.6, RFC 9112 5).

/// RFC 9110 5.6.2.
pub const fn is_tchar(byte: u8) -> bool {
    TCHAR[byte as usize]
}

static TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric()
            || matches!(
                byte as u8,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

/// One or more token characters.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_tchar(byte))
}

/// A byte that a field value may hold: HTAB, space, visible ASCII or obs-text (RFC 9110 5.5).
pub const fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

/// Whether it holds for every byte. Without early exit and in bytes, so that it compiles to vector instructions.
pub fn all(text: &[u8], holds: impl Fn(u8) -> bool) -> bool {
    text.iter()
        .fold(0, |bad, &byte| bad | u8::from(!holds(byte)))
        == 0
}

/// Optional white space removed from both ends: spaces and tabs, nothing else.
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// `1*DIGIT` up to 2^63-1; `None` for anything else: a sign, a list, white space, an overflow.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let mut number = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
    }
    (number <= i64::MAX as u64).then_some(number)
}

/// What is wrong with a field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadField {
    /// It begins with white space.
    Folded,
    NameEmpty,
    NameInvalid,
    /// White space before the colon.
    NameSpace,
    ColonMissing,
}

/// Splits `name: value`, the value without its surrounding white space.
///
/// The bytes must already be free of controls: [`super::lines::Lines`] sees to that.
pub fn field(line: &[u8]) -> Result<(&[u8], &[u8]), BadField> {
    let end = line
        .iter()
        .position(|&byte| !is_tchar(byte))
        .ok_or(BadField::ColonMissing)?;
    if line[end] == b':' {
        if end == 0 {
            return Err(BadField::NameEmpty);
        }
        return Ok((&line[..end], trim(&line[end + 1..])));
    }
    if matches!(line[0], b' ' | b'\t') {
        return Err(BadField::Folded);
    }
    let Some(colon) = memchr::memchr(b':', line) else {
        return Err(BadField::ColonMissing);
    };
    match trim(&line[end..colon]) {
        [] => Err(BadField::NameSpace),
        _ => Err(BadField::NameInvalid),
    }
}

/// The members of a comma-separated list, trimmed, empty ones left out (RFC 9110 5.6.1.2).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(trim)
        .filter(|member| !member.is_empty())
}
