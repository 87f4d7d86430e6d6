//! The script of shared limits on a real Redis, beside the same arithmetic in Rust: what the property tests of
//! `limit::shared` hold true of that is then true of Redis.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::redis::{Connection, cmd};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tollgate::limit::shared::script;

use self::model::Model;
use self::script::{Answer, Question, Shape, Told};
use crate::harness::redis::RedisServer;

#[path = "../src/limit/shared/model.rs"]
mod model;

/// One question of one of a few leases; what it says of earlier ones need not be true.
#[derive(Clone, Debug)]
struct Asked {
    lease: usize,
    later_by: i64,
    balance: i64,
    told: i64,
    kept: u64,
    believed: bool,
    need: u64,
    want: u64,
    known: Option<(u16, u64)>,
    plan: usize,
    fresh: Option<u8>,
}

/// Unix time in microseconds, by which Redis goes too.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_micros() as i64
}

/// Some hours of a calendar.
const TODAY: (i64, i64) = (1, 8_000_000_000_000_000);

fn asked() -> impl Strategy<Value = Asked> {
    let said = (-30..60i64, -30..60i64, 0..20u64, any::<bool>());
    let wanted = (1..5u64, prop_oneof![Just(0), 5..40u64]);
    let known = prop::option::of((0..60u16, 0..2_000_000u64));
    // Mostly the same as before.
    let plan = prop_oneof![20 => Just(0), 2 => Just(1), 1 => Just(2)];
    let fresh = prop::option::of(0..60u8);
    (0..4usize, -1..3i64, said, wanted, known, plan, fresh).prop_map(
        |(lease, later_by, (balance, told, kept, believed), (need, want), known, plan, fresh)| {
            Asked {
                lease,
                later_by,
                balance,
                told,
                kept,
                believed,
                need,
                want,
                known,
                plan,
                fresh,
            }
        },
    )
}

/// Asks Redis, and the model at the time that Redis had.
fn compare(
    redis: &mut Connection,
    model: &mut Model,
    key: &str,
    question: &Question,
    shape: Shape,
) -> Answer {
    let told: Told = question
        .call(key, "gateway", shape, model.fresh)
        .invoke(redis)
        .expect("an answer");
    let now = told.4;
    let answer = Answer::of(told).expect("an answer that is known");
    assert_eq!(model.ask(question, shape, now), answer, "to {question:?}");
    answer
}

#[test]
fn redis_answers_as_the_arithmetic_says() {
    let server = RedisServer::start();
    let mut runner = TestRunner::new(Config::with_cases(150));
    let cases = (
        1..60u64,
        // From a token every ten microseconds to one every second.
        prop_oneof![10.0..1e3f64, 1e3..1e6f64],
        prop::collection::vec(asked(), 1..40),
    );
    let redis = RefCell::new(server.connect());
    let outcome = runner.run(&cases, |(burst, interval, all)| {
        let redis = &mut *redis.borrow_mut();
        let mut places = [("bucket", Model::default()), ("counter", Model::default())];
        for (key, _) in &places {
            cmd("DEL").arg(key).exec(redis).expect("an answer");
        }
        let mut numbers = [0i64; 4];
        for asked in all {
            // Burst, interval and kind change as by a reload, or by a plan.
            let (burst, interval, window) = match asked.plan {
                0 => (burst + asked.balance.unsigned_abs() % 2, interval, (0, 0)),
                1 => (burst * 7, interval / 3.0, (0, 0)),
                _ => (burst * 2, 0.0, TODAY),
            };
            let shape = Shape { burst, interval };
            let (key, model) = &mut places[usize::from(shape.is_counter())];
            model.fresh = asked.fresh.map(f64::from);
            // Now and then one comes that was asked before, or one without a lease.
            numbers[asked.lease] = (numbers[asked.lease] + asked.later_by).max(1);
            let question = Question {
                lease: asked.lease as u64,
                number: numbers[asked.lease] as u64,
                balance: asked.balance,
                told: asked.told,
                kept: asked.kept,
                believed: asked.believed,
                need: asked.need,
                want: asked.want,
                window,
                known: asked.known.map(|(level, since)| (f64::from(level), since)),
                // Some so long ago that it is too late.
                asked: now()
                    - if asked.plan == 1 {
                        asked.balance * 600_000
                    } else {
                        0
                    },
            };
            compare(redis, model, key, &question, shape);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_counter_begins_anew_with_its_day_and_knows_no_lease_of_the_day_before() {
    let server = RedisServer::start();
    let (mut redis, mut model) = (server.connect(), Model::default());
    let shape = Shape {
        burst: 10,
        interval: 0.0,
    };
    let now = now();
    let (today, tomorrow) = ((now - 1_000_000, now + 400_000), now + 3_600_000_000);
    let mut number = 0;
    let mut ask = |window, want| {
        number += 1;
        let question = Question {
            lease: 1,
            number,
            need: 1,
            want,
            window,
            asked: now,
            ..Question::default()
        };
        compare(&mut redis, &mut model, "day", &question, shape)
    };
    let given = |answer| match answer {
        Answer::Taken(grant) => Some(grant.tokens),
        _ => None,
    };
    assert_eq!(given(ask(today, 4)), Some(4));
    assert_eq!(given(ask((today.1, tomorrow), 4)), None, "it is not yet");
    // Until the clock of Redis has come there.
    let ended = crate::harness::wait_within(Duration::from_secs(5), || {
        given(ask(today, 1)).is_none().then_some(())
    });
    assert_eq!(ended, Some(()));
    assert_eq!(given(ask((today.1, tomorrow), 5)), Some(5));
}
