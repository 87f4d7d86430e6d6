//! What may go to an upstream as a whole, whichever backend takes it: how many requests at once, and whether it wants to
//! be left alone. Outlives a reload; the rules come with each call.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Priority, Settings, Unavailable,
    adaptive::{Adaptive, Sample},
    pause::{Gate, Pause},
    priority::CLASSES,
};

/// What one upstream has been given, and what it said to that.
pub(super) struct Intake {
    in_flight: AtomicU32,
    /// `None` until its first request under a rule.
    adaptive: Mutex<Option<Adaptive>>,
    pub pause: Mutex<Pause>,
    shed: [AtomicU64; CLASSES],
    paced: AtomicU64,
    pauses: AtomicU64,
    /// Where chance begins.
    seed: u64,
}

/// Why requests wait although backends are up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub why: Why,
    /// When to look again although nobody has ended.
    pub until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Every backend is at its cap, or wants to be left alone.
    Caps,
    /// The upstream has as many requests as it does well with.
    Limit,
    /// The next one may not go yet; `every` is the time between two.
    Pace { every: Duration },
    /// It wants to be left alone.
    Pause,
}

/// What an upstream has to do now, and what was kept from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Requests, without tunnels.
    pub in_flight: u32,
    /// How many it is given at once, where that is learned.
    pub limit: Option<u32>,
    /// How long it takes to answer when there is little to do, as far as that is known.
    pub quiet: Option<Duration>,
    /// Requests that wait, by class.
    pub waiting: [usize; CLASSES],
    /// Requests that were sent away because of what waited before them, by class, since the start.
    pub shed: [u64; CLASSES],
    /// Requests that had to wait for the pace, since the start.
    pub paced: u64,
    /// How often it asked to be left alone, since the start.
    pub pauses: u64,
    /// How long it still wants to be left alone.
    pub paused: Option<Duration>,
}

impl Intake {
    pub fn new(seed: u64) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            adaptive: Mutex::default(),
            pause: Mutex::default(),
            shed: Default::default(),
            paced: AtomicU64::new(0),
            pauses: AtomicU64::new(0),
            seed,
        }
    }

    /// Whether one more may go now; `true` is the first after a pause. Called with the turn held.
    pub fn may_take(&self, settings: &Settings, now: Instant) -> Result<bool, Hold> {
        let mut first = false;
        if settings.pace.is_some() {
            match self.pause.lock().gate(now) {
                Gate::Open => {}
                Gate::Trial => first = true,
                Gate::Closed { until } => {
                    return Err(Hold {
                        why: Why::Pause,
                        until: Some(until),
                    });
                }
            }
        }
        if let Some(rule) = &settings.concurrency {
            let mut adaptive = self.adaptive.lock();
            let adaptive = adaptive.get_or_insert_with(|| Adaptive::new(rule, self.seed, now));
            if self.in_flight.load(Ordering::SeqCst) >= adaptive.limit(rule) {
                return Err(Hold {
                    why: Why::Limit,
                    until: None,
                });
            }
        }
        Ok(first)
    }

    /// Counts one request; how many there are with it.
    pub fn take(&self) -> u32 {
        self.in_flight.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub fn give_back(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// Learns from an answer. True if more may go for it.
    pub fn learn(&self, settings: &Settings, sample: Sample, now: Instant) -> bool {
        let Some(rule) = &settings.concurrency else {
            return false;
        };
        let mut adaptive = self.adaptive.lock();
        let Some(adaptive) = adaptive.as_mut() else {
            return false;
        };
        let before = adaptive.limit(rule);
        adaptive.sample(sample, rule, now);
        adaptive.limit(rule) > before
    }

    pub fn count_shed(&self, priority: Priority) {
        self.shed[priority.rank()].fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_paced(&self) {
        self.paced.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_pause(&self) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
    }

    pub fn load(&self, settings: &Settings, waiting: [usize; CLASSES], now: Instant) -> Load {
        let adaptive = self.adaptive.lock();
        let adaptive = settings.concurrency.as_ref().zip(adaptive.as_ref());
        let paused = match self.pause.lock().gate(now) {
            Gate::Closed { until } if settings.pace.is_some() => Some(until - now),
            _ => None,
        };
        Load {
            in_flight: self.in_flight.load(Ordering::SeqCst),
            limit: adaptive.map(|(rule, adaptive)| adaptive.limit(rule)),
            quiet: adaptive.and_then(|(_, adaptive)| adaptive.quiet()),
            waiting,
            shed: self
                .shed
                .each_ref()
                .map(|count| count.load(Ordering::Relaxed)),
            paced: self.paced.load(Ordering::Relaxed),
            pauses: self.pauses.load(Ordering::Relaxed),
            paused,
        }
    }
}

impl Hold {
    /// Every backend is at its cap.
    pub const CAPS: Self = Self {
        why: Why::Caps,
        until: None,
    };

    /// The least that a request has to wait which has this many before it.
    pub fn wait(self, ahead: usize, now: Instant) -> Duration {
        let until = self.until.unwrap_or(now).saturating_duration_since(now);
        match self.why {
            // Any moment a request may end.
            Why::Caps | Why::Limit => Duration::ZERO,
            Why::Pace { every } => {
                let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
                until.saturating_add(every.saturating_mul(ahead))
            }
            Why::Pause => until,
        }
    }

    /// What a request is told that does not wait, or no longer. `full`: there was no place for it.
    pub fn refusal(self, full: bool, ahead: usize, now: Instant) -> Unavailable {
        let again = self.wait(ahead, now);
        match self.why {
            Why::Caps if full => Unavailable::QueueFull,
            Why::Caps => Unavailable::QueueTimeout,
            Why::Limit => Unavailable::Overloaded,
            Why::Pace { .. } => Unavailable::Paced { again },
            Why::Pause => Unavailable::Paused { again },
        }
    }
}
