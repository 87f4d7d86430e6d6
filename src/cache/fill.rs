//! Questions to the origin that are under way, so that many requests for one response ask once.
//!
//! The first to ask leads: what the origin says is for all who ask meanwhile. If the response is
//! for one request only, or does not come, each follower has to see for itself.
//!
//! While purges cannot be heard of, what the origin was asked before a request came may be purged and is not
//! given to it. Such requests wait for the question that is under way, and then for one that is for all of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::entry::Entry;
use super::frame::Digest;
use super::key::Key;
use super::tombstones::{Epoch, Tombstones, Verdict};

/// A key, and the variant where that is known before the response is.
pub type Wanted = (Digest, Option<Digest>);

/// The questions under way.
#[derive(Default)]
pub struct Fills(Mutex<UnderWay>);

#[derive(Default)]
struct UnderWay {
    questions: HashMap<Wanted, Question>,
    /// How many there are of each key, those included that nobody can join.
    of_keys: HashMap<Digest, usize>,
    /// How many there were.
    count: u64,
}

/// The number of the first question that is asked after a request has come.
#[derive(Clone, Copy, Debug)]
pub struct Arrival(u64);

struct Question {
    number: u64,
    /// When it was opened.
    epoch: Epoch,
    stage: watch::Receiver<Stage>,
}

/// What has become of a question.
#[derive(Clone)]
pub enum Stage {
    Asked,
    /// This answers others too.
    Ready(Arc<Entry>),
    /// The response is for the request that caused it.
    NotForOthers,
    /// There is none.
    Failed,
}

/// What a request is to a question.
pub enum Role {
    Leader(Leading),
    Follower(Following),
}

impl Fills {
    /// To be read when a request comes: what is asked from here on is asked after it.
    pub fn arrival(&self) -> Arrival {
        Arrival(self.0.lock().count)
    }

    /// Joins the question for `wanted`, a variant of `key`, or opens it. What was asked before it was
    /// purged is for those who wait already.
    pub fn join(
        self: &Arc<Self>,
        wanted: Wanted,
        key: &Key,
        tombstones: &Tombstones,
        arrival: Arrival,
    ) -> Role {
        let epoch = tombstones.epoch();
        let mut under_way = self.0.lock();
        let number = under_way.count;
        if let Some(question) = under_way.questions.get(&wanted) {
            let is_later = question.number >= arrival.0;
            if is_later || !question.is_purged(key, tombstones) {
                return Role::Follower(Following {
                    is_later,
                    stage: question.stage.clone(),
                });
            }
        }
        let (stage, watched) = watch::channel(Stage::Asked);
        let question = Question {
            number,
            epoch,
            stage: watched,
        };
        under_way.questions.insert(wanted, question);
        under_way.count += 1;
        drop(under_way);
        Role::Leader(Leading {
            listed: Some(Listed { wanted, number }),
            counted: self.count(wanted.0),
            stage,
        })
    }

    /// A question for `key` that nobody can join.
    pub fn alone(self: &Arc<Self>, key: Digest) -> Leading {
        Leading {
            listed: None,
            counted: self.count(key),
            stage: watch::Sender::new(Stage::Asked),
        }
    }

    /// Whether a question for this key is under way.
    pub fn has(&self, key: Digest) -> bool {
        self.0.lock().of_keys.contains_key(&key)
    }

    fn count(self: &Arc<Self>, key: Digest) -> Counted {
        *self.0.lock().of_keys.entry(key).or_default() += 1;
        Counted {
            fills: self.clone(),
            key,
        }
    }
}

impl Question {
    fn is_purged(&self, key: &Key, tombstones: &Tombstones) -> bool {
        let verdict = match &*self.stage.borrow() {
            Stage::Ready(entry) => entry.judge(tombstones, key),
            // Its tags are not known yet. It is worth waiting for, even if it may not be given then.
            _ => tombstones.judge(self.epoch.own(), key, &[]).0,
        };
        verdict != Verdict::Good
    }
}

/// Leads a question. If it is dropped without a word, the question has failed.
pub struct Leading {
    /// Where others find it.
    listed: Option<Listed>,
    counted: Counted,
    stage: watch::Sender<Stage>,
}

struct Listed {
    wanted: Wanted,
    number: u64,
}

