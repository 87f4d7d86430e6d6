//! What is to be written to Redis, off the time of every request: a bounded number of entries and
//! bytes wait, one task writes them in pipelines, and what finds no place is not written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use ::redis::{Cmd, FromRedisValue, Value, cmd};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::lock::Held;
use super::place::Place;
use super::record::{self, Stored};
use super::{Bounds, Sharing};
use crate::cache::entry::{Content, Entry};
use crate::cache::key::Key;
use crate::redis::{LONGEST_PIPELINE, Lane, Redis};

/// How long one pipeline may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// Bytes of bodies after which a pipeline is sent as it is.
const FULL: usize = 4 << 20;
/// Bodies are counted in units of so many bytes, the last one begun.
const UNIT: u64 = 1024;

/// Puts an entry where requests look first, or, if it varies, its name there and it beside. What lives longer there
/// goes on to live.
const WRITE: &str = "\
local entry = KEYS[#KEYS]
for _, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key)['ok']
  if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', key) end
end
if ARGV[3] ~= '' then
  redis.call('HSET', entry, 'meta', ARGV[2], 'sum', ARGV[5], ARGV[3], ARGV[4])
  redis.call('HDEL', entry, 'vary', ARGV[3] == 'body' and 'zstd' or 'body')
elseif redis.call('HGET', entry, 'sum') == ARGV[5] then
  redis.call('HSET', entry, 'meta', ARGV[2])
else
  return 0
end
redis.call('PEXPIRE', entry, ARGV[1])
if #KEYS == 2 then
  local left = redis.call('PTTL', KEYS[1])
  redis.call('HSET', KEYS[1], 'vary', ARGV[6])
  redis.call('HDEL', KEYS[1], 'meta', 'sum', 'body', 'zstd')
  if left < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
end
return 1";

/// One entry to be written.
pub(super) struct Write {
    pub place: Place,
    pub key: Key,
    pub entry: Arc<Entry>,
    pub sharing: Sharing,
    /// Its body stands there probably: what is told of it is enough.
    pub has_body: bool,
    /// Who waits for it.
    pub held: Option<Held>,
}

/// Where writes wait.
pub(super) struct Queue {
    writes: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    /// All of the room.
    units: u32,
    counts: Arc<Counts>,
}

struct Queued {
    write: Write,
    _room: Room,
}

/// What a write takes of the queue, until it is done with.
struct Room {
    _bytes: OwnedSemaphorePermit,
    counts: Arc<Counts>,
}

