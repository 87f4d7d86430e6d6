//! The one record of a request, read out of what its exchange has learned.

use std::time::SystemTime;

use http::Version;
use http::header::USER_AGENT;
use pingora_core::{Error, ErrorSource};
use pingora_proxy::Session;

use super::exchange::Exchange;
use crate::downstream::Downstream;
use crate::target::Host;
use crate::telemetry::Log;
use crate::telemetry::access::Record;

/// The longest part of a message's first line that a record repeats, in bytes.
const MAX_FIRST_LINE: usize = 128;

/// Records a request that the full lane has dealt with.
pub fn finish(log: &Log, session: &Session, error: Option<&Error>, exchange: &Exchange) {
    let Some(downstream) = session.digest().and_then(Downstream::of) else {
        return;
    };
    let request = session.req_header();
    let host = exchange
        .asked
        .as_ref()
        .and_then(|asked| asked.host.as_ref());
    let path = match &exchange.asked {
        Some(asked) => asked.path.as_ref().into(),
        None => String::from_utf8_lossy(path_of(request.raw_path())),
    };
    let attempt = &exchange.attempt;
    let client_left = error.is_some_and(|error| *error.esource() == ErrorSource::Downstream);
    let route = exchange.route.as_deref();
    let record = Record {
        method: request.method.as_str(),
        host: host.map_or("", Host::name),
        path: &path,
        query: exchange
            .asked
            .as_ref()
            .and_then(|asked| asked.query.as_deref()),
        protocol: protocol(request.version),
        route: route.map(|route| &*route.name),
        upstream: attempt
            .upstream
            .as_ref()
            .map(|upstream| &*upstream.settings().name),
        backend: attempt.backend.as_ref().map(|backend| backend.label()),
        attempts: attempt.count,
        bytes_in: session.body_bytes_read() as u64,
        bytes_out: session.body_bytes_sent() as u64,
        connect: attempt.connect_time(),
        first_byte: attempt.first_byte_time(),
        user_agent: request
            .headers
            .get(USER_AGENT)
            .and_then(|agent| agent.to_str().ok()),
        aborted: exchange.aborted || (client_left && exchange.refusal.is_none()),
        tunnel: session.was_upgraded(),
        ..of_connection(exchange, downstream)
    };
    let policy = route.map_or(&exchange.plan.access, |route| &route.access);
    log.access(policy, &record);
}

/// Records a message that was refused before it was a request. `read` is what arrived of it.
pub fn unparsed(log: &Log, exchange: &Exchange, downstream: &Downstream, read: &[u8], sent: usize) {
    // Shown escaped by the writer, and only its start: it may be anything at all.
    let line = read
        .split(|byte| matches!(byte, b'\r' | b'\n'))
        .find(|line| !line.is_empty());
    let line = line.unwrap_or_default();
    let line = String::from_utf8_lossy(path_of(&line[..line.len().min(MAX_FIRST_LINE)]));
    let record = Record {
        path: &line,
        bytes_out: sent as u64,
        ..of_connection(exchange, downstream)
    };
    log.access(&exchange.plan.access, &record);
}

/// What is known before the request is.
fn of_connection<'a>(exchange: &'a Exchange, downstream: &'a Downstream) -> Record<'a> {
    Record {
        time: SystemTime::now(),
        id: exchange.request_id.as_str(),
        client: exchange.client,
        peer: downstream.peer_ip(),
        method: "",
        host: "",
        path: "",
        query: None,
        protocol: "HTTP/1.1",
        tls: downstream.tls.as_ref().map(|tls| tls.version),
        route: None,
        upstream: None,
        backend: None,
        attempts: 0,
        status: exchange.status,
        bytes_in: 0,
        bytes_out: 0,
        duration: exchange.began.elapsed(),
        connect: None,
        first_byte: None,
        reason: exchange.reason(),
        user_agent: None,
        aborted: exchange.aborted,
        tunnel: false,
    }
}

/// A target that was refused may hold a secret in its query, which is not masked there.
fn path_of(target: &[u8]) -> &[u8] {
    target
        .split(|byte| *byte == b'?')
        .next()
        .unwrap_or_default()
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}