/// Counts a question of a key while it lives.
struct Counted {
    fills: Arc<Fills>,
    key: Digest,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut under_way = self.fills.0.lock();
        if let Place::Occupied(mut count) = under_way.of_keys.entry(self.key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Leading {
    /// What is asked for, if others may join.
    pub fn wanted(&self) -> Option<Wanted> {
        self.listed.as_ref().map(|listed| listed.wanted)
    }

    /// Gives this to all who wait, and to all who come.
    pub fn ready(&self, entry: Arc<Entry>) {
        self.stage.send_replace(Stage::Ready(entry));
    }

    /// Sends those who wait to the origin.
    pub fn not_for_others(&mut self) {
        self.close();
        self.stage.send_replace(Stage::NotForOthers);
    }

    /// Nobody is to join any more.
    pub fn close(&mut self) {
        let Some(listed) = self.listed.take() else {
            return;
        };
        let mut under_way = self.counted.fills.0.lock();
        let question = under_way.questions.get(&listed.wanted);
        // Unless it was purged, and another one stands in its place.
        if question.is_some_and(|question| question.number == listed.number) {
            under_way.questions.remove(&listed.wanted);
        }
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.close();
        self.stage.send_if_modified(|stage| {
            let is_open = matches!(stage, Stage::Asked);
            if is_open {
                *stage = Stage::Failed;
            }
            is_open
        });
    }
}

/// Waits for what another request has asked.
pub struct Following {
    /// It was asked after this request had come: whatever was purged before is not in it.
    pub is_later: bool,
    stage: watch::Receiver<Stage>,
}

impl Following {
    /// What became of it: anything but [`Stage::Asked`].
    pub async fn outcome(mut self) -> Stage {
        let outcome = self.stage.wait_for(|stage| !matches!(stage, Stage::Asked));
        // Leaders say how it ended before they go.
        outcome.await.map_or(Stage::Failed, |stage| stage.clone())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::cache::scope::Scope;
    use crate::cache::testing::{anonymous, get};
    use crate::cache::tombstones::Purge;

    fn key(path: &str) -> Key {
        let mut asked = get(&[]);
        asked.path = path.to_owned();
        Key::of(&asked.head(), "", &anonymous())
    }

    fn join(fills: &Arc<Fills>, path: &str, tombstones: &Tombstones) -> Role {
        join_since(fills, path, tombstones, fills.arrival())
    }

    fn join_since(
        fills: &Arc<Fills>,
        path: &str,
        tombstones: &Tombstones,
        arrival: Arrival,
    ) -> Role {
        let key = key(path);
        fills.join((key.digest(), None), &key, tombstones, arrival)
    }

    fn lead_after(fills: &Arc<Fills>, tombstones: &Tombstones) -> Leading {
        match join(fills, "/", tombstones) {
            Role::Leader(leading) => leading,
            Role::Follower(_) => panic!("somebody leads already"),
        }
    }

    fn lead(fills: &Arc<Fills>) -> Leading {
        lead_after(fills, &Tombstones::default())
    }

    fn follow(fills: &Arc<Fills>) -> Following {
        match join(fills, "/", &Tombstones::default()) {
            Role::Follower(following) => following,
            Role::Leader(_) => panic!("nobody leads"),
        }
    }

    #[tokio::test]
    async fn the_first_leads_and_the_others_follow() {
        let fills = Arc::default();
        let mut leading = lead(&fills);
        assert!(matches!(
            join(&fills, "/other", &Tombstones::default()),
            Role::Leader(_)
        ));
        let (one, other) = (follow(&fills), follow(&fills));
        assert!(follow(&fills).outcome().now_or_never().is_none());
        leading.not_for_others();
        assert!(matches!(one.outcome().await, Stage::NotForOthers));
        assert!(matches!(other.outcome().await, Stage::NotForOthers));
        lead(&fills);
    }

    #[tokio::test]
    async fn a_leader_that_vanishes_has_failed_and_another_may_lead() {
        let fills = Arc::default();
        let leading = lead(&fills);
        let following = follow(&fills);
        drop(leading);
        assert!(matches!(following.outcome().await, Stage::Failed));
        lead(&fills);
    }

    #[tokio::test]
    async fn what_is_under_way_when_its_url_is_purged_is_for_those_who_wait_already() {
        let fills = Arc::default();
        let old = lead(&fills);
        let waiting = follow(&fills);
        let tombstones = Tombstones::default();
        let host = Scope::Host("a.example");
        tombstones.purge(&Purge::hard([host]));
        let new = lead_after(&fills, &tombstones);
        drop(old);
        assert!(matches!(waiting.outcome().await, Stage::Failed));
        follow(&fills);
        drop(new);
        lead(&fills);
    }

    #[tokio::test]
    async fn while_purges_are_not_known_one_question_is_asked_for_all_who_came_before_it() {
        let fills = Arc::default();
        let tombstones = Tombstones::default();
        tombstones.doubt(true);
        let first = lead_after(&fills, &tombstones);
        let arrivals = [fills.arrival(), fills.arrival()];
        let follow = |arrival| match join_since(&fills, "/", &tombstones, arrival) {
            Role::Follower(following) => following,
            Role::Leader(_) => panic!("nobody asks while another one is asking"),
        };
        for waiting in arrivals.map(follow) {
            assert!(!waiting.is_later);
            assert!(waiting.outcome().now_or_never().is_none());
        }
        drop(first);
        let Role::Leader(_second) = join_since(&fills, "/", &tombstones, arrivals[0]) else {
            panic!("nobody asks any more");
        };
        assert!(follow(arrivals[1]).is_later);
        assert!(!follow(fills.arrival()).is_later);
    }

    #[test]
    fn a_question_is_under_way_until_it_is_dropped() {
        let fills: Arc<Fills> = Arc::default();
        let digest = key("/").digest();
        let mut leading = lead(&fills);
        let alone = fills.alone(digest);
        assert!(matches!(
            join(&fills, "/", &Tombstones::default()),
            Role::Follower(_)
        ));
        leading.not_for_others();
        drop(leading);
        assert!(fills.has(digest) && !fills.has(key("/other").digest()));
        drop(alone);
        assert!(!fills.has(digest));
    }

    #[tokio::test]
    async fn a_leader_that_has_closed_does_not_end_the_question_of_the_next() {
        let fills = Arc::default();
        let mut first = lead(&fills);
        first.close();
        let _second = lead(&fills);
        drop(first);
        follow(&fills);
    }
}
