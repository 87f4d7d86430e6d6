//! What other gateways are still to be told. Holds clients, not bans: what is told is what stands when it is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::client::Client;

/// Clients that may wait; with more, everything is told anew instead.
const MOST: usize = 65_536;

/// What is to be told, while there is somebody who tells it.
#[derive(Debug, Default)]
pub struct Outbox {
    is_read: AtomicBool,
    waiting: Mutex<Waiting>,
    /// Something waits.
    pub filled: Notify,
}

/// What waits.
#[derive(Debug, Default)]
pub struct Waiting {
    pub bans: BTreeSet<Client>,
    /// With the time at which each was lifted.
    pub lifts: BTreeMap<Client, Instant>,
    /// There was more than could wait.
    pub is_incomplete: bool,
}

impl Outbox {
    /// From here on somebody takes what is put in.
    pub fn open(&self) {
        self.is_read.store(true, Ordering::Relaxed);
    }

    pub fn ban(&self, client: Client) {
        self.put(|waiting| {
            waiting.bans.insert(client);
        });
    }

    pub fn lift(&self, client: Client, now: Instant) {
        self.put(|waiting| {
            waiting.bans.remove(&client);
            waiting.lifts.insert(client, now);
        });
    }

    /// All that waits.
    pub fn take(&self) -> Waiting {
        std::mem::take(&mut self.waiting.lock())
    }

    /// Puts back what could not be told, for the next time; nobody is woken for it. Bans are told anew with all others.
    pub fn put_back(&self, lifts: BTreeMap<Client, Instant>) {
        let mut waiting = self.waiting.lock();
        for (client, then) in lifts {
            waiting.lifts.entry(client).or_insert(then);
        }
    }

    fn put(&self, put: impl FnOnce(&mut Waiting)) {
        if !self.is_read.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.waiting.lock();
        put(&mut waiting);
        if waiting.bans.len() > MOST {
            waiting.bans = BTreeSet::new();
            waiting.is_incomplete = true;
        }
        while waiting.lifts.len() > MOST {
            waiting.lifts.pop_first();
        }
        drop(waiting);
        self.filled.notify_one();
    }
}
