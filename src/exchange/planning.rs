//! Who asks, by what can be verified of it, and which plan it has: before anything is taken of a limit.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;

use super::Exchange;
use super::limiting::asker;
use crate::limit::jwt::Claims;
use crate::limit::key::Asker;
use crate::plan::Planned;
use crate::redis::Redis;

/// Finds out under which rules the request is counted and how urgent it is. Waits only where the plan of a key stands in
/// Redis and is not known.
pub async fn choose(exchange: &mut Exchange, fields: &HeaderMap, redis: Option<&Arc<Redis>>) {
    let Some(route) = exchange.route.clone().filter(|_| !exchange.is_own) else {
        return;
    };
    exchange.limiting.claims = claims(exchange, fields);
    if route.planned.is_empty() {
        return;
    }
    let mut rules = route.limits.clone();
    let mut priority = None;
    for (place, planned) in &route.planned {
        let key: Option<Box<[u8]>> = match &exchange.asked {
            Some(asked) => {
                let claims = &exchange.limiting.claims;
                let asker = asker(asked, exchange.client, fields, claims, &route.name);
                name(planned, &asker)
            }
            None => None,
        };
        let choice = planned.of(key.as_deref(), redis.map(Arc::as_ref)).await;
        rules[*place] = choice.rule.clone();
        priority = priority.or(choice.priority);
    }
    exchange.limiting.rules = Some(rules);
    exchange.priority = priority.unwrap_or(exchange.priority);
}

fn name(planned: &Planned, asker: &Asker<'_>) -> Option<Box<[u8]>> {
    planned.key.first_name(asker).map(Into::into)
}

/// What the token of the request says, where a limit of its route asks for that.
fn claims(exchange: &Exchange, fields: &HeaderMap) -> Claims {
    let (Some(jwt), Some(route)) = (&exchange.plan.jwt, &exchange.route) else {
        return Claims::default();
    };
    let reads = |planned: &Planned| planned.key.claims().next().is_some();
    let is_asked = route
        .limits
        .iter()
        .any(|rule| rule.key.claims().next().is_some())
        || route.planned.iter().any(|(_, planned)| reads(planned));
    match is_asked {
        true => jwt.claims(fields, SystemTime::now()),
        false => Claims::default(),
    }
}
