//! Bans: a client that does too much of what it should not is refused everything for a while, longer each time.
//!
//! ```text
//! note(event) ─► Counts, one of each rule, bounded ─► as many as a rule says ─► Standing ─► Sharing ─► other gateways
//! check(client) ─────────────────────────────────────────────────────────────► Standing
//! ```
//!
//! - `rule`: what is counted and what follows from it; `scan`: the paths that only scanners ask for
//! - `counts`: how often each client did it lately; `client`: who is one client
//! - `standing`: the bans, in a table of their own that counting cannot fill; `past`: who was banned before
//! - `sharing`: the bans of all gateways with one Redis
//!
//! Who is exempt is not decided here.

mod client;
mod counts;
mod outbox;
mod past;
mod rule;
mod scan;
pub mod sharing;
mod standing;
mod table;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;

use self::counts::Counts;

pub use self::client::Client;
pub use self::rule::{Answer, BadWhen, Mode, Rule, Terms, When};
pub use self::scan::{BadPathPattern, PathPattern};
pub use self::standing::{Ban, By, Settings, Standing, Tallied, Tally};

/// What a client did.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub kind: Happened,
    /// The status of the answer; `None` when there was none.
    pub status: Option<StatusCode>,
    /// The canonical path, where one was understood.
    pub path: Option<&'a str>,
}

/// How the gateway took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It was answered, whatever the answer said.
    Answered,
    /// A limit refused it.
    Limited,
    /// It broke the rules of HTTP.
    Malformed,
}

/// The rules of one plan, and the bans, which outlive it.
#[derive(Debug)]
pub struct Bans {
    rules: Vec<Watched>,
    standing: Arc<Standing>,
}

#[derive(Debug)]
struct Watched {
    rule: Rule,
    counts: Arc<Counts>,
    tally: Arc<Tally>,
}

/// What a banned client meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Banned {
    pub answer: Answer,
    pub left: Duration,
}

impl Bans {
    /// The rules in their order. The bans of `running` stand on, and what a rule has counted counts on where the rule counts
    /// the same. Up to `max_clients` are counted by each.
    pub fn new(
        rules: Vec<Rule>,
        max_clients: usize,
        settings: Settings,
        running: Option<&Self>,
    ) -> Self {
        let standing = match running {
            Some(running) => running.standing.clone(),
            None => Arc::new(Standing::new(settings)),
        };
        let counts = |rule: &Rule| {
            let running = running.into_iter().flat_map(|running| &running.rules);
            let mut same =
                running.filter(|one| one.rule.name == rule.name && one.rule.when == rule.when);
            match same.next() {
                Some(same) => same.counts.clone(),
                None => Arc::new(Counts::new(max_clients, rule.when.within)),
            }
        };
        let watched = rules.into_iter().map(|rule| Watched {
            counts: counts(&rule),
            tally: standing.tally(&By::Rule(rule.name.clone())),
            rule,
        });
        Self {
            rules: watched.collect(),
            standing,
        }
    }

    /// The bans themselves.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|watched| &watched.rule)
    }

    /// Whether and how this client is banned, unless it is let in all the same. Costs two relaxed loads while nobody is.
    pub fn check(&self, client: IpAddr, now: Instant, let_in: impl Fn() -> bool) -> Option<Banned> {
        self.standing.check(client, now, let_in)
    }

    /// Whether any rule counts such an event.
    pub fn mind(&self, event: &Event<'_>) -> bool {
        self.rules.iter().any(|watched| watched.rule.counts(event))
    }

    /// Counts what this client did, and bans it where that was too much. What a client does while a ban of the same mode
    /// stands is not counted.
    pub fn note(&self, client: IpAddr, event: &Event<'_>, now: Instant) {
        let client = self.standing.client(client);
        for Watched {
            rule,
            counts,
            tally,
        } in &self.rules
        {
            if !rule.counts(event) || self.standing.stands(&client, rule.mode, now) {
                continue;
            }
            tally.event();
            let events = counts.add(&client, now);
            if events >= rule.when.events {
                counts.forget(&client);
                self.standing.offend(client, rule, events, now);
            }
        }
    }

    /// To be called now and then: ends the bans whose time is over, and gives back the room of what is forgotten.
    pub fn tidy(&self, now: Instant) {
        self.standing.tidy(now);
        for watched in &self.rules {
            watched.counts.tidy(now);
        }
    }
}

#[cfg(test)]
mod tests;
