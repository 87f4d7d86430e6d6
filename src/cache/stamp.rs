//! A time in half the room that [`SystemTime`] takes, for what there are millions of.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970, from the year 1677 to 2262. What lies beyond is at the end of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cache) struct Stamp(i64);

impl Stamp {
    pub fn time(self) -> SystemTime {
        let distance = Duration::from_nanos(self.0.unsigned_abs());
        match self.0 < 0 {
            true => UNIX_EPOCH - distance,
            false => UNIX_EPOCH + distance,
        }
    }

    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(duration)))
    }

    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(duration)))
    }

    /// Zero where the other one is later.
    pub fn since(self, other: Self) -> Duration {
        let since = i128::from(self.0) - i128::from(other.0);
        Duration::from_nanos(u64::try_from(since).unwrap_or_default())
    }
}

impl From<SystemTime> for Stamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self(nanoseconds(since)),
            Err(before) => Self(-nanoseconds(before.duration())),
        }
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

    proptest! {
        #[test]
        fn a_time_is_the_same_in_less_room(nanoseconds in any::<i64>()) {
            let stamp = Stamp(nanoseconds);
            prop_assert_eq!(Stamp::from(stamp.time()), stamp);
        }
    }

    #[test]
    fn times_far_away_are_at_the_end() {
        let last = Stamp(i64::MAX);
        assert_eq!(Stamp::from(UNIX_EPOCH + 1000 * YEAR), last);
        assert_eq!(Stamp(0).after(1000 * YEAR), last);
        assert_eq!(last.after(YEAR), last);
        let first = Stamp(0).before(1000 * YEAR);
        assert_eq!(Stamp::from(UNIX_EPOCH - 1000 * YEAR), first);
        assert_eq!(first.before(YEAR).before(YEAR).since(last), Duration::ZERO);
        assert_eq!(last.since(first), Duration::from_nanos(u64::MAX - 1));
        assert_eq!(Stamp(5).since(Stamp(7)), Duration::ZERO);
    }
}
