//! Buckets and counters of all gateways that share a Redis. Each gateway takes tokens in leases, spends them by itself and
//! gives back what it does not need; or, where it is to be exact, asks for each request.
//!
//! ```text
//! take ──► lease has tokens ─────────────────────────────────► taken       (near the end of them more are asked for, unseen)
//!          lease is empty ──► one question for all who wait ──► taken, or used up until a certain time
//!          Redis is away ───► a fair share of the quota here, or everybody, or nobody
//! ```
//!
//! - `script`: what Redis does; `lease`: what this gateway holds, and when it asks; `store`: whether Redis is there

pub mod lease;
#[cfg(test)]
mod model;
pub mod script;
pub mod store;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::lease::{Lease, later};
use self::script::{Answer, Shape};
use self::store::{Store, ticks};
use super::bucket::{Ticks, Turn};
use super::key::Digest;
use super::local::{Exceeded, Local, Meter, Standing};
use super::table::Table;
use crate::moment::Moment;
use crate::redis::Away;
use crate::word::choice;

choice! {
    /// Who counts together.
    pub enum Share: "share of a limit" {
        /// Each gateway by itself.
        ThisGateway = "this-gateway",
        /// All that share a Redis.
        AllGateways = "all-gateways",
    }

    /// What holds while Redis does not answer.
    pub enum WhenAway: "rule for a store that is away" {
        /// This gateway lets in its share of the quota: as many parts of it as there are gateways.
        FairShare = "fair-share",
        /// Everybody is let in.
        Open = "open",
        /// Nobody is.
        Closed = "closed",
    }
}

/// How a rule is shared.
#[derive(Clone, Debug)]
pub struct Sharing {
    pub store: Arc<Store>,
    /// Redis is asked for each request.
    pub exact: bool,
    pub when_away: WhenAway,
}

/// What this gateway holds of the buckets of one rule.
pub struct Leases {
    rule: Box<str>,
    table: Table<Held>,
    /// Leases that may have something to give back or to say, with the time to look at them.
    due: Mutex<VecDeque<(Ticks, Digest, Meter)>>,
}

/// A lease, and what is under way about it.
#[derive(Default)]
struct Held {
    lease: Lease,
    asking: Option<CancellationToken>,
    /// There was no answer for it: nobody asks before.
    unanswered_until: Ticks,
    /// Its share of the quota has begun to be spent.
    is_sharing: bool,
    is_due: bool,
}

/// How it went with one quota.
pub enum Outcome {
    Taken(Standing, Source, Turn),
    Exceeded(Exceeded),
    /// Redis is away, and nobody is let in.
    Closed,
    /// It is known when that has an answer.
    Asking(Asking),
}

/// Where tokens came from, and go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The bucket of this gateway.
    Here,
    /// A lease.
    Lease,
    /// The share of this gateway while Redis is away.
    Share,
    /// Nowhere: all are let in.
    Nowhere,
}

/// A question that a request waits for.
pub enum Asking {
    /// Others wait for it too; this one no longer than that.
    Lease(CancellationToken, Duration),
    Exact(Box<Exact>),
}

/// A question for one request.
pub struct Exact {
    store: Arc<Store>,
    leases: Arc<Leases>,
    client: Digest,
    meter: Meter,
    cost: u64,
}

/// What a request heard that waited.
#[derive(Clone, Copy, Debug)]
pub enum Heard {
    /// There is something new of the lease.
    Lease,
    /// There may be later.
    Late,
    /// Whether the tokens were there.
    Exact(Result<bool, Away>),
}

/// A lease of which nobody spends for so long is given back.
const IDLE: Duration = Duration::from_millis(1500);
/// Leases that are given back at once.
const MOST_RETURNED: usize = 64;
/// How long nobody asks again about a bucket of which there was no answer.
const UNANSWERED: Duration = Duration::from_millis(250);
/// How long a client is remembered of whom nothing is held.
const REMEMBERED: Duration = Duration::from_secs(60);
/// When those are told to come back who are refused because Redis is away.
pub const CLOSED_FOR: Duration = Duration::from_secs(1);
/// Questions that one request waits for, for one quota.
pub const MOST_WAITS: u8 = 3;

impl Leases {
    /// Of the rule of this name, for at most `clients`.
    pub fn new(rule: &str, clients: usize) -> Arc<Self> {
        Arc::new(Self {
            rule: rule.into(),
            table: Table::new(clients),
            due: Mutex::default(),
        })
    }

