//! An attempt in pingora's words: the peer it goes to, the request it sends, and whose fault an
//! error was. What follows from them is decided in `exchange::attempt`.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use http::{StatusCode, Version, header};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::downstream;
use crate::cache::stored::is_for_us;
use crate::exchange::Exchange;
use crate::exchange::attempt::{self, forwarding};
use crate::headers::forwarded::strip_response_hop_by_hop;
use crate::plan::Retry;
use crate::refusal::Refusal;
use crate::upstream::{Deadline, Failure, Protocol};

/// Begins an attempt. An error is a client that left while it waited.
pub async fn begin(session: &mut Session, exchange: &mut Exchange) -> Result<Result<(), Refusal>> {
    let affinity = attempt::affinity(exchange, &session.req_header().headers);
    watched(session, attempt::begin(exchange, affinity)).await
}

/// Does `work`, and gives it up when the client leaves.
pub async fn watched<T>(session: &mut Session, work: impl Future<Output = T>) -> Result<T> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        left = left(session) => Err(left),
    }
}

/// Ends when the client leaves, where that is seen without reading what it sends to the backend.
async fn left(session: &mut Session) -> Box<Error> {
    let downstream = session.as_downstream_mut();
    let is_seen = downstream.is_http2() || downstream.is_body_empty();
    if is_seen && let Err(error) = downstream.read_body_or_idle(true).await {
        return error.into_down();
    }
    std::future::pending().await
}

/// Reads and drops what a client of HTTP/2 still sends of its body, where its answer is whole already: a stream that is
/// reset while it is sent is an error to some clients, who then never look at the answer.
pub async fn receive_rest(session: &mut Session, exchange: &Exchange) {
    let is_whole = session.response_written().is_some() && !exchange.truncated && !exchange.aborted;
    if !is_whole || session.is_body_done() {
        return;
    }
    let mut dropped = 0;
    let rest = async {
        while let Ok(Some(piece)) = session.read_request_body().await {
            dropped += piece.len();
            if dropped > REST_BYTES {
                return;
            }
        }
    };
    // Who is too slow is told by the reset that nobody reads on.
    let _ = pingora_timeout::timeout(REST, rest).await;
}

/// What is read of a body that nobody wants, and for how long: enough for bodies that a client sends without asking.
const REST_BYTES: usize = 64 << 10;
const REST: Duration = Duration::from_secs(1);

/// Where the attempt that has begun goes.
pub fn peer(session: &Session, exchange: &Exchange) -> Box<HttpPeer> {
    let (_, forward) = forwarding(exchange);
    let lease = exchange.attempt.lease.as_ref();
    let lease = lease.expect("an attempt begins with a lease");
    let again = attempt::may_repeat(&session.req_header().method, &forward.retry);
    Box::new(match &forward.transport {
        transport if !again => lease.peer_once(transport.as_deref()),
        Some(transport) => lease.peer_over(transport),
        None => lease.peer(),
    })
}

/// Makes the request that the backend receives.
pub fn prepare(session: &Session, request: &mut RequestHeader, exchange: &Exchange) -> Result<()> {
    let (_, forward) = forwarding(exchange);
    if forward.upstream.settings().protocol != Protocol::H1 && request.version != Version::HTTP_2 {
        // pingora takes HTTP/1.1 when the TLS handshake chose no protocol: on a connection that has none of our
        // deadlines, and whose responses nobody judges.
        let error = Error::explain(
            ErrorType::InvalidH2,
            "the backend did not choose h2 by ALPN",
        );
        return Err(error.into_up());
    }
    // Without pingora's second map, which keeps how names were spelled and costs as much as the
    // first: applications read names in any case, and receive them in lower case.
    let end_stream = request.send_end_stream();
    let mut parts = http::request::Parts::from(std::mem::replace(request, unset()));
    attempt::prepare(
        &mut parts.headers,
        session.is_upgrade_req(),
        exchange,
        downstream(session),
    );
    *request = RequestHeader::from(parts);
    if let Some(end_stream) = end_stream {
        request.set_send_end_stream(end_stream);
    }
    request.set_raw_path(attempt::target(exchange).as_bytes())
}

/// A request to leave in place of one that is being rebuilt.
fn unset() -> RequestHeader {
    http::Request::new(()).into_parts().0.into()
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
        strip_response_hop_by_hop(response, false);
        return Ok(());
    }
    let (_, forward) = forwarding(exchange);
    if let Some(wrong) = too_much(response, forward.upstream.settings().max_response_head) {
        let error = Error::explain(ErrorType::InvalidHTTPHeader, wrong);
        return Err(error.into_up());
    }
    let repeatable = repeatable(session, &forward.retry);
    let wait = || Some(response.headers.get(header::RETRY_AFTER)?.as_bytes());
    if attempt::answered(exchange, status, wait, repeatable) {
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

/// Takes from a response what an application says only to a cache such as ours.
pub fn strip_what_is_for_us(response: &mut ResponseHeader) {
    let names = response.headers.keys().filter(|name| is_for_us(name));
    let for_us: Vec<_> = names.cloned().collect();
    for name in &for_us {
        response.remove_header(name);
    }
}

/// What a codec of HTTP/2 passes; HTTP/1.1 is judged byte by byte before.
fn too_much(response: &ResponseHeader, max_head: usize) -> Option<&'static str> {
    if response.status.as_u16() > 599 {
        return Some("a status above 599");
    }
    let lines = response.headers.iter();
    let bytes: usize = lines
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum();
    (bytes > max_head).then_some("the head is larger than max_response_head")
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

/// No connection to the backend could be made.
pub fn not_connected(
    session: &Session,
    exchange: &mut Exchange,
    mut error: Box<Error>,
) -> Box<Error> {
    let timed_out = matches!(error.etype(), ErrorType::ConnectTimedout);
    let unanswered = session.response_written().is_none();
    let again = attempt::not_connected(exchange, timed_out, &error, unanswered);
    error.set_retry(again);
    error
}

/// The exchange with the backend broke off. Decides whose fault it was and what follows.
pub fn failed(session: &mut Session, exchange: &mut Exchange, mut error: Box<Error>) -> Box<Error> {
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
    let repeatable = repeatable(session, &forward.retry);
    let again = attempt::broke_off(exchange, failure, &error, repeatable);
    error.set_retry(again);
    error
}

/// The answer had begun when the exchange broke off: what the client has is all it gets.
pub fn cut_short(session: &Session, exchange: &mut Exchange, error: &Error) {
    exchange.refusal = None;
    if session.req_header().version == Version::HTTP_10 {
        downstream(session).end_with_reset();
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

/// Whether this request may be sent once more although a backend may have seen it.
fn repeatable(session: &Session, retry: &Retry) -> bool {
    attempt::may_repeat(&session.req_header().method, retry)
        && session.response_written().is_none()
        // The start of the body is kept for this; a body that outgrew it cannot be sent again.
        && !session.retry_buffer_truncated()
}
