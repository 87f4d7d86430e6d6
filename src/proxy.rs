//! The full lane: one request from its head to its record, as pingora calls it.
//!
//! Every hook is one or two calls into `exchange`, where the decisions are, or into `attempt`, which
//! says them in pingora's words. Only this directory and `accept` know pingora's `Session`.

mod attempt;
mod encoding;

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::USER_AGENT;
use http::response::Parts;
use http::{Method, StatusCode};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{
    FailToProxy, HttpProxy, ProxyHttp, ProxyServiceBuilder, ProxyWarnLogContext, Session,
};

use crate::cache::Response;
use crate::downstream::Downstream;
use crate::exchange::entry::{self, Entry};
use crate::exchange::ingress::Parsed;
use crate::exchange::record::{self, Served};
use crate::exchange::{Exchange, attempt as decide, caching, limiting, planning};
use crate::gateway::Gateway;
use crate::headers::policy::OnWire;
use crate::limit::Phase;
use crate::refusal::{Answer, Refusal};
use crate::upstream::Connector;

/// pingora's proxy over our hooks and our connections to the backends.
pub type Proxy = HttpProxy<FullLane, Connector>;

/// The hooks.
pub struct FullLane(Arc<Gateway>);

/// Builds the proxy over `gateway`. `connector` makes its HTTP/1.1 connections.
pub fn build(gateway: Arc<Gateway>, connector: Connector) -> Arc<Proxy> {
    let conf = Arc::new(ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: POOL,
        max_retries: MAX_ATTEMPTS,
        ..ServerConf::default()
    });
    let never = Arc::new(|_, _, _: &_| -> futures::future::BoxFuture<'static, _> {
        unreachable!("no connection speaks a protocol of its own")
    });
    let service = ProxyServiceBuilder::new(&conf, FullLane(gateway))
        .custom(connector, never)
        .build();
    // pingora 0.9.1 builds a proxy with an own connector only inside a service, and a service
    // gives it away only by reference.
    let mut service = ManuallyDrop::new(service);
    let proxy: *const Proxy = service
        .app_logic_mut()
        .expect("a new service has its logic");
    // SAFETY: `service` is never dropped nor touched again, so the proxy moves out of it once.
    Arc::new(unsafe { std::ptr::read(proxy) })
}

/// Idle connections of HTTP/2 in all; those of HTTP/1.1 rest in our own pool.
const POOL: usize = 65_536;

/// pingora's own bound on attempts; a route's `retry.attempts` is never larger.
const MAX_ATTEMPTS: usize = 16;

/// A pingora error that carries one of our refusals to `fail_to_proxy`.
fn refused(exchange: &mut Exchange, refusal: Refusal) -> Box<Error> {
    let status = refusal.status().as_u16();
    exchange.refusal = Some(refusal);
    Error::new(ErrorType::HTTPStatus(status))
}

impl FullLane {
    fn refusal_answer(&self, session: &Session, exchange: &Exchange, refusal: &Refusal) -> Answer {
        let request = session.req_header();
        let (method, fields) = (&request.method, &request.headers);
        let mut answer = self.0.refusal_answer(exchange, refusal, method, fields);
        entry::dress(exchange, &mut answer.head);
        answer
    }
}

