//! Requests that wait, in a bound: how many of one client, and how many in all.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

use super::in_flight::{InFlight, Place};
use super::key::Digest;

/// How long a request may wait, and how many may at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub longest: Duration,
    /// At least 1.
    pub of_client: u32,
    /// At least 1.
    pub in_all: u32,
}

/// The requests of one rule that wait.
#[derive(Debug, Default)]
pub struct Waiting {
    clients: Arc<InFlight>,
    all: AtomicU32,
}

/// One request that waits: it counts until this is dropped.
#[derive(Debug)]
pub struct Seat {
    waiting: Arc<Waiting>,
    _of_client: Place,
}

/// What a request waits for; who gives it up drops it.
#[derive(Default)]
pub struct Wait {
    pub length: Duration,
    seats: SmallVec<[Seat; 1]>,
}

impl Waiting {
    /// A seat for one more request of `client`; `None` if as many wait as may.
    pub fn enter(self: &Arc<Self>, client: Digest, bounds: &Bounds) -> Option<Seat> {
        let place = self.clients.enter(client, bounds.of_client)?;
        let one_more = |count: u32| (count < bounds.in_all).then(|| count + 1);
        let counted = self
            .all
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        counted.ok().map(|_| Seat {
            waiting: self.clone(),
            _of_client: place,
        })
    }

    /// How many wait.
    pub fn count(&self) -> u32 {
        self.all.load(Ordering::Relaxed)
    }

    /// How many of this client wait.
    pub fn of(&self, client: Digest) -> u32 {
        self.clients.of(client)
    }
}

impl Wait {
    /// Waits so long too.
    pub fn add(&mut self, length: Duration, seat: Seat) {
        self.length = self.length.max(length);
        self.seats.push(seat);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.waiting.all.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Wait({:?})", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_wait_than_may_of_one_client_and_in_all() {
        let waiting = Arc::new(Waiting::default());
        let bounds = Bounds {
            longest: Duration::from_secs(1),
            of_client: 2,
            in_all: 3,
        };
        let enter = |client| waiting.enter(Digest([client, 0]), &bounds);
        let first = enter(1).unwrap();
        let _second = enter(1).unwrap();
        assert!(enter(1).is_none());
        let _third = enter(2).unwrap();
        assert!(enter(3).is_none());
        assert_eq!((waiting.count(), waiting.of(Digest([3, 0]))), (3, 0));
        drop(first);
        assert!(enter(1).is_some());
        assert_eq!(waiting.of(Digest([1, 0])), 1);
    }
}
