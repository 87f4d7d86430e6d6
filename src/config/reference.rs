//! Proves that gateway.toml, the reference of every key, tells the truth.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use toml::de::DeTable;

use super::parse;
use super::schema::to_json;
use super::schema_check::SCHEMA;

const REFERENCE: &str = include_str!("../../gateway.toml");

/// The line without its `#`, if it is a key or a table that was commented out.
fn uncommented(line: &str) -> Option<&str> {
    let inner = line.strip_prefix("# ")?;
    let key = inner.split_once(" = ").is_some_and(|(key, _)| {
        key.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    });
    (key || inner.starts_with('[')).then_some(inner)
}

/// One `key = value` of the file, commented out or not, with the schema of its table.
struct Stated {
    path: String,
    schema: Json,
    value: Json,
    commented: bool,
    line: String,
}

fn stated() -> Vec<Stated> {
    let mut table = Vec::new();
    let mut all = Vec::new();
    for line in REFERENCE.lines() {
        let commented = uncommented(line).is_some();
        let inner = uncommented(line).unwrap_or(line);
        let tree = DeTable::parse(inner).map(|tree| tree.into_inner());
        if inner.starts_with('[') {
            let header = inner.split_once(']').expect("a table header ends").0;
            table = header
                .trim_start_matches('[')
                .split('.')
                .map(str::to_owned)
                .collect();
        } else if let Some((key, value)) = tree.expect("each line is TOML").iter().next() {
            let key = key.get_ref().to_string();
            let properties = properties(&table);
            let schema = properties
                .get(&key)
                .unwrap_or_else(|| panic!("no such key: {line}"))
                .clone();
            let path = format!("{}.{key}", spelled(&table));
            all.push(Stated {
                path,
                schema,
                value: to_json(value.get_ref()),
                commented,
                line: line.to_owned(),
            });
        }
    }
    all
}

/// The table's path with the operator's own names left out.
fn spelled(table: &[String]) -> String {
    let name_at = match table[0].as_str() {
        "upstream" | "headers" | "ban" | "limit" | "plan" => Some(1),
        "cache" => Some(2),
        _ => None,
    };
    let parts = table
        .iter()
        .enumerate()
        .filter(|(index, _)| Some(*index) != name_at);
    parts
        .map(|(_, part)| part.as_str())
        .collect::<Vec<_>>()
        .join(".")
}

/// The keys of the table at a path, through lists, names and alternatives.
fn properties(table: &[String]) -> serde_json::Map<String, Json> {
    let mut at = SCHEMA.clone();
    for key in table {
        let object = object(&at).unwrap_or_else(|| panic!("no such table: {table:?}"));
        at = match &object["properties"][key] {
            Json::Null => object["additionalProperties"].clone(),
            found => found.clone(),
        };
    }
    object(&at)
        .and_then(|object| object["properties"].as_object().cloned())
        .unwrap_or_else(|| panic!("no such table: {table:?}"))
}

fn object(schema: &Json) -> Option<&Json> {
    if schema["type"] == "object" {
        return Some(schema);
    }
    if schema["type"] == "array" {
        return object(&schema["items"]);
    }
    schema["anyOf"].as_array()?.iter().find_map(object)
}

/// Every key of the schema that is not itself a table with keys of its own.
fn leaves(schema: &Json, path: &str, all: &mut BTreeSet<String>) {
    let properties = schema["properties"].as_object().expect("a table has keys");
    for (key, value) in properties {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let inner = object(value).map(|object| match object["additionalProperties"]["properties"]
            .is_object()
        {
            true => &object["additionalProperties"],
            false => object,
        });
        match inner.filter(|inner| inner["properties"].is_object()) {
            Some(inner) => leaves(inner, &path, all),
            None => drop(all.insert(path)),
        }
    }
}

