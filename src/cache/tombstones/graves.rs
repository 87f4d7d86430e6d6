//! The last purge of each scope, in bounded room. Of each kind the newest are remembered one by one; an older one goes
//! into its bucket, and from then on covers all that the bucket does. So more purges than there is room for cost
//! a share of what is stored, and never something that should be gone.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::SystemTime;

use super::{Cause, Strength, Verdict};
use crate::cache::frame::Digest;
use crate::cache::key::Url;
use crate::cache::scope::{self, Kind, Scope, ScopeId};
use crate::cache::tags::Tag;

#[derive(Default)]
pub(super) struct Graves {
    all: HashMap<ScopeId, Grave>,
    /// Of each kind those that are remembered one by one, by the number of their last purge here.
    by_age: [BTreeSet<(u64, Digest)>; Kind::ALL.len()],
    has_buckets: bool,
}

/// The last purge of one scope, of each strength.
#[derive(Clone, Copy, Debug, Default)]
struct Grave {
    hard: Option<Mark>,
    soft: Option<Mark>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub own: u64,
    /// The number for all gateways; it may have none yet.
    pub shared: Option<u64>,
    pub at: SystemTime,
}

impl Mark {
    /// Whether a gateway had not heard of it that had heard of all up to this number.
    pub fn is_unheard_at(&self, shared: u64) -> bool {
        self.shared.is_none_or(|number| number > shared)
    }
}

impl Graves {
    /// Purges a scope. `heard` is the highest number up to which every purge of all gateways is known.
    pub fn bury(&mut self, id: ScopeId, strength: Strength, mark: Mark, heard: u64) {
        let ScopeId::One(kind, digest) = id else {
            return self.bury_all(id, strength, mark);
        };
        let grave = self.all.entry(id).or_default();
        let by_age = &mut self.by_age[kind as usize];
        by_age.remove(&(grave.own(), digest));
        *grave.of(strength) = Some(mark);
        by_age.insert((grave.own(), digest));
        if by_age.len() > kind.room() {
            let (_, oldest) = by_age.pop_first().expect("there are more than fit");
            self.fold(ScopeId::One(kind, oldest), heard);
        }
    }

    /// Purges a bucket, by the highest numbers of all that was purged with it.
    fn bury_all(&mut self, bucket: ScopeId, strength: Strength, mark: Mark) {
        let place = self.all.entry(bucket).or_default().of(strength);
        let before = place.get_or_insert(mark);
        *before = Mark {
            own: before.own.max(mark.own),
            shared: before.shared.max(mark.shared),
            // What is stale is so since the first of them.
            at: before.at.min(mark.at),
        };
        self.has_buckets = true;
    }

    fn fold(&mut self, id: ScopeId, heard: u64) {
        let grave = self.all.remove(&id).expect("what has an age has a grave");
        for (strength, mark) in grave.marks() {
            // What has no number yet will have a higher one than was ever heard, and is remembered by itself
            // again then.
            let shared = mark.shared.or(Some(heard + 1));
            self.bury_all(id.bucket(), strength, Mark { shared, ..mark });
        }
    }

    /// Whether a scope has been purged by this number, or a later one, of all gateways. Of a bucket that is never sure:
    /// its numbers may be those of single scopes in it.
    pub fn has(&self, id: &ScopeId, strength: Strength, number: u64) -> bool {
        let grave = self.all.get(id).copied().unwrap_or_default();
        let mark = match strength {
            Strength::Hard => grave.hard,
            Strength::Soft => grave.soft,
        };
        let known = mark.and_then(|mark| mark.shared);
        matches!(id, ScopeId::One(..)) && known.is_some_and(|known| known >= number)
    }

    /// Gives the number of these buckets to all in them that have none and whose last purge here was not after `until`.
    pub fn number(
        &mut self,
        buckets: &HashSet<ScopeId>,
        strength: Strength,
        number: u64,
        until: u64,
    ) {
        for (id, grave) in &mut self.all {
            if let Some(mark) = grave.of(strength)
                && mark.shared.is_none()
                && mark.own <= until
                && buckets.contains(&id.bucket())
            {
                mark.shared = Some(number);
            }
        }
    }

    /// The number here of the last purge of a scope; zero if it is not known by itself.
    pub fn last_of(&self, id: &ScopeId) -> u64 {
        self.all.get(id).map_or(0, Grave::own)
    }

    /// All that has a number for all gateways, with the last one.
    pub fn numbered(&self) -> Vec<(u64, Strength, ScopeId)> {
        let marks = |(id, grave): (&ScopeId, &Grave)| {
            let id = *id;
            let marks = grave.marks();
            marks.filter_map(move |(strength, mark)| Some((mark.shared?, strength, id)))
        };
        self.all.iter().flat_map(marks).collect()
    }

    /// What became of an entry, by those purges that are `is_after` it.
    pub fn verdict(
        &self,
        url: &Url<'_>,
        tags: &[Tag],
        is_after: impl Fn(&Mark) -> bool,
    ) -> Verdict {
        let mut stale: Option<SystemTime> = None;
        for (_, grave) in self.covering(url, tags) {
            if grave.hard.as_ref().is_some_and(&is_after) {
                return Verdict::Purged;
            }
            let soft = grave.soft.as_ref().filter(|mark| is_after(mark));
            stale = [stale, soft.map(|mark| mark.at)]
                .into_iter()
                .flatten()
                .min();
        }
        stale.map_or(Verdict::Good, Verdict::Stale)
    }

    /// The scope by which [`Self::verdict`] is not good.
    pub fn cause(
        &self,
        url: &Url<'_>,
        tags: &[Tag],
        is_after: impl Fn(&Mark) -> bool,
    ) -> Option<Cause> {
        let mut softly = None;
        for (scope, grave) in self.covering(url, tags) {
            let by = |strength| Some(Cause::Purge(strength, scope.to_string()));
            if grave.hard.as_ref().is_some_and(&is_after) {
                return by(Strength::Hard);
            }
            if softly.is_none() && grave.soft.as_ref().is_some_and(&is_after) {
                softly = by(Strength::Soft);
            }
        }
        softly
    }

    /// The purges of all that covers an entry, and of the buckets it lies in.
    fn covering<'a>(
        &'a self,
        url: &Url<'a>,
        tags: &'a [Tag],
    ) -> impl Iterator<Item = (Scope<'a>, &'a Grave)> {
        let scopes = scope::covering(url, tags).chain(scope::prefixes(url));
        let ids = scopes.flat_map(|scope| {
            let id = scope.id();
            let bucket = self.has_buckets.then(|| id.bucket());
            [Some((scope, id)), bucket.map(|bucket| (scope, bucket))]
        });
        ids.flatten()
            .filter_map(|(scope, id)| Some((scope, self.all.get(&id)?)))
    }
}

impl Grave {
    fn of(&mut self, strength: Strength) -> &mut Option<Mark> {
        match strength {
            Strength::Hard => &mut self.hard,
            Strength::Soft => &mut self.soft,
        }
    }

    fn marks(&self) -> impl Iterator<Item = (Strength, Mark)> + use<> {
        let marks = [(Strength::Hard, self.hard), (Strength::Soft, self.soft)];
        let there = |(strength, mark): (_, Option<Mark>)| Some((strength, mark?));
        marks.into_iter().filter_map(there)
    }

    fn own(&self) -> u64 {
        let own = self.marks().map(|(_, mark)| mark.own);
        own.max().unwrap_or_default()
    }
}
