//! How often each client did something lately, in a room of fixed size. Knows no rule; knows clients, times and numbers.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::client::Client;

/// The window is counted in this many slices. What is counted spans all of them and the one under way.
const SLICES: usize = 8;
/// Slots that one client may have its count in: when all are taken, the least of them goes.
const WAYS: usize = 8;
/// Locks at least, each over its share of the slots.
const SHARDS: usize = 64;
/// Clients of one lock at most: nobody waits long for whoever makes room there or gives it back.
const SHARD: usize = 2048;

/// Counts of one event.
///
/// As many events as lie within one window are always counted together; those that lie within nine eighths of it may be.
/// Where there is no room for one more client, the one with the fewest events of eight goes.
#[derive(Debug)]
pub struct Counts {
    /// One eighth of the window.
    slice: Duration,
    epoch: Instant,
    hasher: RandomState,
    /// Clients of one shard, a multiple of [`WAYS`].
    room: usize,
    /// Without slots until something is counted there.
    shards: Box<[Mutex<Vec<Slot>>]>,
    /// How often [`Counts::tidy`] was called.
    turn: Mutex<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    client: Option<Client>,
    /// The slice of the last event, since the epoch.
    last: u64,
    /// By slice, turning round.
    events: [u16; SLICES + 1],
}

impl Slot {
    const FREE: Self = Self {
        client: None,
        last: 0,
        events: [0; SLICES + 1],
    };

    /// Forgets what is too long ago.
    fn turn_to(&mut self, slice: u64) {
        // A clock that is read by many may be behind for one of them.
        let passed = slice.saturating_sub(self.last);
        for step in 1..=passed.min(self.events.len() as u64) {
            self.events[place(self.last + step)] = 0;
        }
        self.last = self.last.max(slice);
    }

    fn sum(&self) -> u32 {
        self.events.iter().map(|&events| u32::from(events)).sum()
    }

    /// Events that are not forgotten at this slice.
    fn weight(&self, slice: u64) -> u32 {
        let mut then = *self;
        then.turn_to(slice);
        then.sum()
    }
}

fn place(slice: u64) -> usize {
    (slice % (SLICES as u64 + 1)) as usize
}

impl Counts {
    /// Up to about `clients` at a time, each within `window`.
    pub fn new(clients: usize, window: Duration) -> Self {
        let shards = clients.div_ceil(SHARD).max(SHARDS);
        let room = clients.div_ceil(shards * WAYS).max(1) * WAYS;
        Self {
            slice: (window / SLICES as u32).max(Duration::from_millis(1)),
            epoch: Instant::now(),
            hasher: RandomState::new(),
            room,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            turn: Mutex::new(0),
        }
    }

    /// Counts one event; how many there are of this client within the window now.
    pub fn add(&self, client: &Client, now: Instant) -> u32 {
        let slice = self.slice_of(now);
        let (shard, begin) = self.home(client);
        let mut slots = self.shards[shard].lock();
        if slots.is_empty() {
            slots.resize(self.room, Slot::FREE);
        }
        let ways = &mut slots[begin..begin + WAYS];
        let known = ways.iter().position(|slot| slot.client == Some(*client));
        let slot = match known {
            Some(known) => &mut ways[known],
            None => {
                let weakest =
                    |slot: &&mut Slot| (slot.client.is_some(), slot.weight(slice), slot.last);
                let slot = ways.iter_mut().min_by_key(weakest).expect("there are ways");
                *slot = Slot {
                    client: Some(*client),
                    last: slice,
                    ..Slot::FREE
                };
                slot
            }
        };
        slot.turn_to(slice);
        let events = &mut slot.events[place(slot.last)];
        *events = events.saturating_add(1);
        slot.sum()
    }

    /// Forgets this client.
    pub fn forget(&self, client: &Client) {
        let (shard, begin) = self.home(client);
        let mut slots = self.shards[shard].lock();
        let ways = slots.iter_mut().skip(begin).take(WAYS);
        for slot in ways.filter(|slot| slot.client == Some(*client)) {
            *slot = Slot::FREE;
        }
    }

