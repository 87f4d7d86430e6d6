//! How an answer came about, as `Cache-Status` (RFC 9211) and `X-Cache` tell it.

use std::fmt;

use http::StatusCode;

use crate::short::Short;
use crate::word::choice;

/// The name of this cache among others.
const NAME: &str = "tollgate";

choice! {
    /// Why a request went to the origin.
    pub enum Forward: "reason to forward" {
        /// The cache was not asked.
        Bypass = "bypass",
        /// The method is never answered from the cache.
        Method = "method",
        /// Nothing is stored under the key.
        UriMiss = "uri-miss",
        /// Something is stored, for requests with other fields.
        VaryMiss = "vary-miss",
        /// Nothing usable is stored, for several reasons or none of the others.
        Miss = "miss",
        /// The client wants a newer answer than the stored one.
        Request = "request",
        /// What is stored must be revalidated first.
        Stale = "stale",
        /// A part is stored, but not the one that is wanted.
        Partial = "partial",
    }

    /// Where a stored response stood.
    pub enum Tier: "tier" {
        /// Of this gateway.
        Memory = "memory",
        /// Of all gateways.
        Redis = "redis",
    }

    /// What the cache did for a request, in one word.
    pub enum Disposition: "disposition" {
        /// Answered with what is stored and fresh.
        Hit = "hit",
        /// Answered with what is stored and no longer fresh.
        Stale = "stale",
        /// The cache was not asked.
        Bypass = "bypass",
        /// The origin said that what is stored is still right.
        Revalidated = "revalidated",
        /// What was stored was no longer fresh, and the origin sent anew.
        Expired = "expired",
        /// Nothing was stored that could answer.
        Miss = "miss",
    }
}

impl Disposition {
    /// As in `X-Cache` and `Server-Timing`.
    pub fn in_capitals(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Stale => "STALE",
            Self::Bypass => "BYPASS",
            Self::Revalidated => "REVALIDATED",
            Self::Expired => "EXPIRED",
            Self::Miss => "MISS",
        }
    }
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From the cache; the origin was not asked, or failed to answer.
    Hit,
    Forwarded {
        why: Forward,
        /// What the origin answered, where the client received something else.
        status: Option<StatusCode>,
        stored: bool,
        /// Whether the answer was fetched for another request.
        collapsed: bool,
    },
}

/// One member of `Cache-Status`. `key` and `detail` are for trusted clients only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    pub outcome: Outcome,
    /// [`super::freshness::Freshness::ttl`].
    pub ttl: Option<i64>,
    pub key: Option<&'a str>,
    /// A stable word.
    pub detail: Option<&'static str>,
}

impl CacheStatus<'_> {
    pub fn disposition(&self) -> Disposition {
        let is_stale = self.ttl.is_some_and(|ttl| ttl < 0);
        match self.outcome {
            Outcome::Hit if is_stale => Disposition::Stale,
            Outcome::Hit => Disposition::Hit,
            Outcome::Forwarded { why, status, .. } => match why {
                Forward::Bypass | Forward::Method => Disposition::Bypass,
                Forward::Stale | Forward::Request if status == Some(StatusCode::NOT_MODIFIED) => {
                    Disposition::Revalidated
                }
                Forward::Stale => Disposition::Expired,
                _ => Disposition::Miss,
            },
        }
    }
}

impl CacheStatus<'_> {
    /// Writes it as a member of a List of Structured Fields; behind those of other caches, nearer to the origin. By hand: the
    /// formatter of the standard library takes ten times as long.
    pub fn write(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(NAME.as_bytes());
        match self.outcome {
            Outcome::Hit => line.extend_from_slice(b"; hit"),
            Outcome::Forwarded {
                why,
                status,
                stored,
                collapsed,
            } => {
                line.extend_from_slice(b"; fwd=");
                line.extend_from_slice(why.as_str().as_bytes());
                if let Some(status) = status {
                    line.extend_from_slice(b"; fwd-status=");
                    line.extend_from_slice(status.as_str().as_bytes());
                }
                if stored {
                    line.extend_from_slice(b"; stored");
                }
                if collapsed {
                    line.extend_from_slice(b"; collapsed");
                }
            }
        }
        if let Some(ttl) = self.ttl {
            line.extend_from_slice(if ttl < 0 { b"; ttl=-" } else { b"; ttl=" });
            let mut digits = Short::<20>::default();
            digits.push_decimal(ttl.unsigned_abs());
            line.extend_from_slice(digits.as_bytes());
        }
        if let Some(key) = self.key {
            line.extend_from_slice(b"; key=\"");
            for byte in key.bytes() {
                match byte {
                    b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
                    b' '..=b'~' => line.push(byte),
                    // No String of a Structured Field holds it.
                    _ => line.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                }
            }
            line.push(b'"');
        }
        if let Some(detail) = self.detail {
            line.extend_from_slice(b"; detail=");
            line.extend_from_slice(detail.as_bytes());
        }
    }
}

