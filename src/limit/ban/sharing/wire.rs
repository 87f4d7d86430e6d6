//! What gateways tell one another of bans, as text.

use std::str;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limit::ban::client::Client;
use crate::limit::ban::rule::Answer;
use crate::limit::ban::standing::{Ban, By};

/// The longest name of a rule and the longest reason that are taken from others.
const LONGEST_NAME: usize = 64;
pub const LONGEST_WHY: usize = 256;
/// The longest time that is taken from others.
const LONGEST: Duration = Duration::from_secs(2 * 365 * 24 * 60 * 60);

/// What is told of one client.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Ban(ToldBan),
    Lifted,
}

/// What is told of a ban besides its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToldBan {
    /// None: by hand.
    rule: Option<String>,
    why: Option<String>,
    answer: String,
    pub events: u32,
    pub offence: u32,
    forgotten_after_ms: u64,
}

impl ToldBan {
    pub fn of(ban: &Ban) -> Self {
        Self {
            rule: match &ban.by {
                By::Rule(name) => Some(name.to_string()),
                By::Hand => None,
            },
            why: ban.why.as_deref().map(str::to_owned),
            answer: ban.answer.to_string(),
            events: ban.events,
            offence: ban.offence,
            forgotten_after_ms: milliseconds(ban.forgotten_after),
        }
    }

    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are JSON")
    }

    pub fn by(&self) -> By {
        match &self.rule {
            Some(name) => By::Rule(name.as_str().into()),
            None => By::Hand,
        }
    }

    pub fn why(&self) -> Option<Box<str>> {
        self.why.as_deref().map(Into::into)
    }

    /// A word of a later version is the plainest.
    pub fn answer(&self) -> Answer {
        self.answer.parse().unwrap_or(Answer::Forbidden)
    }

    pub fn forgotten_after(&self) -> Duration {
        Duration::from_millis(self.forgotten_after_ms).min(LONGEST)
    }
}

impl Told {
    fn parse(text: &str) -> Option<Self> {
        if text == "lifted" {
            return Some(Self::Lifted);
        }
        let ban: ToldBan = serde_json::from_str(text).ok()?;
        let fits =
            |text: &Option<String>, most| text.as_ref().is_none_or(|text| text.len() <= most);
        let fits = fits(&ban.rule, LONGEST_NAME) && fits(&ban.why, LONGEST_WHY);
        fits.then_some(Self::Ban(ban))
    }

    /// `time told`, as it is kept.
    pub fn parse_kept(text: &str) -> Option<(u64, Self)> {
        let (time, told) = text.split_once(' ')?;
        Some((time.parse().ok()?, Self::parse(told)?))
    }
}

/// A message: who tells it, of whom, for how long that is so, how long ago it happened, and what.
#[derive(Debug, PartialEq)]
pub struct News {
    pub teller: u64,
    pub client: Client,
    pub left: Duration,
    pub age: Duration,
    pub told: Told,
}

impl News {
    /// `teller client left age told`, as the scripts write it.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(payload).ok()?.splitn(5, ' ');
        let mut word = || words.next();
        Some(Self {
            teller: word()?.parse().ok()?,
            client: word()?.parse().ok()?,
            left: Duration::from_millis(word()?.parse().ok()?).min(LONGEST),
            age: Duration::from_millis(word()?.parse().ok()?).min(LONGEST),
            told: Told::parse(word()?)?,
        })
    }
}

pub fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_told_is_what_is_heard() {
        let ban = ToldBan {
            rule: Some("scanners".into()),
            why: Some("asked for /.env \u{fc}".into()),
            answer: "429".into(),
            events: 30,
            offence: 2,
            forgotten_after_ms: 1000,
        };
        let message = format!("7 192.0.2.1 60000 10 {}", ban.text());
        let news = News::parse(message.as_bytes()).unwrap();
        assert_eq!((news.teller, news.left), (7, Duration::from_secs(60)));
        assert_eq!(news.age, Duration::from_millis(10));
        assert_eq!(news.client, "192.0.2.1".parse().unwrap());
        assert_eq!(news.told, Told::Ban(ban.clone()));
        assert_eq!(
            (ban.by().to_string().as_str(), ban.answer()),
            ("scanners", Answer::TooManyRequests)
        );
        let lifted = News::parse(b"7 2001:db8::/64 0 5 lifted").unwrap();
        assert_eq!(lifted.told, Told::Lifted);
        let kept = format!("1795262400000 {}", ban.text());
        assert_eq!(
            Told::parse_kept(&kept),
            Some((1_795_262_400_000, Told::Ban(ban)))
        );
        let long = ToldBan {
            rule: Some("x".repeat(65)),
            ..match news.told {
                Told::Ban(ban) => ban,
                Told::Lifted => unreachable!("it is a ban"),
            }
        };
        assert_eq!(Told::parse(&long.text()), None);
    }

    proptest! {
        #[test]
        fn no_message_breaks_who_hears_it(payload in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = News::parse(&payload);
        }
    }
}
