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
    /// `seed` is where rotation and chance begin.
    pub fn new(seed: u64) -> Self {
        Self {
            turn: Mutex::new(Turn {
                order: Order {
                    rotation: mix(seed) as usize,
                    chance: seed,
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

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::{Pin, pin},
        task::{Context, Poll, Waker},
        time::Duration,
    };

    use super::*;
    use crate::upstream::{
        Failure, Seed, Settings,
        testing::{lease, loads, seeds, settings, upstream},
    };

    fn capped(queue: usize) -> Settings {
        Settings {
            max_connections: 1,
            queue,
            ..settings()
        }
    }

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn waits<F: Future>(future: Pin<&mut F>) -> bool {
        poll(future).is_pending()
    }

    fn ready<F: Future>(future: Pin<&mut F>) -> F::Output {
        match poll(future) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("still waiting"),
        }
    }

    #[tokio::test]
    async fn a_freed_backend_goes_to_who_came_first() {
        let upstream = upstream(capped(10), 1);
        let tried = Tried::default();
        let busy = lease(&upstream).await;
        let (mut first, mut second) = (
            pin!(upstream.lease(None, &tried)),
            pin!(upstream.lease(None, &tried)),
        );
        assert!(waits(first.as_mut()) && waits(second.as_mut()));

        drop(busy);
        // Already the first one's: a newcomer does not get it.
        let mut newcomer = pin!(upstream.lease(None, &tried));
        assert!(waits(newcomer.as_mut()) && waits(second.as_mut()));
        let served = ready(first.as_mut()).unwrap();
        assert_eq!(loads(&upstream), [1]);

        drop(served);
        let served = ready(second.as_mut()).unwrap();
        drop(served);
        assert!(ready(newcomer.as_mut()).is_ok());
    }

    #[tokio::test]
    async fn a_waiter_that_goes_away_costs_nothing() {
        let upstream = upstream(capped(1), 1);
        let tried = Tried::default();
        let busy = lease(&upstream).await;
        for _ in 0..5 {
            let mut waiter = Box::pin(upstream.lease(None, &tried));
            assert!(waits(waiter.as_mut()));
            assert_eq!(upstream.waiting(), 1);
            drop(waiter);
            assert_eq!(upstream.waiting(), 0);
        }
        drop(busy);
        assert_eq!(loads(&upstream), [0]);
    }

    #[tokio::test]
    async fn a_lease_whose_waiter_has_just_gone_reaches_the_next() {
        let upstream = upstream(capped(10), 1);
        let tried = Tried::default();
        let busy = lease(&upstream).await;
        let mut gone = Box::pin(upstream.lease(None, &tried));
        let mut next = pin!(upstream.lease(None, &tried));
        assert!(waits(gone.as_mut()) && waits(next.as_mut()));
        drop(busy);
        drop(gone);
        assert!(ready(next.as_mut()).is_ok());
        assert_eq!((loads(&upstream), upstream.waiting()), (vec![0], 0));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let upstream = upstream(capped(1), 1);
        let tried = Tried::default();
        let _busy = lease(&upstream).await;
        let mut waiter = pin!(upstream.lease(None, &tried));
        assert!(waits(waiter.as_mut()));
        assert_eq!(
            upstream.lease(None, &tried).await.unwrap_err(),
            Unavailable::QueueFull
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_beyond_the_deadline() {
        let upstream = upstream(capped(1), 1);
        let _busy = lease(&upstream).await;
        let began = tokio::time::Instant::now();
        assert_eq!(
            upstream.lease(None, &Tried::default()).await.unwrap_err(),
            Unavailable::QueueTimeout
        );
        assert_eq!(began.elapsed().as_secs(), 1);
        assert_eq!(upstream.waiting(), 0);
    }

    #[tokio::test]
    async fn a_backup_does_not_relieve_primaries_that_are_merely_busy() {
        let mut backends: Vec<Seed> = seeds(&["192.0.2.1:80", "192.0.2.2:80"]);
        backends[1].backup = true;
        let upstream = Upstream::new(capped(0), backends, None);
        let _busy = lease(&upstream).await;
        assert_eq!(
            upstream.lease(None, &Tried::default()).await.unwrap_err(),
            Unavailable::QueueFull
        );
    }

    #[tokio::test]
    async fn a_lease_under_an_old_plan_frees_its_place_for_the_new_one() {
        let old = upstream(capped(1), 1);
        let busy = lease(&old).await;
        let new = Upstream::new(capped(1), seeds(&["192.0.2.1:80"]), Some(&old));
        let tried = Tried::default();
        let mut waiter = pin!(new.lease(None, &tried));
        assert!(waits(waiter.as_mut()));
        drop((busy, old));
        assert!(ready(waiter.as_mut()).is_ok());
    }

    #[tokio::test]
    async fn waiters_are_refused_when_the_last_backend_goes_down() {
        let upstream = upstream(
            Settings {
                max_fails: 1,
                fail_timeout: Duration::from_secs(60),
                ..capped(4)
            },
            2,
        );
        let tried = Tried::default();
        let (mut one, mut two) = (lease(&upstream).await, lease(&upstream).await);
        let mut waiter = pin!(upstream.lease(None, &tried));
        assert!(waits(waiter.as_mut()));
        one.failed(Failure::Connect);
        two.failed(Failure::Connect);
        drop((one, two));
        assert_eq!(ready(waiter.as_mut()).unwrap_err(), Unavailable::AllDown);
    }

    #[test]
    fn many_threads_lose_no_place_and_exceed_no_cap() {
        const TASKS: usize = 200;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let settings = Settings {
                max_connections: 2,
                queue: TASKS,
                queue_timeout: Duration::from_secs(30),
                ..settings()
            };
            let upstream = upstream(settings, 3);
            let mut tasks = tokio::task::JoinSet::new();
            for task in 0..TASKS {
                let upstream = upstream.clone();
                tasks.spawn(async move {
                    for turn in 0..50 {
                        let tried = Tried::default();
                        let mut waiting = Box::pin(upstream.lease(None, &tried));
                        if (task + turn) % 7 == 0 {
                            // A client that leaves, wherever it is by now.
                            let _ = poll(waiting.as_mut());
                            continue;
                        }
                        let lease = waiting.await.unwrap();
                        assert!(lease.in_flight() <= 2);
                        tokio::task::yield_now().await;
                    }
                });
            }
            while let Some(result) = tasks.join_next().await {
                result.unwrap();
            }
            assert_eq!((loads(&upstream), upstream.waiting()), (vec![0, 0, 0], 0));
        });
    }
}
