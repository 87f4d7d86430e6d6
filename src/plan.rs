//! The configuration compiled: names resolved, every value right, live state carried over.
//!
//! A plan is immutable and swapped whole. What it owns that lives on - the backends with their
//! load and health - is handed from the plan before to the next one by name and address.

mod admin;
mod ban;
mod cache;
mod clients;
mod compile;
mod compression;
mod files;
mod kinds;
mod limits;
mod plans;
mod redis;
mod routes;
mod upstreams;
mod warm;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::cache::Policy;
use crate::cache::admission::NotStored;
use crate::cache::counters::Counters;
use crate::cache::redis::Sharing;
use crate::client::Networks;
use crate::compression::Compression;
use crate::headers::host::HostSent;
use crate::headers::policy::HeaderPolicy;
use crate::http1::Limits;
use crate::limit::Rule;
use crate::limit::ban::Bans;
use crate::limit::jwt::Verifier;
use crate::limit::key::Secret;
use crate::limit::shared::store::Store;
use crate::refusal::Pages;
use crate::route::Routes;
use crate::route::rewrite::{self, Template};
use crate::target::PathPrefix;
use crate::telemetry::access::AccessPolicy;
use crate::upstream::{DnsSettings, Priority, Transport, Upstream};

pub use self::admin::{AdminSettings, admin_settings};
pub use self::clients::Lists;
pub use self::compile::{check_restart, limits, log_settings};
pub use self::kinds::Kinds;
pub use self::plans::Planned;
pub use self::redis::redis_settings;
pub use self::warm::{Manner, Visits, WarmUp};

/// Everything that decides over requests.
pub struct Plan {
    pub routes: Routes<Arc<Route>>,
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    /// Whose claims about the client are believed.
    pub trusted: Networks,
    /// Who is let in or not, whatever they ask for.
    pub lists: Lists,
    /// Who is refused for what they did.
    pub bans: Bans,
    /// Whose requests of the method `PURGE` purge.
    pub purge_from: Networks,
    /// Also send RFC 7239 `Forwarded`.
    pub forwarded: bool,
    /// What a request may measure, and how its path is canonicalised.
    pub limits: Limits,
    pub drop_unsafe_fields: bool,
    pub pages: Pages,
    /// For answers to requests that have no route.
    pub default_headers: Arc<HeaderPolicy>,
    /// For records of requests that have no route.
    pub access: AccessPolicy,
    /// Whether any route stores responses.
    pub caches: bool,
    /// How the requests of each route that stores responses were answered, by its name.
    pub counters: BTreeMap<Box<str>, Arc<Counters>>,
    /// Limits by name.
    pub rules: BTreeMap<Box<str>, Arc<Rule>>,
    /// The plans of the limits that have some.
    pub planned: BTreeMap<Box<str>, Arc<Planned>>,
    /// What tokens are verified by.
    pub jwt: Option<Arc<Verifier>>,
    /// What the names of their clients are hashed with.
    pub limit_secret: Secret,
    /// Where those are counted that all gateways share.
    pub limit_store: Arc<Store>,
    /// What is asked for before visitors come.
    pub warm: Option<Arc<WarmUp>>,
    /// Who is asked for the names of backends.
    pub dns: DnsSettings,
}

impl Plan {
    /// Waits until every name of a backend has been looked up once, or `patience` is over.
    pub async fn looked_up(&self, patience: Duration) {
        let all = futures::future::join_all(self.upstreams.values().map(|one| one.looked_up()));
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("some names of backends are not resolved yet");
        }
    }
}

impl Plan {
    /// Logs one line a backend: where it is, whether it is used, and what it is doing now.
    pub fn log_status(&self) {
        for (name, upstream) in &self.upstreams {
            let waiting = upstream.waiting();
            let load = upstream.load();
            if load.limit.is_some() || upstream.settings().pace.is_some() {
                tracing::info!(
                    upstream = %name,
                    in_flight = load.in_flight,
                    limit = load.limit,
                    quiet_ms = load.quiet.map(|quiet| quiet.as_millis() as u64),
                    waiting,
                    shed = load.shed.iter().sum::<u64>(),
                    paused_ms = load.paused.map(|left| left.as_millis() as u64),
                    "upstream"
                );
            }
            for backend in upstream.status() {
                tracing::info!(
                    upstream = %name,
                    backend = %backend.address,
                    in_flight = backend.in_flight,
                    state = %backend.state,
                    weight = backend.weight,
                    backup = backend.backup,
                    waiting,
                    "status"
                );
            }
        }
    }
}

