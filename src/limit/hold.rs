//! What becomes of a request that a rule would hold back: by the mode of the rule it is refused, counted, has to wait
//! for its turn, or waits to be refused.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::heavy::Known;
use super::key::{Asker, Counted, Digest, network};
use super::shared::Source;
use crate::moment::Moment;

use super::waiting::{Bounds, Wait};
use super::{Charge, Limited, Phase, Rule, Taken, cost_by};

/// What is done with a request that a quota does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is refused.
    Enforce,
    /// It is counted and let through.
    Shadow,
    /// It waits for its turn; it is refused where that is too far away, or too many wait.
    Delay(Bounds),
    /// It is refused after a pause; at once where too many wait.
    Tarpit(Bounds),
}

/// By its word.
impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::Delay(_) => "delay",
            Self::Tarpit(_) => "tarpit",
        })
    }
}

/// A rule as a request meets it.
#[derive(Clone, Copy)]
pub(super) struct Met {
    /// Among the rules of the route.
    pub place: usize,
    pub client: Digest,
    pub cost: u64,
}

impl Mode {
    /// Whether clients notice it.
    pub fn is_felt(&self) -> bool {
        *self != Self::Shadow
    }

    /// How long a request waits for tokens.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Self::Delay(bounds) => bounds.longest,
            Self::Enforce | Self::Shadow | Self::Tarpit(_) => Duration::ZERO,
        }
    }
}

impl Rule {
    /// A client as operators are told of it.
    pub(super) fn known(&self, counted: Counted, asker: &Asker<'_>) -> Known {
        let address = || network(asker.client, self.prefixes);
        Known {
            digest: counted.digest,
            address: counted.is_address.then(address),
        }
    }
}

impl Taken {
    /// What is to be waited for before the request goes on, or is refused. To be asked for after each
    /// [`Taken::take`].
    pub fn wait(&mut self) -> Option<Box<Wait>> {
        self.wait.take()
    }

    /// Whether `rule` is not asked since one before it would have refused the request.
    pub(super) fn is_past(&self, rule: &Rule) -> bool {
        self.is_shadowed && !rule.mode.is_felt()
    }

    /// Has the request wait for its turn, which is so far away; `false` if as many wait as may.
    pub(super) fn has_place_for(&mut self, rule: &Rule, client: Digest, turn: Duration) -> bool {
        let Mode::Delay(bounds) = &rule.mode else {
            return true;
        };
        turn.is_zero() || self.waits(rule, client, turn, bounds)
    }

    /// Ends what a `rule` does not allow as its mode has it: `Err` is refused.
    ///
    /// Whatever refuses, or in shadow would, nothing stays taken by those that would not have let the request
    /// through alone.
    pub(super) fn hold(
        &mut self,
        rules: &[Arc<Rule>],
        rule: &Rule,
        client: Digest,
        limited: Limited,
        now: Moment,
    ) -> Result<(), Limited> {
        let tally = &rule.live.tally;
        if let Mode::Shadow = rule.mode {
            tally.shadow();
            self.is_shadowed = true;
            self.give_back(rules, |rule| !rule.mode.is_felt(), now);
            return Ok(());
        }
        self.give_back(rules, |_| true, now);
        // Nobody waits for a turn that another rule has taken away.
        self.wait = None;
        match &rule.mode {
            Mode::Tarpit(bounds) if self.waits(rule, client, bounds.longest, bounds) => {
                tally.tarpit();
            }
            _ => tally.refuse(),
        }
        Err(limited)
    }

    /// How long it takes until all further quotas of the rule that refuses the request, and those behind it, allow it:
    /// who comes back must not be refused by the next one. How the client stands with them is remembered; nothing is
    /// taken.
    pub(super) fn until_all_allow(
        &mut self,
        rules: &[Arc<Rule>],
        refused_by: Met,
        asker: &Asker<'_>,
        method: &Method,
        phase: Phase,
        now: Moment,
    ) -> Duration {
        let first = refused_by.place;
        let mut longest = self.look(&rules[first], refused_by, now);
        for (place, rule) in rules.iter().enumerate().skip(first + 1) {
            if rule.is_asked(phase) && rule.mode.is_felt() && !rule.exempt.has(asker) {
                let further = Met {
                    place,
                    client: rule.counted(asker).digest,
                    cost: rule.cost_of(method, asker.path, phase),
                };
                longest = longest.max(self.look(rule, further, now));
            }
        }
        longest
    }

    /// The same of one rule.
    fn look(&mut self, rule: &Rule, met: Met, now: Moment) -> Duration {
        let of_rule = |charge: &&Charge| usize::from(charge.rule) == met.place;
        let charged = self.charges.iter().filter(of_rule).count();
        let mut longest = Duration::ZERO;
        for (number, (meter, _)) in rule.meters.iter().enumerate().skip(charged) {
            let bucket = rule.secret().with(met.client, number);
            let cost = cost_by(meter, met.cost);
            let seen = rule.look(meter, bucket, cost, now);
            let standing = seen.unwrap_or_else(|exceeded| {
                longest = longest.max(exceeded.wait);
                exceeded.told()
            });
            self.charges.push(Charge {
                rule: met.place as u16,
                meter: number as u16,
                client: bucket,
                cost,
                standing,
                is_taken: false,
                source: Source::Here,
                ends: None,
                turn: None,
            });
        }
        longest
    }

    fn waits(&mut self, rule: &Rule, client: Digest, length: Duration, bounds: &Bounds) -> bool {
        let seat = rule.live.waiting.enter(client, bounds);
        seat.map(|seat| self.wait.get_or_insert_default().add(length, seat))
            .is_some()
    }

    /// Gives back what was taken by some rules; how the client stands is remembered.
    fn give_back(&mut self, rules: &[Arc<Rule>], whose: impl Fn(&Rule) -> bool, now: Moment) {
        let of = |place: u16| Some(&*rules[usize::from(place)]).filter(|rule| whose(rule));
        for charge in &mut self.charges {
            if let Some(rule) = of(charge.rule) {
                charge.give_back(rule, now);
            }
        }
        for entered in &mut self.entries {
            if of(entered.rule).is_some() {
                entered.place = None;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
