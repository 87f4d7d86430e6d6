//! The entries of this gateway, within a number of bytes: those that are asked for often stay.
//!
//! One slot a key holds the variants of its responses side by side, so that one look-up finds
//! all that decides. A slot is found by digest and held to the bytes of its key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use moka::Expiry;
use moka::ops::compute::{CompResult, Op};
use moka::sync::Cache;
use smallvec::SmallVec;

use super::admission::NotStored;
use super::entry::{Content, Entry};
use super::frame::Digest;
use super::key::Key;
use super::pages::{NoRoom, Pages};
use super::policy::Policy;
use super::reuse;
use super::tombstones::{Tombstones, Verdict};
use super::vary::{UnnamedCookie, Variant};
use crate::weight;

/// How long the requests of a key whose response was not stored do not wait for one another.
const ALONE: Duration = Duration::from_secs(60);

/// What moka needs for one key, in bytes: nodes of its queues and of its timer, its place in the table.
const BYTES_OF_KEY: usize = 320;

/// What comes between two times at which moka makes room is at most this part of the capacity.
const UNSETTLED: u64 = 64;
/// The part of the capacity for that, and for what was evicted and is let go of a little later.
const RESERVE: u64 = 16;

/// Where responses are kept.
pub struct Memory {
    slots: Cache<Digest, Arc<Slot>>,
    capacity: u64,
    /// Bytes that came since moka has made room.
    unsettled: AtomicU64,
    tombstones: Arc<Tombstones>,
    /// For large bodies; `None` where the machine grants no addresses, and they stay where they are.
    pages: Option<Arc<Pages>>,
}

/// What stands under one key.
#[derive(Default)]
struct Slot {
    key: Box<[u8]>,
    /// All of one `Vary`, the latest.
    variants: SmallVec<[Arc<Entry>; 1]>,
    /// Until then it is probably not worth waiting for another request's response.
    alone_until: Option<Instant>,
}

/// What was found for a request.
pub enum Found {
    Nothing,
    /// Only answers to requests with other fields; those of this one, in its digest.
    OtherVariants(Digest),
    Entry(Arc<Entry>),
    /// It depends on a cookie of which nobody said what it means.
    UnnamedCookie,
}

impl Found {
    /// In the words of the policy; an unnamed cookie finds nothing.
    pub fn for_reuse(&self) -> reuse::Found<'_> {
        match self {
            Self::Nothing | Self::UnnamedCookie => reuse::Found::Nothing,
            Self::OtherVariants(_) => reuse::Found::OtherVariants,
            Self::Entry(entry) => reuse::Found::Entry(&entry.facts.freshness),
        }
    }
}

