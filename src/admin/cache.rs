//! `GET /cache`: how the requests of each route were answered, what memory holds, and how Redis does.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value as Json, json};

use super::{Admin, Reply};
use crate::cache::counters::{Counters, Lookups};
use crate::cache::redis::SharedCache;
use crate::cache::status::{Disposition, Tier};
use crate::redis::Redis;

/// What a hit ratio looks back on, in minutes.
pub(super) const MINUTES: [u64; 3] = [1, 5, 60];

pub(super) async fn cache(admin: &Admin) -> Reply {
    let gateway = &admin.gateway;
    let plan = gateway.plan();
    let routes = plan.counters.iter();
    let routes: Map<String, Json> = routes
        .map(|(name, counters)| (name.to_string(), told([&**counters])))
        .collect();
    let (entries, bytes) = gateway.memory().size();
    Reply::json(
        StatusCode::OK,
        json!({
            "routes": routes,
            "all": told(plan.counters.values().map(|counters| &**counters)),
            "memory": { "keys": entries, "bytes": bytes, "capacity": gateway.memory().capacity() },
            "quarantined": gateway.guard().list().len(),
            "redis": gateway.redis().map(|redis| asked(redis)),
            "shared": gateway.shared_cache().map(shared),
        }),
    )
}

/// In words: the tier of an answer that came from none is `origin`.
pub(super) fn tier(tier: Option<Tier>) -> &'static str {
    tier.map_or("origin", Tier::as_str)
}

/// The sum over some routes.
fn told<'a>(routes: impl IntoIterator<Item = &'a Counters> + Clone) -> Json {
    let mut answers: Vec<(Option<Tier>, Disposition, u64)> = Vec::new();
    let mut reasons = BTreeMap::<_, u64>::new();
    for counters in routes.clone() {
        for (tier, answer, count) in counters.answers() {
            let same = |one: &&mut (_, _, u64)| (one.0, one.1) == (tier, answer);
            match answers.iter_mut().find(same) {
                Some(one) => one.2 += count,
                None => answers.push((tier, answer, count)),
            }
        }
        for (reason, count) in counters.reasons() {
            *reasons.entry(reason).or_default() += count;
        }
    }
    let mut by_tier = Map::new();
    for (from, answer, count) in answers {
        by_tier.entry(tier(from)).or_insert_with(|| json!({}))[answer.as_str()] = json!(count);
    }
    let ratios = MINUTES.map(|minutes| {
        let mut lookups = Lookups::default();
        for counters in routes.clone() {
            lookups += counters.lookups_since(Duration::from_secs(60 * minutes));
        }
        (minutes.to_string(), json!(lookups.ratio()))
    });
    json!({
        "answers": by_tier,
        "reasons": reasons,
        "hit_ratio_by_minutes": Map::from_iter(ratios),
    })
}

fn asked(redis: &Redis) -> Json {
    let counts = redis.counts();
    let away = counts.away.iter();
    let away: Map<String, Json> = away
        .map(|(away, count)| (away.to_string(), json!(count)))
        .collect();
    let times = counts.times.iter();
    let times: Vec<Json> = times
        .map(|(up_to, count)| {
            let up_to = up_to.map(|up_to| up_to.as_secs_f64());
            json!({ "up_to_seconds": up_to, "answers": count })
        })
        .collect();
    json!({
        "state": redis.state().to_string(),
        "questions": counts.questions,
        "away": away,
        "times": times,
        "total_seconds": counts.total.as_secs_f64(),
    })
}

fn shared(shared: &SharedCache) -> Json {
    let counts = shared.counts();
    json!({
        "found": counts.found,
        "missed": counts.missed,
        "away": counts.away,
        "odd": counts.odd,
        "written": counts.written,
        "dropped": counts.dropped,
        "queued": { "writes": counts.queued, "bytes": counts.queued_bytes },
    })
}
