//! Counts the open connections, in all and by client, and refuses the one too many.
//! Knows addresses and numbers; knows nothing of sockets, TLS or who is trusted.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Locks are held for one map operation; sixty-four of them keep a burst of accepts on many
/// threads from queueing on each other.
const SHARDS: usize = 64;

/// Why a connection is closed before a byte of it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `server.max_connections` are open.
    #[error("the gateway has as many connections as max_connections allows")]
    Total,
    /// `server.max_connections_per_client` are open from this address.
    #[error("the client has as many connections as max_connections_per_client allows")]
    Client,
}

impl Refused {
    /// Stable snake_case code for the log and the metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Refused::Total => "too_many_connections",
            Refused::Client => "too_many_connections_of_client",
        }
    }
}

/// The open connections of the process.
///
/// Memory is bounded by the connections that are open: an address without one takes no room.
#[derive(Clone, Debug)]
pub struct ConnectionGuards {
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Counts {
    total: AtomicUsize,
    max_total: AtomicUsize,
    max_per_client: AtomicU32,
    by_client: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
    hasher: RandomState,
}

impl ConnectionGuards {
    /// Both limits are numbers of connections; 0 refuses everything it applies to.
    pub fn new(max_total: usize, max_per_client: u32) -> Self {
        ConnectionGuards {
            counts: Arc::new(Counts {
                total: AtomicUsize::new(0),
                max_total: AtomicUsize::new(max_total),
                max_per_client: AtomicU32::new(max_per_client),
                by_client: std::array::from_fn(|_| Mutex::default()),
                hasher: RandomState::new(),
            }),
        }
    }

    /// Changes the limits for connections to come. Those that are open stay, even above the new limits.
    pub fn set_limits(&self, max_total: usize, max_per_client: u32) {
        self.counts.max_total.store(max_total, Ordering::Relaxed);
        self.counts
            .max_per_client
            .store(max_per_client, Ordering::Relaxed);
    }

    /// Counts one more connection until the guard is dropped, or says which limit it is over.
    ///
    /// An `exempt` client (a trusted proxy, which speaks for many) counts in the total only.
    /// An IPv4-mapped IPv6 address is the same client as its IPv4 address.
    pub fn admit(&self, client: IpAddr, exempt: bool) -> Result<ConnectionGuard, Refused> {
        let admitted = self.admit_total()?;
        if exempt {
            return Ok(admitted);
        }
        admitted.into_client(client)
    }

    /// Counts a connection in the total only, for one whose client is not known yet: before its
    /// PROXY header is read, and on Unix sockets. [`ConnectionGuard::into_client`] counts the rest.
    pub fn admit_total(&self) -> Result<ConnectionGuard, Refused> {
        let limit = self.counts.max_total.load(Ordering::Relaxed);
        // Reserving by compare-and-swap: the count never exceeds the limit, not even for a moment.
        self.counts
            .total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < limit).then_some(open + 1)
            })
            .map_err(|_| Refused::Total)?;
        Ok(ConnectionGuard {
            counts: self.counts.clone(),
            client: None,
        })
    }

    /// Connections open now, exempt ones included.
    pub fn total(&self) -> usize {
        self.counts.total.load(Ordering::Relaxed)
    }

    /// Connections open now from this client, exempt ones excluded.
    pub fn of_client(&self, client: IpAddr) -> u32 {
        let client = client.to_canonical();
        let shard = self.counts.shard(&client).lock();
        shard.get(&client).copied().unwrap_or(0)
    }

    /// Different clients with a counted connection open now.
    pub fn clients(&self) -> usize {
        let shards = self.counts.by_client.iter();
        shards.map(|shard| shard.lock().len()).sum()
    }
}

impl Counts {
    fn shard(&self, client: &IpAddr) -> &Mutex<HashMap<IpAddr, u32>> {
        // Keyed at random: addresses chosen by an attacker do not all fall into one shard.
        &self.by_client[self.hasher.hash_one(client) as usize % SHARDS]
    }
}

/// One open connection. Counts while it lives.
#[derive(Debug)]
#[must_use = "a connection is counted only while its guard lives"]
pub struct ConnectionGuard {
    counts: Arc<Counts>,
    client: Option<IpAddr>,
}

impl ConnectionGuard {
    /// Counts the connection for `client` too, in place of the client it was counted for, if any.
    ///
    /// When refused nothing of it is counted any longer.
    pub fn into_client(mut self, client: IpAddr) -> Result<Self, Refused> {
        self.leave_client();
        let client = client.to_canonical();
        let limit = self.counts.max_per_client.load(Ordering::Relaxed);
        {
            let mut shard = self.counts.shard(&client).lock();
            let open = shard.get(&client).copied().unwrap_or(0);
            if open >= limit {
                drop(shard);
                return Err(Refused::Client);
            }
            shard.insert(client, open + 1);
        }
        self.client = Some(client);
        Ok(self)
    }

