//! How the backends of an upstream are connected to. Equal settings are one transport, and share idle connections.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use pingora_core::upstreams::peer::HttpPeer;

use super::{Endpoint, Protocol, Settings, Timeouts, Tls, peer};

/// Every transport in use by its id. pingora hands its connector a peer, and a peer carries a number and no value of ours.
static IN_USE: LazyLock<RwLock<HashMap<u64, Weak<Transport>>>> = LazyLock::new(RwLock::default);

/// The settings of a kind of connection, and the peer that says so to pingora.
#[derive(Debug)]
pub struct Transport {
    /// The peer's group key: connections of different transports are never mixed.
    id: u64,
    settings: TransportSettings,
    /// Has everything but the address.
    prototype: HttpPeer,
    /// Idle HTTP/1.1 connections per endpoint, while there is any connection to it.
    parked: Mutex<HashMap<Endpoint, Weak<AtomicUsize>>>,
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
        let transport = Arc::new(Self {
            id,
            settings,
            prototype,
            parked: Mutex::default(),
        });
        IN_USE.write().insert(id, Arc::downgrade(&transport));
        transport
    }

    /// The transport that `peer` was made by, while anyone still uses it.
    pub(super) fn of(peer: &HttpPeer) -> Option<Arc<Self>> {
        IN_USE.read().get(&peer.group_key)?.upgrade()
    }

    pub fn settings(&self) -> &TransportSettings {
        &self.settings
    }

    /// The count of idle connections to `endpoint`, shared by all connections to it.
    pub(super) fn parked(&self, endpoint: &Endpoint) -> Arc<AtomicUsize> {
        let mut parked = self.parked.lock();
        if let Some(count) = parked.get(endpoint).and_then(Weak::upgrade) {
            return count;
        }
        parked.retain(|_, count| count.strong_count() > 0);
        let count = Arc::default();
        parked.insert(endpoint.clone(), Arc::downgrade(&count));
        count
    }

    /// What pingora is to connect to.
    pub fn peer(&self, endpoint: &Endpoint) -> HttpPeer {
        peer::at(&self.prototype, endpoint)
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        IN_USE.write().remove(&self.id);
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
