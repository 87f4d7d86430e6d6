//! Redis as all shared limits of a gateway see it: whether it answers, what time it has there, how many gateways there are,
//! and the secret by which all of them call a client the same.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use ::redis::cmd;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::lease::later;
use super::script::{Answer, FILL, Grant, LIVE, Question, Shape, Told};
use crate::limit::bucket::Ticks;
use crate::limit::calendar;
use crate::limit::key::Secret;
use crate::moment::Moment;
use crate::redis::{Away, Lane, Redis};

/// How often a gateway says that it lives.
const LIVE_EVERY: Duration = Duration::from_millis(500);
/// And while there is no answer.
const TRIED_EVERY: Duration = Duration::from_millis(100);
/// A gateway that has been silent for so long is not counted.
const SILENT: Duration = Duration::from_secs(3);
/// So many questions in a row without an answer in time, and Redis is away.
const MISSES: u32 = 3;
/// While questions remain without an answer, a request waits for this part of the deadline.
const PATIENCE_IN_DOUBT: u32 = 8;
/// So long after the last of them.
const DOUBT: Duration = Duration::from_secs(1);
/// Within this time after its return all leases are asked for again.
const RETURN: Duration = Duration::from_millis(300);

/// One for all plans of a process.
pub struct Store {
    /// This gateway among the others.
    gateway: String,
    redis: OnceLock<Arc<Redis>>,
    secret: OnceLock<Secret>,
    /// To be agreed on, where the operator gave none.
    proposed: Option<Secret>,
    /// Whether any limit is shared.
    is_used: AtomicBool,
    is_away: AtomicBool,
    /// It has been so for so long, in ticks.
    turned_at: AtomicU64,
    misses: AtomicU32,
    doubted_until: AtomicU64,
    doubt: Notify,
    /// The clock of Redis at tick 0, in microseconds; 0: not known.
    clock: AtomicI64,
    gateways: Mutex<Gateways>,
    memory: Mutex<Memory>,
    questions: AtomicU64,
    names: AtomicU64,
}

/// How many gateways there are, or were a moment ago: after a restart of Redis they come back one by one.
#[derive(Clone, Copy)]
struct Gateways {
    count: u64,
    at: Ticks,
}

/// What Redis remembers by, and since when that is so.
#[derive(Default)]
struct Memory {
    name: String,
    /// When another one was lost, in microseconds of the clock there; 0: none was.
    lost: i64,
}

impl Store {
    /// `said`: by the operator; otherwise all gateways agree on one, of which `proposed` is this one's.
    pub fn new(said: Option<Secret>, proposed: Secret) -> Arc<Self> {
        let proposed = said.is_none().then_some(proposed);
        Arc::new(Self {
            gateway: format!("{:x}", uuid::Uuid::new_v4().as_u64_pair().0),
            redis: OnceLock::new(),
            secret: said.map_or_else(OnceLock::new, OnceLock::from),
            proposed,
            is_used: AtomicBool::new(false),
            is_away: AtomicBool::new(true),
            turned_at: AtomicU64::new(0),
            misses: AtomicU32::new(0),
            doubted_until: AtomicU64::new(0),
            doubt: Notify::new(),
            clock: AtomicI64::new(0),
            gateways: Mutex::new(Gateways {
                count: 1,
                at: Ticks(0),
            }),
            memory: Mutex::default(),
            questions: AtomicU64::new(0),
            names: AtomicU64::new(0),
        })
    }

    /// From here on there is a Redis. To be called once, in a runtime; returns when it has answered, or `patience` is
    /// over.
    pub async fn open(self: &Arc<Self>, redis: Arc<Redis>, patience: Duration) {
        if self.redis.set(redis).is_err() {
            return;
        }
        let answered = async {
            while self.is_used() && self.is_away() {
                self.say_alive().await;
                sleep(TRIED_EVERY / 4).await;
            }
        };
        // It starts without, too.
        let _ = timeout(patience, answered).await;
        tokio::spawn(self.clone().live());
    }

    /// Some limit is shared.
    pub fn used(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }

    pub fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    /// Whether limits are decided without it.
    pub fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    /// Since when it is as it is.
    pub fn turned_at(&self) -> Ticks {
        Ticks(self.turned_at.load(Ordering::Relaxed))
    }

    /// By what clients are told apart at all gateways, once that is known.
    pub fn secret(&self) -> Option<&Secret> {
        self.secret.get()
    }

    /// Gateways that live, this one included.
    pub fn gateways(&self) -> u64 {
        self.gateways.lock().count.max(1)
    }

