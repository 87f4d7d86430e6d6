//! Who of all gateways asks the origin: one of them, as long as it lives and says so. The others wait
//! for what comes of it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ::redis::{Script, cmd};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::redis::{Away, Lane, Patience, Redis};

/// In place of a token: who leads has nothing for others.
const NOTHING_COMES: &[u8] = b"-";
/// How long that is said: longer than anybody pauses between two looks.
const SAID_FOR: Duration = Duration::from_millis(500);
/// Between two looks of who waits: doubled, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end \
         return redis.call('GET', KEYS[1])",
    )
});
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
         return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
    )
});
static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end \
         return 0",
    )
});
static END_IN_VAIN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then \
         redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end \
         return 0",
    )
});

/// Whose turn it is to ask the origin.
pub enum Turn {
    /// This gateway's.
    Ours(Held),
    /// Another one's, which has not ended.
    Theirs,
    /// Another one has asked, and has nothing for others.
    NothingComes,
}

/// What waiting for another gateway has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// It has ended, or died: what it stored is there.
    Ended,
    /// It has nothing for others, or it takes too long.
    InVain,
}

/// Takes the lock of this name for `life`, if it is free.
pub(super) async fn take(
    redis: &Arc<Redis>,
    name: String,
    life: Duration,
    patience: &mut Patience,
) -> Result<Turn, Away> {
    let token = uuid::Uuid::new_v4().simple().to_string();
    let mut script = TAKE.key(&name);
    script.arg(&token).arg(milliseconds(life));
    let asked = patience.ask(async |left| {
        let holder: Result<Option<Vec<u8>>, Away> = redis.run(Lane::Control, left, &script).await;
        if matches!(holder, Err(Away::Deadline | Away::Lost)) {
            // It may be ours all the same, and the others would wait for nobody.
            tokio::spawn(give_back(redis.clone(), name.clone(), token.clone()));
        }
        holder
    });
    let holder = asked.await?;
    Ok(match holder.as_deref() {
        None => Turn::Ours(Held::new(redis.clone(), name, token, life)),
        Some(NOTHING_COMES) => Turn::NothingComes,
        Some(_) => Turn::Theirs,
    })
}

/// Waits until the lock of this name is given back, no longer than `until`, and for each word of Redis no longer than
/// is `left`.
pub(super) async fn wait(
    redis: &Redis,
    name: &str,
    until: Instant,
    left: Duration,
) -> Result<Waited, Away> {
    let mut command = cmd("GET");
    command.arg(name);
    let mut pause = FIRST_PAUSE;
    while Instant::now() < until {
        let holder: Option<Vec<u8>> = redis.ask_within(Lane::Control, left, &command).await?;
        match holder.as_deref() {
            None => return Ok(Waited::Ended),
            Some(NOTHING_COMES) => return Ok(Waited::InVain),
            Some(_) => sleep(pause).await,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(Waited::InVain)
}

/// This gateway asks the origin, for all. As long as this lives the lock is renewed; when it is dropped
/// without a word, the others are told to ask for themselves.
pub struct Held {
    redis: Arc<Redis>,
    name: String,
    token: String,
    renewing: AbortHandle,
    /// It may be dropped where no runtime is.
    runtime: Handle,
    /// What the others wait for is stored.
    is_stored: bool,
}

impl Held {
    fn new(redis: Arc<Redis>, name: String, token: String, life: Duration) -> Self {
        let renewing = tokio::spawn(renew(redis.clone(), name.clone(), token.clone(), life));
        Self {
            redis,
            name,
            token,
            renewing: renewing.abort_handle(),
            runtime: Handle::current(),
            is_stored: false,
        }
    }

    /// What the others wait for stands in Redis.
    pub fn stored(mut self) {
        self.is_stored = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewing.abort();
        let (redis, is_stored) = (self.redis.clone(), self.is_stored);
        let (name, token) = (
            std::mem::take(&mut self.name),
            std::mem::take(&mut self.token),
        );
        self.runtime.spawn(async move {
            match is_stored {
                true => give_back(redis, name, token).await,
                false => end_in_vain(redis, name, token).await,
            }
        });
    }
}

/// If Redis does not hear it, the lock ends with its life.
async fn give_back(redis: Arc<Redis>, name: String, token: String) {
    let mut script = GIVE_BACK.key(name);
    script.arg(token);
    let _: Result<i64, Away> = redis.run(Lane::Control, redis.deadline(), &script).await;
}

/// As [`give_back`], and tells the others that nothing comes.
async fn end_in_vain(redis: Arc<Redis>, name: String, token: String) {
    let mut script = END_IN_VAIN.key(name);
    script.arg(token).arg(NOTHING_COMES);
    script.arg(milliseconds(SAID_FOR));
    let _: Result<i64, Away> = redis.run(Lane::Control, redis.deadline(), &script).await;
}

/// Renews a lock three times in its life, until it is somebody else's.
async fn renew(redis: Arc<Redis>, name: String, token: String, life: Duration) {
    let mut script = RENEW.key(name);
    script.arg(token).arg(milliseconds(life));
    loop {
        sleep(life / 3).await;
        let renewed = redis.run(Lane::Control, redis.deadline(), &script).await;
        if renewed == Ok(0) {
            return;
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
