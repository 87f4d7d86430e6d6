//! `[upstream.NAME]`: an application and the backends it runs on.

use std::time::Duration;

use crate::config::declare::{OrFalse, spec};
use crate::config::problem::Located;
use rustls_pki_types::ServerName;

use crate::config::word::{
    FilePath, HealthKindSpec, Percent, ProbePath, RetryOnSpec, Size, StatusSet,
};
use crate::headers::host::HostSent;
use crate::upstream::{Address, Balance, LastResort, Protocol};

spec! {
    /// An application and the backends it runs on.
    pub struct UpstreamSpec in "[upstream.NAME]" {
        /// Its instances, 1 to 256; a bare string is the address of one.
        backends: Vec<BackendSpec>, entries 1..=256;
        /// "least-connections", "round-robin", "random-two" or "consistent-hash:KEY" by client-ip, header:NAME or cookie:NAME.
        balance: Located<Balance> = "least-connections";
        /// "h1", "h2" over TLS, or "h2c" in plaintext.
        protocol: Located<Protocol> = "h1";
        /// false, or a table: TLS to the backends.
        tls: Option<TlsSpec> as OrFalse<TlsSpec> = false;
        /// Failures within fail_timeout that mark a backend down, 0 to 1000; 0 is never.
        max_fails: u32 = 3, within 0..=1000;
        /// The window in which failures are counted, and how long a backend is then down, 1ms to 1h.
        fail_timeout: Duration = "10s", within "1ms"..="1h";
        /// Idle connections kept per backend, 0 to 10,000.
        keepalive: usize = 64, within 0..=10_000;
        /// How long an idle connection is kept, 1ms to 1d.
        keepalive_idle: Duration = "60s", within "1ms"..="1d";
        /// Requests in flight per backend, 0 to 1,000,000; 0 is no cap.
        max_connections: usize = 0, within 0..=1_000_000;
        /// Requests that may wait when every backend is at its cap, 0 to 100,000; 0 refuses at once.
        queue: usize = 128, within 0..=100_000;
        /// How long a request may wait there, 1ms to 1h.
        queue_timeout: Duration = "1s", within "1ms"..="1h";
        /// After recovery the weight of a backend grows from 10 % to 100 % over this time, 0s to 1h.
        slow_start: Duration = "0s", within "0s"..="1h";
        /// Longest request body, 0 B to 1024 GiB; a longer one is answered with 413.
        max_body: u64 as Size = "50 MiB", within "0 B"..="1024 GiB";
        /// Longest response head, 1 KiB to 1023 KiB; a longer one is answered with 502.
        max_response_head: u64 as Size = "64 KiB", within "1 KiB"..="1023 KiB";
        /// Names are resolved again by their TTL, but at least this often and at most every second, 1s to 1d.
        resolve_every: Duration = "30s", within "1s"..="1d";
        /// Host sent to the application: "client" (as received), "backend" or a literal name.
        host: HostSent = "client";
        /// How long each step may take.
        timeouts: TimeoutsSpec = {};
        /// Active probes; without this table there are none.
        health: Option<HealthSpec>;
        /// What is tried again on another backend.
        retry: RetrySpec = {};
        /// When every backend is down: "unavailable" (503 with Retry-After) or "try-anyway".
        last_resort: LastResort = "unavailable";
    }

    /// One instance of an application.
    pub struct BackendSpec in "a backend", or address {
        /// "HOST:PORT", "IP:PORT", with IPv6 in brackets, or "unix:/path".
        address: Located<Address>;
        /// Share of the load against the other backends, 1 to 1000.
        weight: u32 = 1, within 1..=1000;
        /// Used only when every other backend is down.
        backup: bool = false;
    }

    /// TLS to the backends. Certificates are verified unless insecure is said.
    pub struct TlsSpec in "tls" {
        /// The name that backends prove; required unless insecure = true.
        sni: Option<ServerName<'static>>;
        /// PEM file of the authorities to trust instead of the system's.
        ca: Option<Located<FilePath>>;
        /// Accepts any certificate: for nothing that matters.
        insecure: Located<bool> = false;
        /// PEM file of the certificate to present to backends; needs key.
        certificate: Option<Located<FilePath>>;
        /// PEM file of its private key; needs certificate.
        key: Option<Located<FilePath>>;
    }

    /// How long each step of a request to a backend may take.
    pub struct TimeoutsSpec in "timeouts" {
        /// Connecting, with TLS, 1ms to 1h.
        connect: Duration = "3s", within "1ms"..="1h";
        /// From the request sent to the first byte of the response, 1ms to 1d.
        first_byte: Duration = "60s", within "1ms"..="1d";
        /// Between two reads of the response, 1ms to 1d.
        read: Duration = "60s", within "1ms"..="1d";
        /// Between two writes of the request, 1ms to 1d.
        write: Duration = "60s", within "1ms"..="1d";
        /// A WebSocket may stay silent this long, 1ms to 30d.
        websocket_idle: Duration = "1h", within "1ms"..="30d";
    }

    /// Active probes of every backend.
    pub struct HealthSpec in "health" {
        /// Target of the probe.
        path: ProbePath = "/healthz";
        /// Between two probes of one backend, 10ms to 1h.
        every: Duration = "5s", within "10ms"..="1h";
        /// For one probe; not longer than every, 1ms to 1h.
        timeout: Located<Duration> = "2s", within "1ms"..="1h";
        /// Statuses that are healthy, such as "200-399" or "200,204".
        status: StatusSet = "200-399";
        /// Host of the probe; empty: the address of the backend.
        host: String = "";
        /// Good probes in a row that bring a backend up, 1 to 100.
        healthy_after: u32 = 2, within 1..=100;
        /// Bad probes in a row that take it down, 1 to 100.
        unhealthy_after: u32 = 3, within 1..=100;
        /// "http", or "tcp": a connection that is accepted is healthy.
        kind: HealthKindSpec = "http";
    }

    /// What is tried again on another backend, before any byte reached the client.
    pub struct RetrySpec in "retry" {
        /// Attempts in all, 1 to 10; 1 never tries again.
        attempts: u32 = 2, within 1..=10;
        /// When: "connect", "reset" (lost before any byte), "timeout" (no first byte), "429", "500", "502", "503", "504".
        on: Vec<RetryOnSpec> = ["connect", "reset", "timeout", "502", "503", "504"];
        /// Also methods that may have an effect each time: POST, PATCH.
        non_idempotent: bool = false;
        /// Share of requests that may be tried again, "0%" to "100%".
        budget: Percent = "20%";
    }
}
