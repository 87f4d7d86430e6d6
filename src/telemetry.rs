//! What the gateway tells its operator: its own messages and one record for each request, in one
//! form, to one place, by one writer that no request ever waits for.
//!
//! Messages of the gateway go through `tracing`; so do those of libraries that use `log`. The
//! record of a request is written directly: it costs no event, and is not a matter of level.

pub mod access;
pub mod writer;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use thiserror::Error;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt, reload};

use self::access::{AccessPolicy, Record};
use self::writer::Writer;

/// Where lines go, how they look, and which messages are worth one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub level: Level,
    pub format: Format,
    pub output: Output,
    /// Lines that may wait for the writer; further ones are dropped and counted.
    pub buffer: usize,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: Level::Info,
            format: Format::Json,
            output: Output::Stderr,
            buffer: 8192,
        }
    }
}

/// The least important of the gateway's own messages that is still written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// One flat JSON object per line.
    Json,
    Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    Stderr,
    Stdout,
    /// Appended to; made if it is not there; opened anew by [`Log::reopen`].
    File(PathBuf),
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("unknown {what} {found:?}; expected {expected}")]
pub struct UnknownWord {
    what: &'static str,
    found: String,
    expected: &'static str,
}

impl FromStr for Level {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Ok(match word {
            "error" => Self::Error,
            "warn" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => {
                let expected = "error, warn, info, debug or trace";
                return Err(UnknownWord {
                    what: "level",
                    found: word.to_owned(),
                    expected,
                });
            }
        })
    }
}

impl FromStr for Format {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => {
                let expected = "json or text";
                Err(UnknownWord {
                    what: "format",
                    found: word.to_owned(),
                    expected,
                })
            }
        }
    }
}

impl From<&str> for Output {
    fn from(word: &str) -> Self {
        match word {
            "stderr" => Self::Stderr,
            "stdout" => Self::Stdout,
            path => Self::File(path.into()),
        }
    }
}

