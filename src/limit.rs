//! Throttling: who may use how much. A rule is quotas and a key; a request takes what it costs of every quota of every
//! rule of its route, or of none.
//!
//! It answers with values: how a client stands, or by what it is held back. What becomes of that, `headers::limit` and
//! `refusal` know.

pub mod ban;
pub mod bucket;
pub mod calendar;
pub mod heavy;
mod hold;
pub mod in_flight;
pub mod jwt;
pub mod key;
pub mod local;
pub mod plans;
pub mod quota;
pub mod shared;
pub mod stands;
pub mod table;
pub mod tally;
pub mod waiting;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use smallvec::SmallVec;

use self::bucket::Turn;
use self::heavy::{Heavy, Known};
use self::hold::Met;
pub use self::hold::Mode;
use self::in_flight::{InFlight, Place};
use self::key::{Asker, Digest, Key, Prefixes, Secret};
use self::local::{Exceeded, Local, Meter, Standing};
use self::quota::{Quota, Unit};
use self::shared::{Asking, CLOSED_FOR, Heard, Leases, MOST_WAITS, Outcome, Sharing, Source};
use self::tally::Tally;
use self::waiting::{Wait, Waiting};
use crate::client::Networks;
use crate::moment::Moment;
use crate::target::PathPrefix;
use crate::word::choice;

choice! {
    /// The fields by which clients are told how they stand.
    pub enum Fields: "form of rate limit fields" {
        /// `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers-11.
        Draft11 = "draft-11",
        /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
        XRateLimit = "x-ratelimit",
        Off = "off",
    }
}

/// One limit, as a plan has it.
#[derive(Debug)]
pub struct Rule {
    pub name: Box<str>,
    /// The plan whose quotas these are, where the plans of its clients decide.
    pub plan: Option<Box<str>>,
    pub key: Key,
    pub prefixes: Prefixes,
    /// From 1 on; what each is called towards clients.
    pub meters: Box<[(Meter, Box<str>)]>,
    /// How many requests of one client may be under way at once; `None` is any number.
    pub in_flight: Option<Concurrency>,
    pub cost: Cost,
    pub mode: Mode,
    /// Of a refusal.
    pub status: StatusCode,
    pub fields: Fields,
    pub exempt: Exempt,
    pub secret: Secret,
    /// `None`: each gateway counts by itself.
    pub sharing: Option<Sharing>,
    pub live: Arc<Live>,
}

/// A bound of what is under way at once, and what it is called towards clients.
#[derive(Debug)]
pub struct Concurrency {
    /// At least 1.
    pub most: u32,
    pub policy: Box<str>,
}

/// What of a rule lives on from plan to plan: what has been used.
pub struct Live {
    local: Local,
    /// What is held of the buckets of all gateways.
    pub leases: Arc<Leases>,
    /// New names that each address may still bring.
    names: Local,
    pub in_flight: Arc<InFlight>,
    /// For how many clients there is room.
    pub clients: usize,
    pub tally: Tally,
    pub heavy: Heavy,
    /// Requests that wait: for their turn, or to be refused.
    pub waiting: Arc<Waiting>,
}

/// What a request takes.
#[derive(Debug)]
pub struct Cost {
    /// Of requests that nothing else is said of; 0 is free.
    pub each: u64,
    /// The first that fits counts.
    pub special: Box<[SpecialCost]>,
    /// What a request takes that is answered from the cache, if that is something else.
    pub cache_hit: Option<u64>,
    /// The field of a response in which the application says what the request has cost in all.
    pub said_in: Option<HeaderName>,
}

/// What some requests take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialCost {
    pub method: Option<Method>,
    pub path: Option<PathPrefix>,
    pub tokens: u64,
}

/// Whose requests are not counted.
#[derive(Debug, Default)]
pub struct Exempt {
    pub clients: Networks,
    pub paths: Box<[PathPrefix]>,
    /// A request with one of these fields and values.
    pub fields: Box<[(HeaderName, HeaderValue)]>,
}

/// What one request has taken so far, and how its client stands by that. What is under way counts until this is
/// dropped or [left](Taken::leave).
#[derive(Debug, Default)]
pub struct Taken {
    charges: SmallVec<[Charge; 2]>,
    entries: SmallVec<[Entered; 1]>,
    /// Where it goes on when it has heard what it waits for.
    halted: Option<Box<Step>>,
    /// What is to be waited for, whether it goes on then or is refused.
    wait: Option<Box<Wait>>,
    /// A rule in shadow would have refused it: the further ones would not have been asked.
    is_shadowed: bool,
}

