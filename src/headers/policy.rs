//! One header policy: what a response carries when it leaves us, compiled once per configuration.
//! Knows names and values; knows nothing of routes or of where a response came from.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY};
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use pingora_http::{HMap, ResponseHeader};
use thiserror::Error;

use super::names::{Names, Places};
use super::security::{Csp, Preset};
use crate::cache::status::Disposition;
use crate::client::RequestId;
use crate::http1::ResponseHead;
use crate::short::Short;

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
    /// For either of them.
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

impl FieldName {
    pub fn name(&self) -> &HeaderName {
        &self.name
    }
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
    /// Since the head of the request was whole.
    pub elapsed: Duration,
    /// Time to connect; `None` if a pooled connection was used or nothing was asked upstream.
    pub connect: Option<Duration>,
    /// From sending the request upstream to the first byte of its response.
    pub first_byte: Option<Duration>,
    /// What the cache did, where one was asked.
    pub cache: Option<Disposition>,
}

/// A field that a policy gives.
#[derive(Clone, Debug)]
pub struct Field {
    name: Name,
    value: HeaderValue,
    /// As it is written, with its end.
    line: Box<[u8]>,
    /// RFC 6797 7.2: `Strict-Transport-Security` must not be sent over plaintext.
    https_only: bool,
}

/// A compiled policy; cheap to apply, shared by all requests of its routes.
#[derive(Clone, Debug)]
pub struct HeaderPolicy {
    /// Every name that is looked for in a response: first those that are removed, and of these first what is always ours.
    known: Names,
    removed: usize,
    set: Box<[Field]>,
    default: Box<[Field]>,
    add: Box<[Field]>,
    request_set: Box<[Field]>,
    request_remove: Box<[HeaderName]>,
}

