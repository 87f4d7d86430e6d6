//! How the backends of an upstream are connected to. Equal settings are one transport, and share idle connections.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use pingora_core::upstreams::peer::HttpPeer;

use super::{Endpoint, Protocol, Settings, Timeouts, Tls, idle::Idle, peer};

/// Every transport in use by its id. pingora hands its connector a peer, and a peer carries a number and no value of ours.
static IN_USE: LazyLock<RwLock<HashMap<u64, Weak<Transport>>>> = LazyLock::new(RwLock::default);

/// How long a connection may have rested that takes a request which must not be sent twice: less than servers wait.
const BRIEF_REST: Duration = Duration::from_secs(1);

/// The settings of a kind of connection, and the peer that says so to pingora.
#[derive(Debug)]
pub struct Transport {
    /// The peer's group key: connections of different transports are never mixed.
    id: u64,
    settings: TransportSettings,
    /// Has everything but the address.
    prototype: HttpPeer,
    /// The same for requests that must not be sent twice, told apart by its group key.
    once: HttpPeer,
    /// Idle HTTP/1.1 connections.
    idle: Idle,
}

/// What must be equal for a connection to be shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportSettings {
    pub protocol: Protocol,
    pub tls: Option<Tls>,
    pub timeouts: Timeouts,
    pub keepalive: usize,
    pub keepalive_idle: Duration,
    pub max_response_head: usize,
}

impl Transport {
    pub(super) fn new(settings: TransportSettings) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let prototype = peer::prototype(id, &settings);
        let once = match settings.protocol {
            Protocol::H1 => peer::in_group(&prototype, NEXT.fetch_add(1, Ordering::Relaxed)),
            // A stream says whether it was processed, and connections are worth sharing.
            Protocol::H2 | Protocol::H2c => prototype.clone(),
        };
        let transport = Arc::new(Self {
            id,
            settings,
            prototype,
            once,
            idle: Idle::default(),
        });
        let mut in_use = IN_USE.write();
        in_use.insert(id, Arc::downgrade(&transport));
        in_use.insert(transport.once.group_key, Arc::downgrade(&transport));
        drop(in_use);
        transport
    }

    /// The transport that `peer` was made by, while anyone still uses it.
    pub(super) fn of(peer: &HttpPeer) -> Option<Arc<Self>> {
        IN_USE.read().get(&peer.group_key)?.upgrade()
    }

    pub fn settings(&self) -> &TransportSettings {
        &self.settings
    }

    pub(super) fn idle(&self) -> &Idle {
        &self.idle
    }

    /// How long a connection may have rested that takes a request of `peer`.
    pub(super) fn longest_rest(&self, peer: &HttpPeer) -> Duration {
        self.rest(peer.group_key == self.id)
    }

    /// How long a connection may have rested that takes a request. `again`: which may be sent twice.
    ///
    /// Servers close idle connections after a while, gunicorn after 2 s; a request that crosses such a close is lost, and
    /// nobody knows whether it took effect.
    pub(super) fn rest(&self, again: bool) -> Duration {
        let idle = self.settings.keepalive_idle;
        if again { idle } else { idle.min(BRIEF_REST) }
    }

    /// What pingora is to connect to.
    pub fn peer(&self, endpoint: &Endpoint) -> HttpPeer {
        peer::at(&self.prototype, endpoint)
    }

    /// The same for a request that must not be sent twice: never on a connection that has rested for long.
    pub fn peer_once(&self, endpoint: &Endpoint) -> HttpPeer {
        peer::at(&self.once, endpoint)
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        let mut in_use = IN_USE.write();
        in_use.remove(&self.id);
        in_use.remove(&self.once.group_key);
    }
}

impl Settings {
    /// The transport these settings ask for, with a route's timeouts in place of their own.
    pub(super) fn transport(&self, timeouts: &Timeouts) -> TransportSettings {
        TransportSettings {
            protocol: self.protocol,
            tls: self.tls.clone(),
            timeouts: timeouts.clone(),
            keepalive: self.keepalive,
            keepalive_idle: self.keepalive_idle,
            max_response_head: self.max_response_head,
        }
    }
}
