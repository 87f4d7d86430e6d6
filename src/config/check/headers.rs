//! Header policies: names that are taken.

use crate::config::problem::Problems;
use crate::config::spec::Config;
use crate::headers::security::Preset;

pub fn policies(config: &Config, problems: &mut Problems) {
    for (name, policy) in &config.headers {
        if name.parse::<Preset>().is_ok() {
            problems.note(policy, format!("header policy {name:?} is built in; expected another name, with preset = {name:?} to start from it"));
        }
    }
}
