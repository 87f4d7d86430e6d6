//! The pages that visitors ask for most: found among what stands in memory, and told to all gateways in Redis, so that
//! one that starts knows what was wanted of those before it. Knows nothing of how pages are asked for.
//!
//! In Redis they are a sorted set of URLs.
//! The score of a page is the logarithm to base 2 of its hits, where each hit counts twice as much as one that is
//! older by a half-life: to the logarithm the time is added, in half-lives. So nothing that stands there has to be
//! aged, and gateways add to it in whatever order.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ::redis::{Script, cmd};

use super::entry::Entry;
use super::key::Key;
use super::memory::Memory;
use crate::redis::{Away, Lane, Redis};

/// After which a hit counts half as much.
const HALF_LIFE: Duration = Duration::from_secs(6 * 60 * 60);
/// Half-lives after which one hit is forgotten; ten times as many hits last three more.
const FADED: u32 = 8;
/// How long all is kept of which nobody tells any more.
const LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Pages that are told of at once: Redis does nothing else meanwhile.
const TOGETHER: usize = 500;
/// For one question.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longer URLs are not remembered.
pub const LONGEST: usize = 2048;

/// KEYS the set; ARGV how many pages are kept, half-life in seconds, half-lives until one hit is forgotten, life of the set in
/// milliseconds, then URLs with their hits. Returns for each whether it is kept.
static TELL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local function log2(number)
            return math.log(number) / math.log(2)
        end
        local time = redis.call('TIME')
        local now = (time[1] + time[2] / 1000000) / ARGV[2]
        for at = 5, #ARGV, 2 do
            local score = now + log2(tonumber(ARGV[at + 1]))
            local before = redis.call('ZSCORE', KEYS[1], ARGV[at])
            if before then
                local high = math.max(score, tonumber(before))
                local low = math.min(score, tonumber(before))
                score = high + log2(1 + 2 ^ (low - high))
            end
            redis.call('ZADD', KEYS[1], string.format('%.17g', score), ARGV[at])
        end
        local faded = string.format('%.17g', now - ARGV[3])
        redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', faded)
        redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[1])
        redis.call('PEXPIRE', KEYS[1], ARGV[4])
        local kept = {}
        for at = 5, #ARGV, 2 do
            kept[#kept + 1] = redis.call('ZSCORE', KEYS[1], ARGV[at]) and 1 or 0
        end
        return kept
        ",
    )
});

/// A page with hits that nobody was told of.
pub struct Popular {
    /// Its URL.
    page: String,
    hits: u32,
    /// Of these, each with its part of them.
    entries: Vec<(Arc<Entry>, u32)>,
}

/// The most-hit pages in memory, the first of them first: of keys of which `page` says the URL. Looks at all that stands there, so
/// it is not for a thread that serves requests.
pub fn most_hit(
    memory: &Memory,
    most: usize,
    page: impl Fn(&Key) -> Option<String>,
) -> Vec<Popular> {
    // By hits, and by turn among those of as many.
    let mut found: BTreeMap<(u32, usize), Popular> = BTreeMap::new();
    for (turn, stands) in memory.each().enumerate() {
        let untold = stands.variants().iter().map(|entry| entry.hits().untold());
        let hits = untold.fold(0, u32::saturating_add);
        let is_full = found.len() >= most;
        let least = found.keys().next().filter(|_| is_full);
        if hits <= least.map_or(0, |(hits, _)| *hits) {
            continue;
        }
        if let Some(page) = page(&stands.key()) {
            let entries = stands.variants().iter();
            let entries = entries.map(|entry| (entry.clone(), entry.hits().untold()));
            let popular = Popular {
                page,
                hits,
                entries: entries.collect(),
            };
            found.insert((hits, turn), popular);
            if is_full {
                found.pop_first();
            }
        }
    }
    found.into_values().rev().collect()
}

