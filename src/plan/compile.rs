//! From what is written to what runs. `config` has checked every word; what is found here is
//! what only doing shows: a file that cannot be read or used.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Plan;
use super::ban::bans;
use super::clients::Lists;
use super::compression::compression;
use super::limits::{rules, secret, store};
use super::plans;
use super::routes::route;
use super::upstreams::{load_tls, lookup, upstreams};
use super::warm::WarmUp;
use crate::cache::counters::Counters;
use crate::client::Networks;
use crate::config::Config;
use crate::config::problem::{Positioned, Problems, why};
use crate::config::spec::{HeadersSpec, RouteSpec};
use crate::headers::policy::{HeaderPolicy, PolicySettings};
use crate::headers::security::Preset;
use crate::http1::Limits;
use crate::refusal::Pages;
use crate::route::Routes;
use crate::target::PathRules;
use crate::telemetry::LogSettings;
use crate::telemetry::access::AccessPolicy;
use crate::upstream::DnsSettings;

impl Plan {
    /// Compiles `config`; what lives in `running` lives on.
    ///
    /// Every file that it names is read before anything is made of it. `None` when there is a
    /// problem: one that was found here, or one before.
    pub fn compile(
        config: &Config,
        running: Option<&Self>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let tls = load_tls(config, problems);
        let pages = pages(config, problems);
        let lists = Lists::of(config, running.map(|running| &running.lists), problems);
        let keys = plans::keys(config, running, problems);
        let jwt = plans::verifier(config, problems);
        if !problems.is_empty() {
            return None;
        }
        let upstreams = upstreams(config, tls, running);
        let policies = policies(config);
        let compression = compression(config);
        let counters = counters(config, running);
        let limit_secret = secret(config, running);
        let limit_store = store(config, limit_secret, running);
        let (rules, planned) = rules(config, &keys, limit_secret, &limit_store, running);
        let routes: Vec<_> = config
            .routes
            .iter()
            .filter_map(|spec| {
                route(
                    spec,
                    config,
                    &upstreams,
                    &policies,
                    &counters,
                    (&rules, &planned),
                    &compression,
                )
            })
            .collect();
        Some(Self {
            counters,
            rules,
            planned,
            jwt,
            limit_secret,
            limit_store,
            warm: config
                .cache
                .warm
                .as_ref()
                .map(|spec| Arc::new(WarmUp::of(spec))),
            caches: config.routes.iter().any(|route| route.cache.is_some()),
            routes: Routes::new(routes),
            trusted: Networks::new(config.clients.trusted_proxies.iter().copied()),
            lists,
            bans: bans(config, running.map(|running| &running.bans)),
            purge_from: Networks::new(config.cache.purge_from.iter().copied()),
            forwarded: config.clients.forwarded,
            limits: limits(config),
            drop_unsafe_fields: config.server.drop_unsafe_headers,
            pages: pages?,
            default_headers: policies["basic"].clone(),
            access: access(config, None),
            dns: dns(config),
            upstreams,
        })
    }

    /// Starts the probes and the name resolution of the upstreams, in place of those of the plan
    /// `before`. To be called once, in a runtime, when this plan comes into force.
    pub fn start(&self, before: Option<&Self>) {
        self.lists.watch();
        self.planned
            .values()
            .for_each(|planned| planned.keys.watch());
        self.jwt.iter().for_each(|jwt| jwt.watch());
        let lookup = lookup(&self.dns);
        for upstream in self.upstreams.values() {
            upstream.start(&lookup);
        }
        let gone = before
            .iter()
            .flat_map(|before| &before.upstreams)
            .filter(|(name, _)| !self.upstreams.contains_key(*name));
        for (_, upstream) in gone {
            upstream.stop();
        }
    }
}

