//! `POST /cache/purge`: an [`Order`], as JSON; 200 when no gateway gives any of it any more, 202 when
//! one may still.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use super::{Admin, Reply};
use crate::purge::{Order, Purged};

pub(super) async fn purge(admin: &Admin, body: Bytes) -> Reply {
    let order: Order = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => return Reply::error(StatusCode::BAD_REQUEST, error),
    };
    match order.purge(&admin.gateway.plan()) {
        Ok(purge) => reply(&admin.gateway.purge(&purge).await),
        Err(error) => Reply::error(StatusCode::BAD_REQUEST, error),
    }
}

fn reply(purged: &Purged) -> Reply {
    Reply {
        status: purged.status(),
        body: json!(purged),
    }
}
