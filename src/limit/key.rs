//! Who is counted: the parts of a request that make a client one, as operators write them.
//!
//! `header:x-api-key | client-ip` is the first that is present; `client-ip + path` is both together.

pub mod name;

use std::borrow::Cow;
use std::fmt;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::LazyLock;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use siphasher::sip128::{Hasher128, SipHasher24};
use thiserror::Error;

use super::jwt::Claims;
use crate::target::query::decoded;

/// What of a request may say who is counted.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Behind trusted proxies.
    pub client: IpAddr,
    pub fields: &'a HeaderMap,
    /// Verified.
    pub claims: &'a Claims,
    /// The subject of its certificate, verified.
    pub certificate: Option<&'a str>,
    /// Canonical; empty where there is none.
    pub host: &'a str,
    /// Canonical.
    pub path: &'a str,
    /// Without its `?`.
    pub query: Option<&'a str>,
    /// The name of the route.
    pub route: &'a str,
}

/// Alternatives, the first of which is present counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Box<[Combination]>);

/// Parts that count together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Combination(Box<[Part]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    ClientIp,
    Header(HeaderName),
    Cookie(Box<str>),
    Query(Box<str>),
    /// Of a token whose signature was verified.
    Claim(Box<str>),
    /// The subject of the certificate by which the connection was opened.
    ClientCertificate,
    /// A name that somebody else vouches for: it is no invention of the client.
    Vouched(Box<Part>),
    Route,
    Host,
    Path,
}

/// Why a text is no [`Key`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadKey {
    #[error("{0:?} is not a key of clients; expected {FORM}")]
    Part(String),
    #[error("{0:?} can never count: what stands before it is always present")]
    Unreachable(String),
}

/// What a key looks like.
pub const FORM: &str = r#"client-ip, client-certificate, route, host, path, header:NAME, cookie:NAME, query:NAME or claim:NAME, joined by "+" and with alternatives behind "|", such as "header:x-api-key | client-ip""#;

/// How many bits of an address make one client: who has one IPv6 address has a network of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// 1 to 32.
    pub v4: u8,
    /// 1 to 128.
    pub v6: u8,
}

impl Default for Prefixes {
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

/// What clients are told apart by under this secret: their names are not kept.
#[derive(Clone, Copy)]
pub struct Secret([u8; 16]);

/// A client of one rule, by a hash under the secret of the process (SipHash-2-4 of 128 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest(pub [u64; 2]);

/// A client, and how it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub digest: Digest,
    /// The client chose its name by itself and could take another: a header, a cookie, a query.
    pub is_claimed: bool,
    /// It is told by its address alone.
    pub is_address: bool,
}

impl FromStr for Key {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let mut all: Vec<Combination> = Vec::new();
        for text in text.split('|').map(str::trim) {
            let parts = text.split('+').map(|part| part.trim().parse());
            let combination = Combination(parts.collect::<Result<_, _>>()?);
            if all.last().is_some_and(Combination::is_always_present) {
                return Err(BadKey::Unreachable(text.to_owned()));
            }
            all.push(combination);
        }
        Ok(Self(all.into()))
    }
}

