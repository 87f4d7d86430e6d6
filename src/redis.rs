//! The connections to Redis: questions with a deadline, messages of channels, and the state of it all. Knows commands
//! as bytes; knows nothing of caches, limits or HTTP.
//!
//! ```text
//! ask ──► Lane ──► Link (one of several) ──► connection, multiplexed
//!                   │  Breaker: after a few misses in a row the connection is given up
//!                   └─ a task of its own connects anew, checks, waits: never on a question's time
//! subscribe ──► a connection of its own, which asks itself whether it lives
//! ```
//!
//! - `settings`, `node`: where it is and what may be asked of it; `connector`: one connection made
//! - `link`: one connection kept; `breaker`: when it is given up and tried again; `patience`: what one request may wait
//! - `subscription`: messages of channels, and every gap in them
//! - `away`: why there is no answer; `health`: the state of all links together; `tally`: what is counted
//!
//! Redis is never needed: whoever asks has an answer of its own for [`Away`]. A question that finds no
//! connection is refused at once; one that finds it too slow ends with its deadline.

mod away;
mod breaker;
mod connector;
mod health;
mod link;
mod node;
mod patience;
mod settings;
mod subscription;
mod tally;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::{Cmd, FromRedisValue, RedisResult, ScriptInvocation, Value, cmd, pipe};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use self::connector::{Connector, Handle};
use self::health::Health;
use self::link::Link;
use self::tally::Tally;

pub use self::away::Away;
pub use self::health::State;
pub use self::node::{Node, NodeError};
pub use self::patience::Patience;
pub use self::settings::{Credentials, Kind, Prefix, PrefixError, Secret, Settings, TlsFiles};
pub use self::subscription::Event;
pub use self::tally::Counts;

/// The most commands that [`Redis::ask_each`] sends at once.
pub const LONGEST_PIPELINE: usize = 100;
/// How long a write is tried before it counts as refused again.
const TRIAL_LIFE_MS: u64 = 1000;
/// Between the trials of a Redis that takes no writes: doubled up to the health interval.
const FIRST_TRIAL: Duration = Duration::from_millis(500);
/// Between trials of a connection for limits: they are to be exact again within a second.
const LONGEST_TRIAL_OF_LIMITS: Duration = Duration::from_millis(250);

/// What a question is about. Answers come in the order of their questions, so a large one delays those behind it:
/// each lane has connections of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Stored responses: anything with a body, in either direction.
    Bodies,
    /// Locks, purges, marks: small, and waited for.
    Control,
    /// Tokens of shared limits: small, waited for, and asked for again soon after an outage.
    Limits,
}

/// One Redis, or one cluster of them, as all requests share it.
///
/// Ends its connections when dropped.
pub struct Redis {
    settings: Arc<Settings>,
    connector: Arc<Connector>,
    health: Arc<Health>,
    bodies: Vec<Arc<Link>>,
    control: Vec<Arc<Link>>,
    limits: Vec<Arc<Link>>,
    tally: Tally,
    tasks: Vec<AbortHandle>,
}

impl Redis {
    /// Begins to connect and returns at once, whatever becomes of it. To be called in a runtime.
    pub fn open(settings: Settings) -> Arc<Self> {
        let settings = Arc::new(settings);
        let connector = Arc::new(Connector::new(settings.clone()));
        let health = Arc::new(Health::new(settings.kind.to_string()));
        let link = |longest| {
            let (settings, connector) = (settings.clone(), connector.clone());
            Link::new(settings, connector, health.clone(), longest)
        };
        let longest = settings.health_interval;
        let bodies: Vec<_> = (0..settings.connections).map(|_| link(longest)).collect();
        let control = vec![link(longest)];
        let limits = vec![link(LONGEST_TRIAL_OF_LIMITS.min(longest))];
        let mut tasks: Vec<_> = bodies
            .iter()
            .chain(&control)
            .chain(&limits)
            .map(|link| tokio::spawn(link.clone().keep()).abort_handle())
            .collect();
        let mending = mend(settings.clone(), health.clone(), control[0].clone());
        tasks.push(tokio::spawn(mending).abort_handle());
        Arc::new(Self {
            settings,
            connector,
            health,
            bodies,
            control,
            limits,
            tally: Tally::default(),
            tasks,
        })
    }

