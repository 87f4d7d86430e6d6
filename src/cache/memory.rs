//! The entries of this gateway, within a number of bytes: those that are asked for often stay.
//!
//! One slot a key holds the variants of its responses side by side, so that one look-up finds
//! all that decides. A slot is found by digest and held to the bytes of its key.

use std::ops::Deref;
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
use super::pages::{self, Pages};
use super::policy::Policy;
use super::reuse;
use super::room::{NoRoom, Place, Room};
use super::tombstones::{Tombstones, Verdict};
use super::vary::{UnnamedCookie, Variant};
use crate::weight;

/// How long the requests of a key whose response was not stored do not wait for one another.
const ALONE: Duration = Duration::from_secs(60);

/// How long room is held for an entry that is to come.
const EXPECTED: Duration = Duration::from_secs(1);

/// What moka needs for one key, in bytes: nodes of its queues and of its timer, its place in the table.
const BYTES_OF_KEY: usize = 320;

/// What comes between two times at which moka makes room is at most this part of the capacity.
const UNSETTLED: u64 = 128;
/// The part of the capacity for that, and for what was evicted and is let go of a little later.
const RESERVE: u64 = 16;
/// The part of the capacity that the allocator loses between what it is asked for.
const LOST: u64 = 32;
/// How often moka is asked to let go of what it has evicted: it does so when all threads have moved on twice.
const ROUNDS: usize = 3;

/// Where responses are kept.
pub struct Memory {
    slots: Cache<Digest, Arc<Kept>>,
    capacity: u64,
    /// Taken by what is kept, and by what is evicted and not let go of yet.
    room: Arc<Room>,
    /// Entries for which there was none.
    refused: AtomicU64,
    /// Bytes that came since moka has made room.
    unsettled: AtomicU64,
    tombstones: Arc<Tombstones>,
    /// For large bodies; `None` where the machine grants no addresses, and they stay where they are.
    pages: Option<Arc<Pages>>,
}

/// What stands under one key.
struct Slot {
    key: Box<[u8]>,
    standing: Standing,
}

enum Standing {
    /// All of one `Vary`, the latest.
    Variants(SmallVec<[Arc<Entry>; 1]>),
    /// Until then it is probably not worth waiting for another request's response.
    AloneUntil(Instant),
    /// An entry of so many bytes is to come.
    Expected(u64),
}

