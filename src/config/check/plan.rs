//! Plans and verified identities: that limits which name them can have them.

use super::limit::{affordable, few};
use crate::config::problem::{Located, Positioned, Problems};
use crate::config::spec::{Config, JwtSpec, LimitSpec, PlansSpec};
use crate::config::word::KeySource;
use crate::word::unknown;

/// RFC 7518 3.2: as long as the hash.
const SHORTEST_SECRET: usize = 32;

pub fn references(config: &Config, problems: &mut Problems) {
    let defined: Vec<&str> = config.plans.keys().map(String::as_str).collect();
    for spec in config.limit_rules.values() {
        let named = spec.plans.iter().flat_map(named);
        for name in named.filter(|name| !config.plans.contains_key(&name.value)) {
            problems.note(name, unknown("plan", name, "defined", &defined));
        }
    }
}

fn named(plans: &PlansSpec) -> impl Iterator<Item = &Located<String>> {
    [&plans.default].into_iter().chain(&plans.none)
}

pub fn contradictions(config: &Config, problems: &mut Problems) {
    let limits = config.limit_rules.values();
    for spec in limits.filter(|spec| spec.origin.sound) {
        if let Some(plans) = spec.plans.as_ref().filter(|plans| plans.origin.sound) {
            planned(config, spec, plans, problems);
        }
        if spec.key.claims().next().is_some() && config.limits.jwt.is_none() {
            problems.note(
                spec,
                "its key has a claim, and nothing verifies tokens; expected [limits.jwt]",
            );
        }
        let mut listeners = config.server.listen.iter();
        if spec.key.reads_certificate() && listeners.all(|one| one.client_ca.is_none()) {
            problems.note(
                spec,
                "its key has client-certificate, and no listener asks for one; expected client_ca of a listener",
            );
        }
    }
    for plan in config.plans.values().filter(|plan| plan.origin.sound) {
        if plan.quota.is_none() && plan.in_flight.is_none() && plan.priority.is_none() {
            problems.note(
                plan,
                "plan without quota, in_flight and priority; expected one of them",
            );
        }
        if let Some(quota) = &plan.quota {
            few(quota, problems);
            let limits = config.limit_rules.values();
            let mut limits = limits.filter(|spec| spec.origin.sound && spec.plans.is_some());
            // Said once, whatever the number of limits.
            let before = problems.len();
            while problems.len() == before
                && let Some(spec) = limits.next()
            {
                affordable(spec, quota, problems);
            }
        }
    }
    if let Some(jwt) = config.limits.jwt.as_ref().filter(|jwt| jwt.origin.sound) {
        verifiable(jwt, problems);
    }
}

fn planned(config: &Config, spec: &LimitSpec, plans: &PlansSpec, problems: &mut Problems) {
    if let Some(quota) = &spec.quota {
        let message = "a limit with plans has their quotas; expected quota or plans";
        problems.note(quota, message);
    }
    if !spec.key.begins_with_name() {
        let message = format!(
            "plans are found by a key, and {:?} does not begin with one; expected header:NAME, cookie:NAME, query:NAME, claim:NAME or client-certificate first",
            spec.key.to_string()
        );
        problems.note(spec, message);
    }
    if matches!(plans.keys.value, KeySource::Redis(_)) && config.redis.is_none() {
        let message =
            "the plans of keys are in Redis, and there is no [redis]; expected one, or a file";
        problems.note(&plans.keys.place(), message);
    }
}

fn verifiable(jwt: &JwtSpec, problems: &mut Problems) {
    if jwt.keys.is_none() && jwt.secret.is_none() {
        problems.note(
            jwt,
            "[limits.jwt] without keys and secret; expected one of them",
        );
    }
    if let Some(secret) = &jwt.secret
        && secret.text().len() < SHORTEST_SECRET
    {
        let message = format!(
            "secret has {} bytes; expected {SHORTEST_SECRET} or more, or else it can be guessed",
            secret.text().len()
        );
        problems.note(secret, message);
    }
}

/// Plans that no limit could give to anybody.
pub fn unused(config: &Config, warnings: &mut Problems) {
    if config.limit_rules.values().any(|spec| spec.plans.is_some()) {
        return;
    }
    for (name, plan) in &config.plans {
        warnings.note(
            plan,
            format!("no limit has plans, so nobody has plan {name:?}"),
        );
    }
}