    /// Whether anything is remembered of a client.
    pub fn knows(&self, client: Digest) -> bool {
        self.table.look(client, |_| ()).is_some()
    }

    /// Buckets that are remembered.
    pub fn buckets(&self) -> usize {
        self.table.clients()
    }

    /// Takes `cost`, or nothing. `heard`: what a question before has come to;
    /// without patience nobody waits for another one.
    #[expect(clippy::too_many_arguments, reason = "all of it is one question")]
    pub fn take(
        self: &Arc<Self>,
        sharing: &Sharing,
        local: &Local,
        meter: &Meter,
        client: Digest,
        cost: u64,
        now: Moment,
        (heard, is_patient): (Option<Heard>, bool),
    ) -> Outcome {
        let store = &sharing.store;
        let at = ticks(now.instant);
        let (shape, window) = (meter.shape(), meter.window(store.unix(now)));
        let asks = Asks {
            is_away: store.is_away() || store.secret().is_none(),
            returns_at: store.jitter(client.0[0]),
            exact: sharing.exact,
            is_closed: sharing.when_away == WhenAway::Closed,
            is_first: heard.is_none(),
            is_patient,
        };
        let (step, left, wait) = self.change(client, shape, at, |held| {
            let step = match heard {
                Some(Heard::Exact(Ok(true))) => Step::Taken,
                Some(Heard::Exact(Ok(false))) => Step::Empty,
                Some(Heard::Exact(Err(_)) | Heard::Late) => Step::Away,
                Some(Heard::Lease) | None => held.step(cost, at, asks),
            };
            let left = held.lease.standing(shape, window.1, at);
            (step, left, held.lease.wait(at))
        });
        let taken = || {
            Outcome::taken(
                standing(shape, window, left, store.unix(now)),
                Source::Lease,
            )
        };
        match step {
            Step::Taken => taken(),
            Step::Low(asking) => {
                self.ask(store, meter, client, 0, asking, now);
                taken()
            }
            Step::Empty => {
                let all = standing(shape, window, left, store.unix(now));
                let standing = Standing { left: 0, ..all };
                Outcome::Exceeded(Exceeded { wait, standing })
            }
            Step::Away => self.away(sharing, local, meter, client, cost, now),
            Step::Wait(asking) => Outcome::Asking(Asking::Lease(asking, store.patience())),
            Step::Ask(asking) => {
                let landed = asking.clone();
                self.ask(store, meter, client, cost, asking, now);
                Outcome::Asking(Asking::Lease(landed, store.patience()))
            }
            Step::Exact => Outcome::Asking(Asking::Exact(Box::new(Exact {
                store: store.clone(),
                leases: self.clone(),
                client,
                meter: meter.clone(),
                cost,
            }))),
        }
    }

    /// How a client stands, as far as this gateway knows. Nothing changes by it.
    pub fn standing(
        &self,
        sharing: &Sharing,
        client: Digest,
        meter: &Meter,
        now: Moment,
    ) -> Standing {
        let (at, unix) = (ticks(now.instant), sharing.store.unix(now));
        let (shape, window) = (meter.shape(), meter.window(unix));
        let left = self
            .table
            .look(client, |held| held.lease.standing(shape, window.1, at));
        standing(shape, window, left.unwrap_or(shape.burst), unix)
    }

    /// How a client stands, or when what it asks for is there, as far as this gateway knows. Nothing changes by it.
    pub fn look(
        &self,
        sharing: &Sharing,
        client: Digest,
        meter: &Meter,
        cost: u64,
        now: Moment,
    ) -> Result<Standing, Exceeded> {
        let standing = self.standing(sharing, client, meter, now);
        if standing.left >= cost {
            return Ok(standing);
        }
        let shape = meter.shape();
        let wait = match shape.is_counter() {
            true => standing.reset,
            false => {
                let missing = (cost - standing.left) as f64;
                Duration::from_micros((missing * shape.interval) as u64)
            }
        };
        Err(Exceeded { wait, standing })
    }

    /// Forgets what a client has used, here and in Redis; whether there was something here.
    pub fn reset(&self, sharing: &Sharing, local: &Local, client: Digest) -> bool {
        let store = sharing.store.clone();
        let keys = [false, true].map(|is_counter| self.key(client, is_counter));
        tokio::spawn(async move {
            for key in keys {
                store.fill(&key).await;
            }
        });
        local.reset(client);
        self.table
            .look(client, |held| held.lease.forget_level())
            .is_some()
    }

