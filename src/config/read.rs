//! Reads the spanned TOML tree into typed values. Knows TOML and positions; knows no key of the file.
//!
//! Every problem is noted at its place and reading goes on: a wrong value is replaced by its default, a wrong entry
//! of a list is left out. So a result may be incomplete; it is right only when no problem was noted.

mod tree;
mod value;

pub use tree::{Fields, Node};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};

use super::expand;
use super::problem::{Place, Positioned, Problem, Problems};
use crate::word::{did_you_mean, without_credentials};
use tree::{At, Source};

/// A type that can stand behind a key: how it is read, and what an editor may know of it.
pub trait Value: Sized {
    /// What is expected here, as an operator would say it: `a duration such as "10s"`.
    fn expects() -> String;

    /// `None` when nothing could be made of the value; the problem has then been noted.
    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self>;

    /// What it means that the key is absent and has no default. `None`: the key is required.
    fn absent() -> Option<Self> {
        None
    }

    /// What stands in for a required value that is missing or wrong, so that the rest of its table can be checked.
    fn makeshift() -> Option<Self> {
        None
    }

    /// JSON Schema of the written form.
    fn schema() -> Json;
}

/// The text being read, the environment it may name, and the problems found so far.
pub struct Reader<'a> {
    source: Source<'a>,
    directory: PathBuf,
    env: &'a dyn Fn(&str) -> Option<String>,
    pub problems: Problems,
}

impl<'a> Reader<'a> {
    /// Relative paths in the text are meant from the directory of `file`.
    pub fn new(text: &'a str, file: &str, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        let directory = Path::new(file)
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default();
        Self {
            source: Source::new(text),
            directory,
            env,
            problems: Problems::new(file),
        }
    }

    /// The whole document as a `T`; `None` when it is not TOML or what `T` cannot be without is wrong.
    pub fn document<T: Value>(&mut self) -> Option<T> {
        let (tree, errors) = DeTable::parse_recoverable(self.source.text());
        let mut last_line = None;
        for error in &errors {
            let start = error
                .span()
                .map_or(self.source.text().len(), |span| span.start);
            let place = self.source.place(start);
            // What follows an error on its own line is an echo of it.
            if last_line.replace(place.line()) != Some(place.line()) {
                let message = syntax_message(
                    error.message(),
                    error
                        .span()
                        .and_then(|span| self.source.text().get(span))
                        .unwrap_or_default(),
                );
                self.problems.note(&place, message);
            }
        }
        if !errors.is_empty() {
            return None;
        }
        let root = DeValue::Table(tree.into_inner());
        let at = At::Text {
            start: 0,
            end: self.source.text().len(),
        };
        T::read(
            Node {
                key: "the file",
                value: &root,
                at,
                bounds: None,
            },
            self,
        )
    }

    pub fn place(&self, node: Node<'_>) -> Place {
        self.source.place_at(node.at)
    }

    pub fn note(&mut self, what: &impl Positioned, message: impl Into<String>) {
        self.problems.push(Problem::at(what, message));
    }

    /// Notes that `node` is not what it should be.
    pub fn mismatch(&mut self, node: Node<'_>, expected: &str) {
        let message = format!("{} is {}; expected {expected}", node.key, self.quoted(node));
        self.note(&self.place(node), message);
    }

