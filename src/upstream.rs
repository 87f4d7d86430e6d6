//! A named set of backends, and the lease of one of them. Knows load and health; knows nothing of routes or of HTTP fields.

mod adaptive;
mod address;
mod backend;
pub mod balance;
mod budget;
mod connect;
mod connector;
mod deadline;
mod dns;
mod health;
mod idle;
mod intake;
mod inventory;
mod lease;
mod origin;
mod outgoing;
mod pace;
mod passive;
mod pause;
mod peer;
mod pick;
mod priority;
mod queue;
pub mod resolve;
mod settings;
mod socket;
#[cfg(test)]
mod testing;
mod tls;
mod transport;
mod wire;

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::info;

pub use self::{
    adaptive::{Concurrency, ConcurrencyMode},
    address::{Address, AddressError, Endpoint, Host},
    backend::{Backend, Failure, State},
    balance::{Affinity, Balance, BalanceError},
    connect::ConnectFailed,
    connector::Connector,
    deadline::Deadline,
    dns::{BadNameServer, Dns, DnsSettings, NameServer},
    intake::Load,
    lease::{Lease, Reception, Tried},
    origin::Origin,
    pace::{Pace, Rate},
    priority::Priority,
    resolve::{Lookup, NoResolver},
    settings::{LastResort, Probe, ProbeKind, Protocol, Seed, Settings, Timeouts},
    tls::{Tls, TlsError, TlsFiles},
    transport::Transport,
};
use self::{pace::Pacer, pause::Gate, queue::Live};

/// The backends of one name, under one plan.
pub struct Upstream {
    settings: Arc<Settings>,
    seeds: Vec<Seed>,
    /// What outlives this plan.
    live: Arc<Live>,
    /// By seed, then by address. Changes when DNS does.
    members: ArcSwap<Vec<Member>>,
    /// What each seed's name resolved to last; held while `members` is rebuilt.
    found: Mutex<Vec<Found>>,
    transport: Arc<Transport>,
    /// How much of its pace is left.
    pacer: Option<Arc<Pacer>>,
    /// Told when `members` changed.
    changed: Arc<Notify>,
    /// Names that have not been looked up yet.
    unresolved: watch::Sender<usize>,
    tasks: CancellationToken,
    _end_tasks: DropGuard,
}

/// A backend in its role here.
#[derive(Clone, Debug)]
struct Member {
    backend: Arc<Backend>,
    weight: u32,
    backup: bool,
}

/// The endpoints of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// Its name has not been resolved yet.
    Nothing,
    Endpoints(Vec<Endpoint>),
}

/// Why no backend could be leased.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Unavailable {
    #[error("every backend is down")]
    AllDown,
    #[error("every backend is at its connection cap and the queue is full")]
    QueueFull,
    #[error("no backend fell below its connection cap in time")]
    QueueTimeout,
    #[error("the upstream has as many requests as it does well with")]
    Overloaded,
    #[error("the pace of the upstream allows no more requests now")]
    Paced { again: Duration },
    #[error("the upstream wants to be left alone")]
    Paused { again: Duration },
    #[error("no backend: no name has been resolved")]
    NoBackends,
}

/// One backend as it is now, for logs and operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendStatus {
    pub address: String,
    pub in_flight: u32,
    pub state: State,
    pub weight: u32,
    pub backup: bool,
}

impl Upstream {
    /// An upstream whose backends keep the load and health they had in `carried`, the running one of this name.
    ///
    /// Starts nothing and changes nothing that runs, so that a plan may still be refused: see [`Upstream::start`].
    /// Needs no runtime.
    pub fn new(settings: Settings, seeds: Vec<Seed>, carried: Option<&Self>) -> Arc<Self> {
        let live = carried.map_or_else(
            || Arc::new(Live::new(entropy())),
            |running| running.live.clone(),
        );
        let found = seeds
            .iter()
            .map(|seed| match (seed.address.endpoint(), carried) {
                (Some(endpoint), _) => Found::Endpoints(vec![endpoint]),
                (None, Some(running)) => running.last_found(&seed.address),
                (None, None) => Found::Nothing,
            });
        let found: Vec<Found> = found.collect();
        let unresolved = found
            .iter()
            .filter(|found| **found == Found::Nothing)
            .count();
        let transport = live
            .inventory
            .lock()
            .transport(settings.transport(&settings.timeouts));
        let pacer = pacer(&settings, carried);
        let tasks = CancellationToken::new();
        let upstream = Self {
            settings: Arc::new(settings),
            seeds,
            live,
            members: ArcSwap::default(),
            found: Mutex::new(found),
            transport,
            pacer,
            changed: Arc::default(),
            unresolved: watch::Sender::new(unresolved),
            _end_tasks: tasks.clone().drop_guard(),
            tasks,
        };
        let first = carried.is_none();
        upstream.rebuild(&upstream.found.lock(), !first);
        Arc::new(upstream)
    }

