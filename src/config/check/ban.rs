//! Ban rules: keys that cannot stand together.

use crate::config::problem::Problems;
use crate::config::spec::Config;

pub fn contradictions(config: &Config, problems: &mut Problems) {
    for rule in config.ban_rules.values().filter(|rule| rule.origin.sound) {
        if *rule.length > rule.up_to {
            let message = format!(
                "for ({:?}) is above up_to ({:?}); expected at most that",
                *rule.length, rule.up_to
            );
            problems.note(&rule.length, message);
        }
        if !rule.paths.is_empty() && !rule.when.is_of_scans() {
            let message = format!(
                "paths, but {:?} counts no scans; expected \"scans\" in when",
                rule.when.to_string()
            );
            problems.note(&rule.paths, message);
        }
    }
}
