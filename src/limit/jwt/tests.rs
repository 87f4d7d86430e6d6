use std::path::PathBuf;

use http::HeaderValue;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;

/// When the tokens here are looked at.
const NOW: u64 = 1_700_000_000;

/// The public half of a key that nobody has any more, and what it has signed: `ada`, until ten minutes from [`NOW`].
const RSA_MODULUS: &str = "6HMHA30rtk0PU_-aBaQokxdEhul3UhyouGD-PToADgWnnOrwiGYfeCNt4doWiBJcGVgVMc3eRlcS0fKZIwLCemkQfqzDZHHuMEmNGOw2vQ8WoUq-cf1ZeKzzq8J5SEZRVrq_hd5tphv3YgE26QTS6FY_FQ2r8CVkHdOFHB1maaYG4vcOdHTcSTFU9s2etqUXeK_tz9HPn1ccFrEeugGPVWhfd80J2ox_jZ239ZMz85JWBOrmSoZlgG81_RImxdQp-UTOvX85okBx_pUfC4JLVq2m7H2dNT7fKrWZw-G-2yg9WEkET9C8_IXiCQmE4APmj6hzLBxMvQPPs9u95ssCeQ";
const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYS0xIn0.eyJzdWIiOiJhZGEiLCJleHAiOjE3MDAwMDA2MDB9.kefz7zmz-bIiFFzL_HgLbhCcuh-ygZzWOfU28vMmjlGeOmKQDQs9EvdZx_Bxn-8cIUlE7jh40dUo0lBC9FOIUIvKMnsmg5h-4s_g4jO-T_2G9XRHT4tpDi-YXnkGev9XjxvrsgIXV5ZVblcQcrehb5OCljdZ2OohEA4iJWNOof5678PHCxb_O8crbbRqJtk2ohA3Fxeb8tJdtbpr7CmnpVo8caDzKDfRvTtRwETlSq0oUZhy_LSkYTV97032gOcCfL90BGt_FRUZg0zk3A07iqgqrh7SpNQHnuIbOGqAmGETNfFfIcAoCmf1rYm6SrZywSiM6hvDDhfGSGzyiU1ULw";
const SECRET: &str = "a secret of thirty-two bytes, or more";

/// base64url without padding.
fn encoded(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |three: &[u8]| {
        let bits = three
            .iter()
            .fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        let digit = move |place| char::from(DIGITS[(bits >> (18 - 6 * place) & 63) as usize]);
        (0..=three.len()).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

fn token(header: Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let head = encoded(header.to_string().as_bytes());
    let message = format!("{head}.{}", encoded(claims.to_string().as_bytes()));
    let signature = encoded(&sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn by_secret<'a>(secret: &'a [u8]) -> impl Fn(&[u8]) -> Vec<u8> + 'a {
    move |message| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        hmac::sign(&key, message).as_ref().to_vec()
    }
}

fn hs256(claims: &Value) -> String {
    token(
        json!({ "alg": "HS256" }),
        claims,
        by_secret(SECRET.as_bytes()),
    )
}

/// Keys of each kind, of which the secret halves are here.
struct Issuer {
    folder: tempfile::TempDir,
    elliptic: EcdsaKeyPair,
    edwards: Ed25519KeyPair,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let elliptic = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let edwards = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let issuer = Self {
            folder: tempfile::tempdir().unwrap(),
            elliptic: EcdsaKeyPair::from_pkcs8(algorithm, elliptic.as_ref(), &random).unwrap(),
            edwards: Ed25519KeyPair::from_pkcs8(edwards.as_ref()).unwrap(),
        };
        issuer.publish(&issuer.all());
        issuer
    }

    fn all(&self) -> Value {
        let point = self.elliptic.public_key().as_ref();
        json!({ "keys": [
            { "kty": "RSA", "kid": "rsa-1", "use": "sig", "alg": "RS256", "n": RSA_MODULUS, "e": "AQAB" },
            { "kty": "EC", "kid": "ec-1", "crv": "P-256", "x": encoded(&point[1..33]), "y": encoded(&point[33..]) },
            { "kty": "OKP", "kid": "ed-1", "crv": "Ed25519", "x": encoded(self.edwards.public_key().as_ref()) },
            { "kty": "oct", "kid": "shared", "k": encoded(b"what stands in a file of public keys is public") },
            { "kty": "EC", "kid": "later", "crv": "P-521", "x": "AA", "y": "AA" },
        ] })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("jwks.json")
    }

    fn publish(&self, keys: &Value) {
        std::fs::write(self.path(), keys.to_string()).unwrap();
    }

    fn es256(&self, header: Value, claims: &Value) -> String {
        token(header, claims, |message| {
            let signature = self.elliptic.sign(&SystemRandom::new(), message);
            signature.unwrap().as_ref().to_vec()
        })
    }

    fn eddsa(&self, header: Value, claims: &Value) -> String {
        token(header, claims, |message| {
            self.edwards.sign(message).as_ref().to_vec()
        })
    }

    fn verifier(&self) -> Verifier {
        let secret = Secret::new(SECRET.to_owned());
        Verifier::new(Some(&self.path()), Some(&secret), terms()).unwrap()
    }
}

