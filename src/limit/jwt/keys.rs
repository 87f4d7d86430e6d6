//! The keys that signatures are verified with. Each is for one algorithm and no other.

use std::sync::Once;

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Map, Value};
use thiserror::Error;

use super::{Terms, provider};
use crate::followed::Wrong;

/// Of one file, or one secret.
pub struct Keys(Box<[VerifyingKey]>);

pub struct VerifyingKey {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Debug, Error)]
enum BadKeys {
    #[error(r#"it is no JWK set: {0}; expected JSON such as {{"keys":[…]}}"#)]
    Json(#[source] serde_json::Error),
    #[error("no key of it can be used; expected a public key for RS256, ES256 or EdDSA")]
    None,
    #[error("key {0:?} of it stands there twice; expected it once")]
    Twice(Box<str>),
}

impl Keys {
    /// Keys for other algorithms and purposes are passed over, secrets too: what a file of public keys holds is public.
    pub fn parse(text: &[u8]) -> Result<Self, Wrong> {
        let set: JwkSet = serde_json::from_slice(text)
            .map_err(|error| Wrong::line(error.line().max(1), BadKeys::Json(error)))?;
        let keys: Box<[_]> = set.keys.iter().filter_map(VerifyingKey::of).collect();
        if keys.is_empty() {
            return Err(Wrong::line(1, BadKeys::None));
        }
        for (place, key) in keys.iter().enumerate() {
            if let Some(id) = &key.id
                && keys[..place].iter().any(|one| one.id.as_ref() == Some(id))
            {
                return Err(Wrong::line(1, BadKeys::Twice(id.clone())));
            }
        }
        Ok(Self(keys))
    }

    pub fn of_secret(secret: &[u8]) -> Self {
        let key = VerifyingKey {
            id: None,
            algorithm: Algorithm::HS256,
            key: DecodingKey::from_secret(secret),
        };
        Self([key].into())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The key of this name, if it is for this algorithm.
    pub fn named(&self, id: &str, algorithm: Algorithm) -> Option<&VerifyingKey> {
        let mut fit = self.0.iter().filter(|key| key.algorithm == algorithm);
        fit.find(|key| key.id.as_deref() == Some(id))
    }

    /// The only key for this algorithm; `None` if there are several.
    pub fn the_one(&self, algorithm: Algorithm) -> Option<&VerifyingKey> {
        let mut fit = self.0.iter().filter(|key| key.algorithm == algorithm);
        fit.next().filter(|_| fit.next().is_none())
    }
}

impl VerifyingKey {
    fn of(jwk: &Jwk) -> Option<Self> {
        let (algorithm, said) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            _ => return None,
        };
        let common = &jwk.common;
        let is_ours = common.key_algorithm.is_none_or(|one| one == said)
            && common
                .public_key_use
                .as_ref()
                .is_none_or(|one| *one == PublicKeyUse::Signature);
        let key = DecodingKey::from_jwk(jwk).ok().filter(|_| is_ours)?;
        Some(Self {
            id: common.key_id.as_deref().map(Into::into),
            algorithm,
            key,
        })
    }

    /// What a token says that this key has signed, for whom and by whom it should be. When it holds is not looked at.
    pub fn verify(&self, token: &str, terms: &Terms) -> Option<Map<String, Value>> {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            // Whoever was first in this process: there is no other.
            let _ = provider::RING.install_default();
        });
        let mut wanted = Validation::new(self.algorithm);
        wanted.validate_exp = false;
        wanted.validate_nbf = false;
        let mut required = Vec::new();
        if let Some(issuer) = &terms.issuer {
            wanted.set_issuer(&[issuer]);
            required.push("iss");
        }
        match &terms.audience {
            Some(audience) => {
                wanted.set_audience(&[audience]);
                required.push("aud");
            }
            None => wanted.validate_aud = false,
        }
        wanted.set_required_spec_claims(&required);
        let decoded = decode::<Map<String, Value>>(token, &self.key, &wanted);
        decoded.ok().map(|decoded| decoded.claims)
    }
}
