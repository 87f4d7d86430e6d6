//! The modes, on traces of requests and a clock that is moved by hand.

use crate::limit::jwt::Claims;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use http::{HeaderMap, Method, StatusCode};
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::limit::key::{Prefixes, Secret};
use crate::limit::local::Meter;
use crate::limit::{Concurrency, Cost, Exempt, Fields, Live, Phase, Spent};

const BOUNDS: Bounds = Bounds {
    longest: Duration::from_secs(1),
    of_client: 100,
    in_all: 1_000,
};

/// For 1000 clients.
pub fn rule(quotas: &[&str], key: &str, in_flight: Option<u32>, mode: Mode) -> Arc<Rule> {
    let meters = quotas.iter().map(|quota| {
        let quota = quota.parse().unwrap();
        (Meter::new(quota, &TimeZone::UTC), "test".into())
    });
    Arc::new(Rule {
        name: "test".into(),
        plan: None,
        key: key.parse().unwrap(),
        prefixes: Prefixes::default(),
        meters: meters.collect(),
        in_flight: in_flight.map(|most| Concurrency {
            most,
            policy: "test".into(),
        }),
        cost: Cost {
            each: 1,
            special: Box::default(),
            cache_hit: None,
            said_in: None,
        },
        mode,
        status: StatusCode::TOO_MANY_REQUESTS,
        fields: Fields::Draft11,
        exempt: Exempt::default(),
        secret: Secret::new([7; 16]),
        sharing: None,
        live: Arc::new(Live::new("api", 1_000, quotas.len(), zero().instant)),
    })
}

/// Where every clock of a test begins.
fn zero() -> Moment {
    static ZERO: std::sync::LazyLock<Moment> = std::sync::LazyLock::new(Moment::now);
    *ZERO
}

pub fn at(millis: u64) -> Moment {
    let passed = Duration::from_millis(millis);
    Moment {
        instant: zero().instant + passed,
        system: zero().system + passed,
    }
}

fn ask(rules: &[Arc<Rule>], client: u8, now: Moment) -> (Result<(), Limited>, Taken) {
    let (fields, claims) = (HeaderMap::new(), Claims::default());
    let asker = Asker {
        claims: &claims,
        certificate: None,
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, client)),
        fields: &fields,
        host: "a.example",
        path: "/",
        query: None,
        route: "test",
    };
    let mut taken = Taken::default();
    let took = taken.take(rules, &asker, &Method::GET, Phase::Whole, now);
    let took = took.map_err(|held| match held {
        crate::limit::Held::Back(limited) => limited,
        crate::limit::Held::Until(_) => unreachable!("nothing is shared"),
    });
    (took, taken)
}

/// How long it has to wait; `None` if it is refused.
fn turn(rules: &[Arc<Rule>], client: u8, now: Moment) -> (Option<Duration>, Taken) {
    let (took, mut taken) = ask(rules, client, now);
    let wait = taken.wait();
    let length = wait.as_ref().map_or(Duration::ZERO, |wait| wait.length);
    taken.wait = wait;
    (took.ok().map(|()| length), taken)
}

/// Requests of several clients at random times: when, whose, and how long they are under way.
fn trace(seed: u64, requests: usize) -> Vec<(u64, u8, u64)> {
    let mut state = seed;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1_u64 << 24) as f64
    };
    let mut now = 0.0;
    let all = (0..requests).map(|_| {
        // Times between arrivals of a Poisson process; a few clients ask most.
        now += -20.0 * (1.0 - random()).ln();
        let client = (random() * random() * 12.0) as u8;
        (now as u64, client, (random() * 400.0) as u64)
    });
    all.collect()
}

/// Which requests of a trace were one too many for each rule; a request that is served stays under way.
fn one_too_many(rules: &[Arc<Rule>], trace: &[(u64, u8, u64)]) -> Vec<bool> {
    let mut under_way: Vec<(u64, Taken)> = Vec::new();
    let held = |rules: &[Arc<Rule>]| -> u64 {
        let counts = rules.iter().map(|rule| rule.live.tally.counted());
        counts.map(|counted| counted.held_back()).sum()
    };
    let all = trace.iter().map(|&(now, client, length)| {
        under_way.retain(|(end, _)| *end > now);
        let before = held(rules);
        let (_, taken) = ask(rules, client, at(now));
        under_way.push((now + length, taken));
        held(rules) > before
    });
    all.collect()
}