/// How far a request has come with one rule.
#[derive(Debug)]
struct Step {
    /// The place of the rule among those of the route.
    place: usize,
    /// The quota that is next.
    meter: usize,
    client: Known,
    cost: u64,
    /// The first charge of this rule.
    first: usize,
    /// It counts among those under way.
    has_entered: bool,
    heard: Option<Heard>,
    waits: u8,
}

/// Why a request does not go on.
pub enum Held {
    /// It is one too many.
    Back(Limited),
    /// It waits for an answer; [`Taken::hear`] it and take again.
    Until(Asking),
}

/// Of one bound of what is under way. `rule` is a place in the rules of the route.
#[derive(Debug)]
struct Entered {
    rule: u16,
    /// How many more there may be.
    left: u32,
    /// `None`: there was none, and nobody minds; or it has been left.
    place: Option<Place>,
}

/// Of one quota. `rule` and `meter` are places in the rules of the route, and in the rule.
#[derive(Clone, Copy, Debug)]
pub struct Charge {
    rule: u16,
    meter: u16,
    client: Digest,
    cost: u64,
    /// After it; `None` if nothing was there to be taken, and nobody minds.
    standing: Standing,
    is_taken: bool,
    source: Source,
    /// When the day or month begins anew that it was taken of, in Unix seconds.
    ends: Option<i64>,
    /// Of a rule by which requests wait for their turn.
    turn: Option<Turn>,
}

/// Which bound of a rule it is that holds a request back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A quota is used up.
    Quota,
    /// As many requests of this client are under way as there may be.
    InFlight,
    /// A quota of which it is not known how much is used, and then nobody is let in.
    StoreAway,
}

/// What a rule holds a request back by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    pub bound: Bound,
    /// What it is called towards clients.
    pub policy: Box<str>,
    pub status: StatusCode,
    /// Until all rules that the request has met or would meet next allow it; not less than what is told of quotas that
    /// do not. Nobody knows that of what is under way.
    pub retry_after: Duration,
}

/// The moment in a request at which rules are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has a route that stores nothing for it: all rules.
    Whole,
    /// It has a route that may have an answer stored: the rules for which that makes no difference.
    Entry,
    /// It is answered from the cache: the others.
    Hit,
    /// The application is asked: the others.
    Origin,
}

/// How long it takes until everybody was looked at who may be forgotten.
pub const CLEANED_EVERY: Duration = Duration::from_secs(30);

/// How many new names an address may bring, if clients choose their names by themselves.
const NEW_NAMES: &str = "100 per minute";

/// Of so many clients one address is remembered that has brought new names: it has all of its budget again within a
/// minute, and where there is no room the one goes that has brought the fewest.
const NAMED: usize = 4;

/// When it is worth coming back while requests are under way: nobody knows when they end.
const AFTER_OTHERS: Duration = Duration::from_secs(1);

impl Live {
    /// For `clients` of the rule of this name with so many `quotas`.
    pub fn new(rule: &str, clients: usize, quotas: usize, zero: Instant) -> Self {
        let buckets = clients.saturating_mul(quotas.max(1));
        Self {
            local: Local::new(buckets, zero),
            leases: Leases::new(rule, buckets),
            names: Local::new(clients.div_ceil(NAMED), zero),
            in_flight: Arc::default(),
            clients,
            tally: Tally::default(),
            heavy: Heavy::new(zero),
            waiting: Arc::default(),
        }
    }

    /// Forgets what need not be remembered of a share of the clients, `turn` by `turn` another one. Nobody waits for more of it
    /// than one piece of a table.
    pub fn clean(&self, turn: usize, turns: usize, now: Moment) {
        let each = self.leases.pieces().div_ceil(turns);
        for piece in 0..each {
            self.leases
                .clean(turn.wrapping_mul(each).wrapping_add(piece), now);
        }
        for table in [&self.local, &self.names] {
            let each = table.pieces().div_ceil(turns);
            for piece in 0..each {
                table.clean(turn.wrapping_mul(each).wrapping_add(piece), now);
            }
        }
    }