    /// The value as one would quote it in a message.
    fn quoted(&self, node: Node<'_>) -> String {
        match node.value {
            DeValue::String(text) => {
                let expanded = expand::expand(text, self.env);
                let text = expanded.as_deref().unwrap_or(text);
                match text.contains("://") {
                    true => format!("{:?}", without_credentials(text)),
                    false => format!("{text:?}"),
                }
            }
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(on) => on.to_string(),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }

    /// Notes that `node` lies outside its bounds, or outside `widest` when it has none.
    pub fn out_of_bounds(&mut self, node: Node<'_>, widest: (&str, &str)) {
        let (least, most) = node.bounds.unwrap_or(widest);
        self.mismatch(node, &format!("{least} to {most}"));
    }

    /// The string with its variables expanded.
    pub fn string(&mut self, node: Node<'_>, expected: &str) -> Option<String> {
        let DeValue::String(text) = node.value else {
            self.mismatch(node, expected);
            return None;
        };
        match expand::expand(text, self.env) {
            Ok(text) => Some(text),
            Err(wrong) => {
                for fault in wrong {
                    let place = self.source.place_within(node.at, &fault.found);
                    self.note(&place, fault.to_string());
                }
                None
            }
        }
    }

    /// The expanded string as a `T` that parses itself; its error text is the problem.
    pub fn parsed<T>(
        &mut self,
        node: Node<'_>,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.string(node, expected)?;
        parse(&text)
            .map_err(|wrong| self.note(&self.place(node), wrong))
            .ok()
    }

    pub fn integer(&mut self, node: Node<'_>, widest: (&str, &str)) -> Option<i128> {
        let number = match node.value {
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::String(text) if text.contains("${") => {
                let expected = format!("an integer from {} to {}", widest.0, widest.1);
                return self.parsed(node, &expected, |text| {
                    text.replace('_', "")
                        .parse()
                        .map_err(|_| format!("{} is {text:?}; expected an integer", node.key))
                });
            }
            _ => {
                let (least, most) = node.bounds.unwrap_or(widest);
                self.mismatch(node, &format!("an integer from {least} to {most}"));
                return None;
            }
        };
        if number.is_none() {
            self.out_of_bounds(node, widest);
        }
        number
    }

    pub fn boolean(&mut self, node: Node<'_>) -> Option<bool> {
        match node.value {
            DeValue::Boolean(on) => Some(*on),
            DeValue::String(text) if text.contains("${") => {
                self.parsed(node, "true or false", |text| {
                    text.parse()
                        .map_err(|_| format!("{} is {text:?}; expected true or false", node.key))
                })
            }
            _ => {
                self.mismatch(node, "true or false");
                None
            }
        }
    }

    /// The elements of a list, each under the name of its list.
    pub fn elements<'t>(&mut self, node: Node<'t>, expected: &str) -> Option<Vec<Node<'t>>> {
        match node.value {
            DeValue::Array(elements) => Some(
                elements
                    .iter()
                    .map(|element| node.child(node.key, element))
                    .collect(),
            ),
            _ => {
                self.mismatch(node, expected);
                None
            }
        }
    }

    /// The keys of a table. With `short`, a bare string stands for a table of that one key.
    pub fn fields<'t>(
        &mut self,
        node: Node<'t>,
        short: Option<&'static str>,
        expected: &str,
    ) -> Option<Fields<'t>> {
        let place = self.place(node);
        let entries = match (node.value, short) {
            (DeValue::Table(table), _) => table
                .iter()
                .map(|(key, value)| {
                    let child = node.child(key.get_ref(), value);
                    let key_place = match child.at {
                        At::Text { .. } => self.source.place(key.span().start),
                        At::Place(place) => place,
                    };
                    (key.get_ref().as_ref(), (key_place, child))
                })
                .collect(),
            (DeValue::String(_), Some(key)) => {
                BTreeMap::from([(key, (place, Node { key, ..node }))])
            }
            _ => {
                self.mismatch(node, expected);
                return None;
            }
        };
        Some(Fields {
            place,
            entries,
            meant: Vec::new(),
            problems_before: self.problems.len(),
        })
    }

    /// Whether nothing in this table has been found wrong.
    pub fn is_sound(&self, fields: &Fields<'_>) -> bool {
        self.problems.len() == fields.problems_before
    }

    /// Notes every key of `fields` that is not one of `known`.
    pub fn refuse_unknown(&mut self, fields: &mut Fields<'_>, table: &str, known: &[&'static str]) {
        for (key, place, _) in fields.in_order() {
            if known.contains(&key) {
                continue;
            }
            let meant = did_you_mean(key, known.iter().copied());
            let message = match meant {
                Some(word) => format!("unknown key {key:?} in {table}; did you mean {word:?}?"),
                None => format!(
                    "unknown key {key:?} in {table}; known: {}",
                    known.join(", ")
                ),
            };
            self.note(&place, message);
            fields
                .meant
                .extend(known.iter().find(|word| Some(**word) == meant).copied());
        }
    }

    /// The value behind `key`, or what its absence means; also when the value is wrong, so that others can be checked.
    pub fn field<T: Value>(
        &mut self,
        fields: &Fields<'_>,
        table: &str,
        key: &'static str,
        default: Option<&str>,
        limit: impl Fn(Node<'_>, &T, &mut Self) -> bool,
        bounds: Option<(&'static str, &'static str)>,
    ) -> Option<T> {
        let written = fields.get(key).map(|node| Node { bounds, ..node });
        if let Some(node) = written {
            let value = T::read(node, self).filter(|value| limit(node, value, self));
            if value.is_some() {
                return value;
            }
        }
        if let Some(default) = default {
            let default = constant(default);
            return T::read(Node::implied(key, &default, fields.place), self);
        }
        let absent = T::absent();
        if absent.is_none() && written.is_none() && !fields.was_meant(key) {
            self.note(
                &fields.place,
                format!("missing key {key:?} in {table}; expected {}", T::expects()),
            );
        }
        absent.or_else(T::makeshift)
    }

    /// Whether `value` lies between two values written as TOML; notes it when not.
    pub fn within<T: Value + PartialOrd>(&mut self, node: Node<'_>, value: &T) -> bool {
        let Some((least, most)) = node.bounds else {
            return true;
        };
        let inside = self.bound::<T>(least) <= *value && *value <= self.bound::<T>(most);
        if !inside {
            self.out_of_bounds(node, (least, most));
        }
        inside
    }

    /// Whether a list has a permitted length as written; notes it when not.
    pub fn counted(&mut self, node: Node<'_>) -> bool {
        let (Some((least, most)), DeValue::Array(list)) = (node.bounds, node.value) else {
            return true;
        };
        let inside = (self.bound(least)..=self.bound::<usize>(most)).contains(&list.len());
        if !inside {
            let message = format!(
                "{} has {} entries; expected {least} to {most}",
                node.key,
                list.len()
            );
            self.note(&self.place(node), message);
        }
        inside
    }

    fn bound<T: Value>(&mut self, text: &str) -> T {
        let value = constant(text);
        T::read(Node::implied("bound", &value, Place::NOWHERE), self)
            .expect("a declared bound is a value of its key")
    }

    /// `path` as meant by the file: relative to the file's directory.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }
}

/// A TOML value written in a declaration.
pub fn constant(text: &str) -> DeValue<'_> {
    DeValue::parse(text)
        .expect("a declared default or bound is TOML")
        .into_inner()
}

/// The parser's words in ours. `found` is the text they are about.
fn syntax_message(message: &str, found: &str) -> String {
    match (message, found) {
        ("duplicate key", _) => {
            format!("duplicate key {found:?}; expected each key once in a table")
        }
        ("string values must be quoted, expected literal string", "") => {
            "no value; expected one after =".to_owned()
        }
        ("string values must be quoted, expected literal string", _) => {
            format!("{found} is not a value; expected a string in quotes, a number, true or false")
        }
        _ => {
            let message = message
                .replace("`\"`", "a double quote")
                .replace('`', "\"")
                .replacen(", expected", "; expected", 1);
            if found.is_empty() {
                message
            } else {
                format!("{found:?}: {message}")
            }
        }
    }
}
