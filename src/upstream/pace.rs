//! How fast requests may go to an upstream that is itself limited. Every attempt counts, retries too: no window holds
//! more than the burst and what the rate gives in its time.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    RateLimiter,
    clock::{Clock, Reference},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

/// What an upstream that is itself limited asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// `None`: it says so itself, by its answers alone.
    pub rate: Option<Rate>,
    /// However long it wants to be left alone, after this time it is asked again.
    pub longest_pause: Duration,
}

/// Requests in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The time between two requests; above zero.
    pub every: Duration,
    /// How many may go at once when none went for long.
    pub burst: NonZeroU32,
}

/// What is left of a rate.
pub(super) struct Pacer {
    rate: Rate,
    limiter: RateLimiter<NotKeyed, InMemoryState, SinceStart, NoOpMiddleware<Duration>>,
}

/// The clock of the runtime, which tests move by hand.
struct SinceStart(Instant);

impl Clock for SinceStart {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Pacer {
    /// `full`: the whole burst may go at once; else none of it, as for a rate that takes the place of another.
    pub fn new(rate: Rate, full: bool) -> Self {
        let quota = governor::Quota::with_period(rate.every).expect("a time above zero");
        let quota = quota.allow_burst(rate.burst);
        let limiter = RateLimiter::direct_with_clock(quota, SinceStart(Instant::now()));
        if !full {
            let spent = limiter.check_n(rate.burst);
            debug_assert!(matches!(spent, Ok(Ok(()))), "a new limiter has its burst");
        }
        Self { rate, limiter }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Counts one request; an error is when one may go.
    pub fn take(&self) -> Result<(), Instant> {
        self.limiter.check().map_err(|not_until| {
            let clock = self.limiter.clock();
            let wait = not_until.earliest_possible().duration_since(clock.now());
            Instant::now() + Duration::from(wait)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;

    fn rate(millis: u64, burst: u32) -> Rate {
        Rate {
            every: Duration::from_millis(millis),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_burst_one_goes_at_a_time() {
        let pacer = Pacer::new(rate(100, 3), true);
        for _ in 0..3 {
            assert_eq!(pacer.take(), Ok(()));
        }
        let next = pacer.take().unwrap_err();
        assert_eq!(next, Instant::now() + Duration::from_millis(100));
        advance(Duration::from_millis(100)).await;
        assert_eq!(pacer.take(), Ok(()));
        assert!(pacer.take().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_in_place_of_another_begins_with_nothing_saved() {
        let pacer = Pacer::new(rate(100, 5), false);
        assert!(pacer.take().is_err());
        advance(Duration::from_millis(100)).await;
        assert_eq!(pacer.take(), Ok(()));
        assert!(pacer.take().is_err());
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_the_burst_and_the_rate(
            burst in 1_u32..20,
            millis in 1_u64..50,
            pauses in prop::collection::vec(0_u64..120, 1..200),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let pacer = Pacer::new(rate(millis, burst), true);
                let start = Instant::now();
                let mut went = Vec::new();
                for pause in pauses {
                    advance(Duration::from_millis(pause)).await;
                    for _ in 0..3 {
                        if pacer.take().is_ok() {
                            went.push(start.elapsed().as_millis() as u64);
                        }
                    }
                }
                for (first, from) in went.iter().enumerate() {
                    for (last, to) in went.iter().enumerate().skip(first) {
                        let most = u64::from(burst) + (to - from) / millis;
                        assert!(((last - first) as u64) < most, "{went:?}");
                    }
                }
            });
        }
    }
}
