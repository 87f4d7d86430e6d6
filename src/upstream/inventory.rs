//! The backends and transports that exist now, so that the next plan finds the ones it names again.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use super::{Backend, Endpoint, Transport, transport::TransportSettings};

/// What is still used by someone: a plan, a lease, a tunnel.
#[derive(Default)]
pub(super) struct Inventory {
    backends: HashMap<Endpoint, Weak<Backend>>,
    transports: Vec<Weak<Transport>>,
}

impl Inventory {
    /// The backend at `endpoint`, and whether it had to be made.
    pub fn backend(&mut self, endpoint: &Endpoint) -> (Arc<Backend>, bool) {
        if let Some(backend) = self.backends.get(endpoint).and_then(Weak::upgrade) {
            return (backend, false);
        }
        self.backends
            .retain(|_, backend| backend.strong_count() > 0);
        let backend = Arc::new(Backend::new(endpoint.clone()));
        self.backends
            .insert(endpoint.clone(), Arc::downgrade(&backend));
        (backend, true)
    }

    /// The transport with these settings: equal settings share their idle connections.
    pub fn transport(&mut self, settings: TransportSettings) -> Arc<Transport> {
        self.transports
            .retain(|transport| transport.strong_count() > 0);
        if let Some(transport) = self
            .transports
            .iter()
            .filter_map(Weak::upgrade)
            .find(|transport| *transport.settings() == settings)
        {
            return transport;
        }
        let transport = Transport::new(settings);
        self.transports.push(Arc::downgrade(&transport));
        transport
    }
}
