//! What an operator sees when the gateway starts: where it listens, what it serves, what is on.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::Arc;

use crate::config::Config;
use crate::limit::Mode;
use crate::listen::ListenerSettings;
use crate::plan::Plan;
use crate::upstream::Upstream;

/// Says in the log that the gateway serves, with the facts of the banner: what a person reads on
/// a terminal, an operator finds in the journal.
pub fn log_ready(config: &Config, plan: &Plan, listeners: &[Arc<ListenerSettings>]) {
    let listeners: Vec<_> = listeners.iter().map(|one| describe(one)).collect();
    let upstreams: Vec<_> = plan.upstreams.values().map(|one| backends(one)).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        listeners = listeners.join("; "),
        upstreams = upstreams.join("; "),
        routes = plan.routes.len(),
        cache = cache(config, plan),
        admin = admin(config),
        limits = limits(plan),
        "ready"
    );
}

/// Prints the banner to standard error, where a person may be looking.
pub fn print(config: &Config, plan: &Plan, listeners: &[Arc<ListenerSettings>]) {
    if std::io::stderr().is_terminal() {
        eprint!("{}", text(config, plan, listeners));
    }
}

/// The banner, a line a fact.
pub fn text(config: &Config, plan: &Plan, listeners: &[Arc<ListenerSettings>]) -> String {
    let mut text = format!("Tollgate {}\n", env!("CARGO_PKG_VERSION"));
    for listener in listeners {
        line(&mut text, "listens on", &describe(listener));
    }
    for upstream in plan.upstreams.values() {
        line(&mut text, "upstream", &backends(upstream));
    }
    line(&mut text, "routes", &plan.routes.len().to_string());
    let trust = match config.clients.trusted_proxies.len() {
        0 => "nobody; X-Forwarded-* of clients is dropped".to_owned(),
        count => format!("{count} networks of proxies"),
    };
    line(&mut text, "trusts", &trust);
    let slow = format!("WARN above {:?}", config.log.slow_after);
    line(&mut text, "slow", &slow);
    line(&mut text, "cache", &cache(config, plan));
    line(&mut text, "limits", &limits(plan));
    line(&mut text, "admin", &admin(config));
    text
}

/// Each with its quotas: `api (10 per second, 5000 per day)`.
fn limits(plan: &Plan) -> String {
    if plan.rules.is_empty() {
        return "off".to_owned();
    }
    let rules = plan.rules.values().map(|rule| {
        let quotas = rule.meters.iter().map(|(meter, _)| meter.quota.to_string());
        let mode = match rule.mode {
            Mode::Enforce => String::new(),
            mode => format!(", {mode}"),
        };
        format!(
            "{} ({}{mode})",
            rule.name,
            quotas.collect::<Vec<_>>().join(", ")
        )
    });
    rules.collect::<Vec<_>>().join("; ")
}

fn admin(config: &Config) -> String {
    match &config.admin {
        Some(admin) => format!("http://{}", *admin.listen),
        None => "off".to_owned(),
    }
}

fn cache(config: &Config, plan: &Plan) -> String {
    match plan.caches {
        true => format!("{} MiB of memory", *config.cache.memory >> 20),
        false => "off".to_owned(),
    }
}

fn line(text: &mut String, what: &str, value: &str) {
    writeln!(text, "  {what:<12}{value}").expect("a string takes every write");
}

fn backends(upstream: &Upstream) -> String {
    let settings = upstream.settings();
    let members = upstream.status();
    let members: Vec<_> = members
        .iter()
        .map(|backend| backend.address.as_str())
        .collect();
    let probes = if settings.health.is_some() {
        "probed"
    } else {
        "not probed"
    };
    format!("{} = {} ({probes})", settings.name, members.join(", "))
}

fn describe(listener: &ListenerSettings) -> String {
    let scheme = if listener.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let mut text = format!("{scheme}://{}", listener.address);
    let marks = [
        (listener.h2c, "h2c"),
        (listener.proxy_protocol, "PROXY protocol"),
        (listener.redirect_https.is_some(), "redirects to https"),
    ];
    for (on, mark) in marks {
        if on {
            write!(text, " ({mark})").expect("a string takes every write");
        }
    }
    text
}