    /// Starts probes and name resolution, in place of those of the upstream this one was carried from.
    ///
    /// They end with this upstream, or when its successor starts. To be called once, within a runtime, when the plan runs.
    pub fn start(self: &Arc<Self>, lookup: &Arc<dyn Lookup>) {
        let predecessor = self.live.tasks.lock().replace(self.tasks.clone());
        if let Some(predecessor) = predecessor {
            predecessor.cancel();
        }
        for (index, seed) in self.seeds.iter().enumerate() {
            if seed.address.endpoint().is_none() {
                let task = resolve::follow(Arc::downgrade(self), index, lookup.clone());
                tokio::spawn(self.tasks.clone().run_until_cancelled_owned(task));
            }
        }
        match &self.settings.health {
            Some(probe) => {
                let task = health::watch(Arc::downgrade(self), probe.clone());
                tokio::spawn(self.tasks.clone().run_until_cancelled_owned(task));
            }
            // Nobody would ever bring up what probes took down.
            None => {
                let members = self.members.load();
                members
                    .iter()
                    .for_each(|member| member.backend.forget_probes(&self.settings));
            }
        }
    }

    /// Ends probes and name resolution now: the plan that runs has no upstream of this name any more, though requests
    /// that began under the old plan may still hold it.
    pub fn stop(&self) {
        self.tasks.cancel();
    }

    /// Waits until every name has been looked up once, with or without success; needs [`Upstream::start`].
    pub async fn looked_up(&self) {
        let mut unresolved = self.unresolved.subscribe();
        unresolved
            .wait_for(|names| *names == 0)
            .await
            .expect("the sender is this upstream's own");
    }

    /// Leases a backend for one attempt; waits in the queue if none that is up may be given one more now: for its cap,
    /// for the concurrency or the pace of the upstream, or because it wants to be left alone. Who has the higher
    /// `priority` goes first there.
    ///
    /// `affinity` is the hash ([`balance::hash`]) of what [`Balance::ConsistentHash`] asks for, if the request has it.
    /// A backend in `tried` is leased again only if no other is up. An empty `tried` counts as a new request for the
    /// retry budget. Dropping the future gives up the place in the queue.
    pub async fn lease(
        self: &Arc<Self>,
        priority: Priority,
        affinity: Option<u64>,
        tried: &Tried,
    ) -> Result<Lease, Unavailable> {
        if tried.is_empty() {
            self.live.budget.lock().request(Instant::now());
        }
        self.live.lease(self, priority, affinity, tried).await
    }

    /// Whether one more attempt would have to wait longer than the queue allows, because all of it wants to be left
    /// alone.
    pub fn is_left_alone(&self) -> bool {
        if self.settings.pace.is_none() {
            return false;
        }
        let now = Instant::now();
        let latest = now + self.settings.queue_timeout;
        let too_long = |gate| matches!(gate, Gate::Closed { until } if until > latest);
        let members = self.members.load();
        let mut members = members.iter();
        too_long(self.live.intake.pause.lock().gate(now))
            || members.all(|member| too_long(member.backend.pause().lock().gate(now)))
    }

