//! What holds for any request, response, time and policy.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::admission::{Admission, may_look_up, may_store};
use super::conditional::evaluate;
use super::entity::Validators;
use super::key::Key;
use super::pattern::known;
use super::policy::Heuristic;
use super::query::QueryRules;
use super::reuse::{Found, Reuse, reuse};
use super::revalidation::merged;
use super::testing::{
    Answered, Asked, anonymous, at, at_noon, date, noon, request, response, rfc9111,
};
use super::vary::Vary;
use super::*;

/// Fields that mean something to a cache, with values that are often right.
fn field() -> impl Strategy<Value = (&'static str, String)> {
    let value = |of: &'static [&'static str]| {
        prop_oneof![
            9 => vec(prop::sample::select(of), 0..4).prop_map(|parts| parts.join(", ")),
            1 => "[ -~]{0,12}",
        ]
    };
    let control: &[&str] = &[
        "max-age=10",
        "max-age=0",
        "s-maxage=20",
        "no-cache",
        "no-store",
        "private",
        "public",
        "must-revalidate",
        "must-understand",
        "stale-while-revalidate=5",
        "stale-if-error=9",
        "no-cache=\"a, b\"",
        "private=\"c\"",
        "max-age",
        "x=\"",
        "min-fresh=3",
        "max-stale",
        "only-if-cached",
        "max-age=99999999999999999999",
    ];
    let named = |names: &'static [&'static str], values: &'static [&'static str]| {
        (prop::sample::select(names), value(values)).boxed()
    };
    let dated = (
        prop::sample::select(
            &[
                "date",
                "expires",
                "last-modified",
                "if-modified-since",
                "if-unmodified-since",
            ][..],
        ),
        (-100i64..100).prop_map(date),
    );
    prop_oneof![
        3 => named(&["cache-control", "cdn-cache-control", "tollgate-cache-control"], control),
        2 => named(&["vary"], &["a", "b", "cookie", "accept-encoding", "accept-language", "*"]),
        2 => named(&["etag", "if-none-match", "if-match", "if-range"], &["\"a\"", "W/\"a\"", "*"]),
        1 => named(&["range"], &["bytes=0-1", "bytes=-3", "5-", "x"]),
        1 => named(&["content-range"], &["bytes 0-4/10", "bytes 5-9/10"]),
        1 => named(&["cookie"], &["a=1; b=2", "sessionid=3", "_ga=4", "theme=5"]),
        1 => named(&["accept-encoding", "accept-language"], &["gzip", "br;q=0.5", "de", "en;q=0"]),
        1 => named(&["age", "content-length", "a", "b"], &["1", "100", "-1"]),
        1 => named(&["connection", "set-cookie", "authorization", "surrogate-key"], &["a", "date"]),
        1 => named(&["location", "content-location"], &["/page", "//b", "x:y", "../..", "?q"]),
        2 => dated,
    ]
}

fn lines() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    vec(field(), 0..8)
}

fn asked() -> impl Strategy<Value = Asked> {
    let method = prop::sample::select(&["GET", "GET", "GET", "HEAD", "POST", "X"][..]);
    let query = prop::option::of("[ab=&;%+6]{0,8}");
    (method, "/[ab]{0,2}", query, lines()).prop_map(|(method, path, query, lines)| {
        let lines: Vec<_> = lines
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Asked {
            path,
            query,
            ..request(method, &lines)
        }
    })
}

fn answered() -> impl Strategy<Value = Answered> {
    let status = prop::sample::select(&[200u16, 200, 200, 206, 301, 304, 404, 500, 599][..]);
    (status, lines()).prop_map(|(status, lines)| response(status, &lines))
}

fn policies() -> impl Strategy<Value = Policy> {
    (any::<[bool; 5]>(), 0u64..20).prop_map(|(with, seconds)| {
        let mut policy = if with[0] { anonymous() } else { rfc9111() };
        policy.ttl = with[1].then(|| Duration::from_secs(seconds));
        policy.heuristic = with[2].then(Heuristic::default);
        policy.stale_while_revalidate = Duration::from_secs(seconds);
        policy.query = QueryRules {
            ignore: known(&["a*"]),
            keep: None,
            sort: with[3],
        };
        if with[4] {
            policy.vary_cookies = known(&["theme", "a", "b", "sessionid"]);
            policy.key_headers = vec!["a".parse().unwrap()];
        }
        policy
    })
}

