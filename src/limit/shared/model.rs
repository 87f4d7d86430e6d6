//! The arithmetic of the script in Rust: what the tests of leases ask in place of Redis, and what Redis is held to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::script::{Answer, Grant, LIFE, Question, Shape};

/// One bucket.
#[derive(Clone, Debug, Default)]
pub struct Model {
    bucket: Option<Bucket>,
    /// At most in a bucket that is not there.
    pub fresh: Option<f64>,
    pub leases: BTreeMap<u64, Set>,
}

#[derive(Clone, Debug)]
struct Bucket {
    level: f64,
    at: i64,
    burst: u64,
    ends: i64,
}

/// What is set aside for one lease.
#[derive(Clone, Debug)]
pub struct Set {
    pub held: u64,
    until: i64,
    number: u64,
    account: i64,
}

impl Model {
    /// `now`: the clock of Redis, in microseconds.
    pub fn ask(&mut self, question: &Question, shape: Shape, now: i64) -> Answer {
        let lease = question.lease;
        let (begins, ends) = question.window;
        if ends > 0 && !(begins..ends).contains(&now) {
            return Answer::Elsewhen { now };
        }
        if now - question.asked > LIFE.as_micros() as i64 {
            return Answer::Late;
        }
        let own = self.leases.get(&lease).cloned();
        if own
            .as_ref()
            .is_some_and(|own| question.number <= own.number)
        {
            return Answer::Late;
        }
        let is_over =
            |bucket: &Bucket| (ends > 0 && bucket.ends <= now) || (ends > 0) != (bucket.ends > 0);
        let is_over = self.bucket.as_ref().is_some_and(is_over);
        let own = own.filter(|_| !is_over);
        if is_over {
            self.bucket = None;
            self.leases.clear();
        }
        let others = self.leases.iter().filter(|(name, _)| **name != lease);
        let (out, ended) = others.fold((0, 0), |(out, ended), (_, set)| match set.until > now {
            true => (out + set.held, ended),
            false => (out, ended + set.held),
        });
        self.leases
            .retain(|name, set| *name == lease || set.until > now);

        let burst = shape.burst as f64;
        let flowed = |passed: f64| match shape.is_counter() {
            true => 0.0,
            false => passed / shape.interval,
        };
        let believes = question
            .known
            .map(|(level, since)| level + flowed(since as f64));
        let level = match (&self.bucket, believes) {
            (Some(bucket), _) => {
                let passed = (now - bucket.at).max(0) as f64;
                let passed = match question.known {
                    Some((_, since)) => passed.min(since as f64),
                    None => passed,
                };
                bucket.level + burst - bucket.burst as f64 + flowed(passed)
            }
            (None, believes) => {
                let level = believes.unwrap_or(burst);
                self.fresh.map_or(level, |fresh| level.min(fresh))
            }
        };
        let held = own.as_ref().map_or(0, |own| own.held);
        let kept = own.as_ref().map_or(0, |_| question.kept);
        let room = burst - (out + held + ended) as f64;
        let was_full = level >= room;
        let mut level = level.min(room);
        let least = level.min(-burst);
        match &own {
            Some(own) => level -= (question.balance - own.account) as f64,
            None => {
                if let Some(believes) = believes.filter(|_| question.believed) {
                    level = level.min(believes);
                }
                let owed = question.balance - question.told;
                level -= if lease == 0 { owed } else { owed.max(0) } as f64;
            }
        }
        level = level.min(burst - (out + kept) as f64).max(least);

        let gives = question.want > 0 && level >= question.need as f64;
        let tokens = match gives {
            true => question.need.max(question.want.min((level / 2.0) as u64)),
            false => 0,
        };
        level -= tokens as f64;
        let mut lasts = LIFE.as_micros() as i64;
        if ends > 0 {
            lasts = lasts.min(ends - now);
        }
        self.bucket = Some(Bucket {
            level,
            at: now,
            burst: shape.burst,
            ends,
        });
        if lease != 0 {
            let set = Set {
                held: kept + tokens,
                until: now + lasts,
                number: question.number,
                account: question.balance + tokens as i64,
            };
            self.leases.insert(lease, set);
        }
        let lacks = tokens == 0 && level < question.need as f64;
        let wait = match (lacks, shape.is_counter()) {
            (false, _) => 0,
            (true, true) => (ends - now) as u64,
            (true, false) => ((question.need as f64 - level) * shape.interval).ceil() as u64,
        };
        Answer::Taken(Grant {
            tokens,
            is_anew: own.is_none(),
            level,
            wait: Duration::from_micros(wait),
            now,
            lasts: Duration::from_micros(lasts as u64),
            was_full,
            free: (burst - (out + kept + tokens) as f64 - level).max(0.0) as u64,
        })
    }
}