#[async_trait]
impl ProxyHttp for FullLane {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(self.0.plan())
    }

    /// None of pingora's: what they do is done here or not at all.
    fn init_downstream_modules(&self, modules: &mut HttpModules) {
        modules.add_module(Box::new(encoding::Encodings));
    }

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        if self.0.is_draining() {
            session.set_keepalive(None);
        }
        let mut entered = enter(session, exchange);
        if entered.is_ok() && !matches!(entered, Ok(Entry::Purge(_))) {
            let request = session.req_header();
            planning::choose(exchange, &request.headers, self.0.redis()).await;
            let (method, fields) = (&request.method, &request.headers);
            let taken = limiting::take(exchange, method, fields, Phase::Whole).await;
            if let Some(wait) = limiting::wait(exchange) {
                attempt::watched(session, wait).await?;
            }
            entered = taken.and(entered);
        }
        let answer = match entered {
            Ok(Entry::Forward) => return Ok(false),
            Ok(Entry::Answer(mut answer)) => {
                entry::dress(exchange, &mut answer.head);
                *answer
            }
            Ok(Entry::Purge(purge)) => {
                let mut answer = entry::purged(&self.0.purger().purge(purge).await);
                entry::dress(exchange, &mut answer.head);
                answer
            }
            Err(refusal) if refusal.is_silent() => return Err(refused(exchange, refusal)),
            Err(refusal) => {
                let answer = self.refusal_answer(session, exchange, &refusal);
                exchange.refusal = Some(refusal);
                answer
            }
        };
        send(session, exchange, answer).await?;
        Ok(true)
    }

    /// Takes the first lease here rather than in `upstream_peer`: after an error there pingora
    /// closes the client's connection, and a full queue is no reason for a new handshake.
    async fn proxy_upstream_filter(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
    ) -> Result<bool> {
        match attempt::begin(session, exchange).await? {
            Ok(()) => Ok(true),
            Err(refusal) => {
                let answer = self.refusal_answer(session, exchange, &refusal);
                exchange.refusal = Some(refusal);
                send(session, exchange, answer).await?;
                Ok(false)
            }
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
    ) -> Result<Box<HttpPeer>> {
        if !std::mem::take(&mut exchange.attempt.fresh) {
            attempt::begin(session, exchange)
                .await?
                .map_err(|refusal| refused(exchange, refusal))?;
            exchange.attempt.fresh = false;
        }
        Ok(attempt::peer(session, exchange))
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::fd::RawFd,
        digest: Option<&Digest>,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let rested = digest.is_some_and(Connector::had_rested);
        decide::connected(exchange, reused || rested);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        attempt::prepare(session, request, exchange)
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let Some(route) = &exchange.route else {
            return Ok(());
        };
        // HTTP/2 clients end a body with an empty DATA frame. Passed on as a chunk it would be the
        // last one, and the last one after it the beginning of somebody else's request.
        // Only at the end: pingora takes nothing for the end, and an empty piece is what it reads of
        // a chunk whose data has not come yet.
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        if let Some(piece) = body {
            exchange.request_body_bytes += piece.len() as u64;
            exchange.attempt.uploaded = Some(Instant::now());
        }
        if exchange.request_body_bytes > route.max_body {
            let limit = route.max_body;
            return Err(refused(exchange, Refusal::BodyTooLarge { limit }));
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        attempt::answered(session, response, exchange)?;
        let request = session.req_header();
        let answered = Response {
            status: response.status,
            fields: &response.headers,
        };
        caching::invalidate(
            &self.0,
            exchange,
            &request.method,
            &request.headers,
            &answered,
        );
        if exchange.cache.is_some() {
            attempt::strip_what_is_for_us(response);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let interim = response.status.is_informational()
            && response.status != StatusCode::SWITCHING_PROTOCOLS;
        // An interim answer comes before the end of the body by its nature; a final one that does
        // leaves the rest of the body unread, so its connection ends.
        session
            .as_downstream_mut()
            .set_close_on_response_before_downstream_finish(!interim);
        if !interim {
            exchange.status = response.status.as_u16();
            limiting::learn(exchange, |name| {
                let value = response.headers.get(name)?;
                limiting::cost(value.as_bytes())
            });
            attempt::frame_for_client(session, response);
            encoding::begin(session, response, exchange)?;
            if session.is_http2() {
                // Without pingora's second map: the names of HTTP/2 have no case to keep.
                let unset = ResponseHeader::build_no_case(StatusCode::OK, Some(0))?;
                let mut parts = Parts::from(std::mem::replace(response, unset));
                parts.headers.reserve(ADDED_FIELDS);
                entry::dress(exchange, &mut parts);
                *response = parts.into();
            } else {
                let mut lines = Vec::with_capacity(ADDED_BYTES);
                let mut response = OnWire {
                    head: response,
                    lines: &mut lines,
                };
                entry::dress(exchange, &mut response);
                downstream(session).add_to_answer(lines);
            }
            if self.0.is_draining() {
                session.set_keepalive(None);
            }
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        exchange: &mut Exchange,
        error: Box<Error>,
    ) -> Box<Error> {
        attempt::not_connected(session, exchange, error)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        exchange: &mut Exchange,
        _reused: bool,
    ) -> Box<Error> {
        attempt::failed(session, exchange, error)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        exchange: &mut Exchange,
    ) -> FailToProxy {
        let nothing_to_send = FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        };
        // After a 101 too: what is in a tunnel is none of our messages.
        let begun = session.response_written().is_some_and(|head| {
            !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS
        });
        if begun {
            attempt::cut_short(session, exchange, error);
            return nothing_to_send;
        }
        let refusal = match exchange.refusal.take() {
            Some(refusal) => refusal,
            None => match attempt::refusal_of(error) {
                Some(refusal) => refusal,
                None => {
                    exchange.aborted = true;
                    return nothing_to_send;
                }
            },
        };
        if refusal.is_silent() {
            exchange.refusal = Some(refusal);
            return nothing_to_send;
        }
        let answer = self.refusal_answer(session, exchange, &refusal);
        // pingora closes the connection after any failure to proxy: the client is to know.
        session.set_keepalive(None);
        exchange.refusal = Some(refusal);
        let error_code = answer.head.status.as_u16();
        if send(session, exchange, answer).await.is_err() {
            exchange.aborted = true;
            return nothing_to_send;
        }
        FailToProxy {
            error_code,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, exchange: &mut Exchange) {
        let client_left = error.is_some_and(|error| *error.esource() == ErrorSource::Downstream);
        exchange.aborted |= client_left && exchange.refusal.is_none();
        let request = session.req_header();
        let served = Served {
            method: &request.method,
            version: request.version,
            target: request.raw_path(),
            user_agent: request.headers.get(USER_AGENT),
            bytes_in: session.body_bytes_read() as u64,
            bytes_out: session.body_bytes_sent() as u64,
            tunnel: session.was_upgraded(),
        };
        record::finish(self.0.log(), exchange, downstream(session), &served);
        // The backend is free from here, not from when the client's next request replaces us.
        exchange.attempt.lease = None;
        exchange.limiting.taken.leave();
        if session.is_http2() {
            attempt::receive_rest(session, exchange).await;
        } else if error.is_some() && exchange.refusal.is_some() {
            // What the client still sends must not destroy the answer on its way.
            session.as_downstream_mut().shutdown().await;
        }
    }

    /// Every failure is in our own record, with its reason.
    fn suppress_error_log(&self, _: &Session, _: &Exchange, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Exchange,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// Room for the fields that a response gains: more than the `strict` preset has.
const ADDED_BYTES: usize = 1024;
const ADDED_FIELDS: usize = 16;

/// Writes an answer of ours. The connection is kept where the answer and the client allow.
async fn send(session: &mut Session, exchange: &mut Exchange, answer: Answer) -> Result<()> {
    let Answer { head, body } = answer;
    // Meant for a response that broke off before its head was out; ours has its own.
    downstream(session).add_to_answer(Vec::new());
    encoding::forget(session);
    exchange.status = head.status.as_u16();
    let head_only = session.req_header().method == Method::HEAD || body.is_empty();
    session
        .write_response_header(Box::new(head), head_only)
        .await?;
    if !head_only {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// Lets the request in or not, and takes from it what goes no further.
fn enter(session: &mut Session, exchange: &mut Exchange) -> Result<Entry, Refusal> {
    let downstream = downstream(session).clone();
    let request = session.req_header();
    let parsed = Parsed {
        version: request.version,
        method: &request.method,
        authority: request.uri.authority().map(|authority| authority.as_str()),
        target: request.raw_path(),
        headers: &request.headers,
        default_port: if downstream.tls.is_some() { 443 } else { 80 },
    };
    let entry = entry::enter(&parsed, &downstream, exchange)?;
    for name in entry::unwelcome(request.version, &request.headers, &exchange.plan) {
        session.req_header_mut().remove_header(&name);
    }
    Ok(entry)
}

/// The facts of the connection that a session runs on.
fn downstream(session: &Session) -> &Arc<Downstream> {
    session
        .digest()
        .and_then(Downstream::of)
        .expect("accept gives every connection its facts")
}
