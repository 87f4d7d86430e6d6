//! Every key of the file, each declared once: type, default, bounds, meaning. What one key means for another is checked in `check`.

mod admin;
mod ban;
mod cache;
mod compression;
mod headers;
mod limit;
mod redis;
mod route;
mod server;
mod upstream;
mod warm;

pub use super::declare::Origin;
pub use admin::AdminSpec;
pub use ban::{BanSpec, BansSpec};
pub use cache::{CachePolicySpec, CacheSpec};
pub use compression::{CompressionSpec, LevelsSpec, StoredLevelsSpec};
pub use headers::HeadersSpec;
pub use limit::{CostSpec, ExemptSpec, JwtSpec, LimitSpec, LimitsSpec, PlanSpec, PlansSpec};
pub use redis::{RedisSpec, SentinelSpec};
pub use route::{ActionSpec, RedirectSpec, RespondSpec, RouteSpec, TimeoutOverridesSpec};
pub use server::{ClientsSpec, ErrorsSpec, ListenSpec, LogSpec, ResolverSpec, ServerSpec};
pub use upstream::{
    BackendSpec, ConcurrencySpec, HealthSpec, PaceSpec, RetrySpec, TimeoutsSpec, TlsSpec,
    UpstreamSpec,
};
pub use warm::WarmSpec;

use std::collections::BTreeMap;

use super::declare::spec;

spec! {
    /// Configuration of the Tollgate gateway.
    pub struct Config in "the file" {
        /// Listeners, connections and what a request may look like.
        server: ServerSpec;
        /// The interface for administration; without this table there is none.
        admin: Option<AdminSpec>;
        /// Who is believed about whom.
        clients: ClientsSpec = {};
        /// Who is asked for the addresses of names.
        resolver: ResolverSpec = {};
        /// The access log and the gateway's own messages.
        log: LogSpec = {};
        /// The answers that the gateway gives by itself.
        errors: ErrorsSpec = {};
        /// Applications by name, each one or more backends.
        upstreams["upstream"]: BTreeMap<String, UpstreamSpec> = {};
        /// Header policies by name. "basic", "strict" and "off" exist without being written.
        headers: BTreeMap<String, HeadersSpec> = {};
        /// What all limits share.
        limits: LimitsSpec = {};
        /// Limits by name, for routes to name.
        limit_rules["limit"]: BTreeMap<String, LimitSpec> = {};
        /// Plans by name, for the keys of limits to have.
        plans["plan"]: BTreeMap<String, PlanSpec> = {};
        /// What is kept for many visitors.
        cache: CacheSpec = {};
        /// Which responses are compressed, and how much.
        compression: CompressionSpec = {};
        /// What several gateways share; without this table nothing.
        redis: Option<RedisSpec>;
        /// What all bans share.
        bans: BansSpec = {};
        /// Rules by name that ban clients.
        ban_rules["ban"]: BTreeMap<String, BanSpec> = {};
        /// Routes; the most specific host and the longest path win, whatever the order.
        routes["route"]: Vec<RouteSpec> = [];
    }
}
