//! One response as it is kept: what later requests are decided by, and a head that is ready to send.
//!
//! There are millions of them: what is rarely asked for is made of the text of the head when it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderName, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::admission::{Admission, Facts};
use super::body::Body;
use super::entity::Validators;
use super::forms::{Form, Forms};
use super::hits::Hits;
use super::key::Key;
use super::pages;
use super::partial::Part;
use super::policy::Policy;
use super::range::content_range;
use super::stamp::Stamp;
use super::stored::is_for_us;
use super::tombstones::{Cause, Epoch, Tombstones, Verdict};
use crate::compression::{Coding, representation};
use crate::http1::packed::{line, map};
use crate::http1::{PackedHead, ResponseHead};
use crate::weight;

/// A response that answers more than one request.
pub struct Entry {
    pub facts: Facts,
    pub content: Content,
    /// What had been purged when the origin was asked: what was purged later may cover it.
    pub asked: Epoch,
    /// The number of the last purge at which it was found to be good.
    judged: AtomicU64,
    kept_until: Stamp,
    received: Stamp,
    head: PackedHead,
    /// Of a whole body.
    forms: Forms,
    hits: Hits,
}

/// Its body.
#[derive(Clone)]
pub enum Content {
    Whole(Bytes),
    /// Still arriving, for those who asked meanwhile. Never in [`super::memory::Memory`].
    Growing(Arc<Body>),
}

/// What had been purged when the origin was asked, and when its head had arrived.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub asked: Epoch,
    pub received: SystemTime,
}

impl Entry {
    /// `reason` is the phrase that came with the status.
    pub fn new(
        admission: Admission,
        reason: &[u8],
        content: Content,
        times: Times,
        policy: &Policy,
    ) -> Self {
        Self {
            kept_until: admission.keep_until(policy).into(),
            head: compose(admission.facts.status, reason, &admission.fields),
            facts: admission.facts,
            content,
            asked: times.asked,
            judged: AtomicU64::new(times.asked.own()),
            received: times.received.into(),
            forms: Forms::default(),
            hits: Hits::default(),
        }
    }

    /// The same response with all of its body, and with its length, which may not have been known.
    pub fn whole(&self, body: Bytes) -> Self {
        let is_said = self
            .head
            .lines()
            .any(|(name, _)| name == CONTENT_LENGTH.as_str().as_bytes());
        let head = match is_said || self.facts.status == StatusCode::NO_CONTENT {
            true => self.head.clone(),
            false => {
                let mut fields = self.fields();
                fields.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                compose(self.facts.status, self.head.reason(), &fields)
            }
        };
        self.with(self.facts.clone(), head, body)
    }

    /// The same response with its body in another place.
    pub fn elsewhere(&self, body: Bytes) -> Self {
        let moved = self.with(self.facts.clone(), self.head.clone(), body);
        moved.with_forms_of(self)
    }

    /// The same response with these bytes of it: those of `part`, which may be all.
    pub fn with_part(&self, part: Part, body: Bytes) -> Self {
        let mut facts = self.facts.clone();
        let mut fields = self.fields();
        fields.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        if part.is_whole() {
            facts.status = StatusCode::OK;
            facts.set_part(None);
            fields.remove(CONTENT_RANGE);
        } else {
            facts.set_part(Some(part));
            fields.insert(CONTENT_RANGE, content_range(part.span, part.complete));
        }
        let reason = facts.status.canonical_reason().unwrap_or_default();
        let head = compose(facts.status, reason.as_bytes(), &fields);
        self.with(facts, head, body)
    }

    fn with(&self, facts: Facts, head: PackedHead, body: Bytes) -> Self {
        Self {
            facts,
            content: Content::Whole(body),
            head,
            forms: Forms::default(),
            hits: Hits::default(),
            judged: AtomicU64::new(self.asked.own()),
            ..*self
        }
    }

