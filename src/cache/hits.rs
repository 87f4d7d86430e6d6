//! How often a response was given since it was stored or renewed, and whether that is reason enough
//! to renew it before its end.

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

/// The hits of one entry. Nobody counts where no policy asks for it.
#[derive(Debug, Default)]
pub struct Hits {
    given: AtomicU32,
    is_renewed: AtomicBool,
}

impl Hits {
    /// Counts one more. Whether this one is to have the entry, received then, fetched anew: `true` once.
    pub fn count(
        &self,
        ahead: &RefreshAhead,
        freshness: &Freshness,
        received: SystemTime,
        now: SystemTime,
    ) -> bool {
        let before = self.given.fetch_add(1, Ordering::Relaxed);
        let remaining = freshness.remaining(now);
        if before.saturating_add(1) < ahead.hits || remaining > ahead.before {
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
        let begins = |second: &i64| hits.count(&ahead, &freshness, at(0), at(*second));
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
    fn no_page_is_renewed_in_the_first_half_of_its_life() {
        let early = RefreshAhead {
            before: Duration::from_secs(3600),
            hits: 1,
        };
        assert_eq!(renewals(early, &[0, 10, 29, 31, 40]), [31]);
    }
}