fn terms() -> Terms {
    Terms {
        issuer: None,
        audience: None,
        leeway: Duration::from_secs(30),
        claims: ["sub".into(), "tenant".into()].into(),
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn said_at(verifier: &Verifier, token: &str, now: u64) -> Option<String> {
    let mut fields = HeaderMap::new();
    let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
    fields.insert(AUTHORIZATION, value);
    let claims = verifier.claims(&fields, at(now));
    claims.get("sub").map(str::to_owned)
}

fn said(verifier: &Verifier, token: &str) -> Option<String> {
    said_at(verifier, token, NOW)
}

fn ada() -> Value {
    json!({ "sub": "ada", "exp": NOW + 600 })
}

#[test]
fn a_token_is_believed_that_one_of_the_keys_has_signed() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier();
    for token in [
        RSA_TOKEN.to_owned(),
        issuer.es256(json!({ "alg": "ES256", "kid": "ec-1" }), &ada()),
        issuer.eddsa(json!({ "alg": "EdDSA", "kid": "ed-1" }), &ada()),
        // The only key of its kind need not be named.
        issuer.eddsa(json!({ "alg": "EdDSA" }), &ada()),
        hs256(&ada()),
    ] {
        // Once verified and once remembered.
        assert_eq!(said(&verifier, &token).as_deref(), Some("ada"), "{token}");
        assert_eq!(said(&verifier, &token).as_deref(), Some("ada"), "{token}");
    }
}

#[test]
fn a_token_that_is_changed_says_nothing() {
    let verifier = Issuer::new().verifier();
    let good = hs256(&ada());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (head, _) = message.split_once('.').unwrap();
    let eve = encoded(
        json!({ "sub": "eve", "exp": NOW + 600 })
            .to_string()
            .as_bytes(),
    );
    for token in [
        format!("{head}.{eve}.{signature}"),
        format!("{message}."),
        message.to_owned(),
        format!("{good}.x"),
        String::new(),
    ] {
        assert_eq!(said(&verifier, &token), None, "{token}");
    }
}

#[test]
fn a_token_that_nobody_signed_says_nothing() {
    let verifier = Issuer::new().verifier();
    for algorithm in ["none", "None", "NONE", ""] {
        let unsigned = token(json!({ "alg": algorithm }), &ada(), |_| Vec::new());
        assert_eq!(said(&verifier, &unsigned), None, "{algorithm}");
    }
}

#[test]
fn a_public_key_is_no_secret_to_sign_with() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier();
    let file = std::fs::read(issuer.path()).unwrap();
    let point = issuer.elliptic.public_key().as_ref();
    let shared: &[u8] = b"what stands in a file of public keys is public";
    for secret in [RSA_MODULUS.as_bytes(), &file, point, &point[1..], shared] {
        for kid in ["rsa-1", "ec-1", "ed-1", "shared"] {
            let header = json!({ "alg": "HS256", "kid": kid });
            let forged = token(header, &ada(), by_secret(secret));
            assert_eq!(said(&verifier, &forged), None, "{kid}");
        }
    }
}

