//! One attempt after the other to have a backend answer, until one does or none may be made.
//!
//! A retry is allowed when the route names this failure, the request may be repeated
//! (RFC 9110 9.2.2), nothing has reached the client, and the upstream's budget has room. How bytes
//! get to the backend and back is a lane's affair.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tracing::warn;

use super::{Attempt, Exchange};
use crate::downstream::Downstream;
use crate::headers::forwarded::{Arrival, strip_hop_by_hop, towards_application};
use crate::headers::host::HostSent;
use crate::headers::retry_after;
use crate::plan::{Action, Forward, Retry, Route};
use crate::refusal::Refusal;
use crate::target::Host;
use crate::upstream::balance::{self, Affinity, Balance};
use crate::upstream::{Failure, Protocol, Reception, Unavailable};

/// Pooled connections that may turn out dead for one request before that counts as a failure of
/// the backend: a restart of the application closes all that were idle at once.
const MAX_STALE: u32 = 3;

/// Room for what a request gains on its way to the application.
const FIELDS_ADDED: usize = 12;

/// Chooses a backend and counts this request as its load: the exchange holds the lease. Waits in the queue of the
/// upstream; its place there is given up when this is dropped.
///
/// `affinity` is that of the request's fields: see [`affinity`].
pub async fn begin(exchange: &mut Exchange, affinity: Option<u64>) -> Result<(), Refusal> {
    let (_, forward) = forwarding(exchange);
    let priority = exchange.priority;
    let attempt = &mut exchange.attempt;
    // The load of a failed attempt ends before the next one is chosen.
    attempt.lease = None;
    let lease = forward
        .upstream
        .lease(priority, affinity, &attempt.tried)
        .await
        .map_err(|why| match why {
            Unavailable::AllDown | Unavailable::NoBackends => Refusal::UpstreamUnavailable,
            Unavailable::QueueFull => Refusal::QueueFull,
            Unavailable::QueueTimeout => Refusal::QueueTimeout,
            Unavailable::Overloaded => Refusal::Overloaded,
            Unavailable::Paced { again } => Refusal::UpstreamPaced { retry_after: again },
            Unavailable::Paused { again } => Refusal::UpstreamPaused { retry_after: again },
        })?;
    attempt.count += 1;
    attempt.backend = Some(lease.backend().clone());
    attempt.began = Some(Instant::now());
    attempt.connected = None;
    attempt.uploaded = None;
    attempt.first_byte = None;
    attempt.upstream = Some(forward.upstream.clone());
    attempt.lease = Some(lease);
    attempt.fresh = true;
    // What was read of the body is sent, and counted, once more.
    exchange.request_body_bytes = 0;
    // Why the attempt before failed is no reason for what this one brings.
    exchange.refusal = None;
    Ok(())
}

/// Whether `method` may be sent to a second backend although the first may have acted on it.
pub fn may_repeat(method: &Method, retry: &Retry) -> bool {
    method.is_idempotent() || retry.non_idempotent
}

/// A connection to the backend is there, from the pool or new.
pub fn connected(exchange: &mut Exchange, reused: bool) {
    exchange.attempt.connected = Some(Instant::now());
    exchange.attempt.reused = reused;
}

/// The target that the backend is asked for.
pub fn target(exchange: &Exchange) -> String {
    let (_, forward) = forwarding(exchange);
    let asked = exchange.asked.as_ref().expect("a routed request was read");
    let path = forward.rewrite.apply(&asked.path);
    match &asked.query {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    }
}