    /// Gives back what was taken and not used.
    pub fn give_back(
        &self,
        sharing: &Sharing,
        local: &Local,
        meter: &Meter,
        client: Digest,
        (cost, source): (u64, Source),
        now: Moment,
    ) {
        let at = ticks(now.instant);
        match source {
            Source::Share => {
                let share = meter.share(sharing.store.gateways());
                local.give_back(client, &share, cost, now);
                self.table.look(client, |held| held.lease.forgive(cost));
            }
            Source::Lease => {
                self.table
                    .look(client, |held| held.lease.give_back(cost, meter.shape(), at));
            }
            Source::Here | Source::Nowhere => return,
        }
        self.look_later(client, meter, at);
    }

    /// Takes what was used already, be it there or not.
    pub fn debit(
        &self,
        sharing: &Sharing,
        local: &Local,
        meter: &Meter,
        client: Digest,
        (cost, source): (u64, Source),
        now: Moment,
    ) {
        let at = ticks(now.instant);
        match source {
            Source::Share => {
                let share = meter.share(sharing.store.gateways());
                local.debit(client, &share, cost, now);
                self.change(client, meter.shape(), at, |held| held.lease.owe(cost, at));
            }
            Source::Lease => {
                self.change(client, meter.shape(), at, |held| held.lease.owe(cost, at))
            }
            Source::Here | Source::Nowhere => return,
        }
        self.look_later(client, meter, at);
    }

    /// Gives back what nobody has wanted for a while, a few leases at a time; or, at the `end`, of all.
    pub async fn return_idle(self: &Arc<Self>, store: &Arc<Store>, end: bool) {
        let mut rest = self.due.lock().len();
        while rest > 0 && !store.is_away() {
            let now = Moment::now();
            let at = ticks(now.instant);
            let due: Vec<_> = {
                let mut due = self.due.lock();
                let first = due.iter().take(rest.min(MOST_RETURNED));
                let count = first.take_while(|(when, ..)| end || *when <= at).count();
                due.drain(..count).collect()
            };
            if due.is_empty() {
                return;
            }
            // What is put back is for another time.
            rest -= due.len();
            let returned = due
                .into_iter()
                .filter_map(|(_, client, meter)| self.return_one(store, meter, client, now, end));
            join_all(returned).await;
        }
    }

    /// Forgets clients, in one piece of the table, of whom nothing is held and nobody has heard for a while.
    pub fn clean(&self, piece: usize, now: Moment) {
        let at = ticks(now.instant);
        self.table.clean(piece, |held| {
            held.is_due || held.asking.is_some() || !held.lease.is_idle(REMEMBERED, at)
        });
    }

    pub fn pieces(&self) -> usize {
        self.table.pieces()
    }

    /// As Redis knows the bucket of a client.
    fn key(&self, client: Digest, is_counter: bool) -> String {
        let kind = if is_counter { ":calendar" } else { "" };
        format!(
            "limit:{{{}:{:016x}{:016x}}}{kind}",
            self.rule, client.0[0], client.0[1]
        )
    }

    fn change<R>(
        &self,
        client: Digest,
        shape: Shape,
        at: Ticks,
        change: impl FnOnce(&mut Held) -> R,
    ) -> R {
        self.table.with(client, Held::worth, |held| {
            if held.lease.fit(shape, at) {
                // What was to be returned of it was so by another quota.
                held.is_due = false;
            }
            change(held)
        })
    }

    /// Decides without Redis.
    fn away(
        &self,
        sharing: &Sharing,
        local: &Local,
        meter: &Meter,
        client: Digest,
        cost: u64,
        now: Moment,
    ) -> Outcome {
        let store = &sharing.store;
        let at = ticks(now.instant);
        match sharing.when_away {
            WhenAway::Closed => return Outcome::Closed,
            WhenAway::Open => {
                let standing = Standing {
                    left: meter.most(),
                    reset: Duration::ZERO,
                };
                return Outcome::taken(standing, Source::Nowhere);
            }
            WhenAway::FairShare => {}
        }
        let gateways = store.gateways();
        let share = meter.share(gateways);
        let begins = self.change(client, meter.shape(), at, |held| {
            let begins = !std::mem::replace(&mut held.is_sharing, true);
            let ends = meter.window(store.unix(now)).1;
            begins.then(|| held.lease.level(meter.shape(), ends, at))
        });
        if let Some(level) = begins {
            local.reset(client);
            let used = share.most().saturating_sub(level / gateways);
            if used > 0 {
                local.debit(client, &share, used, now);
            }
        }
        match local.take(client, &share, cost, now) {
            Ok(standing) => {
                self.change(client, meter.shape(), at, |held| held.lease.owe(cost, at));
                self.look_later(client, meter, at);
                Outcome::taken(standing, Source::Share)
            }
            Err(exceeded) => Outcome::Exceeded(exceeded),
        }
    }

