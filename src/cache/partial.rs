//! A stored part of a response: what it answers, and how it becomes the whole (RFC 9111 3.3, 3.4).

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue};

use super::entity::Validators;
use super::range::{Ranges, Span};
use crate::http1::grammar::decimal;

/// Which bytes of how many a 206 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub span: Span,
    /// The length of the whole.
    pub complete: u64,
}

impl Part {
    /// Reads the head of a 206. `None` if it has several parts, its length is unknown, or its
    /// `Content-Range` contradicts itself or `Content-Length`.
    pub fn of(response: &HeaderMap) -> Option<Self> {
        let mut lines = response.get_all(CONTENT_RANGE).iter();
        let line = lines.next().filter(|_| lines.next().is_none())?;
        let range = line.as_bytes().strip_prefix(b"bytes ")?;
        let dash = memchr::memchr(b'-', range)?;
        let slash = memchr::memchr(b'/', range).filter(|slash| *slash > dash)?;
        let part = Self {
            span: Span {
                first: decimal(&range[..dash])?,
                last: decimal(&range[dash + 1..slash])?,
            },
            complete: decimal(&range[slash + 1..])?,
        };
        let is_sound = part.span.first <= part.span.last && part.span.last < part.complete;
        let declared = response.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
        let fits = declared.is_none_or(|length| decimal(length) == Some(part.span.length()));
        (is_sound && fits).then_some(part)
    }

    /// Whether all that is wanted lies within it; `wanted` is of the complete length.
    pub fn answers(&self, wanted: &Ranges) -> bool {
        match wanted {
            Ranges::One(span) => self.span.contains(span),
            Ranges::Many(spans) => spans.iter().all(|span| self.span.contains(span)),
            // Known from the length alone.
            Ranges::Unsatisfiable => true,
            Ranges::Whole => self.is_whole(),
        }
    }

    pub fn is_whole(&self) -> bool {
        self.span.length() == self.complete
    }

    /// The question that completes a stored beginning: the rest, if nothing has changed, else the
    /// whole. `None` if it is no beginning, or if its bytes are not marked: then the rest of another
    /// version could not be told from its own.
    pub fn completion(&self, validators: &Validators) -> Option<HeaderMap> {
        if self.span.first != 0 || self.is_whole() {
            return None;
        }
        let range = format!("bytes={}-", self.span.last + 1);
        let condition = validators.strong_value()?;
        let mut fields = HeaderMap::new();
        fields.insert(RANGE, HeaderValue::from_str(&range).expect("digits"));
        fields.insert(IF_RANGE, condition.clone());
        Some(fields)
    }

    /// What both cover, if they are parts of the same bytes and leave no gap.
    pub fn combined(
        &self,
        validators: &Validators,
        other: &Part,
        others: &Validators,
    ) -> Option<Part> {
        let is_same = match (validators.etag(), others.etag()) {
            (Some(one), Some(other)) => one.strongly_equals(&other),
            (None, None) => {
                let marks = validators.strong_value();
                marks.is_some() && marks == others.strong_value()
            }
            _ => false,
        };
        let (low, high) = match self.span.first <= other.span.first {
            true => (self.span, other.span),
            false => (other.span, self.span),
        };
        let is_joined = high.first <= low.last + 1;
        let part = Part {
            span: Span {
                first: low.first,
                last: low.last.max(high.last),
            },
            complete: self.complete,
        };
        (is_same && is_joined && self.complete == other.complete).then_some(part)
    }

