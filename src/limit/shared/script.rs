//! What Redis does in one step with a bucket of all gateways. All is of one key, a hash:
//!
//! - `level`: tokens that nobody holds, below nothing if more was used than there was; `at`: when it was filled last
//! - `burst`: tokens of a full bucket; `ends`: when the counter of a day or month begins anew, else 0
//! - one field for each lease: the tokens it may still hold, when it ends, the number of its last question, and what has
//!   been taken from the level for it in all
//!
//! The level and all leases together never hold more than the burst: whatever is spent in any time was there at its
//! beginning or has flowed in since.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Script, ScriptInvocation};

/// Times are in microseconds of the clock of Redis, amounts in tokens.
///
/// KEYS the bucket; ARGV the lease ("" is none: what is given is spent), the number of the question, its balance, the
/// balance that the last answer left; what it keeps, what it believes to hold; what it needs at least, what it wants;
/// burst, interval of a token (0: a counter), begin and end of the counter (0, 0: a bucket), life of a lease; the level
/// at the last answer and the time since that question ("", "": not known); what lies at most in a bucket of which
/// nothing stands here ("": the burst); when that was asked. Returns a word, what is given, the level,
/// the time until what is needed is there, now, how long the lease lasts, 1 if the bucket was full, and how much may flow
/// in before it is. The words: `taken`; `anew`, nothing was
/// known of this lease and what it kept is void; `elsewhen`, the counter is of another time; `late`, it has asked since,
/// or so long ago that nobody remembers.
pub static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local function text(number)
            return string.format('%.17g', number)
        end
        local time = redis.call('TIME')
        local now = time[1] * 1000000 + time[2]
        local id, asked = ARGV[1], tonumber(ARGV[17])
        local number, balance, told = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
        local kept, believed = tonumber(ARGV[5]), tonumber(ARGV[6])
        local need, want = tonumber(ARGV[7]), tonumber(ARGV[8])
        local burst, interval = tonumber(ARGV[9]), tonumber(ARGV[10])
        local begins, ends, life = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
        local known, since, fresh = tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16])
        if ends > 0 and (now < begins or now >= ends) then
            return { 'elsewhen', 0, '0', 0, now, 0, 0, 0 }
        end

        if now - asked > life then
            return { 'late', 0, '0', 0, now, 0, 0, 0 }
        end

        local function flowed(passed)
            if interval > 0 then
                return passed / interval
            end
            return 0
        end

        local level, at, depth, window, own, out, ended = nil, now, burst, 0, nil, 0, 0
        local over = {}
        local fields = redis.call('HGETALL', KEYS[1])
        for place = 1, #fields, 2 do
            local name, value = fields[place], fields[place + 1]
            if name == 'level' then
                level = tonumber(value)
            elseif name == 'at' then
                at = tonumber(value)
            elseif name == 'burst' then
                depth = tonumber(value)
            elseif name == 'ends' then
                window = tonumber(value)
            else
                local held, until_, last, account = string.match(value, '^(%S+) (%S+) (%S+) (%S+)$')
                if name == id then
                    own = { held = tonumber(held), number = tonumber(last), account = tonumber(account) }
                elseif tonumber(until_) <= now then
                    over[#over + 1] = name
                    ended = ended + tonumber(held)
                else
                    out = out + tonumber(held)
                end
            end
        end
        if own and number <= own.number then
            return { 'late', 0, '0', 0, now, 0, 0, 0 }
        end
        if level and ends > 0 and window <= now then
            redis.call('DEL', KEYS[1])
            level, own, out, ended, over = nil, nil, 0, 0, {}
        end

        if level then
            -- Who has asked since knows that no more time can have passed, whatever became of the clock.
            local passed = math.max(0, now - at)
            if since then
                passed = math.min(passed, since)
            end
            level = level + burst - depth + flowed(passed)
        else
            level = burst
            if known then
                level = known + flowed(since)
            end
            if fresh then
                level = math.min(level, fresh)
            end
        end
        local held, word = 0, 'taken'
        if own then
            held = own.held
        else
            -- What others may have had meanwhile cannot be kept too.
            kept, word = 0, 'anew'
        end
        -- What was spent of leases may have been spent just now: nothing has flowed into its place.
        local room = burst - out - held - ended
        local runs_over = 0
        if level >= room then
            level, runs_over = room, 1
        end
        -- More is not owed than a burst; what was used of a larger one before is.
        local least = math.min(-burst, level)
        if own then
            level = level - (balance - own.account)
        else
            if believed > 0 and known then
                level = math.min(level, known + flowed(since))
            end
            local owed = balance - told
            if id ~= '' then
                owed = math.max(0, owed)
            end
            level = level - owed
        end
        level = math.max(least, math.min(level, burst - out - kept))

        local grant = 0
        if want > 0 and level >= need then
            grant = math.max(need, math.min(want, math.floor(level / 2)))
        end
        level = level - grant
        local lasts = life
        if ends > 0 then
            lasts = math.min(life, ends - now)
        end
        redis.call('HSET', KEYS[1], 'level', text(level), 'at', text(now), 'burst', text(burst), 'ends', text(ends))
        if id ~= '' then
            -- Also of one that was returned: a question before that may be on its way.
            redis.call('HSET', KEYS[1], id, table.concat({
                text(kept + grant), text(now + lasts), text(number), text(balance + grant)
            }, ' '))
        end
        if #over > 0 then
            redis.call('HDEL', KEYS[1], unpack(over))
        end
        -- When all is there again nothing need be known of it.
        local whole = ends - now
        if interval > 0 then
            whole = lasts + (burst - level) * interval
        end
        redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil(whole / 1000) + 1))

        local wait = 0
        if grant == 0 and level < need then
            wait = ends - now
            if interval > 0 then
                wait = math.ceil((need - level) * interval)
            end
        end
        local free = math.max(0, math.floor(burst - out - kept - grant - level))
        return { word, grant, text(level), wait, now, lasts, runs_over, free }
        ",
    )
});

