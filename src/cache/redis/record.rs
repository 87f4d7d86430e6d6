//! One entry as what stands in Redis: `meta`, which says everything but the body, and the body, whose
//! field is named by how it is coded.
//!
//! Whatever it holds was written by somebody: reading is total, and what is odd in any way is no
//! record. `meta` is held to a digest of its own, to the key it was asked for, and to a digest of the
//! body, so that neither half a record nor two halves of two is ever given to anybody.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::Sharing;
use super::wire::{Reader, Writer};
use crate::cache::admission::{Admission, Facts};
use crate::cache::entity::Validators;
use crate::cache::entry::{Content, Entry, Times};
use crate::cache::freshness::Freshness;
use crate::cache::key::Key;
use crate::cache::memory::Found;
use crate::cache::policy::Policy;
use crate::cache::tags::Tag;
use crate::cache::tombstones::{Cause, Epoch, Tombstones, Verdict};
use crate::cache::vary::{Variant, Vary};

/// Part of every key: a gateway of another form of records does not see these. Raise it with every change of
/// what is written here.
pub(super) const SCHEMA: &str = "c1";

/// The fields of the two forms of a body.
pub(super) const PLAIN: &str = "body";
pub(super) const ZSTD: &str = "zstd";

/// Far more lines or tags than a head that was let in has.
const LONGEST_LIST: usize = 4096;

/// Stands for bytes.
pub(super) type Sum = [u8; 16];

pub(super) fn sum(bytes: &[u8]) -> Sum {
    let hash = blake3::hash(bytes);
    hash.as_bytes()[..16].try_into().expect("16 of 32 bytes")
}

/// Everything but the body, of an entry that has all of it and is no part.
pub(super) fn meta(key: &Key, entry: &Entry, body: &[u8]) -> Vec<u8> {
    let facts = &entry.facts;
    let mut out = Writer::default();
    out.bytes(key.bytes());
    out.number(body.len() as u64);
    out.fixed(&sum(body));
    out.number(entry.asked.shared());
    out.time(entry.received());
    out.number(u64::from(facts.status.as_u16()));
    out.bytes(entry.reason());
    write_freshness(&mut out, &facts.freshness);
    out.bytes(facts.vary.to_string().as_bytes());
    out.bytes(facts.variant.bytes());
    out.flag(facts.variant_in_language.is_some());
    if let Some(variant) = &facts.variant_in_language {
        out.bytes(variant.bytes());
    }
    out.count(facts.tags.len());
    for tag in &facts.tags {
        let (Tag::Key(name) | Tag::Group(name)) = tag;
        out.flag(matches!(tag, Tag::Group(_)));
        out.bytes(name.as_bytes());
    }
    out.flag(facts.no_transform);
    let fields = entry.fields();
    out.count(fields.len());
    for (name, value) in &fields {
        out.bytes(name.as_str().as_bytes());
        out.bytes(value.as_bytes());
    }
    let sum = sum(out.written());
    out.fixed(&sum);
    out.finish()
}

/// An entry as another gateway has stored it, to be judged before it is used.
pub(super) struct Record {
    pub entry: Entry,
    key: Key,
}

impl Record {
    /// The entry of a key, if this is one. A body of more than `largest_object` is none.
    pub fn read(
        meta: &[u8],
        body: Stored,
        key: &Key,
        policy: &Policy,
        largest_object: u64,
    ) -> Option<Self> {
        let (meta, own_sum) = meta.split_last_chunk::<{ size_of::<Sum>() }>()?;
        if sum(meta) != *own_sum {
            return None;
        }
        let mut from = Reader::new(meta);
        if from.bytes()? != key.bytes() {
            return None;
        }
        let length = from.number()?;
        let body_sum = from.fixed(size_of::<Sum>())?;
        if length > largest_object {
            return None;
        }
        let times = Times {
            asked: Epoch::of_others(from.number()?),
            received: from.time()?,
        };
        let status = StatusCode::from_u16(u16::try_from(from.number()?).ok()?).ok()?;
        let reason = from.bytes().filter(|reason| is_reason(reason))?;
        let freshness = read_freshness(&mut from)?;
        let vary = Vary::read(from.bytes()?)?;
        let variant = read_variant(&mut from)?;
        let variant_in_language = option(&mut from, read_variant)?;
        let tags = list(&mut from, read_tag)?;
        let no_transform = from.flag()?;
        let lines = list(&mut from, read_line)?;
        if !from.is_at_end() {
            return None;
        }
        let body = body.plain(length).filter(|body| sum(body) == body_sum)?;
        let mut fields = HeaderMap::with_capacity(lines.len());
        for (name, value) in lines {
            fields.append(name, value);
        }
        let facts = Facts {
            status,
            freshness,
            vary,
            variant,
            variant_in_language,
            tags: tags.into(),
            part: None,
            no_transform,
        };
        let admission = Admission {
            validators: Validators::of(&fields, times.received),
            facts,
            fields,
        };
        let entry = Entry::new(admission, reason, Content::Whole(body), times, policy);
        Some(Self {
            entry,
            key: key.clone(),
        })
    }

