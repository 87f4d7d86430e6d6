//! Who asks most, and who is refused most, in a bound: Space-Saving (Metwally, Agrawal and El Abbadi 2005), one sketch
//! a minute for an hour.
//!
//! A client stays in one shard, whose lock is held for some nanoseconds; once its slots are taken nothing is allocated but when a
//! minute begins.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::key::Digest;

const SHARDS: usize = 8;
/// Clients that a shard counts at once, and those that it remembers of a minute that is over.
const SLOTS: usize = 64;
const KEPT: usize = 16;
const MINUTE: Duration = Duration::from_secs(60);
/// Minutes that are remembered.
const MINUTES: u64 = 60;

/// A client of a rule, and its address where that is its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub digest: Digest,
    pub address: Option<IpAddr>,
}

/// What was counted of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heaviness {
    pub client: Known,
    /// At most so many.
    pub requests: u64,
    /// At least `requests` without these: others may have been counted for it.
    pub over: u64,
    /// Of its requests, at least so many were one too many.
    pub refused: u64,
}

/// The clients of one rule.
pub struct Heavy {
    zero: Instant,
    pub since: SystemTime,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    /// Since `zero`.
    minute: u64,
    current: Sketch,
    past: VecDeque<(u64, Box<[Heaviness]>)>,
    /// Who was one too many, since the beginning.
    refused: Sketch,
}

/// The clients that were counted most, by slot. What each request looks through stands close together.
#[derive(Default)]
struct Sketch {
    /// The beginnings of their digests.
    tags: Vec<u32>,
    requests: Vec<u64>,
    others: Vec<Others>,
    /// No slot has fewer requests.
    fewest: u64,
    /// Where one with the fewest is looked for: behind the one that was found last.
    from: usize,
}

/// What else is known of the client of a slot.
struct Others {
    client: Known,
    over: u64,
    refused: u64,
}

impl Heavy {
    pub fn new(zero: Instant) -> Self {
        Self {
            zero,
            since: SystemTime::now(),
            shards: Default::default(),
        }
    }

    /// Counts a request of a client, and whether it was one too many.
    pub fn count(&self, client: Known, is_refused: bool, now: Instant) {
        let minute = self.minute(now);
        let mut shard = self.shards[client.digest.0[0] as usize % SHARDS].lock();
        if shard.minute < minute {
            shard.begin(minute);
        }
        shard.current.count(client, is_refused);
        if is_refused {
            shard.refused.count(client, true);
        }
    }

    /// Up to `most` clients that asked most in the last so many minutes, the heaviest first.
    pub fn top(&self, minutes: u64, most: usize, now: Instant) -> Vec<Heaviness> {
        let current = self.minute(now);
        // Of the first minute only what is left of it counts.
        let into = now.saturating_duration_since(self.zero).as_secs_f64() / MINUTE.as_secs_f64();
        let share = 1.0 - into.fract();
        let first = current.checked_sub(minutes);
        let mut found: Vec<Heaviness> = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let past = shard.past.iter().map(|(minute, some)| (*minute, &**some));
            let current = shard.current.all();
            let mut all = Vec::new();
            for (minute, some) in past.chain([(shard.minute, &*current)]) {
                let share = match first {
                    Some(first) if minute < first => continue,
                    Some(first) if minute == first => share,
                    _ => 1.0,
                };
                add(&mut all, some, share);
            }
            found.extend(all);
        }
        first_of(found, most)
    }

    /// Up to `most` clients that were one too many most often since the beginning, the first of all first.
    pub fn refused(&self, most: usize) -> Vec<Heaviness> {
        let all = self
            .shards
            .iter()
            .flat_map(|shard| shard.lock().refused.all());
        first_of(all.collect(), most)
    }

    /// The client that was counted lately and whose digest is the one that is looked for.
    pub fn find(&self, is_it: impl Fn(&Digest) -> bool) -> Option<Known> {
        self.shards.iter().find_map(|shard| {
            let shard = shard.lock();
            let past = shard.past.iter().flat_map(|(_, some)| some.iter());
            let past = past.map(|one| one.client);
            let lately = [&shard.current, &shard.refused].into_iter();
            let lately = lately.flat_map(|sketch| sketch.others.iter().map(|one| one.client));
            let mut clients = past.chain(lately);
            clients.find(|client| is_it(&client.digest))
        })
    }

    fn minute(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.zero).as_secs() / MINUTE.as_secs()
    }
}

impl Shard {
    fn begin(&mut self, minute: u64) {
        let of_before = first_of(self.current.all(), KEPT);
        if !of_before.is_empty() {
            self.past.push_back((self.minute, of_before.into()));
        }
        while let Some((first, _)) = self.past.front()
            && first + MINUTES < minute
        {
            self.past.pop_front();
        }
        self.current.clear();
        self.minute = minute;
    }
}

impl Sketch {
    /// Counts one; of a client that has no slot in that of the one counted least.
    fn count(&mut self, client: Known, is_refused: bool) {
        let refused = u64::from(is_refused);
        let tag = tag(&client);
        if let Some(slot) = self.slot(tag, &client) {
            self.requests[slot] += 1;
            self.others[slot].refused += refused;
            return;
        }
        let mut new = Others {
            client,
            over: 0,
            refused,
        };
        if self.tags.len() < SLOTS {
            self.tags.push(tag);
            self.requests.push(1);
            self.others.push(new);
            return;
        }
        let slot = self.least();
        new.over = self.requests[slot];
        self.tags[slot] = tag;
        self.requests[slot] += 1;
        self.others[slot] = new;
    }

