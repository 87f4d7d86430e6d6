//! The state of all links together, said once when it changes. Knows no connection.

use std::fmt;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::Away;
use super::connector::Failure;

/// How it stands with Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No connection has been made or has failed yet.
    Connecting,
    Up,
    /// It answers, and takes nothing to be kept: [`Away::ReadOnly`] or [`Away::OutOfMemory`].
    WritesRefused(Away),
    Away(Away),
}

/// As operators read it: `up`, `connecting`, `takes no writes: …`, `away: …`.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => f.write_str("connecting"),
            Self::Up => f.write_str("up"),
            Self::WritesRefused(away) => write!(f, "takes no writes: {away}"),
            Self::Away(away) => write!(f, "away: {away}"),
        }
    }
}

pub struct Health {
    /// Which Redis, for the log.
    redis: String,
    inner: Mutex<Inner>,
    refusal: watch::Sender<Option<Away>>,
    doubt: Notify,
}

struct Inner {
    /// Links that stand.
    standing: usize,
    reached: Reached,
    since: Instant,
    /// The reasons that have been logged since it is away.
    said: Vec<Away>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    NotYet,
    Yes,
    No(Away),
}

impl Health {
    pub fn new(redis: String) -> Self {
        Self {
            redis,
            inner: Mutex::new(Inner {
                standing: 0,
                reached: Reached::NotYet,
                since: Instant::now(),
                said: Vec::new(),
            }),
            refusal: watch::Sender::new(None),
            doubt: Notify::new(),
        }
    }

    pub fn state(&self) -> State {
        let reached = self.inner.lock().reached;
        match (reached, *self.refusal.borrow()) {
            (Reached::NotYet, _) => State::Connecting,
            (Reached::No(away), _) => State::Away(away),
            (Reached::Yes, Some(away)) => State::WritesRefused(away),
            (Reached::Yes, None) => State::Up,
        }
    }

    pub fn since(&self) -> Instant {
        self.inner.lock().since
    }

    /// One more link stands.
    pub fn link_stands(&self) {
        let mut inner = self.inner.lock();
        inner.standing += 1;
        let before = inner.turn(Reached::Yes);
        drop(inner);
        match before {
            Some((Reached::No(_), since)) => {
                let away_for = since.elapsed();
                tracing::info!(redis = %self.redis, ?away_for, "Redis answers again");
            }
            Some(_) => tracing::info!(redis = %self.redis, "connected to Redis"),
            None => {}
        }
    }

    /// A link that stood has fallen: the others had better look.
    pub fn link_fell(&self, failure: &Failure) {
        let mut inner = self.inner.lock();
        inner.standing -= 1;
        self.without_answer(&mut inner, failure);
        drop(inner);
        self.doubt.notify_waiters();
    }

    /// A link could not be made.
    pub fn trial_failed(&self, failure: &Failure) {
        self.without_answer(&mut self.inner.lock(), failure);
    }

    fn without_answer(&self, inner: &mut Inner, failure: &Failure) {
        if inner.standing > 0 {
            tracing::debug!(redis = %self.redis, reason = %failure.away, detail = %failure.detail, "one connection to Redis is lost");
            return;
        }
        let begins = !matches!(inner.reached, Reached::No(_));
        inner.turn(Reached::No(failure.away));
        if begins {
            inner.said.clear();
        }
        // Each reason once while it is away: what is tried again and again would be said as often.
        if inner.said.contains(&failure.away) {
            return;
        }
        inner.said.push(failure.away);
        let (redis, reason, detail) = (&self.redis, failure.away, &failure.detail);
        match begins {
            true => tracing::warn!(
                %redis, %reason, %detail,
                "Redis is away; requests are decided without it until it answers again"
            ),
            false => tracing::info!(%redis, %reason, %detail, "Redis is still away"),
        }
    }

    /// An answer said that nothing is kept.
    pub fn refuses_writes(&self, away: Away) {
        if self.refusal.send_replace(Some(away)).is_none() {
            self.inner.lock().since = Instant::now();
            tracing::warn!(redis = %self.redis, reason = %away, "Redis takes no writes; what it has is still read");
        }
    }

    /// A write was kept.
    pub fn takes_writes(&self) {
        if self.refusal.send_replace(None).is_some() {
            self.inner.lock().since = Instant::now();
            tracing::info!(redis = %self.redis, "Redis takes writes again");
        }
    }

    pub fn are_writes_refused(&self) -> bool {
        self.refusal.borrow().is_some()
    }

    pub async fn until_writes_are_refused(&self) {
        let mut refusal = self.refusal.subscribe();
        let refused = refusal.wait_for(Option::is_some).await;
        refused.expect("the sender is in self");
    }

    /// Returns when some other link has fallen.
    pub async fn doubted(&self) {
        self.doubt.notified().await;
    }
}

impl Inner {
    /// What was before and since when, if this is a change.
    fn turn(&mut self, reached: Reached) -> Option<(Reached, Instant)> {
        if self.reached == reached {
            return None;
        }
        let before = (self.reached, self.since);
        // How long it has been away counts from the first reason.
        if !matches!((self.reached, reached), (Reached::No(_), Reached::No(_))) {
            self.since = Instant::now();
        }
        self.reached = reached;
        Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(away: Away) -> Failure {
        Failure {
            away,
            detail: String::new(),
        }
    }

    #[test]
    fn one_connection_that_is_lost_is_not_the_loss_of_redis() {
        let health = Health::new("test".into());
        assert_eq!(health.state(), State::Connecting);
        health.link_stands();
        health.link_stands();
        health.link_fell(&failure(Away::Lost));
        assert_eq!(health.state(), State::Up);
        health.link_fell(&failure(Away::Lost));
        assert_eq!(health.state(), State::Away(Away::Lost));
        health.trial_failed(&failure(Away::Refused));
        assert_eq!(health.state(), State::Away(Away::Refused));
        health.link_stands();
        assert_eq!(health.state(), State::Up);
    }

    #[test]
    fn a_server_that_keeps_nothing_is_up_for_reading() {
        let health = Health::new("test".into());
        health.link_stands();
        health.refuses_writes(Away::OutOfMemory);
        assert_eq!(health.state(), State::WritesRefused(Away::OutOfMemory));
        health.takes_writes();
        assert_eq!(health.state(), State::Up);
    }
}
