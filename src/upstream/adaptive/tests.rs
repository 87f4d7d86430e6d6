use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use proptest::prelude::*;

use super::*;

const RULE: Concurrency = Concurrency {
    min: 3,
    max: 1000,
    tolerance: 25,
    window: Duration::from_millis(100),
    measure_every: Duration::from_secs(60),
};

/// Numbers between 0 and 1, the same in every run of one seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (crate::upstream::balance::mix(self.0) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A server that works on a fixed number of requests at once, and lets the others wait in their order.
struct Server {
    workers: usize,
    /// How long a request takes, on average.
    service: Duration,
    busy: usize,
    waiting: VecDeque<Request>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    began: Instant,
    in_flight: u32,
}

/// A gateway with more requests than the server can do, before this server.
struct Simulation {
    adaptive: Adaptive,
    rule: Concurrency,
    server: Server,
    dice: Dice,
    now: Instant,
    in_flight: u32,
    /// The ends of the requests that the server works on.
    ends: BinaryHeap<Reverse<(Instant, Request)>>,
    /// Of the answers since the last look: how many, and how long they took together.
    answers: u32,
    time: Duration,
    slowest: Duration,
}

impl Simulation {
    fn new(rule: Concurrency, workers: usize, service: Duration, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            adaptive: Adaptive::new(&rule, seed, now),
            rule,
            server: Server {
                workers,
                service,
                busy: 0,
                waiting: VecDeque::new(),
            },
            dice: Dice(seed),
            now,
            in_flight: 0,
            ends: BinaryHeap::new(),
            answers: 0,
            time: Duration::ZERO,
            slowest: Duration::ZERO,
        }
    }

    /// Lets as many requests in as the limit allows, but not more than `demand` at once, for this long.
    fn run(&mut self, time: Duration, demand: u32) {
        (self.answers, self.time, self.slowest) = (0, Duration::ZERO, Duration::ZERO);
        let end = self.now + time;
        loop {
            while self.in_flight < self.adaptive.limit(&self.rule).min(demand) {
                self.in_flight += 1;
                let request = Request {
                    began: self.now,
                    in_flight: self.in_flight,
                };
                self.server.waiting.push_back(request);
            }
            self.work();
            let Some(Reverse((at, request))) = self.ends.pop() else {
                return;
            };
            self.now = at;
            self.server.busy -= 1;
            self.in_flight -= 1;
            let sample = Sample {
                began: request.began,
                took: at - request.began,
                in_flight: request.in_flight,
            };
            self.answers += 1;
            self.time += sample.took;
            self.slowest = self.slowest.max(sample.took);
            self.adaptive.sample(sample, &self.rule, at);
            if at >= end {
                return;
            }
        }
    }

    fn work(&mut self) {
        while self.server.busy < self.server.workers {
            let Some(request) = self.server.waiting.pop_front() else {
                return;
            };
            // Half of it always, the rest by chance, with a long tail.
            let part = 0.5 - 0.5 * (1.0 - self.dice.roll()).ln();
            let end = self.now + self.server.service.mul_f64(part);
            self.server.busy += 1;
            self.ends.push(Reverse((end, request)));
        }
    }

    /// The part of what the server can do that it did.
    fn goodput(&self, time: Duration) -> f64 {
        let capacity = self.server.workers as f64 / self.server.service.as_secs_f64();
        f64::from(self.answers) / time.as_secs_f64() / capacity
    }

    /// The mean time of an answer, in times of the work itself.
    fn slowness(&self) -> f64 {
        (self.time / self.answers).as_secs_f64() / self.server.service.as_secs_f64()
    }

    fn limit(&self) -> u32 {
        self.adaptive.limit(&self.rule)
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn an_overloaded_server_works_at_its_capacity_and_answers_nearly_as_fast_as_ever(
        workers in 4_usize..40,
        millis in 20_u64..200,
        seed: u64,
    ) {
        let mut simulation = Simulation::new(RULE, workers, Duration::from_millis(millis), seed);
        simulation.run(seconds(40), 5000);
        simulation.run(seconds(120), 5000);
        prop_assert!(simulation.goodput(seconds(120)) > 0.9, "{}", simulation.goodput(seconds(120)));
        prop_assert!(simulation.slowness() < 3.0, "{}", simulation.slowness());
    }

    #[test]
    fn a_server_that_was_slow_for_a_while_is_soon_given_all_its_work_again(
        workers in 4_usize..30,
        factor in 2_u32..20,
        seed: u64,
    ) {
        let usual = Duration::from_millis(20);
        let mut simulation = Simulation::new(RULE, workers, usual, seed);
        simulation.run(seconds(30), 5000);
        simulation.server.service = usual * factor;
        simulation.run(seconds(60), 5000);
        prop_assert!(simulation.limit() < workers as u32 * 4 + 20, "{}", simulation.limit());
        simulation.server.service = usual;
        simulation.run(seconds(30), 5000);
        simulation.run(seconds(60), 5000);
        prop_assert!(simulation.goodput(seconds(60)) > 0.9, "{}", simulation.goodput(seconds(60)));
        prop_assert!(simulation.slowness() < 8.0, "{}", simulation.slowness());
    }

    #[test]
    fn the_limit_stays_within_its_bounds(
        min in 1_u32..20,
        more in 0_u32..50,
        times in prop::collection::vec((0_u64..2000, 1_u32..100), 1..500),
    ) {
        let rule = Concurrency { min, max: min + more, ..RULE };
        let mut now = Instant::now();
        let mut adaptive = Adaptive::new(&rule, 0, now);
        for (millis, in_flight) in times {
            let began = now;
            let took = Duration::from_millis(millis);
            now += took;
            adaptive.sample(Sample { began, took, in_flight }, &rule, now);
            prop_assert!((min..=min + more).contains(&adaptive.limit(&rule)));
        }
    }
}

#[test]
fn a_limit_that_nobody_comes_near_to_does_not_grow() {
    let mut simulation = Simulation::new(RULE, 100, Duration::from_millis(20), 7);
    simulation.run(seconds(30), 2);
    assert_eq!(simulation.limit(), FIRST_LIMIT);
    simulation.run(seconds(30), 8);
    assert!(simulation.limit() <= FIRST_LIMIT);
    simulation.run(seconds(20), 5000);
    assert!(simulation.limit() > 80, "{}", simulation.limit());
}

#[test]
fn one_answer_that_takes_a_minute_moves_nothing() {
    let mut simulation = Simulation::new(RULE, 20, Duration::from_millis(20), 7);
    simulation.run(seconds(30), 5000);
    let before = simulation.limit();
    let began = simulation.now;
    simulation.run(seconds(1), 5000);
    let sample = Sample {
        began,
        took: seconds(60),
        in_flight: before,
    };
    simulation.adaptive.sample(sample, &RULE, simulation.now);
    simulation.run(seconds(2), 5000);
    assert!(
        simulation.limit() * 2 > before,
        "{before} {}",
        simulation.limit()
    );
}

#[test]
fn the_quiet_time_is_measured_anew_although_it_is_never_quiet() {
    let mut simulation = Simulation::new(RULE, 10, Duration::from_millis(20), 7);
    simulation.run(seconds(10), 5000);
    let first = simulation.adaptive.quiet().unwrap();
    simulation.server.service = Duration::from_millis(40);
    simulation.run(seconds(90), 5000);
    let second = simulation.adaptive.quiet().unwrap();
    assert!(second > first.mul_f64(1.5), "{first:?} {second:?}");
}