    /// What was asked about buckets.
    pub fn questions(&self) -> u64 {
        self.questions.load(Ordering::Relaxed)
    }

    /// The time of the calendar there, in Unix seconds.
    pub fn unix(&self, now: Moment) -> i64 {
        match self.clock.load(Ordering::Relaxed) {
            0 => calendar::unix(now.system),
            _ => self.time(now.instant).div_euclid(1_000_000),
        }
    }

    /// A name for a lease that no other has.
    pub fn name(&self) -> u64 {
        self.names.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// When all leases may be asked for again that are called so, after a return.
    pub fn jitter(&self, client: u64) -> Ticks {
        let part = ((client >> 32) * RETURN.as_micros() as u64) >> 32;
        later(self.turned_at(), Duration::from_micros(part))
    }

    /// What one question may take.
    pub fn deadline(&self) -> Duration {
        let redis = self.redis.get();
        redis.map_or(Duration::ZERO, |redis| redis.deadline())
    }

    /// What a request may wait for one question. Little where others have no answer: in a cluster those whose bucket is at
    /// a server that is lost would all wait for the deadline, until another has taken its place.
    pub fn patience(&self) -> Duration {
        let until = Ticks(self.doubted_until.load(Ordering::Relaxed));
        match ticks(Instant::now()) < until {
            true => self.deadline() / PATIENCE_IN_DOUBT,
            false => self.deadline(),
        }
    }

    /// Asks about one bucket, and waits no longer than `patience`.
    pub async fn ask(
        &self,
        key: &str,
        question: &Question,
        shape: Shape,
        patience: Duration,
    ) -> Result<Answer, Away> {
        let redis = self.redis.get().ok_or(Away::Connecting)?;
        self.questions.fetch_add(1, Ordering::Relaxed);
        let fresh = self.fresh(shape, question.window);
        let asked = Instant::now();
        let question = Question {
            asked: self.time(asked),
            ..*question
        };
        let call = question.call(&redis.key(key), &self.gateway, shape, fresh);
        let told: Result<Told, Away> = redis.run(Lane::Limits, patience, &call).await;
        let answer = told.and_then(|told| Answer::of(told).ok_or(Away::Unexpected));
        match answer {
            Ok(answer) => {
                if !redis.is_cluster() {
                    self.misses.store(0, Ordering::Relaxed);
                }
                if let Answer::Elsewhen { now } | Answer::Taken(Grant { now, .. }) = answer {
                    self.set_clock(now, asked);
                }
            }
            // Who had little time has learned little.
            Err(Away::Deadline) if patience < redis.deadline() => {}
            // The server of one bucket says nothing of the others.
            Err(_) if redis.is_cluster() => self.doubt(),
            Err(away) => self.missed(away),
        }
        answer
    }

    /// What lies at most in a bucket that Redis knows nothing of. Where it has lost what it knew, those who have used
    /// theirs up may be among the unknown: it is this gateway's share, and what has flowed in since.
    fn fresh(&self, shape: Shape, (begin, _): (i64, i64)) -> Option<f64> {
        let lost = self.memory.lock().lost;
        let share = (shape.burst / self.gateways()).max(1) as f64;
        let level = match shape.is_counter() {
            true => share,
            false => {
                let since = (self.time(Instant::now()) - lost).max(0);
                share + since as f64 / shape.interval
            }
        };
        let is_past = lost == 0 || level >= shape.burst as f64 || lost < begin;
        (!is_past).then_some(level)
    }

    /// Fills a bucket up to what lies in leases.
    pub async fn fill(&self, key: &str) {
        let Some(redis) = self.redis.get() else {
            return;
        };
        let mut call = FILL.prepare_invoke();
        call.key(redis.key(key));
        let filled: Result<u8, Away> = redis.run(Lane::Limits, redis.deadline(), &call).await;
        if let Err(away) = filled {
            tracing::warn!(%away, "what a client has used of a shared limit is still known in Redis");
        }
    }

    /// Nobody is to count this gateway any more.
    pub async fn leave(&self) {
        let Some(redis) = self.redis.get().filter(|_| self.is_used()) else {
            return;
        };
        let mut remove = cmd("ZREM");
        remove.arg(redis.key("{limit}:gateways")).arg(&self.gateway);
        // Without an answer the others find out by themselves.
        let _ = redis.ask::<u64>(Lane::Limits, &remove).await;
    }

    async fn live(self: Arc<Self>) {
        loop {
            let is_well = !self.is_away() && self.misses.load(Ordering::Relaxed) == 0;
            let doubted = async {
                sleep(TRIED_EVERY).await;
                self.doubt.notified().await;
            };
            match is_well || !self.is_used() {
                true => tokio::select! {
                    () = sleep(LIVE_EVERY) => {}
                    () = doubted => {}
                },
                false => sleep(TRIED_EVERY).await,
            }
            if self.is_used() {
                self.say_alive().await;
            }
        }
    }

    async fn say_alive(&self) {
        let Some(redis) = self.redis.get() else {
            return;
        };
        let mut call = LIVE.prepare_invoke();
        call.key(redis.key("{limit}:gateways"));
        call.key(redis.key("{limit}:secret"));
        call.key(redis.key("{limit}:memory"));
        call.arg(&self.gateway).arg(SILENT.as_micros() as u64);
        let known = self.secret.get().or(self.proposed.as_ref());
        let proposed = known.filter(|_| self.proposed.is_some());
        call.arg(proposed.map_or(String::new(), Secret::text));
        call.arg(&self.memory.lock().name);
        let asked = Instant::now();
        let told: Result<(i64, u64, String, String, i64), Away> =
            redis.run(Lane::Limits, redis.deadline(), &call).await;
        match told {
            Ok((now, gateways, secret, name, lost)) => {
                self.set_clock(now, asked);
                self.remember(name, lost);
                self.count(gateways);
                if self.secret.get().is_none() {
                    match Secret::parse(&secret) {
                        // Whoever was first has set the same.
                        Some(secret) => drop(self.secret.set(secret)),
                        None => return self.missed(Away::Unexpected),
                    }
                }
                self.answered();
            }
            Err(away) => self.missed(away),
        }
    }

    fn remember(&self, name: String, lost: i64) {
        let mut memory = self.memory.lock();
        if !memory.name.is_empty() && memory.name != name {
            tracing::warn!(
                "Redis has lost what clients have used of shared limits: unknown ones get a part of their quota"
            );
        }
        *memory = Memory { name, lost };
    }

    fn count(&self, count: u64) {
        let now = ticks(Instant::now());
        let mut gateways = self.gateways.lock();
        if count >= gateways.count || later(gateways.at, SILENT) <= now {
            *gateways = Gateways { count, at: now };
        }
    }

    /// The time there, in microseconds.
    fn time(&self, now: Instant) -> i64 {
        let zero = self.clock.load(Ordering::Relaxed);
        zero + ticks(now).duration().as_micros() as i64
    }

    fn set_clock(&self, now: i64, asked: Instant) {
        let since = ticks(asked).duration().as_micros() as i64;
        self.clock.store(now - since, Ordering::Relaxed);
    }

    fn answered(&self) {
        self.misses.store(0, Ordering::Relaxed);
        if self.is_away.load(Ordering::Relaxed) {
            let since = self.turn(false);
            self.doubted_until.store(0, Ordering::Relaxed);
            tracing::info!(after = ?since, "shared limits are decided with Redis");
        }
    }

    /// Some question had no answer.
    fn doubt(&self) {
        let until = later(ticks(Instant::now()), DOUBT);
        self.doubted_until.store(until.0, Ordering::Relaxed);
        self.doubt.notify_one();
    }

    /// There was no answer.
    fn missed(&self, away: Away) {
        self.doubt();
        let misses = self.misses.fetch_add(1, Ordering::Relaxed) + 1;
        let is_late = matches!(away, Away::Deadline | Away::Busy);
        if is_late && misses < MISSES {
            return;
        }
        let is_first = self.turned_at.load(Ordering::Relaxed) == 0;
        if !self.is_away.load(Ordering::Relaxed) || is_first {
            self.turn(true);
            tracing::warn!(reason = %away, "shared limits are decided without Redis until it answers");
        }
    }

    /// How long it had been otherwise.
    fn turn(&self, is_away: bool) -> Duration {
        let now = ticks(Instant::now());
        let before = self.turned_at.swap(now.0, Ordering::Relaxed);
        self.is_away.store(is_away, Ordering::Relaxed);
        Ticks(now.0.saturating_sub(before)).duration()
    }
}

/// A moment as leases measure it: all of a process from the same one.
pub fn ticks(moment: Instant) -> Ticks {
    static ZERO: LazyLock<Instant> = LazyLock::new(Instant::now);
    Ticks::since(*ZERO, moment)
}

impl std::fmt::Debug for Store {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Store({})", self.gateway)
    }
}
