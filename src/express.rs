//! The express lane: plain requests, from their head to their record, without pingora's proxy.
//!
//! A plain request is a GET or HEAD of HTTP/1.1 or HTTP/2 without a body, an upgrade or an expectation, for a backend
//! that speaks HTTP/1.1. Its decisions are those of the full lane, by the same functions; only how bytes come and go is
//! this lane's own. What it does not serve it leaves to the full lane as it came.

mod cached;
mod client;
mod encoding;
mod fetch;
mod others;
mod ready;
mod request;
mod stored;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{RETRY_AFTER, TE};
use http::{Method, StatusCode};
use pingora_core::protocols::http::v2::server::HttpSession;

use self::client::{Client, Http1, Http2, Own};
use self::ready::Head;
pub use self::request::Request;
use crate::cache::status::Disposition;
use crate::compression::encoder::Encoder;
use crate::downstream::Downstream;
use crate::downstream::connection::Connection;
use crate::exchange::attempt::{self, forwarding};
use crate::exchange::compressing::For;
use crate::exchange::entry::{self, Entry};
use crate::exchange::limiting;
use crate::exchange::planning;
use crate::exchange::record::{self, Served};
use crate::exchange::{Exchange, ingress::Parsed};
use crate::gateway::Gateway;
use crate::headers::cache::Told;
use crate::headers::forwarded::strip_response_hop_by_hop;
use crate::http1::{BadResponse, Framing, Malformed, RequestHead, ResponseHead};
use crate::limit::Phase;
use crate::moment::Moment;
use crate::plan::Forward;
use crate::refusal::{Answer, Refusal};
use crate::upstream::{ConnectFailed, Failure, Origin, Priority, Protocol};

/// What became of a request, and with it of its connection.
pub enum Outcome {
    /// Answered; the connection may carry another request.
    Kept,
    /// Answered for the last time; the connection is to be closed in peace.
    Closing,
    /// The answer broke off, or nobody is there to read it; the connection is to be dropped.
    Broken,
    /// None of this lane's; the head as it was given.
    Declined(BytesMut),
}

/// The client left, or takes nothing of what it asked for.
struct Gone;

/// How the forwarding of a request ended, if not with a whole answer.
enum Unanswered {
    Refused(Refusal),
    /// The answer had begun, or there is nobody to tell.
    Broken,
}

impl From<Gone> for Unanswered {
    fn from(_: Gone) -> Self {
        Self::Broken
    }
}

/// Whether this lane may serve a request of HTTP/1.x with this head.
pub fn is_plain(head: &RequestHead) -> bool {
    matches!(head.method, Method::GET | Method::HEAD)
        && head.version == http::Version::HTTP_11
        && head.framing == Framing::None
        && !head.upgrade
        && !head.expect_continue
}

/// Whether this lane may serve this stream of HTTP/2.
pub fn is_plain_stream(session: &HttpSession) -> bool {
    let request = session.req_header();
    matches!(request.method, Method::GET | Method::HEAD)
        && session.is_body_done()
        && !request.headers.contains_key(http::header::EXPECT)
}

/// Serves the request whose head is `head`, which the connection has been told to begin. `keep`: the client and the
/// settings allow another request after it.
pub async fn serve(
    gateway: &Arc<Gateway>,
    connection: &mut Connection,
    head: BytesMut,
    keep: bool,
) -> Outcome {
    let downstream = connection.downstream().clone();
    let head = head.freeze();
    let client = Client::Http1(Http1 {
        connection,
        head: head.clone(),
        keep: keep && !gateway.is_draining(),
        chunked: false,
    });
    let ended = serve_client(gateway, &downstream, client).await;
    match ended {
        Ended::Answered { keep: true } => Outcome::Kept,
        Ended::Answered { keep: false } => Outcome::Closing,
        Ended::Broken => Outcome::Broken,
        Ended::Declined => Outcome::Declined(head.into()),
    }
}

