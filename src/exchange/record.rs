//! The one record of a request, read out of what its exchange has learned.

use std::time::SystemTime;

use http::{HeaderValue, Method, Version};

use super::{Exchange, barring, limiting};
use crate::cache::status::Tier;
use crate::downstream::Downstream;
use crate::target::Host;
use crate::telemetry::Log;
use crate::telemetry::access::Record;

/// The longest part of a message's first line that a record repeats, in bytes.
const MAX_FIRST_LINE: usize = 128;

/// What of a request and its answer only the lane that served it knows.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    pub method: &'a Method,
    pub version: Version,
    /// The target as it came, for a request that was not let in.
    pub target: &'a [u8],
    pub user_agent: Option<&'a HeaderValue>,
    /// Body bytes from and to the client.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// The connection became a tunnel.
    pub tunnel: bool,
}

/// Records a request that a lane has dealt with.
pub fn finish(log: &Log, exchange: &Exchange, downstream: &Downstream, served: &Served<'_>) {
    barring::note(exchange, downstream);
    limiting::settle(exchange, served.bytes_in + served.bytes_out);
    let route = exchange.route.as_deref();
    let caching = route.and_then(|route| route.cache.as_deref());
    let told = exchange.cache.as_ref().filter(|_| !exchange.is_own);
    if let (Some(caching), Some(told)) = (caching, told) {
        let counters = &caching.counters;
        counters.count(told.disposition(), told.tier, told.detail);
    }
    let policy = route.map_or(&exchange.plan.access, |route| &route.access);
    if !policy.may_want(exchange.status, exchange.began.elapsed()) {
        return;
    }
    let asked = exchange.asked.as_ref();
    let host = asked.and_then(|asked| asked.host.as_ref());
    let path = match asked {
        Some(asked) => asked.path.as_ref().into(),
        None => String::from_utf8_lossy(path_of(served.target)),
    };
    let attempt = &exchange.attempt;
    let record = Record {
        method: served.method.as_str(),
        host: host.map_or("", Host::name),
        path: &path,
        query: asked.and_then(|asked| asked.query.as_deref()),
        protocol: protocol(served.version),
        route: route.map(|route| &*route.name),
        upstream: attempt
            .upstream
            .as_ref()
            .map(|upstream| &*upstream.settings().name),
        backend: attempt.backend.as_ref().map(|backend| backend.label()),
        attempts: attempt.count,
        bytes_in: served.bytes_in,
        bytes_out: served.bytes_out,
        connect: attempt.connect_time(),
        first_byte: attempt.first_byte_time(),
        cache: exchange
            .cache
            .as_ref()
            .map(|told| told.disposition().as_str()),
        cache_tier: exchange
            .cache
            .as_ref()
            .and_then(|told| told.tier)
            .map(Tier::as_str),
        cache_detail: exchange.cache.as_ref().and_then(|told| told.detail),
        user_agent: served.user_agent.and_then(|agent| agent.to_str().ok()),
        tunnel: served.tunnel,
        ..of_connection(exchange, downstream)
    };
    log.access(policy, &record);
}

/// Records a message that was refused before it was a request. `read` is what arrived of it.
pub fn unparsed(log: &Log, exchange: &Exchange, downstream: &Downstream, read: &[u8], sent: usize) {
    barring::note(exchange, downstream);
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
        cache: None,
        cache_tier: None,
        cache_detail: None,
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
