//! `[redis]` as the connections to it want it, with the files it names.

use std::path::Path;

use rustls_pki_types::ServerName;

use crate::config::Config;
use crate::config::problem::{Located, Place, Positioned, Problems, why};
use crate::config::spec::RedisSpec;
use crate::config::word::FilePath;
use crate::redis::{Credentials, Kind, Secret, Settings, TlsFiles};
use crate::telemetry::chain;
use crate::upstream;

/// How Redis is reached; `None` when nothing is said of it, or when a file of it cannot be used, which is noted.
pub fn redis_settings(config: &Config, problems: &mut Problems) -> Option<Settings> {
    let spec = config.redis.as_ref().filter(|spec| spec.origin.sound)?;
    Some(Settings {
        kind: kind(spec)?,
        credentials: credentials(spec),
        tls: tls(spec, problems)?,
        prefix: spec.prefix.clone(),
        deadline: spec.deadline,
        connect_timeout: spec.connect_timeout,
        health_interval: spec.health_interval,
        connections: spec.connections,
        max_in_flight: spec.max_in_flight,
    })
}

fn kind(spec: &RedisSpec) -> Option<Kind> {
    let nodes: Vec<_> = spec.nodes.iter().map(|node| node.value.clone()).collect();
    let first = nodes.first()?.clone();
    let several = nodes.len() > 1;
    Some(match &spec.sentinel {
        Some(sentinel) => Kind::Sentinel {
            master: sentinel.master.clone(),
            sentinels: nodes,
        },
        None if spec.cluster.as_ref().map_or(several, |said| **said) => Kind::Cluster(nodes),
        None => Kind::Single(first),
    })
}

/// As whom to log in at the servers. What a sentinel's address says is for the sentinel.
fn credentials(spec: &RedisSpec) -> Credentials {
    let of_node = spec.nodes.first().filter(|_| spec.sentinel.is_none());
    let username = spec
        .username
        .as_ref()
        .map(|username| username.value.clone());
    let password = spec
        .password
        .as_ref()
        .map(|password| password.value.clone());
    Credentials {
        username: username.or_else(|| of_node.and_then(|node| node.username.clone())),
        password: password.or_else(|| of_node.and_then(|node| node.password.clone())),
    }
}

fn tls(spec: &RedisSpec, problems: &mut Problems) -> Option<TlsFiles> {
    if !spec.nodes.iter().any(|node| node.tls) {
        return Some(TlsFiles::default());
    }
    let identity = spec.certificate.as_ref().zip(spec.key.as_ref());
    let files = upstream::TlsFiles {
        // Only the files are tried here; each node proves its own name.
        sni: Some(ServerName::try_from("redis").expect("a name")),
        ca: spec.ca.as_ref().map(path),
        insecure: false,
        identity: identity.map(|(chain, key)| (path(chain), path(key))),
    };
    if let Err(errors) = upstream::Tls::load(&files) {
        for error in errors {
            problems.note(&place(spec, error.file()), chain(&error));
        }
        return None;
    }
    let read = |file: &Located<FilePath>, problems: &mut Problems| {
        std::fs::read(&file.path)
            .map_err(|error| {
                let message = format!("{} {}; expected PEM", file.value, why(&error));
                problems.note(file, message);
            })
            .ok()
    };
    let ca = match &spec.ca {
        Some(file) => Some(read(file, problems)?),
        None => None,
    };
    let identity = match identity {
        Some((certificate, key)) => {
            let key = String::from_utf8(read(key, problems)?).ok()?;
            Some((read(certificate, problems)?, Secret::new(key)))
        }
        None => None,
    };
    Some(TlsFiles { ca, identity })
}

fn path(file: &Located<FilePath>) -> &Path {
    &file.path
}

/// Where this file stands.
fn place(spec: &RedisSpec, file: Option<&Path>) -> Place {
    [&spec.ca, &spec.certificate, &spec.key]
        .into_iter()
        .flatten()
        .find(|said| file == Some(&said.path))
        .map_or(spec.place(), Positioned::place)
}
