//! A question to the origin for all who want to know: in a task of its own, so that it goes on when
//! the client leaves who caused it.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, HeaderValue, RANGE};
use http::{HeaderMap, StatusCode, Version};
use tokio::sync::mpsc::UnboundedSender;

use super::client::{Client, Question};
use super::others::Others;
use super::request::Request;
use super::{Lane, Unanswered, fault};
use crate::cache::admission::{self, Admission, NotStored};
use crate::cache::body::{Body, Reader, Writer};
use crate::cache::entity::Validators;
use crate::cache::entry::{Content, Entry, Times};
use crate::cache::fill::Leading;
use crate::cache::frame::Digest;
use crate::cache::freshness::Failure;
use crate::cache::guard::{self, Suspicion};
use crate::cache::key::{Key, Url};
use crate::cache::partial::Part;
use crate::cache::redis::Held;
use crate::cache::revalidation::{self, AfterHead, AnotherVersion};
use crate::cache::scope::Scope;
use crate::cache::status::Forward as Why;
use crate::cache::tombstones::{Epoch, Purge, Verdict};
use crate::cache::{self, Policy, Response};
use crate::client::RequestId;
use crate::downstream::Downstream;
use crate::exchange::attempt::{self, forwarding};
use crate::exchange::caching::Described;
use crate::exchange::record::{self, Served};
use crate::exchange::{Attempt, Exchange};
use crate::gateway::Gateway;
use crate::headers::cache::Told;
use crate::headers::forwarded::strip_response_hop_by_hop;
use crate::http1::ResponseHead;
use crate::plan::Caching;
use crate::redis::Patience;
use crate::refusal::Refusal;
use crate::upstream::{Origin, Priority};

/// What the record of a question in nobody's name says of it.
const REFRESH: &str = "refresh";

/// What is to be fetched, and for whom.
pub(super) struct Fetch {
    pub gateway: Arc<Gateway>,
    pub downstream: Arc<Downstream>,
    pub exchange: Exchange,
    /// As the client sent it, and always a GET.
    pub request: Request,
    pub caching: Arc<Caching>,
    pub key: Key,
    pub stored: Stored,
    pub leading: Leading,
    /// Whose request caused it; `None` is a client who has had an answer.
    pub leader: Option<Leader>,
    /// What another gateway asks for meanwhile will do.
    pub awaits_others: bool,
    /// With Redis.
    pub patience: Patience,
    /// Of the request, where it is known.
    pub variant: Option<Digest>,
    /// The other gateways wait for this one.
    pub held: Option<Held>,
}

/// What is stored already of what is asked for.
#[derive(Clone)]
pub(super) enum Stored {
    Nothing,
    /// It may still be right.
    Stale(Arc<Entry>),
    /// Not all that is wanted.
    Part(Arc<Entry>, Part),
}

/// The client whose request caused a fetch.
pub(super) struct Leader {
    /// Not bounded: a head has a bounded number of interim ones before it, and a client that is slow to take them
    /// must not hold up the others.
    pub progress: UnboundedSender<Progress>,
    pub takes_interim: bool,
}

/// What the client is told whose request caused a fetch.
pub(super) enum Progress {
    Interim(Box<ResponseHead>),
    /// The last word.
    Done(Box<Fetched>),
}

/// What it receives.
pub(super) enum Fetched {
    /// A response for others too.
    Shared(Box<Shared>),
    /// A response for nobody else, to be passed on.
    Own {
        origin: Box<Origin>,
        head: Box<ResponseHead>,
        /// Of its body, where only the rest was asked for.
        beginning: Bytes,
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
    /// What comes before the body.
    beginning: Bytes,
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

    /// All of the response of whose beginning, `held`, this is the rest. `None`: it is something else.
    fn completing(mut self, held: &Entry, part: Part) -> Option<Self> {
        let Content::Whole(beginning) = &held.content else {
            return None;
        };
        // Nobody could tell before its end that there is too little of it.
        let rest = Part::of(&self.fields).filter(|_| self.fields.contains_key(CONTENT_LENGTH))?;
        let received = self.exchange.received;
        let stored = held.validators();
        let whole = part.combined(&stored, &rest, &Validators::of(&self.fields, received))?;
        if !whole.is_whole() || rest.span.first != part.span.last + 1 {
            return None;
        }
        let mut fields =
            revalidation::merged(&held.fields(), &stored, &self.fields, received).ok()?;
        fields.remove(CONTENT_RANGE);
        fields.insert(CONTENT_LENGTH, HeaderValue::from(whole.complete));
        self.head = ResponseHead::compose(StatusCode::OK, b"OK", fields.iter());
        self.fields = fields;
        self.beginning = beginning.clone();
        Some(self)
    }

    fn times(&self) -> Times {
        Times {
            asked: self.asked,
            received: self.exchange.received,
        }
    }
}

impl Fetch {
    /// Asks for a client.
    pub async fn run(mut self) {
        self.fetch().await;
    }