impl Memory {
    /// Keeps at most `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        let room = capacity - capacity / RESERVE;
        let slots = Cache::builder()
            .max_capacity(room)
            .weigher(|_: &Digest, slot: &Arc<Slot>| {
                u32::try_from(slot.weight()).unwrap_or(u32::MAX)
            })
            .expire_after(UntilUseless)
            .build();
        let pages = Pages::reserve(room);
        if let Err(error) = &pages {
            tracing::warn!(%error, "no addresses for large bodies: they take more memory than the cache counts");
        }
        Self {
            slots,
            capacity,
            unsettled: AtomicU64::new(0),
            tombstones: Arc::default(),
            pages: pages.ok().map(Arc::new),
        }
    }

    /// What is kept for a request with these fields.
    pub fn find(&self, key: &Key, request: &HeaderMap, policy: &Policy) -> Found {
        let slot = self.slots.get(&key.digest());
        let Some(slot) = slot.filter(|slot| *slot.key == *key.bytes()) else {
            return Found::Nothing;
        };
        match slot.find(request, policy) {
            Found::Entry(entry) => self.judged(key, entry),
            other => other,
        }
    }

    /// An entry as purges have left it.
    fn judged(&self, key: &Key, entry: Arc<Entry>) -> Found {
        // What is purged from here on may be overlooked now, and is not later.
        let now = self.tombstones.epoch();
        match entry.judge(&self.tombstones, key) {
            Verdict::Good => Found::Entry(entry),
            Verdict::Stale(since) => {
                let stale = Arc::new(entry.stale_since(since, now));
                stale.hits().inherit(entry.hits().untold());
                self.replace(key, &entry, &stale);
                Found::Entry(stale)
            }
            Verdict::Purged => Found::Nothing,
        }
    }

    /// Puts an entry in the place of another one, if that is still there.
    fn replace(&self, key: &Key, old: &Arc<Entry>, new: &Arc<Entry>) {
        self.change(key, |slot| {
            let mut variants = slot.variants.clone();
            let place = variants.iter_mut().find(|entry| Arc::ptr_eq(entry, old))?;
            *place = new.clone();
            Some(Slot {
                key: key.bytes().into(),
                variants,
                alone_until: slot.alone_until,
            })
        });
    }

    /// What stands under this key, good or not. Counts as a use of it.
    pub fn look(&self, key: &Key) -> Option<Stands> {
        let slot = self.slots.get(&key.digest());
        slot.filter(|slot| *slot.key == *key.bytes()).map(Stands)
    }

    /// All that stands here, which counts as no use of it. Not for a thread that serves requests.
    pub fn each(&self) -> impl Iterator<Item = Stands> {
        self.slots.iter().map(|(_, slot)| Stands(slot))
    }

    /// Whether anything stands under this key.
    pub fn has(&self, key: &Key) -> bool {
        let slot = self.slots.get(&key.digest());
        slot.is_some_and(|slot| *slot.key == *key.bytes() && !slot.variants.is_empty())
    }

    /// What was purged.
    pub fn tombstones(&self) -> &Arc<Tombstones> {
        &self.tombstones
    }

    /// Whether there is a place for this entry among those of its key.
    pub fn check_room(&self, key: &Key, entry: &Entry, policy: &Policy) -> Result<(), NotStored> {
        let slot = self.slots.get(&key.digest());
        let Some(slot) = slot.filter(|slot| *slot.key == *key.bytes()) else {
            return Ok(());
        };
        if entry.judge_by_known(&self.tombstones, key) == Verdict::Purged {
            Err(NotStored::Outdated)
        } else if self.others(key, &slot, entry).count() >= policy.variants {
            Err(NotStored::TooManyVariants)
        } else {
            Ok(())
        }
    }

    /// Keeps an entry whose body is there, in place of the one of its variant. `false`: it was purged
    /// meanwhile, there is no place for it, it is a part of what is there whole and fresh, or it is larger
    /// than everything together may be, or clients still read as much of what has been evicted.
    pub fn store(&self, key: &Key, entry: Arc<Entry>, policy: &Policy) -> bool {
        let weight = entry.weight() as u64;
        if weight > self.capacity {
            return false;
        }
        let Ok(entry) = self.in_pages(entry) else {
            return false;
        };
        let stored = self.change(key, |slot| {
            let is_purged = entry.judge_by_known(&self.tombstones, key) == Verdict::Purged;
            let others = self.others(key, slot, &entry).cloned();
            let mut variants: SmallVec<[_; 1]> = others.collect();
            if is_purged || slot.has_whole_of(&entry) || variants.len() >= policy.variants {
                return None;
            }
            entry.hits().inherit(slot.untold_of(&entry));
            variants.push(entry.clone());
            Some(Slot {
                key: key.bytes().into(),
                variants,
                alone_until: None,
            })
        });
        let is_stored = matches!(
            stored,
            CompResult::Inserted(_) | CompResult::ReplacedWith(_)
        );
        if is_stored {
            self.settle(weight);
        }
        is_stored
    }

    /// An encoded form of a body where it is to be kept.
    pub fn keep(&self, form: Bytes) -> Bytes {
        let kept = self.pages.as_ref().map(|pages| pages.keep(&form));
        match kept {
            Some(Ok(Some(kept))) => kept,
            _ => form,
        }
    }

    /// An entry with its body where it is to be kept.
    fn in_pages(&self, entry: Arc<Entry>) -> Result<Arc<Entry>, NoRoom> {
        let (Some(pages), Content::Whole(body)) = (&self.pages, &entry.content) else {
            return Ok(entry);
        };
        let kept = pages.keep(body).or_else(|NoRoom| {
            // What has been evicted is let go of a little later.
            self.slots.run_pending_tasks();
            pages.keep(body)
        });
        Ok(match kept? {
            Some(body) => Arc::new(entry.elsewhere(body)),
            None => entry,
        })
    }

    /// Makes room for what came. moka by itself does so for every 64 entries, however large they are.
    fn settle(&self, bytes: u64) {
        let unsettled = self.unsettled.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if unsettled > self.capacity / UNSETTLED {
            self.unsettled.store(0, Ordering::Relaxed);
            self.slots.run_pending_tasks();
        }
    }

    /// Weighs an entry that has grown, if it is still kept.
    pub fn weigh_again(&self, key: &Key, entry: &Arc<Entry>) {
        self.slots.entry(key.digest()).and_compute_with(|current| {
            let slot = current.map(moka::Entry::into_value);
            let is_kept =
                |slot: &Arc<Slot>| slot.variants.iter().any(|kept| Arc::ptr_eq(kept, entry));
            match slot.filter(is_kept) {
                Some(slot) => Op::Put(slot),
                None => Op::Nop,
            }
        });
    }

    /// The response under this key was not stored, and the next ones probably will not be.
    pub fn expect_nothing(&self, key: &Key) {
        self.change(key, |slot| {
            // What is stored for others is worth more than the time of a few.
            slot.variants.is_empty().then(|| Slot {
                key: key.bytes().into(),
                variants: SmallVec::new(),
                alone_until: Some(Instant::now() + ALONE),
            })
        });
    }

    /// Whether requests of this key should wait for one another's response.
    pub fn expects_something(&self, key: &Key) -> bool {
        let slot = self.slots.get(&key.digest());
        let until = slot.and_then(|slot| slot.alone_until);
        until.is_none_or(|until| until <= Instant::now())
    }

    /// Keys, and the bytes that they and their entries take.
    pub fn size(&self) -> (u64, u64) {
        self.slots.run_pending_tasks();
        (self.slots.entry_count(), self.slots.weighted_size())
    }

    /// The bytes that it was given.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// What stays when `entry` comes: other variants by the same fields, of which something can come.
    fn others<'a>(
        &'a self,
        key: &'a Key,
        slot: &'a Slot,
        entry: &'a Entry,
    ) -> impl Iterator<Item = &'a Arc<Entry>> {
        let now = SystemTime::now();
        slot.variants.iter().filter(move |other| {
            other.facts.vary == entry.facts.vary
                && other.facts.variant.bytes() != entry.facts.variant.bytes()
                && other.kept_until() > now
                && other.judge_by_known(&self.tombstones, key) != Verdict::Purged
        })
    }

    /// Puts another slot in the place of a key's, in one step.
    fn change(
        &self,
        key: &Key,
        change: impl FnOnce(&Slot) -> Option<Slot>,
    ) -> CompResult<Digest, Arc<Slot>> {
        self.slots.entry(key.digest()).and_compute_with(|current| {
            let current = current.map(moka::Entry::into_value);
            let own = current.filter(|slot| *slot.key == *key.bytes());
            match change(&own.unwrap_or_default()) {
                Some(slot) => Op::Put(Arc::new(slot)),
                None => Op::Nop,
            }
        })
    }
}

