//! What outlives every request: the plan in force, whether we are going away, and where records go.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use bytes::BytesMut;
use futures::future::join_all;
use http::{HeaderMap, HeaderValue, Method, header};
use tokio::time::MissedTickBehavior;

use crate::cache::counters;
use crate::cache::fill::Fills;
use crate::cache::guard::Guard;
use crate::cache::memory::Memory;
use crate::cache::purger::Purger;
use crate::cache::redis::SharedCache;
use crate::downstream::Downstream;
use crate::exchange::{Exchange, barring, entry, record};
use crate::limit;
use crate::moment::Moment;
use crate::plan::Plan;
use crate::redis::{Patience, Redis};
use crate::refusal::{After, Answer, Asked, Refusal};
use crate::telemetry::Log;

/// How often is looked for what is to be given back.
const LEASES_EVERY: Duration = Duration::from_millis(250);

/// In how many turns all clients of limits are looked at.
const CLEANING_TURNS: u32 = 300;

/// One gateway, shared by its connections and both lanes.
pub struct Gateway {
    plan: ArcSwap<Plan>,
    draining: AtomicBool,
    log: Log,
    memory: Memory,
    shared_cache: Option<SharedCache>,
    fills: Arc<Fills>,
    redis: Option<Arc<Redis>>,
    purger: Purger,
}

impl Gateway {
    /// `memory` holds what is stored, whatever plan is in force; `redis` is what other gateways have too,
    /// with what is stored there, and `purger` tells them what is purged.
    pub fn new(
        plan: Arc<Plan>,
        log: Log,
        memory: Memory,
        redis: Option<Arc<Redis>>,
        shared_cache: Option<SharedCache>,
        purger: Purger,
    ) -> Self {
        Self {
            plan: ArcSwap::new(plan),
            draining: AtomicBool::new(false),
            log,
            memory,
            shared_cache,
            fills: Arc::default(),
            redis,
            purger,
        }
    }

    /// The plan in force now.
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Puts `plan` in force for requests that begin from now on; those under way keep theirs.
    /// Returns the plan before.
    pub fn swap_plan(&self, plan: Arc<Plan>) -> Arc<Plan> {
        self.plan.swap(plan)
    }

    /// From here on answers ask their client to close the connection.
    pub fn begin_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Where records go.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What is stored.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Purges what is stored, here and at other gateways.
    pub fn purger(&self) -> &Purger {
        &self.purger
    }

    /// What all gateways share, where there is such a thing.
    pub fn redis(&self) -> Option<&Arc<Redis>> {
        self.redis.as_ref()
    }

    /// What is stored for all gateways; `None` without a Redis.
    pub fn shared_cache(&self) -> Option<&SharedCache> {
        self.shared_cache.as_ref()
    }

    /// What a request that begins now may wait for Redis.
    pub fn patience(&self) -> Patience {
        let shared = self.shared_cache.as_ref();
        shared.map(SharedCache::patience).unwrap_or_default()
    }

    /// What is being asked to be stored.
    pub fn fills(&self) -> &Arc<Fills> {
        &self.fills
    }

    /// What is kept out of it.
    pub fn guard(&self) -> &Guard {
        self.purger.guard()
    }

    /// Lets the counters of every route remember where they stand, for as long as the process lives.
    pub async fn sample_counters(self: Arc<Self>) {
        let mut every = tokio::time::interval(counters::EVERY);
        loop {
            every.tick().await;
            for counters in self.plan().counters.values() {
                counters.sample();
            }
        }
    }

    /// Ends bans whose time is over, for as long as the process lives.
    pub async fn tidy_bans(self: Arc<Self>) {
        let mut every = tokio::time::interval(Duration::from_secs(1));
        loop {
            let now = every.tick().await;
            let plan = self.plan();
            aside(move || plan.bans.tidy(now.into_std())).await;
        }
    }

