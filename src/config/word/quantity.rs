//! Amounts with their unit: durations, sizes, percentages, sets of statuses, ports.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{Word, or_variable};
use crate::config::declare::Yields;
use crate::config::read::{Node, Reader, Value};

const DURATION: &str = r#"a duration such as "150ms", "10s", "1h30m" or "730d""#;

/// `10s`, `1h30m`: whole numbers, each with its unit, largest first and none twice; units are d, h, m, s and ms.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 5] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let wrong = || format!("{text:?} is not a duration; expected {DURATION}");
    let mut total: u64 = 0;
    let mut units = UNITS.iter();
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) =
            rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
        let (unit, after) = after.split_at(
            after
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(after.len()),
        );
        // The iterator is shared by all parts, so a unit that is out of order or repeated is not found.
        let (_, scale) = units.find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let part = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*scale));
        total = part
            .and_then(|part| total.checked_add(part))
            .ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(Duration::from_millis(total))
    }
}

impl Value for Duration {
    fn expects() -> String {
        DURATION.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parsed(node, DURATION, parse_duration)
    }

    fn schema() -> Json {
        or_variable(json!({ "type": "string", "pattern": "^([0-9]+(d|h|m|s|ms))+$" }))
    }
}

/// A number of bytes: `8192`, `8 KiB`, `50MB`. Ki, Mi, Gi are powers of 1024 and K, M, G of 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const SIZE: &str = r#"a size such as "8 KiB", "50 MiB" or "1 GiB""#;

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = text.split_at(
            text.find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len()),
        );
        let scale: Option<u64> = match unit.strip_prefix(' ').unwrap_or(unit) {
            "B" => Some(1),
            "" if unit.is_empty() => Some(1),
            "KB" => Some(1_000),
            "MB" => Some(1_000_000),
            "GB" => Some(1_000_000_000),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let bytes = scale.and_then(|scale| number.parse::<u64>().ok()?.checked_mul(scale));
        bytes
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a size; expected {SIZE}"))
    }
}

impl Value for Size {
    fn expects() -> String {
        SIZE.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if node.is_integer() {
            return u64::read(node, reader).map(Self);
        }
        reader.parsed(node, SIZE, str::parse)
    }

    fn schema() -> Json {
        json!({ "anyOf": [
            { "type": "string", "pattern": "^[0-9]+( ?(B|KB|MB|GB|KiB|MiB|GiB))?$" },
            { "type": "integer", "minimum": 0 },
            { "$ref": "#/$defs/variable" },
        ] })
    }
}

impl Yields<u64> for Size {
    fn yields(self) -> u64 {
        self.0
    }
}

/// A share of a whole, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Percent {
    /// 0 to 100.
    pub fn percent(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}%", self.0)
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text
            .strip_suffix('%')
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        match number.and_then(|digits| digits.parse().ok()) {
            Some(percent @ 0..=100) => Ok(Self(percent)),
            _ => Err(format!(
                r#"{text:?} is not a percentage; expected "0%" to "100%""#
            )),
        }
    }
}

impl Word for Percent {
    const EXPECTS: &'static str = r#"a percentage such as "20%""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^(100|[0-9]{1,2})%$" })
    }
}

/// How long something is still served: `serve` is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeFor(Option<Duration>);

impl Yields<Option<Duration>> for ServeFor {
    fn yields(self) -> Option<Duration> {
        self.0
    }
}

impl FromStr for ServeFor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
        match text {
            "serve" => Ok(Self(None)),
            _ => match parse_duration(text) {
                Ok(duration) if duration <= LONGEST => Ok(Self(Some(duration))),
                _ => Err(format!(
                    r#"{text:?} is neither "serve" nor a duration; expected "serve" or 0s to 30d"#
                )),
            },
        }
    }
}

impl Word for ServeFor {
    const EXPECTS: &'static str = r#""serve" or a duration such as "10s""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^(serve|([0-9]+(ms|s|m|h|d))+)$" })
    }
}

/// Response statuses: `200-399`, `200,204,301-308`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet(Vec<RangeInclusive<u16>>);

