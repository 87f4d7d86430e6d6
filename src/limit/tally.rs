//! How the requests that a rule looked at came out.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Mode;

/// Counts since the start of the process; a reload keeps them.
#[derive(Debug, Default)]
pub struct Tally {
    admitted: AtomicU64,
    refused: AtomicU64,
    shadowed: AtomicU64,
    exempted: AtomicU64,
}

/// What a tally shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub admitted: u64,
    pub refused: u64,
    /// Would have been refused.
    pub shadowed: u64,
    pub exempted: u64,
}

impl Tally {
    pub fn admit(&self) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refuse(&self, mode: Mode) {
        let counter = match mode {
            Mode::Enforce => &self.refused,
            Mode::Shadow => &self.shadowed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub fn exempt(&self) {
        self.exempted.fetch_add(1, Ordering::Relaxed);
    }

    pub fn counted(&self) -> Counted {
        Counted {
            admitted: self.admitted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            shadowed: self.shadowed.load(Ordering::Relaxed),
            exempted: self.exempted.load(Ordering::Relaxed),
        }
    }
}
