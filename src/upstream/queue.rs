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
mod tests {
    use std::{
        future::Future,
        pin::{Pin, pin},
        task::{Context, Poll, Waker},
        time::Duration,
    };

    use std::num::NonZeroU32;

    use tokio::time::advance;

    use super::*;
    use crate::upstream::{
        Concurrency, Failure, Pace, Rate, Reception, Seed, Settings,
        testing::{lease, loads, only, seconds, seeds, settings, upstream},
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
            pin!(upstream.lease(Priority::Normal, None, &tried)),
            pin!(upstream.lease(Priority::Normal, None, &tried)),
        );
        assert!(waits(first.as_mut()) && waits(second.as_mut()));

        drop(busy);
        // Already the first one's: a newcomer does not get it.
        let mut newcomer = pin!(upstream.lease(Priority::Normal, None, &tried));
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
            let mut waiter = Box::pin(upstream.lease(Priority::Normal, None, &tried));
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
        let mut gone = Box::pin(upstream.lease(Priority::Normal, None, &tried));
        let mut next = pin!(upstream.lease(Priority::Normal, None, &tried));
        assert!(waits(gone.as_mut()) && waits(next.as_mut()));
        drop(busy);
        drop(gone);
        assert!(ready(next.as_mut()).is_ok());
        assert_eq!((loads(&upstream), upstream.waiting()), (vec![0], 0));
    }

    #[tokio::test]
    async fn the_higher_class_goes_first_and_within_one_who_came_first() {
        let upstream = upstream(capped(10), 1);
        let tried = Tried::default();
        let mut busy = lease(&upstream).await;
        let classes = [
            Priority::Low,
            Priority::Normal,
            Priority::Critical,
            Priority::High,
            Priority::Normal,
        ];
        let mut waiters: Vec<_> = classes
            .iter()
            .map(|class| Box::pin(upstream.lease(*class, None, &tried)))
            .collect();
        for waiter in &mut waiters {
            assert!(waits(waiter.as_mut()));
        }
        assert_eq!(upstream.load().waiting, [1, 1, 2, 1]);
        for next in [2, 3, 1, 4, 0] {
            drop(busy);
            busy = ready(waiters[next].as_mut()).unwrap();
        }
    }

    #[tokio::test]
    async fn whoever_waits_behind_better_ones_has_every_tenth_place() {
        let upstream = upstream(capped(100), 1);
        let tried = Tried::default();
        let mut busy = lease(&upstream).await;
        let mut low = pin!(upstream.lease(Priority::Low, None, &tried));
        assert!(waits(low.as_mut()));
        for _ in 1..ELDEST {
            let mut high = pin!(upstream.lease(Priority::High, None, &tried));
            assert!(waits(high.as_mut()));
            drop(busy);
            busy = ready(high.as_mut()).unwrap();
        }
        let mut high = pin!(upstream.lease(Priority::High, None, &tried));
        assert!(waits(high.as_mut()));
        drop(busy);
        assert!(ready(low.as_mut()).is_ok());
    }

    #[tokio::test]
    async fn when_the_queue_is_full_the_last_of_the_lowest_class_gives_way() {
        let upstream = upstream(capped(2), 1);
        let tried = Tried::default();
        let _busy = lease(&upstream).await;
        let mut normal = pin!(upstream.lease(Priority::Normal, None, &tried));
        let mut low = pin!(upstream.lease(Priority::Low, None, &tried));
        assert!(waits(normal.as_mut()) && waits(low.as_mut()));
        assert_eq!(
            ready(pin!(upstream.lease(Priority::Low, None, &tried))).unwrap_err(),
            Unavailable::QueueFull
        );

        let mut high = pin!(upstream.lease(Priority::High, None, &tried));
        assert!(waits(high.as_mut()));
        assert_eq!(ready(low.as_mut()).unwrap_err(), Unavailable::QueueFull);
        let mut critical = pin!(upstream.lease(Priority::Critical, None, &tried));
        assert!(waits(critical.as_mut()));
        assert_eq!(ready(normal.as_mut()).unwrap_err(), Unavailable::QueueFull);
        assert_eq!(upstream.load().shed, [0, 0, 1, 2]);
        assert_eq!(upstream.load().waiting, [1, 1, 0, 0]);
    }

    fn paced(millis: u64, burst: u32) -> Settings {
        Settings {
            pace: Some(Pace {
                rate: Some(Rate {
                    every: Duration::from_millis(millis),
                    burst: NonZeroU32::new(burst).unwrap(),
                }),
                longest_pause: seconds(3600),
            }),
            ..settings()
        }
    }

    /// Polite towards an upstream that is limited, and says so itself.
    fn polite() -> Settings {
        let mut settings = paced(1, 1000);
        settings.queue_timeout = seconds(10);
        settings
    }

    #[tokio::test(start_paused = true)]
    async fn requests_beyond_the_pace_wait_and_go_one_by_one() {
        let upstream = upstream(paced(100, 2), 3);
        let began = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let upstream = upstream.clone();
            tasks.spawn(async move {
                let _lease = lease(&upstream).await;
                began.elapsed().as_millis()
            });
        }
        let mut times = tasks.join_all().await;
        times.sort_unstable();
        assert_eq!(times, [0, 0, 100, 200, 300, 400]);
        assert_eq!(upstream.load().paced, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_for_the_pace_in_vain_is_told_at_once_and_when_to_come_again() {
        let upstream = upstream(paced(400, 1), 1);
        let tried = Tried::default();
        let _gone = lease(&upstream).await;
        let mut second = pin!(upstream.lease(Priority::Normal, None, &tried));
        let mut third = pin!(upstream.lease(Priority::Normal, None, &tried));
        assert!(waits(second.as_mut()) && waits(third.as_mut()));
        let refused = ready(pin!(upstream.lease(Priority::Normal, None, &tried)));
        let again = Duration::from_millis(1200);
        assert_eq!(refused.unwrap_err(), Unavailable::Paced { again });
        let mut high = pin!(upstream.lease(Priority::High, None, &tried));
        assert!(waits(high.as_mut()), "it goes before the others");
    }

    #[tokio::test(start_paused = true)]
    async fn retries_count_against_the_pace() {
        let upstream = upstream(paced(100, 1), 2);
        let began = Instant::now();
        for _ in 0..3 {
            let tried = only(&upstream, 1);
            let _ = upstream
                .lease(Priority::Normal, None, &tried)
                .await
                .unwrap();
        }
        assert_eq!(began.elapsed().as_millis(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_grants_no_fresh_burst() {
        let old = upstream(paced(100, 3), 1);
        for _ in 0..3 {
            let _ = lease(&old).await;
        }
        for settings in [paced(100, 3), paced(100, 5)] {
            let new = Upstream::new(settings, seeds(&["192.0.2.1:80"]), Some(&old));
            let tried = Tried::default();
            assert!(waits(pin!(new.lease(Priority::Normal, None, &tried))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_asks_for_a_pause_gets_one_and_then_one_request_goes_first() {
        let upstream = upstream(polite(), 2);
        let tried = Tried::default();
        let mut refused = lease(&upstream).await;
        refused.received(Reception::TooMany {
            retry_after: Some(seconds(3)),
        });
        drop(refused);
        let began = Instant::now();
        let mut first = pin!(upstream.lease(Priority::Normal, None, &tried));
        let mut second = pin!(upstream.lease(Priority::Normal, None, &tried));
        assert!(waits(first.as_mut()) && waits(second.as_mut()));
        let mut first = first.await.unwrap();
        assert!((3000..3310).contains(&began.elapsed().as_millis()));
        assert!(waits(second.as_mut()));
        first.received(Reception::Served {
            took: Duration::from_millis(5),
        });
        assert!(ready(second.as_mut()).is_ok());
        assert_eq!(upstream.load().pauses, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_is_longer_than_anybody_waits_is_told_at_once() {
        let upstream = upstream(polite(), 1);
        let mut refused = lease(&upstream).await;
        refused.received(Reception::TooMany {
            retry_after: Some(seconds(60)),
        });
        assert!(upstream.is_left_alone());
        let tried = Tried::default();
        let refused = ready(pin!(upstream.lease(Priority::Critical, None, &tried)));
        let Err(Unavailable::Paused { again }) = refused else {
            panic!("{refused:?}");
        };
        assert!((seconds(60)..=seconds(66)).contains(&again));
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_asks_for_a_pause_is_relieved_by_the_others() {
        let upstream = upstream(polite(), 2);
        let mut away = lease(&upstream).await;
        let name = away.to_string();
        away.received(Reception::Away {
            retry_after: seconds(5),
        });
        drop(away);
        for _ in 0..10 {
            assert_ne!(lease(&upstream).await.to_string(), name);
        }
        let mut other = lease(&upstream).await;
        other.received(Reception::Away {
            retry_after: seconds(7),
        });
        drop(other);
        let began = Instant::now();
        let first = lease(&upstream).await;
        assert_eq!(first.to_string(), name, "it comes back first");
        assert!((5000..5510).contains(&began.elapsed().as_millis()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_without_a_pace_may_say_429_to_whom_it_likes() {
        let upstream = upstream(settings(), 1);
        let mut refused = lease(&upstream).await;
        refused.received(Reception::TooMany {
            retry_after: Some(seconds(60)),
        });
        drop(refused);
        assert!(!upstream.is_left_alone());
        let tried = Tried::default();
        assert!(ready(pin!(upstream.lease(Priority::Normal, None, &tried))).is_ok());
    }

    fn adaptive() -> Settings {
        Settings {
            concurrency: Some(Concurrency {
                min: 3,
                max: 1000,
                tolerance: 25,
                window: Duration::from_millis(100),
                measure_every: seconds(60),
            }),
            queue: 1,
            ..settings()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_the_limit_wait_and_more_than_may_wait_are_shed() {
        let upstream = upstream(adaptive(), 2);
        let tried = Tried::default();
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(lease(&upstream).await);
        }
        assert_eq!(upstream.load().limit, Some(3));
        let mut waiter = pin!(upstream.lease(Priority::Normal, None, &tried));
        assert!(waits(waiter.as_mut()));
        let shed = ready(pin!(upstream.lease(Priority::Normal, None, &tried)));
        assert_eq!(shed.unwrap_err(), Unavailable::Overloaded);
        held.pop();
        assert!(ready(waiter.as_mut()).is_ok());
        held.push(lease(&upstream).await);
        let late = upstream.lease(Priority::Normal, None, &tried).await;
        assert_eq!(late.unwrap_err(), Unavailable::Overloaded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_rises_lets_those_in_who_wait() {
        let upstream = upstream(adaptive(), 1);
        let tried = Tried::default();
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(lease(&upstream).await);
        }
        let mut waiter = pin!(upstream.lease(Priority::Normal, None, &tried));
        assert!(waits(waiter.as_mut()));
        for _ in 0..50 {
            held[0].took(Duration::from_millis(10));
        }
        assert!(ready(waiter.as_mut()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_is_no_work() {
        let upstream = upstream(adaptive(), 1);
        let mut tunnels = Vec::new();
        for _ in 0..10 {
            let mut tunnel = lease(&upstream).await;
            tunnel.received(Reception::Tunnel);
            tunnels.push(tunnel);
        }
        assert_eq!((loads(&upstream), upstream.load().in_flight), (vec![10], 0));
        tunnels.clear();
        assert_eq!((loads(&upstream), upstream.load().in_flight), (vec![0], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_for_the_pace_that_goes_away_costs_nothing() {
        let upstream = upstream(paced(100, 1), 1);
        let tried = Tried::default();
        let _ = lease(&upstream).await;
        let mut gone = Box::pin(upstream.lease(Priority::Normal, None, &tried));
        assert!(waits(gone.as_mut()));
        drop(gone);
        assert_eq!(upstream.waiting(), 0);
        advance(Duration::from_millis(100)).await;
        assert!(ready(pin!(upstream.lease(Priority::Normal, None, &tried))).is_ok());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let upstream = upstream(capped(1), 1);
        let tried = Tried::default();
        let _busy = lease(&upstream).await;
        let mut waiter = pin!(upstream.lease(Priority::Normal, None, &tried));
        assert!(waits(waiter.as_mut()));
        assert_eq!(
            upstream
                .lease(Priority::Normal, None, &tried)
                .await
                .unwrap_err(),
            Unavailable::QueueFull
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_beyond_the_deadline() {
        let upstream = upstream(capped(1), 1);
        let _busy = lease(&upstream).await;
        let began = tokio::time::Instant::now();
        assert_eq!(
            upstream
                .lease(Priority::Normal, None, &Tried::default())
                .await
                .unwrap_err(),
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
            upstream
                .lease(Priority::Normal, None, &Tried::default())
                .await
                .unwrap_err(),
            Unavailable::QueueFull
        );
    }

    #[tokio::test]
    async fn a_lease_under_an_old_plan_frees_its_place_for_the_new_one() {
        let old = upstream(capped(1), 1);
        let busy = lease(&old).await;
        let new = Upstream::new(capped(1), seeds(&["192.0.2.1:80"]), Some(&old));
        let tried = Tried::default();
        let mut waiter = pin!(new.lease(Priority::Normal, None, &tried));
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
        let mut waiter = pin!(upstream.lease(Priority::Normal, None, &tried));
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
                        let mut waiting = Box::pin(upstream.lease(Priority::Normal, None, &tried));
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