/// Why logging cannot start or change.
#[derive(Debug, Error)]
pub enum LogError {
    #[error("cannot open log file {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot start the log writer")]
    Thread(#[source] std::io::Error),
    #[error("another logger is installed already")]
    Installed(#[source] TryInitError),
}

/// An error and its causes in one line, for a message.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The way to the log, for everyone who writes to it. Clones share one writer.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

struct Shared {
    writer: Writer,
    json: AtomicBool,
    sampled: AtomicU64,
    filters: Option<Filters>,
}

/// One layer per format is installed; the one that is not wanted is shut.
struct Filters {
    json: reload::Handle<Targets, Registry>,
    text: reload::Handle<Targets, JsonBelow>,
    settings: Mutex<()>,
}

type JsonBelow =
    tracing_subscriber::layer::Layered<Box<dyn Layer<Registry> + Send + Sync>, Registry>;

/// Writes what still waits when it goes, for at most a second. Drop it last, before exiting.
#[must_use = "what still waits is lost without it"]
pub struct Guard(Log);

impl Guard {
    pub fn log(&self) -> Log {
        self.0.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.writer.stop();
    }
}

/// Starts the writer and makes it the destination of every message of this process; once.
pub fn init(settings: &LogSettings) -> Result<Guard, LogError> {
    let writer = Writer::start(&settings.output, settings.buffer)?;
    let (json_filter, json) = reload::Layer::new(targets(settings, Format::Json));
    let (text_filter, text) = reload::Layer::new(targets(settings, Format::Text));
    let json_layer = fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(writer.clone())
        .with_filter(json_filter)
        .boxed();
    let text_layer = fmt::layer()
        .with_ansi(false)
        .with_writer(writer.clone())
        .with_filter(text_filter)
        .boxed();
    let registry: JsonBelow = tracing_subscriber::registry().with(json_layer);
    registry
        .with(text_layer)
        .try_init()
        .map_err(LogError::Installed)?;
    let filters = Filters {
        json,
        text,
        settings: Mutex::new(()),
    };
    Ok(Guard(Log::over(writer, settings.format, Some(filters))))
}

impl Log {
    fn over(writer: Writer, format: Format, filters: Option<Filters>) -> Self {
        Self(Arc::new(Shared {
            writer,
            json: AtomicBool::new(format == Format::Json),
            sampled: AtomicU64::new(0),
            filters,
        }))
    }

    /// A log of records only, beside the process's own: for tests and tools.
    pub fn standalone(settings: &LogSettings) -> Result<Guard, LogError> {
        let writer = Writer::start(&settings.output, settings.buffer)?;
        Ok(Guard(Self::over(writer, settings.format, None)))
    }

    /// Takes over new settings while running. If the new output cannot be opened nothing changes.
    pub fn reconfigure(&self, settings: &LogSettings) -> Result<(), LogError> {
        let shared = &self.0;
        let _one_at_a_time = shared
            .filters
            .as_ref()
            .map(|filters| filters.settings.lock());
        shared.writer.redirect(&settings.output, settings.buffer)?;
        shared
            .json
            .store(settings.format == Format::Json, Ordering::Relaxed);
        if let Some(filters) = &shared.filters {
            // Only fails once the subscriber is gone, which lives as long as the process.
            let _ = filters.json.reload(targets(settings, Format::Json));
            let _ = filters.text.reload(targets(settings, Format::Text));
            log::set_max_level(as_log(LevelFilter::current()));
        }
        Ok(())
    }

    /// Opens the log file anew, after logrotate has moved it away. Lines that wait are written to
    /// the old one first. If it cannot be opened the old one is kept and a WARN line says so.
    pub fn reopen(&self) {
        self.0.writer.reopen();
    }

    /// Lines lost so far because the writer could not follow or the output failed.
    pub fn dropped(&self) -> u64 {
        self.0.writer.dropped()
    }

    /// Writes the one line of a finished request, if `policy` wants one. Never waits.
    pub fn access(&self, policy: &AccessPolicy, record: &Record<'_>) {
        let nth = || self.0.sampled.fetch_add(1, Ordering::Relaxed);
        let Some(verdict) = policy.verdict(record, nth) else {
            return;
        };
        let format = if self.0.json.load(Ordering::Relaxed) {
            Format::Json
        } else {
            Format::Text
        };
        self.0
            .writer
            .write_with(|line| record.write(line, format, policy.query, verdict));
    }
}

/// Which messages the layer of `format` lets through.
///
/// Pingora logs every broken connection as an error; the gateway's own record of the request says
/// the same with its id, so pingora is silent below `debug`, except its server's own life.
fn targets(settings: &LogSettings, format: Format) -> Targets {
    if settings.format != format {
        return Targets::new();
    }
    let own = settings.level.filter();
    let (libraries, pingora) = match settings.level {
        Level::Error => (LevelFilter::ERROR, LevelFilter::OFF),
        Level::Warn | Level::Info => (LevelFilter::WARN, LevelFilter::OFF),
        Level::Debug => (LevelFilter::WARN, LevelFilter::WARN),
        Level::Trace => (LevelFilter::DEBUG, LevelFilter::DEBUG),
    };
    Targets::new()
        .with_default(libraries)
        .with_target("tollgate", own)
        .with_target("pingora", pingora)
        .with_target("pingora_core::server", libraries)
}

impl Level {
    fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

fn as_log(filter: LevelFilter) -> log::LevelFilter {
    match filter.into_level() {
        None => log::LevelFilter::Off,
        Some(tracing::Level::ERROR) => log::LevelFilter::Error,
        Some(tracing::Level::WARN) => log::LevelFilter::Warn,
        Some(tracing::Level::INFO) => log::LevelFilter::Info,
        Some(tracing::Level::DEBUG) => log::LevelFilter::Debug,
        Some(tracing::Level::TRACE) => log::LevelFilter::Trace,
    }
}
