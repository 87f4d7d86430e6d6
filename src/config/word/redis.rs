//! What is said of Redis: nodes, prefixes, and passwords, which no message repeats.

use serde_json::{Value as Json, json};

use super::Word;
use crate::config::read::{Node as Found, Reader, Value};
use crate::redis::{Node, Prefix, Secret};

impl Word for Node {
    const EXPECTS: &'static str = r#"the address of a Redis such as "redis://127.0.0.1:6379" or "rediss://redis.internal:6380/1""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^(redis|valkey)s?://[^/?#]+(/[0-9]*)?$" })
    }
}

impl Word for Prefix {
    const EXPECTS: &'static str = r#"a prefix such as "tollgate:""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^[!-z|~]{0,64}$" })
    }
}

impl Value for Secret {
    fn expects() -> String {
        r#"a password, best as "${NAME}" from the environment"#.to_owned()
    }

    fn read(node: Found<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if !node.is_str() {
            let message = format!("{} is no string; expected {}", node.key, Self::expects());
            reader.note(&reader.place(node), message);
            return None;
        }
        let text = reader.string(node, &Self::expects())?;
        if text.is_empty() {
            let message = format!("{} is empty; expected {}", node.key, Self::expects());
            reader.note(&reader.place(node), message);
            return None;
        }
        Some(Self::new(text))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}
