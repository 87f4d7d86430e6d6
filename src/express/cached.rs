//! A request on a route that stores responses: answered from memory, or by one question to the
//! origin for all who ask meanwhile.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::RANGE;
use http::{Method, StatusCode};
use tokio::sync::mpsc;

use super::fetch::{Fetch, Fetched, Leader, Progress, Shared, Source, Stored};
use super::request::Request;
use super::stored::strip_what_is_for_us;
use super::{Lane, Unanswered, watched};
use crate::cache::admission::{self, Bypass};
use crate::cache::conditional::Condition;
use crate::cache::counters::Lookups;
use crate::cache::entry::{Content, Entry};
use crate::cache::fill::{Leading, Role, Stage, Wanted};
use crate::cache::guard;
use crate::cache::key::Key;
use crate::cache::memory::Found;
use crate::cache::reuse::{self, Reuse, reuse};
use crate::cache::revalidation;
use crate::cache::status::{Forward as Why, Outcome};
use crate::cache::{self, Policy};
use crate::exchange::caching::Described;
use crate::exchange::compressing::For;
use crate::headers::cache::Told;
use crate::plan::{Caching, Forward};
use crate::refusal::Refusal;

/// How often a request waits for the question of another one before it asks by itself.
const MOST_TRIES: usize = 3;

/// Why a stale response is given, for trusted clients and the record.
const STALE_IF_ERROR: &str = "stale_if_error";

