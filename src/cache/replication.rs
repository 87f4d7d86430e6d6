//! Purges among gateways that share a Redis. Redis gives each its number, keeps the last ones and tells everybody; each
//! gateway says that it lives, reads what it has missed, and acknowledges what it has heard.
//!
//! Nothing that is served waits for this. While Redis is away a purge holds here and is sent when it is back.

mod acknowledgements;
mod outbox;
mod quarantine;
mod script;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::redis::{Cmd, FromRedisValue, Script, ScriptInvocation, cmd};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout_at};

use self::acknowledgements::{Acknowledgements, Awaited};
use self::outbox::Outbox;
use self::quarantine::{Change, Known, Listing};
use self::wire::{Acknowledgement, Member, NOBODY, News};
use super::guard::Guard;
use super::purger::{Name, Purged};
use super::scope::ScopeId;
use super::tombstones::{Purge, Strength, Tombstones};
use crate::redis::{Away, Event, LONGEST_PIPELINE, Lane, Redis};

/// How long a purge may take that somebody waits for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a gateway says that it lives, and looks whether it has missed anything.
const LIVE_EVERY: Duration = Duration::from_secs(1);
/// How often it looks how long it has known nothing. With [`LIVE_EVERY`] it is less than [`SILENT`]: who is not waited
/// for has stopped giving what it may not give.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// For what comes back from Redis, which may be all that it knows.
const READING: Duration = Duration::from_secs(5);
/// A gateway that has been silent for so long is not waited for.
const SILENT: Duration = Duration::from_secs(3);
/// One that has been silent for so long is gone.
const GONE: Duration = Duration::from_secs(60 * 60);
/// Scopes of one message.
const MOST_SENT: usize = 500;
/// Between two messages that nobody waits for: however many changes there are, each gateway sends a hundred a second.
const SEND_EVERY: Duration = Duration::from_millis(10);
/// Acknowledgements that wait to be sent; further ones are not, and their gateway is named as missing.
const WAITING: usize = 4096;

/// This gateway among those that share a Redis.
pub struct Replication {
    redis: Arc<Redis>,
    tombstones: Arc<Tombstones>,
    own: Member,
    outbox: Outbox,
    awaited: Acknowledgements,
    standing: Mutex<Standing>,
    /// There may be something to be read.
    read: Notify,
    guard: Arc<Guard>,
    list: Mutex<Listing>,
    /// There may be keys that the others are to be told of.
    held: Notify,
}

/// Who else there is, with how long each has been silent.
type Peers = Vec<(Member, Duration)>;

/// How this gateway stands to the others.
struct Standing {
    is_subscribed: bool,
    /// Changes with every gap in what is heard.
    gaps: u64,
    /// How many gaps there were when everything was last read and messages came; `None` before.
    read_at: Option<u64>,
    /// What was heard since the last gap, before everything was read: the number before, and the last one.
    ahead: Option<(u64, u64)>,
    /// Every purge above this number, up to the last one heard, is known here.
    floor: u64,
    /// Who else there is, with how long each had been silent.
    peers: Peers,
    /// When everything was last read. What is heard does not count: others wait only for who says that it lives.
    vouched: Instant,
    /// Says that this gateway lives.
    living: Option<AbortHandle>,
}

impl Standing {
    fn new() -> Self {
        Self {
            is_subscribed: false,
            gaps: 0,
            read_at: None,
            ahead: None,
            floor: 0,
            peers: Vec::new(),
            vouched: Instant::now(),
            living: None,
        }
    }

    /// Whether nothing can have been missed since everything was read.
    fn is_continuous(&self) -> bool {
        self.read_at == Some(self.gaps)
    }

    /// From here on messages are missing, or come again.
    fn gap(&mut self, is_subscribed: bool) {
        self.is_subscribed = is_subscribed;
        self.gaps += 1;
        self.ahead = None;
    }

    /// Takes note of a number that was heard. The one up to which everything is known now, if that is sure.
    fn hear(&mut self, before: u64, number: u64, known: u64) -> Option<u64> {
        if self.is_continuous() && before <= known {
            return Some(number);
        }
        if self.is_continuous() {
            self.gap(true);
        }
        let begin = self.ahead.filter(|(_, last)| before <= *last);
        self.ahead = Some((begin.map_or(before, |(begin, _)| begin), number));
        None
    }

