//! One attempt after the other to have a backend answer, until one does or none may be made.
//!
//! A retry is allowed when the route names this failure, the request may be repeated
//! (RFC 9110 9.2.2), nothing has reached the client, and the upstream's budget has room.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, StatusCode, Version, header};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{HMap, RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use tracing::warn;

use super::entry;
use super::exchange::Exchange;
use crate::downstream::Downstream;
use crate::headers::forwarded::{
    Arrival, strip_hop_by_hop, strip_response_hop_by_hop, towards_application,
};
use crate::headers::host::HostSent;
use crate::plan::{Action, Forward, Retry, Route};
use crate::refusal::Refusal;
use crate::target::Host;
use crate::upstream::balance::{self, Affinity, Balance};
use crate::upstream::{Deadline, Failure, Protocol, Unavailable};

/// Pooled connections that may turn out dead for one request before that counts as a failure of
/// the backend: a restart of the application closes all that were idle at once.
const MAX_STALE: u32 = 3;

/// Room for what a request gains on its way to the application.
const FIELDS_ADDED: usize = 12;

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
    let again = session.req_header().method.is_idempotent() || forward.retry.non_idempotent;
    let peer = match &forward.transport {
        transport if !again => lease.peer_once(transport.as_deref()),
        Some(transport) => lease.peer_over(transport),
        None => lease.peer(),
    };
    attempt.upstream = Some(forward.upstream.clone());
    attempt.lease = Some(lease);
    // What was read of the body is sent, and counted, once more.
    exchange.request_body_bytes = 0;
    // Why the attempt before failed is no reason for what this one brings.
    exchange.refusal = None;
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
    if forward.upstream.settings().protocol != Protocol::H1 && request.version != Version::HTTP_2 {
        // pingora takes HTTP/1.1 when the TLS handshake chose no protocol: on a connection that has none of our
        // deadlines, and whose responses nobody judges.
        let error = Error::explain(
            ErrorType::InvalidH2,
            "the backend did not choose h2 by ALPN",
        );
        return Err(error.into_up());
    }
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

    // Without pingora's second map, which keeps how names were spelled and costs as much as the
    // first: applications read names in any case, and receive them in lower case.
    let end_stream = request.send_end_stream();
    let mut parts = http::request::Parts::from(std::mem::replace(request, unset()));
    let fields = &mut parts.headers;
    fields.reserve(FIELDS_ADDED);

    strip_hop_by_hop(fields, session.is_upgrade_req());
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
        fields.insert(header::HOST, host);
    }
    join_cookies(fields);
    route.headers.prepare(fields);

    *request = RequestHeader::from(parts);
    if let Some(end_stream) = end_stream {
        request.set_send_end_stream(end_stream);
    }
    request.set_raw_path(target.as_bytes())
}

/// A request to leave in place of one that is being rebuilt.
fn unset() -> RequestHeader {
    http::Request::new(()).into_parts().0.into()
}

