//! What a route is chosen by: a host pattern and a path prefix, both canonical.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::address::{is_host, is_host_name};
use crate::target::{BadPath, Host, PathRules, Target};

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

/// A path prefix of whole segments, canonical as request paths are.
///
/// `/api` matches `/api` and `/api/x`, not `/apix`. `/api/` matches only what is below it: `/api/`
/// and `/api/x`, not `/api`. `/` matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPrefix(Box<str>);

/// Why a text is not a [`PathPrefix`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadPathPrefix {
    #[error(r#"path {0:?} does not start with "/"; expected "/{0}""#)]
    Relative(String),
    #[error(
        r#"path {text:?} could never match: {source}; expected one such as "/api" or "/a%20b""#
    )]
    Path {
        text: String,
        #[source]
        source: BadPath,
    },
    #[error("path {text:?} could never match; requests have it as {canonical:?}")]
    NotCanonical { text: String, canonical: String },
    #[error("path {0:?} has a query; routes are chosen by path alone")]
    Query(String),
}

impl PathPrefix {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What of `path` follows this prefix, if it matches; empty or with its leading `/`.
    pub fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        let bare = self.0.strip_suffix('/').unwrap_or(&self.0);
        let rest = path.strip_prefix(bare)?;
        let matches = if bare.len() < self.0.len() {
            rest.starts_with('/')
        } else {
            rest.is_empty() || rest.starts_with('/')
        };
        matches.then_some(rest)
    }
}

impl FromStr for PathPrefix {
    type Err = BadPathPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |source| match source {
            BadPath::NotAbsolute => BadPathPrefix::Relative(text.to_owned()),
            source => BadPathPrefix::Path {
                text: text.to_owned(),
                source,
            },
        };
        let target = Target::parse(text.as_bytes(), &PathRules::default()).map_err(wrong)?;
        if target.query().is_some() {
            return Err(BadPathPrefix::Query(text.to_owned()));
        }
        if !target.is_as_sent() {
            return Err(BadPathPrefix::NotCanonical {
                text: text.to_owned(),
                canonical: target.path().to_owned(),
            });
        }
        Ok(PathPrefix(text.into()))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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

    #[test]
    fn a_path_prefix_that_could_never_match_is_refused() {
        let parse = |text: &str| text.parse::<PathPrefix>().map_err(|bad| bad.to_string());
        assert!(parse("/a%20b").is_ok());
        assert_eq!(
            parse("/a/../b").unwrap_err(),
            "path \"/a/../b\" could never match; requests have it as \"/b\""
        );
        assert_eq!(
            parse("a").unwrap_err(),
            r#"path "a" does not start with "/"; expected "/a""#
        );
        for text in ["/api", "/api/", "/a;b=1", "//"] {
            assert!(parse(text).is_ok(), "{text}");
        }
        for text in ["", "/a#b", "/a b", "/a\\b", "/.", "/a%2", "/a%zz", "/é"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("/a?b").unwrap_err().contains("has a query"));
    }
}
