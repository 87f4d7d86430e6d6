//! The words of limits: quotas, keys of clients, time zones.

use jiff::tz::TimeZone;
use serde_json::{Value as Json, json};

use super::{FilePath, Word, or_variable};
use crate::config::read::{Node, Reader, Value};
use crate::limit::key::{self, Key};
use crate::limit::quota::{self, Quota};

impl Word for Quota {
    const EXPECTS: &'static str = quota::FORM;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^[0-9][0-9_]*( (B|KiB|MiB|GiB))? per [0-9a-z]+(, burst [0-9][0-9_]*( (B|KiB|MiB|GiB))?)?$" })
    }
}

impl Word for Key {
    const EXPECTS: &'static str = key::FORM;
}

/// One quota, or several that hold together.
#[derive(Debug, Clone, PartialEq)]
pub struct Quotas(pub Vec<Quota>);

impl Value for Quotas {
    fn expects() -> String {
        format!("{}, or a list of such", quota::FORM)
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.is_str() {
            true => Quota::read(node, reader).map(|quota| Self(vec![quota])),
            false => Vec::<Quota>::read(node, reader).map(Self),
        }
    }

    fn schema() -> Json {
        let list =
            json!({ "type": "array", "items": Quota::schema(), "minItems": 1, "maxItems": 8 });
        json!({ "anyOf": [Quota::schema(), list] })
    }
}

/// Where the plans of keys are written.
#[derive(Debug, Clone, PartialEq)]
pub enum KeySource {
    File(FilePath),
    /// The name of a hash, without the prefix of all keys.
    Redis(String),
}

impl Value for KeySource {
    fn expects() -> String {
        r#"the path of a file with one key and its plan a line, or "redis:HASH""#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let file = FilePath::read(node, reader)?;
        match file.written.strip_prefix("redis:") {
            None => Some(Self::File(file)),
            Some("") => {
                reader.mismatch(node, &Self::expects());
                None
            }
            Some(hash) => Some(Self::Redis(hash.to_owned())),
        }
    }

    fn schema() -> Json {
        FilePath::schema()
    }
}

impl Value for TimeZone {
    fn expects() -> String {
        r#"the name of a time zone such as "Europe/Zurich""#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parsed(node, &Self::expects(), |name| {
            TimeZone::get(name)
                .map_err(|_| format!("{name:?} is no time zone; expected {}", Self::expects()))
        })
    }

    fn schema() -> Json {
        or_variable(json!({ "type": "string", "minLength": 1 }))
    }
}