    /// Asks for tokens, without anybody waiting for it here.
    fn ask(
        self: &Arc<Self>,
        store: &Arc<Store>,
        meter: &Meter,
        client: Digest,
        cost: u64,
        asking: CancellationToken,
        now: Moment,
    ) {
        let flight = Flight {
            leases: self.clone(),
            client,
            _landing: asking.drop_guard(),
        };
        let (store, meter) = (store.clone(), meter.clone());
        tokio::spawn(async move { flight.run(&store, &meter, cost, now).await });
    }

    /// What is to be returned of one lease, if anything is; otherwise it is looked at later, or never.
    fn return_one<'a>(
        self: &'a Arc<Self>,
        store: &'a Arc<Store>,
        meter: Meter,
        client: Digest,
        now: Moment,
        end: bool,
    ) -> Option<impl Future<Output = ()> + 'a> {
        let at = ticks(now.instant);
        let window = meter.window(store.unix(now));
        let shape = meter.shape();
        let question = self.table.look(client, |held| {
            if !held.lease.is_like(shape) {
                return None;
            }
            held.is_due = false;
            if !held.lease.has_something(at) {
                return None;
            }
            let is_idle = end || held.lease.is_idle(IDLE, at);
            if !is_idle || held.asking.is_some() {
                self.look_later_at(held, client, &meter, at);
                return None;
            }
            let question = held.lease.returning(window, at, store.name())?;
            held.asking = Some(CancellationToken::new());
            Some(question)
        })??;
        Some(async move {
            let key = self.key(client, shape.is_counter());
            let answer = store.ask(&key, &question, shape, store.deadline()).await;
            self.table.look(client, |held| {
                if let Some(asking) = held.asking.take() {
                    asking.cancel();
                }
                match answer {
                    Ok(Answer::Taken(grant)) => {
                        held.lease.hear(&question, &grant, at, shape);
                    }
                    // What was not heard is said with the next question.
                    _ => self.look_later_at(held, client, &meter, at),
                }
            });
        })
    }

    fn look_later(&self, client: Digest, meter: &Meter, at: Ticks) {
        self.table
            .look(client, |held| self.look_later_at(held, client, meter, at));
    }

    fn look_later_at(&self, held: &mut Held, client: Digest, meter: &Meter, at: Ticks) {
        if !std::mem::replace(&mut held.is_due, true) {
            let when = later(at, IDLE);
            self.due.lock().push_back((when, client, meter.clone()));
        }
    }
}

/// How a client stands that could have `left` tokens.
fn standing(shape: Shape, window: (i64, i64), left: u64, unix: i64) -> Standing {
    let reset = match window {
        (0, 0) => {
            let missing = shape.burst.saturating_sub(left) as f64;
            Duration::from_micros((missing * shape.interval) as u64)
        }
        (_, ends) => Duration::from_secs((ends / 1_000_000 - unix).max(0) as u64),
    };
    Standing { left, reset }
}

/// What decides over whether there is a question.
#[derive(Clone, Copy)]
struct Asks {
    is_away: bool,
    /// After an outage nobody asks about this bucket before.
    returns_at: Ticks,
    exact: bool,
    /// Without Redis nobody is let in, whatever lies in leases.
    is_closed: bool,
    /// The request has not waited yet.
    is_first: bool,
    is_patient: bool,
}

/// What is to be done for one request.
enum Step {
    Taken,
    /// Taken, and more is to be asked for.
    Low(CancellationToken),
    Empty,
    Away,
    Wait(CancellationToken),
    Ask(CancellationToken),
    Exact,
}

