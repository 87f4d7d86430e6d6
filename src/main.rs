//! Arguments to one function per subcommand. The only exit.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use tollgate::admin::command::{
    self, BanOptions, BansOptions, ClientOptions, CommandError, LookOptions, PurgeOptions,
    ReportOptions, TopOptions, UnbanOptions, WarmOptions,
};
use tollgate::certs::CertsError;
use tollgate::config::Source;
use tollgate::config::problem::Problems;
use tollgate::config::{self, Config};
use tollgate::demo::Rhythm;
use tollgate::explain::ExplainError;
use tollgate::listen::ListenAddress;
use tollgate::server::{self, ServeError};
use tollgate::upstream::Address;
use tollgate::{certs, explain, upgrade};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A reverse proxy for HTTP applications: balancing, health, retries, TLS, headers, logs.
#[derive(Parser)]
#[command(name = "tollgate", version, about, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve as a configuration file says, or in front of the backends given.
    Run {
        #[command(flatten)]
        file: File,
        /// Backends to serve in front of, without a file.
        #[arg(long, value_name = "HOST:PORT", conflicts_with = "config", num_args = 1..)]
        upstream: Vec<Address>,
        /// Where to listen without a file.
        #[arg(
            long,
            value_name = "ADDRESS:PORT",
            default_value = "127.0.0.1:8080",
            requires = "upstream"
        )]
        listen: ListenAddress,
    },
    /// Say everything that is wrong with a configuration file; exit with 2 if anything is.
    Check {
        #[command(flatten)]
        file: File,
    },
    /// Start three small backends and a gateway over them, and say what to try.
    Demo {
        /// Where to listen.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
        listen: std::net::SocketAddr,
        /// How long the backend that dies lives.
        #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = period)]
        alive: Duration,
        /// How long it is then gone.
        #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = period)]
        dead: Duration,
    },
    /// Make a development certificate, signed by a local authority that is made once.
    Certs(certs::Options),
    /// Say which route and policies a request would meet.
    Explain {
        #[command(flatten)]
        file: File,
        /// The request method.
        method: http::Method,
        /// An absolute URL.
        url: String,
        /// A request field, as in curl.
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
        headers: Vec<String>,
        /// The address that it comes from.
        #[arg(long, value_name = "ADDRESS")]
        client: Option<IpAddr>,
        #[command(flatten)]
        gateway: LookOptions,
    },
    /// Change what the running gateway has stored.
    Cache {
        #[command(subcommand)]
        command: CacheCommand,
    },
    /// See and change what the running gateway lets clients do.
    Limit {
        #[command(subcommand)]
        command: LimitCommand,
    },
    /// Have the running gateway hand its sockets to a new process of the binary on disk.
    Upgrade {
        #[command(flatten)]
        file: File,
        /// The process to upgrade; else the configuration's `server.pid_file` says it.
        #[arg(long)]
        pid: Option<i32>,
    },
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Print a completion script for a shell.
    Completions { shell: clap_complete::Shell },
    /// Print the version.
    Version,
}

#[derive(Subcommand)]
enum CacheCommand {
    /// Purge pages at every gateway; exit with 1 if one may still give them.
    Purge(PurgeOptions),
    /// Have pages asked for before visitors come; exit with 1 if one was not given.
    Warm(WarmOptions),
}

#[derive(Subcommand)]
enum LimitCommand {
    /// Refuse a client everything for a while, at every gateway.
    Ban(BanOptions),
    /// End the ban of a client, at every gateway.
    Unban(UnbanOptions),
    /// List who is banned, by what and for how long.
    Bans(BansOptions),
    /// Say how a client stands with the limits that count it, and whether it is banned.
    Show(ClientOptions),
    /// Forget what a client has used of the limits that count it.
    Reset(ClientOptions),
    /// List the clients that ask most, by limit.
    Top(TopOptions),
    /// Say who was refused, or with mode = "shadow" would have been, and how often.
    Report(ReportOptions),
}

#[derive(clap::Args)]
struct File {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "gateway.toml")]
    config: PathBuf,
}

/// A duration as in the configuration, above zero.
fn period(text: &str) -> Result<Duration, String> {
    match config::word::parse_duration(text)? {
        Duration::ZERO => Err("expected more than 0s".to_owned()),
        period => Ok(period),
    }
}