    /// Takes one retry from the budget: at most `retry_percent` of the requests of the last ten seconds, or ten.
    pub fn may_retry(&self) -> bool {
        self.live
            .budget
            .lock()
            .retry(Instant::now(), self.settings.retry_percent)
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The transport for a route that has timeouts of its own; keep it with the route.
    pub fn transport_with(&self, timeouts: &Timeouts) -> Arc<Transport> {
        self.live
            .inventory
            .lock()
            .transport(self.settings.transport(timeouts))
    }

    /// Every backend as it is now, in the order they were written.
    pub fn status(&self) -> Vec<BackendStatus> {
        let now = Instant::now();
        let members = self.members.load();
        let status = |member: &Member| BackendStatus {
            address: member.backend.to_string(),
            in_flight: member.backend.in_flight(),
            state: member
                .backend
                .state(now, &self.settings, members.len() == 1),
            weight: member.weight,
            backup: member.backup,
        };
        members.iter().map(status).collect()
    }

    /// Requests that wait in the queue.
    pub fn waiting(&self) -> usize {
        self.live.waiting()
    }

    /// What it has to do now, and what was kept from it.
    pub fn load(&self) -> Load {
        let waiting = self.live.waiting_by_class();
        self.live
            .intake
            .load(&self.settings, waiting, Instant::now())
    }

    /// Sets what the name of seed `index` resolves to, and joins and drains backends accordingly.
    fn resolved(&self, index: usize, endpoints: Vec<Endpoint>) {
        let mut found = self.found.lock();
        let news = Found::Endpoints(endpoints);
        if found[index] != news {
            // Slow start is for those who join others, not for the first ones there are.
            let joins = found[index] != Found::Nothing;
            found[index] = news;
            let before = self.members.load_full();
            self.rebuild(&found, joins);
            let after = self.members.load();
            self.report(&after, &before, "backend joins");
            self.report(&before, &after, "backend is drained");
        }
        drop(found);
        self.live.serve();
    }

    /// Logs the members that only `these` have.
    fn report(&self, these: &[Member], others: &[Member], what: &'static str) {
        for member in these {
            if !others
                .iter()
                .any(|other| Arc::ptr_eq(&other.backend, &member.backend))
            {
                info!(target: "upstream", upstream = %self.settings.name, backend = %member.backend, why = "its name resolves anew", "{what}");
            }
        }
    }

    fn endpoints_of(&self, index: usize) -> Vec<Endpoint> {
        match &self.found.lock()[index] {
            Found::Nothing => Vec::new(),
            Found::Endpoints(endpoints) => endpoints.clone(),
        }
    }

    fn last_found(&self, address: &Address) -> Found {
        let index = self.seeds.iter().position(|seed| seed.address == *address);
        index.map_or(Found::Nothing, |index| self.found.lock()[index].clone())
    }

    /// Makes the set of backends anew; those that stay keep their state. `joins` is whether new ones start slowly.
    fn rebuild(&self, found: &[Found], joins: bool) {
        let now = Instant::now();
        let mut members: Vec<Member> = Vec::new();
        let mut inventory = self.live.inventory.lock();
        for (seed, found) in self.seeds.iter().zip(found) {
            let Found::Endpoints(endpoints) = found else {
                continue;
            };
            for endpoint in endpoints {
                // Two names of one address are one backend, as first written.
                if members
                    .iter()
                    .any(|member| member.backend.endpoint() == endpoint)
                {
                    continue;
                }
                let (backend, new) = inventory.backend(endpoint);
                if new && joins {
                    backend.discovered(now, &self.settings);
                }
                members.push(Member {
                    backend,
                    weight: seed.weight,
                    backup: seed.backup,
                });
            }
        }
        drop(inventory);
        self.members.store(Arc::new(members));
        self.changed.notify_one();
    }
}

/// What is left of the pace that is carried over, if it is the same one.
fn pacer(settings: &Settings, carried: Option<&Upstream>) -> Option<Arc<Pacer>> {
    let rate = settings.pace.as_ref()?.rate?;
    let running = carried.and_then(|running| running.pacer.as_ref());
    match running.filter(|pacer| pacer.rate() == rate) {
        Some(pacer) => Some(pacer.clone()),
        None => Some(Arc::new(Pacer::new(rate, carried.is_none()))),
    }
}

/// 64 bits that differ between processes: gateways that start together must not move in step.
fn entropy() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("name", &self.settings.name)
            .field("members", &self.members.load())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::{
        testing::{lease, loads, only, seconds, seeds, settings, take_down, upstream, with},
        *,
    };

