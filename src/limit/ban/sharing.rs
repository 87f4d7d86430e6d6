//! The bans of all gateways that share a Redis. Each tells the others what it has banned and lifted, hears them, and reads
//! everything again after each gap in what it hears.
//!
//! No request waits for this. While Redis is away each gateway's own bans stand and those it has heard of; when it is back,
//! or was emptied, the gateways tell it what they know.

mod script;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::Script;
use tokio::time::sleep_until;

pub use self::wire::LONGEST_WHY;
use self::wire::{News, Told, ToldBan, milliseconds};
use super::client::Client;
use super::rule::Mode;
use super::standing::{Ban, Standing};
use crate::redis::{Away, Event, Lane, Redis};

/// For one step, which may be of many bans.
const PATIENCE: Duration = Duration::from_secs(2);
/// Before the first and at most before each further try to tell or read what could not be.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Clients of one step.
const MOST_TOLD: usize = 100;
const MOST_READ: usize = 1000;
/// For how long a lift is remembered at least. A gateway that is cut off for longer may bring the ban back.
const LIFT_REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// From this age on, a ban that is heard of was made while its gateway could not tell it.
const TOLD_LATE: Duration = Duration::from_millis(50);
/// Ends that differ by less are the same.
const SAME_END: Duration = Duration::from_secs(1);

/// This gateway among the others.
struct Sharing {
    redis: Arc<Redis>,
    standing: Arc<Standing>,
    instance: u64,
    ends: String,
    told: String,
    news: String,
}

/// What Redis knows of one client.
struct Known {
    told: Told,
    left: Duration,
    age: Duration,
}

/// Shares the bans from now on. To be called once, in a runtime.
pub fn open(redis: Arc<Redis>, standing: Arc<Standing>) {
    standing.outbox.open();
    let sharing = Sharing {
        instance: uuid::Uuid::new_v4().as_u64_pair().0,
        ends: redis.key("{ban}:ends"),
        told: redis.key("{ban}:told"),
        news: redis.key("ban:news"),
        redis,
        standing,
    };
    tokio::spawn(sharing.run());
}

