//! One header policy: what a response carries when it leaves us, compiled once per configuration.
//! Knows names and values; knows nothing of routes or of where a response came from.

use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY};
use pingora_http::{HMap, ResponseHeader};
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

/// A field that a policy gives.
#[derive(Clone, Debug)]
struct Field {
    name: Name,
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
            let is_said = |said: &Field| said.name.name == field.name.name;
            let is_csp = field.name.name == CONTENT_SECURITY_POLICY && !csp.is_empty();
            if !is_csp
                && !set.iter().any(is_said)
                && !default.iter().any(is_said)
                && !remove.contains(&field.name.name)
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
        response.set(&X_REQUEST_ID, facts.request_id.as_str().as_bytes());
        if response.status() < StatusCode::OK {
            return;
        }
        for name in &self.remove {
            response.remove(name);
        }
        let allowed = |field: &&Field| facts.https || !field.https_only;
        for field in self.set.iter().filter(allowed) {
            response.set(&field.name, field.value.as_bytes());
        }
        for field in self.default.iter().filter(allowed) {
            let set = |other: &Field| other.name.name == field.name.name;
            if !response.has(&field.name.name) && !self.set.iter().any(set) {
                response.add(&field.name, field.value.as_bytes());
            }
        }
        for field in self.add.iter().filter(allowed) {
            response.add(&field.name, field.value.as_bytes());
        }
        let mut short = Short::default();
        response.set(&X_REQUEST_TIME, short.request_time(facts.elapsed));
        response.add(&SERVER_TIMING, short.server_timing(facts));
    }
}

/// A name for look-ups and as it is written on the wire.
#[derive(Clone, Debug)]
pub struct Name {
    name: HeaderName,
    wire: Bytes,
}

impl Name {
    const fn of(name: &'static str, wire: &'static str) -> Self {
        Self {
            name: HeaderName::from_static(name),
            wire: Bytes::from_static(wire.as_bytes()),
        }
    }
}

static X_REQUEST_ID: Name = Name::of("x-request-id", "X-Request-ID");
static X_REQUEST_TIME: Name = Name::of("x-request-time", "X-Request-Time");
static SERVER_TIMING: Name = Name::of("server-timing", "Server-Timing");

/// A response that fields can be taken from and given to.
pub trait Dressed {
    fn status(&self) -> StatusCode;
    fn has(&self, name: &HeaderName) -> bool;
    fn remove(&mut self, name: &HeaderName);
    /// One more line of this field. `value` is a valid one.
    fn add(&mut self, name: &Name, value: &[u8]);
    /// This value in place of what the field said.
    fn set(&mut self, name: &Name, value: &[u8]) {
        self.remove(&name.name);
        self.add(name, value);
    }
}

/// What is given goes into the map, for HTTP/2 and for answers of our own.
impl Dressed for ResponseHeader {
    fn status(&self) -> StatusCode {
        self.status
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

    fn has(&self, name: &HeaderName) -> bool {
        self.head.has(name)
    }

    fn remove(&mut self, name: &HeaderName) {
        self.head.remove(name);
    }

    fn add(&mut self, name: &Name, value: &[u8]) {
        for part in [&name.wire[..], b": ", value, b"\r\n"] {
            self.lines.extend_from_slice(part);
        }
    }
}

/// Short values, one at a time, without a heap.
struct Short {
    // Three times of the longest Duration, and their names.
    text: [u8; 128],
}

impl Default for Short {
    fn default() -> Self {
        Self { text: [0; 128] }
    }
}

impl Short {
    /// Seconds to the millisecond: `0.123s`.
    fn request_time(&mut self, elapsed: Duration) -> &[u8] {
        let (seconds, millis) = (elapsed.as_secs(), elapsed.subsec_millis());
        self.written(|text| write!(text, "{seconds}.{millis:03}s"))
    }

