//! HTTP/1.x on one connection: reads each head, checks it, and hands the request to the lane that
//! serves it, with exactly its own bytes. Requests are served in order, pipelined ones too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures::future::BoxFuture;
use http::Version;
use pingora_core::apps::{HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::Shutdown as _;
use pingora_core::protocols::http::ServerSession;

use super::rest::Rest;
use super::{Acceptor, Shutdown};
use crate::downstream::connection::Connection;
use crate::express::{self, Outcome};
use crate::http1::Malformed;
use crate::http1::body::BodyScanner;
use crate::http1::head::{HeadScanner, RequestHead};
use crate::refusal::Refusal;

/// How long a connection that has asked nothing yet may still ask when the gateway is ending. Its
/// request may be on its way already, and its client has no earlier answer that would make a lost
/// connection a thing to try again.
const LAST_CALL: Duration = Duration::from_secs(1);

/// What the wait for a head ended in.
enum NextHead {
    Request(RequestHead),
    /// The connection speaks HTTP/2 with prior knowledge.
    Http2,
    /// The client is gone, or idled too long, or the gateway is ending.
    Closed,
    /// What came is none; it began to come at the instant.
    Refused(Refusal, Instant),
}

/// Serves the connection to its end.
pub async fn serve(acceptor: &Arc<Acceptor>, mut connection: Box<Connection>, shutdown: Shutdown) {
    let mut served = 0;
    let ending = std::pin::pin!(ended(shutdown.clone()));
    let timer = std::pin::pin!(tokio::time::sleep(acceptor.settings.header_timeout));
    let mut rest = Rest::new(ending, timer);
    loop {
        let next = next_head(acceptor, &mut connection, served == 0, &mut rest);
        let head = match next.await {
            NextHead::Request(head) => head,
            NextHead::Http2 => {
                return Box::pin(super::http2::serve(acceptor, connection, shutdown)).await;
            }
            NextHead::Closed => return,
            NextHead::Refused(refusal, began) => {
                let answer = acceptor.refuse(&connection, refusal, began);
                return Box::pin(connection.close_after(&answer)).await;
            }
        };
        served += 1;
        let settings = &acceptor.settings;
        // pingora reads only the first Connection field.
        let remaining = match head.keep_alive {
            true => settings.keepalive_requests.saturating_sub(served),
            false => 0,
        };
        let mut bytes = begin(&mut connection, &head);
        if express::is_plain(&head) && !settings.full_lane_only {
            let lane = express::serve(&acceptor.gateway, &mut connection, bytes, remaining > 0);
            match Box::pin(lane).await {
                Outcome::Kept => continue,
                Outcome::Closing => return connection.shutdown().await,
                Outcome::Broken => return,
                Outcome::Declined(head) => bytes = head,
            }
        }
        let exchange = exchange(acceptor, connection, &head, bytes, remaining, &shutdown);
        let Some(reused) = exchange.await else {
            return;
        };
        let (stream, _) = reused.consume();
        connection = stream
            .into_any()
            .downcast()
            .expect("pingora returns the stream that it was given");
    }
}

/// Takes the head from the connection, which from here on hands out the body of this request only.
fn begin(connection: &mut Connection, head: &RequestHead) -> BytesMut {
    let rewritten = head.rewritten(connection.pending());
    connection.discard(head.bytes.start);
    let body = BodyScanner::new(head.framing);
    let bytes = connection.begin_request(head.bytes.len(), body, head.upgrade);
    // What pingora would refuse by itself, unrecorded: it compares an absolute-form target with
    // Host byte by byte, and knows fewer characters in a query.
    rewritten.unwrap_or(bytes)
}

/// One request and its response in the full lane: the connection when it may serve another.
///
/// Not an `async fn`: pingora boxes its own future, and a session held across an await here would
/// be room in every connection, idle ones too.
fn exchange<'a>(
    acceptor: &'a Arc<Acceptor>,
    connection: Box<Connection>,
    head: &RequestHead,
    bytes: BytesMut,
    remaining: u32,
    shutdown: &'a Shutdown,
) -> BoxFuture<'a, Option<ReusedHttpStream>> {
    let settings = &acceptor.settings;
    let mut session = ServerSession::new_http1(connection);
    session.set_read_timeout(Some(settings.body_timeout));
    session.set_write_timeout(Some(settings.send_timeout));
    session.set_total_drain_timeout(Some(settings.body_timeout));
    session.set_keepalive_reuses_remaining(Some(remaining));
    if let ServerSession::H1(session) = &mut session {
        session.set_pipelined_prefix(bytes);
        // RFC 9110 15.2: its clients take an interim response for the final one.
        session.set_ignore_info_resp(head.version == Version::HTTP_10);
    }
    acceptor.proxy.process_new_http(session, shutdown)
}

/// Waits for one whole, valid head. `first`: nothing was served on this connection yet.
async fn next_head<F: Future<Output = ()>>(
    acceptor: &Acceptor,
    connection: &mut Connection,
    first: bool,
    rest: &mut Rest<'_, F>,
) -> NextHead {
    let settings = &acceptor.settings;
    if connection.pending().is_empty() {
        connection.release_buffers();
        // A new connection owes us a request soon; one that has served may rest longer.
        let (patience, last_call) = match first {
            true => (settings.header_timeout, LAST_CALL),
            false => (settings.idle_timeout, Duration::ZERO),
        };
        // Nobody asked anything, so nobody is owed an answer.
        let Some(Ok(1..)) = rest.read(connection, patience, last_call).await else {
            return NextHead::Closed;
        };
    }
    // The rest before it is the client's own, and no part of how long the request took. Most heads are there at once.
    let mut began = None;
    let mut scanner = HeadScanner::new(settings.limits);
    let h2c = connection.downstream().listener.h2c;
    loop {
        match scanner.scan(connection.pending()) {
            Ok(Some(head)) => {
                // A fault of the body that is here already is refused before a backend sees the head.
                let ahead = &connection.pending()[head.bytes.end..];
                return match BodyScanner::new(head.framing).feed(ahead) {
                    Ok(_) => NextHead::Request(head),
                    Err(malformed) => {
                        let began = began.unwrap_or_else(Instant::now);
                        NextHead::Refused(Refusal::Malformed(malformed), began)
                    }
                };
            }
            Ok(None) => {}
            Err(Malformed::Http2Preface) if h2c && first => return NextHead::Http2,
            Err(malformed) => {
                let began = began.unwrap_or_else(Instant::now);
                return NextHead::Refused(Refusal::Malformed(malformed), began);
            }
        }
        let began = *began.get_or_insert_with(Instant::now);
        let deadline = began + settings.header_timeout;
        match rest.read_until(connection, deadline).await {
            Some(Ok(1..)) => {}
            Some(Ok(0) | Err(_)) => return NextHead::Closed,
            None => return NextHead::Refused(Refusal::RequestTimeout, began),
        }
    }
}

/// Ready when the gateway is ending.
async fn ended(mut ending: Shutdown) {
    // An error means that nobody is left to end anything, which is an end as well.
    let _ = ending.wait_for(|ending| *ending).await;
}
