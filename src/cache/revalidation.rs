//! What the origin is asked about a stored response, and what its answer makes of it
//! (RFC 9111 4.3).

use std::time::SystemTime;

use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderName, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::entity::{EntityTag, Validators, single_date};
use super::stored::{date, is_of_connection};
use super::{Response, list};
use crate::http1::grammar::decimal;

/// The fields of a question for the whole response: those of the request, without its conditions and
/// ranges, which are evaluated on what is stored then.
pub fn whole(request: &HeaderMap) -> HeaderMap {
    const OF_CLIENT: [HeaderName; 6] = [
        IF_MATCH,
        IF_MODIFIED_SINCE,
        IF_NONE_MATCH,
        IF_RANGE,
        IF_UNMODIFIED_SINCE,
        RANGE,
    ];
    let mut fields = request.clone();
    for name in OF_CLIENT {
        fields.remove(name);
    }
    fields
}

/// The fields of a question for the part that the request wants. `None` where it has conditions too: what
/// they come to is for this client alone.
pub fn part(request: &HeaderMap) -> Option<HeaderMap> {
    const CONDITIONS: [HeaderName; 4] = [
        IF_MATCH,
        IF_MODIFIED_SINCE,
        IF_NONE_MATCH,
        IF_UNMODIFIED_SINCE,
    ];
    let is_conditional = CONDITIONS.iter().any(|name| request.contains_key(name));
    (request.contains_key(RANGE) && !is_conditional).then(|| request.clone())
}

/// The fields of a question whether a stored response is still right: those of the request, and with
/// them all that `Vary` names, and the validators as the origin wrote them.
pub fn question(request: &HeaderMap, validators: &Validators) -> HeaderMap {
    let mut fields = whole(request);
    let conditions = [
        (IF_NONE_MATCH, validators.etag_value()),
        (IF_MODIFIED_SINCE, validators.last_modified_value()),
    ];
    for (name, value) in conditions {
        if let Some(value) = value {
            fields.insert(name, value.clone());
        }
    }
    fields
}

/// The answer is of another version than the stored one: it updates nothing (RFC 9111 4.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnotherVersion;

/// The fields of a stored response after a 304: every field of the 304 replaces the stored ones of its
/// name, the others stay. Read by [`super::admission::may_store`] with the stored status, they say how
/// long it may be used now.
///
/// Those that describe the stored bytes are not replaced: `Content-Length`, and the coding and range,
/// which servers are known to get wrong where they send no body. A `Date` that is missing is the time
/// of receipt.
pub fn merged(
    stored: &HeaderMap,
    validators: &Validators,
    update: &HeaderMap,
    received: SystemTime,
) -> Result<HeaderMap, AnotherVersion> {
    if !is_of_same_version(validators, update, received) {
        return Err(AnotherVersion);
    }
    // A server may send its strong tag with the 304 although it weakened that of the coded body.
    let keeps_weak = validators.etag().is_some_and(|tag| tag.weak);
    let nominated: Vec<_> = list::names(update, CONNECTION).collect();
    let stays = |name: &HeaderName| {
        is_of_connection(name)
            || nominated.contains(name)
            || [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE].contains(name)
            || (keeps_weak && *name == ETAG)
    };
    let mut merged = stored.clone();
    for name in update.keys().filter(|name| !stays(name)) {
        merged.remove(name);
        for value in update.get_all(name) {
            merged.append(name.clone(), value.clone());
        }
    }
    if !update.contains_key(DATE) {
        merged.insert(DATE, date(received));
    }
    Ok(merged)
}

/// Compared weakly: that is how the question was asked.
fn is_of_same_version(validators: &Validators, update: &HeaderMap, received: SystemTime) -> bool {
    let etag = update.get(ETAG).map(HeaderValue::as_bytes);
    let etag = etag.and_then(EntityTag::parse);
    if let (Some(stored), Some(told)) = (validators.etag(), etag) {
        return stored.weakly_equals(&told);
    }
    let told = single_date(update, LAST_MODIFIED, received);
    match (validators.last_modified_value(), told) {
        (Some(_), Some(told)) => validators.changed() == told,
        _ => true,
    }
}

/// What the response to a HEAD makes of a stored response to GET (RFC 9111 4.3.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterHead {
    /// It is of the same version, with these fields now.
    Updated(HeaderMap),
    /// There is another version; this one is stale.
    Outdated,
    /// It says nothing of a response to GET.
    Unrelated,
}

