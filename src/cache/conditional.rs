//! Conditions of a request, evaluated on a stored response (RFC 9110 13, RFC 9111 4.3.2).

use std::time::SystemTime;

use http::header::{
    CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, HeaderName, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::Request;
use super::entity::{Validators, list_has, single_date};
use super::targeted::CDN_CACHE_CONTROL;

/// What follows from the conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The stored response is sent, whole or in parts.
    Answer,
    /// 304.
    NotModified,
    /// The client insists on a version that is not the stored one; only the origin knows whether that
    /// is still, or already, the current one.
    AskOrigin,
}

const CONDITIONS: [HeaderName; 4] = [
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE,
];

/// Whether a request has any condition that [`evaluate`] reads.
pub fn is_conditional(request: &HeaderMap) -> bool {
    CONDITIONS.iter().any(|name| request.contains_key(name))
}

/// Evaluates the conditions on a stored response that may be reused.
pub fn evaluate(
    request: &Request<'_>,
    status: StatusCode,
    validators: &Validators,
    now: SystemTime,
) -> Condition {
    let fields = request.fields;
    // RFC 9110 13.2.1: what would be no success without conditions stays what it is.
    if !status.is_success() {
        return Condition::Answer;
    }
    let is_another = if fields.contains_key(IF_MATCH) {
        !list_has(fields, IF_MATCH, |tag| {
            let stored = validators.etag();
            stored.is_some_and(|stored| stored.strongly_equals(&tag))
        })
    } else {
        single_date(fields, IF_UNMODIFIED_SINCE, now)
            .is_some_and(|since| validators.changed() > since)
    };
    if is_another {
        return Condition::AskOrigin;
    }
    let is_known = if fields.contains_key(IF_NONE_MATCH) {
        list_has(fields, IF_NONE_MATCH, |tag| {
            let stored = validators.etag();
            stored.is_some_and(|stored| stored.weakly_equals(&tag))
        })
    } else {
        single_date(fields, IF_MODIFIED_SINCE, now)
            .is_some_and(|since| validators.changed() <= since)
    };
    match is_known && (request.method == Method::GET || request.method == Method::HEAD) {
        true => Condition::NotModified,
        false => Condition::Answer,
    }
}

