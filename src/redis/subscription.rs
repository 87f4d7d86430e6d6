//! Messages of channels, over a connection of their own that is made anew for as long as somebody listens.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Settings;
use super::breaker::Breaker;
use super::connector::{Connector, Failure};

/// How often the connection is asked whether it lives, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// While it is lost, a subscription is tried at least this often: somebody is waiting for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Messages that may wait for the listener. One that is slower has lost the subscription.
const WAITING: usize = 4096;

/// What happens to a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// From here on every message comes. What was published before may be missing.
    Subscribed,
    Message {
        channel: String,
        payload: Bytes,
    },
    /// From here on messages are missing, until [`Event::Subscribed`].
    Lost,
}

pub fn open(
    settings: Arc<Settings>,
    connector: Arc<Connector>,
    channels: Vec<String>,
) -> mpsc::Receiver<Event> {
    let (events, receiver) = mpsc::channel(WAITING);
    let subscription = Subscription {
        settings,
        connector,
        channels,
        events,
    };
    tokio::spawn(subscription.keep());
    receiver
}

struct Subscription {
    settings: Arc<Settings>,
    connector: Arc<Connector>,
    channels: Vec<String>,
    events: mpsc::Sender<Event>,
}

/// Why one connection ended.
enum End {
    NobodyListens,
    Lost(Failure),
}

impl Subscription {
    async fn keep(self) {
        let longest = LONGEST_PAUSE.min(self.settings.health_interval);
        let mut breaker = Breaker::default();
        for turn in 0.. {
            let pause = sleep(breaker.next_trial(longest));
            tokio::select! {
                () = pause => {}
                () = self.events.closed() => return,
            }
            let mut subscribed = false;
            match self.listen(turn, &mut subscribed).await {
                End::NobodyListens => return,
                End::Lost(failure) if subscribed => {
                    breaker.answered();
                    tracing::warn!(redis = %self.settings.kind, reason = %failure.away, detail = %failure.detail, "the subscription to Redis is lost");
                    if self.events.send(Event::Lost).await.is_err() {
                        return;
                    }
                }
                End::Lost(failure) => {
                    tracing::debug!(redis = %self.settings.kind, reason = %failure.away, detail = %failure.detail, "no subscription to Redis yet");
                }
            }
        }
    }

    /// One connection, to its end.
    async fn listen(&self, turn: usize, subscribed: &mut bool) -> End {
        let (mut sink, mut messages) = match self.connector.subscriber(turn).await {
            Ok(connection) => connection.split(),
            Err(failure) => return End::Lost(failure),
        };
        match timeout(
            self.settings.connect_timeout,
            sink.subscribe(&self.channels),
        )
        .await
        {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return End::Lost(Failure::of(&error)),
            Err(_) => return End::Lost(Failure::late()),
        }
        *subscribed = true;
        tracing::info!(redis = %self.settings.kind, "subscribed to Redis");
        if self.events.send(Event::Subscribed).await.is_err() {
            return End::NobodyListens;
        }
        let alive = async {
            let mut turns = interval(PING_EVERY);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                turns.tick().await;
                match timeout(PING_TIMEOUT, sink.ping::<::redis::Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Failure::of(&error),
                    Err(_) => return Failure::late(),
                }
            }
        };
        tokio::pin!(alive);
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    None => return End::Lost(Failure::ended()),
                    Some(message) => {
                        let event = Event::Message {
                            channel: message.get_channel_name().to_owned(),
                            payload: Bytes::copy_from_slice(message.get_payload_bytes()),
                        };
                        match self.events.try_send(event) {
                            Ok(()) => {}
                            Err(TrySendError::Closed(_)) => return End::NobodyListens,
                            Err(TrySendError::Full(_)) => return End::Lost(Failure::overrun()),
                        }
                    }
                },
                failure = &mut alive => return End::Lost(failure),
                () = self.events.closed() => return End::NobodyListens,
            }
        }
    }
}
