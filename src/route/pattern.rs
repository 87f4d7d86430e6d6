//! What a route is chosen by: a host pattern and a path prefix, both canonical.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::target::{BadHost, BadPath, Host, PathRules, Target};

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
    #[error("invalid host \"{text}\"; expected a name such as shop.example or *.example")]
    Host {
        text: String,
        #[source]
        source: BadHost,
    },
    #[error("host \"{0}\" has a port; a route answers on every port")]
    Port(String),
}

impl FromStr for HostPattern {
    type Err = BadHostPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, wildcard) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let host = Host::parse(name.as_bytes()).map_err(|source| BadHostPattern::Host {
            text: text.to_owned(),
            source,
        })?;
        if host.port().is_some() {
            return Err(BadHostPattern::Port(text.to_owned()));
        }
        Ok(if wildcard {
            HostPattern::Under(host.name().into())
        } else {
            HostPattern::Exact(host.name().into())
        })
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
    #[error("invalid path \"{text}\"; expected one that begins with / such as /api")]
    Path {
        text: String,
        #[source]
        source: BadPath,
    },
    #[error("path \"{text}\" could never match; requests have it as \"{canonical}\"")]
    NotCanonical { text: String, canonical: String },
    #[error("path \"{0}\" has a query; routes are chosen by path alone")]
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
        let target = Target::parse(text.as_bytes(), &PathRules::default()).map_err(|source| {
            BadPathPrefix::Path {
                text: text.to_owned(),
                source,
            }
        })?;
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
        assert!(show("*").is_err() && show("a.*.b").is_err() && show("").is_err());
    }

    #[test]
    fn a_path_prefix_that_could_never_match_is_refused() {
        let parse = |text: &str| text.parse::<PathPrefix>().map_err(|bad| bad.to_string());
        assert!(parse("/a%20b").is_ok());
        assert_eq!(
            parse("/a/../b").unwrap_err(),
            "path \"/a/../b\" could never match; requests have it as \"/b\""
        );
        assert!(parse("a").unwrap_err().starts_with("invalid path \"a\""));
        assert!(parse("/a?b").unwrap_err().contains("has a query"));
    }
}
