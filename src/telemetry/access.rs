//! The one record of a finished request: which requests get one, what it says, how it is written.
//! Pure: a record is plain values, and there is no field that could hold a credential.

use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;

use super::Format;

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

/// How much of a query is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QueryMode {
    /// Values of parameters that look secret are replaced by `***`.
    #[default]
    Masked,
    Off,
    Full,
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

#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("unknown {what} {found:?}; expected {expected}")]
pub struct UnknownMode {
    what: &'static str,
    found: String,
    expected: &'static str,
}

impl FromStr for AccessMode {
    type Err = UnknownMode;

    fn from_str(word: &str) -> Result<Self, UnknownMode> {
        let sampled = || {
            let digits = word.strip_prefix("sampled:")?;
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| plain).map(Self::Sampled)
        };
        match word {
            "all" => Ok(Self::All),
            "errors" => Ok(Self::Errors),
            "slow" => Ok(Self::Slow),
            "off" => Ok(Self::Off),
            _ => sampled().ok_or_else(|| UnknownMode {
                what: "access mode",
                found: word.to_owned(),
                expected: "all, errors, slow, sampled:N (N at least 1) or off",
            }),
        }
    }
}

impl FromStr for QueryMode {
    type Err = UnknownMode;

    fn from_str(word: &str) -> Result<Self, UnknownMode> {
        match word {
            "masked" => Ok(Self::Masked),
            "off" => Ok(Self::Off),
            "full" => Ok(Self::Full),
            _ => Err(UnknownMode {
                what: "query mode",
                found: word.to_owned(),
                expected: "masked, off or full",
            }),
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
                    each_query_piece(text, mode, |piece| escape_json(line, piece));
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
                Value::Query(text, mode) => {
                    each_query_piece(text, mode, |piece| escape_text(line, piece))
                }
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
        self.user_agent
            .into_iter()
            .for_each(|agent| fact("user_agent", text(agent)));
        if self.aborted {
            fact("aborted", Value::True);
        }
    }
}

fn put(line: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    line.write_fmt(text).expect("memory takes every byte");
}

/// Milliseconds to the microsecond: `53.214`.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

/// RFC 3339 in UTC to the microsecond, as `tracing` writes it.
struct Timestamp(SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
            second / 3600,
            second / 60 % 60,
            second % 60,
            since.subsec_micros(),
        )
    }
}

/// The Gregorian date of a day since 1970-01-01. Counting years from March puts the leap day last,
/// so the months before it always have the same lengths.
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970_FROM_MARCH_0: u64 = 719_468;
    const ERA: u64 = 146_097;
    let days = days_since_1970 + DAYS_TO_1970_FROM_MARCH_0;
    let (era, day_of_era) = (days / ERA, days % ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

fn escape_json(line: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' => line.extend_from_slice(br#"\""#),
            b'\\' => line.extend_from_slice(br"\\"),
            0..0x20 | 0x7f => put(line, format_args!("\\u{byte:04x}")),
            _ => line.push(byte),
        }
    }
}

/// A value without spaces or quotes is written bare, so a line splits at its spaces; a byte that
/// could break that, or the line, or a terminal, is written as `\xNN`.
fn escape_text(line: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        match character {
            ' ' | '"' | '\\' | '\0'..='\x1f' | '\x7f' => {
                put(line, format_args!("\\x{:02x}", u32::from(character)))
            }
            '\u{80}'..='\u{9f}' => put(line, format_args!("\\u{:04x}", u32::from(character))),
            _ => put(line, format_args!("{character}")),
        }
    }
}

/// Hands out the query as it may be written, piece by piece.
fn each_query_piece(query: &str, mode: QueryMode, mut piece: impl FnMut(&str)) {
    if mode == QueryMode::Full {
        return piece(query);
    }
    for part in query.split_inclusive(['&', ';']) {
        let (parameter, end) = match part.as_bytes().last() {
            Some(b'&' | b';') => part.split_at(part.len() - 1),
            _ => (part, ""),
        };
        match parameter.split_once('=') {
            Some((name, value)) if looks_secret(name) && !value.is_empty() => {
                piece(name);
                piece("=***");
            }
            _ => piece(parameter),
        }
        piece(end);
    }
}

/// Whether a parameter of this name is likely to carry a secret: it contains a tell-tale word,
/// in any case, percent-encoded or not.
fn looks_secret(name: &str) -> bool {
    const WORDS: [&[u8]; 16] = [
        b"token",
        b"secret",
        b"passw",
        b"passphrase",
        b"pwd",
        b"key",
        b"auth",
        b"sig",
        b"session",
        b"jwt",
        b"credential",
        b"code",
        b"otp",
        b"ticket",
        b"sid",
        b"saml",
    ];
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let encoded = || {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            u8::from_str_radix(digits, 16).ok()
        };
        match encoded().filter(|_| first == b'%') {
            Some(byte) => {
                plain.push(byte.to_ascii_lowercase());
                rest = &after[2..];
            }
            None => {
                plain.push(first.to_ascii_lowercase());
                rest = after;
            }
        }
    }
    WORDS
        .iter()
        .any(|word| plain.windows(word.len()).any(|window| window == *word))
}
