//! Backends and settings of one upstream that cannot stand together.

use std::collections::HashSet;

use crate::config::problem::Problems;
use crate::config::spec::{Config, TlsSpec, UpstreamSpec};
use crate::upstream::{Address, Protocol};

pub fn duplicates(config: &Config, problems: &mut Problems) {
    for upstream in config.upstreams.values() {
        let mut seen: HashSet<&Address> = HashSet::new();
        for backend in &upstream.backends {
            if !seen.insert(&backend.address) {
                let message = format!(
                    "duplicate backend {}; expected a higher weight instead",
                    *backend.address
                );
                problems.note(&backend.address, message);
            }
        }
        if !upstream.backends.is_empty() && upstream.backends.iter().all(|backend| backend.backup) {
            let first = &upstream.backends[0];
            problems.note(
                first,
                "every backend is a backup; expected at least one that is not",
            );
        }
    }
}

pub fn contradictions(config: &Config, problems: &mut Problems) {
    for upstream in config.upstreams.values() {
        if upstream.origin.sound {
            protocol(upstream, problems);
        }
        let concurrency = upstream.concurrency.as_ref();
        if let Some(concurrency) = concurrency.filter(|concurrency| concurrency.origin.sound)
            && *concurrency.min > concurrency.max
        {
            let message = format!(
                "min {} is above max {}; expected at most that",
                *concurrency.min, concurrency.max
            );
            problems.note(&concurrency.min, message);
        }
        if let Some(tls) = upstream.tls.as_ref().filter(|tls| tls.origin.sound) {
            verification(tls, problems);
        }
        let health = upstream
            .health
            .as_ref()
            .filter(|health| health.origin.sound);
        if let Some(health) = health.filter(|health| *health.timeout > health.every) {
            let message = format!(
                "timeout {:?} is longer than every {:?}; expected at most that",
                *health.timeout, health.every
            );
            problems.note(&health.timeout, message);
        }
    }
}

fn protocol(upstream: &UpstreamSpec, problems: &mut Problems) {
    match (*upstream.protocol, &upstream.tls) {
        (Protocol::H2, None) => {
            problems.note(
                &upstream.protocol,
                r#"protocol "h2" without tls; expected tls, or protocol "h2c" for plaintext"#,
            );
        }
        (Protocol::H2c, Some(_)) => {
            problems.note(
                &upstream.protocol,
                r#"protocol "h2c" with tls; expected protocol "h2", or tls = false"#,
            );
        }
        _ => {}
    }
}

fn verification(tls: &TlsSpec, problems: &mut Problems) {
    if let Some(ca) = tls.ca.as_ref().filter(|_| *tls.insecure) {
        problems.note(
            ca,
            "ca beside insecure = true, which verifies nothing; expected one of them",
        );
    }
    match (&tls.certificate, &tls.key) {
        (Some(certificate), None) => problems.note(
            certificate,
            "certificate without key; expected both or none",
        ),
        (None, Some(key)) => problems.note(key, "key without certificate; expected both or none"),
        _ => {}
    }
}
