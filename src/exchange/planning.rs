//! Who asks, by what can be verified of it, and which plan it has: before anything is taken of a limit.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;

use super::Exchange;
use super::limiting::asker;
use crate::moment::Moment;
use crate::plan::Route;
use crate::redis::Redis;

/// Finds out under which rules the request is counted and how urgent it is. Waits only where the plan of a key stands in
/// Redis and is not known.
pub async fn choose(exchange: &mut Exchange, fields: &HeaderMap, redis: Option<&Arc<Redis>>) {
    let Some(route) = exchange.route.clone() else {
        return;
    };
    if exchange.limiting.is_free {
        return;
    }
    if let Some(jwt) = exchange.plan.jwt.as_ref().filter(|_| route.reads_claims) {
        exchange.limiting.client.claims = jwt.claims(fields, SystemTime::now());
    }
    if route.planned.is_empty() {
        return;
    }
    Box::pin(choose_by_key(exchange, &route, fields, redis)).await;
}

async fn choose_by_key(
    exchange: &mut Exchange,
    route: &Route,
    fields: &HeaderMap,
    redis: Option<&Arc<Redis>>,
) {
    let mut rules = route.limits.clone();
    let mut priority = None;
    for (place, planned) in &route.planned {
        let asker = exchange.asked.as_ref().map(|asked| {
            let client = (exchange.client, &exchange.limiting.client);
            asker(asked, client, fields, &route.name)
        });
        let key = asker.and_then(|asker| planned.key.first_name(&asker));
        let choice = planned.of(key.as_deref(), redis.map(Arc::as_ref)).await;
        rules[*place] = choice.rule.clone();
        priority = priority.or(choice.priority);
    }
    exchange.limiting.rules = Some(rules);
    exchange.moment = Moment::now();
    exchange.priority = priority.unwrap_or(exchange.priority);
}
