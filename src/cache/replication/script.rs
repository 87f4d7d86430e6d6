//! What Redis does in one step. All is of two keys in one slot:
//!
//! - the history: a sorted set of purged scopes by the number of their last purge, with the last number of all, and
//!   the floor: purges up to that number may be missing from it
//! - the gateways: a sorted set of who listens, by the time of Redis at which each was last heard of

use std::sync::LazyLock;

use redis::Script;

/// Gives a purge its number, keeps it and tells everybody.
///
/// KEYS history, gateways; ARGV channel, the highest number known to the purger, scopes to be kept, who purges,
/// token, then scopes. Returns number, now, gateways with times.
pub static PURGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000000 + time[2]
        local last = tonumber(redis.call('ZSCORE', KEYS[1], 'last') or 0)
        local number = math.max(last, tonumber(ARGV[2])) + 1
        number = math.max(number, now)
        local text = string.format('%.0f', number)
        if last == 0 then
            redis.call('ZADD', KEYS[1], string.format('%.0f', number - 1), 'floor')
        end
        redis.call('ZADD', KEYS[1], text, 'last')
        for at = 6, #ARGV do
            redis.call('ZADD', KEYS[1], text, ARGV[at])
        end
        local surplus = redis.call('ZCARD', KEYS[1]) - 2 - tonumber(ARGV[3])
        if surplus > 0 then
            local gone = redis.call('ZPOPMIN', KEYS[1], surplus + 1)
            redis.call('ZADD', KEYS[1], gone[#gone], 'floor')
        end
        local parts = { text, string.format('%.0f', last), ARGV[4], ARGV[5] }
        for at = 6, #ARGV do
            parts[#parts + 1] = ARGV[at]
        end
        redis.call('PUBLISH', ARGV[1], table.concat(parts, ' '))
        local there = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
        return { text, string.format('%.0f', now), there }
        ",
    )
});

/// Says that a gateway lives, and reads what it may have missed.
///
/// KEYS history, gateways; ARGV the highest number up to which the gateway has heard everything, who it is, how long
/// the others of its name may have been silent, how long anybody may, in microseconds, and 1 if it heard everything that was published
/// since it was here, else 0. Returns last number, floor, count of scopes, now, gateways with times, scopes with numbers.
pub static LIVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000000 + time[2]
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
            missed = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf', 'WITHSCORES')
        end
        return {
            last, redis.call('ZSCORE', KEYS[1], 'floor'), redis.call('ZCARD', KEYS[1]) - 2,
            string.format('%.0f', now), there, missed
        }
        ",
    )
});

/// Writes back what a Redis has forgotten.
///
/// KEYS history; ARGV the highest number known, the floor of who knows, then numbers and scopes in turn.
pub static RESTORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        redis.call('ZADD', KEYS[1], 'GT', ARGV[1], 'last')
        redis.call('ZADD', KEYS[1], 'LT', ARGV[2], 'floor')
        for at = 3, #ARGV, 2 do
            redis.call('ZADD', KEYS[1], 'GT', ARGV[at], ARGV[at + 1])
        end
        ",
    )
});
