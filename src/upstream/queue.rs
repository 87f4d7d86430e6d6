//! Who is next: the state that makes picks one after the other, and the requests that wait for a backend below its cap.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    Lease, Tried, Unavailable, Upstream, balance::mix, budget::Budget, inventory::Inventory,
};

/// What of an upstream outlives a reload: one per name, shared by the plans that follow each other.
pub(super) struct Live {
    pub turn: Mutex<Turn>,
    /// Requests in `turn.queue`, readable without the lock.
    waiting: AtomicUsize,
    pub budget: Mutex<Budget>,
    pub inventory: Mutex<Inventory>,
    /// The probes and lookups of the plan that runs.
    pub tasks: Mutex<Option<CancellationToken>>,
}

/// Held for each pick: two requests at once never see the same load and choose the same backend for it.
pub(super) struct Turn {
    pub order: Order,
    queue: Queue,
}

/// Where rotation and chance stand.
pub(super) struct Order {
    rotation: usize,
    chance: u64,
}

/// First come, first served.
#[derive(Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    next_ticket: u64,
}

struct Waiter {
    ticket: u64,
    /// Its plan's upstream: the seeds and settings it was promised.
    upstream: Arc<Upstream>,
    affinity: Option<u64>,
    tried: Tried,
    reply: oneshot::Sender<Result<Lease, Unavailable>>,
}

/// Why no backend was picked.
#[derive(Debug)]
pub(super) enum Refused {
    /// Backends are up and all at their cap.
    Full,
    Unavailable(Unavailable),
}

impl Live {
    pub fn new(seed: u64) -> Self {
        Self {
            turn: Mutex::new(Turn {
                order: Order {
                    rotation: 0,
                    chance: mix(seed),
                },
                queue: Queue::default(),
            }),
            waiting: AtomicUsize::new(0),
            budget: Mutex::new(Budget::default()),
            inventory: Mutex::new(Inventory::default()),
            tasks: Mutex::new(None),
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Gives free backends to those who wait, in their order. Called after anything that may have freed one.
    ///
    /// Takes no lock while nobody waits.
    pub fn serve(&self) {
        if self.waiting() == 0 {
            return;
        }
        // A lease whose waiter has just gone is dropped after the lock is released, because its drop serves again.
        let mut unclaimed = Vec::new();
        let mut turn = self.turn.lock();
        let Turn { order, queue } = &mut *turn;
        let mut passed_over = VecDeque::new();
        while let Some(waiter) = queue.waiters.pop_front() {
            if waiter.reply.is_closed() {
                continue;
            }
            match waiter.upstream.pick(order, waiter.affinity, &waiter.tried) {
                Ok(lease) => unclaimed.extend(waiter.reply.send(Ok(lease)).err()),
                Err(Refused::Unavailable(why)) => {
                    unclaimed.extend(waiter.reply.send(Err(why)).err())
                }
                Err(Refused::Full) => {
                    let would_take_any = waiter.tried.is_empty();
                    passed_over.push_back(waiter);
                    if would_take_any {
                        break;
                    }
                }
            }
        }
        passed_over.append(&mut queue.waiters);
        queue.waiters = passed_over;
        self.waiting.store(queue.waiters.len(), Ordering::SeqCst);
        drop(turn);
        drop(unclaimed);
    }

    /// Picks at once, or takes a place in the queue.
    fn pick_or_wait(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        affinity: Option<u64>,
        tried: &Tried,
    ) -> Result<Entry, Unavailable> {
        let mut turn = self.turn.lock();
        let Turn { order, queue } = &mut *turn;
        if !queue.holds_someone_unserved() {
            match upstream.pick(order, affinity, tried) {
                Ok(lease) => return Ok(Entry::Lease(lease)),
                Err(Refused::Unavailable(why)) => return Err(why),
                Err(Refused::Full) => {}
            }
        }
        if queue.waiters.len() >= upstream.settings().queue {
            return Err(Unavailable::QueueFull);
        }
        // Announced before looking once more: a lease that ends meanwhile either sees us or is seen by us.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        if !queue.holds_someone_unserved()
            && let Ok(lease) = upstream.pick(order, affinity, tried)
        {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Ok(Entry::Lease(lease));
        }
        let (reply, answer) = oneshot::channel();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiters.push_back(Waiter {
            ticket,
            upstream: upstream.clone(),
            affinity,
            tried: tried.clone(),
            reply,
        });
        Ok(Entry::Place(
            Place {
                live: self.clone(),
                ticket,
            },
            answer,
        ))
    }

    /// [`Upstream::lease`].
    pub async fn lease(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        affinity: Option<u64>,
        tried: &Tried,
    ) -> Result<Lease, Unavailable> {
        let (_place, answer) = match self.pick_or_wait(upstream, affinity, tried)? {
            Entry::Lease(lease) => return Ok(lease),
            Entry::Place(place, answer) => (place, answer),
        };
        match tokio::time::timeout(upstream.settings().queue_timeout, answer).await {
            Ok(answer) => answer.expect("a waiter leaves the queue answered or by its own place"),
            Err(_) => Err(Unavailable::QueueTimeout),
        }
    }
}

enum Entry {
    Lease(Lease),
    Place(Place, oneshot::Receiver<Result<Lease, Unavailable>>),
}

/// A place in the queue: given up when dropped.
struct Place {
    live: Arc<Live>,
    ticket: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut turn = self.live.turn.lock();
        let waiters = &mut turn.queue.waiters;
        // Tickets rise along the queue.
        if let Ok(index) = waiters.binary_search_by_key(&self.ticket, |waiter| waiter.ticket) {
            let waiter = waiters.remove(index);
            self.live.waiting.store(waiters.len(), Ordering::SeqCst);
            drop(turn);
            // After the lock: it may hold the last reference to its upstream.
            drop(waiter);
        }
    }
}

impl Queue {
    /// True if someone waits who would take any backend: a newcomer must not overtake.
    fn holds_someone_unserved(&self) -> bool {
        self.waiters.iter().any(|waiter| waiter.tried.is_empty())
    }
}

impl Order {
    /// Rises by one per pick.
    pub fn rotation(&mut self) -> usize {
        self.rotation = self.rotation.wrapping_add(1);
        self.rotation
    }

    /// 64 random bits; good enough for choosing, not for secrets.
    pub fn chance(&mut self) -> u64 {
        // Splitmix64's stream: a counter in steps of the golden ratio, mixed.
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.chance)
    }
}
