//! How the requests of one route were answered: from where, and for what reasons not from here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::status::{Disposition, Tier};
use crate::word::Choice;

/// How often [`Counters::sample`] is to be called: the resolution of [`Counters::lookups_since`].
pub const EVERY: Duration = Duration::from_secs(10);
/// The longest time that a ratio looks back.
pub const LONGEST: Duration = Duration::from_secs(60 * 60);
const SAMPLES: usize = (LONGEST.as_secs() / EVERY.as_secs()) as usize + 1;

const DISPOSITIONS: usize = Disposition::WORDS.len();
const TIERS: usize = Tier::WORDS.len();

/// Counts since the start of the process; they only rise. 6 KiB a route.
pub struct Counters {
    /// What came from no tier stands behind those of the tiers.
    answers: [[AtomicU64; DISPOSITIONS]; TIERS + 1],
    /// Stable words, of which the program has a few dozen.
    reasons: RwLock<BTreeMap<&'static str, AtomicU64>>,
    /// The last hour, oldest first.
    samples: Mutex<VecDeque<Lookups>>,
}

/// Requests for which the cache was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    /// Answered with what was stored, fresh or stale.
    pub hits: u64,
    pub all: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            answers: Default::default(),
            reasons: RwLock::default(),
            samples: Mutex::new(VecDeque::from([Lookups::default()])),
        }
    }
}

impl Counters {
    /// Counts an answer.
    pub fn count(&self, answer: Disposition, tier: Option<Tier>, reason: Option<&'static str>) {
        let tier = tier.map_or(TIERS, |tier| tier as usize);
        self.answers[tier][answer as usize].fetch_add(1, Ordering::Relaxed);
        let Some(reason) = reason else { return };
        if let Some(count) = self.reasons.read().get(reason) {
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut reasons = self.reasons.write();
        *reasons.entry(reason).or_default().get_mut() += 1;
    }

    /// Every kind of answer that there was, and how many.
    pub fn answers(&self) -> impl Iterator<Item = (Option<Tier>, Disposition, u64)> {
        let tiers = Tier::ALL.into_iter().map(Some).chain([None]);
        tiers
            .zip(&self.answers)
            .flat_map(|(tier, counts)| {
                let counts = Disposition::ALL.into_iter().zip(counts);
                counts.map(move |(answer, count)| (tier, answer, count.load(Ordering::Relaxed)))
            })
            .filter(|(.., count)| *count > 0)
    }

    /// Every reason that there was, and how often.
    pub fn reasons(&self) -> Vec<(&'static str, u64)> {
        let reasons = self.reasons.read();
        let read =
            |(reason, count): (&&'static str, &AtomicU64)| (*reason, count.load(Ordering::Relaxed));
        reasons.iter().map(read).collect()
    }

    /// Since the start.
    pub fn lookups(&self) -> Lookups {
        let mut lookups = Lookups::default();
        for (_, answer, count) in self.answers() {
            match answer {
                Disposition::Bypass => continue,
                Disposition::Hit | Disposition::Stale => lookups.hits += count,
                _ => {}
            }
            lookups.all += count;
        }
        lookups
    }

    /// Remembers where the counts stand now.
    pub fn sample(&self) {
        let now = self.lookups();
        let mut samples = self.samples.lock();
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(now);
    }

    /// Since that long ago, or since the start if that is later.
    pub fn lookups_since(&self, ago: Duration) -> Lookups {
        let now = self.lookups();
        let samples = self.samples.lock();
        let back = (ago.as_secs() / EVERY.as_secs()) as usize;
        let then = samples[samples.len().saturating_sub(back + 1)];
        Lookups {
            hits: now.hits - then.hits,
            all: now.all - then.all,
        }
    }
}

impl Lookups {
    /// From 0 to 1; `None` where nobody asked.
    pub fn ratio(self) -> Option<f64> {
        (self.all > 0).then(|| self.hits as f64 / self.all as f64)
    }
}

impl std::ops::AddAssign for Lookups {
    fn add_assign(&mut self, other: Self) {
        self.hits += other.hits;
        self.all += other.all;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_tier_and_kind_and_reasons_by_word() {
        let counters = Counters::default();
        counters.count(Disposition::Hit, Some(Tier::Memory), None);
        counters.count(Disposition::Hit, Some(Tier::Memory), None);
        counters.count(Disposition::Hit, Some(Tier::Redis), None);
        counters.count(Disposition::Bypass, None, Some("cookie"));
        counters.count(Disposition::Bypass, None, Some("cookie"));
        counters.count(Disposition::Miss, None, None);
        let answers: Vec<_> = counters.answers().collect();
        let expected = [
            (Some(Tier::Memory), Disposition::Hit, 2),
            (Some(Tier::Redis), Disposition::Hit, 1),
            (None, Disposition::Bypass, 2),
            (None, Disposition::Miss, 1),
        ];
        assert_eq!(answers, expected);
        assert_eq!(counters.reasons(), [("cookie", 2)]);
        // Whoever was passed by did not ask the cache.
        assert_eq!(counters.lookups(), Lookups { hits: 3, all: 4 });
    }

    #[test]
    fn a_ratio_looks_back_as_far_as_it_is_asked_to() {
        let counters = Counters::default();
        let minute = Duration::from_secs(60);
        assert_eq!(counters.lookups_since(minute).ratio(), None);
        let answer = |answer| counters.count(answer, None, None);
        answer(Disposition::Miss);
        assert_eq!(counters.lookups_since(minute).ratio(), Some(0.0));
        (0..6).for_each(|_| counters.sample());
        answer(Disposition::Hit);
        assert_eq!(counters.lookups_since(minute).ratio(), Some(0.5));
        counters.sample();
        assert_eq!(counters.lookups_since(minute).ratio(), Some(1.0));
        assert_eq!(counters.lookups_since(LONGEST).ratio(), Some(0.5));
        (0..2 * SAMPLES).for_each(|_| counters.sample());
        assert_eq!(counters.lookups_since(LONGEST).ratio(), None);
        assert_eq!(counters.samples.lock().len(), SAMPLES);
    }
}