impl HeaderPolicy {
    pub fn new(settings: &PolicySettings) -> Self {
        let set = said_fields(&settings.set);
        let mut wished = said_fields(&settings.default);
        let remove = names(&settings.remove);
        let csp = settings.csp.value();

        let csp_name = match settings.csp_report_only {
            true => CSP_REPORT_ONLY,
            false => CSP,
        };

        // The operator's own word takes the place of the preset's.
        if !csp.is_empty() {
            wished.push(known_field(csp_name, csp));
        }
        let hsts = hsts_value(settings);
        let hsts = hsts
            .iter()
            .map(|value| ("Strict-Transport-Security", value.as_str()));
        for (name, value) in settings.preset.fields().iter().copied().chain(hsts) {
            let is_csp = name == CSP;
            let replaced = is_csp && !csp.is_empty();
            let field = known_field(if is_csp { csp_name } else { name }, value);
            if !replaced && !remove.contains(&field.name.name) {
                wished.push(field);
            }
        }
        // Each name once, and none that is set: so nothing of it is asked of a silent response.
        let mut default: Vec<Field> = Vec::new();
        for field in wished {
            let is_said = |said: &Field| said.name.name == field.name.name;
            if !set.iter().chain(&default).any(is_said) {
                default.push(field);
            }
        }
        let add = said_fields(&settings.add);
        let revealing = settings.preset.removed().iter().copied();
        let mut known = OURS.map(|ours| ours.name.clone()).to_vec();
        known.extend(revealing.map(HeaderName::from_static));
        known.extend(remove);
        let removed = known.len();
        let said = set.iter().chain(&default).map(|field| &field.name.name);
        known.extend(said.cloned());

        Self {
            known: Names::new(known),
            removed,
            set: set.into(),
            default: default.into(),
            add: add.into(),
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

    /// What it does, in the words of the file and in the order in which it happens.
    pub fn rules(&self) -> Vec<String> {
        let removed =
            (OURS.len()..self.removed).map(|place| format!("remove {}", self.known[place]));
        let given = [
            ("request_set", &self.request_set),
            ("set", &self.set),
            ("default", &self.default),
            ("add", &self.add),
        ];
        let [request_set, set, default, add] = given.map(|(key, fields)| {
            let rule = move |field: &Field| field.rule(key);
            fields.iter().map(rule)
        });
        let request_removed = self.request_remove.iter();
        request_removed
            .map(|name| format!("request_remove {name}"))
            .chain(request_set)
            .chain(removed)
            .chain(set)
            .chain(default)
            .chain(add)
            .collect()
    }

    /// Dresses the request for the application; the operator's word is the last.
    pub fn prepare(&self, request: &mut HMap) {
        for name in &self.request_remove {
            request.remove(name);
        }
        for field in &self.request_set {
            request.insert(field.name.name.clone(), field.value.clone());
        }
    }

    /// Dresses a final response, forwarded or our own, just before it leaves.
    ///
    /// Removals come first, then `set`, then `default` where the field is still absent, then `add`;
    /// then `X-Request-ID`, `X-Request-Time` and `Server-Timing`. An informational response (101
    /// included) only receives its `X-Request-ID`.
    pub fn finish(&self, response: &mut impl Dressed, facts: &Facts<'_>) {
        if response.status() < StatusCode::OK {
            return response.set(&X_REQUEST_ID, facts.request_id.as_bytes());
        }
        self.give(response, facts.https);
        sign(response, facts);
    }

    /// What of [`Self::finish`] is the same for every request that is answered with this head.
    pub fn give(&self, response: &mut impl Dressed, https: bool) {
        let mut said = Places::new();
        response.each_name(|name| said.extend(self.known.place(name)));
        said.retain(|place| {
            let removed = *place < self.removed;
            if removed {
                response.remove(&self.known[*place]);
            }
            !removed
        });
        // Most responses say nothing of what is given here: then nothing is looked up.
        let silent = said.is_empty();
        let allowed = |field: &&Field| https || !field.https_only;
        for field in self.set.iter().filter(allowed) {
            if !silent {
                response.remove(&field.name.name);
            }
            response.add_field(field);
        }
        for field in self.default.iter().filter(allowed) {
            if silent || !response.has(&field.name.name) {
                response.add_field(field);
            }
        }
        for field in self.add.iter().filter(allowed) {
            response.add_field(field);
        }
    }
}

/// What of [`HeaderPolicy::finish`] is another one each time.
pub fn sign(response: &mut impl Dressed, facts: &Facts<'_>) {
    response.add(&X_REQUEST_ID, facts.request_id.as_bytes());
    response.add(&X_REQUEST_TIME, request_time(facts.elapsed).as_bytes());
    response.add(&SERVER_TIMING, server_timing(facts).as_bytes());
}

/// A name for look-ups and as it is written on the wire.
#[derive(Clone, Debug)]
pub struct Name {
    name: HeaderName,
    wire: Bytes,
}

impl Name {
    pub(super) const fn of(name: &'static str, wire: &'static str) -> Self {
        Self {
            name: HeaderName::from_static(name),
            wire: Bytes::from_static(wire.as_bytes()),
        }
    }

    pub(super) fn name(&self) -> &HeaderName {
        &self.name
    }
}

static X_REQUEST_ID: Name = Name::of("x-request-id", "X-Request-ID");
static X_REQUEST_TIME: Name = Name::of("x-request-time", "X-Request-Time");
static SERVER_TIMING: Name = Name::of("server-timing", "Server-Timing");

/// What replaces the application's own; its `Server-Timing` is continued.
static OURS: [&Name; 2] = [&X_REQUEST_ID, &X_REQUEST_TIME];

/// A response that fields can be taken from and given to.
pub trait Dressed {
    fn status(&self) -> StatusCode;
    /// The name of every field that the application sent and nobody removed, in any case.
    fn each_name(&self, visit: impl FnMut(&[u8]));
    /// Every line that the application sent and nobody removed: its name, in any case, and its value.
    fn each_line(&self, visit: impl FnMut(&[u8], &[u8]));
    /// Every value of this field, line by line.
    fn each(&self, name: &HeaderName, visit: impl FnMut(&[u8]));
    fn has(&self, name: &HeaderName) -> bool;
    fn remove(&mut self, name: &HeaderName);
    /// One more line of this field. `value` is a valid one.
    fn add(&mut self, name: &Name, value: &[u8]);
    /// The same with a value that is written piece by piece.
    fn add_with(&mut self, name: &Name, write: impl FnOnce(&mut Vec<u8>)) {
        let mut value = Vec::new();
        write(&mut value);
        self.add(name, &value);
    }
    /// The same with a field that was made before.
    fn add_field(&mut self, field: &Field) {
        self.add(&field.name, field.value.as_bytes());
    }
    /// This value in place of what the field said.
    fn set(&mut self, name: &Name, value: &[u8]) {
        self.remove(&name.name);
        self.add(name, value);
    }
}

/// What is given goes into pingora's maps, for answers of our own in any version of HTTP.
impl Dressed for ResponseHeader {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn each_name(&self, visit: impl FnMut(&[u8])) {
        each_name(&self.headers, visit);
    }

    fn each_line(&self, visit: impl FnMut(&[u8], &[u8])) {
        each_line(&self.headers, visit);
    }

    fn each(&self, name: &HeaderName, visit: impl FnMut(&[u8])) {
        each(&self.headers, name, visit);
    }

    fn has(&self, name: &HeaderName) -> bool {
        self.headers.contains_key(name)
    }

    fn remove(&mut self, name: &HeaderName) {
        if self.headers.contains_key(name) {
            self.remove_header(name);
        }
    }

    fn add(&mut self, name: &Name, value: &[u8]) {
        let value = HeaderValue::from_bytes(value).expect("values are checked or our own");
        self.append_header(name.wire.clone(), value)
            .expect("a response is far from 32,768 fields");
    }
}

/// What is given goes into the one map that HTTP/2 needs: its names have no case.
impl Dressed for Parts {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn each_name(&self, visit: impl FnMut(&[u8])) {
        each_name(&self.headers, visit);
    }

    fn each_line(&self, visit: impl FnMut(&[u8], &[u8])) {
        each_line(&self.headers, visit);
    }

    fn each(&self, name: &HeaderName, visit: impl FnMut(&[u8])) {
        each(&self.headers, name, visit);
    }

    fn has(&self, name: &HeaderName) -> bool {
        self.headers.contains_key(name)
    }

    fn remove(&mut self, name: &HeaderName) {
        self.headers.remove(name);
    }

    fn add(&mut self, name: &Name, value: &[u8]) {
        let mut value = HeaderValue::from_bytes(value).expect("values are checked or our own");
        // Not for the client's table of fields: it never comes again, and would push out what does.
        value.set_sensitive(true);
        self.headers.append(name.name.clone(), value);
    }

    fn add_field(&mut self, field: &Field) {
        let Field { name, value, .. } = field;
        self.headers.append(name.name.clone(), value.clone());
    }
}

/// What is given is written behind the head, for HTTP/1.x: a line of text costs a tenth of a place
/// in pingora's two maps.
pub struct OnWire<'a> {
    pub head: &'a mut ResponseHeader,
    /// Field lines, each with its end.
    pub lines: &'a mut Vec<u8>,
}

impl Dressed for OnWire<'_> {
    fn status(&self) -> StatusCode {
        self.head.status
    }