    /// Buckets that are remembered, of this gateway and of all.
    pub fn buckets(&self) -> usize {
        self.local.buckets() + self.leases.buckets()
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Live")
    }
}

impl Rule {
    /// Whether what a request takes is known only when the cache has been asked.
    fn awaits_cache(&self) -> bool {
        self.cost.cache_hit.is_some()
    }

    fn is_asked(&self, phase: Phase) -> bool {
        match phase {
            Phase::Whole => true,
            Phase::Entry => !self.awaits_cache(),
            Phase::Hit | Phase::Origin => self.awaits_cache(),
        }
    }

    /// What `request` takes at this phase.
    fn cost_of(&self, method: &Method, path: &str, phase: Phase) -> u64 {
        match (phase, self.cost.cache_hit) {
            (Phase::Hit, Some(cost)) => cost,
            _ => self.cost.of(method, path),
        }
    }

    /// Who is counted for this request.
    ///
    /// A name that clients choose by themselves is theirs as long as their address has not brought too many new ones;
    /// then the address counts: nobody gets a fresh bucket for the asking, nor fills the memory of others.
    fn client(&self, asker: &Asker<'_>, now: Moment) -> Known {
        let secret = self.secret();
        let counted = self.key.of(asker, self.prefixes, secret);
        let knows = |digest| match &self.sharing {
            Some(_) => self.live.leases.knows(digest),
            None => self.live.local.knows(digest),
        };
        if !counted.is_claimed || knows(counted.digest) {
            return self.known(counted, asker);
        }
        let address = key::client_ip().of(asker, self.prefixes, secret);
        let budget = new_names();
        let counted = match self.live.names.take(address.digest, budget, 1, now) {
            Ok(_) => counted,
            Err(_) => address,
        };
        self.known(counted, asker)
    }

    /// By what clients are told apart; of a shared rule, at all gateways the same.
    fn secret(&self) -> &Secret {
        let shared = self.sharing.as_ref().and_then(|one| one.store.secret());
        shared.unwrap_or(&self.secret)
    }

    /// Takes `cost` of one quota.
    fn take(&self, number: usize, step: &Step, client: Digest, cost: u64, now: Moment) -> Outcome {
        let meter = &self.meters[number].0;
        let Some(sharing) = &self.sharing else {
            let (local, patience) = (&self.live.local, self.mode.patience());
            return match local.take_turn(client, meter, cost, patience, now) {
                Ok((standing, turn)) => Outcome::Taken(standing, Source::Here, turn),
                Err(exceeded) => Outcome::Exceeded(exceeded),
            };
        };
        let waits = (step.heard, step.waits < MOST_WAITS);
        let leases = &self.live.leases;
        leases.take(sharing, &self.live.local, meter, client, cost, now, waits)
    }

    /// As [`Rule::take`], by what is known here. Nothing changes by it.
    fn look(
        &self,
        meter: &Meter,
        client: Digest,
        cost: u64,
        now: Moment,
    ) -> Result<Standing, Exceeded> {
        match &self.sharing {
            Some(sharing) => self.live.leases.look(sharing, client, meter, cost, now),
            None => {
                let patience = self.mode.patience();
                self.live.local.look(client, meter, cost, patience, now)
            }
        }
    }

    /// Gives back what nobody has used lately of what this gateway holds; at the `end`, everything.
    pub async fn return_leases(&self, end: bool) {
        if let Some(sharing) = &self.sharing {
            self.live.leases.return_idle(&sharing.store, end).await;
        }
    }

    /// By the calendar that counts for its buckets, in Unix seconds.
    fn unix(&self, now: Moment) -> i64 {
        match &self.sharing {
            Some(sharing) => sharing.store.unix(now),
            None => calendar::unix(now.system),
        }
    }

    /// How the bucket is shared that a charge was taken of; `None`: it is this gateway's own.
    fn sharing_of(&self, charge: &Charge) -> Option<&Sharing> {
        let is_own = charge.source == Source::Here;
        self.sharing.as_ref().filter(|_| !is_own)
    }