/// A slot as moka has it. Its bytes are taken until it is let go of.
///
/// moka lets go of what is evicted when every thread that may have seen it has moved on. While one of them waits for a
/// core, the others could evict and store any number.
struct Kept {
    slot: Slot,
    place: Place,
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
        let slots = Cache::builder()
            .max_capacity(capacity - capacity / RESERVE)
            .weigher(|_: &Digest, kept: &Arc<Kept>| {
                u32::try_from(kept.weight()).unwrap_or(u32::MAX)
            })
            .expire_after(UntilUseless)
            .build();
        let pages = Pages::reserve(capacity);
        if let Err(error) = &pages {
            tracing::warn!(%error, "no addresses for large bodies: they take more memory than the cache counts");
        }
        Self {
            slots,
            capacity,
            room: Room::new(capacity - capacity / LOST),
            refused: AtomicU64::new(0),
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

    /// Puts an entry in the place of another one, if that is still there, and there is room for both.
    fn replace(&self, key: &Key, old: &Arc<Entry>, new: &Arc<Entry>) {
        let Ok(place) = self.room.take(Slot::weight_of(key, Some(new))) else {
            return;
        };
        self.change(key, place, |variants| {
            let mut variants = SmallVec::from(variants);
            let place = variants.iter_mut().find(|entry| Arc::ptr_eq(entry, old))?;
            *place = new.clone();
            Some(Standing::Variants(variants))
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
        slot.is_some_and(|slot| *slot.key == *key.bytes() && !slot.variants().is_empty())
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
        } else if self.others(key, slot.variants(), entry).count() >= policy.variants {
            Err(NotStored::TooManyVariants)
        } else {
            Ok(())
        }
    }

    /// Keeps an entry whose body is there, in place of the one of its variant. `false`: it may not be kept, as it was
    /// purged meanwhile, there is no place for it, or it is a part of what is there whole and fresh.
    ///
    /// There is no room if it is larger than everything together may be, if nothing that it would replace is asked for
    /// less, or if as much of what has been evicted is not let go of yet.
    pub fn store(&self, key: &Key, entry: Arc<Entry>, policy: &Policy) -> Result<bool, NoRoom> {
        let weight = Slot::weight_of(key, Some(&entry));
        let (entry, place) = self.housed(key, entry, weight).inspect_err(|NoRoom| {
            self.refused.fetch_add(1, Ordering::Relaxed);
        })?;
        let is_stored = self.change(key, place, |variants| {
            let is_purged = entry.judge_by_known(&self.tombstones, key) == Verdict::Purged;
            let others = self.others(key, variants, &entry).cloned();
            let mut stay: SmallVec<[_; 1]> = others.collect();
            if is_purged || has_whole_of(variants, &entry) || stay.len() >= policy.variants {
                return None;
            }
            entry.hits().inherit(untold_of(variants, &entry));
            stay.push(entry.clone());
            Some(Standing::Variants(stay))
        });
        if is_stored {
            self.settle(weight);
        }
        Ok(is_stored)
    }

    /// An entry with its body where it is to be kept, and with room for it.
    fn housed(
        &self,
        key: &Key,
        entry: Arc<Entry>,
        bytes: u64,
    ) -> Result<(Arc<Entry>, Place), NoRoom> {
        if bytes > self.capacity() {
            return Err(NoRoom);
        }
        let place = self.take(bytes).or_else(|NoRoom| {
            if bytes <= self.capacity / LOST {
                return Err(NoRoom);
            }
            // moka evicts for what it has: it is told of what is large before there is any of it.
            let small = self.room.take(Slot::weight_of(key, None))?;
            self.change(key, small, |_| Some(Standing::Expected(bytes)));
            self.take(bytes)
        })?;
        Ok((self.in_pages(entry)?, place))
    }

    /// Takes room, where that is there or can be had from what has been evicted.
    fn take(&self, bytes: u64) -> Result<Place, NoRoom> {
        for _ in 0..ROUNDS {
            if let Ok(place) = self.room.take(bytes) {
                return Ok(place);
            }
            self.slots.run_pending_tasks();
        }
        self.room.take(bytes)
    }

    /// Room for an encoded form of a body of so many bytes, until it is [weighed](Self::weigh_again).
    pub fn room_for_form(&self, bytes: usize) -> Result<Place, NoRoom> {
        self.take(pages::weight(bytes) as u64)
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
        Ok(match pages.keep(body)? {
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
            let kept = current.map(moka::Entry::into_value);
            let has_entry =
                |kept: &Arc<Kept>| kept.variants().iter().any(|one| Arc::ptr_eq(one, entry));
            match kept.filter(has_entry) {
                Some(kept) => {
                    kept.place.resize(kept.slot.weight());
                    Op::Put(kept)
                }
                None => Op::Nop,
            }
        });
    }

    /// The response under this key was not stored, and the next ones probably will not be.
    pub fn expect_nothing(&self, key: &Key) {
        let Ok(place) = self.room.take(Slot::weight_of(key, None)) else {
            return;
        };
        self.change(key, place, |variants| {
            // What is stored for others is worth more than the time of a few.
            let is_empty = variants.is_empty();
            is_empty.then(|| Standing::AloneUntil(Instant::now() + ALONE))
        });
    }

    /// Whether requests of this key should wait for one another's response.
    pub fn expects_something(&self, key: &Key) -> bool {
        let slot = self.slots.get(&key.digest());
        slot.is_none_or(|slot| match slot.standing {
            Standing::AloneUntil(until) => until <= Instant::now(),
            Standing::Variants(_) | Standing::Expected(_) => true,
        })
    }

    /// Keys, and the bytes that they and their entries take.
    pub fn size(&self) -> (u64, u64) {
        self.slots.run_pending_tasks();
        (self.slots.entry_count(), self.slots.weighted_size())
    }

    /// Bytes of what is kept, and of what is evicted and not let go of yet; never more than there may be.
    pub fn held(&self) -> u64 {
        self.room.taken()
    }

    /// How many entries were not stored because there was no room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The bytes that it was given.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// What stays when `entry` comes: other variants by the same fields, of which something can come.
    fn others<'a>(
        &'a self,
        key: &'a Key,
        variants: &'a [Arc<Entry>],
        entry: &'a Entry,
    ) -> impl Iterator<Item = &'a Arc<Entry>> {
        let now = SystemTime::now();
        variants.iter().filter(move |other| {
            other.facts.vary == entry.facts.vary
                && other.facts.variant.bytes() != entry.facts.variant.bytes()
                && other.kept_until() > now
                && other.judge_by_known(&self.tombstones, key) != Verdict::Purged
        })
    }