    /// Waits until every connection stands or has failed once, or `patience` is over. Only a start
    /// waits for Redis, so that its first requests find it.
    pub async fn settled(&self, patience: Duration) {
        let all = join_all(self.links().map(Link::settled));
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!(redis = %self.settings.kind, "Redis has not answered yet");
        }
    }

    /// Asks one question, for as long as the deadline of the settings.
    pub async fn ask<T: FromRedisValue>(&self, lane: Lane, command: &Cmd) -> Result<T, Away> {
        self.ask_within(lane, self.settings.deadline, command).await
    }

    /// As [`Redis::ask`], with a deadline of the caller's.
    pub async fn ask_within<T: FromRedisValue>(
        &self,
        lane: Lane,
        deadline: Duration,
        command: &Cmd,
    ) -> Result<T, Away> {
        self.question(lane, deadline, async |mut handle: Handle| {
            command.query_async(&mut handle).await
        })
        .await
    }

    /// Asks up to [`LONGEST_PIPELINE`] questions at once; the answers come in their order. In a cluster each goes to
    /// the node of its key. More than that many is a mistake of ours and panics.
    ///
    /// # Errors
    /// Each question has its own; what befalls the connection befalls all.
    pub async fn ask_each(
        &self,
        lane: Lane,
        deadline: Duration,
        commands: &[Cmd],
    ) -> Result<Vec<Result<Value, Away>>, Away> {
        assert!(
            commands.len() <= LONGEST_PIPELINE,
            "a pipeline is cut by who sends it"
        );
        let answers = self
            .question(lane, deadline, async |mut handle: Handle| match &handle {
                Handle::Node(_) => {
                    let mut pipeline = pipe();
                    for command in commands {
                        pipeline.add_command(command.clone());
                    }
                    let answers: Vec<Value> =
                        pipeline.ignore_errors().query_async(&mut handle).await?;
                    Ok(answers.into_iter().map(Value::extract_error).collect())
                }
                Handle::Cluster(_) => {
                    let all = commands.iter().map(|command| {
                        let mut handle = handle.clone();
                        async move { command.query_async::<Value>(&mut handle).await }
                    });
                    let answers: Vec<RedisResult<Value>> = join_all(all).await;
                    // If every one failed, it is the cluster that has.
                    match answers.iter().all(Result::is_err) {
                        true => answers.into_iter().map(|one| one.map(Ok)).collect(),
                        false => Ok(answers),
                    }
                }
            })
            .await?;
        let answers: Vec<RedisResult<Value>> = answers;
        Ok(answers
            .into_iter()
            .map(|answer| answer.map_err(|error| self.heard(Away::of(&error))))
            .collect())
    }

    /// Runs a script, which is loaded where the server does not have it.
    pub async fn run<T: FromRedisValue>(
        &self,
        lane: Lane,
        deadline: Duration,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, Away> {
        self.question(lane, deadline, async |mut handle: Handle| {
            script.invoke_async(&mut handle).await
        })
        .await
    }

    /// Listens to `channels`, over a connection of its own, until the receiver is dropped.
    ///
    /// What is published while the subscription is lost is lost: after each [`Event::Subscribed`] the listener reads
    /// again what it may have missed.
    pub fn subscribe(&self, channels: Vec<String>) -> mpsc::Receiver<Event> {
        subscription::open(self.settings.clone(), self.connector.clone(), channels)
    }

    /// Whether questions are being answered, as far as is known.
    pub fn is_up(&self) -> bool {
        matches!(self.state(), State::Up | State::WritesRefused(_))
    }

    /// Whether it makes sense to send something to be kept.
    pub fn takes_writes(&self) -> bool {
        self.state() == State::Up
    }

    /// The state of all connections together.
    pub fn state(&self) -> State {
        self.health.state()
    }

    /// How long it has been so.
    pub fn since(&self) -> Instant {
        self.health.since()
    }

    /// What has been asked so far, and how it went.
    pub fn counts(&self) -> Counts {
        self.tally.counts()
    }

    /// Whether questions go to several servers, each by its key.
    pub fn is_cluster(&self) -> bool {
        self.settings.kind.is_cluster()
    }

    /// What one question may wait.
    pub fn deadline(&self) -> Duration {
        self.settings.deadline
    }

    /// What a request that begins now may wait, with all its questions together.
    pub fn patience(&self) -> Patience {
        Patience::new(self.settings.deadline)
    }

    /// The key of this name for all gateways that share the prefix. Braces in `name` decide the slot in a cluster.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.settings.prefix)
    }

    async fn question<T, F>(
        &self,
        lane: Lane,
        deadline: Duration,
        question: impl FnOnce(Handle) -> F,
    ) -> Result<T, Away>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let began = Instant::now();
        let answer = self.link(lane).ask(deadline, question).await;
        self.tally
            .count(began.elapsed(), answer.as_ref().err().copied());
        answer.map_err(|away| self.heard(away))
    }

    /// Notes what an answer says of the server rather than of the connection.
    fn heard(&self, away: Away) -> Away {
        if away.refuses_writes() {
            self.health.refuses_writes(away);
        }
        away
    }

    /// The link of this lane with the fewest questions in flight, of those that stand.
    fn link(&self, lane: Lane) -> &Link {
        let links = match lane {
            Lane::Bodies => &self.bodies,
            Lane::Control => &self.control,
            Lane::Limits => &self.limits,
        };
        links
            .iter()
            .min_by_key(|link| (!link.stands(), link.in_flight()))
            .expect("every lane has a link")
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        let links = self.bodies.iter().chain(&self.control);
        links.chain(&self.limits).map(Arc::as_ref)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// While the server takes no writes, tries one now and then, so that the end of that is noticed without traffic.
async fn mend(settings: Arc<Settings>, health: Arc<Health>, link: Arc<Link>) {
    let mut trial = cmd("SET");
    trial.arg(format!("{}trial", settings.prefix)).arg("");
    trial.arg("PX").arg(TRIAL_LIFE_MS);
    loop {
        health.until_writes_are_refused().await;
        let mut pause = FIRST_TRIAL;
        while health.are_writes_refused() {
            tokio::time::sleep(pause.min(settings.health_interval)).await;
            pause *= 2;
            let asked = async |mut handle: Handle| trial.query_async::<Value>(&mut handle).await;
            match link.ask(settings.connect_timeout, asked).await {
                Ok(_) => health.takes_writes(),
                Err(away) if away.refuses_writes() => health.refuses_writes(away),
                // Nothing is known of writes before it answers again.
                Err(_) => {}
            }
        }
    }
}