    /// Gives back what was taken of one quota and not used; what was of yesterday is gone with it.
    fn give_back(&self, charge: &Charge, cost: u64, now: Moment) {
        if charge.ends.is_some_and(|ends| self.unix(now) >= ends) {
            return;
        }
        let meter = &self.meters[usize::from(charge.meter)].0;
        let (local, client) = (&self.live.local, charge.client);
        let Some(sharing) = self.sharing_of(charge) else {
            return match charge.turn {
                Some(turn) => local.give_turn_back(client, meter, cost, turn, now),
                None => local.give_back(client, meter, cost, now),
            };
        };
        let back = (cost, charge.source);
        let leases = &self.live.leases;
        leases.give_back(sharing, local, meter, client, back, now);
    }

    /// Takes of one quota what was used already.
    fn debit(&self, charge: &Charge, cost: u64, now: Moment) {
        let meter = &self.meters[usize::from(charge.meter)].0;
        let (local, client) = (&self.live.local, charge.client);
        let Some(sharing) = self.sharing_of(charge) else {
            local.debit(client, meter, cost, now);
            return;
        };
        let used = (cost, charge.source);
        self.live
            .leases
            .debit(sharing, local, meter, client, used, now);
    }
}

/// A time as clients are told it: rounded up, so that who comes back then is not early.
pub fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// How many new names an address may bring.
fn new_names() -> &'static Meter {
    static METER: std::sync::LazyLock<Meter> = std::sync::LazyLock::new(|| {
        let quota: Quota = NEW_NAMES.parse().expect("it is a quota");
        Meter::new(quota, &jiff::tz::TimeZone::UTC)
    });
    &METER
}

impl Cost {
    fn of(&self, method: &Method, path: &str) -> u64 {
        let fits = |special: &&SpecialCost| {
            special.method.as_ref().is_none_or(|one| one == method)
                && special.path.as_ref().is_none_or(|one| one.matches(path))
        };
        let special = self.special.iter().find(fits);
        special.map_or(self.each, |special| special.tokens)
    }
}

impl Exempt {
    fn has(&self, asker: &Asker<'_>) -> bool {
        (!self.clients.is_empty() && self.clients.contains(asker.client))
            || self.paths.iter().any(|path| path.matches(asker.path))
            || self.fields.iter().any(|(name, value)| {
                let values = asker.fields.get_all(name).iter();
                values.fold(false, |found, one| {
                    found | equal(one.as_bytes(), value.as_bytes())
                })
            })
    }
}

/// In the same time whatever differs: one of them may be a secret.
fn equal(one: &[u8], other: &[u8]) -> bool {
    blake3::hash(one) == blake3::hash(other)
}

