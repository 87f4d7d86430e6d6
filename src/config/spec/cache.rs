//! `[cache]`: what is kept for many visitors, and the policies by which.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;

use super::WarmSpec;
use crate::cache::Audience;
use crate::cache::pattern::Pattern;
use crate::cache::tags::Tag;
use crate::config::declare::spec;
use crate::config::problem::Located;
use crate::config::word::{FinalStatus, Keyed, Percent, ServeFor, Size};
use crate::headers::policy::FieldName;

spec! {
    /// What is kept for many visitors.
    pub struct CacheSpec in "[cache]" {
        /// Memory for stored responses with their heads and keys, 1 MiB to 1024 GiB. A change needs a restart.
        memory: Located<u64> as Located<Size> = "256 MiB", within "1 MiB"..="1024 GiB";
        /// Bodies of more bytes are compressed in Redis, 0 B to 1 GiB.
        compress_above: u64 as Size = "1 KiB", within "0 B"..="1 GiB";
        /// How hard zstd tries there, 1 to 19: from fast to small.
        compression_level: u16 = 3, within 1..=19;
        /// How long the other gateways wait for a gateway that fetches a page and says nothing more, 100ms to 5m.
        fill_lock: Duration = "5s", within "100ms"..="5m";
        /// Stored responses that may wait to be written to Redis, 1 to 1,000,000; more are dropped. A change needs a restart.
        queued_writes: Located<usize> = 10_000, within 1..=1_000_000;
        /// Bytes of their bodies, 1 MiB to 64 GiB. A change needs a restart.
        queued_bytes: Located<u64> as Located<Size> = "64 MiB", within "1 MiB"..="64 GiB";
        /// How long what is stored is given while Redis cannot tell of purges: "serve" is for ever, or 0s to 30d. A change needs a restart.
        without_redis: Located<Option<Duration>> as Located<ServeFor> = "serve";
        /// Networks of clients that may purge a URL by requests of the method PURGE, 0 to 64; with none that is a method like any other.
        purge_from: Vec<IpNet> = [], entries 0..=64;
        /// What is asked for before visitors come.
        warm: Option<WarmSpec>;
        /// Cache policies by name, for routes to name.
        policies["policy"]: BTreeMap<String, CachePolicySpec> = {};
    }

    /// What is stored, for whom and for how long.
    pub struct CachePolicySpec in "[cache.policy.NAME]" {
        /// "anonymous" (nothing with a login, a session or Set-Cookie) or "rfc9111" (whatever HTTP allows).
        audience: Audience = "anonymous";
        /// Lifetime of pages to which the application gives none, 1ms to 365d.
        ttl: Option<Duration>, within "1ms"..="365d";
        /// The same for single statuses, each 0s to 365d; "0s": not stored.
        ttl_by_status: Keyed<FinalStatus, Located<Duration>> = {};
        /// How long a stale response answers while it is fetched anew, 0s to 365d, where the application does not say.
        stale_while_revalidate: Duration = "0s", within "0s"..="365d";
        /// How long before it becomes stale a page that is asked for is fetched anew, 0s to 365d; "0s": not before.
        refresh_ahead: Duration = "0s", within "0s"..="365d";
        /// How often it must have been given since it was stored or renewed, 1 to 1,000,000.
        refresh_hits: u32 = 3, within 1..=1_000_000;
        /// How long a stale response answers when the application fails, 0s to 365d, where the application does not say.
        stale_if_error: Duration = "10m", within "0s"..="365d";
        /// How long a response with a validator is kept behind that, to be revalidated, 0s to 365d.
        keep_for_validation: Duration = "1h", within "0s"..="365d";
        /// Lifetime of a response without one, as a part of its age since Last-Modified; "0%" is off.
        heuristic: Percent = "0%";
        /// The longest lifetime by heuristic, 1s to 365d.
        heuristic_longest: Duration = "1d", within "1s"..="365d";
        /// Tags of all that is stored by it, to be purged by, 0 to 16.
        tags: Vec<Tag> = [], entries 0..=16;
        /// Query parameters that do not count, 0 to 64; otherwise utm_*, fbclid and gclid for anonymous, none for rfc9111.
        ignore_query: Option<Vec<Pattern>>, entries 0..=64;
        /// The only query parameters that count, 0 to 64; otherwise all.
        keep_query: Option<Vec<Pattern>>, entries 0..=64;
        /// Whether parameters in another order are the same.
        sort_query: bool = false;
        /// Cookies that the application means by "Vary: Cookie", 0 to 16.
        vary_cookies: Vec<Pattern> = [], entries 0..=16;
        /// Request headers that are part of the key, 0 to 16.
        key_headers: Vec<FieldName> = [], entries 0..=16;
        /// Cookies that are part of the key, 0 to 16.
        key_cookies: Vec<Pattern> = [], entries 0..=16;
        /// Further cookies that make a visitor somebody, 0 to 64.
        personal_cookies: Vec<Pattern> = [], entries 0..=64;
        /// Cookies of the built-in list that do not, 0 to 64.
        impersonal_cookies: Vec<Pattern> = [], entries 0..=64;
        /// Further cookies on which no page depends, 0 to 64.
        analytics_cookies: Vec<Pattern> = [], entries 0..=64;
        /// Whether Cache-Control of any client is obeyed, not only of clients.trusted_proxies; otherwise false for anonymous, true for rfc9111.
        honour_request: Option<bool>;
        /// Largest body that is stored, 1 KiB to 1 GiB.
        largest_object: u64 as Size = "8 MiB", within "1 KiB"..="1 GiB";
        /// Responses side by side under one key, 1 to 1000.
        variants: usize = 32, within 1..=1000;
        /// Whether responses are kept in Redis too, where there is a [redis].
        redis: bool = true;
        /// How long a page that looks personal is kept out, 0s to 365d; "0s" turns the guard off; otherwise 1h for anonymous, off for rfc9111.
        quarantine: Option<Duration>, within "0s"..="365d";
        /// Also send X-Cache-Hits and X-Cache-Misses.
        debug: bool = false;
    }
}

