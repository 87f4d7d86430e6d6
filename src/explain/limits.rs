//! The limits that a request would meet, and by what it would be counted.

use super::line;
use crate::exchange::imagined::Imagined;
use crate::limit::plans::Keys;
use crate::limit::waiting::Bounds;
use crate::limit::{Mode, Rule};
use crate::plan::Route;

pub(super) fn describe(text: &mut String, route: &Route, imagined: &Imagined) {
    let asker = imagined.asker(route);
    for (place, rule) in imagined.rules(route).iter().enumerate() {
        line(text, "limit", &bounds(rule));
        let mut planned = route.planned.iter().filter(|(of, _)| *of == place);
        let is_unknown = planned.any(|(_, planned)| {
            matches!(planned.keys, Keys::Redis(_)) && planned.key.first_name(&asker).is_some()
        });
        if is_unknown {
            line(
                text,
                "",
                "unless its key has another plan in Redis; --running asks there",
            );
        }
        if let Some(mode) = mode(rule) {
            line(text, "", &mode);
        }
        if rule.is_exempt(&asker) {
            line(text, "", "not counted: exempt");
            continue;
        }
        let cost = rule.cost(imagined.method(), &asker);
        let counted = match rule.key.alternative(&asker) {
            Some(alternative) => format!("takes {cost}, counted by {alternative}"),
            None => format!("takes {cost}, counted with all who have no {}", rule.key),
        };
        line(text, "", &counted);
    }
}

/// `api: plan gold, 10 per second, 5000 per day, 20 at once, by client-ip`
fn bounds(rule: &Rule) -> String {
    let plan = rule.plan.iter().map(|plan| format!("plan {plan}"));
    let quotas = rule.meters.iter().map(|(meter, _)| meter.quota.to_string());
    let at_once = rule.in_flight.as_ref();
    let at_once = at_once.map(|bound| format!("{} at once", bound.most));
    let is_free = rule.meters.is_empty() && rule.in_flight.is_none();
    let free = is_free.then(|| "any number".to_owned());
    let all: Vec<_> = plan.chain(quotas).chain(at_once).chain(free).collect();
    format!("{}: {}, by {}", rule.name, all.join(", "), rule.key)
}

fn mode(rule: &Rule) -> Option<String> {
    match rule.mode {
        Mode::Enforce => None,
        Mode::Shadow => Some("in shadow: it refuses nothing".to_owned()),
        Mode::Delay(Bounds {
            longest, of_client, ..
        }) => Some(format!(
            "further requests wait up to {longest:?}, {of_client} of a client"
        )),
        Mode::Tarpit(Bounds { longest, .. }) => {
            Some(format!("refusals are answered after {longest:?}"))
        }
    }
}