impl Room {
    fn of(bytes: OwnedSemaphorePermit, counts: Arc<Counts>) -> Self {
        counts.queued.fetch_add(1, Ordering::Relaxed);
        Self {
            _bytes: bytes,
            counts,
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.counts.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What became of writes.
#[derive(Default)]
pub(super) struct Counts {
    pub written: AtomicU64,
    /// There was no place for them, or Redis did not take them.
    pub dropped: AtomicU64,
    /// Those of which nothing has become yet.
    pub queued: AtomicUsize,
}

impl Counts {
    fn add(count: &AtomicU64, number: usize) {
        count.fetch_add(number as u64, Ordering::Relaxed);
    }
}

impl Queue {
    /// Begins to write, until this is dropped and all is written.
    pub fn open(redis: Arc<Redis>, bounds: &Bounds, counts: Arc<Counts>) -> Self {
        let (writes, queued) = mpsc::channel(bounds.queued_writes);
        let units = u32::try_from(bounds.queued_bytes / UNIT).unwrap_or(u32::MAX);
        let room = Arc::new(Semaphore::new(units as usize));
        tokio::spawn(write_all(redis, queued, counts.clone()));
        Self {
            writes,
            room,
            units,
            counts,
        }
    }

    /// Waits until what waits now is written, no longer than `patience`.
    pub async fn written(&self, patience: Duration) {
        let everything = self.room.acquire_many(self.units);
        if tokio::time::timeout(patience, everything).await.is_err() {
            tracing::warn!("not everything that was to be kept in Redis is written");
        }
    }

    /// Bytes of the entries in it, each in whole units.
    pub fn bytes(&self) -> u64 {
        let free = self.room.available_permits() as u64;
        u64::from(self.units).saturating_sub(free) * UNIT
    }

    /// Has it written some time, if there is a place for it.
    pub fn push(&self, write: Write) {
        let units = (write.entry.weight() as u64).div_ceil(UNIT);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let room = self.room.clone().try_acquire_many_owned(units).ok();
        let is_queued = room.is_some_and(|room| {
            let room = Room::of(room, self.counts.clone());
            let queued = Queued { write, _room: room };
            self.writes.try_send(queued).is_ok()
        });
        if !is_queued {
            Counts::add(&self.counts.dropped, 1);
        }
    }
}

async fn write_all(redis: Arc<Redis>, mut queued: mpsc::Receiver<Queued>, counts: Arc<Counts>) {
    let mut waiting = Vec::with_capacity(LONGEST_PIPELINE);
    while queued.recv_many(&mut waiting, LONGEST_PIPELINE).await > 0 {
        while !waiting.is_empty() {
            let together = fitting(&waiting);
            let batch = waiting.drain(..together).collect();
            if redis.takes_writes() {
                write(&redis, batch, &counts).await;
            } else {
                Counts::add(&counts.dropped, together);
            }
        }
    }
}

/// How many of these make a pipeline.
fn fitting(waiting: &[Queued]) -> usize {
    let mut bytes = 0;
    let fits = |queued: &&Queued| {
        let before = bytes;
        bytes += queued.write.entry.weight();
        before < FULL
    };
    waiting.iter().take_while(fits).count()
}

/// Writes a pipeline, and what turns out to be needed as a whole in a second one.
async fn write(redis: &Redis, mut batch: Vec<Queued>, counts: &Counts) {
    while !batch.is_empty() {
        let coding = tokio::task::spawn_blocking(move || {
            let commands: Vec<_> = batch.iter().map(|queued| queued.write.command()).collect();
            (batch, commands)
        });
        let Ok((sent, commands)) = coding.await else {
            return;
        };
        let answers = redis.ask_each(Lane::Bodies, DEADLINE, &commands).await;
        let Ok(answers) = answers else {
            return Counts::add(&counts.dropped, sent.len());
        };
        batch = Vec::new();
        for (mut queued, answer) in sent.into_iter().zip(answers) {
            let written = answer
                .ok()
                .and_then(|answer: Value| i64::from_redis_value(answer).ok());
            match written {
                Some(0) if queued.write.has_body => {
                    queued.write.has_body = false;
                    batch.push(queued);
                }
                Some(1) => {
                    Counts::add(&counts.written, 1);
                    if let Some(held) = queued.write.held.take() {
                        held.stored();
                    }
                }
                _ => Counts::add(&counts.dropped, 1),
            }
        }
    }
}

impl Write {
    fn command(&self) -> Cmd {
        let Content::Whole(body) = &self.entry.content else {
            unreachable!("what is written is whole");
        };
        let vary = &self.entry.facts.vary;
        let life = self.entry.kept_until().duration_since(SystemTime::now());
        let life = life.unwrap_or_default().as_millis().clamp(1, LONGEST_LIFE);
        let mut command = cmd("EVAL");
        command.arg(WRITE);
        match vary.is_empty() {
            true => command.arg(1).arg(self.place.first()),
            false => {
                let variant = self.entry.facts.variant.digest();
                command
                    .arg(2)
                    .arg(self.place.first())
                    .arg(self.place.variant(variant))
            }
        };
        command.arg(life as u64);
        command.arg(record::meta(&self.key, &self.entry, body));
        match self.has_body {
            true => command.arg("").arg(""),
            false => {
                let stored = Stored::of(body, &self.entry, &self.sharing);
                command.arg(stored.field()).arg(&stored.bytes()[..])
            }
        };
        command.arg(&record::sum(body)[..]).arg(vary.to_string());
        command
    }
}

/// What Redis takes for a time to live, and nobody lives to see the end of: ten years, in milliseconds.
const LONGEST_LIFE: u128 = 10 * 365 * 24 * 60 * 60 * 1000;
