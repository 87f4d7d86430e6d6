//! Names that become backends: each is resolved again when its TTL ends. Knows nothing of load or health.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use thiserror::Error;
use tracing::{info, warn};

use super::{Address, Endpoint, Host, Upstream};

/// No answer is asked for again sooner: a TTL of 0 must not become a flood.
const SHORTEST_TTL: Duration = Duration::from_secs(1);

/// Answers for names; DNS, or a test.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// The addresses of one family; none is an answer too.
    async fn lookup(&self, name: &str, family: Family) -> Result<Answer, LookupError>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub addresses: Vec<IpAddr>,
    /// How long it holds.
    pub ttl: Duration,
}

#[derive(Debug, Error)]
pub enum LookupError {
    #[error("the name has no address")]
    NoAddress,
    #[error("the resolver failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A machine without a resolver: no name has an address.
pub struct NoResolver;

#[async_trait]
impl Lookup for NoResolver {
    async fn lookup(&self, _: &str, _: Family) -> Result<Answer, LookupError> {
        Err(LookupError::NoAddress)
    }
}

/// What is known of one name.
#[derive(Default)]
struct Known {
    v4: BTreeSet<IpAddr>,
    v6: BTreeSet<IpAddr>,
}

impl Known {
    /// Takes in both answers, and says how long they hold.
    ///
    /// A family whose lookup failed keeps its last addresses: half an outage of DNS must not drain half the backends.
    fn update(
        &mut self,
        v4: Result<Answer, LookupError>,
        v6: Result<Answer, LookupError>,
    ) -> Result<Duration, LookupError> {
        let found = |answer: &Result<Answer, LookupError>, last: &BTreeSet<IpAddr>| match answer {
            Ok(answer) => answer.addresses.iter().copied().collect(),
            Err(_) => last.clone(),
        };
        let next = Self {
            v4: found(&v4, &self.v4),
            v6: found(&v6, &self.v6),
        };
        let nothing = next.v4.is_empty() && next.v6.is_empty();
        if nothing || (v4.is_err() && v6.is_err()) {
            return Err(v4.err().or(v6.err()).unwrap_or(LookupError::NoAddress));
        }
        *self = next;
        let ttl = |answer: Result<Answer, LookupError>| {
            answer.map_or(Duration::ZERO, |answer| answer.ttl)
        };
        Ok(ttl(v4).min(ttl(v6)))
    }

    fn endpoints(&self, port: u16) -> Vec<Endpoint> {
        self.v4
            .iter()
            .chain(&self.v6)
            .map(|ip| Endpoint::Tcp(SocketAddr::new(*ip, port)))
            .collect()
    }

