//! What was purged, and in which order with the questions to the origin: an entry is good if its
//! question was sent after every purge that covers it was heard of. Nothing is searched for, no
//! clock is compared, and what is being fetched is covered too.
//!
//! Each purge has a number here, in the order in which this gateway heard of them. One that all
//! gateways share has another one, of the store they share, that says the same to all of them.

mod graves;

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::RwLock;

use self::graves::{Graves, Mark};
use super::key::Key;
use super::scope::{Scope, ScopeId};
use super::tags::Tag;

/// What becomes of what is purged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strength {
    /// It is as if it had never been stored.
    #[default]
    Hard,
    /// It is stale from then on: given while it is fetched anew, where its policy allows that.
    Soft,
}

/// Scopes, to be purged together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    pub scopes: Vec<ScopeId>,
    pub strength: Strength,
}

impl Purge {
    pub fn hard<'a>(scopes: impl IntoIterator<Item = Scope<'a>>) -> Self {
        Self {
            scopes: scopes.into_iter().map(|scope| scope.id()).collect(),
            strength: Strength::Hard,
        }
    }
}

/// The purges that a gateway had heard of at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch {
    /// The number of the last one, here.
    own: u64,
    /// The highest number up to which it had heard of every one that gateways share.
    shared: u64,
}

impl Epoch {
    /// Of an entry that another gateway stored, before it is judged here.
    pub(super) fn of_others(shared: u64) -> Self {
        Self { own: 0, shared }
    }

    /// The same for all gateways, of this one all purges up to this number.
    pub(super) fn at(self, own: u64) -> Self {
        Self { own, ..self }
    }

    pub(super) fn own(&self) -> u64 {
        self.own
    }

    /// What other gateways can judge an entry by.
    pub fn shared(&self) -> u64 {
        self.shared
    }
}

/// What purges have made of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// Nobody is to be given it as fresh; since then.
    Stale(SystemTime),
    /// Nobody is to be given it.
    Purged,
}

/// What has purged an entry, for humans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Redis cannot tell of purges, and what it cannot tell of may cover it.
    Doubt,
    /// It is older than the purges that are remembered.
    Forgotten,
    /// A purge of this scope.
    Purge(Strength, String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Doubt => f.write_str("nothing is known of purges now"),
            Self::Forgotten => f.write_str("it is older than the purges that are remembered"),
            Self::Purge(Strength::Hard, scope) => write!(f, "purge of {scope}"),
            Self::Purge(Strength::Soft, scope) => write!(f, "soft purge of {scope}"),
        }
    }
}

/// The purges that this gateway has heard of.
#[derive(Default)]
pub struct Tombstones {
    /// Of the last purge. What was asked for after it needs no further look.
    last: AtomicU64,
    shared: AtomicU64,
    /// Whether there may be purges that nobody could tell us of.
    doubted: AtomicBool,
    /// Whether what other gateways have purged may not be known.
    uninformed: AtomicBool,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    graves: Graves,
    /// What had heard of less is purged: there may be purges that nobody remembers.
    floor: Epoch,
}

impl Tombstones {
    /// To be read before the origin is asked.
    pub fn epoch(&self) -> Epoch {
        Epoch {
            shared: self.shared.load(Ordering::Acquire),
            own: self.last.load(Ordering::Acquire),
        }
    }

    /// Purges what was asked for until now. Returns the number of this purge here.
    pub fn purge(&self, purge: &Purge) -> u64 {
        let mut known = self.known.write();
        let mark = Mark {
            own: self.last.load(Ordering::Relaxed) + 1,
            shared: None,
            at: SystemTime::now(),
        };
        for scope in &purge.scopes {
            let heard = self.shared.load(Ordering::Acquire);
            known.graves.bury(*scope, purge.strength, mark, heard);
        }
        // Whoever reads it waits for the lock, and then sees the graves.
        self.last.store(mark.own, Ordering::Release);
        mark.own
    }

    /// Purges by a number that all gateways share, `at` a time that does. Whatever was asked for until
    /// now is purged, even what was asked for after another gateway had heard of it. Nothing happens if
    /// it was heard of before.
    pub fn learn(&self, purge: &Purge, number: u64, at: SystemTime) {
        let mut known = self.known.write();
        let mark = Mark {
            own: self.last.load(Ordering::Relaxed) + 1,
            shared: Some(number),
            at,
        };
        for scope in &purge.scopes {
            if !known.graves.has(scope, purge.strength, number) {
                let heard = self.shared.load(Ordering::Acquire);
                known.graves.bury(*scope, purge.strength, mark, heard);
                self.last.store(mark.own, Ordering::Release);
            }
        }
    }

