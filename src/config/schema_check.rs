//! Judges a document by a schema: the keywords of JSON Schema draft 2020-12 that `schema` writes, and no others.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value as Json;

use super::schema;

pub static SCHEMA: LazyLock<Json> = LazyLock::new(schema::json);

/// Keywords that say something about a document, and that [`accepts`] judges by.
const JUDGED: [&str; 16] = [
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "enum",
    "items",
    "maxItems",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "oneOf",
    "pattern",
    "properties",
    "propertyNames",
    "required",
];
const SILENT: [&str; 6] = [
    "$defs",
    "$schema",
    "default",
    "description",
    "title",
    "x-bounds",
];

/// `Err` is the path of what does not fit.
pub fn accepts(schema: &Json, document: &Json) -> Result<(), String> {
    let Some(keywords) = schema.as_object() else {
        return if *schema == Json::Bool(false) {
            Err(String::new())
        } else {
            Ok(())
        };
    };
    for (keyword, rule) in keywords {
        judge(keyword, rule, keywords, document).map_err(|at| format!("{keyword} {at}"))?;
    }
    Ok(())
}

fn judge(
    keyword: &str,
    rule: &Json,
    beside: &serde_json::Map<String, Json>,
    document: &Json,
) -> Result<(), String> {
    let must = |fits: bool| {
        if fits {
            Ok(())
        } else {
            Err(document.to_string())
        }
    };
    match keyword {
        "$ref" => accepts(
            SCHEMA
                .pointer(rule.as_str().unwrap().trim_start_matches('#'))
                .unwrap(),
            document,
        ),
        "type" => must(is_of_type(rule.as_str().unwrap(), document)),
        "anyOf" => must(
            rule.as_array()
                .unwrap()
                .iter()
                .any(|form| accepts(form, document).is_ok()),
        ),
        "oneOf" => must(
            rule.as_array()
                .unwrap()
                .iter()
                .filter(|form| accepts(form, document).is_ok())
                .count()
                == 1,
        ),
        "const" => must(rule == document),
        "enum" => must(rule.as_array().unwrap().contains(document)),
        "minimum" => must(
            document
                .as_i64()
                .is_none_or(|number| number >= rule.as_i64().unwrap()),
        ),
        "maximum" => must(
            document
                .as_i64()
                .is_none_or(|number| number <= rule.as_i64().unwrap()),
        ),
        "minLength" => must(
            document
                .as_str()
                .is_none_or(|text| text.chars().count() as u64 >= rule.as_u64().unwrap()),
        ),
        "pattern" => must(
            document
                .as_str()
                .is_none_or(|text| Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)),
        ),
        "minItems" => must(
            document
                .as_array()
                .is_none_or(|list| list.len() as u64 >= rule.as_u64().unwrap()),
        ),
        "maxItems" => must(
            document
                .as_array()
                .is_none_or(|list| list.len() as u64 <= rule.as_u64().unwrap()),
        ),
        "items" => document
            .as_array()
            .into_iter()
            .flatten()
            .try_for_each(|element| accepts(rule, element)),
        "required" => {
            let keys = rule.as_array().unwrap();
            must(document.as_object().is_none_or(|table| {
                keys.iter()
                    .all(|key| table.contains_key(key.as_str().unwrap()))
            }))
        }
        "properties" => document
            .as_object()
            .into_iter()
            .flatten()
            .try_for_each(|(key, value)| match rule.get(key) {
                Some(schema) => accepts(schema, value).map_err(|at| format!("{key} {at}")),
                None => Ok(()),
            }),
        "additionalProperties" => {
            document
                .as_object()
                .into_iter()
                .flatten()
                .try_for_each(|(key, value)| {
                    match beside.get("properties").and_then(|known| known.get(key)) {
                        Some(_) => Ok(()),
                        None => accepts(rule, value).map_err(|at| format!("{key} {at}")),
                    }
                })
        }
        "propertyNames" => document
            .as_object()
            .into_iter()
            .flatten()
            .try_for_each(|(key, _)| accepts(rule, &Json::String(key.clone()))),
        _ => Ok(()),
    }
}

fn is_of_type(name: &str, document: &Json) -> bool {
    match name {
        "object" => document.is_object(),
        "array" => document.is_array(),
        "string" => document.is_string(),
        "boolean" => document.is_boolean(),
        "integer" => document.is_i64() || document.is_u64(),
        _ => panic!("unknown type {name}"),
    }
}

#[test]
fn every_keyword_of_the_schema_is_judged_or_says_nothing_about_a_document() {
    fn walk(schema: &Json) {
        for (keyword, rule) in schema.as_object().into_iter().flatten() {
            assert!(
                keyword == "type"
                    || JUDGED.contains(&keyword.as_str())
                    || SILENT.contains(&keyword.as_str()),
                "{keyword}"
            );
            match keyword.as_str() {
                "properties" | "$defs" => rule.as_object().unwrap().values().for_each(walk),
                "anyOf" | "oneOf" => rule.as_array().unwrap().iter().for_each(walk),
                "items" | "additionalProperties" | "propertyNames" => walk(rule),
                _ => {}
            }
        }
    }
    walk(&SCHEMA);
}
