//! A stored response as an answer: all of it, a part, or that it has not changed.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::ready::{self, Known, Ready};
use super::{Lane, Unanswered};
use crate::cache::body::Reader;
use crate::cache::conditional::{self, Condition};
use crate::cache::entry::{Content, Entry};
use crate::cache::range::{self, Multipart, Ranges, Span};
use crate::cache::status::{Forward as Why, Outcome};
use crate::cache::stored::is_for_us;
use crate::client::RequestId;
use crate::exchange::compressing::{self, For};
use crate::headers::cache::Told;
use crate::http1::ResponseHead;
use crate::plan::{Caching, Forward};

impl Lane<'_> {
    pub(super) fn condition(&self, entry: &Entry, ready: Option<&Ready>) -> Condition {
        if !conditional::is_conditional(&self.request.fields) {
            return Condition::Answer;
        }
        let described = self.described();
        let known = ready.and_then(|ready| ready.known.as_ref());
        let validators = known.map_or_else(
            || Cow::Owned(entry.validators()),
            |known| Cow::Borrowed(&known.validators),
        );
        conditional::evaluate(
            &described.request(),
            entry.facts.status,
            &validators,
            SystemTime::now(),
        )
    }

    /// The head of a hit, where one is ready and the client takes it.
    fn ready_head(&mut self, entry: &Entry) -> Option<Arc<Ready>> {
        let is_hit = |told: &Told| told.outcome == Outcome::Hit;
        let is_hit = self.exchange.cache.as_ref().is_some_and(is_hit);
        if !is_hit || !self.client.takes_ready() {
            return None;
        }
        ready::stored(&mut self.exchange, entry)
    }

    /// Sends a stored response, or as much of it as is asked for. `reader` has the body of one that is
    /// still arriving.
    pub(super) async fn give(
        &mut self,
        forward: &Forward,
        caching: &Caching,
        entry: &Arc<Entry>,
        reader: Option<Reader>,
    ) -> Result<(), Unanswered> {
        let ready = match reader {
            Some(_) => None,
            None => self.ready_head(entry),
        };
        match self.condition(entry, ready.as_deref()) {
            Condition::NotModified => {
                if let Some(ready) = ready
                    && let Some(known) = &ready.known
                    && !self.is_known_weakly(known)
                {
                    return Ok(self.answer_ready(&known.not_modified, Bytes::new()).await?);
                }
                return Box::pin(self.not_modified(entry)).await;
            }
            Condition::AskOrigin => {
                drop(reader);
                let told = Told::forwarded(Why::Request, None);
                return self.pass(forward, caching, told).await;
            }
            Condition::Answer => {}
        }
        let body = match (&entry.content, reader) {
            (_, Some(reader)) => {
                self.begin_pieces(entry.head(), For::Everybody)?;
                return Box::pin(self.stream(reader)).await;
            }
            (Content::Whole(body), None) => body.clone(),
            (Content::Growing(_), None) => unreachable!("who is given a growing body reads it"),
        };
        let held = Held::of(entry, body);
        match self.wanted(entry, held.complete) {
            Ranges::Whole => self.all(caching, entry, ready, &held.bytes).await,
            // In memory of its own, as all that few hits need.
            wanted => Box::pin(self.some(entry, &held, wanted)).await,
        }
    }

    /// Sends what is wanted of a stored response.
    async fn some(
        &mut self,
        entry: &Arc<Entry>,
        held: &Held,
        wanted: Ranges,
    ) -> Result<(), Unanswered> {
        match wanted {
            Ranges::Whole => self.whole(entry.head(), held.bytes.clone()).await,
            Ranges::One(span) => {
                let fields = range::fields_of_part(&entry.fields(), span, held.complete);
                let head = compose(StatusCode::PARTIAL_CONTENT, &fields);
                compressing::depends(&mut self.exchange, &entry.head());
                self.whole(head, held.part(span)).await
            }
            Ranges::Many(spans) => self.parts(entry, held, &spans).await,
            Ranges::Unsatisfiable => {
                let mut fields = HeaderMap::new();
                let length = range::unsatisfied_range(held.complete);
                fields.insert(CONTENT_RANGE, length);
                fields.insert(CONTENT_LENGTH, HeaderValue::from(0));
                let head = compose(StatusCode::RANGE_NOT_SATISFIABLE, &fields);
                self.whole(head, Bytes::new()).await
            }
        }
    }

    /// What is wanted of a stored response that is `length` bytes long, stored or not.
    pub(super) fn wanted(&self, entry: &Entry, length: u64) -> Ranges {
        let has_ranges = entry.facts.status == StatusCode::OK || entry.facts.part().is_some();
        if !has_ranges || !self.request.fields.contains_key(RANGE) {
            return Ranges::Whole;
        }
        let described = self.described();
        let validators = entry.validators();
        range::wanted(&described.request(), &validators, length, SystemTime::now())
    }

    pub(super) async fn not_modified(&mut self, entry: &Entry) -> Result<(), Unanswered> {
        let stored = entry.fields();
        let fields = conditional::not_modified_fields(&stored);
        let mut head = ResponseHead::compose(StatusCode::NOT_MODIFIED, b"Not Modified", fields);
        if compressing::depends(&mut self.exchange, &entry.head()) {
            head = self.not_modified_as_known(head);
        }
        self.whole(head, Bytes::new()).await
    }

    /// Whether the client names the version it has as that of an encoded body.
    fn is_known_weakly(&self, known: &Known) -> bool {
        let etag = known.validators.etag_value();
        etag.is_some_and(|etag| compressing::names_weakly(&self.request.fields, etag.as_bytes()))
    }

    async fn parts(
        &mut self,
        entry: &Entry,
        held: &Held,
        spans: &[Span],
    ) -> Result<(), Unanswered> {
        let boundary = boundary(&held.bytes);
        let stored = entry.fields();
        let parts = Multipart {
            boundary: &boundary,
            content_type: stored.get(CONTENT_TYPE),
            spans,
            complete: held.complete,
        };
        let fields = parts.fields(&stored);
        compressing::depends(&mut self.exchange, &entry.head());
        self.begin_answer(compose(StatusCode::PARTIAL_CONTENT, &fields))?;
        for span in spans {
            self.send(parts.head(*span).into()).await?;
            self.send(held.part(*span)).await?;
        }
        self.send(parts.end().into()).await?;
        Ok(self.end_answer().await?)
    }

    /// Sends an answer that is there.
    pub(super) async fn whole(
        &mut self,
        head: ResponseHead,
        body: Bytes,
    ) -> Result<(), Unanswered> {
        self.begin_answer(head)?;
        let ended = match self.request.method == Method::HEAD || body.is_empty() {
            true => self.end_answer().await,
            false => self.end_with(body).await,
        };
        Ok(ended?)
    }

    /// Sends a body as it arrives.
    pub(super) async fn stream(&mut self, mut body: Reader) -> Result<(), Unanswered> {
        loop {
            match self.arriving(body.next()).await? {
                Ok(Some(piece)) => self.send(piece).await?,
                Ok(None) => break,
                Err(_) => return Err(self.cut_short()),
            }
        }
        Ok(self.end_answer().await?)
    }
}

