//! A few clients in one array: open addressing with linear probing. A client stands where it is looked for or just
//! behind, so that in a table of gigabytes it is found with one wait for memory; and one that is forgotten leaves no
//! mark behind that would take room.

use crate::limit::key::Digest;

/// Clients by the first halves of their digests, which are hashes already, under a secret. The second half has chosen the
/// piece: together they tell more clients apart than there will ever be.
pub struct Piece<V> {
    /// At most two thirds are taken.
    slots: Slots<V>,
    len: usize,
}

/// Room for clients.
pub type Slots<V> = Box<[Option<(u64, V)>]>;

/// Fewer slots are not made: a piece that grows step by step is made anew too often.
const FEWEST_SLOTS: usize = 32;

impl<V> Default for Piece<V> {
    fn default() -> Self {
        Self {
            slots: Box::default(),
            len: 0,
        }
    }
}

impl<V> Piece<V> {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where a client stands.
    pub fn find(&self, client: Digest) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let half = client.0[0];
        let mut place = self.home(half);
        while let Some((known, _)) = &self.slots[place] {
            if *known == half {
                return Some(place);
            }
            place = self.next(place);
        }
        None
    }

    /// The value at a place where somebody stands.
    pub fn value(&mut self, place: usize) -> &mut V {
        let slot = self.slots[place].as_mut();
        &mut slot.expect("somebody stands there").1
    }

    /// Up to `most` who stand at or behind the home of a client: who is looked for there has brought them into the cache.
    pub fn around(&self, client: Digest, most: usize) -> impl Iterator<Item = (usize, &V)> {
        let first = match self.slots.is_empty() {
            true => 0,
            false => self.home(client.0[0]),
        };
        let (before, behind) = self.slots.split_at(first);
        let all = behind.iter().zip(first..).chain(before.iter().zip(0..));
        let taken = all.filter_map(|(slot, place)| Some((place, &slot.as_ref()?.1)));
        taken.take(most)
    }

    /// Puts in a client that is not there. Grows for at most `most`.
    pub fn insert(&mut self, client: Digest, value: V, most: usize) {
        if self.len >= room(self.slots.len()) {
            let larger = (self.len * 2).min(most).max(self.len + 1);
            self.move_into(empty(larger));
        }
        self.put(client.0[0], value);
    }

    /// Takes out who stands there.
    pub fn remove(&mut self, place: usize) -> V {
        let (_, value) = self.slots[place].take().expect("somebody stands there");
        self.len -= 1;
        // Who stands behind and belongs to the hole or before it moves up, so that it is still found.
        let mut hole = place;
        let mut next = self.next(place);
        while let Some((half, _)) = &self.slots[next] {
            if self.steps(self.home(*half), next) >= self.steps(hole, next) {
                self.slots.swap(hole, next);
                hole = next;
            }
            next = self.next(next);
        }
        value
    }

    /// Forgets all others. Returns how many clients there should be room for, if that is much less than there is.
    pub fn retain(&mut self, keeps: impl Fn(&V) -> bool) -> Option<usize> {
        let mut place = 0;
        while let Some(slot) = self.slots.get(place) {
            match slot {
                // Somebody else may stand there then.
                Some((_, value)) if !keeps(value) => drop(self.remove(place)),
                _ => place += 1,
            }
        }
        let is_too_large = self.len * 4 < room(self.slots.len()) && self.slots.len() > FEWEST_SLOTS;
        (is_too_large || self.len == 0 && !self.slots.is_empty()).then_some(self.len * 2)
    }

    /// Moves all into other slots. Returns those that are not needed: the others, if they are too few.
    pub fn move_into(&mut self, slots: Slots<V>) -> Slots<V> {
        if room(slots.len()) < self.len {
            return slots;
        }
        let mut before = std::mem::replace(&mut self.slots, slots);
        self.len = 0;
        for (half, value) in before.iter_mut().filter_map(Option::take) {
            self.put(half, value);
        }
        before
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(&*self.slots)
    }

    fn put(&mut self, half: u64, value: V) {
        let mut place = self.home(half);
        while self.slots[place].is_some() {
            place = self.next(place);
        }
        self.slots[place] = Some((half, value));
        self.len += 1;
    }

    /// Where a client is looked for first.
    fn home(&self, half: u64) -> usize {
        share(half, self.slots.len())
    }

    fn next(&self, place: usize) -> usize {
        match place + 1 {
            end if end == self.slots.len() => 0,
            next => next,
        }
    }

    /// From one place on to another.
    fn steps(&self, from: usize, to: usize) -> usize {
        match to >= from {
            true => to - from,
            false => to + self.slots.len() - from,
        }
    }
}

/// One of `parts`, each as likely, by a hash.
pub fn share(hash: u64, parts: usize) -> usize {
    ((u128::from(hash) * parts as u128) >> 64) as usize
}

/// Slots for so many clients.
pub fn empty<V>(clients: usize) -> Slots<V> {
    let slots = match clients {
        0 => 0,
        some => (some * 3).div_ceil(2).max(FEWEST_SLOTS),
    };
    (0..slots).map(|_| None).collect()
}

/// How many clients so many slots are for.
fn room(slots: usize) -> usize {
    slots * 2 / 3
}
#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn who_was_put_in_is_found_and_nobody_else(
            // Few homes, so that many stand behind one another and around the end.
            steps in prop::collection::vec((0_u8..8, 0_u64..40, any::<u8>()), 1..200),
        ) {
            let client = |number: u64| Digest([((number % 8) << 61) | number, 0]);
            let mut piece = Piece::default();
            let mut known = HashMap::new();
            for (step, number, value) in steps {
                match (step, piece.find(client(number))) {
                    (0, _) => {
                        let less = piece.retain(|kept| *kept >= value);
                        less.map(|clients| piece.move_into(empty(clients)));
                        known.retain(|_, kept| *kept >= value);
                    }
                    (1 | 2, Some(place)) => {
                        prop_assert_eq!(Some(piece.remove(place)), known.remove(&number));
                    }
                    (_, Some(place)) => *piece.value(place) = *known.entry(number).insert_entry(value).get(),
                    (_, None) => {
                        piece.insert(client(number), value, 40);
                        prop_assert_eq!(known.insert(number, value), None);
                    }
                }
                prop_assert_eq!(piece.len(), known.len());
                for number in 0..40 {
                    let found = piece.find(client(number)).map(|place| *piece.value(place));
                    prop_assert_eq!(found, known.get(&number).copied());
                }
                prop_assert_eq!(piece.around(client(number), usize::MAX).count(), known.len());
            }
        }
    }
}
