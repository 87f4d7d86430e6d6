//! The lists of `[clients]`, with the files they name.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::files;
use crate::client::list::AddressList;
use crate::config::Config;
use crate::config::problem::{Located, Problems};
use crate::config::word::NetworksOrFile;

/// Who is let in whatever else is said of them, and who is not let in. The first wins.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    pub allow: Option<Arc<AddressList>>,
    pub deny: Option<Arc<AddressList>>,
    /// Requests that were refused because of the second, in every plan.
    denied: Arc<AtomicU64>,
}

impl Lists {
    /// Reads the files; what is wrong with them is noted, each line by itself.
    pub(super) fn of(config: &Config, running: Option<&Self>, problems: &mut Problems) -> Self {
        let clients = &config.clients;
        Self {
            allow: list(clients.allow.as_ref(), problems),
            deny: list(clients.deny.as_ref(), problems),
            denied: running.map_or_else(Arc::default, |running| running.denied.clone()),
        }
    }

    /// Counts one request that was refused because of the deny list.
    pub fn count_denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    pub fn denied(&self) -> u64 {
        self.denied.load(Ordering::Relaxed)
    }

    /// Follows the files from now on. To be called in a runtime.
    pub(super) fn watch(&self) {
        for list in [&self.allow, &self.deny].into_iter().flatten() {
            list.watch();
        }
    }
}

fn list(
    spec: Option<&Located<NetworksOrFile>>,
    problems: &mut Problems,
) -> Option<Arc<AddressList>> {
    let spec = spec?;
    let list = match &spec.value {
        NetworksOrFile::Networks(networks) => AddressList::given(networks),
        NetworksOrFile::File(file) => match AddressList::read(&file.path) {
            Ok(list) => list,
            Err(error) => {
                files::refused(spec, file, &error, "one network a line", problems);
                return None;
            }
        },
    };
    Some(Arc::new(list))
}
