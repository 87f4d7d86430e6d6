//! What time it is.

use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// A moment by both clocks: one that only runs on, and that of the calendar.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub instant: Instant,
    /// Up to 10 ms ago.
    pub system: SystemTime,
}

impl Moment {
    pub fn now() -> Self {
        Self {
            instant: Instant::now(),
            system: system_now(),
        }
    }
}

/// The calendar's time as the kernel's last tick left it: up to 10 ms ago, for a tenth of what the time of now costs.
pub fn system_now() -> SystemTime {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::RealtimeCoarse);
    match (u64::try_from(tv_sec), u32::try_from(tv_nsec)) {
        (Ok(seconds), Ok(nanos)) => SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos),
        // Before 1970: a clock that nobody has set.
        _ => SystemTime::UNIX_EPOCH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_is_at_most_a_tick_behind() {
        let before = SystemTime::now() - Duration::from_millis(20);
        let now = Moment::now().system;
        assert!(before <= now && now <= SystemTime::now());
    }
}
