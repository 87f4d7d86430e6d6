//! Purges that are to be sent when they can be, each scope once. Of more than there is room for, whole buckets are sent.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::cache::scope::{Kind, ScopeId};
use crate::cache::tombstones::{Purge, Strength};

/// What waits to be sent.
#[derive(Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    hard: Scopes,
    soft: Scopes,
}

/// Those of one strength. No bucket waits together with what is in it.
#[derive(Default)]
struct Scopes {
    all: HashSet<ScopeId>,
    /// Of each kind those that are no buckets.
    ones: [usize; Kind::ALL.len()],
}

impl Outbox {
    /// Has a purge sent. `purge_here` is done in the same step: what [`Outbox::take`] takes stands for all that was
    /// purged here before.
    pub fn put<T>(&self, purge: &Purge, purge_here: impl FnOnce() -> T) -> T {
        let mut waiting = self.waiting.lock();
        let done = purge_here();
        waiting.of(purge.strength).put(&purge.scopes);
        drop(waiting);
        self.filled.notify_one();
        done
    }

    /// Waits for something to be sent, and takes up to `most` scopes of it, with what `moment` says of when.
    pub async fn take<T>(&self, most: usize, moment: impl Fn() -> T) -> (Purge, T) {
        loop {
            {
                let mut waiting = self.waiting.lock();
                if let Some(purge) = waiting.take(most) {
                    return (purge, moment());
                }
            }
            self.filled.notified().await;
        }
    }
}

impl Waiting {
    fn of(&mut self, strength: Strength) -> &mut Scopes {
        match strength {
            Strength::Hard => &mut self.hard,
            Strength::Soft => &mut self.soft,
        }
    }

    fn take(&mut self, most: usize) -> Option<Purge> {
        let strengths = [Strength::Hard, Strength::Soft];
        let strength = strengths
            .into_iter()
            .find(|strength| !self.of(*strength).all.is_empty())?;
        let scopes = self.of(strength).take(most);
        Some(Purge { scopes, strength })
    }
}

impl Scopes {
    fn put(&mut self, scopes: &[ScopeId]) {
        let is_bucket = |scope: &&ScopeId| matches!(scope, ScopeId::Bucket(..));
        self.put_buckets(scopes.iter().filter(is_bucket).copied().collect());
        for scope in scopes {
            let kind = scope.kind();
            if !self.all.contains(&scope.bucket()) && self.all.insert(*scope) {
                self.ones[kind as usize] += 1;
            }
            if self.ones[kind as usize] > kind.room() {
                self.fold(kind);
            }
        }
    }

    /// Puts buckets in the place of what is in them.
    fn put_buckets(&mut self, buckets: HashSet<ScopeId>) {
        if buckets.is_empty() {
            return;
        }
        self.all.retain(|scope| {
            let stays = !buckets.contains(&scope.bucket());
            if !stays && matches!(scope, ScopeId::One(..)) {
                self.ones[scope.kind() as usize] -= 1;
            }
            stays
        });
        self.all.extend(buckets);
    }

    /// Puts the buckets of all of a kind in their place.
    fn fold(&mut self, kind: Kind) {
        let fold = |scope: ScopeId| match scope.kind() == kind {
            true => scope.bucket(),
            false => scope,
        };
        self.all = self.all.drain().map(fold).collect();
        self.ones[kind as usize] = 0;
    }

    fn take(&mut self, most: usize) -> Vec<ScopeId> {
        let scopes: Vec<_> = self.all.iter().take(most).copied().collect();
        for scope in &scopes {
            self.all.remove(scope);
            let is_one = matches!(scope, ScopeId::One(..));
            self.ones[scope.kind() as usize] -= usize::from(is_one);
        }
        scopes
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::cache::scope::Scope;

    fn tag(name: &str) -> Purge {
        Purge::hard([Scope::Tag(name)])
    }

    fn take(outbox: &Outbox, most: usize) -> Option<Vec<ScopeId>> {
        let taken = outbox.take(most, || ()).now_or_never();
        taken.map(|(purge, ())| purge.scopes)
    }

    #[test]
    fn what_is_put_is_taken_once_and_in_pieces() {
        let outbox = Outbox::default();
        assert_eq!(take(&outbox, 2), None);
        for name in ["a", "b", "c", "a"] {
            outbox.put(&tag(name), || {});
        }
        let soft = Purge {
            strength: Strength::Soft,
            ..tag("a")
        };
        outbox.put(&soft, || {});
        let taken = || take(&outbox, 2).map(|scopes| scopes.len());
        assert_eq!(
            [taken(), taken(), taken(), taken()],
            [Some(2), Some(1), Some(1), None]
        );
    }

    #[test]
    fn who_changes_many_urls_while_redis_is_away_has_buckets_sent_and_not_everything() {
        let outbox = Outbox::default();
        outbox.put(&tag("news"), || {});
        let change = |number: usize| {
            let path = format!("/{number}");
            let host = "a.example";
            Purge::hard([Scope::Path { host, path: &path }])
        };
        let all = Kind::Url.room() + 2;
        for number in 0..all {
            outbox.put(&change(number), || {});
        }
        let sent = take(&outbox, usize::MAX).unwrap();
        assert!(sent.len() <= Kind::Url.room() + 1);
        assert!(
            sent.contains(&tag("news").scopes[0]),
            "it is of another kind"
        );
        for number in 0..all {
            let scope = change(number).scopes[0];
            assert!(sent.contains(&scope.bucket()) || sent.contains(&scope));
        }
        assert_eq!(take(&outbox, 1), None);
        // As when it could not be sent.
        let (one, bucket) = (change(1), change(1).scopes[0].bucket());
        let again = |scopes| outbox.put(&Purge { scopes, ..tag("") }, || {});
        again(one.scopes.clone());
        again(vec![bucket]);
        again(one.scopes);
        assert_eq!(take(&outbox, 2), Some(vec![bucket]));
    }
}
