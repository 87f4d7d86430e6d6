//! One attempt after the other to have a backend answer, until one does or none may be made.
//!
//! A retry is allowed when the route names this failure, the request may be repeated
//! (RFC 9110 9.2.2), nothing has reached the client, and the upstream's budget has room.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, StatusCode, header};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::exchange::Exchange;
use super::refusal::Refusal;
use crate::accept::downstream::Downstream;
use crate::headers::forwarded::{
    Arrival, strip_hop_by_hop, strip_response_hop_by_hop, towards_application,
};
use crate::plan::{Action, Forward, HostSent, Retry, Route};
use crate::target::Host;
use crate::upstream::balance::{self, Affinity, Balance};
use crate::upstream::{Failure, Unavailable};

/// Pooled connections that may turn out dead for one request before that counts as a failure of
/// the backend: a restart of the application closes all that were idle at once.
const MAX_STALE: u32 = 3;

/// Chooses a backend and counts this request as its load.
pub async fn begin(session: &Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>, Refusal> {
    let (_, forward) = forwarding(exchange);
    let affinity = affinity(&forward, session.req_header(), exchange);
    let attempt = &mut exchange.attempt;
    // The load of a failed attempt ends before the next one is chosen.
    attempt.lease = None;
    let lease = forward
        .upstream
        .lease(affinity, &attempt.tried)
        .await
        .map_err(|why| match why {
            Unavailable::AllDown | Unavailable::NoBackends => Refusal::UpstreamUnavailable,
            Unavailable::QueueFull => Refusal::QueueFull,
            Unavailable::QueueTimeout => Refusal::QueueTimeout,
        })?;
    attempt.count += 1;
    attempt.backend = Some(lease.backend().clone());
    attempt.began = Some(Instant::now());
    attempt.connected = None;
    attempt.first_byte = None;
    let peer = match &forward.transport {
        Some(transport) => lease.peer_over(transport),
        None => lease.peer(),
    };
    attempt.upstream = Some(forward.upstream.clone());
    attempt.lease = Some(lease);
    Ok(Box::new(peer))
}

/// A connection to the backend is there, from the pool or new.
pub fn connected(exchange: &mut Exchange, reused: bool) {
    exchange.attempt.connected = Some(Instant::now());
    exchange.attempt.reused = reused;
}

/// Makes the request that the backend receives.
pub fn prepare(session: &Session, request: &mut RequestHeader, exchange: &Exchange) -> Result<()> {
    let (route, forward) = forwarding(exchange);
    let downstream = session
        .digest()
        .and_then(Downstream::of)
        .expect("accept gives every connection its facts");
    let asked = exchange.asked.as_ref().expect("a routed request was read");
    let path = forward.rewrite.apply(&asked.path);
    let target = match &asked.query {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    request.set_raw_path(target.as_bytes())?;

    let upgrade = session.is_upgrade_req();
    strip_hop_by_hop(request, upgrade);
    let client_host = asked.host.as_ref().map(Host::to_string).unwrap_or_default();
    let peer = downstream.peer_ip();
    towards_application(
        request,
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
    let host = match &forward.host {
        HostSent::Client if client_host.is_empty() => None,
        HostSent::Client => HeaderValue::try_from(client_host).ok(),
        HostSent::Backend => exchange
            .attempt
            .backend
            .as_ref()
            .and_then(|backend| HeaderValue::try_from(backend.label()).ok()),
        HostSent::Name(name) => Some(name.clone()),
    };
    if let Some(host) = host {
        request.insert_header(header::HOST, host)?;
    }
    route.headers.prepare(request);
    Ok(())
}

/// A response head arrived. Takes it, or asks for another attempt.
pub fn answered(
    session: &mut Session,
    response: &mut ResponseHeader,
    exchange: &mut Exchange,
) -> Result<()> {
    let status = response.status;
    let switching = status == StatusCode::SWITCHING_PROTOCOLS;
    if status.is_informational() && !switching {
        return Ok(());
    }
    exchange.attempt.first_byte = Some(Instant::now());
    let (_, forward) = forwarding(exchange);
    if forward.retry.on.status(status) {
        blame(exchange, Failure::Status(status));
        if may_retry(session, exchange, &forward.retry) {
            let mut error = Error::new_up(ErrorType::HTTPStatus(status.as_u16()));
            error.set_retry(true);
            return Err(error);
        }
    } else if let Some(lease) = &mut exchange.attempt.lease {
        lease.succeeded();
    }
    if switching {
        // How long a tunnel rests is for the backend's stream to say, which sees both directions:
        // a client that only listens is not silent while it is spoken to.
        session.set_read_timeout(None);
        session.set_write_timeout(Some(forward.websocket_idle));
    }
    strip_response_hop_by_hop(response, switching);
    Ok(())
}

/// No connection to the backend could be made. Nothing was sent, so any request may be repeated.
pub fn not_connected(
    session: &Session,
    exchange: &mut Exchange,
    mut error: Box<Error>,
) -> Box<Error> {
    let timed_out = matches!(error.etype(), ErrorType::ConnectTimedout);
    blame(
        exchange,
        if timed_out {
            Failure::Timeout
        } else {
            Failure::Connect
        },
    );
    let (_, forward) = forwarding(exchange);
    let retry = forward.retry.on.connect
        && session.response_written().is_none()
        && another_attempt(exchange, &forward.retry);
    error.set_retry(retry);
    exchange.refusal = Some(if timed_out {
        Refusal::UpstreamTimeout
    } else {
        Refusal::UpstreamConnect
    });
    error
}

/// The exchange with the backend broke off. Decides whose fault it was and what follows.
pub fn failed(
    session: &Session,
    exchange: &mut Exchange,
    mut error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    if let ErrorType::HTTPStatus(_) = error.etype() {
        // Decided already, by `answered` or by the limit on the body.
        return error;
    }
    let failure = failure_of(&error).filter(|_| !session.was_upgraded());
    let Some(failure) = failure else {
        // A tunnel ends as its ends like, or by its silence: that is no fault of the backend.
        error.set_retry(false);
        return error;
    };
    let (_, forward) = forwarding(exchange);
    let unanswered = exchange.attempt.first_byte.is_none();
    if reused && unanswered && failure == Failure::Reset && exchange.attempt.stale < MAX_STALE {
        // The backend had closed the pooled connection: no fault, and no attempt worth counting.
        exchange.attempt.stale += 1;
        if repeatable(session, &forward.retry) {
            exchange.attempt.count -= 1;
            error.set_retry(true);
            return error;
        }
    }
    blame(exchange, failure);
    let named = match failure {
        Failure::Timeout => forward.retry.on.timeout,
        _ => forward.retry.on.reset,
    };
    let retry = named && may_retry(session, exchange, &forward.retry);
    error.set_retry(retry);
    exchange.refusal = Some(match failure {
        Failure::Timeout => Refusal::UpstreamTimeout,
        Failure::Protocol => Refusal::UpstreamProtocol,
        _ => Refusal::UpstreamReset,
    });
    error
}

/// The answer had begun when the exchange broke off: what the client has is all it gets.
pub fn cut_short(exchange: &mut Exchange, error: &Error) {
    exchange.refusal = None;
    match error.esource() {
        ErrorSource::Upstream => exchange.truncated = true,
        _ => exchange.aborted = true,
    }
}

/// What a client is told of an error that nothing before has named. `None` when there is nobody
/// to tell.
pub fn refusal_of(error: &Error) -> Option<Refusal> {
    match error.esource() {
        ErrorSource::Upstream => Some(Refusal::UpstreamReset),
        ErrorSource::Downstream => {
            if let Some(malformed) = io_cause::<crate::http1::Malformed>(error) {
                return Some(Refusal::Malformed(*malformed));
            }
            match error.etype() {
                ErrorType::ReadTimedout => Some(Refusal::RequestTimeout),
                _ => None,
            }
        }
        ErrorSource::Internal | ErrorSource::Unset => Some(Refusal::Internal),
    }
}

/// Whose fault: `None` when it was the client's, or nobody's.
fn failure_of(error: &Error) -> Option<Failure> {
    if *error.esource() != ErrorSource::Upstream {
        return None;
    }
    if io_cause::<crate::http1::BadResponse>(error).is_some() {
        return Some(Failure::Protocol);
    }
    let timed_out = io_error(error).is_some_and(|error| error.kind() == io::ErrorKind::TimedOut);
    Some(match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Failure::Timeout,
        _ if timed_out => Failure::Timeout,
        ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 => Failure::Protocol,
        _ => Failure::Reset,
    })
}

/// The I/O error at the root of a pingora error.
fn io_error(error: &Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

/// What one of our own streams put into the I/O error at the root.
fn io_cause<E: StdError + 'static>(error: &Error) -> Option<&E> {
    io_error(error)?.get_ref()?.downcast_ref()
}

fn blame(exchange: &mut Exchange, failure: Failure) {
    if let Some(lease) = &mut exchange.attempt.lease {
        lease.failed(failure);
        exchange.attempt.tried.add(lease);
    }
}

/// Whether this request may be sent once more although a backend may have seen it.
fn repeatable(session: &Session, retry: &Retry) -> bool {
    let idempotent = session.req_header().method.is_idempotent();
    (idempotent || retry.non_idempotent)
        && session.response_written().is_none()
        // The start of the body is kept for this; a body that outgrew it cannot be sent again.
        && !session.retry_buffer_truncated()
}

fn may_retry(session: &Session, exchange: &Exchange, retry: &Retry) -> bool {
    repeatable(session, retry) && another_attempt(exchange, retry)
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

fn forwarding(exchange: &Exchange) -> (Arc<Route>, Arc<Forward>) {
    let route = exchange
        .route
        .clone()
        .expect("a forwarded request has its route");
    let Action::Forward(forward) = &route.action else {
        unreachable!("only a forwarding route has attempts");
    };
    let forward = forward.clone();
    (route, forward)
}

/// The hash that keeps a client or a value on one backend, where the balance asks for one.
fn affinity(forward: &Forward, request: &RequestHeader, exchange: &Exchange) -> Option<u64> {
    let Balance::ConsistentHash(affinity) = &forward.upstream.settings().balance else {
        return None;
    };
    match affinity {
        Affinity::ClientIp => Some(balance::hash(exchange.client.to_string().as_bytes())),
        Affinity::Header(name) => {
            let value = request.headers.get(name)?;
            Some(balance::hash(value.as_bytes()))
        }
        Affinity::Cookie(name) => {
            let lines = request.headers.get_all(header::COOKIE).iter();
            let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
            pairs.find_map(|pair| {
                let pair = pair.trim_ascii();
                let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
                Some(balance::hash(value))
            })
        }
    }
}
