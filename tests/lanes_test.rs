//! One set of decisions, two lanes: generated requests over generated plans get the same answer from a gateway and from one
//! whose express lane is turned off, reach the application alike, take the same of every limit, and leave the same record.
//!
//! Each of the two stands before an application of its own and is asked the same in the same order, over a connection that
//! is kept as long as it may be, several requests at once. Masked is what differs from request to request: ids, times, and
//! the seconds until something is there again.
//!
//! The full lane stores nothing: on a route with a cache it is the application as it is now, to which whatever the
//! express lane has stored is compared. There `without_cache` and `record` say what may differ. Status, body, conditions
//! and ranges may not, nor what a visitor is told that is not about the cache; each page has in its body what it depends on,
//! so that one that is given to somebody else is seen. The plans leave out what makes an answer from the cache another one by
//! the operator's will (`cache_hit_cost`, limits by bytes) or by the client's (`only-if-cached`), and applications that fail
//! for a while (`stale_if_error`).

mod application;
mod dice;
mod lane;
mod outcome;
mod plan;
mod request;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use self::dice::Dice;
use self::lane::{Lane, Which};
use self::outcome::{Leeway, Outcome};
use self::plan::Plan;
use self::request::Request;
use crate::harness::corpus::cases;

/// Pairs over one plan, and how many of them are looked at together.
const PAIRS: usize = 2_500;
const ROUND: usize = 250;
/// The most that is sent at once.
const BATCH: usize = 16;

/// How often something was answered.
#[derive(Default)]
struct Seen {
    statuses: BTreeMap<u16, usize>,
    hits: usize,
}

impl Seen {
    fn add(&mut self, outcome: &Outcome) {
        *self.statuses.entry(outcome.status()).or_insert(0) += 1;
        self.hits += usize::from(outcome.is_hit());
    }

    /// Else the generators have gone blind to one side of the rules.
    fn check(&self) {
        let Self { statuses, hits } = self;
        for status in [
            200, 204, 206, 301, 304, 400, 404, 405, 410, 416, 429, 500, 502,
        ] {
            assert!(
                statuses.contains_key(&status),
                "no {status} among {statuses:?}"
            );
        }
        let all: usize = statuses.values().sum();
        assert!(statuses[&200] > all / 4, "few were answered: {statuses:?}");
        assert!(*hits > all / 60, "only {hits} of {all} were hits");
    }
}

/// Both lanes over one generated plan.
struct Pair {
    seed: u64,
    plan: Plan,
    express: Lane,
    full: Lane,
    leeway: Leeway,
}

impl Pair {
    fn start(seed: u64, plan: Plan) -> Self {
        let express = Lane::start(&plan, Which::Express);
        let full = Lane::start(&plan, Which::Full);
        Self {
            seed,
            plan,
            express,
            full,
            leeway: Leeway::default(),
        }
    }

    /// Asks both for all of it.
    fn ask(&mut self, requests: &[Request], seen: &mut Seen) {
        for batch in batches(requests) {
            self.express.send(batch);
            self.full.send(batch);
            let express = self.express.outcomes(batch);
            let full = self.full.outcomes(batch);
            for ((request, express), full) in batch.iter().zip(express).zip(full) {
                seen.add(&express);
                self.compare(request, express, full);
            }
        }
        self.compare_received();
        self.compare_records(requests.len());
    }

    fn compare(&mut self, request: &Request, mut express: Outcome, mut full: Outcome) {
        if express.kept && full.status() == 502 && full.body.is_some() {
            full.as_if_kept();
        }
        assert!(
            !full.is_hit(),
            "the full lane is to store nothing: {full:?}"
        );
        let tag = || request.tag.clone();
        if express.has_any_length() {
            self.leeway.of_any_length.insert(tag());
        }
        if express.is_of_cache() && full.is_of_cache() {
            self.leeway.of_cache.insert(tag());
            if !express.is_hit() && express.is_page_of(&full) {
                self.leeway.of_either_status.insert(tag());
                return;
            }
            express = express.without_cache();
            full = full.without_cache();
        }
        if express != full {
            self.differ(&format!("{:?}", request.text()), &express, &full);
        }
    }

    /// What the applications have received. Of a page that may be stored they are asked in another way.
    fn compare_received(&self) {
        let [express, full] = [&self.express, &self.full].map(|lane| {
            let mut received = lane.received();
            received.retain(|(tag, _)| {
                tag.as_ref()
                    .is_none_or(|tag| !self.leeway.of_cache.contains(tag))
            });
            received.sort();
            // Over a connection that has rested and turns out to be closed a request is sent once more, and which ones
            // rest is chance. How often a lane tried is in its records.
            received.dedup();
            received
        });
        if express != full {
            let [express, full] = apart(express, full);
            self.differ("what the application received", &express, &full);
        }
    }

