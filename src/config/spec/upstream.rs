//! `[upstream.NAME]`: an application and the backends it runs on.

use std::time::Duration;

use crate::config::declare::{OrFalse, spec};
use crate::config::problem::Located;
use rustls_pki_types::ServerName;

use crate::config::word::{
    FilePath, HealthKindSpec, PaceQuota, Percent, ProbePath, RetryOnSpec, Size, StatusSet,
};
use crate::headers::host::HostSent;
use crate::upstream::{Address, Balance, ConcurrencyMode, LastResort, Protocol, Rate};

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
        /// Requests in flight to all backends together: "adaptive" learns how many from the time of the answers, or a table; otherwise without a bound.
        concurrency: Option<ConcurrencySpec>;
        /// How fast requests go to an upstream that is itself limited; otherwise as they come.
        pace: Option<PaceSpec>;
        /// Requests that may wait when no backend may be given one more, 0 to 100,000; 0 refuses at once.
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

    /// How many requests all backends together are given at once.
    pub struct ConcurrencySpec in "concurrency", or mode {
        /// "adaptive": as many as are answered nearly as fast as few are.
        mode: ConcurrencyMode = "adaptive";
        /// The limit is never below, 1 to 10,000.
        min: Located<u32> = 3, within 1..=10_000;
        /// Nor above, 1 to 100,000.
        max: u32 = 1000, within 1..=100_000;
        /// How much longer than with few requests answers may take, "0%" to "100%".
        tolerance: Percent = "25%";
        /// The limit changes at most this often, 10ms to 1m.
        window: Duration = "100ms", within "10ms"..="1m";
        /// After this time it is measured anew how long answers take with few requests, 1s to 1d.
        measure_every: Duration = "1m", within "1s"..="1d";
    }

    /// How fast requests go to an upstream that is itself limited, and how it is left alone when it asks for it.
    pub struct PaceSpec in "pace", or quota {
        /// "10000 per minute" is never more in any minute, "10000 per minute, burst 100" up to 100 at once; otherwise only its 429 and Retry-After count.
        quota: Option<Rate> as Option<PaceQuota>;
        /// For this long it is left alone at most, however long it says, 1s to 1d.
        longest_pause: Duration = "1h", within "1s"..="1d";
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
