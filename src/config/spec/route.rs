//! `[[route]]`: which requests, and what becomes of them.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};

use crate::compression::media_type::MediaType;
use crate::config::declare::{Group, spec};
use crate::config::problem::{Located, Place};
use crate::config::read::{Fields, Reader};
use crate::config::schema::Key;
use crate::config::word::{Keyed, RedirectStatus, RouteName, Size};
use crate::route::HostPattern;
use crate::route::rewrite::Template;
use crate::target::PathPrefix;
use crate::telemetry::access::AccessMode;

spec! {
    /// Which requests, and what becomes of them: exactly one of upstream, redirect and respond.
    pub struct RouteSpec in "[[route]]" {
        /// Name in logs and messages, unique; otherwise host and path.
        name: Option<Located<RouteName>>;
        /// "shop.example", or "*.shop.example" for every name below it; otherwise any host.
        host: Option<Located<HostPattern>>;
        /// Prefix of whole segments: "/api" is for /api and /api/x, "/api/" only for what is below it.
        path: Located<PathPrefix> = "/";
        /// Methods, 1 to 32; otherwise all. A path that matches only with another method is answered with 405.
        methods: Option<Vec<Method>>, entries 1..=32;
        /// Takes the path of the route away before forwarding.
        strip_prefix: Located<bool> = false;
        /// Puts this in place of the path of the route before forwarding.
        replace_prefix: Option<Located<PathPrefix>>;
        /// In place of single timeouts of the upstream.
        timeouts: TimeoutOverridesSpec = {};
        /// In place of the upstream's max_body, 0 B to 1024 GiB.
        max_body: Option<u64> as Option<Size>, within "0 B"..="1024 GiB";
        /// Name of a header policy.
        headers: Located<String> = "basic";
        /// Name of a cache policy; otherwise nothing is stored.
        cache: Option<Located<String>>;
        /// Whether its responses are compressed, in place of compression.enabled.
        compress: Option<Located<bool>>;
        /// Cache policies for single media types of responses, the first that fits: { "image/*" = "assets" }.
        cache_types: Keyed<MediaType, Located<String>> = {};
        /// Names of limits, 0 to 16, in the order in which they are asked; the first that is used up refuses.
        limit: Vec<Located<String>> = [], entries 0..=16;
        /// In place of log.access.
        access_log: Option<AccessMode>;
        /// In place of log.slow_after, 1ms to 1d.
        slow_after: Option<Duration>, within "1ms"..="1d";
    }
    with
    /// What becomes of the request.
    action: ActionSpec

    /// The keys that say what becomes of a request.
    struct ActionKeys in "[[route]]" {
        /// Forwards to the application of this name.
        upstream: Option<Located<String>>;
        /// Answers with a redirect.
        redirect: Option<RedirectSpec>;
        /// Answers with a fixed response.
        respond: Option<RespondSpec>;
    }

    /// A redirect.
    pub struct RedirectSpec in "redirect" {
        /// 301, 302, 303, 307 or 308.
        status: StatusCode as RedirectStatus = 308;
        /// Target, with {host} (without port), {path}, {query} and {?query}, the last with its question mark if there is a query.
        to: Template;
    }

    /// A fixed response.
    pub struct RespondSpec in "respond" {
        /// Status, 200 to 599.
        status: StatusCode = 200, within 200..=599;
        /// Body as it is sent.
        body: String = "";
        /// Content-Type of the body.
        content_type: HeaderValue = "text/plain; charset=utf-8";
    }

    /// In place of single timeouts of the upstream.
    pub struct TimeoutOverridesSpec in "timeouts" {
        /// Connecting, with TLS, 1ms to 1h.
        connect: Option<Duration>, within "1ms"..="1h";
        /// From the request sent to the first byte of the response, 1ms to 1d.
        first_byte: Option<Duration>, within "1ms"..="1d";
        /// Between two reads of the response, 1ms to 1d.
        read: Option<Duration>, within "1ms"..="1d";
        /// Between two writes of the request, 1ms to 1d.
        write: Option<Duration>, within "1ms"..="1d";
        /// A WebSocket may stay silent this long, 1ms to 30d.
        websocket_idle: Option<Duration>, within "1ms"..="30d";
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum ActionSpec {
    /// Forwarded to the application of this name.
    Upstream(Located<String>),
    Redirect(RedirectSpec),
    Respond(RespondSpec),
}

impl Group for ActionSpec {
    const KEYS: &'static [&'static str] = ActionKeys::OWN_KEYS;

    fn read_group(fields: &Fields<'_>, table: &str, reader: &mut Reader<'_>) -> Option<Self> {
        let keys = ActionKeys::read_fields(fields, table, reader);
        let mut written: Vec<(&str, Place)> = Self::KEYS
            .iter()
            .filter(|key| fields.get(key).is_some())
            .map(|key| (*key, fields.key_place(key)))
            .collect();
        written.sort_by_key(|(_, place)| *place);
        match written.as_slice() {
            [] if Self::KEYS.iter().any(|key| fields.was_meant(key)) => return None,
            [] => {
                reader.note(
                    &fields.place,
                    "route does nothing; expected one of upstream, redirect, respond",
                );
                return None;
            }
            // Read on with one of them: what else is wrong with the route is to be said too.
            [(first, _), rest @ ..] => {
                for (key, place) in rest {
                    reader.note(
                        place,
                        format!(
                            "{key} beside {first}; expected only one of upstream, redirect, respond"
                        ),
                    );
                }
            }
        }
        let ActionKeys {
            upstream,
            redirect,
            respond,
            ..
        } = keys?;
        upstream
            .map(Self::Upstream)
            .or(redirect.map(Self::Redirect))
            .or(respond.map(Self::Respond))
    }

    fn group_keys() -> Vec<Key> {
        ActionKeys::keys().into_iter().map(Key::in_group).collect()
    }
}

impl RouteSpec {
    /// The given name, or host, path and methods: unique as long as no two routes are the same.
    pub fn label(&self) -> String {
        if let Some(name) = &self.name {
            return name.to_string();
        }
        let host = self
            .host
            .as_ref()
            .map(|host| host.to_string())
            .unwrap_or_default();
        let methods = self.methods.iter().flat_map(|methods| methods.iter());
        methods.fold(format!("{host}{}", *self.path), |label, method| {
            format!("{label} {method}")
        })
    }
}
