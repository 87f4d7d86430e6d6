//! What a header policy is made of: fields with their values, a Content-Security-Policy, an age of https.

use std::time::Duration;

use ::http::HeaderValue;
use serde_json::{Value as Json, json};

use super::http::TOKEN;
use super::quantity::parse_duration;
use crate::config::read::{Node, Reader, Value};
use crate::headers::policy::{FieldName, Hsts};
use crate::headers::security::{Csp, DIRECTIVES, check_value, known_directive};

/// Fields with their values, in file order. One field may have several values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeaderFields(pub Vec<(FieldName, HeaderValue)>);

impl Value for HeaderFields {
    fn expects() -> String {
        r#"a table of fields such as { "X-Frame-Options" = "DENY" }"#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let fields = reader.fields(node, None, &Self::expects())?;
        let mut list = Vec::new();
        for (key, place, node) in fields.in_order() {
            let name = key
                .parse::<FieldName>()
                .map_err(|wrong| reader.note(&place, wrong.to_string()))
                .ok();
            let values = match node.is_str() {
                true => HeaderValue::read(node, reader).map(|value| vec![value]),
                false => Vec::<HeaderValue>::read(node, reader),
            };
            if let (Some(name), Some(values)) = (name, values) {
                list.extend(values.into_iter().map(|value| (name.clone(), value)));
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

impl Value for Csp {
    fn expects() -> String {
        r#"a table of directives such as { default-src = ["'self'"] }"#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let fields = reader.fields(node, None, &Self::expects())?;
        let mut policy = Self::default();
        for (directive, place, node) in fields.in_order() {
            if let Err(wrong) = known_directive(directive) {
                reader.note(&place, wrong.to_string());
                continue;
            }
            let Some(elements) = reader.elements(node, r#"a list of sources such as ["'self'"]"#)
            else {
                continue;
            };
            let sources: Option<Vec<String>> = elements
                .into_iter()
                .map(|element| {
                    reader.parsed(element, "a source", |text| {
                        let right = check_value(directive, text).map(|()| text.to_owned());
                        right.map_err(|wrong| wrong.to_string())
                    })
                })
                // All of them first: each wrong one has its own place.
                .collect::<Vec<_>>()
                .into_iter()
                .collect();
            if let Some(sources) = sources
                && let Err(wrong) = policy.push(directive, &sources)
            {
                reader.note(&place, wrong.to_string());
            }
        }
        Some(policy)
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "propertyNames": { "enum": DIRECTIVES },
            "additionalProperties": { "type": "array", "items": { "type": "string" } },
        })
    }
}

impl Value for Hsts {
    fn expects() -> String {
        r#"false or a duration such as "730d""#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.as_bool() {
            Some(false) => Some(Self::Never),
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
