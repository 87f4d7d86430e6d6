//! `GET /health`: whether this gateway serves.

use http::StatusCode;
use serde_json::json;

use super::{Admin, Reply};

pub(super) async fn health(admin: &Admin) -> Reply {
    let (status, word) = match admin.gateway.is_draining() {
        false => (StatusCode::OK, "serving"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    Reply {
        status,
        body: json!({ "status": word, "version": env!("CARGO_PKG_VERSION") }),
    }
}
