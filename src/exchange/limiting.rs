//! What a request takes of the limits of its route, and what it turns out to have cost.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};

use super::{Asked, Exchange};
use crate::cache::status::Outcome;
use crate::limit::jwt::Claims;
use crate::limit::key::Asker;
use crate::limit::shared::Asking;
use crate::limit::waiting::Wait;
use crate::limit::{Held, Phase, Rule, Spent, Taken};
use crate::moment::Moment;
use crate::plan::Route;
use crate::refusal::Refusal;
use crate::target::Host;

/// What one request has to do with limits.
#[derive(Debug, Default)]
pub struct Limiting {
    pub taken: Taken,
    /// It is the gateway that asks: nothing is taken, nobody is counted.
    pub is_free: bool,
    pub client: Verified,
    /// In place of those of the route, where the client's plan decides.
    pub rules: Option<Box<[Arc<Rule>]>>,
    /// The rules that wait for the cache have been asked.
    asked_late: bool,
}

/// What is verified of a client.
#[derive(Debug, Default)]
pub struct Verified {
    /// By its token.
    pub claims: Claims,
    /// The subject of its certificate.
    pub certificate: Option<Arc<str>>,
}

impl Limiting {
    /// What the request is counted by.
    pub fn rules<'a>(&'a self, route: &'a Route) -> &'a [Arc<Rule>] {
        self.rules.as_deref().unwrap_or(&route.limits)
    }
}

/// Takes what a request costs at this phase; or refuses it, and then it has taken nothing. What we ask by ourselves
/// spends nobody's quota. Waits only for limits that are shared, and only where this gateway holds nothing of them.
pub async fn take(
    exchange: &mut Exchange,
    method: &Method,
    fields: &HeaderMap,
    phase: Phase,
) -> Result<(), Refusal> {
    while let Some(asking) = try_take(exchange, method, fields, phase)? {
        let heard = Box::pin(asking.heard()).await;
        exchange.limiting.taken.hear(heard);
        exchange.moment = Moment::now();
    }
    Ok(())
}

/// As [`take`], up to a question that has to be waited for.
fn try_take(
    exchange: &mut Exchange,
    method: &Method,
    fields: &HeaderMap,
    phase: Phase,
) -> Result<Option<Asking>, Refusal> {
    let Exchange {
        route: Some(route),
        asked: Some(asked),
        limiting,
        client,
        moment,
        ..
    } = exchange
    else {
        return Ok(None);
    };
    if limiting.is_free || route.limits.is_empty() {
        return Ok(None);
    }
    if matches!(phase, Phase::Hit | Phase::Origin)
        && std::mem::replace(&mut limiting.asked_late, true)
        && !limiting.taken.is_halted()
    {
        return Ok(None);
    }
    let Limiting {
        taken,
        client: verified,
        rules,
        ..
    } = limiting;
    let rules = rules.as_deref().unwrap_or(&route.limits);
    let asker = asker(asked, (*client, verified), fields, &route.name);
    match taken.take(rules, &asker, method, phase, *moment) {
        Ok(()) => Ok(None),
        Err(Held::Until(asking)) => Ok(Some(asking)),
        Err(Held::Back(limited)) => Err(Refusal::Limited(limited)),
    }
}

/// What is to be waited for before what [`take`] has come to is done. The wait gives its place away when it is over,
/// or dropped.
pub fn wait(exchange: &mut Exchange) -> Option<impl Future<Output = ()> + use<>> {
    let wait: Box<Wait> = exchange.limiting.taken.wait()?;
    Some(async move { tokio::time::sleep(wait.length).await })
}

/// At which phase the rules of a route are asked first.
pub fn first_phase(exchange: &Exchange, method: &Method) -> Phase {
    let stores = exchange
        .route
        .as_ref()
        .is_some_and(|route| route.cache.is_some());
    match stores && matches!(*method, Method::GET | Method::HEAD) {
        true => Phase::Entry,
        false => Phase::Whole,
    }
}

/// Takes what the application says in the head of its answer that the request has cost: `said` reads that of a field.
pub fn learn(exchange: &Exchange, said: impl Fn(&HeaderName) -> Option<u64>) {
    let is_hit = exchange
        .cache
        .as_ref()
        .is_some_and(|told| told.outcome == Outcome::Hit);
    if !is_hit {
        settle_by(exchange, Spent::Said(&said));
    }
}

/// A cost as the value of a field.
pub fn cost(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// Takes, when all is over, what is known only then: the `bytes` of bodies.
pub fn settle(exchange: &Exchange, bytes: u64) {
    settle_by(exchange, Spent::Bytes(bytes));
}

fn settle_by(exchange: &Exchange, spent: Spent<'_>) {
    let Exchange {
        route: Some(route),
        limiting,
        ..
    } = exchange
    else {
        return;
    };
    if !limiting.taken.is_empty() {
        let rules = limiting.rules(route);
        limiting.taken.settle(rules, spent, Moment::now);
    }
}

/// A request as limits see it.
pub(super) fn asker<'a>(
    asked: &'a Asked,
    (client, verified): (IpAddr, &'a Verified),
    fields: &'a HeaderMap,
    route: &'a str,
) -> Asker<'a> {
    Asker {
        client,
        fields,
        claims: &verified.claims,
        certificate: verified.certificate.as_deref(),
        host: asked.host.as_ref().map_or("", Host::name),
        path: &asked.path,
        query: asked.query.as_deref(),
        route,
    }
}