impl FromStr for Part {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let wrong = || BadKey::Part(text.to_owned());
        let token = |name: &str| {
            let name = name.parse::<HeaderName>().map_err(|_| wrong())?;
            Ok(name)
        };
        Ok(match text.split_once(':') {
            None => match text {
                "client-ip" => Self::ClientIp,
                "client-certificate" => Self::ClientCertificate,
                "route" => Self::Route,
                "host" => Self::Host,
                "path" => Self::Path,
                _ => return Err(wrong()),
            },
            Some(("header", name)) => Self::Header(token(name)?),
            // RFC 6265 4.1.1: the name of a cookie is a token too, but its case counts.
            Some(("cookie", name)) => token(name).map(|_| Self::Cookie(name.into()))?,
            Some(("query", name)) if !name.is_empty() => Self::Query(name.into()),
            Some(("claim", name)) if !name.is_empty() => Self::Claim(name.into()),
            Some(_) => return Err(wrong()),
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, combination) in self.0.iter().enumerate() {
            let or = if place == 0 { "" } else { " | " };
            write!(out, "{or}{combination}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, part) in self.0.iter().enumerate() {
            let and = if place == 0 { "" } else { " + " };
            write!(out, "{and}{part}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientIp => write!(out, "client-ip"),
            Self::ClientCertificate => write!(out, "client-certificate"),
            Self::Header(name) => write!(out, "header:{name}"),
            Self::Cookie(name) => write!(out, "cookie:{name}"),
            Self::Query(name) => write!(out, "query:{name}"),
            Self::Claim(name) => write!(out, "claim:{name}"),
            Self::Vouched(part) => part.fmt(out),
            Self::Route => write!(out, "route"),
            Self::Host => write!(out, "host"),
            Self::Path => write!(out, "path"),
        }
    }
}

impl Key {
    /// Who is counted for this request. Where no alternative is present, all who have none count together.
    pub fn of(&self, asker: &Asker<'_>, prefixes: Prefixes, secret: &Secret) -> Counted {
        for (place, combination) in self.0.iter().enumerate() {
            let mut hasher = combination.hasher(place, secret);
            let mut parts = combination.0.iter();
            if parts.all(|part| part.hash(asker, prefixes, &mut hasher)) {
                return Counted {
                    digest: Digest::of(&hasher),
                    is_claimed: combination.0.iter().any(Part::is_claimed),
                    is_address: combination.is_address(),
                };
            }
        }
        Counted {
            digest: Digest::of(&secret.hasher()),
            is_claimed: false,
            is_address: false,
        }
    }

    /// The names of the claims that it reads.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        let parts = self.0.iter().flat_map(|combination| &combination.0);
        parts.filter_map(|part| match part {
            Part::Claim(name) => Some(&**name),
            _ => None,
        })
    }

    /// Whether it goes by the certificates of clients.
    pub fn reads_certificate(&self) -> bool {
        let mut parts = self.0.iter().flat_map(|combination| &combination.0);
        parts.any(|part| *part == Part::ClientCertificate)
    }

    /// What its first part is called in this request, if that part is a name and is there.
    pub fn first_name<'a>(&'a self, asker: &Asker<'a>) -> Option<Cow<'a, [u8]>> {
        self.first_part().name(asker)
    }

    /// Whether its first part is a name that a request may have or not have.
    pub fn begins_with_name(&self) -> bool {
        self.first_part().may_be_absent()
    }

    /// Whether its first part is a name that clients choose by themselves.
    pub fn begins_with_claimed(&self) -> bool {
        self.first_part().is_claimed()
    }

    /// The same, for requests whose first part is known to be no invention of the client.
    pub fn vouched(&self) -> Self {
        let mut all = self.0.clone();
        let first = &mut all[0].0[0];
        *first = Part::Vouched(Box::new(first.clone()));
        Self(all)
    }

    /// The alternatives after the first; the address where there are none.
    pub fn otherwise(&self) -> Self {
        match &self.0[1..] {
            [] => client_ip().clone(),
            others => Self(others.into()),
        }
    }

    fn first_part(&self) -> &Part {
        &self.0[0].0[0]
    }
}

impl Combination {
    /// For what its parts say, if it is the alternative at this place: alternatives that say the same are others. An
    /// address is one client wherever it stands, and where it counts for names that are too many.
    fn hasher(&self, place: usize, secret: &Secret) -> SipHasher24 {
        let mut hasher = secret.hasher();
        hasher.write_usize(if self.is_address() { usize::MAX } else { place });
        hasher
    }

    fn is_address(&self) -> bool {
        matches!(*self.0, [Part::ClientIp])
    }

    fn is_always_present(&self) -> bool {
        self.0.iter().all(|part| !part.may_be_absent())
    }
}

impl Part {
    /// Adds what the request says; `false` if it says nothing.
    fn hash(&self, asker: &Asker<'_>, prefixes: Prefixes, hasher: &mut SipHasher24) -> bool {
        let mut framed = |value: &[u8]| {
            framed(value, hasher);
            true
        };
        match self {
            Self::ClientIp => {
                framed_address(asker.client, prefixes, hasher);
                true
            }
            Self::Route => framed(asker.route.as_bytes()),
            Self::Host => framed(asker.host.as_bytes()),
            Self::Path => framed(asker.path.as_bytes()),
            Self::Header(_)
            | Self::Cookie(_)
            | Self::Query(_)
            | Self::Claim(_)
            | Self::ClientCertificate => self.name(asker).is_some_and(|name| framed(&name)),
            Self::Vouched(part) => part.hash(asker, prefixes, hasher),
        }
    }