/// Serves a stream of HTTP/2; `false` is none of this lane's.
pub async fn serve_stream(
    gateway: &Arc<Gateway>,
    downstream: &Arc<Downstream>,
    session: &mut HttpSession,
) -> bool {
    let client = Client::Http2(Http2(session));
    match serve_client(gateway, downstream, client).await {
        Ended::Declined => return false,
        Ended::Answered { .. } => {}
        Ended::Broken => session.shutdown(),
    }
    true
}

/// What a visit of our own was answered.
pub struct Visit {
    pub status: StatusCode,
    /// What the cache did, where the route has one.
    pub cache: Option<Disposition>,
    /// As much of the body as was to be kept; `None` if it broke off or there was more.
    pub body: Option<Bytes>,
}

impl Visit {
    /// Whether the answer had been stored before.
    pub fn is_hit(&self) -> bool {
        matches!(self.cache, Some(Disposition::Hit | Disposition::Stale))
    }
}

/// Has the gateway answer a request of its own as it would a visitor's, and keeps a body of up to `most` bytes.
/// `None`: this lane does not serve it.
pub async fn visit(
    gateway: &Arc<Gateway>,
    downstream: &Arc<Downstream>,
    request: Request,
    most: usize,
) -> Option<Visit> {
    let client = Client::Own(Box::new(Own::new(request, most)));
    let mut lane = Lane::begin(gateway, downstream, client).ok()?;
    let ended = lane.serve().await;
    let cache = lane.exchange.cache.as_ref().map(Told::disposition);
    let Client::Own(own) = lane.client else {
        unreachable!("a lane keeps its client");
    };
    Some(Visit {
        status: StatusCode::from_u16(lane.exchange.status).ok()?,
        cache,
        body: own
            .body()
            .filter(|_| matches!(ended, Ended::Answered { .. })),
    })
}

/// How the service of a client ended.
enum Ended {
    Answered { keep: bool },
    Broken,
    Declined,
}

async fn serve_client(
    gateway: &Arc<Gateway>,
    downstream: &Arc<Downstream>,
    client: Client<'_>,
) -> Ended {
    // The scanner and this lane disagree: let the other lane be the judge.
    let Ok(mut lane) = Lane::begin(gateway, downstream, client) else {
        return Ended::Declined;
    };
    lane.serve().await
}

/// One request on its way.
struct Lane<'a> {
    gateway: &'a Arc<Gateway>,
    client: Client<'a>,
    downstream: &'a Arc<Downstream>,
    exchange: Exchange,
    request: Request,
    /// What the body of the answer goes through.
    encoder: Option<Encoder>,
    /// Body bytes written to the client.
    sent: u64,
}

impl<'a> Lane<'a> {
    fn begin(
        gateway: &'a Arc<Gateway>,
        downstream: &'a Arc<Downstream>,
        client: Client<'a>,
    ) -> Result<Self, Malformed> {
        let request = client.request()?;
        Ok(Self {
            gateway,
            client,
            downstream,
            exchange: Exchange::new(gateway.plan()),
            request,
            encoder: None,
            sent: 0,
        })
    }

    async fn serve(&mut self) -> Ended {
        let mut entered = self.enter();
        if matches!(entered, Ok(Entry::Forward)) {
            let (_, forward) = forwarding(&self.exchange);
            if forward.upstream.settings().protocol != Protocol::H1 {
                return Ended::Declined;
            }
        }
        if entered.is_ok() {
            let redis = self.gateway.redis();
            planning::choose(&mut self.exchange, &self.request.fields, redis).await;
        }
        let phase = limiting::first_phase(&self.exchange, &self.request.method);
        let mut is_here = true;
        if entered.is_ok() {
            match self.take(phase).await {
                Ok(()) => {}
                Err(Unanswered::Refused(refusal)) => entered = Err(refusal),
                Err(Unanswered::Broken) => is_here = false,
            }
        }
        let answered = match entered {
            _ if !is_here => Err(Unanswered::Broken),
            Ok(Entry::Forward) => {
                let (route, forward) = forwarding(&self.exchange);
                match route.cache.clone() {
                    Some(caching) => self.cached(&forward, &caching).await,
                    // In memory of its own, as all here that asks the origin: a hit would carry the room for it.
                    None => Box::pin(self.forward(&forward)).await,
                }
            }
            Ok(Entry::Answer(answer)) => self.answer(answer).await.map_err(Unanswered::from),
            Ok(Entry::Purge(_)) => unreachable!("only GET and HEAD come here"),
            Err(refusal) => Err(Unanswered::Refused(refusal)),
        };
        let whole = match answered {
            Ok(()) => true,
            Err(Unanswered::Refused(refusal)) => self.refuse(refusal).await.is_ok(),
            Err(Unanswered::Broken) => false,
        };
        self.record();
        self.request.spend();
        match whole {
            true => Ended::Answered {
                keep: self.client.keeps(),
            },
            false => Ended::Broken,
        }
    }