/// Takes from a head what an application says only to a cache such as ours.
pub(super) fn strip_what_is_for_us(head: &mut ResponseHead) {
    let names = head
        .lines()
        .filter_map(|(name, _)| HeaderName::from_bytes(name).ok());
    let for_us: Vec<_> = names.filter(is_for_us).collect();
    for name in &for_us {
        head.remove(name);
    }
}

/// A head of ours with what clients may read of these fields.
fn compose(status: StatusCode, fields: &HeaderMap) -> ResponseHead {
    let reason = status.canonical_reason().unwrap_or_default();
    let fields = fields.iter().filter(|(name, _)| !is_for_us(name));
    ResponseHead::compose(status, reason.as_bytes(), fields)
}

/// The bytes of a response that are there.
struct Held {
    bytes: Bytes,
    /// Where they begin in the whole, and how long that is.
    first: u64,
    complete: u64,
}

impl Held {
    fn of(entry: &Entry, bytes: Bytes) -> Self {
        let (first, complete) = match entry.part() {
            Some(part) => (part.span.first, part.complete),
            None => (0, bytes.len() as u64),
        };
        Self {
            bytes,
            first,
            complete,
        }
    }

    /// Of a span that lies within them.
    fn part(&self, span: Span) -> Bytes {
        let at = |place: u64| (place - self.first) as usize;
        self.bytes.slice(at(span.first)..=at(span.last))
    }
}

/// A text that does not occur in the body.
fn boundary(body: &[u8]) -> String {
    loop {
        let boundary = RequestId::make().as_str().to_owned();
        if memchr::memmem::find(body, boundary.as_bytes()).is_none() {
            return boundary;
        }
    }
}
