//! HTTP's own words: field names and values, methods, statuses, hosts and paths.

use std::fmt;
use std::str::FromStr;

use ::http::{HeaderValue, Method, StatusCode};
use serde_json::{Value as Json, json};

use super::{Word, or_variable};
use crate::cache::pattern::Pattern;
use crate::cache::tags::Tag;
use crate::compression::media_type::MediaType;
use crate::config::declare::Yields;
use crate::config::read::{Node, Reader, Value};
use crate::headers::host::HostSent;
use crate::headers::policy::FieldName;
use crate::route::rewrite::Template;
use crate::target::{PathPrefix, PathRules, Target};

pub(super) const TOKEN: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";
const PATH: &str = "^/[^?#\\\\ ]*$";

/// The value is not repeated in the message: it may be a secret from the environment.
fn parse_value(text: &str) -> Result<HeaderValue, String> {
    let stray = text.chars().find(|c| *c != '\t' && !matches!(c, ' '..='~'));
    if let Some(stray) = stray {
        return Err(format!(
            "header value holds {stray:?}; expected visible ASCII, spaces and tabs"
        ));
    }
    match HeaderValue::from_str(text) {
        Ok(value) if text.trim() == text => Ok(value),
        _ => Err("header value begins or ends with a space; expected none there".to_owned()),
    }
}

impl Word for FieldName {
    const EXPECTS: &'static str = "a header name";

    fn form() -> Json {
        json!({ "type": "string", "pattern": TOKEN })
    }
}

impl Value for HeaderValue {
    fn expects() -> String {
        "a header value".to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parsed(node, "a header value", parse_value)
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Value for Method {
    fn expects() -> String {
        r#"a method such as "GET""#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parsed(node, &Self::expects(), |text| {
            // Methods are case-sensitive (RFC 9110 section 9.1): "get" is legal and never what is meant.
            match text.parse::<Method>() {
                Ok(method) if text == text.to_ascii_uppercase() => Ok(method),
                Ok(_) => Err(format!(
                    "unknown method {text:?}; did you mean {:?}?",
                    text.to_ascii_uppercase()
                )),
                Err(_) => Err(format!(
                    r#"{text:?} is not a method; expected one such as "GET""#
                )),
            }
        })
    }

    fn schema() -> Json {
        or_variable(json!({ "type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Z-]+$" }))
    }
}

impl Value for StatusCode {
    fn expects() -> String {
        "a status from 100 to 599".to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let status = u16::read(node, reader)?;
        let known = Self::from_u16(status).ok().filter(|_| status < 600);
        if known.is_none() {
            reader.out_of_bounds(node, ("100", "599"));
        }
        known
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "type": "integer", "minimum": 100, "maximum": 599 }, { "$ref": "#/$defs/variable" }] })
    }
}

/// A status that redirects by its Location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedirectStatus(StatusCode);

impl Yields<StatusCode> for RedirectStatus {
    fn yields(self) -> StatusCode {
        self.0
    }
}

impl Value for RedirectStatus {
    fn expects() -> String {
        "301, 302, 303, 307 or 308".to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let status = reader.integer(node, ("301", "308"))?;
        let redirect = u16::try_from(status)
            .ok()
            .filter(|status| matches!(status, 301 | 302 | 303 | 307 | 308))
            .and_then(|status| StatusCode::from_u16(status).ok());
        if redirect.is_none() {
            reader.mismatch(node, &Self::expects());
        }
        redirect.map(Self)
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "enum": [301, 302, 303, 307, 308] }, { "$ref": "#/$defs/variable" }] })
    }
}

impl Word for HostSent {
    const EXPECTS: &'static str = r#""client", "backend" or a name such as "app.example""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9_.:\\[\\]-]+$" })
    }
}

impl Word for MediaType {
    const EXPECTS: &'static str = r#"a media type such as "text/html", "text/*" or "*+json""#;

    fn form() -> Json {
        let name = "[!#$%&'+.^_`|~0-9A-Za-z-]+";
        let pattern = format!("^({name}/({name}|\\*)|\\*\\+{name})$");
        json!({ "type": "string", "pattern": pattern })
    }
}

impl Word for Pattern {
    const EXPECTS: &'static str = r#"a name such as "sessionid" or "utm_*""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^[!-%'-+.-:<>-~-]{1,256}$" })
    }
}

impl Word for Tag {
    const EXPECTS: &'static str = r#"a tag such as "news""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^[!-+.-~-]{1,256}$" })
    }
}

impl Word for PathPrefix {
    const EXPECTS: &'static str = r#"a path such as "/api""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": PATH })
    }
}

impl Word for Template {
    const EXPECTS: &'static str = r#"a target such as "https://{host}{path}{?query}""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^(/|https?://|\\{path\\})" })
    }
}

/// The path that a probe asks for, without query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbePath(String);

impl ProbePath {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProbePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let target = Target::parse(text.as_bytes(), &PathRules::default()).map_err(|wrong| {
            format!(
                r#"{text:?} is not a path to ask for: {wrong}; expected one such as "/healthz""#
            )
        })?;
        if target.query().is_some() {
            return Err(format!("path {text:?} has a query; expected it without"));
        }
        if text.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(format!(
                "path {text:?} holds a dot segment; expected {:?}",
                target.path()
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Word for ProbePath {
    const EXPECTS: &'static str = r#"a path such as "/healthz""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": PATH })
    }
}

/// The name of a route in logs and messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteName(String);

impl FromStr for RouteName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "route name {text:?} is not usable; expected 1 to 64 visible ASCII characters"
            )),
        }
    }
}

impl Word for RouteName {
    const EXPECTS: &'static str = "a name";

    fn form() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_path_is_one_that_a_request_can_have() {
        for text in ["/", "/healthz", "/a%20b", "/a;b=1"] {
            assert!(text.parse::<ProbePath>().is_ok(), "{text}");
        }
        for text in [
            "", "healthz", "/a?b", "/a#b", "/a b", "/a/../b", "/a%2", "/é",
        ] {
            assert!(text.parse::<ProbePath>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_field_value_cannot_split_the_response() {
        for text in ["a\r\nb", "a\0b", " a", "a ", "ü"] {
            assert!(parse_value(text).is_err(), "{text:?}");
        }
        assert!(parse_value("").is_ok() && parse_value("a b\tc").is_ok());
    }
}
