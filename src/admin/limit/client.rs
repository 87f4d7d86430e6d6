//! Which client an operator means, and the rules that count it or, by its plan, may.

use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::admin::{Admin, Reply};
use crate::limit::Rule;
use crate::limit::heavy::Known;
use crate::limit::key::name::Name;
use crate::plan::Plan;

/// Which client is meant.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ClientOrder {
    /// As operators write it.
    pub key: String,
    /// Of this limit only.
    #[serde(default)]
    pub limit: Option<String>,
}

/// A client as a rule counts it.
pub(super) type Found<'p> = (&'p Rule, Known);

/// The client that is meant, as each rule counts it that does or by its plan may, and its name.
pub(super) async fn clients<'p>(
    admin: &Admin,
    plan: &'p Plan,
    body: &[u8],
) -> Result<(Vec<Found<'p>>, Name), Reply> {
    let bad = |why: String| Reply::error(StatusCode::BAD_REQUEST, why);
    let order: ClientOrder =
        serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    let name: Name = order
        .key
        .parse()
        .map_err(|error| bad(format!("key: {error}")))?;
    let rules: Vec<&Rule> = match &order.limit {
        None => plan.rules.values().map(|rule| &**rule).collect(),
        Some(limit) => match plan.rules.get(&**limit) {
            Some(rule) => vec![rule],
            None => {
                let defined: Vec<_> = plan.rules.keys().map(|name| &**name).collect();
                let why = format!(
                    "there is no limit {limit:?}; defined: {}",
                    defined.join(", ")
                );
                return Err(Reply::error(StatusCode::NOT_FOUND, why));
            }
        },
    };
    let mut found: Vec<Found<'p>> = Vec::new();
    for rule in &rules {
        for rule in of_plans(admin, plan, rule, &name).await {
            let Some(client) = rule.named(&name) else {
                continue;
            };
            let is_same = |(other, same): &Found<'_>| {
                (&other.name, &other.plan, *same) == (&rule.name, &rule.plan, client)
            };
            if !found.iter().any(is_same) {
                found.push((rule, client));
            }
        }
    }
    if found.is_empty() {
        let why = match name {
            Name::Said(_) => {
                let keys: Vec<_> = rules.iter().map(|rule| counted_by(plan, rule)).collect();
                format!(
                    "no limit counts by such a key; there are: {}",
                    keys.join("; ")
                )
            }
            Name::Short(short) => format!("{short} is none of the heaviest of the last hour"),
        };
        return Err(Reply::error(StatusCode::NOT_FOUND, why));
    }
    Ok((found, name))
}

/// The rule itself, or those of the plans that a client may have.
async fn of_plans<'p>(admin: &Admin, plan: &'p Plan, rule: &'p Rule, name: &Name) -> Vec<&'p Rule> {
    let Some(planned) = plan.planned.get(&rule.name) else {
        return vec![rule];
    };
    let redis = admin.gateway.redis().map(Arc::as_ref);
    let choices = planned.of_named(name, redis).await.into_iter();
    choices.map(|choice| &*choice.rule).collect()
}

/// `api by header:x-api-key | client-ip, keys without a plan by client-ip`
fn counted_by(plan: &Plan, rule: &Rule) -> String {
    let Rule { name, key, .. } = rule;
    match plan.planned.get(name).filter(|planned| planned.key != *key) {
        Some(planned) => format!("{name} by {}, keys without a plan by {key}", planned.key),
        None => format!("{name} by {key}"),
    }
}
