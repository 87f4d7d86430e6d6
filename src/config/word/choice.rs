//! Words chosen from a list, and the few that carry an argument.

use std::fmt;
use std::str::FromStr;

use ::http::HeaderName;
use serde_json::{Value as Json, json};

use super::Word;
use crate::config::problem::unknown;
use crate::config::read::{Node, Reader, Value};
use crate::config::word::FilePath;

macro_rules! choice {
    ($(
        $(#[$about:meta])*
        pub enum $name:ident: $what:literal { $( $(#[$doc:meta])* $variant:ident = $word:literal, )+ }
    )+) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $( $(#[$doc])* $variant, )+ }

        impl $name {
            const WORDS: &'static [&'static str] = &[$($word),+];

            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err(unknown($what, text, "expected", Self::WORDS)),
                }
            }
        }

        impl Word for $name {
            const EXPECTS: &'static str = concat!("a word: " $(, "\"", $word, "\" ")+);

            fn form() -> Json {
                json!({ "type": "string", "enum": Self::WORDS })
            }
        }
    )+};
}

choice! {
    /// How much the gateway says about itself.
    pub enum LevelSpec: "log level" {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }

    pub enum FormatSpec: "log format" {
        Json = "json",
        Text = "text",
    }

    /// What of a query string is logged.
    pub enum QuerySpec: "query mode" {
        /// Values of parameters that look like secrets are replaced.
        Masked = "masked",
        Off = "off",
        Full = "full",
    }

    pub enum MinTlsSpec: "TLS version" {
        Tls12 = "1.2",
        Tls13 = "1.3",
    }

    /// `;x=1` in a path segment.
    pub enum PathParametersSpec: "path_parameters mode" {
        /// Text like any other.
        Keep = "keep",
        /// 400.
        Refuse = "refuse",
    }

    pub enum ProtocolSpec: "protocol" {
        H1 = "h1",
        /// HTTP/2 over TLS.
        H2 = "h2",
        /// HTTP/2 in plaintext with prior knowledge.
        H2c = "h2c",
    }

    pub enum HealthKindSpec: "kind of probe" {
        Http = "http",
        /// A connection that is accepted is healthy.
        Tcp = "tcp",
    }

    /// When every backend is down.
    pub enum LastResortSpec: "last resort" {
        /// 503 with Retry-After.
        Unavailable = "unavailable",
        TryAnyway = "try-anyway",
    }

    /// Where a header policy starts from.
    pub enum PresetSpec: "preset" {
        Basic = "basic",
        Strict = "strict",
        Off = "off",
    }

    /// What may be tried again on another backend.
    pub enum RetryOnSpec: "retry condition" {
        /// The connection could not be made.
        Connect = "connect",
        /// The connection was lost before any byte of a response.
        Reset = "reset",
        /// No first byte in time.
        Timeout = "timeout",
        Status429 = "429",
        Status500 = "500",
        Status502 = "502",
        Status503 = "503",
        Status504 = "504",
    }
}

impl RetryOnSpec {
    /// The response status this stands for, if it stands for one.
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Connect | Self::Reset | Self::Timeout => None,
            Self::Status429 => Some(429),
            Self::Status500 => Some(500),
            Self::Status502 => Some(502),
            Self::Status503 => Some(503),
            Self::Status504 => Some(504),
        }
    }
}

/// Which requests leave a line in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessSpec {
    All,
    /// Status 400 and above.
    Errors,
    /// Slower than `slow_after`.
    Slow,
    /// One request in this many.
    Sampled(u32),
    Off,
}

impl FromStr for AccessSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "errors" => Ok(Self::Errors),
            "slow" => Ok(Self::Slow),
            "off" => Ok(Self::Off),
            _ => match text.strip_prefix("sampled:") {
                Some(every) => match every.parse() {
                    Ok(every @ 1..) if !text.contains('+') => Ok(Self::Sampled(every)),
                    _ => Err(format!(
                        "{every:?} is not a sampling rate; expected sampled:N, one request in N, N from 1"
                    )),
                },
                None => Err(unknown(
                    "access mode",
                    text,
                    "expected",
                    &["all", "errors", "slow", "sampled:N", "off"],
                )),
            },
        }
    }
}