    /// Asks in nobody's name, as a client has been answered with what is stale. Leaves a record of its own.
    pub async fn refresh(mut self) {
        self.exchange.request_id = RequestId::make();
        self.exchange.is_own = true;
        self.exchange.priority = Priority::Low;
        self.exchange.cache = Some(Told::forwarded(Why::Stale, Some(REFRESH)));
        self.fetch().await;
        // What another gateway asks is in its records.
        if self.exchange.status == 0 {
            return;
        }
        let served = Served {
            method: &self.request.method,
            version: Version::HTTP_11,
            target: &self.request.target,
            user_agent: None,
            bytes_in: 0,
            bytes_out: 0,
            tunnel: false,
        };
        record::finish(
            self.gateway.log(),
            &self.exchange,
            &self.downstream,
            &served,
        );
    }

    /// Asks, tells everybody, and stores what may be stored.
    async fn fetch(&mut self) {
        match self.await_others().await {
            Others::None => {}
            Others::Asking => return,
            Others::Stored(entry) => return self.share(entry, Source::Redis),
        }
        // Others may have taken long.
        if let Stored::Stale(entry) | Stored::Part(entry, _) = &self.stored
            && self.is_purged(entry)
        {
            self.stored = Stored::Nothing;
        }
        match self.stored.clone() {
            Stored::Stale(stale) => self.revalidate(stale).await,
            Stored::Part(held, part) if !self.wants_part() => self.complete(&held, part).await,
            Stored::Part(..) | Stored::Nothing => {
                let fields = match self.wants_part() {
                    true => self.request.fields.clone(),
                    false => revalidation::whole(&self.request.fields),
                };
                let answered = self.ask(fields).await;
                self.conclude(answered).await;
            }
        }
    }

    fn is_purged(&self, entry: &Entry) -> bool {
        entry.judge(self.gateway.memory().tombstones(), &self.key) == Verdict::Purged
    }

    /// Whether only a part is asked for: who has something to be revalidated asks for all of it.
    fn wants_part(&self) -> bool {
        !matches!(self.stored, Stored::Stale(_)) && self.request.fields.contains_key(RANGE)
    }

    /// Asks whether what is stored is still right.
    async fn revalidate(&mut self, stale: Arc<Entry>) {
        let validators = Some(stale.validators()).filter(Validators::exist);
        let fields = match &validators {
            Some(validators) => revalidation::question(&self.request.fields, validators),
            None => revalidation::whole(&self.request.fields),
        };
        let mut answered = self.ask(fields).await;
        if let Some(failure) = failure(&answered)
            && stale.facts.freshness.serves_on(failure, SystemTime::now())
            && !self.is_purged(&stale)
        {
            return self.share(stale, Source::StaleIfError);
        }
        if let Ok(validated) = &answered
            && validated.head.status() == StatusCode::NOT_MODIFIED
            && validators.is_some()
        {
            match self.validate(&stale, validated) {
                Ok((entry, is_stored)) => {
                    if let Ok(answered) = answered {
                        answered.origin.finish();
                    }
                    let source = Source::Validated { stored: is_stored };
                    return self.share(entry, source);
                }
                Err(AnotherVersion) => answered = self.ask_for_all().await,
            }
        }
        self.conclude(answered).await;
    }

    /// Asks for the rest of what is held, or for all of it.
    async fn complete(&mut self, held: &Entry, part: Part) {
        let answered = match part.completion(&held.validators()) {
            None => self.ask_for_all().await,
            Some(rest) => {
                let mut fields = revalidation::whole(&self.request.fields);
                fields.extend(rest);
                match self.ask(fields).await {
                    Ok(answered) if is_about_range(answered.head.status()) => {
                        match answered.completing(held, part) {
                            Some(whole) => Ok(whole),
                            None => self.ask_for_all().await,
                        }
                    }
                    answered => answered,
                }
            }
        };
        self.conclude(answered).await;
    }

    async fn ask_for_all(&mut self) -> Result<Answered, Refusal> {
        let fields = revalidation::whole(&self.request.fields);
        self.ask(fields).await
    }

