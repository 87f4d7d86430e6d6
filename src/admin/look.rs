//! `POST /cache/look`: what the cache makes of a request, and what stands there for it now, in memory and in Redis; and how
//! its client stands with limits. Nothing is asked of an application, nothing is stored, and nothing is taken.

mod text;

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::limit::ToldStanding;
use super::{Admin, Reply};
use crate::cache::admission;
use crate::cache::entry::{Content, Entry};
use crate::cache::key::Key;
use crate::cache::memory::Found;
use crate::cache::range::Span;
use crate::cache::redis::Sought;
use crate::cache::reuse::{Reuse, reuse};
use crate::cache::tombstones::{Cause, Verdict};
use crate::exchange::imagined::Imagined;
use crate::explain;
use crate::gateway::Gateway;
use crate::limit::Rule;
use crate::limit::key::Combination;
use crate::moment::Moment;
use crate::plan::{Caching, Route};
use crate::refusal::Refusal;
use crate::target::Url;

/// The request that is meant.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LookOrder {
    #[serde(default = "get")]
    pub method: String,
    pub url: String,
    /// Each `NAME: VALUE`.
    #[serde(default)]
    pub headers: Vec<String>,
    /// The address that it comes from.
    #[serde(default)]
    pub client: Option<IpAddr>,
}

fn get() -> String {
    Method::GET.to_string()
}

/// What the gateway makes of it. Values of headers and cookies are not told again.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Looked {
    /// Why it would not be let in, or has no route.
    refused: Option<String>,
    route: Option<String>,
    /// How its client stands with the limits of the route, as far as that does not depend on an address that was not
    /// said.
    limits: Vec<ToldStanding>,
    /// `None`: nothing is stored on this route.
    cache: Option<Standing>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Standing {
    policy: String,
    audience: String,
    key: String,
    /// Why it would not be looked up.
    bypass: Option<String>,
    /// Why its key is in quarantine.
    quarantined: Option<String>,
    /// It is being asked of the application now.
    is_fetched: bool,
    memory: InTier,
    /// `None`: it is not shared with other gateways.
    redis: Option<InTier>,
}

/// What stands in one tier.
#[derive(Debug, Default, Serialize, Deserialize)]
struct InTier {
    /// Why there is no answer of it.
    away: Option<String>,
    /// What the request would find: `fresh`, `stale`, `stale_while_revalidate`, or why the application would be asked.
    finds: Option<String>,
    entries: Vec<Stored>,
}

/// One response. Times are in seconds from now.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    /// It is the one for this request, among those of its key.
    is_asked: bool,
    status: u16,
    content_type: Option<String>,
    /// Of the body.
    bytes: u64,
    /// Of memory, with head, key facts and encoded forms.
    weight: Option<u64>,
    age: f64,
    fresh_for: f64,
    stale_while_revalidate_for: f64,
    stale_if_error_for: f64,
    kept_for: f64,
    tags: Vec<String>,
    /// The request fields that it depends on.
    varies_by: Vec<String>,
    /// Which bytes of the whole it has.
    part: Option<String>,
    /// Times that this gateway gave it, since it was stored or renewed.
    hits: Option<u32>,
    /// The purge by which nobody is given it, or nobody without a question to the application.
    purged_by: Option<String>,
}

pub(super) async fn look(admin: &Admin, body: Bytes) -> Reply {
    let bad = |why: &dyn Display| Reply::error(StatusCode::BAD_REQUEST, why);
    let order: LookOrder = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => return bad(&error),
    };
    let Ok(method) = order.method.parse::<Method>() else {
        return bad(&"method: expected one of HTTP, such as GET");
    };
    let url: Url = match order.url.parse() {
        Ok(url) => url,
        Err(error) => return bad(&error),
    };
    let Ok(fields) = explain::fields(&order.headers) else {
        return bad(&"headers: expected each as \"NAME: VALUE\"");
    };
    let plan = admin.gateway.plan();
    let client = order
        .client
        .map(|peer| explain::client_of(&plan, peer, &fields));
    let looked = match Imagined::read(&plan, method, &url, fields) {
        Ok(mut imagined) => looked(&admin.gateway, &mut imagined, client).await,
        Err(malformed) => refused(&Refusal::Malformed(malformed)),
    };
    Reply::json(StatusCode::OK, json!(looked))
}

fn refused(refusal: &Refusal) -> Looked {
    let (status, reason) = (refusal.status().as_u16(), refusal.reason());
    Looked {
        refused: Some(format!("{status} {reason}")),
        ..Looked::default()
    }
}

async fn looked(gateway: &Gateway, imagined: &mut Imagined, client: Option<IpAddr>) -> Looked {
    let route = match imagined.route() {
        Ok(route) => route,
        Err(refusal) => return refused(&refusal),
    };
    imagined.choose(&route, client, gateway.redis()).await;
    Looked {
        refused: None,
        route: Some(route.name.to_string()),
        limits: limits(imagined, &route, client.is_some()),
        cache: match &route.cache {
            Some(caching) => Some(standing(gateway, imagined, caching).await),
            None => None,
        },
    }
}

fn limits(imagined: &Imagined, route: &Route, has_address: bool) -> Vec<ToldStanding> {
    let asker = imagined.asker(route);
    let counts = |rule: &&Arc<Rule>| {
        let by = rule.key.alternative(&asker);
        !rule.is_exempt(&asker) && (has_address || !by.is_some_and(Combination::has_address))
    };
    let rules = imagined.rules(route).iter().filter(counts);
    rules
        .map(|rule| ToldStanding::of(rule, rule.counted(&asker), Moment::now()))
        .collect()
}

