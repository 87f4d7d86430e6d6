//! A client as an operator writes it: `header:x-api-key=abc`, `client-ip=203.0.113.7 + path=/search`, or what a list
//! has said of it, `#a1b2c3d4e5f60718`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

use super::{
    Asker, BadKey, Combination, Digest, Key, Part, Prefixes, Secret, framed, framed_address,
};

/// A client, by its name or by the digest of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Said(Box<[SaidPart]>),
    Short(Short),
}

/// What one part of a key says. Debugs without its value.
#[derive(Clone, PartialEq, Eq)]
pub struct SaidPart {
    part: Part,
    value: Value,
}

#[derive(Clone, PartialEq, Eq)]
enum Value {
    Address(IpAddr),
    Text(Box<str>),
}

/// The beginning of a digest, as lists have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// The first of its bits; the others are 0.
    bits: u64,
    /// 8 to 16 hexadecimal digits.
    digits: u32,
}

/// Why a text is no [`Name`]. Tells nothing of values.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadName {
    #[error("a client is written {FORM}")]
    Syntax,
    #[error(transparent)]
    Part(#[from] BadKey),
    #[error("client-ip is an address, such as client-ip=203.0.113.7")]
    Address,
    #[error("a digest is \"#\" and 8 to 16 hexadecimal digits, such as \"#a1b2c3d4e5f60718\"")]
    Digest,
}

/// What a name looks like.
const FORM: &str = r##""client-ip=203.0.113.7", "header:x-api-key=abc", several parts joined by " + ", or "#a1b2c3d4e5f60718" as a list tells it"##;

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        if let Some(digits) = text.strip_prefix('#') {
            return digits.parse().map(Self::Short);
        }
        let parts = text.split(" + ").map(|part| {
            let (part, value) = part.split_once('=').ok_or(BadName::Syntax)?;
            let part: Part = part.trim().parse()?;
            let value = match part {
                Part::ClientIp => Value::Address(value.parse().map_err(|_| BadName::Address)?),
                _ if value.is_empty() => return Err(BadName::Syntax),
                _ => Value::Text(value.into()),
            };
            Ok(SaidPart { part, value })
        });
        parts.collect::<Result<_, _>>().map(Self::Said)
    }
}

impl FromStr for Short {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let text = text.strip_suffix('…').unwrap_or(text);
        let is_one =
            (8..=16).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let bits = u64::from_str_radix(text, 16).ok().filter(|_| is_one);
        let bits = bits.ok_or(BadName::Digest)?;
        let digits = text.len() as u32;
        Ok(Self {
            bits: bits << (64 - 4 * digits),
            digits,
        })
    }
}

impl Short {
    pub fn of(digest: &Digest) -> Self {
        Self {
            bits: digest.0[0],
            digits: 16,
        }
    }

    /// Whether it is the beginning of this digest.
    pub fn is(&self, digest: &Digest) -> bool {
        (digest.0[0] ^ self.bits) >> (64 - 4 * self.digits) == 0
    }
}

impl fmt::Display for Short {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bits, digits) = (self.bits >> (64 - 4 * self.digits), self.digits as usize);
        write!(out, "#{bits:0digits$x}")
    }
}

impl fmt::Debug for SaidPart {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.part)
    }
}

impl Name {
    /// Of a client that is told by its address alone.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Said(parts) => match &**parts {
                [
                    SaidPart {
                        value: Value::Address(address),
                        ..
                    },
                ] => Some(*address),
                _ => None,
            },
            Self::Short(_) => None,
        }
    }
}

