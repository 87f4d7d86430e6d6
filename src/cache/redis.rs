//! The entries of all gateways: what one of them has fetched the others need not ask for. Redis is
//! never needed: where it does not answer in time, it is as if nothing stood there.
//!
//! ```text
//! find ──► place of the key ──► entry, or the fields by which it varies ──► place of the variant ──► entry
//! store ──► queue ──► one task ──► pipelines
//! take ──► ours: ask the origin, store, give back │ another gateway's: wait, find
//! ```
//!
//! - `place`: under which names; `record`: in which form, of `wire`
//! - `flight`: one question for all who ask it; `queue`: what is to be written; `lock`: who asks the origin
//!
//! An entry is judged by the purges of the gateway that reads it: by the number up to which the one that
//! stored it had heard of all that gateways share.

mod flight;
mod lock;
mod place;
mod queue;
mod record;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ::redis::cmd;
use bytes::Bytes;
use http::HeaderMap;
use tokio::time::{Instant, timeout};

use self::flight::Flights;
use self::place::Place;
use self::queue::{Queue, Write};
use self::record::{Record, Stored};
use super::entry::Entry;
use super::frame::Digest;
use super::key::Key;
use super::memory::Found;
use super::policy::Policy;
use super::tombstones::{Cause, Tombstones};
use super::vary::{UnnamedCookie, Vary};
use crate::redis::{Away, Lane, Patience, Redis};

pub use self::lock::{Held, Turn, Waited};

/// Bodies of more bytes are read off the threads that serve requests.
const LARGE: usize = 256 << 10;

/// How the responses of a route are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Bodies of more bytes are compressed.
    pub compress_above: u64,
    /// Of zstd, 1 to 19.
    pub compression_level: i32,
    /// How long a gateway that asks the origin is believed to be alive without a word.
    pub fill_lock: Duration,
    /// The longest body that any policy of the route stores: nothing longer is read.
    pub largest_object: u64,
}

/// What may wait to be written.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub queued_writes: usize,
    /// Of entries with their bodies.
    pub queued_bytes: u64,
}

/// What stands in Redis.
pub struct SharedCache {
    redis: Arc<Redis>,
    flights: Arc<Flights<Result<Read, Away>>>,
    queue: Queue,
    writes: Arc<queue::Counts>,
    reads: Arc<Reads>,
}

/// What became of look-ups.
#[derive(Default)]
struct Reads {
    found: AtomicU64,
    missed: AtomicU64,
    away: AtomicU64,
    odd: AtomicU64,
}

/// What has become of look-ups and writes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub found: u64,
    pub missed: u64,
    /// Redis did not answer.
    pub away: u64,
    /// What stood there was none of ours.
    pub odd: u64,
    pub written: u64,
    /// The queue was full, or Redis did not take it.
    pub dropped: u64,
    /// Entries that are to be written, and their bytes, in whole KiB.
    pub queued: usize,
    pub queued_bytes: u64,
}

/// Whether an answer that is under way will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Concurrent requests look once.
    Together,
    /// After what has just been written.
    Anew,
}

/// What is looked for.
#[derive(Clone, Copy)]
pub struct Sought<'a> {
    pub key: &'a Key,
    /// Of the request.
    pub fields: &'a HeaderMap,
    pub policy: &'a Arc<Policy>,
    pub sharing: &'a Sharing,
    /// What is found is what these leave of it.
    pub tombstones: &'a Tombstones,
}

/// What stands in one place.
#[derive(Clone)]
enum Read {
    Nothing,
    Varies(Vary),
    Record(Arc<Record>),
}

/// What stands there for one request.
enum Located {
    /// And what is found if it turns out to be purged.
    Record(Arc<Record>, Found),
    Missing(Found),
}

impl SharedCache {
    /// To be called in a runtime. Writes what waits when it is dropped.
    pub fn open(redis: Arc<Redis>, bounds: &Bounds) -> Self {
        let writes = Arc::default();
        Self {
            queue: Queue::open(redis.clone(), bounds, Arc::clone(&writes)),
            redis,
            flights: Arc::default(),
            writes,
            reads: Arc::default(),
        }
    }

    /// What a request that begins now may wait, for all that it asks.
    pub fn patience(&self) -> Patience {
        self.redis.patience()
    }

