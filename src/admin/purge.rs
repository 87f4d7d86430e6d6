//! `POST /cache/purge`: an [`Order`], as JSON; 200 when no gateway gives any of it any more, 202 when
//! one may still.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use super::{Admin, Reply};
use crate::cache::purger::Purged;
use crate::purge::Order;

pub(super) async fn purge(admin: &Admin, body: Bytes) -> Reply {
    let order: Order = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => return Reply::error(StatusCode::BAD_REQUEST, error),
    };
    match order.purge(&admin.gateway.plan()) {
        Ok(purge) => reply(&admin.gateway.purger().purge(purge).await),
        Err(error) => Reply::error(StatusCode::BAD_REQUEST, error),
    }
}

fn reply(purged: &Purged) -> Reply {
    let status = match purged.is_everywhere() {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    Reply::json(status, json!(purged))
}
