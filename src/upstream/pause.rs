//! A time in which nobody goes to an upstream because it said so: by its 429, or by its 503 with Retry-After.
//! Pure; the clock and chance come in.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause of an upstream that does not say how long; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest of these.
const LONGEST_UNSAID: Duration = Duration::from_secs(60);
/// After a pause one request goes first, and the others when it is answered; after this time the next one goes.
const TRIAL: Duration = Duration::from_secs(1);
/// The least by which what was said is spread.
const LEAST_SPREAD: Duration = Duration::from_millis(100);

/// Whether an upstream, or one of its backends, wants to be left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pause {
    #[default]
    None,
    Asked {
        /// When it asked last.
        since: Instant,
        until: Instant,
        /// When the request that goes first set out.
        trial: Option<Instant>,
        /// How often it has asked in a row.
        times: u32,
    },
}

/// What one more request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// It would be the one that goes first.
    Trial,
    Closed {
        until: Instant,
    },
}

impl Pause {
    pub fn gate(&self, now: Instant) -> Gate {
        match *self {
            Self::None => Gate::Open,
            Self::Asked { until, .. } if now < until => Gate::Closed { until },
            Self::Asked {
                trial: Some(trial), ..
            } if now < trial + TRIAL => Gate::Closed {
                until: trial + TRIAL,
            },
            Self::Asked { .. } => Gate::Trial,
        }
    }

    pub fn begin_trial(&mut self, now: Instant) {
        if let Self::Asked { trial, .. } = self {
            *trial = Some(now);
        }
    }

    /// The request that went first ended and showed nothing.
    pub fn give_up_trial(&mut self) {
        if let Self::Asked { trial, .. } = self {
            *trial = None;
        }
    }

    /// An attempt that began at `began` was answered by anything else. True if this ended the pause.
    pub fn answered(&mut self, began: Instant) -> bool {
        match *self {
            Self::Asked { since, .. } if began >= since => {
                *self = Self::None;
                true
            }
            _ => false,
        }
    }

    /// An attempt that began at `began` was told to wait for `said`, or did not hear how long. The pause is `longest` at
    /// most, with up to a tenth more by `chance`, and never shorter than what was said.
    ///
    /// `Some` is a pause that begins, and how long it is.
    pub fn asked(
        &mut self,
        said: Option<Duration>,
        began: Instant,
        longest: Duration,
        chance: u64,
        now: Instant,
    ) -> Option<Duration> {
        let times = match self {
            Self::None => 1,
            // It set out before the others were stopped: it is no new reason, but it may know a longer time.
            Self::Asked { since, until, .. } if began < *since => {
                let said = spread(said?.min(longest), chance);
                *until = (*until).max(now + said);
                return None;
            }
            Self::Asked { times, .. } => times.saturating_add(1),
        };
        let wait = match said {
            Some(said) => said,
            None => FIRST
                .saturating_mul(1 << (times - 1).min(16))
                .min(LONGEST_UNSAID),
        };
        let wait = spread(wait.min(longest), chance);
        *self = Self::Asked {
            since: now,
            until: now + wait,
            trial: None,
            times,
        };
        Some(wait)
    }
}

/// Up to a tenth longer.
fn spread(wait: Duration, chance: u64) -> Duration {
    let part = (chance >> 11) as f64 / (1_u64 << 53) as f64;
    wait + (wait / 10).max(LEAST_SPREAD).mul_f64(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(3600);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn asked(
        pause: &mut Pause,
        said: Option<u64>,
        began: Instant,
        now: Instant,
    ) -> Option<Duration> {
        pause.asked(said.map(seconds), began, LONGEST, 0, now)
    }

    #[test]
    fn nobody_goes_until_the_time_that_was_said_and_then_one_goes_first() {
        let now = Instant::now();
        let mut pause = Pause::default();
        assert_eq!(asked(&mut pause, Some(7), now, now), Some(seconds(7)));
        let until = now + seconds(7);
        assert_eq!(pause.gate(now + seconds(6)), Gate::Closed { until });

        assert_eq!(pause.gate(until), Gate::Trial);
        pause.begin_trial(until);
        assert!(matches!(pause.gate(until), Gate::Closed { .. }));
        assert!(pause.answered(until));
        assert_eq!(pause.gate(until), Gate::Open);
    }

    #[test]
    fn a_trial_that_is_slow_or_given_up_is_followed_by_another() {
        let now = Instant::now();
        let mut pause = Pause::default();
        asked(&mut pause, Some(1), now, now);
        let until = now + seconds(1);
        pause.begin_trial(until);
        assert_eq!(pause.gate(until + TRIAL), Gate::Trial);
        pause.begin_trial(until + TRIAL);
        pause.give_up_trial();
        assert_eq!(pause.gate(until + TRIAL), Gate::Trial);
    }

    #[test]
    fn an_upstream_that_does_not_say_how_long_is_left_alone_for_twice_as_long_each_time() {
        let mut now = Instant::now();
        let mut pause = Pause::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = asked(&mut pause, None, now, now).unwrap();
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(pause.answered(now));
        assert_eq!(asked(&mut pause, None, now, now), Some(seconds(1)));
    }

    #[test]
    fn what_was_under_way_already_lengthens_a_pause_and_does_not_count_again() {
        let began = Instant::now();
        let now = began + seconds(1);
        let mut pause = Pause::default();
        assert_eq!(asked(&mut pause, None, began, now), Some(seconds(1)));
        for _ in 0..10 {
            assert_eq!(asked(&mut pause, None, began, now), None);
        }
        assert_eq!(asked(&mut pause, Some(5), began, now), None);
        assert!(!pause.answered(began), "it knows nothing new either");
        let until = now + seconds(5);
        assert_eq!(pause.gate(now), Gate::Closed { until });
    }

    proptest! {
        #[test]
        fn a_pause_is_never_shorter_than_was_said_nor_longer_than_a_tenth_more(said in 0_u64..7200, chance: u64) {
            let now = Instant::now();
            let wait = Pause::default().asked(Some(seconds(said)), now, LONGEST, chance, now).unwrap();
            let said = seconds(said).min(LONGEST);
            prop_assert!(wait >= said);
            prop_assert!(wait <= said + (said / 10).max(LEAST_SPREAD));
        }
    }
}