/// `length` is that of the stored body, in bytes.
pub fn after_head(
    stored: &HeaderMap,
    validators: &Validators,
    length: u64,
    head: &Response<'_>,
    received: SystemTime,
) -> AfterHead {
    if head.status != StatusCode::OK {
        return AfterHead::Unrelated;
    }
    let told = head.fields.get(CONTENT_LENGTH);
    if told.is_some_and(|told| decimal(told.as_bytes()) != Some(length)) {
        return AfterHead::Outdated;
    }
    match merged(stored, validators, head.fields, received) {
        Ok(fields) => AfterHead::Updated(fields),
        Err(AnotherVersion) => AfterHead::Outdated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::{date as date_at, fields, noon, response};

    fn validators(lines: &[(&str, &str)]) -> Validators {
        Validators::of(&fields(lines), noon())
    }

    fn merge(
        stored: &[(&str, &str)],
        update: &[(&str, &str)],
    ) -> Result<HeaderMap, AnotherVersion> {
        merged(
            &fields(stored),
            &validators(stored),
            &fields(update),
            noon(),
        )
    }

    #[test]
    fn the_origin_is_asked_with_the_validators_and_the_fields_of_the_request() {
        let request = fields(&[
            ("abc", "123"),
            ("accept-language", "de"),
            ("if-none-match", "\"client\""),
            ("if-modified-since", "x"),
            ("if-match", "\"x\""),
            ("if-unmodified-since", "x"),
            ("range", "bytes=0-1"),
            ("if-range", "\"x\""),
        ]);
        let plain = [("abc", "123"), ("accept-language", "de")];
        assert_eq!(whole(&request), fields(&plain));
        let modified = date_at(-9);
        let stored = [("etag", "W/\"a\""), ("last-modified", modified.as_str())];
        let expected = fields(&[
            plain[0],
            plain[1],
            ("if-none-match", "W/\"a\""),
            ("if-modified-since", &modified),
        ]);
        assert_eq!(question(&request, &validators(&stored)), expected);
        assert_eq!(question(&request, &validators(&[])), fields(&plain));
    }

    #[test]
    fn every_field_of_a_304_replaces_the_stored_one_and_omitted_fields_stay() {
        let now = date_at(0);
        let stored = [
            ("etag", "\"a\""),
            ("date", "d"),
            ("cache-control", "max-age=1"),
            ("cache-control", "public"),
            ("a", "1"),
            ("b", "2"),
            ("content-type", "text/plain"),
        ];
        let update = [
            ("etag", "\"a\""),
            ("date", &now),
            ("cache-control", "max-age=3600"),
            ("a", "3"),
            ("a", "4"),
            ("c", "5"),
            ("content-type", "text/plain;charset=utf-8"),
        ];
        let expected = fields(&[
            ("etag", "\"a\""),
            ("date", &now),
            ("cache-control", "max-age=3600"),
            ("a", "3"),
            ("a", "4"),
            ("b", "2"),
            ("c", "5"),
            ("content-type", "text/plain;charset=utf-8"),
        ]);
        assert_eq!(merge(&stored, &update), Ok(expected));
    }

    #[test]
    fn what_describes_the_stored_bytes_or_the_connection_is_not_replaced() {
        let now = date_at(0);
        let stored = [
            ("content-length", "36"),
            ("content-encoding", "gzip"),
            ("date", &now),
            ("x", "1"),
        ];
        let update = [
            ("content-length", "10"),
            ("content-encoding", "br"),
            ("content-range", "bytes 0-1/2"),
            ("connection", "x"),
            ("x", "2"),
            ("keep-alive", "y"),
            ("transfer-encoding", "chunked"),
            ("date", &now),
        ];
        assert_eq!(merge(&stored, &update), Ok(fields(&stored)));
    }

    #[test]
    fn a_304_without_a_date_was_received_now() {
        let merged = merge(&[("date", "old")], &[]).unwrap();
        assert_eq!(merged[DATE], date_at(0).as_str());
    }

    #[test]
    fn a_weak_tag_stays_weak() {
        let merged = merge(&[("etag", "W/\"a\"")], &[("etag", "\"a\"")]).unwrap();
        assert_eq!(merged[ETAG], "W/\"a\"");
    }

    #[test]
    fn a_304_of_another_version_updates_nothing() {
        let (one, other) = (date_at(-9), date_at(-8));
        for (stored, update, same) in [
            (("etag", "\"a\""), ("etag", "\"b\""), false),
            (("etag", "\"a\""), ("etag", "W/\"a\""), true),
            (("etag", "\"a\""), ("last-modified", one.as_str()), true),
            (("last-modified", &one), ("last-modified", &one), true),
            (("last-modified", &one), ("last-modified", &other), false),
            (("last-modified", &one), ("etag", "\"a\""), true),
            (("a", "b"), ("etag", "\"a\""), true),
        ] {
            let merged = merge(&[stored], &[update]);
            assert_eq!(merged.is_ok(), same, "{stored:?} {update:?}");
        }
    }

    #[test]
    fn a_head_updates_the_version_that_it_describes() {
        let now = date_at(0);
        let stored = [("etag", "\"a\""), ("a", "1"), ("date", now.as_str())];
        let after = |status, lines: &[(&str, &str)]| {
            let head = response(status, lines);
            let validators = validators(&stored);
            after_head(&fields(&stored), &validators, 10, &head.head(), noon())
        };
        let updated = fields(&[("etag", "\"a\""), ("a", "2"), ("date", &now)]);
        let same = [("a", "2"), ("date", now.as_str()), ("content-length", "10")];
        assert_eq!(after(200, &same), AfterHead::Updated(updated));
        let other = [("etag", "\"b\"")];
        assert_eq!(after(200, &other), AfterHead::Outdated);
        assert_eq!(after(200, &[("content-length", "11")]), AfterHead::Outdated);
        assert_eq!(after(410, &same), AfterHead::Unrelated);
        assert_eq!(after(304, &same), AfterHead::Unrelated);
    }
}
