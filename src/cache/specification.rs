//! Two visits to one URL: what the first leaves behind and what the second is given. Sentences of the
//! specification that take more than one module.

use std::time::Duration;

use super::admission::{Bypass, NotStored, may_look_up, may_store};
use super::conditional::{Condition, evaluate};
use super::freshness::Failure;
use super::key::Key;
use super::policy::Honoured;
use super::reuse::{Found, Reuse, reuse};
use super::revalidation::{merged, question};
use super::status::Forward;
use super::testing::{
    Answered, Asked, anonymous, at, at_noon, date, get, noon, request, response, rfc9111,
};
use super::{Exchange, Policy};

/// What the second visit is given.
#[derive(Debug, PartialEq, Eq)]
enum Given {
    Stored,
    StoredNotModified,
    StoredWhileRevalidating,
    /// The origin is asked whether the stored response is still right.
    Revalidated,
    /// The origin is asked for everything.
    New(Forward),
    Bypassed(Bypass),
    NotStored(NotStored),
    GatewayTimeout,
}

struct Visits {
    policy: Policy,
    first: Asked,
    answer: Answered,
    second: Asked,
    /// Of the second visit; the first is at noon.
    seconds: i64,
}

impl Visits {
    /// Two equal visits of which the second comes 3 seconds after the answer to the first.
    fn answered(status: u16, lines: &[(&str, &str)]) -> Self {
        Self {
            policy: rfc9111(),
            first: get(&[]),
            answer: response(status, lines),
            second: get(&[]),
            seconds: 3,
        }
    }

    fn given(&self) -> Given {
        let now = at(self.seconds);
        let (first, second) = (self.first.head(), self.second.head());
        let policy = &self.policy;
        let stored = may_store(&first, &self.answer.head(), at_noon(), policy);
        let (facts, validators) = match stored {
            Ok(admission) => (admission.facts, admission.validators),
            Err(reason) => return Given::NotStored(reason),
        };
        let directives = match may_look_up(&second, policy) {
            Ok(directives) => directives,
            Err(bypass) => return Given::Bypassed(bypass),
        };
        let variant = facts.vary.variant(second.fields, policy);
        let in_language = facts.vary.variant_of_favourite(second.fields, policy);
        let is_found = variant.as_ref() == Ok(&facts.variant)
            || (in_language.is_some() && in_language.as_ref() == facts.variant_in_language());
        let found = if Key::of(&first, "", policy) != Key::of(&second, "", policy) {
            Found::Nothing
        } else if !is_found {
            Found::OtherVariants
        } else {
            Found::Entry(&facts.freshness)
        };
        match reuse(found, &directives, now) {
            Reuse::Fresh | Reuse::AcceptedStale => {
                match evaluate(&second, facts.status, &validators, now) {
                    Condition::Answer => Given::Stored,
                    Condition::NotModified => Given::StoredNotModified,
                    Condition::AskOrigin => Given::New(Forward::Request),
                }
            }
            Reuse::WhileRevalidating => Given::StoredWhileRevalidating,
            Reuse::Ask(Forward::Stale | Forward::Request) if validators.exist() => {
                Given::Revalidated
            }
            Reuse::Ask(why) => Given::New(why),
            Reuse::NotCached => Given::GatewayTimeout,
        }
    }
}

fn given(lines: &[(&str, &str)]) -> Given {
    Visits::answered(200, lines).given()
}

const STALE: Given = Given::New(Forward::Stale);

#[test]
fn explicit_freshness_decides_about_the_second_visit() {
    let (hour, day_ago) = (date(3600), date(-86_400));
    for (lines, expected) in [
        (&[("cache-control", "max-age=3600")][..], Given::Stored),
        (&[("cache-control", "max-age=2")], STALE),
        (&[("expires", &hour)], Given::Stored),
        (
            &[("cache-control", "max-age=9"), ("expires", &day_ago)],
            Given::Stored,
        ),
        (
            &[
                ("cache-control", "max-age=9, must-revalidate"),
                ("etag", "\"a\""),
            ],
            Given::Stored,
        ),
        (
            &[
                ("cache-control", "max-age=2, must-revalidate"),
                ("etag", "\"a\""),
            ],
            Given::Revalidated,
        ),
        (
            &[("cache-control", "no-cache"), ("etag", "\"a\"")],
            Given::Revalidated,
        ),
        (
            &[
                ("cache-control", "max-age=9, no-cache"),
                ("last-modified", &day_ago),
            ],
            Given::Revalidated,
        ),
        (
            &[("expires", &day_ago), ("last-modified", &day_ago)],
            Given::Revalidated,
        ),
        (
            &[
                ("date", &day_ago),
                ("cache-control", "max-age=3600"),
                ("etag", "\"a\""),
            ],
            Given::Revalidated,
        ),
        (
            &[("cache-control", "max-age=1, stale-while-revalidate=4")],
            Given::StoredWhileRevalidating,
        ),
        (
            &[("cache-control", "max-age=1, stale-while-revalidate=2")],
            STALE,
        ),
        (&[], Given::NotStored(NotStored::NoLifetime)),
        (
            &[("etag", "\"a\"")],
            Given::NotStored(NotStored::NoLifetime),
        ),
    ] {
        assert_eq!(given(lines), expected, "{lines:?}");
    }
}

