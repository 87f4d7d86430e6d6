//! How many requests of one client are under way at once. A client is remembered only while it has one, so that the
//! table holds no more than there are requests, and nobody's count is forgotten for another's.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;

use super::key::Digest;

const SHARDS: usize = 16;

/// The requests of one rule that are under way, by client.
#[derive(Default)]
pub struct InFlight([Mutex<HashMap<Digest, u32>>; SHARDS]);

/// One request that is under way: it counts until this is dropped.
#[derive(Debug)]
pub struct Place {
    table: Arc<InFlight>,
    client: Digest,
    /// How many of its client's were under way when it came, itself included.
    pub number: u32,
}

impl InFlight {
    /// A place for one more request of `client`; `None` if `most` are under way.
    pub fn enter(self: &Arc<Self>, client: Digest, most: u32) -> Option<Place> {
        let mut counts = self.shard(client).lock();
        let count = counts.get(&client).copied().unwrap_or_default();
        if count >= most {
            return None;
        }
        counts.insert(client, count + 1);
        Some(Place {
            table: self.clone(),
            client,
            number: count + 1,
        })
    }

    /// How many of a client's are under way.
    pub fn of(&self, client: Digest) -> u32 {
        let counts = self.shard(client).lock();
        counts.get(&client).copied().unwrap_or_default()
    }

    /// Clients that have a request under way.
    pub fn clients(&self) -> usize {
        self.0.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, client: Digest) -> &Mutex<HashMap<Digest, u32>> {
        &self.0[client.0[0] as usize % SHARDS]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.table.shard(self.client).lock();
        if let Entry::Occupied(mut count) = counts.entry(self.client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        // What a crowd needed is given back when it has gone.
        if counts.capacity() > 64 && counts.len() * 8 < counts.capacity() {
            counts.shrink_to_fit();
        }
    }
}

impl std::fmt::Debug for InFlight {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "InFlight({} clients)", self.clients())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(number: u64) -> Digest {
        Digest([number, 0])
    }

    #[test]
    fn a_client_has_as_many_as_it_may_and_one_more_when_one_ends() {
        let table = Arc::new(InFlight::default());
        let held: Vec<_> = (0..3).filter_map(|_| table.enter(client(1), 3)).collect();
        assert_eq!(held.len(), 3);
        assert!(table.enter(client(1), 3).is_none());
        assert!(table.enter(client(2), 3).is_some());
        drop(held);
        assert_eq!(table.enter(client(1), 3).unwrap().number, 1);
        assert_eq!(table.clients(), 0);
    }

    #[test]
    fn a_crowd_that_has_gone_takes_no_memory() {
        let table = Arc::new(InFlight::default());
        let crowd: Vec<_> = (0..100_000)
            .map(|one| table.enter(client(one), 1))
            .collect();
        assert_eq!(table.clients(), 100_000);
        drop(crowd);
        let capacity: usize = table.0.iter().map(|shard| shard.lock().capacity()).sum();
        assert!(capacity <= SHARDS * 64, "{capacity}");
    }

    proptest! {
        #[test]
        fn nobody_ever_has_more_than_it_may(steps in prop::collection::vec((0_u64..4, any::<bool>(), any::<prop::sample::Index>()), 1..200)) {
            let table = Arc::new(InFlight::default());
            let mut held: Vec<(u64, Place)> = Vec::new();
            for (one, enters, index) in steps {
                if enters {
                    let before = held.iter().filter(|(other, _)| *other == one).count();
                    let place = table.enter(client(one), 5);
                    prop_assert_eq!(place.is_some(), before < 5);
                    held.extend(place.map(|place| (one, place)));
                } else if !held.is_empty() {
                    held.swap_remove(index.index(held.len()));
                }
            }
            let mut clients: Vec<_> = held.iter().map(|(one, _)| *one).collect();
            clients.sort_unstable();
            clients.dedup();
            prop_assert_eq!(table.clients(), clients.len());
        }
    }
}