/// Makes the fields of a request those that the backend receives. `upgrade`: it asks to leave HTTP.
pub fn prepare(
    fields: &mut HeaderMap,
    upgrade: bool,
    exchange: &Exchange,
    downstream: &Downstream,
) {
    let (route, forward) = forwarding(exchange);
    let asked = exchange.asked.as_ref().expect("a routed request was read");
    fields.reserve(FIELDS_ADDED);
    strip_hop_by_hop(fields, upgrade);
    let client_host = asked.host.as_ref().map(Host::to_string).unwrap_or_default();
    let peer = downstream.peer_ip();
    towards_application(
        fields,
        &Arrival {
            peer,
            peer_is_trusted: exchange.plan.trusted.contains(peer),
            client: exchange.client,
            tls: downstream.tls.is_some(),
            host: &client_host,
            port: downstream.local.map(|local| local.port()),
            request_id: &exchange.request_id,
            forwarded: exchange.plan.forwarded,
        },
    );
    let backend = || HeaderValue::try_from(exchange.attempt.backend.as_ref()?.label()).ok();
    let host = match &forward.host {
        // HTTP/2 has no request without an authority; HTTP/1.0 has requests without a Host.
        HostSent::Client if client_host.is_empty() => {
            backend().filter(|_| forward.upstream.settings().protocol != Protocol::H1)
        }
        HostSent::Client => HeaderValue::try_from(client_host).ok(),
        HostSent::Backend => backend(),
        HostSent::Name(name) => Some(name.clone()),
    };
    if let Some(host) = host {
        fields.insert(header::HOST, host);
    }
    join_cookies(fields);
    route.headers.prepare(fields);
}

/// HTTP/2 clients send a cookie a field; HTTP/1.1 has one field for all (RFC 9113 8.2.3), and an
/// application that joins lines by commas would read one cookie.
fn join_cookies(fields: &mut HeaderMap) {
    let mut lines = fields.get_all(header::COOKIE).iter();
    if lines.nth(1).is_none() {
        return;
    }
    let lines = fields.get_all(header::COOKIE).iter();
    let joined = lines
        .map(HeaderValue::as_bytes)
        .collect::<Vec<_>>()
        .join(&b"; "[..]);
    let joined = HeaderValue::from_bytes(&joined).expect("valid values joined by a valid text");
    fields.insert(header::COOKIE, joined);
}

/// A final response head, or a 101, arrived. `true` asks for another attempt in its place.
///
/// `retry_after` reads its field of that name. `repeatable`: the request may be sent once more, and nothing of an
/// answer has reached the client.
pub fn answered<'r>(
    exchange: &mut Exchange,
    status: StatusCode,
    retry_after: impl FnOnce() -> Option<&'r [u8]>,
    repeatable: bool,
) -> bool {
    exchange.attempt.first_byte = Some(Instant::now());
    let (_, forward) = forwarding(exchange);
    let unwanted = forward.retry.on.status(status);
    let attempt = &mut exchange.attempt;
    let reception = reception(status, retry_after, attempt);
    if let Some(lease) = &mut attempt.lease {
        // An application that answers is alive, whatever it says: only what is no answer counts
        // against a backend, or one page that says 503 would take all of them down.
        lease.succeeded();
        lease.received(reception);
        if unwanted {
            attempt.tried.add(lease);
        }
    }
    // The answer that is there is better than a wait in vain for another one.
    let in_time = || !forward.upstream.is_left_alone();
    unwanted && repeatable && in_time() && another_attempt(exchange, &forward.retry)
}

/// What an answer says of how much may go to the upstream.
fn reception<'r>(
    status: StatusCode,
    retry_after: impl FnOnce() -> Option<&'r [u8]>,
    attempt: &Attempt,
) -> Reception {
    let wait = || retry_after::parse(retry_after()?, SystemTime::now());
    match status {
        StatusCode::SWITCHING_PROTOCOLS => Reception::Tunnel,
        StatusCode::TOO_MANY_REQUESTS => Reception::TooMany {
            retry_after: wait(),
        },
        StatusCode::SERVICE_UNAVAILABLE => match wait() {
            Some(retry_after) => Reception::Away { retry_after },
            None => Reception::Failed,
        },
        _ if status.is_server_error() => Reception::Failed,
        _ => match attempt.work_time() {
            Some(took) => Reception::Served { took },
            None => Reception::Failed,
        },
    }
}

/// No connection to the backend could be made. `true` asks for another attempt.
///
/// Nothing was sent, so any request may be repeated, unless the client has had something already:
/// then `unanswered` is false.
pub fn not_connected(
    exchange: &mut Exchange,
    timed_out: bool,
    error: &dyn Display,
    unanswered: bool,
) -> bool {
    let failure = if timed_out {
        Failure::Timeout
    } else {
        Failure::Connect
    };
    blame(exchange, failure);
    let (_, forward) = forwarding(exchange);
    let again = forward.retry.on.connect && unanswered && another_attempt(exchange, &forward.retry);
    log_failure(exchange, failure, error, again);
    exchange.refusal = Some(if timed_out {
        Refusal::UpstreamTimeout
    } else {
        Refusal::UpstreamConnect
    });
    again
}

