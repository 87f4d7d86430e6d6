//! Who is not let in, whatever is asked for: clients that are denied or banned; and what is held against a client.

use std::net::IpAddr;
use std::time::Instant;

use http::StatusCode;

use super::Exchange;
use crate::downstream::Downstream;
use crate::limit::ban::{Banned, Event, Happened};
use crate::plan::Plan;
use crate::refusal::Refusal;

/// Whether this client is let in. `clients.allow` wins over everything.
pub fn check(exchange: &Exchange, downstream: &Downstream) -> Result<(), Refusal> {
    let Exchange { plan, client, .. } = exchange;
    let let_in = || is_allowed(plan, *client) || downstream.is_own;
    let deny = plan.lists.deny.as_ref();
    if deny.is_some_and(|deny| deny.contains(*client)) && !let_in() {
        plan.lists.count_denied();
        return Err(Refusal::Denied);
    }
    match plan.bans.check(*client, exchange.began, let_in) {
        Some(Banned { answer, left }) => Err(Refusal::Banned { answer, left }),
        None => Ok(()),
    }
}

/// Holds against a client what it did, where that counts.
pub fn note(exchange: &Exchange, downstream: &Downstream) {
    let kind = match &exchange.refusal {
        // What a client is refused for as a client says nothing new of it.
        Some(Refusal::Denied | Refusal::Banned { .. }) => return,
        Some(Refusal::Limited(_)) => Happened::Limited,
        Some(Refusal::Malformed(_)) => Happened::Malformed,
        _ => Happened::Answered,
    };
    let event = Event {
        kind,
        status: StatusCode::from_u16(exchange.status).ok(),
        path: exchange.asked.as_ref().map(|asked| &*asked.path),
    };
    if !exchange.is_own && !downstream.is_own {
        hold(&exchange.plan, exchange.client, &event);
    }
}

/// Holds a stream that became no request against whoever sent it.
pub fn note_malformed(plan: &Plan, downstream: &Downstream) {
    let event = Event {
        kind: Happened::Malformed,
        status: None,
        path: None,
    };
    hold(plan, downstream.peer_ip(), &event);
}

fn hold(plan: &Plan, client: IpAddr, event: &Event<'_>) {
    if plan.bans.mind(event) && !is_exempt(plan, client) {
        plan.bans.note(client, event, Instant::now());
    }
}

/// Whether nothing is held against this client: a trusted proxy speaks for many.
pub fn is_exempt(plan: &Plan, client: IpAddr) -> bool {
    plan.trusted.contains(client) || is_allowed(plan, client)
}

/// Whether this client is let in whatever is held against it.
pub fn is_allowed(plan: &Plan, client: IpAddr) -> bool {
    let allow = plan.lists.allow.as_ref();
    allow.is_some_and(|allow| allow.contains(client))
}