impl Sharing {
    async fn run(self) {
        let mut events = self.redis.subscribe(vec![self.news.clone()]);
        let mut pause = FIRST_PAUSE;
        let mut next_try = tokio::time::Instant::now();
        // Whether Redis knows what is known here, and the other way round.
        let mut is_level = false;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Message { payload, .. }) => {
                        // It is read again soon, after a pause: there may be many.
                        is_level &= self.hear(&payload);
                        continue;
                    }
                    Some(Event::Subscribed | Event::Lost) => {
                        is_level = false;
                        pause = FIRST_PAUSE;
                    }
                    None => return,
                },
                () = self.standing.outbox.filled.notified() => {}
                () = sleep_until(next_try), if !is_level => {}
            }
            next_try = tokio::time::Instant::now() + pause;
            match self.tell().await {
                Ok(was_all) => is_level &= was_all,
                Err(away) => {
                    is_level = false;
                    tracing::debug!(%away, "bans are not told to other gateways yet");
                    // What was lifted here would be read as a ban that stands.
                    continue;
                }
            }
            // Nothing is read and written again and again of what cannot be kept.
            if is_level || !self.redis.takes_writes() {
                continue;
            }
            match self.level().await {
                Ok(()) => is_level = true,
                Err(away) => {
                    tracing::debug!(%away, "bans of other gateways are not known yet");
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
            }
        }
    }

    /// Takes in what another gateway says; whether that is sure to be the last word. A ban that is told late may have
    /// been lifted since: Redis knows.
    fn hear(&self, payload: &[u8]) -> bool {
        let Some(news) = News::parse(payload) else {
            tracing::warn!("a message about a ban that cannot be read");
            return true;
        };
        if news.teller == self.instance {
            return true;
        }
        let now = Instant::now();
        match news.told {
            Told::Ban(ban) => {
                self.take_in(news.client, &ban, news.left, news.age, now);
                news.age < TOLD_LATE
            }
            Told::Lifted => {
                self.lift(&news.client, news.age, now);
                true
            }
        }
    }

    /// Takes in what another gateway has banned so long ago, for so long from now.
    fn take_in(&self, client: Client, told: &ToldBan, left: Duration, age: Duration, now: Instant) {
        let ends = now + left;
        let stands = self.standing.find(&client, now);
        if stands.is_some_and(|stands| stands.ends + SAME_END >= ends) {
            return;
        }
        let by = told.by();
        let ban = Ban {
            tally: self.standing.tally(&by),
            by,
            why: told.why(),
            answer: told.answer(),
            mode: Mode::Enforce,
            events: told.events,
            offence: told.offence,
            began: now.checked_sub(age).unwrap_or(now),
            ends,
            forgotten_after: told.forgotten_after(),
            is_ours: false,
        };
        self.standing.hear(client, ban, now);
    }

    /// Lifts a ban that another gateway lifted so long ago, unless it was made since.
    fn lift(&self, client: &Client, age: Duration, now: Instant) {
        let stands = self.standing.find(client, now);
        if stands.is_some_and(|ban| now.saturating_duration_since(ban.began) >= age) {
            self.standing.lift_here(client);
        }
    }

    /// Tells the others what was put in the outbox; whether that was all there is to tell.
    async fn tell(&self) -> Result<bool, Away> {
        let waiting = self.standing.outbox.take();
        let mut lifts = waiting.lifts;
        while !lifts.is_empty() {
            let some: Vec<_> = lifts
                .iter()
                .take(MOST_TOLD)
                .map(|(client, then)| (*client, *then))
                .collect();
            if let Err(away) = self.tell_lifted(&some).await {
                self.standing.outbox.put_back(lifts);
                return Err(away);
            }
            for (client, then) in &some {
                // Another may have brought the ban back meanwhile, as one that was not lifted yet.
                self.lift(client, then.elapsed(), Instant::now());
                lifts.remove(client);
            }
        }
        let now = Instant::now();
        let standing = waiting.bans.into_iter();
        let standing =
            standing.filter_map(|client| Some((client, self.standing.find(&client, now)?)));
        self.tell_banned(&standing.collect::<Vec<_>>()).await?;
        Ok(!waiting.is_incomplete)
    }

    async fn tell_lifted(&self, lifts: &[(Client, Instant)]) -> Result<(), Away> {
        let mut rest = vec![milliseconds(LIFT_REMEMBERED).to_string()];
        for (client, then) in lifts {
            rest.extend([client.to_string(), milliseconds(then.elapsed()).to_string()]);
        }
        self.call(&script::LIFT, &rest).await
    }

    async fn tell_banned(&self, bans: &[(Client, Arc<Ban>)]) -> Result<(), Away> {
        for some in bans.chunks(MOST_TOLD) {
            let mut rest = Vec::new();
            let now = Instant::now();
            for (client, ban) in some {
                let left = milliseconds(ban.left(now)).to_string();
                let age = milliseconds(now.saturating_duration_since(ban.began)).to_string();
                rest.extend([client.to_string(), left, age, ToldBan::of(ban).text()]);
            }
            self.call(&script::BAN, &rest).await?;
        }
        Ok(())
    }

    /// Runs a script that tells everybody something.
    async fn call(&self, script: &Script, rest: &[String]) -> Result<(), Away> {
        let mut call = script.prepare_invoke();
        call.key(&self.ends).key(&self.told).arg(&self.news);
        call.arg(self.standing.settings().most).arg(self.instance);
        for argument in rest {
            call.arg(argument);
        }
        self.redis.run(Lane::Control, PATIENCE, &call).await
    }

    /// Reads all that Redis knows, and tells it what it does not know.
    async fn level(&self) -> Result<(), Away> {
        let known = self.read().await?;
        let now = Instant::now();
        for (client, known) in &known {
            match &known.told {
                Told::Ban(ban) => self.take_in(*client, ban, known.left, known.age, now),
                Told::Lifted => self.lift(client, known.age, now),
            }
        }
        let mut unknown = self.standing.enforced(now);
        unknown.retain(|(client, ban)| match known.get(client) {
            Some(known) => match known.told {
                Told::Ban(_) => known.left + SAME_END < ban.left(now),
                // It was made since, or it would not stand any more.
                Told::Lifted => true,
            },
            None => true,
        });
        self.tell_banned(&unknown).await?;
        let (heard, told) = (known.len(), unknown.len());
        tracing::debug!(heard, told, "bans of all gateways are known");
        Ok(())
    }

    /// All that Redis knows.
    async fn read(&self) -> Result<HashMap<Client, Known>, Away> {
        let mut all = HashMap::new();
        let mut from = String::new();
        loop {
            let mut call = script::READ.prepare_invoke();
            call.key(&self.ends)
                .key(&self.told)
                .arg(&from)
                .arg(MOST_READ);
            let page: (u64, Vec<(String, u64, String)>) =
                self.redis.run(Lane::Control, PATIENCE, &call).await?;
            let (now, page) = page;
            let last = page.last().map(|(_, ends, _)| ends.to_string());
            for (client, ends, told) in &page {
                let Some((at, told)) = Told::parse_kept(told) else {
                    continue;
                };
                if let Ok(client) = client.parse() {
                    let left = Duration::from_millis(ends.saturating_sub(now));
                    let age = Duration::from_millis(now.saturating_sub(at));
                    all.insert(client, Known { told, left, age });
                }
            }
            match last.filter(|_| page.len() >= MOST_READ) {
                // Again with what ends in the same moment, unless a page holds no more than that.
                Some(last) if last == from => from = format!("({last}"),
                Some(last) => from = last,
                None => return Ok(all),
            }
        }
    }
}
