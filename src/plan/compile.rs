//! From what is written to what runs. `config` has checked every value; what is found here is
//! what only doing shows: a file that cannot be read, a certificate that cannot be used.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use super::{Action, Forward, Plan, Respond, Retry, RetryOn, Rewrite, Route};
use crate::client::TrustedProxies;
use crate::config::Config;
use crate::config::problem::{Problem, Problems};
use crate::config::spec::{
    ActionSpec, HeadersSpec, HealthSpec, RetrySpec, RouteSpec, TimeoutOverridesSpec, TimeoutsSpec,
    TlsSpec, UpstreamSpec,
};
use crate::config::word::{HealthKindSpec, RetryOnSpec};
use crate::headers::policy::{HeaderPolicy, PolicySettings};
use crate::headers::security::Preset;
use crate::http1::Limits;
use crate::refusal::Pages;
use crate::route::{self, HostPattern, Routes};
use crate::target::PathRules;
use crate::telemetry::LogSettings;
use crate::telemetry::access::AccessPolicy;
use crate::upstream::resolve::{NoResolver, System};
use crate::upstream::{
    Lookup, Probe, ProbeKind, Seed, Settings, Timeouts, Tls, TlsFiles, Upstream,
};

impl Plan {
    /// Compiles `config`, which stands in `file`; what lives in `running` lives on.
    pub fn compile(config: &Config, file: &str, running: Option<&Self>) -> Result<Self, Problems> {
        let mut problems = Problems::new(file);
        let upstreams = upstreams(config, running, &mut problems);
        let policies = policies(config);
        let pages = pages(config, &mut problems);
        let routes: Vec<_> = config
            .routes
            .iter()
            .filter_map(|spec| route(spec, config, &upstreams, &policies))
            .collect();
        let plan = Self {
            routes: Routes::new(routes),
            trusted: TrustedProxies::new(config.clients.trusted_proxies.iter().copied()),
            forwarded: config.clients.forwarded,
            limits: limits(config),
            drop_unsafe_fields: config.server.drop_unsafe_headers,
            pages: pages.unwrap_or_else(|| Pages::built_in(*config.errors.retry_after)),
            default_headers: policies["basic"].clone(),
            access: access(config, None),
            upstreams,
        };
        problems.none_or(plan)
    }