impl Slot {
    /// What is for a request with these fields, purged or not.
    fn find(&self, request: &HeaderMap, policy: &Policy) -> Found {
        let Some(first) = self.variants.first() else {
            return Found::Nothing;
        };
        let vary = &first.facts.vary;
        if vary.is_empty() {
            return Found::Entry(first.clone());
        }
        let variant = match vary.variant(request, policy) {
            Ok(variant) => variant,
            Err(UnnamedCookie) => return Found::UnnamedCookie,
        };
        let is = |one: &Variant, other: &Variant| one.bytes() == other.bytes();
        let mut variants = self.variants.iter();
        let found = variants.find(|entry| is(&entry.facts.variant, &variant));
        let found = found.or_else(|| {
            let favourite = vary.variant_of_favourite(request, policy)?;
            self.variants.iter().find(|entry| {
                let in_language = entry.facts.variant_in_language.as_ref();
                in_language.is_some_and(|stored| is(stored, &favourite))
            })
        });
        match found {
            Some(entry) => Found::Entry(entry.clone()),
            None => Found::OtherVariants(variant.digest()),
        }
    }

    /// Whether `entry` is a part of what is kept whole and fresh.
    fn has_whole_of(&self, entry: &Entry) -> bool {
        let now = SystemTime::now();
        entry.facts.part.is_some()
            && self.variants.iter().any(|other| {
                other.facts.part.is_none()
                    && other.facts.variant.bytes() == entry.facts.variant.bytes()
                    && other.facts.freshness.is_fresh(now)
            })
    }

