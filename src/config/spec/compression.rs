//! `[compression]`: which responses are compressed, and how much.

use crate::compression::Coding;
use crate::compression::media_type::MediaType;
use crate::config::declare::spec;
use crate::config::problem::Located;
use crate::config::word::Size;

spec! {
    /// Which responses are compressed, and how much.
    pub struct CompressionSpec in "[compression]" {
        /// Whether routes compress that do not say.
        enabled: bool = true;
        /// What is offered, 1 to 3; of those that a client likes equally the first.
        codings: Located<Vec<Coding>> = ["zstd", "br", "gzip"], entries 1..=3;
        /// Types of content: "text/html", "text/*" or "*+json", 1 to 64; "text/*" is without text/event-stream.
        types: Vec<MediaType> = [
            "text/*", "*+json", "*+xml", "application/json", "application/xml", "application/javascript",
            "application/x-javascript", "application/ecmascript", "application/x-ndjson", "application/wasm",
            "application/yaml", "application/rtf", "application/vnd.ms-fontobject", "font/ttf", "font/otf",
            "image/bmp", "image/x-icon", "image/vnd.microsoft.icon"
        ], entries 1..=64;
        /// Bodies that are known to be shorter stay as they are, 0 B to 1 MiB.
        min_size: u64 as Size = "1 KiB", within "0 B"..="1 MiB";
        /// Also what may be for one visitor: after Authorization or a cookie, unless stored or "public". See BREACH in docs/compression.md.
        personal: bool = false;
        /// Levels of bodies on their way.
        levels: LevelsSpec = {};
        /// Levels of stored bodies, each of which is encoded once.
        stored_levels: StoredLevelsSpec = {};
    }

    /// Levels of bodies on their way.
    pub struct LevelsSpec in "levels" {
        /// Level of br, 0 to 11.
        br: u16 = 4, within 0..=11;
        /// Level of zstd, 1 to 19.
        zstd: u16 = 3, within 1..=19;
        /// Level of gzip, 1 to 9.
        gzip: u16 = 5, within 1..=9;
    }

    /// Levels of stored bodies, each of which is encoded once.
    pub struct StoredLevelsSpec in "stored_levels" {
        /// Level of br, 0 to 11.
        br: u16 = 8, within 0..=11;
        /// Level of zstd, 1 to 19.
        zstd: u16 = 12, within 1..=19;
        /// Level of gzip, 1 to 9.
        gzip: u16 = 8, within 1..=9;
    }
}