    /// What it is called in this request, if it is a name and is there.
    fn name<'a>(&'a self, asker: &Asker<'a>) -> Option<Cow<'a, [u8]>> {
        let plain = Cow::Borrowed;
        let name = match self {
            Self::Header(name) => {
                let values = asker.fields.get_all(name).iter();
                the_one(values.map(HeaderValue::as_bytes)).map(plain)
            }
            Self::Cookie(name) => the_one(cookies(asker.fields, name)).map(plain),
            Self::Query(name) => the_one(parameters(asker.query.unwrap_or_default(), name)),
            Self::Claim(name) => asker.claims.get(name).map(str::as_bytes).map(plain),
            Self::ClientCertificate => asker.certificate.map(str::as_bytes).map(plain),
            Self::Vouched(part) => part.name(asker),
            Self::ClientIp | Self::Route | Self::Host | Self::Path => None,
        };
        name.filter(|name| !name.is_empty())
    }

    /// As operators write it, whoever vouches for it.
    fn unvouched(&self) -> &Self {
        match self {
            Self::Vouched(part) => part.unvouched(),
            part => part,
        }
    }

    fn may_be_absent(&self) -> bool {
        match self {
            Self::Vouched(part) => part.may_be_absent(),
            Self::Claim(_) | Self::ClientCertificate => true,
            _ => self.is_claimed(),
        }
    }

    fn is_claimed(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Cookie(_) | Self::Query(_))
    }
}

/// Adds a value with its length: no two lists of values are the same bytes.
fn framed(value: &[u8], hasher: &mut SipHasher24) {
    hasher.write_usize(value.len());
    hasher.write(value);
}

fn framed_address(client: IpAddr, prefixes: Prefixes, hasher: &mut SipHasher24) {
    // A length that no name has: four bytes that somebody sends are not an address.
    hasher.write_usize(usize::MAX);
    match network(client, prefixes) {
        IpAddr::V4(address) => framed(&address.octets(), hasher),
        IpAddr::V6(address) => framed(&address.octets(), hasher),
    }
}

/// By the address alone.
pub fn client_ip() -> &'static Key {
    static KEY: LazyLock<Key> =
        LazyLock::new(|| Key([Combination([Part::ClientIp].into())].into()));
    &KEY
}

/// The network that counts as one client.
pub fn network(client: IpAddr, prefixes: Prefixes) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.unbounded_shl(32 - u32::from(prefixes.v4));
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.unbounded_shl(128 - u32::from(prefixes.v6));
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// What all of them say. Of two that differ one would be read here and perhaps the other by the application: whoever
/// sends them says nothing.
fn the_one<V: PartialEq>(mut values: impl Iterator<Item = V>) -> Option<V> {
    let first = values.next()?;
    values.all(|other| other == first).then_some(first)
}

/// The values of a cookie.
fn cookies<'a>(fields: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let lines = fields.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter_map(move |pair| {
        let value = pair.strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    })
}

/// The values of a parameter, however it is encoded.
fn parameters<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    query.split('&').filter_map(move |pair| {
        let (one, value) = pair.split_once('=')?;
        (*decoded(one) == *name.as_bytes()).then(|| decoded(value))
    })
}

impl Secret {
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// As it is kept for all gateways.
    pub fn text(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }

    /// What [`Secret::text`] says; `None` if it says nothing of that.
    pub fn parse(text: &str) -> Option<Self> {
        let number = u128::from_str_radix(text, 16).ok();
        number
            .filter(|_| text.len() == 32)
            .map(|number| Self(number.to_be_bytes()))
    }

    fn hasher(&self) -> SipHasher24 {
        SipHasher24::new_with_key(&self.0)
    }

    /// The client `digest` under another of its quotas: each has a bucket of its own.
    pub fn with(&self, digest: Digest, number: usize) -> Digest {
        if number == 0 {
            return digest;
        }
        let mut hasher = self.hasher();
        digest.0.into_iter().for_each(|half| hasher.write_u64(half));
        hasher.write_usize(number);
        Digest::of(&hasher)
    }
}

/// Tells nothing of it.
impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret")
    }
}

