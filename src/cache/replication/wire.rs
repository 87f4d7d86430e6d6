//! What gateways tell one another of purges, as text.

use std::fmt::Write;
use std::str;

use crate::cache::purger::Name;
use crate::cache::scope::ScopeId;
use crate::cache::tombstones::{Purge, Strength};

/// `h` or `s`, and the scope.
pub fn scope_text(strength: Strength, scope: &ScopeId) -> String {
    match strength {
        Strength::Hard => format!("h{scope}"),
        Strength::Soft => format!("s{scope}"),
    }
}

pub fn parse_scope(text: &str) -> Option<(Strength, ScopeId)> {
    let (first, scope) = text.split_at_checked(1)?;
    let strength = match first {
        "h" => Strength::Hard,
        "s" => Strength::Soft,
        _ => return None,
    };
    Some((strength, scope.parse().ok()?))
}

/// The token of what nobody waits for.
pub const NOBODY: u64 = 0;

/// A purge that was given its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    pub number: u64,
    /// The last one before it.
    pub before: u64,
    /// The instance that wants to know who has heard of it, and the token it knows it by; [`NOBODY`] waits for it
    /// otherwise.
    pub purger: u64,
    pub token: u64,
    pub purge: Purge,
}

impl News {
    /// `number before purger token scope …`, as the script writes it. All scopes have one strength.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(payload).ok()?.split(' ');
        let mut number = || words.next()?.parse().ok();
        let (number, before, purger, token) = (number()?, number()?, number()?, number()?);
        let mut scopes = Vec::new();
        let mut strength = Strength::Hard;
        for word in words {
            let (of_scope, scope) = parse_scope(word)?;
            strength = of_scope;
            scopes.push(scope);
        }
        Some(Self {
            number,
            before,
            purger,
            token,
            purge: Purge { scopes, strength },
        })
    }
}

/// That an instance has heard of some purges of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    pub instance: u64,
    pub tokens: Vec<u64>,
}

impl Acknowledgement {
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let words = str::from_utf8(payload).ok()?.split(' ');
        let numbers: Result<Vec<u64>, _> = words.map(str::parse).collect();
        let (instance, tokens) = numbers.ok()?.split_first().map(|(a, b)| (*a, b.to_vec()))?;
        Some(Self { instance, tokens })
    }

    pub fn text(&self) -> String {
        let mut text = self.instance.to_string();
        for token in &self.tokens {
            write!(text, " {token}").expect("a string takes every write");
        }
        text
    }
}

/// A gateway among others, as it is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: Name,
    /// Of one process.
    pub instance: u64,
    /// How long it serves what it cannot vouch for, in milliseconds; `None` is for ever.
    pub patience_ms: Option<u64>,
}

impl Member {
    pub fn text(&self) -> String {
        let Self { name, instance, .. } = self;
        match self.patience_ms {
            Some(patience) => format!("{name} {instance} {patience}"),
            None => format!("{name} {instance} -"),
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut word = || words.next();
        Some(Self {
            name: Name::new(word()?),
            instance: word()?.parse().ok()?,
            patience_ms: match word()? {
                "-" => None,
                patience => Some(patience.parse().ok()?),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::scope::Scope;

    #[test]
    fn what_is_written_is_read_back() {
        for patience_ms in [None, Some(0), Some(5000)] {
            let member = Member {
                name: Name::new("web 1:8080"),
                instance: u64::MAX,
                patience_ms,
            };
            assert_eq!(Member::parse(&member.text()), Some(member));
        }
        for tokens in [vec![], vec![7], vec![7, u64::MAX]] {
            let acknowledgement = Acknowledgement {
                instance: 1,
                tokens,
            };
            let text = acknowledgement.text();
            assert_eq!(
                Acknowledgement::parse(text.as_bytes()),
                Some(acknowledgement)
            );
        }
        for strength in [Strength::Hard, Strength::Soft] {
            let scope = Scope::Tag("news").id();
            let text = scope_text(strength, &scope);
            assert_eq!(parse_scope(&text), Some((strength, scope)));
        }
    }

    #[test]
    fn news_has_its_number_and_its_scopes() {
        let scopes = ["a", "b"].map(|tag| Scope::Tag(tag).id());
        let text = format!("12 11 3 4 s{} s{}", scopes[0], scopes[1]);
        let expected = News {
            number: 12,
            before: 11,
            purger: 3,
            token: 4,
            purge: Purge {
                scopes: scopes.to_vec(),
                strength: Strength::Soft,
            },
        };
        assert_eq!(News::parse(text.as_bytes()), Some(expected));
    }

    #[test]
    fn what_no_gateway_writes_is_nothing() {
        for text in [
            "",
            "1",
            "1 2 3",
            "1 2 3 x",
            "1 2 3 4 x00",
            "1 2 3 4 h0",
            "\u{e9}",
        ] {
            assert_eq!(News::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Acknowledgement::parse(b"x"), None);
        assert_eq!(Member::parse("a b c"), None);
    }
}