/// Fills a bucket up to what lies in leases.
///
/// KEYS the bucket. Returns 1 if there was one.
pub static FILL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local burst = redis.call('HGET', KEYS[1], 'burst')
        if not burst then
            return 0
        end
        burst = tonumber(burst)
        for _, value in ipairs(redis.call('HVALS', KEYS[1])) do
            local held = string.match(value, '^(%S+) %S+ %S+ %S+$')
            if held then
                burst = burst - tonumber(held)
            end
        end
        redis.call('HSET', KEYS[1], 'level', string.format('%.17g', burst))
        return 1
        ",
    )
});

/// Says that a gateway lives, agrees on a secret, and finds out whether buckets may have been lost.
///
/// KEYS the gateways, the secret, the memory; ARGV who it is, how long the others may have been silent, the secret it
/// proposes ("" is none), and the name of the memory it knows ("" is none). Returns now, how many gateways there are, the
/// secret, the name of the memory, and when another one was lost (0: none was).
pub static LIVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000000 + time[2]
        redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
        redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - tonumber(ARGV[2])))
        -- A clock that was set back leaves gateways in the future.
        redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
        redis.call('PEXPIRE', KEYS[1], 60000)
        local secret = ARGV[3]
        if secret ~= '' then
            redis.call('SET', KEYS[2], secret, 'NX')
            secret = redis.call('GET', KEYS[2])
        end
        -- What was known here and is gone took the buckets with it, or some of them.
        local memory = redis.call('HMGET', KEYS[3], 'name', 'lost')
        local name, lost = memory[1], tonumber(memory[2] or 0)
        local is_lost = ARGV[4] ~= '' and ARGV[4] ~= name and lost == 0
        if is_lost then
            lost = now
        end
        if is_lost or not name then
            -- Never a name that there was: the others are to notice too.
            name = name or (ARGV[1] .. '.' .. string.format('%.0f', now))
            redis.call('HSET', KEYS[3], 'name', name, 'lost', string.format('%.0f', lost))
        end
        return { now, redis.call('ZCARD', KEYS[1]), secret, name, lost }
        ",
    )
});

