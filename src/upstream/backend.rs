//! One backend: an endpoint with its load and health, which survive a reload. Knows nothing of its rivals.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    Endpoint, Probe, Settings, balance,
    passive::{Passive, Rule, Standing},
    pause::Pause,
};

/// The full weight of a backend, in thousandths: what slow start takes its part of.
pub(super) const FULL: u32 = 1000;
/// Where slow start begins.
const RAMP_FLOOR: u32 = FULL / 10;

/// A place to connect to, with what is known of it now. Shared by every plan that names it.
pub struct Backend {
    id: u64,
    endpoint: Endpoint,
    label: String,
    /// The same in every process, for consistent hashing.
    identity: u64,
    in_flight: AtomicU32,
    /// The balance of [`balance::round_robin`].
    credit: AtomicI64,
    /// True while `health` has nothing to say, so that the usual pick takes no lock.
    calm: AtomicBool,
    health: Mutex<Health>,
    /// Whether it wants to be left alone; looked at where there is a pace.
    pause: Mutex<Pause>,
}

struct Health {
    passive: Passive,
    /// Why traffic took it down.
    blamed: Option<Failure>,
    probed: Probed,
    /// When its slow start began.
    rising: Option<Instant>,
}

/// What active probes have shown.
#[derive(Default)]
struct Probed {
    /// Why it is down.
    down: Option<String>,
    /// Results in a row against the present state.
    against: u32,
}

/// Why an attempt says that a backend is ill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or no TLS session.
    Connect,
    /// No connection, no response head or no progress in time.
    Timeout,
    /// The connection was lost before the response was whole.
    Reset,
    /// What came is not HTTP.
    Protocol,
}

/// Whether a backend is used, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Up,
    /// Up, with this part of its weight, in percent.
    Rising(u32),
    /// Down by traffic: until `again` has passed, then one request tries.
    Failed {
        why: Failure,
        again: Duration,
    },
    /// Down by active probes.
    Unhealthy(String),
}

