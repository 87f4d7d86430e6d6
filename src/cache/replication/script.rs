//! What Redis does in one step. All is of a few keys in one slot, [`KEYS`]:
//!
//! - `history`: a sorted set of numbers: `last` of all, and the `floor`: purges up to that number may be missing. A
//!   letter for each of the following that there is, so that it is noticed when Redis evicts one of them alone
//! - `gateways`: a sorted set of who listens, by the time of Redis at which each was last heard of
//! - `urls`, `tags`, `places`: sorted sets of purged scopes, by the number of their last purge. Each has room for
//!   so many; then the oldest go into `buckets`, which has as many as there are
//! - `quarantined`: a hash of the keys that are kept out of the cache, by their digests; see `quarantine`

use std::fmt::Write;
use std::sync::LazyLock;

use redis::Script;

use crate::cache::scope::Kind;

/// The names of the keys of every script, in this order.
pub const KEYS: [&str; 7] = [
    "history",
    "gateways",
    "buckets",
    "urls",
    "tags",
    "places",
    "quarantined",
];

/// What is folded by one call, so that none takes long.
const MOST_FOLDED: usize = 2000;

/// Gives a purge its number, keeps it and tells everybody.
///
/// ARGV channel, the highest number known to the purger, who purges, token, then scopes. Returns number, now, gateways
/// with times.
pub static PURGE: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
        local now = microseconds()
        local last = tonumber(redis.call('ZSCORE', KEYS[1], 'last') or 0)
        local number = math.max(last, tonumber(ARGV[2])) + 1
        number = math.max(number, now)
        local text = string.format('%.0f', number)
        if last == 0 then
            redis.call('ZADD', KEYS[1], string.format('%.0f', number - 1), 'floor')
        end
        notice_evicted(string.format('%.0f', last))
        redis.call('ZADD', KEYS[1], text, 'last')
        local parts = { text, string.format('%.0f', last), ARGV[3], ARGV[4] }
        for at = 5, #ARGV do
            keep(text, ARGV[at])
            parts[#parts + 1] = ARGV[at]
        end
        fold()
        redis.call('PUBLISH', ARGV[1], table.concat(parts, ' '))
        local there = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
        return { text, string.format('%.0f', now), there }
        ",
    )
});

/// Says that a gateway lives, and reads what it may have missed.
///
/// ARGV the highest number up to which the gateway has heard everything, who it is, how long the others of its name may
/// have been silent, how long anybody may, in microseconds, and 1 if it heard everything that was published since it was
/// here, else 0. Returns last number, floor, now, gateways with times, scopes with numbers, birth and number of the list of
/// quarantined keys.
pub static LIVE: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
        local now = microseconds()
        local heard = tonumber(ARGV[1])
        local last = redis.call('ZSCORE', KEYS[1], 'last')
        if not last then
            -- Who has missed nothing knows what the last one was; for anybody else, something may be gone.
            last = ARGV[1]
            if ARGV[5] == '0' then
                last = string.format('%.0f', math.max(now, heard))
            end
            redis.call('ZADD', KEYS[1], last, 'last', last, 'floor')
        end
        notice_evicted(last)
        redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[2])
        redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now - tonumber(ARGV[4])))
        local name = string.match(ARGV[2], '^%S+ ')
        local silent = string.format('(%.0f', now - tonumber(ARGV[3]))
        for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', silent)) do
            if string.sub(other, 1, #name) == name then
                redis.call('ZREM', KEYS[2], other)
            end
        end
        local there = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
        local missed = {}
        if tonumber(last) > heard then
            for _, set in pairs(sets) do
                local of_set = redis.call('ZRANGEBYSCORE', set, '(' .. ARGV[1], '+inf', 'WITHSCORES')
                for at = 1, #of_set do
                    missed[#missed + 1] = of_set[at]
                end
            end
        end
        local floor = redis.call('ZSCORE', KEYS[1], 'floor')
        local list = redis.call('HMGET', KEYS[7], 'born', 'number')
        return { last, floor, string.format('%.0f', now), there, missed, list }
        ",
    )
});

/// Writes back what a Redis has forgotten.
///
/// ARGV the highest number known, the floor of who knows, then numbers and scopes in turn.
pub static RESTORE: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
        redis.call('ZADD', KEYS[1], 'GT', ARGV[1], 'last')
        redis.call('ZADD', KEYS[1], 'LT', ARGV[2], 'floor')
        for at = 3, #ARGV, 2 do
            keep(ARGV[at], ARGV[at + 1])
        end
        fold()
        ",
    )
});

/// With what all scripts share: `sets` by letter, and some functions.
pub fn script(body: &str) -> Script {
    let mut text = String::from("local sets = { b = KEYS[3] }\nlocal rooms, widths = {}, {}\n");
    for (index, kind) in Kind::ALL.into_iter().enumerate() {
        let (letter, room) = (kind.letter(), kind.room());
        // Behind a letter for the strength and one for the kind.
        let width = 2 + kind.bucket_digits();
        let key = index + 4;
        writeln!(
            text,
            "sets.{letter}, rooms.{letter}, widths.{letter} = KEYS[{key}], {room}, {width}"
        )
        .expect("a string takes every write");
    }
    writeln!(text, "local most_folded = {MOST_FOLDED}").expect("a string takes every write");
    Script::new(&format!("{text}{SHARED}{body}"))
}

const SHARED: &str = r"
local function microseconds()
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end

local function keep(number, scope)
    local letter = string.sub(scope, 2, 2)
    if #scope == widths[letter] then
        letter = 'b'
    end
    redis.call('ZADD', sets[letter], 'GT', number, scope)
    redis.call('ZADD', KEYS[1], 'GT', number, letter)
end

local function fold()
    for letter, room in pairs(rooms) do
        local surplus = redis.call('ZCARD', sets[letter]) - room
        if surplus > 0 then
            local oldest = redis.call('ZPOPMIN', sets[letter], math.min(surplus, most_folded))
            for at = 1, #oldest, 2 do
                keep(oldest[at + 1], string.sub(oldest[at], 1, widths[letter]))
            end
        end
    end
end

local function notice_evicted(last)
    for letter, set in pairs(sets) do
        if redis.call('ZSCORE', KEYS[1], letter) and redis.call('EXISTS', set) == 0 then
            redis.call('ZREM', KEYS[1], letter)
            redis.call('ZADD', KEYS[1], last, 'floor')
        end
    end
end

-- Of a change of the list of quarantined keys.
local function tell(channel, who, token, lines)
    local born, before = unpack(redis.call('HMGET', KEYS[7], 'born', 'number'))
    local number = redis.call('HINCRBY', KEYS[7], 'number', 1)
    local head = table.concat({ born, number, before, who, token }, ' ')
    redis.call('PUBLISH', channel, head .. lines)
    return number
end
";
