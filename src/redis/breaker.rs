//! When a connection is given up, and when the next one is tried. Pure: it is told what happened, and says how long
//! to wait.

use std::time::Duration;

/// So many misses in a row, and the connection is given up.
const MISSES: u32 = 3;
/// The wait before the second trial; the first follows a loss at once. Each further wait is twice as long.
const SECOND_TRIAL: Duration = Duration::from_millis(100);

/// Closed while a connection stands, open while there is none. A trial is a connection of its own, so nothing is asked
/// of one that is in doubt.
#[derive(Debug, Default)]
pub struct Breaker {
    misses: u32,
    trials: u32,
}

impl Breaker {
    /// A question had no answer in time. True: that was one too many.
    pub fn missed(&mut self) -> bool {
        self.misses += 1;
        self.misses >= MISSES
    }

    /// A question was answered: all is well.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// A connection is about to be tried: how long to wait before that. Doubles from trial to trial, also when they
    /// succeed, until a question is answered: what accepts connections and answers nothing is not well.
    pub fn next_trial(&mut self, longest: Duration) -> Duration {
        self.misses = 0;
        let doublings = self.trials.checked_sub(1);
        self.trials += 1;
        match doublings {
            None => Duration::ZERO,
            Some(doublings) => SECOND_TRIAL
                .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
                .min(longest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(30);

    #[test]
    fn a_connection_is_given_up_after_misses_in_a_row_only() {
        let mut breaker = Breaker::default();
        assert!(!breaker.missed() && !breaker.missed());
        breaker.answered();
        assert!(!breaker.missed() && !breaker.missed());
        assert!(breaker.missed());
    }

    #[test]
    fn trials_follow_a_loss_at_once_and_then_ever_more_slowly() {
        let mut breaker = Breaker::default();
        let waits: Vec<u128> = (0..12)
            .map(|_| breaker.next_trial(LONGEST).as_millis())
            .collect();
        assert_eq!(
            waits,
            [
                0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000
            ]
        );
        let later = (0..100).map(|_| breaker.next_trial(LONGEST));
        assert!(later.into_iter().all(|wait| wait == LONGEST));
    }

    #[test]
    fn an_answer_makes_the_next_trial_immediate_again() {
        let mut breaker = Breaker::default();
        for _ in 0..5 {
            breaker.next_trial(LONGEST);
        }
        breaker.answered();
        assert_eq!(breaker.next_trial(LONGEST), Duration::ZERO);
    }

    #[test]
    fn a_server_that_accepts_and_never_answers_is_tried_ever_more_slowly() {
        let mut breaker = Breaker::default();
        let mut waits = Vec::new();
        for _ in 0..4 {
            waits.push(breaker.next_trial(LONGEST).as_millis());
            // It connects, and then it is silent.
            while !breaker.missed() {}
        }
        assert_eq!(waits, [0, 100, 200, 400]);
    }
}
