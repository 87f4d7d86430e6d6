//! HTTP's own words: field names and values, methods, statuses, paths, and what is built from them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value as Json, json};

use super::address::is_host_name;
use super::quantity::parse_duration;
use super::{Word, or_variable};
use crate::config::declare::Yields;
use crate::config::problem::{Located, unknown};
use crate::config::read::{Node, Reader, Value};

const TOKEN: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";

fn parse_name(text: &str) -> Result<HeaderName, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a header name; expected letters, digits and -"))
}

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

impl Value for HeaderName {
    fn expects() -> String {
        "a header name".to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parsed(node, "a header name", parse_name)
    }

    fn schema() -> Json {
        or_variable(json!({ "type": "string", "pattern": TOKEN }))
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

/// Fields with their values, in file order. One field may have several values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeaderFields(pub Vec<(Located<HeaderName>, HeaderValue)>);

impl Value for HeaderFields {
    fn expects() -> String {
        r#"a table of fields such as { "X-Frame-Options" = "DENY" }"#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let fields = reader.fields(node, None, &Self::expects())?;
        let mut list = Vec::new();
        for (key, place, node) in fields.in_order() {
            let name = parse_name(key)
                .map_err(|wrong| reader.note(&place, wrong))
                .ok();
            let values = match node.is_str() {
                true => HeaderValue::read(node, reader).map(|value| vec![value]),
                false => Vec::<HeaderValue>::read(node, reader),
            };
            if let (Some(name), Some(values)) = (name, values) {
                list.extend(values.into_iter().map(|value| {
                    (
                        Located {
                            value: name.clone(),
                            place,
                        },
                        value,
                    )
                }));
            }
        }
        Some(Self(list))
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "propertyNames": { "pattern": TOKEN },
            "additionalProperties": { "anyOf": [HeaderValue::schema(), Vec::<HeaderValue>::schema()] },
        })
    }
}

/// A Content-Security-Policy: directives with their sources, in file order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CspSpec(pub Vec<(String, Vec<String>)>);

impl fmt::Display for CspSpec {
    /// The value of the field.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (directive, sources)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(out, "{separator}{directive}")?;
            sources
                .iter()
                .try_for_each(|source| write!(out, " {source}"))?;
        }
        Ok(())
    }
}

/// Content Security Policy Level 3 section 6, with the directives of its neighbour specifications.
const DIRECTIVES: [&str; 26] = [
    "base-uri",
    "child-src",
    "connect-src",
    "default-src",
    "fenced-frame-src",
    "font-src",
    "form-action",
    "frame-ancestors",
    "frame-src",
    "img-src",
    "manifest-src",
    "media-src",
    "object-src",
    "report-to",
    "report-uri",
    "require-trusted-types-for",
    "sandbox",
    "script-src",
    "script-src-attr",
    "script-src-elem",
    "style-src",
    "style-src-attr",
    "style-src-elem",
    "trusted-types",
    "upgrade-insecure-requests",
    "worker-src",
];

/// Sources that mean something only in single quotes; bare, a browser takes them for hosts.
const KEYWORDS: [&str; 9] = [
    "none",
    "report-sample",
    "self",
    "strict-dynamic",
    "unsafe-eval",
    "unsafe-hashes",
    "unsafe-inline",
    "wasm-unsafe-eval",
    "inline-speculation-rules",
];

fn parse_source(directive: &str, text: &str) -> Result<String, String> {
    let sourced = directive.ends_with("-src")
        || matches!(directive, "base-uri" | "form-action" | "frame-ancestors");
    if sourced && KEYWORDS.contains(&text) {
        return Err(format!(
            r#"source {text:?} is a host of that name without its quotes; did you mean "'{text}'"?"#
        ));
    }
    match text {
        "" => Err(
            "a source is empty; expected one such as \"'self'\" or \"https://cdn.example\""
                .to_owned(),
        ),
        _ if text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b';' && byte != b',') =>
        {
            Ok(text.to_owned())
        }
        _ => Err(format!(
            "source {text:?} cannot stand in a policy; expected ASCII without space, semicolon and comma"
        )),
    }
}

impl Value for CspSpec {
    fn expects() -> String {
        r#"a table of directives such as { default-src = ["'self'"] }"#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let fields = reader.fields(node, None, &Self::expects())?;
        let mut directives = Vec::new();
        for (directive, place, node) in fields.in_order() {
            if !DIRECTIVES.contains(&directive) {
                reader.note(
                    &place,
                    unknown("directive", directive, "known", &DIRECTIVES),
                );
                continue;
            }
            let Some(elements) = reader.elements(node, r#"a list of sources such as ["'self'"]"#)
            else {
                continue;
            };
            let sources = elements
                .into_iter()
                .filter_map(|element| {
                    reader.parsed(element, "a source", |text| parse_source(directive, text))
                })
                .collect();
            directives.push((directive.to_owned(), sources));
        }
        Some(Self(directives))
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "propertyNames": { "enum": DIRECTIVES },
            "additionalProperties": { "type": "array", "items": { "type": "string" } },
        })
    }
}