#[test]
fn a_valid_targeted_field_alone_decides_and_is_passed_on() {
    let plain = "cache-control";
    for (targeted, control, expected) in [
        ("max-age=9", "no-store", Given::Stored),
        ("max-age=9", "max-age=1", Given::Stored),
        ("max-age=1", "max-age=9", STALE),
        (
            "no-store",
            "max-age=9",
            Given::NotStored(NotStored::NoStore),
        ),
        ("private", "max-age=9", Given::NotStored(NotStored::Private)),
        (
            "no-cache",
            "max-age=9",
            Given::NotStored(NotStored::NoCache),
        ),
        (
            "max-age=0",
            "max-age=9",
            Given::NotStored(NotStored::AlreadyStale),
        ),
        (
            "max-age=9, &&&",
            "no-store",
            Given::NotStored(NotStored::NoStore),
        ),
        (
            "max-age=\"9\"",
            "no-store",
            Given::NotStored(NotStored::NoLifetime),
        ),
        ("", "max-age=9", Given::Stored),
    ] {
        let lines = [("cdn-cache-control", targeted), (plain, control)];
        assert_eq!(given(&lines), expected, "{targeted} / {control}");
    }
    let asked = get(&[]);
    let answered = response(200, &[("cdn-cache-control", "max-age=9, foo")]);
    let stored = may_store(&asked.head(), &answered.head(), at_noon(), &rfc9111()).unwrap();
    assert_eq!(stored.fields["cdn-cache-control"], "max-age=9, foo");
}

#[test]
fn the_stale_form_of_any_status_is_not_reused() {
    let (past, modified) = (date(-5000), date(-100_000));
    let stale = [("expires", past.as_str()), ("last-modified", &modified)];
    for status in [
        200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 599,
    ] {
        let given = Visits::answered(status, &stale).given();
        let expected = match status {
            200..=299 => Given::Revalidated,
            _ => Given::NotStored(NotStored::AlreadyStale),
        };
        assert_eq!(given, expected, "{status}");
    }
}

#[test]
fn interim_responses_are_never_stored() {
    for status in [100, 102, 103] {
        let given = Visits::answered(status, &[("cache-control", "max-age=9")]).given();
        assert_eq!(given, Given::NotStored(NotStored::Status), "{status}");
    }
}

#[test]
fn the_directives_of_a_request_decide_where_they_are_honoured() {
    let aged = [("cache-control", "max-age=1500"), ("age", "2000")];
    let fresh = [("cache-control", "max-age=1500"), ("age", "1000")];
    let tagged = [("cache-control", "max-age=1500"), ("etag", "\"a\"")];
    for (stored, directive, expected, ignored) in [
        (
            &fresh[..],
            "max-age=0",
            Given::New(Forward::Request),
            Given::Stored,
        ),
        (
            &fresh,
            "min-fresh=1000",
            Given::New(Forward::Request),
            Given::Stored,
        ),
        (
            &fresh,
            "no-cache",
            Given::New(Forward::Request),
            Given::Stored,
        ),
        (&tagged, "no-cache", Given::Revalidated, Given::Stored),
        (
            &fresh,
            "no-store",
            Given::Bypassed(Bypass::RequestNoStore),
            Given::Stored,
        ),
        (&fresh, "only-if-cached", Given::Stored, Given::Stored),
        (
            &tagged,
            "only-if-cached, no-cache",
            Given::GatewayTimeout,
            Given::Stored,
        ),
        (
            &aged,
            "max-stale=1000",
            Given::NotStored(NotStored::AlreadyStale),
            Given::NotStored(NotStored::AlreadyStale),
        ),
    ] {
        let mut visits = Visits::answered(200, stored);
        visits.second = get(&[("cache-control", directive)]);
        assert_eq!(visits.given(), expected, "{directive}");
        visits.policy.honoured = Honoured::NONE;
        assert_eq!(visits.given(), ignored, "{directive}, ignored");
        visits.second.is_trusted = true;
        assert_eq!(visits.given(), expected, "{directive}, of a trusted client");
    }
}

#[test]
fn a_head_is_answered_from_a_get_and_the_query_is_part_of_the_key() {
    let mut visits = Visits::answered(200, &[("cache-control", "max-age=9")]);
    visits.second = request("HEAD", &[]);
    assert_eq!(visits.given(), Given::Stored);
    visits.second.query = Some("test=1".to_owned());
    assert_eq!(visits.given(), Given::New(Forward::UriMiss));
}

