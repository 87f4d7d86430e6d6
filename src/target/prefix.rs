//! The beginning of paths, in whole segments.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::{BadPath, PathRules, Target};

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

    /// Whether `path` begins with it.
    pub fn matches(&self, path: &str) -> bool {
        self.rest(path).is_some()
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