#[test]
fn who_comes_back_when_it_was_told_is_not_refused_by_another_quota() {
    let rules = [
        rule(
            &["20 per second, burst 5", "60 per minute"],
            "client-ip",
            None,
            Mode::Enforce,
        ),
        rule(
            &["90 per 2m, burst 70"],
            "client-ip",
            None,
            Mode::Tarpit(BOUNDS),
        ),
    ];
    let mut now = Duration::ZERO;
    let mut refused = [0, 0];
    for (since, ..) in trace(1, 2_000) {
        now = now.max(Duration::from_millis(since));
        let moment = Moment {
            instant: zero().instant + now,
            system: zero().system + now,
        };
        let Err(limited) = ask(&rules, 1, moment).0 else {
            continue;
        };
        refused[usize::from(limited.retry_after > Duration::from_secs(1))] += 1;
        now += limited.retry_after;
        let again = Moment {
            instant: zero().instant + now,
            system: zero().system + now,
        };
        assert_eq!(ask(&rules, 1, again).0, Ok(()), "{limited:?}");
    }
    assert!(refused.iter().all(|count| *count > 20), "{refused:?}");
}

#[test]
fn a_refusal_takes_nothing_of_the_quotas_that_it_looks_at() {
    let quotas = ["1 per minute", "3 per hour"];
    let rules = [rule(&quotas, "client-ip", None, Mode::Enforce)];
    assert_eq!(ask(&rules, 1, at(0)).0, Ok(()));
    for _ in 0..5 {
        let (took, taken) = ask(&rules, 1, at(0));
        assert!(took.is_err());
        let left: Vec<_> = taken
            .standings(&rules)
            .map(|one| one.standing.left)
            .collect();
        assert_eq!(left, [0, 2]);
    }
}

#[test]
fn a_shadow_counts_just_those_that_would_be_refused() {
    let quotas = ["20 per second, burst 5", "60 per minute, burst 60"];
    let in_mode = |mode| {
        [
            rule(&quotas[..1], "client-ip", Some(3), mode),
            rule(&quotas, "route", None, mode),
        ]
    };
    for seed in 1..20 {
        let trace = trace(seed, 3_000);
        let (shadow, enforced) = (in_mode(Mode::Shadow), in_mode(Mode::Enforce));
        let would = one_too_many(&shadow, &trace);
        assert_eq!(would, one_too_many(&enforced, &trace), "seed {seed}");
        let count = would.iter().filter(|is_one| **is_one).count();
        assert!((300..2_900).contains(&count), "{count} of seed {seed}");
        for (shadow, enforced) in shadow.iter().zip(&enforced) {
            assert_eq!(
                shadow.live.heavy.refused(20),
                enforced.live.heavy.refused(20)
            );
            let (would, are) = (shadow.live.tally.counted(), enforced.live.tally.counted());
            assert_eq!(
                (would.shadowed, would.admitted),
                (are.refused, are.admitted)
            );
        }
    }
}

#[test]
fn who_waits_goes_when_it_is_its_turn_and_who_would_wait_too_long_is_refused() {
    let rules = [rule(
        &["10 per second, burst 1"],
        "client-ip",
        None,
        Mode::Delay(BOUNDS),
    )];
    let waits: Vec<_> = (0..13).map(|_| turn(&rules, 1, at(0)).0).collect();
    let mut expected: Vec<_> = (0..=10)
        .map(|place| Some(Duration::from_millis(100 * place)))
        .collect();
    expected.extend([None, None]);
    assert_eq!(waits, expected);
    assert_eq!(turn(&rules, 2, at(0)).0, Some(Duration::ZERO));
    // Half a second later half of the queue has gone.
    assert_eq!(turn(&rules, 1, at(500)).0, Some(Duration::from_millis(600)));
    let counted = rules[0].live.tally.counted();
    assert_eq!(
        (counted.admitted, counted.delayed, counted.refused),
        (2, 11, 2)
    );
}

#[test]
fn who_leaves_makes_room_for_another_one_and_nobody_comes_early_for_it() {
    let bounds = Bounds {
        of_client: 2,
        ..BOUNDS
    };
    let delay = Mode::Delay(bounds);
    let rules = [rule(&["10 per second, burst 1"], "client-ip", None, delay)];
    let (_, _served) = turn(&rules, 1, at(0));
    let (_, leaves) = turn(&rules, 1, at(0));
    let (second, _waits) = turn(&rules, 1, at(0));
    assert_eq!(second, Some(Duration::from_millis(200)));
    assert_eq!(turn(&rules, 1, at(0)).0, None, "two wait already");
    assert_eq!(rules[0].live.waiting.count(), 2);
    drop(leaves);
    let (third, _waits) = turn(&rules, 1, at(0));
    assert_eq!(third, Some(Duration::from_millis(300)));
}

