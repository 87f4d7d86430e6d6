//! The parameters of a query, as applications read them.

use std::borrow::Cow;

/// A name or value as the application will read it: `%61` is `a` and `+` a space, however it was sent. What is no
/// encoding stays as it is.
pub fn decoded(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(bytes);
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| byte == b'%');
        let hex = digits.and_then(|digits| {
            let high = char::from(digits[0]).to_digit(16)?;
            let low = char::from(digits[1]).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()
        });
        match hex {
            Some(hex) => {
                decoded.push(hex);
                at += 3;
            }
            None => {
                decoded.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_read_and_what_was_not_stays() {
        for (text, read) in [
            ("key", "key"),
            ("k%65y", "key"),
            ("%6B%65%79", "key"),
            ("a+b", "a b"),
            ("a%2Bb", "a+b"),
            ("100%", "100%"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%2541", "%41"),
        ] {
            assert_eq!(&*decoded(text), read.as_bytes(), "{text}");
        }
    }
}