/// HTTP/2 clients send a cookie a field; HTTP/1.1 has one field for all (RFC 9113 8.2.3), and an
/// application that joins lines by commas would read one cookie.
fn join_cookies(fields: &mut HMap) {
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
    if status.as_u16() > 599 {
        // HTTP/1.1 is judged byte by byte before; a codec of HTTP/2 passes any three digits.
        let error = Error::explain(ErrorType::InvalidHTTPHeader, "a status above 599");
        return Err(error.into_up());
    }
    exchange.attempt.first_byte = Some(Instant::now());
    let (_, forward) = forwarding(exchange);
    let unwanted = forward.retry.on.status(status);
    let attempt = &mut exchange.attempt;
    if let Some(lease) = &mut attempt.lease {
        // An application that answers is alive, whatever it says: only what is no answer counts
        // against a backend, or one page that says 503 would take all of them down.
        lease.succeeded();
        if unwanted {
            attempt.tried.add(lease);
        }
    }
    if unwanted && may_retry(session, exchange, &forward.retry) {
        let mut error = Error::new_up(ErrorType::HTTPStatus(status.as_u16()));
        error.set_retry(true);
        return Err(error);
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

/// Frames a final response for its client. It says our own version (RFC 9110 2.5), and HTTP/1.0
/// knows no chunks: there the body ends with the connection.
pub fn frame_for_client(session: &mut Session, response: &mut ResponseHeader) {
    response.set_version(Version::HTTP_11);
    if session.req_header().version == Version::HTTP_10
        && response.remove_header(&header::TRANSFER_ENCODING).is_some()
    {
        session.set_keepalive(None);
    }
}

/// No connection to the backend could be made. Nothing was sent, so any request may be repeated.
pub fn not_connected(
    session: &Session,
    exchange: &mut Exchange,
    mut error: Box<Error>,
) -> Box<Error> {
    let timed_out = matches!(error.etype(), ErrorType::ConnectTimedout);
    let failure = if timed_out {
        Failure::Timeout
    } else {
        Failure::Connect
    };
    blame(exchange, failure);
    let (_, forward) = forwarding(exchange);
    let retry = forward.retry.on.connect
        && session.response_written().is_none()
        && another_attempt(exchange, &forward.retry);
    error.set_retry(retry);
    log_failure(exchange, failure, &error);
    exchange.refusal = Some(if timed_out {
        Refusal::UpstreamTimeout
    } else {
        Refusal::UpstreamConnect
    });
    error
}

/// The exchange with the backend broke off. Decides whose fault it was and what follows.
pub fn failed(
    session: &mut Session,
    exchange: &mut Exchange,
    mut error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    if let ErrorType::HTTPStatus(_) = error.etype() {
        // Decided already, by `answered` or by the limit on the body.
        return error;
    }
    if Deadline::of(&error) == Some(Deadline::Request) {
        // No fault of the backend's, and pingora bounds no wait for a body of HTTP/2.
        exchange.refusal = Some(Refusal::RequestTimeout);
        error.set_retry(false);
        return error;
    }
    let failure = failure_of(&error);
    // How a tunnel ends says nothing of the backend: silence is the application's affair.
    let Some(failure) = failure.filter(|_| !session.was_upgraded()) else {
        error.set_retry(false);
        return error;
    };
    let (_, forward) = forwarding(exchange);
    let over_http2 = forward.upstream.settings().protocol != Protocol::H1;
    if over_http2 && failure == Failure::Timeout && !session.is_body_done() {
        // pingora's HTTP/2 waits for the response from the request's head on: it is the client
        // that is still sending.
        exchange.refusal = Some(Refusal::RequestTimeout);
        error.set_retry(false);
        return error;
    }
    let unanswered = exchange.attempt.first_byte.is_none();
    if reused && unanswered && failure == Failure::Reset && exchange.attempt.stale < MAX_STALE {
        // The backend had closed the pooled connection: no fault, and no attempt worth counting.
        exchange.attempt.stale += 1;
        let retry = repeatable(session, &forward.retry);
        error.set_retry(retry);
        if retry {
            exchange.attempt.count -= 1;
        } else {
            log_failure(exchange, failure, &error);
            exchange.refusal = Some(Refusal::UpstreamReset);
        }
        return error;
    }
    blame(exchange, failure);
    let named = match failure {
        Failure::Timeout => forward.retry.on.timeout,
        _ => forward.retry.on.reset,
    };
    let retry = named && may_retry(session, exchange, &forward.retry);
    error.set_retry(retry);
    log_failure(exchange, failure, &error);
    exchange.refusal = Some(match failure {
        Failure::Timeout => Refusal::UpstreamTimeout,
        Failure::Protocol => Refusal::UpstreamProtocol,
        _ => Refusal::UpstreamReset,
    });
    error
}

/// The answer had begun when the exchange broke off: what the client has is all it gets.
pub fn cut_short(session: &Session, exchange: &mut Exchange, error: &Error) {
    exchange.refusal = None;
    if session.req_header().version == Version::HTTP_10 {
        entry::downstream(session).end_with_reset();
    }
    match error.esource() {
        _ if io_cause(error) == Some(&Deadline::Idle) => {}
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

/// The I/O error at the root of a pingora error, whose `source` does not lead there.
fn io_error(error: &Error) -> Option<&io::Error> {
    error.root_cause().downcast_ref()
}

/// What one of our own streams put into the I/O error at the root.
fn io_cause<E: StdError + 'static>(error: &Error) -> Option<&E> {
    io_error(error)?.get_ref()?.downcast_ref()
}

/// One line for each attempt that failed: the record of the request says only how it ended.
fn log_failure(exchange: &Exchange, failure: Failure, error: &Error) {
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
        again = error.retry(),
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