    /// Puts something else in the place of a key's variants, in one step. Whether it did.
    fn change(
        &self,
        key: &Key,
        place: Place,
        change: impl FnOnce(&[Arc<Entry>]) -> Option<Standing>,
    ) -> bool {
        let changed = self.slots.entry(key.digest()).and_compute_with(|current| {
            let current = current.map(moka::Entry::into_value);
            let own = current.filter(|slot| *slot.key == *key.bytes());
            match change(own.as_deref().map_or(&[], |slot| slot.variants())) {
                Some(standing) => Op::Put(Arc::new(Kept::new(key, standing, place))),
                None => Op::Nop,
            }
        });
        matches!(
            changed,
            CompResult::Inserted(_) | CompResult::ReplacedWith(_)
        )
    }
}

/// Whether `entry` is a part of what is kept whole and fresh.
fn has_whole_of(variants: &[Arc<Entry>], entry: &Entry) -> bool {
    let now = SystemTime::now();
    entry.facts.part().is_some()
        && variants.iter().any(|other| {
            other.facts.part().is_none()
                && other.facts.variant.bytes() == entry.facts.variant.bytes()
                && other.facts.freshness.is_fresh(now)
        })
}

/// The hits of the entry in whose place this one comes, of which nobody was told.
fn untold_of(variants: &[Arc<Entry>], entry: &Entry) -> u32 {
    let is_of = |other: &&Arc<Entry>| {
        let (facts, own) = (&other.facts, &entry.facts);
        let is_variant = facts.vary == own.vary && facts.variant.bytes() == own.variant.bytes();
        is_variant && !std::ptr::eq(other.as_ref(), entry)
    };
    let replaced = variants.iter().filter(is_of);
    replaced.map(|other| other.hits().untold()).sum()
}

impl Kept {
    /// The place of what is new in it becomes that of all of it.
    fn new(key: &Key, standing: Standing, place: Place) -> Self {
        let slot = Slot {
            key: key.bytes().into(),
            standing,
        };
        place.resize(slot.weight());
        Self { slot, place }
    }

    /// Bytes for which moka is to have room.
    fn weight(&self) -> u64 {
        match self.standing {
            Standing::Expected(bytes) => bytes,
            Standing::Variants(_) | Standing::AloneUntil(_) => self.place.bytes(),
        }
    }
}

impl Deref for Kept {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        &self.slot
    }
}

impl Slot {
    /// What is for a request with these fields, purged or not.
    fn find(&self, request: &HeaderMap, policy: &Policy) -> Found {
        let Some(first) = self.variants().first() else {
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
        let mut variants = self.variants().iter();
        let found = variants.find(|entry| is(&entry.facts.variant, &variant));
        let found = found.or_else(|| {
            let favourite = vary.variant_of_favourite(request, policy)?;
            self.variants().iter().find(|entry| {
                let in_language = entry.facts.variant_in_language();
                in_language.is_some_and(|stored| is(stored, &favourite))
            })
        });
        match found {
            Some(entry) => Found::Entry(entry.clone()),
            None => Found::OtherVariants(variant.digest()),
        }
    }

    fn variants(&self) -> &[Arc<Entry>] {
        match &self.standing {
            Standing::Variants(variants) => variants,
            Standing::AloneUntil(_) | Standing::Expected(_) => &[],
        }
    }

    /// Bytes that a slot takes with this entry in it.
    fn weight_of(key: &Key, entry: Option<&Arc<Entry>>) -> u64 {
        let entry = entry.map_or(0, |entry| entry.weight());
        (Self::own_weight(key.bytes()) + entry) as u64
    }

    fn weight(&self) -> u64 {
        let beside = match &self.standing {
            Standing::Variants(variants) if variants.spilled() => {
                weight::of_piece(size_of::<Arc<Entry>>() * variants.capacity())
            }
            _ => 0,
        };
        let entries = self.variants().iter().map(|entry| entry.weight());
        (Self::own_weight(&self.key) + beside + entries.sum::<usize>()) as u64
    }

    fn own_weight(key: &[u8]) -> usize {
        BYTES_OF_KEY + weight::of_shared::<Kept>() + weight::of_piece(key.len())
    }

    /// How long it is of any use.
    fn useful_for(&self) -> Duration {
        match &self.standing {
            Standing::Variants(variants) => {
                let until = variants.iter().map(|entry| entry.kept_until()).max();
                let kept = until.and_then(|until| until.duration_since(SystemTime::now()).ok());
                kept.unwrap_or_default()
            }
            Standing::AloneUntil(_) => ALONE,
            Standing::Expected(_) => EXPECTED,
        }
    }
}

/// What stands under one key, for who asks what there is rather than for a page.
pub struct Stands(Arc<Kept>);

impl Stands {
    pub fn key(&self) -> Key {
        Key::read(&self.0.key)
    }

