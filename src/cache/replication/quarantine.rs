//! Which keys all gateways keep out of the cache. Redis keeps one list, and every change of it has a number: who
//! hears a number that does not follow the last one it knows reads the list again.
//!
//! A list that Redis has lost is begun anew, with another time of birth; then every gateway tells it what it knows.

use std::collections::HashSet;
use std::str;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::redis::Script;
use tokio::time::{Instant, sleep, timeout_at};

use super::script::script;
use super::wire::Acknowledgement;
use super::{LIVE_EVERY, PATIENCE, Peers, Replication, SEND_EVERY};
use crate::cache::guard::{Held, MOST, Release};
use crate::cache::purger::Purged;
use crate::redis::Away;

/// Keys of one message.
const MOST_SENT: usize = 50;

/// Lists keys and tells everybody. Where the list is full one goes for a new one, as in the guard of a gateway.
///
/// ARGV channel, who tells, how many keys there may be, then of each its id, 1 if it shows itself each time, how long it
/// stays in microseconds, and what else is told of it.
static HOLD: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
        local list, now = KEYS[7], microseconds()
        local function make_room(shows_each_time)
            local all, first = redis.call('HGETALL', list), nil
            local least = math.huge
            for at = 1, #all, 2 do
                local ends, shows = string.match(all[at + 1], '^(%d+) (%d) ')
                if ends and tonumber(ends) <= now then
                    redis.call('HDEL', list, all[at])
                elseif ends then
                    local worth = tonumber(ends)
                    if shows == '1' then worth = worth - 1e15 end
                    if worth < least then least, first = worth, all[at] end
                end
            end
            if redis.call('HLEN', list) - 2 < tonumber(ARGV[3]) then return true end
            if shows_each_time == '1' then return false end
            redis.call('HDEL', list, first)
            return true
        end
        redis.call('HSETNX', list, 'born', string.format('%.0f', now))
        redis.call('HSETNX', list, 'number', '0')
        local lines = {}
        for at = 4, #ARGV, 4 do
            local id, shows, left, rest = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
            local has_room = redis.call('HEXISTS', list, id) == 1
                or redis.call('HLEN', list) - 2 < tonumber(ARGV[3]) or make_room(shows)
            if has_room then
                local ends = string.format('%.0f', now + tonumber(left))
                redis.call('HSET', list, id, ends .. ' ' .. shows .. ' ' .. rest)
            end
            lines[#lines + 1] = '\n+' .. id .. ' ' .. left .. ' ' .. rest
        end
        tell(ARGV[1], ARGV[2], '0', table.concat(lines))
        ",
    )
});

/// Takes keys off the list and tells everybody.
///
/// ARGV channel, who tells, token, and which: `*`, `i` and an id, or `k` and how it is displayed. Returns number, now,
/// gateways with times.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
        local list, now, which = KEYS[7], microseconds(), ARGV[4]
        redis.call('HSETNX', list, 'born', string.format('%.0f', now))
        redis.call('HSETNX', list, 'number', '0')
        local all = redis.call('HGETALL', list)
        for at = 1, #all, 2 do
            local key = string.match(all[at + 1], '^%d+ %d %S+ %S+ (.*)$')
            if key and (which == '*' or which == 'i' .. all[at] or which == 'k' .. key) then
                redis.call('HDEL', list, all[at])
            end
        end
        local number = tell(ARGV[1], ARGV[2], ARGV[3], '\n-' .. which)
        local there = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
        return { number, string.format('%.0f', now), there }
        ",
    )
});

/// Returns now, and all fields of the list with their values.
static LIST: LazyLock<Script> = LazyLock::new(|| {
    script("return { string.format('%.0f', microseconds()), redis.call('HGETALL', KEYS[7]) }")
});

/// How far the list is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// When the list was begun.
    born: u64,
    /// Of the last change.
    number: u64,
}

impl Known {
    pub fn new(born: u64, number: u64) -> Self {
        Self { born, number }
    }
}

/// What is known of the list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listing {
    /// `None` where Redis has none.
    known: Option<Known>,
    /// How many changes have been heard of.
    changes: u64,
}

impl Listing {
    fn has(&self, change: Known) -> bool {
        let known = self.known.filter(|known| known.born == change.born);
        known.is_some_and(|known| known.number >= change.number)
    }
}

/// A change of the list, as everybody is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    known: Known,
    before: u64,
    /// The instance that has made it, and the token by which it wants to know who has heard of it.
    pub maker: u64,
    pub token: u64,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Held(Box<str>),
    Released(Release),
}