impl Taken {
    /// Takes what a request costs of all `rules` that are asked at this `phase`; or of none, and then it was one too
    /// many for the one that is told. What it had taken at an earlier phase it gives back then too. Where a rule has to
    /// ask first, it is called again when that is answered.
    pub fn take(
        &mut self,
        rules: &[Arc<Rule>],
        asker: &Asker<'_>,
        method: &Method,
        phase: Phase,
        now: Moment,
    ) -> Result<(), Held> {
        let mut halted = self.halted.take();
        let first = halted.as_ref().map_or(0, |step| step.place);
        for (place, rule) in rules.iter().enumerate().skip(first) {
            let step = match halted.take() {
                Some(step) => *step,
                None if !rule.is_asked(phase) || self.is_past(rule) => continue,
                None if rule.exempt.has(asker) => {
                    rule.live.tally.exempt();
                    continue;
                }
                None => Step {
                    place,
                    meter: 0,
                    client: rule.client(asker, now),
                    cost: rule.cost_of(method, asker.path, phase),
                    first: self.charges.len(),
                    has_entered: false,
                    heard: None,
                    waits: 0,
                },
            };
            let (client, cost) = (step.client, step.cost);
            let taken = match self.enter(rule, &step) {
                Ok(()) => self.take_of(rule, step, now),
                Err(limited) => Err(Held::Back(limited)),
            };
            let taken = match taken {
                Ok(wait) => Ok(wait),
                Err(Held::Back(limited)) => Err(limited),
                Err(until) => return Err(until),
            };
            rule.live.heavy.count(client, taken.is_err(), now.instant);
            match taken {
                Ok(Duration::ZERO) => rule.live.tally.admit(),
                Ok(_) => rule.live.tally.delay(),
                Err(limited) => {
                    if let Err(limited) = self.hold(rules, rule, client.digest, limited, now) {
                        let met = Met {
                            place,
                            client: client.digest,
                            cost,
                        };
                        let all = self.until_all_allow(rules, met, asker, method, phase, now);
                        let wait = limited.retry_after.max(all);
                        return Err(Held::Back(Limited {
                            retry_after: jittered(wait, client.digest, now),
                            ..limited
                        }));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether it waits for an answer.
    pub fn is_halted(&self) -> bool {
        self.halted.is_some()
    }

    /// Takes in what it has waited for.
    pub fn hear(&mut self, heard: Heard) {
        if let Some(step) = &mut self.halted {
            step.heard = Some(heard);
            step.waits += 1;
        }
    }

    /// Counts the request as one of its client's that are under way, once.
    fn enter(&mut self, rule: &Rule, step: &Step) -> Result<(), Limited> {
        let Some(bound) = rule.in_flight.as_ref().filter(|_| !step.has_entered) else {
            return Ok(());
        };
        let entered = rule.live.in_flight.enter(step.client.digest, bound.most);
        let number = entered.as_ref().map_or(bound.most, |place| place.number);
        let is_in = entered.is_some();
        self.entries.push(Entered {
            rule: step.place as u16,
            left: bound.most.saturating_sub(number),
            place: entered,
        });
        match is_in {
            true => Ok(()),
            false => Err(Limited {
                bound: Bound::InFlight,
                policy: bound.policy.clone(),
                status: rule.status,
                retry_after: AFTER_OTHERS,
            }),
        }
    }

    /// The request is over: it is none of its client's any more.
    pub fn leave(&mut self) {
        for entered in &mut self.entries {
            entered.place = None;
        }
    }

    /// Takes the cost of every quota of a rule, or of none of them. Returns how long its turn is away.
    fn take_of(&mut self, rule: &Rule, mut step: Step, now: Moment) -> Result<Duration, Held> {
        let patience = rule.mode.patience();
        let mut longest = (Duration::ZERO, 0);
        for (number, (meter, policy)) in rule.meters.iter().enumerate().skip(step.meter) {
            let bucket = rule.secret().with(step.client.digest, number);
            let cost = cost_by(meter, step.cost);
            let outcome = rule.take(number, &step, bucket, cost, now);
            let (standing, source, turn, held) = match outcome {
                Outcome::Taken(standing, source, turn) => (standing, source, Some(turn), None),
                Outcome::Exceeded(exceeded) => {
                    let held = (Bound::Quota, exceeded.wait);
                    (exceeded.told(), Source::Here, None, Some(held))
                }
                Outcome::Closed => {
                    let held = (Bound::StoreAway, CLOSED_FOR);
                    (Standing::default(), Source::Here, None, Some(held))
                }
                Outcome::Asking(asking) => {
                    step.meter = number;
                    step.has_entered = true;
                    self.halted = Some(Box::new(step));
                    return Err(Held::Until(asking));
                }
            };
            (step.heard, step.waits) = (None, 0);
            let wait = turn.map_or(Duration::ZERO, |turn| turn.wait);
            longest = longest.max((wait, number));
            self.charges.push(Charge {
                rule: step.place as u16,
                meter: number as u16,
                client: bucket,
                cost,
                standing,
                is_taken: turn.is_some(),
                turn: turn.filter(|_| source == Source::Here && !patience.is_zero()),
                source,
                ends: meter
                    .is_calendar()
                    .then(|| rule.unix(now) + standing.reset.as_secs() as i64),
            });
            if let Some((bound, wait)) = held {
                let limited = self.not_taken(rule, step.first, (bound, policy, wait), now);
                return Err(Held::Back(limited));
            }
        }
        let (wait, number) = longest;
        if self.has_place_for(rule, step.client.digest, wait) {
            return Ok(wait);
        }
        let (_, policy) = &rule.meters[number];
        let held = (Bound::Quota, &**policy, wait);
        Err(Held::Back(self.not_taken(rule, step.first, held, now)))
    }

    /// Gives back the charges from the place `from` on: the rule holds the request back.
    fn not_taken(
        &mut self,
        rule: &Rule,
        from: usize,
        (bound, policy, wait): (Bound, &str, Duration),
        now: Moment,
    ) -> Limited {
        let charges = &mut self.charges[from..];
        charges
            .iter_mut()
            .for_each(|charge| charge.give_back(rule, now));
        Limited {
            bound,
            policy: policy.into(),
            status: rule.status,
            retry_after: wait,
        }
    }

    /// Takes what turned out to be the cost, which for most is known before: then nobody asks `now`.
    pub fn settle(&self, rules: &[Arc<Rule>], spent: Spent<'_>, now: impl Fn() -> Moment) {
        for charge in self.charges.iter().filter(|charge| charge.is_taken) {
            let rule = &rules[usize::from(charge.rule)];
            let (meter, _) = &rule.meters[usize::from(charge.meter)];
            let cost = match (meter.quota.unit, spent) {
                (Unit::Bytes, Spent::Bytes(bytes)) if charge.cost > 0 => Some(bytes),
                (Unit::Requests, Spent::Said(said)) => rule.cost.said_in.as_ref().and_then(said),
                _ => None,
            };
            match cost {
                Some(cost) if cost > charge.cost => rule.debit(charge, cost - charge.cost, now()),
                Some(cost) if cost < charge.cost => {
                    rule.give_back(charge, charge.cost - cost, now());
                }
                _ => {}
            }
        }
    }

    /// How the client stands with every quota it met, as rules whose mode is to refuse count: the form of the fields,
    /// the quota, what it is called, the standing.
    pub fn standings<'a>(
        &'a self,
        rules: &'a [Arc<Rule>],
    ) -> impl Iterator<Item = Stood<'a>> + Clone {
        self.charges.iter().filter_map(|charge| {
            let rule = &rules[usize::from(charge.rule)];
            let (meter, policy) = &rule.meters[usize::from(charge.meter)];
            rule.mode.is_felt().then_some(Stood {
                fields: rule.fields,
                quota: meter.quota,
                policy,
                standing: charge.standing,
            })
        })
    }

    /// How many more requests of the client may be under way, by every bound it met of a rule that refuses and tells
    /// it as draft-11 has it: the older fields know no such bound.
    pub fn concurrency<'a>(
        &'a self,
        rules: &'a [Arc<Rule>],
    ) -> impl Iterator<Item = Concurrent<'a>> + Clone {
        self.entries.iter().filter_map(|entered| {
            let rule = &rules[usize::from(entered.rule)];
            let is_told = rule.mode.is_felt() && rule.fields == Fields::Draft11;
            let bound = rule.in_flight.as_ref().filter(|_| is_told)?;
            Some(Concurrent {
                policy: &bound.policy,
                most: bound.most,
                left: entered.left,
            })
        })
    }

    /// Whether no rule was met.
    pub fn is_empty(&self) -> bool {
        self.charges.is_empty() && self.entries.is_empty()
    }
}

/// How a client stands with a bound of what is under way.
#[derive(Clone, Copy, Debug)]
pub struct Concurrent<'a> {
    pub policy: &'a str,
    pub most: u32,
    pub left: u32,
}

