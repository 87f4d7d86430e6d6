//! `[bans]` and `[ban.NAME]`: what a client is banned for, and for how long.

use std::time::Duration;

use crate::config::declare::spec;
use crate::config::problem::Located;
use crate::limit::ban::{Answer, Mode, PathPattern, When};

spec! {
    /// What all bans share. A change needs a restart.
    pub struct BansSpec in "[bans]" {
        /// Bans at once, 1 to 10,000,000; when there are more the one that would end first goes.
        max_bans: usize = 100_000, within 1..=10_000_000;
        /// Clients that each rule counts at once, 1 to 10,000,000.
        max_clients: usize = 100_000, within 1..=10_000_000;
        /// Bits of an IPv4 address that tell clients apart, 8 to 32.
        ipv4_prefix: u16 = 32, within 8..=32;
        /// Bits of an IPv6 address that tell clients apart, 16 to 128.
        ipv6_prefix: u16 = 64, within 16..=128;
    }

    /// A rule that bans clients.
    pub struct BanSpec in "[ban.NAME]" {
        /// How many events within what time: "20 refusals in 1 minute", "10 × 401/403 in 5 minutes", "3 scans in 1 hour".
        when: Located<When>;
        /// The first ban of a client, 1s to 365d.
        length["for"]: Located<Duration> = "10m", within "1s"..="365d";
        /// Each further ban is so many times as long, 1 to 100.
        growth: u32 = 2, within 1..=100;
        /// The longest ban, 1s to 365d.
        up_to: Duration = "24h", within "1s"..="365d";
        /// A client that was not banned for so long is as one that never was, 0s to 365d.
        forget_after: Duration = "24h", within "0s"..="365d";
        /// "enforce", or "shadow": it counts and logs, and refuses nothing.
        mode: Mode = "enforce";
        /// What a banned client is answered: "403", "429" with Retry-After, or "close".
        answer: Answer = "403";
        /// Further paths that are scans, whatever they are answered, 0 to 256: "/trap", "/old/*".
        paths: Located<Vec<PathPattern>> = [], entries 0..=256;
    }
}
