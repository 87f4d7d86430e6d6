//! What has been asked of Redis and how it went. Counts only.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Away;
use crate::word::Choice;

/// The upper ends of the histogram, in microseconds; the last bucket has none.
const BOUNDS_US: [u64; 13] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 20_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000,
];

#[derive(Default)]
pub struct Tally {
    questions: AtomicU64,
    away: [AtomicU64; Away::WORDS.len()],
    times: [AtomicU64; BOUNDS_US.len() + 1],
    total_us: AtomicU64,
}

/// Since the start of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Commands, scripts and pipelines, whatever became of them.
    pub questions: u64,
    /// Those without an answer, by reason; only reasons that have occurred.
    pub away: Vec<(Away, u64)>,
    /// Answers by time: upper end of the bucket, answers within it alone. The last has no upper end.
    pub times: Vec<(Option<Duration>, u64)>,
    /// The time of all answers together.
    pub total: Duration,
}

impl Tally {
    pub fn count(&self, took: Duration, away: Option<Away>) {
        self.questions.fetch_add(1, Ordering::Relaxed);
        if let Some(away) = away {
            self.away[away as usize].fetch_add(1, Ordering::Relaxed);
            return;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < micros);
        self.times[bucket].fetch_add(1, Ordering::Relaxed);
        self.total_us.fetch_add(micros, Ordering::Relaxed);
    }

    pub fn counts(&self) -> Counts {
        let bounds = BOUNDS_US.iter().map(|us| Some(Duration::from_micros(*us)));
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let away = Away::WORDS.iter().zip(&self.away).map(|(word, count)| {
            let away = word.parse().expect("a word of the list");
            (away, read(count))
        });
        Counts {
            questions: read(&self.questions),
            away: away.filter(|(_, count)| *count > 0).collect(),
            times: bounds
                .chain([None])
                .zip(self.times.iter().map(read))
                .collect(),
            total: Duration::from_micros(read(&self.total_us)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_time_and_the_rest_by_reason() {
        let tally = Tally::default();
        tally.count(Duration::from_micros(100), None);
        tally.count(Duration::from_micros(101), None);
        tally.count(Duration::from_secs(9), None);
        tally.count(Duration::from_millis(20), Some(Away::Deadline));
        let counts = tally.counts();
        assert_eq!(counts.questions, 4);
        assert_eq!(counts.away, [(Away::Deadline, 1)]);
        let filled: Vec<_> = counts.times.iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(
            filled,
            [
                &(Some(Duration::from_micros(100)), 1),
                &(Some(Duration::from_micros(250)), 1),
                &(None, 1)
            ]
        );
        assert_eq!(counts.total, Duration::from_micros(9_000_201));
    }
}
