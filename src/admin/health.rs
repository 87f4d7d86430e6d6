//! `GET /health`: whether this gateway serves, how its Redis does, and which upstreams keep requests waiting. It serves
//! without a Redis too: only draining is no success.

use http::StatusCode;
use serde_json::{Map, Value as Json, json};

use super::{Admin, Reply};
use crate::upstream::Load;

pub(super) async fn health(admin: &Admin) -> Reply {
    let (status, word) = match admin.gateway.is_draining() {
        false => (StatusCode::OK, "serving"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    let redis = admin.gateway.redis().map(|redis| redis.state().to_string());
    let plan = admin.gateway.plan();
    let held = plan.upstreams.iter().filter_map(|(name, upstream)| {
        let held = held(&upstream.load())?;
        Some((name.clone(), Json::from(held)))
    });
    let held: Map<String, Json> = held.collect();
    Reply::json(
        status,
        json!({
            "status": word,
            "version": env!("CARGO_PKG_VERSION"),
            "redis": redis,
            "held_upstreams": held,
        }),
    )
}

/// What keeps requests from an upstream now, if anything does.
fn held(load: &Load) -> Option<String> {
    let waiting: usize = load.waiting.iter().sum();
    if let Some(left) = load.paused {
        let left = left.as_secs_f64();
        return Some(format!("paused for {left:.1} s, {waiting} wait"));
    }
    (waiting > 0).then(|| match load.limit {
        Some(limit) => format!("{} of {limit} in flight, {waiting} wait", load.in_flight),
        None => format!("{} in flight, {waiting} wait", load.in_flight),
    })
}
