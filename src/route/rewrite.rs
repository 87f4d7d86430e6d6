//! The path that is forwarded and the place that is redirected to, from canonical parts.
//!
//! Pure text to text. Since host, path and query are canonical, none can bring a control character
//! into a field.

use std::fmt::Write as _;
use std::str::FromStr;

use thiserror::Error;

use crate::target::PathPrefix;
use crate::word::did_you_mean;

/// The path without the prefix that matched it; always begins with `/`.
pub fn strip_prefix<'p>(prefix: &PathPrefix, path: &'p str) -> &'p str {
    match prefix.rest(path) {
        None => path,
        Some("") => "/",
        Some(rest) => rest,
    }
}

/// The path with the prefix that matched it replaced by another.
pub fn replace_prefix(prefix: &PathPrefix, replacement: &PathPrefix, path: &str) -> String {
    let Some(rest) = prefix.rest(path) else {
        return path.to_owned();
    };
    let replacement = replacement.as_str();
    let base = replacement.strip_suffix('/').unwrap_or(replacement);
    let rest = match rest {
        "" if base.is_empty() || base.len() < replacement.len() => "/",
        rest => rest,
    };
    format!("{base}{rest}")
}

/// What the placeholders of a [`Template`] stand for; all canonical.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// With the port, if it is to be kept.
    pub host: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
}

/// Where a redirect goes: text with `{host}`, `{path}`, `{query}` and `{?query}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Host,
    Path,
    Query,
    /// The query with its question mark, or nothing.
    MarkedQuery,
}

const KNOWN: &str = "{host}, {path}, {query}, {?query}";

/// Why a text is not a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadTemplate {
    #[error("unknown placeholder {{{0}}};{meant} known: {KNOWN}", meant = meant(.0))]
    Placeholder(String),
    #[error("redirect target {0:?} has a brace without its other; known: {KNOWN}")]
    Brace(String),
    #[error("redirect target {text:?} holds {stray:?}; expected it percent-encoded")]
    Character { text: String, stray: char },
    #[error(
        r#"redirect target {0:?} is relative; expected "https://…", "http://…", "/…" or "{{path}}…""#
    )]
    Start(String),
}

fn meant(name: &str) -> String {
    did_you_mean(name, ["host", "path", "query", "?query"])
        .map_or(String::new(), |word| format!(" did you mean {{{word}}}?"))
}

impl FromStr for Template {
    type Err = BadTemplate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let starts = ["https://", "http://", "/", "{path}"];
        if !starts.iter().any(|start| text.starts_with(start)) || text.starts_with("//") {
            return Err(BadTemplate::Start(text.to_owned()));
        }
        if let Some(stray) = text.chars().find(|c| !c.is_ascii_graphic()) {
            let text = text.to_owned();
            return Err(BadTemplate::Character { text, stray });
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let brace = rest.find(['{', '}']).unwrap_or(rest.len());
            if brace > 0 {
                pieces.push(Piece::Text(rest[..brace].to_owned()));
                rest = &rest[brace..];
                continue;
            }
            let (name, tail) = rest
                .strip_prefix('{')
                .and_then(|rest| rest.split_once('}'))
                .ok_or_else(|| BadTemplate::Brace(text.to_owned()))?;
            pieces.push(match name {
                "host" => Piece::Host,
                "path" => Piece::Path,
                "query" => Piece::Query,
                "?query" => Piece::MarkedQuery,
                _ => return Err(BadTemplate::Placeholder(name.to_owned())),
            });
            rest = tail;
        }
        Ok(Template { pieces })
    }
}

impl Template {
    /// Fills the template. The result is visible ASCII, fit for a `Location` field.
    pub fn fill(&self, parts: &Parts<'_>) -> String {
        let mut location = String::with_capacity(64 + parts.path.len());
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => location.push_str(text),
                Piece::Host => location.push_str(parts.host),
                Piece::Path if matches!(location.as_str(), "" | "/") => {
                    // "//elsewhere/" alone would be another host (RFC 3986 4.2).
                    location.replace_range(.., "/");
                    location.push_str(parts.path.trim_start_matches('/'));
                }
                Piece::Path => location.push_str(parts.path),
                Piece::Query => location.push_str(parts.query.unwrap_or_default()),
                Piece::MarkedQuery => {
                    if let Some(query) = parts.query {
                        write!(location, "?{query}").expect("a String takes everything");
                    }
                }
            }
        }
        location
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> PathPrefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_stripped_path_still_begins_with_a_slash() {
        for (matched, path, expected) in [
            ("/api", "/api", "/"),
            ("/api", "/api/", "/"),
            ("/api", "/api/x", "/x"),
            ("/api/", "/api/x", "/x"),
            ("/", "/x", "/x"),
            ("/", "/", "/"),
        ] {
            assert_eq!(
                strip_prefix(&prefix(matched), path),
                expected,
                "{matched} {path}"
            );
        }
    }

    #[test]
    fn a_replaced_prefix_keeps_the_rest() {
        for (matched, by, path, expected) in [
            ("/api", "/v2", "/api", "/v2"),
            ("/api", "/v2", "/api/x", "/v2/x"),
            ("/api", "/v2/", "/api/x", "/v2/x"),
            ("/api", "/v2/", "/api", "/v2/"),
            ("/api/", "/v2", "/api/x", "/v2/x"),
            ("/api", "/", "/api", "/"),
            ("/api", "/", "/api/x", "/x"),
            ("/", "/v2", "/", "/v2/"),
            ("/", "/v2", "/x", "/v2/x"),
        ] {
            let found = replace_prefix(&prefix(matched), &prefix(by), path);
            assert_eq!(found, expected, "{matched} by {by}: {path}");
        }
    }

    fn fill(template: &str, path: &str, query: Option<&str>) -> String {
        let host = "shop.example";
        template
            .parse::<Template>()
            .unwrap()
            .fill(&Parts { host, path, query })
    }

    #[test]
    fn a_template_is_filled() {
        let https = "https://{host}{path}{?query}";
        assert_eq!(fill(https, "/a", Some("b=c")), "https://shop.example/a?b=c");
        assert_eq!(fill(https, "/a", None), "https://shop.example/a");
        assert_eq!(fill(https, "/a", Some("")), "https://shop.example/a?");
        assert_eq!(
            fill("/new{path}?from={host}&{query}", "/a", Some("b")),
            "/new/a?from=shop.example&b"
        );
    }

    #[test]
    fn a_path_alone_never_leads_to_another_host() {
        assert_eq!(fill("{path}", "//evil.example/x", None), "/evil.example/x");
        assert_eq!(fill("/{path}", "/evil.example/x", None), "/evil.example/x");
        assert_eq!(fill("{path}x", "/", None), "/x");
        assert_eq!(
            fill("https://{host}{path}", "//evil", None),
            "https://shop.example//evil"
        );
    }

    #[test]
    fn a_template_that_leads_nowhere_is_refused() {
        let why = |text: &str| text.parse::<Template>().unwrap_err().to_string();
        assert_eq!(
            why("https://{hots}/"),
            "unknown placeholder {hots}; did you mean {host}? known: {host}, {path}, {query}, {?query}"
        );
        assert!(why("https://{host").contains("brace"));
        assert!(why("https://a}").contains("brace"));
        assert!(why("https://a b").contains("holds ' '"));
        assert!(why("https://a\r\nX: y").contains("holds '\\r'"));
        for text in [
            "",
            "shop.example",
            "//{host}/",
            "javascript:{path}",
            "{host}{path}",
            "{query}",
        ] {
            assert!(why(text).contains("is relative"), "{text}");
        }
    }
}
