//! Purges and quarantines here, and at every other gateway that shares a Redis with this one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::guard::{Guard, Release, Suspicion};
use super::key::Key;
use super::replication::Replication;
use super::tombstones::{Purge, Tombstones};
use crate::redis::Redis;

/// What a gateway calls itself among others: `web-1:8080`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(Box<str>);

impl Name {
    /// Spaces, which no host name has, become `_`.
    pub fn new(text: &str) -> Self {
        Self(text.replace(char::is_whitespace, "_").into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What became of a purge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// Later purges have higher ones. `None`: Redis is away, and gives one when it is back.
    pub number: Option<u64>,
    /// The gateways that give nothing of it any more.
    pub acknowledged: Vec<Name>,
    /// Those that may still.
    pub missing: Vec<Name>,
}

impl Purged {
    /// Whether every gateway is known to have heard of it.
    pub fn is_everywhere(&self) -> bool {
        self.number.is_some() && self.missing.is_empty()
    }
}

/// For humans, in one line.
impl fmt::Display for Purged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |names: &[Name]| {
            let names: Vec<_> = names.iter().map(Name::as_str).collect();
            names.join(", ")
        };
        match self.number {
            Some(number) => write!(f, "purge {number}")?,
            None => f.write_str("Redis is away; a purge without a number yet")?,
        }
        write!(f, ", acknowledged by {}", join(&self.acknowledged))?;
        match self.missing.is_empty() {
            true => Ok(()),
            false => write!(f, "; not by {}", join(&self.missing)),
        }
    }
}

/// Purges what this gateway and its peers have stored.
pub struct Purger {
    name: Name,
    tombstones: Arc<Tombstones>,
    guard: Arc<Guard>,
    replication: Option<Arc<Replication>>,
}

impl Purger {
    /// `redis` is what the peers share; without it what is stored is given for `patience`, `None` is for ever. To be
    /// called in a runtime.
    pub fn new(
        name: Name,
        tombstones: Arc<Tombstones>,
        redis: Option<Arc<Redis>>,
        patience: Option<Duration>,
    ) -> Self {
        let guard = Arc::new(Guard::default());
        let open = |redis| {
            let (tombstones, guard) = (tombstones.clone(), guard.clone());
            Replication::open(redis, tombstones, guard, name.clone(), patience)
        };
        let replication = redis.map(open);
        Self {
            name,
            tombstones,
            guard,
            replication,
        }
    }

    /// Purges what was asked for until now, and waits until every gateway has, up to a second.
    pub async fn purge(&self, purge: Purge) -> Purged {
        match &self.replication {
            Some(replication) => {
                let replication = replication.clone();
                // In a task of its own: when the one who asked leaves, it is not left half done.
                let purging = tokio::spawn(async move { replication.purge(purge).await });
                // It ends early with the process only.
                purging.await.unwrap_or_else(|_| Purged {
                    number: None,
                    acknowledged: Vec::new(),
                    missing: vec![self.name.clone()],
                })
            }
            None => Purged {
                number: Some(self.tombstones.purge(&purge)),
                acknowledged: vec![self.name.clone()],
                missing: Vec::new(),
            },
        }
    }

    /// Purges here, and has it done elsewhere as soon as may be.
    pub fn purge_soon(&self, purge: Purge) {
        match &self.replication {
            Some(replication) => replication.purge_soon(&purge),
            None => {
                self.tombstones.purge(&purge);
            }
        }
    }

    /// What is kept out of the cache.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Keeps a key out of the cache from here on, for `duration`, and has it kept out elsewhere as soon as may be.
    /// What is stored is purged by `stored`.
    pub fn quarantine(&self, key: &Key, why: Suspicion, duration: Duration, stored: Purge) {
        let is_new = self.guard.hold(key, why, duration);
        if let Some(replication) = self.replication.as_ref().filter(|_| is_new) {
            replication.hold_soon();
        }
        self.purge_soon(stored);
    }

    /// Ends the quarantine of keys, and waits until every gateway has, up to a second. How many there were here.
    pub async fn release(&self, which: &Release) -> (usize, Purged) {
        let count = self.guard.release(which);
        let told = match &self.replication {
            Some(replication) => replication.release(which).await,
            None => Purged {
                number: Some(0),
                acknowledged: vec![self.name.clone()],
                missing: Vec::new(),
            },
        };
        (count, told)
    }

    /// Whether other gateways may have stored something too.
    pub fn has_peers(&self) -> bool {
        self.replication.is_some()
    }

    /// Waits until what was purged before is known, so that the first requests are answered by it;
    /// as long as Redis answers at all.
    pub async fn ready(&self) {
        if let Some(replication) = &self.replication {
            replication.read().await;
        }
    }

    /// Says to the peers that nobody is to wait for this gateway any more.
    pub async fn leave(&self) {
        if let Some(replication) = &self.replication {
            replication.leave().await;
        }
    }
}