impl Backend {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let label = endpoint.to_string();
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            identity: balance::hash(label.as_bytes()),
            endpoint,
            label,
            in_flight: AtomicU32::new(0),
            credit: AtomicI64::new(0),
            calm: AtomicBool::new(true),
            health: Mutex::new(Health {
                passive: Passive::up(),
                blamed: None,
                probed: Probed::default(),
                rising: None,
            }),
            pause: Mutex::default(),
        }
    }

    /// Requests it is working on, those still connecting included.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Its address as logs and the Host of `host = "backend"` have it.
    pub fn label(&self) -> &str {
        &self.label
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn identity(&self) -> u64 {
        self.identity
    }

    pub(super) fn pause(&self) -> &Mutex<Pause> {
        &self.pause
    }

    pub(super) fn credit(&self) -> i64 {
        self.credit.load(Ordering::Relaxed)
    }

    pub(super) fn set_credit(&self, credit: i64) {
        self.credit.store(credit, Ordering::Relaxed);
    }

    pub(super) fn take(&self) {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn give_back(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// What one more request may do, and the part of its weight it has, in thousandths.
    ///
    /// `lone` is true for the only backend there is: traffic does not take it down (as in nginx), because there is nothing better to use.
    pub(super) fn standing(
        &self,
        now: Instant,
        settings: &Settings,
        lone: bool,
    ) -> (Standing, u32) {
        if self.calm.load(Ordering::Acquire) {
            return (Standing::Up, FULL);
        }
        let mut health = self.health.lock();
        let standing = match health.passive.standing(now, settings.rule()) {
            _ if health.probed.down.is_some() => Standing::Down,
            _ if lone => Standing::Up,
            standing => standing,
        };
        let part = health.part(now, settings.slow_start);
        self.settle(&mut health, now, settings);
        (standing, part)
    }

    pub(super) fn begin_trial(&self, now: Instant) {
        self.health.lock().passive.begin_trial(now);
    }

    pub(super) fn give_up_trial(&self) {
        self.health.lock().passive.give_up_trial();
    }

    /// True if this brought the backend up.
    pub(super) fn succeeded(&self, now: Instant, settings: &Settings) -> bool {
        if self.calm.load(Ordering::Acquire) {
            return false;
        }
        let mut health = self.health.lock();
        let recovered = health.passive.succeeded(now, settings.rule());
        if recovered {
            health.blamed = None;
            health.rising = Some(now);
            info!(target: "upstream", upstream = %settings.name, backend = %self, why = "a trial request succeeded", "backend is up");
        }
        self.settle(&mut health, now, settings);
        recovered
    }

    pub(super) fn failed(&self, failure: Failure, now: Instant, settings: &Settings) {
        let rule = settings.rule();
        let mut health = self.health.lock();
        if health.passive.failed(now, rule) {
            health.blamed = Some(failure);
            warn!(
                target: "upstream", upstream = %settings.name, backend = %self, why = %failure,
                for_ms = rule.fail_timeout.as_millis() as u64, "backend is down"
            );
        }
        self.settle(&mut health, now, settings);
    }

    /// One probe's result. True if it brought the backend up.
    pub(super) fn probed(
        &self,
        result: Result<(), String>,
        probe: &Probe,
        now: Instant,
        settings: &Settings,
    ) -> bool {
        let mut health = self.health.lock();
        let probed = &mut health.probed;
        if result.is_err() == probed.down.is_some() {
            probed.against = 0;
            return false;
        }
        probed.against += 1;
        let enough = if result.is_ok() {
            probe.healthy_after
        } else {
            probe.unhealthy_after
        };
        if probed.against < enough {
            return false;
        }
        probed.against = 0;
        let up = result.is_ok();
        match result {
            Ok(()) => {
                probed.down = None;
                health.rising = Some(now);
                info!(target: "upstream", upstream = %settings.name, backend = %self, why = "probes succeed", "backend is up");
            }
            Err(why) => {
                warn!(target: "upstream", upstream = %settings.name, backend = %self, %why, "backend is down until probes succeed");
                probed.down = Some(why);
            }
        }
        self.settle(&mut health, now, settings);
        up
    }

    /// Forgets what probes said: they are no longer made.
    pub(super) fn forget_probes(&self, settings: &Settings) {
        let mut health = self.health.lock();
        health.probed = Probed::default();
        self.settle(&mut health, Instant::now(), settings);
    }

    /// Begins slow start: it was not there before.
    pub(super) fn discovered(&self, now: Instant, settings: &Settings) {
        let mut health = self.health.lock();
        health.rising = Some(now);
        self.settle(&mut health, now, settings);
    }

    pub(super) fn state(&self, now: Instant, settings: &Settings, lone: bool) -> State {
        let health = self.health.lock();
        if let Some(why) = &health.probed.down {
            return State::Unhealthy(why.clone());
        }
        let standing = if lone {
            Standing::Up
        } else {
            health.passive.standing(now, settings.rule())
        };
        if let (Standing::Down | Standing::Trial, Passive::Down { until, .. }) =
            (standing, health.passive)
        {
            let why = health.blamed.unwrap_or(Failure::Connect);
            return State::Failed {
                why,
                again: until.saturating_duration_since(now),
            };
        }
        match health.part(now, settings.slow_start) {
            FULL => State::Up,
            part => State::Rising(part * 100 / FULL),
        }
    }

    fn settle(&self, health: &mut Health, now: Instant, settings: &Settings) {
        if health.part(now, settings.slow_start) == FULL {
            health.rising = None;
        }
        let calm = health.passive == Passive::up()
            && health.probed.down.is_none()
            && health.rising.is_none();
        self.calm.store(calm, Ordering::Release);
    }
}

impl Health {
    fn part(&self, now: Instant, slow_start: Duration) -> u32 {
        let Some(rising) = self.rising else {
            return FULL;
        };
        ramp(now.saturating_duration_since(rising), slow_start)
    }
}

/// The part of its weight a backend has after `elapsed` of its slow start, in thousandths.
fn ramp(elapsed: Duration, slow_start: Duration) -> u32 {
    if elapsed >= slow_start {
        return FULL;
    }
    let risen = u128::from(FULL - RAMP_FLOOR) * elapsed.as_nanos() / slow_start.as_nanos();
    RAMP_FLOOR + u32::try_from(risen).expect("a part of less than the whole")
}

impl Settings {
    pub(super) fn rule(&self) -> Rule {
        Rule {
            max_fails: self.max_fails,
            fail_timeout: self.fail_timeout,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({}, {} in flight)", self.label, self.in_flight())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect failed"),
            Self::Timeout => f.write_str("timed out"),
            Self::Reset => f.write_str("connection lost"),
            Self::Protocol => f.write_str("malformed response"),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("Up"),
            Self::Rising(percent) => write!(f, "Rising, at {percent} %"),
            Self::Failed { why, again } => {
                let again = again.as_secs_f64();
                write!(f, "Failed: {why}; tried again in {again:.1} s")
            }
            Self::Unhealthy(why) => write!(f, "Unhealthy: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Address;

    #[test]
    fn slow_start_rises_from_a_tenth_to_the_whole_in_a_straight_line() {
        let whole = Duration::from_secs(10);
        let parts: Vec<_> = [0, 1, 5, 9, 10, 11]
            .map(|second| ramp(Duration::from_secs(second), whole))
            .into();
        assert_eq!(parts, [100, 190, 550, 910, 1000, 1000]);
        assert_eq!(ramp(Duration::ZERO, Duration::ZERO), FULL);
    }

    /// What `act` logs, as text.
    fn logged(act: impl FnOnce()) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_writer(file.reopen().map(std::sync::Mutex::new).unwrap())
            .finish();
        tracing::subscriber::with_default(subscriber, act);
        let text = std::fs::read_to_string(file.path()).unwrap();
        text.lines()
            .map(str::trim_start)
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn each_change_of_state_is_one_line_that_says_which_backend_why_and_for_how_long() {
        let settings = Settings::named("app");
        let backend = Backend::new(
            "192.0.2.1:80"
                .parse::<Address>()
                .unwrap()
                .endpoint()
                .unwrap(),
        );
        let now = Instant::now();
        let lines = logged(|| {
            for _ in 0..6 {
                backend.failed(Failure::Reset, now, &settings);
            }
            for _ in 0..3 {
                backend.succeeded(now + settings.fail_timeout, &settings);
            }
        });
        assert_eq!(
            lines,
            [
                "WARN upstream: backend is down upstream=app backend=192.0.2.1:80 why=connection lost for_ms=10000",
                "INFO upstream: backend is up upstream=app backend=192.0.2.1:80 why=\"a trial request succeeded\"",
            ]
        );
    }

    #[test]
    fn a_state_reads_as_an_operator_would_say_it() {
        let failed = State::Failed {
            why: Failure::Timeout,
            again: Duration::from_millis(9949),
        };
        let states = [
            (State::Up, "Up"),
            (State::Rising(40), "Rising, at 40 %"),
            (failed, "Failed: timed out; tried again in 9.9 s"),
            (
                State::Unhealthy("status 500".into()),
                "Unhealthy: status 500",
            ),
        ];
        for (state, text) in states {
            assert_eq!(state.to_string(), text);
        }
    }
}
