//! From `[server]` to how connections are taken: listeners with their certificates, deadlines, bounds.
//! Knows nothing of what becomes of a request.

use std::sync::Arc;

use rustls::server::danger::ClientCertVerifier;

use crate::accept::AcceptSettings;
use crate::accept::guard::ConnectionGuards;
use crate::certificates::{CertificateError, CertificateStore, client_verifier, server_config};
use crate::config::Config;
use crate::config::problem::{Located, Problems};
use crate::config::spec::ListenSpec;
use crate::config::word::FilePath;
use crate::listen::ListenerSettings;
use crate::plan;

/// With this variable in the environment the full lane serves what the express lane would. It is there for the tests
/// that compare the lanes, and no setting: one gateway before the other answers alike, which is what they show.
const FULL_LANE_ONLY: &str = "TOLLGATE_TEST_FULL_LANE_ONLY";

/// How connections are taken.
pub fn accept_settings(config: &Config) -> AcceptSettings {
    let server = &config.server;
    AcceptSettings {
        header_timeout: server.header_timeout,
        idle_timeout: server.idle_timeout,
        handshake_timeout: server.handshake_timeout,
        body_timeout: server.body_timeout,
        send_timeout: server.send_timeout,
        keepalive_requests: server.keepalive_requests,
        max_h2_streams: server.max_h2_streams,
        limits: plan::limits(config),
        full_lane_only: std::env::var_os(FULL_LANE_ONLY).is_some(),
    }
}

/// The bounds on connections.
pub fn guards(config: &Config) -> ConnectionGuards {
    let server = &config.server;
    ConnectionGuards::new(
        server.max_connections,
        server.max_connections_per_client as u32,
    )
}

/// Every listener with its certificates. `None` when one has a problem; all of them are noted.
pub fn listeners(config: &Config, problems: &mut Problems) -> Option<Vec<Arc<ListenerSettings>>> {
    let specs = config.server.listen.iter();
    let listeners: Vec<_> = specs.map(|spec| listener(spec, problems)).collect();
    listeners.into_iter().collect()
}

fn listener(spec: &ListenSpec, problems: &mut Problems) -> Option<Arc<ListenerSettings>> {
    let certificates = match &spec.tls {
        Some(directory) => Some(certificates(spec, directory, problems)?),
        None => None,
    };
    // Without TLS nobody shows one, which is a problem by itself.
    let clients = match spec.client_ca.as_ref().filter(|_| spec.tls.is_some()) {
        Some(authorities) => Some(clients(spec, authorities, problems)?),
        None => None,
    };
    Some(Arc::new(ListenerSettings {
        address: spec.address.value.clone(),
        tls: certificates
            .as_ref()
            .map(|store| server_config(store.clone(), spec.h2, spec.min_tls, clients)),
        certificates,
        h2c: *spec.h2c,
        redirect_https: *spec.redirect_https,
        proxy_protocol: *spec.proxy_protocol,
    }))
}

fn clients(
    spec: &ListenSpec,
    authorities: &Located<FilePath>,
    problems: &mut Problems,
) -> Option<Arc<dyn ClientCertVerifier>> {
    let verifier = client_verifier(&authorities.path, spec.client_certificates);
    let noted = |error| problems.note(authorities, crate::telemetry::chain(&error));
    verifier.map_err(noted).ok()
}

fn certificates(
    spec: &ListenSpec,
    directory: &Located<FilePath>,
    problems: &mut Problems,
) -> Option<Arc<CertificateStore>> {
    let default = spec.default_certificate.as_ref();
    match CertificateStore::load(&directory.path, default.map(|name| name.as_str())) {
        Ok(store) => Some(Arc::new(store)),
        Err(errors) => {
            for error in errors {
                let message = crate::telemetry::chain(&error);
                match (&error, default) {
                    (CertificateError::Default { .. }, Some(name)) => problems.note(name, message),
                    _ => problems.note(directory, message),
                }
            }
            None
        }
    }
}

/// Certificates that clients will complain of. Not problems: a gateway that refuses to start for
/// an expired certificate takes every other name down with it.
pub fn complaints(config: &Config, listeners: &[Arc<ListenerSettings>], warnings: &mut Problems) {
    for (spec, listener) in config.server.listen.iter().zip(listeners) {
        let (Some(directory), Some(store)) = (&spec.tls, &listener.certificates) else {
            continue;
        };
        for (name, complaint) in store.complaints() {
            let message = format!("certificate {name:?} of {} {complaint}", directory.value);
            warnings.note(directory, message);
        }
    }
}

/// Takes in what changes on disk from now on. Needs a runtime.
pub fn watch(listeners: &[Arc<ListenerSettings>]) {
    for store in listeners.iter().filter_map(|one| one.certificates.as_ref()) {
        store.watch();
    }
}