    /// The entry as it was written, whatever was purged.
    pub fn as_written(&self) -> Entry {
        self.entry.judged_at(self.entry.asked)
    }

    /// What has purged it, if anything has.
    pub fn purged_by(&self, tombstones: &Tombstones) -> Option<Cause> {
        let (entry, key) = (&self.entry, &self.key);
        tombstones.cause_of_others(entry.asked.shared(), key, &entry.facts.tags)
    }

    /// The entry as these purges leave it, or what is found where they leave nothing.
    pub fn found(&self, tombstones: &Tombstones, missing: Found) -> Found {
        let adopted = self.adopt(tombstones).map(Arc::new);
        adopted.map_or(missing, Found::Entry)
    }

    fn adopt(&self, tombstones: &Tombstones) -> Option<Entry> {
        let (entry, key) = (&self.entry, &self.key);
        let (verdict, asked) = tombstones.adopt(entry.asked.shared(), key, &entry.facts.tags);
        match verdict {
            Verdict::Good => Some(entry.judged_at(asked)),
            Verdict::Stale(since) => Some(entry.stale_since(since, asked)),
            Verdict::Purged => None,
        }
    }
}

fn write_freshness(out: &mut Writer, freshness: &Freshness) {
    out.time(freshness.born);
    out.duration(freshness.lifetime);
    out.time(freshness.while_revalidating);
    out.time(freshness.on_error);
    out.flag(freshness.never_stale);
}

fn read_freshness(from: &mut Reader<'_>) -> Option<Freshness> {
    Some(Freshness {
        born: from.time()?,
        lifetime: from.duration()?,
        while_revalidating: from.time()?,
        on_error: from.time()?,
        never_stale: from.flag()?,
    })
}

fn read_variant(from: &mut Reader<'_>) -> Option<Variant> {
    Some(Variant::read(from.bytes()?))
}

fn read_tag(from: &mut Reader<'_>) -> Option<Tag> {
    let is_group = from.flag()?;
    let name = std::str::from_utf8(from.bytes()?).ok()?.into();
    Some(match is_group {
        true => Tag::Group(name),
        false => Tag::Key(name),
    })
}

fn read_line(from: &mut Reader<'_>) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(from.bytes()?).ok()?;
    let value = HeaderValue::from_bytes(from.bytes()?).ok()?;
    Some((name, value))
}

/// The phrase of a status line: nothing that could end it.
fn is_reason(bytes: &[u8]) -> bool {
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    bytes.iter().all(is_text)
}