/// What an operator wrote is wrong.
const EXIT_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    // SAFETY: the first thing this process does; it has opened nothing yet.
    let inheritance = unsafe { upgrade::Inheritance::take() };
    match run(Arguments::parse().command, inheritance) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error_text(&error));
            if is_operators(&error) {
                ExitCode::from(EXIT_CONFIGURATION)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn run(command: Command, inheritance: upgrade::Inheritance) -> anyhow::Result<()> {
    match command {
        Command::Run {
            file,
            upstream,
            listen,
        } => {
            let source = if upstream.is_empty() {
                Source::File(file.config)
            } else {
                Source::Given(Box::new(Config::for_upstreams(&[listen], &upstream)?))
            };
            server::run(&source, inheritance)?;
        }
        Command::Check { file } => {
            let checked = server::check(&Source::File(file.config.clone()))?;
            let file = file.config.display().to_string();
            let mut text = String::new();
            for warning in checked.warnings(&file).to_string().lines() {
                text += &format!("warning: {warning}\n");
            }
            say(&format!("{text}{file}: no problems\n"))?;
        }
        Command::Demo {
            listen,
            alive,
            dead,
        } => server::demo(listen, Rhythm { alive, dead }, inheritance)?,
        Command::Certs(options) => say(&certs::make(&options)?.to_string())?,
        Command::Explain {
            file,
            method,
            url,
            headers,
            client,
            gateway,
        } => {
            let plan = server::check(&Source::File(file.config.clone()))?.plan;
            let plan = Arc::new(plan);
            say(&explain::explain(&plan, &method, &url, &headers, client)?)?;
            if gateway.running {
                let looked = command::look(gateway, file.config, &method, url, headers, client)?;
                say(&format!("\nin the running gateway\n{looked}"))?;
            }
        }
        Command::Cache { command } => match command {
            CacheCommand::Purge(options) => say(&format!("{}\n", command::purge(options)?))?,
            CacheCommand::Warm(options) => say(&format!("{}\n", command::warm(options)?))?,
        },
        Command::Limit { command } => match command {
            LimitCommand::Ban(options) => say(&format!("{}\n", command::ban(options)?))?,
            LimitCommand::Unban(options) => say(&format!("{}\n", command::unban(options)?))?,
            LimitCommand::Bans(options) => say(&format!("{}\n", command::bans(options)?))?,
            LimitCommand::Show(options) => say(&format!("{}\n", command::show(options)?))?,
            LimitCommand::Reset(options) => say(&format!("{}\n", command::reset(options)?))?,
            LimitCommand::Top(options) => say(&format!("{}\n", command::top(options)?))?,
            LimitCommand::Report(options) => say(&format!("{}\n", command::report(options)?))?,
        },
        Command::Upgrade { file, pid } => {
            let upgraded = server::request_upgrade(&Source::File(file.config), pid)?;
            say(&format!("{upgraded}\n"))?;
        }
        Command::Schema => {
            let schema = serde_json::to_string_pretty(&config::schema::json());
            say(&format!("{}\n", schema.context("the schema is not JSON")?))?;
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "tollgate", &mut script);
            say(&String::from_utf8(script).context("the script is not UTF-8")?)?;
        }
        Command::Version => say(concat!("tollgate ", env!("CARGO_PKG_VERSION"), "\n"))?,
    }
    Ok(())
}

/// Writes what was asked for to stdout. A reader that leaves early, as `head` does, has had enough.
fn say(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

/// Whether the configuration or the command line is at fault, so that trying again cannot help.
fn is_operators(error: &anyhow::Error) -> bool {
    let serving = matches!(
        error.downcast_ref(),
        Some(ServeError::Configuration(_) | ServeError::NoPid)
    );
    let host = matches!(error.downcast_ref(), Some(CertsError::Host(_)));
    let commanded = error.downcast_ref().is_some_and(CommandError::is_operators);
    serving || host || commanded || error.is::<Problems>() || error.is::<ExplainError>()
}

/// Problems of the configuration speak for themselves, a line each; other errors name their causes.
fn error_text(error: &anyhow::Error) -> String {
    let serving = error.downcast_ref().and_then(|error| match error {
        ServeError::Configuration(problems) => Some(problems),
        _ => None,
    });
    let commanded = error.downcast_ref().and_then(|error| match error {
        CommandError::Configuration(problems) => Some(problems),
        _ => None,
    });
    match serving.or(commanded).or(error.downcast_ref()) {
        Some(problems) => problems.to_string(),
        None => format!("tollgate: {error:#}"),
    }
}
