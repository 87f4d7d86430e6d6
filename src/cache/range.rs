//! Parts of a stored response that a client asks for (RFC 9110 14). Knows lengths, not bodies.

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method};
use smallvec::SmallVec;

use std::time::SystemTime;

use super::entity::{EntityTag, Validators};
use super::{Request, date, digits, list};

/// Bytes from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub first: u64,
    pub last: u64,
}

impl Span {
    /// In bytes; at least one.
    pub fn length(&self) -> u64 {
        self.last - self.first + 1
    }

    pub fn contains(&self, other: &Span) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// What is sent of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    Whole,
    One(Span),
    /// As `multipart/byteranges`, in the order in which they were asked for. Never more bytes than the
    /// whole has.
    Many(SmallVec<[Span; 4]>),
    /// 416.
    Unsatisfiable,
}

/// More parts than that are answered with the whole.
const MOST: usize = 16;

/// What a request wants of a stored 200 of `length` bytes. A range in another unit, malformed, or under
/// an `If-Range` that does not hold is not asked for.
pub fn wanted(
    request: &Request<'_>,
    validators: &Validators,
    length: u64,
    now: SystemTime,
) -> Ranges {
    let mut lines = request.fields.get_all(RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Ranges::Whole;
    };
    let is_asked = request.method == Method::GET && if_range_holds(request, validators, now);
    let Some(specs) = specs(line.as_bytes()).filter(|_| is_asked) else {
        return Ranges::Whole;
    };
    if length == 0 || specs.len() > MOST {
        return Ranges::Whole;
    }
    let spans: SmallVec<[Span; 4]> = specs.iter().filter_map(|spec| spec.span(length)).collect();
    let bytes = spans.iter().map(Span::length).fold(0, u64::saturating_add);
    match spans[..] {
        [] => Ranges::Unsatisfiable,
        [span] => Ranges::One(span),
        _ if bytes > length => Ranges::Whole,
        _ => Ranges::Many(spans),
    }
}

/// RFC 9110 13.1.5: only what marks bytes will do.
fn if_range_holds(request: &Request<'_>, validators: &Validators, now: SystemTime) -> bool {
    let mut lines = request.fields.get_all(IF_RANGE).iter();
    let condition = match (lines.next(), lines.next()) {
        (None, _) => return true,
        (Some(line), None) => line.as_bytes(),
        (Some(_), Some(_)) => return false,
    };
    match EntityTag::parse(condition) {
        Some(tag) => validators
            .etag()
            .is_some_and(|stored| stored.strongly_equals(&tag)),
        None => date::parse(condition, now).is_some_and(|date| validators.are_bytes_of(date)),
    }
}

#[derive(Clone, Copy)]
enum Spec {
    From(u64),
    Between(Span),
    Suffix(u64),
}

impl Spec {
    fn parse(text: &[u8]) -> Option<Self> {
        let dash = memchr::memchr(b'-', text)?;
        match (&text[..dash], &text[dash + 1..]) {
            (b"", suffix) => Some(Self::Suffix(digits::saturating(suffix)?)),
            (first, b"") => Some(Self::From(digits::saturating(first)?)),
            (first, last) => {
                let (first, last) = (digits::saturating(first)?, digits::saturating(last)?);
                (first <= last).then_some(Self::Between(Span { first, last }))
            }
        }
    }

    /// What it means for `length` bytes, at least one.
    fn span(self, length: u64) -> Option<Span> {
        let end = length - 1;
        let (first, last) = match self {
            Self::From(first) => (first, end),
            Self::Between(span) => (span.first, span.last.min(end)),
            Self::Suffix(0) => return None,
            Self::Suffix(suffix) => (length.saturating_sub(suffix), end),
        };
        (first <= end).then_some(Span { first, last })
    }
}

/// `bytes=0-499, -500`; `None` if anything in it is wrong.
fn specs(value: &[u8]) -> Option<SmallVec<[Spec; 4]>> {
    let (unit, set) = value.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let members = list::split(set).filter(|member| !member.is_empty());
    let specs: SmallVec<[Spec; 4]> = members.map(Spec::parse).collect::<Option<_>>()?;
    (!specs.is_empty()).then_some(specs)
}

/// `Content-Range` of a part.
pub fn content_range(span: Span, complete: u64) -> HeaderValue {
    let text = format!("bytes {}-{}/{complete}", span.first, span.last);
    HeaderValue::from_str(&text).expect("digits")
}