impl Lane<'_> {
    /// Answers from memory, or asks the origin.
    pub(super) async fn cached(
        &mut self,
        forward: &Forward,
        caching: &Arc<Caching>,
    ) -> Result<(), Unanswered> {
        let policy = &caching.policy;
        let described = self.described();
        let request = described.request();
        let directives = match admission::may_look_up(&request, policy) {
            Ok(directives) => directives,
            Err(bypass) => return self.bypass(forward, caching, bypass).await,
        };
        if policy.is_guarded() && self.names_another_host(&request, policy) {
            return self.bypass(forward, caching, Bypass::ForwardedHost).await;
        }
        let key = Key::of(&request, &caching.scope, policy);
        let is_trusted = request.is_trusted;
        if is_trusted {
            self.exchange.cache = Some(Told {
                key: Some(key.to_string().into()),
                ..Told::forwarded(Why::Miss, None)
            });
        }
        if self.gateway.guard().held(&key).is_some() {
            return self.bypass(forward, caching, Bypass::Quarantined).await;
        }
        let mut wanted: Wanted = (key.digest(), None);
        let mut leading = None;
        let mut tries = 0;
        loop {
            let memory = self.gateway.memory();
            let found = memory.find(&key, &self.request.fields, policy);
            let for_reuse = match &found {
                Found::Entry(entry) if !self.has_wanted(entry) => reuse::Found::AnotherPart,
                found => found.for_reuse(),
            };
            let why = match reuse(for_reuse, &directives, SystemTime::now()) {
                Reuse::Ask(why) => why,
                Reuse::NotCached => return Err(Unanswered::Refused(Refusal::NotCached)),
                given => {
                    let Found::Entry(entry) = found else {
                        unreachable!("only an entry is given");
                    };
                    if given == Reuse::WhileRevalidating {
                        self.refresh(caching, &key, &entry);
                    }
                    return self.hit(forward, caching, &entry, None).await;
                }
            };
            let stored = match found {
                Found::UnnamedCookie => {
                    let told = Told::forwarded(Why::Bypass, Some("vary_cookie"));
                    return self.pass(forward, caching, told).await;
                }
                Found::OtherVariants(variant) => {
                    wanted.1 = Some(variant);
                    Stored::Nothing
                }
                Found::Entry(entry) => {
                    wanted.1 = Some(entry.facts.variant.digest());
                    match entry.part() {
                        Some(part) if why == Why::Partial => Stored::Part(entry, part),
                        _ => Stored::Stale(entry),
                    }
                }
                Found::Nothing => Stored::Nothing,
            };
            let wants_part =
                self.request.fields.contains_key(RANGE) && !matches!(stored, Stored::Stale(_));
            let is_own = wants_part && revalidation::part(&self.request.fields).is_none();
            match (&self.request.method, &stored) {
                (&Method::HEAD, Stored::Stale(entry)) => {
                    let entry = entry.clone();
                    return self.ask_head(forward, caching, key, entry, why).await;
                }
                (&Method::HEAD, _) => return self.pass_on(forward, caching, why).await,
                _ if is_own || tries == MOST_TRIES => {
                    return self.pass_on(forward, caching, why).await;
                }
                _ => {}
            }
            if let Some(leading) = leading.take() {
                return self.lead(forward, caching, key, stored, leading, why).await;
            }
            // A part is for whom it was asked for, and for who comes when it is stored.
            if wants_part || !memory.expects_something(&key) {
                let alone = Leading::alone();
                return self.lead(forward, caching, key, stored, alone, why).await;
            }
            tries += 1;
            let following = match self.gateway.fills().join(wanted) {
                Role::Leader(role) => {
                    // Once more to memory: the question before this one may have ended just now.
                    leading = Some(role);
                    continue;
                }
                Role::Follower(following) => following,
            };
            let outcome = watched(&mut self.client, following.outcome()).await;
            match self.present(outcome)? {
                Stage::Ready(entry) => match entry.facts.vary.variant(&self.request.fields, policy)
                {
                    Ok(variant) if variant.bytes() == entry.facts.variant.bytes() => {
                        return self.follow(forward, caching, &entry, &stored, why).await;
                    }
                    Ok(variant) => wanted.1 = Some(variant.digest()),
                    Err(_) => {
                        let told = Told::forwarded(Why::Bypass, Some("vary_cookie"));
                        return self.pass(forward, caching, told).await;
                    }
                },
                Stage::NotForOthers => return self.pass_on(forward, caching, why).await,
                Stage::Asked | Stage::Failed => {}
            }
        }
    }

    /// Forwards the request without a look at what is stored.
    async fn bypass(
        &mut self,
        forward: &Forward,
        caching: &Caching,
        bypass: Bypass,
    ) -> Result<(), Unanswered> {
        let told = Told::forwarded(bypass.forward(), Some(bypass.as_str()));
        self.pass(forward, caching, told).await
    }

    /// Whether the application would be told of another host than the one in the key.
    fn names_another_host(&self, request: &cache::Request<'_>, policy: &Policy) -> bool {
        let trusted = &self.exchange.plan.trusted;
        trusted.contains(self.downstream.peer_ip())
            && guard::fields::names_another_host(request.fields, request.host, policy)
    }

    /// Forwards the request as it is.
    pub(super) async fn pass(
        &mut self,
        forward: &Forward,
        caching: &Caching,
        told: Told,
    ) -> Result<(), Unanswered> {
        self.tell(caching, told);
        self.forward(forward).await
    }

    /// Forwards the request for its own sake, for no other reason than `why` nothing is given.
    async fn pass_on(
        &mut self,
        forward: &Forward,
        caching: &Caching,
        why: Why,
    ) -> Result<(), Unanswered> {
        self.pass(forward, caching, Told::forwarded(why, None))
            .await
    }

    /// Forwards a HEAD, whose answer says something of what is stored too.
    async fn ask_head(
        &mut self,
        forward: &Forward,
        caching: &Arc<Caching>,
        key: Key,
        stored: Arc<Entry>,
        why: Why,
    ) -> Result<(), Unanswered> {
        self.tell(caching, Told::forwarded(why, None));
        let about = Stored::Stale(stored.clone());
        let fetch = self.fetch(caching, key, about, Leading::alone(), None);
        let asked = Instant::now();
        let sent = SystemTime::now();
        let (origin, head) = self.reach(forward).await?;
        let times = cache::Exchange {
            sent,
            received: SystemTime::now(),
        };
        fetch.learn(&stored, &head, times, asked);
        self.deliver(origin, head).await
    }

    /// Whether a stored response has what is wanted of it.
    fn has_wanted(&self, entry: &Entry) -> bool {
        let part = entry.part();
        part.is_none_or(|part| part.answers(&self.wanted(entry, part.complete)))
    }

    /// Answers with what is stored.
    async fn hit(
        &mut self,
        forward: &Forward,
        caching: &Caching,
        entry: &Arc<Entry>,
        detail: Option<&'static str>,
    ) -> Result<(), Unanswered> {
        let freshness = &entry.facts.freshness;
        let told = Told::given(Outcome::Hit, freshness, SystemTime::now());
        self.tell(caching, Told { detail, ..told });
        self.give(forward, caching, entry, None).await
    }

    /// Answers with what another request has asked for.
    async fn follow(
        &mut self,
        forward: &Forward,
        caching: &Caching,
        entry: &Arc<Entry>,
        stored: &Stored,
        why: Why,
    ) -> Result<(), Unanswered> {
        if matches!(stored, Stored::Stale(stale) if Arc::ptr_eq(stale, entry)) {
            return self
                .hit(forward, caching, entry, Some(STALE_IF_ERROR))
                .await;
        }
        let reader = match &entry.content {
            Content::Whole(_) => None,
            Content::Growing(body) => match body.reader() {
                Some(reader) => Some(reader),
                // It has turned out to be too large, and its beginning is gone.
                None => return self.pass_on(forward, caching, why).await,
            },
        };
        let outcome = Outcome::Forwarded {
            why,
            status: None,
            stored: true,
            collapsed: true,
        };
        let freshness = &entry.facts.freshness;
        self.tell(caching, Told::given(outcome, freshness, SystemTime::now()));
        self.give(forward, caching, entry, reader).await
    }

    /// Asks the origin, for others too.
    async fn lead(
        &mut self,
        forward: &Forward,
        caching: &Arc<Caching>,
        key: Key,
        stored: Stored,
        leading: Leading,
        why: Why,
    ) -> Result<(), Unanswered> {
        let (progress, mut told) = mpsc::unbounded_channel();
        let leader = Leader {
            progress,
            takes_interim: self.client.takes_interim(),
        };
        let fetch = self.fetch(caching, key, stored, leading, Some(leader));
        tokio::spawn(fetch.run());
        let fetched = loop {
            let progress = watched(&mut self.client, told.recv()).await;
            match self.present(progress)? {
                Some(Progress::Interim(head)) => {
                    let written = self.client.interim(&head).await;
                    self.taken(written)?;
                }
                Some(Progress::Done(fetched)) => break *fetched,
                None => return Err(Unanswered::Refused(Refusal::Internal)),
            }
        };
        let told = Told::forwarded(why, None);
        match fetched {
            Fetched::Refused { refusal, attempt } => {
                self.exchange.attempt = attempt;
                self.tell(caching, told);
                Err(Unanswered::Refused(refusal))
            }
            Fetched::Own {
                origin,
                head,
                attempt,
                why: not_stored,
            } => {
                self.exchange.attempt = attempt;
                let detail = Some(not_stored.as_str());
                self.tell(caching, Told { detail, ..told });
                self.deliver(*origin, *head).await
            }
            Fetched::Shared(shared) => {
                let Shared {
                    entry,
                    source,
                    attempt,
                } = *shared;
                self.exchange.attempt = attempt;
                self.lead_shared(forward, caching, &entry, source, why)
                    .await
            }
        }
    }

    async fn lead_shared(
        &mut self,
        forward: &Forward,
        caching: &Caching,
        entry: &Arc<Entry>,
        source: Source,
        why: Why,
    ) -> Result<(), Unanswered> {
        let (status, stored) = match &source {
            Source::StaleIfError => {
                return self
                    .hit(forward, caching, entry, Some(STALE_IF_ERROR))
                    .await;
            }
            Source::Origin { .. } => (None, true),
            Source::Validated { stored } => (Some(StatusCode::NOT_MODIFIED), *stored),
        };
        let outcome = Outcome::Forwarded {
            why,
            status,
            stored,
            collapsed: false,
        };
        let freshness = &entry.facts.freshness;
        let told = Told::given(outcome, freshness, SystemTime::now());
        let Source::Origin { mut head, body } = source else {
            self.tell(caching, told);
            return self.give(forward, caching, entry, None).await;
        };
        // As the origin sent it, Age included.
        self.tell(caching, Told { age: None, ..told });
        match self.condition(entry) {
            Condition::NotModified => self.not_modified(entry).await,
            Condition::AskOrigin => {
                // Who forwards does not read, and must not hold back those who do.
                drop(body);
                let told = Told::forwarded(Why::Request, None);
                self.pass(forward, caching, told).await
            }
            Condition::Answer => {
                strip_what_is_for_us(&mut head);
                self.begin_pieces(*head, For::Everybody)?;
                self.stream(body).await
            }
        }
    }

    /// Asks the origin about a stale response that has been given, unless somebody does.
    fn refresh(&self, caching: &Arc<Caching>, key: &Key, entry: &Arc<Entry>) {
        let wanted = (key.digest(), Some(entry.facts.variant.digest()));
        if let Role::Leader(leading) = self.gateway.fills().join(wanted) {
            let stale = Stored::Stale(entry.clone());
            let fetch = self.fetch(caching, key.clone(), stale, leading, None);
            tokio::spawn(fetch.refresh());
        }
    }

    fn fetch(
        &self,
        caching: &Arc<Caching>,
        key: Key,
        stored: Stored,
        leading: Leading,
        leader: Option<Leader>,
    ) -> Fetch {
        let mut exchange = self.exchange.question();
        if let Some(asked) = &mut exchange.asked {
            // What does not count is not asked either: the answer is for those who send something else.
            let query = caching.policy.query.normal(asked.query.as_deref());
            asked.query = query.map(Into::into);
        }
        let mut request = Request {
            method: Method::GET,
            ..self.request.clone()
        };
        if caching.policy.is_guarded() {
            guard::fields::remove_believed(&mut request.fields, &caching.policy);
        }
        Fetch {
            gateway: self.gateway.clone(),
            downstream: self.downstream.clone(),
            exchange,
            request,
            caching: caching.clone(),
            key,
            stored,
            leading,
            leader,
        }
    }

    /// Sets what is told of this answer; a key that may be told stays.
    fn tell(&mut self, caching: &Caching, told: Told) {
        let key = self.exchange.cache.take().and_then(|told| told.key);
        let counts = caching.policy.debug.then(|| {
            let Lookups { hits, all } = caching.counters.lookups();
            let is_hit = told.outcome == Outcome::Hit;
            (hits + u64::from(is_hit), all - hits + u64::from(!is_hit))
        });
        self.exchange.cache = Some(Told {
            key,
            counts,
            ..told
        });
    }

    pub(super) fn described(&self) -> Described<'_> {
        Described::of(&self.exchange, &self.request.method, &self.request.fields)
    }
}