#[test]
fn a_turn_that_a_later_limit_refuses_is_free_again() {
    let rules = [
        rule(
            &["10 per second, burst 1"],
            "route",
            None,
            Mode::Delay(BOUNDS),
        ),
        rule(&["2 per hour"], "client-ip", None, Mode::Enforce),
    ];
    let asked = |client| turn(&rules, client, at(0)).0;
    assert_eq!(asked(1), Some(Duration::ZERO));
    assert_eq!(asked(1), Some(Duration::from_millis(100)));
    for _ in 0..50 {
        assert_eq!(asked(1), None);
    }
    assert_eq!(rules[0].live.waiting.count(), 0);
    assert_eq!(asked(2), Some(Duration::from_millis(200)));
}

#[test]
fn refusals_wait_as_long_as_there_is_room_for_them() {
    let bounds = Bounds {
        of_client: 2,
        in_all: 2,
        longest: Duration::from_secs(5),
    };
    let rules = [rule(
        &["1 per hour"],
        "client-ip",
        None,
        Mode::Tarpit(bounds),
    )];
    assert!(ask(&rules, 1, at(0)).0.is_ok());
    let (refused, mut first) = ask(&rules, 1, at(0));
    assert!(refused.is_err());
    let wait = first.wait().expect("there is room");
    assert_eq!(wait.length, Duration::from_secs(5));
    let (_, _second) = ask(&rules, 1, at(0));
    let (refused, mut third) = ask(&rules, 1, at(0));
    assert!(refused.is_err() && third.wait().is_none());
    drop(wait);
    assert!(ask(&rules, 1, at(0)).1.wait().is_some());
    let counted = rules[0].live.tally.counted();
    assert_eq!((counted.tarpitted, counted.refused), (3, 1));
}

proptest! {
    #[test]
    fn turns_never_let_more_through_than_the_quota_and_come_in_order(
        seed in any::<u64>(),
        requests in 1_usize..300,
        burst in 1_u64..6,
    ) {
        let quota = format!("10 per second, burst {burst}");
        let bounds = Bounds { of_client: 7, ..BOUNDS };
        let rules = [
            rule(&[&quota], "route", None, Mode::Delay(bounds)),
            rule(&["4 per second, burst 2"], "client-ip", None, Mode::Enforce),
        ];
        let mut held: Vec<(Instant, Taken)> = Vec::new();
        let mut turns = Vec::new();
        for (now, client, length) in trace(seed, requests) {
            let now = at(now);
            // Each is under way until its turn; some leave before.
            held.retain(|(end, _)| *end > now.instant);
            let (wait, taken) = turn(&rules, client, now);
            if let Some(wait) = wait {
                prop_assert!(wait <= BOUNDS.longest);
                let until = wait.min(Duration::from_millis(4 * length));
                held.push((now.instant + until, taken));
                turns.push(now.instant + wait);
            }
        }
        prop_assert!(turns.is_sorted(), "who came later went first");
        for (first, begin) in turns.iter().enumerate() {
            for (last, end) in turns.iter().enumerate().skip(first) {
                let window = (*end - *begin).as_secs_f64();
                let most = burst as f64 + window * 10.0 + 1e-6;
                prop_assert!((last - first + 1) as f64 <= most);
            }
        }
    }
}

#[test]
fn what_turns_out_to_be_unused_of_yesterday_is_not_there_today() {
    let mut of_day = rule(&["5 per day"], "client-ip", None, Mode::Enforce);
    let cost = &mut Arc::get_mut(&mut of_day).unwrap().cost;
    (cost.each, cost.said_in) = (5, Some("x-cost".parse().unwrap()));
    let rules = [of_day];
    let since_midnight = crate::limit::calendar::unix(zero().system) as u64 % 86_400;
    let midnight = (86_400 - since_midnight) * 1000;
    let (asked, before) = ask(&rules, 1, at(midnight - 2_000));
    asked.unwrap();
    let (asked, after) = ask(&rules, 1, at(midnight + 1_000));
    asked.unwrap();
    before.settle(&rules, Spent::Said(&|_| Some(1)), || at(midnight + 2_000));
    assert!(ask(&rules, 1, at(midnight + 3_000)).0.is_err());
    after.settle(&rules, Spent::Said(&|_| Some(0)), || at(midnight + 4_000));
    assert!(ask(&rules, 1, at(midnight + 5_000)).0.is_ok());
}