impl Key {
    /// What a name says of the first part of the key.
    pub fn first_said<'n>(&self, said: &'n [SaidPart]) -> Option<&'n [u8]> {
        let said = said.iter().find(|said| said.part == *self.first_part())?;
        match &said.value {
            Value::Text(text) => Some(text.as_bytes()),
            Value::Address(_) => None,
        }
    }

    /// The client whose parts say that, if one alternative has just these parts.
    pub fn named(&self, said: &[SaidPart], prefixes: Prefixes, secret: &Secret) -> Option<Digest> {
        let alternatives = self.0.iter().enumerate();
        let mut fitting = alternatives.filter(|(_, one)| one.0.len() == said.len());
        fitting.find_map(|(place, combination)| {
            let mut hasher = combination.hasher(place, secret);
            for part in &combination.0 {
                let part = part.unvouched();
                let said = said.iter().find(|said| said.part == *part)?;
                match &said.value {
                    Value::Address(address) => framed_address(*address, prefixes, &mut hasher),
                    Value::Text(text) => framed(text.as_bytes(), &mut hasher),
                }
            }
            Some(Digest::of(&hasher))
        })
    }

    /// The alternative that a request is counted by; `None` if it has none.
    pub fn alternative(&self, asker: &Asker<'_>) -> Option<&Combination> {
        let (prefixes, secret) = (Prefixes::default(), Secret::new([0; 16]));
        let is_there = |part: &Part| part.hash(asker, prefixes, &mut secret.hasher());
        let mut all = self.0.iter();
        all.find(|combination| combination.0.iter().all(is_there))
    }
}

impl Combination {
    /// Whether the address of the client counts.
    pub fn has_address(&self) -> bool {
        self.0.contains(&Part::ClientIp)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::limit::jwt::Claims;

    const SECRET: Secret = Secret::new([7; 16]);

    fn named(key: &str, name: &str) -> Option<Digest> {
        let key: Key = key.parse().unwrap();
        let Name::Said(said) = name.parse().unwrap() else {
            panic!("{name} is no list of parts");
        };
        key.named(&said, Prefixes::default(), &SECRET)
    }

    #[test]
    fn a_name_finds_who_is_counted_for_a_request_that_says_it() {
        let mut fields = HeaderMap::new();
        fields.insert("x-api-key", HeaderValue::from_static("k=1"));
        let claims = Claims::default();
        let asker = Asker {
            claims: &claims,
            certificate: Some("CN=ada,O=Example"),
            client: "203.0.113.7".parse().unwrap(),
            fields: &fields,
            host: "shop.example",
            path: "/search",
            query: Some("user=me"),
            route: "api",
        };
        for (key, name) in [
            ("client-ip", "client-ip=203.0.113.7"),
            ("client-ip", "client-ip=::ffff:203.0.113.7"),
            ("header:x-api-key | client-ip", "header:X-Api-Key=k=1"),
            ("cookie:id | client-ip", "client-ip=203.0.113.7"),
            ("client-ip + path", "path=/search + client-ip=203.0.113.7"),
            (
                "client-certificate | client-ip",
                "client-certificate=CN=ada,O=Example",
            ),
            (
                "host + query:user + route",
                "host=shop.example + query:user=me + route=api",
            ),
        ] {
            let counted = key.parse::<Key>().unwrap();
            let counted = counted.of(&asker, Prefixes::default(), &SECRET);
            assert_eq!(named(key, name), Some(counted.digest), "{key}: {name}");
        }
        assert_eq!(named("client-ip + path", "client-ip=203.0.113.7"), None);
        assert_eq!(named("route", "path=/search"), None);
    }

    #[test]
    fn what_is_no_name_is_told_what_one_is_without_its_value() {
        for (text, why) in [
            ("", BadName::Syntax),
            ("client-ip", BadName::Syntax),
            ("header:x-api-key=", BadName::Syntax),
            ("client-ip=secret", BadName::Address),
            ("#a1b2", BadName::Digest),
            ("#a1b2c3d4e5f607189", BadName::Digest),
            ("#a1b2c3dz", BadName::Digest),
        ] {
            assert_eq!(text.parse::<Name>(), Err(why), "{text}");
        }
        let wrong = "ip=secret".parse::<Name>().unwrap_err().to_string();
        assert!(
            wrong.contains("\"ip\"") && !wrong.contains("secret"),
            "{wrong}"
        );
    }

    #[test]
    fn a_digest_is_found_by_its_beginning() {
        let digest = Digest([0x0012_3456_789a_bcde, 5]);
        assert_eq!(Short::of(&digest).to_string(), "#00123456789abcde");
        for text in ["00123456789abcde", "00123456", "0012345678…"] {
            assert!(text.parse::<Short>().unwrap().is(&digest), "{text}");
        }
        assert!(!"00123457".parse::<Short>().unwrap().is(&digest));
    }
}