#[test]
fn a_key_is_for_its_own_algorithm_and_name() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier();
    for header in [
        json!({ "alg": "ES256", "kid": "unknown" }),
        json!({ "alg": "ES256", "kid": "ed-1" }),
        json!({ "alg": "RS256", "kid": "ec-1" }),
        json!({ "alg": "ES384", "kid": "ec-1" }),
        json!({ "alg": "ES256", "kid": "ec-1", "crit": ["b64"], "b64": false }),
    ] {
        let forged = issuer.es256(header.clone(), &ada());
        assert_eq!(said(&verifier, &forged), None, "{header}");
    }
}

#[test]
fn a_token_holds_from_when_it_begins_until_it_ends_with_a_little_leeway() {
    let verifier = Issuer::new().verifier();
    let token = hs256(&json!({ "sub": "ada", "nbf": NOW, "exp": NOW + 600 }));
    for (now, holds) in [
        (NOW - 31, false),
        (NOW - 29, true),
        (NOW + 629, true),
        // It was remembered.
        (NOW + 631, false),
    ] {
        assert_eq!(said_at(&verifier, &token, now).is_some(), holds, "{now}");
    }
    for claims in [
        json!({ "sub": "ada" }),
        json!({ "sub": "ada", "exp": "tomorrow" }),
        json!({ "sub": "ada", "exp": NOW + 600, "nbf": "yesterday" }),
    ] {
        assert_eq!(said(&verifier, &hs256(&claims)), None, "{claims}");
    }
}

#[test]
fn a_token_of_another_issuer_or_for_others_says_nothing() {
    let secret = Secret::new(SECRET.to_owned());
    let terms = Terms {
        issuer: Some("https://id.example".to_owned()),
        audience: Some("api".to_owned()),
        ..terms()
    };
    let verifier = Verifier::new(None, Some(&secret), terms).unwrap();
    let from = |issuer: Value, audience: Value| {
        let claims = json!({ "sub": "ada", "exp": NOW + 600, "iss": issuer, "aud": audience });
        said(&verifier, &hs256(&claims)).is_some()
    };
    let ours = json!("https://id.example");
    assert!(from(ours.clone(), json!("api")));
    assert!(from(ours.clone(), json!(["web", "api"])));
    assert!(!from(ours.clone(), json!("web")));
    assert!(!from(ours, Value::Null));
    assert!(!from(json!("https://id.example.evil"), json!("api")));
    assert!(!from(Value::Null, json!("api")));
}

#[test]
fn a_request_with_two_tokens_has_none() {
    let verifier = Issuer::new().verifier();
    let value = HeaderValue::try_from(format!("bearer {}", hs256(&ada()))).unwrap();
    let mut fields = HeaderMap::new();
    fields.append(AUTHORIZATION, value.clone());
    assert_eq!(verifier.claims(&fields, at(NOW)).get("sub"), Some("ada"));
    fields.append(AUTHORIZATION, value);
    assert_eq!(verifier.claims(&fields, at(NOW)), Claims::default());
}

#[test]
fn a_claim_is_a_text_or_a_whole_number() {
    let verifier = Issuer::new().verifier();
    for (value, name) in [
        (json!(17), Some("17")),
        (json!("x"), Some("x")),
        (json!(1.5), None),
        (json!(["x"]), None),
        (json!(true), None),
    ] {
        let token = hs256(&json!({ "sub": value, "exp": NOW + 600 }));
        assert_eq!(said(&verifier, &token).as_deref(), name, "{value}");
    }
}

#[test]
fn what_a_key_has_signed_goes_with_the_key() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier();
    let token = issuer.es256(json!({ "alg": "ES256", "kid": "ec-1" }), &ada());
    assert!(said(&verifier, &token).is_some());

    let mut keys = issuer.all();
    keys["keys"].as_array_mut().unwrap().remove(1);
    issuer.publish(&keys);
    assert!(verifier.public.as_ref().unwrap().refresh().unwrap());
    assert_eq!(said(&verifier, &token), None);

    issuer.publish(&json!({ "keys": [] }));
    assert!(verifier.public.as_ref().unwrap().refresh().is_err());
    assert!(said(&verifier, RSA_TOKEN).is_some(), "the keys before stay");
}