    fn of(endpoints: &[Endpoint]) -> Self {
        let addresses = endpoints.iter().filter_map(|endpoint| match endpoint {
            Endpoint::Tcp(address) => Some(address.ip()),
            Endpoint::Unix(_) => None,
        });
        let (v4, v6) = addresses.partition(IpAddr::is_ipv4);
        Self { v4, v6 }
    }
}

/// Resolves the name of seed `index` for as long as its upstream lives. Returns at once if it has none.
pub(super) async fn follow(upstream: Weak<Upstream>, index: usize, lookup: Arc<dyn Lookup>) {
    let Some(running) = upstream.upgrade() else {
        return;
    };
    let Address::Tcp {
        host: Host::Name(name),
        port,
    } = running.seeds[index].address.clone()
    else {
        return;
    };
    let mut known = Known::of(&running.endpoints_of(index));
    let longest = running.settings.resolve_every.max(SHORTEST_TTL);
    let upstream_name = running.settings.name.clone();
    // Addresses carried from the plan before are as good as a first answer.
    let mut awaited = known.v4.is_empty() && known.v6.is_empty();
    drop(running);

    let mut failures = 0_u32;
    loop {
        let (v4, v6) = tokio::join!(
            lookup.lookup(&name, Family::V4),
            lookup.lookup(&name, Family::V6)
        );
        let Some(running) = upstream.upgrade() else {
            return;
        };
        let pause = match known.update(v4, v6) {
            Ok(ttl) => {
                if failures > 0 {
                    info!(target: "upstream", upstream = %upstream_name, %name, "name resolves again");
                }
                failures = 0;
                running.resolved(index, known.endpoints(port));
                ttl.clamp(SHORTEST_TTL, longest)
            }
            Err(error) => {
                if failures == 0 {
                    let kept = known.v4.len() + known.v6.len();
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    warn!(
                        target: "upstream", upstream = %upstream_name, %name, why = %error, cause, kept,
                        "name does not resolve; its last addresses are kept"
                    );
                }
                failures = failures.saturating_add(1);
                (SHORTEST_TTL * 2_u32.saturating_pow(failures.min(8) - 1)).min(longest)
            }
        };
        if awaited {
            running.unresolved.send_modify(|seeds| *seeds -= 1);
            awaited = false;
        }
        drop(running);
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use parking_lot::Mutex;
    use tokio::time::advance;

    use super::*;
    use crate::upstream::{
        Priority, Settings, State, Tried, Unavailable,
        testing::{lease, loads, seeds, settings},
    };

    /// A DNS that says what the test sets, for 5 s.
    #[derive(Default)]
    struct Zone {
        names: Mutex<HashMap<(String, bool), Vec<IpAddr>>>,
    }

    impl Zone {
        fn set(&self, name: &str, addresses: &[&str]) {
            let all: Vec<IpAddr> = addresses
                .iter()
                .map(|address| address.parse().unwrap())
                .collect();
            let (v4, v6) = all.into_iter().partition(IpAddr::is_ipv4);
            let mut names = self.names.lock();
            names.insert((name.into(), true), v4);
            names.insert((name.into(), false), v6);
        }

        fn fail(&self, name: &str, v4: bool) {
            self.names.lock().remove(&(name.into(), v4));
        }
    }

    #[async_trait]
    impl Lookup for Zone {
        async fn lookup(&self, name: &str, family: Family) -> Result<Answer, LookupError> {
            let names = self.names.lock();
            match names.get(&(name.into(), family == Family::V4)) {
                Some(addresses) => Ok(Answer {
                    addresses: addresses.clone(),
                    ttl: Duration::from_secs(5),
                }),
                _ => Err(LookupError::NoAddress),
            }
        }
    }

    fn started(zone: &Arc<Zone>, settings: Settings) -> Arc<Upstream> {
        let upstream = Upstream::new(settings, seeds(&["app:8000"]), None);
        let lookup: Arc<dyn Lookup> = zone.clone();
        upstream.start(&lookup);
        upstream
    }

    fn addresses(upstream: &Upstream) -> Vec<String> {
        upstream
            .status()
            .into_iter()
            .map(|backend| backend.address)
            .collect()
    }

    /// Lets the lookups that are due happen.
    async fn pass(seconds: u64) {
        // The task's timer is set relative to when it ran: let it run before and after the clock moves.
        for step in [0, seconds] {
            advance(Duration::from_secs(step)).await;
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_address_of_a_name_is_a_backend() {
        let zone = Arc::new(Zone::default());
        zone.set("app", &["10.0.0.2", "10.0.0.1", "fd00::1"]);
        let upstream = started(&zone, settings());
        upstream.looked_up().await;
        assert_eq!(
            addresses(&upstream),
            ["10.0.0.1:8000", "10.0.0.2:8000", "[fd00::1]:8000"]
        );
        assert!(
            upstream
                .status()
                .iter()
                .all(|backend| backend.state == State::Up)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_scaled_is_followed_and_what_runs_there_may_finish() {
        let zone = Arc::new(Zone::default());
        zone.set("app", &["10.0.0.1"]);
        let upstream = started(
            &zone,
            Settings {
                slow_start: Duration::from_secs(60),
                ..settings()
            },
        );
        upstream.looked_up().await;
        let held = lease(&upstream).await;

        zone.set("app", &["10.0.0.2", "10.0.0.3"]);
        pass(5).await;

        assert_eq!(addresses(&upstream), ["10.0.0.2:8000", "10.0.0.3:8000"]);
        assert!(
            upstream
                .status()
                .iter()
                .all(|backend| matches!(backend.state, State::Rising(_)))
        );
        assert_eq!(
            (held.to_string(), held.in_flight()),
            ("10.0.0.1:8000".into(), 1)
        );

        zone.set("app", &["10.0.0.1"]);
        pass(5).await;
        assert_eq!(
            loads(&upstream),
            [1],
            "an address that comes back is the backend it was"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_dns_takes_no_backend_away() {
        let zone = Arc::new(Zone::default());
        zone.set("app", &["10.0.0.1", "fd00::1"]);
        let upstream = started(&zone, settings());
        upstream.looked_up().await;

        zone.fail("app", true);
        pass(5).await;
        assert_eq!(addresses(&upstream), ["10.0.0.1:8000", "[fd00::1]:8000"]);

        zone.fail("app", false);
        pass(5).await;
        assert_eq!(addresses(&upstream), ["10.0.0.1:8000", "[fd00::1]:8000"]);

        zone.set("app", &[]);
        pass(60).await;
        assert_eq!(addresses(&upstream), ["10.0.0.1:8000", "[fd00::1]:8000"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_unknown_at_start_is_asked_for_until_it_is_known() {
        let zone = Arc::new(Zone::default());
        let upstream = started(&zone, settings());
        upstream.looked_up().await;
        let refused = upstream
            .lease(Priority::Normal, None, &Tried::default())
            .await
            .unwrap_err();
        assert_eq!(refused, Unavailable::NoBackends);

        zone.set("app", &["10.0.0.1"]);
        pass(1).await;
        assert_eq!(addresses(&upstream), ["10.0.0.1:8000"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_has_the_addresses_before_it_asks() {
        let zone = Arc::new(Zone::default());
        zone.set("app", &["10.0.0.1"]);
        let old = started(&zone, settings());
        old.looked_up().await;
        let new = Upstream::new(settings(), seeds(&["app:8000"]), Some(&old));
        assert_eq!(addresses(&new), ["10.0.0.1:8000"]);
        new.looked_up().await;

        let lookup: Arc<dyn Lookup> = zone.clone();
        new.start(&lookup);
        zone.set("app", &["10.0.0.2"]);
        pass(30).await;
        assert_eq!(addresses(&new), ["10.0.0.2:8000"]);
        assert_eq!(
            addresses(&old),
            ["10.0.0.1:8000"],
            "the old plan no longer asks"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn lookups_end_with_their_upstream() {
        let zone = Arc::new(Zone::default());
        let upstream = started(&zone, settings());
        upstream.looked_up().await;
        assert!(Arc::strong_count(&zone) > 1);
        drop(upstream);
        pass(0).await;
        assert_eq!(Arc::strong_count(&zone), 1);
    }
}
