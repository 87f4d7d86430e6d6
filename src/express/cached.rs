//! A request on a route that stores responses: answered from memory, or by one question to the
//! origin for all who ask meanwhile.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::RANGE;
use http::{Method, StatusCode};
use tokio::sync::mpsc;

use super::client::Client;
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
use crate::cache::redis::{Look, Sought};
use crate::cache::reuse::{self, Reuse, reuse};
use crate::cache::revalidation;
use crate::cache::status::{Forward as Why, Outcome, Tier};
use crate::cache::tombstones::Verdict;
use crate::cache::{self, Policy};
use crate::exchange::caching::Described;
use crate::exchange::compressing::For;
use crate::headers::cache::Told;
use crate::limit::Phase;
use crate::plan::{Caching, Forward};
use crate::redis::Patience;
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
                key: Some(key.with_values().to_string().into()),
                ..Told::forwarded(Why::Miss, None)
            });
        }
        if self.gateway.guard().held(&key).is_some() {
            return self.bypass(forward, caching, Bypass::Quarantined).await;
        }
        let mut wanted: Wanted = (key.digest(), None);
        let mut leading = None;
        let mut tries = 0;
        let mut arrival = None;
        let mut has_looked = false;
        let mut patience = self.gateway.patience();
        loop {
            let memory = self.gateway.memory();
            let mut found = memory.find(&key, &self.request.fields, policy);
            let mut tier = Tier::Memory;
            let mut now = SystemTime::now();
            let mut given = reuse(self.for_reuse(&found), &directives, now);
            if matches!(given, Reuse::Ask(_) | Reuse::NotCached) && !has_looked {
                has_looked = true;
                let further = self.look_further(caching, &key, &found, &mut patience);
                if let Some(better) = further.await? {
                    found = better;
                    tier = Tier::Redis;
                    now = SystemTime::now();
                    given = reuse(self.for_reuse(&found), &directives, now);
                }
            }
            let why = match given {
                Reuse::Ask(why) => why,
                Reuse::NotCached => return Err(Unanswered::Refused(Refusal::NotCached)),
                given => {
                    let Found::Entry(entry) = found else {
                        unreachable!("only an entry is given");
                    };
                    // What this gateway asks of itself is no reason to ask for it again.
                    if !matches!(self.client, Client::Own(_)) {
                        entry.hits().count();
                    }
                    let is_due = match given {
                        Reuse::WhileRevalidating => true,
                        Reuse::Fresh => entry.is_due(policy, now),
                        _ => false,
                    };
                    if is_due {
                        self.refresh(caching, &key, &entry);
                    }
                    return self.hit(forward, caching, &entry, None, (tier, now)).await;
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
                    return Box::pin(self.ask_head(forward, caching, key, entry, why)).await;
                }
                (&Method::HEAD, _) => return self.pass_on(forward, caching, why).await,
                _ if is_own || (tries == MOST_TRIES && leading.is_none()) => {
                    return self.pass_on(forward, caching, why).await;
                }
                _ => {}
            }
            // A part is for whom it was asked for, and for who comes when it is stored.
            let is_alone = wants_part || !memory.expects_something(&key);
            let alone = || is_alone.then(|| self.gateway.fills().alone(key.digest()));
            if let Some(leading) = leading.take().or_else(alone) {
                let mut fetch = self.fetch(caching, key, stored, leading);
                // Who wants a newer answer than is stored does not wait for what others store.
                fetch.awaits_others &= why != Why::Request;
                fetch.patience = patience;
                return Box::pin(self.lead(forward, caching, fetch, why)).await;
            }
            tries += 1;
            let fills = self.gateway.fills();
            let arrival = *arrival.get_or_insert_with(|| fills.arrival());
            let following = match fills.join(wanted, &key, memory.tombstones(), arrival) {
                Role::Leader(role) => {
                    // Once more to memory: the question before this one may have ended just now.
                    leading = Some(role);
                    continue;
                }
                Role::Follower(following) => following,
            };
            let is_later = following.is_later;
            let outcome = watched(&mut self.client, following.outcome()).await;
            match self.present(outcome)? {
                // It was purged by a tag that nobody knew before its head was there, or may have been.
                Stage::Ready(entry)
                    if !is_later && entry.judge(memory.tombstones(), &key) == Verdict::Purged => {}
                Stage::Ready(entry) => match entry.facts.vary.variant(&self.request.fields, policy)
                {
                    Ok(variant) if variant.bytes() == entry.facts.variant.bytes() => {
                        let following = self.follow(forward, caching, &entry, &stored, why);
                        return Box::pin(following).await;
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
        self.take(Phase::Origin).await?;
        Box::pin(self.forward(forward)).await
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
        self.take(Phase::Origin).await?;
        let about = Stored::Stale(stored.clone());
        let alone = self.gateway.fills().alone(key.digest());
        let mut fetch = self.fetch(caching, key, about, alone);
        let asked = self.gateway.memory().tombstones().epoch();
        let sent = SystemTime::now();
        let (origin, head) = self.reach(forward).await?;
        let times = cache::Exchange {
            sent,
            received: SystemTime::now(),
        };
        fetch.learn(&stored, &head, times, asked);
        self.deliver(head, Bytes::new(), origin).await
    }

    /// In the words of the policy, for this request.
    fn for_reuse<'f>(&self, found: &'f Found) -> reuse::Found<'f> {
        match found {
            Found::Entry(entry) if !self.has_wanted(entry) => reuse::Found::AnotherPart,
            found => found.for_reuse(),
        }
    }

    /// What all gateways keep, where that is more than what stands in memory; there it stands then too.
    async fn look_further(
        &mut self,
        caching: &Caching,
        key: &Key,
        found: &Found,
        patience: &mut Patience,
    ) -> Result<Option<Found>, Unanswered> {
        let memory = self.gateway.memory();
        let (Some(shared), Some(sharing)) = (self.gateway.shared_cache(), &caching.sharing) else {
            return Ok(None);
        };
        if !memory.expects_something(key) {
            return Ok(None);
        }
        let policy = &caching.policy;
        let sought = Sought {
            key,
            fields: &self.request.fields,
            policy,
            sharing,
            tombstones: memory.tombstones(),
        };
        let look = shared.find(&sought, Look::Together, patience);
        let elsewhere = watched(&mut self.client, Box::pin(look)).await;
        let Ok(elsewhere) = self.present(elsewhere)? else {
            return Ok(None);
        };
        let is_better = match (&elsewhere, found) {
            (Found::Entry(entry), Found::Entry(own)) => {
                own.facts.part().is_some() || entry.received() > own.received()
            }
            (Found::Entry(_), _) => true,
            (Found::OtherVariants(_) | Found::UnnamedCookie, Found::Nothing) => true,
            _ => false,
        };
        if let Found::Entry(entry) = &elsewhere
            && is_better
        {
            // It is given, kept or not.
            let _ = memory.store(key, entry.clone(), policy);
        }
        Ok(is_better.then_some(elsewhere))
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
        (tier, now): (Tier, SystemTime),
    ) -> Result<(), Unanswered> {
        let freshness = &entry.facts.freshness;
        let told = Told::given(Outcome::Hit, freshness, now);
        let tier = Some(tier);
        self.tell(
            caching,
            Told {
                detail,
                tier,
                ..told
            },
        );
        self.take(Phase::Hit).await?;
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
            let of_memory = (Tier::Memory, SystemTime::now());
            return self
                .hit(forward, caching, entry, Some(STALE_IF_ERROR), of_memory)
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
        self.take(Phase::Origin).await?;
        self.give(forward, caching, entry, reader).await
    }

    /// Asks the origin, for others too.
    async fn lead(
        &mut self,
        forward: &Forward,
        caching: &Caching,
        mut fetch: Fetch,
        why: Why,
    ) -> Result<(), Unanswered> {
        self.take(Phase::Origin).await?;
        let (progress, mut told) = mpsc::unbounded_channel();
        fetch.leader = Some(Leader {
            progress,
            takes_interim: self.client.takes_interim(),
        });
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
                beginning,
                attempt,
                why: not_stored,
            } => {
                self.exchange.attempt = attempt;
                let detail = Some(not_stored.as_str());
                self.tell(caching, Told { detail, ..told });
                self.deliver(*head, beginning, *origin).await
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
                let of_memory = (Tier::Memory, SystemTime::now());
                return self
                    .hit(forward, caching, entry, Some(STALE_IF_ERROR), of_memory)
                    .await;
            }
            Source::Redis => {
                let of_redis = (Tier::Redis, SystemTime::now());
                return self.hit(forward, caching, entry, None, of_redis).await;
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
        match self.condition(entry, None) {
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

    /// Asks the origin about a response that is given, stale or soon to be, unless somebody does.
    fn refresh(&self, caching: &Arc<Caching>, key: &Key, entry: &Arc<Entry>) {
        let wanted = (key.digest(), Some(entry.facts.variant.digest()));
        let tombstones = self.gateway.memory().tombstones();
        let fills = self.gateway.fills();
        let arrival = fills.arrival();
        if let Role::Leader(leading) = fills.join(wanted, key, tombstones, arrival) {
            let stale = Stored::Stale(entry.clone());
            let fetch = self.fetch(caching, key.clone(), stale, leading);
            tokio::spawn(fetch.refresh());
        }
    }

    fn fetch(&self, caching: &Arc<Caching>, key: Key, stored: Stored, leading: Leading) -> Fetch {
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
        // What is stale at once, others have to ask for too.
        let is_ever_fresh = match &stored {
            Stored::Stale(stale) => stale.facts.freshness.has_lifetime(),
            Stored::Part(..) | Stored::Nothing => true,
        };
        Fetch {
            gateway: self.gateway.clone(),
            downstream: self.downstream.clone(),
            exchange,
            request,
            caching: caching.clone(),
            key,
            stored,
            awaits_others: is_ever_fresh && leading.wanted().is_some(),
            patience: self.gateway.patience(),
            variant: leading.wanted().and_then(|(_, variant)| variant),
            held: None,
            leading,
            leader: None,
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
