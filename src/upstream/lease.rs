//! The use of one backend by one attempt: counted from before it connects until it is dropped, whatever happens.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use pingora_core::upstreams::peer::HttpPeer;
use smallvec::SmallVec;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    Backend, Failure, Settings, Transport, Upstream, adaptive::Sample, pause::Pause, queue::Live,
};

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
    /// True while this is the first after a pause and nothing has been said of it.
    first: bool,
    began: Instant,
    /// Requests at the upstream when it began, itself included.
    in_flight: u32,
    /// It counts as one of them.
    counts: bool,
}

/// How a backend has received a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reception {
    /// It did what it was asked; from the request sent to the head of the response it took so long.
    Served { took: Duration },
    /// It answered that it could not, which says nothing of the time that work takes.
    Failed,
    /// The connection is a tunnel from here on.
    Tunnel,
    /// It was asked too often: all of the upstream wants to be left alone, for this time if it said so.
    TooMany { retry_after: Option<Duration> },
    /// This backend wants to be left alone.
    Away { retry_after: Duration },
}

/// What a pick has found out of the backend it chose.
pub(super) struct Terms {
    /// The only backend there is: see [`Backend::standing`].
    pub lone: bool,
    /// It is the trial of a backend that was down.
    pub trial: bool,
    /// It is the first after a pause.
    pub first: bool,
}

impl Lease {
    /// Counts from here; called with the turn held, so that loads seen by a pick never change upwards meanwhile.
    pub(super) fn new(upstream: &Upstream, backend: Arc<Backend>, terms: Terms) -> Self {
        let began = Instant::now();
        let live = upstream.live.clone();
        backend.take();
        if terms.trial {
            backend.begin_trial(began);
        }
        if terms.first {
            live.intake.pause.lock().begin_trial(began);
            backend.pause().lock().begin_trial(began);
        }
        Self {
            in_flight: live.intake.take(),
            backend,
            settings: upstream.settings.clone(),
            transport: upstream.transport.clone(),
            live,
            lone: terms.lone,
            trial: terms.trial,
            first: terms.first,
            began,
            counts: true,
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

    /// What the answer says of how much may go to this upstream.
    pub fn received(&mut self, reception: Reception) {
        match reception {
            Reception::Served { took } => {
                self.took(took);
                self.end_pause();
            }
            Reception::Failed => self.end_pause(),
            Reception::Tunnel => {
                self.uncount();
                self.end_pause();
            }
            Reception::TooMany { retry_after } => self.pause(true, retry_after),
            Reception::Away { retry_after } => self.pause(false, Some(retry_after)),
        }
    }

    /// How long the work has taken, or has gone on without an answer.
    pub fn took(&mut self, took: Duration) {
        let sample = Sample {
            began: self.began,
            took,
            in_flight: self.in_flight,
        };
        let intake = &self.live.intake;
        if intake.learn(&self.settings, sample, Instant::now()) {
            self.live.serve();
        }
    }

    /// Nobody goes to the whole upstream, or to this backend, for a while.
    fn pause(&mut self, whole: bool, said: Option<Duration>) {
        let Some(pace) = &self.settings.pace else {
            return;
        };
        let chance = self.live.turn.lock().order.chance();
        let (began, longest) = (self.began, pace.longest_pause);
        let asked = |pause: &mut Pause| pause.asked(said, began, longest, chance, Instant::now());
        let wait = match whole {
            true => asked(&mut self.live.intake.pause.lock()),
            false => asked(&mut self.backend.pause().lock()),
        };
        self.first = false;
        if let Some(wait) = wait {
            self.live.intake.count_pause();
            let (name, for_ms) = (&self.settings.name, wait.as_millis() as u64);
            match whole {
                true => {
                    warn!(target: "upstream", upstream = %name, for_ms, why = "429", "upstream is left alone")
                }
                false => {
                    warn!(target: "upstream", upstream = %name, backend = %self.backend, for_ms, why = "503 with Retry-After", "backend is left alone")
                }
            }
        }
    }

    /// It was answered, so whoever wanted to be left alone no longer does.
    fn end_pause(&mut self) {
        if self.settings.pace.is_none() {
            return;
        }
        self.first = false;
        let whole = self.live.intake.pause.lock().answered(self.began);
        let one = self.backend.pause().lock().answered(self.began);
        if whole || one {
            info!(target: "upstream", upstream = %self.settings.name, backend = %self.backend, "requests go on");
            self.live.serve();
        }
    }

    /// It is no work of the upstream any more.
    fn uncount(&mut self) {
        if std::mem::take(&mut self.counts) {
            self.live.intake.give_back();
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
        if self.first {
            self.live.intake.pause.lock().give_up_trial();
            self.backend.pause().lock().give_up_trial();
        }
        self.backend.give_back();
        self.uncount();
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
