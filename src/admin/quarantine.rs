//! `GET /cache/quarantine`: the keys that are kept out of the cache, and why. `POST /cache/release`: lets
//! one of them in again, by its `id` or its `key`, or with `{}` all.

use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{Admin, Reply};
use crate::cache::guard::{Held, Release};

pub(super) async fn list(admin: &Admin) -> Reply {
    let guard = admin.gateway.guard();
    let held: Vec<_> = guard.list().iter().map(told).collect();
    Reply::json(
        StatusCode::OK,
        json!({ "quarantined": held, "since_start": guard.count() }),
    )
}

fn told(held: &Held) -> serde_json::Value {
    let since = held.since.duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({ "id": held.id.to_string(), "key": held.key, "reason": held.why.as_str(), "since": since.as_secs() })
}

/// The order of a release.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    id: Option<String>,
    key: Option<Box<str>>,
}

pub(super) async fn release(admin: &Admin, body: Bytes) -> Reply {
    match understood(&body) {
        Ok(which) => {
            let (count, told) = admin.gateway.purger().release(&which).await;
            let status = match told.is_everywhere() {
                true => StatusCode::OK,
                false => StatusCode::ACCEPTED,
            };
            let (acknowledged, missing) = (told.acknowledged, told.missing);
            Reply::json(
                status,
                json!({ "released": count, "acknowledged": acknowledged, "missing": missing }),
            )
        }
        Err(why) => Reply::error(StatusCode::BAD_REQUEST, why),
    }
}

fn understood(body: &[u8]) -> Result<Release, String> {
    let order: Order = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    match (order.id, order.key) {
        (None, None) => Ok(Release::All),
        (None, Some(key)) => Ok(Release::Key(key)),
        (Some(id), None) => match id.parse() {
            Ok(id) => Ok(Release::Id(id)),
            Err(why) => Err(format!("id {id:?}: {why}")),
        },
        (Some(_), Some(_)) => Err("it has an id and a key; expected one of them".to_owned()),
    }
}
