use super::*;
use crate::cache::policy::Heuristic;
use crate::cache::testing::{at, at_noon, date, noon, response, rfc9111, seconds};

fn freshness_of(
    status: u16,
    lines: &[(&str, String)],
    policy: &Policy,
) -> Result<Freshness, NoLifetime> {
    let answered = response(status, lines);
    let head = answered.head();
    Freshness::of(&head, &Said::by(&head), at_noon(), policy)
}

fn freshness(lines: &[(&str, &str)]) -> Freshness {
    let lines: Vec<_> = lines.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
    freshness_of(200, &lines, &rfc9111()).unwrap()
}

/// Seconds from noon to the end of freshness.
fn fresh_for(lines: &[(&str, &str)]) -> i64 {
    freshness(lines).ttl(noon())
}

#[test]
fn s_maxage_goes_before_max_age_before_expires() {
    let (past, future) = (date(-7200), date(3600));
    for (lines, expected) in [
        (&[("cache-control", "max-age=3600")][..], 3600),
        (&[("cache-control", "max-age=3600, s-maxage=1")], 1),
        (&[("cache-control", "s-maxage=3600, max-age=1")], 3600),
        (
            &[
                ("cache-control", "max-age=1"),
                ("cache-control", "s-maxage=5"),
            ],
            5,
        ),
        (&[("cache-control", "max-age=9"), ("expires", &past)], 9),
        (&[("cache-control", "max-age=9"), ("expires", "0")], 9),
        (&[("cache-control", "max-age=0"), ("expires", &future)], 0),
        (&[("expires", &future)], 3600),
        (&[("expires", &past)], 0),
        (&[("cache-control", "max-age=-1"), ("expires", &future)], 0),
    ] {
        assert_eq!(fresh_for(lines), expected, "{lines:?}");
    }
}

#[test]
fn a_lifetime_of_zero_is_stale() {
    let zero = freshness(&[("cache-control", "max-age=0")]);
    assert!(!zero.is_fresh(noon()));
    assert!(!zero.is_fresh(at(-10)), "even if the clock is set back");
}

#[test]
fn expires_is_counted_from_date_or_from_receipt() {
    let (ten, twenty, late) = (date(10), date(20), date(400));
    for (lines, expected) in [
        (&[("expires", twenty.as_str()), ("date", &ten)][..], 10),
        (&[("expires", &ten)], 10),
        (&[("expires", &ten), ("date", "foo")], 10),
        (&[("expires", &ten), ("date", &late)], 0),
        (&[("expires", &ten), ("date", &ten)], 0),
        (&[("expires", &twenty), ("expires", &twenty)], 0),
        (&[("expires", "0")], 0),
        (&[("expires", "")], 0),
    ] {
        assert_eq!(fresh_for(lines), expected, "{lines:?}");
    }
}

#[test]
fn dates_past_2038_work() {
    let far = [("expires", "Sun, 21 Nov 2286 04:46:39 GMT")];
    assert_eq!(fresh_for(&far), 1 << 31);
}

#[test]
fn age_counts_and_what_is_no_age_does_not() {
    for (ages, expected) in [
        (&["1000"][..], 2600),
        (&["7200"], -3600),
        (&["7200, 0"], -3600),
        (&["0, 7200"], 3600),
        (&["7200", "0"], -3600),
        (&["0", "7200"], 3600),
        (&["0, 0"], 3600),
        (&["abc"], 3600),
        (&["-7200"], 3600),
        (&["7200.0"], 3600),
        (&["7200;foo=bar"], 3600),
        (&[", 7200"], 3600),
    ] {
        let mut lines = vec![("cache-control", "max-age=3600")];
        lines.extend(ages.iter().map(|age| ("age", *age)));
        assert_eq!(fresh_for(&lines), expected, "{ages:?}");
    }
}

#[test]
fn an_age_that_has_overflowed_is_stale_whatever_the_lifetime() {
    for age in ["2147483647", "2147483648", "2147483649", "9999999999999"] {
        let lines = [("cache-control", "max-age=9999999999999"), ("age", age)];
        assert!(!freshness(&lines).is_fresh(noon()), "{age}");
    }
}

#[test]
fn the_age_is_what_date_age_and_delay_say_at_worst() {
    let head = response(
        200,
        &[
            ("cache-control", "max-age=60"),
            ("date", &date(-9)),
            ("age", "8"),
        ],
    );
    let age = |sent| {
        let exchange = Exchange {
            sent,
            received: noon(),
        };
        let head = head.head();
        let freshness = Freshness::of(&head, &Said::by(&head), exchange, &rfc9111());
        freshness.unwrap().age(noon())
    };
    assert_eq!(age(noon()), seconds(9));
    assert_eq!(age(at(-1)), seconds(9));
    assert_eq!(age(at(-5)), seconds(13));
    assert_eq!(age(at(5)), seconds(9), "a clock set back is no delay");
}

#[test]
fn the_age_sent_is_the_age_received_and_the_resident_time() {
    let stored = freshness(&[("cache-control", "max-age=100"), ("age", "30")]);
    assert_eq!(stored.age(at(2)).as_secs(), 32);
    assert_eq!(stored.ttl(at(2)), 68);
    assert_eq!(stored.ttl(at(80)), -10);
    assert_eq!(stored.staleness(at(80)), seconds(10));
}