    /// Starts the probes and the name resolution of the upstreams, in place of those of the plan
    /// `before`. To be called once, in a runtime, when this plan comes into force.
    pub fn start(&self, before: Option<&Self>) {
        let lookup = lookup();
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

/// The system's resolver, with its files as they are now.
fn lookup() -> Arc<dyn Lookup> {
    match System::new() {
        Ok(system) => Arc::new(system),
        Err(error) => {
            let error = crate::telemetry::chain(&error);
            tracing::warn!(%error, "the system has no usable resolver; names of backends stay unresolved");
            Arc::new(NoResolver)
        }
    }
}

/// Says what differs between two configurations that a reload cannot change.
pub fn check_restart(running: &Config, wanted: &Config, file: &str) -> Result<(), Problems> {
    let mut problems = Problems::new(file);
    if running.server != wanted.server {
        problems.note(
            &wanted.server,
            "[server] differs from the running one, which needs a restart; `tollgate upgrade` restarts without refusing a connection",
        );
    }
    problems.none_or(())
}

fn upstreams(
    config: &Config,
    running: Option<&Plan>,
    problems: &mut Problems,
) -> BTreeMap<String, Arc<Upstream>> {
    let mut upstreams = BTreeMap::new();
    for (name, spec) in &config.upstreams {
        let tls = match spec.tls.as_ref().map(tls).transpose() {
            Ok(tls) => tls,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let seeds = spec.backends.iter().map(|backend| Seed {
            address: backend.address.value.clone(),
            weight: backend.weight,
            backup: backend.backup,
        });
        let carried = running.and_then(|plan| plan.upstreams.get(name));
        let upstream = Upstream::new(
            settings(name, spec, tls),
            seeds.collect(),
            carried.map(Arc::as_ref),
        );
        upstreams.insert(name.clone(), upstream);
    }
    upstreams
}

fn settings(name: &str, spec: &UpstreamSpec, tls: Option<Tls>) -> Settings {
    Settings {
        name: name.into(),
        balance: spec.balance.value.clone(),
        protocol: *spec.protocol,
        tls,
        max_fails: spec.max_fails,
        fail_timeout: spec.fail_timeout,
        keepalive: spec.keepalive,
        keepalive_idle: spec.keepalive_idle,
        max_connections: spec.max_connections as u32,
        queue: spec.queue,
        queue_timeout: spec.queue_timeout,
        slow_start: spec.slow_start,
        timeouts: timeouts(&spec.timeouts),
        health: spec.health.as_ref().map(probe),
        retry_percent: u32::from(spec.retry.budget.percent()),
        last_resort: spec.last_resort,
        resolve_every: spec.resolve_every,
        max_response_head: spec.max_response_head as usize,
    }
}

fn timeouts(spec: &TimeoutsSpec) -> Timeouts {
    Timeouts {
        connect: spec.connect,
        first_byte: spec.first_byte,
        read: spec.read,
        write: spec.write,
        websocket_idle: spec.websocket_idle,
    }
}

fn probe(spec: &HealthSpec) -> Probe {
    Probe {
        kind: match spec.kind {
            HealthKindSpec::Tcp => ProbeKind::Tcp,
            HealthKindSpec::Http => ProbeKind::Http {
                path: spec.path.as_str().to_owned(),
                host: Some(spec.host.clone()).filter(|host| !host.is_empty()),
                status: spec.status.ranges().to_vec(),
            },
        },
        every: spec.every,
        timeout: *spec.timeout,
        healthy_after: spec.healthy_after,
        unhealthy_after: spec.unhealthy_after,
    }
}

fn tls(spec: &TlsSpec) -> Result<Tls, Problem> {
    let identity = spec.certificate.as_ref().zip(spec.key.as_ref());
    Tls::load(&TlsFiles {
        sni: spec.sni.clone(),
        ca: spec.ca.as_ref().map(|ca| ca.path.as_path()),
        insecure: *spec.insecure,
        identity: identity.map(|(chain, key)| (chain.path.as_path(), key.path.as_path())),
    })
    .map_err(|error| Problem::at(spec, crate::telemetry::chain(&error)))
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
    let pages = std::fs::read_to_string(&page.path)
        .map_err(|error| error.to_string())
        .and_then(|html| {
            Pages::with_template(&html, retry_after).map_err(|error| error.to_string())
        });
    pages
        .map_err(|error| problems.note(page, format!("{}: {error}", page.written)))
        .ok()
}

/// `None` when something it needs is missing, of which a problem tells already.
fn route(
    spec: &RouteSpec,
    config: &Config,
    upstreams: &BTreeMap<String, Arc<Upstream>>,
    policies: &BTreeMap<String, Arc<HeaderPolicy>>,
) -> Option<route::Route<Arc<Route>>> {
    let mut max_body = spec.max_body;
    let action = match &spec.action {
        ActionSpec::Upstream(name) => {
            let written = config.upstreams.get(&name.value)?;
            let upstream = upstreams.get(&name.value)?;
            max_body = max_body.or(Some(written.max_body));
            Action::Forward(Arc::new(forward(spec, written, upstream)))
        }
        ActionSpec::Redirect(redirect) => Action::Redirect(redirect.status, redirect.to.clone()),
        ActionSpec::Respond(respond) => Action::Respond(Respond {
            status: respond.status,
            content_type: respond.content_type.clone(),
            body: Bytes::from(respond.body.clone()),
        }),
    };
    let value = Route {
        name: spec.label().into(),
        action,
        headers: policies.get(&spec.headers.value)?.clone(),
        max_body: max_body.unwrap_or(u64::MAX),
        access: access(config, Some(spec)),
    };
    Some(route::Route {
        host: spec.host.as_deref().cloned().unwrap_or(HostPattern::Any),
        path: spec.path.value.clone(),
        methods: spec.methods.clone().unwrap_or_default(),
        value: Arc::new(value),
    })
}

fn forward(spec: &RouteSpec, written: &UpstreamSpec, upstream: &Arc<Upstream>) -> Forward {
    let timeouts = overridden(timeouts(&written.timeouts), &spec.timeouts);
    let own = timeouts != upstream.settings().timeouts;
    Forward {
        transport: own.then(|| upstream.transport_with(&timeouts)),
        upstream: upstream.clone(),
        rewrite: match &spec.replace_prefix {
            Some(by) => Rewrite::Replace(spec.path.value.clone(), by.value.clone()),
            None if *spec.strip_prefix => Rewrite::Strip(spec.path.value.clone()),
            None => Rewrite::Keep,
        },
        host: written.host.clone(),
        retry: retry(&written.retry),
        websocket_idle: timeouts.websocket_idle,
    }
}

fn overridden(timeouts: Timeouts, spec: &TimeoutOverridesSpec) -> Timeouts {
    Timeouts {
        connect: spec.connect.unwrap_or(timeouts.connect),
        first_byte: spec.first_byte.unwrap_or(timeouts.first_byte),
        read: spec.read.unwrap_or(timeouts.read),
        write: spec.write.unwrap_or(timeouts.write),
        websocket_idle: spec.websocket_idle.unwrap_or(timeouts.websocket_idle),
    }
}

fn retry(spec: &RetrySpec) -> Retry {
    let names = |word: RetryOnSpec| spec.on.contains(&word);
    let statuses = spec.on.iter().filter_map(|word| word.status());
    Retry {
        attempts: spec.attempts,
        on: RetryOn {
            connect: names(RetryOnSpec::Connect),
            reset: names(RetryOnSpec::Reset),
            timeout: names(RetryOnSpec::Timeout),
            statuses: statuses
                .map(|status| StatusCode::from_u16(status).expect("a listed status is one"))
                .collect(),
        },
        non_idempotent: spec.non_idempotent,
    }
}

fn path_rules(config: &Config) -> PathRules {
    PathRules {
        merge_slashes: config.server.merge_slashes,
        parameters: config.server.path_parameters,
    }
}

fn access(config: &Config, route: Option<&RouteSpec>) -> AccessPolicy {
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
        path: path_rules(config),
    }
}
