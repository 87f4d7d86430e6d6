//! Parts written one behind the other so that no two sequences of parts give the same bytes, and a
//! digest of them. Knows nothing of what the parts are.

use std::fmt;
use std::str::FromStr;

use smallvec::SmallVec;
use thiserror::Error;

/// 128 bits that stand for framed bytes: BLAKE3, cut.
///
/// What is hashed is chosen by clients, gateways share digests through Redis, and a collision would
/// show one page in place of another. So neither a fast hash will do, whose collisions can be
/// computed, nor a keyed one, whose key would have to be shared and kept. Finding two inputs with one
/// digest takes 2^64 hashes, finding one for a given page 2^128; and [`Framed`] keeps the bytes, so
/// that an entry found by digest can be held to them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 16]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        let hash = blake3::hash(bytes);
        Self(hash.as_bytes()[..16].try_into().expect("16 of 32 bytes"))
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = NoDigest;

    /// 32 hexadecimal digits, as it is displayed.
    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let digits = text.as_bytes();
        let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or(NoDigest);
        if digits.len() != 32 {
            return Err(NoDigest);
        }
        let mut bytes = [0; 16];
        for (byte, digits) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let value = nibble(digits[0])? * 16 + nibble(digits[1])?;
            *byte = u8::try_from(value).expect("two digits are a byte");
        }
        Ok(Self(bytes))
    }
}

/// A text is no [`Digest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected 32 hexadecimal digits")]
pub struct NoDigest;

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes on the stack as long as a usual key fits.
type Bytes = SmallVec<[u8; 256]>;

/// Framed parts and their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed {
    bytes: Bytes,
    digest: Digest,
}

impl Framed {
    /// The parts whose [`bytes`](Self::bytes) these are.
    pub(super) fn read(bytes: &[u8]) -> Self {
        Self {
            digest: Digest::of(bytes),
            bytes: bytes.into(),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Tag and content of each part, in order.
    pub fn parts(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (header, content) = rest.split_at_checked(HEADER)?;
            let length = u32::from_le_bytes(header[1..].try_into().expect("four bytes"));
            let (content, after) = content.split_at_checked(length as usize)?;
            rest = after;
            Some((header[0], content))
        })
    }
}

/// Writes parts.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    bytes: Bytes,
}

/// A tag and the length of what follows.
const HEADER: usize = 5;

impl Frame {
    pub fn part(&mut self, tag: u8, content: &[u8]) {
        self.bytes.reserve(HEADER + content.len());
        self.header(tag, content.len());
        self.bytes.extend_from_slice(content);
    }

    /// A part that `write` appends.
    pub fn part_of(&mut self, tag: u8, write: impl FnOnce(&mut Bytes)) {
        let start = self.bytes.len() + HEADER;
        self.header(tag, 0);
        write(&mut self.bytes);
        let length = length(self.bytes.len() - start);
        self.bytes[start - 4..start].copy_from_slice(&length);
    }

    fn header(&mut self, tag: u8, bytes: usize) {
        let [a, b, c, d] = length(bytes);
        self.bytes.extend_from_slice(&[tag, a, b, c, d]);
    }

    /// The parts alone, in no more memory than they need.
    pub fn into_bytes(self) -> Box<[u8]> {
        self.bytes.into_boxed_slice()
    }

    pub fn finish(self) -> Framed {
        Framed {
            digest: Digest::of(&self.bytes),
            bytes: self.bytes,
        }
    }
}

fn length(bytes: usize) -> [u8; 4] {
    let bytes = u32::try_from(bytes).expect("a part of one request head");
    bytes.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn framed(parts: &[(u8, Vec<u8>)]) -> Framed {
        let mut frame = Frame::default();
        for (tag, content) in parts {
            frame.part(*tag, content);
        }
        frame.finish()
    }

    fn any_parts() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
        vec((0u8..3, vec(0u8..3, 0..6)), 0..4)
    }

    #[test]
    fn a_digest_prints_as_32_hex_digits() {
        let digest = framed(&[(0, b"a".to_vec())]).digest();
        let text = digest.to_string();
        assert_eq!(text.len(), 32);
        assert_eq!(text.parse(), Ok(digest));
        for wrong in [
            &text[1..],
            &format!("{text}0"),
            &text.replace(&text[..1], "g"),
        ] {
            assert_eq!(wrong.parse::<Digest>(), Err(NoDigest), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn parts_are_read_back(parts in any_parts()) {
            let framed = framed(&parts);
            let found: Vec<_> = framed.parts().map(|(tag, part)| (tag, part.to_vec())).collect();
            prop_assert_eq!(found, parts);
        }

        #[test]
        fn only_the_same_parts_give_the_same_bytes_and_digest(a in any_parts(), b in any_parts()) {
            let (x, y) = (framed(&a), framed(&b));
            prop_assert_eq!(x.bytes() == y.bytes(), a == b);
            prop_assert_eq!(x.digest() == y.digest(), a == b);
        }
    }
}