/// What a request has cost, when that is known at last.
#[derive(Clone, Copy)]
pub enum Spent<'a> {
    /// In all, by the head of its answer: what each of its fields says.
    Said(&'a dyn Fn(&HeaderName) -> Option<u64>),
    /// The bodies of both, when they have passed.
    Bytes(u64),
}

/// How a client stands with one quota.
#[derive(Clone, Copy, Debug)]
pub struct Stood<'a> {
    pub fields: Fields,
    pub quota: Quota,
    pub policy: &'a str,
    pub standing: Standing,
}

/// What a request that costs so much takes of a quota when it comes.
fn cost_by(meter: &Meter, cost: u64) -> u64 {
    match meter.quota.unit {
        Unit::Requests => cost.min(meter.most()),
        // Bytes are known when they have been sent: until then that there are some is enough.
        Unit::Bytes => u64::from(cost > 0),
    }
}

impl Charge {
    fn give_back(&mut self, rule: &Rule, now: Moment) {
        if std::mem::take(&mut self.is_taken) {
            rule.give_back(self, self.cost, now);
        }
    }
}

/// Up to a tenth longer, each time another part of it: those who were refused together do not come back together.
fn jittered(wait: Duration, client: Digest, now: Moment) -> Duration {
    let nanos = now.system.duration_since(std::time::UNIX_EPOCH);
    let nanos = nanos.map_or(0, |since| u64::from(since.subsec_nanos()));
    let parts = (client.0[0] ^ nanos.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 56;
    wait + wait / 10 * parts as u32 / 255
}

#[cfg(test)]
mod tests;
