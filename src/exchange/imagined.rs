//! A request that nobody has sent, read as one that was: for who asks what would become of it.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Version};

use super::caching::Described;
use super::ingress::{self, Parsed};
use super::{Asked, Exchange, entry, limiting, planning};
use crate::http1::Malformed;
use crate::limit::Rule;
use crate::limit::key::Asker;
use crate::plan::{Plan, Route};
use crate::redis::Redis;
use crate::refusal::Refusal;
use crate::target::Url;
use crate::upstream::Priority;

/// A request that would be let in, of a client whom nobody trusts.
pub struct Imagined {
    exchange: Exchange,
    method: Method,
    fields: HeaderMap,
}

impl Imagined {
    /// Without a Host among its fields it has that of the URL.
    pub fn read(
        plan: &Arc<Plan>,
        method: Method,
        url: &Url,
        mut fields: HeaderMap,
    ) -> Result<Self, Malformed> {
        if !fields.contains_key(HOST) {
            let host = HeaderValue::try_from(url.authority());
            fields.insert(HOST, host.expect("an authority is visible text"));
        }
        let parsed = Parsed {
            version: Version::HTTP_11,
            method: &method,
            authority: None,
            target: url.target().as_bytes(),
            headers: &fields,
            default_port: url.default_port(),
        };
        let asked = Asked::from(ingress::check_parsed(&parsed, &plan.limits)?);
        let mut exchange = Exchange::new(plan.clone());
        exchange.https = url.https;
        exchange.asked = Some(asked);
        Ok(Self {
            exchange,
            method,
            fields,
        })
    }

    pub fn asked(&self) -> &Asked {
        let asked = self.exchange.asked.as_ref();
        asked.expect("an imagined request was read")
    }

    pub fn fields(&self) -> &HeaderMap {
        &self.fields
    }

    pub fn method(&self) -> &Method {
        &self.method
    }

    /// In the words of limits, as far as [`Imagined::choose`] has found who asks.
    pub fn asker<'a>(&'a self, route: &'a Route) -> Asker<'a> {
        let client = (self.exchange.client, &self.exchange.limiting.client);
        limiting::asker(self.asked(), client, &self.fields, &route.name)
    }

    pub fn route(&self) -> Result<Arc<Route>, Refusal> {
        entry::find(&self.exchange.plan, self.asked(), &self.method)
    }

    /// Finds out under which rules `client`, who may be unknown, would be counted on this route, and how urgent it would
    /// be. Without Redis it waits for nobody, and what stands there is not known.
    pub async fn choose(
        &mut self,
        route: &Arc<Route>,
        client: Option<IpAddr>,
        redis: Option<&Arc<Redis>>,
    ) {
        self.exchange.route = Some(route.clone());
        self.exchange.client = client.unwrap_or(self.exchange.client);
        self.exchange.priority = route.priority;
        planning::choose(&mut self.exchange, &self.fields, redis).await;
    }

    /// As [`Imagined::choose`] has found.
    pub fn rules<'a>(&'a self, route: &'a Route) -> &'a [Arc<Rule>] {
        self.exchange.limiting.rules(route)
    }

    /// As [`Imagined::choose`] has found.
    pub fn priority(&self) -> Priority {
        self.exchange.priority
    }

    /// In the words of the cache.
    pub fn described(&self) -> Described<'_> {
        Described::of(&self.exchange, &self.method, &self.fields)
    }
}
