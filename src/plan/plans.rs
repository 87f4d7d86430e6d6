//! The plans of clients: from `[plan.NAME]` and `plans` of a limit to a rule for each plan. All rules of one limit count
//! in the same buckets, so that who changes plan has used what it has used.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Plan;
use super::files;
use crate::config::Config;
use crate::config::problem::Problems;
use crate::config::spec::{LimitSpec, PlanSpec, PlansSpec};
use crate::config::word::KeySource;
use crate::limit::Rule;
use crate::limit::jwt::{Terms, Verifier};
use crate::limit::key::name::Name;
use crate::limit::key::{self, Key};
use crate::limit::plans::{Directory, Keys};
use crate::redis::Redis;
use crate::upstream::Priority;

/// The plans of one limit.
pub struct Planned {
    /// Its first part is what has a plan.
    pub key: Key,
    pub keys: Keys,
    /// That of the plan with the most quotas: its buckets are those of all.
    pub widest: Arc<Rule>,
    named: BTreeMap<Box<str>, Choice>,
    /// Of keys that have no plan.
    pub default: Choice,
    /// Of requests without a key.
    pub none: Choice,
}

/// What a plan is for one limit.
#[derive(Clone)]
pub struct Choice {
    pub rule: Arc<Rule>,
    /// In place of what the route says.
    pub priority: Option<Priority>,
}

impl Planned {
    /// What holds for who has this key, or has none. Waits only where its plan stands in Redis and is not known.
    pub async fn of(&self, key: Option<&[u8]>, redis: Option<&Redis>) -> &Choice {
        let Some(key) = key else {
            return &self.none;
        };
        let plan = self.keys.plan_of(key, redis).await;
        plan.and_then(|plan| self.named.get(&*plan))
            .unwrap_or(&self.default)
    }

    /// What may hold for a client that an operator names: it is known for a key; an address may be that of who has no key
    /// and of who has one without a plan; and a digest tells nothing of its plan.
    pub async fn of_named(&self, name: &Name, redis: Option<&Redis>) -> Vec<&Choice> {
        match name {
            Name::Short(_) => self.named.values().collect(),
            Name::Said(said) => match self.key.first_said(said) {
                Some(key) => vec![self.of(Some(key), redis).await],
                None => vec![&self.default, &self.none],
            },
        }
    }
}

/// Reads the files of keys; what is wrong with them is noted, each line by itself. What is known of hashes in Redis
/// lives on.
pub(super) fn keys(
    config: &Config,
    running: Option<&Plan>,
    problems: &mut Problems,
) -> BTreeMap<Box<str>, Keys> {
    let plans: Arc<[Arc<str>]> = config
        .plans
        .keys()
        .map(|name| name.as_str().into())
        .collect();
    let mut all = BTreeMap::new();
    for (name, spec) in &config.limit_rules {
        let Some(spec) = &spec.plans else {
            continue;
        };
        let keys = match &spec.keys.value {
            KeySource::File(file) => match Keys::read(&file.path, plans.clone()) {
                Ok(keys) => keys,
                Err(error) => {
                    let expected = "one key and the name of its plan a line";
                    files::refused(&spec.keys, file, &error, expected, problems);
                    continue;
                }
            },
            KeySource::Redis(hash) => Keys::Redis(directory(hash, running)),
        };
        all.insert(name.as_str().into(), keys);
    }
    all
}

fn directory(hash: &str, running: Option<&Plan>) -> Arc<Directory> {
    let before = running.iter().flat_map(|running| running.planned.values());
    let mut before = before.filter_map(|planned| match &planned.keys {
        Keys::Redis(directory) => Some(directory),
        Keys::File(_) => None,
    });
    before
        .find(|one| one.hash() == hash)
        .cloned()
        .unwrap_or_else(|| Arc::new(Directory::new(hash)))
}

/// A rule for each plan. `make` makes one that is called so towards clients, with the buckets of another one.
pub(super) fn planned(
    config: &Config,
    spec: &LimitSpec,
    plans: &PlansSpec,
    keys: &Keys,
    make: impl Fn(&str, &LimitSpec, Option<&Arc<Rule>>) -> Arc<Rule>,
) -> Planned {
    let quotas = |plan: &PlanSpec| plan.quota.as_ref().map_or(0, |quotas| quotas.0.len());
    // There is room for the buckets of the plan that has most.
    let (name, most) = config
        .plans
        .iter()
        .max_by_key(|(_, plan)| quotas(plan))
        .expect("a limit names a plan that is defined");
    let first = make(name, &under(spec, most, spec.key.vouched()), None);
    let choice = |name: &str, key| {
        let plan = &config.plans[name];
        Choice {
            rule: make(name, &under(spec, plan, key), Some(&first)),
            priority: plan.priority,
        }
    };
    // A name that a client has made up is not who it is; one that was verified is.
    let unknown = match spec.key.begins_with_claimed() {
        true => key::client_ip().clone(),
        false => spec.key.clone(),
    };
    let none = plans.none.as_ref().unwrap_or(&plans.default);
    Planned {
        key: spec.key.clone(),
        keys: keys.clone(),
        widest: first.clone(),
        named: config
            .plans
            .keys()
            .map(|name| (name.as_str().into(), choice(name, spec.key.vouched())))
            .collect(),
        default: choice(&plans.default, unknown),
        none: choice(none, spec.key.otherwise()),
    }
}

/// What a limit is for who has this plan.
fn under(spec: &LimitSpec, plan: &PlanSpec, key: Key) -> LimitSpec {
    LimitSpec {
        quota: plan.quota.clone(),
        in_flight: plan.in_flight.or(spec.in_flight),
        key,
        ..spec.clone()
    }
}

/// What verifies tokens, where there is such a thing; what is wrong with its file is noted.
pub(super) fn verifier(config: &Config, problems: &mut Problems) -> Option<Arc<Verifier>> {
    let spec = config.limits.jwt.as_ref()?;
    let claims = config
        .limit_rules
        .values()
        .flat_map(|spec| spec.key.claims());
    let mut claims: Vec<Box<str>> = claims.map(Into::into).collect();
    claims.sort();
    claims.dedup();
    let terms = Terms {
        issuer: spec.issuer.clone(),
        audience: spec.audience.clone(),
        leeway: spec.leeway,
        claims: claims.into(),
    };
    let path = spec.keys.as_ref().map(|file| &*file.path);
    match Verifier::new(path, spec.secret.as_deref(), terms) {
        Ok(verifier) => Some(Arc::new(verifier)),
        Err(error) => {
            let file = spec.keys.as_ref().expect("only a file can be wrong");
            files::refused(file, file, &error, "a JWK set of public keys", problems);
            None
        }
    }
}