    /// The buckets of a purge with this number stand for all in them that was purged here up to the number `until`:
    /// what had none for all gateways has this one.
    pub fn number(&self, purge: &Purge, number: u64, until: u64) {
        let scopes = purge.scopes.iter().copied();
        let buckets: HashSet<_> = scopes
            .filter(|scope| matches!(scope, ScopeId::Bucket(..)))
            .collect();
        if !buckets.is_empty() {
            let mut known = self.known.write();
            let strength = purge.strength;
            known.graves.number(&buckets, strength, number, until);
        }
    }

    /// Every purge of all gateways up to this number has been learnt.
    pub fn heard(&self, number: u64) {
        self.shared.fetch_max(number, Ordering::AcqRel);
    }

    /// Purges up to this number may not be known here: what was asked for until now is purged.
    pub fn missed(&self, number: u64) {
        let mut known = self.known.write();
        let own = self.last.load(Ordering::Relaxed) + 1;
        known.floor.own = own;
        known.floor.shared = known.floor.shared.max(number);
        self.last.store(own, Ordering::Release);
    }

    /// While there is doubt, nothing that is kept is given: there may be purges that nobody could tell
    /// of. What was good before and still is then is good again when the doubt ends.
    pub fn doubt(&self, is_doubted: bool) {
        self.doubted.store(is_doubted, Ordering::Relaxed);
    }

