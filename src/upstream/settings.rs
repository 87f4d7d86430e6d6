//! What one upstream was told to be: plain values, already right. Knows nothing of files.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use super::{Address, Balance, Concurrency, Pace, Tls};
use crate::word::choice;

/// The values of one upstream.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What logs call it.
    pub name: Arc<str>,
    pub balance: Balance,
    pub protocol: Protocol,
    /// `None` is plaintext.
    pub tls: Option<Tls>,
    /// Failures within `fail_timeout` that mark a backend down; 0 is never.
    pub max_fails: u32,
    /// The window of counting and the length of being down.
    pub fail_timeout: Duration,
    /// Idle connections kept per backend; 0 keeps none.
    pub keepalive: usize,
    /// How long an idle connection is kept.
    pub keepalive_idle: Duration,
    /// Requests in flight per backend; 0 is no cap.
    pub max_connections: u32,
    /// How many requests the backends are given together, where that is learned; `None` is no further bound.
    pub concurrency: Option<Concurrency>,
    /// How fast they are given them; `None`: an upstream that is not limited itself.
    pub pace: Option<Pace>,
    /// Requests that may wait while none may be given one more.
    pub queue: usize,
    pub queue_timeout: Duration,
    /// A recovered or newly found backend grows from 10 % to 100 % of its weight in this time; zero is at once.
    pub slow_start: Duration,
    pub timeouts: Timeouts,
    /// `None` is no active probes.
    pub health: Option<Probe>,
    /// Retries allowed per hundred requests.
    pub retry_percent: u32,
    pub last_resort: LastResort,
    /// The longest DNS TTL that is honoured, at least 1 s.
    pub resolve_every: Duration,
    /// The longest response head, in bytes.
    pub max_response_head: usize,
}

/// How long a request may wait for its backend in each phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Connection made, TLS handshake included.
    pub connect: Duration,
    /// From the last byte of the request sent to the end of the response head.
    pub first_byte: Duration,
    /// Between two reads of a response body.
    pub read: Duration,
    /// Until the backend accepts more of the request.
    pub write: Duration,
    /// Without a byte in either direction after a protocol upgrade.
    pub websocket_idle: Duration,
}

choice! {
    /// What is spoken to the backends.
    #[derive(Default)]
    pub enum Protocol: "protocol" {
        #[default]
        H1 = "h1",
        /// HTTP/2 by ALPN; `tls` must be set.
        H2 = "h2",
        /// HTTP/2 in plaintext with prior knowledge; `tls` must not be set.
        H2c = "h2c",
    }

    /// What a request meets when every backend is down.
    #[derive(Default)]
    pub enum LastResort: "last resort" {
        /// 503 with Retry-After.
        #[default]
        Unavailable = "unavailable",
        /// Backends are used as if all were up.
        TryAnyway = "try-anyway",
    }
}

/// An active probe of every backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub kind: ProbeKind,
    pub every: Duration,
    pub timeout: Duration,
    /// Successes in a row that bring a backend up; at least 1.
    pub healthy_after: u32,
    /// Failures in a row that take it down; at least 1.
    pub unhealthy_after: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A connection that is accepted, with its TLS handshake where the upstream has TLS.
    Tcp,
    /// `GET path`; a status within one of the ranges is healthy.
    Http {
        path: String,
        /// The `Host` field; `None` is the backend's own address.
        host: Option<String>,
        status: Vec<RangeInclusive<u16>>,
    },
}

/// One written backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    pub address: Address,
    /// At least 1.
    pub weight: u32,
    /// Used only when no primary can be.
    pub backup: bool,
}

impl Seed {
    /// A primary of weight 1.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            weight: 1,
            backup: false,
        }
    }
}

impl Settings {
    /// The defaults of gateway.toml, for the upstream `name`.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            balance: Balance::default(),
            protocol: Protocol::default(),
            tls: None,
            max_fails: 3,
            fail_timeout: Duration::from_secs(10),
            keepalive: 64,
            keepalive_idle: Duration::from_secs(60),
            max_connections: 0,
            concurrency: None,
            pace: None,
            queue: 128,
            queue_timeout: Duration::from_secs(1),
            slow_start: Duration::ZERO,
            timeouts: Timeouts::default(),
            health: None,
            retry_percent: 20,
            last_resort: LastResort::default(),
            resolve_every: Duration::from_secs(30),
            max_response_head: 64 * 1024,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            first_byte: Duration::from_secs(60),
            read: Duration::from_secs(60),
            write: Duration::from_secs(60),
            websocket_idle: Duration::from_secs(3600),
        }
    }
}