impl Word for AccessSpec {
    const EXPECTS: &'static str = r#"a word: "all", "errors", "slow", "sampled:N" or "off""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^(all|errors|slow|off|sampled:[1-9][0-9]*)$" })
    }
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputSpec {
    Stderr,
    Stdout,
    File(FilePath),
}

impl Value for OutputSpec {
    fn expects() -> String {
        r#""stderr", "stdout" or the path of a file"#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let file = FilePath::read(node, reader)?;
        Some(match file.written.as_str() {
            "stderr" => Self::Stderr,
            "stdout" => Self::Stdout,
            _ => Self::File(file),
        })
    }

    fn schema() -> Json {
        FilePath::schema()
    }
}

/// How a backend is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BalanceSpec {
    LeastConnections,
    RoundRobin,
    RandomTwo,
    ConsistentHash(HashKeySpec),
}

/// What of a request decides its backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKeySpec {
    ClientIp,
    Header(HeaderName),
    Cookie(String),
}

const BALANCES: [&str; 6] = [
    "least-connections",
    "round-robin",
    "random-two",
    "consistent-hash:client-ip",
    "consistent-hash:header:NAME",
    "consistent-hash:cookie:NAME",
];

impl FromStr for BalanceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || unknown("balance", text, "expected", &BALANCES);
        match text {
            "least-connections" => Ok(Self::LeastConnections),
            "round-robin" => Ok(Self::RoundRobin),
            "random-two" => Ok(Self::RandomTwo),
            _ => {
                let key = text.strip_prefix("consistent-hash:").ok_or_else(unknown)?;
                let key = match key.split_once(':') {
                    None if key == "client-ip" => HashKeySpec::ClientIp,
                    Some(("header", name)) => HashKeySpec::Header(name.parse().map_err(|_| {
                        format!("{name:?} is not a header name; expected letters, digits and -")
                    })?),
                    Some(("cookie", name)) if is_token(name) => {
                        HashKeySpec::Cookie(name.to_owned())
                    }
                    Some(("cookie", name)) => {
                        return Err(format!(
                            "{name:?} is not a cookie name; expected letters, digits, - and _"
                        ));
                    }
                    _ => return Err(unknown()),
                };
                Ok(Self::ConsistentHash(key))
            }
        }
    }
}

impl Word for BalanceSpec {
    const EXPECTS: &'static str = r#"a balance such as "least-connections""#;

    fn form() -> Json {
        let token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
        json!({
            "type": "string",
            "pattern": format!("^(least-connections|round-robin|random-two|consistent-hash:(client-ip|header:{token}|cookie:{token}))$"),
        })
    }
}

/// RFC 9110 section 5.6.2; RFC 6265 section 4.1.1 names cookies by the same rule.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balance_names_its_key() {
        assert_eq!(
            "consistent-hash:cookie:sid".parse(),
            Ok(BalanceSpec::ConsistentHash(HashKeySpec::Cookie(
                "sid".to_owned()
            )))
        );
        assert_eq!(
            "consistent-hash:client-ip".parse(),
            Ok(BalanceSpec::ConsistentHash(HashKeySpec::ClientIp))
        );
        for text in [
            "consistent-hash",
            "consistent-hash:",
            "consistent-hash:header:",
            "consistent-hash:header:a b",
            "consistent-hash:cookie:",
        ] {
            assert!(text.parse::<BalanceSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_slip_in_a_word_is_answered_with_the_word() {
        assert_eq!(
            "least-conections".parse::<BalanceSpec>().unwrap_err(),
            r#"unknown balance "least-conections"; did you mean "least-connections"? expected: least-connections, round-robin, random-two, consistent-hash:client-ip, consistent-hash:header:NAME, consistent-hash:cookie:NAME"#
        );
    }

    #[test]
    fn a_sample_is_one_in_at_least_one() {
        assert_eq!("sampled:100".parse(), Ok(AccessSpec::Sampled(100)));
        for text in [
            "sampled:0",
            "sampled:",
            "sampled:-1",
            "sampled:+1",
            "sampled:x",
        ] {
            assert!(text.parse::<AccessSpec>().is_err(), "{text}");
        }
    }
}
