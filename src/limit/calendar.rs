//! Counters of a day or a month of the calendar, in the time zone of those who buy.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use parking_lot::Mutex;

use super::quota::Span;

/// The days or months of one place.
#[derive(Debug)]
pub struct Calendar {
    span: Span,
    zone: TimeZone,
    /// The stretch that was asked for last, in Unix seconds: it is the same for everybody.
    last: Mutex<(i64, i64)>,
}

/// What was used in one stretch of the calendar. It ends by itself: after `end` nothing of it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Unix seconds.
    end: i64,
    used: u64,
}

impl Calendar {
    pub fn new(span: Span, zone: TimeZone) -> Self {
        Self {
            span,
            zone,
            last: Mutex::new((0, 0)),
        }
    }

    /// When the stretch that `now` lies in ends, in Unix seconds.
    pub fn end(&self, now: i64) -> i64 {
        self.stretch(now).1
    }

    /// Begin and end of the stretch that `now` lies in, in Unix seconds.
    pub fn stretch(&self, now: i64) -> (i64, i64) {
        let mut last = self.last.lock();
        let (begin, end) = *last;
        if !(begin..end).contains(&now) {
            // A day without midnight begins with its first moment; a clock beyond the calendar has but a long day.
            *last = self.around(now).unwrap_or((now, now + 86_400));
        }
        *last
    }

    fn around(&self, now: i64) -> Result<(i64, i64), jiff::Error> {
        let now: Zoned = Timestamp::from_second(now)?.to_zoned(self.zone.clone());
        let day = now.start_of_day()?;
        let begin = match self.span {
            Span::Day => day,
            Span::Month => day.first_of_month()?.start_of_day()?,
        };
        let end = match self.span {
            Span::Day => begin.tomorrow()?.start_of_day()?,
            Span::Month => begin.last_of_month()?.tomorrow()?.start_of_day()?,
        };
        Ok((begin.timestamp().as_second(), end.timestamp().as_second()))
    }
}

impl Count {
    /// Takes `cost` of `most`, or nothing: then it is there after this time.
    pub fn take(
        &mut self,
        calendar: &Calendar,
        most: u64,
        cost: u64,
        now: i64,
    ) -> Result<(), Duration> {
        let used = self.used(now);
        if used.saturating_add(cost) > most {
            return Err(self.until_end(calendar, now));
        }
        self.begin(calendar, now);
        self.used = used + cost;
        Ok(())
    }

    /// Gives back what was taken in this stretch and not used.
    pub fn give_back(&mut self, cost: u64, now: i64) {
        self.used = self.used(now).saturating_sub(cost);
    }

    /// Counts what has been used already, be it there or not.
    pub fn debit(&mut self, calendar: &Calendar, cost: u64, now: i64) {
        let used = self.used(now);
        self.begin(calendar, now);
        self.used = used.saturating_add(cost);
    }

    /// What was used in the stretch of `now`.
    pub fn used(&self, now: i64) -> u64 {
        if now < self.end { self.used } else { 0 }
    }

    pub fn until_end(&self, calendar: &Calendar, now: i64) -> Duration {
        let end = if now < self.end {
            self.end
        } else {
            calendar.end(now)
        };
        Duration::from_secs(end.saturating_sub(now).max(0) as u64)
    }

    /// Whether its stretch is over: nothing has to be kept of it.
    pub fn is_over(&self, now: i64) -> bool {
        now >= self.end || self.used == 0
    }

    fn begin(&mut self, calendar: &Calendar, now: i64) {
        if now >= self.end {
            self.end = calendar.end(now);
        }
    }
}

/// Unix seconds.
pub fn unix(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs() as i64,
        Err(before) => -(before.duration().as_secs() as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    #[test]
    fn a_day_ends_at_midnight_of_its_zone() {
        let calendar = Calendar::new(Span::Day, zone("Europe/Zurich"));
        assert_eq!(
            calendar.end(at("2026-07-01T12:00:00Z")),
            at("2026-07-01T22:00:00Z")
        );
        assert_eq!(
            calendar.end(at("2026-07-01T21:59:59Z")),
            at("2026-07-01T22:00:00Z")
        );
        assert_eq!(
            calendar.end(at("2026-07-01T22:00:00Z")),
            at("2026-07-02T22:00:00Z")
        );
        assert_eq!(
            calendar.end(at("2026-01-01T12:00:00Z")),
            at("2026-01-01T23:00:00Z")
        );
    }

    #[test]
    fn a_day_of_23_hours_is_one() {
        let calendar = Calendar::new(Span::Day, zone("Europe/Zurich"));
        assert_eq!(
            calendar.end(at("2026-03-28T23:00:00Z")),
            at("2026-03-29T22:00:00Z")
        );
    }

    #[test]
    fn a_month_ends_with_its_last_day() {
        let calendar = Calendar::new(Span::Month, TimeZone::UTC);
        assert_eq!(
            calendar.end(at("2028-02-10T00:00:00Z")),
            at("2028-03-01T00:00:00Z")
        );
        assert_eq!(
            calendar.end(at("2026-12-31T23:59:59Z")),
            at("2027-01-01T00:00:00Z")
        );
    }

    #[test]
    fn a_count_is_of_one_stretch_alone() {
        let calendar = Calendar::new(Span::Day, TimeZone::UTC);
        let (noon, next) = (at("2026-07-01T12:00:00Z"), at("2026-07-02T00:00:00Z"));
        let mut count = Count::default();
        assert_eq!(count.take(&calendar, 10, 9, noon), Ok(()));
        assert_eq!(
            count.take(&calendar, 10, 2, noon),
            Err(Duration::from_secs(12 * 3600))
        );
        count.give_back(4, noon);
        assert_eq!(count.take(&calendar, 10, 5, noon), Ok(()));
        assert!(count.is_over(next) && !count.is_over(next - 1));
        assert_eq!(count.take(&calendar, 10, 10, next), Ok(()));
        count.give_back(99, next + 86_400);
        assert_eq!(count.used(next + 86_400), 0);
    }
}
