//! What a host may look like, and when two of them are the same (RFC 9110 7.2, RFC 3986 3.2.2).
//!
//! Narrower than the RFC: no percent-encoding, no `IPvFuture`, no empty label, no empty port. None
//! of those names a site that a certificate or a DNS zone could name, and each has been read
//! differently by two programs in a row.

use std::fmt;
use std::net::Ipv6Addr;

use thiserror::Error;

use crate::short::Short;

/// The longest host name in bytes, without port (RFC 1035 2.3.4).
pub const LONGEST_NAME: usize = 255;

/// Why a host is refused. [`BadHost::reason`] is stable; the text is for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("{}", self.detail())]
pub enum BadHost {
    Empty,
    TooLong,
    List,
    UserInfo,
    Character,
    EmptyLabel,
    Port,
    IpLiteral,
}

impl BadHost {
    /// Every variant, for tables and tests.
    pub const ALL: [BadHost; 8] = [
        BadHost::Empty,
        BadHost::TooLong,
        BadHost::List,
        BadHost::UserInfo,
        BadHost::Character,
        BadHost::EmptyLabel,
        BadHost::Port,
        BadHost::IpLiteral,
    ];

    /// Stable snake_case code.
    pub fn reason(self) -> &'static str {
        self.row().0
    }

    /// One English sentence, without a full stop.
    pub fn detail(self) -> &'static str {
        self.row().1
    }

    #[rustfmt::skip]
    fn row(self) -> (&'static str, &'static str) {
        match self {
            BadHost::Empty => ("host_empty", "the host is empty"),
            BadHost::TooLong => ("host_too_long", "the host is longer than 255 bytes"),
            BadHost::List => ("host_list", "the host is a list"),
            BadHost::UserInfo => ("host_user_info", "the host carries user information"),
            BadHost::Character => ("host_character", "the host has a character that no host name has"),
            BadHost::EmptyLabel => ("host_empty_label", "the host has an empty label"),
            BadHost::Port => ("host_port", "the port is not a number from 1 to 65535"),
            BadHost::IpLiteral => ("host_ip_literal", "the bracketed address is not an IPv6 address"),
        }
    }
}

/// A valid `host[:port]`, borrowed as it was sent. Compares and prints only through [`Host`] or
/// [`Authority::same_as`]: the raw text has several spellings of one host.
#[derive(Clone, Copy, Debug)]
pub struct Authority<'a> {
    name: Name<'a>,
    port: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
enum Name<'a> {
    /// ASCII letters, digits, `-`, `.`, `_`; no trailing dot; any case.
    Registered(&'a str),
    V6(Ipv6Addr),
}

impl<'a> Authority<'a> {
    /// Reads a whole `Host` value, `:authority` or authority of an absolute-form target.
    ///
    /// Does not allocate. The value must come without surrounding white space.
    pub fn parse(text: &'a [u8]) -> Result<Self, BadHost> {
        if text.is_empty() {
            return Err(BadHost::Empty);
        }
        if let Some(rest) = text.strip_prefix(b"[") {
            return Self::ip_literal(rest);
        }
        // The whole text: what comes after the colon of `user:password@host` is no port.
        let mut colon = None;
        let mut has_empty_label = false;
        let mut before = 0;
        for (place, &byte) in text.iter().enumerate() {
            match byte {
                b':' => colon = colon.or(Some(place)),
                _ if NAME[usize::from(byte)] => {
                    has_empty_label |= byte == b'.' && before == b'.' && colon.is_none();
                }
                b',' => return Err(BadHost::List),
                b'@' => return Err(BadHost::UserInfo),
                _ => return Err(BadHost::Character),
            }
            before = byte;
        }
        let (name, port) = match colon {
            Some(colon) => (&text[..colon], Some(&text[colon + 1..])),
            None => (text, None),
        };
        let port = port.map(parse_port).transpose()?;
        let name = name.strip_suffix(b".").unwrap_or(name);
        if name.is_empty() {
            return Err(BadHost::Empty);
        }
        if name.len() > LONGEST_NAME {
            return Err(BadHost::TooLong);
        }
        if name[0] == b'.' || name.ends_with(b".") || has_empty_label {
            return Err(BadHost::EmptyLabel);
        }
        let name = std::str::from_utf8(name).expect("only ASCII name bytes are left");
        Ok(Authority {
            name: Name::Registered(name),
            port,
        })
    }

    /// `rest` is what follows the opening bracket.
    fn ip_literal(rest: &[u8]) -> Result<Self, BadHost> {
        let close = memchr::memchr(b']', rest).ok_or(BadHost::IpLiteral)?;
        let address = std::str::from_utf8(&rest[..close])
            .ok()
            .and_then(|text| text.parse::<Ipv6Addr>().ok())
            .ok_or(BadHost::IpLiteral)?;
        let port = match &rest[close + 1..] {
            [] => None,
            [b':', port @ ..] => Some(parse_port(port)?),
            [b',', ..] => return Err(BadHost::List),
            _ => return Err(BadHost::Character),
        };
        Ok(Authority {
            name: Name::V6(address),
            port,
        })
    }