    pub fn variants(&self) -> &[Arc<Entry>] {
        self.0.variants()
    }

    /// The one for a request with these fields, purged or not.
    pub fn find(&self, request: &HeaderMap, policy: &Policy) -> Found {
        self.0.find(request, policy)
    }
}

/// Slots go when nothing can come of them any more.
struct UntilUseless;

impl Expiry<Digest, Arc<Kept>> for UntilUseless {
    fn expire_after_create(&self, _: &Digest, slot: &Arc<Kept>, _: Instant) -> Option<Duration> {
        Some(slot.useful_for())
    }

    fn expire_after_update(
        &self,
        _: &Digest,
        slot: &Arc<Kept>,
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

    /// Whether it is kept, where there is room.
    fn store(memory: &Memory, asked: &Asked, entry: Arc<Entry>, policy: &Policy) -> bool {
        let stored = memory.store(&key(asked), entry, policy);
        stored.expect("there is room")
    }

    #[test]
    fn what_is_stored_is_found() {
        let memory = Memory::new(ROOM);
        let asked = get(&[]);
        assert_eq!(found(&memory, &asked), None);
        assert!(store(
            &memory,
            &asked,
            entry(&asked, &[], "page"),
            &anonymous()
        ));
        assert_eq!(found(&memory, &asked), Some("page".into()));
    }

    #[test]
    fn variants_stand_side_by_side() {
        let memory = Memory::new(ROOM);
        for language in ["de", "en"] {
            let asked = get(&[("x-language", language)]);
            let entry = entry(&asked, &[("vary", "x-language")], language);
            assert!(store(&memory, &asked, entry, &anonymous()));
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
        let try_storing = |value: &'static str| {
            let asked = get(&[("x-a", value)]);
            let entry = entry(&asked, &[("vary", "x-a")], value);
            let room = memory.check_room(&key(&asked), &entry, &policy);
            assert_eq!(room.is_ok(), store(&memory, &asked, entry, &policy));
            room
        };
        assert_eq!(try_storing("1"), Ok(()));
        assert_eq!(try_storing("2"), Ok(()));
        assert_eq!(try_storing("3"), Err(NotStored::TooManyVariants));
        assert_eq!(try_storing("2"), Ok(()), "in place of its own");
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
        assert!(!store(&memory, &asked, old, &anonymous()));
        let new = entry_after(&memory, &asked, &[], "new");
        assert!(store(&memory, &asked, new, &anonymous()));
        assert_eq!(found(&memory, &asked), Some("new".into()));
    }

    #[test]
    fn what_is_purged_softly_is_stale_and_no_longer_than_what_is_purged_hard() {
        let memory = Memory::new(ROOM);
        let asked = get(&[]);
        let swr = [("cache-control", "max-age=60, stale-while-revalidate=30")];
        store(&memory, &asked, entry(&asked, &swr, "page"), &anonymous());
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
        let is_stored = |value: &'static str| {
            let asked = get(&[("x-a", value)]);
            let entry = entry_after(&memory, &asked, &[("vary", "x-a")], value);
            store(&memory, &asked, entry, &policy)
        };
        assert!(is_stored("1") && !is_stored("2"));
        memory.tombstones().purge(&Purge::hard([Scope::Everything]));
        assert!(is_stored("2") && !is_stored("1"));
    }

    #[test]
    fn requests_of_a_key_that_is_not_stored_do_not_wait_for_one_another() {
        let memory = Memory::new(ROOM);
        let asked = get(&[]);
        assert!(memory.expects_something(&key(&asked)));
        memory.expect_nothing(&key(&asked));
        assert!(!memory.expects_something(&key(&asked)));
        store(&memory, &asked, entry(&asked, &[], "page"), &anonymous());
        assert!(memory.expects_something(&key(&asked)));
    }

