//! Who is next: the state that makes picks one after the other, and the requests that wait until one more may go.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Lease, Priority, Tried, Unavailable, Upstream,
    balance::mix,
    budget::Budget,
    intake::{Hold, Intake, Why},
    inventory::Inventory,
    priority::CLASSES,
};

/// One place in this many goes to who came first, whatever its class: nobody waits for ever behind better ones.
const ELDEST: u32 = 10;

/// What of an upstream outlives a reload: one per name, shared by the plans that follow each other.
pub(super) struct Live {
    pub turn: Mutex<Turn>,
    /// Requests in `turn.queue`, readable without the lock.
    waiting: AtomicUsize,
    pub intake: Intake,
    pub budget: Mutex<Budget>,
    pub inventory: Mutex<Inventory>,
    /// The probes and lookups of the plan that runs.
    pub tasks: Mutex<Option<CancellationToken>>,
}

/// Held for each pick: two requests at once never see the same load and choose the same backend for it.
pub(super) struct Turn {
    pub order: Order,
    queue: Queue,
    /// Why the last one was held that was.
    hold: Hold,
    /// When those who wait are looked at next, whoever ends before.
    alarm: Option<Instant>,
}

/// Where rotation and chance stand.
pub(super) struct Order {
    rotation: usize,
    chance: u64,
}

/// By class, and within it first come, first served.
#[derive(Default)]
struct Queue {
    classes: [VecDeque<Waiter>; CLASSES],
    next_ticket: u64,
    served: u32,
}

struct Waiter {
    ticket: u64,
    priority: Priority,
    /// Its plan's upstream: the seeds and settings it was promised.
    upstream: Arc<Upstream>,
    affinity: Option<u64>,
    tried: Tried,
    reply: oneshot::Sender<Result<Lease, Unavailable>>,
}

/// Why no backend was picked.
#[derive(Debug)]
pub(super) enum Refused {
    /// Backends are up, but none may be given one more now.
    Held(Hold),
    Unavailable(Unavailable),
}

