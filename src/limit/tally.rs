//! How the requests that a rule looked at came out.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start of the process; a reload keeps them.
#[derive(Debug, Default)]
pub struct Tally {
    admitted: AtomicU64,
    delayed: AtomicU64,
    refused: AtomicU64,
    tarpitted: AtomicU64,
    shadowed: AtomicU64,
    exempted: AtomicU64,
}

/// What a tally shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// At once.
    pub admitted: u64,
    /// Admitted, each when it was its turn.
    pub delayed: u64,
    /// At once.
    pub refused: u64,
    /// Refused after a pause.
    pub tarpitted: u64,
    /// Would have been refused.
    pub shadowed: u64,
    pub exempted: u64,
}

impl Counted {
    /// Requests that were judged.
    pub fn asked(&self) -> u64 {
        self.admitted + self.delayed + self.held_back()
    }

    /// Requests that were one too many.
    pub fn held_back(&self) -> u64 {
        self.refused + self.tarpitted + self.shadowed
    }
}

impl Tally {
    pub fn admit(&self) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
    }

    pub fn delay(&self) {
        self.delayed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn tarpit(&self) {
        self.tarpitted.fetch_add(1, Ordering::Relaxed);
    }

    pub fn shadow(&self) {
        self.shadowed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn exempt(&self) {
        self.exempted.fetch_add(1, Ordering::Relaxed);
    }

    pub fn counted(&self) -> Counted {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counted {
            admitted: read(&self.admitted),
            delayed: read(&self.delayed),
            refused: read(&self.refused),
            tarpitted: read(&self.tarpitted),
            shadowed: read(&self.shadowed),
            exempted: read(&self.exempted),
        }
    }
}