/// What a bucket of all gateways is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Tokens of a full bucket, or of a whole day or month.
    pub burst: u64,
    /// Microseconds from one token to the next; 0 for a counter of the calendar.
    pub interval: f64,
}

impl Shape {
    /// Of the calendar; what flows in flows in at its end.
    pub fn is_counter(self) -> bool {
        self.interval == 0.0
    }
}

/// One question about one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Question {
    /// The lease of this gateway; 0: what is given is spent at once.
    pub lease: u64,
    /// Grows with each question of the lease.
    pub number: u64,
    /// What should have been taken from the level for this lease in all.
    pub balance: i64,
    /// What it was after the last answer.
    pub told: i64,
    /// Tokens that the lease keeps.
    pub kept: u64,
    /// Whether it held any when Redis last answered.
    pub believed: bool,
    /// Less than this is of no use.
    pub need: u64,
    /// 0: nothing is to be given.
    pub want: u64,
    /// Begin and end of the stretch of the calendar, in microseconds; 0 and 0 for a bucket.
    pub window: (i64, i64),
    /// The level at the last answer, and the microseconds since that question.
    pub known: Option<(f64, u64)>,
    /// The time of Redis when it is asked, in microseconds.
    pub asked: i64,
}

/// What Redis says to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Taken(Grant),
    /// The clock of Redis stands in another stretch of the calendar.
    Elsewhen {
        now: i64,
    },
    /// A later question of this lease was answered already, or it is too old.
    Late,
}

/// What was given, and how the bucket stands then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grant {
    pub tokens: u64,
    /// Nothing was known of the lease: what it kept is void.
    pub is_anew: bool,
    pub level: f64,
    /// Until there is what was needed, if there was not.
    pub wait: Duration,
    /// Unix time of Redis, in microseconds.
    pub now: i64,
    /// How long the tokens may be spent.
    pub lasts: Duration,
    /// There was no room for more.
    pub was_full: bool,
    /// So many may flow in before there is none.
    pub free: u64,
}

/// How long a lease lasts that is not renewed: so long the tokens of a gateway that died are missing.
pub const LIFE: Duration = Duration::from_secs(10);

/// The answer of [`TAKE`] as it is read.
pub type Told = (String, u64, f64, u64, i64, u64, u8, u64);

impl Question {
    /// The call for the bucket `key` by a gateway; `fresh` is at most in a bucket that Redis knows nothing of.
    pub fn call(
        &self,
        key: &str,
        gateway: &str,
        shape: Shape,
        fresh: Option<f64>,
    ) -> ScriptInvocation<'static> {
        let lease = match self.lease {
            0 => String::new(),
            name => format!("{gateway}.{name}"),
        };
        let mut call = TAKE.prepare_invoke();
        call.key(key).arg(lease);
        call.arg(self.number).arg(self.balance).arg(self.told);
        call.arg(self.kept).arg(u8::from(self.believed));
        call.arg(self.need).arg(self.want);
        call.arg(shape.burst).arg(shape.interval);
        call.arg(self.window.0).arg(self.window.1);
        call.arg(LIFE.as_micros() as u64);
        match self.known {
            Some((level, since)) => call.arg(level).arg(since),
            None => call.arg("").arg(""),
        };
        match fresh {
            Some(level) => call.arg(level),
            None => call.arg(""),
        };
        call.arg(self.asked);
        call
    }
}

impl Answer {
    /// `None`: no answer that the script gives.
    pub fn of((word, tokens, level, wait, now, lasts, was_full, free): Told) -> Option<Self> {
        Some(match &*word {
            "taken" | "anew" => Self::Taken(Grant {
                tokens,
                is_anew: word == "anew",
                level,
                wait: Duration::from_micros(wait),
                now,
                lasts: Duration::from_micros(lasts),
                was_full: was_full == 1,
                free,
            }),
            "elsewhen" => Self::Elsewhen { now },
            "late" => Self::Late,
            _ => return None,
        })
    }
}
