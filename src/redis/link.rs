//! One connection that is kept: made, watched, given up and made anew by a task of its own.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::redis::RedisResult;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::breaker::Breaker;
use super::connector::{Connector, Failure, Handle};
use super::health::Health;
use super::{Away, Settings};

/// While somebody asks, a Redis that is away is tried at least this often.
const TRIAL_IN_USE: Duration = Duration::from_secs(2);

pub struct Link {
    settings: Arc<Settings>,
    connector: Arc<Connector>,
    health: Arc<Health>,
    phase: watch::Sender<Phase>,
    breaker: Mutex<Breaker>,
    in_flight: AtomicUsize,
    /// Between two trials.
    longest_pause: Duration,
    /// Somebody has asked in vain.
    wanted: Notify,
}

#[derive(Clone)]
enum Phase {
    Connecting,
    Stands(Connection),
    Away(Away),
}

/// One connection among those that the link has had.
#[derive(Clone)]
struct Connection {
    handle: Handle,
    number: u64,
}

impl Link {
    pub fn new(
        settings: Arc<Settings>,
        connector: Arc<Connector>,
        health: Arc<Health>,
        longest_pause: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            connector,
            health,
            phase: watch::Sender::new(Phase::Connecting),
            breaker: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            longest_pause,
            wanted: Notify::new(),
        })
    }

    pub fn stands(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Stands(_))
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Waits until the first connection stands or has failed.
    pub async fn settled(&self) {
        let mut phase = self.phase.subscribe();
        let settled = phase.wait_for(|phase| !matches!(phase, Phase::Connecting));
        settled.await.expect("the sender is in self");
    }

    /// Puts `question` to the connection and waits for its answer no longer than `patience`. Waits for a connection
    /// only if there has been none yet, and within the same time.
    pub async fn ask<T, F>(
        &self,
        patience: Duration,
        question: impl FnOnce(Handle) -> F,
    ) -> Result<T, Away>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let deadline = Instant::now() + patience;
        let connection = self.connection(deadline).await?;
        let _place = self.place()?;
        match timeout_at(deadline, question(connection.handle)).await {
            Ok(Ok(answer)) => {
                self.breaker.lock().answered();
                Ok(answer)
            }
            Ok(Err(error)) => {
                let failure = Failure::of(&error);
                let away = failure.away;
                self.failed(connection.number, failure);
                Err(away)
            }
            Err(_) => {
                // Who had little time left has learned little of the connection.
                if patience >= self.settings.deadline / 2 {
                    self.failed(connection.number, Failure::late());
                }
                Err(Away::Deadline)
            }
        }
    }

    async fn connection(&self, deadline: Instant) -> Result<Connection, Away> {
        if matches!(*self.phase.borrow(), Phase::Connecting)
            && timeout_at(deadline, self.settled()).await.is_err()
        {
            return Err(Away::Connecting);
        }
        match &*self.phase.borrow() {
            Phase::Stands(connection) => Ok(connection.clone()),
            Phase::Connecting => Err(Away::Connecting),
            Phase::Away(away) => {
                self.wanted.notify_one();
                Err(*away)
            }
        }
    }

    /// A place among the questions in flight, given back when dropped.
    fn place(&self) -> Result<Place<'_>, Away> {
        let place = Place(&self.in_flight);
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        match before < self.settings.max_in_flight {
            true => Ok(place),
            false => Err(Away::Busy),
        }
    }

    /// Judges the connection by a question that failed.
    fn failed(&self, number: u64, failure: Failure) {
        if !self.is_current(number) {
            return;
        }
        let gives_up = match failure.away {
            // Its own connections find the nodes that are left; it is made anew when that does not help.
            Away::Lost | Away::Refused | Away::ClusterDown if self.settings.kind.is_cluster() => {
                self.breaker.lock().missed()
            }
            Away::Deadline => self.breaker.lock().missed(),
            Away::Lost | Away::Refused | Away::Tls | Away::Loading => true,
            // The master has changed, and the sentinels know the new one.
            Away::ReadOnly => self.settings.kind.is_sentinel(),
            _ => {
                self.breaker.lock().answered();
                false
            }
        };
        if gives_up {
            self.fall(number, failure);
        }
    }

    /// Answers of a connection that was given up say nothing of the one that followed.
    fn is_current(&self, number: u64) -> bool {
        matches!(&*self.phase.borrow(), Phase::Stands(connection) if connection.number == number)
    }

    /// Gives up the connection of this number, if it is still the one.
    fn fall(&self, number: u64, failure: Failure) {
        let fell = self.phase.send_if_modified(|phase| match phase {
            Phase::Stands(connection) if connection.number == number => {
                *phase = Phase::Away(failure.away);
                true
            }
            _ => false,
        });
        if fell {
            self.health.link_fell(&failure);
        }
    }

    /// Keeps a connection, for ever.
    pub async fn keep(self: Arc<Self>) {
        for number in 0.. {
            self.pause().await;
            match self.connector.connect().await {
                Ok(handle) => {
                    let connection = Connection { handle, number };
                    self.phase.send_modify(|phase| {
                        *phase = Phase::Stands(connection.clone());
                        // Under its lock: whoever sees that Redis is up finds the connection.
                        self.health.link_stands();
                    });
                    self.watch(connection).await;
                }
                Err(failure) => {
                    self.phase.send_replace(Phase::Away(failure.away));
                    self.health.trial_failed(&failure);
                }
            }
        }
    }

    /// Waits until the next trial is due.
    async fn pause(&self) {
        let pause = self.breaker.lock().next_trial(self.longest_pause);
        let wanted = async {
            sleep(TRIAL_IN_USE).await;
            self.wanted.notified().await;
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = wanted => {}
        }
    }

    /// Checks the connection now and then, and when another has fallen. Returns when it is given up.
    async fn watch(&self, connection: Connection) {
        let mut phase = self.phase.subscribe();
        loop {
            tokio::select! {
                fell = phase.wait_for(|phase| !matches!(phase, Phase::Stands(_))) => {
                    fell.expect("the sender is in self");
                    return;
                }
                () = self.health.doubted() => {}
                () = sleep(self.settings.health_interval) => {}
            }
            let check = self.connector.check(connection.handle.clone());
            match timeout(self.settings.connect_timeout, check).await {
                Ok(Ok(())) => self.breaker.lock().answered(),
                Ok(Err(failure)) => self.fall(connection.number, failure),
                Err(_) => self.fall(connection.number, Failure::late()),
            }
        }
    }
}

struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