    fn compare_records(&mut self, count: usize) {
        let [express, full] = [&mut self.express, &mut self.full].map(|lane| {
            let mut records = lane.records(count, &self.leeway);
            records.sort();
            records
        });
        if express != full {
            let [express, full] = apart(express, full);
            self.differ("the records", &express, &full);
        }
    }

    /// How every client stands in the end, and who is banned.
    fn compare_levels(&self) {
        let mut orders = vec![
            ("GET", "/limit/report", String::new()),
            ("GET", "/limit/top", String::new()),
            ("GET", "/limit/bans", String::new()),
        ];
        for name in plan::names() {
            orders.push(("POST", "/limit/show", format!("{{\"key\": {name:?}}}")));
        }
        for (method, path, body) in orders {
            let [express, full] =
                [&self.express, &self.full].map(|lane| lane.told(method, path, &body));
            if express != full {
                self.differ(&format!("{path} {body}"), &express, &full);
            }
        }
    }

    fn differ(&self, over: &str, express: &impl std::fmt::Debug, full: &impl std::fmt::Debug) -> ! {
        panic!(
            "the lanes differ over {over}\nseed {} with the plan\n{}\nexpress: {express:#?}\nfull: {full:#?}",
            self.seed, self.plan.text
        )
    }
}

/// What each has that the other has not.
fn apart<T: Ord>(one: Vec<T>, other: Vec<T>) -> [Vec<T>; 2] {
    let mut left = Vec::new();
    let mut other = other;
    for item in one {
        match other.binary_search(&item) {
            Ok(same) => drop(other.remove(same)),
            Err(_) => left.push(item),
        }
    }
    [left, other]
}

/// Up to so many that one connection carries.
fn batches(requests: &[Request]) -> impl Iterator<Item = &[Request]> {
    requests
        .chunk_by(|request, _| !request.is_last)
        .flat_map(|requests| requests.chunks(BATCH))
}

/// Drives both lanes over the plans of these seeds.
fn drive(seeds: RangeInclusive<u64>) {
    let mut seen = Seen::default();
    for seed in seeds {
        let mut dice = Dice::new(seed);
        let mut pair = Pair::start(seed, Plan::any(&mut dice));
        for round in 0..PAIRS / ROUND {
            let first = round * ROUND;
            let requests: Vec<_> = (first..first + ROUND)
                .map(|number| Request::any(&mut dice, number, &pair.plan))
                .collect();
            pair.ask(&requests, &mut seen);
        }
        pair.compare_levels();
    }
    seen.check();
}

macro_rules! over_plans {
    ($($name:ident: $seeds:expr,)*) => {
        $(#[test]
        fn $name() {
            drive($seeds);
        })*
    };
}

// 100,000 pairs in all, in parts that run beside one another.
over_plans! {
    both_lanes_answer_alike_over_plans_1_to_5: 1..=5,
    both_lanes_answer_alike_over_plans_6_to_10: 6..=10,
    both_lanes_answer_alike_over_plans_11_to_15: 11..=15,
    both_lanes_answer_alike_over_plans_16_to_20: 16..=20,
    both_lanes_answer_alike_over_plans_21_to_25: 21..=25,
    both_lanes_answer_alike_over_plans_26_to_30: 26..=30,
    both_lanes_answer_alike_over_plans_31_to_35: 31..=35,
    both_lanes_answer_alike_over_plans_36_to_40: 36..=40,
}

macro_rules! requests {
    ($($path:literal),*) => {
        [$(include_str!(concat!("corpus/http1/requests/", $path, ".http"))),*]
    };
}

#[test]
fn every_request_of_the_corpus_is_refused_or_let_in_alike_by_both_lanes() {
    let mut pair = Pair::start(0, Plan::of_the_corpus());
    let files = requests!(
        "invalid/request-line",
        "invalid/target",
        "invalid/host",
        "invalid/fields",
        "invalid/framing",
        "invalid/chunked",
        "valid/heads",
        "valid/bodies"
    );
    for case in files.iter().flat_map(|file| cases(file)) {
        // What does not end has no answer.
        if case.outcome.contains("incomplete") {
            continue;
        }
        let request = Request::of_the_corpus(&case);
        let [express, full] = [&mut pair.express, &mut pair.full].map(|lane| lane.alone(&request));
        assert!(full.status() >= 200, "{}: {full:?}", case.name);
        assert_eq!(
            full.status() >= 400,
            !case.outcome.starts_with("ok"),
            "{}",
            case.name
        );
        pair.compare(&request, express, full);
    }
}
