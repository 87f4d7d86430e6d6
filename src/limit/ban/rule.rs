//! What a rule counts, when that is too much, and what follows. Knows words and numbers; counts nothing itself.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::StatusCode;
use thiserror::Error;

use super::scan::{self, PathPattern};
use super::{Event, Happened};
use crate::word::choice;

choice! {
    /// Whether a rule does what it says.
    pub enum Mode: "mode" {
        Enforce = "enforce",
        /// It decides, counts and logs, and refuses nothing.
        Shadow = "shadow",
    }

    /// What a banned client is answered.
    pub enum Answer: "answer to a banned client" {
        Forbidden = "403",
        /// With `Retry-After`: when the ban is over.
        TooManyRequests = "429",
        /// Nothing: the connection is closed, or over HTTP/2 the stream.
        Close = "close",
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub name: Box<str>,
    pub when: When,
    pub terms: Terms,
    pub mode: Mode,
    pub answer: Answer,
    /// Paths that count as scans whatever they are answered.
    pub paths: Vec<PathPattern>,
}

impl Rule {
    /// Whether the rule counts such an event.
    pub fn counts(&self, event: &Event<'_>) -> bool {
        self.when.of.iter().any(|kind| match kind {
            Kind::Refusals => event.kind == Happened::Limited,
            Kind::Malformed => event.kind == Happened::Malformed,
            Kind::Scans => self.is_scan(event),
            Kind::Status(status) => {
                event.kind == Happened::Answered && event.status == Some(*status)
            }
        })
    }

    fn is_scan(&self, event: &Event<'_>) -> bool {
        // What a site serves there, nobody scans for.
        let found_nothing = || event.status.is_some_and(|status| status.is_client_error());
        event.path.is_some_and(|path| {
            self.paths.iter().any(|pattern| pattern.covers(path))
                || found_nothing() && scan::is_known(path)
        })
    }
}

/// How long a ban is, and for how long it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The first.
    pub first: Duration,
    /// By how much each is longer than the one before.
    pub growth: u32,
    /// The longest.
    pub up_to: Duration,
    /// A client that was not banned for so long is as one that never was.
    pub forgotten_after: Duration,
}

impl Terms {
    /// How long the `offence`th ban is, counted from 1.
    pub fn length(&self, offence: u32) -> Duration {
        let mut length = self.first;
        for _ in 1..offence {
            if length >= self.up_to || self.growth <= 1 {
                break;
            }
            length = length.saturating_mul(self.growth);
        }
        length.min(self.up_to)
    }
}

/// So many events of a kind within a time: `30 × 404 in 1 minute`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct When {
    pub events: u32,
    of: Vec<Kind>,
    pub within: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A limit refused the request.
    Refusals,
    Malformed,
    /// It asked for a path that only scanners ask for.
    Scans,
    /// The answer had this status.
    Status(StatusCode),
}

impl When {
    /// Whether paths count.
    pub fn is_of_scans(&self) -> bool {
        self.of.contains(&Kind::Scans)
    }
}

/// A text that is no condition.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(r#"{text:?} is no rule: {why}; expected one such as "20 refusals in 1 minute", "10 × 401/403 in 5 minutes", "3 scans in 1 hour" or "5 malformed in 1 minute""#)]
pub struct BadWhen {
    text: String,
    why: &'static str,
}

/// The longest window.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The most events; they are counted in 16 bits.
const MOST: u32 = 10_000;

const UNITS: [(&str, u64); 4] = [
    ("second", 1),
    ("minute", 60),
    ("hour", 60 * 60),
    ("day", 24 * 60 * 60),
];

impl FromStr for When {
    type Err = BadWhen;

    fn from_str(text: &str) -> Result<Self, BadWhen> {
        parse(text).map_err(|why| BadWhen {
            text: text.to_owned(),
            why,
        })
    }
}

fn parse(text: &str) -> Result<When, &'static str> {
    const FORM: &str = "it has not the form of one";
    let mut words = text.split_ascii_whitespace();
    let mut word = || words.next().ok_or(FORM);
    let events = word()?.parse().map_err(|_| "it begins with no number")?;
    if !(1..=MOST).contains(&events) {
        return Err("its number is not 1 to 10,000");
    }
    let what = match word()? {
        "×" | "x" => word()?,
        what => what,
    };
    let of = what.split('/').map(kind).collect::<Option<Vec<_>>>();
    let of = of.ok_or("what it counts is unknown")?;
    if word()? != "in" {
        return Err(FORM);
    }
    let number: u64 = word()?.parse().map_err(|_| "its time has no number")?;
    let unit = word()?;
    let unit = unit.strip_suffix('s').unwrap_or(unit);
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, seconds) = unit.ok_or("its time has no unit")?;
    let within = number.checked_mul(*seconds).map(Duration::from_secs);
    let within = within.filter(|within| (Duration::from_secs(1)..=LONGEST).contains(within));
    let within = within.ok_or("its time is not 1 second to 1 day")?;
    match words.next() {
        None => Ok(When { events, of, within }),
        Some(_) => Err(FORM),
    }
}

