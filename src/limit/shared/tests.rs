//! Many gateways and one bucket, with clocks moved by hand.

use std::time::Duration;

use proptest::prelude::*;

use super::lease::Lease;
use super::model::Model;
use super::script::{Answer, Question, Shape};
use super::{Asks, Held, Step};
use crate::limit::bucket::Ticks;

/// Of a counter, in microseconds.
const STRETCH: i64 = 20_000_000;

fn ticks(micros: u64) -> Ticks {
    Ticks::of(Duration::from_micros(micros))
}

fn shape(burst: u64, per_second: f64) -> Shape {
    Shape {
        burst,
        interval: 1e6 / per_second,
    }
}

fn counter(amount: u64) -> Shape {
    Shape {
        burst: amount,
        interval: 0.0,
    }
}

/// What happens among gateways, of which each has a lease of the bucket.
#[derive(Clone, Debug)]
enum Happens {
    Pass(u64),
    Take(usize, u64),
    Ask(usize, u64),
    /// A question arrives at Redis, in whatever order.
    Arrive(usize),
    /// Its answer arrives at the gateway, if that still waits.
    Hear(usize),
    /// A question, its way and its answer.
    Trade(usize, u64),
    GiveUp(usize),
    Return(usize),
    GiveBack(usize),
    Die(usize),
    /// The client gets another plan.
    Change(Shape),
}

fn plan() -> impl Strategy<Value = Happens> {
    let rate = (1..80u64, 1..100u32).prop_map(|(burst, rate)| shape(burst, f64::from(rate)));
    prop_oneof![9 => rate, 1 => (1..80u64).prop_map(counter)].prop_map(Happens::Change)
}

fn happens(gateways: usize) -> impl Strategy<Value = Happens> {
    use Happens as H;
    let one = 0..gateways;
    prop_oneof![
        3 => (0..200_000u64).prop_map(H::Pass),
        1 => (0..15_000_000u64).prop_map(H::Pass),
        12 => (one.clone(), 1..4u64).prop_map(|(one, cost)| H::Take(one, cost)),
        3 => (one.clone(), 0..4u64).prop_map(|(one, cost)| H::Ask(one, cost)),
        4 => (0..4usize).prop_map(H::Arrive),
        4 => (0..4usize).prop_map(H::Hear),
        6 => (one.clone(), 0..4u64).prop_map(|(one, cost)| H::Trade(one, cost)),
        1 => one.clone().prop_map(H::GiveUp),
        1 => one.clone().prop_map(H::Return),
        1 => one.clone().prop_map(H::GiveBack),
        1 => one.prop_map(H::Die),
    ]
}

struct Gateway {
    lease: Lease,
    /// Its clock began so much earlier than that of the others, in microseconds.
    skew: u64,
    /// The lease and the number of the question.
    asking: Option<(u64, u64)>,
}

struct Flying {
    gateway: usize,
    question: Question,
    shape: Shape,
    asked: Ticks,
    answer: Option<Answer>,
}

#[derive(Clone, Copy)]
struct Admitted {
    at: u64,
    by: usize,
    cost: u64,
    plan: usize,
    shape: Shape,
}

struct World {
    shape: Shape,
    now: u64,
    /// Buckets and counters are not the same place there.
    redis: [Model; 2],
    redis_ahead: i64,
    gateways: Vec<Gateway>,
    flying: Vec<Flying>,
    admitted: Vec<Admitted>,
    /// How many plans the client has had.
    plans: usize,
    names: u64,
}

impl World {
    fn new(shape: Shape, gateways: usize) -> Self {
        let mut world = Self {
            shape,
            now: 0,
            redis: Default::default(),
            redis_ahead: 1_700_000_000_000_000,
            gateways: Vec::new(),
            flying: Vec::new(),
            admitted: Vec::new(),
            plans: 0,
            names: 0,
        };
        for number in 0..gateways {
            let gateway = Self::gateway(number as u64 * 300_000_000);
            world.gateways.push(gateway);
        }
        world
    }

    fn gateway(skew: u64) -> Gateway {
        Gateway {
            lease: Lease::default(),
            skew,
            asking: None,
        }
    }

    fn at(&self, gateway: usize) -> Ticks {
        ticks(self.now + self.gateways[gateway].skew)
    }

    /// By the clock of Redis.
    fn window(&self) -> (i64, i64) {
        if !self.shape.is_counter() {
            return (0, 0);
        }
        let begin = self.stretch(self.now) * STRETCH;
        (begin, begin + STRETCH)
    }