impl StatusSet {
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }

    /// The ranges as written.
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }
}

impl FromStr for StatusSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                r#"{text:?} is not a set of statuses; expected 100 to 599 such as "200-399" or "200,204""#
            )
        };
        let status = |part: &str| match part.trim().parse::<u16>() {
            Ok(status @ 100..=599) => Ok(status),
            _ => Err(wrong()),
        };
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (least, most) = part.split_once('-').unwrap_or((part, part));
            let (least, most) = (status(least)?, status(most)?);
            if least > most {
                return Err(format!(
                    "status range {least}-{most} is empty; expected {most}-{least}"
                ));
            }
            ranges.push(least..=most);
        }
        Ok(Self(ranges))
    }
}

impl Word for StatusSet {
    const EXPECTS: &'static str = r#"a set of statuses such as "200-399" or "200,204""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^ *[1-5][0-9]{2} *(- *[1-5][0-9]{2} *)?(, *[1-5][0-9]{2} *(- *[1-5][0-9]{2} *)?)*$" })
    }
}

/// Where a plaintext listener sends its clients: `true` is port 443.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpsPort(pub Option<u16>);

impl Yields<Option<u16>> for HttpsPort {
    fn yields(self) -> Option<u16> {
        self.0
    }
}

impl Value for HttpsPort {
    fn expects() -> String {
        "true, false or a port from 1 to 65535".to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if let Some(redirect) = node.as_bool() {
            return Some(Self(redirect.then_some(443)));
        }
        if !node.is_integer() {
            reader.mismatch(node, &Self::expects());
            return None;
        }
        let port = u16::read(node.bounded("1", "65535"), reader)?;
        if port == 0 {
            reader.mismatch(node, &Self::expects());
            return None;
        }
        Some(Self(Some(port)))
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "type": "boolean" }, { "type": "integer", "minimum": 1, "maximum": 65_535 }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_whole_numbers_with_units_largest_first() {
        for (text, millis) in [
            ("10s", 10_000),
            ("150ms", 150),
            ("1h30m", 5_400_000),
            ("0s", 0),
            ("2m5s1ms", 125_001),
            ("1d", 86_400_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "10 s",
            "1s1s",
            "1s1h",
            "10S",
            "99999999999999999999s",
            "300000000000d",
            "1é",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_in_powers_of_1024_or_1000() {
        for (text, bytes) in [
            ("0", 0),
            ("8192", 8192),
            ("8 KiB", 8192),
            ("8KiB", 8192),
            ("50 MB", 50_000_000),
            ("1 GiB", 1 << 30),
            ("7 B", 7),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in [
            "",
            "KiB",
            "8 kib",
            "8  KiB",
            "8 ",
            "1.5 MiB",
            "-1",
            "20000000000 GiB",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_percentage_is_0_to_100_with_its_sign() {
        assert_eq!("20%".parse::<Percent>().unwrap().percent(), 20);
        for text in ["20", "101%", "-1%", "+5%", "%", "1.5%", "256%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_status_set_holds_what_its_ranges_hold() {
        let set: StatusSet = "200, 301-308".parse().unwrap();
        assert!(set.contains(200) && set.contains(301) && set.contains(308));
        assert!(!set.contains(201) && !set.contains(309));
        for text in ["", "99", "600", "200-", "399-200", "2xx", "200,,204"] {
            assert!(text.parse::<StatusSet>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_is_the_sum_of_its_parts(h in 0u64..1000, m in 0u64..1000, s in 0u64..1000, ms in 0u64..10_000) {
            let parsed = parse_duration(&format!("{h}h{m}m{s}s{ms}ms"));
            prop_assert_eq!(parsed, Ok(Duration::from_millis(((h * 60 + m) * 60 + s) * 1000 + ms)));
        }

        #[test]
        fn no_text_breaks_a_quantity(text in "\\PC{0,12}") {
            let _ = (parse_duration(&text), text.parse::<Size>(), text.parse::<Percent>(), text.parse::<StatusSet>());
        }
    }
}
