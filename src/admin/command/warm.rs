//! `tollgate cache warm`: a run of the running gateway, watched until its end.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::{CommandError, Running};
use crate::admin::client;
use crate::admin::warm::WarmOrder;
use crate::warm::Progress;

/// Between two looks at the progress: the first, and the longest.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// What to ask for; with nothing named, what [cache.warm] of the gateway says.
#[derive(Debug, clap::Args)]
pub struct WarmOptions {
    /// An absolute URL of a page.
    #[arg(long, value_name = "URL", num_args = 1..)]
    url: Vec<String>,
    /// An absolute URL of a sitemap.
    #[arg(long, value_name = "URL", num_args = 1..)]
    sitemap: Vec<String>,
    /// So many of the pages that visitors of all gateways have asked for most.
    #[arg(long, value_name = "N", default_value_t = 0)]
    popular: usize,
    #[command(flatten)]
    gateway: Running,
}

/// Has pages asked for, and shows on stderr how far that has come. Returns the end.
pub fn warm(options: WarmOptions) -> Result<Progress, CommandError> {
    let admin = options.gateway.settings()?;
    let order = WarmOrder {
        urls: options.url,
        sitemaps: options.sitemap,
        popular: options.popular,
    };
    let mut progress = client::warm(&admin, &order)?;
    let shown = Shown::begin();
    let mut pause = FIRST_LOOK;
    while !progress.ended {
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_LOOK);
        let before = progress;
        progress = client::warm_progress(&admin)?;
        if progress != before {
            shown.show(&progress);
        }
    }
    shown.end();
    match progress.failed {
        0 => Ok(progress),
        _ => Err(CommandError::NotGiven(progress)),
    }
}

/// Where the progress is shown.
enum Shown {
    Bar(ProgressBar),
    Lines,
}

impl Shown {
    fn begin() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines;
        }
        let template = "{bar:30} {pos} of {len} pages, {msg}, {eta} left";
        let style = ProgressStyle::with_template(template).expect("the template is right");
        Self::Bar(ProgressBar::new(0).with_style(style))
    }

    fn show(&self, progress: &Progress) {
        match self {
            Self::Bar(bar) => {
                bar.set_length(progress.pages);
                bar.set_message(format!("{} failed", progress.failed));
                bar.set_position(progress.done + progress.failed);
            }
            Self::Lines => eprintln!("{progress}"),
        }
    }

    fn end(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
