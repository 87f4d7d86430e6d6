//! A token bucket as one moment: the generic cell rate algorithm (ITU-T I.371, annex A).
//!
//! A bucket is the time at which it will be full. It is pure arithmetic over [`Ticks`]; a bucket that nobody has used
//! is one that became full long ago, so that nothing has to be kept of it.

use std::time::{Duration, Instant};

/// A moment or a length of time in sixteenths of a nanosecond, for a process of at most 36 years: fine enough for
/// 16 tokens a nanosecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(pub u64);

const PER_NANO: u64 = 16;

impl Ticks {
    /// From `zero` to `moment`; none if that is before it.
    pub fn since(zero: Instant, moment: Instant) -> Self {
        Self::of(moment.saturating_duration_since(zero))
    }

    pub fn of(length: Duration) -> Self {
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self(nanos.saturating_mul(PER_NANO))
    }

    /// Rounded up: whoever waits so long is not early.
    pub fn duration(self) -> Duration {
        Duration::from_nanos(self.0.div_ceil(PER_NANO))
    }
}

/// How a bucket fills and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// From one token to the next, rounded up: never more than the quota.
    interval: u64,
    /// Tokens of a full bucket.
    burst: u64,
}

/// A bucket in use: the moment when it will be full, if nobody takes more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at: u64,
    /// Of the rate by which it was last used; 0 is none.
    interval: u64,
}

/// Tokens that are promised: nobody else gets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Until they are there.
    pub wait: Duration,
    /// When the bucket is full, if nobody takes more.
    full_at: u64,
}

/// More was asked for than there is; it is there after this time. Asked for more than a bucket holds: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Empty {
    pub wait: Duration,
}

impl Rate {
    /// `amount` tokens in each `period`, and at most `burst` at once; all from 1.
    pub fn new(amount: u64, period: Duration, burst: u64) -> Self {
        let period = period.as_nanos() * u128::from(PER_NANO);
        let interval = period.div_ceil(u128::from(amount.max(1)));
        let interval = u64::try_from(interval).unwrap_or(u64::MAX).max(1);
        // A full bucket is at most four years of tokens, so that sums stay in their type.
        let most = (u64::MAX >> 3) / interval;
        Self {
            interval,
            burst: burst.clamp(1, most.max(1)),
        }
    }

    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// From one token to the next.
    pub fn interval(&self) -> Duration {
        Ticks(self.interval).duration()
    }

    /// The same in microseconds, exactly.
    pub fn interval_micros(&self) -> f64 {
        self.interval as f64 / (PER_NANO * 1000) as f64
    }

    /// From nothing to full, in ticks.
    pub(super) fn depth(&self) -> u64 {
        self.interval * self.burst
    }
}

impl Bucket {
    /// Takes `cost` tokens, or none; `cost` above what a bucket holds is taken for a full one.
    pub fn take(&mut self, rate: &Rate, cost: u64, now: Ticks) -> Result<(), Empty> {
        let turn = self.take_turn(rate, cost, Duration::ZERO, now);
        turn.map(|_| ())
    }

    /// Takes `cost` tokens that will be there within `patience`, or none. Whoever comes later waits longer.
    pub fn take_turn(
        &mut self,
        rate: &Rate,
        cost: u64,
        patience: Duration,
        now: Ticks,
    ) -> Result<Turn, Empty> {
        let full_at = self.full_at(rate, now);
        let after = full_at + rate.interval * cost.min(rate.burst);
        let missing = Ticks(after.saturating_sub(now.0 + rate.depth()));
        let wait = missing.duration();
        if missing > Ticks::of(patience) {
            return Err(Empty { wait });
        }
        self.full_at = after;
        Ok(Turn {
            wait,
            full_at: after,
        })
    }

    /// Gives back what was promised, unless somebody was promised what comes after it: whoever came next would have
    /// the same turn as that one.
    pub fn give_turn_back(&mut self, rate: &Rate, cost: u64, turn: Turn, now: Ticks) {
        if self.full_at == turn.full_at {
            self.give_back(rate, cost, now);
        }
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&mut self, rate: &Rate, cost: u64, now: Ticks) {
        let full_at = self.full_at(rate, now);
        let back = rate.interval.saturating_mul(cost);
        self.full_at = full_at.saturating_sub(back).max(now.0);
    }