proptest! {
    #[test]
    fn no_exchange_panics(
        asked in asked(),
        answered in answered(),
        policy in policies(),
        delay in -100i64..100,
        later in -100i64..100,
    ) {
        let exchange = Exchange { sent: at(-delay), received: noon() };
        let request = asked.head();
        let _ = may_look_up(&request, &policy);
        let key = Key::of(&request, "r", &policy);
        let _ = (key.to_string(), key.with_values().to_string());
        let _ = invalidation::places(&request, &answered.head());
        if let Ok(admission) = may_store(&request, &answered.head(), exchange, &policy) {
            admission.keep_until(&policy);
            let Admission { facts, validators, .. } = admission;
            facts.freshness.ttl(at(later));
            evaluate(&request, facts.status, &validators, at(later));
            range::wanted(&request, &validators, 10, at(later));
        }
    }

    #[test]
    fn nothing_of_a_personal_request_or_response_is_stored_for_anonymous_visitors(
        asked in asked(),
        answered in answered(),
        policy in policies(),
    ) {
        prop_assume!(policy.is_anonymous());
        let stored = may_store(&asked.head(), &answered.head(), at_noon(), &policy);
        let is_personal = asked.fields.contains_key("authorization")
            || policy.cookies.is_personal(&asked.fields)
            || answered.fields.contains_key("set-cookie");
        prop_assert!(!(is_personal && stored.is_ok()));
    }

    #[test]
    fn what_is_stored_has_nothing_of_the_connection(
        asked in asked(),
        answered in answered(),
        policy in policies(),
    ) {
        if let Ok(admission) = may_store(&asked.head(), &answered.head(), at_noon(), &policy) {
            prop_assert!(admission.fields.contains_key("date"));
            prop_assert!(!admission.fields.contains_key("connection"));
            prop_assert!(!admission.fields.contains_key("age"));
        }
    }

    #[test]
    fn freshness_is_monotone_in_time(
        asked in asked(),
        answered in answered(),
        policy in policies(),
        earlier in 0i64..100,
        distance in 0i64..100,
    ) {
        let Ok(admission) = may_store(&asked.head(), &answered.head(), at_noon(), &policy) else {
            return Ok(());
        };
        let freshness = admission.facts.freshness;
        let (early, late) = (at(earlier), at(earlier + distance));
        prop_assert!(freshness.age(early) <= freshness.age(late));
        prop_assert!(freshness.ttl(early) >= freshness.ttl(late));
        prop_assert!(freshness.is_fresh(early) || !freshness.is_fresh(late));
        prop_assert!(
            freshness.serves_while_revalidating(early)
                || !freshness.serves_while_revalidating(late)
        );
        let plain = Default::default();
        let given = |now| match reuse(Found::Entry(&freshness), &plain, now) {
            Reuse::Fresh => 0,
            Reuse::WhileRevalidating => 1,
            _ => 2,
        };
        prop_assert!(given(early) <= given(late));
        prop_assert!(given(early) == 2 || early < freshness.usable_until());
    }

    #[test]
    fn equal_keys_have_equal_selecting_parts(
        one in asked(),
        other in asked(),
        policy in policies(),
    ) {
        let key = |asked: &Asked| Key::of(&asked.head(), "r", &policy);
        let normal = |asked: &Asked| {
            policy.query.normal(asked.query.as_deref()).map(|query| query.into_owned())
        };
        if key(&one) == key(&other) {
            prop_assert_eq!(&one.path, &other.path);
            prop_assert_eq!(normal(&one), normal(&other));
            for name in &policy.key_headers {
                prop_assert_eq!(one.fields.contains_key(name), other.fields.contains_key(name));
            }
        }
        prop_assert_eq!(key(&one) == key(&other), key(&one).digest() == key(&other).digest());
    }

    #[test]
    fn equal_variants_have_the_same_fields(
        one in asked(),
        other in asked(),
        answered in answered(),
        policy in policies(),
    ) {
        let Some(vary) = Vary::parse(&answered.fields) else { return Ok(()) };
        let variants = (vary.variant(&one.fields, &policy), vary.variant(&other.fields, &policy));
        let (Ok(first), Ok(second)) = variants else { return Ok(()) };
        if first == second {
            for name in vary.names().iter().filter(|name| *name != "cookie") {
                prop_assert_eq!(one.fields.contains_key(name), other.fields.contains_key(name));
            }
        }
        prop_assert_eq!(first == second, first.digest() == second.digest());
    }

    #[test]
    fn merging_a_304_twice_is_merging_it_once(stored in answered(), update in answered()) {
        let validators = |fields: &HeaderMap| Validators::of(fields, noon());
        let once = merged(&stored.fields, &validators(&stored.fields), &update.fields, noon());
        let Ok(once) = once else { return Ok(()) };
        let twice = merged(&once, &validators(&once), &update.fields, noon());
        prop_assert_eq!(twice.as_ref(), Ok(&once));
    }
}