    fn stretch(&self, at: u64) -> i64 {
        (self.redis_ahead + at as i64).div_euclid(STRETCH)
    }

    fn take(&mut self, number: usize, cost: u64) -> bool {
        let (at, shape) = (self.at(number), self.shape);
        let lease = &mut self.gateways[number].lease;
        lease.fit(shape, at);
        lease.note(cost, at);
        let is_taken = lease.take(cost, at);
        if is_taken {
            self.admitted.push(Admitted {
                at: self.now,
                by: number,
                cost,
                plan: self.plans,
                shape,
            });
        }
        is_taken
    }

    fn send(&mut self, number: usize, mut question: Question) {
        question.asked = self.redis_ahead + self.now as i64;
        let asked = self.at(number);
        let gateway = &mut self.gateways[number];
        gateway.asking = Some((question.lease, question.number));
        self.flying.push(Flying {
            gateway: number,
            question,
            shape: self.shape,
            asked,
            answer: None,
        });
    }

    fn ask(&mut self, number: usize, cost: u64) {
        let (at, shape, window) = (self.at(number), self.shape, self.window());
        if self.gateways[number].asking.is_none() {
            let lease = &mut self.gateways[number].lease;
            lease.fit(shape, at);
            self.names += 1;
            let question = lease.question(cost, shape, window, at, self.names);
            self.send(number, question);
        }
    }

    fn arrive(&mut self, flying: usize) {
        let now = self.redis_ahead + self.now as i64;
        if let Some(flying) = self.flying.get_mut(flying) {
            let Flying {
                question, shape, ..
            } = flying;
            let redis = &mut self.redis[usize::from(shape.is_counter())];
            let answer = redis.ask(question, *shape, now);
            flying.answer.get_or_insert(answer);
        }
    }

    fn hear(&mut self, flying: usize) {
        let has_answer = |flying: &Flying| flying.answer.is_some();
        if !self.flying.get(flying).is_some_and(has_answer) {
            return;
        }
        let flying = self.flying.remove(flying);
        let gateway = &mut self.gateways[flying.gateway];
        if gateway.asking != Some((flying.question.lease, flying.question.number)) {
            return;
        }
        gateway.asking = None;
        if let Some(Answer::Taken(grant)) = flying.answer {
            let lease = &mut gateway.lease;
            lease.hear(&flying.question, &grant, flying.asked, flying.shape);
        }
    }

    fn happen(&mut self, happens: &Happens) {
        match *happens {
            Happens::Pass(micros) => self.now += micros,
            Happens::Take(one, cost) => drop(self.take(one, cost)),
            Happens::Ask(one, cost) => self.ask(one, cost),
            Happens::Arrive(one) => self.arrive(one),
            Happens::Hear(one) => self.hear(one),
            Happens::Trade(one, cost) => {
                if self.gateways[one].asking.is_none() {
                    self.ask(one, cost);
                    let last = self.flying.len() - 1;
                    self.arrive(last);
                    self.hear(last);
                }
            }
            Happens::GiveUp(one) => self.gateways[one].asking = None,
            Happens::Return(one) => {
                let (at, window, shape) = (self.at(one), self.window(), self.shape);
                self.names += 1;
                let gateway = &mut self.gateways[one];
                if gateway.asking.is_none()
                    && gateway.lease.is_like(shape)
                    && let Some(question) = gateway.lease.returning(window, at, self.names)
                {
                    self.send(one, question);
                }
            }
            Happens::GiveBack(one) => {
                let at = self.at(one);
                let by_it = |admitted: &Admitted| admitted.by == one;
                if let Some(place) = self.admitted.iter().rposition(by_it) {
                    let Admitted {
                        at: then,
                        cost,
                        shape,
                        ..
                    } = self.admitted.remove(place);
                    let of_today =
                        !shape.is_counter() || self.stretch(then) == self.stretch(self.now);
                    if of_today {
                        self.gateways[one].lease.give_back(cost, shape, at);
                    }
                }
            }
            Happens::Die(one) => {
                let skew = self.gateways[one].skew;
                self.gateways[one] = Self::gateway(skew);
                // What it took can nobody give back any more.
                for admitted in &mut self.admitted {
                    if admitted.by == one {
                        admitted.by = usize::MAX;
                    }
                }
            }
            Happens::Change(shape) => {
                self.shape = shape;
                self.plans += 1;
            }
        }
    }

