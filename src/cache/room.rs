//! How many bytes there may be, and how many are taken. Counts, and knows no memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Room for a number of bytes.
pub struct Room {
    capacity: u64,
    taken: AtomicU64,
}

/// Bytes that are taken as long as it lives.
pub struct Place {
    room: Arc<Room>,
    bytes: AtomicU64,
}

/// With what is taken it would be more than there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl Room {
    pub fn new(capacity: u64) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            taken: AtomicU64::new(0),
        })
    }

    /// Takes all of so many bytes, or none.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Result<Place, NoRoom> {
        let with = |taken: u64| taken.checked_add(bytes).filter(|all| *all <= self.capacity);
        let taken = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, with);
        taken.map_err(|_| NoRoom)?;
        Ok(Place {
            room: self.clone(),
            bytes: AtomicU64::new(bytes),
        })
    }

    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Place {
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// So many bytes from here on. What it grows by has a place of its own until then: it is not refused.
    pub fn resize(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        let taken = &self.room.taken;
        match bytes.checked_sub(before) {
            Some(more) => taken.fetch_add(more, Ordering::Relaxed),
            None => taken.fetch_sub(before - bytes, Ordering::Relaxed),
        };
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.room.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let room = Room::new(100);
        let first = room.take(60).expect("there is room");
        assert_eq!(room.take(41).err(), Some(NoRoom));
        let second = room.take(40).expect("there is room");
        assert_eq!(room.take(1).err(), Some(NoRoom));
        assert_eq!(room.take(u64::MAX).err(), Some(NoRoom));
        drop(first);
        assert_eq!(room.taken(), 40);
        drop(second);
        assert_eq!(room.taken(), 0);
    }

    #[test]
    fn a_place_counts_as_large_as_it_is_now() {
        let room = Room::new(100);
        let place = room.take(50).expect("there is room");
        for bytes in [80, 20, 20] {
            place.resize(bytes);
            assert_eq!((place.bytes(), room.taken()), (bytes, bytes));
        }
        drop(place);
        assert_eq!(room.taken(), 0);
    }

    #[test]
    fn threads_together_take_no_more_than_there_is() {
        let room = Room::new(1000);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let room = room.clone();
                scope.spawn(move || {
                    for round in 0..10_000 {
                        let _place = room.take(1 + (round + thread) % 400);
                        assert!(room.taken() <= 1000);
                    }
                });
            }
        });
        assert_eq!(room.taken(), 0);
    }
}