    /// What purges have made of it since it was asked for: whether it may be given to who asks now.
    pub fn judge(&self, tombstones: &Tombstones, key: &Key) -> Verdict {
        match tombstones.is_doubted() {
            true => Verdict::Purged,
            false => self.judge_by_known(tombstones, key),
        }
    }

    /// What the purges that are known have made of it: whether it is worth keeping.
    pub fn judge_by_known(&self, tombstones: &Tombstones, key: &Key) -> Verdict {
        let judged = self.judged.load(Ordering::Relaxed);
        let (verdict, now) = tombstones.judge(judged, key, self.facts.tags());
        if verdict == Verdict::Good && now > judged {
            self.judged.store(now, Ordering::Relaxed);
        }
        verdict
    }

    /// What purged it, if anything has: as [`Self::judge`], in words.
    pub fn purged_by(&self, tombstones: &Tombstones, key: &Key) -> Option<Cause> {
        let judged = self.judged.load(Ordering::Relaxed);
        tombstones.cause(judged, key, self.facts.tags())
    }

    /// How often it was given.
    pub fn hits(&self) -> &Hits {
        &self.hits
    }

    /// Whether it, being fresh, is to be fetched anew already, by the one who asks.
    pub fn is_due(&self, policy: &Policy, now: SystemTime) -> bool {
        policy.refresh_ahead.is_some_and(|ahead| {
            let freshness = &self.facts.freshness;
            self.hits.renews(&ahead, freshness, self.received(), now)
        })
    }

    /// The same response, that was good when `asked` was what had been purged.
    pub fn judged_at(&self, asked: Epoch) -> Self {
        Self {
            facts: self.facts.clone(),
            content: self.content.clone(),
            head: self.head.clone(),
            forms: self.forms.under_another_head(),
            hits: Hits::default(),
            judged: AtomicU64::new(asked.own()),
            asked,
            ..*self
        }
    }

    /// The same response, stale since then, as a soft purge makes it. What was purged before `now` has
    /// been judged.
    pub fn stale_since(&self, since: SystemTime, now: Epoch) -> Self {
        let asked = self.asked.at(now.own());
        Self {
            facts: Facts {
                freshness: self.facts.freshness.ended(since),
                ..self.facts.clone()
            },
            content: self.content.clone(),
            head: self.head.clone(),
            forms: self.forms.under_another_head(),
            hits: Hits::default(),
            judged: AtomicU64::new(asked.own()),
            asked,
            ..*self
        }
    }

    /// With the encoded forms of another entry, which has the same body.
    pub fn with_forms_of(self, other: &Self) -> Self {
        let forms = other.forms.under_another_head();
        Self { forms, ..self }
    }

    /// What has been made of its body; see [`Self::form`].
    pub fn forms(&self) -> &Forms {
        &self.forms
    }

    /// Its encoded form: `None` if it has not been made, `Some(None)` if the body is better as it is.
    pub fn form(&self, coding: Coding) -> Option<Option<Form<'_>>> {
        self.forms.get(coding, |length| {
            let mut fields = self.fields();
            representation::encode(&mut fields, coding, Some(length));
            compose(self.facts.status, self.head.reason(), &fields)
        })
    }

    /// The head of a whole answer, without `Age`.
    pub fn head(&self) -> ResponseHead {
        self.head.unpack()
    }

    /// The same as it is kept.
    pub fn packed(&self) -> &PackedHead {
        &self.head
    }

    /// Which bytes of the whole it has; `None` if that is all.
    pub fn part(&self) -> Option<Part> {
        self.facts.part()
    }

    /// When its head had arrived.
    pub fn received(&self) -> SystemTime {
        self.received.time()
    }

    pub fn reason(&self) -> &[u8] {
        self.head.reason()
    }

    /// What is kept of its fields, those included that only we read.
    pub fn fields(&self) -> HeaderMap {
        self.fields_where(|_| true)
    }

    /// When nothing can come of it any more.
    pub fn kept_until(&self) -> SystemTime {
        self.kept_until.time()
    }

    pub fn validators(&self) -> Validators {
        const READ: [HeaderName; 3] = [DATE, ETAG, LAST_MODIFIED];
        let fields =
            self.fields_where(|name| READ.iter().any(|read| read.as_str().as_bytes() == name));
        Validators::of(&fields, self.received.time())
    }

    /// Bytes of memory that it takes.
    pub fn weight(&self) -> usize {
        let body = match &self.content {
            Content::Whole(body) => pages::weight(body.len()),
            Content::Growing(_) => 0,
        };
        weight::of_shared::<Self>()
            + self.facts.weight()
            + self.head.weight()
            + body
            + self.forms.weight()
    }

    fn fields_where(&self, wanted: impl Fn(&[u8]) -> bool) -> HeaderMap {
        map(self.head.lines().filter(|(name, _)| wanted(name)))
    }
}

