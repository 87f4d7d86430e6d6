//! A request that nobody has sent, read as one that was: for who asks what would become of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Version};

use super::caching::Described;
use super::ingress::{self, Parsed};
use super::{Asked, Exchange, entry, limiting};
use crate::http1::Malformed;
use crate::limit::key::Asker;
use crate::plan::{Plan, Route};
use crate::refusal::Refusal;
use crate::target::Url;

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
        if let Some(jwt) = &plan.jwt {
            exchange.limiting.claims = jwt.claims(&fields, SystemTime::now());
        }
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

    /// In the words of limits.
    pub fn asker<'a>(&'a self, client: IpAddr, route: &'a Route) -> Asker<'a> {
        let claims = &self.exchange.limiting.claims;
        limiting::asker(self.asked(), client, &self.fields, claims, &route.name)
    }

    pub fn route(&self) -> Result<Arc<Route>, Refusal> {
        entry::find(&self.exchange.plan, self.asked(), &self.method)
    }

    /// In the words of the cache.
    pub fn described(&self) -> Described<'_> {
        Described::of(&self.exchange, &self.method, &self.fields)
    }
}
