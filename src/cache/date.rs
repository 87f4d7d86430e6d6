//! HTTP dates: the three forms of RFC 9110 5.6.7 and nothing else. Knows no field.
//!
//! `httpdate` is both too strict and too lax here: it wants names in their usual case and a weekday
//! that fits the date, and it puts every two-digit year between 1970 and 2069.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads an IMF-fixdate, an RFC 850 date or an asctime date.
///
/// Names and `GMT` may have any case; everything else has exactly the shape of the grammar. The day
/// must exist, the weekday need only be one. `now` decides the century of an RFC 850 date: the latest
/// that does not put it more than 50 years ahead.
pub fn parse(text: &[u8], now: SystemTime) -> Option<SystemTime> {
    let civil = match text.len() {
        29 => imf_fixdate(text)?,
        24 => asctime(text)?,
        _ => rfc850(text, now)?,
    };
    civil.time()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &[u8]) -> Option<Civil> {
    let (weekday, rest) = text.split_at(3);
    position(&SHORT_DAYS, weekday)?;
    let date = rest.strip_prefix(b", ")?;
    separators(date, &[(2, b' '), (6, b' '), (11, b' ')])?;
    greenwich(&date[20..])?;
    Civil {
        year: i64::from(number(&date[7..11])?),
        month: month(&date[3..6])?,
        day: number(&date[..2])?,
        second: clock(&date[12..20])?,
    }
    .existing()
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(text: &[u8], now: SystemTime) -> Option<Civil> {
    let comma = text.iter().position(|&byte| byte == b',')?;
    position(&LONG_DAYS, &text[..comma])?;
    let date = text[comma..].strip_prefix(b", ")?;
    if date.len() != 22 {
        return None;
    }
    separators(date, &[(2, b'-'), (6, b'-'), (9, b' ')])?;
    greenwich(&date[18..])?;
    let mut civil = Civil {
        year: 0,
        month: month(&date[3..6])?,
        day: number(&date[..2])?,
        second: clock(&date[10..18])?,
    };
    let mut limit = Civil::of(now);
    limit.year += 50;
    civil.year = limit.year - limit.year.rem_euclid(100) + i64::from(number(&date[7..9])?);
    if civil > limit {
        civil.year -= 100;
    }
    civil.existing()
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &[u8]) -> Option<Civil> {
    position(&SHORT_DAYS, &text[..3])?;
    separators(text, &[(3, b' '), (7, b' '), (10, b' '), (19, b' ')])?;
    let day = match &text[8..10] {
        [b' ', digit] => number(&[*digit])?,
        two => number(two)?,
    };
    Civil {
        year: i64::from(number(&text[20..])?),
        month: month(&text[4..7])?,
        day,
        second: clock(&text[11..19])?,
    }
    .existing()
}

const SHORT_DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const LONG_DAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];
const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

fn position(names: &[&str], found: &[u8]) -> Option<usize> {
    names
        .iter()
        .position(|name| name.as_bytes().eq_ignore_ascii_case(found))
}

fn month(name: &[u8]) -> Option<u32> {
    Some(position(&MONTHS, name)? as u32 + 1)
}

fn separators(text: &[u8], expected: &[(usize, u8)]) -> Option<()> {
    let fits = expected.iter().all(|&(at, byte)| text[at] == byte);
    fits.then_some(())
}

fn greenwich(rest: &[u8]) -> Option<()> {
    rest.eq_ignore_ascii_case(b" GMT").then_some(())
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u32::from(digit - b'0'))
    })
}

/// `hh:mm:ss` as seconds of the day; 60 is a leap second.
fn clock(text: &[u8]) -> Option<u32> {
    separators(text, &[(2, b':'), (5, b':')])?;
    let (hour, minute, second) = (
        number(&text[..2])?,
        number(&text[3..5])?,
        number(&text[6..])?,
    );
    (hour < 24 && minute < 60 && second <= 60).then_some((hour * 60 + minute) * 60 + second)
}

/// A moment of the Gregorian calendar, in order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Civil {
    year: i64,
    /// 1 to 12.
    month: u32,
    /// 1 to 31.
    day: u32,
    /// Of the day.
    second: u32,
}

const DAY: i64 = 24 * 60 * 60;

impl Civil {
    fn existing(self) -> Option<Self> {
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let days = match self.month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        (1..=days).contains(&self.day).then_some(self)
    }

    fn time(self) -> Option<SystemTime> {
        let seconds = self.days() * DAY + i64::from(self.second);
        let distance = Duration::from_secs(seconds.unsigned_abs());
        match seconds {
            0.. => UNIX_EPOCH.checked_add(distance),
            _ => UNIX_EPOCH.checked_sub(distance),
        }
    }

    /// Days since 1970-01-01. Years begin in March here, so that a leap day is the last of its year,
    /// and months have a fixed distance from there.
    fn days(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let month = (i64::from(self.month) + 9) % 12;
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        let of_year = (153 * month + 2) / 5 + i64::from(self.day) - 1;
        year * 365 + leap_days + of_year - DAYS_TO_1970
    }