impl Live {
    /// `seed` is where rotation and chance begin.
    pub fn new(seed: u64) -> Self {
        Self {
            turn: Mutex::new(Turn {
                order: Order {
                    rotation: mix(seed) as usize,
                    chance: seed,
                },
                queue: Queue::default(),
                hold: Hold::CAPS,
                alarm: None,
            }),
            waiting: AtomicUsize::new(0),
            intake: Intake::new(mix(seed)),
            budget: Mutex::new(Budget::default()),
            inventory: Mutex::new(Inventory::default()),
            tasks: Mutex::new(None),
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// How many of each class wait.
    pub fn waiting_by_class(&self) -> [usize; CLASSES] {
        self.turn.lock().queue.classes.each_ref().map(VecDeque::len)
    }

    /// Gives those who wait what has become free. Called after anything that may have freed something.
    ///
    /// Takes no lock while nobody waits.
    pub fn serve(self: &Arc<Self>) {
        if self.waiting() == 0 {
            return;
        }
        // A lease whose waiter has just gone is dropped after the lock is released, because its drop serves again.
        let mut unclaimed = Vec::new();
        let mut turn = self.turn.lock();
        let Turn {
            order, queue, hold, ..
        } = &mut *turn;
        let mut passed_over = Vec::new();
        while let Some(waiter) = queue.next() {
            if waiter.reply.is_closed() {
                continue;
            }
            match waiter.upstream.pick(order, waiter.affinity, &waiter.tried) {
                Ok(lease) => {
                    queue.served = queue.served.wrapping_add(1);
                    unclaimed.extend(waiter.reply.send(Ok(lease)).err());
                }
                Err(Refused::Unavailable(why)) => {
                    unclaimed.extend(waiter.reply.send(Err(why)).err())
                }
                Err(Refused::Held(why)) => {
                    *hold = why;
                    let would_take_any = waiter.tried.is_empty();
                    passed_over.push(waiter);
                    if would_take_any {
                        break;
                    }
                }
            }
        }
        let held = !passed_over.is_empty();
        queue.put_back(passed_over);
        self.waiting.store(queue.len(), Ordering::SeqCst);
        if held {
            self.ring_when_due(&mut turn);
        }
        drop(turn);
        drop(unclaimed);
    }

    /// Has those who wait looked at again when what holds them is over by itself.
    fn ring_when_due(self: &Arc<Self>, turn: &mut Turn) {
        let Some(due) = turn.hold.until else { return };
        // An alarm of the past ended with its runtime.
        let still_rings = |alarm| alarm <= due && alarm >= Instant::now();
        if turn.alarm.is_some_and(still_rings) {
            return;
        }
        // Outside a runtime nobody waits.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        turn.alarm = Some(due);
        let live = Arc::downgrade(self);
        runtime.spawn(async move {
            sleep_until(due).await;
            if let Some(live) = live.upgrade() {
                live.rang(due);
            }
        });
    }

    fn rang(self: &Arc<Self>, due: Instant) {
        let mut turn = self.turn.lock();
        turn.alarm = turn.alarm.filter(|alarm| *alarm != due);
        drop(turn);
        self.serve();
    }

    /// Picks at once, or takes a place in the queue.
    fn pick_or_wait(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        priority: Priority,
        affinity: Option<u64>,
        tried: &Tried,
    ) -> Result<Entry, Unavailable> {
        let mut turn = self.turn.lock();
        let Turn {
            order, queue, hold, ..
        } = &mut *turn;
        if !queue.holds_someone_unserved(priority) {
            match upstream.pick(order, affinity, tried) {
                Ok(lease) => return Ok(Entry::Lease(lease)),
                Err(Refused::Unavailable(why)) => return Err(why),
                Err(Refused::Held(why)) => *hold = why,
            }
        }
        let settings = upstream.settings();
        let now = Instant::now();
        let ahead = queue.ahead_of(priority);
        if matches!(hold.why, Why::Pace { .. }) {
            self.intake.count_paced();
        }
        // Who would wait in vain is told at once.
        if hold.wait(ahead, now) > settings.queue_timeout {
            self.intake.count_shed(priority);
            return Err(hold.refusal(false, ahead, now));
        }
        let mut displaced = None;
        if queue.len() >= settings.queue {
            displaced = queue.give_way(priority);
            let shed = displaced.as_ref().map_or(priority, |one| one.priority);
            self.intake.count_shed(shed);
            if displaced.is_none() {
                return Err(hold.refusal(true, ahead, now));
            }
        }
        // Announced before looking once more: a lease that ends meanwhile either sees us or is seen by us.
        self.waiting.store(queue.len() + 1, Ordering::SeqCst);
        if !queue.holds_someone_unserved(priority) {
            match upstream.pick(order, affinity, tried) {
                Ok(lease) => {
                    self.waiting.store(queue.len(), Ordering::SeqCst);
                    let hold = *hold;
                    drop(turn);
                    turn_away(displaced, hold, now);
                    return Ok(Entry::Lease(lease));
                }
                Err(Refused::Held(why)) => *hold = why,
                Err(Refused::Unavailable(_)) => {}
            }
        }
        let (reply, answer) = oneshot::channel();
        let ticket = queue.push(Waiter {
            ticket: queue.next_ticket,
            priority,
            upstream: upstream.clone(),
            affinity,
            tried: tried.clone(),
            reply,
        });
        self.ring_when_due(&mut turn);
        let hold = turn.hold;
        drop(turn);
        turn_away(displaced, hold, now);
        let place = Place {
            live: self.clone(),
            priority,
            ticket,
        };
        Ok(Entry::Place(place, answer))
    }

    /// [`Upstream::lease`].
    pub async fn lease(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        priority: Priority,
        affinity: Option<u64>,
        tried: &Tried,
    ) -> Result<Lease, Unavailable> {
        let (_place, answer) = match self.pick_or_wait(upstream, priority, affinity, tried)? {
            Entry::Lease(lease) => return Ok(lease),
            Entry::Place(place, answer) => (place, answer),
        };
        match timeout(upstream.settings().queue_timeout, answer).await {
            Ok(answer) => answer.expect("a waiter leaves the queue answered or by its own place"),
            Err(_) => {
                self.intake.count_shed(priority);
                let turn = self.turn.lock();
                let ahead = turn.queue.ahead_of(priority);
                Err(turn.hold.refusal(false, ahead, Instant::now()))
            }
        }
    }
}

/// Tells one who waited that a better one has its place. Not under the lock: it may hold the last reference to its
/// upstream.
fn turn_away(waiter: Option<Waiter>, hold: Hold, now: Instant) {
    if let Some(waiter) = waiter {
        // Whoever has gone meanwhile needs no answer.
        let _ = waiter.reply.send(Err(hold.refusal(true, 0, now)));
    }
}

enum Entry {
    Lease(Lease),
    Place(Place, oneshot::Receiver<Result<Lease, Unavailable>>),
}

/// A place in the queue: given up when dropped.
struct Place {
    live: Arc<Live>,
    priority: Priority,
    ticket: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut turn = self.live.turn.lock();
        let waiters = &mut turn.queue.classes[self.priority.rank()];
        // Tickets rise along a class.
        if let Ok(index) = waiters.binary_search_by_key(&self.ticket, |waiter| waiter.ticket) {
            let waiter = waiters.remove(index);
            self.live.waiting.store(turn.queue.len(), Ordering::SeqCst);
            drop(turn);
            // After the lock: it may hold the last reference to its upstream.
            drop(waiter);
        }
    }
}

impl Queue {
    fn len(&self) -> usize {
        self.classes.iter().map(VecDeque::len).sum()
    }

    /// Those who go before a newcomer of this class.
    fn ahead_of(&self, priority: Priority) -> usize {
        let before = &self.classes[..=priority.rank()];
        before.iter().map(VecDeque::len).sum()
    }

    /// True if someone waits who goes before and would take any backend: a newcomer must not overtake.
    fn holds_someone_unserved(&self, priority: Priority) -> bool {
        let mut before = self.classes[..=priority.rank()].iter().flatten();
        before.any(|waiter| waiter.tried.is_empty())
    }

    /// Takes out who is next.
    fn next(&mut self) -> Option<Waiter> {
        let mut fronts = self
            .classes
            .iter()
            .enumerate()
            .filter_map(|(class, waiters)| Some((waiters.front()?.ticket, class)));
        let (_, class) = match self.served % ELDEST == ELDEST - 1 {
            true => fronts.min(),
            false => fronts.next(),
        }?;
        self.classes[class].pop_front()
    }

    /// Puts those back that [`Queue::next`] has taken out, the last one first.
    fn put_back(&mut self, waiters: Vec<Waiter>) {
        for waiter in waiters.into_iter().rev() {
            self.classes[waiter.priority.rank()].push_front(waiter);
        }
    }

    fn push(&mut self, waiter: Waiter) -> u64 {
        let ticket = waiter.ticket;
        self.next_ticket += 1;
        self.classes[waiter.priority.rank()].push_back(waiter);
        ticket
    }

    /// Takes out whoever gives its place to a newcomer of this class: of the last class behind it the last to come.
    fn give_way(&mut self, priority: Priority) -> Option<Waiter> {
        let mut behind = self.classes[priority.rank() + 1..].iter_mut().rev();
        behind.find_map(VecDeque::pop_back)
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

#[cfg(test)]
mod tests;