/// What is only for us is kept and not sent.
pub(super) fn compose(status: StatusCode, reason: &[u8], fields: &HeaderMap) -> PackedHead {
    let (kept, sent): (Vec<_>, Vec<_>) = fields.iter().partition(|(name, _)| is_for_us(name));
    let lines = |fields: Vec<_>| fields.into_iter().map(line).collect::<Vec<_>>();
    PackedHead::compose(status, reason, &lines(sent), &lines(kept))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::cache::Exchange;
    use crate::cache::admission::may_store;
    use crate::cache::testing::{anonymous, get, noon, response};

    fn entry(lines: &[(&str, &str)]) -> Entry {
        let times = Exchange {
            sent: noon(),
            received: noon(),
        };
        let lines = [&[("cache-control", "max-age=60")], lines].concat();
        let answered = response(200, &lines);
        let admission = may_store(&get(&[]).head(), &answered.head(), times, &anonymous()).unwrap();
        let (_, body) = Body::begin();
        let times = Times {
            asked: Epoch::default(),
            received: noon(),
        };
        Entry::new(
            admission,
            b"Fine",
            Content::Growing(body),
            times,
            &anonymous(),
        )
    }

    fn written(entry: &Entry) -> String {
        let mut out = BytesMut::new();
        entry.head().write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_response_of_unknown_length_has_one_when_it_is_whole() {
        let entry = entry(&[("x-a", "b")]);
        assert!(!written(&entry).contains("content-length"));
        let whole = entry.whole("four".into());
        let head = written(&whole);
        assert!(head.starts_with("HTTP/1.1 200 Fine\r\n"), "{head}");
        assert!(head.contains("x-a: b\r\n") && head.contains("content-length: 4\r\n"));
        assert!(whole.weight() > entry.weight() + 4);
    }

    #[test]
    fn what_is_said_to_us_is_kept_and_not_sent() {
        let entry = entry(&[("surrogate-key", "news"), ("etag", "\"v1\"")]);
        assert_eq!(entry.fields()["surrogate-key"], "news");
        assert!(!written(&entry).contains("surrogate-key"));
        assert!(!written(&entry.whole("x".into())).contains("surrogate-key"));
    }

    #[test]
    fn fields_and_validators_are_those_that_came() {
        let modified = "Sat, 01 Jan 2000 10:00:00 GMT";
        let lines = [
            ("etag", "\"v1\""),
            ("last-modified", modified),
            ("x-a", "1"),
            ("x-a", "2"),
        ];
        let entry = entry(&lines);
        let expected = response(200, &lines).fields;
        for name in ["etag", "last-modified", "x-a"] {
            let values =
                |fields: &HeaderMap| fields.get_all(name).iter().cloned().collect::<Vec<_>>();
            assert_eq!(values(&entry.fields()), values(&expected));
        }
        let fields = entry.fields();
        assert_eq!(entry.validators(), Validators::of(&fields, noon()));
        assert_eq!(entry.validators().last_modified_value().unwrap(), modified);
    }
}
