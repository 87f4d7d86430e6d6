//! The files that the gateway will write: whether they have a directory.

use std::path::Path;

use crate::config::problem::{Positioned, Problems};
use crate::config::spec::Config;
use crate::telemetry::Output;

pub fn directories(config: &Config, problems: &mut Problems) {
    if let Some(pid_file) = &config.server.pid_file {
        parent("pid_file", pid_file, &pid_file.path, problems);
    }
    if let Output::File(file) = &config.log.output.value {
        parent("log output", &config.log.output, file, problems);
    }
}

/// A file that the gateway will write needs its directory.
fn parent(what: &str, place: &impl Positioned, file: &Path, problems: &mut Problems) {
    let directory = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !directory.is_dir() {
        problems.note(
            place,
            format!("{what} {file:?} has no directory; expected its directory to exist"),
        );
    }
}