    /// Takes what has been used already, be it there or not. The debt ends at a full bucket below nothing.
    pub fn debit(&mut self, rate: &Rate, cost: u64, now: Ticks) {
        let full_at = self.full_at(rate, now);
        let most = now.0 + 2 * rate.depth();
        let after = full_at.saturating_add(rate.interval.saturating_mul(cost));
        self.full_at = after.min(most).max(full_at);
    }

    /// Whole tokens that are there.
    pub fn left(&self, rate: &Rate, now: Ticks) -> u64 {
        let missing = self.seen(rate, now).saturating_sub(now.0);
        rate.depth().saturating_sub(missing) / rate.interval
    }

    /// Until it is full.
    pub fn until_full(&self, rate: &Rate, now: Ticks) -> Duration {
        Ticks(self.seen(rate, now).saturating_sub(now.0)).duration()
    }

    /// Until there are `cost` tokens.
    pub fn until(&self, rate: &Rate, cost: u64, now: Ticks) -> Duration {
        let mut tried = *self;
        match tried.take(rate, cost, now) {
            Ok(()) => Duration::ZERO,
            Err(Empty { wait }) => wait,
        }
    }

    /// Whether it is full, which is how every bucket begins: nothing has to be kept of it.
    pub fn is_full(&self, now: Ticks) -> bool {
        self.full_at <= now.0
    }

    /// Until it is full at the rate by which it was last used, in ticks: what has been used of it.
    pub fn missing(&self, now: Ticks) -> u64 {
        self.full_at.saturating_sub(now.0)
    }

    fn full_at(&mut self, rate: &Rate, now: Ticks) -> u64 {
        self.full_at = self.seen(rate, now);
        self.interval = rate.interval;
        self.full_at
    }

