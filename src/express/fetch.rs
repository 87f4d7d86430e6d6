//! A question to the origin for all who want to know: in a task of its own, so that it goes on when
//! the client leaves who caused it.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::oneshot;

use super::client::{Client, Own};
use super::others::Others;
use super::request::Request;
use super::{Lane, Unanswered, fault};
use crate::cache::admission::{self, Admission, NotStored};
use crate::cache::body::{Body, Reader, Writer};
use crate::cache::entry::{Content, Entry, Times};
use crate::cache::fill::Leading;
use crate::cache::frame::Digest;
use crate::cache::freshness::Failure;
use crate::cache::key::Key;
use crate::cache::redis::Held;
use crate::cache::revalidation::{self, AnotherVersion};
use crate::cache::tombstones::Epoch;
use crate::cache::{self, Response};
use crate::downstream::Downstream;
use crate::exchange::attempt::{self, forwarding};
use crate::exchange::caching::Described;
use crate::exchange::{Attempt, Exchange};
use crate::gateway::Gateway;
use crate::headers::forwarded::strip_response_hop_by_hop;
use crate::http1::ResponseHead;
use crate::plan::Caching;
use crate::refusal::Refusal;
use crate::upstream::Origin;

/// What is to be fetched, and for whom.
pub(super) struct Fetch {
    pub gateway: Arc<Gateway>,
    pub downstream: Arc<Downstream>,
    pub exchange: Exchange,
    /// As the client sent it.
    pub request: Request,
    pub caching: Arc<Caching>,
    pub key: Key,
    /// What is stored already, and may still be right.
    pub stale: Option<Arc<Entry>>,
    pub leading: Leading,
    /// Whose request caused it; `None` is a client who has had an answer.
    pub leader: Option<oneshot::Sender<Fetched>>,
    /// What another gateway asks for meanwhile will do.
    pub awaits_others: bool,
    /// Of the request, where it is known.
    pub variant: Option<Digest>,
    /// The other gateways wait for this one.
    pub held: Option<Held>,
}

/// What the client receives whose request caused a fetch.
pub(super) enum Fetched {
    /// A response for others too.
    Shared(Box<Shared>),
    /// A response for nobody else, to be passed on.
    Own {
        origin: Box<Origin>,
        head: Box<ResponseHead>,
        attempt: Attempt,
        why: NotStored,
    },
    Refused {
        refusal: Refusal,
        attempt: Attempt,
    },
}

/// A response that is stored, or was.
pub(super) struct Shared {
    pub entry: Arc<Entry>,
    pub source: Source,
    pub attempt: Attempt,
}

/// How it came.
pub(super) enum Source {
    /// New, with its head as the origin sent it.
    Origin {
        head: Box<ResponseHead>,
        body: Reader,
    },
    /// The stored one was still right.
    Validated { stored: bool },
    /// The origin failed, and the stored one stands in.
    StaleIfError,
    /// Another gateway has asked.
    Redis,
}

/// What the origin said, and when.
struct Answered {
    origin: Origin,
    head: ResponseHead,
    fields: HeaderMap,
    asked: Epoch,
    exchange: cache::Exchange,
}

impl Answered {
    fn response(&self) -> Response<'_> {
        Response {
            status: self.head.status(),
            fields: &self.fields,
        }
    }

    fn times(&self) -> Times {
        Times {
            asked: self.asked,
            received: self.exchange.received,
        }
    }
}

