//! From `[bans]` and `[ban.NAME]` to the rules in force and the bans that outlive them.

use crate::config::Config;
use crate::config::spec::BanSpec;
use crate::limit::ban::{Bans, Rule, Settings, Terms};
use crate::limit::key::Prefixes;

/// The rules of `config`; the bans of `running` stand on.
pub(super) fn bans(config: &Config, running: Option<&Bans>) -> Bans {
    let spec = &config.bans;
    let settings = Settings {
        prefixes: Prefixes {
            v4: spec.ipv4_prefix as u8,
            v6: spec.ipv6_prefix as u8,
        },
        most: spec.max_bans,
    };
    let rules = config.ban_rules.iter();
    let rules = rules.map(|(name, spec)| rule(name, spec)).collect();
    Bans::new(rules, spec.max_clients, settings, running)
}

fn rule(name: &str, spec: &BanSpec) -> Rule {
    Rule {
        name: name.into(),
        when: spec.when.value.clone(),
        terms: Terms {
            first: *spec.length,
            growth: spec.growth,
            up_to: spec.up_to,
            forgotten_after: spec.forget_after,
        },
        mode: spec.mode,
        answer: spec.answer,
        paths: spec.paths.value.clone(),
    }
}
