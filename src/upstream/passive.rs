//! Whether traffic says that a backend is down: failures are counted, and after a pause one request tries again.
//! Pure; the clock comes in. Follows nginx's `max_fails` and `fail_timeout`.

use std::time::Duration;

use tokio::time::Instant;

/// When failures take a backend down, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// 0 is never.
    pub max_fails: u32,
    /// The window of counting and the length of being down.
    pub fail_timeout: Duration,
}

/// What traffic has shown of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passive {
    Up {
        fails: u32,
        since: Option<Instant>,
    },
    /// From `until` on one request at a time may try; `trial` is when the last one set out.
    Down {
        until: Instant,
        trial: Option<Instant>,
    },
}

/// What one more request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Up,
    /// It would be the trial after a time of being down.
    Trial,
    Down,
}

impl Passive {
    pub const fn up() -> Self {
        Self::Up {
            fails: 0,
            since: None,
        }
    }

    pub fn standing(&self, now: Instant, rule: Rule) -> Standing {
        match *self {
            Self::Up { .. } => Standing::Up,
            _ if rule.max_fails == 0 => Standing::Up,
            Self::Down { until, .. } if now < until => Standing::Down,
            // A trial that neither ends nor is given up is not waited for longer than a failure would have cost.
            Self::Down {
                trial: Some(began), ..
            } if now < began + rule.fail_timeout => Standing::Down,
            Self::Down { .. } => Standing::Trial,
        }
    }

    pub fn begin_trial(&mut self, now: Instant) {
        if let Self::Down { trial, .. } = self {
            *trial = Some(now);
        }
    }

    /// The trial ended and showed nothing: the client went away, for one. The next request tries.
    pub fn give_up_trial(&mut self) {
        if let Self::Down { trial, .. } = self {
            *trial = None;
        }
    }

    /// True if this brought the backend up.
    ///
    /// A success counts only of a trial or once one is due: a request that set out before the backend went down says
    /// nothing new.
    pub fn succeeded(&mut self, now: Instant, rule: Rule) -> bool {
        match *self {
            Self::Down { until, trial }
                if trial.is_some() || now >= until || rule.max_fails == 0 =>
            {
                *self = Self::up();
                true
            }
            Self::Up {
                since: Some(since), ..
            } if now >= since + rule.fail_timeout => {
                *self = Self::up();
                false
            }
            _ => false,
        }
    }

    /// True if this took the backend down, anew or again after a failed trial.
    pub fn failed(&mut self, now: Instant, rule: Rule) -> bool {
        if rule.max_fails == 0 {
            return false;
        }
        match *self {
            Self::Up { fails, since } => {
                let (fails, since) = match since {
                    Some(since) if now < since + rule.fail_timeout => (fails + 1, since),
                    _ => (1, now),
                };
                let down = fails >= rule.max_fails;
                *self = if down {
                    Self::Down {
                        until: now + rule.fail_timeout,
                        trial: None,
                    }
                } else {
                    Self::Up {
                        fails,
                        since: Some(since),
                    }
                };
                down
            }
            // Requests sent before it went down may still fail; they neither prolong it nor are news.
            Self::Down { until, .. } if now < until => false,
            Self::Down { .. } => {
                *self = Self::Down {
                    until: now + rule.fail_timeout,
                    trial: None,
                };
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        max_fails: 3,
        fail_timeout: Duration::from_secs(10),
    };

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn down_at(now: Instant) -> Passive {
        let mut passive = Passive::up();
        for _ in 0..3 {
            passive.failed(now, RULE);
        }
        passive
    }

    #[test]
    fn failures_within_the_window_take_it_down_for_the_same_time() {
        let now = Instant::now();
        let mut passive = Passive::up();

        assert!(!passive.failed(now, RULE));
        assert!(!passive.failed(now + seconds(4), RULE));
        assert!(passive.failed(now + seconds(8), RULE));

        assert_eq!(passive.standing(now + seconds(17), RULE), Standing::Down);
        assert_eq!(passive.standing(now + seconds(18), RULE), Standing::Trial);
    }

    #[test]
    fn failures_further_apart_than_the_window_do_not_add_up() {
        let now = Instant::now();
        let mut passive = Passive::up();
        for turn in 0..20 {
            assert!(!passive.failed(now + seconds(turn * 6), RULE));
        }
        assert_eq!(passive.standing(now + seconds(120), RULE), Standing::Up);
    }

    #[test]
    fn one_trial_at_a_time_is_let_through() {
        let now = Instant::now();
        let mut passive = down_at(now);
        passive.begin_trial(now + seconds(10));
        assert_eq!(passive.standing(now + seconds(11), RULE), Standing::Down);
        passive.give_up_trial();
        assert_eq!(passive.standing(now + seconds(11), RULE), Standing::Trial);
    }

    #[test]
    fn a_trial_that_never_ends_is_followed_by_another() {
        let now = Instant::now();
        let mut passive = down_at(now);
        passive.begin_trial(now + seconds(10));
        assert_eq!(passive.standing(now + seconds(20), RULE), Standing::Trial);
    }

    #[test]
    fn a_trial_that_succeeds_clears_everything() {
        let now = Instant::now();
        let mut passive = down_at(now);
        passive.begin_trial(now + seconds(10));
        assert!(passive.succeeded(now + seconds(11), RULE));
        assert_eq!(passive, Passive::up());
    }

    #[test]
    fn a_trial_that_fails_takes_it_down_at_once() {
        let now = Instant::now();
        let mut passive = down_at(now);
        passive.begin_trial(now + seconds(10));
        assert!(passive.failed(now + seconds(11), RULE));
        assert_eq!(passive.standing(now + seconds(20), RULE), Standing::Down);
        assert_eq!(passive.standing(now + seconds(21), RULE), Standing::Trial);
    }

    #[test]
    fn an_answer_to_an_older_request_does_not_bring_it_up() {
        let now = Instant::now();
        let mut passive = down_at(now);
        assert!(!passive.succeeded(now + seconds(1), RULE));
        assert_eq!(passive.standing(now + seconds(1), RULE), Standing::Down);
    }

    #[test]
    fn without_max_fails_traffic_never_takes_it_down() {
        let never = Rule {
            max_fails: 0,
            ..RULE
        };
        let mut passive = Passive::up();
        for _ in 0..100 {
            assert!(!passive.failed(Instant::now(), never));
        }
        assert_eq!(
            down_at(Instant::now()).standing(Instant::now(), never),
            Standing::Up
        );
    }
}
