//! Words chosen from a list, and the few that carry an argument.

use serde_json::{Value as Json, json};

use super::{FilePath, Word};
use crate::cache::Audience;
use crate::certificates::{ClientCertificates, MinTls};
use crate::compression::Coding;
use crate::config::read::{Node, Reader, Value};
use crate::headers::security::Preset;
use crate::limit::{self, ban};
use crate::target::PathParameters;
use crate::telemetry::access::{AccessMode, QueryMode};
use crate::telemetry::{Format, Level, Output};
use crate::upstream::{Balance, ConcurrencyMode, LastResort, Priority, Protocol};
use crate::word::{Choice, choice};

choice! {
    /// How a probe is made.
    pub enum HealthKindSpec: "kind of probe" {
        Http = "http",
        /// A connection that is accepted is healthy.
        Tcp = "tcp",
    }

    /// What is done with a request that a limit does not allow.
    pub enum ModeSpec: "mode of a limit" {
        /// It is refused.
        Enforce = "enforce",
        /// It is counted and let through.
        Shadow = "shadow",
        /// It waits for its turn.
        Delay = "delay",
        /// It is refused after a pause.
        Tarpit = "tarpit",
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

/// Lists are words as they stand.
macro_rules! words {
    ($($name:ty),+ $(,)?) => {$(
        impl Word for $name {
            const EXPECTS: &'static str = <$name as Choice>::EXPECTS;

            fn form() -> Json {
                json!({ "type": "string", "enum": <$name as Choice>::WORDS })
            }
        }
    )+};
}

words!(
    Audience,
    ban::Answer,
    ban::Mode,
    Coding,
    ConcurrencyMode,
    Format,
    HealthKindSpec,
    LastResort,
    Level,
    MinTls,
    ClientCertificates,
    ModeSpec,
    limit::Fields,
    limit::shared::Share,
    limit::shared::WhenAway,
    PathParameters,
    Preset,
    Priority,
    Protocol,
    QueryMode,
    RetryOnSpec,
);

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

impl Word for AccessMode {
    const EXPECTS: &'static str = r#"a word: "all", "errors", "slow", "sampled:N" or "off""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^(all|errors|slow|off|sampled:[1-9][0-9]*)$" })
    }
}

impl Value for Output {
    fn expects() -> String {
        r#""stderr", "stdout" or the path of a file"#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let file = FilePath::read(node, reader)?;
        Some(match file.written.as_str() {
            "stderr" => Self::Stderr,
            "stdout" => Self::Stdout,
            _ => Self::File(file.path),
        })
    }

    fn schema() -> Json {
        FilePath::schema()
    }
}

impl Word for Balance {
    const EXPECTS: &'static str = r#"a balance such as "least-connections""#;

    fn form() -> Json {
        let token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
        json!({
            "type": "string",
            "pattern": format!("^(least-connections|round-robin|random-two|consistent-hash:(client-ip|header:{token}|cookie:{token}))$"),
        })
    }
}