impl CachePolicySpec {
    /// The key by which this policy cannot be one for a kind of responses on a route whose own policy is
    /// `route`: it says something else of the request, which has been looked up by then.
    pub fn contradicts(&self, route: &Self) -> Option<&'static str> {
        fn differs<T: PartialEq>(one: &T, other: &T, unsaid: T) -> bool {
            *one != unsaid && one != other
        }
        let differing = [
            (
                "audience",
                differs(&self.audience, &route.audience, Audience::Anonymous),
            ),
            (
                "ignore_query",
                differs(&self.ignore_query, &route.ignore_query, None),
            ),
            (
                "keep_query",
                differs(&self.keep_query, &route.keep_query, None),
            ),
            (
                "sort_query",
                differs(&self.sort_query, &route.sort_query, false),
            ),
            (
                "honour_request",
                differs(&self.honour_request, &route.honour_request, None),
            ),
            (
                "key_headers",
                differs(&self.key_headers, &route.key_headers, Vec::new()),
            ),
        ];
        let lists = [
            ("vary_cookies", &self.vary_cookies, &route.vary_cookies),
            ("key_cookies", &self.key_cookies, &route.key_cookies),
            (
                "personal_cookies",
                &self.personal_cookies,
                &route.personal_cookies,
            ),
            (
                "impersonal_cookies",
                &self.impersonal_cookies,
                &route.impersonal_cookies,
            ),
            (
                "analytics_cookies",
                &self.analytics_cookies,
                &route.analytics_cookies,
            ),
        ];
        let lists = lists.map(|(key, one, other)| (key, differs(one, other, Vec::new())));
        let mut all = differing.into_iter().chain(lists);
        all.find_map(|(key, differs)| differs.then_some(key))
    }
}
