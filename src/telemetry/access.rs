//! The one record of a finished request: which requests get one, what it says, how it is written.
//! Pure: a record is plain values, and there is no field that could hold a credential.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::Format;
use super::line::{Millis, Timestamp, escape_json, escape_text, put};
pub use super::query::QueryMode;
use crate::word::UnknownWord;

/// Everything that is said about one request. Absent facts leave no trace in the line.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the request ended.
    pub time: SystemTime,
    pub id: &'a str,
    /// Who asked, behind trusted proxies.
    pub client: IpAddr,
    /// Who connected.
    pub peer: IpAddr,
    pub method: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    /// Without its `?`.
    pub query: Option<&'a str>,
    /// `HTTP/1.0`, `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'a str,
    /// `TLSv1.2`, `TLSv1.3`; `None` on plaintext.
    pub tls: Option<&'a str>,
    pub route: Option<&'a str>,
    pub upstream: Option<&'a str>,
    /// The backend of the last attempt.
    pub backend: Option<&'a str>,
    /// How often a backend was tried; 0 if the gateway answered by itself.
    pub attempts: u32,
    /// 0 if the client left before there was one.
    pub status: u16,
    /// Body bytes received from the client.
    pub bytes_in: u64,
    /// Body bytes sent to the client.
    pub bytes_out: u64,
    /// From the first byte of the request to the last of the response.
    pub duration: Duration,
    pub connect: Option<Duration>,
    pub first_byte: Option<Duration>,
    /// Why the gateway answered by itself, or what went wrong: a stable code.
    pub reason: Option<&'a str>,
    /// What the cache had to do with the answer, on a route that has one: a stable word.
    pub cache: Option<&'a str>,
    /// Where the stored response stood that was given: a stable word.
    pub cache_tier: Option<&'a str>,
    /// Why it is not stored, or what else there is to say: a stable word.
    pub cache_detail: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    /// The client left before the response was whole.
    pub aborted: bool,
    /// The connection became a tunnel (101), whose length is no sign of slowness.
    pub tunnel: bool,
}

/// Which requests get a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AccessMode {
    All,
    /// Status 400 and above, and requests without a status.
    #[default]
    Errors,
    /// Slower than `slow_after`.
    Slow,
    /// One of `N`.
    Sampled(NonZeroU64),
    Off,
}

/// How one route wants its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessPolicy {
    pub mode: AccessMode,
    pub slow_after: Duration,
    pub query: QueryMode,
}

/// Why a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Wanted,
    /// Slower than `slow_after`: a WARN line, whatever the mode.
    Slow,
}

/// Why a text is no [`AccessMode`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadAccessMode {
    #[error(transparent)]
    Unknown(UnknownWord),
    #[error("{0:?} is not a sampling rate; expected sampled:N, one request in N, N from 1")]
    Rate(String),
}

impl FromStr for AccessMode {
    type Err = BadAccessMode;

    fn from_str(text: &str) -> Result<Self, BadAccessMode> {
        const WORDS: &[&str] = &["all", "errors", "slow", "sampled:N", "off"];
        match text {
            "all" => Ok(Self::All),
            "errors" => Ok(Self::Errors),
            "slow" => Ok(Self::Slow),
            "off" => Ok(Self::Off),
            _ => match text.strip_prefix("sampled:") {
                Some(every) => Some(every)
                    .filter(|every| every.bytes().all(|byte| byte.is_ascii_digit()))
                    .and_then(|every| every.parse().ok())
                    .map(Self::Sampled)
                    .ok_or_else(|| BadAccessMode::Rate(every.to_owned())),
                None => Err(BadAccessMode::Unknown(UnknownWord::new(
                    "access mode",
                    text,
                    WORDS,
                ))),
            },
        }
    }
}

impl fmt::Display for AccessMode {
    /// The operator's word for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Errors => f.write_str("errors"),
            Self::Slow => f.write_str("slow"),
            Self::Sampled(every) => write!(f, "sampled:{every}"),
            Self::Off => f.write_str("off"),
        }
    }
}

impl AccessMode {
    /// Whether a request gets a record. `nth` counts requests and is asked only when sampling.
    pub fn wants(
        self,
        status: u16,
        duration: Duration,
        slow_after: Duration,
        nth: impl FnOnce() -> u64,
    ) -> bool {
        match self {
            Self::All => true,
            Self::Errors => status >= 400 || status == 0,
            Self::Slow => duration > slow_after,
            Self::Sampled(every) => nth().is_multiple_of(every.get()),
            Self::Off => false,
        }
    }
}

impl AccessPolicy {
    /// Whether a request that ended like this may get a record. False for most: theirs need not be made.
    pub fn may_want(&self, status: u16, duration: Duration) -> bool {
        duration > self.slow_after || self.mode.wants(status, duration, self.slow_after, || 0)
    }

