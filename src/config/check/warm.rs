//! Pages that are asked for before visitors come.

use crate::config::problem::Problems;
use crate::config::spec::Config;

/// What was asked for most has to be remembered somewhere.
pub fn contradictions(config: &Config, problems: &mut Problems) {
    let warm = config.cache.warm.as_ref().filter(|warm| warm.origin.sound);
    if let Some(warm) = warm.filter(|warm| *warm.popular > 0)
        && config.redis.is_none()
    {
        let message =
            "popular without [redis], where it is remembered; expected both, or popular = 0";
        problems.note(&warm.popular, message);
    }
}
