//! `POST /cache/warm`: begins a run over the `urls`, `sitemaps` and `popular` pages of the body, or without one
//! over those of `[cache.warm]`; 202 when it has begun, 409 while another one is under way. `GET /cache/warm`: how
//! far the last run has come.

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Admin, Reply};
use crate::plan::Visits;
use crate::target::{BadUrl, Url};
use crate::warm::UnderWay;

/// URLs in one order.
const MOST: usize = 10_000;

/// What to ask for; with nothing named, what the configuration says.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WarmOrder {
    pub urls: Vec<String>,
    pub sitemaps: Vec<String>,
    /// So many of the pages that are hit most.
    pub popular: usize,
}

impl WarmOrder {
    fn visits(&self) -> Result<Visits, BadUrl> {
        let parsed = |urls: &[String]| -> Result<Vec<Url>, BadUrl> {
            urls.iter().map(|url| url.parse()).collect()
        };
        Ok(Visits {
            urls: parsed(&self.urls)?,
            sitemaps: parsed(&self.sitemaps)?,
            popular: self.popular,
        })
    }
}

pub(super) async fn start(admin: &Admin, body: Bytes) -> Reply {
    let order = match body.is_empty() {
        true => Ok(WarmOrder::default()),
        false => serde_json::from_slice::<WarmOrder>(&body),
    };
    let order = match order {
        Ok(order) => order,
        Err(error) => return Reply::error(StatusCode::BAD_REQUEST, error),
    };
    let named = order.urls.len() + order.sitemaps.len();
    if named.saturating_add(order.popular) > MOST {
        let why = format!("more than {MOST} pages at once");
        return Reply::error(StatusCode::BAD_REQUEST, why);
    }
    let Some(warm_up) = admin.gateway.plan().warm.clone() else {
        let why = "no [cache.warm] says how pages are to be asked for; an empty one will do";
        return Reply::error(StatusCode::BAD_REQUEST, why);
    };
    let visits = match order.visits() {
        Ok(visits) if visits == Visits::default() => warm_up.visits.clone(),
        Ok(visits) => visits,
        Err(error) => return Reply::error(StatusCode::BAD_REQUEST, error),
    };
    match admin.warmer.start(visits, warm_up.manner.clone()) {
        Ok(run) => Reply::json(StatusCode::ACCEPTED, json!(*run.borrow())),
        Err(UnderWay) => Reply::error(StatusCode::CONFLICT, "a warm-up is under way"),
    }
}

pub(super) async fn progress(admin: &Admin) -> Reply {
    match admin.warmer.progress() {
        Some(progress) => Reply::json(StatusCode::OK, json!(progress)),
        None => Reply::error(StatusCode::NOT_FOUND, "no warm-up has begun"),
    }
}