    /// Whether `record` is written, and as what. A slow request is warned of in every mode.
    pub fn verdict(&self, record: &Record<'_>, nth: impl FnOnce() -> u64) -> Option<Verdict> {
        if record.duration > self.slow_after && !record.tunnel {
            return Some(Verdict::Slow);
        }
        let duration = if record.tunnel {
            Duration::ZERO
        } else {
            record.duration
        };
        self.mode
            .wants(record.status, duration, self.slow_after, nth)
            .then_some(Verdict::Wanted)
    }
}

/// One value of a line.
enum Value<'a> {
    Text(&'a str),
    Query(&'a str, QueryMode),
    Number(u64),
    Millis(Duration),
    Address(IpAddr),
    True,
}

impl Record<'_> {
    /// Appends the record as one line with its end.
    pub fn write(&self, line: &mut Vec<u8>, format: Format, query: QueryMode, verdict: Verdict) {
        match format {
            Format::Json => self.write_json(line, query, verdict),
            Format::Text => self.write_text(line, query, verdict),
        }
        line.push(b'\n');
    }

    fn write_json(&self, line: &mut Vec<u8>, query: QueryMode, verdict: Verdict) {
        put(
            line,
            format_args!("{{\"timestamp\":\"{}\",", Timestamp(self.time)),
        );
        line.extend_from_slice(match verdict {
            Verdict::Wanted => br#""level":"INFO","message":"request","target":"access""#,
            Verdict::Slow => br#""level":"WARN","message":"slow request","target":"access""#,
        });
        self.each_fact(query, |name, value| {
            put(line, format_args!(",\"{name}\":"));
            match value {
                Value::Text(text) => {
                    line.push(b'"');
                    escape_json(line, text);
                    line.push(b'"');
                }
                Value::Query(text, mode) => {
                    line.push(b'"');
                    mode.each_piece(text, |piece| escape_json(line, piece));
                    line.push(b'"');
                }
                Value::Number(number) => put(line, format_args!("{number}")),
                Value::Millis(took) => put(line, format_args!("{}", Millis(took))),
                Value::Address(address) => put(line, format_args!("\"{address}\"")),
                Value::True => line.extend_from_slice(b"true"),
            }
        });
        line.push(b'}');
    }

    fn write_text(&self, line: &mut Vec<u8>, query: QueryMode, verdict: Verdict) {
        let level = match verdict {
            Verdict::Wanted => " INFO access: request",
            Verdict::Slow => " WARN access: slow request",
        };
        put(line, format_args!("{} {level}", Timestamp(self.time)));
        self.each_fact(query, |name, value| {
            put(line, format_args!(" {name}="));
            match value {
                Value::Text(text) => escape_text(line, text),
                Value::Query(text, mode) => mode.each_piece(text, |piece| escape_text(line, piece)),
                Value::Number(number) => put(line, format_args!("{number}")),
                Value::Millis(took) => put(line, format_args!("{}", Millis(took))),
                Value::Address(address) => put(line, format_args!("{address}")),
                Value::True => line.extend_from_slice(b"true"),
            }
        });
    }

    /// Every fact in the order of the line; both formats say the same.
    fn each_fact<'a>(&'a self, query: QueryMode, mut fact: impl FnMut(&'static str, Value<'a>)) {
        let text = Value::Text;
        let took = |took: Duration| Value::Millis(took);
        fact("id", text(self.id));
        fact("client", Value::Address(self.client));
        if self.peer != self.client {
            fact("peer", Value::Address(self.peer));
        }
        fact("method", text(self.method));
        fact("host", text(self.host));
        fact("path", text(self.path));
        if let Some(asked) = self.query.filter(|_| query != QueryMode::Off) {
            fact("query", Value::Query(asked, query));
        }
        fact("status", Value::Number(self.status.into()));
        fact("duration_ms", took(self.duration));
        self.connect
            .into_iter()
            .for_each(|time| fact("connect_ms", took(time)));
        self.first_byte
            .into_iter()
            .for_each(|time| fact("first_byte_ms", took(time)));
        self.route
            .into_iter()
            .for_each(|name| fact("route", text(name)));
        self.upstream
            .into_iter()
            .for_each(|name| fact("upstream", text(name)));
        self.backend
            .into_iter()
            .for_each(|name| fact("backend", text(name)));
        fact("attempts", Value::Number(self.attempts.into()));
        fact("bytes_in", Value::Number(self.bytes_in));
        fact("bytes_out", Value::Number(self.bytes_out));
        fact("protocol", text(self.protocol));
        self.tls
            .into_iter()
            .for_each(|version| fact("tls", text(version)));
        self.reason
            .into_iter()
            .for_each(|reason| fact("reason", text(reason)));
        self.cache
            .into_iter()
            .for_each(|word| fact("cache", text(word)));
        self.cache_tier
            .into_iter()
            .for_each(|word| fact("cache_tier", text(word)));
        self.cache_detail
            .into_iter()
            .for_each(|word| fact("cache_detail", text(word)));
        self.user_agent
            .into_iter()
            .for_each(|agent| fact("user_agent", text(agent)));
        if self.aborted {
            fact("aborted", Value::True);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn record() -> Record<'static> {
        Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_187_222_000_123),
            id: "0190-a",
            client: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
            peer: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            method: "GET",
            host: "shop.example",
            path: "/a b",
            query: Some("q=1&token=abc"),
            protocol: "HTTP/2",
            tls: Some("TLSv1.3"),
            route: Some("api"),
            upstream: Some("app"),
            backend: Some("127.0.0.1:8000"),
            attempts: 2,
            status: 502,
            bytes_in: 12,
            bytes_out: 3456,
            duration: Duration::from_micros(53_914),
            connect: Some(Duration::from_micros(400)),
            first_byte: Some(Duration::from_micros(53_200)),
            reason: Some("upstream_reset"),
            user_agent: Some("curl/8 \"x\""),
            aborted: true,
            cache: None,
            cache_tier: None,
            cache_detail: None,
            tunnel: false,
        }
    }

    fn written(record: &Record<'_>, format: Format, verdict: Verdict) -> String {
        let mut line = Vec::new();
        record.write(&mut line, format, QueryMode::Masked, verdict);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_json_record_is_one_flat_object_with_one_field_for_each_fact() {
        let line = written(&record(), Format::Json, Verdict::Wanted);
        assert_eq!(
            line,
            concat!(
                r#"{"timestamp":"2026-11-20T15:07:02.000123Z","level":"INFO","message":"request","#,
                r#""target":"access","id":"0190-a","client":"203.0.113.9","peer":"10.0.0.1","#,
                r#""method":"GET","host":"shop.example","path":"/a b","query":"q=1&token=***","#,
                r#""status":502,"duration_ms":53.914,"connect_ms":0.400,"first_byte_ms":53.200,"#,
                r#""route":"api","upstream":"app","backend":"127.0.0.1:8000","attempts":2,"#,
                r#""bytes_in":12,"bytes_out":3456,"protocol":"HTTP/2","tls":"TLSv1.3","#,
                r#""reason":"upstream_reset","user_agent":"curl/8 \"x\"","aborted":true}"#,
                "\n",
            )
        );
    }

    #[test]
    fn a_text_record_says_the_same_and_splits_at_its_spaces() {
        let line = written(&record(), Format::Text, Verdict::Slow);
        assert_eq!(
            line,
            concat!(
                "2026-11-20T15:07:02.000123Z  WARN access: slow request id=0190-a ",
                "client=203.0.113.9 peer=10.0.0.1 method=GET host=shop.example path=/a\\u{20}b ",
                "query=q=1&token=*** status=502 duration_ms=53.914 connect_ms=0.400 ",
                "first_byte_ms=53.200 route=api upstream=app backend=127.0.0.1:8000 attempts=2 ",
                "bytes_in=12 bytes_out=3456 protocol=HTTP/2 tls=TLSv1.3 reason=upstream_reset ",
                "user_agent=curl/8\\u{20}\\u{22}x\\u{22} aborted=true\n",
            )
        );
    }

    #[test]
    fn what_is_absent_leaves_no_trace() {
        let quiet = Record {
            peer: record().client,
            query: None,
            tls: None,
            route: None,
            upstream: None,
            backend: None,
            connect: None,
            first_byte: None,
            reason: None,
            user_agent: None,
            aborted: false,
            ..record()
        };
        let line = written(&quiet, Format::Json, Verdict::Wanted);
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&line).unwrap();
        let mut names: Vec<&str> = object.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "attempts",
                "bytes_in",
                "bytes_out",
                "client",
                "duration_ms",
                "host",
                "id",
                "level",
                "message",
                "method",
                "path",
                "protocol",
                "status",
                "target",
                "timestamp",
            ]
        );
    }

    #[test]
    fn modes_are_read_and_unknown_ones_named() {
        let sampled = |every| Ok(AccessMode::Sampled(NonZeroU64::new(every).unwrap()));
        assert_eq!("all".parse(), Ok(AccessMode::All));
        assert_eq!("errors".parse(), Ok(AccessMode::Errors));
        assert_eq!("slow".parse(), Ok(AccessMode::Slow));
        assert_eq!("off".parse(), Ok(AccessMode::Off));
        assert_eq!("sampled:100".parse(), sampled(100));
        for wrong in ["", "All", "sampled"] {
            let error = wrong.parse::<AccessMode>().unwrap_err().to_string();
            let (start, end) = (
                format!("unknown access mode {wrong:?}"),
                "expected: all, errors, slow, sampled:N, off",
            );
            assert!(error.starts_with(&start) && error.ends_with(end), "{error}");
        }
        for rate in ["", "0", "+1", "-1", "1.5"] {
            let error = format!("sampled:{rate}").parse::<AccessMode>();
            assert_eq!(error, Err(BadAccessMode::Rate(rate.to_owned())));
        }
    }

    #[test]
    fn a_mode_wants_what_its_name_says() {
        let quick = Duration::from_millis(5);
        let slow = Duration::from_secs(2);
        let cases = [
            (AccessMode::All, 200, quick, true),
            (AccessMode::Errors, 200, slow, false),
            (AccessMode::Errors, 399, quick, false),
            (AccessMode::Errors, 400, quick, true),
            (AccessMode::Errors, 503, quick, true),
            (AccessMode::Errors, 0, quick, true),
            (AccessMode::Slow, 500, quick, false),
            (AccessMode::Slow, 200, SECOND, false),
            (AccessMode::Slow, 200, slow, true),
            (AccessMode::Off, 500, slow, false),
        ];
        for (mode, status, duration, expected) in cases {
            let nth = || unreachable!("only sampling counts");
            assert_eq!(
                mode.wants(status, duration, SECOND, nth),
                expected,
                "{mode:?} {status} {duration:?}"
            );
        }
    }

    #[test]
    fn sampling_takes_the_first_of_every_n() {
        let mode = AccessMode::Sampled(NonZeroU64::new(3).unwrap());
        let wanted: Vec<u64> = (0..7)
            .filter(|&nth| mode.wants(200, SECOND, SECOND, || nth))
            .collect();
        assert_eq!(wanted, [0, 3, 6]);
    }

    #[test]
    fn a_slow_request_is_warned_of_once_in_every_mode_and_a_tunnel_never() {
        for mode in [AccessMode::All, AccessMode::Errors, AccessMode::Off] {
            let policy = AccessPolicy {
                mode,
                slow_after: SECOND,
                query: QueryMode::Off,
            };
            let slow = Record {
                duration: 2 * SECOND,
                ..record()
            };
            assert_eq!(policy.verdict(&slow, || 0), Some(Verdict::Slow));
            let tunnel = Record {
                tunnel: true,
                status: 101,
                ..slow
            };
            let expected = (mode == AccessMode::All).then_some(Verdict::Wanted);
            assert_eq!(policy.verdict(&tunnel, || 0), expected);
        }
    }

    #[test]
    fn no_record_that_is_wanted_is_left_unmade() {
        let every = NonZeroU64::new(3).unwrap();
        let modes = [
            AccessMode::All,
            AccessMode::Errors,
            AccessMode::Slow,
            AccessMode::Sampled(every),
            AccessMode::Off,
        ];
        for (mode, made) in modes.into_iter().zip([true, false, false, true, false]) {
            let policy = AccessPolicy {
                mode,
                slow_after: SECOND,
                query: QueryMode::Off,
            };
            assert_eq!(policy.may_want(200, SECOND), made, "{mode}");
            for (status, duration) in [(0, SECOND), (200, SECOND), (500, SECOND), (200, 2 * SECOND)]
            {
                let record = Record {
                    status,
                    duration,
                    ..record()
                };
                let wanted = policy.verdict(&record, || 0).is_some();
                assert!(
                    !wanted || policy.may_want(status, duration),
                    "{mode} {status}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_survives_json_and_stays_on_one_line(path in ".*", agent in any::<String>()) {
            let record = Record { path: &path, user_agent: Some(&agent), ..record() };
            let line = written(&record, Format::Json, Verdict::Wanted);
            prop_assert_eq!(line.matches('\n').count(), 1);
            let object: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(object["path"].as_str(), Some(path.as_str()));
            prop_assert_eq!(object["user_agent"].as_str(), Some(agent.as_str()));
        }

        #[test]
        fn no_text_breaks_a_line_or_forges_a_fact(agent in any::<String>()) {
            let record = Record { user_agent: Some(&agent), aborted: false, ..record() };
            let line = written(&record, Format::Text, Verdict::Wanted);
            let line = line.strip_suffix('\n').unwrap();
            prop_assert!(!line.contains(|character: char| character.is_control()));
            let last = line.rsplit(' ').next().unwrap();
            prop_assert!(last.starts_with("user_agent="));
        }
    }
}
