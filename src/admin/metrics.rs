//! `GET /metrics`: the numbers of `GET /cache` and of the upstreams, in the text format of Prometheus.

use std::fmt::{Display, Write};
use std::time::Duration;

use super::cache::{MINUTES, tier};
use super::{Admin, Reply};
use crate::cache::redis::SharedCache;
use crate::limit::ban::{Mode, Tallied};
use crate::plan::Plan;
use crate::redis::Redis;
use crate::upstream::{Load, Priority};

pub(super) async fn metrics(admin: &Admin) -> Reply {
    let gateway = &admin.gateway;
    let mut page = Page::default();
    let plan = gateway.plan();
    routes(&mut page, &plan);
    limits(&mut page, &plan);
    upstreams(&mut page, &plan);
    let memory = gateway.memory();
    let (keys, bytes) = memory.size();
    page.gauge("tollgate_cache_memory_keys", keys);
    page.gauge("tollgate_cache_memory_bytes", bytes);
    page.gauge("tollgate_cache_memory_held_bytes", memory.held());
    page.gauge("tollgate_cache_memory_capacity_bytes", memory.capacity());
    page.family("tollgate_cache_memory_refused_total", "counter");
    page.sample("tollgate_cache_memory_refused_total", &[], memory.refused());
    page.gauge("tollgate_cache_quarantined", gateway.guard().list().len());
    bans(&mut page, &plan);
    if let Some(redis) = gateway.redis() {
        asked(&mut page, redis);
    }
    if let Some(shared_cache) = gateway.shared_cache() {
        shared(&mut page, shared_cache);
    }
    Reply::metrics(page.0)
}

fn routes(page: &mut Page, plan: &Plan) {
    page.family("tollgate_cache_requests_total", "counter");
    for (route, counters) in &plan.counters {
        for (from, answer, count) in counters.answers() {
            let labels = [
                ("route", &**route),
                ("tier", tier(from)),
                ("outcome", answer.as_str()),
            ];
            page.sample("tollgate_cache_requests_total", &labels, count);
        }
    }
    page.family("tollgate_cache_reasons_total", "counter");
    for (route, counters) in &plan.counters {
        for (reason, count) in counters.reasons() {
            let labels = [("route", &**route), ("reason", reason)];
            page.sample("tollgate_cache_reasons_total", &labels, count);
        }
    }
    page.family("tollgate_cache_hit_ratio", "gauge");
    for (route, counters) in &plan.counters {
        for minutes in MINUTES {
            let lookups = counters.lookups_since(Duration::from_secs(60 * minutes));
            if let Some(ratio) = lookups.ratio() {
                let labels = [("route", &**route), ("minutes", &minutes.to_string())];
                page.sample("tollgate_cache_hit_ratio", &labels, ratio);
            }
        }
    }
}

fn upstreams(page: &mut Page, plan: &Plan) {
    let loads: Vec<(&str, Load)> = plan
        .upstreams
        .iter()
        .map(|(name, upstream)| (name.as_str(), upstream.load()))
        .collect();
    page.family("tollgate_upstream_in_flight", "gauge");
    for (name, load) in &loads {
        let labels = [("upstream", *name)];
        page.sample("tollgate_upstream_in_flight", &labels, load.in_flight);
    }
    page.family("tollgate_upstream_limit", "gauge");
    for (name, load) in &loads {
        if let Some(limit) = load.limit {
            page.sample("tollgate_upstream_limit", &[("upstream", name)], limit);
        }
    }
    page.family("tollgate_upstream_quiet_seconds", "gauge");
    for (name, load) in &loads {
        if let Some(quiet) = load.quiet {
            let labels = [("upstream", *name)];
            let quiet = quiet.as_secs_f64();
            page.sample("tollgate_upstream_quiet_seconds", &labels, quiet);
        }
    }
    by_class(page, &loads, "tollgate_upstream_queued", "gauge", |load| {
        load.waiting.map(|count| count as u64)
    });
    let shed = "tollgate_upstream_shed_total";
    by_class(page, &loads, shed, "counter", |load| load.shed);
    page.family("tollgate_upstream_paced_total", "counter");
    for (name, load) in &loads {
        let labels = [("upstream", *name)];
        page.sample("tollgate_upstream_paced_total", &labels, load.paced);
    }
    page.family("tollgate_upstream_pauses_total", "counter");
    for (name, load) in &loads {
        let labels = [("upstream", *name)];
        page.sample("tollgate_upstream_pauses_total", &labels, load.pauses);
    }
    page.family("tollgate_upstream_pause_left_seconds", "gauge");
    for (name, load) in &loads {
        let labels = [("upstream", *name)];
        let left = load.paused.unwrap_or_default().as_secs_f64();
        page.sample("tollgate_upstream_pause_left_seconds", &labels, left);
    }
}

fn by_class<const N: usize>(
    page: &mut Page,
    loads: &[(&str, Load)],
    family: &str,
    kind: &str,
    counts: impl Fn(&Load) -> [u64; N],
) {
    page.family(family, kind);
    for (name, load) in loads {
        for (priority, count) in Priority::ALL.into_iter().zip(counts(load)) {
            let labels = [("upstream", *name), ("priority", priority.as_str())];
            page.sample(family, &labels, count);
        }
    }
}