    fn each_name(&self, visit: impl FnMut(&[u8])) {
        self.head.each_name(visit);
    }

    fn each_line(&self, visit: impl FnMut(&[u8], &[u8])) {
        self.head.each_line(visit);
    }

    fn each(&self, name: &HeaderName, visit: impl FnMut(&[u8])) {
        self.head.each(name, visit);
    }

    fn has(&self, name: &HeaderName) -> bool {
        self.head.has(name)
    }

    fn remove(&mut self, name: &HeaderName) {
        self.head.remove(name);
    }

    fn add(&mut self, name: &Name, value: &[u8]) {
        self.add_with(name, |line| line.extend_from_slice(value));
    }

    fn add_with(&mut self, name: &Name, write: impl FnOnce(&mut Vec<u8>)) {
        write_line(self.lines, name, write);
    }

    fn add_field(&mut self, field: &Field) {
        self.lines.extend_from_slice(&field.line);
    }
}

/// Lines behind a head that is written already, and says nothing of what they say.
pub struct Behind<'a> {
    pub status: StatusCode,
    /// Field lines, each with its end.
    pub lines: &'a mut Vec<u8>,
}

impl Dressed for Behind<'_> {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn each_name(&self, _visit: impl FnMut(&[u8])) {}

    fn each_line(&self, _visit: impl FnMut(&[u8], &[u8])) {}

    fn each(&self, _name: &HeaderName, _visit: impl FnMut(&[u8])) {}

    fn has(&self, _name: &HeaderName) -> bool {
        false
    }

    fn remove(&mut self, _name: &HeaderName) {}

    fn add(&mut self, name: &Name, value: &[u8]) {
        self.add_with(name, |line| line.extend_from_slice(value));
    }

    fn add_with(&mut self, name: &Name, write: impl FnOnce(&mut Vec<u8>)) {
        write_line(self.lines, name, write);
    }

    fn add_field(&mut self, field: &Field) {
        self.lines.extend_from_slice(&field.line);
    }
}

/// The express lane's: what is given is written behind what came.
impl Dressed for ResponseHead {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn each_name(&self, visit: impl FnMut(&[u8])) {
        self.names().for_each(visit);
    }

    fn each_line(&self, visit: impl FnMut(&[u8], &[u8])) {
        self.each_line(visit);
    }

    fn each(&self, name: &HeaderName, visit: impl FnMut(&[u8])) {
        self.values(name).for_each(visit);
    }