impl Fetch {
    /// Asks, tells everybody, and stores what may be stored.
    pub async fn run(mut self) {
        self.request.method = Method::GET;
        match self.await_others().await {
            Others::None => {}
            Others::Asking => return,
            Others::Stored(entry) => return self.share(entry, Source::Redis),
        }
        let stale = self.stale.take();
        let validators = stale.as_ref().map(|stale| &stale.facts.validators);
        let validators = validators.filter(|validators| validators.exist());
        let fields = match validators {
            Some(validators) => revalidation::question(&self.request.fields, validators),
            None => revalidation::whole(&self.request.fields),
        };
        let conditional = validators.is_some();
        let mut answered = self.ask(fields).await;
        if let Some(stale) = &stale {
            if let Some(failure) = failure(&answered)
                && stale.facts.freshness.serves_on(failure, SystemTime::now())
            {
                return self.share(stale.clone(), Source::StaleIfError);
            }
            if let Ok(validated) = &answered
                && validated.head.status() == StatusCode::NOT_MODIFIED
                && conditional
            {
                match self.validate(stale, validated) {
                    Ok((entry, is_stored)) => {
                        if let Ok(answered) = answered {
                            answered.origin.finish();
                        }
                        let source = Source::Validated { stored: is_stored };
                        return self.share(entry, source);
                    }
                    Err(AnotherVersion) => {
                        let fields = revalidation::whole(&self.request.fields);
                        answered = self.ask(fields).await;
                    }
                }
            }
        }
        match answered {
            Ok(answered) => self.take(answered).await,
            Err(refusal) => {
                let attempt = self.exchange.attempt.seen();
                self.tell(Fetched::Refused { refusal, attempt });
            }
        }
    }

    /// The head of a final response to a question with these fields.
    async fn ask(&mut self, fields: HeaderMap) -> Result<Answered, Refusal> {
        let request = Request {
            fields,
            ..self.request.clone()
        };
        let mut lane = Lane {
            gateway: &self.gateway,
            client: Client::Own(Box::new(Own::new(request.clone(), 0))),
            downstream: &self.downstream,
            exchange: self.exchange.question(),
            request,
            sent: 0,
        };
        let asked = self.gateway.memory().tombstones().epoch();
        let sent = SystemTime::now();
        let (_, forward) = forwarding(&lane.exchange);
        let reached = lane.reach(&forward).await;
        self.exchange.attempt = lane.exchange.attempt;
        let (origin, mut head) = reached.map_err(|unanswered| match unanswered {
            Unanswered::Refused(refusal) => refusal,
            Unanswered::Broken => Refusal::Internal,
        })?;
        strip_response_hop_by_hop(&mut head, false);
        Ok(Answered {
            origin,
            fields: fields_of(&head),
            head,
            asked,
            exchange: cache::Exchange {
                sent,
                received: SystemTime::now(),
            },
        })
    }

    /// What a 304 makes of the stored response, and whether that is stored.
    fn validate(
        &mut self,
        stale: &Arc<Entry>,
        answered: &Answered,
    ) -> Result<(Arc<Entry>, bool), AnotherVersion> {
        let validators = &stale.facts.validators;
        let received = answered.exchange.received;
        let fields = revalidation::merged(&stale.fields, validators, &answered.fields, received)?;
        let response = Response {
            status: stale.facts.status,
            fields: &fields,
        };
        let admission = self.admit(&response, answered.exchange);
        let is_admitted = admission.is_ok();
        let admission = admission.unwrap_or_else(|_| Admission {
            facts: stale.facts.clone(),
            fields: fields.clone(),
        });
        let entry = Arc::new(Entry::new(
            admission,
            stale.head().reason(),
            stale.content.clone(),
            answered.times(),
            &self.caching.policy,
        ));
        let is_stored = is_admitted && self.keep(&entry, true);
        Ok((entry, is_stored))
    }