    /// The hits of the entry in whose place this one comes, of which nobody was told.
    fn untold_of(&self, entry: &Entry) -> u32 {
        let is_of = |other: &&Arc<Entry>| {
            let (facts, own) = (&other.facts, &entry.facts);
            let is_variant = facts.vary == own.vary && facts.variant.bytes() == own.variant.bytes();
            is_variant && !std::ptr::eq(other.as_ref(), entry)
        };
        let replaced = self.variants.iter().filter(is_of);
        replaced.map(|other| other.hits().untold()).sum()
    }

    fn weight(&self) -> usize {
        let beside = match self.variants.spilled() {
            true => weight::of_piece(size_of::<Arc<Entry>>() * self.variants.capacity()),
            false => 0,
        };
        let entries = self.variants.iter().map(|entry| entry.weight());
        BYTES_OF_KEY
            + weight::of_shared::<Self>()
            + weight::of_piece(self.key.len())
            + beside
            + entries.sum::<usize>()
    }

    /// How long it is of any use.
    fn useful_for(&self) -> Duration {
        let kept = self.variants.iter().map(|entry| entry.kept_until()).max();
        let kept = kept.and_then(|until| until.duration_since(SystemTime::now()).ok());
        let alone = self.alone_until.map(|_| ALONE);
        [kept, alone]
            .into_iter()
            .flatten()
            .max()
            .unwrap_or_default()
    }
}

/// What stands under one key, for who asks what there is rather than for a page.
pub struct Stands(Arc<Slot>);

impl Stands {
    pub fn key(&self) -> Key {
        Key::read(&self.0.key)
    }

    pub fn variants(&self) -> &[Arc<Entry>] {
        &self.0.variants
    }

    /// The one for a request with these fields, purged or not.
    pub fn find(&self, request: &HeaderMap, policy: &Policy) -> Found {
        self.0.find(request, policy)
    }
}

/// Slots go when nothing can come of them any more.
struct UntilUseless;

impl Expiry<Digest, Arc<Slot>> for UntilUseless {
    fn expire_after_create(&self, _: &Digest, slot: &Arc<Slot>, _: Instant) -> Option<Duration> {
        Some(slot.useful_for())
    }