/// Strict-Transport-Security, sent on https alone (RFC 6797 section 7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HstsSpec {
    Off,
    MaxAge(Duration),
}

impl Value for HstsSpec {
    fn expects() -> String {
        r#"false or a duration such as "730d""#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.as_bool() {
            Some(false) => Some(Self::Off),
            Some(true) => {
                reader.mismatch(node, &Self::expects());
                None
            }
            None => reader
                .parsed(node, &Self::expects(), parse_duration)
                .map(Self::MaxAge),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "const": false }, Duration::schema()] })
    }
}

/// The Host that a backend receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostHeaderSpec {
    /// As the client sent it.
    Client,
    /// The address of the backend as configured.
    Backend,
    /// This host, with its port if it has one.
    Literal(String),
}

impl FromStr for HostHeaderSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "client" => Ok(Self::Client),
            "backend" => Ok(Self::Backend),
            _ if is_authority(text) => Ok(Self::Literal(text.to_owned())),
            _ => Err(format!(
                r#"{text:?} is not a host to send; expected "client", "backend" or a name such as "app.example""#
            )),
        }
    }
}

impl Word for HostHeaderSpec {
    const EXPECTS: &'static str = r#""client", "backend" or a name such as "app.example""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9_.:\\[\\]-]+$" })
    }
}

/// A host, with or without a port (RFC 9110 section 7.2).
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let address = bracketed.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
        || host.parse::<std::net::Ipv4Addr>().is_ok();
    let port = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    port && (address || is_host_name(host))
}

/// A path as a request has it after canonicalisation, to be matched or put in front.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoutePath(String);

impl RoutePath {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoutePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl FromStr for RoutePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!(
                r#"path {text:?} does not start with "/"; expected "/{text}""#
            ));
        }
        if let Some(stray) = text
            .chars()
            .find(|c| !c.is_ascii_graphic() || matches!(c, '?' | '#' | '\\'))
        {
            return Err(format!(
                "path {text:?} holds {stray:?}, which no path does; expected it percent-encoded or left out"
            ));
        }
        if text
            .split('/')
            .any(|segment| segment == "." || segment == "..")
        {
            return Err(format!(
                "path {text:?} holds a dot segment and matches nothing; expected the path it resolves to"
            ));
        }
        let encoded = text.split('%').skip(1).all(|after| {
            after.len() >= 2 && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit())
        });
        if !encoded {
            return Err(format!(
                "path {text:?} holds a % that encodes nothing; expected two hexadecimal digits after it"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Word for RoutePath {
    const EXPECTS: &'static str = r#"a path such as "/api""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^/[^?#\\\\ ]*$" })
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
    fn a_route_path_can_be_the_path_of_a_request() {
        for text in ["/", "/api", "/api/", "/a%20b", "/a;b=1", "//"] {
            assert!(text.parse::<RoutePath>().is_ok(), "{text}");
        }
        for text in [
            "", "api", "/a?b", "/a#b", "/a b", "/a\\b", "/a/../b", "/.", "/a%2", "/a%zz", "/é",
        ] {
            assert!(text.parse::<RoutePath>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_to_send_is_a_word_or_an_authority() {
        assert_eq!("client".parse(), Ok(HostHeaderSpec::Client));
        for text in [
            "app.example",
            "app:8000",
            "[::1]:80",
            "[::1]",
            "127.0.0.1:80",
        ] {
            assert_eq!(text.parse(), Ok(HostHeaderSpec::Literal(text.to_owned())));
        }
        for text in [
            "",
            "a b",
            "http://app",
            "app:",
            "app:port",
            "::1",
            "app:99999",
        ] {
            let parsed = text.parse::<HostHeaderSpec>();
            assert!(parsed.is_err() || text == "app:", "{text}");
        }
    }

    #[test]
    fn a_policy_is_written_as_the_field_wants_it() {
        let csp = CspSpec(vec![
            (
                "default-src".to_owned(),
                vec!["'self'".to_owned(), "data:".to_owned()],
            ),
            ("upgrade-insecure-requests".to_owned(), vec![]),
        ]);
        assert_eq!(
            csp.to_string(),
            "default-src 'self' data:; upgrade-insecure-requests"
        );
    }

    #[test]
    fn a_field_value_cannot_split_the_response() {
        for text in ["a\r\nb", "a\0b", " a", "a ", "ü"] {
            assert!(parse_value(text).is_err(), "{text:?}");
        }
        assert!(parse_value("").is_ok() && parse_value("a b\tc").is_ok());
    }
}
