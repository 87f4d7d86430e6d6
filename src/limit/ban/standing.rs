//! The bans that stand, who made them, and what is told of them. Outlives every plan.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Banned;
use super::client::Client;
use super::outbox::Outbox;
use super::past::Past;
use super::rule::{Answer, Mode, Rule};
use super::table::{Put, Table};
use crate::limit::key::Prefixes;

/// Bans that end in one step of tidying; the others in the next.
const MOST_TIDIED: usize = 1000;
/// Rules that are counted apart, of this gateway and others.
const MOST_TALLIES: usize = 1000;

/// What all bans share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub prefixes: Prefixes,
    /// Bans at once.
    pub most: usize,
}

/// Who has banned a client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    Rule(Box<str>),
    Hand,
}

/// A rule by its name.
impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(name) => f.write_str(name),
            Self::Hand => f.write_str("by hand"),
        }
    }
}

/// One ban.
#[derive(Clone, Debug)]
pub struct Ban {
    pub by: By,
    /// What whoever banned by hand said of it.
    pub why: Option<Box<str>>,
    pub answer: Answer,
    pub mode: Mode,
    /// How many events there were.
    pub events: u32,
    /// The how manieth it is.
    pub offence: u32,
    pub began: Instant,
    pub ends: Instant,
    /// For how long after its end it makes another one longer.
    pub forgotten_after: Duration,
    /// Made by this gateway, which says so when it ends.
    pub is_ours: bool,
    pub tally: Arc<Tally>,
}

impl Ban {
    pub fn left(&self, now: Instant) -> Duration {
        self.ends.saturating_duration_since(now)
    }
}

/// What is counted of the bans by one rule, or by hand.
#[derive(Debug, Default)]
pub struct Tally {
    events: AtomicU64,
    bans: AtomicU64,
    refused: AtomicU64,
    would_refuse: AtomicU64,
}

/// Numbers of a [`Tally`], since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallied {
    /// Events counted.
    pub events: u64,
    /// Bans made by this gateway.
    pub bans: u64,
    /// Requests refused by it.
    pub refused: u64,
    /// Requests that a rule in shadow would have had refused.
    pub would_refuse: u64,
}

impl Tally {
    pub(super) fn event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    pub fn numbers(&self) -> Tallied {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Tallied {
            events: read(&self.events),
            bans: read(&self.bans),
            refused: read(&self.refused),
            would_refuse: read(&self.would_refuse),
        }
    }
}

/// Every ban, enforced or in shadow.
#[derive(Debug)]
pub struct Standing {
    settings: Settings,
    enforced: Table,
    shadow: Table,
    past: Mutex<Past>,
    tallies: Mutex<BTreeMap<By, Arc<Tally>>>,
    /// Bans that had to go before their time, for want of room.
    evicted: AtomicU64,
    pub(super) outbox: Outbox,
}

impl Standing {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            enforced: Table::new(settings.most),
            shadow: Table::new(settings.most),
            past: Mutex::new(Past::new(settings.most)),
            tallies: Mutex::default(),
            evicted: AtomicU64::new(0),
            outbox: Outbox::default(),
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The client that has this address.
    pub fn client(&self, address: IpAddr) -> Client {
        Client::of(address, self.settings.prefixes)
    }

    /// Whether and how this client is banned, unless it is let in all the same. Costs one relaxed load of each mode while
    /// nobody is.
    pub fn check(
        &self,
        address: IpAddr,
        now: Instant,
        let_in: impl Fn() -> bool,
    ) -> Option<Banned> {
        if !self.shadow.is_empty()
            && let Some(ban) = self.shadow.find(&self.client(address), now)
            && !let_in()
        {
            ban.tally.would_refuse.fetch_add(1, Ordering::Relaxed);
        }
        if self.enforced.is_empty() {
            return None;
        }
        let ban = self.enforced.find(&self.client(address), now)?;
        if let_in() {
            return None;
        }
        ban.tally.refused.fetch_add(1, Ordering::Relaxed);
        Some(Banned {
            answer: ban.answer,
            left: ban.left(now),
        })
    }

    /// Whether a ban of this client in this mode stands.
    pub fn stands(&self, client: &Client, mode: Mode, now: Instant) -> bool {
        let table = self.table(mode);
        !table.is_empty() && table.find(client, now).is_some()
    }

    /// The enforced ban of this client.
    pub fn find(&self, client: &Client, now: Instant) -> Option<Arc<Ban>> {
        self.enforced.find(client, now)
    }

    /// Bans a client that has done as much as `rule` allows, for longer than the last time.
    pub fn offend(&self, client: Client, rule: &Rule, events: u32, now: Instant) {
        let by = By::Rule(rule.name.clone());
        let mut past = self.past.lock();
        // Two requests at once may both be the one too many.
        if self.stands(&client, rule.mode, now) {
            return;
        }
        let offence = past.offences(&client, now).saturating_add(1);
        let ban = Ban {
            tally: self.tally(&by),
            by,
            why: None,
            answer: rule.answer,
            mode: rule.mode,
            events,
            offence,
            began: now,
            ends: now + rule.terms.length(offence),
            forgotten_after: rule.terms.forgotten_after,
            is_ours: true,
        };
        // Nobody is punished for what a rule in shadow has seen.
        if rule.mode == Mode::Enforce {
            past.remember(client, offence, ban.ends + ban.forgotten_after);
        }
        drop(past);
        self.put(client, ban, now);
    }

