//! How a client stands with its quotas, as it is told: `RateLimit` and `RateLimit-Policy`
//! (draft-ietf-httpapi-ratelimit-headers-11), or `X-RateLimit-Limit`, `-Remaining` and `-Reset`.

use super::policy::{Dressed, Name};
use crate::limit::quota::Unit;
use crate::limit::{Concurrent, Fields, Stood, whole_seconds};
use crate::short::Short;

static RATE_LIMIT: Name = Name::of("ratelimit", "RateLimit");
static RATE_LIMIT_POLICY: Name = Name::of("ratelimit-policy", "RateLimit-Policy");
static X_LIMIT: Name = Name::of("x-ratelimit-limit", "X-RateLimit-Limit");
static X_REMAINING: Name = Name::of("x-ratelimit-remaining", "X-RateLimit-Remaining");
static X_RESET: Name = Name::of("x-ratelimit-reset", "X-RateLimit-Reset");

/// Whether a response says of itself what [`finish`] may say in its place.
pub fn is_said(response: &impl Dressed) -> bool {
    let names = [&X_LIMIT, &X_REMAINING, &X_RESET];
    names.iter().any(|name| response.has(name.name()))
}

/// Gives a response the fields of every quota that the request met, and of every bound of what is under way.
pub fn finish<'a>(
    response: &mut impl Dressed,
    stood: impl Iterator<Item = Stood<'a>> + Clone,
    concurrency: impl Iterator<Item = Concurrent<'a>> + Clone,
) {
    let quotas = stood.clone().filter(|one| one.fields == Fields::Draft11);
    if quotas.clone().next().is_some() || concurrency.clone().next().is_some() {
        response.add_with(&RATE_LIMIT_POLICY, |line| {
            let mut comma: &[u8] = b"";
            for one in quotas.clone() {
                name(line, std::mem::replace(&mut comma, b", "), one.policy);
                policy(line, &one);
            }
            for one in concurrency.clone() {
                name(line, std::mem::replace(&mut comma, b", "), one.policy);
                number(line, b";q=", u64::from(one.most));
                line.extend_from_slice(b";qu=\"concurrent-requests\"");
            }
        });
        response.add_with(&RATE_LIMIT, |line| {
            let mut comma: &[u8] = b"";
            for one in quotas {
                name(line, std::mem::replace(&mut comma, b", "), one.policy);
                number(line, b";r=", one.standing.left);
                number(line, b";t=", whole_seconds(one.standing.reset));
            }
            for one in concurrency {
                name(line, std::mem::replace(&mut comma, b", "), one.policy);
                number(line, b";r=", u64::from(one.left));
            }
        });
    }
    // It knows one quota only: the one that is nearest to its end.
    let of_form = stood.filter(|one| one.fields == Fields::XRateLimit);
    let share = |one: &Stood<'_>| one.standing.left as f64 / one.quota.amount as f64;
    if let Some(one) = of_form.min_by(|one, other| share(one).total_cmp(&share(other))) {
        response.set(&X_LIMIT, decimal(one.quota.amount).as_bytes());
        response.set(&X_REMAINING, decimal(one.standing.left).as_bytes());
        response.set(
            &X_RESET,
            decimal(whole_seconds(one.standing.reset)).as_bytes(),
        );
    }
}

/// Of `"api";q=100;w=60`, what follows the name.
fn policy(line: &mut Vec<u8>, stood: &Stood<'_>) {
    number(line, b";q=", stood.quota.amount);
    number(line, b";w=", stood.quota.window_seconds());
    if stood.quota.unit == Unit::Bytes {
        line.extend_from_slice(b";qu=\"content-bytes\"");
    }
}

/// The names of limits need no escapes in a String (RFC 9651 3.3.3).
fn name(line: &mut Vec<u8>, comma: &[u8], name: &str) {
    for part in [comma, b"\"", name.as_bytes(), b"\""] {
        line.extend_from_slice(part);
    }
}