impl Change {
    /// `born number before maker token`, then `+` or `-` and what it is about on a line each.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut lines = str::from_utf8(payload).ok()?.split('\n');
        let mut words = lines.next()?.split(' ');
        let mut number = || words.next()?.parse().ok();
        let known = Known::new(number()?, number()?);
        let (before, maker, token) = (number()?, number()?, number()?);
        let line = |line: &str| match line.split_at_checked(1)? {
            ("+", held) => Some(Line::Held(held.into())),
            ("-", which) => parse_release(which).map(Line::Released),
            _ => None,
        };
        Some(Self {
            known,
            before,
            maker,
            token,
            lines: lines.map(line).collect::<Option<_>>()?,
        })
    }
}

fn parse_release(text: &str) -> Option<Release> {
    match text.split_at_checked(1)? {
        ("*", "") => Some(Release::All),
        ("i", id) => id.parse().ok().map(Release::Id),
        ("k", key) => Some(Release::Key(key.into())),
        _ => None,
    }
}

fn release_text(which: &Release) -> String {
    match which {
        Release::All => "*".to_owned(),
        Release::Id(id) => format!("i{id}"),
        Release::Key(key) => format!("k{key}"),
    }
}

/// What is told of a key but for its id and its end: `seconds why key`.
fn rest_of(held: &Held) -> String {
    let since = held.since.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{} {} {}", since.as_secs(), held.why, held.key)
}

fn parse_held(id: &str, left: Duration, rest: &str) -> Option<Held> {
    let mut words = rest.splitn(3, ' ');
    let since = Duration::from_secs(words.next()?.parse().ok()?);
    let why = words.next()?.parse().ok()?;
    let since = SystemTime::UNIX_EPOCH.checked_add(since)?;
    let (id, key) = (id.parse().ok()?, words.next()?.into());
    Some(Held::of_others(id, key, why, since, left))
}

/// `id microseconds rest`.
fn parse_line(line: &str) -> Option<Held> {
    let mut words = line.splitn(3, ' ');
    let (id, left) = (words.next()?, words.next()?.parse().ok()?);
    parse_held(id, Duration::from_micros(left), words.next()?)
}

impl Replication {
    /// Another key is quarantined here.
    pub fn hold_soon(&self) {
        self.held.notify_one();
    }

    /// Ends the quarantine of keys at every other gateway, and waits for those that are there.
    pub async fn release(&self, which: &Release) -> Purged {
        let deadline = Instant::now() + PATIENCE;
        let mut awaited = self.awaited.expect();
        let told = match self.announce_release(which, awaited.token()).await {
            Ok(told) => {
                // What others have listed before may be heard until then, and is released with it.
                let _ = timeout_at(deadline, awaited.all(vec![self.own.instance])).await;
                Some(told)
            }
            Err(away) => {
                tracing::warn!(%away, "a release is known to this gateway only");
                None
            }
        };
        self.acknowledged(awaited, told, deadline).await
    }

    async fn announce_release(&self, which: &Release, token: u64) -> Result<(u64, Peers), Away> {
        let mut call = self.call(&RELEASE);
        call.arg(self.quarantine()).arg(self.own.instance);
        call.arg(token).arg(release_text(which));
        let (number, now, there): (u64, u64, Vec<(String, f64)>) =
            self.run(PATIENCE, &call).await?;
        Ok((number, self.peers(now, there)))
    }

    /// Tells the others of every key that is quarantined here.
    pub(super) async fn send_held(self: Arc<Self>) {
        loop {
            self.held.notified().await;
            loop {
                let held = self.guard.unshared(MOST_SENT);
                if held.is_empty() {
                    break;
                }
                let pause = match self.announce_held(&held).await {
                    Ok(()) => SEND_EVERY,
                    Err(away) => {
                        tracing::debug!(%away, "quarantined keys wait for Redis");
                        LIVE_EVERY
                    }
                };
                sleep(pause).await;
            }
        }
    }

    async fn announce_held(&self, held: &[Held]) -> Result<(), Away> {
        let mut call = self.call(&HOLD);
        call.arg(self.quarantine()).arg(self.own.instance).arg(MOST);
        for one in held {
            let left = u64::try_from(one.left().as_micros()).unwrap_or(u64::MAX);
            call.arg(one.id.to_string());
            call.arg(u8::from(one.why.shows_each_time()));
            call.arg(left).arg(rest_of(one));
        }
        self.run::<()>(PATIENCE, &call).await?;
        self.guard.shared(held);
        Ok(())
    }

