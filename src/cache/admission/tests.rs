use super::*;
use crate::cache::testing::{
    Answered, Asked, anonymous, at, at_noon, date, get, noon, request, response, rfc9111, seconds,
};

fn store(asked: &Asked, answered: &Answered, policy: &Policy) -> Result<Facts, NotStored> {
    may_store(&asked.head(), &answered.head(), at_noon(), policy).map(|admission| admission.facts)
}

/// Whether a plain GET stores it, or why not.
fn stored(status: u16, lines: &[(&str, &str)], policy: &Policy) -> Result<(), NotStored> {
    store(&get(&[]), &response(status, lines), policy).map(|_| ())
}

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

#[test]
fn get_and_head_are_looked_up_and_nothing_else() {
    for method in ["GET", "HEAD"] {
        let asked = request(method, &[]);
        assert!(may_look_up(&asked.head(), &anonymous()).is_ok());
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "M-SEARCH", "get"] {
        let asked = request(method, &[]);
        let bypass = may_look_up(&asked.head(), &rfc9111());
        assert_eq!(bypass, Err(Bypass::Method), "{method}");
    }
    assert_eq!(Bypass::Method.forward(), Forward::Method);
    assert_eq!(Bypass::Upgrade.forward(), Forward::Bypass);
}

#[test]
fn a_request_with_a_body_or_an_upgrade_is_not_looked_up() {
    let bypass = |lines: &[(&str, &str)]| may_look_up(&get(lines).head(), &rfc9111()).err();
    let body = Some(Bypass::RequestBody);
    assert_eq!(bypass(&[("content-length", "3")]), body);
    assert_eq!(bypass(&[("transfer-encoding", "chunked")]), body);
    assert_eq!(bypass(&[("content-length", "0")]), None);
    assert_eq!(bypass(&[("upgrade", "websocket")]), Some(Bypass::Upgrade));
}

#[test]
fn a_personal_request_is_neither_looked_up_nor_stored_for_anonymous_visitors() {
    for (line, bypass, not_stored) in [
        (
            ("authorization", "Basic x"),
            Bypass::Authorization,
            NotStored::Authorization,
        ),
        (
            ("cookie", "_ga=1; sessionid=x"),
            Bypass::PersonalCookie,
            NotStored::PersonalCookie,
        ),
    ] {
        let asked = get(&[line]);
        let public = response(200, &[("cache-control", "public, s-maxage=60")]);
        assert_eq!(may_look_up(&asked.head(), &anonymous()), Err(bypass));
        let stored = store(&asked, &public, &anonymous());
        assert_eq!(stored.err(), Some(not_stored));
        assert!(may_look_up(&asked.head(), &rfc9111()).is_ok());
    }
    let visitor = get(&[("cookie", "_ga=1")]);
    assert!(may_look_up(&visitor.head(), &anonymous()).is_ok());
    assert!(store(&visitor, &response(200, &[FRESH]), &anonymous()).is_ok());
}

#[test]
fn no_store_of_a_request_counts_where_it_is_honoured() {
    let asked = get(&[("cache-control", "no-store")]);
    let answered = response(200, &[FRESH]);
    assert_eq!(
        may_look_up(&asked.head(), &rfc9111()),
        Err(Bypass::RequestNoStore)
    );
    assert_eq!(
        store(&asked, &answered, &rfc9111()).err(),
        Some(NotStored::RequestNoStore)
    );
    assert!(may_look_up(&asked.head(), &anonymous()).is_ok());
    assert!(store(&asked, &answered, &anonymous()).is_ok());
}

#[test]
fn unknown_directives_and_any_pragma_never_bypass() {
    for line in [
        ("cache-control", "unknown, x=1"),
        ("pragma", "unrecognised-extension"),
        ("pragma", "no-cache"),
    ] {
        let asked = get(&[line]);
        let directives = may_look_up(&asked.head(), &rfc9111());
        assert_eq!(directives, Ok(RequestDirectives::default()), "{line:?}");
    }
    let pragma = [FRESH, ("pragma", "no-cache")];
    assert_eq!(stored(200, &pragma, &rfc9111()), Ok(()));
}