    /// Takes note that everything up to `last` was read by a question of `asked`, when there were so many gaps. The
    /// number up to which everything is known now.
    fn read(&mut self, asked: Instant, gaps: u64, last: u64) -> u64 {
        self.vouched = self.vouched.max(asked);
        let is_whole = self.is_subscribed && gaps == self.gaps;
        let ahead = self.ahead.take().filter(|(begin, _)| *begin <= last);
        if !is_whole {
            return last;
        }
        self.read_at = Some(gaps);
        ahead.map_or(last, |(_, number)| number.max(last))
    }
}

impl Replication {
    /// Begins to listen and to say that this gateway lives. `patience` is how long it serves what it cannot vouch for.
    /// To be called in a runtime.
    pub fn open(
        redis: Arc<Redis>,
        tombstones: Arc<Tombstones>,
        guard: Arc<Guard>,
        name: Name,
        patience: Option<Duration>,
    ) -> Arc<Self> {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        tombstones.informed(false);
        let replication = Arc::new(Self {
            own: Member {
                name,
                instance: random(),
                patience_ms: patience.map(milliseconds),
            },
            redis,
            tombstones,
            outbox: Outbox::default(),
            awaited: Acknowledgements::default(),
            standing: Mutex::new(Standing::new()),
            read: Notify::new(),
            guard,
            list: Mutex::default(),
            held: Notify::new(),
        });
        let (acknowledge, acknowledged) = mpsc::channel(WAITING);
        tokio::spawn(replication.clone().listen(acknowledge));
        tokio::spawn(replication.clone().acknowledge(acknowledged));
        let living = tokio::spawn(replication.clone().live());
        replication.standing.lock().living = Some(living.abort_handle());
        tokio::spawn(replication.clone().vouch(patience));
        tokio::spawn(replication.clone().send());
        tokio::spawn(replication.clone().send_held());
        replication
    }

    /// Purges here and at every gateway, and waits for those that are there.
    pub async fn purge(&self, purge: Purge) -> Purged {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        self.tombstones.purge(&purge);
        let awaited = self.awaited.expect();
        let told = match self.announce(&purge, awaited.token()).await {
            Ok(told) => Some(told),
            Err(away) => {
                tracing::warn!(%away, "a purge is known to this gateway only, until Redis is back");
                self.outbox.put(&purge, || {});
                None
            }
        };
        self.acknowledged(awaited, told, deadline).await
    }

    /// Waits for those who are there to acknowledge what they were told by a number; `None`: they could not be told.
    async fn acknowledged(
        &self,
        mut awaited: Awaited,
        told: Option<(u64, Peers)>,
        deadline: tokio::time::Instant,
    ) -> Purged {
        let (number, peers) = match told {
            Some((number, peers)) => {
                let all = peers.iter().filter(|(_, silent)| *silent < SILENT);
                let all = all.map(|(member, _)| member.instance);
                // Who does not answer in time is named.
                let _ = timeout_at(deadline, awaited.all(all.collect())).await;
                (Some(number), peers)
            }
            None => (None, self.standing.lock().peers.clone()),
        };
        let (mut acknowledged, mut missing) = (vec![self.own.name.clone()], Vec::new());
        for (peer, silent) in peers {
            match awaited.has(peer.instance) {
                true => acknowledged.push(peer.name),
                false if serves(&peer, silent) => missing.push(peer.name),
                false => {}
            }
        }
        missing.sort();
        missing.dedup();
        acknowledged.retain(|name| !missing.contains(name));
        acknowledged.sort();
        acknowledged.dedup();
        Purged {
            number,
            acknowledged,
            missing,
        }
    }

    /// Purges here, and has the other gateways do so, without waiting.
    pub fn purge_soon(&self, purge: &Purge) {
        self.outbox.put(purge, || self.tombstones.purge(purge));
    }

    /// Reads all that there is to know, and says that this gateway lives.
    pub async fn read(&self) {
        if let Err(away) = self.say_alive().await {
            tracing::warn!(%away, "purges of other gateways are not known yet");
        }
    }

