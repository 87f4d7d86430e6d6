//! What the keys mean for one another: references, duplicates, contradictions. Knows no word's grammar and, but for
//! [`directories`], nothing outside the text.
//!
//! A wrong value has been replaced by its default before it comes here, and its table is not sound. Checks that would
//! take that default for the operator's own words pass over such a table.

mod admin;
mod ban;
mod compression;
mod files;
mod headers;
mod limit;
mod listen;
mod plan;
mod redis;
mod route;
mod upstream;
mod warm;

pub use files::directories;

use std::time::Duration;

use super::problem::Problems;
use super::spec::Config;

/// Everything that can be said from the text alone.
pub fn tables(config: &Config, problems: &mut Problems) {
    let read_well = problems.is_empty();
    listen::collisions(config, problems);
    listen::contradictions(config, problems);
    admin::token(config, problems);
    ban::contradictions(config, problems);
    upstream::duplicates(config, problems);
    upstream::contradictions(config, problems);
    redis::contradictions(config, problems);
    warm::contradictions(config, problems);
    route::references(config, problems);
    route::duplicates(&config.routes, problems);
    headers::policies(config, problems);
    limit::references(config, problems);
    limit::contradictions(config, problems);
    plan::references(config, problems);
    plan::contradictions(config, problems);
    compression::contradictions(config, problems);
    sizes_and_times(config, problems);
    if read_well && config.routes.is_empty() {
        problems.note(config, "no routes; expected at least one [[route]]");
    }
}

/// What is legal and probably not meant.
pub fn warnings(config: &Config, warnings: &mut Problems) {
    route::unused(config, warnings);
    limit::unused(config, warnings);
    plan::unused(config, warnings);
    admin::exposed(config, warnings);
}

fn sizes_and_times(config: &Config, problems: &mut Problems) {
    let server = &config.server;
    if server.origin.sound && server.max_request_line.value > server.max_header_bytes {
        let message = format!(
            "max_request_line ({} bytes) is above max_header_bytes ({} bytes), of which it is a part; expected at most that",
            *server.max_request_line, server.max_header_bytes
        );
        problems.note(&server.max_request_line, message);
    }
    let longest = Duration::from_secs(365 * 24 * 60 * 60);
    for policy in config.cache.policies.values() {
        for (_, ttl) in &policy.ttl_by_status.0 {
            if ttl.value > longest {
                problems.note(ttl, "ttl is above its bound; expected 0s to 365d");
            }
        }
    }
    let retry_after = &config.errors.retry_after;
    if retry_after.subsec_nanos() != 0 {
        let seconds = Duration::from_secs(retry_after.as_secs() + 1);
        let message = format!(
            "retry_after has a fraction of a second; expected whole seconds such as {seconds:?}"
        );
        problems.note(retry_after, message);
    }
}
