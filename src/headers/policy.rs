//! One header policy: what a response carries when it leaves us, compiled once per configuration.
//! Knows names and values; knows nothing of routes or of where a response came from.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};
use thiserror::Error;

use super::security::{CspError, Preset, content_security_policy};
use crate::client::RequestId;

/// What the operator wrote, as plain values.
#[derive(Clone, Debug, Default)]
pub struct PolicySettings {
    pub preset: Preset,
    /// Override whatever the application said.
    pub set: Vec<(String, String)>,
    /// Only where the application did not say.
    pub default: Vec<(String, String)>,
    /// Appended to what the application said.
    pub add: Vec<(String, String)>,
    pub remove: Vec<String>,
    /// Directive and its sources; empty: the preset's policy, if it has one.
    pub csp: Vec<(String, Vec<String>)>,
    pub csp_report_only: bool,
    pub hsts: Hsts,
    /// Set towards the application.
    pub request_set: Vec<(String, String)>,
    pub request_remove: Vec<String>,
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

/// What is wrong with one entry of a policy: `table` is its key in the file.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PolicyError {
    #[error("{name:?} is not a field name")]
    Name { table: &'static str, name: String },
    #[error("the value of {name} holds a control character or a line break")]
    Value { table: &'static str, name: String },
    #[error("{name} belongs to the connection or to framing; the gateway manages it")]
    Managed { table: &'static str, name: String },
    #[error(transparent)]
    Csp(#[from] CspError),
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
}

/// A compiled policy; cheap to apply, shared by all requests of its routes.
#[derive(Clone, Debug)]
pub struct HeaderPolicy {
    remove: Box<[HeaderName]>,
    set: Box<[Field]>,
    default: Box<[Field]>,
    add: Box<[Field]>,
    https_default: Option<Field>,
    request_set: Box<[Field]>,
    request_remove: Box<[HeaderName]>,
}

impl HeaderPolicy {
    /// Compiles a policy, or says everything that is wrong with it.
    pub fn new(settings: &PolicySettings) -> Result<Self, Vec<PolicyError>> {
        let mut problems = Vec::new();
        let set = fields("set", &settings.set, &mut problems);
        let default = fields("default", &settings.default, &mut problems);
        let add = fields("add", &settings.add, &mut problems);
        let remove = names("remove", &settings.remove, &mut problems);
        let request_set = fields("request_set", &settings.request_set, &mut problems);
        let request_remove = names("request_remove", &settings.request_remove, &mut problems);
        let csp = csp_field(settings).unwrap_or_else(|problem| {
            problems.push(problem.into());
            None
        });
        if !problems.is_empty() {
            return Err(problems);
        }

        // The operator's own word replaces the preset's on the same field.
        let mut defaults = default;
        defaults.extend(csp);
        for &(name, value) in settings.preset.fields() {
            let field = known_field(name, value);
            let said = |others: &[Field]| others.iter().any(|other| other.name == field.name);
            if !said(&defaults) && !said(&set) && !remove.contains(&field.name) {
                defaults.push(field);
            }
        }
        let revealing = settings
            .preset
            .removed()
            .iter()
            .map(|name| HeaderName::from_static(name));
        let mut removed: Vec<HeaderName> = revealing.collect();
        removed.extend(remove);
        removed.retain(|name| !set.iter().any(|field| field.name == name));

        Ok(Self {
            https_default: hsts_value(settings)
                .map(|value| known_field("Strict-Transport-Security", &value)),
            remove: removed.into(),
            set: set.into(),
            default: defaults.into(),
            add: add.into(),
            request_set: request_set.into(),
            request_remove: request_remove.into(),
        })
    }

    /// The policy a preset's name alone stands for.
    pub fn of(preset: Preset) -> Self {
        Self::new(&PolicySettings {
            preset,
            ..PolicySettings::default()
        })
        .expect("presets are right")
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
        for field in &self.set {
            put(response, field.wire.clone(), field.value.clone());
        }
        let https_default = self.https_default.iter().filter(|_| facts.https);
        for field in self.default.iter().chain(https_default) {
            if !response.headers.contains_key(&field.name) {
                put(response, field.wire.clone(), field.value.clone());
            }
        }
        for field in &self.add {
            append(response, field.wire.clone(), field.value.clone());
        }
        put(response, "X-Request-Time", request_time(facts.elapsed));
        append(response, "Server-Timing", server_timing(facts));
    }
}

fn put(
    response: &mut ResponseHeader,
    name: impl pingora_http::IntoCaseHeaderName,
    value: HeaderValue,
) {
    // Only a map of 32,768 fields refuses, and no response of ours or of a checked upstream is one.
    let _ = response.insert_header(name, value);
}

fn append(
    response: &mut ResponseHeader,
    name: impl pingora_http::IntoCaseHeaderName,
    value: HeaderValue,
) {
    let _ = response.append_header(name, value);
}

/// Seconds to the millisecond: `0.123s`.
fn request_time(elapsed: Duration) -> HeaderValue {
    let mut text = String::with_capacity(16);
    let _ = write!(
        text,
        "{}.{:03}s",
        elapsed.as_secs(),
        elapsed.subsec_millis()
    );
    HeaderValue::try_from(text).expect("digits are a value")
}

/// Milliseconds to the tenth: `connect;dur=0.4, first-byte;dur=53.2, total;dur=53.9`.
fn server_timing(facts: &Facts<'_>) -> HeaderValue {
    let mut text = String::with_capacity(64);
    let mut metric = |name: &str, took: Option<Duration>| {
        let Some(took) = took else { return };
        let tenths = took.as_micros() / 100;
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{name};dur={}.{}", tenths / 10, tenths % 10);
    };
    metric("connect", facts.connect);
    metric("first-byte", facts.first_byte);
    metric("total", Some(facts.elapsed));
    HeaderValue::try_from(text).expect("digits are a value")
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

fn csp_field(settings: &PolicySettings) -> Result<Option<Field>, CspError> {
    if settings.csp.is_empty() {
        return Ok(None);
    }
    let directives = settings
        .csp
        .iter()
        .map(|(name, sources)| (name.as_str(), sources.as_slice()));
    let value = content_security_policy(directives)?;
    let name = if settings.csp_report_only {
        "Content-Security-Policy-Report-Only"
    } else {
        "Content-Security-Policy"
    };
    Ok(Some(known_field(name, &value)))
}

fn known_field(wire: &'static str, value: &str) -> Field {
    Field {
        name: HeaderName::from_bytes(wire.as_bytes()).expect("our own names are right"),
        wire: Bytes::from_static(wire.as_bytes()),
        value: HeaderValue::from_str(value).expect("our own values are right"),
    }
}

fn fields(
    table: &'static str,
    entries: &[(String, String)],
    problems: &mut Vec<PolicyError>,
) -> Vec<Field> {
    let mut fields = Vec::with_capacity(entries.len());
    for (written, value) in entries {
        let Some(name) = name(table, written, problems) else {
            continue;
        };
        match HeaderValue::from_str(value) {
            Ok(value) => {
                fields.push(Field {
                    name,
                    wire: Bytes::copy_from_slice(written.as_bytes()),
                    value,
                });
            }
            Err(_) => problems.push(PolicyError::Value {
                table,
                name: written.clone(),
            }),
        }
    }
    fields
}

fn names(
    table: &'static str,
    written: &[String],
    problems: &mut Vec<PolicyError>,
) -> Vec<HeaderName> {
    written
        .iter()
        .filter_map(|written| name(table, written, problems))
        .collect()
}

fn name(table: &'static str, written: &str, problems: &mut Vec<PolicyError>) -> Option<HeaderName> {
    const MANAGED: [&str; 9] = [
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    match HeaderName::from_bytes(written.as_bytes()) {
        Ok(name) if MANAGED.contains(&name.as_str()) => {
            problems.push(PolicyError::Managed {
                table,
                name: written.to_owned(),
            });
            None
        }
        Ok(name) => Some(name),
        Err(_) => {
            problems.push(PolicyError::Name {
                table,
                name: written.to_owned(),
            });
            None
        }
    }
}
