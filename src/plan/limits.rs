//! From `[limit.NAME]` to rules. What was used lives on by the name of the rule.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::Plan;
use super::plans::{self, Planned};
use crate::client::Networks;
use crate::config::Config;
use crate::config::spec::{LimitSpec, LimitsSpec};
use crate::config::word::ModeSpec;
use crate::limit::key::{Prefixes, Secret};
use crate::limit::local::Meter;
use crate::limit::plans::Keys;
use crate::limit::shared::store::Store;
use crate::limit::shared::{Share, Sharing};
use crate::limit::waiting::Bounds;
use crate::limit::{Concurrency, Cost, Exempt, Live, Mode, Rule, SpecialCost};

/// The secret that names are hashed with: that of the running plan, or else what is configured, or a new one.
pub(super) fn secret(config: &Config, running: Option<&Plan>) -> Secret {
    if let Some(running) = running {
        return running.limit_secret;
    }
    let bytes = match &config.limits.secret {
        Some(secret) => {
            let key = blake3::derive_key("tollgate names of limits", secret.text().as_bytes());
            Uuid::from_slice(&key[..16]).expect("16 bytes").into_bytes()
        }
        None => {
            // Of the 128 bits of each, 122 are random: together more than are needed.
            let two = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
            let key = blake3::hash(&two);
            Uuid::from_slice(&key.as_bytes()[..16])
                .expect("16 bytes")
                .into_bytes()
        }
    };
    Secret::new(bytes)
}

/// Redis as shared limits see it: that of the running plan, or one that is yet to be opened.
pub(super) fn store(config: &Config, secret: Secret, running: Option<&Plan>) -> Arc<Store> {
    let store = match running {
        Some(running) => running.limit_store.clone(),
        None => {
            let said = config.limits.secret.as_ref().map(|_| secret);
            Store::new(said, secret)
        }
    };
    let mut rules = config.limit_rules.values();
    if rules.any(|spec| spec.share.value == Share::AllGateways) {
        store.used();
    }
    store
}

/// By the names that operators gave.
pub(super) type Named<T> = BTreeMap<Box<str>, Arc<T>>;

/// The rules of limits by name, and those of the plans of their clients.
pub(super) fn rules(
    config: &Config,
    keys: &BTreeMap<Box<str>, Keys>,
    secret: Secret,
    store: &Arc<Store>,
    running: Option<&Plan>,
) -> (Named<Rule>, Named<Planned>) {
    let (mut rules, mut planned) = (BTreeMap::new(), BTreeMap::new());
    for (name, spec) in &config.limit_rules {
        let before = running.and_then(|running| running.rules.get(&**name));
        let make = |plan: Option<&str>, spec: &LimitSpec, before: Option<&Arc<Rule>>| {
            let stores = (secret, store);
            Arc::new(rule((name, plan), spec, &config.limits, stores, before))
        };
        let name: Box<str> = name.as_str().into();
        let rule = match (&spec.plans, keys.get(&name)) {
            (Some(plans), Some(keys)) => {
                let of_plans = plans::planned(config, spec, plans, keys, |plan, spec, other| {
                    make(Some(plan), spec, other.or(before))
                });
                let rule = of_plans.default.rule.clone();
                planned.insert(name.clone(), Arc::new(of_plans));
                rule
            }
            _ => make(None, spec, before),
        };
        rules.insert(name, rule);
    }
    (rules, planned)
}

/// Of a plan, it is called like that towards clients.
fn rule(
    (name, plan): (&str, Option<&str>),
    spec: &LimitSpec,
    shared: &LimitsSpec,
    (secret, store): (Secret, &Arc<Store>),
    before: Option<&Arc<Rule>>,
) -> Rule {
    let policy = plan.unwrap_or(name);
    let quotas = spec.quota.iter().flat_map(|quotas| &quotas.0);
    let meters: Box<[_]> = quotas
        .enumerate()
        .map(|(number, quota)| {
            let called = match number {
                0 => policy.to_owned(),
                more => format!("{policy}-{}", more + 1),
            };
            (Meter::new(*quota, &shared.time_zone), called.into())
        })
        .collect();
    let live = match before {
        Some(before) => before.live.clone(),
        None => Arc::new(Live::new(
            name,
            *spec.max_clients,
            meters.len(),
            Instant::now(),
        )),
    };
    Rule {
        name: name.into(),
        plan: plan.map(Into::into),
        key: spec.key.clone(),
        prefixes: Prefixes {
            v4: shared.ipv4_prefix as u8,
            v6: shared.ipv6_prefix as u8,
        },
        in_flight: spec.in_flight.map(|most| Concurrency {
            most,
            policy: match meters.is_empty() {
                true => policy.into(),
                false => format!("{policy}-in-flight").into(),
            },
        }),
        meters,
        cost: cost(spec),
        mode: mode(spec),
        status: spec.status,
        fields: spec.fields,
        exempt: Exempt {
            clients: Networks::new(spec.exempt.clients.iter().copied()),
            paths: spec.exempt.paths.clone().into(),
            fields: spec
                .exempt
                .headers
                .0
                .iter()
                .map(|(name, value)| (name.name().clone(), value.clone()))
                .collect(),
        },
        secret,
        sharing: (spec.share.value == Share::AllGateways).then(|| Sharing {
            store: store.clone(),
            exact: spec.exact.value,
            when_away: spec.when_store_is_away,
        }),
        live,
    }
}

fn mode(spec: &LimitSpec) -> Mode {
    match spec.mode.value {
        ModeSpec::Enforce => Mode::Enforce,
        ModeSpec::Shadow => Mode::Shadow,
        ModeSpec::Delay => {
            let delay = &spec.delay;
            Mode::Delay(Bounds {
                longest: delay.up_to,
                of_client: delay.waiting,
                in_all: delay.waiting_in_all,
            })
        }
        ModeSpec::Tarpit => {
            let tarpit = &spec.tarpit;
            Mode::Tarpit(Bounds {
                longest: tarpit.pause,
                of_client: tarpit.waiting,
                in_all: tarpit.waiting,
            })
        }
    }
}

fn cost(spec: &LimitSpec) -> Cost {
    let special = spec.costs.iter().map(|special| SpecialCost {
        method: special.method.clone(),
        path: special.path.clone(),
        tokens: special.cost,
    });
    Cost {
        each: spec.cost,
        special: special.collect(),
        cache_hit: spec.cache_hit_cost,
        said_in: spec.cost_header.as_ref().map(|field| field.name().clone()),
    }
}