    fn expire_after_update(
        &self,
        _: &Digest,
        slot: &Arc<Slot>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(slot.useful_for())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Exchange;
    use crate::cache::admission::may_store;
    use crate::cache::entry::Times;
    use crate::cache::scope::Scope;
    use crate::cache::testing::{Asked, anonymous, get, response};
    use crate::cache::tombstones::{Epoch, Purge, Strength};
    use crate::compression::Coding;

    fn key(asked: &Asked) -> Key {
        Key::of(&asked.head(), "route", &anonymous())
    }

    fn entry(asked: &Asked, lines: &[(&str, &str)], body: &'static str) -> Arc<Entry> {
        let times = Times {
            asked: Epoch::default(),
            received: SystemTime::now(),
        };
        entry_at(times, asked, lines, body)
    }

    /// Asked for now, after all that was purged.
    fn entry_after(
        memory: &Memory,
        asked: &Asked,
        lines: &[(&str, &str)],
        body: &'static str,
    ) -> Arc<Entry> {
        let times = Times {
            asked: memory.tombstones().epoch(),
            received: SystemTime::now(),
        };
        entry_at(times, asked, lines, body)
    }

    fn entry_at(
        times: Times,
        asked: &Asked,
        lines: &[(&str, &str)],
        body: &'static str,
    ) -> Arc<Entry> {
        let exchange = Exchange {
            sent: times.received,
            received: times.received,
        };
        let lines = [&[("cache-control", "max-age=60")], lines].concat();
        let answered = response(200, &lines);
        let admission = may_store(&asked.head(), &answered.head(), exchange, &anonymous()).unwrap();
        let content = Content::Whole(Bytes::from_static(body.as_bytes()));
        Arc::new(Entry::new(admission, b"OK", content, times, &anonymous()))
    }

    fn found(memory: &Memory, asked: &Asked) -> Option<Bytes> {
        match memory.find(&key(asked), &asked.fields, &anonymous()) {
            Found::Entry(entry) => match &entry.content {
                Content::Whole(body) => Some(body.clone()),
                Content::Growing(_) => None,
            },
            _ => None,
        }
    }

    const ROOM: u64 = 1 << 20;

    #[test]
    fn what_is_stored_is_found() {
        let memory = Memory::new(ROOM);
        let asked = get(&[]);
        assert_eq!(found(&memory, &asked), None);
        assert!(memory.store(&key(&asked), entry(&asked, &[], "page"), &anonymous()));
        assert_eq!(found(&memory, &asked), Some("page".into()));
    }

    #[test]
    fn variants_stand_side_by_side() {
        let memory = Memory::new(ROOM);
        for language in ["de", "en"] {
            let asked = get(&[("x-language", language)]);
            let entry = entry(&asked, &[("vary", "x-language")], language);
            assert!(memory.store(&key(&asked), entry, &anonymous()));
        }
        for language in ["de", "en"] {
            let asked = get(&[("x-language", language)]);
            assert_eq!(found(&memory, &asked), Some(language.into()));
        }
        let other = get(&[("x-language", "fr")]);
        let nothing = memory.find(&key(&other), &other.fields, &anonymous());
        assert!(matches!(nothing, Found::OtherVariants(_)));
    }

    #[test]
    fn a_key_has_no_more_variants_than_its_policy_allows() {
        let memory = Memory::new(ROOM);
        let policy = Policy {
            variants: 2,
            ..anonymous()
        };
        let store = |value: &'static str| {
            let asked = get(&[("x-a", value)]);
            let entry = entry(&asked, &[("vary", "x-a")], value);
            let room = memory.check_room(&key(&asked), &entry, &policy);
            assert_eq!(room.is_ok(), memory.store(&key(&asked), entry, &policy));
            room
        };
        assert_eq!(store("1"), Ok(()));
        assert_eq!(store("2"), Ok(()));
        assert_eq!(store("3"), Err(NotStored::TooManyVariants));
        assert_eq!(store("2"), Ok(()), "in place of its own");
    }

    #[test]
    fn a_response_asked_for_before_its_url_was_purged_is_not_stored() {
        let memory = Memory::new(ROOM);
        let asked = get(&[]);
        let old = entry(&asked, &[], "old");
        memory.tombstones().purge(&Purge::hard([Scope::Path {
            host: "a.example",
            path: "/page",
        }]));
        assert!(!memory.store(&key(&asked), old, &anonymous()));
        let new = entry_after(&memory, &asked, &[], "new");
        assert!(memory.store(&key(&asked), new, &anonymous()));
        assert_eq!(found(&memory, &asked), Some("new".into()));
    }

