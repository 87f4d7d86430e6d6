//! `tollgate cache`, `tollgate limit`, `tollgate explain --running`: an order on the command line, and what the running
//! gateway makes of it.

mod ban;
mod limit;
mod look;
mod warm;

use std::fs;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use self::ban::{BanOptions, BansOptions, UnbanOptions, ban, bans, unban};
pub use self::limit::{ClientOptions, ReportOptions, TopOptions, report, reset, show, top};
pub use self::look::{LookOptions, look};
pub use self::warm::{WarmOptions, warm};
use super::client::{self, ClientError};
use crate::cache::purger::Purged;
use crate::config::Source;
use crate::config::problem::Problems;
use crate::listen::ListenAddress;
use crate::plan::{AdminSettings, admin_settings};
use crate::purge::Order;
use crate::token::{BadToken, Token};
use crate::warm::Progress;

/// Where the token is when no file has it.
const VARIABLE: &str = "TOLLGATE_ADMIN_TOKEN";

/// What to purge, and of which gateway.
#[derive(Debug, clap::Args)]
pub struct PurgeOptions {
    /// An absolute URL, with all that is stored of it.
    #[arg(long, value_name = "URL", num_args = 1..)]
    url: Vec<String>,
    /// A value of Surrogate-Key or Cache-Tag.
    #[arg(long, value_name = "TAG", num_args = 1..)]
    tag: Vec<String>,
    /// An absolute URL that others lie below.
    #[arg(long, value_name = "URL", num_args = 1..)]
    prefix: Vec<String>,
    #[arg(long, value_name = "HOST", num_args = 1..)]
    host: Vec<String>,
    /// Everything.
    #[arg(long)]
    all: bool,
    /// Give it as stale while it is fetched anew, where its policy allows that.
    #[arg(long)]
    soft: bool,
    /// URLs with whatever query.
    #[arg(long)]
    any_query: bool,
    #[command(flatten)]
    gateway: Running,
}

/// The running gateway.
#[derive(Debug, clap::Args)]
struct Running {
    /// The configuration file, whose [admin] says where it listens and what opens it.
    #[arg(long, short, value_name = "FILE", default_value = "gateway.toml")]
    config: PathBuf,
    /// Where it listens, in place of the file.
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "config")]
    admin: Option<ListenAddress>,
    /// A file that holds the token for --admin; otherwise TOLLGATE_ADMIN_TOKEN does.
    #[arg(long, value_name = "FILE", requires = "admin")]
    token_file: Option<PathBuf>,
}

/// Why an order was not carried out, or not all of it.
#[derive(Debug, Error)]
pub enum CommandError {
    #[error(transparent)]
    Configuration(#[from] Problems),
    #[error("{0} has no [admin]; the gateway can be asked nothing")]
    NoAdmin(String),
    #[error("no token; expected it in {VARIABLE}, or --token-file")]
    NoToken,
    #[error(transparent)]
    Token(#[from] BadToken),
    #[error("cannot read the token file {path}", path = path.display())]
    TokenFile { path: PathBuf, source: io::Error },
    #[error("the running gateway has no limit {0:?}")]
    NoLimit(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    NotEverywhere(Purged),
    #[error("{0}")]
    NotGiven(Progress),
}

impl CommandError {
    /// Whether what an operator wrote is at fault.
    pub fn is_operators(&self) -> bool {
        !matches!(
            self,
            Self::Client(_) | Self::NotEverywhere(_) | Self::NotGiven(_)
        )
    }
}

/// Has it purged everywhere.
pub fn purge(options: PurgeOptions) -> Result<Purged, CommandError> {
    let PurgeOptions {
        url,
        tag,
        prefix,
        host,
        all: everything,
        soft,
        any_query,
        gateway,
    } = options;
    let order = Order {
        url,
        tag,
        prefix,
        host,
        everything,
        soft,
        any_query,
    };
    let purged = client::purge(&gateway.settings()?, &order)?;
    match purged.is_everywhere() {
        true => Ok(purged),
        false => Err(CommandError::NotEverywhere(purged)),
    }
}

impl Running {
    fn settings(self) -> Result<AdminSettings, CommandError> {
        let Some(listen) = self.admin else {
            let source = Source::File(self.config);
            let draft = source.draft();
            let (_, settings) =
                draft.make(|config, problems| Some(admin_settings(config, problems)))?;
            return settings.ok_or_else(|| CommandError::NoAdmin(source.name()));
        };
        let text = match self.token_file {
            Some(path) => fs::read_to_string(&path)
                .map_err(|source| CommandError::TokenFile { path, source })?,
            None => std::env::var(VARIABLE).map_err(|_| CommandError::NoToken)?,
        };
        let token: Token = text.trim_end().parse()?;
        Ok(AdminSettings { listen, token })
    }
}