    /// Hears of a change of the list, in the order that is the same for all; of its own too, as what others have changed
    /// before may have been heard since.
    pub(super) fn hear_change(&self, change: Change) {
        let mut list = self.list.lock();
        list.changes += 1;
        // What was read since may be newer than this message.
        let lines = change.lines.into_iter();
        for line in lines.filter(|_| !list.has(change.known)) {
            match line {
                Line::Held(line) => {
                    if let Some(held) = parse_line(&line) {
                        self.guard.learn(held);
                    }
                }
                Line::Released(which) => {
                    self.guard.release(&which);
                }
            }
        }
        drop(list);
        self.follow(change.known, change.before);
        if change.maker == self.own.instance {
            self.awaited.hear(&Acknowledgement {
                instance: self.own.instance,
                tokens: vec![change.token],
            });
        }
    }

    /// Takes note of a change that is known, or has the list read where others are missing.
    fn follow(&self, known: Known, before: u64) {
        let mut list = self.list.lock();
        if list.has(known) {
            return;
        }
        match list.known == Some(Known::new(known.born, before)) {
            true => list.known = Some(known),
            false => self.read.notify_one(),
        }
    }

    /// Reads the list where it is another one than is known.
    pub(super) async fn read_list(&self, there: Option<Known>) -> Result<(), Away> {
        for last in [false, false, true] {
            let Listing { known, changes } = *self.list.lock();
            // A change that was heard meanwhile may be newer than what was read.
            if there == known || self.has_read_list(known, changes, last).await? {
                break;
            }
        }
        Ok(())
    }

    /// False if there were other changes before it was read; they do not count if it `is_last`.
    async fn has_read_list(
        &self,
        known: Option<Known>,
        changes: u64,
        is_last: bool,
    ) -> Result<bool, Away> {
        let (now, fields): (u64, Vec<(String, String)>) =
            self.run(PATIENCE, &self.call(&LIST)).await?;
        let number = |name: &str| {
            let field = fields.iter().find(|(field, _)| field == name);
            field.and_then(|(_, value)| value.parse().ok())
        };
        let read = number("born").zip(number("number"));
        let read = read.map(|(born, number)| Known { born, number });
        let held: Vec<_> = fields
            .iter()
            .filter_map(|(id, value)| {
                let mut words = value.splitn(3, ' ');
                let until: u64 = words.next()?.parse().ok()?;
                let left = Duration::from_micros(until.checked_sub(now)?);
                parse_held(id, left, words.nth(1)?)
            })
            .collect();
        let mut list = self.list.lock();
        if list.changes != changes && !is_last {
            return Ok(false);
        }
        let ids: HashSet<_> = held.iter().map(|held| held.id).collect();
        let is_same = known.map(|known| known.born) == read.map(|read| read.born);
        self.guard.reconcile(&ids, is_same);
        held.into_iter().for_each(|held| self.guard.learn(held));
        list.known = read;
        self.held.notify_one();
        Ok(true)
    }

    pub(super) fn quarantine(&self) -> String {
        self.redis.key("{purge}:quarantined")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::frame::Digest;
    use crate::cache::guard::Suspicion;

    #[test]
    fn a_change_says_what_is_held_and_what_is_released() {
        let id = Digest::of(b"key");
        let since = UNIX_EPOCH + Duration::from_secs(7);
        let hour = Duration::from_secs(3600);
        let key = "https://a.example/ route=pages x=*";
        let held = Held::of_others(id, key.into(), Suspicion::Token, since, hour);
        let line = format!("{id} 3600000000 {}", rest_of(&held));
        let which = [Release::All, Release::Id(id), Release::Key(key.into())];
        let released = which
            .each_ref()
            .map(|which| format!("\n-{}", release_text(which)));
        let text = format!("1 5 4 8 9\n+{line}{}", released.concat());
        let change = Change::parse(text.as_bytes()).unwrap();
        assert_eq!((change.known, change.before), (Known::new(1, 5), 4));
        assert_eq!((change.maker, change.token), (8, 9));
        let Line::Held(first) = &change.lines[0] else {
            panic!("the first is held");
        };
        let read = parse_line(first).unwrap();
        assert_eq!((read.id, &*read.key, read.why), (id, key, Suspicion::Token));
        assert_eq!(read.since, since);
        assert!(read.left() <= hour && read.left() > hour / 2);
        assert_eq!(change.lines[1..], which.map(Line::Released));
    }

    #[test]
    fn what_no_gateway_writes_is_no_change() {
        for text in [
            "",
            "1 2 3 4",
            "1 2 3 4 5\nx",
            "1 2 3 4 5\n-",
            "1 2 3 4 5\n-ix",
            "1 2 3 4 5\n-*a",
        ] {
            assert_eq!(Change::parse(text.as_bytes()), None, "{text}");
        }
        for line in ["", "x 1 2 token k", "1 2 3"] {
            assert!(parse_line(line).is_none(), "{line}");
        }
    }
}
