//! The paths that only scanners ask for, where nothing is served there.

use std::str::FromStr;

use thiserror::Error;

/// A path, or with a `*` at its end all that begin so. Letters are of any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: Box<str>,
    is_prefix: bool,
}

/// A text that is no pattern.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(r#"{0:?} is no path; expected one such as "/trap" or, for all that begin so, "/trap/*""#)]
pub struct BadPathPattern(String);

impl FromStr for PathPattern {
    type Err = BadPathPattern;

    fn from_str(text: &str) -> Result<Self, BadPathPattern> {
        let path = text.strip_suffix('*').unwrap_or(text);
        let strays =
            |c: char| c == '*' || c == '?' || c == '#' || c.is_whitespace() || c.is_control();
        if !path.starts_with('/') || path.contains(strays) || text == "/*" {
            return Err(BadPathPattern(text.to_owned()));
        }
        Ok(Self {
            text: path.into(),
            is_prefix: path.len() < text.len(),
        })
    }
}

impl PathPattern {
    /// Whether a canonical path is one of these.
    pub fn covers(&self, path: &str) -> bool {
        match self.is_prefix {
            true => begins(path, &self.text),
            false => path.eq_ignore_ascii_case(&self.text),
        }
    }
}

/// Configurations, keys, repositories, consoles and holes of widespread software. In lower case.
const KNOWN: [&str; 26] = [
    "/+cscoe+/",
    "/.aws/",
    "/.ds_store",
    "/.env",
    "/.git/",
    "/.hg/",
    "/.htpasswd",
    "/.ssh/",
    "/.svn/",
    "/.vscode/",
    "/_ignition/",
    "/_profiler/phpinfo",
    "/actuator/",
    "/boaform/",
    "/cgi-bin/",
    "/hnap1",
    "/phpinfo",
    "/phpmyadmin",
    "/server-status",
    "/solr/admin",
    "/telescope/requests",
    "/vendor/phpunit/",
    "/wp-admin/",
    "/wp-config",
    "/wp-login.php",
    "/xmlrpc.php",
];

/// Whether a path is or begins as one that scanners ask for.
pub fn is_known(path: &str) -> bool {
    KNOWN.iter().any(|known| begins(path, known))
}

fn begins(path: &str, with: &str) -> bool {
    let start = path.as_bytes().get(..with.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scanners_are_known_by_what_they_ask_for() {
        for path in [
            "/.env",
            "/.env.bak",
            "/.git/config",
            "/WP-LOGIN.PHP",
            "/cgi-bin/x",
        ] {
            assert!(is_known(path), "{path}");
        }
        for path in [
            "/",
            "/env",
            "/.well-known/security.txt",
            "/é",
            "/.gitlab",
            "/blog/.env",
        ] {
            assert!(!is_known(path), "{path}");
        }
    }

    #[test]
    fn a_pattern_is_a_path_or_the_beginning_of_one() {
        let covers =
            |pattern: &str, path: &str| pattern.parse::<PathPattern>().unwrap().covers(path);
        assert!(covers("/trap", "/trap") && covers("/Trap", "/tRAP") && !covers("/trap", "/trap/"));
        assert!(
            covers("/trap*", "/trapped")
                && covers("/trap/*", "/trap/")
                && !covers("/trap/*", "/trap")
        );
        for wrong in ["", "trap", "*", "/*", "/a*b", "/a b", "/a?b=1", "/a#"] {
            assert!(wrong.parse::<PathPattern>().is_err(), "{wrong:?}");
        }
    }
}
