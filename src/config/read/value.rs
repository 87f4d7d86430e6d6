//! Values of every kind of TOML: integers, booleans, strings, lists, named tables, and what may be absent.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::{Node, Reader, Value};
use crate::config::problem::Located;

impl<T: Value> Value for Option<T> {
    fn expects() -> String {
        T::expects()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        T::read(node, reader).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn schema() -> Json {
        T::schema()
    }
}

impl<T: Value> Value for Located<T> {
    fn expects() -> String {
        T::expects()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let place = reader.place(node);
        T::read(node, reader).map(|value| Self { value, place })
    }

    fn schema() -> Json {
        T::schema()
    }
}

impl<T: Value> Value for Vec<T> {
    fn expects() -> String {
        match T::expects() {
            header if header.starts_with("[[") => format!("{header} for each"),
            entry => format!("a list, each entry {entry}"),
        }
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let elements = reader.elements(node, &Self::expects())?;
        Some(
            elements
                .into_iter()
                .filter_map(|element| T::read(element, reader))
                .collect(),
        )
    }

    fn makeshift() -> Option<Self> {
        Some(Self::new())
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": T::schema() })
    }
}

/// Tables with names of the operator's choosing: `[upstream.NAME]`.
impl<T: Value> Value for BTreeMap<String, T> {
    fn expects() -> String {
        "a table of named tables".to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let fields = reader.fields(node, None, &Self::expects())?;
        let mut named = Self::new();
        for (name, place, node) in fields.in_order() {
            let spelled = (1..=64).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
            if !spelled {
                reader.note(
                    &place,
                    format!("name {name:?} is not usable; expected 1 to 64 of a-z, 0-9, _ and -"),
                );
            }
            named.extend(T::read(node, reader).map(|value| (name.to_owned(), value)));
        }
        Some(named)
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "propertyNames": { "pattern": "^[a-z0-9_-]{1,64}$" },
            "additionalProperties": T::schema(),
        })
    }
}

impl Value for bool {
    fn expects() -> String {
        "true or false".to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.boolean(node)
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "type": "boolean" }, { "$ref": "#/$defs/variable" }] })
    }
}

macro_rules! integers {
    ($($type:ty),+) => {$(
        impl Value for $type {
            fn expects() -> String {
                "an integer".to_owned()
            }

            fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
                let (least, most) = (<$type>::MIN.to_string(), <$type>::MAX.to_string());
                let number = reader.integer(node, (&least, &most))?;
                let number = <$type>::try_from(number).ok();
                if number.is_none() {
                    reader.out_of_bounds(node, (&least, &most));
                }
                number
            }

            fn schema() -> Json {
                json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "$ref": "#/$defs/variable" }] })
            }
        }
    )+};
}
integers!(u16, u32, u64, usize);

impl Value for String {
    fn expects() -> String {
        "a string".to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.string(node, &Self::expects())
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}
