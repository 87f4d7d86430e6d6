//! Short texts without a heap, for what is written once a request. The formatter of the standard
//! library takes ten times as long for a number.

use std::fmt;

/// A text of at most `N` bytes, on the stack. More than that is a mistake of ours and panics.
pub struct Short<const N: usize> {
    text: [u8; N],
    len: usize,
}

impl<const N: usize> Default for Short<N> {
    fn default() -> Self {
        Self {
            text: [0; N],
            len: 0,
        }
    }
}

impl<const N: usize> Short<N> {
    pub fn push(&mut self, part: &[u8]) {
        self.text[self.len..][..part.len()].copy_from_slice(part);
        self.len += part.len();
    }

    /// The number without leading zeros.
    pub fn push_decimal(&mut self, number: impl Into<u64>) {
        let mut left = number.into();
        // The longest u64.
        let mut digits = [0; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        self.push(&digits[start..]);
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }

    /// The text, of which every part was one.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("parts are texts")
    }
}

/// For what is rarely written.
impl<const N: usize> fmt::Write for Short<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_written_as_everywhere(number: u64) {
            let mut short = Short::<20>::default();
            short.push_decimal(number);
            let text = number.to_string();
            prop_assert_eq!(short.as_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn parts_follow_each_other() {
        let mut short = Short::<8>::default();
        short.push(b"a=");
        short.push_decimal(0u8);
        short.push(b"");
        short.push_decimal(65535u16);
        assert_eq!(short.as_bytes(), b"a=065535");
    }
}