    /// Nobody is to wait for this gateway any more.
    pub async fn leave(&self) {
        // What it has said already comes to Redis before this.
        if let Some(living) = self.standing.lock().living.take() {
            living.abort();
        }
        let mut remove = cmd("ZREM");
        remove.arg(self.gateways()).arg(self.own.text());
        // Without an answer the others find out by themselves.
        let _ = self.redis.ask::<u64>(Lane::Control, &remove).await;
    }

    /// Has Redis give a purge its number and tell everybody; the number, and who else is there.
    async fn announce(&self, purge: &Purge, token: u64) -> Result<(u64, Peers), Away> {
        let known = self.tombstones.epoch().shared();
        let mut call = self.call(&script::PURGE);
        call.arg(self.news()).arg(known);
        call.arg(self.own.instance).arg(token);
        for scope in &purge.scopes {
            call.arg(wire::scope_text(purge.strength, scope));
        }
        let (number, now, there): (u64, u64, Vec<(String, f64)>) =
            self.run(PATIENCE, &call).await?;
        self.tombstones.learn(purge, number, time_of(number));
        Ok((number, self.peers(now, there)))
    }

    async fn run<T: FromRedisValue>(
        &self,
        deadline: Duration,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, Away> {
        self.redis.run(Lane::Control, deadline, call).await
    }

    /// Hears what the others say.
    async fn listen(self: Arc<Self>, acknowledge: mpsc::Sender<(u64, u64)>) {
        let acknowledgements = self.acknowledgements_of(self.own.instance);
        let news = self.news();
        let quarantine = self.quarantine();
        let channels = vec![news.clone(), quarantine.clone(), acknowledgements];
        let mut events = self.redis.subscribe(channels);
        while let Some(event) = events.recv().await {
            match event {
                Event::Subscribed | Event::Lost => {
                    self.standing.lock().gap(event == Event::Subscribed);
                    self.read.notify_one();
                }
                Event::Message { channel, payload } if channel == news => {
                    match News::parse(&payload) {
                        Some(news) => self.hear(&news, &acknowledge),
                        None => tracing::warn!("a message about a purge that cannot be read"),
                    }
                }
                Event::Message { channel, payload } if channel == quarantine => {
                    match Change::parse(&payload) {
                        Some(change) => {
                            let (maker, token) = (change.maker, change.token);
                            self.hear_change(change);
                            self.confirm(maker, token, &acknowledge);
                        }
                        None => tracing::warn!("a message about a quarantine that cannot be read"),
                    }
                }
                Event::Message { payload, .. } => {
                    if let Some(heard) = Acknowledgement::parse(&payload) {
                        self.awaited.hear(&heard);
                    }
                }
            }
        }
    }

    fn hear(&self, news: &News, acknowledge: &mpsc::Sender<(u64, u64)>) {
        self.tombstones
            .learn(&news.purge, news.number, time_of(news.number));
        let known = self.tombstones.epoch().shared();
        let now_known = self.standing.lock().hear(news.before, news.number, known);
        match now_known {
            Some(number) => self.tombstones.heard(number),
            None => self.read.notify_one(),
        }
        self.confirm(news.purger, news.token, acknowledge);
    }

    /// Has another instance told that this gateway has heard, where it waits for that.
    fn confirm(&self, instance: u64, token: u64, acknowledge: &mpsc::Sender<(u64, u64)>) {
        if instance != self.own.instance && token != NOBODY {
            // Full: whoever waits is told that this gateway is missing, which nobody can rule out.
            let _ = acknowledge.try_send((instance, token));
        }
    }

    /// Says to each purger what has been heard.
    async fn acknowledge(self: Arc<Self>, mut heard: mpsc::Receiver<(u64, u64)>) {
        let mut all = Vec::new();
        while heard.recv_many(&mut all, LONGEST_PIPELINE).await > 0 {
            all.sort_unstable();
            let of_purgers = all.chunk_by(|(one, _), (other, _)| one == other);
            let messages: Vec<Cmd> = of_purgers
                .map(|heard| {
                    let acknowledgement = Acknowledgement {
                        instance: self.own.instance,
                        tokens: heard.iter().map(|(_, token)| *token).collect(),
                    };
                    let mut publish = cmd("PUBLISH");
                    publish.arg(self.acknowledgements_of(heard[0].0));
                    publish.arg(acknowledgement.text());
                    publish
                })
                .collect();
            if let Err(away) = self
                .redis
                .ask_each(Lane::Control, PATIENCE, &messages)
                .await
            {
                tracing::debug!(%away, "purges could not be acknowledged");
            }
            all.clear();
        }
    }

    /// Says that this gateway lives, and reads what it has missed.
    async fn live(self: Arc<Self>) {
        let mut turns = interval(LIVE_EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turns.tick() => {}
                () = self.read.notified() => {}
            }
            if let Err(away) = self.say_alive().await {
                tracing::debug!(%away, "purges of other gateways are not read");
            }
        }
    }

