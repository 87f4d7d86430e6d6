//! What one gateway holds of one bucket that all gateways share: tokens that it may spend by itself for a while, and when
//! it is worth asking for more. Pure: it is told the time, by a clock that only runs on, and the answers of Redis.

use std::time::Duration;

use super::script::{Grant, Question, Shape};
use crate::limit::bucket::Ticks;

/// Of one client and one quota.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    /// Names it in Redis; 0: it has none yet. What has ended or was returned is not called so again: a question that was
    /// late, and about that, is about nothing else.
    name: u64,
    /// What the bucket is like by the plan that its client had last.
    shape: Option<Shape>,
    /// Tokens that may be spent before `until`.
    left: u64,
    until: Ticks,
    /// Of what was left when Redis was last asked, and of what it gave: what was spent since.
    spent: u64,
    /// What was left after the last answer.
    size: u64,
    number: u64,
    /// What should have been taken from the level for this lease in all: tokens that came, less those that go back, and
    /// what was used without any.
    balance: i64,
    /// What it was when Redis last answered.
    told: i64,
    known: Option<Known>,
    /// No question is worth it before.
    ask_after: Ticks,
    /// When there will be a token, as far as is known.
    token_at: Ticks,
    /// Grows with answers of a bucket of which little is left, and shrinks when it was full.
    short: u8,
    demand: Demand,
    used_at: Ticks,
}

/// How the bucket stood when Redis last answered.
#[derive(Clone, Copy, Debug)]
struct Known {
    level: f64,
    /// When that was asked.
    at: Ticks,
    /// The end of the stretch of the calendar, as the question had it.
    ends: i64,
}

/// What is asked for in a second.
#[derive(Clone, Copy, Debug, Default)]
struct Demand {
    second: u32,
    now: u32,
    before: u32,
}

/// For so many seconds a lease is to do, and for a third of what fills a bucket at most.
const AHEAD: f64 = 3.0;
/// What comes seldom may hold this part of a bucket, for longer: it would ask for each single request.
const LITTLE: u64 = 32;
const LITTLE_AHEAD: u64 = 10;
/// Nobody holds more than this part of a bucket.
const MOST: u64 = 4;
/// More is asked for when this part is left.
const LOW: u64 = 4;
/// So many requests to a question, where there is not enough for all of them.
const REQUESTS: u32 = 500;
/// So many questions take the last tokens of a bucket one after the other; then it is known that there is not enough.
const DRAINS: u8 = 10;
/// After such a time nothing is known any more.
const FORGIVEN: Duration = Duration::from_secs(5);
/// There is never a longer time without a question that somebody waits for: others may have given tokens back.
const LONGEST_PAUSE: Duration = Duration::from_millis(1500);

impl Lease {
    /// The bucket is like this from now on. Tokens that were given when it was like another go back, and what was used
    /// of it stays used; by a quota of another kind nothing is. Whether that is new.
    pub fn fit(&mut self, shape: Shape, now: Ticks) -> bool {
        if self.is_like(shape) {
            return false;
        }
        let is_other_kind = self.is_other_kind(shape);
        let Some(before) = self.shape.replace(shape) else {
            return true;
        };
        self.lay_down(now);
        self.ask_after = Ticks(0);
        self.short = 0;
        if is_other_kind {
            *self = Self {
                shape: Some(shape),
                // An answer that is under way is to none of its questions.
                number: self.number + 1,
                demand: self.demand,
                used_at: self.used_at,
                ..Self::default()
            };
        } else if let Some(known) = &mut self.known {
            known.level += shape.burst as f64 - before.burst as f64;
        }
        true
    }

    /// Whether that is another kind of quota, of which nothing is known here.
    pub fn is_other_kind(&self, shape: Shape) -> bool {
        self.shape
            .is_some_and(|one| one.is_counter() != shape.is_counter())
    }

    /// Whether the bucket was like this when it was used last.
    pub fn is_like(&self, shape: Shape) -> bool {
        self.shape == Some(shape)
    }

    /// Takes note that somebody asks for so many tokens.
    pub fn note(&mut self, cost: u64, now: Ticks) {
        self.used_at = now;
        self.demand.note(cost, now);
    }

    /// Takes `cost` of what is held, or nothing.
    pub fn take(&mut self, cost: u64, now: Ticks) -> bool {
        self.end(now);
        let is_there = self.left >= cost;
        if is_there {
            self.left -= cost;
            self.spent += cost;
        }
        is_there
    }

    /// Whether little is left, and it is worth asking for more.
    pub fn is_low(&self, now: Ticks) -> bool {
        self.left * LOW <= self.size && self.may_ask(now)
    }

    pub fn may_ask(&self, now: Ticks) -> bool {
        now >= self.ask_after
    }

