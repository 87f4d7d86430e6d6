//! Upstreams for tests.

use std::sync::Arc;

use super::{Lease, Seed, Settings, Tried, Upstream};

pub fn seeds(addresses: &[&str]) -> Vec<Seed> {
    addresses
        .iter()
        .map(|address| Seed::new(address.parse().unwrap()))
        .collect()
}

/// Two to four backends that nobody connects to.
pub fn upstream(settings: Settings, backends: usize) -> Arc<Upstream> {
    let addresses = [
        "192.0.2.1:80",
        "192.0.2.2:80",
        "192.0.2.3:80",
        "192.0.2.4:80",
    ];
    Upstream::new(settings, seeds(&addresses[..backends]), None)
}

pub fn settings() -> Settings {
    Settings::named("app")
}

pub async fn lease(upstream: &Arc<Upstream>) -> Lease {
    upstream.lease(None, &Tried::default()).await.unwrap()
}

/// Requests in flight per backend, in the order they were written.
pub fn loads(upstream: &Upstream) -> Vec<u32> {
    upstream
        .status()
        .iter()
        .map(|backend| backend.in_flight)
        .collect()
}