    fn leave_client(&mut self) {
        let Some(client) = self.client.take() else {
            return;
        };
        let mut shard = self.counts.shard(&client).lock();
        let open = shard
            .get_mut(&client)
            .expect("a counted client stays in the map until its last guard drops");
        *open -= 1;
        if *open == 0 {
            shard.remove(&client);
            // After a flood the tables would otherwise stay as large as the flood was.
            if shard.capacity() > 1024 && shard.len() < shard.capacity() / 8 {
                shard.shrink_to_fit();
            }
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.leave_client();
        self.counts.total.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_connection_over_the_total_is_refused_until_another_closes() {
        let guards = ConnectionGuards::new(2, 10);
        let first = guards.admit(ip("192.0.2.1"), false).unwrap();
        let _second = guards.admit(ip("192.0.2.2"), true).unwrap();
        let third = guards.admit(ip("192.0.2.3"), false);
        assert_eq!(third.unwrap_err(), Refused::Total);
        assert_eq!(guards.of_client(ip("192.0.2.3")), 0);
        drop(first);
        assert!(guards.admit(ip("192.0.2.3"), false).is_ok());
    }

    #[test]
    fn a_client_over_its_own_limit_takes_no_place_in_the_total() {
        let guards = ConnectionGuards::new(10, 1);
        let _open = guards.admit(ip("192.0.2.1"), false).unwrap();
        let refused = guards.admit(ip("192.0.2.1"), false);
        assert_eq!(refused.unwrap_err(), Refused::Client);
        assert_eq!(guards.total(), 1);
        assert!(guards.admit(ip("192.0.2.2"), false).is_ok());
    }

    #[test]
    fn a_mapped_address_is_the_same_client() {
        let guards = ConnectionGuards::new(10, 1);
        let _open = guards.admit(ip("192.0.2.1"), false).unwrap();
        let refused = guards.admit(ip("::ffff:192.0.2.1"), false);
        assert_eq!(refused.unwrap_err(), Refused::Client);
    }

    #[test]
    fn a_trusted_proxy_is_counted_in_the_total_only() {
        let guards = ConnectionGuards::new(10, 1);
        let _open: Vec<_> = (0..5)
            .map(|_| guards.admit(ip("10.0.0.1"), true).unwrap())
            .collect();
        assert_eq!((guards.total(), guards.clients()), (5, 0));
    }

    #[test]
    fn limits_changed_by_a_reload_apply_to_the_next_connection() {
        let guards = ConnectionGuards::new(1, 1);
        let _open = guards.admit(ip("192.0.2.1"), false).unwrap();
        guards.set_limits(3, 2);
        let _second = guards.admit(ip("192.0.2.1"), false).unwrap();
        guards.set_limits(1, 1);
        assert_eq!(guards.total(), 2);
        let refused = guards.admit(ip("192.0.2.9"), false);
        assert_eq!(refused.unwrap_err(), Refused::Total);
    }

    #[test]
    fn a_proxied_connection_moves_to_the_client_its_header_names() {
        let guards = ConnectionGuards::new(10, 1);
        let early = guards.admit_total().unwrap();
        let known = early.into_client(ip("192.0.2.7")).unwrap();
        assert_eq!((guards.total(), guards.of_client(ip("192.0.2.7"))), (1, 1));
        drop(known);
        assert_eq!((guards.total(), guards.clients()), (0, 0));
    }

    #[test]
    fn threads_that_race_for_the_last_places_never_exceed_the_limit() {
        let guards = ConnectionGuards::new(50, 7);
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let guards = guards.clone();
                scope.spawn(move || {
                    for round in 0..500u16 {
                        let client = IpAddr::from([192, 0, 2, (round % 9) as u8]);
                        let open = guards.admit(client, thread == 0);
                        assert!(guards.total() <= 50 && guards.of_client(client) <= 7);
                        drop(open);
                    }
                });
            }
        });
        assert_eq!((guards.total(), guards.clients()), (0, 0));
    }

    proptest! {
        #[test]
        fn guards_alive_equal_what_is_counted(
            steps in prop::collection::vec((0u8..6, any::<bool>(), any::<bool>(), any::<prop::sample::Index>()), 0..200),
        ) {
            let guards = ConnectionGuards::new(20, 5);
            let mut alive: Vec<(IpAddr, bool, ConnectionGuard)> = Vec::new();
            for (host, exempt, close, index) in steps {
                let client = IpAddr::from([192, 0, 2, host]);
                if close && !alive.is_empty() {
                    drop(alive.swap_remove(index.index(alive.len())));
                } else if let Ok(guard) = guards.admit(client, exempt) {
                    alive.push((client, exempt, guard));
                }
                prop_assert_eq!(guards.total(), alive.len());
                prop_assert!(alive.len() <= 20);
                let counted = alive.iter().filter(|(ip, exempt, _)| *ip == client && !exempt).count();
                prop_assert_eq!(guards.of_client(client) as usize, counted);
                prop_assert!(counted <= 5);
            }
            drop(alive);
            prop_assert_eq!((guards.total(), guards.clients()), (0, 0));
        }
    }
}