    /// Milliseconds to the tenth: `connect;dur=0.4, first-byte;dur=53.2, total;dur=53.9`.
    fn server_timing(&mut self, facts: &Facts<'_>) -> &[u8] {
        let metrics = [
            ("connect;dur=", facts.connect),
            ("first-byte;dur=", facts.first_byte),
            ("total;dur=", Some(facts.elapsed)),
        ];
        self.written(|text| {
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

    fn written(&mut self, write: impl FnOnce(&mut &mut [u8]) -> io::Result<()>) -> &[u8] {
        let mut free = &mut self.text[..];
        write(&mut free).expect("three times fit");
        let free = free.len();
        &self.text[..self.text.len() - free]
    }
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
            name: Name { name, wire },
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(entries: &[(&str, &'static str)]) -> Vec<(FieldName, HeaderValue)> {
        entries
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    fn response(fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut response = ResponseHeader::build(200, None).unwrap();
        for (name, value) in fields {
            response.append_header(*name, *value).unwrap();
        }
        response
    }

    fn finished(
        settings: &PolicySettings,
        https: bool,
        mut response: ResponseHeader,
    ) -> ResponseHeader {
        let id = RequestId::parse(b"id-1").unwrap();
        let facts = Facts {
            https,
            request_id: &id,
            elapsed: Duration::from_micros(53_914),
            connect: None,
            first_byte: Some(Duration::from_micros(53_249)),
        };
        HeaderPolicy::new(settings).finish(&mut response, &facts);
        response
    }

    fn preset(preset: Preset) -> PolicySettings {
        PolicySettings {
            preset,
            ..PolicySettings::default()
        }
    }

    fn all<'a>(response: &'a ResponseHeader, name: &str) -> Vec<&'a str> {
        let values = response.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }

    fn names(response: &ResponseHeader) -> Vec<String> {
        let mut names: Vec<String> = response.headers.keys().map(ToString::to_string).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn each_preset_sends_its_list() {
        let always = ["server-timing", "x-request-id", "x-request-time"];
        let basic = [
            "referrer-policy",
            "strict-transport-security",
            "x-content-type-options",
            "x-frame-options",
            "x-permitted-cross-domain-policies",
        ];
        let strict = [
            "content-security-policy",
            "cross-origin-opener-policy",
            "cross-origin-resource-policy",
            "permissions-policy",
            "x-dns-prefetch-control",
        ];
        let lists: [(Preset, Vec<&str>); 3] = [
            (Preset::Off, always.to_vec()),
            (Preset::Basic, [&always[..], &basic].concat()),
            (Preset::Strict, [&always[..], &basic, &strict].concat()),
        ];
        for (word, mut expected) in lists {
            expected.sort_unstable();
            assert_eq!(
                names(&finished(&preset(word), true, response(&[]))),
                expected,
                "{word:?}"
            );
        }
    }

    #[test]
    fn strict_transport_security_is_only_sent_over_https() {
        let year = "max-age=31536000";
        let years = "max-age=63072000; includeSubDomains";
        let own = Hsts::MaxAge(Duration::from_secs(60));
        let cases = [
            (Preset::Basic, Hsts::OfPreset, Some(year)),
            (Preset::Strict, Hsts::OfPreset, Some(years)),
            (Preset::Off, Hsts::OfPreset, None),
            (Preset::Basic, Hsts::Never, None),
            (Preset::Basic, own, Some("max-age=60")),
            (Preset::Off, own, Some("max-age=60")),
            (Preset::Strict, own, Some("max-age=60; includeSubDomains")),
        ];
        for (preset, hsts, expected) in cases {
            let settings = PolicySettings {
                preset,
                hsts,
                ..PolicySettings::default()
            };
            let over = |https| finished(&settings, https, response(&[]));
            let sent = over(true);
            assert_eq!(
                all(&sent, "strict-transport-security").first().copied(),
                expected
            );
            assert!(all(&over(false), "strict-transport-security").is_empty());
        }
        let set = pairs(&[("strict-transport-security", "max-age=1; preload")]);
        let settings = PolicySettings {
            set,
            ..preset(Preset::Basic)
        };
        let sent = finished(&settings, true, response(&[]));
        assert_eq!(
            all(&sent, "strict-transport-security"),
            ["max-age=1; preload"]
        );
        let plain = finished(&settings, false, response(&[]));
        assert!(all(&plain, "strict-transport-security").is_empty());
    }

    #[test]
    fn the_application_is_heard_before_a_default_and_not_before_a_set() {
        let settings = PolicySettings {
            set: pairs(&[("X-Robots-Tag", "none")]),
            default: pairs(&[("Referrer-Policy", "same-origin"), ("X-Own", "d")]),
            add: pairs(&[("Link", "</b.css>")]),
            remove: ["X-Gone", "X-Permitted-Cross-Domain-Policies"]
                .map(|name| name.parse().unwrap())
                .into(),
            ..preset(Preset::Basic)
        };
        let said = response(&[
            ("X-Frame-Options", "DENY"),
            ("X-Robots-Tag", "all"),
            ("X-Own", "application"),
            ("Link", "</a.css>"),
            ("X-Gone", "1"),
            ("Server", "gunicorn"),
            ("X-Powered-By", "PHP/8"),
        ]);
        let sent = finished(&settings, false, said);
        assert_eq!(all(&sent, "x-frame-options"), ["DENY"]);
        assert_eq!(all(&sent, "x-robots-tag"), ["none"]);
        assert_eq!(all(&sent, "x-own"), ["application"]);
        assert_eq!(all(&sent, "link"), ["</a.css>", "</b.css>"]);
        assert_eq!(all(&sent, "referrer-policy"), ["same-origin"]);
        let gone = [
            "x-gone",
            "server",
            "x-powered-by",
            "x-permitted-cross-domain-policies",
        ];
        assert!(gone.iter().all(|name| all(&sent, name).is_empty()));
    }

    #[test]
    fn off_leaves_the_application_as_it_is() {
        let sent = finished(
            &preset(Preset::Off),
            true,
            response(&[("Server", "gunicorn")]),
        );
        assert_eq!(all(&sent, "server"), ["gunicorn"]);
    }

    #[test]
    fn a_server_field_of_the_operators_own_is_sent() {
        let settings = PolicySettings {
            set: pairs(&[("Server", "edge")]),
            ..preset(Preset::Strict)
        };
        assert_eq!(
            all(
                &finished(&settings, true, response(&[("Server", "x")])),
                "server"
            ),
            ["edge"]
        );
    }

    #[test]
    fn a_policy_of_the_operator_takes_the_place_of_the_presets() {
        let mut csp = Csp::default();
        csp.push("default-src", &["'self'"]).unwrap();
        let enforced = PolicySettings {
            csp,
            ..preset(Preset::Strict)
        };
        let sent = finished(&enforced, true, response(&[]));
        assert_eq!(
            all(&sent, "content-security-policy"),
            ["default-src 'self'"]
        );
        let reported = PolicySettings {
            csp_report_only: true,
            ..enforced.clone()
        };
        let sent = finished(&reported, true, response(&[]));
        assert!(all(&sent, "content-security-policy").is_empty());
        assert_eq!(
            all(&sent, "content-security-policy-report-only"),
            ["default-src 'self'"]
        );
        let own = response(&[("Content-Security-Policy", "default-src *")]);
        let sent = finished(&enforced, true, own);
        assert_eq!(all(&sent, "content-security-policy"), ["default-src *"]);
    }

    #[test]
    fn id_and_times_are_ours_and_server_timing_is_continued() {
        let said = response(&[
            ("X-Request-ID", "forged"),
            ("X-Request-Time", "0s"),
            ("Server-Timing", "db;dur=5"),
        ]);
        let sent = finished(&preset(Preset::Off), true, said);
        assert_eq!(all(&sent, "x-request-id"), ["id-1"]);
        assert_eq!(all(&sent, "x-request-time"), ["0.053s"]);
        let ours = "first-byte;dur=53.2, total;dur=53.9";
        assert_eq!(all(&sent, "server-timing"), ["db;dur=5", ours]);
    }

    #[test]
    fn the_longest_times_are_written_too() {
        let id = RequestId::make();
        let facts = Facts {
            https: true,
            request_id: &id,
            elapsed: Duration::MAX,
            connect: Some(Duration::MAX),
            first_byte: Some(Duration::MAX),
        };
        assert!(Short::default().server_timing(&facts).len() > 100);
        assert!(Short::default().request_time(Duration::MAX).len() > 20);
    }

    #[test]
    fn an_informational_response_only_gets_its_id() {
        let switching = ResponseHeader::build(101, None).unwrap();
        let sent = finished(&preset(Preset::Strict), true, switching);
        assert_eq!(names(&sent), ["x-request-id"]);
    }

    #[test]
    fn names_keep_the_case_they_were_written_in() {
        let set = pairs(&[("X-MiXed", "1")]);
        let settings = PolicySettings {
            set,
            ..preset(Preset::Strict)
        };
        let mut wire = Vec::new();
        finished(&settings, true, response(&[])).header_to_h1_wire(&mut wire);
        let wire = String::from_utf8(wire).unwrap();
        for name in [
            "X-MiXed: 1\r\n",
            "X-Frame-Options: deny\r\n",
            "X-Request-ID: id-1\r\n",
        ] {
            assert!(wire.contains(name), "{wire}");
        }
    }

    #[test]
    fn the_operators_request_fields_reach_the_application() {
        let settings = PolicySettings {
            request_set: pairs(&[("X-Tenant", "a")]),
            request_remove: vec!["Cookie".parse().unwrap()],
            ..PolicySettings::default()
        };
        let mut request = HMap::new();
        request.insert("cookie", HeaderValue::from_static("a=1"));
        request.insert("x-tenant", HeaderValue::from_static("forged"));
        HeaderPolicy::new(&settings).prepare(&mut request);
        assert_eq!(request["x-tenant"], "a");
        assert!(!request.contains_key("cookie"));
    }

    #[test]
    fn no_policy_touches_what_frames_a_message() {
        let why = |text: &str| text.parse::<FieldName>().unwrap_err().to_string();
        assert_eq!(
            why("Bad Name"),
            r#""Bad Name" is not a header name; expected letters, digits and -"#
        );
        assert_eq!(
            why("Host"),
            r#"field "host" is set by the upstream; expected host = "…" there"#
        );
        for name in ["Content-Length", "Connection", "TE"] {
            let lower = name.to_ascii_lowercase();
            let end = "frames the message or belongs to its connection; no policy may touch it";
            assert_eq!(why(name), format!("field {lower:?} {end}"));
        }
    }

    #[test]
    fn a_response_on_the_wire_gains_what_the_map_would_have() {
        let settings = PolicySettings {
            set: pairs(&[("X-Frame-Options", "DENY")]),
            add: pairs(&[("Link", "</a.css>; rel=preload")]),
            ..PolicySettings::default()
        };
        let backend = || {
            response(&[
                ("Server", "x"),
                ("X-Frame-Options", "ALLOW"),
                ("Link", "</b>"),
            ])
        };
        let mut mapped = finished(&settings, true, backend());
        let mut head = backend();
        let mut lines = Vec::new();
        let id = RequestId::parse(b"id-1").unwrap();
        let facts = Facts {
            https: true,
            request_id: &id,
            elapsed: Duration::from_micros(1500),
            connect: None,
            first_byte: None,
        };
        HeaderPolicy::new(&settings).finish(
            &mut OnWire {
                head: &mut head,
                lines: &mut lines,
            },
            &facts,
        );
        let mut wire = Vec::new();
        head.header_to_h1_wire(&mut wire);
        wire.extend_from_slice(&lines);
        let mut expected = Vec::new();
        mapped.remove_header("x-request-time");
        mapped.remove_header("server-timing");
        mapped.header_to_h1_wire(&mut expected);
        let sorted = |text: &[u8]| {
            let text = String::from_utf8(text.to_vec()).unwrap();
            let mut lines: Vec<String> = text
                .lines()
                .filter(|line| {
                    !line.starts_with("X-Request-Time") && !line.starts_with("Server-Timing")
                })
                .map(str::to_owned)
                .collect();
            lines.sort_unstable();
            lines
        };
        assert_eq!(sorted(&wire), sorted(&expected));
        assert!(
            String::from_utf8(lines)
                .unwrap()
                .contains("X-Request-Time: 0.001s\r\n")
        );
    }

    proptest! {
        #[test]
        fn any_time_is_written_to_its_unit(micros in 0..10_000_000_000_u64) {
            let mut short = Short::default();
            let time = short.request_time(Duration::from_micros(micros));
            let time = std::str::from_utf8(time).unwrap();
            let seconds: f64 = time.strip_suffix('s').unwrap().parse().unwrap();
            prop_assert!((seconds - micros as f64 / 1e6).abs() < 0.001);
        }

        #[test]
        fn finish_never_takes_away_what_the_application_said_of_security(
            value in "[a-z' ]{1,20}[a-z]",
            strict in any::<bool>(),
        ) {
            let word = if strict { Preset::Strict } else { Preset::Basic };
            for (name, _) in word.fields() {
                let sent = finished(&preset(word), true, response(&[(name, &value)]));
                prop_assert_eq!(all(&sent, name), [value.as_str()]);
            }
        }
    }
}
