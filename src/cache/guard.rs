//! Keeps pages out of the cache that are said to be for everybody and are not: a visitor's own page
//! that an application has marked as cacheable, or that somebody has dressed up as a static file.
//!
//! `path`, `fields` and `page` say what gives such a page away. Its key is quarantined: what is
//! stored under it goes, and until the quarantine ends nothing is looked up or stored. For
//! anonymous visitors only.

pub mod fields;
pub mod page;
pub mod path;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::frame::Digest;
use super::key::Key;
use super::{Request, Response};
use crate::word::choice;

/// The most keys that are quarantined at once.
pub const MOST: usize = 1000;
/// Bytes of a key that are shown in the list: visitors write URLs as long as they like.
const LONGEST_SHOWN: usize = 1024;

choice! {
    /// What gave a page away.
    pub enum Suspicion: "suspicion" {
        /// A response field that says something of the visitor.
        PersonalField = "personal_field",
        /// The content is of another type than the name of the file.
        ContentType = "content_type",
        /// The name of a file behind a delimiter that applications take for the end of the path.
        DeceptivePath = "deceptive_path",
        /// Two fills had different tokens, such as those of forms.
        Token = "token",
        /// Two fills had different mail addresses.
        MailAddress = "mail_address",
        /// Two fills greeted different visitors.
        Greeting = "greeting",
    }
}

impl Suspicion {
    /// Whether every response shows it again, so that nothing is lost if the key is not listed.
    pub fn shows_each_time(self) -> bool {
        matches!(
            self,
            Self::PersonalField | Self::ContentType | Self::DeceptivePath
        )
    }
}

/// What gives a response away by its head.
pub fn by_head(request: &Request<'_>, response: &Response<'_>) -> Option<Suspicion> {
    match fields::is_personal(response.fields) {
        true => Some(Suspicion::PersonalField),
        false => path::check(request, response),
    }
}

/// The keys in quarantine.
#[derive(Default)]
pub struct Guard {
    held: Mutex<HashMap<Digest, Held>>,
    /// How many `held` has: most requests need to know no more.
    listed: AtomicUsize,
    count: AtomicU64,
}

/// A key in quarantine.
#[derive(Clone, Debug)]
pub struct Held {
    /// Of the key.
    pub id: Digest,
    /// As [`Key`] displays itself, cut: without what may be secret. Several may look alike.
    pub key: Box<str>,
    pub why: Suspicion,
    pub since: SystemTime,
    until: Instant,
    /// Other gateways have been told of it, where there are any.
    is_shared: bool,
}

impl Held {
    /// What another gateway has quarantined, for so long from now on.
    pub fn of_others(
        id: Digest,
        key: Box<str>,
        why: Suspicion,
        since: SystemTime,
        left: Duration,
    ) -> Self {
        Self {
            id,
            key,
            why,
            since,
            until: Instant::now() + left,
            is_shared: true,
        }
    }

    /// How long it goes on.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// Whose quarantine ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    All,
    Id(Digest),
    /// All that are displayed so.
    Key(Box<str>),
}

impl Release {
    fn names(&self, held: &Held) -> bool {
        match self {
            Self::All => true,
            Self::Id(id) => held.id == *id,
            Self::Key(key) => held.key == *key,
        }
    }
}