/// What a route says about its requests.
pub struct Route {
    /// As the operator named it, else host and path.
    pub name: Box<str>,
    pub action: Action,
    pub headers: Arc<HeaderPolicy>,
    /// The longest request body, in bytes.
    pub max_body: u64,
    pub access: AccessPolicy,
    /// Who goes first where requests wait for the upstream.
    pub priority: Priority,
    /// What is stored of its responses; `None` is nothing.
    pub cache: Option<Arc<Caching>>,
    /// What its requests are counted by, in this order.
    pub limits: Box<[Arc<Rule>]>,
    /// The plans of those that have some, by their place among the limits.
    pub planned: Box<[(usize, Arc<Planned>)]>,
    /// One of them goes by a claim of a token.
    pub reads_claims: bool,
    /// How its responses are compressed; `None` is not at all.
    pub compression: Option<Arc<Compression>>,
}

/// How the responses of one route are stored.
pub struct Caching {
    /// The name of the policy.
    pub name: Box<str>,
    pub policy: Arc<Policy>,
    /// Those of some of its responses.
    pub kinds: Kinds,
    /// How they are shared with other gateways, where there is a Redis; `None` is not at all.
    pub sharing: Option<Sharing>,
    /// The part of every key that stands for the route and the policy: what was stored by another
    /// policy is not found.
    pub scope: Box<str>,
    /// Those of the route, in every plan.
    pub counters: Arc<Counters>,
}

impl Caching {
    /// The policy for a response with these fields.
    pub fn policy_of(&self, response: &HeaderMap) -> Result<&Policy, NotStored> {
        self.kinds.of(response, &self.policy)
    }
}

/// What becomes of a request.
pub enum Action {
    Forward(Arc<Forward>),
    Redirect(StatusCode, Template),
    Respond(Respond),
}

/// How requests reach their application.
pub struct Forward {
    pub upstream: Arc<Upstream>,
    /// The route's own timeouts, where it has any.
    pub transport: Option<Arc<Transport>>,
    pub rewrite: Rewrite,
    pub host: HostSent,
    pub retry: Retry,
    /// How long a tunnel may stay silent.
    pub websocket_idle: Duration,
}

/// A fixed response.
pub struct Respond {
    pub status: StatusCode,
    pub content_type: HeaderValue,
    pub body: Bytes,
}

/// What becomes of the path on its way to the application.
pub enum Rewrite {
    Keep,
    Strip(PathPrefix),
    Replace(PathPrefix, PathPrefix),
}

/// When a request is given to another backend.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Attempts in all.
    pub attempts: u32,
    pub on: RetryOn,
    /// Also methods that may have an effect each time.
    pub non_idempotent: bool,
}

/// The failures that are tried again.
#[derive(Clone, Debug, Default)]
pub struct RetryOn {
    pub connect: bool,
    /// The connection was lost before any byte of the response.
    pub reset: bool,
    /// No response head in time.
    pub timeout: bool,
    pub statuses: Vec<StatusCode>,
}

impl RetryOn {
    /// Whether a response with `status` is a failure to be tried again.
    pub fn status(&self, status: StatusCode) -> bool {
        self.statuses.contains(&status)
    }
}

impl Rewrite {
    /// The path that the application sees.
    pub fn apply<'p>(&self, path: &'p str) -> std::borrow::Cow<'p, str> {
        match self {
            Self::Keep => path.into(),
            Self::Strip(prefix) => rewrite::strip_prefix(prefix, path).into(),
            Self::Replace(prefix, by) => rewrite::replace_prefix(prefix, by, path).into(),
        }
    }
}
