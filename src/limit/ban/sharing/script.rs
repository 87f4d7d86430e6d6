//! What Redis does in one step. All is of two keys in one slot:
//!
//! - ends: a sorted set of clients by when their bans end, in milliseconds of the time of Redis
//! - told: a hash of what is told of each, behind the time at which it happened: a ban, or the word `lifted`
//!
//! A ban that was lifted stays there as lifted for a while: a gateway that was cut off is not to bring it back.

use std::sync::LazyLock;

use redis::Script;

/// Before each: the time, and a way to forget what is over.
const BEGIN: &str = r"
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local function text(number)
        return string.format('%.0f', number)
    end
    local function tidy(most)
        for _, client in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now), 'LIMIT', 0, 1000)) do
            redis.call('ZREM', KEYS[1], client)
            redis.call('HDEL', KEYS[2], client)
        end
        local surplus = redis.call('ZCARD', KEYS[1]) - most
        if surplus > 0 then
            local gone = redis.call('ZPOPMIN', KEYS[1], surplus)
            for at = 1, #gone, 2 do
                redis.call('HDEL', KEYS[2], gone[at])
            end
        end
        local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
        if last then
            redis.call('PEXPIREAT', KEYS[1], text(tonumber(last)))
            redis.call('PEXPIREAT', KEYS[2], text(tonumber(last)))
        end
    end
";

fn script(rest: &str) -> Script {
    Script::new(&[BEGIN, rest].concat())
}

/// Keeps bans and tells everybody, but for those that end later there already, or were lifted since.
///
/// KEYS ends, told; ARGV channel, bans to be kept, who tells, then for each ban the client, for how long it stands still and
/// how long ago it was made, both in milliseconds, and what is told.
pub static BAN: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
        for at = 4, #ARGV, 4 do
            local client, left, age, ban = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
            local ends, made = now + tonumber(left), now - tonumber(age)
            local before = tonumber(redis.call('ZSCORE', KEYS[1], client) or 0)
            local told = redis.call('HGET', KEYS[2], client)
            local lifted = told and string.match(told, '^(%d+) lifted$')
            local outlasted = told and not lifted and before + 1000 >= ends
            if not outlasted and not (lifted and tonumber(lifted) > made) then
                redis.call('ZADD', KEYS[1], text(ends), client)
                redis.call('HSET', KEYS[2], client, text(made) .. ' ' .. ban)
                redis.call('PUBLISH', ARGV[1], table.concat({ ARGV[3], client, left, age, ban }, ' '))
            end
        end
        tidy(tonumber(ARGV[2]))
        ",
    )
});

/// Keeps that bans were lifted, and tells everybody, but for bans that were made since.
///
/// KEYS ends, told; ARGV channel, bans to be kept, who tells, for how long to remember it at least, in milliseconds, then
/// for each the client and how long ago it was lifted.
pub static LIFT: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
        for at = 5, #ARGV, 2 do
            local client, age = ARGV[at], tonumber(ARGV[at + 1])
            local told = redis.call('HGET', KEYS[2], client)
            local made = told and tonumber(string.match(told, '^(%d+) '))
            if not made or made <= now - age then
                local before = tonumber(redis.call('ZSCORE', KEYS[1], client) or 0)
                redis.call('ZADD', KEYS[1], text(math.max(before, now + tonumber(ARGV[4]))), client)
                redis.call('HSET', KEYS[2], client, text(now - age) .. ' lifted')
                redis.call('PUBLISH', ARGV[1], table.concat({ ARGV[3], client, '0', text(age), 'lifted' }, ' '))
            end
        end
        tidy(tonumber(ARGV[2]))
        ",
    )
});

/// Reads what is told, those that end first first.
///
/// KEYS ends, told; ARGV from which end on, or empty from now on, and how many. Returns now, then for each the client,
/// its end and what is told.
pub static READ: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
        local from = ARGV[1]
        if from == '' then
            from = '(' .. text(now)
        end
        local found = redis.call('ZRANGEBYSCORE', KEYS[1], from, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
        local all = {}
        for at = 1, #found, 2 do
            local told = redis.call('HGET', KEYS[2], found[at])
            all[#all + 1] = { found[at], text(tonumber(found[at + 1])), told or '' }
        end
        return { text(now), all }
        ",
    )
});
