//! What is remembered of many clients, in a bound: a map in many small pieces, each under a lock of its own.
//!
//! Small pieces are what keeps every step short: a piece grows, is cleaned and gives its memory back in tens of microseconds, and
//! nobody waits for more than one.

mod piece;

use parking_lot::Mutex;

use self::piece::{Piece, share};
use super::key::Digest;

/// Values of clients, at most as many as it was made for.
pub struct Table<V> {
    pieces: Box<[Mutex<Piece<V>>]>,
    /// Of one piece.
    most: usize,
}

/// Clients in one piece, at most: two thirds of 8192 slots. To grow or clean one takes tens of microseconds; and what stands
/// before the slots of ten million clients is still held by the caches of a core.
const PIECE: usize = 5461;

/// How many are looked at to find one that is the least loss.
const SAMPLE: usize = 8;

impl<V: Default> Table<V> {
    /// For at most `clients`, and as many again for every piece that is not whole.
    pub fn new(clients: usize) -> Self {
        let pieces = clients.div_ceil(PIECE).max(1);
        Self {
            pieces: (0..pieces).map(|_| Mutex::default()).collect(),
            most: clients.div_ceil(pieces).max(1),
        }
    }

    /// What `change` makes of the value of a client, which is a new one if there was none.
    ///
    /// Where there is no room for another client one is forgotten: of a few the one whose `worth` is least. Which these
    /// are, `client` decides, and so nobody can.
    pub fn with<R, W: Ord>(
        &self,
        client: Digest,
        worth: impl Fn(&V) -> W,
        change: impl FnOnce(&mut V) -> R,
    ) -> R {
        let mut piece = self.piece(client).lock();
        if let Some(place) = piece.find(client) {
            return change(piece.value(place));
        }
        if piece.len() >= self.most {
            let some = piece.around(client, SAMPLE);
            let least = some.min_by_key(|(_, value)| worth(value));
            let least = least.map(|(place, _)| place);
            least.map(|place| piece.remove(place));
        }
        let mut new = V::default();
        let changed = change(&mut new);
        piece.insert(client, new, self.most);
        changed
    }

    /// What `look` sees of the value of a client; `None` if there is none.
    pub fn look<R>(&self, client: Digest, look: impl FnOnce(&mut V) -> R) -> Option<R> {
        let mut piece = self.piece(client).lock();
        let place = piece.find(client)?;
        Some(look(piece.value(place)))
    }

    /// Forgets a client.
    pub fn remove(&self, client: Digest) -> Option<V> {
        let mut piece = self.piece(client).lock();
        let place = piece.find(client)?;
        Some(piece.remove(place))
    }

    /// Forgets those in one piece that nothing is worth keeping of, and gives back memory that is not needed.
    /// `number`: any, counted on by who cleans.
    pub fn clean(&self, number: usize, keeps: impl Fn(&V) -> bool) {
        let piece = &self.pieces[number % self.pieces.len()];
        let less = piece.lock().retain(keeps);
        if let Some(clients) = less {
            // Outside the lock: the allocator may take its time, for either.
            let slots = piece::empty(clients);
            let not_needed = piece.lock().move_into(slots);
            drop(not_needed);
        }
    }

    /// How many pieces there are to be cleaned.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Clients that are remembered.
    pub fn clients(&self) -> usize {
        self.pieces.iter().map(|piece| piece.lock().len()).sum()
    }

    fn piece(&self, client: Digest) -> &Mutex<Piece<V>> {
        &self.pieces[share(client.0[1], self.pieces.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digests as a hash would make them.
    fn client(number: u64) -> Digest {
        let mixed = blake3::hash(&number.to_le_bytes());
        let half = |at: usize| u64::from_le_bytes(mixed.as_bytes()[at..at + 8].try_into().unwrap());
        Digest([half(0), half(8)])
    }

    #[test]
    fn no_more_clients_are_remembered_than_there_is_room_for() {
        for room in [1, 16, 5_000] {
            let table = Table::<u64>::new(room);
            for number in 0..3 * room as u64 {
                table.with(client(number), |value| *value, |value| *value = number);
            }
            assert!(
                table.clients() <= room + table.pieces(),
                "{} of {room}",
                table.clients()
            );
        }
    }

    #[test]
    fn who_is_worth_more_stays() {
        let table = Table::<u64>::new(1_000);
        for number in 0..10 {
            table.with(client(number), |value| *value, |value| *value = u64::MAX);
        }
        for number in 10..20_000 {
            table.with(client(number), |value| *value, |value| *value = number);
        }
        for number in 0..10 {
            assert_eq!(table.look(client(number), |value| *value), Some(u64::MAX));
        }
    }

    #[test]
    fn a_table_whose_clients_change_all_the_time_takes_no_more_memory() {
        for room in [850, 1_000, 1_300] {
            let table = Table::<u64>::new(room);
            for number in 0..100 * room as u64 {
                table.with(client(number), |value| *value, |value| *value = number);
            }
            let held: usize = table.pieces.iter().map(|piece| piece.lock().bytes()).sum();
            // A bucket takes 8 bytes more than the numbers of this table.
            assert!(held <= (100 - 8) * room, "{held} for {room}");
        }
    }

    #[test]
    fn memory_is_given_back_when_clients_have_gone() {
        let table = Table::<u64>::new(100_000);
        for number in 0..50_000 {
            table.with(client(number), |value| *value, |value| *value = number);
        }
        let held = || -> usize {
            let pieces = table.pieces.iter();
            pieces.map(|piece| piece.lock().bytes()).sum()
        };
        let full = held();
        for number in 0..table.pieces() {
            table.clean(number, |value| *value < 100);
        }
        assert_eq!(table.clients(), 100);
        assert!(held() * 20 < full, "{} of {full}", held());
        assert_eq!(table.remove(client(5)), Some(5));
        assert_eq!(table.look(client(5), |value| *value), None);
    }
}
