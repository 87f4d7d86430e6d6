//! `tollgate explain --running`: what stands in a running gateway for the request that is explained.

use std::net::IpAddr;
use std::path::PathBuf;

use super::{CommandError, Running};
use crate::admin::client as interface;
use crate::admin::look::LookOrder;
use crate::listen::ListenAddress;

pub use crate::admin::look::Looked;

/// Whether to ask, and whom.
#[derive(Debug, clap::Args)]
pub struct LookOptions {
    /// Also ask the running gateway what stands there now, and how the client stands
    #[arg(long)]
    pub running: bool,
    /// Where it listens, in place of [admin] of the file.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "running")]
    admin: Option<ListenAddress>,
    /// A file with the token for --admin; otherwise TOLLGATE_ADMIN_TOKEN has it.
    #[arg(long, value_name = "FILE", requires = "admin")]
    token_file: Option<PathBuf>,
}

/// Asks the gateway of this configuration, or the one that is named, about a request.
pub fn look(
    options: LookOptions,
    config: PathBuf,
    method: &http::Method,
    url: String,
    headers: Vec<String>,
    client: Option<IpAddr>,
) -> Result<Looked, CommandError> {
    let gateway = Running {
        config,
        admin: options.admin,
        token_file: options.token_file,
    };
    let order = LookOrder {
        method: method.to_string(),
        url,
        headers,
        client,
    };
    Ok(interface::look(&gateway.settings()?, &order)?)
}
