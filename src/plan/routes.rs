//! From `[[route]]` to what becomes of a request.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use super::cache::caching;
use super::compile::access;
use super::compression;
use super::limits::Named;
use super::plans::Planned;
use super::upstreams::timeouts;
use super::{Action, Forward, Respond, Retry, RetryOn, Rewrite, Route};
use crate::cache::counters::Counters;
use crate::compression::Compression;
use crate::config::Config;
use crate::config::spec::{ActionSpec, RetrySpec, RouteSpec, TimeoutOverridesSpec, UpstreamSpec};
use crate::config::word::RetryOnSpec;
use crate::headers::policy::HeaderPolicy;
use crate::limit::Rule;
use crate::route::{self, HostPattern};
use crate::upstream::{Timeouts, Upstream};

/// `None` when something it needs is missing, of which a problem tells already.
pub(super) fn route(
    spec: &RouteSpec,
    config: &Config,
    upstreams: &BTreeMap<String, Arc<Upstream>>,
    policies: &BTreeMap<String, Arc<HeaderPolicy>>,
    counters: &BTreeMap<Box<str>, Arc<Counters>>,
    (rules, planned): (&Named<Rule>, &Named<Planned>),
    compression: &Arc<Compression>,
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
    let cache = match &spec.cache {
        Some(name) => Some(Arc::new(caching(spec, name, config, counters)?)),
        None => None,
    };
    let limits = spec.limit.iter().map(|name| &*name.value);
    let reads_claims = |name| {
        config
            .limit_rules
            .get(name)
            .is_some_and(|limit| limit.key.claims().next().is_some())
    };
    let value = Route {
        cache,
        reads_claims: limits.clone().any(reads_claims),
        limits: limits
            .map(|name| rules.get(name).cloned())
            .collect::<Option<_>>()?,
        planned: spec
            .limit
            .iter()
            .enumerate()
            .filter_map(|(place, name)| Some((place, planned.get(&*name.value)?.clone())))
            .collect(),
        compression: compression::of_route(spec, config, compression),
        name: spec.label().into(),
        action,
        headers: policies.get(&spec.headers.value)?.clone(),
        max_body: max_body.unwrap_or(u64::MAX),
        access: access(config, Some(spec)),
        priority: *spec.priority,
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
