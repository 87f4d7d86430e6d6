//! `GET /cache/quarantine`: the keys that are kept out of the cache, and why. `POST /cache/release`: lets
//! one of them in again, by its `key`, or with `{}` all.

use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{Admin, Reply};
use crate::cache::guard::Held;

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
    json!({ "key": held.key, "reason": held.why.as_str(), "since": since.as_secs() })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    key: Option<String>,
}

pub(super) async fn release(admin: &Admin, body: Bytes) -> Reply {
    match serde_json::from_slice::<Release>(&body) {
        Ok(Release { key }) => Reply::json(
            StatusCode::OK,
            json!({ "released": admin.gateway.guard().release(key.as_deref()) }),
        ),
        Err(error) => Reply::error(StatusCode::BAD_REQUEST, error),
    }
}