/// `Content-Range` of a 416.
pub fn unsatisfied_range(complete: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("bytes */{complete}")).expect("digits")
}

/// The fields of a 206 with one part, from those of the stored 200.
pub fn fields_of_part(stored: &HeaderMap, span: Span, complete: u64) -> HeaderMap {
    let mut fields = stored.clone();
    fields.insert(CONTENT_RANGE, content_range(span, complete));
    fields.insert(CONTENT_LENGTH, HeaderValue::from(span.length()));
    fields
}

/// The body of a 206 with several parts: for each its head, then its bytes; at last the end.
#[derive(Clone, Debug)]
pub struct Multipart<'a> {
    /// A token that does not occur in the body; at most 70 characters.
    pub boundary: &'a str,
    /// Of the stored response.
    pub content_type: Option<&'a HeaderValue>,
    pub spans: &'a [Span],
    pub complete: u64,
}

impl Multipart<'_> {
    /// What stands before the bytes of a part.
    pub fn head(&self, span: Span) -> Vec<u8> {
        let mut head = format!("\r\n--{}\r\n", self.boundary).into_bytes();
        if let Some(content_type) = self.content_type {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(content_type.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"Content-Range: ");
        head.extend_from_slice(content_range(span, self.complete).as_bytes());
        head.extend_from_slice(b"\r\n\r\n");
        head
    }

    /// What stands behind the last part.
    pub fn end(&self) -> Vec<u8> {
        format!("\r\n--{}--\r\n", self.boundary).into_bytes()
    }

    /// The fields of the response, from those of the stored 200.
    pub fn fields(&self, stored: &HeaderMap) -> HeaderMap {
        let part = |span: &Span| self.head(*span).len() as u64 + span.length();
        let length = self.spans.iter().map(part).sum::<u64>() + self.end().len() as u64;
        let content_type = format!("multipart/byteranges; boundary={}", self.boundary);
        let content_type = HeaderValue::from_str(&content_type).expect("the boundary is a token");
        let mut fields = stored.clone();
        fields.insert(CONTENT_TYPE, content_type);
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
        fields
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::testing::{date, fields, get, noon, request};

    fn ranges(lines: &[(&str, &str)], stored: &[(&str, &str)], length: u64) -> Ranges {
        let validators = Validators::of(&fields(stored), noon());
        wanted(&get(lines).head(), &validators, length, noon())
    }

    fn span(first: u64, last: u64) -> Span {
        Span { first, last }
    }

    fn many(spans: &[(u64, u64)]) -> Ranges {
        Ranges::Many(
            spans
                .iter()
                .map(|&(first, last)| span(first, last))
                .collect(),
        )
    }

    #[test]
    fn ranges_of_ten_bytes() {
        for (value, expected) in [
            ("bytes=0-1", Ranges::One(span(0, 1))),
            ("Bytes=0-0", Ranges::One(span(0, 0))),
            ("bytes=1-", Ranges::One(span(1, 9))),
            ("bytes=-1", Ranges::One(span(9, 9))),
            ("bytes=-100", Ranges::One(span(0, 9))),
            ("bytes=5-100", Ranges::One(span(5, 9))),
            ("bytes=0-99999999999999999999999", Ranges::One(span(0, 9))),
            ("bytes=10-", Ranges::Unsatisfiable),
            ("bytes=10-20, 11-", Ranges::Unsatisfiable),
            ("bytes=-0", Ranges::Unsatisfiable),
            ("bytes=99999999999999999999999-", Ranges::Unsatisfiable),
            ("bytes=0-1, 20-", Ranges::One(span(0, 1))),
            ("bytes=0-1,5-6 ,-1", many(&[(0, 1), (5, 6), (9, 9)])),
            ("bytes=8-9,0-1", many(&[(8, 9), (0, 1)])),
            ("bytes=0-9,0-9", Ranges::Whole),
            ("bytes=", Ranges::Whole),
            ("bytes=,", Ranges::Whole),
            ("bytes=5-4", Ranges::Whole),
            ("bytes=a-b", Ranges::Whole),
            ("bytes=0-1,x", Ranges::Whole),
            ("bytes=1", Ranges::Whole),
            ("bytes=-", Ranges::Whole),
            ("bytes = 0-1", Ranges::Whole),
            ("bytes=0 - 1", Ranges::Whole),
            ("bytes=+0-1", Ranges::Whole),
            ("lines=0-1", Ranges::Whole),
            ("", Ranges::Whole),
        ] {
            assert_eq!(ranges(&[("range", value)], &[], 10), expected, "{value}");
        }
    }

    #[test]
    fn nothing_but_a_single_line_of_a_get_asks_for_a_range() {
        let twice = [("range", "bytes=0-1"), ("range", "bytes=0-1")];
        assert_eq!(ranges(&twice, &[], 10), Ranges::Whole);
        assert_eq!(ranges(&[("range", "bytes=-5")], &[], 0), Ranges::Whole);
        let head = request("HEAD", &[("range", "bytes=0-1")]);
        let validators = Validators::of(&HeaderMap::new(), noon());
        let wanted = wanted(&head.head(), &validators, 10, noon());
        assert_eq!(wanted, Ranges::Whole);
    }

    #[test]
    fn many_small_ranges_are_answered_with_the_whole() {
        let value = format!("bytes={}", vec!["0-0"; 17].join(","));
        assert_eq!(ranges(&[("range", &value)], &[], 1000), Ranges::Whole);
    }

    #[test]
    fn if_range_holds_only_by_strong_comparison() {
        let (modified, later) = (date(-10), date(-5));
        let strong = [
            ("etag", "\"a\""),
            ("last-modified", &modified),
            ("date", &later),
        ];
        let weak = [
            ("etag", "W/\"a\""),
            ("last-modified", &later),
            ("date", &later),
        ];
        let holds = |condition: &str, stored: &[(&str, &str)]| {
            let lines = [("range", "bytes=0-1"), ("if-range", condition)];
            ranges(&lines, stored, 10) != Ranges::Whole
        };
        assert!(holds("\"a\"", &strong));
        assert!(holds(&modified, &strong));
        for condition in ["W/\"a\"", "\"b\"", "a", "*", "", &later, &date(-11)] {
            assert!(!holds(condition, &strong), "{condition}");
        }
        for condition in ["W/\"a\"", "\"a\"", &later] {
            assert!(!holds(condition, &weak), "{condition}");
        }
    }

    #[test]
    fn a_part_carries_the_stored_fields() {
        let stored = fields(&[("content-length", "10"), ("etag", "\"a\""), ("a", "1")]);
        let part = fields_of_part(&stored, span(2, 4), 10);
        let expected = fields(&[
            ("content-length", "3"),
            ("etag", "\"a\""),
            ("a", "1"),
            ("content-range", "bytes 2-4/10"),
        ]);
        assert_eq!(part, expected);
        assert_eq!(unsatisfied_range(10), "bytes */10");
    }

    #[test]
    fn several_parts_are_a_multipart_body_of_the_length_that_is_told() {
        let body = b"0123456789";
        let stored = fields(&[("content-type", "text/plain"), ("content-length", "10")]);
        let multipart = Multipart {
            boundary: "xyz",
            content_type: stored.get(CONTENT_TYPE),
            spans: &[span(0, 1), span(8, 9)],
            complete: 10,
        };
        let mut sent = Vec::new();
        for part in multipart.spans {
            sent.extend(multipart.head(*part));
            sent.extend(&body[part.first as usize..=part.last as usize]);
        }
        sent.extend(multipart.end());
        assert_eq!(
            String::from_utf8(sent.clone()).unwrap(),
            "\r\n--xyz\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
             \r\n--xyz\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\
             \r\n--xyz--\r\n"
        );
        let fields = multipart.fields(&stored);
        assert_eq!(fields[CONTENT_TYPE], "multipart/byteranges; boundary=xyz");
        assert_eq!(fields[CONTENT_LENGTH], sent.len().to_string().as_str());
    }

    proptest! {
        #[test]
        fn every_span_lies_within_the_body(
            value in "bytes=([0-9]{0,3}-[0-9]{0,3},?){1,5}",
            length in 1u64..400,
        ) {
            let within = |span: &Span| span.first <= span.last && span.last < length;
            match ranges(&[("range", &value)], &[], length) {
                Ranges::One(span) => prop_assert!(within(&span)),
                Ranges::Many(spans) => prop_assert!(spans.iter().all(within)),
                Ranges::Whole | Ranges::Unsatisfiable => {}
            }
        }
    }
}