impl Held {
    fn step(&mut self, cost: u64, at: Ticks, asks: Asks) -> Step {
        if asks.is_first {
            self.lease.note(cost, at);
        }
        if cost == 0 {
            return Step::Taken;
        }
        if asks.is_away && asks.is_closed {
            return Step::Away;
        }
        let answers = !asks.is_away && at >= self.unanswered_until;
        let is_back = answers && (!self.is_sharing || at >= asks.returns_at);
        if asks.exact {
            return if is_back { Step::Exact } else { Step::Away };
        }
        if self.lease.take(cost, at) {
            let asks_more = is_back && self.asking.is_none() && self.lease.is_low(at);
            return match asks_more {
                true => Step::Low(self.begin()),
                false => Step::Taken,
            };
        }
        if !is_back {
            return Step::Away;
        }
        if let Some(asking) = self.asking.as_ref().filter(|_| asks.is_patient) {
            return Step::Wait(asking.clone());
        }
        if self.asking.is_some() || !asks.is_patient || !self.lease.may_ask(at) {
            return Step::Empty;
        }
        Step::Ask(self.begin())
    }

    fn begin(&mut self) -> CancellationToken {
        self.asking.insert(CancellationToken::new()).clone()
    }

    /// Who was here last stays: what is forgotten of the others stands in Redis.
    fn worth(&self) -> (bool, u64) {
        (self.asking.is_some(), self.lease.used_at().0)
    }
}

/// A question about a lease that is under way. Whoever waits goes on when it is dropped.
struct Flight {
    leases: Arc<Leases>,
    client: Digest,
    _landing: DropGuard,
}

impl Flight {
    async fn run(self, store: &Arc<Store>, meter: &Meter, cost: u64, now: Moment) {
        let (leases, client) = (&self.leases, self.client);
        let shape = meter.shape();
        let key = leases.key(client, shape.is_counter());
        let mut now = now;
        // Once more if the calendar there is at another page.
        for _ in 0..2 {
            let at = ticks(now.instant);
            let window = meter.window(store.unix(now));
            let question = leases.change(client, shape, at, |held| {
                held.lease.question(cost, shape, window, at, store.name())
            });
            let answer = store.ask(&key, &question, shape, store.deadline()).await;
            match answer {
                Ok(Answer::Elsewhen { .. }) => now = Moment::now(),
                Ok(Answer::Taken(grant)) => {
                    leases.table.look(client, |held| {
                        held.lease.hear(&question, &grant, at, shape);
                        held.is_sharing = false;
                        held.unanswered_until = Ticks(0);
                        leases.look_later_at(held, client, meter, at);
                    });
                    break;
                }
                Ok(Answer::Late) | Err(_) => {
                    let until = later(ticks(Instant::now()), UNANSWERED);
                    leases
                        .table
                        .look(client, |held| held.unanswered_until = until);
                    break;
                }
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.leases
            .table
            .look(self.client, |held| held.asking = None);
    }
}

impl Outcome {
    fn taken(standing: Standing, source: Source) -> Self {
        Self::Taken(standing, source, Turn::default())
    }
}

impl Asking {
    /// Waits for the answer, no longer than Redis may be waited for.
    pub async fn heard(self) -> Heard {
        match self {
            Self::Lease(landed, patience) => match timeout(patience, landed.cancelled()).await {
                Ok(()) => Heard::Lease,
                Err(_) => Heard::Late,
            },
            Self::Exact(exact) => Heard::Exact(exact.ask().await),
        }
    }
}

impl Exact {
    async fn ask(self) -> Result<bool, Away> {
        let (leases, client) = (&self.leases, self.client);
        let shape = self.meter.shape();
        let key = leases.key(client, shape.is_counter());
        let mut outcome = Err(Away::Unexpected);
        for _ in 0..2 {
            let now = Moment::now();
            let at = ticks(now.instant);
            let window = self.meter.window(self.store.unix(now));
            let question = leases.change(client, shape, at, |held| {
                held.lease.exact(self.cost, window, at)
            });
            let patience = self.store.patience();
            match self.store.ask(&key, &question, shape, patience).await {
                Ok(Answer::Taken(grant)) => {
                    leases.change(client, shape, at, |held| {
                        held.lease.learn(&grant, at, window.1);
                        held.is_sharing = false;
                    });
                    return Ok(grant.tokens > 0);
                }
                Ok(_) => {}
                Err(away) => {
                    outcome = Err(away);
                    leases.change(client, shape, at, |held| {
                        held.lease.unheard(&question);
                        let until = later(at, UNANSWERED);
                        held.unanswered_until = until;
                    });
                    break;
                }
            }
        }
        outcome
    }
}
