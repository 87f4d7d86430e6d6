//! Purges that are to be sent when they can be, each scope once.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::cache::frame::Digest;
use crate::cache::scope::Scope;
use crate::cache::tombstones::{Purge, Strength};

/// Scopes that may wait. Instead of more, everything waits to be purged.
const MOST: usize = 65_536;

/// What waits to be sent.
#[derive(Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    hard: HashSet<Digest>,
    soft: HashSet<Digest>,
}

impl Outbox {
    pub fn put(&self, purge: &Purge) {
        let mut waiting = self.waiting.lock();
        waiting.of(purge.strength).extend(&purge.scopes);
        if waiting.hard.len() + waiting.soft.len() > MOST {
            waiting.soft.clear();
            waiting.hard = HashSet::from([Scope::Everything.digest()]);
        }
        drop(waiting);
        self.filled.notify_one();
    }

    /// Waits for something to be sent, and takes up to `most` scopes of it.
    pub async fn take(&self, most: usize) -> Purge {
        loop {
            if let Some(purge) = self.waiting.lock().take(most) {
                return purge;
            }
            self.filled.notified().await;
        }
    }
}

impl Waiting {
    fn of(&mut self, strength: Strength) -> &mut HashSet<Digest> {
        match strength {
            Strength::Hard => &mut self.hard,
            Strength::Soft => &mut self.soft,
        }
    }

    fn take(&mut self, most: usize) -> Option<Purge> {
        let strengths = [Strength::Hard, Strength::Soft];
        let strength = strengths
            .into_iter()
            .find(|strength| !self.of(*strength).is_empty())?;
        let all = self.of(strength);
        let scopes: Vec<_> = all.iter().take(most).copied().collect();
        for scope in &scopes {
            all.remove(scope);
        }
        Some(Purge { scopes, strength })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn tag(name: &str) -> Purge {
        Purge::hard([Scope::Tag(name)])
    }

    #[test]
    fn what_is_put_is_taken_once_and_in_pieces() {
        let outbox = Outbox::default();
        assert!(outbox.take(2).now_or_never().is_none());
        for name in ["a", "b", "c", "a"] {
            outbox.put(&tag(name));
        }
        let soft = Purge {
            strength: Strength::Soft,
            ..tag("a")
        };
        outbox.put(&soft);
        let taken = || {
            outbox
                .take(2)
                .now_or_never()
                .map(|purge| purge.scopes.len())
        };
        assert_eq!(
            [taken(), taken(), taken(), taken()],
            [Some(2), Some(1), Some(1), None]
        );
    }

    #[test]
    fn more_than_fits_is_everything() {
        let outbox = Outbox::default();
        for number in 0..=MOST {
            outbox.put(&tag(&number.to_string()));
        }
        let taken = outbox.take(2).now_or_never();
        assert_eq!(taken, Some(Purge::hard([Scope::Everything])));
    }
}
