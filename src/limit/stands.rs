//! How one client stands with one rule, for operators: a look that takes nothing, and a fresh start.

use http::Method;

use super::heavy::Known;
use super::key::name::Name;
use super::key::network;
use super::key::{Asker, Digest};
use super::local::Standing;
use super::quota::Quota;
use super::{Phase, Rule};
use crate::moment::Moment;

/// How a client stands with a rule.
#[derive(Debug)]
pub struct Stands<'a> {
    pub quotas: Vec<QuotaStands<'a>>,
    /// Of its requests that are under way, and how many may be.
    pub under_way: Option<(u32, u32)>,
    /// Of its requests that wait.
    pub waiting: u32,
}

/// How a client stands with a quota.
#[derive(Debug)]
pub struct QuotaStands<'a> {
    pub policy: &'a str,
    pub quota: Quota,
    pub used: u64,
    pub standing: Standing,
}

impl Rule {
    /// The client that an operator names, if this rule counts such.
    pub fn named(&self, name: &Name) -> Option<Known> {
        match name {
            Name::Said(said) => Some(Known {
                digest: self.key.named(said, self.prefixes, self.secret())?,
                address: name
                    .address()
                    .map(|address| network(address, self.prefixes)),
            }),
            Name::Short(short) => self.live.heavy.find(|digest| short.is(digest)),
        }
    }

    /// The client that is counted for a request, unless it has brought too many new names.
    pub fn counted(&self, asker: &Asker<'_>) -> Known {
        let counted = self.key.of(asker, self.prefixes, self.secret());
        self.known(counted, asker)
    }

    /// Whether a request is not counted.
    pub fn is_exempt(&self, asker: &Asker<'_>) -> bool {
        self.exempt.has(asker)
    }

    /// What a request takes that is not answered from the cache.
    pub fn cost(&self, method: &Method, asker: &Asker<'_>) -> u64 {
        self.cost_of(method, asker.path, Phase::Whole)
    }

    /// How a client stands. Nothing changes by it.
    pub fn stands(&self, client: Digest, now: Moment) -> Stands<'_> {
        let meters = self.meters.iter().enumerate();
        let quotas = meters.map(|(number, (meter, policy))| {
            let bucket = self.secret().with(client, number);
            let standing = match &self.sharing {
                Some(sharing) => self.live.leases.standing(sharing, bucket, meter, now),
                None => self.live.local.standing(bucket, meter, now),
            };
            QuotaStands {
                policy,
                quota: meter.quota,
                used: meter.most().saturating_sub(standing.left),
                standing,
            }
        });
        Stands {
            quotas: quotas.collect(),
            under_way: self.in_flight.as_ref().map(|bound| {
                let under_way = self.live.in_flight.of(client);
                (under_way, bound.most)
            }),
            waiting: self.live.waiting.of(client),
        }
    }

    /// Forgets what a client has used; of how many quotas there was something.
    pub fn reset(&self, client: Digest) -> usize {
        let buckets = (0..self.meters.len()).map(|number| self.secret().with(client, number));
        buckets
            .filter(|bucket| match &self.sharing {
                Some(sharing) => {
                    let leases = &self.live.leases;
                    leases.reset(sharing, &self.live.local, *bucket)
                }
                None => self.live.local.reset(*bucket),
            })
            .count()
    }
}