    fn enter(&mut self) -> Result<Entry, Refusal> {
        let parsed = Parsed {
            version: self.client.version(),
            method: &self.request.method,
            authority: self.request.authority.as_ref().map(|host| host.as_str()),
            target: &self.request.target,
            headers: &self.request.fields,
            default_port: if self.downstream.tls.is_some() {
                443
            } else {
                80
            },
        };
        let entry = entry::enter(&parsed, self.downstream, &mut self.exchange)?;
        if let Client::Own(_) = self.client {
            self.exchange.priority = Priority::Low;
        }
        self.shed();
        Ok(entry)
    }

    /// Takes what the request costs of the limits of its route, and waits for its turn.
    async fn take(&mut self, phase: Phase) -> Result<(), Unanswered> {
        let Request { method, fields, .. } = &self.request;
        let taken = limiting::take(&mut self.exchange, method, fields, phase).await;
        if let Some(wait) = limiting::wait(&mut self.exchange) {
            let waited = watched(&mut self.client, Box::pin(wait)).await;
            self.present(waited)?;
        }
        taken.map_err(Unanswered::Refused)
    }

    /// Takes from the request what goes no further.
    fn shed(&mut self) {
        let fields = &mut self.request.fields;
        for name in entry::unwelcome(self.client.version(), fields, &self.exchange.plan) {
            fields.remove(name);
        }
    }

    /// Has a backend answer, and passes its answer on.
    async fn forward(&mut self, forward: &Forward) -> Result<(), Unanswered> {
        let (origin, head) = self.reach(forward).await?;
        self.deliver(head, Bytes::new(), origin).await
    }

    /// Has a backend answer: its final response head, and where the body comes from.
    async fn reach(&mut self, forward: &Forward) -> Result<(Origin, ResponseHead), Unanswered> {
        let again = attempt::may_repeat(&self.request.method, &forward.retry);
        let mut interim = false;
        loop {
            let affinity = attempt::affinity(&self.exchange, &self.request.fields);
            let begun = attempt::begin(&mut self.exchange, affinity);
            let begun = watched(&mut self.client, begun).await;
            if let Err(refusal) = self.present(begun)? {
                return Err(Unanswered::Refused(refusal));
            }
            let lease = self.exchange.attempt.lease.as_ref();
            let lease = lease.expect("an attempt begins with a lease");
            // Where one connection has died of its rest, others have: an application restarted.
            let rested = again && self.exchange.attempt.stale == 0;
            let connect = Origin::connect(lease, forward.transport.as_ref(), rested);
            let connected = watched(&mut self.client, connect).await;
            let mut origin = match self.present(connected)? {
                Ok((origin, rested)) => {
                    attempt::connected(&mut self.exchange, rested);
                    origin
                }
                Err(failed) => {
                    let too_slow = matches!(failed, ConnectFailed::TooSlow { .. });
                    let exchange = &mut self.exchange;
                    if attempt::not_connected(exchange, too_slow, &failed, !interim) {
                        continue;
                    }
                    return Err(self.out_of_attempts());
                }
            };
            let failed = match self.ask(&mut origin, &mut interim).await? {
                Ok(response) => {
                    let repeatable = again && !interim;
                    let (status, exchange) = (response.status(), &mut self.exchange);
                    let wait = || response.values(&RETRY_AFTER).next();
                    if !attempt::answered(exchange, status, wait, repeatable) {
                        return Ok((origin, response));
                    }
                    None
                }
                Err(error) => Some(error),
            };
            // The fields were made those of one backend.
            self.request = self.client.request().expect("read once already");
            self.shed();
            if let Some(error) = failed {
                let repeatable = again && !interim;
                if !attempt::broke_off(&mut self.exchange, fault(&error), &error, repeatable) {
                    return Err(self.out_of_attempts());
                }
            }
        }
    }

