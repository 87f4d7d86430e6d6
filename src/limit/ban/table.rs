//! The bans that stand, by client. Bounded: when it is full the shortest remaining goes, and nothing but a ban fills it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use super::client::Client;
use super::standing::Ban;

/// Readers of different clients rarely meet.
const SHARDS: usize = 64;
/// Spreads neighbours. Whoever can choose addresses may meet others at a lock, and no more.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

type Shard = RwLock<HashMap<Client, Arc<Ban>>>;

#[derive(Debug)]
pub struct Table {
    most: usize,
    count: AtomicUsize,
    shards: [Shard; SHARDS],
    /// The same, by their end. Its lock is taken for every change, before that of a shard.
    ends: Mutex<BTreeSet<(Instant, Client)>>,
}

/// What became of a ban.
#[derive(Debug)]
pub enum Put {
    /// It stands. One that was over already, or ended sooner where there was no room, has gone for it.
    Stands { gone: Option<(Client, Arc<Ban>)> },
    /// One that is at least as long stands already.
    Outlasted,
    /// There is no room: all others are longer.
    Full,
}

impl Table {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            count: AtomicUsize::new(0),
            shards: std::array::from_fn(|_| Shard::default()),
            ends: Mutex::default(),
        }
    }

    /// One relaxed load.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The ban of this client that stands now.
    pub fn find(&self, client: &Client, now: Instant) -> Option<Arc<Ban>> {
        let shard = self.shard(client).read();
        shard.get(client).filter(|ban| ban.ends > now).cloned()
    }

    /// Puts a ban in, in place of one of the same client that ends sooner.
    pub fn put(&self, client: Client, ban: Arc<Ban>, now: Instant) -> Put {
        let mut ends = self.ends.lock();
        let before = self.find_any(&client);
        if before
            .as_ref()
            .is_some_and(|before| before.ends > now && before.ends >= ban.ends)
        {
            return Put::Outlasted;
        }
        let is_full = ends.len() >= self.most;
        if let Some(before) = &before {
            ends.remove(&(before.ends, client));
        } else if is_full && ends.first().is_none_or(|(first, _)| *first >= ban.ends) {
            return Put::Full;
        }
        let gone = match before {
            Some(before) => (before.ends <= now).then_some((client, before)),
            None if is_full => {
                let first = ends.pop_first();
                first.and_then(|(_, client)| Some((client, self.take(&client)?)))
            }
            None => None,
        };
        ends.insert((ban.ends, client));
        self.shard(&client).write().insert(client, ban);
        self.count.store(ends.len(), Ordering::Relaxed);
        Put::Stands { gone }
    }

    pub fn remove(&self, client: &Client) -> Option<Arc<Ban>> {
        let mut ends = self.ends.lock();
        let ban = self.take(client)?;
        ends.remove(&(ban.ends, *client));
        self.count.store(ends.len(), Ordering::Relaxed);
        Some(ban)
    }

    /// Takes out those that are over, at most so many.
    pub fn take_over(&self, now: Instant, most: usize) -> Vec<(Client, Arc<Ban>)> {
        let mut over = Vec::new();
        let mut ends = self.ends.lock();
        while over.len() < most
            && let Some((end, client)) = ends.first().copied()
            && end <= now
        {
            ends.pop_first();
            over.extend(self.take(&client).map(|ban| (client, ban)));
        }
        self.count.store(ends.len(), Ordering::Relaxed);
        over
    }

    /// Those that stand, the one that ends last first, at most so many.
    pub fn list(&self, now: Instant, most: usize) -> Vec<(Client, Arc<Ban>)> {
        let ends = self.ends.lock();
        let standing = ends.iter().rev().take_while(|(end, _)| *end > now);
        standing
            .take(most)
            .filter_map(|(_, client)| Some((*client, self.find_any(client)?)))
            .collect()
    }

    fn shard(&self, client: &Client) -> &Shard {
        let bits = client.bits();
        // Networks of IPv6 differ above, addresses below.
        let mixed = ((bits >> 64) as u64 ^ bits as u64).wrapping_mul(MIX);
        &self.shards[(mixed >> 32) as usize % SHARDS]
    }

    fn find_any(&self, client: &Client) -> Option<Arc<Ban>> {
        self.shard(client).read().get(client).cloned()
    }

    fn take(&self, client: &Client) -> Option<Arc<Ban>> {
        let mut shard = self.shard(client).write();
        let taken = shard.remove(client);
        if shard.is_empty() {
            *shard = HashMap::new();
        }
        taken
    }
}