    /// The first window of the last plan that holds more than it may, with how much it holds.
    fn overfull(&self) -> Option<(u64, u64, u64)> {
        let of_plan = |admitted: &&Admitted| admitted.plan == self.plans;
        let mut all: Vec<_> = self.admitted.iter().filter(of_plan).copied().collect();
        all.sort_by_key(|admitted| admitted.at);
        for (place, first) in all.iter().enumerate() {
            let mut sum = 0;
            for last in &all[place..] {
                let flowed = match self.shape.is_counter() {
                    false => (last.at - first.at) as f64 / self.shape.interval,
                    true if self.stretch(last.at) == self.stretch(first.at) => 0.0,
                    true => break,
                };
                sum += last.cost;
                if sum as f64 > self.shape.burst as f64 + flowed + 1e-3 {
                    return Some((first.at, last.at, sum));
                }
            }
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever arrives late, twice, in another order or never, and whoever dies meanwhile.
    #[test]
    fn no_window_of_all_gateways_together_holds_more_than_the_burst_and_the_rate_allow(
        burst in 1..80u64, per_second in 1..100u32, all in prop::collection::vec(happens(4), 1..250),
    ) {
        let mut world = World::new(shape(burst, f64::from(per_second)), 4);
        for one in &all {
            world.happen(one);
        }
        prop_assert_eq!(world.overfull(), None);
    }

    #[test]
    fn no_day_of_all_gateways_together_holds_more_than_its_quota(
        amount in 1..80u64, all in prop::collection::vec(happens(4), 1..250),
    ) {
        let mut world = World::new(counter(amount), 4);
        for one in &all {
            world.happen(one);
        }
        prop_assert_eq!(world.overfull(), None);
    }

    #[test]
    fn who_changes_plan_never_gets_more_than_the_new_one_allows(
        burst in 1..80u64,
        all in prop::collection::vec(prop_oneof![24 => happens(4), 1 => plan()], 1..250),
    ) {
        let mut world = World::new(shape(burst, 10.0), 4);
        for one in &all {
            world.happen(one);
            prop_assert_eq!(world.overfull(), None);
        }
    }

    #[test]
    fn a_clock_of_redis_that_jumps_grants_no_fresh_burst_to_who_asks_all_the_time(
        ahead in -1_000_000_000..1_000_000_000i64, burst in 4..80u64,
    ) {
        let mut world = World::new(shape(burst, 10.0), 1);
        for turn in 0..400 {
            if turn == 200 {
                world.redis_ahead += ahead;
            }
            world.happen(&Happens::Trade(0, 1));
            while world.take(0, 1) {}
            world.now += 50_000;
        }
        prop_assert_eq!(world.overfull(), None);
    }

    #[test]
    fn a_redis_that_forgets_everything_grants_no_fresh_burst_to_who_knows_better(burst in 4..80u64) {
        let mut world = World::new(shape(burst, 10.0), 1);
        for turn in 0..400 {
            if turn == 200 {
                world.redis = Default::default();
            }
            world.happen(&Happens::Trade(0, 1));
            while world.take(0, 1) {}
            world.now += 50_000;
        }
        prop_assert_eq!(world.overfull(), None);
    }
}

#[test]
fn a_redis_that_forgets_everything_gives_a_share_to_those_whom_nobody_knows() {
    let mut world = World::new(shape(80, 10.0), 8);
    world.happen(&Happens::Trade(0, 80));
    assert!(world.take(0, 80));
    world.redis = Default::default();
    world.redis[0].fresh = Some(80.0 / 8.0);
    for gateway in 1..8 {
        for _ in 0..80 {
            world.happen(&Happens::Trade(gateway, 1));
            world.take(gateway, 1);
        }
    }
    let all: u64 = world.admitted.iter().map(|one| one.cost).sum();
    assert!((81..=90).contains(&all), "{all}");
}

#[test]
fn what_was_spent_just_before_a_lease_ended_is_not_there_again_at_once() {
    let mut world = World::new(shape(10, 100.0), 2);
    world.happen(&Happens::Trade(0, 5));
    world.now = 9_990_000;
    assert!(world.take(0, 5));
    world.now = 10_010_000;
    world.happen(&Happens::Trade(1, 10));
    world.take(1, 10);
    assert_eq!(world.overfull(), None);
}

#[test]
fn tokens_that_came_when_their_lease_had_ended_do_not_come_to_life_with_the_next_ones() {
    let mut world = World::new(shape(2, 6.0), 2);
    world.happen(&Happens::Ask(1, 0));
    world.now = 10_000_000;
    world.happen(&Happens::Arrive(0));
    world.happen(&Happens::Hear(0));
    world.happen(&Happens::Trade(1, 0));
    assert!(world.take(1, 1));
    assert!(!world.take(1, 1));
}

/// Gateways that ask as requests make them ask, of which each answer takes a millisecond.
struct Traffic {
    world: World,
    held: Vec<Held>,
    requests: u64,
    admitted: u64,
    questions: u64,
}

impl Traffic {
    fn new(shape: Shape, gateways: usize) -> Self {
        Self {
            world: World::new(shape, gateways),
            held: (0..gateways).map(|_| Held::default()).collect(),
            requests: 0,
            admitted: 0,
            questions: 0,
        }
    }

    /// Of a limit like any other, with Redis well.
    fn asks(is_first: bool) -> Asks {
        Asks {
            is_away: false,
            returns_at: Ticks(0),
            exact: false,
            is_closed: false,
            is_first,
            is_patient: is_first,
        }
    }

    fn request(&mut self, number: usize) {
        self.requests += 1;
        self.step(number, true);
    }

    fn step(&mut self, number: usize, is_first: bool) {
        let at = self.world.at(number);
        self.held[number].lease.fit(self.world.shape, at);
        let cost = match self.held[number].step(1, at, Self::asks(is_first)) {
            Step::Taken => {
                self.admitted += 1;
                return;
            }
            Step::Low(_) => {
                self.admitted += 1;
                0
            }
            Step::Ask(_) => 1,
            _ => return,
        };
        self.questions += 1;
        let world = &mut self.world;
        let lease = &mut self.held[number].lease;
        world.names += 1;
        let question = lease.question(cost, world.shape, (0, 0), at, world.names);
        let now = world.redis_ahead + world.now as i64;
        let question = Question {
            asked: now,
            ..question
        };
        let Answer::Taken(grant) = world.redis[0].ask(&question, world.shape, now) else {
            panic!("it is in order");
        };
        lease.hear(&question, &grant, at, world.shape);
        self.held[number].asking = None;
        if cost > 0 {
            self.step(number, false);
        }
    }
}

/// 8 gateways for a minute, of which the first has 90 % of the requests.
fn skewed(shape: Shape, requests_per_second: u64, seconds: u64) -> Traffic {
    let mut traffic = Traffic::new(shape, 8);
    let between = 1_000_000 / requests_per_second;
    for number in 0..requests_per_second * seconds {
        let gateway = match number % 10 {
            9 => 1 + (number / 10 % 7) as usize,
            _ => 0,
        };
        traffic.request(gateway);
        traffic.world.now += between;
    }
    traffic
}

#[test]
fn whoever_asks_for_more_than_the_quota_gets_all_of_it_with_few_questions() {
    for (burst, rate, demand) in [
        (1000, 1000, 2000),
        (400, 200, 2000),
        (2000, 1000, 1100),
        (60, 20, 1000),
    ] {
        let traffic = skewed(shape(burst, rate as f64), demand, 60);
        // At the end, up to a burst lies in the bucket and in leases.
        let (least, most) = (rate * 60, rate * 60 + burst);
        let (admitted, questions) = (traffic.admitted, traffic.questions);
        let case = format!("{burst} {rate} {demand}: {admitted}, {questions} questions");
        assert!(admitted <= most && admitted * 100 >= least * 98, "{case}");
        assert!(questions * 100 <= traffic.requests, "{case}");
    }
}

#[test]
fn whoever_stays_below_the_quota_is_let_in_always() {
    for (burst, rate, demand) in [(100, 100, 90), (1000, 500, 450), (3000, 1000, 950)] {
        let traffic = skewed(shape(burst, rate as f64), demand, 60);
        assert_eq!(
            traffic.admitted, traffic.requests,
            "{burst} {rate} {demand}"
        );
    }
}

#[test]
fn without_redis_a_closed_limit_lets_in_nobody_also_of_what_its_lease_holds() {
    let mut traffic = Traffic::new(shape(100, 10.0), 1);
    traffic.request(0);
    let at = traffic.world.at(0);
    let held = &mut traffic.held[0];
    assert!(held.lease.has_something(at));
    let mut step = |is_away, is_closed| {
        let asks = Asks {
            is_away,
            is_closed,
            ..Traffic::asks(true)
        };
        held.step(1, at, asks)
    };
    assert!(matches!(step(true, true), Step::Away));
    assert!(matches!(step(true, false), Step::Taken));
    // What it holds is there still when Redis is back.
    assert!(matches!(step(false, true), Step::Taken | Step::Low(_)));
}
