//! `POST /limit/show`: how a client stands with every limit that counts such. `POST /limit/reset`: forgets what it has
//! used. `GET /limit/top`: who asks most. `GET /limit/report`: who was refused, or in shadow would have been.
//!
//! Names of clients are neither logged nor told again: an address in clear, another name by its digest.

mod client;
mod text;

use std::net::IpAddr;
use std::time::{Instant, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub(super) use self::client::ClientOrder;
use self::client::clients;
use super::ban::ToldBan;
use super::{Admin, Reply};
use crate::limit::heavy::{Heaviness, Known};
use crate::limit::key::name::Short;
use crate::limit::stands::{QuotaStands, Stands};
use crate::limit::{Rule, whole_seconds};
use crate::moment::Moment;
use crate::plan::Plan;

/// Clients of each list.
const MOST_LISTED: usize = 20;
/// The stretches of time that a list of the heaviest is of, in minutes.
const WINDOWS: [u64; 3] = [1, 5, 60];

/// How a client stands with every limit that counts such. Displays in lines.
#[derive(Debug, Serialize, Deserialize)]
pub struct ToldClient {
    limits: Vec<ToldStanding>,
    /// By its address.
    ban: Option<ToldBan>,
}

/// How a client stands with one limit.
#[derive(Debug, Serialize, Deserialize)]
pub struct ToldStanding {
    limit: String,
    /// Whose quotas these are, where plans decide.
    plan: Option<String>,
    /// `enforce`, `shadow`, `delay` or `tarpit`.
    mode: String,
    client: String,
    quotas: Vec<ToldQuota>,
    in_flight: Option<ToldInFlight>,
    /// Requests of the client that wait.
    waiting: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct ToldQuota {
    policy: String,
    quota: String,
    used: u64,
    left: u64,
    /// Until all is there again.
    reset_seconds: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ToldInFlight {
    under_way: u32,
    most: u32,
}

/// What was forgotten. Displays in lines.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reset {
    limits: Vec<ResetLimit>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ResetLimit {
    limit: String,
    client: String,
    /// Quotas of which something was used.
    quotas: usize,
}

/// Who asks most, by limit. Displays in lines.
#[derive(Debug, Serialize, Deserialize)]
pub struct Top {
    limits: Vec<TopOfLimit>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TopOfLimit {
    limit: String,
    windows: Vec<Window>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Window {
    minutes: u64,
    clients: Vec<ToldHeaviness>,
}

/// What was counted of a client.
#[derive(Debug, Serialize, Deserialize)]
struct ToldHeaviness {
    client: String,
    /// At most, and by at most `over` too many.
    requests: u64,
    over: u64,
    /// At least.
    refused: u64,
}

/// Who was one too many, by limit. Displays in lines.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    limits: Vec<ReportOfLimit>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ReportOfLimit {
    limit: String,
    mode: String,
    since_seconds: u64,
    /// Unix time.
    since: u64,
    requests: u64,
    refused: u64,
    tarpitted: u64,
    would_be_refused: u64,
    /// Those that were one too many most often.
    clients: Vec<ToldRefused>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ToldRefused {
    client: String,
    /// At most, and by at most `over` too many.
    times: u64,
    over: u64,
}

pub(super) async fn show(admin: &Admin, body: Bytes) -> Reply {
    let plan = admin.gateway.plan();
    let (found, name) = match clients(admin, &plan, &body).await {
        Ok(found) => found,
        Err(reply) => return reply,
    };
    let now = Moment::now();
    let limits = found
        .iter()
        .map(|(rule, client)| ToldStanding::of(rule, *client, now));
    let limits = limits.collect();
    let mut addresses = found.iter().filter_map(|(_, client)| client.address);
    let address = name.address().or_else(|| addresses.next());
    let ban = address.and_then(|address| ban(&plan, address, now.instant));
    Reply::json(StatusCode::OK, json!(ToldClient { limits, ban }))
}

pub(super) async fn reset(admin: &Admin, body: Bytes) -> Reply {
    let plan = admin.gateway.plan();
    let mut found = match clients(admin, &plan, &body).await {
        Ok((found, _)) => found,
        Err(reply) => return reply,
    };
    // The plans of a limit have the same buckets.
    found.dedup_by(|(one, client), (other, same)| {
        (&one.name, client.digest) == (&other.name, same.digest)
    });
    let limits = found.iter().map(|(rule, client)| ResetLimit {
        limit: rule.name.to_string(),
        client: told(client),
        quotas: match plan.planned.get(&rule.name) {
            Some(planned) => planned.widest.reset(client.digest),
            None => rule.reset(client.digest),
        },
    });
    let reset = Reset {
        limits: limits.collect(),
    };
    for one in &reset.limits {
        let ResetLimit {
            limit,
            client,
            quotas,
        } = one;
        tracing::info!(limit, client, quotas, "what a client has used is forgotten");
    }
    Reply::json(StatusCode::OK, json!(reset))
}

pub(super) async fn top(admin: &Admin) -> Reply {
    let plan = admin.gateway.plan();
    let now = Instant::now();
    let of_rule = |rule: &Rule| TopOfLimit {
        limit: rule.name.to_string(),
        windows: WINDOWS
            .map(|minutes| Window {
                minutes,
                clients: rule
                    .live
                    .heavy
                    .top(minutes, MOST_LISTED, now)
                    .iter()
                    .map(ToldHeaviness::of)
                    .collect(),
            })
            .into(),
    };
    let limits = plan.rules.values().map(|rule| of_rule(rule)).collect();
    Reply::json(StatusCode::OK, json!(Top { limits }))
}

pub(super) async fn report(admin: &Admin) -> Reply {
    let plan = admin.gateway.plan();
    let limits = plan.rules.values().map(|rule| ReportOfLimit::of(rule));
    let report = Report {
        limits: limits.collect(),
    };
    Reply::json(StatusCode::OK, json!(report))
}

fn ban(plan: &Plan, address: IpAddr, now: Instant) -> Option<ToldBan> {
    let standing = plan.bans.standing();
    let client = standing.client(address);
    let ban = standing.find(&client, now)?;
    Some(ToldBan::of(&client, &ban, now))
}

/// A client as it is told.
fn told(client: &Known) -> String {
    match client.address {
        Some(address) => address.to_string(),
        None => Short::of(&client.digest).to_string(),
    }
}

impl ToldStanding {
    pub(super) fn of(rule: &Rule, client: Known, now: Moment) -> Self {
        let Stands {
            quotas,
            under_way,
            waiting,
        } = rule.stands(client.digest, now);
        Self {
            limit: rule.name.to_string(),
            plan: rule.plan.as_deref().map(str::to_owned),
            mode: rule.mode.to_string(),
            client: told(&client),
            quotas: quotas.iter().map(ToldQuota::of).collect(),
            in_flight: under_way.map(|(under_way, most)| ToldInFlight { under_way, most }),
            waiting,
        }
    }
}

impl ToldQuota {
    fn of(stands: &QuotaStands<'_>) -> Self {
        Self {
            policy: stands.policy.to_owned(),
            quota: stands.quota.to_string(),
            used: stands.used,
            left: stands.standing.left,
            reset_seconds: whole_seconds(stands.standing.reset),
        }
    }
}

impl ToldHeaviness {
    fn of(heaviness: &Heaviness) -> Self {
        Self {
            client: told(&heaviness.client),
            requests: heaviness.requests,
            over: heaviness.over,
            refused: heaviness.refused,
        }
    }
}

impl ReportOfLimit {
    fn of(rule: &Rule) -> Self {
        let counted = rule.live.tally.counted();
        let clients = rule.live.heavy.refused(MOST_LISTED);
        let since = rule.live.heavy.since;
        Self {
            limit: rule.name.to_string(),
            mode: rule.mode.to_string(),
            since_seconds: since.elapsed().unwrap_or_default().as_secs(),
            since: since
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
            requests: counted.asked(),
            refused: counted.refused,
            tarpitted: counted.tarpitted,
            would_be_refused: counted.shadowed,
            clients: clients
                .iter()
                .map(|one| ToldRefused {
                    client: told(&one.client),
                    times: one.requests,
                    over: one.over,
                })
                .collect(),
        }
    }
}