    /// Sends the request and waits for the final response head; interim ones are passed on, which `interim` tells.
    async fn ask(
        &mut self,
        origin: &mut Origin,
        interim: &mut bool,
    ) -> Result<io::Result<ResponseHead>, Gone> {
        let target = attempt::target(&self.exchange);
        let fields = &mut self.request.fields;
        attempt::prepare(fields, false, &self.exchange, self.downstream);
        // Trailers are not passed on: nobody is to be asked for them.
        fields.remove(TE);
        let wire = self.request.to_wire(&target);
        let sent = watched(&mut self.client, origin.send(&wire)).await;
        if let Err(error) = self.present(sent)? {
            return Ok(Err(error));
        }
        loop {
            let head = watched(&mut self.client, origin.head(&self.request.method)).await;
            let mut head = match self.present(head)? {
                Ok(head) if head.status().is_informational() => head,
                other => return Ok(other),
            };
            strip_response_hop_by_hop(&mut head, false);
            let written = self.client.interim(&head).await;
            *interim |= self.taken(written)?;
        }
    }

    /// Passes a final response on, piece by piece as it comes. `beginning` of its body is here already.
    async fn deliver(
        &mut self,
        mut head: ResponseHead,
        beginning: Bytes,
        mut origin: Origin,
    ) -> Result<(), Unanswered> {
        strip_response_hop_by_hop(&mut head, false);
        if self.exchange.cache.is_some() {
            stored::strip_what_is_for_us(&mut head);
        }
        self.begin_pieces(head, For::ThisClient)?;
        if !beginning.is_empty() {
            self.send(beginning).await?;
        }
        loop {
            match self.arriving(origin.body()).await? {
                Ok(Some(piece)) => self.send(piece).await?,
                Ok(None) => break,
                Err(error) => {
                    attempt::broke_off(&mut self.exchange, fault(&error), &error, false);
                    return Err(self.cut_short());
                }
            }
        }
        // The backend is free now, whenever the client has taken the rest.
        origin.finish();
        self.exchange.attempt.lease = None;
        Ok(self.end_answer().await?)
    }

    /// Begins the client's answer.
    fn begin_answer(&mut self, head: ResponseHead) -> Result<(), Gone> {
        if self.gateway.is_draining() {
            self.client.keep_no_longer();
        }
        self.exchange.status = head.status().as_u16();
        limiting::learn(&self.exchange, |name| {
            head.values(name).next().and_then(limiting::cost)
        });
        let begun = self.client.head(head, &self.request.method, &self.exchange);
        self.taken(begun)
    }

    /// Sends the answer of a hit, all of which is there.
    async fn answer_ready(&mut self, head: &Head, body: Bytes) -> Result<(), Gone> {
        if self.gateway.is_draining() {
            self.client.keep_no_longer();
        }
        self.exchange.status = head.status.as_u16();
        self.client.ready(head, &self.exchange);
        match self.request.method == Method::HEAD || body.is_empty() {
            true => self.end_answer().await,
            false => self.end_with(body).await,
        }
    }

    /// Sends a piece of its body.
    async fn send(&mut self, piece: Bytes) -> Result<(), Gone> {
        let piece = match &mut self.encoder {
            Some(encoder) => encoder.push(&piece),
            None => piece,
        };
        self.write(piece).await
    }

