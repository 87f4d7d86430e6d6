//! What the cache had to do with an answer, as clients and records are told: `Age`, `Cache-Status`
//! (RFC 9211), `X-Cache`.

use std::time::SystemTime;

use super::policy::{Dressed, Name};
use crate::cache::freshness::Freshness;
use crate::cache::status::{CacheStatus, Disposition, Forward, Outcome, Tier};
use crate::short::Short;

static AGE: Name = Name::of("age", "Age");
static CACHE_STATUS: Name = Name::of("cache-status", "Cache-Status");
static X_CACHE: Name = Name::of("x-cache", "X-Cache");
static X_CACHE_HITS: Name = Name::of("x-cache-hits", "X-Cache-Hits");
static X_CACHE_MISSES: Name = Name::of("x-cache-misses", "X-Cache-Misses");

/// Whether a response says of itself what [`Told::finish`] may say.
pub fn is_said(response: &impl Dressed) -> bool {
    let names = [&AGE, &X_CACHE, &X_CACHE_HITS, &X_CACHE_MISSES];
    names.iter().any(|name| response.has(name.name()))
}

/// How one answer came about. Never stored.
#[derive(Clone, Debug)]
pub struct Told {
    pub outcome: Outcome,
    /// Where the stored response stood that is given.
    pub tier: Option<Tier>,
    /// Of an answer that is stored: whole seconds since it was made.
    pub age: Option<u64>,
    pub ttl: Option<i64>,
    /// Why it is not stored, or what else there is to say: a stable word.
    pub detail: Option<&'static str>,
    /// Set for trusted clients alone, who are told the detail too.
    pub key: Option<Box<str>>,
    /// Hits and misses of the route, this one with them, where the policy says that clients are told.
    pub counts: Option<(u64, u64)>,
}

impl Told {
    /// The origin is asked, and nothing of it is stored.
    pub fn forwarded(why: Forward, detail: Option<&'static str>) -> Self {
        Self {
            outcome: Outcome::Forwarded {
                why,
                status: None,
                stored: false,
                collapsed: false,
            },
            tier: None,
            age: None,
            ttl: None,
            detail,
            key: None,
            counts: None,
        }
    }

    /// A stored response is given; it stood in memory, if it is a hit.
    pub fn given(outcome: Outcome, freshness: &Freshness, now: SystemTime) -> Self {
        Self {
            outcome,
            tier: (outcome == Outcome::Hit).then_some(Tier::Memory),
            age: Some(freshness.age(now).as_secs()),
            ttl: Some(freshness.ttl(now)),
            detail: None,
            key: None,
            counts: None,
        }
    }

    /// In one word.
    pub fn disposition(&self) -> Disposition {
        self.status().disposition()
    }

    /// Gives a response its fields.
    pub fn finish(&self, response: &mut impl Dressed) {
        let status = self.status();
        if let Some(age) = self.age {
            let mut seconds = Short::<20>::default();
            seconds.push_decimal(age);
            response.set(&AGE, seconds.as_bytes());
        }
        response.add_with(&CACHE_STATUS, |line| status.write(line));
        response.set(&X_CACHE, status.disposition().in_capitals().as_bytes());
        if let Some((hits, misses)) = self.counts {
            response.set(&X_CACHE_HITS, hits.to_string().as_bytes());
            response.set(&X_CACHE_MISSES, misses.to_string().as_bytes());
        }
    }

    fn status(&self) -> CacheStatus<'_> {
        CacheStatus {
            outcome: self.outcome,
            ttl: self.ttl,
            key: self.key.as_deref(),
            detail: self.detail.filter(|_| self.key.is_some()),
        }
    }
}
