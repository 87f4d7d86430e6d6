//! HTTP's own words: field names and values, methods, statuses, hosts and paths.

use std::fmt;
use std::str::FromStr;

use ::http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value as Json, json};

use super::address::is_host_name;
use super::{Word, or_variable};
use crate::config::declare::Yields;
use crate::config::read::{Node, Reader, Value};

pub(super) const TOKEN: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";

pub(super) fn parse_name(text: &str) -> Result<HeaderName, String> {
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
            assert!(text.parse::<HostHeaderSpec>().is_err(), "{text}");
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