#[test]
fn the_origin_forbids_storing() {
    for (value, reason) in [
        ("no-store", NotStored::NoStore),
        ("No-StOrE", NotStored::NoStore),
        ("max-age=60, no-store", NotStored::NoStore),
        ("private, max-age=60", NotStored::Private),
        ("max-age=60, no-cache", NotStored::NoCache),
        ("no-cache", NotStored::NoCache),
        ("max-age=0", NotStored::AlreadyStale),
        ("public", NotStored::NoLifetime),
    ] {
        for policy in [anonymous(), rfc9111()] {
            let stored = stored(200, &[("cache-control", value)], &policy);
            assert_eq!(stored, Err(reason), "{value}");
        }
    }
    assert_eq!(stored(200, &[], &rfc9111()), Err(NotStored::NoLifetime));
}

#[test]
fn what_the_origin_forbids_no_ttl_of_the_route_allows() {
    let policy = Policy {
        ttl: Some(seconds(60)),
        ..anonymous()
    };
    assert_eq!(stored(200, &[], &policy), Ok(()));
    for (value, reason) in [
        ("no-store", NotStored::NoStore),
        ("private", NotStored::Private),
        ("no-cache", NotStored::NoCache),
    ] {
        let stored = stored(200, &[("cache-control", value)], &policy);
        assert_eq!(stored, Err(reason), "{value}");
    }
}

#[test]
fn private_fields_are_left_out_for_everybody_and_stop_an_anonymous_page() {
    let lines = [("cache-control", "max-age=60, private=\"a\""), ("a", "1")];
    assert_eq!(stored(200, &lines, &anonymous()), Err(NotStored::Private));
    let asked = get(&[]);
    let answered = response(200, &lines);
    let admission = may_store(&asked.head(), &answered.head(), at_noon(), &rfc9111());
    assert!(!admission.unwrap().fields.contains_key("a"));
}

#[test]
fn no_cache_with_a_validator_is_stored() {
    for line in [("etag", "\"a\""), ("last-modified", date(-9).as_str())] {
        let lines = [("cache-control", "no-cache"), line];
        assert_eq!(stored(200, &lines, &rfc9111()), Ok(()), "{line:?}");
    }
    let invalid = [("cache-control", "no-cache"), ("etag", "abc")];
    assert_eq!(stored(200, &invalid, &rfc9111()), Err(NotStored::NoCache));
}

#[test]
fn what_is_stale_from_the_beginning_is_stored_if_it_has_a_use() {
    let stored = |value: &str| stored(200, &[("cache-control", value)], &rfc9111());
    assert_eq!(stored("max-age=0, stale-while-revalidate=60"), Ok(()));
    assert_eq!(stored("max-age=0, stale-if-error=60"), Ok(()));
    assert_eq!(stored("max-age=0"), Err(NotStored::AlreadyStale));
}

#[test]
fn any_final_status_with_explicit_freshness_is_stored() {
    for status in [
        200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599,
        999,
    ] {
        assert_eq!(stored(status, &[FRESH], &rfc9111()), Ok(()), "{status}");
    }
    for status in [100, 102, 103, 304, 412, 416, 428, 429, 431, 511] {
        let reason = Err(NotStored::Status);
        assert_eq!(stored(status, &[FRESH], &rfc9111()), reason, "{status}");
    }
}

#[test]
fn must_understand_overrides_no_store_for_known_statuses_and_forbids_unknown_ones() {
    let lines = [("cache-control", "max-age=3600, no-store, must-understand")];
    assert_eq!(stored(200, &lines, &rfc9111()), Ok(()));
    assert_eq!(
        stored(599, &lines, &rfc9111()),
        Err(NotStored::NotUnderstood)
    );
}

#[test]
fn with_authorization_a_response_must_be_for_everybody() {
    let asked = get(&[("authorization", "Basic x")]);
    let of = |value: &str| {
        let answered = response(200, &[("cache-control", value)]);
        store(&asked, &answered, &rfc9111()).err()
    };
    assert_eq!(of("max-age=60"), Some(NotStored::Authorization));
    for value in ["public", "must-revalidate", "s-maxage=60"] {
        assert_eq!(of(&format!("max-age=60, {value}")), None, "{value}");
    }
}

