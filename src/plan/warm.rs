//! From `[cache.warm]` to what is asked for before visitors come.

use std::time::Duration;

use http::HeaderMap;

use crate::config::spec::WarmSpec;
use crate::target::Url;

/// What is asked for, how and when.
#[derive(Clone, Debug, PartialEq)]
pub struct WarmUp {
    pub visits: Visits,
    pub manner: Manner,
    pub at_start: bool,
    /// From the beginning of one run to the next.
    pub every: Option<Duration>,
    /// When everything was purged.
    pub after_purge: bool,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Visits {
    pub urls: Vec<Url>,
    pub sitemaps: Vec<Url>,
    /// So many of the pages that visitors of all gateways have asked for most.
    pub popular: usize,
}

/// How it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Manner {
    /// Visits at a time.
    pub concurrency: usize,
    /// Visits a second.
    pub rate: u32,
    /// Visits in one run.
    pub most: usize,
    /// Fields of every request, as visitors send them.
    pub fields: HeaderMap,
}

impl WarmUp {
    pub(super) fn of(spec: &WarmSpec) -> Self {
        let fields = spec.headers.0.iter();
        Self {
            visits: Visits {
                urls: spec.urls.clone(),
                sitemaps: spec.sitemaps.clone(),
                popular: *spec.popular,
            },
            manner: Manner {
                concurrency: spec.concurrency,
                rate: spec.rate,
                most: spec.most,
                fields: fields
                    .map(|(name, value)| (name.name().clone(), value.clone()))
                    .collect(),
            },
            at_start: spec.at_start,
            every: spec.every,
            after_purge: spec.after_purge,
        }
    }
}