    fn described(&self) -> Described<'_> {
        Described::of(&self.exchange, &self.request.method, &self.request.fields)
    }

    fn admit(
        &self,
        response: &Response<'_>,
        times: cache::Exchange,
    ) -> Result<Admission, NotStored> {
        let described = self.described();
        admission::may_store(&described.request(), response, times, &self.caching.policy)
    }

    /// A new response: for all, or for the one who caused it.
    async fn take(mut self, answered: Answered) {
        let policy = &self.caching.policy;
        let admitted = self.admit(&answered.response(), answered.exchange);
        let (writer, body) = Body::begin();
        let admitted = admitted.and_then(|admission| {
            let reason = answered.head.reason();
            let content = Content::Growing(body.clone());
            let times = answered.times();
            let entry = Entry::new(admission, reason, content, times, policy);
            let memory = self.gateway.memory();
            memory.check_room(&self.key, &entry, policy)?;
            Ok(Arc::new(entry))
        });
        let Answered { origin, head, .. } = answered;
        match admitted {
            Ok(entry) => {
                if origin.is_over() {
                    self.store(&entry, &writer, b"");
                }
                let reader = body.reader().expect("nothing of it was let go");
                // What is stale already is stored to be revalidated, and answers nobody else before.
                if entry.facts.freshness.is_fresh(SystemTime::now()) {
                    self.leading.ready(entry.clone());
                } else {
                    self.leading.not_for_others();
                    self.held = None;
                }
                if let Some(leader) = self.leader.take() {
                    let source = Source::Origin {
                        head: Box::new(head),
                        body: reader,
                    };
                    let attempt = self.exchange.attempt.seen();
                    let shared = Shared {
                        entry: entry.clone(),
                        source,
                        attempt,
                    };
                    // A client that has left needs no answer.
                    let _ = leader.send(Fetched::Shared(Box::new(shared)));
                }
                drop(body);
                self.fill(origin, &entry, writer).await;
            }
            Err(why) => {
                self.gateway.memory().expect_nothing(&self.key);
                self.leading.not_for_others();
                let attempt = std::mem::take(&mut self.exchange.attempt);
                self.tell(Fetched::Own {
                    origin: Box::new(origin),
                    head: Box::new(head),
                    attempt,
                    why,
                });
            }
        }
    }

    /// Reads the body for its readers, and to be stored.
    async fn fill(mut self, mut origin: Origin, entry: &Entry, writer: Writer) {
        // What has no body was stored before anybody had its head.
        let mut is_kept = !origin.is_over();
        let mut arrived = 0;
        loop {
            let piece = match origin.body().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    attempt::broke_off(&mut self.exchange, fault(&error), &error, false);
                    return;
                }
            };
            arrived += piece.len() as u64;
            if is_kept && arrived > self.caching.policy.largest_object {
                is_kept = false;
                self.leading.close();
                self.held = None;
                writer.let_go();
            }
            if is_kept && origin.is_over() {
                // Before its readers have it: who has read all of it may ask again and is given it.
                self.store(entry, &writer, &piece);
                is_kept = false;
                writer.push(piece);
                break;
            }
            writer.push(piece);
            if !is_kept && writer.wait_for_readers().await.is_err() {
                return;
            }
        }
        if is_kept {
            self.store(entry, &writer, b"");
        }
        writer.finish();
        origin.finish();
    }

    /// Stores a response whose body is what has been written and `last`.
    fn store(&mut self, entry: &Entry, writer: &Writer, last: &[u8]) {
        if let Some(body) = writer.whole(last) {
            self.keep(&Arc::new(entry.whole(body)), false);
        }
    }

    /// Gives a stored response to everybody.
    fn share(mut self, entry: Arc<Entry>, source: Source) {
        let is_fresh = entry.facts.freshness.is_fresh(SystemTime::now());
        match source {
            // Who waits finds it in memory.
            Source::Redis => {}
            Source::StaleIfError => self.leading.ready(entry.clone()),
            _ if is_fresh => self.leading.ready(entry.clone()),
            _ => self.leading.not_for_others(),
        }
        let attempt = self.exchange.attempt.seen();
        self.tell(Fetched::Shared(Box::new(Shared {
            entry,
            source,
            attempt,
        })));
    }

    fn tell(&mut self, fetched: Fetched) {
        if let Some(leader) = self.leader.take() {
            // A client that has left needs no answer.
            let _ = leader.send(fetched);
        }
    }
}

/// How the origin failed, if it did.
fn failure(answered: &Result<Answered, Refusal>) -> Option<Failure> {
    match answered {
        Ok(answered) if answered.head.status().is_server_error() => {
            Some(Failure::Status(answered.head.status()))
        }
        Ok(_) => None,
        Err(_) => Some(Failure::NoAnswer),
    }
}

/// The lines of a head as a map. What is no field of the map's kind is left out, which no gate lets through.
fn fields_of(head: &ResponseHead) -> HeaderMap {
    let lines = head.lines();
    let mut fields = HeaderMap::with_capacity(lines.len());
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name).ok();
        let value = HeaderValue::from_maybe_shared::<Bytes>(value).ok();
        if let Some((name, value)) = name.zip(value) {
            fields.append(name, value);
        }
    }
    fields
}
