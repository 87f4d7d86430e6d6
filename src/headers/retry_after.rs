//! `Retry-After` of a response (RFC 9110 10.2.3): a number of seconds, or a date.

use std::time::{Duration, SystemTime};

use crate::cache::date;

/// How long to wait from `now` on; nothing for a date that is past. `None`: it cannot be read.
pub fn parse(value: &[u8], now: SystemTime) -> Option<Duration> {
    let value = value.trim_ascii();
    if !value.is_empty() && value.iter().all(u8::is_ascii_digit) {
        let seconds = std::str::from_utf8(value).expect("digits are ASCII");
        // A number beyond all measure is as good as the largest.
        return Some(Duration::from_secs(seconds.parse().unwrap_or(u64::MAX)));
    }
    let date = date::parse(value, now)?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_number_of_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let parsed = |value: &str| parse(value.as_bytes(), now).map(|wait| wait.as_secs());
        assert_eq!(parsed("120"), Some(120));
        assert_eq!(parsed(" 0 "), Some(0));
        assert_eq!(parsed("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(parsed("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(parsed("99999999999999999999999"), Some(u64::MAX));
        for value in ["", "-1", "1.5", "soon", "12 s"] {
            assert_eq!(parsed(value), None, "{value}");
        }
    }
}
