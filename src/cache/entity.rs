//! Which version of a resource a response is: entity tags and dates of modification (RFC 9110 8.8).

use std::time::{Duration, SystemTime};

use http::header::{AsHeaderName, DATE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue};

use super::date;

/// An entity tag as it stands in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityTag<'a> {
    pub weak: bool,
    /// With its quotes.
    opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// The tag that is the whole of a text. Unquoted or with `w/` it is none.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (tag, rest) = Self::take(text)?;
        rest.is_empty().then_some(tag)
    }

    /// The tag that a text begins with, and what follows it.
    fn take(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let quoted = text.strip_prefix(b"W/");
        let (weak, quoted) = (quoted.is_some(), quoted.unwrap_or(text));
        let content = quoted.strip_prefix(b"\"")?;
        let length = memchr::memchr(b'"', content)?;
        let is_etagc = |byte: &u8| !matches!(byte, 0..=b' ' | 0x7f);
        if !content[..length].iter().all(is_etagc) {
            return None;
        }
        let (opaque, rest) = quoted.split_at(length + 2);
        Some((Self { weak, opaque }, rest))
    }

    /// Whether both mark the same content, if not byte for byte.
    pub fn weakly_equals(&self, other: &EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }

    /// Whether both mark the same bytes.
    pub fn strongly_equals(&self, other: &EntityTag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }
}

