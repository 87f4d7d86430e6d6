//! Compression: codings that are named twice, routes that have nothing to compress.

use crate::config::problem::Problems;
use crate::config::spec::{ActionSpec, Config};

pub fn contradictions(config: &Config, problems: &mut Problems) {
    let codings = &config.compression.codings;
    for (at, coding) in codings.iter().enumerate() {
        if codings[..at].contains(coding) {
            let message = format!("codings name {coding} twice; expected each once");
            problems.note(codings, message);
        }
    }
    for route in &config.routes {
        let forwards = matches!(route.action, ActionSpec::Upstream(_));
        if let Some(compress) = route.compress.as_ref().filter(|compress| ***compress)
            && !forwards
        {
            let message =
                "compress = true on a route that forwards nothing; expected it beside upstream";
            problems.note(compress, message);
        }
    }
}
