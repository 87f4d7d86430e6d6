//! How often a response was given since it was stored or renewed, and whether that is reason enough
//! to renew it before its end.
//!
//! A hit is one addition. Who wants to know which pages are asked for most looks at all entries, now and then.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::freshness::Freshness;

/// Which pages are fetched anew before they are stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshAhead {
    /// How long before. No page is fetched anew in the first half of the life that it has here.
    pub before: Duration,
    /// Those that were given at least so often. 1 to 1,000,000; 3 by default.
    pub hits: u32,
}

/// The hits of one entry.
#[derive(Debug, Default)]
pub struct Hits {
    given: AtomicU32,
    /// What has been told of them; both wrap.
    told: AtomicU32,
    is_renewed: AtomicBool,
}

impl Hits {
    /// Counts one more.
    pub fn count(&self) {
        self.given.fetch_add(1, Ordering::Relaxed);
    }

    pub fn given(&self) -> u32 {
        self.given.load(Ordering::Relaxed)
    }

    /// Those that nobody has been told of yet.
    pub fn untold(&self) -> u32 {
        let untold = self.given().wrapping_sub(self.told.load(Ordering::Relaxed));
        // Who told of more than there are took some for an entry that has been replaced.
        u32::try_from(untold.cast_signed()).unwrap_or_default()
    }

    /// So many need not be told of any more.
    pub fn tell(&self, hits: u32) {
        self.told.fetch_add(hits, Ordering::Relaxed);
    }

    /// So many are to be told of beside its own: those of the entry in whose place it comes.
    pub fn inherit(&self, hits: u32) {
        self.told.fetch_sub(hits, Ordering::Relaxed);
    }

    /// Whether a hit is to have the entry, received then, fetched anew: `true` once.
    pub fn renews(
        &self,
        ahead: &RefreshAhead,
        freshness: &Freshness,
        received: SystemTime,
        now: SystemTime,
    ) -> bool {
        let remaining = freshness.remaining(now);
        if self.given() < ahead.hits || remaining > ahead.before {
            return false;
        }
        // Else a short life would be nothing but renewals.
        let life = freshness.remaining(received);
        remaining <= life / 2 && !self.is_renewed.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::freshness::Said;
    use crate::cache::testing::{at, at_noon, response, rfc9111};

    const AHEAD: RefreshAhead = RefreshAhead {
        before: Duration::from_secs(10),
        hits: 3,
    };

    fn fresh_for_a_minute() -> Freshness {
        let answered = response(200, &[("cache-control", "max-age=60")]);
        let head = answered.head();
        Freshness::of(&head, &Said::by(&head), at_noon(), &rfc9111()).unwrap()
    }

    /// Which of the hits at these seconds begin a renewal.
    fn renewals(ahead: RefreshAhead, seconds: &[i64]) -> Vec<i64> {
        let (hits, freshness) = (Hits::default(), fresh_for_a_minute());
        let begins = |second: &i64| {
            hits.count();
            hits.renews(&ahead, &freshness, at(0), at(*second))
        };
        seconds.iter().copied().filter(begins).collect()
    }

    #[test]
    fn one_hit_near_the_end_of_a_page_that_is_asked_for_renews_it() {
        assert_eq!(renewals(AHEAD, &[1, 2, 49, 50, 51]), [50]);
        assert_eq!(renewals(AHEAD, &[50, 51, 52, 53]), [52]);
    }

    #[test]
    fn a_page_that_hardly_anybody_asks_for_is_not_renewed() {
        assert!(renewals(AHEAD, &[1, 55]).is_empty());
    }

    #[test]
    fn every_hit_is_told_of_once_whatever_entry_it_was_of() {
        let old = Hits::default();
        (0..5).for_each(|_| old.count());
        assert_eq!(old.untold(), 5);
        old.tell(3);
        let new = Hits::default();
        new.inherit(old.untold());
        new.count();
        assert_eq!((new.given(), new.untold()), (1, 3));
        new.tell(3);
        assert_eq!(new.untold(), 0);
        // Told of by two.
        new.tell(3);
        assert_eq!(new.untold(), 0);
    }

    #[test]
    fn no_page_is_renewed_in_the_first_half_of_its_life() {
        let early = RefreshAhead {
            before: Duration::from_secs(3600),
            hits: 1,
        };
        assert_eq!(renewals(early, &[0, 10, 29, 31, 40]), [31]);
    }
}
