//! Lists of preferences compared by what they mean (RFC 9110 12.4): `Accept-Encoding` and
//! `Accept-Language`. Knows no field beyond that.

use http::HeaderMap;
use http::header::HeaderName;
use smallvec::SmallVec;

use super::list;
use crate::http1::grammar::{is_token, trim};

/// What a client would take, the most welcome first; equally welcome items in alphabetic order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preferences<'a>(SmallVec<[Item<'a>; 16]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item<'a> {
    /// In thousandths.
    quality: u16,
    name: &'a [u8],
}

impl<'a> Preferences<'a> {
    /// `None` if any line holds something else than tokens with qualities.
    pub fn parse(fields: &'a HeaderMap, field: &HeaderName) -> Option<Self> {
        let mut items: SmallVec<[Item<'a>; 16]> = list::members(fields, field)
            .map(item)
            .collect::<Option<_>>()?;
        let lower = |item: &Item<'a>| item.name.iter().map(u8::to_ascii_lowercase);
        items.sort_by(|a, b| {
            let quality = b.quality.cmp(&a.quality);
            quality.then_with(|| lower(a).cmp(lower(b)))
        });
        items.dedup_by(|a, b| a.quality == b.quality && a.name.eq_ignore_ascii_case(b.name));
        Some(Self(items))
    }

    /// Writes the order of preference: lower case, `,` between equals, `>` before what is less
    /// welcome, `;` before what is refused.
    pub fn write(&self, out: &mut impl Extend<u8>) {
        let mut before: Option<u16> = None;
        for item in &self.0 {
            let separator = match before {
                _ if item.quality == 0 && before != Some(0) => Some(b';'),
                None => None,
                Some(quality) if quality == item.quality => Some(b','),
                Some(_) => Some(b'>'),
            };
            out.extend(separator);
            out.extend(item.name.iter().map(u8::to_ascii_lowercase));
            before = Some(item.quality);
        }
    }

    /// What is more welcome than all else, if one item is.
    pub fn favourite(&self) -> Option<&'a [u8]> {
        let first = self.0.first()?;
        let is_alone = self
            .0
            .get(1)
            .is_none_or(|next| next.quality < first.quality);
        (is_alone && first.quality > 0 && first.name != b"*").then_some(first.name)
    }
}

/// The members of a list in the order in which they stand, each with its quality in thousandths; `None` is one that is no
/// preference.
pub fn members<'a>(
    fields: &'a HeaderMap,
    field: &'a HeaderName,
) -> impl Iterator<Item = Option<(&'a [u8], u16)>> {
    list::members(fields, field).map(|member| item(member).map(|item| (item.name, item.quality)))
}

/// The favourite of a field, such as the language that a client wants most.
pub fn favourite(fields: &HeaderMap, field: HeaderName) -> Option<&[u8]> {
    Preferences::parse(fields, &field)?.favourite()
}

fn item(member: &[u8]) -> Option<Item<'_>> {
    let (name, quality) = match memchr::memchr(b';', member) {
        None => (member, 1000),
        Some(at) => (trim(&member[..at]), quality(trim(&member[at + 1..]))?),
    };
    // RFC 9110 8.4.1: older names of the same codings.
    let name = if name.eq_ignore_ascii_case(b"x-gzip") || name.eq_ignore_ascii_case(b"x-compress") {
        &name[2..]
    } else {
        name
    };
    is_token(name).then_some(Item { quality, name })
}

/// `q=0.123`, in thousandths.
fn quality(weight: &[u8]) -> Option<u16> {
    let value = weight
        .strip_prefix(b"q=")
        .or_else(|| weight.strip_prefix(b"Q="))?;
    let (whole, rest) = value.split_first()?;
    let decimals = match rest {
        [] => rest,
        [b'.', decimals @ ..] if decimals.len() <= 3 => decimals,
        _ => return None,
    };
    let mut thousandths = 0;
    for at in 0..3 {
        let digit = decimals.get(at).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        thousandths = thousandths * 10 + u16::from(digit - b'0');
    }
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE};
    use proptest::prelude::*;

    use super::*;
    use crate::cache::testing::fields;

    fn normal(lines: &[&str]) -> Option<String> {
        let lines: Vec<_> = lines
            .iter()
            .map(|line| ("accept-encoding", *line))
            .collect();
        let fields = fields(&lines);
        let mut out = Vec::new();
        Preferences::parse(&fields, &ACCEPT_ENCODING)?.write(&mut out);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_means_the_same_reads_the_same() {
        for (lines, expected) in [
            (&["gzip, br"][..], Some("br,gzip")),
            (&["br,gzip"], Some("br,gzip")),
            (&["BR", "Gzip;q=1.000"], Some("br,gzip")),
            (&["gzip ; q=1 ,  br ; Q=1."], Some("br,gzip")),
            (&["x-gzip, gzip"], Some("gzip")),
            (&["gzip;q=0.5, br;q=0.9"], Some("br>gzip")),
            (&["gzip;q=0.1, br"], Some("br>gzip")),
            (&["gzip, identity;q=0"], Some("gzip;identity")),
            (&["*;q=0"], Some(";*")),
            (&[""], Some("")),
            (&["gzip;q=2"], None),
            (&["gzip;q=0.1234"], None),
            (&["gzip;q=1.001"], None),
            (&["gzip;q="], None),
            (&["gzip;level=1"], None),
            (&["gz ip"], None),
            (&["\"gzip\""], None),
        ] {
            assert_eq!(normal(lines).as_deref(), expected, "{lines:?}");
        }
    }

    #[test]
    fn one_language_may_be_the_favourite() {
        for (line, expected) in [
            ("de", Some("de")),
            ("fr;q=0.5, de;q=1.0", Some("de")),
            ("en, de", None),
            ("*", None),
            ("de;q=0", None),
            ("", None),
        ] {
            let fields = fields(&[("accept-language", line)]);
            let found = favourite(&fields, ACCEPT_LANGUAGE);
            assert_eq!(found, expected.map(str::as_bytes), "{line}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_a_list_does_not_matter(
            mut items in proptest::collection::vec("[a-c]{1,2}(;q=0(\\.[0-9]{1,2})?)?", 0..5),
        ) {
            let forward = normal(&[&items.join(", ")]);
            items.reverse();
            prop_assert_eq!(forward, normal(&[&items.join(",")]));
        }
    }
}
