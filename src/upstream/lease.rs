//! The use of one backend by one attempt: counted from before it connects until it is dropped, whatever happens.

use std::{fmt, ops::Deref, sync::Arc};

use pingora_core::upstreams::peer::HttpPeer;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{Backend, Failure, Settings, Transport, queue::Live};

/// One attempt's claim on a [`Backend`].
///
/// Drop it before leasing for a retry: until then the failed attempt still counts as load.
#[must_use = "a lease counts only while it is held"]
pub struct Lease {
    backend: Arc<Backend>,
    settings: Arc<Settings>,
    transport: Arc<Transport>,
    live: Arc<Live>,
    /// True for the only backend there is: see [`Backend::standing`].
    lone: bool,
    /// True while this is the trial of a backend that was down and nothing has been said of it.
    trial: bool,
}

impl Lease {
    /// Counts from here; called with the turn held, so that loads seen by a pick never change upwards meanwhile.
    pub(super) fn new(
        backend: Arc<Backend>,
        settings: Arc<Settings>,
        transport: Arc<Transport>,
        live: Arc<Live>,
        lone: bool,
        trial: bool,
    ) -> Self {
        backend.take();
        if trial {
            backend.begin_trial(Instant::now());
        }
        Self {
            backend,
            settings,
            transport,
            live,
            lone,
            trial,
        }
    }

    /// The backend that is leased; outlives the lease.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// How to connect, with the upstream's own timeouts.
    pub(super) fn transport(&self) -> &Arc<Transport> {
        &self.transport
    }

    /// Where and how pingora is to connect, with the upstream's own timeouts.
    pub fn peer(&self) -> HttpPeer {
        self.transport.peer(self.backend.endpoint())
    }

    /// Where and how to connect, with a route's own timeouts: see [`super::Upstream::transport_with`].
    pub fn peer_over(&self, transport: &Transport) -> HttpPeer {
        transport.peer(self.backend.endpoint())
    }

    /// As [`Lease::peer`] or, with a route's own transport, [`Lease::peer_over`], for a request that must not be sent twice.
    pub fn peer_once(&self, transport: Option<&Transport>) -> HttpPeer {
        transport
            .unwrap_or(&self.transport)
            .peer_once(self.backend.endpoint())
    }

    /// The backend answered: a trial ends well. Says nothing of the rest of the response.
    pub fn succeeded(&mut self) {
        self.trial = false;
        if self.backend.succeeded(Instant::now(), &self.settings) {
            self.live.serve();
        }
    }

    /// The attempt failed by the backend's fault, which counts towards `max_fails`.
    ///
    /// Not to be called for what a client did. Ignored for the only backend there is.
    pub fn failed(&mut self, failure: Failure) {
        self.trial = false;
        if !self.lone {
            self.backend.failed(failure, Instant::now(), &self.settings);
        }
    }
}

impl Deref for Lease {
    type Target = Backend;

    fn deref(&self) -> &Backend {
        &self.backend
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.trial {
            self.backend.give_up_trial();
        }
        self.backend.give_back();
        self.live.serve();
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({:?})", self.backend)
    }
}

/// The backends one request has tried, so that a retry goes elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Tried(SmallVec<[u64; 4]>);

impl Tried {
    pub fn add(&mut self, backend: &Backend) {
        if !self.contains(backend) {
            self.0.push(backend.id());
        }
    }

    pub fn contains(&self, backend: &Backend) -> bool {
        self.0.contains(&backend.id())
    }

    /// True for a first attempt.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use crate::upstream::testing::{lease, loads, settings, upstream};

    #[tokio::test]
    async fn a_request_counts_before_it_connects_and_not_after_it_ends() {
        let upstream = upstream(settings(), 1);
        let lease = lease(&upstream).await;
        assert_eq!(lease.in_flight(), 1);
        drop(lease);
        assert_eq!(loads(&upstream), [0]);
    }

    #[tokio::test]
    async fn a_client_that_goes_away_gives_its_backend_back() {
        let upstream = upstream(settings(), 1);
        let request = tokio::spawn({
            let upstream = upstream.clone();
            async move {
                let _lease = lease(&upstream).await;
                std::future::pending::<()>().await;
            }
        });
        while loads(&upstream) != [1] {
            tokio::task::yield_now().await;
        }
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        assert_eq!(loads(&upstream), [0]);
    }

    #[tokio::test]
    async fn a_panic_gives_its_backend_back() {
        let upstream = upstream(settings(), 1);
        let lease = lease(&upstream).await;
        let panic = catch_unwind(AssertUnwindSafe(move || {
            let _lease = lease;
            panic!("a handler failed");
        }));
        assert!(panic.is_err());
        assert_eq!(loads(&upstream), [0]);
    }
}
