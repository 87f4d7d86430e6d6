//! Limits: that there are some where a route names them, and that what they say can be done.

use crate::config::problem::{Located, Problems};
use crate::config::spec::{Config, LimitSpec};
use crate::config::word::{ModeSpec, Quotas};
use crate::limit::quota::{Per, Quota, Unit};
use crate::limit::shared::Share;
use crate::word::unknown;

pub fn references(config: &Config, problems: &mut Problems) {
    let defined: Vec<&str> = config.limit_rules.keys().map(String::as_str).collect();
    for route in &config.routes {
        for (place, name) in route.limit.iter().enumerate() {
            if !config.limit_rules.contains_key(&name.value) {
                problems.note(name, unknown("limit", name, "defined", &defined));
            }
            let before = &route.limit[..place];
            if before.iter().any(|one| one.value == name.value) {
                problems.note(
                    name,
                    format!("limit {:?} is named twice; expected it once", name.value),
                );
            }
        }
    }
}

pub fn contradictions(config: &Config, problems: &mut Problems) {
    for (name, spec) in config
        .limit_rules
        .iter()
        .filter(|(_, spec)| spec.origin.sound)
    {
        if !is_name(name) {
            let message = format!(
                "limit {name:?} has a name that clients could not be told; expected up to 64 letters, digits, \"-\", \"_\" or \".\""
            );
            problems.note(spec, message);
        }
        let is_shared = spec.share.value == Share::AllGateways;
        if is_shared && config.redis.is_none() {
            let message = "limits of all gateways are counted in Redis, and there is no [redis]; expected one, or \"this-gateway\"";
            problems.note(&spec.share, message.to_owned());
        }
        if spec.exact.value && !is_shared {
            let message = "what each gateway counts by itself is exact; expected share = \"all-gateways\" with it";
            problems.note(&spec.exact, message.to_owned());
        }
        modes(spec, problems);
        let Some(quota) = &spec.quota else {
            if spec.in_flight.is_none() && spec.plans.is_none() {
                problems.note(
                    spec,
                    "limit without quota, in_flight and plans; expected one of them",
                );
            }
            continue;
        };
        few(quota, problems);
        affordable(spec, quota, problems);
    }
}

/// That there are quotas, and not too many.
pub(super) fn few(quota: &Located<Quotas>, problems: &mut Problems) {
    let entries = quota.value.0.len();
    if !(1..=8).contains(&entries) {
        let message = format!("quota has {entries} entries; expected 1 to 8");
        problems.note(quota, message);
    }
}

/// That quotas allow the dearest request of a limit.
pub(super) fn affordable(spec: &LimitSpec, quota: &Located<Quotas>, problems: &mut Problems) {
    let of_requests = quota
        .value
        .0
        .iter()
        .filter(|quota| quota.unit == Unit::Requests);
    let most = of_requests.map(most_at_once).min();
    let costs = spec.costs.iter().map(|special| special.cost);
    let dearest = costs.chain([spec.cost]).chain(spec.cache_hit_cost).max();
    if let (Some(most), Some(dearest)) = (most, dearest)
        && dearest > most
    {
        let message = format!(
            "a request may cost {dearest}, and this allows {most} at once: it would never be let in; expected a burst of at least {dearest}"
        );
        problems.note(quota, message);
    }
}

/// That a mode can do something.
fn modes(spec: &LimitSpec, problems: &mut Problems) {
    let quotas = spec.quota.iter().flat_map(|quotas| &quotas.value.0);
    let is_bucket = |quota: &Quota| matches!(quota.per, Per::Period { .. });
    if spec.mode.value == ModeSpec::Delay && !quotas.into_iter().any(is_bucket) {
        let message = "mode is \"delay\", but no quota has turns to wait for; expected one such as \"10 per second\"";
        problems.note(&spec.mode, message);
    }
    if spec.mode.value == ModeSpec::Delay && spec.share.value == Share::AllGateways {
        let message = "mode is \"delay\", and turns are of one gateway; expected another mode, or share = \"this-gateway\"";
        problems.note(&spec.mode, message);
    }
}

/// Clients read it in fields of their answers.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.len() <= 64 && name.bytes().all(is_plain)
}

fn most_at_once(quota: &Quota) -> u64 {
    match quota.per {
        Per::Period { burst, .. } => burst,
        Per::Calendar(_) => quota.amount,
    }
}

/// Limits that no route names, and what is said of modes that they do not have.
pub fn unused(config: &Config, warnings: &mut Problems) {
    for (name, spec) in &config.limit_rules {
        let named = config.routes.iter().flat_map(|route| &route.limit);
        if !named.into_iter().any(|one| one.value == *name) {
            warnings.note(spec, format!("no route names limit {name:?}"));
        }
        unused_mode(spec, warnings);
    }
}

fn unused_mode(spec: &LimitSpec, warnings: &mut Problems) {
    let mode = spec.mode.value;
    // What nobody has written stands where the limit stands.
    let is_written = |place| place != spec.origin.place;
    if mode != ModeSpec::Delay && is_written(spec.delay.origin.place) {
        let message = "delay says how requests wait, and mode lets none; expected mode = \"delay\"";
        warnings.note(&spec.delay, message);
    }
    if mode != ModeSpec::Tarpit && is_written(spec.tarpit.origin.place) {
        let message =
            "tarpit says how refusals wait, and mode lets none; expected mode = \"tarpit\"";
        warnings.note(&spec.tarpit, message);
    }
}