    /// What all gateways keep for this request. An error says that Redis did not answer: there is no use in asking it
    /// more for this request.
    pub async fn find(
        &self,
        sought: &Sought<'_>,
        look: Look,
        patience: &mut Patience,
    ) -> Result<Found, Away> {
        let wanted = Wanted::of(sought);
        let located = self.locate(&wanted, sought.fields, look, &self.reads, patience);
        Ok(match located.await? {
            Located::Record(record, missing) => record.found(sought.tombstones, missing),
            Located::Missing(missing) => missing,
        })
    }

    /// As [`Self::find`], with what stands there whatever was purged, and what has purged it. Counts as no look-up.
    pub async fn look(
        &self,
        sought: &Sought<'_>,
    ) -> Result<(Found, Option<(Entry, Option<Cause>)>), Away> {
        let uncounted = Arc::default();
        let wanted = Wanted::of(sought);
        let mut patience = self.patience();
        let located = self.locate(
            &wanted,
            sought.fields,
            Look::Anew,
            &uncounted,
            &mut patience,
        );
        Ok(match located.await? {
            Located::Record(record, missing) => {
                let written = (record.as_written(), record.purged_by(sought.tombstones));
                (record.found(sought.tombstones, missing), Some(written))
            }
            Located::Missing(missing) => (missing, None),
        })
    }

    /// Finds what stands there, whatever was purged.
    async fn locate(
        &self,
        wanted: &Wanted,
        request: &HeaderMap,
        look: Look,
        reads: &Arc<Reads>,
        patience: &mut Patience,
    ) -> Result<Located, Away> {
        let place = self.place(&wanted.key);
        let first = self.read(place.first(), wanted, look, reads, patience);
        let vary = match first.await? {
            Read::Record(record) if record.entry.facts.vary.is_empty() => {
                return Ok(Located::Record(record, Found::Nothing));
            }
            Read::Nothing | Read::Record(_) => return Ok(Located::Missing(Found::Nothing)),
            Read::Varies(vary) => vary,
        };
        let variant = match vary.variant(request, &wanted.policy) {
            Ok(variant) => variant,
            Err(UnnamedCookie) => return Ok(Located::Missing(Found::UnnamedCookie)),
        };
        let missing = Found::OtherVariants(variant.digest());
        let name = place.variant(variant.digest());
        let read = self.read(&name, wanted, look, reads, patience);
        let Read::Record(record) = read.await? else {
            return Ok(Located::Missing(missing));
        };
        let facts = &record.entry.facts;
        let is_it = facts.vary == vary && facts.variant.bytes() == variant.bytes();
        Ok(match is_it {
            true => Located::Record(record, missing),
            false => Located::Missing(missing),
        })
    }

    /// Has an entry written that is whole. `has_body`: it was there before, and only what is told of it
    /// has changed. Who waits for `held` is told when it is written.
    pub fn store(
        &self,
        key: &Key,
        entry: Arc<Entry>,
        sharing: &Sharing,
        has_body: bool,
        held: Option<Held>,
    ) {
        self.queue.push(Write {
            place: self.place(key),
            key: key.clone(),
            entry,
            sharing: *sharing,
            has_body,
            held,
        });
    }

    /// Whose turn it is to ask the origin for this key, of this variant where that is known.
    pub async fn take(
        &self,
        key: &Key,
        variant: Option<Digest>,
        sharing: &Sharing,
        patience: &mut Patience,
    ) -> Result<Turn, Away> {
        let name = self.place(key).lock(variant);
        lock::take(&self.redis, name, sharing.fill_lock, patience).await
    }

