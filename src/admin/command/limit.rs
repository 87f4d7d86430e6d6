//! `tollgate limit show`, `reset`, `top` and `report`: how clients stand with limits.

use super::{CommandError, Running};
use crate::admin::client;
use crate::admin::limit::{ClientOrder, Report, Reset, ToldClient, Top};

/// Which client, of which limits.
#[derive(Debug, clap::Args)]
pub struct ClientOptions {
    /// The client: client-ip=203.0.113.7, header:x-api-key=abc, several parts joined by " + ", or #DIGEST.
    key: String,
    /// Of this limit only.
    #[arg(long, value_name = "NAME")]
    limit: Option<String>,
    #[command(flatten)]
    gateway: Running,
}

/// Of which limits, and how long ago.
#[derive(Debug, clap::Args)]
pub struct TopOptions {
    /// Of this limit only.
    #[arg(long, value_name = "NAME")]
    limit: Option<String>,
    /// The last 1, 5 or 60 minutes; otherwise each of them.
    #[arg(long, value_name = "MINUTES", value_parser = minutes)]
    minutes: Option<u64>,
    #[command(flatten)]
    gateway: Running,
}

/// Of which limits.
#[derive(Debug, clap::Args)]
pub struct ReportOptions {
    /// Of this limit only.
    limit: Option<String>,
    #[command(flatten)]
    gateway: Running,
}

fn minutes(text: &str) -> Result<u64, String> {
    let minutes = text.parse().ok();
    minutes
        .filter(|minutes| Top::MINUTES.contains(minutes))
        .ok_or_else(|| "expected 1, 5 or 60".to_owned())
}

/// How a client stands.
pub fn show(options: ClientOptions) -> Result<ToldClient, CommandError> {
    let (gateway, order) = order(options);
    Ok(client::limit_show(&gateway.settings()?, &order)?)
}

/// Has it forget what a client has used.
pub fn reset(options: ClientOptions) -> Result<Reset, CommandError> {
    let (gateway, order) = order(options);
    Ok(client::limit_reset(&gateway.settings()?, &order)?)
}

/// Who asks most.
pub fn top(options: TopOptions) -> Result<Top, CommandError> {
    let mut top = client::limit_top(&options.gateway.settings()?)?;
    if !top.narrow(options.minutes, options.limit.as_deref()) {
        return Err(CommandError::NoLimit(options.limit.unwrap_or_default()));
    }
    Ok(top)
}

/// Who was refused, or in shadow would have been.
pub fn report(options: ReportOptions) -> Result<Report, CommandError> {
    let mut report = client::limit_report(&options.gateway.settings()?)?;
    match options.limit {
        Some(limit) if !report.narrow(&limit) => Err(CommandError::NoLimit(limit)),
        _ => Ok(report),
    }
}

fn order(options: ClientOptions) -> (Running, ClientOrder) {
    let ClientOptions {
        key,
        limit,
        gateway,
    } = options;
    (gateway, ClientOrder { key, limit })
}