    pub fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Relaxed)
    }

    /// The number here of the last purge of a scope; zero if there was none.
    pub fn last_of(&self, scope: &Scope<'_>) -> u64 {
        self.known.read().graves.last_of(&scope.id())
    }

    /// Without what other gateways have purged, nothing that they stored is taken.
    pub fn informed(&self, is_informed: bool) {
        self.uninformed.store(!is_informed, Ordering::Relaxed);
    }

    /// Every scope whose last purge has a number for all, with that number; and the number up to which
    /// some may be forgotten.
    pub fn numbered(&self) -> (Vec<(u64, Strength, ScopeId)>, u64) {
        let known = self.known.read();
        (known.graves.numbered(), known.floor.shared)
    }

    /// What the purges that are known have made of an entry that was good when `own` was the number of the last
    /// one, and what that number is now.
    pub fn judge(&self, own: u64, key: &Key, tags: &[Tag]) -> (Verdict, u64) {
        if own >= self.last.load(Ordering::Acquire) {
            return (Verdict::Good, own);
        }
        let known = self.known.read();
        let verdict = match own < known.floor.own {
            true => Verdict::Purged,
            false => known
                .graves
                .verdict(&key.url(), tags, |mark| mark.own > own),
        };
        (verdict, self.last.load(Ordering::Acquire))
    }

    /// What has made [`Self::judge`] say of this entry that it is not good.
    pub fn cause(&self, own: u64, key: &Key, tags: &[Tag]) -> Option<Cause> {
        if self.doubted.load(Ordering::Relaxed) {
            return Some(Cause::Doubt);
        }
        let known = self.known.read();
        match own < known.floor.own {
            true => Some(Cause::Forgotten),
            false => known.graves.cause(&key.url(), tags, |mark| mark.own > own),
        }
    }

    /// The same of [`Self::adopt`].
    pub fn cause_of_others(&self, shared: u64, key: &Key, tags: &[Tag]) -> Option<Cause> {
        if self.is_unknown() {
            return Some(Cause::Doubt);
        }
        let known = self.known.read();
        match shared < known.floor.shared {
            true => Some(Cause::Forgotten),
            false => known
                .graves
                .cause(&key.url(), tags, |mark| mark.is_unheard_at(shared)),
        }
    }

    /// Whether there may be purges of other gateways that are not known here.
    fn is_unknown(&self) -> bool {
        self.uninformed.load(Ordering::Relaxed) || self.doubted.load(Ordering::Relaxed)
    }

    /// What became of an entry that another gateway stored, when `shared` was the number of its
    /// [`Epoch::shared`]; and the epoch to judge it by from now on.
    pub fn adopt(&self, shared: u64, key: &Key, tags: &[Tag]) -> (Verdict, Epoch) {
        let known = self.known.read();
        let verdict = match self.is_unknown() || shared < known.floor.shared {
            true => Verdict::Purged,
            false => known
                .graves
                .verdict(&key.url(), tags, |mark| mark.is_unheard_at(shared)),
        };
        let own = self.last.load(Ordering::Acquire);
        (verdict, Epoch { own, shared })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::cache::scope::Kind;
    use crate::cache::testing::{anonymous, at, get};

    const HOST: &str = "a.example";

    fn key(path: &str) -> Key {
        let mut asked = get(&[]);
        asked.path = path.to_owned();
        Key::of(&asked.head(), "", &anonymous())
    }

    fn tags(names: &[&str]) -> Box<[Tag]> {
        names.iter().map(|name| Tag::Key((*name).into())).collect()
    }

    fn judge(tombstones: &Tombstones, epoch: Epoch, path: &str, tags: &[Tag]) -> Verdict {
        tombstones.judge(epoch.own, &key(path), tags).0
    }

    #[test]
    fn only_what_a_purge_covers_is_purged() {
        let news = tags(&["news"]);
        for (scope, covers) in [
            (Scope::Everything, true),
            (Scope::Host(HOST), true),
            (Scope::Host("b.example"), false),
            (
                Scope::Prefix {
                    host: HOST,
                    path: "/a",
                },
                true,
            ),
            (
                Scope::Prefix {
                    host: HOST,
                    path: "/a/c",
                },
                false,
            ),
            (
                Scope::Path {
                    host: HOST,
                    path: "/a/b",
                },
                true,
            ),
            (
                Scope::Path {
                    host: HOST,
                    path: "/a",
                },
                false,
            ),
            (
                Scope::Url {
                    host: HOST,
                    path: "/a/b",
                    query: None,
                },
                true,
            ),
            (
                Scope::Url {
                    host: HOST,
                    path: "/a/b",
                    query: Some(""),
                },
                false,
            ),
            (Scope::Tag("news"), true),
            (Scope::Tag("shop"), false),
            (
                Scope::Group {
                    scheme: "https",
                    host: HOST,
                    name: "news",
                },
                false,
            ),
        ] {
            let tombstones = Tombstones::default();
            let before = tombstones.epoch();
            tombstones.purge(&Purge::hard([scope]));
            let purged = judge(&tombstones, before, "/a/b", &news) == Verdict::Purged;
            assert_eq!(purged, covers, "{scope:?}");
            let after = judge(&tombstones, tombstones.epoch(), "/a/b", &news);
            assert_eq!(after, Verdict::Good, "{scope:?}");
        }
    }

    #[test]
    fn what_was_purged_can_be_told_by_what() {
        let tombstones = Tombstones::default();
        let (key, news) = (key("/a/b"), tags(&["news"]));
        let before = tombstones.epoch();
        let told = || {
            let cause = tombstones.cause(before.own, &key, &news);
            cause.map(|cause| cause.to_string())
        };
        assert_eq!(told(), None);
        tombstones.purge(&Purge {
            strength: Strength::Soft,
            ..Purge::hard([Scope::Host(HOST)])
        });
        assert_eq!(told().unwrap(), "soft purge of host a.example");
        tombstones.purge(&Purge::hard([Scope::Tag("news")]));
        assert_eq!(told().unwrap(), "purge of tag news");
        let now = tombstones.epoch().own;
        assert_eq!(tombstones.cause(now, &key, &news), None);
        let others = tombstones.cause_of_others(0, &key, &news);
        assert_eq!(others.unwrap().to_string(), "purge of tag news");
        tombstones.doubt(true);
        assert_eq!(tombstones.cause(now, &key, &news), Some(Cause::Doubt));
    }

    #[test]
    fn a_soft_purge_makes_stale_and_a_hard_one_goes_before_it() {
        let tombstones = Tombstones::default();
        let before = tombstones.epoch();
        let soft = |noon| {
            let purge = Purge {
                strength: Strength::Soft,
                ..Purge::hard([Scope::Host(HOST)])
            };
            tombstones.learn(&purge, noon, at(0));
        };
        soft(1);
        assert_eq!(judge(&tombstones, before, "/", &[]), Verdict::Stale(at(0)));
        tombstones.purge(&Purge::hard([Scope::Everything]));
        soft(2);
        assert_eq!(judge(&tombstones, before, "/", &[]), Verdict::Purged);
    }

    #[test]
    fn what_another_gateway_stored_before_it_heard_of_a_purge_is_not_taken() {
        let tombstones = Tombstones::default();
        let purge = Purge::hard([Scope::Tag("news")]);
        let (key, news) = (key("/"), tags(&["news"]));
        let adopted = |shared| tombstones.adopt(shared, &key, &news).0;
        tombstones.learn(&purge, 100, at(0));
        assert_eq!(adopted(99), Verdict::Purged);
        assert_eq!(adopted(100), Verdict::Good);
        // Nobody else has heard of one that has no number yet.
        tombstones.purge(&purge);
        assert_eq!(adopted(u64::MAX), Verdict::Purged);
        tombstones.learn(&purge, 200, at(0));
        assert_eq!(adopted(200), Verdict::Good);
        for is_informed in [false, true] {
            tombstones.informed(is_informed);
            assert_eq!(adopted(200) == Verdict::Good, is_informed);
        }
        // What was taken is judged by what comes after it.
        let (_, epoch) = tombstones.adopt(200, &key, &news);
        tombstones.purge(&purge);
        assert_eq!(judge(&tombstones, epoch, "/", &news), Verdict::Purged);
    }

    #[test]
    fn a_purge_that_is_heard_of_late_covers_what_was_asked_for_until_then() {
        let tombstones = Tombstones::default();
        tombstones.learn(&Purge::hard([Scope::Tag("shop")]), 500, at(0));
        tombstones.heard(500);
        let epoch = tombstones.epoch();
        assert_eq!(epoch.shared(), 500);
        let news = Purge::hard([Scope::Tag("news")]);
        tombstones.learn(&news, 400, at(0));
        let verdict = |epoch| judge(&tombstones, epoch, "/", &tags(&["news"]));
        assert_eq!(verdict(epoch), Verdict::Purged);
        let after = tombstones.epoch();
        tombstones.learn(&news, 400, at(0));
        assert_eq!(verdict(after), Verdict::Good, "it was heard of before");
    }

    /// The share of these pages that is no longer given.
    fn share(mut is_given: impl FnMut(&str) -> bool) -> f64 {
        let gone = (0..2000).filter(|number| !is_given(&format!("/page{number}")));
        gone.count() as f64 / 2000.0
    }

    fn url(path: &str) -> Scope<'_> {
        Scope::Url {
            host: HOST,
            path,
            query: None,
        }
    }

    #[test]
    fn who_changes_more_urls_than_are_remembered_outdates_little_of_what_is_older() {
        let tombstones = Tombstones::default();
        let tag = Purge::hard([Scope::Tag("news")]);
        tombstones.learn(&tag, 1, at(0));
        let before = tombstones.epoch();
        let first = 100;
        for number in 0..Kind::Url.room() as u64 + 1000 {
            let path = format!("/changed{number}");
            tombstones.learn(&Purge::hard([url(&path)]), first + number, at(0));
        }
        let news = tags(&["news"]);
        let own = share(|path| judge(&tombstones, before, path, &news) == Verdict::Good);
        let shared =
            |shared| share(|path| tombstones.adopt(shared, &key(path), &news).0 == Verdict::Good);
        for share in [own, shared(first - 1)] {
            assert!(share > 0.0 && share < 0.05, "{share}");
        }
        assert_eq!(
            shared(first + 1000),
            0.0,
            "none is newer than what is forgotten"
        );
        assert_eq!(shared(0), 1.0, "the tag is as well known as ever");
        for path in ["/changed0", "/changed999", "/changed66000"] {
            assert_eq!(judge(&tombstones, before, path, &[]), Verdict::Purged);
            assert_eq!(
                tombstones.adopt(first - 1, &key(path), &[]).0,
                Verdict::Purged
            );
            let now = tombstones.epoch();
            assert_eq!(judge(&tombstones, now, path, &[]), Verdict::Good);
        }
    }

    #[test]
    fn what_was_purged_while_redis_was_away_is_taken_from_it_again_when_it_was_told_of_buckets() {
        let tombstones = Tombstones::default();
        let purge = Purge::hard([url("/a")]);
        let until = tombstones.purge(&purge);
        let adopted = |shared| tombstones.adopt(shared, &key("/a"), &[]).0;
        let bucket = Purge {
            scopes: vec![purge.scopes[0].bucket()],
            ..purge.clone()
        };
        tombstones.learn(&bucket, 100, at(0));
        assert_eq!(adopted(100), Verdict::Purged, "nobody else has heard of it");
        tombstones.number(&bucket, 100, until - 1);
        assert_eq!(adopted(100), Verdict::Purged, "it was purged after that");
        tombstones.number(&bucket, 100, until);
        assert_eq!(adopted(99), Verdict::Purged);
        assert_eq!(adopted(100), Verdict::Good);
    }

    #[test]
    fn a_bucket_that_is_heard_of_late_covers_what_was_asked_for_until_then() {
        let tombstones = Tombstones::default();
        let one = Purge::hard([url("/a")]);
        let bucket = Purge {
            scopes: vec![one.scopes[0].bucket()],
            ..one
        };
        tombstones.learn(&bucket, 500, at(0));
        let epoch = tombstones.epoch();
        tombstones.learn(&bucket, 400, at(0));
        assert_eq!(judge(&tombstones, epoch, "/a", &[]), Verdict::Purged);
        let adopted = |shared| tombstones.adopt(shared, &key("/a"), &[]).0;
        assert_eq!(
            (adopted(499), adopted(500)),
            (Verdict::Purged, Verdict::Good)
        );
    }

    /// Pages of one to three segments, and scopes that often cover them.
    fn any_scope() -> impl Strategy<Value = Scope<'static>> {
        let host = HOST;
        let path = prop::sample::select(&["/a", "/a/b", "/b", "/b/", "/"][..]);
        prop_oneof![
            1 => Just(Scope::Everything),
            1 => prop::sample::select(&[HOST, "b.example"][..]).prop_map(Scope::Host),
            3 => path.clone().prop_map(move |path| Scope::Prefix { host, path }),
            3 => path.clone().prop_map(move |path| Scope::Path { host, path }),
            3 => path.prop_map(move |path| Scope::Url { host, path, query: None }),
            3 => prop::sample::select(&["x", "y"][..]).prop_map(Scope::Tag),
        ]
    }

    fn is_covered(scope: Scope<'_>, path: &str, tags: &[Tag]) -> bool {
        match scope {
            Scope::Everything => true,
            Scope::Host(host) => host == HOST,
            Scope::Prefix { path: prefix, .. } => {
                let rest = path.strip_prefix(prefix);
                rest.is_some_and(|rest| {
                    prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/')
                })
            }
            Scope::Path { path: purged, .. } | Scope::Url { path: purged, .. } => path == purged,
            Scope::Tag(name) => tags.contains(&Tag::Key(name.into())),
            Scope::Group { .. } => false,
        }
    }

    proptest! {
        #[test]
        fn an_entry_is_given_if_no_purge_since_its_question_covers_it(
            purges in vec((any_scope(), any::<bool>()), 0..12),
            asked_after in 0usize..12,
            path in prop::sample::select(&["/a", "/a/b", "/b", "/b/", "/a/b/c"][..]),
            names in prop::sample::subsequence(&["x", "y"][..], 0..=2),
            looks in vec(any::<bool>(), 12),
        ) {
            let (tombstones, tags) = (Tombstones::default(), tags(&names));
            let mut good_at = None;
            let mut is_good = true;
            for (number, (scope, is_hard)) in purges.iter().enumerate() {
                if number == asked_after {
                    good_at = Some(tombstones.epoch().own);
                }
                let strength = if *is_hard { Strength::Hard } else { Strength::Soft };
                tombstones.purge(&Purge { strength, ..Purge::hard([*scope]) });
                let Some(own) = &mut good_at else { continue };
                is_good &= !is_covered(*scope, path, &tags);
                // Looked at in between or not, the outcome is one.
                if looks[number] {
                    let (verdict, now) = tombstones.judge(*own, &key(path), &tags);
                    prop_assert_eq!(verdict == Verdict::Good, is_good);
                    if is_good {
                        *own = now;
                    }
                }
            }
            if let Some(own) = good_at {
                let (verdict, _) = tombstones.judge(own, &key(path), &tags);
                prop_assert_eq!(verdict == Verdict::Good, is_good);
            }
        }
    }
}
