//! A signal or a changed file to a new plan in force, or the old one and the reason.
//!
//! All or nothing: the file is read, checked and compiled whole before one pointer is swapped.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::config::problem::Problems;
use crate::config::{Config, Source};
use crate::gateway::Gateway;
use crate::plan::{self, Plan};
use crate::telemetry::Log;

/// How often the file is looked at. A look is one read of a small file: it sees every way of
/// replacing it (rename, symlink swap, edit in place), which watching an inode does not.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What asked for the reload.
#[derive(Clone, Copy, Debug)]
pub enum Why {
    Signal,
    FileChanged,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signal => "SIGHUP",
            Self::FileChanged => "file changed",
        })
    }
}

/// Keeps the configuration in force and replaces it.
pub struct Reloader<'a> {
    source: &'a Source,
    config: Config,
    gateway: Arc<Gateway>,
    log: Log,
    /// The text that was last loaded or refused, to tell a change from a look.
    seen: Option<Vec<u8>>,
    looks: Interval,
}

impl<'a> Reloader<'a> {
    /// `config` is what `source` holds now and what `gateway` serves by.
    pub fn new(source: &'a Source, config: Config, gateway: Arc<Gateway>, log: Log) -> Self {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            seen: source.path().and_then(|path| std::fs::read(path).ok()),
            source,
            config,
            gateway,
            log,
            looks,
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Waits until the file's text differs from the last one seen. Never returns when watching
    /// is off or there is no file. Safe to cancel.
    pub async fn file_changed(&mut self) {
        let Some(path) = self.source.path().filter(|_| self.config.server.watch) else {
            return std::future::pending().await;
        };
        loop {
            self.looks.tick().await;
            // A file that is away for a moment is being replaced; the next look sees it.
            let Ok(text) = tokio::fs::read(path).await else {
                continue;
            };
            if self.seen.as_deref() != Some(&text) {
                return;
            }
        }
    }

    /// Puts the file's configuration in force, or keeps the one in force and logs every problem.
    pub fn reload(&mut self, why: Why) {
        let Some(path) = self.source.path() else {
            return tracing::info!(%why, "nothing to reload: there is no configuration file");
        };
        self.seen = std::fs::read(path).ok();
        match self.load() {
            Ok((config, plan)) => {
                if let Err(error) = self.log.reconfigure(&plan::log_settings(&config)) {
                    let error = crate::telemetry::chain(&error);
                    tracing::error!(%why, %error, "reload refused, still serving the plan before");
                    return;
                }
                self.config = config;
                let plan = Arc::new(plan);
                let before = self.gateway.swap_plan(plan.clone());
                plan.start(Some(&before));
                tracing::info!(%why, "reloaded");
            }
            Err(problems) => {
                for problem in problems.to_string().lines() {
                    tracing::error!(%why, "reload refused, still serving the plan before: {problem}");
                }
            }
        }
    }

    fn load(&self) -> Result<(Config, Plan), Problems> {
        let running = self.gateway.plan();
        self.source.draft().make(|config, problems| {
            plan::check_restart(&self.config, config, problems);
            Plan::compile(config, Some(&running), problems)
        })
    }
}