    #[test]
    fn the_bytes_of_bodies_heads_and_keys_count() {
        let memory = Memory::new(ROOM);
        let body: &'static str = "x".repeat(12_000).leak();
        for number in 0..1000 {
            let mut asked = get(&[]);
            asked.query = Some(number.to_string());
            // The threads of other tests may hold what was evicted.
            let _ = memory.store(&key(&asked), entry(&asked, &[], body), &anonymous());
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
        store(&memory, &asked, entry(&asked, &[], body), &anonymous());
        let Found::Entry(entry) = memory.find(&key(&asked), &asked.fields, &anonymous()) else {
            panic!("it is kept");
        };
        memory.slots.run_pending_tasks();
        let before = memory.slots.weighted_size();
        assert_eq!(memory.held(), before);
        let room = || memory.room_for_form(body.len());
        let body = body.into();
        let forms = entry.forms();
        let made = forms.make(Coding::Gzip, 1, &body, room, |form| form);
        let place = made.await.expect("there is room");
        memory.weigh_again(&key(&asked), &entry);
        drop(place);
        memory.slots.run_pending_tasks();
        let form = entry.forms().weight() as u64;
        assert_eq!(memory.slots.weighted_size(), before + form);
        assert_eq!(memory.held(), before + form);
        assert!(form > 0);
    }

    #[test]
    fn what_is_evicted_counts_until_it_is_let_go_of() {
        let memory = Memory::new(ROOM);
        let asked = get(&[]);
        let store = |body| memory.store(&key(&asked), entry(&asked, &[], body), &anonymous());
        assert_eq!(store("page"), Ok(true));
        // As much as a thread holds that waits for a core.
        let rest = ROOM - ROOM / LOST - memory.held();
        let held = memory.room.take(rest).expect("it is the rest");
        assert_eq!(store("other"), Err(NoRoom));
        assert!(memory.room_for_form(1).is_err());
        assert_eq!((memory.held(), memory.refused()), (ROOM - ROOM / LOST, 1));
        assert_eq!(found(&memory, &asked), Some("page".into()));
        drop(held);
        assert_eq!(store("other"), Ok(true));
        assert_eq!(found(&memory, &asked), Some("other".into()));
    }

    #[test]
    fn a_large_page_that_is_asked_for_often_finds_room_in_a_full_cache() {
        let memory = Memory::new(ROOM);
        let store = |asked: &Asked, body: &'static str| {
            let stored = memory.store(&key(asked), entry(asked, &[], body), &anonymous());
            assert!(memory.held() <= ROOM);
            stored
        };
        let small = "x".repeat(20_000).leak();
        for number in 0..1000 {
            let mut asked = get(&[]);
            asked.query = Some(number.to_string());
            let _ = store(&asked, small);
        }
        // More than is spare, and as much as a few others.
        let large = "x".repeat((ROOM / RESERVE) as usize).leak();
        let asked = get(&[]);
        let is_kept = |_| {
            let _ = store(&asked, large);
            found(&memory, &asked).is_some()
        };
        assert!((0..100).any(is_kept));
    }

    #[test]
    fn threads_that_store_and_evict_hold_no_more_than_the_capacity() {
        let memory = Memory::new(ROOM);
        let body: &'static str = "x".repeat(30_000).leak();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let memory = &memory;
                scope.spawn(move || {
                    for round in 0..500 {
                        let mut asked = get(&[]);
                        asked.query = Some((thread * 400 + round).to_string());
                        let entry = entry(&asked, &[], &body[..round * 59]);
                        let _ = memory.store(&key(&asked), entry, &anonymous());
                        assert!(memory.held() <= ROOM);
                    }
                });
            }
        });
        memory.slots.run_pending_tasks();
        let kept = memory.slots.weighted_size();
        assert!(kept > ROOM / 2);
        // The other tests have threads that moka waits for, which may wait for a core.
        let until = Instant::now() + Duration::from_secs(60);
        while memory.held() != memory.slots.weighted_size() {
            assert!(Instant::now() < until, "{} are held", memory.held());
            memory.slots.run_pending_tasks();
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_is_larger_than_the_cache_is_not_stored() {
        let memory = Memory::new(500);
        let asked = get(&[]);
        let stored = memory.store(&key(&asked), entry(&asked, &[], "x"), &anonymous());
        assert_eq!((stored, memory.refused()), (Err(NoRoom), 1));
    }
}
