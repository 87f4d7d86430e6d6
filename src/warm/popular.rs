//! Which pages visitors ask for most: looked up in the memory of this gateway, remembered for all of them in Redis.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::cache::admission;
use crate::cache::key::Key;
use crate::cache::popular::{self, LONGEST};
use crate::exchange::imagined::Imagined;
use crate::gateway::Gateway;
use crate::plan::Plan;
use crate::target::Url;

/// Between two times at which they are remembered. The last time is when the gateway ends.
const EVERY: Duration = Duration::from_secs(5 * 60);

/// Remembers them from time to time, for as long as the process lives.
pub async fn keep(gateway: Arc<Gateway>) {
    loop {
        sleep(EVERY).await;
        remember(&gateway).await;
    }
}

/// Tells Redis of the most-hit pages, where the plan in force wants that.
pub async fn remember(gateway: &Arc<Gateway>) {
    let plan = gateway.plan();
    let most = plan.warm.as_ref().map_or(0, |warm| warm.visits.popular);
    let Some(redis) = gateway.redis().filter(|_| most > 0) else {
        return;
    };
    let looking = {
        let gateway = gateway.clone();
        spawn_blocking(move || {
            let page = |key: &Key| page(&gateway, &plan, key);
            popular::most_hit(gateway.memory(), most, page)
        })
    };
    let pages = looking.await.expect("looking does not panic");
    if let Err(away) = popular::tell(redis, &pages, most).await {
        tracing::debug!(%away, "the most-hit pages are not remembered now");
    }
}

/// The pages that were asked for most, the most-hit first; as many as `most`.
pub(super) async fn hottest(gateway: &Gateway, most: usize) -> Vec<Url> {
    let Some(redis) = gateway.redis().filter(|_| most > 0) else {
        return Vec::new();
    };
    match popular::hottest(redis, most).await {
        // What somebody else has written there is no reason to ask for anything.
        Ok(pages) => pages.iter().filter_map(|page| page.parse().ok()).collect(),
        Err(away) => {
            tracing::warn!(%away, "warm-up: Redis does not say which pages were asked for most");
            Vec::new()
        }
    }
}

/// The URL by which a GET of anybody without a field of his own is given what stands under this key, if there is
/// one: only of such pages is anything remembered.
fn page(gateway: &Gateway, plan: &Arc<Plan>, key: &Key) -> Option<String> {
    let page = key.page();
    let url: Url = page.parse().ok().filter(|_| page.len() <= LONGEST)?;
    let imagined = Imagined::read(plan, Method::GET, &url, HeaderMap::new()).ok()?;
    let caching = imagined.route().ok()?.cache.clone()?;
    let described = imagined.described();
    let (request, policy) = (described.request(), &caching.policy);
    let is_for_anybody = policy.is_anonymous()
        && admission::may_look_up(&request, policy).is_ok()
        && Key::of(&request, &caching.scope, policy) == *key
        && gateway.guard().held(key).is_none();
    is_for_anybody.then_some(page)
}