    /// What was taken of such a quota and not used can be used again: by this gateway, if Redis has not heard of it.
    pub fn give_back(&mut self, cost: u64, shape: Shape, now: Ticks) {
        if self.is_other_kind(shape) {
            return;
        }
        self.end(now);
        let here = cost.min(self.spent);
        self.spent -= here;
        self.left += here;
        self.balance -= (cost - here) as i64;
    }

    /// Takes what was used already, be it there or not.
    pub fn owe(&mut self, cost: u64, now: Ticks) {
        self.end(now);
        let here = cost.min(self.left);
        self.left -= here;
        self.spent += here;
        self.balance = self
            .balance
            .saturating_add_unsigned(cost - here)
            .min(MOST_OWED);
    }

    /// Takes back what was owed for something that was not used.
    pub fn forgive(&mut self, cost: u64) {
        self.balance -= cost as i64;
    }

    /// To be asked for a request that needs so many tokens; or, with 0, because it is low. `name` is for a lease that
    /// begins with it.
    pub fn question(
        &mut self,
        cost: u64,
        shape: Shape,
        window: (i64, i64),
        now: Ticks,
        name: u64,
    ) -> Question {
        self.end(now);
        if self.name == 0 {
            self.name = name;
        }
        let need = cost.saturating_sub(self.left).max(1);
        let wanted = self.wanted(shape).saturating_sub(self.left);
        self.ask(need, wanted.max(need), window, now)
    }

    /// To be asked where each request is to be decided by Redis: for this one alone.
    pub fn exact(&mut self, cost: u64, window: (i64, i64), now: Ticks) -> Question {
        let question = self.ask(cost.max(1), cost, window, now);
        // Others may be asked at the same time: what goes with this one goes with no other.
        self.told = self.balance;
        Question {
            lease: 0,
            balance: question.balance - question.told,
            told: 0,
            believed: false,
            ..question
        }
    }

    /// Gives everything back, and says what is owed; `None` if there is nothing of either.
    pub fn returning(&mut self, window: (i64, i64), now: Ticks, name: u64) -> Option<Question> {
        if !self.has_something(now) {
            return None;
        }
        self.lay_down(now);
        if self.name == 0 {
            self.name = name;
        }
        let question = self.ask(0, 0, window, now);
        self.name = 0;
        Some(question)
    }

    fn ask(&mut self, need: u64, want: u64, window: (i64, i64), now: Ticks) -> Question {
        self.end(now);
        if self.known.is_some_and(|known| known.ends != window.1) {
            // What was of another day is of no account.
            self.told = self.balance;
            self.known = None;
        }
        self.spent = 0;
        self.number += 1;
        Question {
            lease: self.name,
            number: self.number,
            balance: self.balance,
            told: self.told,
            kept: self.left,
            believed: self.until > now,
            need,
            want,
            window,
            known: self.known.map(|known| {
                let since = Ticks(now.0.saturating_sub(known.at.0)).duration();
                // Rounded up: more is never denied to have passed than has.
                (known.level, since.as_micros() as u64 + 1)
            }),
            asked: 0,
        }
    }

    /// Takes in what Redis gave to a question that was asked then. The answer to another one than the last is past.
    pub fn hear(&mut self, question: &Question, grant: &Grant, asked: Ticks, shape: Shape) {
        if question.number != self.number {
            return;
        }
        self.told = question.balance + grant.tokens as i64;
        self.balance += grant.tokens as i64;
        if grant.is_anew {
            self.left = 0;
            self.spent = 0;
        }
        self.left += grant.tokens;
        self.until = later(asked, grant.lasts);
        if !self.is_like(shape) {
            // Its client has another plan since.
            self.lay_down(asked);
            return;
        }
        let before = self.known.map(|known| known.at);
        self.learn(grant, asked, question.window.1);
        if question.want == 0 {
            return;
        }
        self.size = self.left;
        let (burst, level) = (shape.burst as f64, grant.level + grant.tokens as f64);
        let is_new = before.is_none_or(|before| later(before, FORGIVEN) < asked);
        if is_new {
            self.short = 0;
        }
        if grant.was_full {
            self.short = self.short.saturating_sub(2);
        }
        let is_short = level < burst / 2.0 && !grant.was_full;
        if !is_short {
            self.ask_after = asked;
            return;
        }
        self.short = (self.short + 1).min(2 * DRAINS);
        let pause = match self.short > DRAINS {
            true => self.spacing(shape, grant.free).max(grant.wait),
            false => grant.wait,
        };
        self.ask_after = later(asked, pause.min(LONGEST_PAUSE));
    }