/// Adds their hits to those that Redis knows, which keeps at most `most` pages. The hits of one that is not kept are told
/// again when there are more, and so are all when Redis does not answer.
pub async fn tell(redis: &Redis, pages: &[Popular], most: usize) -> Result<(), Away> {
    for pages in pages.chunks(TOGETHER) {
        let mut script = TELL.key(key(redis));
        script.arg(most).arg(HALF_LIFE.as_secs()).arg(FADED);
        script.arg(LIFE.as_millis() as u64);
        for page in pages {
            script.arg(&page.page).arg(page.hits);
        }
        let kept: Vec<i64> = redis.run(Lane::Bodies, PATIENCE, &script).await?;
        let kept = pages.iter().zip(kept).filter(|(_, kept)| *kept == 1);
        kept.for_each(|(page, _)| page.told());
    }
    Ok(())
}

impl Popular {
    fn told(&self) {
        for (entry, hits) in &self.entries {
            entry.hits().tell(*hits);
        }
    }
}

/// The URLs of the `most` pages of the most hits, the most-hit first.
pub async fn hottest(redis: &Redis, most: usize) -> Result<Vec<String>, Away> {
    let Some(last) = most.checked_sub(1) else {
        return Ok(Vec::new());
    };
    let mut command = cmd("ZREVRANGE");
    command.arg(key(redis)).arg(0).arg(last);
    redis.ask_within(Lane::Bodies, PATIENCE, &command).await
}

fn key(redis: &Redis) -> String {
    redis.key("popular")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::{anonymous, get, kept};

    /// Memory with a page for each of these, given so often.
    fn memory(pages: &[(&str, u32)]) -> Memory {
        let memory = Memory::new(1 << 20);
        for (path, hits) in pages {
            let mut asked = get(&[]);
            (*path).clone_into(&mut asked.path);
            let (key, entry) = kept(&asked);
            (0..*hits).for_each(|_| entry.hits().count());
            assert!(memory.store(&key, entry, &anonymous()));
        }
        memory
    }

    fn any(key: &Key) -> Option<String> {
        Some(key.url().path.to_owned())
    }

    fn pages(found: &[Popular]) -> Vec<(&str, u32)> {
        let pages = found.iter().map(|one| (one.page.as_str(), one.hits));
        pages.collect()
    }

    #[test]
    fn the_pages_of_the_most_hits_are_found_in_their_order() {
        let memory = memory(&[("/a", 2), ("/b", 9), ("/c", 0), ("/d", 5), ("/e", 1)]);
        let most = |most| most_hit(&memory, most, any);
        assert_eq!(pages(&most(2)), [("/b", 9), ("/d", 5)]);
        let all = [("/b", 9), ("/d", 5), ("/a", 2), ("/e", 1)];
        assert_eq!(pages(&most(10)), all);
        let but_b = |key: &Key| any(key).filter(|path| path != "/b");
        let found = most_hit(&memory, 2, but_b);
        assert_eq!(pages(&found), [("/d", 5), ("/a", 2)]);
    }

    #[test]
    fn what_was_told_is_not_found_again_before_there_are_more_hits() {
        let memory = memory(&[("/a", 2), ("/b", 9)]);
        let found = most_hit(&memory, 1, any);
        found.iter().for_each(Popular::told);
        assert_eq!(pages(&most_hit(&memory, 2, any)), [("/a", 2)]);
        for stands in memory.each() {
            stands.variants()[0].hits().count();
        }
        let found = most_hit(&memory, 2, any);
        assert_eq!(pages(&found), [("/a", 3), ("/b", 1)]);
    }

    #[test]
    fn the_hits_of_a_page_outlive_its_renewal() {
        let memory = memory(&[("/a", 2)]);
        let mut asked = get(&[]);
        "/a".clone_into(&mut asked.path);
        let (key, renewed) = kept(&asked);
        assert!(memory.store(&key, renewed, &anonymous()));
        assert_eq!(pages(&most_hit(&memory, 1, any)), [("/a", 2)]);
    }
}
