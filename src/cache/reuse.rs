//! What a request is given of what is stored, now (RFC 9111 4). Plain comparisons; does not allocate.

use std::time::SystemTime;

use super::directives::RequestDirectives;
use super::freshness::Freshness;
use super::status::Forward;

/// What was found for a request.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    Nothing,
    /// Only answers to requests with other fields.
    OtherVariants,
    /// A part of the response, without all that is wanted of it.
    AnotherPart,
    Entry(&'a Freshness),
}

/// What the request is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    Fresh,
    /// It is stale, and the client said that this will do.
    AcceptedStale,
    /// It is stale, answers all the same, and the origin is asked meanwhile.
    WhileRevalidating,
    /// The origin is asked first.
    Ask(Forward),
    /// 504: the client wants nobody to be asked (RFC 9111 5.2.1.7).
    NotCached,
}

/// `asked` has only the directives that are honoured.
pub fn reuse(found: Found<'_>, asked: &RequestDirectives, now: SystemTime) -> Reuse {
    let reuse = match found {
        Found::Nothing => Reuse::Ask(Forward::UriMiss),
        Found::OtherVariants => Reuse::Ask(Forward::VaryMiss),
        Found::AnotherPart => Reuse::Ask(Forward::Partial),
        Found::Entry(freshness) => of_entry(freshness, asked, now),
    };
    match reuse {
        Reuse::Ask(_) if asked.only_if_cached => Reuse::NotCached,
        reuse => reuse,
    }
}

fn of_entry(freshness: &Freshness, asked: &RequestDirectives, now: SystemTime) -> Reuse {
    let is_too_old = asked
        .max_age
        .is_some_and(|longest| freshness.age(now) > longest);
    let ends_too_soon = asked
        .min_fresh
        .is_some_and(|least| freshness.remaining(now) < least);
    if asked.no_cache || is_too_old || ends_too_soon {
        return Reuse::Ask(Forward::Request);
    }
    if freshness.is_fresh(now) {
        return Reuse::Fresh;
    }
    let is_accepted = asked
        .max_stale
        .is_some_and(|longest| freshness.staleness(now) <= longest);
    if is_accepted && freshness.may_be_stale() {
        Reuse::AcceptedStale
    } else if freshness.serves_while_revalidating(now) {
        Reuse::WhileRevalidating
    } else {
        Reuse::Ask(Forward::Stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::freshness::Said;
    use crate::cache::policy::Honoured;
    use crate::cache::testing::{at, at_noon, fields, response, rfc9111};

    fn stored(lines: &[(&str, &str)]) -> Freshness {
        let answered = response(200, lines);
        let head = answered.head();
        Freshness::of(&head, &Said::by(&head), at_noon(), &rfc9111()).unwrap()
    }

    fn asked(line: &str) -> RequestDirectives {
        let fields = fields(&[("cache-control", line)]);
        RequestDirectives::parse(&fields, &Honoured::ALL)
    }

    fn given(value: &str, line: &str, second: i64) -> Reuse {
        let freshness = stored(&[("cache-control", value)]);
        reuse(Found::Entry(&freshness), &asked(line), at(second))
    }

    #[test]
    fn fresh_is_reused_and_stale_is_not() {
        assert_eq!(given("max-age=10", "", 9), Reuse::Fresh);
        assert_eq!(given("max-age=10", "", 10), Reuse::Ask(Forward::Stale));
        assert_eq!(given("no-cache", "", 0), Reuse::Ask(Forward::Stale));
        assert_eq!(
            given("max-age=10, no-cache", "", 0),
            Reuse::Ask(Forward::Stale)
        );
        assert_eq!(given("max-age=10, must-revalidate", "", 9), Reuse::Fresh);
        assert_eq!(
            given("max-age=10, must-revalidate", "", 10),
            Reuse::Ask(Forward::Stale)
        );
    }

    #[test]
    fn stale_while_revalidate_answers_at_once_within_its_window() {
        let value = "max-age=1, stale-while-revalidate=4";
        assert_eq!(given(value, "", 0), Reuse::Fresh);
        assert_eq!(given(value, "", 1), Reuse::WhileRevalidating);
        assert_eq!(given(value, "", 4), Reuse::WhileRevalidating);
        assert_eq!(given(value, "", 5), Reuse::Ask(Forward::Stale));
    }

    #[test]
    fn a_request_may_want_it_newer() {
        for (line, second, expected) in [
            ("no-cache", 0, Reuse::Ask(Forward::Request)),
            ("max-age=0", 1, Reuse::Ask(Forward::Request)),
            ("max-age=5", 6, Reuse::Ask(Forward::Request)),
            ("max-age=5", 5, Reuse::Fresh),
            ("min-fresh=50", 51, Reuse::Ask(Forward::Request)),
            ("min-fresh=50", 50, Reuse::Fresh),
            ("min-fresh=2000", 0, Reuse::Ask(Forward::Request)),
            ("unknown, x=1", 0, Reuse::Fresh),
        ] {
            assert_eq!(given("max-age=100", line, second), expected, "{line}");
        }
        let aged = stored(&[("cache-control", "max-age=100000"), ("age", "1800")]);
        let wanted = reuse(Found::Entry(&aged), &asked("max-age=600"), at(0));
        assert_eq!(wanted, Reuse::Ask(Forward::Request));
    }

    #[test]
    fn a_request_may_accept_it_stale_unless_that_is_forbidden() {
        assert_eq!(
            given("max-age=2", "max-stale=1000", 3),
            Reuse::AcceptedStale
        );
        assert_eq!(given("max-age=2", "max-stale", 9999), Reuse::AcceptedStale);
        assert_eq!(
            given("max-age=2", "max-stale=3", 6),
            Reuse::Ask(Forward::Stale)
        );
        for forbidding in [
            "must-revalidate",
            "proxy-revalidate",
            "no-cache",
            "s-maxage=2",
        ] {
            let value = format!("max-age=2, {forbidding}");
            let expected = Reuse::Ask(Forward::Stale);
            assert_eq!(given(&value, "max-stale", 3), expected, "{forbidding}");
        }
    }

    #[test]
    fn only_if_cached_is_answered_from_the_cache_or_with_504() {
        let only = asked("only-if-cached");
        assert_eq!(reuse(Found::Nothing, &only, at(0)), Reuse::NotCached);
        assert_eq!(reuse(Found::OtherVariants, &only, at(0)), Reuse::NotCached);
        assert_eq!(given("max-age=2", "only-if-cached", 1), Reuse::Fresh);
        assert_eq!(given("max-age=2", "only-if-cached", 2), Reuse::NotCached);
    }

    #[test]
    fn a_miss_says_what_was_missed() {
        let plain = RequestDirectives::default();
        assert_eq!(
            reuse(Found::Nothing, &plain, at(0)),
            Reuse::Ask(Forward::UriMiss)
        );
        assert_eq!(
            reuse(Found::OtherVariants, &plain, at(0)),
            Reuse::Ask(Forward::VaryMiss)
        );
    }
}
