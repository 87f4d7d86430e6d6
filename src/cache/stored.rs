//! Which fields of a response are kept (RFC 9111 3.1), and which of the kept ones are only for us.

use std::time::SystemTime;

use http::header::{
    AGE, CONNECTION, DATE, HeaderName, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

use super::directives::ResponseDirectives;
use super::list;
use super::policy::Policy;
use super::tags::{CACHE_TAG, SURROGATE_KEY};
use super::targeted::TOLLGATE_CACHE_CONTROL;

/// Names the policy by which a response is stored, in place of its route's.
pub const TOLLGATE_CACHE_POLICY: HeaderName = HeaderName::from_static("tollgate-cache-policy");

/// The fields to store, with a `Date` if there was none: the time of receipt (RFC 9110 6.6.1).
///
/// Left out: what belongs to the connection, what `Connection` names, what `no-cache` or `private`
/// limit to one visitor by name, `Age`, and what belongs to the one request that brought the
/// response here. For anonymous visitors also what would act upon the visitor.
pub fn kept(
    response: &HeaderMap,
    said: &ResponseDirectives,
    policy: &Policy,
    received: SystemTime,
) -> HeaderMap {
    let nominated: Vec<_> = list::names(response, CONNECTION).collect();
    let limited = || said.no_cache.fields().iter().chain(said.private.fields());
    let is_left_out = |name: &HeaderName| {
        is_of_connection(name)
            || is_of_request(name)
            || (policy.is_anonymous() && acts_on_visitor(name))
            || nominated.contains(name)
            || limited().any(|limited| limited == name)
    };
    let mut kept = HeaderMap::with_capacity(response.len() + 1);
    for (name, value) in response {
        if !is_left_out(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    if !kept.contains_key(DATE) {
        kept.insert(DATE, date(received));
    }
    kept
}

/// Fields that the origin says only to a cache such as ours. They are kept, for a 304 may leave them
/// out, and not sent.
pub fn is_for_us(name: &HeaderName) -> bool {
    const NAMES: [HeaderName; 4] = [
        TOLLGATE_CACHE_CONTROL,
        TOLLGATE_CACHE_POLICY,
        SURROGATE_KEY,
        CACHE_TAG,
    ];
    NAMES.contains(name) || name.as_str() == "surrogate-control"
}

/// What belongs to one hop.
pub(super) fn is_of_connection(name: &HeaderName) -> bool {
    [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
        || name.as_str() == "keep-alive"
        || name.as_str().starts_with("proxy-")
}

/// What is true only for the request that brought the response; of the gateway's own names too, which
/// another gateway behind us may have set.
fn is_of_request(name: &HeaderName) -> bool {
    const NAMES: [&str; 11] = [
        "ratelimit",
        "ratelimit-policy",
        "server-timing",
        "traceparent",
        "traceresponse",
        "tracestate",
        "x-correlation-id",
        "x-request-id",
        "x-request-time",
        "x-runtime",
        "x-trace-id",
    ];
    *name == AGE
        || NAMES.contains(&name.as_str())
        || name.as_str().starts_with("x-ratelimit-")
        || name.as_str().starts_with("x-cache")
}

pub(super) fn acts_on_visitor(name: &HeaderName) -> bool {
    sets_cookie(name) || name.as_str() == "clear-site-data"
}

pub(super) fn sets_cookie(name: &HeaderName) -> bool {
    *name == SET_COOKIE || name.as_str() == "set-cookie2"
}

pub(super) fn date(time: SystemTime) -> HeaderValue {
    HeaderValue::from_str(&httpdate::fmt_http_date(time)).expect("a date")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::{anonymous, date, fields, noon, rfc9111};

    fn names(response: &[(&str, &str)], policy: &Policy) -> Vec<String> {
        let response = fields(response);
        let said = ResponseDirectives::parse(&response);
        let kept = kept(&response, &said, policy, noon());
        let mut names: Vec<_> = kept.keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn what_belongs_to_the_connection_is_not_kept() {
        let response = [
            ("connection", "a, B"),
            ("connection", "close"),
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("close", "4"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "x"),
            ("proxy-authentication-info", "x"),
            ("proxy-authorization", "x"),
            ("proxy-connection", "x"),
            ("te", "x"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "x"),
            ("age", "3"),
            ("date", "x"),
        ];
        assert_eq!(names(&response, &rfc9111()), ["c", "date"]);
    }

    #[test]
    fn everything_else_is_kept() {
        let mut expected = [
            "test-header",
            "x-test-header",
            "cache-control",
            "cdn-cache-control",
            "clear-site-data",
            "content-encoding",
            "content-length",
            "content-location",
            "content-range",
            "content-security-policy",
            "content-type",
            "date",
            "etag",
            "expires",
            "set-cookie",
            "set-cookie2",
            "x-frame-options",
            "surrogate-key",
        ];
        let response = expected.map(|name| (name, "x"));
        expected.sort_unstable();
        assert_eq!(names(&response, &rfc9111()), expected);
    }

    #[test]
    fn nothing_of_the_request_that_caused_it_is_kept() {
        let response = [
            ("x-request-id", "1"),
            ("x-request-time", "0.1s"),
            ("server-timing", "total;dur=1"),
            ("ratelimit", "x"),
            ("ratelimit-policy", "x"),
            ("x-ratelimit-remaining", "3"),
            ("x-cache", "HIT"),
            ("x-cache-hits", "3"),
            ("date", "x"),
            ("set-cookie", "a=b"),
            ("set-cookie2", "a=b"),
            ("clear-site-data", "cookies"),
        ];
        assert_eq!(names(&response, &anonymous()), ["date"]);
    }

    #[test]
    fn fields_that_no_cache_or_private_name_are_not_kept() {
        let response = [
            (
                "cache-control",
                "no-cache=\"a, b\", max-age=3600, private=\"c\"",
            ),
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("d", "4"),
            ("date", "x"),
        ];
        assert_eq!(names(&response, &rfc9111()), ["cache-control", "d", "date"]);
    }

    #[test]
    fn only_a_date_that_is_missing_is_added() {
        let said = ResponseDirectives::default();
        let date_of = |response: &[(&str, &str)]| {
            let kept = kept(&fields(response), &said, &rfc9111(), noon());
            kept[DATE].to_str().unwrap().to_owned()
        };
        assert_eq!(date_of(&[]), date(0));
        assert_eq!(date_of(&[("date", "foo")]), "foo");
        assert_eq!(date_of(&[("date", &date(-9))]), date(-9));
    }

    #[test]
    fn what_is_said_only_to_us_is_not_sent() {
        for name in ["tollgate-cache-control", "surrogate-key", "cache-tag"] {
            assert!(is_for_us(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["cdn-cache-control", "cache-groups", "cache-control"] {
            assert!(!is_for_us(&HeaderName::from_static(name)), "{name}");
        }
    }
}