#[test]
fn a_response_that_sets_a_cookie_is_never_shared() {
    for (line, reason) in [
        (("set-cookie", "id=1"), NotStored::SetsCookie),
        (("set-cookie2", "id=1"), NotStored::SetsCookie),
        (
            ("clear-site-data", "\"cookies\""),
            NotStored::ClearsSiteData,
        ),
    ] {
        let lines = [FRESH, line];
        assert_eq!(stored(200, &lines, &anonymous()), Err(reason), "{line:?}");
        assert_eq!(stored(200, &lines, &rfc9111()), Ok(()), "{line:?}");
    }
}

#[test]
fn vary_may_forbid_storing() {
    let star = [FRESH, ("vary", "foo, *")];
    assert_eq!(stored(200, &star, &rfc9111()), Err(NotStored::VaryStar));
    let asked = get(&[("cookie", "mysite_sid=1")]);
    let answered = response(200, &[FRESH, ("vary", "Cookie")]);
    assert_eq!(
        store(&asked, &answered, &anonymous()).err(),
        Some(NotStored::VaryCookie)
    );
    assert!(store(&asked, &answered, &rfc9111()).is_ok());
    assert!(store(&get(&[]), &answered, &anonymous()).is_ok());
}

#[test]
fn a_part_is_stored_if_it_says_which_part() {
    let of = |range| {
        let lines = [FRESH, ("content-range", range)];
        store(&get(&[]), &response(206, &lines), &rfc9111()).map(|facts| facts.part())
    };
    let part = of("bytes 0-4/10").unwrap().unwrap();
    assert_eq!((part.span.last, part.complete), (4, 10));
    assert_eq!(of("bytes 0-4/*"), Err(NotStored::Partial));
    let missing = stored(206, &[FRESH], &rfc9111());
    assert_eq!(missing, Err(NotStored::Partial));
}

#[test]
fn a_body_larger_than_the_largest_object_is_not_stored() {
    let policy = Policy {
        largest_object: 10,
        ..rfc9111()
    };
    let of = |length| stored(200, &[FRESH, ("content-length", length)], &policy);
    assert_eq!(of("10"), Ok(()));
    assert_eq!(of("11"), Err(NotStored::TooLarge));
}

#[test]
fn more_tags_than_fit_forbid_storing() {
    let many = "x ".repeat(200);
    let lines = [FRESH, ("surrogate-key", many.as_str())];
    assert_eq!(stored(200, &lines, &rfc9111()), Err(NotStored::TooManyTags));
}

#[test]
fn a_post_whose_content_location_is_its_url_may_serve_later_gets() {
    let stored = |method: &str, lines: &[(&str, &str)], policy: &Policy| {
        let asked = request(method, &[("content-length", "5")]);
        store(&asked, &response(200, lines), policy).map(|_| ())
    };
    for location in ["/page", "page", "https://A.example:443/page", "./x/../page"] {
        let lines = [FRESH, ("content-location", location)];
        assert_eq!(stored("POST", &lines, &rfc9111()), Ok(()), "{location}");
    }
    let method = Err(NotStored::Method);
    for location in ["/other", "/page?", "http://a.example/page", "//b/page"] {
        let lines = [FRESH, ("content-location", location)];
        assert_eq!(stored("POST", &lines, &rfc9111()), method, "{location}");
    }
    let here = ("content-location", "/page");
    assert_eq!(stored("POST", &[FRESH], &rfc9111()), method);
    assert_eq!(stored("POST", &[here], &rfc9111()), method);
    assert_eq!(stored("PUT", &[FRESH, here], &rfc9111()), method);
    assert_eq!(stored("HEAD", &[FRESH], &rfc9111()), method);
    assert_eq!(stored("POST", &[FRESH, here], &anonymous()), method);
}

#[test]
fn an_entry_is_kept_as_long_as_something_can_come_of_it() {
    let policy = Policy {
        stale_while_revalidate: seconds(5),
        stale_if_error: seconds(30),
        keep_for_validation: seconds(100),
        ..rfc9111()
    };
    let kept = |lines: &[(&str, &str)]| {
        let answered = response(200, lines);
        let admission = may_store(&get(&[]).head(), &answered.head(), at_noon(), &policy);
        admission.unwrap().keep_until(&policy)
    };
    assert_eq!(kept(&[FRESH]), at(90));
    assert_eq!(kept(&[FRESH, ("etag", "\"a\"")]), at(190));
    let strict = ("cache-control", "max-age=60, must-revalidate");
    assert_eq!(kept(&[strict]), at(60));
    assert!(kept(&[strict, ("etag", "\"a\"")]) > noon());
}