    fn has(&self, name: &HeaderName) -> bool {
        self.has(name)
    }

    fn remove(&mut self, name: &HeaderName) {
        self.remove(name);
    }

    fn add(&mut self, name: &Name, value: &[u8]) {
        self.add_with(name, |line| line.extend_from_slice(value));
    }

    fn add_with(&mut self, name: &Name, write: impl FnOnce(&mut Vec<u8>)) {
        write_line(self.added(), name, write);
    }

    fn add_field(&mut self, field: &Field) {
        self.added().extend_from_slice(&field.line);
    }
}

fn each_name(fields: &HeaderMap, visit: impl FnMut(&[u8])) {
    let names = fields.keys().map(HeaderName::as_str);
    names.map(str::as_bytes).for_each(visit);
}

fn each_line(fields: &HeaderMap, mut visit: impl FnMut(&[u8], &[u8])) {
    for (name, value) in fields {
        visit(name.as_str().as_bytes(), value.as_bytes());
    }
}

fn each(fields: &HeaderMap, name: &HeaderName, visit: impl FnMut(&[u8])) {
    let values = fields.get_all(name).iter();
    values.map(HeaderValue::as_bytes).for_each(visit);
}

fn write_line(lines: &mut Vec<u8>, name: &Name, value: impl FnOnce(&mut Vec<u8>)) {
    lines.extend_from_slice(&name.wire);
    lines.extend_from_slice(b": ");
    value(lines);
    lines.extend_from_slice(b"\r\n");
}

/// Seconds to the millisecond: `0.123s`.
fn request_time(elapsed: Duration) -> Short<32> {
    let mut text = Short::default();
    text.push_decimal(elapsed.as_secs());
    text.push(b".");
    let millis = elapsed.subsec_millis();
    for ten in [100, 10, 1] {
        text.push_decimal(millis / ten % 10);
    }
    text.push(b"s");
    text
}

/// Milliseconds to the tenth: `cache;desc="MISS", connect;dur=0.4, first-byte;dur=53.2, total;dur=53.9`.
fn server_timing(facts: &Facts<'_>) -> Short<128> {
    let metrics: [(&[u8], _); 3] = [
        (b"connect;dur=", facts.connect),
        (b"first-byte;dur=", facts.first_byte),
        (b"total;dur=", Some(facts.elapsed)),
    ];
    let mut text = Short::default();
    let mut comma: &[u8] = b"";
    if let Some(cache) = facts.cache {
        text.push(b"cache;desc=\"");
        text.push(cache.in_capitals().as_bytes());
        text.push(b"\"");
        comma = b", ";
    }
    for (name, took) in metrics {
        let Some(took) = took else { continue };
        let tenths = took.subsec_micros() / 100;
        text.push(comma);
        text.push(name);
        let millis = took.as_secs().saturating_mul(1000);
        text.push_decimal(millis.saturating_add(u64::from(tenths / 10)));
        text.push(b".");
        text.push_decimal(tenths % 10);
        comma = b", ";
    }
    text
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

const CSP: &str = "Content-Security-Policy";
const CSP_REPORT_ONLY: &str = "Content-Security-Policy-Report-Only";

fn known_field(wire: &'static str, value: &str) -> Field {
    let name = HeaderName::from_bytes(wire.as_bytes()).expect("our own names are right");
    let value = HeaderValue::from_str(value).expect("our own values are right");
    Field::new(name, Bytes::from_static(wire.as_bytes()), value)
}

impl Field {
    fn new(name: HeaderName, wire: Bytes, value: HeaderValue) -> Self {
        let https_only = name == STRICT_TRANSPORT_SECURITY;
        let name = Name { name, wire };
        let mut line = Vec::new();
        write_line(&mut line, &name, |line| {
            line.extend_from_slice(value.as_bytes())
        });
        Self {
            name,
            value,
            line: line.into(),
            https_only,
        }
    }

    fn rule(&self, key: &str) -> String {
        let name = String::from_utf8_lossy(&self.name.wire);
        let value = String::from_utf8_lossy(self.value.as_bytes());
        let when = if self.https_only { " (on https)" } else { "" };
        format!("{key} {name}: {value}{when}")
    }
}

/// What is said to clients: of what is always ours, nobody else has a word in it.
fn said_fields(entries: &[(FieldName, HeaderValue)]) -> Vec<Field> {
    let mut said = fields(entries);
    said.retain(|field| OURS.iter().all(|ours| ours.name != field.name.name));
    said
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
