//! One header policy: what a response carries when it leaves us, compiled once per configuration.
//! Knows names and values; knows nothing of routes or of where a response came from.

use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY};
use pingora_http::{IntoCaseHeaderName, RequestHeader, ResponseHeader};
use thiserror::Error;

use super::security::{Csp, Preset};
use crate::client::RequestId;

/// What the operator wrote.
#[derive(Clone, Debug, Default)]
pub struct PolicySettings {
    pub preset: Preset,
    /// Override whatever the application said.
    pub set: Vec<(FieldName, HeaderValue)>,
    /// Only where the application did not say.
    pub default: Vec<(FieldName, HeaderValue)>,
    /// Appended to what the application said.
    pub add: Vec<(FieldName, HeaderValue)>,
    pub remove: Vec<FieldName>,
    /// Takes the place of the preset's policy, also when it is only reported. Empty: the preset's
    /// policy, if it has one.
    pub csp: Csp,
    pub csp_report_only: bool,
    pub hsts: Hsts,
    /// Set towards the application.
    pub request_set: Vec<(FieldName, HeaderValue)>,
    pub request_remove: Vec<FieldName>,
}

/// `Strict-Transport-Security`, which is only ever sent over https.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hsts {
    #[default]
    OfPreset,
    Never,
    /// Whole seconds; `strict` adds `includeSubDomains`. Zero makes browsers forget the host.
    MaxAge(Duration),
}

/// The name of a field that a policy may touch, with its case on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldName {
    name: HeaderName,
    wire: Bytes,
}

/// Why a text is no [`FieldName`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadFieldName {
    #[error("{0:?} is not a header name; expected letters, digits and -")]
    Syntax(String),
    #[error(r#"field "host" is set by the upstream; expected host = "…" there"#)]
    Host,
    #[error("field {0:?} frames the message or belongs to its connection; no policy may touch it")]
    Managed(HeaderName),
}

impl FromStr for FieldName {
    type Err = BadFieldName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // RFC 9110 section 7.6.1, RFC 9112 section 6.
        const MANAGED: [&str; 8] = [
            "connection",
            "content-length",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ];
        let name: HeaderName = text
            .parse()
            .map_err(|_| BadFieldName::Syntax(text.to_owned()))?;
        match name.as_str() {
            "host" => Err(BadFieldName::Host),
            managed if MANAGED.contains(&managed) => Err(BadFieldName::Managed(name)),
            _ => Ok(Self {
                name,
                wire: Bytes::copy_from_slice(text.as_bytes()),
            }),
        }
    }
}

/// What [`HeaderPolicy::finish`] has to know of one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// [`super::forwarded::is_https`].
    pub https: bool,
    pub request_id: &'a RequestId,
    /// Since the first byte of the request.
    pub elapsed: Duration,
    /// Time to connect; `None` if a pooled connection was used or nothing was asked upstream.
    pub connect: Option<Duration>,
    /// From sending the request upstream to the first byte of its response.
    pub first_byte: Option<Duration>,
}

/// A field with its name for look-ups and its name as written on the wire.
#[derive(Clone, Debug)]
struct Field {
    name: HeaderName,
    wire: Bytes,
    value: HeaderValue,
    /// RFC 6797 7.2: `Strict-Transport-Security` must not be sent over plaintext.
    https_only: bool,
}

/// A compiled policy; cheap to apply, shared by all requests of its routes.
#[derive(Clone, Debug)]
pub struct HeaderPolicy {
    remove: Box<[HeaderName]>,
    set: Box<[Field]>,
    default: Box<[Field]>,
    add: Box<[Field]>,
    request_set: Box<[Field]>,
    request_remove: Box<[HeaderName]>,
}

impl HeaderPolicy {
    pub fn new(settings: &PolicySettings) -> Self {
        let set = fields(&settings.set);
        let mut default = fields(&settings.default);
        let remove = names(&settings.remove);
        let csp = settings.csp.value();

        // The operator's own word takes the place of the preset's.
        if !csp.is_empty() {
            let name = match settings.csp_report_only {
                true => "Content-Security-Policy-Report-Only",
                false => "Content-Security-Policy",
            };
            default.push(known_field(name, csp));
        }
        let hsts = hsts_value(settings);
        let hsts = hsts
            .iter()
            .map(|value| ("Strict-Transport-Security", value.as_str()));
        for (name, value) in settings.preset.fields().iter().copied().chain(hsts) {
            let field = known_field(name, value);
            let is_said = |said: &Field| said.name == field.name;
            let is_csp = field.name == CONTENT_SECURITY_POLICY && !csp.is_empty();
            if !is_csp
                && !set.iter().any(is_said)
                && !default.iter().any(is_said)
                && !remove.contains(&field.name)
            {
                default.push(field);
            }
        }
        let revealing = settings.preset.removed().iter().copied();
        let mut removed: Vec<HeaderName> = revealing.map(HeaderName::from_static).collect();
        removed.extend(remove);

        Self {
            remove: removed.into(),
            set: set.into(),
            default: default.into(),
            add: fields(&settings.add).into(),
            request_set: fields(&settings.request_set).into(),
            request_remove: names(&settings.request_remove).into(),
        }
    }

