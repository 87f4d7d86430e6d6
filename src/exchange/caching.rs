//! A request in the words of the cache: how it is looked up, and what its change outdates.

use http::{HeaderMap, Method};

use super::{Asked, Exchange, entry};
use crate::cache::groups;
use crate::cache::invalidation::{self, Place};
use crate::cache::key::Key;
use crate::cache::tags::TooManyTags;
use crate::cache::{Request, Response};
use crate::gateway::Gateway;
use crate::target::Host;

/// A request that was let in, as the policy reads it.
pub struct Described<'a> {
    exchange: &'a Exchange,
    method: &'a Method,
    fields: &'a HeaderMap,
    host: String,
}

impl<'a> Described<'a> {
    pub fn of(exchange: &'a Exchange, method: &'a Method, fields: &'a HeaderMap) -> Self {
        let asked = exchange.asked.as_ref().expect("a routed request was read");
        Self {
            exchange,
            method,
            fields,
            host: asked.host.as_ref().map(Host::to_string).unwrap_or_default(),
        }
    }

    pub fn request(&self) -> Request<'_> {
        let Exchange { plan, asked, .. } = self.exchange;
        let asked = asked.as_ref().expect("a routed request was read");
        Request {
            method: self.method,
            scheme: if self.exchange.https { "https" } else { "http" },
            host: &self.host,
            path: &asked.path,
            path_rules: plan.limits.path,
            query: asked.query.as_deref(),
            fields: self.fields,
            is_trusted: plan.trusted.contains(self.exchange.client),
        }
    }
}

/// The application has answered an unsafe request: what is stored under the places that it changed
/// goes, by whatever route it is served.
pub fn invalidate(
    gateway: &Gateway,
    exchange: &Exchange,
    method: &Method,
    fields: &HeaderMap,
    response: &Response<'_>,
) {
    if !exchange.plan.caches || !invalidation::is_unsafe(method) {
        return;
    }
    let described = Described::of(exchange, method, fields);
    let outdated = gateway.memory().groups();
    match invalidation::groups(&described.request(), response) {
        Ok(named) => outdated.outdate(&groups::of(&described.request(), &named)),
        Err(TooManyTags) => outdated.outdate_everything(),
    }
    for place in invalidation::places(&described.request(), response) {
        if let Some(key) = key_of(&place, &described) {
            gateway.memory().invalidate(&key);
            gateway.fills().outdate(key.digest());
        }
    }
}

/// The key under which a GET of the place is stored, if it is.
fn key_of(place: &Place, described: &Described<'_>) -> Option<Key> {
    let exchange = described.exchange;
    let asked = Asked {
        host: exchange.asked.as_ref()?.host.clone(),
        path: place.path.as_str().into(),
        query: place.query.as_deref().map(Into::into),
    };
    let route = entry::find(&exchange.plan, &asked, &Method::GET).ok()?;
    let caching = route.cache.as_deref()?;
    let request = Request {
        method: &Method::GET,
        path: &asked.path,
        query: asked.query.as_deref(),
        ..described.request()
    };
    Some(Key::of(&request, &caching.scope, &caching.policy))
}