    async fn write(&mut self, piece: Bytes) -> Result<(), Gone> {
        if piece.is_empty() {
            return Ok(());
        }
        self.sent += piece.len() as u64;
        let written = self.client.body(piece).await;
        self.taken(written)
    }

    /// Sends a body that is there, or its last piece. No encoder has anything of it.
    async fn end_with(&mut self, piece: Bytes) -> Result<(), Gone> {
        self.sent += piece.len() as u64;
        let written = self.client.last(piece).await;
        self.taken(written)
    }

    async fn end_answer(&mut self) -> Result<(), Gone> {
        if let Some(encoder) = self.encoder.take() {
            self.write(encoder.finish()).await?;
        }
        let ended = self.client.end().await;
        self.taken(ended)
    }

    /// What the client has is all it gets: its end is missing, and so it knows.
    fn cut_short(&mut self) -> Unanswered {
        self.exchange.refusal = None;
        self.exchange.truncated = true;
        Unanswered::Broken
    }

    /// What a wait with an eye on the client ended in.
    fn present<T>(&mut self, waited: Result<T, Gone>) -> Result<T, Gone> {
        self.exchange.moment = Moment::now();
        self.ended(waited)
    }

    fn ended<T>(&mut self, waited: Result<T, Gone>) -> Result<T, Gone> {
        self.exchange.aborted |= waited.is_err();
        waited
    }

    /// Whether the client has taken what was written.
    fn taken<T>(&mut self, written: io::Result<T>) -> Result<T, Gone> {
        self.ended(written.map_err(|_| Gone))
    }

    /// No further attempt is to be made: what the last one has come to.
    fn out_of_attempts(&mut self) -> Unanswered {
        let refusal = self.exchange.refusal.take();
        Unanswered::Refused(refusal.expect("a failed attempt has its reason"))
    }

    async fn refuse(&mut self, refusal: Refusal) -> Result<(), Gone> {
        if refusal.is_silent() {
            self.exchange.refusal = Some(refusal);
            return Err(Gone);
        }
        let Request { method, fields, .. } = &self.request;
        let answer = self
            .gateway
            .refusal_answer(&self.exchange, &refusal, method, fields);
        if !refusal.keep_connection() {
            self.client.keep_no_longer();
        }
        self.exchange.refusal = Some(refusal);
        self.answer(Box::new(answer)).await
    }

    /// Writes an answer of ours.
    async fn answer(&mut self, answer: Box<Answer>) -> Result<(), Gone> {
        self.exchange.status = answer.head.status.as_u16();
        self.sent = answer.body.len() as u64;
        let written = self.client.answer(answer, &self.exchange).await;
        self.taken(written)
    }

    fn record(&self) {
        let served = Served {
            method: &self.request.method,
            version: self.client.version(),
            target: &self.request.target,
            user_agent: self.request.user_agent.as_ref(),
            bytes_in: 0,
            bytes_out: self.sent,
            tunnel: false,
        };
        record::finish(self.gateway.log(), &self.exchange, self.downstream, &served);
    }
}

/// Does `work`, and gives it up when the client leaves.
async fn watched<T>(client: &mut Client<'_>, work: impl Future<Output = T>) -> Result<T, Gone> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        ready!(client.poll_gone(cx));
        Poll::Ready(Err(Gone))
    })
    .await
}

/// Whose fault it was that a backend's answer did not come.
fn fault(error: &io::Error) -> Failure {
    let inner = error.get_ref();
    let malformed = inner.is_some_and(|why| why.is::<BadResponse>() || why.is::<Malformed>());
    match error.kind() {
        io::ErrorKind::TimedOut => Failure::Timeout,
        _ if malformed => Failure::Protocol,
        _ => Failure::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_no_room_for_what_it_rarely_needs() {
        fn bytes<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = bytes(serve);
        assert!(bytes <= 4 << 10, "{bytes} bytes are moved for each request");
    }
}
