//! The words an operator writes behind the keys. Most are types of the modules that live by them, which parse
//! themselves; here is what an editor may know of each, and the few words that end in this module. Knows no key.

mod address;
mod admin;
mod ban;
mod choice;
mod http;
mod limit;
mod pace;
mod policy;
mod quantity;
mod redis;
mod table;

pub use address::NetworksOrFile;
pub use choice::{HealthKindSpec, ModeSpec, RetryOnSpec};
pub use http::{ProbePath, RedirectStatus, RouteName};
pub use limit::{KeySource, Quotas};
pub use pace::PaceQuota;
pub use policy::HeaderFields;
pub use quantity::{HttpsPort, Percent, ServeFor, Size, StatusSet, parse_duration};
pub use table::{FinalStatus, Keyed};

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Value as Json, json};

use super::read::{Node, Reader, Value};

/// A string that parses itself. Its error text is what the operator reads, at the place of the value.
pub trait Word: FromStr<Err: Display> {
    /// What is expected here, for a value that is no string at all.
    const EXPECTS: &'static str;

    /// JSON Schema of the string, without its variables.
    fn form() -> Json {
        json!({ "type": "string" })
    }
}

impl<T: Word> Value for T {
    fn expects() -> String {
        T::EXPECTS.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parsed(node, T::EXPECTS, |text| {
            text.parse().map_err(|wrong: T::Err| wrong.to_string())
        })
    }

    fn schema() -> Json {
        or_variable(T::form())
    }
}

/// The form, or a string that holds a variable, of which nothing more can be said before it is expanded.
pub fn or_variable(form: Json) -> Json {
    match form.as_object() {
        Some(members) if members.len() == 1 => form,
        _ => json!({ "anyOf": [form, { "$ref": "#/$defs/variable" }] }),
    }
}

/// A file or directory. Displays as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath {
    pub written: String,
    /// Relative paths are resolved against the directory of the configuration file.
    pub path: PathBuf,
}

impl Display for FilePath {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:?}", self.written)
    }
}

impl Value for FilePath {
    fn expects() -> String {
        "a path".to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let written = reader.parsed(node, "a path", |text| match text {
            "" => Err(format!("{} is empty; expected a path", node.key)),
            _ => Ok(text.to_owned()),
        })?;
        Some(Self {
            path: reader.resolve(&written),
            written,
        })
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}