    /// Gives nothing of others after [`SILENT`] without word, and nothing that is kept after `patience`. Waits for no
    /// answer: one may not come.
    async fn vouch(self: Arc<Self>, patience: Option<Duration>) {
        let mut turns = interval(LOOK_EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut doubted = false;
        loop {
            turns.tick().await;
            let vouched = self.standing.lock().vouched.elapsed();
            if vouched > SILENT {
                self.tombstones.informed(false);
            }
            let doubts = patience.is_some_and(|patience| vouched > patience + LIVE_EVERY);
            if doubts != doubted {
                doubted = doubts;
                self.tombstones.doubt(doubts);
                match doubts {
                    true => tracing::warn!(
                        "nothing is known of purges any more: what is stored is not given"
                    ),
                    false => tracing::info!("purges are known again: what is stored is given"),
                }
            }
        }
    }

    async fn say_alive(&self) -> Result<(), Away> {
        let asked = Instant::now();
        let heard = self.tombstones.epoch().shared();
        let (gaps, is_continuous) = {
            let standing = self.standing.lock();
            (standing.gaps, standing.is_continuous())
        };
        let mut call = self.call(&script::LIVE);
        call.arg(heard).arg(self.own.text());
        call.arg(SILENT.as_micros() as u64)
            .arg(GONE.as_micros() as u64);
        call.arg(u8::from(is_continuous));
        let read: Read = self.run(READING, &call).await?;
        let (last, floor, now, there, missed, (born, number)) = read;
        for (scope, number) in missed {
            if let Some((strength, scope)) = wire::parse_scope(&scope) {
                let scopes = vec![scope];
                self.tombstones
                    .learn(&Purge { scopes, strength }, number, time_of(number));
            }
        }
        let has_forgotten = {
            let mut standing = self.standing.lock();
            if !is_continuous && heard < floor {
                self.tombstones.missed(floor);
                standing.floor = floor;
            }
            let known = standing.read(asked, gaps, last);
            self.tombstones.heard(known);
            self.tombstones.informed(true);
            standing.peers = self.peers(now, there);
            is_continuous && standing.floor < floor
        };
        if has_forgotten {
            self.restore(last).await?;
        }
        let list = born.zip(number);
        self.read_list(list.map(|(born, number)| Known::new(born, number)))
            .await
    }

    /// Tells Redis what it knew before it forgot.
    async fn restore(&self, last: u64) -> Result<(), Away> {
        let (known, forgotten) = self.tombstones.numbered();
        let floor = {
            let mut standing = self.standing.lock();
            standing.floor = standing.floor.max(forgotten);
            standing.floor
        };
        tracing::info!(
            purges = known.len(),
            "Redis has forgotten purges; it is told again"
        );
        for piece in known.chunks(MOST_SENT) {
            self.write_back(last, last, piece).await?;
        }
        // After all of them: before, some are missing.
        self.write_back(last, floor, &[]).await
    }

    async fn write_back(
        &self,
        last: u64,
        floor: u64,
        purges: &[(u64, Strength, ScopeId)],
    ) -> Result<(), Away> {
        let mut call = self.call(&script::RESTORE);
        call.arg(last).arg(floor);
        for (number, strength, scope) in purges {
            call.arg(*number).arg(wire::scope_text(*strength, scope));
        }
        self.run(PATIENCE, &call).await
    }

    /// Sends what nobody waits for.
    async fn send(self: Arc<Self>) {
        loop {
            let moment = || self.tombstones.epoch().own();
            let (purge, until) = self.outbox.take(MOST_SENT, moment).await;
            match self.announce(&purge, NOBODY).await {
                Ok((number, _)) => {
                    self.tombstones.number(&purge, number, until);
                    sleep(SEND_EVERY).await;
                }
                Err(away) => {
                    tracing::debug!(%away, "purges wait for Redis");
                    self.outbox.put(&purge, || {});
                    sleep(LIVE_EVERY).await;
                }
            }
        }
    }

    /// The others among these, with how long each has been silent.
    fn peers(&self, now: u64, there: Vec<(String, f64)>) -> Peers {
        let members = there.into_iter().filter_map(|(member, at)| {
            let silent = Duration::from_micros(now.saturating_sub(at as u64));
            Some((Member::parse(&member)?, silent))
        });
        members
            .filter(|(member, _)| member.instance != self.own.instance)
            .collect()
    }

    /// A call with the keys of every script.
    fn call<'s>(&self, script: &'s Script) -> ScriptInvocation<'s> {
        let mut call = script.prepare_invoke();
        for name in script::KEYS {
            call.key(self.redis.key(&format!("{{purge}}:{name}")));
        }
        call
    }

    fn gateways(&self) -> String {
        self.redis.key("{purge}:gateways")
    }

    fn news(&self) -> String {
        self.redis.key("{purge}:news")
    }

    fn acknowledgements_of(&self, instance: u64) -> String {
        self.redis.key(&format!("{{purge}}:heard:{instance}"))
    }
}