/// The fields of a 304, from those of the stored response. `Age` and what is ours is added as always.
pub fn not_modified_fields(
    stored: &HeaderMap,
) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    // RFC 9110 15.4.5, and what says for how long that holds. Last-Modified is the only validator
    // of some clients.
    const KEPT: [HeaderName; 8] = [
        CACHE_CONTROL,
        CDN_CACHE_CONTROL,
        CONTENT_LOCATION,
        DATE,
        ETAG,
        EXPIRES,
        LAST_MODIFIED,
        VARY,
    ];
    stored.iter().filter(|(name, _)| KEPT.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::{at, date, fields, get, noon, request};

    fn of(lines: &[(&str, &str)], stored: &[(&str, &str)]) -> Condition {
        let validators = Validators::of(&fields(stored), noon());
        evaluate(&get(lines).head(), StatusCode::OK, &validators, noon())
    }

    #[test]
    fn if_none_match_compares_weakly_in_any_position() {
        let stored = [("etag", "\"abcdef\"")];
        let weak = [("etag", "W/\"abcdef\"")];
        for (value, expected) in [
            ("\"abcdef\"", Condition::NotModified),
            ("W/\"abcdef\"", Condition::NotModified),
            ("\"abcdef\", \"1234\"", Condition::NotModified),
            ("\"1234\", \"abcdef\", \"5678\"", Condition::NotModified),
            ("\"1234\", \"5678\", \"abcdef\"", Condition::NotModified),
            ("*", Condition::NotModified),
            ("\"1234\"", Condition::Answer),
            ("abcdef", Condition::Answer),
            ("", Condition::Answer),
        ] {
            assert_eq!(
                of(&[("if-none-match", value)], &stored),
                expected,
                "{value}"
            );
            assert_eq!(of(&[("if-none-match", value)], &weak), expected, "{value}");
        }
        let untagged = of(&[("if-none-match", "\"a\"")], &[]);
        assert_eq!(untagged, Condition::Answer);
    }

    #[test]
    fn if_modified_since_is_equal_or_later() {
        let modified = date(-3000);
        let stored = [("last-modified", modified.as_str())];
        for (since, expected) in [
            (date(-3000), Condition::NotModified),
            (date(-2000), Condition::NotModified),
            (date(-3001), Condition::Answer),
            ("x".to_owned(), Condition::Answer),
        ] {
            let lines = [("if-modified-since", since.as_str())];
            assert_eq!(of(&lines, &stored), expected, "{since}");
        }
        let lines = [("if-modified-since", modified.as_str())];
        let head = request("HEAD", &lines);
        let validators = Validators::of(&fields(&stored), noon());
        assert_eq!(
            evaluate(&head.head(), StatusCode::OK, &validators, at(9)),
            Condition::NotModified
        );
    }

    #[test]
    fn without_last_modified_the_date_or_receipt_counts() {
        let now = date(0);
        let lines = [("if-modified-since", now.as_str())];
        assert_eq!(of(&lines, &[("date", &now)]), Condition::NotModified);
        assert_eq!(of(&lines, &[]), Condition::NotModified);
        let before = date(-1);
        let lines = [("if-modified-since", before.as_str())];
        assert_eq!(of(&lines, &[("date", &now)]), Condition::Answer);
    }

    #[test]
    fn if_none_match_has_precedence() {
        let (modified, earlier) = (date(-5000), date(-10_000));
        let stored = [("etag", "\"a\""), ("last-modified", modified.as_str())];
        let known = [("if-none-match", "\"a\""), ("if-modified-since", &earlier)];
        assert_eq!(of(&known, &stored), Condition::NotModified);
        let unknown = [("if-none-match", "\"b\""), ("if-modified-since", &modified)];
        assert_eq!(of(&unknown, &stored), Condition::Answer);
    }

    #[test]
    fn who_insists_on_another_version_asks_the_origin() {
        let (modified, earlier) = (date(-5), date(-6));
        let stored = [("etag", "\"a\""), ("last-modified", modified.as_str())];
        for (name, value, expected) in [
            ("if-match", "\"a\"", Condition::Answer),
            ("if-match", "\"b\", \"a\"", Condition::Answer),
            ("if-match", "*", Condition::Answer),
            ("if-match", "W/\"a\"", Condition::AskOrigin),
            ("if-match", "\"b\"", Condition::AskOrigin),
            ("if-unmodified-since", &modified, Condition::Answer),
            ("if-unmodified-since", &earlier, Condition::AskOrigin),
            ("if-unmodified-since", "x", Condition::Answer),
        ] {
            assert_eq!(of(&[(name, value)], &stored), expected, "{name}: {value}");
        }
        let both = [("if-match", "\"a\""), ("if-unmodified-since", &earlier)];
        assert_eq!(of(&both, &stored), Condition::Answer);
    }

    #[test]
    fn an_error_is_sent_whatever_the_conditions() {
        let stored = Validators::of(&fields(&[("etag", "\"a\"")]), noon());
        let asked = get(&[("if-none-match", "\"a\""), ("if-match", "\"b\"")]);
        let answer = evaluate(&asked.head(), StatusCode::NOT_FOUND, &stored, noon());
        assert_eq!(answer, Condition::Answer);
    }

    #[test]
    fn a_304_carries_what_tells_the_version_and_for_how_long() {
        let kept = [
            ("etag", "\"a\""),
            ("date", "d"),
            ("cache-control", "max-age=1"),
            ("vary", "foo"),
            ("expires", "e"),
            ("content-location", "/l"),
            ("last-modified", "m"),
        ];
        let mut lines = kept.to_vec();
        lines.extend([("content-type", "t"), ("content-length", "1"), ("a", "b")]);
        let stored = fields(&lines);
        let sent: HeaderMap = not_modified_fields(&stored)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        assert_eq!(sent, fields(&kept));
    }
}