fn option<T>(
    from: &mut Reader<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Option<Option<T>> {
    match from.flag()? {
        true => Some(Some(read(from)?)),
        false => Some(None),
    }
}

fn list<T>(
    from: &mut Reader<'_>,
    mut read: impl FnMut(&mut Reader<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = from.count().filter(|count| *count <= LONGEST_LIST)?;
    (0..count).map(|_| read(from)).collect()
}

/// A body as it stands in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Plain(Bytes),
    Zstd(Bytes),
}

impl Stored {
    /// Smaller, where that is wanted and possible.
    pub fn of(body: &Bytes, entry: &Entry, sharing: &Sharing) -> Self {
        // What is coded already does not get smaller, and takes long not to.
        let is_coded = entry.fields().contains_key(CONTENT_ENCODING);
        if is_coded || body.len() as u64 <= sharing.compress_above {
            return Self::Plain(body.clone());
        }
        match zstd::bulk::compress(body, sharing.compression_level) {
            Ok(smaller) if smaller.len() < body.len() => Self::Zstd(smaller.into()),
            _ => Self::Plain(body.clone()),
        }
    }

    /// The name of its field.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Plain(_) => PLAIN,
            Self::Zstd(_) => ZSTD,
        }
    }

    pub fn bytes(&self) -> &Bytes {
        let (Self::Plain(bytes) | Self::Zstd(bytes)) = self;
        bytes
    }

    /// The body, if it has this length, which bounds what is unpacked too.
    fn plain(self, length: u64) -> Option<Bytes> {
        let length = usize::try_from(length).ok()?;
        let body = match self {
            Self::Plain(bytes) => bytes,
            Self::Zstd(bytes) => zstd::bulk::decompress(&bytes, length).ok()?.into(),
        };
        (body.len() == length).then_some(body)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http::header::VARY;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::cache::Exchange;
    use crate::cache::admission::may_store;
    use crate::cache::testing::{Answered, anonymous, get, noon, response};

    const SHARING: Sharing = Sharing {
        compress_above: 1024,
        compression_level: 3,
        fill_lock: Duration::from_secs(5),
        largest_object: u64::MAX,
    };

    fn key() -> Key {
        Key::of(&get(&[]).head(), "pages", &anonymous())
    }

    fn stored_at(answered: &Answered, body: &Bytes, received: SystemTime) -> Entry {
        let asked = get(&[("accept-language", "de"), ("x-a", "1")]);
        let exchange = Exchange {
            sent: received,
            received,
        };
        let policy = anonymous();
        let admission = may_store(&asked.head(), &answered.head(), exchange, &policy).unwrap();
        let times = Times {
            asked: Epoch::of_others(7),
            received,
        };
        let content = Content::Whole(body.clone());
        Entry::new(admission, b"Very fine", content, times, &policy)
    }

    fn usual() -> (Entry, Bytes) {
        let body = Bytes::from("a page that repeats itself. ".repeat(100));
        let answered = response(
            200,
            &[
                (
                    "cache-control",
                    "max-age=60, stale-while-revalidate=30, no-transform",
                ),
                ("age", "3"),
                ("etag", "\"v1\""),
                ("vary", "x-a, accept-language"),
                ("content-language", "de"),
                ("surrogate-key", "one two"),
                ("cache-groups", "\"three\""),
                ("link", "</a>; rel=next"),
                ("link", "</b>; rel=next"),
            ],
        );
        (stored_at(&answered, &body, noon()), body)
    }

    fn read(meta: &[u8], stored: Stored) -> Option<Entry> {
        read_up_to(u64::MAX, meta, stored)
    }

    fn read_up_to(largest_object: u64, meta: &[u8], stored: Stored) -> Option<Entry> {
        let record = Record::read(meta, stored, &key(), &anonymous(), largest_object);
        record.map(|record| record.entry)
    }

    fn assert_same(read: &Entry, entry: &Entry) {
        assert_eq!(format!("{:?}", read.facts), format!("{:?}", entry.facts));
        assert_eq!(read.fields(), entry.fields());
        assert_eq!(read.validators(), entry.validators());
        assert_eq!(read.asked.shared(), entry.asked.shared());
        assert_eq!(read.received(), entry.received());
        assert_eq!(read.kept_until(), entry.kept_until());
        assert_eq!(format!("{:?}", read.head()), format!("{:?}", entry.head()));
        let (Content::Whole(read), Content::Whole(body)) = (&read.content, &entry.content) else {
            panic!("both are whole");
        };
        assert_eq!(read, body);
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let (entry, body) = usual();
        let stored = Stored::of(&body, &entry, &SHARING);
        assert!(matches!(&stored, Stored::Zstd(smaller) if smaller.len() < 200));
        assert_same(&read(&meta(&key(), &entry, &body), stored).unwrap(), &entry);
    }

    #[test]
    fn small_bodies_and_coded_ones_stand_as_they_are() {
        let entry = |fields: &[(&str, &str)], body: &Bytes| {
            let lines = [&[("cache-control", "max-age=60")], fields].concat();
            stored_at(&response(200, &lines), body, noon())
        };
        let small = Bytes::from("x".repeat(1024));
        let large = Bytes::from("x".repeat(1025));
        let coding = [("content-encoding", "gzip")];
        let of = |body: &Bytes, fields: &[(&str, &str)]| {
            Stored::of(body, &entry(fields, body), &SHARING).field()
        };
        assert_eq!((of(&small, &[]), of(&large, &[])), (PLAIN, ZSTD));
        assert_eq!(of(&large, &coding), PLAIN);
    }

    #[test]
    fn half_a_record_and_two_halves_of_two_are_none() {
        let (entry, body) = usual();
        let meta = meta(&key(), &entry, &body);
        let plain = || Stored::Plain(body.clone());
        for length in 0..meta.len() {
            assert!(read(&meta[..length], plain()).is_none());
        }
        let mut other = body.to_vec();
        other[0] ^= 1;
        assert!(read(&meta, Stored::Plain(other.into())).is_none());
        assert!(read(&meta, Stored::Plain(body.slice(1..))).is_none());
        assert!(read(&meta, Stored::Zstd(body.clone())).is_none());
    }

    #[test]
    fn what_stands_under_a_digest_is_held_to_the_key() {
        let (entry, body) = usual();
        let mut other = get(&[]);
        other.path = "/other".to_owned();
        let other = Key::of(&other.head(), "pages", &anonymous());
        let meta = meta(&other, &entry, &body);
        assert!(read(&meta, Stored::Plain(body)).is_none());
    }

    #[test]
    fn nothing_is_unpacked_beyond_the_length_that_is_told_nor_above_the_largest() {
        let bomb = Bytes::from(vec![0; 4 << 20]);
        let packed = Stored::Zstd(zstd::bulk::compress(&bomb, 3).unwrap().into());
        let answered = response(200, &[("cache-control", "max-age=60")]);
        let entry = |body: &Bytes| stored_at(&answered, body, noon());
        let small = Bytes::from("small");
        assert!(read(&meta(&key(), &entry(&small), &small), packed.clone()).is_none());
        let meta = meta(&key(), &entry(&bomb), &bomb);
        assert!(read_up_to(1 << 20, &meta, packed.clone()).is_none());
        assert!(read(&meta, packed).is_some());
    }

    /// With a digest that is right, as nobody but we writes it.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let sum = sum(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    proptest! {
        #[test]
        fn any_response_is_read_as_it_was_written(
            status in prop_oneof![Just(200u16), Just(204), Just(404), Just(599)],
            age in 1u64..1 << 33,
            at in 0u32..u32::MAX,
            nanoseconds in 0u32..1_000_000_000,
            lines in vec(("[a-z]{1,8}", "[!-~]([ -~]{0,18}[!-~])?"), 0..8),
            body in vec(any::<u8>(), 0..3000),
        ) {
            let lifetime = format!("max-age={age}, stale-if-error={age}");
            let lines: Vec<_> = lines.iter().map(|(name, value)| (format!("x-{name}"), value.clone())).collect();
            let mut answered = response(status, &[("cache-control", lifetime)]);
            for (name, value) in &lines {
                answered.fields.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
            }
            answered.fields.append(VARY, HeaderValue::from_static("x-a"));
            let body = Bytes::from(body);
            let received = SystemTime::UNIX_EPOCH + Duration::new(u64::from(at), nanoseconds);
            let entry = stored_at(&answered, &body, received);
            let stored = Stored::of(&body, &entry, &SHARING);
            assert_same(&read(&meta(&key(), &entry, &body), stored).unwrap(), &entry);
        }

        #[test]
        fn whatever_stands_there_no_reading_of_it_panics(bytes in vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), byte: u8) {
            let plain = || Stored::Plain(Bytes::from_static(b"page"));
            prop_assert!(read(&bytes, plain()).is_none());
            read(&sealed(bytes), plain());
            let (entry, body) = usual();
            let mut meta = meta(&key(), &entry, &body);
            meta.truncate(meta.len() - size_of::<Sum>());
            let at = at.index(meta.len());
            meta[at] = byte;
            read(&sealed(meta), Stored::Plain(body));
        }
    }
}
