//! A secret that whoever administers the gateway must know.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// What a token has at least, in bytes.
pub const SHORTEST: usize = 16;
const LONGEST: usize = 512;

/// Text of visible ASCII characters. Neither printed nor compared but as a whole, in constant time.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: Box<str>,
    hash: blake3::Hash,
}

/// Why a text is no [`Token`]. Does not say the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadToken {
    #[error("the token has {0} bytes; expected {SHORTEST} to {LONGEST}")]
    Length(usize),
    #[error(
        "the token has a space or another character that none has; expected visible ASCII characters"
    )]
    Character,
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        if !(SHORTEST..=LONGEST).contains(&text.len()) {
            return Err(BadToken::Length(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadToken::Character);
        }
        Ok(Self {
            text: text.into(),
            hash: blake3::hash(text.as_bytes()),
        })
    }
}

impl Token {
    /// Whether this is it. How long that takes says nothing of where they differ.
    pub fn is(&self, text: &[u8]) -> bool {
        self.hash == blake3::hash(text)
    }

    /// To be sent, never to be shown.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_equal_to_itself_alone_and_is_not_printed() {
        let text = "0123456789abcdef";
        let token: Token = text.parse().unwrap();
        assert!(token.is(text.as_bytes()));
        for other in ["", "0123456789abcdeF", "0123456789abcdef0"] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
        assert!(!format!("{token:?}").contains(text));
    }

    #[test]
    fn what_is_short_or_could_not_be_sent_is_no_token() {
        for (text, why) in [
            ("", BadToken::Length(0)),
            ("0123456789abcde", BadToken::Length(15)),
            ("0123456789 abcdef", BadToken::Character),
            ("0123456789abcdef\n", BadToken::Character),
            ("0123456789äbcdef", BadToken::Character),
        ] {
            assert_eq!(text.parse::<Token>(), Err(why), "{text:?}");
        }
    }
}