    async fn conclude(&mut self, answered: Result<Answered, Refusal>) {
        match answered {
            Ok(answered) => self.take(answered).await,
            Err(refusal) => {
                self.exchange.status = refusal.status().as_u16();
                self.exchange.refusal = Some(refusal.clone());
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
        let leader = self.leader.as_ref().filter(|leader| leader.takes_interim);
        let question = Question {
            request: request.clone(),
            leader: leader.map(|leader| leader.progress.clone()),
        };
        let mut lane = Lane {
            gateway: &self.gateway,
            client: Client::Nobody(Box::new(question)),
            downstream: &self.downstream,
            exchange: self.exchange.question(),
            request,
            encoder: None,
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
        self.exchange.status = head.status().as_u16();
        strip_response_hop_by_hop(&mut head, false);
        Ok(Answered {
            origin,
            fields: fields_of(&head),
            head,
            beginning: Bytes::new(),
            asked,
            exchange: cache::Exchange {
                sent,
                received: SystemTime::now(),
            },
        })
    }

    /// What a 304 makes of the stored response, and whether that is stored. One that was purged meanwhile
    /// is another version, whatever its tag says.
    fn validate(
        &mut self,
        stale: &Arc<Entry>,
        answered: &Answered,
    ) -> Result<(Arc<Entry>, bool), AnotherVersion> {
        if self.is_purged(stale) {
            return Err(AnotherVersion);
        }
        let (stored, validators) = (stale.fields(), stale.validators());
        let received = answered.exchange.received;
        let fields = revalidation::merged(&stored, &validators, &answered.fields, received)?;
        Ok(self.renew(stale, fields, answered.exchange, answered.asked))
    }

    /// What the response to a HEAD makes of the stored response to GET.
    pub fn learn(
        &mut self,
        stored: &Arc<Entry>,
        head: &ResponseHead,
        times: cache::Exchange,
        asked: Epoch,
    ) {
        let Content::Whole(body) = &stored.content else {
            return;
        };
        let told = fields_of(head);
        let response = Response {
            status: head.status(),
            fields: &told,
        };
        let length = body.len() as u64;
        let (fields, validators) = (stored.fields(), stored.validators());
        let received = times.received;
        match revalidation::after_head(&fields, &validators, length, &response, received) {
            AfterHead::Updated(fields) => {
                self.renew(stored, fields, times, asked);
            }
            AfterHead::Outdated if stored.facts.freshness.is_fresh(received) => {
                self.gateway.purger().purge_soon(self.purge());
            }
            // What is stale is asked about before it is given.
            AfterHead::Outdated | AfterHead::Unrelated => {}
        }
    }

    /// Stores what is stored with other fields; `false` where these forbid it.
    fn renew(
        &mut self,
        stale: &Arc<Entry>,
        fields: HeaderMap,
        exchange: cache::Exchange,
        asked: Epoch,
    ) -> (Arc<Entry>, bool) {
        let response = Response {
            status: stale.facts.status,
            fields: &fields,
        };
        let admission = self.admit(&response, exchange);
        let is_admitted = admission.is_ok();
        let admission = admission.unwrap_or_else(|_| Admission {
            facts: stale.facts.clone(),
            validators: stale.validators(),
            fields: fields.clone(),
        });
        let suspicion = self.suspicion(&response);
        let policy = self.policy_of(&admission.fields);
        let entry = Entry::new(
            admission,
            stale.reason(),
            stale.content.clone(),
            Times {
                asked,
                received: exchange.received,
            },
            policy,
        );
        let entry = Arc::new(entry.with_forms_of(stale));
        if let Some(suspicion) = suspicion {
            self.quarantine(suspicion);
            return (entry, false);
        }
        let is_stored = is_admitted && self.keep(&entry, true);
        (entry, is_stored)
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
        let policy = self.caching.policy_of(response.fields)?;
        admission::may_store(&described.request(), response, times, policy)
    }

    /// The policy by which a response with these fields was admitted.
    pub(super) fn policy_of(&self, fields: &HeaderMap) -> &Policy {
        self.caching
            .policy_of(fields)
            .unwrap_or(&self.caching.policy)
    }

    /// A new response: for all, or for the one who caused it.
    async fn take(&mut self, answered: Answered) {
        let policy = self.policy_of(&answered.fields);
        let is_unasked_part =
            answered.head.status() == StatusCode::PARTIAL_CONTENT && !self.wants_part();
        let admitted = match is_unasked_part {
            true => Err(NotStored::Partial),
            false => self.admit(&answered.response(), answered.exchange),
        };
        let admitted = admitted.and_then(|admission| match self.suspicion(&answered.response()) {
            None => Ok(admission),
            Some(suspicion) => {
                self.quarantine(suspicion);
                Err(suspicion.into())
            }
        });
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
        let Answered {
            origin,
            head,
            beginning,
            ..
        } = answered;
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
                let source = Source::Origin {
                    head: Box::new(head),
                    body: reader,
                };
                let attempt = self.exchange.attempt.seen();
                self.tell(Fetched::Shared(Box::new(Shared {
                    entry: entry.clone(),
                    source,
                    attempt,
                })));
                drop(body);
                if !beginning.is_empty() {
                    writer.push(beginning);
                }
                self.fill(origin, &entry, writer).await;
            }
            Err(why) => {
                if !self.wants_part() {
                    self.gateway.memory().expect_nothing(&self.key);
                }
                self.leading.not_for_others();
                let attempt = std::mem::take(&mut self.exchange.attempt);
                self.tell(Fetched::Own {
                    origin: Box::new(origin),
                    head: Box::new(head),
                    beginning,
                    attempt,
                    why,
                });
            }
        }
    }

    /// Reads the body for its readers, and to be stored.
    async fn fill(&mut self, mut origin: Origin, entry: &Entry, writer: Writer) {
        let largest = self.policy_of(&entry.fields()).largest_object;
        // What has no body was stored before anybody had its head.
        let mut is_kept = !origin.is_over();
        let mut arrived = writer.arrived();
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
            if is_kept && arrived > largest {
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
        let Some(body) = writer.whole(last) else {
            return;
        };
        if let Some(suspicion) = self.suspicion_beside_stored(entry, &body) {
            return self.quarantine(suspicion);
        }
        if self.gateway.guard().held(&self.key).is_some() {
            return;
        }
        let entry = match entry.part() {
            None => entry.whole(body),
            Some(part) if part.span.length() == body.len() as u64 => {
                self.beside_what_is_held(entry, part, body)
            }
            // Not the bytes that it said it is.
            Some(_) => return,
        };
        self.keep(&Arc::new(entry), false);
    }

    /// What gives the response away by its head.
    fn suspicion(&self, response: &Response<'_>) -> Option<Suspicion> {
        let by_head = || guard::by_head(&self.described().request(), response);
        let policy = self.policy_of(response.fields);
        policy.is_guarded().then(by_head)?
    }

    /// What gives it away beside the page that was stored before it.
    fn suspicion_beside_stored(&self, entry: &Entry, body: &[u8]) -> Option<Suspicion> {
        let Stored::Stale(before) = &self.stored else {
            return None;
        };
        let Content::Whole(old) = &before.content else {
            return None;
        };
        let is_compared = self.policy_of(&entry.fields()).is_guarded()
            && before.facts.status == entry.facts.status
            && before.facts.variant.bytes() == entry.facts.variant.bytes();
        is_compared.then(|| guard::page::compare(&entry.fields(), old, body))?
    }

    /// Of all that is stored of this URL.
    fn purge(&self) -> Purge {
        let Url {
            host, path, query, ..
        } = self.key.url();
        Purge::hard([Scope::Url { host, path, query }])
    }

    /// Keeps the page out of the cache from here on, and what is stored of it.
    fn quarantine(&self, suspicion: Suspicion) {
        let duration = self.caching.policy.quarantine;
        self.gateway
            .purger()
            .quarantine(&self.key, suspicion, duration, self.purge());
    }

    /// A new part, with what is held of the same bytes where that joins it.
    fn beside_what_is_held(&self, entry: &Entry, part: Part, body: Bytes) -> Entry {
        if let Stored::Part(held, other) = &self.stored
            && let Content::Whole(others) = &held.content
            && let Some(both) = part.combined(&entry.validators(), other, &held.validators())
            && both.span.length() <= self.policy_of(&entry.fields()).largest_object
        {
            return entry.with_part(both, part.joined(&body, other, others));
        }
        entry.with_part(part, body)
    }

    /// Gives a stored response to everybody.
    fn share(&mut self, entry: Arc<Entry>, source: Source) {
        let is_fresh = entry.facts.freshness.is_fresh(SystemTime::now());
        match source {
            // Who waits finds it in memory.
            Source::Redis => {}
            Source::StaleIfError => self.leading.ready(entry.clone()),
            // It says something for one visitor.
            Source::Validated { stored: false } => self.leading.not_for_others(),
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
            let _ = leader.progress.send(Progress::Done(Box::new(fetched)));
        }
    }
}

/// Whether a question for a range was answered as one.
fn is_about_range(status: StatusCode) -> bool {
    status == StatusCode::PARTIAL_CONTENT || status == StatusCode::RANGE_NOT_SATISFIABLE
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
pub(super) fn fields_of(head: &ResponseHead) -> HeaderMap {
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
