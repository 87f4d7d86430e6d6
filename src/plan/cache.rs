//! From `[cache.policy.NAME]` to the policy of a route.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Caching;
use super::kinds::{Kinds, OfType};
use crate::cache::counters::Counters;
use crate::cache::hits::RefreshAhead;
use crate::cache::policy::{Heuristic, Honoured};
use crate::cache::redis::Sharing;
use crate::cache::{Audience, Policy};
use crate::compression::media_type::MediaType;
use crate::config::Config;
use crate::config::problem::Located;
use crate::config::spec::{CachePolicySpec, RouteSpec};
use crate::headers::policy::FieldName;

/// `None` when there is no such policy, of which a problem tells already.
pub(super) fn caching(
    route: &RouteSpec,
    name: &str,
    config: &Config,
    counters: &BTreeMap<Box<str>, Arc<Counters>>,
) -> Option<Caching> {
    let policies = &config.cache.policies;
    let spec = policies.get(name)?;
    let policy = policy_of(spec);
    let kinds = kinds(route, spec, &policy, policies)?;
    // Stands for all that the policies say: a stored page is as good as the rules it was stored by.
    let mark = blake3::hash(format!("{policy:?}{kinds:?}").as_bytes()).to_hex();
    Some(Caching {
        name: name.into(),
        scope: format!("{}:{name}:{}", route.label(), &mark[..16]).into(),
        sharing: spec.redis.then_some(Sharing {
            compress_above: config.cache.compress_above,
            compression_level: i32::from(config.cache.compression_level),
            fill_lock: config.cache.fill_lock,
            largest_object: kinds.largest_object(&policy),
        }),
        kinds,
        counters: counters.get(&*route.label())?.clone(),
        policy: Arc::new(policy),
    })
}

/// `None` when one is missing or contradicts, of which a problem tells already.
fn kinds(
    route: &RouteSpec,
    own: &CachePolicySpec,
    policy: &Policy,
    policies: &BTreeMap<String, CachePolicySpec>,
) -> Option<Kinds> {
    let beside = |spec: &CachePolicySpec| policy_of(spec).on_route(policy);
    let of_type = |(media, name): &(MediaType, Located<String>)| {
        let spec = policies.get(&name.value)?;
        Some(OfType::new(media, name, beside(spec)))
    };
    let fitting = policies
        .iter()
        .filter(|(_, spec)| spec.contradicts(own).is_none());
    Some(Kinds {
        types: route
            .cache_types
            .0
            .iter()
            .map(of_type)
            .collect::<Option<_>>()?,
        named: fitting
            .map(|(name, spec)| (name.as_str().into(), beside(spec)))
            .collect(),
    })
}

fn policy_of(spec: &CachePolicySpec) -> Policy {
    let basis = match spec.audience {
        Audience::Anonymous => Policy::anonymous(),
        Audience::Rfc9111 => Policy::rfc9111(),
    };
    let mut query = basis.query;
    if let Some(ignore) = &spec.ignore_query {
        query.ignore.clone_from(ignore);
    }
    query.keep.clone_from(&spec.keep_query);
    query.sort = spec.sort_query;
    let percent = u32::from(spec.heuristic.percent());
    Policy {
        ttl: spec.ttl,
        ttl_by_status: spec
            .ttl_by_status
            .0
            .iter()
            .map(|(status, ttl)| (status.0, ttl.value))
            .collect(),
        tags: spec.tags.clone(),
        heuristic: (percent > 0).then_some(Heuristic {
            percent,
            longest: spec.heuristic_longest,
        }),
        stale_while_revalidate: spec.stale_while_revalidate,
        refresh_ahead: (!spec.refresh_ahead.is_zero()).then_some(RefreshAhead {
            before: spec.refresh_ahead,
            hits: spec.refresh_hits,
        }),
        stale_if_error: spec.stale_if_error,
        keep_for_validation: spec.keep_for_validation,
        query,
        key_headers: spec
            .key_headers
            .iter()
            .map(FieldName::name)
            .cloned()
            .collect(),
        key_cookies: spec.key_cookies.clone(),
        vary_cookies: spec.vary_cookies.clone(),
        cookies: basis
            .cookies
            .without_personal(&spec.impersonal_cookies)
            .with_personal(spec.personal_cookies.iter().cloned())
            .with_analytics(spec.analytics_cookies.iter().cloned()),
        honoured: match spec.honour_request {
            Some(true) => Honoured::ALL,
            Some(false) => Honoured::NONE,
            None => basis.honoured,
        },
        largest_object: spec.largest_object,
        variants: spec.variants,
        quarantine: spec.quarantine.unwrap_or(basis.quarantine),
        debug: spec.debug,
        ..basis
    }
}
