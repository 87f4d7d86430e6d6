//! What the gateway tells its operator: its own messages and one record for each request, in one
//! form, to one place, by one writer that no request ever waits for.
//!
//! Messages of the gateway go through `tracing`; so do those of libraries that use `log`. The
//! record of a request is written directly: it costs no event, and is not a matter of level.

pub mod access;
pub mod line;
mod query;
mod writer;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt, reload};

use self::access::{AccessPolicy, Record};
use self::writer::Writer;
use crate::word::choice;

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

choice! {
    /// The least important of the gateway's own messages that is still written.
    pub enum Level: "log level" {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }

    pub enum Format: "log format" {
        /// One flat JSON object per line.
        Json = "json",
        Text = "text",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    Stderr,
    Stdout,
    /// Appended to; made if it is not there; opened anew by [`Log::reopen`].
    File(PathBuf),
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
    sampled: AtomicU64,
    filters: Filters,
}

/// One layer per format is installed; the one that is not wanted is shut.
struct Filters {
    json: reload::Handle<Targets, Registry>,
    text: reload::Handle<Targets, JsonBelow>,
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
    let writer = Writer::start(settings)?;
    let (subscriber, filters) = subscriber(&writer, settings);
    subscriber.try_init().map_err(LogError::Installed)?;
    Ok(Guard(Log::over(writer, filters)))
}

fn subscriber(
    writer: &Writer,
    settings: &LogSettings,
) -> (impl Subscriber + Send + Sync + use<>, Filters) {
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
    let below: JsonBelow = tracing_subscriber::registry().with(json_layer);
    (below.with(text_layer), Filters { json, text })
}

impl Log {
    fn over(writer: Writer, filters: Filters) -> Self {
        Self(Arc::new(Shared {
            writer,
            sampled: AtomicU64::new(0),
            filters,
        }))
    }

    /// A log of records only, which does not touch the process's own.
    #[cfg(test)]
    pub(crate) fn for_test(settings: &LogSettings) -> Result<Guard, LogError> {
        let writer = Writer::start(settings)?;
        let (_, filters) = subscriber(&writer, settings);
        Ok(Guard(Self::over(writer, filters)))
    }

    /// Takes over new settings while running; reloads call it one after another. If the new output
    /// cannot be opened nothing changes.
    pub fn reconfigure(&self, settings: &LogSettings) -> Result<(), LogError> {
        let Shared {
            writer, filters, ..
        } = &*self.0;
        writer.redirect(settings)?;
        // Only fails once the subscriber is gone, which lives as long as the process.
        let _ = filters.json.reload(targets(settings, Format::Json));
        let _ = filters.text.reload(targets(settings, Format::Text));
        log::set_max_level(as_log(LevelFilter::current()));
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
        // Written here and copied under the writer's lock, which workers share.
        thread_local!(static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
        LINE.with_borrow_mut(|line| {
            line.clear();
            record.write(line, self.0.writer.format(), policy.query, verdict);
            self.0.writer.write_line(line);
        });
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
        // Never less: pingora's `debug` has whole messages in it, credentials and bodies too.
        Level::Trace => (LevelFilter::DEBUG, LevelFilter::WARN),
    };
    Targets::new()
        .with_default(libraries)
        .with_target("tollgate", own)
        .with_target("upstream", own)
        .with_target("pingora", pingora)
        // We say it ourselves, once for each change; its `debug` may hold keys.
        .with_target("redis", pingora)
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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, SystemTime};

    use super::access::{AccessMode, QueryMode};
    use super::*;

    fn settings(output: Output) -> LogSettings {
        LogSettings {
            output,
            ..LogSettings::default()
        }
    }

    fn record() -> Record<'static> {
        Record {
            time: SystemTime::UNIX_EPOCH,
            id: "id-1",
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            method: "GET",
            host: "shop.example",
            path: "/",
            query: None,
            protocol: "HTTP/1.1",
            tls: None,
            route: None,
            upstream: None,
            backend: None,
            attempts: 0,
            status: 200,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            connect: None,
            first_byte: None,
            reason: None,
            user_agent: None,
            aborted: false,
            cache: None,
            cache_tier: None,
            cache_detail: None,
            tunnel: false,
        }
    }

    #[test]
    fn words_of_the_operator_are_read_and_unknown_ones_named() {
        assert_eq!("debug".parse(), Ok(Level::Debug));
        assert_eq!("text".parse(), Ok(Format::Text));
        assert_eq!(Output::from("stdout"), Output::Stdout);
        assert_eq!(
            Output::from("/var/log/x"),
            Output::File("/var/log/x".into())
        );
        let error = "verbose".parse::<Level>().unwrap_err().to_string();
        assert_eq!(
            error,
            r#"unknown log level "verbose"; expected: error, warn, info, debug, trace"#
        );
        let error = "yaml".parse::<Format>().unwrap_err().to_string();
        assert_eq!(error, r#"unknown log format "yaml"; expected: json, text"#);
    }

    #[test]
    fn pingora_is_silent_until_the_operator_debugs() {
        let passes = |level, target: &str, message: tracing::Level| {
            let settings = LogSettings {
                level,
                ..LogSettings::default()
            };
            targets(&settings, Format::Json).would_enable(target, &message)
        };
        use tracing::Level as M;
        let cases = [
            (Level::Info, "tollgate::reload", M::INFO, true),
            (Level::Info, "tollgate::reload", M::DEBUG, false),
            (Level::Warn, "tollgate::reload", M::INFO, false),
            (Level::Error, "tollgate::reload", M::WARN, false),
            (Level::Info, "pingora_proxy", M::ERROR, false),
            (Level::Info, "pingora_core::protocols", M::ERROR, false),
            (Level::Info, "pingora_core::server", M::ERROR, true),
            (Level::Info, "pingora_core::server", M::INFO, false),
            (Level::Debug, "pingora_proxy", M::WARN, true),
            (Level::Trace, "pingora_proxy", M::INFO, false),
            (Level::Trace, "h2::codec", M::DEBUG, true),
            (Level::Info, "h2::codec", M::INFO, false),
            (Level::Info, "rustls", M::WARN, true),
        ];
        for (level, target, message, expected) in cases {
            assert_eq!(
                passes(level, target, message),
                expected,
                "{level:?} {target} {message}"
            );
        }
    }

    #[test]
    fn messages_and_records_share_one_file_and_follow_new_settings() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.log");
        let mut settings = settings(Output::File(path.clone()));
        let writer = Writer::start(&settings).unwrap();
        let (subscriber, filters) = subscriber(&writer, &settings);
        let guard = Guard(Log::over(writer, filters));
        let all = AccessPolicy {
            mode: AccessMode::All,
            slow_after: Duration::from_secs(1),
            query: QueryMode::Masked,
        };
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(upstream = "app", "first");
            tracing::debug!("unseen");
            guard.log().access(&all, &record());
            settings.format = Format::Text;
            settings.level = Level::Debug;
            guard.log().reconfigure(&settings).unwrap();
            tracing::debug!(upstream = "app", "second");
            guard.log().access(&all, &record());
        });
        drop(guard);

        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        let message: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(message["message"], "first");
        assert_eq!(message["upstream"], "app");
        let access: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(access["id"], "id-1");
        assert!(
            lines[2].ends_with(r#" DEBUG tollgate::telemetry::tests: second upstream="app""#),
            "{text}"
        );
        assert!(
            lines[3].starts_with("1970-01-01T00:00:00.000000Z  INFO access: request id=id-1 "),
            "{text}"
        );
    }

    #[test]
    fn libraries_that_use_log_are_heard_and_pingora_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.log");
        let guard = init(&settings(Output::File(path.clone()))).unwrap();
        log::warn!(target: "rustls", "a library warns");
        log::info!(target: "rustls", "a library chats");
        log::error!(target: "pingora_proxy", "a connection broke");
        drop(guard);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(r#""message":"a library warns""#), "{text}");
        assert!(text.contains(r#""target":"rustls""#), "{text}");
        assert!(!text.contains("chats") && !text.contains("broke"), "{text}");
        assert!(matches!(
            init(&LogSettings::default()),
            Err(LogError::Installed(_))
        ));
    }

    #[test]
    fn an_output_that_cannot_be_opened_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.log");
        let guard = Log::for_test(&settings(Output::File(path.clone()))).unwrap();
        let bad = settings(Output::File(directory.path().join("none/gateway.log")));
        let error = guard.log().reconfigure(&bad).unwrap_err();
        assert!(error.to_string().starts_with("cannot open log file"));
        let policy = AccessPolicy {
            mode: AccessMode::All,
            slow_after: Duration::from_secs(1),
            query: QueryMode::Off,
        };
        guard.log().access(&policy, &record());
        drop(guard);
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 1);
    }
}