impl Guard {
    /// Quarantines a key for `duration`, and logs it unless it is known already. Where the list is full
    /// the oldest key goes, but not for a new one that shows itself each time. Whether it is listed anew.
    pub fn hold(&self, key: &Key, why: Suspicion, duration: Duration) -> bool {
        // It is ASCII.
        let mut shown = key.to_string();
        shown.truncate(LONGEST_SHOWN);
        let is_new = self.list_new(Held {
            is_shared: false,
            ..Held::of_others(key.digest(), shown.into(), why, SystemTime::now(), duration)
        });
        if is_new {
            self.count.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%key, reason = %why, "quarantined: the page looks personal");
        }
        is_new
    }

    /// Quarantines what another gateway has.
    pub fn learn(&self, held: Held) {
        let (key, why) = (held.key.clone(), held.why);
        if self.list_new(held) {
            tracing::info!(%key, reason = %why, "quarantined by another gateway");
        }
    }

    fn list_new(&self, new: Held) -> bool {
        let now = Instant::now();
        let mut held = self.held.lock();
        held.retain(|_, one| one.until > now);
        let is_new = !held.contains_key(&new.id);
        if is_new && held.len() >= MOST {
            if new.why.shows_each_time() {
                return false;
            }
            let oldest = held.iter().min_by_key(|(_, one)| {
                // Who fills the list by inventing paths drives out no other.
                (!one.why.shows_each_time(), one.since)
            });
            let oldest = oldest.map(|(digest, _)| *digest);
            oldest.map(|digest| held.remove(&digest));
        }
        if is_new {
            held.insert(new.id, new);
        }
        self.listed.store(held.len(), Ordering::Release);
        is_new
    }

    /// Up to `most` of which other gateways have not been told.
    pub fn unshared(&self, most: usize) -> Vec<Held> {
        let held = self.held.lock();
        let unshared = held.values().filter(|one| !one.is_shared);
        unshared.take(most).cloned().collect()
    }

    /// Takes note that other gateways have been told of these.
    pub fn shared(&self, which: &[Held]) {
        let mut held = self.held.lock();
        for one in which {
            if let Some(one) = held.get_mut(&one.id) {
                one.is_shared = true;
            }
        }
    }

    /// Takes note that these are on the list of all gateways. Of the others the quarantine ends if they were on it before,
    /// where it `is_same`; those who keep another list now have to be told of them again.
    pub fn reconcile(&self, ids: &HashSet<Digest>, is_same: bool) {
        let mut held = self.held.lock();
        held.retain(|id, one| {
            let is_listed = ids.contains(id);
            let stays = is_listed || !one.is_shared || !is_same;
            one.is_shared = is_listed;
            stays
        });
        self.listed.store(held.len(), Ordering::Release);
    }

    /// Why a key is in quarantine, if it is.
    pub fn held(&self, key: &Key) -> Option<Suspicion> {
        if self.listed.load(Ordering::Acquire) == 0 {
            return None;
        }
        let held = self.held.lock();
        let one = held.get(&key.digest())?;
        (one.until > Instant::now()).then_some(one.why)
    }

    /// All keys in quarantine, the oldest first.
    pub fn list(&self) -> Vec<Held> {
        let now = Instant::now();
        let held = self.held.lock();
        let mut list: Vec<_> = held
            .values()
            .filter(|one| one.until > now)
            .cloned()
            .collect();
        list.sort_by_key(|one| one.since);
        list
    }

    /// Ends the quarantine of these keys; how many there were.
    pub fn release(&self, which: &Release) -> usize {
        let mut held = self.held.lock();
        let before = held.len();
        held.retain(|_, one| !which.names(one));
        self.listed.store(held.len(), Ordering::Release);
        before - held.len()
    }

    /// How many keys have been quarantined since the start.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::{anonymous, get};

    const HOUR: Duration = Duration::from_secs(3600);

    fn key(path: &str) -> Key {
        let mut asked = get(&[]);
        asked.path = path.to_owned();
        Key::of(&asked.head(), "pages", &anonymous())
    }

    #[test]
    fn a_quarantined_key_is_held_listed_and_released() {
        let guard = Guard::default();
        assert_eq!(guard.held(&key("/a")), None);
        guard.hold(&key("/a"), Suspicion::Token, HOUR);
        guard.hold(&key("/a"), Suspicion::Greeting, HOUR);
        guard.hold(&key("/b"), Suspicion::Greeting, HOUR);
        assert_eq!(guard.held(&key("/a")), Some(Suspicion::Token));
        assert_eq!((guard.held(&key("/c")), guard.count()), (None, 2));
        let list = guard.list();
        assert_eq!(&*list[0].key, "https://a.example/a route=pages");
        assert_eq!(guard.release(&Release::Key(list[0].key.clone())), 1);
        assert_eq!(guard.held(&key("/a")), None);
        assert_eq!(guard.release(&Release::Id(key("/a").digest())), 0);
        assert_eq!(guard.release(&Release::Id(key("/b").digest())), 1);
        guard.hold(&key("/a"), Suspicion::Token, HOUR);
        assert_eq!((guard.release(&Release::All), guard.list().len()), (1, 0));
    }

    #[test]
    fn what_another_gateway_has_released_is_released_and_what_redis_has_forgotten_is_not() {
        let guard = Guard::default();
        for path in ["/a", "/b"] {
            guard.hold(&key(path), Suspicion::Token, HOUR);
        }
        let told = guard.unshared(1);
        guard.shared(&told);
        let ids = HashSet::new();
        guard.reconcile(&ids, true);
        assert_eq!(guard.list().len(), 1, "nobody was told of the other one");
        guard.shared(&guard.unshared(10));
        guard.reconcile(&ids, false);
        assert_eq!(guard.unshared(10).len(), 1, "they are told again");
        guard.reconcile(&[key("/a"), key("/b")].map(|key| key.digest()).into(), true);
        assert_eq!((guard.list().len(), guard.unshared(10).len()), (1, 0));
    }

    #[test]
    fn of_a_long_url_the_list_shows_the_beginning() {
        let guard = Guard::default();
        for end in ["a", "b"] {
            let long = format!("/{}{end}", "x".repeat(5000));
            guard.hold(&key(&long), Suspicion::Token, HOUR);
        }
        let shown: Vec<_> = guard.list().into_iter().map(|held| held.key).collect();
        assert_eq!((shown[0].len(), &shown[0]), (LONGEST_SHOWN, &shown[1]));
        assert_eq!(guard.release(&Release::Key(shown[0].clone())), 2);
    }

    #[test]
    fn a_quarantine_ends() {
        let guard = Guard::default();
        guard.hold(&key("/a"), Suspicion::Token, Duration::ZERO);
        assert_eq!(guard.held(&key("/a")), None);
        assert!(guard.list().is_empty());
    }

    #[test]
    fn who_invents_paths_drives_nobody_out() {
        let guard = Guard::default();
        guard.hold(&key("/mine"), Suspicion::Token, HOUR);
        for number in 0..MOST + 10 {
            let path = format!("/x{number}.css");
            guard.hold(&key(&path), Suspicion::ContentType, HOUR);
        }
        assert_eq!(guard.list().len(), MOST);
        guard.hold(&key("/also"), Suspicion::Greeting, HOUR);
        assert_eq!(guard.list().len(), MOST);
        assert_eq!(guard.held(&key("/mine")), Some(Suspicion::Token));
        assert_eq!(guard.held(&key("/also")), Some(Suspicion::Greeting));
    }
}