fn number(line: &mut Vec<u8>, parameter: &[u8], number: u64) {
    line.extend_from_slice(parameter);
    line.extend_from_slice(decimal(number).as_bytes());
}

fn decimal(number: u64) -> Short<20> {
    let mut text = Short::default();
    text.push_decimal(number);
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::response::Parts;
    use sfv::{BareItem, List, ListEntry, Parser};

    use super::*;
    use crate::limit::local::Standing;

    fn stood(
        fields: Fields,
        quota: &str,
        policy: &'static str,
        left: u64,
        millis: u64,
    ) -> Stood<'static> {
        Stood {
            fields,
            quota: quota.parse().unwrap(),
            policy,
            standing: Standing {
                left,
                reset: Duration::from_millis(millis),
            },
        }
    }

    fn told(stood: &[Stood<'_>]) -> Parts {
        let mut response = http::Response::new(()).into_parts().0;
        finish(&mut response, stood.iter().copied(), std::iter::empty());
        response
    }

    #[test]
    fn a_bound_of_what_is_under_way_is_told_beside_the_quotas() {
        let mut response = http::Response::new(()).into_parts().0;
        let quota = stood(Fields::Draft11, "3 per hour", "api", 2, 1_200_000);
        let bound = Concurrent {
            policy: "api-in-flight",
            most: 20,
            left: 19,
        };
        finish(&mut response, [quota].into_iter(), [bound].into_iter());
        let value = |name: &str| response.headers[name].to_str().unwrap();
        assert_eq!(
            value("ratelimit-policy"),
            r#""api";q=3;w=3600, "api-in-flight";q=20;qu="concurrent-requests""#
        );
        assert_eq!(
            value("ratelimit"),
            r#""api";r=2;t=1200, "api-in-flight";r=19"#
        );
        for name in ["ratelimit", "ratelimit-policy"] {
            assert!(Parser::new(value(name)).parse::<List>().is_ok());
        }
    }

    #[test]
    fn every_quota_is_told_in_fields_that_a_structured_field_parser_reads() {
        let response = told(&[
            stood(Fields::Draft11, "100 per minute, burst 20", "api", 19, 601),
            stood(Fields::Draft11, "5000 per day", "api-2", 4999, 86_400_000),
            stood(Fields::Draft11, "10 MiB per 30s", "bytes", 10, 0),
        ]);
        let value = |name: &str| response.headers[name].to_str().unwrap();
        assert_eq!(
            value("ratelimit"),
            r#""api";r=19;t=1, "api-2";r=4999;t=86400, "bytes";r=10;t=0"#
        );
        assert_eq!(
            value("ratelimit-policy"),
            r#""api";q=100;w=60, "api-2";q=5000;w=86400, "bytes";q=10485760;w=30;qu="content-bytes""#
        );
        for name in ["ratelimit", "ratelimit-policy"] {
            let list: List = Parser::new(value(name)).parse().unwrap();
            let names = list.iter().map(|entry| match entry {
                ListEntry::Item(item) => matches!(item.bare_item, BareItem::String(_)),
                ListEntry::InnerList(_) => false,
            });
            assert!(names.clone().count() == 3 && names.clone().all(|is_string| is_string));
        }
    }

    #[test]
    fn the_old_fields_tell_the_quota_that_ends_first() {
        let response = told(&[
            stood(Fields::XRateLimit, "100 per minute", "a", 90, 6_000),
            stood(Fields::XRateLimit, "5000 per day", "b", 10, 60_000),
        ]);
        let value = |name: &str| response.headers[name].to_str().unwrap();
        assert_eq!(value("x-ratelimit-limit"), "5000");
        assert_eq!(value("x-ratelimit-remaining"), "10");
        assert_eq!(value("x-ratelimit-reset"), "60");
        assert!(!response.headers.contains_key("ratelimit"));
    }

    #[test]
    fn who_is_to_be_told_nothing_is_told_nothing() {
        let response = told(&[stood(Fields::Off, "1 per second", "a", 0, 0)]);
        assert!(response.headers.is_empty());
    }
}
