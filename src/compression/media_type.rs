//! Types of content that are worth compressing: patterns of media types (RFC 9110 8.3.1).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::http1::grammar::{is_token, trim};

/// Events are read as they come: `text/*` does not mean them, only their own name does.
const EVENTS: &[u8] = b"text/event-stream";

/// `text/html`, `text/*` or `*+json`. In lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaType {
    One(Box<str>),
    /// All of one type, with its slash.
    Type(Box<str>),
    /// All of one structure (RFC 6838 4.2.8), with its plus.
    Suffix(Box<str>),
}

/// Why a text is no [`MediaType`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(r#"{0:?} is not a media type; expected one such as "text/html", "text/*" or "*+json""#)]
pub struct BadMediaType(String);

impl FromStr for MediaType {
    type Err = BadMediaType;

    fn from_str(text: &str) -> Result<Self, BadMediaType> {
        let wrong = || BadMediaType(text.to_owned());
        let is_name = |name: &str| is_token(name.as_bytes()) && !name.contains('*');
        let lower = || text.to_ascii_lowercase();
        if let Some(suffix) = text.strip_prefix("*+") {
            let suffix = is_name(suffix).then(|| lower()[1..].into());
            return suffix.map(Self::Suffix).ok_or_else(wrong);
        }
        match text.split_once('/') {
            Some((kind, "*")) if is_name(kind) => {
                Ok(Self::Type(lower().trim_end_matches('*').into()))
            }
            Some((kind, name)) if is_name(kind) && is_name(name) => Ok(Self::One(lower().into())),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(name) => out.write_str(name),
            Self::Type(kind) => write!(out, "{kind}*"),
            Self::Suffix(suffix) => write!(out, "*{suffix}"),
        }
    }
}

/// Several of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaTypes {
    names: Vec<Box<[u8]>>,
    types: Vec<Box<[u8]>>,
    suffixes: Vec<Box<[u8]>>,
}

impl MediaTypes {
    /// Whether a `Content-Type` is one of them, whatever its parameters.
    pub fn have(&self, content_type: &[u8]) -> bool {
        let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
        let essence = trim(&content_type[..end]);
        let begins = |kind: &[u8]| {
            let start = essence.get(..kind.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(kind))
        };
        let ends = |suffix: &[u8]| {
            let start = essence.len().checked_sub(suffix.len());
            start.is_some_and(|start| essence[start..].eq_ignore_ascii_case(suffix))
        };
        self.types.iter().any(|kind| begins(kind)) && !essence.eq_ignore_ascii_case(EVENTS)
            || self.suffixes.iter().any(|suffix| ends(suffix))
            || self
                .names
                .iter()
                .any(|name| essence.eq_ignore_ascii_case(name))
    }
}

impl<'a> FromIterator<&'a MediaType> for MediaTypes {
    fn from_iter<I: IntoIterator<Item = &'a MediaType>>(patterns: I) -> Self {
        let mut types = Self::default();
        for pattern in patterns {
            let (of, text) = match pattern {
                MediaType::One(name) => (&mut types.names, name),
                MediaType::Type(kind) => (&mut types.types, kind),
                MediaType::Suffix(suffix) => (&mut types.suffixes, suffix),
            };
            of.push(text.as_bytes().into());
        }
        types
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_written_as_it_is_or_by_its_beginning_or_end() {
        for text in ["text/html", "text/*", "*+json", "application/vnd.a+xml"] {
            assert_eq!(text.parse::<MediaType>().unwrap().to_string(), text);
        }
        assert_eq!("Text/HTML".parse(), "text/html".parse::<MediaType>());
        for text in [
            "",
            "text",
            "*/*",
            "*",
            "text/",
            "/html",
            "text/h*",
            "*+",
            "text/html; charset=utf-8",
            "*+a/b",
        ] {
            let wrong = text.parse::<MediaType>();
            assert_eq!(wrong, Err(BadMediaType(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn parameters_and_case_do_not_matter_and_events_have_to_be_named() {
        let types = |patterns: &[&str]| -> MediaTypes {
            let patterns: Vec<MediaType> =
                patterns.iter().map(|one| one.parse().unwrap()).collect();
            patterns.iter().collect()
        };
        let usual = types(&["text/*", "*+json", "application/json"]);
        for (content_type, expected) in [
            ("text/html", true),
            ("Text/HTML ; charset=utf-8", true),
            ("text/plain;a=\"b;c\"", true),
            ("application/json", true),
            ("application/problem+json; a=b", true),
            ("application/jsonp", false),
            ("image/png", false),
            ("text", false),
            ("", false),
            ("text/event-stream", false),
            ("TEXT/Event-Stream; charset=utf-8", false),
        ] {
            assert_eq!(
                usual.have(content_type.as_bytes()),
                expected,
                "{content_type}"
            );
        }
        assert!(types(&["text/event-stream"]).have(b"text/event-stream"));
    }
}