#[test]
fn a_visit_with_other_selecting_fields_finds_no_variant() {
    let lines = [("cache-control", "max-age=9"), ("vary", "Foo, Bar")];
    let mut visits = Visits::answered(200, &lines);
    visits.first = get(&[("foo", "1"), ("bar", "abc")]);
    for (second, expected) in [
        (
            &[("foo", "1"), ("bar", "abc"), ("x", "1")][..],
            Given::Stored,
        ),
        (&[("bar", "abc"), ("foo", "1")], Given::Stored),
        (
            &[("foo", "2"), ("bar", "abc")],
            Given::New(Forward::VaryMiss),
        ),
        (&[("foo", "1")], Given::New(Forward::VaryMiss)),
        (&[], Given::New(Forward::VaryMiss)),
    ] {
        visits.second = get(second);
        assert_eq!(visits.given(), expected, "{second:?}");
    }
}

#[test]
fn a_page_in_german_is_for_who_wants_german_most() {
    let lines = [
        ("cache-control", "max-age=9"),
        ("vary", "Accept-Language"),
        ("content-language", "de"),
    ];
    let mut visits = Visits::answered(200, &lines);
    visits.first = get(&[("accept-language", "en, de")]);
    visits.second = get(&[("accept-language", "fr;q=0.5, de;q=1.0")]);
    assert_eq!(visits.given(), Given::Stored);
    visits.second = get(&[("accept-language", "fr")]);
    assert_eq!(visits.given(), Given::New(Forward::VaryMiss));
}

#[test]
fn a_fresh_entry_answers_a_condition_and_a_stale_one_does_not() {
    let modified = date(-3000);
    let stored = |lifetime| {
        let lines = [
            ("cache-control", lifetime),
            ("etag", "\"a\""),
            ("last-modified", modified.as_str()),
        ];
        Visits::answered(200, &lines)
    };
    for condition in [
        ("if-none-match", "\"b\", W/\"a\""),
        ("if-modified-since", modified.as_str()),
    ] {
        let mut visits = stored("max-age=9");
        visits.second = get(&[condition]);
        assert_eq!(visits.given(), Given::StoredNotModified, "{condition:?}");
        let mut visits = stored("max-age=2");
        visits.second = get(&[condition]);
        assert_eq!(visits.given(), Given::Revalidated, "{condition:?}");
    }
}

#[test]
fn anonymous_visitors_with_analytics_cookies_share_a_page_that_varies_on_cookies() {
    let lines = [("vary", "Cookie"), ("etag", "\"a\"")];
    let mut visits = Visits::answered(200, &lines);
    visits.policy = Policy {
        ttl: Some(Duration::from_secs(60)),
        ..anonymous()
    };
    visits.first = get(&[("cookie", "_ga=1; _gid=2")]);
    for cookies in ["_ga=3", "_fbp=4; utm_x=5"] {
        visits.second = get(&[("cookie", cookies)]);
        assert_eq!(visits.given(), Given::Stored, "{cookies}");
    }
    visits.second = get(&[("cookie", "_ga=3; sessionid=x")]);
    assert_eq!(visits.given(), Given::Bypassed(Bypass::PersonalCookie));
    visits.second = get(&[("cookie", "mysite_sid=x")]);
    assert_eq!(visits.given(), Given::New(Forward::VaryMiss));
}

#[test]
fn a_304_makes_a_stored_response_fresh_again() {
    let asked = get(&[("abc", "123")]);
    let answered = response(
        200,
        &[
            ("cache-control", "max-age=2"),
            ("etag", "\"a\""),
            ("vary", "Abc"),
            ("date", &date(0)),
            ("a", "1"),
        ],
    );
    let policy = rfc9111();
    let first = may_store(&asked.head(), &answered.head(), at_noon(), &policy).unwrap();
    let asked_again = question(&asked.fields, &first.validators);
    assert_eq!(asked_again["abc"], "123");
    assert_eq!(asked_again["if-none-match"], "\"a\"");

    let update = response(
        304,
        &[("cache-control", "max-age=60"), ("age", "5"), ("a", "2")],
    );
    let now = Exchange {
        sent: at(10),
        received: at(10),
    };
    let fields = merged(
        &first.fields,
        &first.validators,
        &update.fields,
        now.received,
    );
    let fresh = Answered {
        status: first.facts.status,
        fields: fields.unwrap(),
    };
    let second = may_store(&asked.head(), &fresh.head(), now, &policy).unwrap();
    assert_eq!(second.facts.freshness.ttl(at(10)), 55);
    assert_eq!(second.facts.variant, first.facts.variant);
    assert_eq!(second.fields["a"], "2");
    assert!(!second.fields.contains_key("age"));
}

#[test]
fn stale_is_served_when_the_origin_is_away_unless_that_is_forbidden() {
    for (value, serves) in [
        ("max-age=2", true),
        ("max-age=2, stale-if-error=60", true),
        ("max-age=2, stale-if-error=0", false),
        ("max-age=2, must-revalidate", false),
        ("max-age=2, proxy-revalidate", false),
        ("max-age=2, s-maxage=2", false),
    ] {
        let asked = get(&[]);
        let answered = response(200, &[("cache-control", value)]);
        let stored = may_store(&asked.head(), &answered.head(), at_noon(), &rfc9111()).unwrap();
        let freshness = stored.facts.freshness;
        assert!(freshness.is_fresh(noon()));
        let served = freshness.serves_on(Failure::NoAnswer, at(3));
        assert_eq!(served, serves, "{value}");
    }
}