    fn slot(&self, tag: u32, client: &Known) -> Option<usize> {
        // Without a branch for each: most who ask have no slot.
        let is_there = self.tags.iter().fold(false, |is, one| is | (*one == tag));
        if !is_there {
            return None;
        }
        let mut slots = self.others.iter();
        slots.position(|one| one.client.digest == client.digest)
    }

    /// A slot that is counted least. A crowd of strangers takes one after the other, so that the next one is found at once.
    fn least(&mut self) -> usize {
        let next = |from: usize, fewest: u64, requests: &[u64]| {
            let mut slots = (from..SLOTS).chain(0..from);
            slots.find(|slot| requests[*slot] == fewest)
        };
        let slot = next(self.from, self.fewest, &self.requests).or_else(|| {
            self.fewest = self.requests.iter().copied().min().unwrap_or_default();
            next(self.from, self.fewest, &self.requests)
        });
        let slot = slot.expect("one of them has the fewest");
        self.from = (slot + 1) % SLOTS;
        slot
    }

    fn all(&self) -> Vec<Heaviness> {
        let slots = self.requests.iter().zip(&self.others);
        let all = slots.map(|(requests, others)| Heaviness {
            client: others.client,
            requests: *requests,
            over: others.over,
            refused: others.refused,
        });
        all.collect()
    }

    fn clear(&mut self) {
        self.tags.clear();
        self.requests.clear();
        self.others.clear();
        self.fewest = 0;
    }
}

fn tag(client: &Known) -> u32 {
    (client.digest.0[0] >> 32) as u32
}

/// Adds a share of what was counted elsewhere.
fn add(all: &mut Vec<Heaviness>, some: &[Heaviness], share: f64) {
    let part = |count: u64| (count as f64 * share).round() as u64;
    for one in some {
        let mut mine = all
            .iter_mut()
            .filter(|mine| mine.client.digest == one.client.digest);
        let (requests, over, refused) = (part(one.requests), part(one.over), part(one.refused));
        match mine.next() {
            Some(mine) => {
                mine.requests += requests;
                mine.over += over;
                mine.refused += refused;
            }
            None if requests == 0 => {}
            None => all.push(Heaviness {
                client: one.client,
                requests,
                over,
                refused,
            }),
        }
    }
}

/// The heaviest first.
fn first_of(mut all: Vec<Heaviness>, most: usize) -> Vec<Heaviness> {
    all.sort_unstable_by_key(|one| std::cmp::Reverse(one.requests));
    all.truncate(most);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u64) -> Known {
        // As a hash would spread them.
        let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Known {
            digest: Digest([mixed ^ mixed >> 32, number]),
            address: None,
        }
    }

    fn after(heavy: &Heavy, seconds: u64) -> Instant {
        heavy.zero + Duration::from_secs(seconds)
    }

    #[test]
    fn the_heaviest_are_found_among_any_number_of_others() {
        let heavy = Heavy::new(Instant::now());
        let now = after(&heavy, 10);
        for round in 0..20_000 {
            heavy.count(client(1_000_000 + round), false, now);
            if round % 10 == 0 {
                heavy.count(client(1), round % 20 == 0, now);
            }
            if round % 20 == 0 {
                heavy.count(client(2), false, now);
            }
        }
        let top = heavy.top(1, 2, now);
        assert_eq!(top[0].client, client(1), "{top:?}");
        assert_eq!(top[1].client, client(2), "{top:?}");
        for (one, real) in top.iter().zip([2_000, 1_000]) {
            assert!(
                one.requests >= real && one.requests - one.over <= real,
                "{one:?}"
            );
        }
        assert_eq!(heavy.refused(5)[0].requests, 1_000);
        for shard in &heavy.shards {
            assert!(shard.lock().current.tags.len() <= SLOTS);
        }
    }

    #[test]
    fn what_was_long_ago_counts_in_the_longer_windows_only() {
        let heavy = Heavy::new(Instant::now());
        let counts = |minutes, now| -> Vec<u64> {
            let top = heavy.top(minutes, 10, after(&heavy, now));
            top.iter().map(|one| one.requests).collect()
        };
        (0..100).for_each(|_| heavy.count(client(1), false, after(&heavy, 0)));
        (0..30).for_each(|_| heavy.count(client(2), false, after(&heavy, 240)));
        assert_eq!(counts(1, 240), [30]);
        assert_eq!(counts(5, 240), [100, 30]);
        // Half of the first minute is out of sight.
        assert_eq!(counts(5, 330), [50, 30]);
        assert_eq!(counts(60, 330), [100, 30]);
        heavy.count(client(1), false, after(&heavy, 2 * 3600 + 240));
        assert_eq!(counts(60, 2 * 3600 + 240), [1]);
    }

    #[test]
    fn an_hour_of_many_clients_is_remembered_in_a_bound() {
        let heavy = Heavy::new(Instant::now());
        for minute in 0..200 {
            for one in 0..1_000 {
                heavy.count(client(one), true, after(&heavy, 60 * minute));
            }
        }
        for shard in &heavy.shards {
            let shard = shard.lock();
            assert!(shard.past.len() as u64 <= MINUTES + 1);
            assert!(shard.past.iter().all(|(_, some)| some.len() <= KEPT));
            assert!(shard.refused.tags.len() <= SLOTS);
        }
    }
}
