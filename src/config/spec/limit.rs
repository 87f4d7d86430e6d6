//! `[limits]`, `[limit.NAME]` and `[plan.NAME]`: who may use how much.

use std::time::Duration;

use http::{Method, StatusCode};
use ipnet::IpNet;
use jiff::tz::TimeZone;

use crate::config::declare::spec;
use crate::config::problem::Located;
use crate::config::word::{FilePath, HeaderFields, KeySource, ModeSpec, Quotas};
use crate::headers::policy::FieldName;
use crate::limit::Fields;
use crate::limit::key::Key;
use crate::limit::shared::{Share, WhenAway};
use crate::redis::Secret;
use crate::target::PathPrefix;
use crate::upstream::Priority;

spec! {
    /// What all limits share.
    pub struct LimitsSpec in "[limits]" {
        /// The names of clients are hashed with it before they are kept, at all gateways that share limits with the same; otherwise with one made at each start, for shared limits with one that stands in Redis. A change needs a restart.
        secret: Option<Located<Secret>>;
        /// Bits of an IPv4 address that make one client, 8 to 32.
        ipv4_prefix: u16 = 32, within 8..=32;
        /// Bits of an IPv6 address that make one client, 16 to 128.
        ipv6_prefix: u16 = 64, within 16..=128;
        /// Where a day and a month of a quota begin, such as "Europe/Zurich".
        time_zone: TimeZone = "UTC";
        /// How the tokens are verified whose claims are keys; without this table there are none.
        jwt: Option<JwtSpec>;
    }

    /// How JSON Web Tokens of `Authorization: Bearer` are verified: by keys, a secret, or both.
    pub struct JwtSpec in "[limits.jwt]" {
        /// A file with a JWK set of public keys for RS256, ES256 and EdDSA; it is followed.
        keys: Option<Located<FilePath>>;
        /// For tokens that are signed with HS256, of 32 bytes or more.
        secret: Option<Located<Secret>>;
        /// Who must have issued them; otherwise anybody with a key.
        issuer: Option<String>;
        /// For whom they must be; otherwise for anybody.
        audience: Option<String>;
        /// By how much clocks may differ, 0s to 5m.
        leeway: Duration = "30s", within "0s"..="5m";
    }

    /// What some clients may use.
    pub struct PlanSpec in "[plan.NAME]" {
        /// One or more quotas, up to 8, as those of a limit; otherwise as much as they like.
        quota: Option<Located<Quotas>>;
        /// How many requests of one client may be under way at once, 1 to 1,000,000; otherwise what the limit says.
        in_flight: Option<u32>, within 1..=1_000_000;
        /// Who goes first where requests wait for an upstream: "critical", "high", "normal" or "low"; otherwise what the route says.
        priority: Option<Priority>;
    }

    /// Who may use how much.
    pub struct LimitSpec in "[limit.NAME]" {
        /// One or more quotas, up to 8, required unless in_flight or plans is said: "100 per minute, burst 20", "5000 per day", or "10 MiB per second" of bodies.
        quota: Option<Located<Quotas>>;
        /// How many requests of one client may be under way at once, WebSockets and slow downloads too, 1 to 1,000,000; beside quota or alone.
        in_flight: Option<u32>, within 1..=1_000_000;
        /// Who is counted: client-ip, route, host, path, header:NAME, cookie:NAME, query:NAME, claim:NAME; "a + b" is both, "a | b" the first that is there.
        key: Key = "client-ip";
        /// In place of quota: each key has the quotas of its plan. The key must begin with a header, cookie, query or claim.
        plans: Option<PlansSpec>;
        /// "this-gateway" counts by itself, "all-gateways" together with all that share [redis].
        share: Located<Share> = "this-gateway";
        /// Of a shared limit: Redis is asked for each request, not for many at once.
        exact: Located<bool> = false;
        /// Of a shared limit, while Redis does not answer: "fair-share" lets in this gateway's part of the quota, "open" everybody, "closed" nobody.
        when_store_is_away: WhenAway = "fair-share";
        /// "enforce" refuses, "shadow" only counts, "delay" has requests wait for their turn, "tarpit" refuses after a pause.
        mode: Located<ModeSpec> = "enforce";
        /// How requests wait, with mode = "delay".
        delay: DelaySpec = {};
        /// How refusals wait, with mode = "tarpit".
        tarpit: TarpitSpec = {};
        /// What a request takes, 0 to 1,000,000.
        cost: u64 = 1, within 0..=1_000_000;
        /// What some requests take, the first that fits, 0 to 64: [{ method = "POST", path = "/search", cost = 5 }].
        costs: Vec<CostSpec> = [], entries 0..=64;
        /// A field of responses in which the application says what the request has cost in all.
        cost_header: Option<FieldName>;
        /// What a request takes that is answered from the cache, 0 to 1,000,000; otherwise as any.
        cache_hit_cost: Option<u64>, within 0..=1_000_000;
        /// Whose requests are not counted.
        exempt: ExemptSpec = {};
        /// Clients that are remembered, 1 to 100,000,000, of up to 100 bytes a quota; those who used least are forgotten first. A change needs a restart.
        max_clients: Located<usize> = 100_000, within 1..=100_000_000;
        /// Status of a refusal, 400 to 599.
        status: StatusCode = 429, within 400..=599;
        /// How clients are told: "draft-11" (RateLimit, RateLimit-Policy), "x-ratelimit" or "off".
        fields: Fields = "draft-11";
    }

    /// Requests that wait for their turn.
    pub struct DelaySpec in "delay" {
        /// The longest wait, 1ms to 1m; who would wait longer is refused at once.
        up_to: Duration = "1s", within "1ms"..="1m";
        /// Requests of one client that wait, 1 to 1,000,000.
        waiting: u32 = 100, within 1..=1_000_000;
        /// Requests that wait in all, 1 to 1,000,000.
        waiting_in_all: u32 = 10_000, within 1..=1_000_000;
    }

    /// Refusals that wait.
    pub struct TarpitSpec in "tarpit" {
        /// How long each waits, 1ms to 1m.
        pause: Duration = "5s", within "1ms"..="1m";
        /// Refusals that wait in all, 1 to 1,000,000; further ones are answered at once.
        waiting: u32 = 1_000, within 1..=1_000_000;
    }

    /// What some requests take.
    pub struct CostSpec in "costs" {
        /// Their method; otherwise any.
        method: Option<Method>;
        /// Prefix of whole segments of their path; otherwise any.
        path: Option<PathPrefix>;
        /// 0 to 1,000,000.
        cost: u64, within 0..=1_000_000;
    }

    /// Whose requests are not counted.
    pub struct ExemptSpec in "exempt" {
        /// Networks of clients, 0 to 64.
        clients: Vec<IpNet> = [], entries 0..=64;
        /// Prefixes of paths, 0 to 64.
        paths: Vec<PathPrefix> = [], entries 0..=64;
        /// Request fields with their values, any of which exempts: { "X-Internal" = "${INTERNAL_TOKEN}" }.
        headers: HeaderFields = {};
    }
    /// Which key has which plan.
    pub struct PlansSpec in "plans" {
        /// A file with one key and the name of its plan a line, which is followed; or "redis:HASH".
        keys: Located<KeySource>;
        /// The plan of keys that are not there; they are counted by address.
        default: Located<String>;
        /// The plan of requests without a key; otherwise default.
        none: Option<Located<String>>;
    }
}
