//! Where a redirect points: text with placeholders for parts of the request.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value as Json, json};

use super::Word;
use crate::config::problem::did_you_mean;

/// One part of a redirect's target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    Text(String),
    /// `{host}`: the host of the request, without port.
    Host,
    /// `{path}`: the path of the request.
    Path,
    /// `{query}`: the query of the request without its question mark; nothing when there is none.
    Query,
    /// `{?query}`: the same with its question mark; nothing at all when there is none.
    QuestionQuery,
}

impl TemplatePart {
    const PLACEHOLDERS: [(&'static str, Self); 4] = [
        ("host", Self::Host),
        ("path", Self::Path),
        ("query", Self::Query),
        ("?query", Self::QuestionQuery),
    ];
}

/// A parsed target, at least one part long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectTemplate(Vec<TemplatePart>);

impl RedirectTemplate {
    pub fn parts(&self) -> &[TemplatePart] {
        &self.0
    }
}

impl fmt::Display for RedirectTemplate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            TemplatePart::Text(text) => out.write_str(text),
            TemplatePart::Host => out.write_str("{host}"),
            TemplatePart::Path => out.write_str("{path}"),
            TemplatePart::Query => out.write_str("{query}"),
            TemplatePart::QuestionQuery => out.write_str("{?query}"),
        })
    }
}

impl FromStr for RedirectTemplate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const KNOWN: &str = "{host}, {path}, {query}, {?query}";
        let target = ["/", "http://", "https://", "{path}"];
        if !target.iter().any(|start| text.starts_with(start)) || text.starts_with("//") {
            return Err(format!(
                r#"redirect target {text:?} is relative; expected "https://…", "http://…", "/…" or "{{path}}…""#
            ));
        }
        if let Some(stray) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(format!(
                "redirect target {text:?} holds {stray:?}; expected it percent-encoded"
            ));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(open);
            if !before.is_empty() {
                parts.push(TemplatePart::Text(before.to_owned()));
            }
            let inner = from.strip_prefix('{').and_then(|from| from.split_once('}'));
            let Some((name, after)) = inner else {
                return Err(format!(
                    "redirect target {text:?} has a brace without its other; known: {KNOWN}"
                ));
            };
            match TemplatePart::PLACEHOLDERS
                .into_iter()
                .find(|(known, _)| *known == name)
            {
                Some((_, part)) => parts.push(part),
                None => {
                    let names = TemplatePart::PLACEHOLDERS.map(|(known, _)| known);
                    let meant = did_you_mean(name, names)
                        .map_or(String::new(), |word| format!(" did you mean {{{word}}}?"));
                    return Err(format!(
                        "unknown placeholder {{{name}}};{meant} known: {KNOWN}"
                    ));
                }
            }
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(TemplatePart::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }
}

impl Word for RedirectTemplate {
    const EXPECTS: &'static str = r#"a target such as "https://{host}{path}{?query}""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^(/|https?://|\\{path\\})" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_displays_as_it_was_written() {
        for text in [
            "https://{host}{path}{?query}",
            "/new",
            "{path}",
            "http://a/{path}?x=1&{query}",
        ] {
            assert_eq!(text.parse::<RedirectTemplate>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_template_without_sense_is_refused() {
        for text in [
            "",
            "new",
            "//evil.example",
            "/a b",
            "/{",
            "/}",
            "/{hots}",
            "/{}",
            "javascript:alert(1)",
        ] {
            assert!(text.parse::<RedirectTemplate>().is_err(), "{text}");
        }
    }
}