    #[tokio::test(start_paused = true)]
    async fn a_reload_keeps_load_and_health_of_the_backends_that_stay() {
        let old = upstream(settings(), 3);
        take_down(&old, 0).await;
        let held = old
            .lease(Priority::Normal, None, &only(&old, 1))
            .await
            .unwrap();

        let mut backends = seeds(&["192.0.2.2:80", "192.0.2.1:80", "192.0.2.9:80"]);
        backends[0].weight = 7;
        let new = Upstream::new(settings(), backends, Some(&old));

        let status = new.status();
        assert_eq!((status[0].in_flight, status[0].weight), (1, 7));
        assert!(matches!(
            status[1].state,
            State::Failed {
                why: Failure::Connect,
                ..
            }
        ));
        assert_eq!(status[2].state, State::Up);
        drop(held);
        assert_eq!(loads(&new), [0, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_new_by_reload_takes_load_slowly() {
        let settings = with(|settings| settings.slow_start = seconds(10));
        let old = upstream(settings.clone(), 1);
        assert_eq!(old.status()[0].state, State::Up);
        let new = Upstream::new(
            settings,
            seeds(&["192.0.2.1:80", "192.0.2.2:80"]),
            Some(&old),
        );
        let states: Vec<_> = new
            .status()
            .into_iter()
            .map(|backend| backend.state)
            .collect();
        assert_eq!(states, [State::Up, State::Rising(10)]);
    }

    #[tokio::test]
    async fn equal_transports_survive_a_reload_and_different_ones_are_not_mixed() {
        let old = upstream(settings(), 1);
        let same = Upstream::new(settings(), seeds(&["192.0.2.1:80"]), Some(&old));
        assert_eq!(
            lease(&old).await.peer().group_key,
            lease(&same).await.peer().group_key
        );

        let hasty = Timeouts {
            read: seconds(1),
            ..Timeouts::default()
        };
        let route = same.transport_with(&hasty);
        assert!(Arc::ptr_eq(&route, &same.transport_with(&hasty)));
        assert_ne!(
            lease(&same).await.peer_over(&route).group_key,
            lease(&same).await.peer().group_key
        );
    }

    #[tokio::test]
    async fn retries_are_a_share_of_requests() {
        let upstream = upstream(settings(), 2);
        for _ in 0..100 {
            let _ = lease(&upstream).await;
        }
        assert_eq!((0..100).filter(|_| upstream.may_retry()).count(), 20);
    }

    /// What can happen to an upstream.
    #[derive(Clone, Debug)]
    enum Event {
        Lease,
        Succeed(prop::sample::Index),
        Fail(prop::sample::Index),
        Drop(prop::sample::Index),
        Wait(u64),
        Reload,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => Just(Event::Lease),
            2 => any::<prop::sample::Index>().prop_map(Event::Succeed),
            2 => any::<prop::sample::Index>().prop_map(Event::Fail),
            3 => any::<prop::sample::Index>().prop_map(Event::Drop),
            1 => (0_u64..12).prop_map(Event::Wait),
            1 => Just(Event::Reload),
        ]
    }

    proptest! {
        #[test]
        fn live_leases_are_the_requests_in_flight(events in prop::collection::vec(event(), 1..80)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let settings = with(|settings| (settings.max_connections, settings.queue) = (3, 0));
                let mut upstream = upstream(settings.clone(), 3);
                let mut held: Vec<Lease> = Vec::new();
                for event in events {
                    match event {
                        Event::Lease => held.extend(upstream.lease(Priority::Normal, None, &Tried::default()).await),
                        Event::Succeed(index) if !held.is_empty() => index.get_mut(&mut held).succeeded(),
                        Event::Fail(index) if !held.is_empty() => index.get_mut(&mut held).failed(Failure::Reset),
                        Event::Drop(index) if !held.is_empty() => drop(held.swap_remove(index.index(held.len()))),
                        Event::Wait(time) => advance(seconds(time)).await,
                        Event::Reload => {
                            let same = seeds(&["192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"]);
                            upstream = Upstream::new(settings.clone(), same, Some(&upstream));
                        }
                        _ => {}
                    }
                    let loads = loads(&upstream);
                    assert_eq!(loads.iter().sum::<u32>() as usize, held.len());
                    assert_eq!(upstream.load().in_flight as usize, held.len());
                    assert!(loads.iter().all(|load| *load <= 3));
                }
                held.clear();
                assert_eq!(loads(&upstream), [0, 0, 0]);
            });
        }
    }
}
