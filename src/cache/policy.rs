//! What the operator decides about one kind of pages. Every value here is already right; the
//! configuration sees to the bounds that the fields name.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderName;

use super::Request;
use super::cookies::CookieRules;
use super::hits::RefreshAhead;
use super::pattern::{Pattern, known};
use super::query::QueryRules;
use super::tags::Tag;
use crate::word::choice;

choice! {
    /// Who may be given what is stored.
    #[derive(Default)]
    pub enum Audience: "audience" {
        /// Visitors who are nobody in particular: nothing of a request with a login or a session is
        /// looked up or stored, nor a response that sets a cookie.
        #[default]
        Anonymous = "anonymous",
        /// Everybody whom RFC 9111 allows it.
        Rfc9111 = "rfc9111",
    }
}

/// A named policy. [`Policy::anonymous`] and [`Policy::rfc9111`] are the defaults of both audiences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub audience: Audience,
    /// The lifetime of a response without one, for the statuses of [`Policy::ttl_for`]. Up to a year.
    pub ttl: Option<Duration>,
    /// The same for one status each, before `ttl`; zero: not stored.
    pub ttl_by_status: BTreeMap<StatusCode, Duration>,
    /// For responses without a lifetime but with a `Last-Modified` (RFC 9111 4.2.2).
    pub heuristic: Option<Heuristic>,
    /// Where the response does not say. Up to a year; zero by default.
    pub stale_while_revalidate: Duration,
    /// Which pages are fetched anew while they are fresh; none by default.
    pub refresh_ahead: Option<RefreshAhead>,
    /// Where the response does not say. Up to a year; 10 minutes by default.
    pub stale_if_error: Duration,
    /// How long an entry with a validator is kept behind its stale life, to be revalidated. Up to a
    /// year; an hour by default.
    pub keep_for_validation: Duration,
    /// Tags of all that is stored by it.
    pub tags: Vec<Tag>,
    pub query: QueryRules,
    /// Request fields that are part of the key, in this order; at most 16.
    pub key_headers: Vec<HeaderName>,
    /// Cookies that are part of the key; at most 16.
    pub key_cookies: Vec<Pattern>,
    /// The cookies that the application means by `Vary: Cookie`; at most 16. With none named, an
    /// anonymous page that varies on cookies is stored for visitors without any but those of
    /// analytics.
    pub vary_cookies: Vec<Pattern>,
    pub cookies: CookieRules,
    /// Which directives are obeyed of a request whose client is not trusted.
    pub honoured: Honoured,
    /// The largest body that is stored, in bytes. 1 KiB to 1 GiB; 8 MiB by default.
    pub largest_object: u64,
    /// Responses side by side under one key. 1 to 1000; 32 by default.
    pub variants: usize,
    /// How long a page that looks personal is kept out, by [`super::guard`]. Up to a year; an hour by
    /// default for anonymous visitors; zero: nobody looks.
    pub quarantine: Duration,
    /// Whether clients are told more than `Cache-Status`: `X-Cache-Hits`, `X-Cache-Misses`.
    pub debug: bool,
}

impl Policy {
    /// No client can make the application work; parameters of campaigns are not part of the key.
    pub fn anonymous() -> Self {
        Self {
            audience: Audience::Anonymous,
            honoured: Honoured::NONE,
            quarantine: Duration::from_secs(60 * 60),
            query: QueryRules {
                ignore: known(&["utm_*", "fbclid", "gclid"]),
                ..QueryRules::default()
            },
            ..Self::rfc9111()
        }
    }

    /// As the RFC has it, and nothing that only an operator may decide: no lifetime of our own, no
    /// heuristic, the query as it came.
    pub fn rfc9111() -> Self {
        Self {
            audience: Audience::Rfc9111,
            ttl: None,
            ttl_by_status: BTreeMap::new(),
            heuristic: None,
            stale_while_revalidate: Duration::ZERO,
            refresh_ahead: None,
            stale_if_error: Duration::from_secs(10 * 60),
            keep_for_validation: Duration::from_secs(60 * 60),
            tags: Vec::new(),
            query: QueryRules::default(),
            key_headers: Vec::new(),
            key_cookies: Vec::new(),
            vary_cookies: Vec::new(),
            cookies: CookieRules::default(),
            honoured: Honoured::ALL,
            largest_object: 8 << 20,
            variants: 32,
            quarantine: Duration::ZERO,
            debug: false,
        }
    }