/// The exchange with the backend broke off by the backend's fault. `true` asks for another attempt.
///
/// `repeatable` as for [`answered`].
pub fn broke_off(
    exchange: &mut Exchange,
    failure: Failure,
    error: &dyn Display,
    repeatable: bool,
) -> bool {
    let (_, forward) = forwarding(exchange);
    let unanswered = exchange.attempt.first_byte.is_none();
    let reused = exchange.attempt.reused;
    if reused && unanswered && failure == Failure::Reset && exchange.attempt.stale < MAX_STALE {
        // The backend had closed the pooled connection: no fault, and no attempt worth counting.
        exchange.attempt.stale += 1;
        if repeatable {
            exchange.attempt.count -= 1;
        } else {
            log_failure(exchange, failure, error, false);
            exchange.refusal = Some(Refusal::UpstreamReset);
        }
        return repeatable;
    }
    if failure == Failure::Timeout
        && unanswered
        && let Some(took) = exchange.attempt.work_time()
        && let Some(lease) = &mut exchange.attempt.lease
    {
        lease.took(took);
    }
    blame(exchange, failure);
    let named = match failure {
        Failure::Timeout => forward.retry.on.timeout,
        _ => forward.retry.on.reset,
    };
    let again = named && repeatable && another_attempt(exchange, &forward.retry);
    log_failure(exchange, failure, error, again);
    exchange.refusal = Some(match failure {
        Failure::Timeout => Refusal::UpstreamTimeout,
        Failure::Protocol => Refusal::UpstreamProtocol,
        _ => Refusal::UpstreamReset,
    });
    again
}

/// One line for each attempt that failed: the record of the request says only how it ended.
fn log_failure(exchange: &Exchange, failure: Failure, error: &dyn Display, again: bool) {
    let attempt = &exchange.attempt;
    let (Some(upstream), Some(backend)) = (&attempt.upstream, &attempt.backend) else {
        return;
    };
    warn!(
        target: "upstream",
        upstream = %upstream.settings().name,
        backend = %backend,
        why = %failure,
        %error,
        attempt = attempt.count,
        again,
        id = exchange.request_id.as_str(),
        "attempt failed"
    );
}

fn blame(exchange: &mut Exchange, failure: Failure) {
    if let Some(lease) = &mut exchange.attempt.lease {
        lease.failed(failure);
        exchange.attempt.tried.add(lease);
    }
}

/// Takes one retry of the budget. Asked last: what it grants must be used.
fn another_attempt(exchange: &Exchange, retry: &Retry) -> bool {
    exchange.attempt.count < retry.attempts
        && exchange
            .attempt
            .upstream
            .as_ref()
            .is_some_and(|upstream| upstream.may_retry())
}

/// The route of a forwarded request, and where it leads.
pub fn forwarding(exchange: &Exchange) -> (&Route, Arc<Forward>) {
    let route = exchange
        .route
        .as_deref()
        .expect("a forwarded request has its route");
    let Action::Forward(forward) = &route.action else {
        unreachable!("only a forwarding route has attempts");
    };
    (route, forward.clone())
}

/// The hash that keeps a client or a value on one backend, where the balance asks for one.
pub fn affinity(exchange: &Exchange, fields: &HeaderMap) -> Option<u64> {
    let (_, forward) = forwarding(exchange);
    let Balance::ConsistentHash(affinity) = &forward.upstream.settings().balance else {
        return None;
    };
    match affinity {
        Affinity::ClientIp => Some(balance::hash(exchange.client.to_string().as_bytes())),
        Affinity::Header(name) => {
            let value = fields.get(name)?;
            Some(balance::hash(value.as_bytes()))
        }
        Affinity::Cookie(name) => {
            let lines = fields.get_all(header::COOKIE).iter();
            let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
            pairs.find_map(|pair| {
                let pair = pair.trim_ascii();
                let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
                Some(balance::hash(value))
            })
        }
    }
}