    /// Waits until the gateway whose turn it is has stored what it fetched, no longer than `until`. A Redis that
    /// answers costs no patience here: it is the other gateway that is waited for.
    pub async fn wait(
        &self,
        key: &Key,
        variant: Option<Digest>,
        until: Instant,
        patience: &Patience,
    ) -> Result<Waited, Away> {
        let name = self.place(key).lock(variant);
        lock::wait(&self.redis, &name, until, patience.left()).await
    }

    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            found: read(&self.reads.found),
            missed: read(&self.reads.missed),
            away: read(&self.reads.away),
            odd: read(&self.reads.odd),
            written: read(&self.writes.written),
            dropped: read(&self.writes.dropped),
            queued: self.writes.queued.load(Ordering::Relaxed),
            queued_bytes: self.queue.bytes(),
        }
    }

    /// Logs what has become of look-ups and writes.
    pub fn log_status(&self) {
        let Counts {
            found,
            missed,
            away,
            odd,
            written,
            dropped,
            queued,
            ..
        } = self.counts();
        tracing::info!(
            found,
            missed,
            away,
            odd,
            written,
            dropped,
            queued,
            "entries in Redis"
        );
    }

    /// Waits until what waits now is written, no longer than `patience`.
    pub async fn written(&self, patience: Duration) {
        self.queue.written(patience).await;
    }

    fn place(&self, key: &Key) -> Place {
        Place::of(&self.redis.key(""), key.digest())
    }

    async fn read(
        &self,
        name: &str,
        wanted: &Wanted,
        look: Look,
        reads: &Arc<Reads>,
        patience: &mut Patience,
    ) -> Result<Read, Away> {
        let reading = |deadline| {
            reading(
                self.redis.clone(),
                reads.clone(),
                name.into(),
                wanted.clone(),
                deadline,
            )
        };
        let asked = patience.ask(async |left| match look {
            Look::Together => {
                // Others may have more time.
                let joined = self.flights.join(name, reading(self.redis.deadline()));
                let read = timeout(left, joined).await;
                read.map_or(Err(Away::Deadline), |read| {
                    read.unwrap_or(Ok(Read::Nothing))
                })
            }
            Look::Anew => reading(left).await,
        });
        asked.await
    }
}

/// What is looked for, and how it is read.
#[derive(Clone)]
struct Wanted {
    key: Key,
    policy: Arc<Policy>,
    largest_object: u64,
}

impl Wanted {
    fn of(sought: &Sought<'_>) -> Self {
        Self {
            key: sought.key.clone(),
            policy: sought.policy.clone(),
            largest_object: sought.sharing.largest_object,
        }
    }
}

/// Reads what stands under one name, and counts it.
async fn reading(
    redis: Arc<Redis>,
    reads: Arc<Reads>,
    name: Box<str>,
    wanted: Wanted,
    deadline: Duration,
) -> Result<Read, Away> {
    let mut command = cmd("HMGET");
    command
        .arg(&*name)
        .arg(&["meta", "vary", record::PLAIN, record::ZSTD]);
    let count = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
    let asked = redis.ask_within(Lane::Bodies, deadline, &command);
    let fields: [Option<Vec<u8>>; 4] = match asked.await {
        Ok(fields) => fields,
        // It has answered: what stands there is no hash, or no text.
        Err(Away::Unexpected) => {
            count(&reads.odd);
            return Ok(Read::Nothing);
        }
        Err(away) => {
            count(&reads.away);
            return Err(away);
        }
    };
    if fields.iter().all(Option::is_none) {
        count(&reads.missed);
        return Ok(Read::Nothing);
    }
    let read = match fields.iter().flatten().map(Vec::len).sum::<usize>() > LARGE {
        false => understood(fields, &wanted),
        true => {
            let understanding = move || understood(fields, &wanted);
            let understood = tokio::task::spawn_blocking(understanding).await;
            understood.unwrap_or(None)
        }
    };
    match &read {
        Some(Read::Record(_)) => count(&reads.found),
        Some(Read::Nothing) => count(&reads.missed),
        // Its variant is counted.
        Some(Read::Varies(_)) => 0,
        None => count(&reads.odd),
    };
    Ok(read.unwrap_or(Read::Nothing))
}

/// `None` if these are no fields of ours.
fn understood(fields: [Option<Vec<u8>>; 4], wanted: &Wanted) -> Option<Read> {
    let [meta, vary, plain, zstd] = fields;
    if let Some(vary) = vary {
        return Some(Read::Varies(Vary::read(&vary)?));
    }
    let body = match (plain, zstd) {
        (Some(plain), None) => Stored::Plain(Bytes::from(plain)),
        (None, Some(zstd)) => Stored::Zstd(Bytes::from(zstd)),
        _ => return None,
    };
    let Wanted {
        key,
        policy,
        largest_object,
    } = wanted;
    let record = Record::read(&meta?, body, key, policy, *largest_object)?;
    let is_kept = record.entry.kept_until() > SystemTime::now();
    Some(match is_kept {
        true => Read::Record(Arc::new(record)),
        false => Read::Nothing,
    })
}