#[test]
fn the_reference_is_a_configuration() {
    let config =
        parse(REFERENCE, "gateway.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.warnings("gateway.toml").to_string(), "");
}

#[test]
fn the_reference_with_every_key_said_is_a_configuration() {
    let text: Vec<&str> = REFERENCE
        .lines()
        .map(|line| uncommented(line).unwrap_or(line))
        .collect();
    parse(&text.join("\n"), "gateway.toml", &|_| None)
        .unwrap_or_else(|problems| panic!("{problems}"));
}

#[test]
fn saying_every_default_changes_nothing() {
    let mut table_is_commented = false;
    let lines = REFERENCE.lines().map(|line| {
        let inner = uncommented(line).unwrap_or(line);
        if inner.starts_with('[') {
            table_is_commented = inner != line;
        }
        if table_is_commented || inner.contains("# no default") {
            line
        } else {
            inner
        }
    });
    let said = lines.collect::<Vec<_>>().join("\n");
    assert!(
        parse(&said, "gateway.toml", &|_| None).unwrap()
            == parse(REFERENCE, "gateway.toml", &|_| None).unwrap()
    );
}

#[test]
fn every_stated_default_is_the_real_one() {
    let mut said = BTreeSet::new();
    for stated in stated() {
        let Stated {
            path,
            schema,
            value,
            commented,
            line,
        } = stated;
        let real = schema.get("default").filter(|_| !said.contains(&path));
        let default_unsaid = line.contains("# no default") || line.contains("# required");
        match real {
            Some(default) if commented => {
                assert_eq!(&value, default, "{line}");
                said.insert(path);
            }
            // An example of a key whose default was said before, or its active line.
            _ => assert!(
                default_unsaid || schema.get("default").is_some(),
                "neither \"no default\" nor \"required\": {line}"
            ),
        }
    }
    let unsaid: Vec<String> = stated()
        .into_iter()
        .filter(|stated| stated.schema.get("default").is_some() && !said.contains(&stated.path))
        .map(|stated| stated.path)
        .collect();
    assert!(
        unsaid.is_empty(),
        "no line states the default of {unsaid:?}"
    );
}

#[test]
fn the_reference_and_the_schema_have_the_same_keys() {
    let mut in_schema = BTreeSet::new();
    leaves(&SCHEMA, "", &mut in_schema);
    let mut in_file: BTreeSet<String> = stated().into_iter().map(|stated| stated.path).collect();
    // Said once more as the short form of the table that follows.
    in_file.retain(|path| path != "upstream.tls" && path != "upstream.backends");
    let missing: Vec<_> = in_schema.difference(&in_file).collect();
    let unknown: Vec<_> = in_file.difference(&in_schema).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "missing {missing:?}, unknown {unknown:?}"
    );
}

#[test]
fn every_bound_is_stated_in_the_reference_and_in_the_documentation() {
    for stated in stated().into_iter().filter(|stated| stated.commented) {
        let Some(bounds) = stated.schema["x-bounds"].as_array() else {
            continue;
        };
        let bound = |index: usize| {
            bounds[index]
                .as_str()
                .map_or_else(|| grouped(bounds[index].as_u64().unwrap()), str::to_owned)
        };
        let text = format!("{} to {}", bound(0), bound(1));
        let description = stated.schema["description"].as_str().unwrap();
        assert!(
            description.contains(&text),
            "{}: {description:?} does not say {text}",
            stated.path
        );
        let shown_elsewhere = ["# no default", "# required"]
            .iter()
            .any(|mark| stated.line.contains(mark));
        assert!(
            shown_elsewhere || stated.line.contains(&text),
            "does not say {text}: {}",
            stated.line
        );
    }
}

/// 1000 is written as it is, 20000 as 20,000.
fn grouped(number: u64) -> String {
    if number < 10_000 {
        number.to_string()
    } else {
        thousands(number)
    }
}

fn thousands(number: u64) -> String {
    if number < 1000 {
        number.to_string()
    } else {
        format!("{},{:03}", thousands(number / 1000), number % 1000)
    }
}
