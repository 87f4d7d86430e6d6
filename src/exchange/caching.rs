//! A request in the words of the cache: how it is looked up, and what its change outdates.

use std::borrow::Cow;

use http::{HeaderMap, Method};

use super::{Asked, Exchange, entry};
use crate::cache::invalidation;
use crate::cache::key::Key;
use crate::cache::scope::{Scope, ScopeId};
use crate::cache::tags::TooManyTags;
use crate::cache::tombstones::{Purge, Strength};
use crate::cache::{Request, Response};
use crate::gateway::Gateway;
use crate::plan::Plan;
use crate::target::Host;

/// A request that was let in, as the policy reads it.
pub struct Described<'a> {
    exchange: &'a Exchange,
    method: &'a Method,
    fields: &'a HeaderMap,
    host: &'a str,
}

impl<'a> Described<'a> {
    pub fn of(exchange: &'a Exchange, method: &'a Method, fields: &'a HeaderMap) -> Self {
        let asked = exchange.asked.as_ref().expect("a routed request was read");
        Self {
            exchange,
            method,
            fields,
            host: asked.host.as_ref().map_or("", Host::as_str),
        }
    }

    pub fn request(&self) -> Request<'_> {
        let Exchange { plan, asked, .. } = self.exchange;
        let asked = asked.as_ref().expect("a routed request was read");
        Request {
            method: self.method,
            scheme: if self.exchange.https { "https" } else { "http" },
            host: self.host,
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
    let request = described.request();
    let asked_host = exchange.asked.as_ref().and_then(|asked| asked.host.clone());
    let (scheme, host) = (request.scheme, asked_host.as_ref().map_or("", Host::name));
    let mut scopes = match invalidation::groups(&request, response) {
        Ok(groups) => {
            let scopes = groups.iter().map(|tag| Scope::of_tag(tag, scheme, host));
            scopes.map(|scope| scope.id()).collect()
        }
        Err(TooManyTags) => vec![Scope::Host(host).id()],
    };
    for place in invalidation::places(&request, response) {
        let asked = Asked {
            host: asked_host.clone(),
            path: place.path.into(),
            query: place.query.map(Into::into),
        };
        if may_be_stored(gateway, &asked, &described) {
            scopes.push(url_scope(&exchange.plan, &asked));
        }
    }
    if !scopes.is_empty() {
        gateway.purger().purge_soon(Purge {
            scopes,
            strength: Strength::Hard,
        });
    }
}

/// Whether a response to a GET of this URL may be stored somewhere. Applications answer changes under many URLs
/// that nobody gets, and what is purged has to be remembered.
fn may_be_stored(gateway: &Gateway, asked: &Asked, described: &Described<'_>) -> bool {
    let route = entry::find(&described.exchange.plan, asked, &Method::GET).ok();
    let Some(caching) = route.and_then(|route| route.cache.clone()) else {
        return false;
    };
    let policy = &caching.policy;
    if gateway.purger().has_peers() || policy.has_key_of_its_own() {
        return true;
    }
    let request = Request {
        method: &Method::GET,
        path: &asked.path,
        query: asked.query.as_deref(),
        ..described.request()
    };
    let key = Key::of(&request, &caching.scope, policy);
    gateway.memory().has(&key) || gateway.fills().has(key.digest())
}

/// The scope of every response to a GET of this URL, whatever it is stored by beside.
pub fn url_scope(plan: &Plan, asked: &Asked) -> ScopeId {
    let host = asked.host.as_ref().map_or("", Host::name);
    let query = asked.query.as_deref();
    let route = entry::find(plan, asked, &Method::GET).ok();
    let caching = route.as_ref().and_then(|route| route.cache.as_deref());
    let normal = match caching {
        Some(caching) => caching.policy.query.normal(query),
        None => query.map(Cow::Borrowed),
    };
    let path = &asked.path;
    let query = normal.as_deref();
    Scope::Url { host, path, query }.id()
}