    fn of(time: SystemTime) -> Self {
        let seconds = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX / 2),
            Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX / 2),
        };
        let (day, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // By the mean length of a year, and rounded up.
        let mut year = 1971 + (day * 400).div_euclid(146_097);
        let first = |year| {
            let january = Civil {
                year,
                month: 1,
                day: 1,
                second: 0,
            };
            january.days()
        };
        while first(year) > day {
            year -= 1;
        }
        let mut civil = Civil {
            year,
            month: 12,
            day: 1,
            second: second as u32,
        };
        while civil.days() > day {
            civil.month -= 1;
        }
        civil.day = (day - civil.days()) as u32 + 1;
        civil
    }
}

/// From 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> SystemTime {
        match seconds {
            0.. => UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs()),
            _ => UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()),
        }
    }

    /// 2026-11-21 12:00:00.
    const NOW: i64 = 1_795_262_400;

    fn read(text: &str) -> Option<i64> {
        let time = parse(text.as_bytes(), at(NOW))?;
        Some(match time.duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_secs() as i64,
            Err(before) => -(before.duration().as_secs() as i64),
        })
    }

    #[test]
    fn the_three_forms_mean_the_same() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(read(text), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn names_and_gmt_may_have_any_case() {
        for text in [
            "THU, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 AUG 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 gMT",
            "tHURSDAY, 18-aUG-50 02:01:18 gmt",
            "thu aug 18 02:01:18 2050",
        ] {
            assert_eq!(read(text), Some(2_544_400_878), "{text}");
        }
    }

    #[test]
    fn a_weekday_need_not_fit_the_date() {
        assert_eq!(read("Thu Aug  8 02:01:18 2050"), Some(2_543_536_878));
        assert_eq!(
            read("Mon, 06 Nov 1994 08:49:37 GMT"),
            read("Sun, 06 Nov 1994 08:49:37 GMT")
        );
    }

    #[test]
    fn dates_past_2038_and_before_1970_work() {
        for (text, seconds) in [
            ("Tue, 19 Jan 2038 14:14:08 GMT", 2_147_523_248),
            ("Sun, 21 Nov 2286 04:46:39 GMT", 10_000_039_599),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
            ("Sat, 01 Jan 0000 00:00:00 GMT", -62_167_219_200),
            ("Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_800),
            ("Wed, 31 Dec 2025 23:59:60 GMT", 1_767_225_600),
        ] {
            assert_eq!(read(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn a_two_digit_year_is_the_latest_that_is_at_most_50_years_ahead() {
        for (text, same) in [
            (
                "Saturday, 21-Nov-76 12:00:00 GMT",
                "Sat, 21 Nov 2076 12:00:00 GMT",
            ),
            (
                "Saturday, 21-Nov-76 12:00:01 GMT",
                "Sun, 21 Nov 1976 12:00:01 GMT",
            ),
            (
                "Tuesday, 01-Jan-80 00:00:00 GMT",
                "Tue, 01 Jan 1980 00:00:00 GMT",
            ),
            (
                "Friday, 01-Jan-99 00:00:00 GMT",
                "Fri, 01 Jan 1999 00:00:00 GMT",
            ),
            (
                "Saturday, 01-Jan-00 00:00:00 GMT",
                "Sat, 01 Jan 2000 00:00:00 GMT",
            ),
        ] {
            assert!(read(same).is_some());
            assert_eq!(read(text), read(same), "{text}");
        }
    }

    #[test]
    fn any_other_shape_is_no_date() {
        for text in [
            "",
            "0",
            "-1",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 2050 02:01:18 +0000",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu,18 Aug 2050 02:01:18 GMT",
            "Thu,  18 Aug 2050 02:01:18 GM",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 18 Aug 2050 24:00:00 GMT",
            "Thu, 18 Aug 2050 00:60:00 GMT",
            "Thu, 18 Aug 2050 00:00:61 GMT",
            "Thu, 00 Aug 2050 00:00:00 GMT",
            "Thu, 32 Aug 2050 00:00:00 GMT",
            "Thu, 29 Feb 2023 00:00:00 GMT",
            "Thu, 29 Feb 2100 00:00:00 GMT",
            "Xyz, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 Xyz 2050 02:01:18 GMT",
            "Thursday, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18-Aug-50 02:01:18 GMT",
            "Thursday, 18-Aug-50 02:01:18 UTC",
            "Thu Aug 8 02:01:18 2050",
            "Thu Aug 08 02:01:18 50",
            " Thu, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 GMT ",
            "Thu, +8 Aug 2050 02:01:18 GMT",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_another_implementation_prints_is_read_back(seconds in 0i64..253_402_300_800) {
            let text = httpdate::fmt_http_date(at(seconds));
            prop_assert_eq!(read(&text), Some(seconds));
        }

        #[test]
        fn the_calendar_and_the_clock_agree(seconds in -100_000_000_000i64..253_402_300_800) {
            prop_assert_eq!(Civil::of(at(seconds)).time(), Some(at(seconds)));
        }

        #[test]
        fn no_text_panics(text in "[A-Za-z0-9,: -]{0,40}|\\PC{0,32}") {
            let _ = parse(text.as_bytes(), at(NOW));
        }
    }
}
