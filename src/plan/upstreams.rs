//! From `[upstream.NAME]` to upstreams that run. What is found here is what only doing shows: a file that
//! cannot be read, a certificate that cannot be used.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Plan;
use crate::config::Config;
use crate::config::problem::{Place, Positioned, Problems};
use crate::config::spec::{
    ConcurrencySpec, HealthSpec, PaceSpec, TimeoutsSpec, TlsSpec, UpstreamSpec,
};
use crate::config::word::HealthKindSpec;
use crate::upstream::{
    Concurrency, ConcurrencyMode, Dns, DnsSettings, Lookup, NoResolver, Pace, Probe, ProbeKind,
    Seed, Settings, Timeouts, Tls, TlsError, TlsFiles, Upstream,
};

/// The TLS of one upstream as it will be used; `None` is plaintext.
pub(super) type Loaded = BTreeMap<String, Option<Tls>>;

/// Reads what the upstreams' TLS consists of. An upstream of which a file is wrong is left out.
pub(super) fn load_tls(config: &Config, problems: &mut Problems) -> Loaded {
    let mut loaded = BTreeMap::new();
    for (name, upstream) in &config.upstreams {
        let tls = match &upstream.tls {
            Some(spec) if spec.origin.sound => match Tls::load(&files(spec)) {
                Ok(tls) => Some(tls),
                Err(errors) => {
                    for error in errors {
                        problems.note(&place(spec, &error), crate::telemetry::chain(&error));
                    }
                    continue;
                }
            },
            _ => None,
        };
        loaded.insert(name.clone(), tls);
    }
    loaded
}

fn files(spec: &TlsSpec) -> TlsFiles<'_> {
    let identity = spec.certificate.as_ref().zip(spec.key.as_ref());
    TlsFiles {
        sni: spec.sni.clone(),
        ca: spec.ca.as_ref().map(|ca| ca.path.as_path()),
        insecure: *spec.insecure,
        identity: identity.map(|(chain, key)| (chain.path.as_path(), key.path.as_path())),
    }
}

/// Where the file stands that `error` is about.
fn place(spec: &TlsSpec, error: &TlsError) -> Place {
    [&spec.ca, &spec.certificate, &spec.key]
        .into_iter()
        .flatten()
        .find(|file| error.file() == Some(&file.path))
        .map_or(spec.place(), Positioned::place)
}

/// Every upstream; what lives in `running` lives on.
pub(super) fn upstreams(
    config: &Config,
    mut tls: Loaded,
    running: Option<&Plan>,
) -> BTreeMap<String, Arc<Upstream>> {
    let mut upstreams = BTreeMap::new();
    for (name, spec) in &config.upstreams {
        let seeds = spec.backends.iter().map(|backend| Seed {
            address: backend.address.value.clone(),
            weight: backend.weight,
            backup: backend.backup,
        });
        let carried = running.and_then(|plan| plan.upstreams.get(name));
        let upstream = Upstream::new(
            settings(name, spec, tls.remove(name).flatten()),
            seeds.collect(),
            carried.map(Arc::as_ref),
        );
        upstreams.insert(name.clone(), upstream);
    }
    upstreams
}

fn settings(name: &str, spec: &UpstreamSpec, tls: Option<Tls>) -> Settings {
    Settings {
        name: name.into(),
        balance: spec.balance.value.clone(),
        protocol: *spec.protocol,
        tls,
        max_fails: spec.max_fails,
        fail_timeout: spec.fail_timeout,
        keepalive: spec.keepalive,
        keepalive_idle: spec.keepalive_idle,
        max_connections: spec.max_connections as u32,
        concurrency: spec.concurrency.as_ref().map(concurrency),
        pace: spec.pace.as_ref().map(pace),
        queue: spec.queue,
        queue_timeout: spec.queue_timeout,
        slow_start: spec.slow_start,
        timeouts: timeouts(&spec.timeouts),
        health: spec.health.as_ref().map(probe),
        retry_percent: u32::from(spec.retry.budget.percent()),
        last_resort: spec.last_resort,
        resolve_every: spec.resolve_every,
        max_response_head: spec.max_response_head as usize,
    }
}

fn concurrency(spec: &ConcurrencySpec) -> Concurrency {
    match spec.mode {
        ConcurrencyMode::Adaptive => Concurrency {
            min: *spec.min,
            max: spec.max,
            tolerance: u32::from(spec.tolerance.percent()),
            window: spec.window,
            measure_every: spec.measure_every,
        },
    }
}

fn pace(spec: &PaceSpec) -> Pace {
    Pace {
        rate: spec.quota,
        longest_pause: spec.longest_pause,
    }
}

pub(super) fn timeouts(spec: &TimeoutsSpec) -> Timeouts {
    Timeouts {
        connect: spec.connect,
        first_byte: spec.first_byte,
        read: spec.read,
        write: spec.write,
        websocket_idle: spec.websocket_idle,
    }
}

fn probe(spec: &HealthSpec) -> Probe {
    Probe {
        kind: match spec.kind {
            HealthKindSpec::Tcp => ProbeKind::Tcp,
            HealthKindSpec::Http => ProbeKind::Http {
                path: spec.path.as_str().to_owned(),
                host: Some(spec.host.clone()).filter(|host| !host.is_empty()),
                status: spec.status.ranges().to_vec(),
            },
        },
        every: spec.every,
        timeout: *spec.timeout,
        healthy_after: spec.healthy_after,
        unhealthy_after: spec.unhealthy_after,
    }
}

/// The resolver, with the system's files as they are now.
pub(super) fn lookup(settings: &DnsSettings) -> Arc<dyn Lookup> {
    match Dns::new(settings) {
        Ok(dns) => Arc::new(dns),
        Err(error) => {
            let error = crate::telemetry::chain(&error);
            tracing::warn!(%error, "the system has no usable resolver; names of backends stay unresolved");
            Arc::new(NoResolver)
        }
    }
}