/// As it is written.
impl fmt::Display for CacheStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Vec::new();
        self.write(&mut line);
        f.write_str(&String::from_utf8_lossy(&line))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sfv::{List, ListEntry, Parser};

    use super::*;
    use crate::word::Choice;

    fn hit(ttl: i64) -> CacheStatus<'static> {
        CacheStatus {
            outcome: Outcome::Hit,
            ttl: Some(ttl),
            key: None,
            detail: None,
        }
    }

    fn forwarded(why: Forward, status: Option<u16>) -> CacheStatus<'static> {
        CacheStatus {
            outcome: Outcome::Forwarded {
                why,
                status: status.map(|status| StatusCode::from_u16(status).unwrap()),
                stored: false,
                collapsed: false,
            },
            ttl: None,
            key: None,
            detail: None,
        }
    }

    #[test]
    fn a_hit_and_a_miss_read_as_in_the_rfc() {
        assert_eq!(hit(376).to_string(), "tollgate; hit; ttl=376");
        let miss = CacheStatus {
            outcome: Outcome::Forwarded {
                why: Forward::UriMiss,
                status: Some(StatusCode::OK),
                stored: true,
                collapsed: true,
            },
            ..hit(5)
        };
        assert_eq!(
            miss.to_string(),
            "tollgate; fwd=uri-miss; fwd-status=200; stored; collapsed; ttl=5"
        );
        let trusted = CacheStatus {
            key: Some(r#"https://a/"b\ä"#),
            detail: Some("sets_cookie"),
            ..forwarded(Forward::Miss, None)
        };
        assert_eq!(
            trusted.to_string(),
            r#"tollgate; fwd=miss; key="https://a/\"b\\%C3%A4"; detail=sets_cookie"#
        );
    }

    #[test]
    fn x_cache_is_one_word() {
        for (status, word) in [
            (hit(0), "HIT"),
            (hit(-1), "STALE"),
            (forwarded(Forward::UriMiss, Some(200)), "MISS"),
            (forwarded(Forward::VaryMiss, None), "MISS"),
            (forwarded(Forward::Bypass, None), "BYPASS"),
            (forwarded(Forward::Method, None), "BYPASS"),
            (forwarded(Forward::Stale, Some(304)), "REVALIDATED"),
            (forwarded(Forward::Request, Some(304)), "REVALIDATED"),
            (forwarded(Forward::Stale, Some(200)), "EXPIRED"),
        ] {
            assert_eq!(status.disposition().in_capitals(), word, "{status}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_a_list_of_structured_fields_with_the_same_content(
            hit: bool,
            why in prop::sample::select(Forward::WORDS),
            status in prop::option::of(100u16..600),
            stored: bool,
            collapsed: bool,
            ttl in prop::option::of(-1_000_000i64..1_000_000),
            key in prop::option::of("[ -~]{0,20}"),
        ) {
            let printed = CacheStatus {
                outcome: match hit {
                    true => Outcome::Hit,
                    false => Outcome::Forwarded {
                        why: why.parse().unwrap(),
                        status: status.map(|status| StatusCode::from_u16(status).unwrap()),
                        stored,
                        collapsed,
                    },
                },
                ttl,
                key: key.as_deref(),
                detail: Some("no_store"),
            }
            .to_string();
            let list: List = Parser::new(&printed).parse().unwrap();
            let [ListEntry::Item(item)] = &list[..] else { panic!("{printed}") };
            prop_assert_eq!(item.bare_item.as_token().unwrap().as_str(), NAME);
            let of = |name: &str| item.params.get(name);
            prop_assert_eq!(of("hit").is_some(), hit);
            let told = of("fwd").map(|token| token.as_token().unwrap().as_str());
            prop_assert_eq!(told, (!hit).then_some(why));
            prop_assert_eq!(of("stored").is_some(), stored && !hit);
            prop_assert_eq!(of("collapsed").is_some(), collapsed && !hit);
            let integer = |name| of(name).map(|item| i64::from(item.as_integer().unwrap()));
            prop_assert_eq!(integer("ttl"), ttl);
            prop_assert_eq!(integer("fwd-status"), status.map(i64::from).filter(|_| !hit));
            let told = of("key").map(|key| key.as_string().unwrap().as_str());
            prop_assert_eq!(told, key.as_deref());
            prop_assert_eq!(of("detail").unwrap().as_token().unwrap().as_str(), "no_store");
        }
    }
}