/// Whether a list of tags, `If-Match` or `If-None-Match`, has one that `fits`, or is `*`. What is no
/// tag is passed over.
pub fn list_has(
    fields: &HeaderMap,
    name: impl AsHeaderName,
    fits: impl Fn(EntityTag<'_>) -> bool,
) -> bool {
    fields.get_all(name).iter().any(|line| {
        let mut rest = line.as_bytes().trim_ascii();
        if rest == b"*" {
            return true;
        }
        while let Some((&first, after)) = rest.split_first() {
            rest = match EntityTag::take(rest) {
                Some((tag, _)) if fits(tag) => return true,
                Some((_, after)) => after,
                None if matches!(first, b',' | b' ' | b'\t') => after,
                None => &rest[memchr::memchr(b',', rest).unwrap_or(rest.len())..],
            };
        }
        false
    })
}

/// The validators of a stored response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validators {
    /// Only one that is valid.
    etag: Option<HeaderValue>,
    last_modified: Option<LastModified>,
    /// What `If-Modified-Since` is compared with: `Last-Modified`, else `Date`, else the time of
    /// receipt (RFC 9111 4.3.2).
    changed: SystemTime,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct LastModified {
    /// As it was sent: what the origin wrote it can read.
    value: HeaderValue,
    time: SystemTime,
    /// Whether it marks bytes: `Date` is at least a second later, so that a second change within
    /// the same second would have been seen (RFC 9110 8.8.2.2).
    strong: bool,
}

impl Validators {
    pub fn of(response: &HeaderMap, received: SystemTime) -> Self {
        let date = single_date(response, DATE, received);
        let last_modified = response
            .get(LAST_MODIFIED)
            .zip(single_date(response, LAST_MODIFIED, received))
            .map(|(value, time)| LastModified {
                value: value.clone(),
                time,
                strong: date.is_some_and(|date| date >= time + Duration::from_secs(1)),
            });
        let mut tags = response.get_all(ETAG).iter();
        let etag = tags
            .next()
            .filter(|tag| tags.next().is_none() && EntityTag::parse(tag.as_bytes()).is_some());
        Self {
            etag: etag.cloned(),
            changed: last_modified
                .as_ref()
                .map(|modified| modified.time)
                .or(date)
                .unwrap_or(received),
            last_modified,
        }
    }

    /// Whether there is something to revalidate by.
    pub fn exist(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    pub fn etag(&self) -> Option<EntityTag<'_>> {
        EntityTag::parse(self.etag.as_ref()?.as_bytes())
    }

    pub fn etag_value(&self) -> Option<&HeaderValue> {
        self.etag.as_ref()
    }

    pub fn last_modified_value(&self) -> Option<&HeaderValue> {
        self.last_modified.as_ref().map(|modified| &modified.value)
    }

    /// When it changed, as far as is known.
    pub fn changed(&self) -> SystemTime {
        self.changed
    }

    /// Whether the bytes were last changed then, and cannot be others.
    pub fn are_bytes_of(&self, date: SystemTime) -> bool {
        let modified = self.last_modified.as_ref();
        modified.is_some_and(|modified| modified.strong && modified.time == date)
    }

    /// What `If-Range` may hold to get more of the same bytes.
    pub fn strong_value(&self) -> Option<&HeaderValue> {
        match (self.etag(), &self.last_modified) {
            (Some(tag), _) => self.etag.as_ref().filter(|_| !tag.weak),
            (None, Some(modified)) => Some(&modified.value).filter(|_| modified.strong),
            (None, None) => None,
        }
    }
}

/// The date of a field that has one line and a date in it.
pub fn single_date(
    fields: &HeaderMap,
    name: impl AsHeaderName,
    now: SystemTime,
) -> Option<SystemTime> {
    let mut lines = fields.get_all(name).iter();
    let line = lines.next().filter(|_| lines.next().is_none())?;
    date::parse(line.as_bytes(), now)
}

#[cfg(test)]
mod tests {
    use http::header::IF_NONE_MATCH;
    use proptest::prelude::*;

    use super::*;
    use crate::cache::testing::{at, date, fields, noon};

    #[test]
    fn only_a_quoted_text_is_a_tag() {
        for text in [r#""a""#, r#"W/"a""#, r#""""#, r#""a\""#, r#""a,b""#] {
            assert!(EntityTag::parse(text.as_bytes()).is_some(), "{text}");
        }
        for text in [
            "", "a", r#"w/"a""#, r#"W\"a""#, r#"W"a""#, r#""a"#, r#""a b""#, r#""a"b"#, r#" "a""#,
        ] {
            assert!(EntityTag::parse(text.as_bytes()).is_none(), "{text}");
        }
        assert!(EntityTag::parse(b"\"\xc3\xbc\"").is_some());
    }

    #[test]
    fn weak_tags_are_equal_only_weakly() {
        let tag = |text: &'static str| EntityTag::parse(text.as_bytes()).unwrap();
        let (strong, weak, other) = (tag(r#""a""#), tag(r#"W/"a""#), tag(r#""b""#));
        assert!(strong.strongly_equals(&strong) && strong.weakly_equals(&strong));
        assert!(!strong.strongly_equals(&weak) && strong.weakly_equals(&weak));
        assert!(!weak.strongly_equals(&weak) && weak.weakly_equals(&weak));
        assert!(!strong.weakly_equals(&other));
    }

    #[test]
    fn a_list_is_searched_in_every_place() {
        let wanted = EntityTag::parse(br#""a""#).unwrap();
        for (lines, found) in [
            (&[r#""a", "b", "c""#][..], true),
            (&[r#""b", "a", "c""#], true),
            (&[r#""b","c","a""#], true),
            (&[r#""b""#, r#"W/"a""#], true),
            (&["*"], true),
            (&[r#"x, "a""#], true),
            (&[r#""b\", "a""#], true),
            (&["a"], false),
            (&[r#""b, "a""#], true),
            (&[r#""b,"a""#], false),
            (&[""], false),
            (&[r#""b", *"#], false),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("if-none-match", *line)).collect();
            let fields = fields(&lines);
            let has = list_has(&fields, IF_NONE_MATCH, |tag| tag.weakly_equals(&wanted));
            assert_eq!(has, found, "{lines:?}");
        }
    }

    #[test]
    fn last_modified_then_date_then_receipt_say_when_it_changed() {
        let (modified, sent) = (date(-3000), date(-5));
        let of = |lines: &[(&str, &str)]| Validators::of(&fields(lines), noon());
        let both = of(&[("last-modified", &modified), ("date", &sent)]);
        assert_eq!(both.changed(), at(-3000));
        assert_eq!(of(&[("date", &sent)]).changed(), at(-5));
        assert_eq!(of(&[("date", "x")]).changed(), noon());
        assert!(both.exist() && !of(&[("date", &sent)]).exist());
    }

    #[test]
    fn a_date_marks_bytes_if_they_were_sent_a_second_later() {
        let (modified, later) = (date(-1), date(0));
        let of = |lines: &[(&str, &str)]| Validators::of(&fields(lines), noon());
        let strong = of(&[("last-modified", &modified), ("date", &later)]);
        assert!(strong.are_bytes_of(at(-1)) && !strong.are_bytes_of(at(0)));
        assert_eq!(strong.strong_value().unwrap(), modified.as_str());
        let weak = of(&[("last-modified", &later), ("date", &later)]);
        assert!(!weak.are_bytes_of(at(0)));
        assert_eq!(weak.strong_value(), None);
        let tagged = of(&[
            ("etag", "W/\"a\""),
            ("last-modified", &modified),
            ("date", &later),
        ]);
        assert_eq!(tagged.strong_value(), None);
    }

    proptest! {
        #[test]
        fn no_list_panics(line in r#"["Wab,/* \\]{0,24}"#) {
            let fields = fields(&[("if-none-match", &line)]);
            list_has(&fields, IF_NONE_MATCH, |_| false);
        }
    }
}
