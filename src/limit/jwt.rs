//! Who somebody is by a token that they cannot make by themselves: a JWT (RFC 7519) whose signature is verified. Where
//! anything about it is wrong there are no claims; why is nobody's business but that of who gave it out.

mod keys;
mod provider;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jsonwebtoken::Algorithm;
use moka::sync::Cache;
use serde_json::{Map, Value};
use smallvec::SmallVec;

use self::keys::{Keys, VerifyingKey};
use crate::followed::{Content, FileError, Followed, Form};
use crate::redis::Secret;

/// Verified tokens that are remembered.
const MOST_REMEMBERED: u64 = 10_000;

/// The longest token that is looked at, in bytes.
const LONGEST_TOKEN: usize = 8 << 10;

/// The longest file of keys, in bytes.
const LONGEST_FILE: u64 = 1 << 20;

/// What tokens must say besides being signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub issuer: Option<String>,
    pub audience: Option<String>,
    /// By how much clocks may differ.
    pub leeway: Duration,
    /// The claims that are read.
    pub claims: Box<[Box<str>]>,
}

/// The claims of one token, as far as they are read. None if there was no token, or none that is good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims(SmallVec<[(Box<str>, Box<str>); 2]>);

/// Verifies tokens and remembers the good ones.
pub struct Verifier {
    /// Public keys, by a file.
    public: Option<Arc<Followed<KeySet>>>,
    /// For tokens that are signed with a secret that both sides have.
    secret: Option<KeySet>,
    terms: Terms,
}

/// Keys, and what they have verified: with the keys goes that too.
struct KeySet {
    keys: Keys,
    good: Cache<[u8; 32], Arc<Good>>,
}

/// A token that was verified.
struct Good {
    claims: Claims,
    /// In seconds since 1970.
    from: f64,
    until: f64,
}

impl KeySet {
    fn new(keys: Keys) -> Self {
        Self {
            keys,
            good: Cache::new(MOST_REMEMBERED),
        }
    }
}

impl Content for KeySet {
    fn entries(&self) -> usize {
        self.keys.len()
    }
}

impl Claims {
    /// A text or a whole number; nothing else is a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(one, _)| **one == *name);
        found.map(|(_, value)| &**value)
    }

    fn read(claims: &Map<String, Value>, names: &[Box<str>]) -> Self {
        let named = names.iter().filter_map(|name| {
            let value: Box<str> = match claims.get(&**name)? {
                Value::String(text) => text.as_str().into(),
                Value::Number(number) if !number.is_f64() => number.to_string().into(),
                _ => return None,
            };
            Some((name.clone(), value))
        });
        Self(named.collect())
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Claims {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(claims: I) -> Self {
        let claims = claims.into_iter();
        Self(
            claims
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

impl Verifier {
    /// With the public keys of a JWK set (RFC 7517) in a file, or a secret, or both.
    pub fn new(
        keys: Option<&Path>,
        secret: Option<&Secret>,
        terms: Terms,
    ) -> Result<Self, FileError> {
        let form = || Form {
            noun: "JWK set",
            longest: LONGEST_FILE,
            parse: Box::new(|text: &[u8]| Keys::parse(text).map(KeySet::new)),
        };
        let public = keys.map(|path| Followed::read(path, form())).transpose()?;
        Ok(Self {
            public: public.map(Arc::new),
            secret: secret.map(|secret| KeySet::new(Keys::of_secret(secret.text().as_bytes()))),
            terms,
        })
    }

    /// Follows the file of keys for as long as this is in use. To be called in a runtime.
    pub fn watch(&self) {
        if let Some(file) = &self.public {
            file.watch();
        }
    }

    /// What the token of a request says, if it has one that is good now.
    pub fn claims(&self, fields: &HeaderMap, now: SystemTime) -> Claims {
        let token = bearer(fields).filter(|token| token.len() <= LONGEST_TOKEN);
        let claims = token.and_then(|token| self.verify(token, now));
        claims.unwrap_or_default()
    }

    fn verify(&self, token: &str, now: SystemTime) -> Option<Claims> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        // Extensions that must be understood (RFC 7515 4.1.11): none is.
        if header.crit.is_some() {
            return None;
        }
        // The algorithm says which keys are asked, and each key knows the one that it is for.
        match header.alg {
            Algorithm::HS256 => {
                let set = self.secret.as_ref()?;
                let key = set.keys.the_one(Algorithm::HS256)?;
                self.verify_by(set, key, token, now)
            }
            algorithm => {
                let set = self.public.as_ref()?.now();
                let key = match &header.kid {
                    Some(id) => set.keys.named(id, algorithm),
                    None => set.keys.the_one(algorithm),
                };
                self.verify_by(&set, key?, token, now)
            }
        }
    }

    fn verify_by(
        &self,
        set: &KeySet,
        key: &VerifyingKey,
        token: &str,
        now: SystemTime,
    ) -> Option<Claims> {
        let digest = *blake3::hash(token.as_bytes()).as_bytes();
        let good = match set.good.get(&digest) {
            Some(good) => good,
            None => {
                let good = Arc::new(self.read(&key.verify(token, &self.terms)?)?);
                if good.is_at(now, self.terms.leeway) {
                    set.good.insert(digest, good.clone());
                }
                good
            }
        };
        good.is_at(now, self.terms.leeway)
            .then(|| good.claims.clone())
    }

    /// `None` if it does not say until when it holds.
    fn read(&self, claims: &Map<String, Value>) -> Option<Good> {
        let from = match claims.get("nbf") {
            None => 0.0,
            Some(from) => from.as_f64()?,
        };
        Some(Good {
            claims: Claims::read(claims, &self.terms.claims),
            from,
            until: claims.get("exp")?.as_f64()?,
        })
    }
}

impl Good {
    fn is_at(&self, now: SystemTime, leeway: Duration) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (now, leeway) = (now.as_secs_f64(), leeway.as_secs_f64());
        self.from - leeway <= now && now < self.until + leeway
    }
}

/// The token of a request that has exactly one.
fn bearer(fields: &HeaderMap) -> Option<&str> {
    let mut all = fields.get_all(AUTHORIZATION).iter();
    let (Some(one), None) = (all.next(), all.next()) else {
        return None;
    };
    let (scheme, token) = one.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_matches(' '))
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Verifier")
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