async fn standing(gateway: &Gateway, imagined: &Imagined, caching: &Caching) -> Standing {
    let (described, policy) = (imagined.described(), &caching.policy);
    let request = described.request();
    let key = Key::of(&request, &caching.scope, policy);
    let directives = admission::may_look_up(&request, policy);
    let quarantined = gateway.guard().held(&key);
    let finds = |found: &Found| {
        let directives = directives.as_ref().ok().filter(|_| quarantined.is_none())?;
        Some(in_words(reuse(
            found.for_reuse(),
            directives,
            SystemTime::now(),
        )))
    };
    let memory = in_memory(gateway, &key, imagined, caching, &finds);
    let redis = in_redis(gateway, &key, imagined, caching, &finds).await;
    Standing {
        policy: caching.name.to_string(),
        audience: policy.audience.to_string(),
        key: key.to_string(),
        bypass: directives.as_ref().err().map(ToString::to_string),
        quarantined: quarantined.map(|why| why.to_string()),
        is_fetched: gateway.fills().has(key.digest()),
        memory,
        redis,
    }
}

fn in_memory(
    gateway: &Gateway,
    key: &Key,
    imagined: &Imagined,
    caching: &Caching,
    finds: &impl Fn(&Found) -> Option<String>,
) -> InTier {
    let Some(stands) = gateway.memory().look(key) else {
        return InTier {
            finds: finds(&Found::Nothing),
            ..InTier::default()
        };
    };
    let tombstones = gateway.memory().tombstones();
    let found = stands.find(imagined.fields(), &caching.policy);
    let entries = stands.variants().iter().map(|entry| {
        let is_asked = matches!(&found, Found::Entry(asked) if Arc::ptr_eq(asked, entry));
        Stored {
            weight: Some(entry.weight() as u64),
            hits: Some(entry.hits().given()),
            ..Stored::of(entry, is_asked, entry.purged_by(tombstones, key))
        }
    });
    let entries = entries.collect();
    let found = match found {
        Found::Entry(entry) => match entry.judge(tombstones, key) {
            Verdict::Good => Found::Entry(entry),
            Verdict::Stale(since) => {
                let stale = entry.stale_since(since, tombstones.epoch());
                Found::Entry(Arc::new(stale))
            }
            Verdict::Purged => Found::Nothing,
        },
        missing => missing,
    };
    InTier {
        away: None,
        finds: finds(&found),
        entries,
    }
}

async fn in_redis(
    gateway: &Gateway,
    key: &Key,
    imagined: &Imagined,
    caching: &Caching,
    finds: &impl Fn(&Found) -> Option<String>,
) -> Option<InTier> {
    let shared = gateway.shared_cache();
    let (shared, sharing) = (shared?, caching.sharing.as_ref()?);
    let sought = Sought {
        key,
        fields: imagined.fields(),
        policy: &caching.policy,
        sharing,
        tombstones: gateway.memory().tombstones(),
    };
    let looking = shared.look(&sought);
    Some(match looking.await {
        Err(away) => InTier {
            away: Some(away.to_string()),
            ..InTier::default()
        },
        Ok((found, stored)) => {
            let stored = stored.iter();
            let entries = stored.map(|(entry, cause)| Stored::of(entry, true, cause.clone()));
            InTier {
                away: None,
                finds: finds(&found),
                entries: entries.collect(),
            }
        }
    })
}

fn in_words(given: Reuse) -> String {
    match given {
        Reuse::Fresh => "fresh".to_owned(),
        Reuse::AcceptedStale => "stale".to_owned(),
        Reuse::WhileRevalidating => "stale_while_revalidate".to_owned(),
        Reuse::Ask(why) => why.to_string(),
        Reuse::NotCached => "not_cached".to_owned(),
    }
}

impl Stored {
    fn of(entry: &Entry, is_asked: bool, purged_by: Option<Cause>) -> Self {
        let now = SystemTime::now();
        let until = |end: SystemTime| seconds(end.duration_since(now).unwrap_or_default());
        let (facts, freshness) = (&entry.facts, &entry.facts.freshness);
        let content_type = entry.fields().get(CONTENT_TYPE).cloned();
        let part = entry.part().map(|part| {
            let Span { first, last } = part.span;
            format!("{first}-{last}/{}", part.complete)
        });
        Self {
            is_asked,
            status: facts.status.as_u16(),
            content_type: content_type
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
            bytes: match &entry.content {
                Content::Whole(body) => body.len() as u64,
                Content::Growing(_) => 0,
            },
            weight: None,
            age: seconds(freshness.age(now)),
            fresh_for: seconds(freshness.remaining(now)),
            stale_while_revalidate_for: until(freshness.while_revalidating_until()),
            stale_if_error_for: until(freshness.on_error_until()),
            kept_for: until(entry.kept_until()),
            tags: facts
                .tags()
                .iter()
                .map(|tag| tag.name().to_owned())
                .collect(),
            varies_by: facts.vary.names().iter().map(ToString::to_string).collect(),
            part,
            hits: None,
            purged_by: purged_by.map(|cause| cause.to_string()),
        }
    }
}

/// To the millisecond.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
