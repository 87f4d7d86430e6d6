//! What time it is.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Of `Sun, 06 Nov 1994 08:49:37 GMT`.
const DATE_BYTES: usize = 29;

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

/// A time as HTTP writes it (RFC 9110 5.6.7). Each worker keeps the text of the last second that it was asked for.
pub fn date(time: SystemTime) -> [u8; DATE_BYTES] {
    thread_local! {
        static LAST: Cell<(u64, [u8; DATE_BYTES])> = const { Cell::new((u64::MAX, [0; DATE_BYTES])) };
    }
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let second = since.map_or(0, |since| since.as_secs());
    let (last, text) = LAST.get();
    if last == second {
        return text;
    }
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    let text = httpdate::fmt_http_date(time);
    let text = text.as_bytes().try_into().expect("a date is 29 bytes");
    LAST.set((second, text));
    text
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

    #[test]
    fn a_date_is_that_of_its_second() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        for (millis, text) in [
            (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777_999, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778_000, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            assert_eq!(date(at(millis)), text.as_bytes());
        }
    }
}