    /// Gives the room of a few shards back where nothing counts any more; the next time of the next ones.
    pub fn tidy(&self, now: Instant) {
        let slice = self.slice_of(now);
        let mut turn = self.turn.lock();
        *turn = (*turn + 1) % SHARDS;
        for shard in self.shards.iter().skip(*turn).step_by(SHARDS) {
            let mut slots = shard.lock();
            if slots.iter().all(|slot| slot.weight(slice) == 0) {
                *slots = Vec::new();
            }
        }
    }

    fn slice_of(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        (since.as_nanos() / self.slice.as_nanos()) as u64
    }

    /// The shard of a client, and where its ways begin there.
    fn home(&self, client: &Client) -> (usize, usize) {
        // Keyed at random: nobody can choose whom to displace.
        let hash = self.hasher.hash_one(client);
        let (shard, set) = (hash as usize % self.shards.len(), (hash >> 32) as usize);
        (shard, set % (self.room / WAYS) * WAYS)
    }

    #[cfg(test)]
    fn slots(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn client(number: u32) -> Client {
        std::net::Ipv4Addr::from_bits(number)
            .to_string()
            .parse()
            .unwrap()
    }

    #[test]
    fn events_of_a_window_are_counted_and_older_ones_are_forgotten() {
        let counts = Counts::new(1000, MINUTE);
        let begin = counts.epoch;
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(counts.add(&client(1), at(0)), 1);
        assert_eq!(counts.add(&client(1), at(30)), 2);
        assert_eq!(counts.add(&client(2), at(30)), 1);
        assert_eq!(counts.add(&client(1), at(59)), 3);
        assert_eq!(counts.add(&client(1), at(70)), 3, "the first is forgotten");
        assert_eq!(counts.add(&client(1), at(1000)), 1);
        counts.forget(&client(1));
        assert_eq!(counts.add(&client(1), at(1000)), 1);
    }

    #[test]
    fn a_flood_of_others_neither_takes_more_room_nor_drives_out_who_did_the_most() {
        let counts = Counts::new(4096, MINUTE);
        let now = counts.epoch;
        for _ in 0..15 {
            counts.add(&client(0), now);
        }
        for other in 1..200_000 {
            counts.add(&client(other), now);
        }
        assert_eq!(counts.slots(), 4096);
        assert_eq!(counts.add(&client(0), now), 16);
    }

    #[test]
    fn room_is_given_back_when_everything_is_forgotten() {
        let counts = Counts::new(1000, MINUTE);
        let tidy_all = |now| (0..SHARDS).for_each(|_| counts.tidy(now));
        for number in 0..500 {
            counts.add(&client(number), counts.epoch);
        }
        tidy_all(counts.epoch + Duration::from_secs(50));
        assert!(counts.slots() > 0);
        tidy_all(counts.epoch + 2 * MINUTE);
        assert_eq!(counts.slots(), 0);
        assert_eq!(counts.add(&client(1), counts.epoch + 2 * MINUTE), 1);
    }

    proptest! {
        #[test]
        fn a_count_is_between_that_of_one_window_and_that_of_nine_eighths(
            gaps in prop::collection::vec(0u64..20_000, 1..200),
        ) {
            let counts = Counts::new(8, MINUTE);
            let mut times = Vec::new();
            let mut now = 0;
            for gap in gaps {
                now += gap;
                times.push(now);
                let counted = counts.add(&client(1), counts.epoch + Duration::from_millis(now));
                let within = |window: u64| times.iter().filter(|time| **time + window > now).count() as u32;
                prop_assert!(counted >= within(60_000), "{counted} of {}", within(60_000));
                prop_assert!(counted <= within(67_500), "{counted} of {}", within(67_500));
            }
        }
    }
}
