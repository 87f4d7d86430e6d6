//! How many requests an upstream is given at once, learned from how long it takes to answer: the limit rises while
//! answers come as fast as on a quiet day, and falls when they come later. Pure; the clock comes in.
//!
//! The gradient of Envoy's adaptive concurrency filter and of Gradient2 in Netflix's concurrency-limits. For each window
//! of samples
//!
//! ```text
//! gradient = quiet × (1 + tolerance) / window     limit = gradient × limit + √limit
//! ```
//!
//! where `quiet` is the time an answer takes while at most `min` requests are with the upstream. As with Envoy that is
//! measured anew from time to time, for which the limit is held at `min` for a moment; unlike there, any quiet moment
//! will do. Times are averaged by their logarithms: one answer that takes a minute among hundreds that take
//! milliseconds moves nothing, and nothing has to be kept of the single samples.

use std::time::Duration;

use tokio::time::Instant;

use crate::word::choice;

/// Samples of a window that says enough.
const WINDOW_SAMPLES: u32 = 10;
/// Samples of a quiet moment that say all, and that say enough once [`QUIET_TIME`] is over.
const QUIET_SAMPLES: u32 = 50;
const QUIET_ENOUGH: u32 = 10;
const QUIET_TIME: Duration = Duration::from_secs(1);
/// Where the limit begins.
const FIRST_LIMIT: u32 = 20;
/// The most that one window may change.
const GRADIENT: std::ops::RangeInclusive<f64> = 0.5..=2.0;
/// The part by which faster answers than the quiet ones correct these.
const CORRECTION: f64 = 0.1;
/// Answers that come this many times faster than the quiet ones show that these are of another time: they are measured
/// anew at once.
const FASTER: f64 = 3.0;
/// Gateways that start together measure at different times: the time between is up to this part longer.
const SPREAD: f64 = 0.1;

choice! {
    /// How it is decided how many requests an upstream is given at once.
    pub enum ConcurrencyMode: "kind of concurrency" {
        /// By the time of its answers.
        Adaptive = "adaptive",
    }
}

/// How an upstream's limit is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// The limit is never below; at least 1.
    pub min: u32,
    /// Nor above.
    pub max: u32,
    /// How much longer than on a quiet day answers may take, in percent.
    pub tolerance: u32,
    /// The shortest time after which the limit is set anew.
    pub window: Duration,
    /// How long a measurement of the quiet time holds.
    pub measure_every: Duration,
}

/// The limit of one upstream, and what it is learned from.
#[derive(Debug)]
pub(super) struct Adaptive {
    limit: f64,
    /// The logarithm of the seconds that an answer takes on a quiet day, and when that was measured.
    quiet: Option<(f64, Instant)>,
    /// Since when the limit is held at its minimum, to measure that.
    measuring: Option<Instant>,
    calm: Samples,
    window: Samples,
    /// 1 to 1 + [`SPREAD`].
    spread: f64,
}

/// One answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub began: Instant,
    /// From the request sent to the head of the response.
    pub took: Duration,
    /// Requests at the upstream when it began, itself included.
    pub in_flight: u32,
}

#[derive(Clone, Copy, Debug)]
struct Samples {
    since: Instant,
    count: u32,
    /// The sum of the logarithms of their seconds.
    logs: f64,
    /// The most that were in flight.
    most: u32,
}

impl Adaptive {
    /// Nothing is known yet, so it begins with a measurement. `chance` is any number.
    pub fn new(rule: &Concurrency, chance: u64, now: Instant) -> Self {
        Self {
            limit: f64::from(FIRST_LIMIT.clamp(rule.min, rule.max)),
            quiet: None,
            measuring: Some(now),
            calm: Samples::since(now),
            window: Samples::since(now),
            spread: 1.0 + SPREAD * (chance >> 11) as f64 / (1_u64 << 53) as f64,
        }
    }

    /// Requests that may be in flight.
    pub fn limit(&self, rule: &Concurrency) -> u32 {
        match self.measuring {
            Some(_) => rule.min,
            None => (self.limit as u32).clamp(rule.min, rule.max),
        }
    }

    /// The time an answer takes on a quiet day, once it is known.
    pub fn quiet(&self) -> Option<Duration> {
        let (quiet, _) = self.quiet?;
        Some(Duration::from_secs_f64(quiet.exp()))
    }

    /// Learns from an answer.
    pub fn sample(&mut self, sample: Sample, rule: &Concurrency, now: Instant) {
        if sample.in_flight <= rule.min {
            self.calm.add(sample);
            self.measured(now);
        }
        if self.measuring.is_some() {
            return;
        }
        // What began before met another limit.
        if sample.began >= self.window.since {
            self.window.add(sample);
        }
        if self.window.count >= WINDOW_SAMPLES && now >= self.window.since + rule.window {
            self.adjust(rule, now);
            self.window = Samples::since(now);
        }
        let every = rule.measure_every.mul_f64(self.spread);
        if self
            .quiet
            .is_some_and(|(_, measured)| now >= measured + every)
        {
            self.measure(now);
        }
    }

    fn measure(&mut self, now: Instant) {
        self.measuring = Some(now);
        self.calm = Samples::since(now);
    }

    /// Takes what the quiet samples say, once there are enough.
    fn measured(&mut self, now: Instant) {
        let calm = self.calm;
        let enough = calm.count >= QUIET_SAMPLES
            || calm.count >= QUIET_ENOUGH && now >= calm.since + QUIET_TIME;
        if enough {
            self.quiet = Some((calm.mean(), now));
            self.calm = Samples::since(now);
            if self.measuring.take().is_some() {
                self.window = Samples::since(now);
            }
        }
    }

    fn adjust(&mut self, rule: &Concurrency, now: Instant) {
        let Some((quiet, _)) = &mut self.quiet else {
            return;
        };
        let mean = self.window.mean();
        if mean < *quiet - FASTER.ln() {
            return self.measure(now);
        }
        let tolerated = 1.0 + f64::from(rule.tolerance) / 100.0;
        let gradient =
            (tolerated * (*quiet - mean).exp()).clamp(*GRADIENT.start(), *GRADIENT.end());
        let wanted = gradient * self.limit + self.limit.sqrt();
        // What nobody came near to says nothing of a higher limit.
        let is_used = f64::from(self.window.most) * 2.0 >= self.limit;
        if wanted < self.limit || is_used {
            self.limit = wanted.clamp(f64::from(rule.min), f64::from(rule.max));
        }
        if mean < *quiet {
            *quiet += CORRECTION * (mean - *quiet);
        }
    }
}

impl Samples {
    fn since(now: Instant) -> Self {
        Self {
            since: now,
            count: 0,
            logs: 0.0,
            most: 0,
        }
    }

    fn add(&mut self, sample: Sample) {
        self.count += 1;
        self.logs += sample.took.as_secs_f64().max(1e-6).ln();
        self.most = self.most.max(sample.in_flight);
    }

    fn mean(&self) -> f64 {
        self.logs / f64::from(self.count)
    }
}

#[cfg(test)]
mod tests;
