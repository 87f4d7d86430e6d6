//! From `[server]` to how connections are taken: listeners with their certificates, deadlines, bounds.
//! Knows nothing of what becomes of a request.

use std::sync::Arc;

use crate::accept::AcceptSettings;
use crate::accept::guard::ConnectionGuards;
use crate::certificates::{CertificateStore, server_config};
use crate::config::Config;
use crate::config::problem::{Problem, Problems};
use crate::config::spec::ListenSpec;
use crate::listen::ListenerSettings;
use crate::plan;

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

/// Every listener with its certificates, which are watched from here on. Needs a runtime.
pub fn listeners(config: &Config, file: &str) -> Result<Vec<Arc<ListenerSettings>>, Problems> {
    let mut problems = Problems::new(file);
    let mut listeners = Vec::new();
    for spec in &config.server.listen {
        match listener(spec) {
            Ok(listener) => listeners.push(Arc::new(listener)),
            Err(problem) => problems.push(problem),
        }
    }
    problems.none_or(listeners)
}

fn listener(spec: &ListenSpec) -> Result<ListenerSettings, Problem> {
    let certificates = spec
        .tls
        .as_ref()
        .map(|directory| {
            let default = spec
                .default_certificate
                .as_ref()
                .map(|name| name.value.as_str());
            CertificateStore::load(&directory.path, default)
                .map(Arc::new)
                .map_err(|error| Problem::at(directory, crate::telemetry::chain(&error)))
        })
        .transpose()?;
    if let Some(store) = &certificates {
        store.watch();
    }
    Ok(ListenerSettings {
        address: spec.address.value.clone(),
        tls: certificates
            .as_ref()
            .map(|store| server_config(store.clone(), spec.h2, spec.min_tls)),
        certificates,
        h2c: *spec.h2c,
        redirect_https: *spec.redirect_https,
        proxy_protocol: *spec.proxy_protocol,
    })
}
