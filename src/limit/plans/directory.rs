//! The plans of keys as a hash in Redis has them: what was read is held for a moment, and a key is asked for by one
//! request at a time. Whatever becomes of Redis, there is an answer: what was known, or that nothing is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;
use parking_lot::Mutex;
use redis::cmd;
use tokio::sync::Semaphore;

use super::KeyDigest;
use crate::redis::{Away, Lane, Redis};

/// How long what was read is believed.
const LIFE: Duration = Duration::from_secs(2);

/// How long Redis is not asked for a key again when it did not answer.
const AFTER_MISS: Duration = Duration::from_millis(500);

/// Keys that are remembered.
const MOST_KEYS: u64 = 100_000;

/// The longest key that is looked for, in bytes.
const LONGEST_KEY: usize = 1024;

/// What a hash begins with that stands in place of its key.
const HASHED: &[u8] = b"sha256:";

/// Questions at once: who invents keys does not make more of them.
const MOST_QUESTIONS: usize = 64;

/// A hash of keys, as they are or as `sha256:HEX`, and the names of their plans.
pub struct Directory {
    /// Without the prefix of all our keys.
    hash: Box<str>,
    keys: Cache<KeyDigest, Arc<Slot>>,
    questions: Semaphore,
}

/// What is known of one key.
#[derive(Default)]
struct Slot {
    known: Mutex<Option<Known>>,
    /// Held by who asks.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Known {
    plan: Option<Arc<str>>,
    until: Instant,
}

impl Slot {
    fn known(&self) -> Option<Known> {
        self.known.lock().clone()
    }

    fn fresh(&self) -> Option<Known> {
        self.known().filter(|known| Instant::now() < known.until)
    }

    fn learn(&self, plan: Option<Arc<str>>, life: Duration) -> Option<Arc<str>> {
        *self.known.lock() = Some(Known {
            plan: plan.clone(),
            until: Instant::now() + life,
        });
        plan
    }
}

impl Directory {
    pub fn new(hash: &str) -> Self {
        Self {
            hash: hash.into(),
            keys: Cache::new(MOST_KEYS),
            questions: Semaphore::new(MOST_QUESTIONS),
        }
    }

    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The plan of a key, by what was read a moment ago or else by one question within the deadline.
    pub async fn plan_of(&self, key: &[u8], redis: Option<&Redis>) -> Option<Arc<str>> {
        if key.len() > LONGEST_KEY {
            return None;
        }
        let digest = KeyDigest::of(key);
        let slot = self.keys.get_with(digest, Arc::default);
        if let Some(known) = slot.fresh() {
            return known.plan;
        }
        let _asking = match (slot.asking.try_lock(), slot.known()) {
            (Ok(asking), _) => asking,
            (Err(_), Some(known)) => return known.plan,
            (Err(_), None) => slot.asking.lock().await,
        };
        // Somebody may have asked meanwhile.
        if let Some(known) = slot.fresh() {
            return known.plan;
        }
        let before = slot.known().and_then(|known| known.plan);
        let (Some(redis), Ok(_question)) = (redis, self.questions.try_acquire()) else {
            return before;
        };
        match self.ask(key, digest, redis).await {
            Ok(plan) => slot.learn(plan, LIFE),
            Err(_) => slot.learn(before, AFTER_MISS),
        }
    }

    async fn ask(
        &self,
        key: &[u8],
        digest: KeyDigest,
        redis: &Redis,
    ) -> Result<Option<Arc<str>>, Away> {
        let mut command = cmd("HMGET");
        command.arg(redis.key(&self.hash)).arg(digest.to_string());
        // The hash of a key is no key: who has read it there cannot use it.
        if !key.starts_with(HASHED) {
            command.arg(key);
        }
        let plans: Vec<Option<String>> = redis.ask(Lane::Control, &command).await?;
        Ok(plans.into_iter().flatten().next().map(Into::into))
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Directory")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}
