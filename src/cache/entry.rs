//! One response as it is kept: what later requests are decided by, and a head that is ready to send.

use std::mem::{size_of, size_of_val};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::admission::{Admission, Facts};
use super::body::Body;
use super::entity::Validators;
use super::forms::{Form, Forms};
use super::frame::Digest;
use super::partial::Part;
use super::policy::Policy;
use super::range::content_range;
use super::stored::is_for_us;
use super::tags::Tag;
use crate::compression::Coding;
use crate::http1::ResponseHead;

/// A response that answers more than one request.
pub struct Entry {
    pub facts: Facts,
    /// What is kept of its fields, those included that only we read.
    pub fields: HeaderMap,
    pub content: Content,
    /// The groups that it is in, of [`super::groups::of`].
    pub groups: Box<[Digest]>,
    /// When the origin was asked: what was declared outdated later includes it.
    pub asked: Instant,
    /// When nothing can come of it any more.
    pub kept_until: SystemTime,
    head: ResponseHead,
    bytes: usize,
    /// Of a whole body.
    forms: Forms,
}

/// Its body.
#[derive(Clone)]
pub enum Content {
    Whole(Bytes),
    /// Still arriving, for those who asked meanwhile. Never in [`super::memory::Memory`].
    Growing(Arc<Body>),
}

/// When the origin was asked, and when its head had arrived.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub asked: Instant,
    pub received: SystemTime,
}

/// What a line of fields costs besides its text: its places in a map and in a head.
const BYTES_OF_FIELD: usize = 160;

impl Entry {
    /// `reason` is the phrase that came with the status.
    pub fn new(
        admission: Admission,
        groups: Box<[Digest]>,
        reason: &[u8],
        content: Content,
        times: Times,
        policy: &Policy,
    ) -> Self {
        let Admission { mut facts, fields } = admission;
        let kept_until = facts.keep_until(policy);
        // Each value is a part of one text from here on: those that came are parts of the buffer
        // that they were read into, which would be kept for their sake.
        let head = ResponseHead::compose(facts.status, reason, fields.iter());
        let mut own = HeaderMap::with_capacity(fields.len());
        for ((name, _), (_, value)) in fields.iter().zip(head.lines()) {
            let value = HeaderValue::from_maybe_shared(value).expect("it was a value before");
            own.append(name.clone(), value);
        }
        facts.validators = Validators::of(&own, times.received);
        Self {
            facts,
            content,
            groups,
            asked: times.asked,
            kept_until,
            bytes: 0,
            forms: Forms::default(),
            fields: own,
            head,
        }
        .ready()
    }

    /// Takes from the head what is only for us.
    fn ready(self) -> Self {
        let Self {
            fields, mut head, ..
        } = self;
        let bytes = head.longest() + fields.len() * BYTES_OF_FIELD;
        for name in fields.keys().filter(|name| is_for_us(name)) {
            head.remove(name);
        }
        Self {
            fields,
            head,
            bytes,
            ..self
        }
    }

    /// The same response with all of its body, and with its length, which may not have been known.
    pub fn whole(&self, body: Bytes) -> Self {
        let mut fields = self.fields.clone();
        if !fields.contains_key(CONTENT_LENGTH) && self.facts.status != StatusCode::NO_CONTENT {
            fields.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        self.with(self.facts.clone(), fields, self.head.reason(), body)
    }

    /// The same response with these bytes of it: those of `part`, which may be all.
    pub fn with_part(&self, part: Part, body: Bytes) -> Self {
        let mut facts = self.facts.clone();
        let mut fields = self.fields.clone();
        fields.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        if part.is_whole() {
            facts.status = StatusCode::OK;
            facts.part = None;
            fields.remove(CONTENT_RANGE);
        } else {
            facts.part = Some(part);
            fields.insert(CONTENT_RANGE, content_range(part.span, part.complete));
        }
        let reason = facts.status.canonical_reason().unwrap_or_default();
        self.with(facts, fields, reason.as_bytes(), body)
    }

    fn with(&self, facts: Facts, fields: HeaderMap, reason: &[u8], body: Bytes) -> Self {
        let head = ResponseHead::compose(facts.status, reason, fields.iter());
        Self {
            facts,
            groups: self.groups.clone(),
            content: Content::Whole(body),
            fields,
            head,
            forms: Forms::default(),
            ..*self
        }
        .ready()
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
        // What clients may read: the head has lost what is only for us.
        let fields = || {
            let told = self.fields.iter().filter(|(name, _)| !is_for_us(name));
            let told = told.map(|(name, value)| (name.clone(), value.clone()));
            told.collect()
        };
        self.forms.get(coding, &self.head, fields)
    }

    /// The head of a whole answer, without `Age`.
    pub fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// Bytes of memory that it takes.
    pub fn weight(&self) -> usize {
        let facts = &self.facts;
        let spilled = |bytes: &[u8]| bytes.len().saturating_sub(256);
        let in_language = facts.variant_in_language.as_ref();
        let body = match &self.content {
            Content::Whole(body) => body.len(),
            Content::Growing(_) => 0,
        };
        size_of::<Self>()
            + self.bytes
            + body
            + self.forms.weight()
            + spilled(facts.variant.bytes())
            + in_language.map_or(0, |variant| spilled(variant.bytes()))
            + size_of_val(&*self.groups)
            + facts.tags.iter().map(weight_of_tag).sum::<usize>()
    }
}

fn weight_of_tag(tag: &Tag) -> usize {
    let (Tag::Key(name) | Tag::Group(name)) = tag;
    size_of::<Tag>() + name.len()
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
            asked: Instant::now(),
            received: noon(),
        };
        Entry::new(
            admission,
            Box::default(),
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
        assert!(entry.fields.contains_key("surrogate-key"));
        assert!(!written(&entry).contains("surrogate-key"));
        assert!(!written(&entry.whole("x".into())).contains("surrogate-key"));
        assert!(entry.facts.validators.exist());
    }
}