    /// Forgets, all the time a few, the clients of limits of whom nothing need be remembered.
    pub async fn clean_limits(self: Arc<Self>) {
        let mut every = tokio::time::interval(limit::CLEANED_EVERY / CLEANING_TURNS);
        for turn in 0.. {
            every.tick().await;
            let plan = self.plan();
            if plan.rules.is_empty() {
                continue;
            }
            aside(move || {
                for rule in plan.rules.values() {
                    let turns = CLEANING_TURNS as usize;
                    rule.live.clean(turn, turns, Moment::now());
                }
            })
            .await;
        }
    }

    /// Gives back, all the time, what nobody has used lately of the limits of all gateways.
    pub async fn return_leases(self: Arc<Self>) {
        let mut every = tokio::time::interval(LEASES_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.return_some(false).await;
        }
    }

    /// This gateway uses nothing more of the limits of all gateways: what it holds of them goes back.
    pub async fn leave_limits(&self) {
        self.return_some(true).await;
        self.plan().limit_store.leave().await;
    }

    async fn return_some(&self, end: bool) {
        let plan = self.plan();
        let rules = plan.rules.values().filter(|rule| rule.sharing.is_some());
        join_all(rules.map(|rule| rule.return_leases(end))).await;
    }

    /// The bytes to answer a message with that is no request: no lane sees it. It is recorded like
    /// any other. `read` is what arrived of the message.
    pub fn refuse_unparsed(
        &self,
        downstream: &Downstream,
        read: &[u8],
        refusal: Refusal,
        began: Instant,
    ) -> BytesMut {
        let mut exchange = Exchange::new(self.plan());
        exchange.began = began;
        entry::identify(&mut exchange, downstream, None);
        // What it would have been is not known; that an answer follows is.
        let fields = legible_accept(read);
        let barred = barring::check(&exchange, downstream).err();
        let refusal = barred.unwrap_or(refusal);
        let mut wire = BytesMut::new();
        let mut sent = 0;
        if !refusal.is_silent() {
            let answer = self.refusal_answer(&exchange, &refusal, &Method::GET, &fields);
            exchange.status = answer.head.status.as_u16();
            sent = answer.body.len();
            wire = answer.to_wire(After::Close, SystemTime::now());
        }
        exchange.refusal = Some(refusal);
        record::unparsed(&self.log, &exchange, downstream, read, sent);
        wire
    }

    /// `refusal` dressed for this request, in the form that its fields ask for.
    pub fn refusal_answer(
        &self,
        exchange: &Exchange,
        refusal: &Refusal,
        method: &Method,
        fields: &HeaderMap,
    ) -> Answer {
        let accept = accepted(fields);
        let asked = Asked {
            accept: accept.as_deref(),
            head: method == Method::HEAD,
            request_id: &exchange.request_id,
        };
        let mut answer = refusal.answer(&asked, &exchange.plan.pages);
        entry::dress(exchange, &mut answer.head);
        answer
    }
}

/// Does `work` on a thread where no request waits behind it: it may give memory back to the system, or write many lines.
async fn aside(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::error!(%error, "housekeeping ended early");
    }
}

/// The lines of `Accept` among bytes that are no request: whoever sent them is to understand why. Decides nothing else.
fn legible_accept(read: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    let lines = read.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    // The empty lines before a request line are none of its own.
    let lines = lines.skip_while(|line| line.is_empty());
    for line in lines.take_while(|line| !line.is_empty()) {
        let name = line.get(..b"accept:".len()).unwrap_or_default();
        if name.eq_ignore_ascii_case(b"accept:") {
            let value = HeaderValue::from_bytes(line[name.len()..].trim_ascii());
            value.map(|value| fields.append(header::ACCEPT, value)).ok();
        }
    }
    fields
}

/// The lines of `Accept`, joined as RFC 9110 5.2 says.
fn accepted(fields: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    let mut lines = fields.get_all(header::ACCEPT).iter();
    let first = Cow::Borrowed(lines.next()?.as_bytes());
    Some(lines.fold(first, |all, line| {
        Cow::Owned([&all, line.as_bytes()].join(&b", "[..]))
    }))
}
