//! What a shared cache may do, as pure functions of request head, response head, times and policy
//! (RFC 9111 and its neighbours), which read no clock, wait for nothing and store nothing.
//!
//! ```text
//! request ──► policy ─ admission::may_look_up ─► key ─► vary ─► freshness ─► conditional ─► range
//!                          │ Bypass                              │ stale
//! response ─► stored ◄─ admission::may_store ◄────────────── revalidation
//!                          │ NotStored
//! ```
//!
//! - `policy`: what the operator decides; `pattern`, `cookies`: what is named in it
//! - `key`: one URL's place, of `query` and `frame`; `vary`: one variant's, of `preference`
//! - `directives`, `targeted`, `date`, `list`, `digits`: what the fields say
//! - `freshness`: until when; `reuse`: what one request may be given, and when
//! - `admission`: may it be looked up, may it be stored, or the one reason why not
//! - `stored`: the fields that are kept; `tags`: what an entry can be purged by
//! - `entity`, `conditional`, `range`, `partial`: 304, 206 and 416 from what is stored
//! - `revalidation`: what the origin is asked about a stale entry, and how its 304 merges
//! - `invalidation`: what a change made through us removes
//! - `guard`: which pages are not for everybody although they say so
//! - `status`: how all this is told (RFC 9211)
//!
//! Beside these functions, what they decide over:
//!
//! - `entry`: one stored response, ready to be sent, with its encoded `forms`; `body`: one that is still arriving
//! - `memory`: the entries of this gateway, large bodies in `pages`, which `runs` tells apart; `fill`: one question to the origin for many requests
//! - `tombstones`: what was purged, and so which entries are outdated; `scope`: what a purge covers
//! - `purger`: purges and quarantines at this gateway, and by `replication` at the others
//! - `counters`: how requests were answered, for who watches
//!
//! A stored response is read once, when it is admitted; a request for it then meets comparisons of
//! plain values only.

pub mod admission;
pub mod body;
pub mod conditional;
pub mod cookies;
pub mod counters;
pub mod date;
mod digits;
pub mod directives;
pub mod entity;
pub mod entry;
pub mod fill;
pub mod forms;
pub mod frame;
pub mod freshness;
pub mod guard;
pub mod hits;
pub mod invalidation;
pub mod key;
mod list;
pub mod memory;
mod pages;
pub mod partial;
pub mod pattern;
pub mod policy;
pub mod popular;
pub mod preference;
pub mod purger;
pub mod query;
pub mod range;
pub mod redis;
pub mod replication;
pub mod reuse;
pub mod revalidation;
mod runs;
pub mod scope;
pub mod status;
pub mod stored;
pub mod tags;
pub mod targeted;
pub mod tombstones;
pub mod vary;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod specification;
#[cfg(test)]
mod testing;

use std::time::SystemTime;

use http::{HeaderMap, Method, StatusCode};

pub use policy::{Audience, Policy};

use crate::target::PathRules;

/// A request head, its target already canonical.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a Method,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Lower case, with its port where the client wrote one: the application may repeat it.
    pub host: &'a str,
    /// Canonical by `path_rules`, as [`crate::target::Target`] makes it.
    pub path: &'a str,
    pub path_rules: PathRules,
    /// What followed the first `?`.
    pub query: Option<&'a str>,
    pub fields: &'a HeaderMap,
    /// Whether the client is one that may make the application work.
    pub is_trusted: bool,
}

/// The head of a final response.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub status: StatusCode,
    pub fields: &'a HeaderMap,
}

/// When a response was asked for, and when its head had arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub sent: SystemTime,
    pub received: SystemTime,
}