    /// When it will be full at this rate: what was used of another one stays used, token by token.
    fn seen(&self, rate: &Rate, now: Ticks) -> u64 {
        if self.interval == rate.interval || self.interval == 0 {
            return self.full_at.max(now.0);
        }
        let missing = u128::from(self.full_at.saturating_sub(now.0));
        let missing = missing * u128::from(rate.interval) / u128::from(self.interval);
        let missing = u64::try_from(missing).unwrap_or(u64::MAX);
        now.0 + missing.min(2 * rate.depth())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000 * PER_NANO;

    fn seconds(seconds: f64) -> Ticks {
        Ticks((seconds * SECOND as f64) as u64)
    }

    #[test]
    fn a_full_bucket_gives_its_burst_at_once_and_then_one_token_an_interval() {
        let rate = Rate::new(100, Duration::from_secs(60), 20);
        let mut bucket = Bucket::default();
        for left in (0..20).rev() {
            assert_eq!(bucket.take(&rate, 1, seconds(5.0)), Ok(()));
            assert_eq!(bucket.left(&rate, seconds(5.0)), left);
        }
        let empty = bucket.take(&rate, 1, seconds(5.0)).unwrap_err();
        assert_eq!(empty.wait, Duration::from_millis(600));
        assert!(bucket.take(&rate, 1, seconds(5.599)).is_err());
        assert_eq!(bucket.take(&rate, 1, seconds(5.6)), Ok(()));
        assert_eq!(
            bucket.until_full(&rate, seconds(5.6)),
            Duration::from_secs(12)
        );
        assert!(bucket.is_full(seconds(17.6)) && !bucket.is_full(seconds(17.5)));
    }

    #[test]
    fn a_new_quota_keeps_what_was_used_of_the_one_before() {
        let (before, after) = (
            Rate::new(10, Duration::from_secs(1), 10),
            Rate::new(100, Duration::from_secs(1), 100),
        );
        let mut bucket = Bucket::default();
        for _ in 0..8 {
            bucket.take(&before, 1, seconds(1.0)).unwrap();
        }
        assert_eq!(bucket.left(&after, seconds(1.0)), 92);
        bucket.take(&after, 2, seconds(1.0)).unwrap();
        assert_eq!(bucket.left(&before, seconds(1.0)), 0);
    }

    #[test]
    fn what_was_used_unasked_is_owed_but_not_for_ever() {
        let rate = Rate::new(10, Duration::from_secs(1), 10);
        let mut bucket = Bucket::default();
        bucket.debit(&rate, 1_000_000, seconds(0.0));
        assert_eq!(
            bucket.until(&rate, 1, seconds(0.0)),
            Duration::from_millis(1100)
        );
        bucket.give_back(&rate, 1_000_000, seconds(0.0));
        assert_eq!(bucket.left(&rate, seconds(0.0)), 10);
    }

    #[derive(Clone, Debug)]
    struct Asked {
        after_nanos: u64,
        cost: u64,
    }

    fn asked() -> impl Strategy<Value = Vec<Asked>> {
        let one = (prop_oneof![Just(0), 0..2_000_000_000u64], 1..4u64);
        prop::collection::vec(
            one.prop_map(|(after_nanos, cost)| Asked { after_nanos, cost }),
            1..200,
        )
    }

    proptest! {
        /// The promise of every quota, over every window of every length.
        #[test]
        fn no_window_holds_more_than_the_burst_and_the_rate_allow(
            amount in 1..200u64, millis in 1..100_000u64, burst in 1..50u64, asked in asked(),
        ) {
            let period = Duration::from_millis(millis);
            let rate = Rate::new(amount, period, burst);
            let mut bucket = Bucket::default();
            let mut now = 0;
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            for Asked { after_nanos, cost } in asked {
                now += after_nanos * PER_NANO;
                if cost <= burst && bucket.take(&rate, cost, Ticks(now)).is_ok() {
                    admitted.push((now, cost));
                }
            }
            for first in 0..admitted.len() {
                let mut sum = 0;
                for &(at, cost) in &admitted[first..] {
                    sum += cost;
                    let nanos = u128::from((at - admitted[first].0) / PER_NANO);
                    let flowed = nanos * u128::from(amount) / period.as_nanos();
                    // What has begun to flow in may be whole a moment later.
                    prop_assert!(u128::from(sum) <= u128::from(burst) + flowed + u128::from(nanos > 0));
                }
            }
        }

        /// An independent implementation decides the same.
        #[test]
        fn governor_admits_the_same(amount in 1..200u32, burst in 1..50u32, asked in asked()) {
            use governor::clock::FakeRelativeClock;
            use governor::{Quota, RateLimiter};
            use std::num::NonZeroU32;

            // A period that all amounts divide to whole nanoseconds, so that nothing is rounded.
            let interval = Duration::from_nanos(u64::from(amount) * 1_000_000);
            let rate = Rate::new(1, interval, u64::from(burst));
            let clock = FakeRelativeClock::default();
            let quota = Quota::with_period(interval).unwrap().allow_burst(NonZeroU32::new(burst).unwrap());
            let governor = RateLimiter::direct_with_clock(quota, clock.clone());
            let mut bucket = Bucket::default();
            let mut now = 0;
            for Asked { after_nanos, cost } in asked {
                now += after_nanos;
                clock.advance(Duration::from_nanos(after_nanos));
                if cost > u64::from(burst) {
                    continue;
                }
                let theirs = governor.check_n(NonZeroU32::new(cost as u32).unwrap());
                let theirs = theirs.expect("the cost is within the burst");
                let ours = bucket.take(&rate, cost, Ticks(now * PER_NANO));
                prop_assert_eq!(ours.is_ok(), theirs.is_ok());
            }
        }

        /// What is admitted is not less than it should be: who stays below the quota is never refused.
        #[test]
        fn demand_below_the_quota_is_never_refused(amount in 1..1000u64, millis in 1..100_000u64, times in 1..500u64) {
            let rate = Rate::new(amount, Duration::from_millis(millis), 1);
            let mut bucket = Bucket::default();
            for time in 0..times {
                let now = Ticks(time * rate.interval);
                prop_assert_eq!(bucket.take(&rate, 1, now), Ok(()));
            }
        }

        #[test]
        fn what_is_left_can_be_taken_and_no_more(used in 0..30u64, burst in 1..30u64, later in 0..10_000_000_000u64) {
            let rate = Rate::new(7, Duration::from_secs(3), burst);
            let mut bucket = Bucket::default();
            for _ in 0..used {
                let _ = bucket.take(&rate, 1, Ticks(0));
            }
            let now = Ticks(later * PER_NANO);
            let left = bucket.left(&rate, now);
            let mut all = bucket;
            prop_assert!(left == 0 || all.take(&rate, left, now).is_ok());
            prop_assert!(left == burst || bucket.take(&rate, left + 1, now).is_err());
        }
    }
}
