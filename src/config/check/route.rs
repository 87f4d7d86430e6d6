//! Routes: what they refer to, and that each is one of its kind.

use std::collections::{BTreeSet, HashMap};

use http::Method;

use crate::config::problem::{Located, Positioned, Problems};
use crate::config::spec::{ActionSpec, Config, RouteSpec};
use crate::headers::security::Preset;
use crate::upstream::{Priority, Protocol};
use crate::word::{Choice, unknown};

pub fn references(config: &Config, problems: &mut Problems) {
    let upstreams: Vec<&str> = config.upstreams.keys().map(String::as_str).collect();
    let policies = policy_names(config);
    for route in &config.routes {
        if let ActionSpec::Upstream(name) = &route.action
            && !config.upstreams.contains_key(&name.value)
        {
            problems.note(name, unknown("upstream", name, "defined", &upstreams));
        }
        if !policies.contains(&route.headers.as_str()) {
            problems.note(
                &route.headers,
                unknown("header policy", &route.headers, "defined", &policies),
            );
        }
        if let Some(name) = &route.cache {
            cache(route, name, config, problems);
        }
        cache_types(route, config, problems);
        if let Some(prefix) = route
            .replace_prefix
            .as_ref()
            .filter(|_| *route.strip_prefix)
        {
            problems.note(
                prefix,
                "replace_prefix beside strip_prefix = true; expected one of them",
            );
        }
        let forwards = matches!(route.action, ActionSpec::Upstream(_));
        if !forwards && *route.priority != Priority::Normal {
            problems.note(
                &route.priority,
                "priority on a route that forwards nothing; expected it beside upstream",
            );
        }
        if !forwards && *route.strip_prefix {
            problems.note(
                &route.strip_prefix,
                "strip_prefix on a route that forwards nothing; expected it beside upstream",
            );
        }
        if let Some(prefix) = route.replace_prefix.as_ref().filter(|_| !forwards) {
            problems.note(
                prefix,
                "replace_prefix on a route that forwards nothing; expected it beside upstream",
            );
        }
    }
}

fn cache(route: &RouteSpec, name: &Located<String>, config: &Config, problems: &mut Problems) {
    let policies = &config.cache.policies;
    if !policies.contains_key(&name.value) {
        let defined: Vec<&str> = policies.keys().map(String::as_str).collect();
        problems.note(name, unknown("cache policy", name, "defined", &defined));
    }
    let ActionSpec::Upstream(upstream) = &route.action else {
        let message = "cache on a route that forwards nothing; expected it beside upstream";
        return problems.note(name, message);
    };
    let upstream = config.upstreams.get(&upstream.value);
    if let Some(upstream) = upstream
        && *upstream.protocol != Protocol::H1
    {
        let message = format!(
            "cache on a route whose upstream speaks {}; expected one with protocol = \"h1\"",
            *upstream.protocol
        );
        problems.note(name, message);
    }
}

fn cache_types(route: &RouteSpec, config: &Config, problems: &mut Problems) {
    let policies = &config.cache.policies;
    let defined: Vec<&str> = policies.keys().map(String::as_str).collect();
    for (_, name) in &route.cache_types.0 {
        let Some(own) = &route.cache else {
            problems.note(
                name,
                "cache_types on a route without cache; expected it beside cache",
            );
            continue;
        };
        let (Some(spec), Some(of_route)) = (policies.get(&name.value), policies.get(&own.value))
        else {
            if !policies.contains_key(&name.value) {
                problems.note(name, unknown("cache policy", name, "defined", &defined));
            }
            continue;
        };
        if let Some(key) = spec.contradicts(of_route) {
            let message = format!(
                "cache policy {:?} has its own {key}; expected that of {:?}, by which requests are looked up",
                name.value, own.value
            );
            problems.note(name, message);
        }
    }
}

/// Built-in and defined.
pub fn policy_names(config: &Config) -> Vec<&str> {
    Preset::WORDS
        .iter()
        .copied()
        .chain(config.headers.keys().map(String::as_str))
        .collect()
}

/// Two routes are the same when a request could match both equally well: host and path are equal and a method is common.
pub fn duplicates(routes: &[RouteSpec], problems: &mut Problems) {
    let mut names: HashMap<String, &RouteSpec> = HashMap::new();
    let mut places: HashMap<_, Vec<&RouteSpec>> = HashMap::new();
    for route in routes.iter().filter(|route| route.origin.sound) {
        let host = route.host.as_ref().map(|host| &host.value);
        let neighbours = places.entry((host, &route.path.value)).or_default();
        let twin = neighbours
            .iter()
            .find(|earlier| share_a_method(methods(earlier), methods(route)));
        if let Some(twin) = twin {
            let message = format!(
                "route matches what the route at line {} matches; expected another host, path or methods",
                twin.place().line()
            );
            problems.note(route, message);
            continue;
        }
        neighbours.push(route);
        if let Some(earlier) = names.insert(route.label(), route) {
            let message = format!(
                "duplicate route name {:?}, also at line {}",
                route.label(),
                earlier.place().line()
            );
            match &route.name {
                Some(name) => problems.note(name, message),
                None => problems.note(route, message),
            }
        }
    }
}

/// Empty: all methods.
fn methods(route: &RouteSpec) -> &[Method] {
    route
        .methods
        .as_ref()
        .map_or(&[], |methods| methods.as_slice())
}

fn share_a_method(one: &[Method], other: &[Method]) -> bool {
    one.is_empty() || other.is_empty() || one.iter().any(|method| other.contains(method))
}

pub fn unused(config: &Config, warnings: &mut Problems) {
    let mut upstreams = BTreeSet::new();
    let mut policies = BTreeSet::new();
    let mut caches = BTreeSet::new();
    for route in &config.routes {
        policies.insert(route.headers.as_str());
        caches.extend(route.cache.as_ref().map(|name| name.as_str()));
        caches.extend(route.cache_types.0.iter().map(|(_, name)| name.as_str()));
        if let ActionSpec::Upstream(name) = &route.action {
            upstreams.insert(name.as_str());
        }
    }
    for (name, upstream) in config
        .upstreams
        .iter()
        .filter(|(name, _)| !upstreams.contains(name.as_str()))
    {
        warnings.note(upstream, format!("upstream {name:?} is used by no route"));
    }
    for (name, policy) in config
        .headers
        .iter()
        .filter(|(name, _)| !policies.contains(name.as_str()))
    {
        warnings.note(
            policy,
            format!("header policy {name:?} is used by no route"),
        );
    }
    for (name, policy) in config
        .cache
        .policies
        .iter()
        .filter(|(name, _)| !caches.contains(name.as_str()))
    {
        warnings.note(policy, format!("cache policy {name:?} is used by no route"));
    }
}
