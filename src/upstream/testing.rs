//! Upstreams for tests.

use std::{sync::Arc, time::Duration};

use super::{Failure, Lease, Seed, Settings, Tried, Upstream};

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

pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub fn with(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = settings();
    change(&mut settings);
    settings
}

pub fn only(upstream: &Upstream, index: usize) -> Tried {
    let mut tried = Tried::default();
    for (other, member) in upstream.members.load().iter().enumerate() {
        if other != index {
            tried.add(&member.backend);
        }
    }
    tried
}

pub async fn take_down(upstream: &Arc<Upstream>, index: usize) {
    for _ in 0..upstream.settings.max_fails {
        let mut lease = upstream.lease(None, &only(upstream, index)).await.unwrap();
        assert_eq!(lease.to_string(), upstream.status()[index].address);
        lease.failed(Failure::Connect);
    }
}
