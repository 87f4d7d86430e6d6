//! Tables whose keys are words, such as content types or statuses.

use serde_json::{Value as Json, json};

use std::str::FromStr;

use ::http::StatusCode;

use super::Word;
use crate::config::read::{Node, Reader, Value};

/// Keys with their values, in file order.
#[derive(Debug, Clone, PartialEq)]
pub struct Keyed<K, V>(pub Vec<(K, V)>);

impl<K: Word, V: Value> Value for Keyed<K, V> {
    fn expects() -> String {
        format!("a table, each key {}", K::EXPECTS)
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let fields = reader.fields(node, None, &Self::expects())?;
        let mut list = Vec::new();
        for (key, place, node) in fields.in_order() {
            let key = key.parse::<K>();
            let key = key.map_err(|wrong| reader.note(&place, wrong.to_string()));
            let value = V::read(node, reader);
            list.extend(key.ok().zip(value));
        }
        Some(Self(list))
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "propertyNames": K::form(),
            "additionalProperties": V::schema(),
        })
    }
}

/// A final status as a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinalStatus(pub StatusCode);

impl FromStr for FinalStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let status = text
            .parse()
            .ok()
            .filter(|status| (200..600).contains(status));
        let status = status.and_then(|status: u16| StatusCode::from_u16(status).ok());
        status
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not {}", Self::EXPECTS))
    }
}

impl Word for FinalStatus {
    const EXPECTS: &'static str = r#"a status from "200" to "599""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^[2-5][0-9][0-9]$" })
    }
}