fn bans(page: &mut Page, plan: &Plan) {
    let standing = plan.bans.standing();
    page.family("tollgate_bans", "gauge");
    for mode in Mode::ALL {
        let labels = [("mode", mode.as_str())];
        page.sample("tollgate_bans", &labels, standing.count(mode));
    }
    page.family("tollgate_bans_evicted_total", "counter");
    page.sample("tollgate_bans_evicted_total", &[], standing.evicted());
    type Number = fn(&Tallied) -> u64;
    let families: [(&str, Number); 4] = [
        ("tollgate_ban_events_total", |tally| tally.events),
        ("tollgate_bans_made_total", |tally| tally.bans),
        ("tollgate_ban_refusals_total", |tally| tally.refused),
        ("tollgate_ban_shadow_refusals_total", |tally| {
            tally.would_refuse
        }),
    ];
    let tallies = standing.tallies();
    for (name, number) in families {
        page.family(name, "counter");
        for (by, tally) in &tallies {
            page.sample(name, &[("rule", &*by.to_string())], number(tally));
        }
    }
    page.family("tollgate_client_list_entries", "gauge");
    for (name, list) in [("allow", &plan.lists.allow), ("deny", &plan.lists.deny)] {
        if let Some(list) = list {
            let labels = [("list", name)];
            page.sample("tollgate_client_list_entries", &labels, list.entries());
        }
    }
    page.family("tollgate_denied_total", "counter");
    page.sample("tollgate_denied_total", &[], plan.lists.denied());
}

fn limits(page: &mut Page, plan: &Plan) {
    page.family("tollgate_limit_requests_total", "counter");
    for (name, rule) in &plan.rules {
        let counted = rule.live.tally.counted();
        for (outcome, count) in [
            ("admitted", counted.admitted),
            ("delayed", counted.delayed),
            ("refused", counted.refused),
            ("tarpitted", counted.tarpitted),
            ("shadowed", counted.shadowed),
            ("exempted", counted.exempted),
        ] {
            let labels = [("limit", &**name), ("outcome", outcome)];
            page.sample("tollgate_limit_requests_total", &labels, count);
        }
    }
    page.family("tollgate_limit_waiting", "gauge");
    for (name, rule) in &plan.rules {
        let waiting = rule.live.waiting.count();
        page.sample("tollgate_limit_waiting", &[("limit", &**name)], waiting);
    }
    page.family("tollgate_limit_buckets", "gauge");
    for (name, rule) in &plan.rules {
        page.sample(
            "tollgate_limit_buckets",
            &[("limit", &**name)],
            rule.live.buckets(),
        );
    }
    let store = &plan.limit_store;
    if store.is_used() {
        page.gauge("tollgate_limit_store_away", u8::from(store.is_away()));
        page.gauge("tollgate_limit_gateways", store.gateways());
        page.family("tollgate_limit_store_questions_total", "counter");
        page.sample(
            "tollgate_limit_store_questions_total",
            &[],
            store.questions(),
        );
    }
}

fn asked(page: &mut Page, redis: &Redis) {
    let counts = redis.counts();
    page.gauge("tollgate_redis_up", u8::from(redis.is_up()));
    let takes_writes = u8::from(redis.takes_writes());
    page.gauge("tollgate_redis_takes_writes", takes_writes);
    page.family("tollgate_redis_questions_total", "counter");
    page.sample("tollgate_redis_questions_total", &[], counts.questions);
    page.family("tollgate_redis_away_total", "counter");
    for (away, count) in counts.away {
        let labels = [("reason", &*away.to_string())];
        page.sample("tollgate_redis_away_total", &labels, count);
    }
    page.family("tollgate_redis_answer_seconds", "histogram");
    let mut within = 0;
    for (up_to, count) in counts.times {
        within += count;
        let up_to = up_to.map_or("+Inf".to_owned(), |up_to| up_to.as_secs_f64().to_string());
        page.sample(
            "tollgate_redis_answer_seconds_bucket",
            &[("le", &*up_to)],
            within,
        );
    }
    let total = counts.total.as_secs_f64();
    page.sample("tollgate_redis_answer_seconds_sum", &[], total);
    page.sample("tollgate_redis_answer_seconds_count", &[], within);
}

fn shared(page: &mut Page, shared: &SharedCache) {
    let counts = shared.counts();
    page.family("tollgate_redis_cache_lookups_total", "counter");
    for (outcome, count) in [
        ("found", counts.found),
        ("missed", counts.missed),
        ("away", counts.away),
        ("odd", counts.odd),
    ] {
        let labels = [("outcome", outcome)];
        page.sample("tollgate_redis_cache_lookups_total", &labels, count);
    }
    page.family("tollgate_redis_cache_writes_total", "counter");
    for (outcome, count) in [("written", counts.written), ("dropped", counts.dropped)] {
        let labels = [("outcome", outcome)];
        page.sample("tollgate_redis_cache_writes_total", &labels, count);
    }
    page.gauge("tollgate_redis_cache_queued_writes", counts.queued);
    page.gauge("tollgate_redis_cache_queued_bytes", counts.queued_bytes);
}

/// The text, version 0.0.4 of its format.
#[derive(Default)]
struct Page(String);

impl Page {
    /// What the samples that follow are.
    fn family(&mut self, name: &str, kind: &str) {
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn gauge(&mut self, name: &str, value: impl Display) {
        self.family(name, "gauge");
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        if labels.is_empty() {
            return self.line(format_args!("{name} {value}"));
        }
        let labels = labels.iter();
        let labels: Vec<_> = labels
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
            .collect();
        self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.0, "{line}").expect("a String takes everything");
    }
}

fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_with_quotes_backslashes_and_lines_stays_one_label() {
        let mut page = Page::default();
        page.sample("asked", &[("route", "a\"b\\c\nd"), ("tier", "memory")], 3);
        assert_eq!(
            page.0,
            "asked{route=\"a\\\"b\\\\c\\nd\",tier=\"memory\"} 3\n"
        );
    }
}
