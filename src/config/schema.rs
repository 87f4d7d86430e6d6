//! JSON Schema of the file, from the declarations, for editors and for `tollgate schema`.

use serde_json::{Map, Value as Json, json};
use toml::de::DeValue;

use super::read::{Value, constant};
use super::spec::Config;
use super::word::Size;

/// Draft 2020-12. What words cannot hold (bounds of durations and sizes) stands in the descriptions.
pub fn json() -> Json {
    let mut schema = Config::schema();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("gateway.toml");
    schema["$defs"] = json!({
        "variable": {
            "description": "A string with environment variables: ${NAME} or ${NAME:-default}.",
            "type": "string",
            "pattern": "\\$\\{",
        },
    });
    schema
}

/// What a schema says of one key of a table.
#[derive(Clone)]
pub(super) struct Key {
    pub name: &'static str,
    schema: Json,
    presence: Presence,
}

#[derive(Clone, Copy, PartialEq)]
enum Presence {
    Optional,
    Required,
    /// Exactly one of the keys of its group.
    OneOfGroup,
}

impl Key {
    /// The same key as one of a group, of which exactly one must be there.
    pub(super) fn in_group(self) -> Self {
        Self {
            presence: Presence::OneOfGroup,
            ..self
        }
    }
}

/// What a declaration says of one key.
pub(super) fn key_schema<T: Value>(
    name: &'static str,
    doc: &str,
    default: Option<&str>,
    limit: &str,
    bounds: Option<(&str, &str)>,
) -> Key {
    let mut schema = T::schema();
    let members = schema.as_object_mut().expect("a schema is an object");
    members.insert("description".to_owned(), json!(doc.trim()));
    if let Some(default) = default {
        members.insert("default".to_owned(), to_json(&constant(default)));
    }
    if let Some((least, most)) = bounds {
        // An annotation: JSON Schema cannot hold the bounds of a duration, and a test reads them here.
        members.insert(
            "x-bounds".to_owned(),
            json!([to_json(&constant(least)), to_json(&constant(most))]),
        );
        narrow(&mut schema, limit, least, most);
    }
    let presence = match default.is_none() && T::absent().is_none() {
        true => Presence::Required,
        false => Presence::Optional,
    };
    Key {
        name,
        schema,
        presence,
    }
}

/// Writes the bounds where JSON Schema can hold them: of numbers, also of a size in bytes, and of lengths.
fn narrow(schema: &mut Json, limit: &str, least: &str, most: &str) {
    let number = |bound: &str| match to_json(&constant(bound)) {
        Json::String(text) => text.parse().map(|Size(bytes)| json!(bytes)).ok(),
        number => Some(number),
    };
    let (Some(least), Some(most)) = (number(least), number(most)) else {
        return;
    };
    if limit == "entries" {
        schema["minItems"] = least;
        schema["maxItems"] = most;
        return;
    }
    let forms = schema["anyOf"].as_array_mut();
    if let Some(integer) =
        forms.and_then(|forms| forms.iter_mut().find(|form| form["type"] == "integer"))
    {
        integer["minimum"] = least;
        integer["maximum"] = most;
    }
}

/// `short` names the key that a bare string stands for.
pub(super) fn table_schema(about: &str, keys: Vec<Key>, short: Option<&str>) -> Json {
    let named = |presence| {
        keys.iter()
            .filter(move |key| key.presence == presence)
            .map(|key| key.name)
    };
    let required: Vec<&str> = named(Presence::Required).collect();
    let group: Vec<Json> = named(Presence::OneOfGroup)
        .map(|name| json!({ "required": [name] }))
        .collect();
    let bare = short
        .and_then(|short| keys.iter().find(|key| key.name == short))
        .map(|key| key.schema.clone());
    let properties: Map<String, Json> = keys
        .into_iter()
        .map(|key| (key.name.to_owned(), key.schema))
        .collect();
    let mut table = json!({
        "type": "object",
        "description": about.trim(),
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        table["required"] = json!(required);
    }
    if !group.is_empty() {
        table["oneOf"] = json!(group);
    }
    match bare {
        Some(bare) => json!({ "anyOf": [bare, table] }),
        None => table,
    }
}

/// A TOML value as JSON: what an editor shows as the default.
pub(super) fn to_json(value: &DeValue<'_>) -> Json {
    match value {
        DeValue::String(text) => json!(text),
        DeValue::Integer(number) => {
            json!(i64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Float(number) => json!(number.as_str().parse::<f64>().ok()),
        DeValue::Boolean(on) => json!(on),
        DeValue::Datetime(date) => json!(date.to_string()),
        DeValue::Array(elements) => elements
            .iter()
            .map(|element| to_json(element.get_ref()))
            .collect(),
        DeValue::Table(table) => Json::Object(
            table
                .iter()
                .map(|(key, value)| (key.get_ref().to_string(), to_json(value.get_ref())))
                .collect(),
        ),
    }
}