#[test]
fn a_targeted_field_alone_decides() {
    let past = date(-10);
    for (lines, expected) in [
        (
            &[("cdn-cache-control", "max-age=3600"), ("expires", &past)][..],
            3600,
        ),
        (
            &[
                ("cdn-cache-control", "max-age=3600"),
                ("cache-control", "max-age=1"),
            ],
            3600,
        ),
        (
            &[
                ("cdn-cache-control", "max-age=1"),
                ("cache-control", "max-age=3600"),
            ],
            1,
        ),
        (
            &[
                ("cdn-cache-control", "max-age=9, &"),
                ("cache-control", "max-age=5"),
            ],
            5,
        ),
    ] {
        assert_eq!(fresh_for(lines), expected, "{lines:?}");
    }
    let only_expires = [
        ("cdn-cache-control", "foo".to_owned()),
        ("expires", date(9)),
    ];
    assert_eq!(
        freshness_of(200, &only_expires, &rfc9111()),
        Err(NoLifetime)
    );
}

#[test]
fn without_a_lifetime_there_is_none_unless_the_route_gives_one() {
    let with_ttl = Policy {
        ttl: Some(seconds(60)),
        ..rfc9111()
    };
    let ttl = |lines: &[(&str, &str)]| {
        let lines: Vec<_> = lines.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        let of = |policy| freshness_of(200, &lines, policy).map(|fresh| fresh.ttl(noon()));
        (of(&rfc9111()), of(&with_ttl))
    };
    assert_eq!(ttl(&[]), (Err(NoLifetime), Ok(60)));
    assert_eq!(
        ttl(&[("cache-control", "public")]),
        (Err(NoLifetime), Ok(60))
    );
    assert_eq!(ttl(&[("cache-control", "max-age=5")]), (Ok(5), Ok(5)));
    assert_eq!(ttl(&[("cache-control", "no-cache")]), (Ok(0), Ok(0)));
}

#[test]
fn a_prohibition_that_a_targeted_field_overrules_still_stands_against_the_route() {
    let policy = Policy {
        ttl: Some(seconds(60)),
        ..rfc9111()
    };
    for prohibition in ["no-store", "private", "no-cache"] {
        let lines = [
            ("cdn-cache-control", "max-age=\"10\"".to_owned()),
            ("cache-control", prohibition.to_owned()),
        ];
        assert_eq!(freshness_of(200, &lines, &policy), Err(NoLifetime));
    }
}

#[test]
fn the_heuristic_is_off_unless_the_route_says_so() {
    let policy = Policy {
        heuristic: Some(Heuristic::default()),
        ..rfc9111()
    };
    let lines = |more: Option<(&'static str, String)>| {
        let known = [("last-modified", date(-1000)), ("date", date(0))];
        Vec::from_iter(known.into_iter().chain(more))
    };
    let ttl = |status, more, policy: &Policy| {
        freshness_of(status, &lines(more), policy).map(|fresh| fresh.ttl(noon()))
    };
    assert_eq!(ttl(200, None, &rfc9111()), Err(NoLifetime));
    for status in [200, 203, 204, 404, 405, 410, 414, 501] {
        assert_eq!(ttl(status, None, &policy), Ok(100), "{status}");
    }
    let public = || Some(("cache-control", "public".to_owned()));
    for status in [201, 202, 403, 502, 503, 504, 599] {
        assert_eq!(ttl(status, None, &policy), Err(NoLifetime), "{status}");
        assert_eq!(ttl(status, public(), &policy), Ok(100), "{status}");
    }
    let old = [("last-modified", date(-100_000_000)), ("date", date(0))];
    let day = freshness_of(200, &old, &policy).unwrap();
    assert_eq!(day.ttl(noon()), 24 * 60 * 60);
    let future = [("last-modified", date(10)), ("date", date(0))];
    assert_eq!(freshness_of(200, &future, &policy), Err(NoLifetime));
}

#[test]
fn stale_windows_are_the_responses_or_else_the_routes() {
    let policy = Policy {
        stale_while_revalidate: seconds(5),
        stale_if_error: seconds(7),
        ..rfc9111()
    };
    let windows = |value: &str| {
        let lines = [("cache-control", value.to_owned())];
        let fresh = freshness_of(200, &lines, &policy).unwrap();
        let last = |serves: &dyn Fn(SystemTime) -> bool| {
            (0..1000).take_while(|second| serves(at(*second))).count() as i64
        };
        (
            last(&|now| fresh.is_fresh(now) || fresh.serves_while_revalidating(now)),
            last(&|now| fresh.serves_on(Failure::NoAnswer, now)),
        )
    };
    assert_eq!(windows("max-age=10"), (15, 17));
    assert_eq!(
        windows("max-age=10, stale-while-revalidate=20, stale-if-error=30"),
        (30, 40)
    );
    assert_eq!(
        windows("max-age=10, stale-while-revalidate=0, stale-if-error=0"),
        (10, 10)
    );
    for forbidding in ["must-revalidate", "proxy-revalidate", "s-maxage=10"] {
        let value = format!("max-age=10, {forbidding}, stale-if-error=30");
        assert_eq!(windows(&value), (10, 10), "{forbidding}");
    }
    assert_eq!(windows("max-age=10, no-cache"), (0, 0));
}

#[test]
fn only_failures_of_the_origin_are_answered_stale() {
    let stale = freshness(&[("cache-control", "max-age=1, stale-if-error=60")]);
    for status in [500, 502, 503, 504] {
        let failure = Failure::Status(StatusCode::from_u16(status).unwrap());
        assert!(stale.serves_on(failure, at(30)), "{status}");
        assert!(!stale.serves_on(failure, at(61)), "{status}");
    }
    for status in [200, 404, 403, 429, 501] {
        let failure = Failure::Status(StatusCode::from_u16(status).unwrap());
        assert!(!stale.serves_on(failure, at(30)), "{status}");
    }
}