fn kind(word: &str) -> Option<Kind> {
    Some(match word {
        "refusals" | "refusal" => Kind::Refusals,
        "malformed" => Kind::Malformed,
        "scans" | "scan" => Kind::Scans,
        status => {
            let status: u16 = status
                .parse()
                .ok()
                .filter(|status| (200..600).contains(status))?;
            Kind::Status(StatusCode::from_u16(status).ok()?)
        }
    })
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what: Vec<_> = self.of.iter().map(Kind::to_string).collect();
        let seconds = self.within.as_secs();
        let of_unit = |(_, unit): &&(&str, u64)| seconds.is_multiple_of(*unit);
        let (name, unit) = UNITS.iter().rev().find(of_unit).expect("whole seconds");
        let number = seconds / unit;
        let s = if number == 1 { "" } else { "s" };
        write!(
            f,
            "{} × {} in {number} {name}{s}",
            self.events,
            what.join("/")
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refusals => f.write_str("refusals"),
            Self::Malformed => f.write_str("malformed"),
            Self::Scans => f.write_str("scans"),
            Self::Status(status) => f.write_str(status.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_condition_is_a_number_a_kind_and_a_time() {
        for (text, shown) in [
            ("20 refusals in 1 minute", "20 × refusals in 1 minute"),
            ("10 × 401/403 in 5 minutes", "10 × 401/403 in 5 minutes"),
            ("30 x 404 in 60 seconds", "30 × 404 in 1 minute"),
            ("1 scan in 1 day", "1 × scans in 1 day"),
            (
                "5 malformed/400 in 90 seconds",
                "5 × malformed/400 in 90 seconds",
            ),
        ] {
            let when: When = text.parse().unwrap();
            assert_eq!(when.to_string(), shown);
            assert_eq!(shown.parse(), Ok(when));
        }
        for (text, why) in [
            ("", "it has not the form of one"),
            ("many 404 in 1 minute", "it begins with no number"),
            ("0 × 404 in 1 minute", "its number is not 1 to 10,000"),
            ("10001 × 404 in 1 minute", "its number is not 1 to 10,000"),
            ("30 × 104 in 1 minute", "what it counts is unknown"),
            ("30 × 404/ in 1 minute", "what it counts is unknown"),
            ("30 × 404 per 1 minute", "it has not the form of one"),
            ("30 × 404 in a minute", "its time has no number"),
            ("30 × 404 in 1 month", "its time has no unit"),
            ("30 × 404 in 25 hours", "its time is not 1 second to 1 day"),
            ("30 × 404 in 0 hours", "its time is not 1 second to 1 day"),
            ("30 × 404 in 1 minute or so", "it has not the form of one"),
        ] {
            assert_eq!(text.parse::<When>().unwrap_err().why, why, "{text:?}");
        }
    }

    fn rule(when: &str, paths: &[&str]) -> Rule {
        Rule {
            name: "test".into(),
            when: when.parse().unwrap(),
            terms: Terms {
                first: Duration::from_secs(600),
                growth: 2,
                up_to: Duration::from_secs(3000),
                forgotten_after: Duration::from_secs(86_400),
            },
            mode: Mode::Enforce,
            answer: Answer::Forbidden,
            paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_rule_counts_what_it_names_and_nothing_else() {
        let event = |kind, status, path| Event {
            kind,
            status: StatusCode::from_u16(status).ok(),
            path,
        };
        let answered = |status| event(Happened::Answered, status, Some("/"));
        let limited = event(Happened::Limited, 429, Some("/"));
        let malformed = event(Happened::Malformed, 400, None);
        let of_429 = rule("1 × 429 in 1 minute", &[]);
        assert!(of_429.counts(&answered(429)) && !of_429.counts(&limited));
        let refusals = rule("1 refusals in 1 minute", &[]);
        assert!(refusals.counts(&limited) && !refusals.counts(&answered(429)));
        let logins = rule("1 × 401/403 in 1 minute", &[]);
        assert!(logins.counts(&answered(403)) && !logins.counts(&answered(404)));
        assert!(!logins.counts(&answered(0)), "nothing was answered");
        assert!(rule("1 malformed in 1 minute", &[]).counts(&malformed));
        assert!(!rule("1 × 400 in 1 minute", &[]).counts(&malformed));

        let scans = rule("1 scans in 1 minute", &["/trap/*"]);
        let asked = |status, path| scans.counts(&event(Happened::Answered, status, Some(path)));
        assert!(asked(404, "/.env") && asked(403, "/wp-login.php"));
        assert!(!asked(200, "/wp-login.php"), "a site that has it");
        assert!(asked(200, "/trap/x") && !asked(404, "/trapped"));
    }

    #[test]
    fn bans_grow_up_to_the_longest() {
        let terms = rule("1 × 404 in 1 minute", &[]).terms;
        let lengths = [1, 2, 3, 4, u32::MAX].map(|offence| terms.length(offence).as_secs());
        assert_eq!(lengths, [600, 1200, 2400, 3000, 3000]);
        let even = Terms { growth: 1, ..terms };
        assert_eq!(even.length(u32::MAX).as_secs(), 600);
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_grammar(text in "\\PC{0,30}") {
            if let Ok(when) = text.parse::<When>() {
                prop_assert_eq!(when.to_string().parse(), Ok(when));
            }
        }
    }
}
