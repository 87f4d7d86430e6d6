//! How much may be used in which time, as operators write it: `100 per minute, burst 20`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// An amount in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests or bytes, at least 1.
    pub amount: u64,
    pub unit: Unit,
    pub per: Per,
}

/// What an amount is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Requests,
    Bytes,
}

/// The time an amount is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// A bucket of `burst` tokens, at least 1, into which the amount flows evenly in each period.
    Period { period: Duration, burst: u64 },
    /// A counter that begins anew with each day or month of the calendar.
    Calendar(Span),
}

/// A stretch of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Span {
    Day,
    Month,
}

/// Why a text is no [`Quota`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadQuota {
    #[error("{0:?} is not a quota; expected {FORM}")]
    Syntax(String),
    #[error("{0:?} allows nothing; expected an amount from 1")]
    Nothing(String),
    #[error("{0:?} has no burst to give: a day or month of the calendar is counted as a whole")]
    BurstOfCalendar(String),
    #[error("the burst of {0:?} is not of what it allows; expected both in bytes or none")]
    MixedUnits(String),
    #[error("the period of {0:?} is out of bounds; expected 1ms to 365d")]
    Period(String),
    #[error("{0:?} is above its bound; expected at most 1,000,000,000 requests or 1 TiB a period")]
    TooMuch(String),
}

/// What a quota looks like.
pub const FORM: &str = r#"a quota such as "100 per minute, burst 20", "10 per second", "5000 per day" or "10 MiB per 30s""#;

const LONGEST: Duration = Duration::from_secs(365 * 86_400);
const MOST_REQUESTS: u64 = 1_000_000_000;
const MOST_BYTES: u64 = 1 << 40;

impl FromStr for Quota {
    type Err = BadQuota;

    fn from_str(text: &str) -> Result<Self, BadQuota> {
        let wrong = || BadQuota::Syntax(text.to_owned());
        let (rate, burst) = match text.split_once(", burst ") {
            Some((rate, burst)) => (rate, Some(burst)),
            None => (text, None),
        };
        let (amount, time) = rate.split_once(" per ").ok_or_else(wrong)?;
        let (amount, unit) = parse_amount(amount).ok_or_else(wrong)?;
        let burst = burst.map(|burst| parse_amount(burst).ok_or_else(wrong));
        let burst = burst.transpose()?;
        if burst.is_some_and(|(_, of)| of != unit) {
            return Err(BadQuota::MixedUnits(text.to_owned()));
        }
        let burst = burst.map(|(burst, _)| burst);
        if amount == 0 || burst == Some(0) {
            return Err(BadQuota::Nothing(text.to_owned()));
        }
        let most = match unit {
            Unit::Requests => MOST_REQUESTS,
            Unit::Bytes => MOST_BYTES,
        };
        if amount > most || burst > Some(most) {
            return Err(BadQuota::TooMuch(text.to_owned()));
        }
        let span = match time {
            "day" => Some(Span::Day),
            "month" => Some(Span::Month),
            _ => None,
        };
        let per = match span {
            Some(_) if burst.is_some() => {
                return Err(BadQuota::BurstOfCalendar(text.to_owned()));
            }
            Some(span) => Per::Calendar(span),
            None => {
                let period = parse_period(time).ok_or_else(wrong)?;
                if !(Duration::from_millis(1)..=LONGEST).contains(&period) {
                    return Err(BadQuota::Period(text.to_owned()));
                }
                Per::Period {
                    period,
                    burst: burst.unwrap_or(amount),
                }
            }
        };
        Ok(Self { amount, unit, per })
    }
}

/// `100`, `100_000` or `10 MiB`.
fn parse_amount(text: &str) -> Option<(u64, Unit)> {
    let (number, unit) = match text.split_once(' ') {
        Some((number, unit)) => (number, Some(unit)),
        None => (text, None),
    };
    let scale = match unit {
        None => None,
        Some("B") => Some(1),
        Some("KiB") => Some(1 << 10),
        Some("MiB") => Some(1 << 20),
        Some("GiB") => Some(1 << 30),
        Some(_) => return None,
    };
    if !number.starts_with(|first: char| first.is_ascii_digit()) || number.ends_with('_') {
        return None;
    }
    let digits = number.replace('_', "");
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_number)?;
    Some(match scale {
        Some(scale) => (number.checked_mul(scale)?, Unit::Bytes),
        None => (number, Unit::Requests),
    })
}