    /// A question of [`Lease::exact`] had no answer: what it owed is owed still, and what it gave back is lost.
    pub fn unheard(&mut self, question: &Question) {
        self.balance += question.balance.max(0);
    }

    /// Takes in how the bucket stands after a question of [`Lease::exact`].
    pub fn learn(&mut self, grant: &Grant, asked: Ticks, ends: i64) {
        self.token_at = later(asked, grant.wait);
        self.known = Some(Known {
            level: grant.level,
            at: asked,
            ends,
        });
    }

    /// Whole tokens that this gateway could have, as far as it knows.
    pub fn standing(&self, shape: Shape, ends: i64, now: Ticks) -> u64 {
        self.kept(now) + self.level(shape, ends, now)
    }

    /// Whole tokens of the bucket that nobody holds, as far as is known. Of a bucket that nobody was asked about: all.
    pub fn level(&self, shape: Shape, ends: i64, now: Ticks) -> u64 {
        let Some(known) = self.known.filter(|known| known.ends == ends) else {
            return shape.burst;
        };
        let since = Ticks(now.0.saturating_sub(known.at.0)).duration();
        let flowed = match shape.is_counter() {
            true => 0.0,
            false => since.as_secs_f64() * 1e6 / shape.interval,
        };
        (known.level + flowed).clamp(0.0, shape.burst as f64) as u64
    }

    /// Until there may be a token again.
    pub fn wait(&self, now: Ticks) -> Duration {
        let at = self.token_at.max(self.ask_after);
        Ticks(at.0.saturating_sub(now.0)).duration()
    }

    /// The bucket was filled: what was known of it is past, and it is worth asking.
    pub fn forget_level(&mut self) {
        self.known = None;
        self.short = 0;
        self.ask_after = Ticks(0);
        self.told = self.balance;
    }

    /// Whether nobody has asked for so long.
    pub fn is_idle(&self, time: Duration, now: Ticks) -> bool {
        later(self.used_at, time) <= now
    }

    /// Whether something is held or owed.
    pub fn has_something(&self, now: Ticks) -> bool {
        self.kept(now) > 0 || self.balance != self.told
    }

    /// When somebody asked last.
    pub fn used_at(&self) -> Ticks {
        self.used_at
    }

    fn kept(&self, now: Ticks) -> u64 {
        if self.until > now { self.left } else { 0 }
    }

    /// What is left goes back when Redis is asked next.
    fn lay_down(&mut self, now: Ticks) {
        self.end(now);
        self.balance -= self.left as i64;
        self.left = 0;
        self.spent = 0;
    }

    /// Tokens of a lease that has ended are nobody's.
    fn end(&mut self, now: Ticks) {
        if self.until > Ticks(0) && self.until <= now {
            self.left = 0;
            self.spent = 0;
            self.until = Ticks(0);
            self.name = 0;
        }
    }

    /// What it should hold by what is asked for.
    fn wanted(&self, shape: Shape) -> u64 {
        let rate = u64::from(self.demand.rate());
        let ahead = match shape.is_counter() {
            true => AHEAD,
            false => (shape.burst as f64 * shape.interval / 3e6).min(AHEAD),
        };
        let ahead = if rate > 1 {
            (rate as f64 * ahead) as u64
        } else {
            0
        };
        let little = (rate * LITTLE_AHEAD).min(shape.burst / LITTLE);
        ahead.max(little).min(shape.burst / MOST)
    }

    /// The time between questions where there is not enough: long enough that many requests share one, and short enough
    /// that the bucket does not run over meanwhile, if it is this gateway that empties it.
    fn spacing(&self, shape: Shape, free: u64) -> Duration {
        let rate = self.demand.rate().max(1);
        let by_demand = (Duration::from_secs(1) * REQUESTS / rate).min(LONGEST_PAUSE);
        if shape.is_counter() {
            return by_demand;
        }
        let token = shape.interval.max(1e6 / f64::from(rate));
        let by_bucket = free as f64 * token * 0.8;
        by_demand.min(Duration::from_micros(by_bucket.min(1e6) as u64))
    }
}

/// More is not owed: the level of a bucket goes below nothing by one burst at most.
const MOST_OWED: i64 = 1 << 50;

impl Demand {
    fn note(&mut self, cost: u64, now: Ticks) {
        let second = now.duration().as_secs() as u32;
        if second != self.second {
            self.before = if second == self.second + 1 {
                self.now
            } else {
                0
            };
            self.second = second;
            self.now = 0;
        }
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        self.now = self.now.saturating_add(cost);
    }

    /// Tokens a second.
    fn rate(&self) -> u32 {
        self.now.max(self.before)
    }
}

pub fn later(at: Ticks, by: Duration) -> Ticks {
    Ticks(at.0.saturating_add(Ticks::of(by).0))
}
