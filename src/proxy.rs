//! The full lane: one request from its head to its record, as pingora calls it.
//!
//! Every hook is one or two calls into the module named after the step. Only this directory and
//! `accept` know pingora's `Session`.

pub mod attempt;
pub mod entry;
pub mod exchange;
pub mod ingress;
pub mod record;

use std::borrow::Cow;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderName, StatusCode, Version};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{
    FailToProxy, HttpProxy, ProxyHttp, ProxyServiceBuilder, ProxyWarnLogContext, Session,
};

use self::entry::Entry;
use self::exchange::Exchange;
use crate::downstream::Downstream;
use crate::headers::policy::OnWire;
use crate::plan::Plan;
use crate::refusal::{After, Answer, Asked, Refusal};
use crate::telemetry::Log;
use crate::upstream::Connector;

/// pingora's proxy over our hooks and our connections to the backends.
pub type Proxy = HttpProxy<FullLane, Connector>;

/// What outlives every request: the plan in force, and where records go.
pub struct Gateway {
    plan: ArcSwap<Plan>,
    draining: AtomicBool,
    log: Log,
}

impl Gateway {
    pub fn new(plan: Arc<Plan>, log: Log) -> Self {
        Self {
            plan: ArcSwap::new(plan),
            draining: AtomicBool::new(false),
            log,
        }
    }

    /// The plan in force now.
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Puts `plan` in force for requests that begin from now on; those under way keep theirs.
    /// Returns the plan before.
    pub fn swap_plan(&self, plan: Arc<Plan>) -> Arc<Plan> {
        self.plan.swap(plan)
    }

    /// From here on answers ask their client to close the connection.
    pub fn begin_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The bytes to answer a message with that is no request: pingora never sees it. It is
    /// recorded like any other. `read` is what arrived of the message.
    pub fn refuse_unparsed(
        &self,
        downstream: &Downstream,
        read: &[u8],
        refusal: Refusal,
        began: Instant,
    ) -> BytesMut {
        let mut exchange = Exchange::new(self.plan());
        exchange.began = began;
        entry::identify(&mut exchange, downstream, None);
        let answer = self.refusal_answer(&exchange, &refusal, None);
        let wire = answer.to_wire(After::Close, SystemTime::now());
        exchange.refusal = Some(refusal);
        exchange.status = answer.head.status.as_u16();
        record::unparsed(&self.log, &exchange, downstream, read, answer.body.len());
        wire
    }

    /// `refusal` dressed for this request.
    fn refusal_answer(
        &self,
        exchange: &Exchange,
        refusal: &Refusal,
        request: Option<&RequestHeader>,
    ) -> Answer {
        let accept = request.and_then(|request| joined(request, &http::header::ACCEPT));
        let asked = Asked {
            accept: accept.as_deref(),
            head: request.is_some_and(|request| request.method == http::Method::HEAD),
            request_id: &exchange.request_id,
        };
        let mut answer = refusal.answer(&asked, &exchange.plan.pages);
        entry::dress(exchange, &mut answer.head);
        answer
    }
}

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

/// Idle connections in all pools together; `keepalive` bounds them per backend long before.
const POOL: usize = 65_536;

/// pingora's own bound on attempts; a route's `retry.attempts` is never larger.
const MAX_ATTEMPTS: usize = 16;

/// A pingora error that carries one of our refusals to `fail_to_proxy`.
fn refused(exchange: &mut Exchange, refusal: Refusal) -> Box<Error> {
    let status = refusal.status().as_u16();
    exchange.refusal = Some(refusal);
    Error::new(ErrorType::HTTPStatus(status))
}

#[async_trait]
impl ProxyHttp for FullLane {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(self.0.plan())
    }

    /// None: what pingora's modules do is done here or not at all.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        if self.0.draining.load(Ordering::Relaxed) {
            session.set_keepalive(None);
        }
        let answer = match entry::enter(session, exchange) {
            Ok(Entry::Forward) => return Ok(false),
            Ok(Entry::Answer(mut answer)) => {
                entry::dress(exchange, &mut answer.head);
                *answer
            }
            Err(refusal) => {
                let answer = self
                    .0
                    .refusal_answer(exchange, &refusal, Some(session.req_header()));
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
        match attempt::begin(session, exchange).await {
            Ok(peer) => {
                exchange.attempt.peer = Some(peer);
                Ok(true)
            }
            Err(refusal) => {
                let answer = self
                    .0
                    .refusal_answer(exchange, &refusal, Some(session.req_header()));
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
        match exchange.attempt.peer.take() {
            Some(first) => Ok(first),
            None => attempt::begin(session, exchange)
                .await
                .map_err(|refusal| refused(exchange, refusal)),
        }
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::fd::RawFd,
        _digest: Option<&Digest>,
        exchange: &mut Exchange,
    ) -> Result<()> {
        attempt::connected(exchange, reused);
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
        _end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let Some(route) = &exchange.route else {
            return Ok(());
        };
        // HTTP/2 clients end a body with an empty DATA frame. Passed on as a chunk it would be the
        // last one, and the last one after it the beginning of somebody else's request.
        if body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        exchange.request_body_bytes += body.as_ref().map_or(0, Bytes::len) as u64;
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
        attempt::answered(session, response, exchange)
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
            attempt::frame_for_client(session, response);
            if session.is_http2() {
                entry::dress(exchange, response);
            } else {
                let mut lines = Vec::with_capacity(ADDED_BYTES);
                let mut response = OnWire {
                    head: response,
                    lines: &mut lines,
                };
                entry::dress(exchange, &mut response);
                entry::downstream(session).add_to_answer(lines);
            }
            if self.0.draining.load(Ordering::Relaxed) {
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
        reused: bool,
    ) -> Box<Error> {
        attempt::failed(session, exchange, error, reused)
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
        let answer = self
            .0
            .refusal_answer(exchange, &refusal, Some(session.req_header()));
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
        record::finish(&self.0.log, session, error, exchange);
        // The backend is free from here, not from when the client's next request replaces us.
        exchange.attempt.lease = None;
        let refused = error.is_some() && exchange.refusal.is_some();
        if refused && session.req_header().version < Version::HTTP_2 {
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

/// Writes an answer of ours. The connection is kept where the answer and the client allow.
async fn send(session: &mut Session, exchange: &mut Exchange, answer: Answer) -> Result<()> {
    let Answer { head, body } = answer;
    // Meant for a response that broke off before its head was out; ours has its own.
    entry::downstream(session).add_to_answer(Vec::new());
    exchange.status = head.status.as_u16();
    let head_only = session.req_header().method == http::Method::HEAD || body.is_empty();
    session
        .write_response_header(Box::new(head), head_only)
        .await?;
    if !head_only {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// The lines of one field, joined as RFC 9110 5.2 says.
fn joined<'a>(request: &'a RequestHeader, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut lines = request.headers.get_all(name).iter();
    let first = Cow::Borrowed(lines.next()?.as_bytes());
    Some(lines.fold(first, |all, line| {
        Cow::Owned([&all, line.as_bytes()].join(&b", "[..]))
    }))
}