/// `second`, `minute`, `hour`, or a number of `ms`, `s`, `m`, `h` or `d`.
fn parse_period(text: &str) -> Option<Duration> {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    match text {
        "second" => return seconds(1),
        "minute" => return seconds(60),
        "hour" => return seconds(3600),
        _ => {}
    }
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let number: u64 = number.parse().ok()?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

impl Quota {
    /// The time it is for, in whole seconds from 1: what a RateLimit-Policy calls its window. A month counts 30 days.
    pub fn window_seconds(&self) -> u64 {
        match self.per {
            Per::Period { period, .. } => period.as_millis().div_ceil(1000) as u64,
            Per::Calendar(Span::Day) => 86_400,
            Per::Calendar(Span::Month) => 30 * 86_400,
        }
    }
}

/// As it may be written in the file.
impl fmt::Display for Quota {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Requests => "",
            Unit::Bytes => " B",
        };
        write!(out, "{}{unit} per ", self.amount)?;
        match self.per {
            Per::Calendar(Span::Day) => write!(out, "day"),
            Per::Calendar(Span::Month) => write!(out, "month"),
            Per::Period { period, burst } => {
                match (period.as_millis(), period.as_secs()) {
                    (1000, _) => write!(out, "second"),
                    (60_000, _) => write!(out, "minute"),
                    (3_600_000, _) => write!(out, "hour"),
                    (millis, seconds) if millis % 1000 == 0 => write!(out, "{seconds}s"),
                    (millis, _) => write!(out, "{millis}ms"),
                }?;
                match burst == self.amount {
                    true => Ok(()),
                    false => write!(out, ", burst {burst}{unit}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(amount: u64, seconds: u64, burst: u64) -> Quota {
        Quota {
            amount,
            unit: Unit::Requests,
            per: Per::Period {
                period: Duration::from_secs(seconds),
                burst,
            },
        }
    }

    #[test]
    fn quotas_are_read_as_they_are_spoken() {
        let right = [
            ("100 per minute, burst 20", bucket(100, 60, 20)),
            ("10 per second", bucket(10, 1, 10)),
            ("100_000 per hour", bucket(100_000, 3600, 100_000)),
            ("30 per 90s, burst 60", bucket(30, 90, 60)),
            ("1000 per 1d", bucket(1000, 86_400, 1000)),
        ];
        for (text, quota) in right {
            assert_eq!(text.parse(), Ok(quota), "{text}");
        }
        let day: Quota = "5000 per day".parse().unwrap();
        assert_eq!(day.per, Per::Calendar(Span::Day));
        let bytes: Quota = "10 MiB per second, burst 50 MiB".parse().unwrap();
        assert_eq!((bytes.amount, bytes.unit), (10 << 20, Unit::Bytes));
    }

    #[test]
    fn what_is_no_quota_is_told_what_one_is() {
        for text in [
            "",
            "100",
            "per minute",
            "100 per",
            "100 per fortnight",
            "-1 per second",
            "1.5 per second",
            "100 per minute burst 20",
            "100 per minute, burst",
            "1e3 per second",
            "_1 per second",
            "1_ per second",
            "+1 per second",
            "10 MB per second",
            "1 per s",
        ] {
            assert!(
                matches!(text.parse::<Quota>(), Err(BadQuota::Syntax(_))),
                "{text}"
            );
        }
        assert!(matches!(
            "0 per second".parse::<Quota>(),
            Err(BadQuota::Nothing(_))
        ));
        assert!(matches!(
            "9 per day, burst 2".parse::<Quota>(),
            Err(BadQuota::BurstOfCalendar(_))
        ));
        assert!(matches!(
            "9 per second, burst 2 KiB".parse::<Quota>(),
            Err(BadQuota::MixedUnits(_))
        ));
        assert!(matches!(
            "9 per 366d".parse::<Quota>(),
            Err(BadQuota::Period(_))
        ));
        assert!(matches!(
            "2000000000 per day".parse::<Quota>(),
            Err(BadQuota::TooMuch(_))
        ));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_as_the_same(
            amount in 1..=MOST_REQUESTS, millis in 1..=LONGEST.as_millis() as u64, burst in 1..=MOST_REQUESTS, bytes: bool,
        ) {
            let quota = Quota {
                amount,
                unit: if bytes { Unit::Bytes } else { Unit::Requests },
                per: Per::Period { period: Duration::from_millis(millis), burst },
            };
            prop_assert_eq!(quota.to_string().parse(), Ok(quota));
        }
    }
}
