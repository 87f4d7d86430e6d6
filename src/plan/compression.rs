//! From `[compression]` to how the responses of a route are compressed.

use std::sync::Arc;

use crate::compression::{Compression, Levels};
use crate::config::Config;
use crate::config::spec::{ActionSpec, RouteSpec};

/// The same for all routes that compress.
pub(super) fn compression(config: &Config) -> Arc<Compression> {
    let spec = &config.compression;
    Arc::new(Compression {
        codings: spec.codings.value.clone(),
        types: spec.types.iter().collect(),
        min_size: spec.min_size,
        personal: spec.personal,
        levels: Levels {
            br: spec.levels.br,
            zstd: spec.levels.zstd,
            gzip: spec.levels.gzip,
        },
        stored_levels: Levels {
            br: spec.stored_levels.br,
            zstd: spec.stored_levels.zstd,
            gzip: spec.stored_levels.gzip,
        },
    })
}

/// What a route takes of it.
pub(super) fn of_route(
    route: &RouteSpec,
    config: &Config,
    compression: &Arc<Compression>,
) -> Option<Arc<Compression>> {
    let wanted = route.compress.as_ref().map(|compress| **compress);
    let is_wanted = wanted.unwrap_or(config.compression.enabled);
    let forwards = matches!(route.action, ActionSpec::Upstream(_));
    (is_wanted && forwards).then(|| compression.clone())
}
