//! The hosts that a route is chosen by, canonical.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::address::{is_host, is_host_name};
use crate::target::Host;

/// Which hosts a route answers for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every host, also none.
    Any,
    /// One canonical name, without port.
    Exact(Box<str>),
    /// `*.example`: any name that ends in `.example`, of one label or more before it. Held without
    /// the star and its dot.
    Under(Box<str>),
}

/// Why a text is not a [`HostPattern`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadHostPattern {
    #[error(
        r#"{0:?} is not a host; expected a name such as "shop.example" or "*.shop.example", without port"#
    )]
    Host(String),
    #[error("host {0:?} has a port; a route answers on every port")]
    Port(String),
}

impl FromStr for HostPattern {
    type Err = BadHostPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || BadHostPattern::Host(text.to_owned());
        let (name, wildcard) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let host = Host::parse(name.as_bytes()).map_err(|_| wrong())?;
        if host.port().is_some() {
            return Err(BadHostPattern::Port(text.to_owned()));
        }
        // Stricter than what a client may send: what is written here was written by hand.
        match wildcard {
            true if is_host_name(name) => Ok(Self::Under(host.name().into())),
            false if is_host(name) => Ok(Self::Exact(host.name().into())),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Any => f.write_str("*"),
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Under(name) => write!(f, "*.{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_pattern_is_canonical() {
        let show = |text: &str| text.parse::<HostPattern>().map(|host| host.to_string());
        assert_eq!(show("Shop.Example.").unwrap(), "shop.example");
        assert_eq!(show("*.Example").unwrap(), "*.example");
        assert_eq!(
            show("a:80").unwrap_err().to_string(),
            "host \"a:80\" has a port; a route answers on every port"
        );
        assert_eq!(show("[::0:1]").unwrap(), "[::1]");
        for text in [
            "",
            "*",
            "*.",
            "*.10.0.0.1",
            "a.*.b",
            "shop_ example",
            "a..b",
            "-a",
            "http://a",
            "bücher.example",
            "1.2.3",
        ] {
            assert!(show(text).is_err(), "{text}");
        }
    }
}