    #[test]
    fn what_is_purged_softly_is_stale_and_no_longer_than_what_is_purged_hard() {
        let memory = Memory::new(ROOM);
        let asked = get(&[]);
        let swr = [("cache-control", "max-age=60, stale-while-revalidate=30")];
        memory.store(&key(&asked), entry(&asked, &swr, "page"), &anonymous());
        let find = || memory.find(&key(&asked), &asked.fields, &anonymous());
        let purge = |strength| {
            let scopes = vec![Scope::Everything.id()];
            memory.tombstones().purge(&Purge { scopes, strength });
        };
        purge(Strength::Soft);
        for _ in 0..2 {
            let Found::Entry(entry) = find() else {
                panic!("it is still there");
            };
            let freshness = &entry.facts.freshness;
            let now = SystemTime::now();
            assert!(!freshness.is_fresh(now) && freshness.serves_while_revalidating(now));
            assert!(!freshness.serves_while_revalidating(now + Duration::from_secs(31)));
        }
        purge(Strength::Hard);
        assert!(matches!(find(), Found::Nothing));
    }

    #[test]
    fn what_is_purged_takes_no_place_from_other_variants() {
        let memory = Memory::new(ROOM);
        let policy = Policy {
            variants: 1,
            ..anonymous()
        };
        let of = |value: &'static str| {
            let asked = get(&[("x-a", value)]);
            let vary = [("vary", "x-a")];
            (key(&asked), entry_after(&memory, &asked, &vary, value))
        };
        let store = |value| {
            let (key, entry) = of(value);
            memory.store(&key, entry, &policy)
        };
        assert!(store("1") && !store("2"));
        memory.tombstones().purge(&Purge::hard([Scope::Everything]));
        assert!(store("2") && !store("1"));
    }

    #[test]
    fn requests_of_a_key_that_is_not_stored_do_not_wait_for_one_another() {
        let memory = Memory::new(ROOM);
        let asked = get(&[]);
        assert!(memory.expects_something(&key(&asked)));
        memory.expect_nothing(&key(&asked));
        assert!(!memory.expects_something(&key(&asked)));
        memory.store(&key(&asked), entry(&asked, &[], "page"), &anonymous());
        assert!(memory.expects_something(&key(&asked)));
    }

    #[test]
    fn the_bytes_of_bodies_heads_and_keys_count() {
        let memory = Memory::new(ROOM);
        let body: &'static str = "x".repeat(12_000).leak();
        for number in 0..1000 {
            let mut asked = get(&[]);
            asked.query = Some(number.to_string());
            memory.store(&key(&asked), entry(&asked, &[], body), &anonymous());
        }
        memory.slots.run_pending_tasks();
        assert!(memory.slots.weighted_size() <= ROOM);
        let entries = memory.slots.entry_count();
        assert!((70..=85).contains(&entries), "{entries}");
    }

    #[tokio::test]
    async fn an_encoded_form_is_weighed_when_it_is_made() {
        let memory = Memory::new(ROOM);
        let asked = get(&[]);
        let body: &'static str = "<p>all the same</p>".repeat(1000).leak();
        memory.store(&key(&asked), entry(&asked, &[], body), &anonymous());
        let Found::Entry(entry) = memory.find(&key(&asked), &asked.fields, &anonymous()) else {
            panic!("it is kept");
        };
        memory.slots.run_pending_tasks();
        let before = memory.slots.weighted_size();
        entry
            .forms()
            .make(Coding::Gzip, 1, &body.into(), |form| form)
            .await;
        memory.weigh_again(&key(&asked), &entry);
        memory.slots.run_pending_tasks();
        let form = entry.forms().weight() as u64;
        assert_eq!(memory.slots.weighted_size(), before + form);
        assert!(form > 0);
    }

    #[test]
    fn what_is_larger_than_the_cache_is_not_stored() {
        let memory = Memory::new(500);
        let asked = get(&[]);
        assert!(!memory.store(&key(&asked), entry(&asked, &[], "x"), &anonymous()));
    }
}