/// Last number, floor, now, who is there, what was missed, birth and number of the list of quarantined keys.
type Read = (
    u64,
    u64,
    u64,
    Vec<(String, f64)>,
    Vec<(String, u64)>,
    (Option<u64>, Option<u64>),
);

/// Whether a gateway that has been silent for so long may still give what it has not heard to be purged.
fn serves(peer: &Member, silent: Duration) -> bool {
    let patience = peer.patience_ms.map(Duration::from_millis);
    patience.is_none_or(|patience| silent < patience + SILENT)
}

/// Numbers are microseconds, but for those that had to be put off.
fn time_of(number: u64) -> SystemTime {
    let time = UNIX_EPOCH + Duration::from_micros(number);
    time.min(SystemTime::now())
}

/// Of this process and moment; never [`NOBODY`], as the bits of its version are not zero.
fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Subscribed, and everything up to 10 was read.
    fn continuous() -> Standing {
        let mut standing = Standing::new();
        standing.gap(true);
        assert_eq!(standing.read(Instant::now(), 1, 10), 10);
        standing
    }

    #[test]
    fn what_follows_what_is_known_is_known() {
        let mut standing = continuous();
        assert_eq!(standing.hear(10, 11, 10), Some(11));
        assert_eq!(standing.hear(11, 15, 11), Some(15));
        // Heard of by somebody else's question already.
        assert_eq!(standing.hear(12, 14, 15), Some(14));
    }

    #[test]
    fn after_a_gap_nothing_is_known_before_all_is_read() {
        let mut standing = continuous();
        assert_eq!(standing.hear(11, 12, 10), None, "what was 11?");
        assert_eq!(standing.hear(12, 13, 10), None);
        assert!(!standing.is_continuous());
        // What was heard since continues what was read.
        assert_eq!(standing.read(Instant::now(), standing.gaps, 12), 13);
        assert_eq!(standing.hear(13, 14, 13), Some(14));
    }

    #[test]
    fn what_was_read_before_a_gap_does_not_end_it() {
        let mut standing = continuous();
        let before = standing.gaps;
        standing.gap(true);
        assert_eq!(standing.read(Instant::now(), before, 11), 11);
        assert!(!standing.is_continuous());
    }

    #[test]
    fn without_messages_reading_is_never_enough() {
        let mut standing = continuous();
        standing.gap(false);
        assert_eq!(standing.read(Instant::now(), standing.gaps, 20), 20);
        assert!(!standing.is_continuous());
    }

    #[test]
    fn who_is_silent_for_longer_than_it_may_vouch_for_serves_nothing() {
        let member = |patience_ms| Member {
            name: Name::new("a"),
            instance: 1,
            patience_ms,
        };
        let minute = Duration::from_secs(60);
        assert!(serves(&member(None), minute));
        assert!(serves(&member(Some(59_000)), minute));
        assert!(!serves(&member(Some(0)), minute));
    }
}
