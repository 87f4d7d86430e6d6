//! `[cache.warm]`: what is asked for before visitors come.

use std::time::Duration;

use crate::config::declare::spec;
use crate::config::problem::Located;
use crate::config::word::HeaderFields;
use crate::target::Url;

spec! {
    /// What is asked for before visitors come, through the same routes and limits.
    pub struct WarmSpec in "[cache.warm]" {
        /// Pages, 0 to 10,000.
        urls: Vec<Url> = [], entries 0..=10000;
        /// Sitemaps, indexes of sitemaps, or lists with a URL a line, 0 to 100. They may be packed with gzip.
        sitemaps: Vec<Url> = [], entries 0..=100;
        /// The most-hit pages of all gateways, which are remembered in Redis, 0 to 10,000; 0: none.
        popular: Located<usize> = 0, within 0..=10000;
        /// Whether a run begins when the gateway has started.
        at_start: bool = true;
        /// Time from the beginning of one run to the next, 1m to 30d; otherwise none follows.
        every: Option<Duration>, within "1m"..="30d";
        /// Whether a run begins when everything was purged.
        after_purge: bool = true;
        /// Pages at a time, 1 to 64.
        concurrency: usize = 4, within 1..=64;
        /// Pages a second, 1 to 10,000.
        rate: u32 = 50, within 1..=10000;
        /// Pages in one run, 1 to 1,000,000.
        most: usize = 10000, within 1..=1000000;
        /// Request fields, as browsers send them: { "Accept-Encoding" = "gzip" }.
        headers: HeaderFields = {};
    }
}