    /// The policy a preset's name alone stands for.
    pub fn of(preset: Preset) -> Self {
        Self::new(&PolicySettings {
            preset,
            ..PolicySettings::default()
        })
    }

    /// Dresses the request for the application; the operator's word is the last.
    pub fn prepare(&self, request: &mut RequestHeader) {
        for name in &self.request_remove {
            request.remove_header(name);
        }
        for field in &self.request_set {
            let set = request.insert_header(field.wire.clone(), field.value.clone());
            set.expect("compiled fields are right");
        }
    }

    /// Dresses a final response, forwarded or our own, just before it leaves.
    ///
    /// Removals come first, then `set`, then `default` where the field is still absent, then `add`;
    /// then `X-Request-ID`, `X-Request-Time` and `Server-Timing`. An informational response (101
    /// included) only receives its `X-Request-ID`.
    pub fn finish(&self, response: &mut ResponseHeader, facts: &Facts<'_>) {
        put(response, "X-Request-ID", facts.request_id.to_value());
        if response.status < StatusCode::OK {
            return;
        }
        for name in &self.remove {
            if response.headers.contains_key(name) {
                response.remove_header(name);
            }
        }
        let allowed = |field: &&Field| facts.https || !field.https_only;
        for field in self.set.iter().filter(allowed) {
            put(response, field.wire.clone(), field.value.clone());
        }
        for field in self.default.iter().filter(allowed) {
            if !response.headers.contains_key(&field.name) {
                put(response, field.wire.clone(), field.value.clone());
            }
        }
        for field in self.add.iter().filter(allowed) {
            append(response, field.wire.clone(), field.value.clone());
        }
        put(response, "X-Request-Time", request_time(facts.elapsed));
        append(response, "Server-Timing", server_timing(facts));
    }
}

const NOT_FULL: &str = "a response is far from 32,768 fields";

fn put(response: &mut ResponseHeader, name: impl IntoCaseHeaderName, value: HeaderValue) {
    response.insert_header(name, value).expect(NOT_FULL);
}

fn append(response: &mut ResponseHeader, name: impl IntoCaseHeaderName, value: HeaderValue) {
    response.append_header(name, value).expect(NOT_FULL);
}

/// Seconds to the millisecond: `0.123s`.
fn request_time(elapsed: Duration) -> HeaderValue {
    digits(|text| {
        write!(
            text,
            "{}.{:03}s",
            elapsed.as_secs(),
            elapsed.subsec_millis()
        )
    })
}

/// Milliseconds to the tenth: `connect;dur=0.4, first-byte;dur=53.2, total;dur=53.9`.
fn server_timing(facts: &Facts<'_>) -> HeaderValue {
    let metrics = [
        ("connect;dur=", facts.connect),
        ("first-byte;dur=", facts.first_byte),
        ("total;dur=", Some(facts.elapsed)),
    ];
    digits(|text| {
        let mut comma = "";
        for (name, took) in metrics {
            let Some(took) = took else { continue };
            let tenths = took.as_micros() / 100;
            write!(text, "{comma}{name}{}.{}", tenths / 10, tenths % 10)?;
            comma = ", ";
        }
        Ok(())
    })
}

/// A short value built without a heap but its own.
fn digits(write: impl FnOnce(&mut &mut [u8]) -> io::Result<()>) -> HeaderValue {
    // Three times of the longest Duration, and their names.
    let mut buffer = [0; 128];
    let mut free = &mut buffer[..];
    write(&mut free).expect("three times fit");
    let free = free.len();
    let used = buffer.len() - free;
    HeaderValue::from_bytes(&buffer[..used]).expect("digits are a value")
}

fn hsts_value(settings: &PolicySettings) -> Option<String> {
    match (settings.hsts, settings.preset) {
        (Hsts::Never, _) => None,
        (Hsts::OfPreset, preset) => preset.hsts().map(str::to_owned),
        (Hsts::MaxAge(age), Preset::Strict) => {
            Some(format!("max-age={}; includeSubDomains", age.as_secs()))
        }
        (Hsts::MaxAge(age), _) => Some(format!("max-age={}", age.as_secs())),
    }
}

fn known_field(wire: &'static str, value: &str) -> Field {
    let name = HeaderName::from_bytes(wire.as_bytes()).expect("our own names are right");
    let value = HeaderValue::from_str(value).expect("our own values are right");
    Field::new(name, Bytes::from_static(wire.as_bytes()), value)
}

impl Field {
    fn new(name: HeaderName, wire: Bytes, value: HeaderValue) -> Self {
        let https_only = name == STRICT_TRANSPORT_SECURITY;
        Self {
            name,
            wire,
            value,
            https_only,
        }
    }
}

fn fields(entries: &[(FieldName, HeaderValue)]) -> Vec<Field> {
    entries
        .iter()
        .map(|(field, value)| Field::new(field.name.clone(), field.wire.clone(), value.clone()))
        .collect()
}

fn names(fields: &[FieldName]) -> Vec<HeaderName> {
    fields.iter().map(|field| field.name.clone()).collect()
}

#[cfg(test)]
mod tests;
