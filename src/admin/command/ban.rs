//! `tollgate limit ban`, `unban` and `bans`: who is kept out by hand, and who is kept out.

use std::net::IpAddr;

use super::{CommandError, Running};
use crate::admin::ban::{BanOrder, Lifted, ToldBan, ToldBans, UnbanOrder};
use crate::admin::client;

/// Whom to ban, and for how long.
#[derive(Debug, clap::Args)]
pub struct BanOptions {
    /// An address of the client.
    address: IpAddr,
    /// How long: "10m", "1h30m", "30d".
    #[arg(long = "for", value_name = "DURATION", default_value = "1h")]
    length: String,
    /// What the log and the list of bans say of it.
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    gateway: Running,
}

/// Whose ban to end.
#[derive(Debug, clap::Args)]
pub struct UnbanOptions {
    /// An address of the client.
    address: IpAddr,
    #[command(flatten)]
    gateway: Running,
}

/// Of which gateway.
#[derive(Debug, clap::Args)]
pub struct BansOptions {
    #[command(flatten)]
    gateway: Running,
}

/// Has it ban a client. Returns the ban that stands, which may be a longer one.
pub fn ban(options: BanOptions) -> Result<ToldBan, CommandError> {
    let order = BanOrder {
        client: options.address,
        length: options.length,
        why: options.why,
    };
    Ok(client::ban(&options.gateway.settings()?, &order)?)
}

/// Has it end the ban of a client, at every gateway.
pub fn unban(options: UnbanOptions) -> Result<Lifted, CommandError> {
    let order = UnbanOrder {
        client: options.address,
    };
    Ok(client::unban(&options.gateway.settings()?, &order)?)
}

/// The bans that stand.
pub fn bans(options: BansOptions) -> Result<ToldBans, CommandError> {
    Ok(client::bans(&options.gateway.settings()?)?)
}