    /// The bytes of both, of parts that can be [`Part::combined`]; `own` and `others` are all of theirs.
    pub fn joined(&self, own: &[u8], other: &Part, others: &[u8]) -> Bytes {
        let ((low, first), (high, second)) = match self.span.first <= other.span.first {
            true => ((self, own), (other, others)),
            false => ((other, others), (self, own)),
        };
        // Spans lie within their bodies, whose lengths are those of memory.
        let both = (low.span.last + 1 - high.span.first) as usize;
        let rest = second.get(both..).unwrap_or_default();
        [first, rest].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::range::wanted;
    use crate::cache::testing::{date, fields, get, noon};

    fn part(value: &str) -> Option<Part> {
        Part::of(&fields(&[("content-range", value)]))
    }

    fn validators(lines: &[(&str, &str)]) -> Validators {
        Validators::of(&fields(lines), noon())
    }

    #[test]
    fn a_content_range_is_read_exactly() {
        let expected = Part {
            span: Span { first: 4, last: 9 },
            complete: 10,
        };
        assert_eq!(part("bytes 4-9/10"), Some(expected));
        for value in [
            "bytes 4-9/*",
            "bytes */10",
            "bytes 9-4/10",
            "bytes 4-10/10",
            "bytes 4-9",
            "bytes=4-9/10",
            "items 4-9/10",
            "bytes 4/9-10",
            "",
        ] {
            assert_eq!(part(value), None, "{value}");
        }
        let with_length = |length| {
            let lines = [
                ("content-range", "bytes 4-9/10"),
                ("content-length", length),
            ];
            Part::of(&fields(&lines))
        };
        assert_eq!(with_length("6"), Some(expected));
        assert_eq!(with_length("5"), None, "a body that is not what it says");
    }

    #[test]
    fn a_part_answers_the_same_and_contained_ranges() {
        let held = part("bytes 4-9/10").unwrap();
        for (value, answers) in [
            ("bytes=-6", true),
            ("bytes=4-9", true),
            ("bytes=6-8", true),
            ("bytes=6-", true),
            ("bytes=-1", true),
            ("bytes=5-5,7-8", true),
            ("bytes=20-", true),
            ("bytes=3-8", false),
            ("bytes=0-0", false),
            ("bytes=0-0,5-5", false),
            ("bytes=-7", false),
            ("x", false),
        ] {
            let asked = get(&[("range", value)]);
            let wanted = wanted(&asked.head(), &validators(&[]), held.complete, noon());
            assert_eq!(held.answers(&wanted), answers, "{value}");
        }
    }

    #[test]
    fn a_beginning_is_completed_by_asking_only_for_the_rest() {
        let beginning = part("bytes 0-4/10").unwrap();
        let tagged = validators(&[("etag", "\"a\"")]);
        let question = fields(&[("range", "bytes=5-"), ("if-range", "\"a\"")]);
        assert_eq!(beginning.completion(&tagged), Some(question));
        assert_eq!(part("bytes 4-9/10").unwrap().completion(&tagged), None);
        assert_eq!(part("bytes 0-9/10").unwrap().completion(&tagged), None);
        for unmarked in [&[][..], &[("etag", "W/\"a\"")]] {
            assert_eq!(beginning.completion(&validators(unmarked)), None);
        }
    }

    #[test]
    fn joined_parts_have_the_bytes_of_both() {
        let text = b"0123456789";
        let of = |value: &str| {
            let part = part(value).unwrap();
            let bytes = &text[part.span.first as usize..=part.span.last as usize];
            (part, bytes)
        };
        for (one, other, expected) in [
            ("bytes 0-4/10", "bytes 5-9/10", "0123456789"),
            ("bytes 5-9/10", "bytes 0-4/10", "0123456789"),
            ("bytes 2-6/10", "bytes 4-8/10", "2345678"),
            ("bytes 0-8/10", "bytes 3-5/10", "012345678"),
            ("bytes 3-5/10", "bytes 3-8/10", "345678"),
        ] {
            let ((one, own), (other, others)) = (of(one), of(other));
            assert_eq!(
                one.joined(own, &other, others),
                expected,
                "{one:?} {other:?}"
            );
        }
    }

    #[test]
    fn only_parts_of_the_same_bytes_are_combined() {
        let (low, high) = (part("bytes 0-4/10").unwrap(), part("bytes 5-9/10").unwrap());
        let (a, b) = (
            validators(&[("etag", "\"a\"")]),
            validators(&[("etag", "\"b\"")]),
        );
        let whole = part("bytes 0-9/10");
        assert_eq!(low.combined(&a, &high, &a), whole);
        assert_eq!(high.combined(&a, &low, &a), whole);
        assert_eq!(low.combined(&a, &high, &b), None);
        assert_eq!(low.combined(&a, &part("bytes 5-9/11").unwrap(), &a), None);
        assert_eq!(low.combined(&a, &part("bytes 6-9/10").unwrap(), &a), None);
        assert_eq!(
            low.combined(&a, &part("bytes 1-3/10").unwrap(), &a),
            Some(low)
        );
        let none = validators(&[]);
        assert_eq!(low.combined(&none, &high, &none), None);
        let (modified, later) = (date(-10), date(-5));
        let dated = validators(&[("last-modified", &modified), ("date", &later)]);
        assert_eq!(low.combined(&dated, &high, &dated), whole);
    }
}
