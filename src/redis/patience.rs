//! What one request may wait for Redis, with all its questions together.

use std::time::{Duration, Instant};

use super::Away;

/// What is left of the deadline of one question, for all questions of one request. By default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience(Duration);

impl Patience {
    pub(super) fn new(deadline: Duration) -> Self {
        Self(deadline)
    }

    /// What is left: nothing after a question that was not answered.
    pub fn left(&self) -> Duration {
        self.0
    }

    /// Asks `question`, which may take what it is given, and takes away what it took.
    ///
    /// # Errors
    /// Its own; nothing is asked where nothing is left.
    pub async fn ask<T>(
        &mut self,
        question: impl AsyncFnOnce(Duration) -> Result<T, Away>,
    ) -> Result<T, Away> {
        if self.0.is_zero() {
            return Err(Away::Deadline);
        }
        let began = Instant::now();
        let answer = question(self.0).await;
        self.0 = match answer {
            Ok(_) => self.0.saturating_sub(began.elapsed()),
            Err(_) => Duration::ZERO,
        };
        answer
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn ask(patience: &mut Patience, answer: Result<(), Away>) -> Result<Duration, Away> {
        let asked = patience.ask(async |given| answer.map(|()| given));
        asked.now_or_never().expect("nothing is waited for")
    }

    #[test]
    fn each_question_is_given_what_those_before_have_left() {
        let mut patience = Patience::new(DEADLINE);
        assert_eq!(ask(&mut patience, Ok(())), Ok(DEADLINE));
        let left = patience.left();
        assert!(left < DEADLINE);
        assert_eq!(ask(&mut patience, Ok(())), Ok(left));
    }

    #[test]
    fn after_a_question_without_an_answer_nothing_is_asked() {
        let mut patience = Patience::new(DEADLINE);
        assert_eq!(ask(&mut patience, Err(Away::Lost)), Err(Away::Lost));
        assert_eq!(ask(&mut patience, Ok(())), Err(Away::Deadline));
    }
}
