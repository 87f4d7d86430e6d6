//! `[redis]`: what several gateways share, and how it is reached.

use std::time::Duration;

use crate::config::declare::spec;
use crate::config::problem::Located;
use crate::config::word::FilePath;
use crate::redis::{Node, Prefix, Secret};

spec! {
    /// What several gateways share, and how it is reached. A change needs a restart.
    pub struct RedisSpec in "[redis]" {
        /// "redis://HOST:PORT/DATABASE", or "rediss://" for TLS, with USER:PASSWORD@ if wished; 1 to 64 entries. Several are nodes of a cluster, or sentinels.
        nodes: Vec<Located<Node>>, entries 1..=64;
        /// Whether this is a Redis Cluster; otherwise it is if there are several nodes and no sentinel.
        cluster: Option<Located<bool>>;
        /// The nodes are sentinels, and this is the master they know.
        sentinel: Option<SentinelSpec>;
        /// As whom to log in, in place of the node's; with sentinels, at the master.
        username: Option<Located<String>>;
        /// Its password.
        password: Option<Located<Secret>>;
        /// Authorities to believe in place of the system's.
        ca: Option<Located<FilePath>>;
        /// To present to the servers, with key.
        certificate: Option<Located<FilePath>>;
        /// With certificate.
        key: Option<Located<FilePath>>;
        /// What every key and channel begins with, up to 64 bytes without space and braces.
        prefix: Prefix = "tollgate:";
        /// What a request may wait for one answer, 1ms to 10s.
        deadline: Duration = "20ms", within "1ms"..="10s";
        /// For a new connection with TLS, password and first answer, 10ms to 1m.
        connect_timeout: Duration = "1s", within "10ms"..="1m";
        /// A connection is checked, and a Redis that is away tried, at least this often, 1s to 1h.
        health_interval: Duration = "30s", within "1s"..="1h";
        /// Connections for bodies, 1 to 64, to each node of a cluster; there are one more for what is small, one for limits and one for messages.
        connections: usize = 4, within 1..=64;
        /// Questions in flight on one connection, 1 to 100,000; more are decided without Redis.
        max_in_flight: usize = 256, within 1..=100_000;
    }

    /// Who knows which server is the master.
    pub struct SentinelSpec in "[redis.sentinel]" {
        /// The name under which the sentinels know it.
        master: String;
    }
}
