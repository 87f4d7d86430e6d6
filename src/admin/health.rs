//! `GET /health`: whether this gateway serves, and how its Redis does. It serves without one too:
//! only draining is no success.

use http::StatusCode;
use serde_json::json;

use super::{Admin, Reply};

pub(super) async fn health(admin: &Admin) -> Reply {
    let (status, word) = match admin.gateway.is_draining() {
        false => (StatusCode::OK, "serving"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    let redis = admin.gateway.redis().map(|redis| redis.state().to_string());
    Reply::json(
        status,
        json!({ "status": word, "version": env!("CARGO_PKG_VERSION"), "redis": redis }),
    )
}