/// Says what differs between two configurations that a reload cannot change.
pub fn check_restart(running: &Config, wanted: &Config, problems: &mut Problems) {
    let mut note = |place: &dyn Positioned, what: &str| {
        let message = format!(
            "{what} differs from the running one, which needs a restart; `tollgate upgrade` restarts without refusing a connection"
        );
        problems.note(&place.place(), message);
    };
    if wanted.server.origin.sound && running.server != wanted.server {
        note(&wanted.server, "[server]");
    }
    if redis_differs(running, wanted) {
        match &wanted.redis {
            Some(redis) => note(redis, "[redis]"),
            None => note(wanted, "[redis]"),
        }
    }
    if admin_differs(running, wanted) {
        match &wanted.admin {
            Some(admin) => note(admin, "[admin]"),
            None => note(wanted, "[admin]"),
        }
    }
    if wanted.bans.origin.sound && running.bans != wanted.bans {
        note(&wanted.bans, "[bans]");
    }
    let (before, after) = (&running.cache, &wanted.cache);
    if after.origin.sound && before.memory != after.memory {
        note(&after.memory, "cache.memory");
    }
    if after.origin.sound && before.without_redis != after.without_redis {
        note(&after.without_redis, "cache.without_redis");
    }
    if after.origin.sound && before.queued_writes != after.queued_writes {
        note(&after.queued_writes, "cache.queued_writes");
    }
    if after.origin.sound && before.queued_bytes != after.queued_bytes {
        note(&after.queued_bytes, "cache.queued_bytes");
    }
    let (before, after) = (&running.limits, &wanted.limits);
    if after.origin.sound && before.secret != after.secret {
        match &after.secret {
            Some(secret) => note(secret, "limits.secret"),
            None => note(after, "limits.secret"),
        }
    }
    for (name, after) in &wanted.limit_rules {
        if let Some(before) = running.limit_rules.get(name)
            && after.origin.sound
            && before.max_clients != after.max_clients
        {
            note(&after.max_clients, "max_clients of a limit");
        }
    }
}

fn admin_differs(running: &Config, wanted: &Config) -> bool {
    let sound = wanted.admin.as_ref().is_none_or(|admin| admin.origin.sound);
    sound && running.admin != wanted.admin
}

fn redis_differs(running: &Config, wanted: &Config) -> bool {
    let sound = wanted.redis.as_ref().is_none_or(|redis| redis.origin.sound);
    sound && running.redis != wanted.redis
}

fn counters(config: &Config, running: Option<&Plan>) -> BTreeMap<Box<str>, Arc<Counters>> {
    let counted = config.routes.iter().filter(|route| route.cache.is_some());
    counted
        .map(|route| {
            let name: Box<str> = route.label().into();
            let before = running.and_then(|running| running.counters.get(&name));
            (name, before.cloned().unwrap_or_default())
        })
        .collect()
}

fn policies(config: &Config) -> BTreeMap<String, Arc<HeaderPolicy>> {
    let built_in =
        Preset::ALL.map(|preset| (preset.to_string(), Arc::new(HeaderPolicy::of(preset))));
    let mut policies = BTreeMap::from(built_in);
    for (name, spec) in &config.headers {
        policies.insert(name.clone(), Arc::new(HeaderPolicy::new(&policy(spec))));
    }
    policies
}

fn policy(spec: &HeadersSpec) -> PolicySettings {
    PolicySettings {
        preset: spec.preset,
        set: spec.set.0.clone(),
        default: spec.default.0.clone(),
        add: spec.add.0.clone(),
        remove: spec.remove.clone(),
        csp: spec.csp.clone().unwrap_or_default(),
        csp_report_only: spec.csp_report_only,
        hsts: spec.hsts.unwrap_or_default(),
        request_set: spec.request_set.0.clone(),
        request_remove: spec.request_remove.clone(),
    }
}

fn pages(config: &Config, problems: &mut Problems) -> Option<Pages> {
    let retry_after = *config.errors.retry_after;
    let Some(page) = &config.errors.page else {
        return Some(Pages::built_in(retry_after));
    };
    let html = match std::fs::read_to_string(&page.path) {
        Ok(html) => html,
        Err(error) => {
            let why = why(&error);
            let message = format!("error page {} {why}; expected an HTML file", page.value);
            problems.note(page, message);
            return None;
        }
    };
    Pages::with_template(&html, retry_after)
        .map_err(|error| problems.note(page, format!("error page {}: {error}", page.value)))
        .ok()
}

pub(super) fn access(config: &Config, route: Option<&RouteSpec>) -> AccessPolicy {
    let log = &config.log;
    AccessPolicy {
        mode: route
            .and_then(|route| route.access_log)
            .unwrap_or(log.access),
        slow_after: route
            .and_then(|route| route.slow_after)
            .unwrap_or(log.slow_after),
        query: log.query,
    }
}

fn dns(config: &Config) -> DnsSettings {
    DnsSettings {
        servers: config.resolver.servers.clone(),
        timeout: config.resolver.timeout,
    }
}

/// Where and how the gateway's own messages and records are written.
pub fn log_settings(config: &Config) -> LogSettings {
    let log = &config.log;
    LogSettings {
        level: log.level,
        format: log.format,
        output: log.output.value.clone(),
        buffer: log.buffer,
    }
}

/// What a request may measure, and how its path is canonicalised.
pub fn limits(config: &Config) -> Limits {
    let server = &config.server;
    Limits {
        request_line: *server.max_request_line as usize,
        head_bytes: server.max_header_bytes as usize,
        fields: server.max_headers,
        path: PathRules {
            merge_slashes: server.merge_slashes,
            parameters: server.path_parameters,
        },
    }
}
