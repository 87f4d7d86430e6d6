//! What a scope is remembered by, in this gateway and in what gateways tell one another. Where there are too many
//! scopes to remember each, those whose digests begin alike are remembered as one.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::cache::frame::Digest;

/// Scopes of one kind have their own room, so that one kind drives out no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// URLs and paths: any visitor whose change is answered adds one.
    Url,
    /// Tags and groups, as the application and operators name them.
    Tag,
    /// Prefixes, hosts, everything: an operator's.
    Place,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Url, Self::Tag, Self::Place];

    /// Scopes that are remembered one by one. Instead of more, the oldest go into their buckets.
    pub fn room(self) -> usize {
        match self {
            Self::Url => 65_536,
            Self::Tag => 32_768,
            Self::Place => 8_192,
        }
    }

    /// Hexadecimal digits of a digest that say in which bucket it is.
    pub fn bucket_digits(self) -> usize {
        match self {
            Self::Url => 4,
            Self::Tag | Self::Place => 3,
        }
    }

    pub fn letter(self) -> char {
        match self {
            Self::Url => 'u',
            Self::Tag => 't',
            Self::Place => 'p',
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScopeId {
    One(Kind, Digest),
    /// All of the kind whose digests begin with these digits.
    Bucket(Kind, u16),
}

impl ScopeId {
    pub fn kind(&self) -> Kind {
        let (Self::One(kind, _) | Self::Bucket(kind, _)) = self;
        *kind
    }

    /// The bucket that it is in, or is.
    pub fn bucket(&self) -> Self {
        match self {
            Self::One(kind, digest) => {
                let [first, second, ..] = *digest.as_bytes();
                let unused = u16::BITS as usize - 4 * kind.bucket_digits();
                Self::Bucket(*kind, u16::from_be_bytes([first, second]) >> unused)
            }
            Self::Bucket(..) => *self,
        }
    }
}

/// The letter of the kind and the digits: the text of a bucket is what the texts of its scopes begin with.
impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(kind, digest) => write!(f, "{}{digest}", kind.letter()),
            Self::Bucket(kind, number) => {
                let digits = kind.bucket_digits();
                write!(f, "{}{number:0digits$x}", kind.letter())
            }
        }
    }
}

/// A text is no [`ScopeId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected u, t or p, and the digits of a digest or of a bucket")]
pub struct NoScopeId;

impl FromStr for ScopeId {
    type Err = NoScopeId;

    fn from_str(text: &str) -> Result<Self, NoScopeId> {
        let mut letters = text.chars();
        let letter = letters.next().ok_or(NoScopeId)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.letter() == letter);
        let (kind, digits) = (kind.ok_or(NoScopeId)?, letters.as_str());
        if digits.len() != kind.bucket_digits() {
            let digest = digits.parse().map_err(|_| NoScopeId)?;
            return Ok(Self::One(kind, digest));
        }
        let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u16::from_str_radix(digits, 16).ok().filter(|_| is_number);
        number
            .map(|number| Self::Bucket(kind, number))
            .ok_or(NoScopeId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::scope::Scope;

    #[test]
    fn the_text_of_a_bucket_is_the_beginning_of_those_in_it() {
        for scope in [Scope::Tag("a"), Scope::Host("a"), Scope::Everything] {
            let id = scope.id();
            let (text, bucket) = (id.to_string(), id.bucket().to_string());
            assert!(text.starts_with(&bucket), "{text} {bucket}");
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(bucket.parse(), Ok(id.bucket()));
            assert_eq!(id.bucket().bucket(), id.bucket());
        }
        let url = Scope::Path {
            host: "a",
            path: "/",
        };
        assert_eq!(url.id().bucket().to_string().len(), 5);
    }

    #[test]
    fn what_no_gateway_writes_is_no_id() {
        for text in ["", "u", "x000", "u+001", "t00g", "t00", "u000", "\u{e9}000"] {
            assert_eq!(text.parse::<ScopeId>(), Err(NoScopeId), "{text}");
        }
    }
}
