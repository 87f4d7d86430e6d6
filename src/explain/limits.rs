//! The limits that a request would meet, and by what it would be counted.

use std::net::{IpAddr, Ipv4Addr};

use super::line;
use crate::exchange::imagined::Imagined;
use crate::limit::waiting::Bounds;
use crate::limit::{Mode, Rule};
use crate::plan::Route;

/// Of a client that may be unknown.
pub(super) fn describe(
    text: &mut String,
    route: &Route,
    imagined: &Imagined,
    client: Option<IpAddr>,
) {
    let anybody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let asker = imagined.asker(client.unwrap_or(anybody), route);
    for rule in &route.limits {
        line(text, "limit", &bounds(rule));
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

/// `api: 10 per second, 5000 per day, 20 at once, by client-ip`
fn bounds(rule: &Rule) -> String {
    let quotas = rule.meters.iter().map(|(meter, _)| meter.quota.to_string());
    let at_once = rule.in_flight.as_ref();
    let at_once = at_once.map(|bound| format!("{} at once", bound.most));
    let all: Vec<_> = quotas.chain(at_once).collect();
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
