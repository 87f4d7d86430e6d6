//! What a header policy is made of: fields with their values, a Content-Security-Policy, an age of https.

use std::fmt;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue};
use serde_json::{Value as Json, json};

use super::http::{TOKEN, parse_name};
use super::quantity::parse_duration;
use crate::config::problem::{Located, unknown};
use crate::config::read::{Node, Reader, Value};

/// Fields with their values, in file order. One field may have several values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeaderFields(pub Vec<(Located<HeaderName>, HeaderValue)>);

impl Value for HeaderFields {
    fn expects() -> String {
        r#"a table of fields such as { "X-Frame-Options" = "DENY" }"#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let fields = reader.fields(node, None, &Self::expects())?;
        let mut list = Vec::new();
        for (key, place, node) in fields.in_order() {
            let name = parse_name(key)
                .map_err(|wrong| reader.note(&place, wrong))
                .ok();
            let values = match node.is_str() {
                true => HeaderValue::read(node, reader).map(|value| vec![value]),
                false => Vec::<HeaderValue>::read(node, reader),
            };
            if let (Some(name), Some(values)) = (name, values) {
                list.extend(values.into_iter().map(|value| {
                    (
                        Located {
                            value: name.clone(),
                            place,
                        },
                        value,
                    )
                }));
            }
        }
        Some(Self(list))
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "propertyNames": { "pattern": TOKEN },
            "additionalProperties": { "anyOf": [HeaderValue::schema(), Vec::<HeaderValue>::schema()] },
        })
    }
}

/// A Content-Security-Policy: directives with their sources, in file order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CspSpec(pub Vec<(String, Vec<String>)>);

impl fmt::Display for CspSpec {
    /// The value of the field.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (directive, sources)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(out, "{separator}{directive}")?;
            sources
                .iter()
                .try_for_each(|source| write!(out, " {source}"))?;
        }
        Ok(())
    }
}

/// Content Security Policy Level 3 section 6, with the directives of its neighbour specifications.
const DIRECTIVES: [&str; 26] = [
    "base-uri",
    "child-src",
    "connect-src",
    "default-src",
    "fenced-frame-src",
    "font-src",
    "form-action",
    "frame-ancestors",
    "frame-src",
    "img-src",
    "manifest-src",
    "media-src",
    "object-src",
    "report-to",
    "report-uri",
    "require-trusted-types-for",
    "sandbox",
    "script-src",
    "script-src-attr",
    "script-src-elem",
    "style-src",
    "style-src-attr",
    "style-src-elem",
    "trusted-types",
    "upgrade-insecure-requests",
    "worker-src",
];

/// Sources that mean something only in single quotes; bare, a browser takes them for hosts.
const KEYWORDS: [&str; 9] = [
    "none",
    "report-sample",
    "self",
    "strict-dynamic",
    "unsafe-eval",
    "unsafe-hashes",
    "unsafe-inline",
    "wasm-unsafe-eval",
    "inline-speculation-rules",
];

fn parse_source(directive: &str, text: &str) -> Result<String, String> {
    let sourced = directive.ends_with("-src")
        || matches!(directive, "base-uri" | "form-action" | "frame-ancestors");
    if sourced && KEYWORDS.contains(&text) {
        return Err(format!(
            r#"source {text:?} is a host of that name without its quotes; did you mean "'{text}'"?"#
        ));
    }
    match text {
        "" => Err(
            "a source is empty; expected one such as \"'self'\" or \"https://cdn.example\""
                .to_owned(),
        ),
        _ if text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b';' && byte != b',') =>
        {
            Ok(text.to_owned())
        }
        _ => Err(format!(
            "source {text:?} cannot stand in a policy; expected ASCII without space, semicolon and comma"
        )),
    }
}

impl Value for CspSpec {
    fn expects() -> String {
        r#"a table of directives such as { default-src = ["'self'"] }"#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let fields = reader.fields(node, None, &Self::expects())?;
        let mut directives = Vec::new();
        for (directive, place, node) in fields.in_order() {
            if !DIRECTIVES.contains(&directive) {
                reader.note(
                    &place,
                    unknown("directive", directive, "known", &DIRECTIVES),
                );
                continue;
            }
            let Some(elements) = reader.elements(node, r#"a list of sources such as ["'self'"]"#)
            else {
                continue;
            };
            let sources = elements
                .into_iter()
                .filter_map(|element| {
                    reader.parsed(element, "a source", |text| parse_source(directive, text))
                })
                .collect();
            directives.push((directive.to_owned(), sources));
        }
        Some(Self(directives))
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "propertyNames": { "enum": DIRECTIVES },
            "additionalProperties": { "type": "array", "items": { "type": "string" } },
        })
    }
}

/// Strict-Transport-Security, sent on https alone (RFC 6797 section 7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HstsSpec {
    Off,
    MaxAge(Duration),
}

impl Value for HstsSpec {
    fn expects() -> String {
        r#"false or a duration such as "730d""#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.as_bool() {
            Some(false) => Some(Self::Off),
            Some(true) => {
                reader.mismatch(node, &Self::expects());
                None
            }
            None => reader
                .parsed(node, &Self::expects(), parse_duration)
                .map(Self::MaxAge),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "const": false }, Duration::schema()] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_written_as_the_field_wants_it() {
        let csp = CspSpec(vec![
            (
                "default-src".to_owned(),
                vec!["'self'".to_owned(), "data:".to_owned()],
            ),
            ("upgrade-insecure-requests".to_owned(), vec![]),
        ]);
        assert_eq!(
            csp.to_string(),
            "default-src 'self' data:; upgrade-insecure-requests"
        );
    }
}