    pub fn is_anonymous(&self) -> bool {
        self.audience == Audience::Anonymous
    }

    /// Whether the URL alone does not make the key.
    pub fn has_key_of_its_own(&self) -> bool {
        !self.key_headers.is_empty() || !self.key_cookies.is_empty()
    }

    /// This policy for responses on a route whose own is `route`: what a request is looked up by, who
    /// may be, and what its hits bring about, is the route's.
    pub fn on_route(self, route: &Self) -> Self {
        Self {
            query: route.query.clone(),
            key_headers: route.key_headers.clone(),
            key_cookies: route.key_cookies.clone(),
            vary_cookies: route.vary_cookies.clone(),
            cookies: route.cookies.clone(),
            honoured: route.honoured,
            refresh_ahead: route.refresh_ahead,
            debug: route.debug,
            ..self
        }
    }

    /// Whether pages that look personal are watched for.
    pub fn is_guarded(&self) -> bool {
        self.is_anonymous() && !self.quarantine.is_zero()
    }

    /// Which directives of this request are obeyed.
    pub fn honoured_of(&self, request: &Request<'_>) -> &Honoured {
        match request.is_trusted {
            true => &Honoured::ALL,
            false => &self.honoured,
        }
    }

    /// The lifetime of a response that has none. Without a word on the status, only what a page is
    /// expected to answer gets one: an error that lasts as long as a page would be an outage made
    /// longer.
    pub fn ttl_for(&self, status: StatusCode) -> Option<Duration> {
        let expected = matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308);
        self.ttl_by_status
            .get(&status)
            .copied()
            .or(self.ttl.filter(|_| expected))
    }
}

/// A lifetime guessed from how old a response already was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heuristic {
    /// Of the time since `Last-Modified`. 1 to 100; 10 by default.
    pub percent: u32,
    /// A day by default.
    pub longest: Duration,
}

impl Default for Heuristic {
    fn default() -> Self {
        Self {
            percent: 10,
            longest: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Which cache directives of a request are obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Honoured {
    pub no_cache: bool,
    pub no_store: bool,
    pub max_age: bool,
    pub min_fresh: bool,
    pub max_stale: bool,
    pub only_if_cached: bool,
}

impl Honoured {
    pub const ALL: Self = Self {
        no_cache: true,
        no_store: true,
        max_age: true,
        min_fresh: true,
        max_stale: true,
        only_if_cached: true,
    };
    pub const NONE: Self = Self {
        no_cache: false,
        no_store: false,
        max_age: false,
        min_fresh: false,
        max_stale: false,
        only_if_cached: false,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_for_pages_and_for_what_it_is_set_for() {
        let hour = Duration::from_secs(3600);
        let second = Duration::from_secs(1);
        let policy = Policy {
            ttl: Some(hour),
            ttl_by_status: BTreeMap::from([
                (StatusCode::NOT_FOUND, second),
                (StatusCode::NO_CONTENT, Duration::ZERO),
            ]),
            ..Policy::anonymous()
        };
        for (status, ttl) in [
            (StatusCode::OK, Some(hour)),
            (StatusCode::MOVED_PERMANENTLY, Some(hour)),
            (StatusCode::NOT_FOUND, Some(second)),
            (StatusCode::NO_CONTENT, Some(Duration::ZERO)),
            (StatusCode::FOUND, None),
            (StatusCode::INTERNAL_SERVER_ERROR, None),
        ] {
            assert_eq!(policy.ttl_for(status), ttl, "{status}");
        }
        assert_eq!(Policy::anonymous().ttl_for(StatusCode::OK), None);
    }
}