    /// Bans a client because somebody said so. A ban that ends later stands on; what stands is returned.
    pub fn ban_by_hand(
        &self,
        client: Client,
        length: Duration,
        why: Option<Box<str>>,
        now: Instant,
    ) -> Option<Arc<Ban>> {
        let ban = Ban {
            tally: self.tally(&By::Hand),
            by: By::Hand,
            why,
            answer: Answer::Forbidden,
            mode: Mode::Enforce,
            events: 0,
            offence: self.past.lock().offences(&client, now),
            began: now,
            ends: now + length,
            forgotten_after: Duration::ZERO,
            is_ours: true,
        };
        self.put(client, ban, now);
        self.find(&client, now)
    }

    /// Ends the ban of a client, and forgets that there ever was one; also at other gateways. What stood is returned.
    pub fn lift(&self, client: &Client, now: Instant) -> Option<Arc<Ban>> {
        let lifted = self.lift_here(client);
        self.outbox.lift(*client, now);
        lifted
    }

    /// Ends it at this gateway alone.
    pub(super) fn lift_here(&self, client: &Client) -> Option<Arc<Ban>> {
        self.past.lock().forget(client);
        self.shadow.remove(client);
        let ban = self.enforced.remove(client)?;
        ended(client, &ban, "lifted");
        Some(ban)
    }

    /// Takes in a ban that another gateway has made.
    pub(super) fn hear(&self, client: Client, ban: Ban, now: Instant) {
        let mut past = self.past.lock();
        if ban.offence > past.offences(&client, now) {
            past.remember(client, ban.offence, ban.ends + ban.forgotten_after);
        }
        drop(past);
        self.put(client, ban, now);
    }

    /// Ends the bans whose time is over, of each mode at most a thousand.
    pub fn tidy(&self, now: Instant) {
        for table in [&self.enforced, &self.shadow] {
            for (client, ban) in table.take_over(now, MOST_TIDIED) {
                ended(&client, &ban, "over");
            }
        }
        self.past.lock().tidy(now, MOST_TIDIED);
    }

    /// The bans that stand, those that end last first, at most so many of each mode.
    pub fn list(&self, now: Instant, most: usize) -> Vec<(Client, Arc<Ban>)> {
        let mut list = self.enforced.list(now, most);
        list.extend(self.shadow.list(now, most));
        list
    }

    /// The enforced ones, at most as many as there may be.
    pub(super) fn enforced(&self, now: Instant) -> Vec<(Client, Arc<Ban>)> {
        self.enforced.list(now, usize::MAX)
    }

    /// How many bans there are in this mode.
    pub fn count(&self, mode: Mode) -> usize {
        self.table(mode).len()
    }

    /// Bans that had to go before their time.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// What has been counted, by who bans.
    pub fn tallies(&self) -> Vec<(By, Tallied)> {
        let tallies = self.tallies.lock();
        tallies
            .iter()
            .map(|(by, tally)| (by.clone(), tally.numbers()))
            .collect()
    }

    /// The counters of whoever bans.
    pub(super) fn tally(&self, by: &By) -> Arc<Tally> {
        let mut tallies = self.tallies.lock();
        match tallies.get(by) {
            Some(tally) => tally.clone(),
            // Names of other gateways come from outside.
            None if tallies.len() >= MOST_TALLIES => Arc::default(),
            None => tallies.entry(by.clone()).or_default().clone(),
        }
    }

    fn put(&self, client: Client, ban: Ban, now: Instant) {
        let ban = Arc::new(ban);
        match self.table(ban.mode).put(client, ban.clone(), now) {
            Put::Outlasted => {}
            Put::Full => {
                self.evicted.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%client, rule = %ban.by, "not banned: there is no room for a ban that is over so soon");
            }
            Put::Stands { gone } => {
                match gone {
                    Some((client, ban)) if ban.ends <= now => ended(&client, &ban, "over"),
                    Some((client, ban)) => {
                        self.evicted.fetch_add(1, Ordering::Relaxed);
                        ended(&client, &ban, "no room");
                    }
                    None => {}
                }
                if ban.is_ours {
                    self.said(&client, &ban, now);
                }
            }
        }
    }

    /// The audit line, and what others are told.
    fn said(&self, client: &Client, ban: &Ban, now: Instant) {
        ban.tally.bans.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            %client,
            rule = %ban.by,
            mode = %ban.mode,
            length = ?ban.left(now),
            events = ban.events,
            offence = ban.offence,
            why = ban.why.as_deref(),
            "client banned"
        );
        if ban.mode == Mode::Enforce {
            self.outbox.ban(*client);
        }
    }

    fn table(&self, mode: Mode) -> &Table {
        match mode {
            Mode::Enforce => &self.enforced,
            Mode::Shadow => &self.shadow,
        }
    }
}

/// The line that ends what an audit line began; of other gateways' bans they say so themselves.
fn ended(client: &Client, ban: &Ban, end: &str) {
    let stood = ban.began.elapsed();
    match ban.is_ours {
        true => tracing::info!(%client, rule = %ban.by, mode = %ban.mode, end, ?stood, "ban ended"),
        false => {
            tracing::debug!(%client, rule = %ban.by, mode = %ban.mode, end, ?stood, "ban ended")
        }
    }
}
