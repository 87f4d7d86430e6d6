//! `GET /limit/bans`: who is banned, by what and for how long. `POST /limit/ban`: bans a client by hand. `POST
//! /limit/unban`: ends a ban, at every gateway.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Admin, Reply};
use crate::config::word::parse_duration;
use crate::exchange::barring;
use crate::limit::ban::{Ban, Client, Mode, Standing, sharing};

/// Bans that are listed.
const MOST_LISTED: usize = 1000;
/// The longest ban by hand.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Whom to ban.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BanOrder {
    pub client: IpAddr,
    /// As durations are written in the file.
    #[serde(rename = "for")]
    pub length: String,
    pub why: Option<String>,
}

/// Whose ban to end.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnbanOrder {
    pub client: IpAddr,
}

/// A ban as it is told. Displays as one line.
#[derive(Debug, Serialize, Deserialize)]
pub struct ToldBan {
    client: String,
    rule: String,
    mode: String,
    answer: String,
    left_seconds: u64,
    events: u32,
    offence: u32,
    why: Option<String>,
}

impl ToldBan {
    pub(super) fn of(client: &Client, ban: &Ban, now: Instant) -> Self {
        Self {
            client: client.to_string(),
            rule: ban.by.to_string(),
            mode: ban.mode.to_string(),
            answer: ban.answer.to_string(),
            left_seconds: ban.left(now).as_secs(),
            events: ban.events,
            offence: ban.offence,
            why: ban.why.as_deref().map(str::to_owned),
        }
    }
}

impl fmt::Display for ToldBan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = Duration::from_secs(self.left_seconds);
        write!(
            f,
            "{} banned for another {left:?}: {}",
            self.client, self.rule
        )?;
        if self.events > 0 {
            write!(f, ", {} events, offence {}", self.events, self.offence)?;
        }
        if self.mode == Mode::Shadow.as_str() {
            f.write_str(", in shadow")?;
        }
        match &self.why {
            Some(why) => write!(f, ", {why:?}"),
            None => Ok(()),
        }
    }
}

/// The bans that stand. Displays as a line each.
#[derive(Debug, Serialize, Deserialize)]
pub struct ToldBans {
    bans: Vec<ToldBan>,
    /// All of them, of which the first are listed.
    standing: usize,
    in_shadow: usize,
}

impl fmt::Display for ToldBans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ban in &self.bans {
            writeln!(f, "{ban}")?;
        }
        write!(f, "{} banned, {} in shadow", self.standing, self.in_shadow)
    }
}

/// What became of an unban. Displays as one line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lifted {
    client: String,
    /// There was a ban at this gateway.
    was_banned: bool,
}

impl fmt::Display for Lifted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.was_banned {
            true => write!(f, "{} is not banned any more", self.client),
            false => write!(f, "{} was not banned", self.client),
        }
    }
}

pub(super) async fn list(admin: &Admin) -> Reply {
    let plan = admin.gateway.plan();
    let now = Instant::now();
    let standing = plan.bans.standing();
    let bans = standing.list(now, MOST_LISTED);
    let bans = bans
        .iter()
        .map(|(client, ban)| ToldBan::of(client, ban, now));
    let told = ToldBans {
        bans: bans.collect(),
        standing: standing.count(Mode::Enforce),
        in_shadow: standing.count(Mode::Shadow),
    };
    Reply::json(StatusCode::OK, json!(told))
}

pub(super) async fn ban(admin: &Admin, body: Bytes) -> Reply {
    let order: BanOrder = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => return Reply::error(StatusCode::BAD_REQUEST, error),
    };
    let length = match parse_duration(&order.length) {
        Ok(length) if (Duration::from_secs(1)..=LONGEST).contains(&length) => length,
        Ok(_) => {
            let why = format!("for is {:?}; expected 1s to 365d", order.length);
            return Reply::error(StatusCode::BAD_REQUEST, why);
        }
        Err(why) => return Reply::error(StatusCode::BAD_REQUEST, why),
    };
    if order
        .why
        .as_ref()
        .is_some_and(|why| why.len() > sharing::LONGEST_WHY)
    {
        let why = format!("why has more than {} bytes", sharing::LONGEST_WHY);
        return Reply::error(StatusCode::BAD_REQUEST, why);
    }
    let plan = admin.gateway.plan();
    if barring::is_allowed(&plan, order.client) {
        let why = format!(
            "{} is on the list clients.allow, which always wins",
            order.client
        );
        return Reply::error(StatusCode::CONFLICT, why);
    }
    let standing: &Standing = plan.bans.standing();
    let (now, client) = (Instant::now(), standing.client(order.client));
    match standing.ban_by_hand(client, length, order.why.map(Into::into), now) {
        Some(ban) => Reply::json(StatusCode::OK, json!(ToldBan::of(&client, &ban, now))),
        None => {
            let why = "there are as many bans as there may be, and all of them are longer";
            Reply::error(StatusCode::CONFLICT, why)
        }
    }
}

pub(super) async fn unban(admin: &Admin, body: Bytes) -> Reply {
    let order: UnbanOrder = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => return Reply::error(StatusCode::BAD_REQUEST, error),
    };
    let plan = admin.gateway.plan();
    let standing = plan.bans.standing();
    let client = standing.client(order.client);
    let lifted = Lifted {
        client: client.to_string(),
        was_banned: standing.lift(&client, Instant::now()).is_some(),
    };
    Reply::json(StatusCode::OK, json!(lifted))
}