    /// The port as it was written; `None` means the scheme's default.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether both name the same host and, a missing port being `default_port`, the same port.
    pub fn same_as(&self, other: &Authority<'_>, default_port: u16) -> bool {
        let names = match (self.name, other.name) {
            (Name::Registered(a), Name::Registered(b)) => a.eq_ignore_ascii_case(b),
            (Name::V6(a), Name::V6(b)) => a == b,
            _ => false,
        };
        names && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// The canonical host of a request: lower case, no trailing dot, IPv6 in its shortest form within
/// brackets, the port apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// As it prints.
    text: Box<str>,
    /// Bytes of the name, which the text begins with.
    name: usize,
    port: Option<u16>,
}

impl Host {
    /// Reads `host[:port]`; the same rules as [`Authority::parse`].
    pub fn parse(text: &[u8]) -> Result<Self, BadHost> {
        Authority::parse(text).map(Host::from)
    }

    /// The name alone, what routes are looked up by: `shop.example`, `192.0.2.1`, `[2001:db8::1]`.
    pub fn name(&self) -> &str {
        &self.text[..self.name]
    }

    /// Name and port, where one was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The port that was written, if any.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl From<Authority<'_>> for Host {
    fn from(authority: Authority<'_>) -> Self {
        let mut text = match authority.name {
            Name::Registered(name) => name.to_ascii_lowercase(),
            Name::V6(address) => format!("[{address}]"),
        };
        let name = text.len();
        if let Some(port) = authority.port {
            let mut digits = Short::<{ ":65535".len() }>::default();
            digits.push(b":");
            digits.push_decimal(port);
            text.push_str(digits.as_str());
        }
        Host {
            text: text.into_boxed_str(),
            name,
            port: authority.port,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The bytes of a registered name.
static NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = byte as u8;
        table[byte] = value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_');
        byte += 1;
    }
    table
};

/// One to five digits, 1 to 65535.
fn parse_port(digits: &[u8]) -> Result<u16, BadHost> {
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BadHost::Port);
    }
    let port = digits
        .iter()
        .fold(0u32, |port, digit| port * 10 + u32::from(digit - b'0'));
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(BadHost::Port),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Host::parse(text.as_bytes()).unwrap().to_string()
    }

    #[test]
    fn hosts_have_one_spelling() {
        let spellings = [
            ("Shop.EXAMPLE", "shop.example"),
            ("shop.example.", "shop.example"),
            ("shop.example.:8080", "shop.example:8080"),
            ("a:0080", "a:80"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:DB8:0:0::0001]", "[2001:db8::1]"),
            ("[::1]:443", "[::1]:443"),
        ];
        for (text, expected) in spellings {
            assert_eq!(canonical(text), expected);
        }
    }

    #[test]
    fn a_missing_port_is_the_default_port() {
        let same = |a: &'static str, b: &'static str, port| {
            let (a, b) = (a.as_bytes(), b.as_bytes());
            Authority::parse(a)
                .unwrap()
                .same_as(&Authority::parse(b).unwrap(), port)
        };
        assert!(same("a", "A.:80", 80));
        assert!(same("a:443", "a", 443));
        assert!(!same("a:443", "a", 80));
        assert!(!same("a", "b", 80));
        assert!(same("[::1]", "[0::1]:80", 80));
        assert!(!same("[::1]", "a", 80));
    }

    #[test]
    fn the_name_alone_is_what_routes_see() {
        let host = Host::parse(b"Shop.example:8443").unwrap();
        assert_eq!((host.name(), host.port()), ("shop.example", Some(8443)));
    }

    #[test]
    fn the_longest_name_is_255_bytes() {
        assert!(Host::parse(&[b'a'; 255]).is_ok());
        assert_eq!(Host::parse(&[b'a'; 256]), Err(BadHost::TooLong));
    }

    #[test]
    fn every_reason_is_its_own() {
        let mut reasons: Vec<_> = BadHost::ALL.iter().map(|bad| bad.reason()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), BadHost::ALL.len());
    }

    proptest! {
        #[test]
        fn the_canonical_form_of_a_host_is_itself(text in "[A-Za-z0-9.:@,_\\[\\]-]{0,24}") {
            if let Ok(host) = Host::parse(text.as_bytes()) {
                let printed = host.to_string();
                prop_assert_eq!(Host::parse(printed.as_bytes()), Ok(host));
            }
        }

        #[test]
        fn no_bytes_make_host_parsing_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Host::parse(&bytes);
        }
    }
}