impl Digest {
    fn of(hasher: &SipHasher24) -> Self {
        let hash = hasher.finish128();
        Self([hash.h1, hash.h2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: Secret = Secret::new([7; 16]);

    struct Request {
        client: &'static str,
        fields: &'static [(&'static str, &'static str)],
        path: &'static str,
        query: Option<&'static str>,
        claims: &'static [(&'static str, &'static str)],
    }

    const PLAIN: Request = Request {
        client: "203.0.113.7",
        fields: &[],
        path: "/a",
        query: None,
        claims: &[],
    };

    fn counted(key: &str, request: &Request) -> Counted {
        counted_by(&key.parse().unwrap(), request)
    }

    fn counted_by(key: &Key, request: &Request) -> Counted {
        let mut fields = HeaderMap::new();
        for (name, value) in request.fields {
            fields.append(*name, HeaderValue::from_static(value));
        }
        let claims = Claims::from_iter(request.claims.iter().copied());
        let asker = Asker {
            client: request.client.parse().unwrap(),
            fields: &fields,
            claims: &claims,
            certificate: None,
            host: "shop.example",
            path: request.path,
            query: request.query,
            route: "api",
        };
        key.of(&asker, Prefixes::default(), &SECRET)
    }

    #[test]
    fn keys_are_printed_as_they_are_written() {
        for text in [
            "client-ip",
            "header:x-api-key | client-ip",
            "client-ip + path",
            "cookie:Session + host | query:key | route",
            "claim:sub + path | client-ip",
            "client-certificate | client-ip",
        ] {
            assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        }
        assert_eq!(
            "header:X-Key|client-ip".parse::<Key>().unwrap().to_string(),
            "header:x-key | client-ip"
        );
    }

    #[test]
    fn what_is_no_key_is_told_what_one_is() {
        for text in [
            "",
            "ip",
            "client-ip |",
            "header:",
            "header:a b",
            "cookie:=",
            "query:",
            "claim:",
            "a:b",
            "client-ip + ",
        ] {
            assert!(
                matches!(text.parse::<Key>(), Err(BadKey::Part(_))),
                "{text}"
            );
        }
        assert!(matches!(
            "client-ip | header:a".parse::<Key>(),
            Err(BadKey::Unreachable(_))
        ));
    }

    #[test]
    fn the_first_alternative_that_is_present_counts() {
        let with_key = Request {
            fields: &[("x-api-key", "k1")],
            ..PLAIN
        };
        let other_place = Request {
            client: "203.0.113.8",
            ..with_key
        };
        let empty = Request {
            fields: &[("x-api-key", "")],
            ..PLAIN
        };
        let key = "header:x-api-key | client-ip";
        assert_eq!(counted(key, &with_key), counted(key, &other_place));
        assert_ne!(counted(key, &with_key), counted(key, &PLAIN));
        assert_eq!(counted(key, &empty), counted(key, &PLAIN));
        assert!(counted(key, &with_key).is_claimed && !counted(key, &PLAIN).is_claimed);
    }

    #[test]
    fn a_name_that_reads_like_an_address_is_not_that_address() {
        let claims = Request {
            fields: &[("x-api-key", "0000")],
            ..PLAIN
        };
        let has = Request {
            client: "48.48.48.48",
            ..PLAIN
        };
        assert_ne!(
            counted("header:x-api-key | client-ip", &claims),
            counted("header:x-api-key | client-ip", &has)
        );
    }

    #[test]
    fn an_ipv6_client_is_its_network_and_a_mapped_one_is_ipv4() {
        let at = |client| counted("client-ip", &Request { client, ..PLAIN });
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:2:ffff::9"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_eq!(at("::ffff:203.0.113.7"), at("203.0.113.7"));
        assert_ne!(at("203.0.113.7"), at("203.0.113.8"));
    }

    #[test]
    fn parts_that_count_together_are_not_run_together() {
        let one = Request {
            fields: &[("a", "xy"), ("b", "z")],
            ..PLAIN
        };
        let other = Request {
            fields: &[("a", "x"), ("b", "yz")],
            ..PLAIN
        };
        assert_ne!(
            counted("header:a + header:b", &one),
            counted("header:a + header:b", &other)
        );
    }

    #[test]
    fn a_name_of_four_bytes_is_not_the_address_that_they_would_be() {
        let claims = Request {
            fields: &[("x-api-key", "0000")],
            ..PLAIN
        };
        let has = Request {
            client: "48.48.48.48",
            ..PLAIN
        };
        let (name, address) = (
            counted("header:x-api-key", &claims),
            counted_by(client_ip(), &has),
        );
        assert_ne!(name.digest, address.digest);
    }

    #[test]
    fn cookies_and_parameters_are_found_by_their_whole_name() {
        let request = Request {
            fields: &[("cookie", "xid=1; id=2"), ("cookie", "idx=3")],
            query: Some("xkey=1&key=2&keys=3"),
            ..PLAIN
        };
        let id = Request {
            fields: &[("cookie", "id=2")],
            query: Some("key=2"),
            ..PLAIN
        };
        assert_eq!(counted("cookie:id", &request), counted("cookie:id", &id));
        assert_eq!(counted("query:key", &request), counted("query:key", &id));
    }

    #[test]
    fn who_names_itself_twice_in_two_ways_has_no_name() {
        let once = Request {
            fields: &[("x-api-key", "k1"), ("cookie", "id=1")],
            query: Some("key=k1"),
            ..PLAIN
        };
        let the_same_twice = Request {
            fields: &[
                ("x-api-key", "k1"),
                ("x-api-key", "k1"),
                ("cookie", "id=1; id=1"),
            ],
            query: Some("key=k1&key=%6b1"),
            ..PLAIN
        };
        let another_too = Request {
            fields: &[
                ("x-api-key", "k1"),
                ("x-api-key", "k2"),
                ("cookie", "id=1"),
                ("cookie", "id=2"),
            ],
            query: Some("key=k1&key=k2"),
            ..PLAIN
        };
        for name in ["header:x-api-key", "cookie:id", "query:key"] {
            let key = &format!("{name} | client-ip");
            assert_eq!(counted(key, &the_same_twice), counted(key, &once), "{key}");
            assert_eq!(counted(key, &another_too), counted(key, &PLAIN), "{key}");
        }
    }

    #[test]
    fn a_parameter_is_who_the_application_will_read_however_it_is_encoded() {
        let with = |query| {
            let request = Request {
                query: Some(query),
                ..PLAIN
            };
            counted("query:key | client-ip", &request)
        };
        for query in ["key=%6b%31", "k%65y=k1", "%6Bey=k%31"] {
            assert_eq!(with(query), with("key=k1"), "{query}");
        }
        assert_ne!(with("key=k%2531"), with("key=k1"));
    }

    #[test]
    fn a_verified_claim_is_who_counts_and_no_name_that_the_client_chose() {
        let signed_in = Request {
            claims: &[("sub", "ada")],
            ..PLAIN
        };
        let elsewhere = Request {
            client: "203.0.113.8",
            ..signed_in
        };
        let key = "claim:sub | client-ip";
        assert_eq!(counted(key, &signed_in), counted(key, &elsewhere));
        assert_ne!(counted(key, &signed_in), counted(key, &PLAIN));
        assert!(!counted(key, &signed_in).is_claimed);
    }

    #[test]
    fn a_name_that_is_vouched_for_counts_as_before_and_is_no_claim() {
        let with_key = Request {
            fields: &[("x-api-key", "k1"), ("x-user", "u1")],
            ..PLAIN
        };
        for (text, stays_claimed) in [
            ("header:x-api-key | client-ip", false),
            ("header:x-api-key + header:x-user", true),
        ] {
            let key: Key = text.parse().unwrap();
            let (plain, vouched) = (
                counted_by(&key, &with_key),
                counted_by(&key.vouched(), &with_key),
            );
            assert_eq!(plain.digest, vouched.digest, "{text}");
            assert_eq!(vouched.is_claimed, stays_claimed, "{text}");
            assert_eq!(key.vouched().to_string(), text);
        }
    }

    #[test]
    fn what_counts_otherwise_is_the_next_alternative_or_the_address() {
        let otherwise = |text: &str| text.parse::<Key>().unwrap().otherwise().to_string();
        assert_eq!(otherwise("header:a | cookie:b | host"), "cookie:b | host");
        assert_eq!(otherwise("header:a + path"), "client-ip");
        let address = "header:a | client-ip".parse::<Key>().unwrap().otherwise();
        assert_eq!(
            counted_by(&address, &PLAIN),
            counted_by(client_ip(), &PLAIN)
        );
    }
}
