//! `[server]`, `[clients]`, `[resolver]`, `[log]` and `[errors]`.

use std::time::Duration;

use ipnet::IpNet;

use crate::certificates::{ClientCertificates, MinTls};
use crate::config::declare::spec;
use crate::config::problem::Located;
use crate::config::word::{FilePath, HttpsPort, NetworksOrFile, Size};
use crate::listen::ListenAddress;
use crate::target::PathParameters;
use crate::telemetry::access::{AccessMode, QueryMode};
use crate::telemetry::{Format, Level, Output};
use crate::upstream::NameServer;

spec! {
    /// Listeners, connections and what a request may look like.
    pub struct ServerSpec in "[server]" {
        /// Threads that serve requests, 0 to 1024; 0 is one per core.
        workers: usize = 0, within 0..=1024;
        /// Where to listen, 1 to 64 entries; a bare string is the address of a plaintext listener.
        listen: Vec<ListenSpec>, entries 1..=64;
        /// Open client connections over all listeners, 1 to 1,000,000; more are closed at once.
        max_connections: usize = 20_000, within 1..=1_000_000;
        /// Open connections of one client address, 1 to 1,000,000; trusted proxies are not counted.
        max_connections_per_client: usize = 256, within 1..=1_000_000;
        /// How long requests in flight may take to end when the gateway stops, 0s to 1h.
        drain: Duration = "30s", within "0s"..="1h";
        /// For a whole request head, from its first byte, 1ms to 1h.
        header_timeout: Duration = "10s", within "1ms"..="1h";
        /// A kept connection may stay silent this long between requests, 1ms to 1d.
        idle_timeout: Duration = "75s", within "1ms"..="1d";
        /// For the TLS handshake and for the PROXY header, 1ms to 1h.
        handshake_timeout: Duration = "10s", within "1ms"..="1h";
        /// Between two reads of a request body, 1ms to 1d.
        body_timeout: Duration = "60s", within "1ms"..="1d";
        /// Between two writes to the client, 1ms to 1d.
        send_timeout: Duration = "60s", within "1ms"..="1d";
        /// Requests on one connection before it is closed, 1 to 1,000,000,000.
        keepalive_requests: u32 = 10_000, within 1..=1_000_000_000;
        /// Method, target and version, 64 B to 64 KiB; a longer one is answered with 414.
        max_request_line: Located<u64> as Located<Size> = "8 KiB", within "64 B"..="64 KiB";
        /// Fields of a request head, 1 to 256; more are answered with 431.
        max_headers: usize = 100, within 1..=256;
        /// The whole request head, 256 B to 1023 KiB; a longer one is answered with 431.
        max_header_bytes: u64 as Size = "32 KiB", within "256 B"..="1023 KiB";
        /// Streams open at once on one HTTP/2 connection, 1 to 10,000.
        max_h2_streams: u32 = 128, within 1..=10_000;
        /// Drops fields whose name has more than letters, digits and "-": applications confuse "_" with "-". Proxy is always dropped.
        drop_unsafe_headers: bool = true;
        /// Merges empty path segments: "//" is "/". Otherwise they are part of the path.
        merge_slashes: bool = false;
        /// ";x=1" in a path segment: "keep" as text, or "refuse" with 400.
        path_parameters: PathParameters = "keep";
        /// File that holds the process id while the gateway runs.
        pid_file: Option<Located<FilePath>>;
        /// Reloads when this file changes, and on SIGHUP anyway.
        watch: bool = true;
    }

    /// One listener.
    pub struct ListenSpec in "a listener", or address {
        /// "IP:PORT", with IPv6 in brackets, or "unix:/path".
        address: Located<ListenAddress>;
        /// Directory of NAME.crt or NAME.pem with NAME.key; the listener then speaks TLS.
        tls: Option<Located<FilePath>>;
        /// NAME for clients that ask for no name or an unknown one; otherwise the first by name.
        default_certificate: Option<Located<String>>;
        /// The lowest TLS version: "1.2" or "1.3".
        min_tls: MinTls = "1.2";
        /// PEM file of the authorities that sign the certificates of clients, who are then asked for one; only with tls.
        client_ca: Option<Located<FilePath>>;
        /// With client_ca: "required", or "optional" lets clients in that show no certificate.
        client_certificates: ClientCertificates = "required";
        /// Offers HTTP/2 to TLS clients.
        h2: bool = true;
        /// HTTP/2 in plaintext with prior knowledge; not on a TLS listener.
        h2c: Located<bool> = false;
        /// Answers every request with 308 to https: true is port 443, or a port; not on a TLS listener.
        redirect_https: Located<Option<u16>> as Located<HttpsPort> = false;
        /// Expects a PROXY header, version 1 or 2, from clients.trusted_proxies and closes all other connections.
        proxy_protocol: Located<bool> = false;
    }

    /// Who is believed about whom.
    pub struct ClientsSpec in "[clients]" {
        /// Networks whose X-Forwarded fields, X-Request-ID and PROXY headers are believed.
        trusted_proxies: Vec<IpNet> = [];
        /// Also sends Forwarded (RFC 7239) to applications.
        forwarded: bool = false;
        /// Who is never denied and never banned: a file with one network a line, or a list of networks.
        allow: Option<Located<NetworksOrFile>>;
        /// Who is answered with 403: a file with one network a line, or a list of networks; allow wins.
        deny: Option<Located<NetworksOrFile>>;
    }

    /// Who is asked for the addresses of names.
    pub struct ResolverSpec in "[resolver]" {
        /// Name servers, "IP" or "IP:PORT", 0 to 16 entries; none is those of /etc/resolv.conf.
        servers: Vec<NameServer> = [], entries 0..=16;
        /// For one answer of one server, 1ms to 1m; otherwise what /etc/resolv.conf says, or 5s.
        timeout: Option<Duration>, within "1ms"..="1m";
    }

    /// The access log and the gateway's own messages.
    pub struct LogSpec in "[log]" {
        /// The gateway's own messages: "error", "warn", "info", "debug" or "trace".
        level: Level = "info";
        /// "json" or "text".
        format: Format = "json";
        /// Requests that are logged: "all", "errors" (status 400 and above), "slow", "sampled:N" (one in N) or "off".
        access: AccessMode = "errors";
        /// A request that takes longer is logged as a warning with its timings, 1ms to 1d.
        slow_after: Duration = "1s", within "1ms"..="1d";
        /// "stderr", "stdout" or the path of a file.
        output: Located<Output> = "stderr";
        /// Lines that may wait to be written, 64 to 1,000,000; further ones are dropped and counted.
        buffer: usize = 8192, within 64..=1_000_000;
        /// Query strings: "masked" (values that look secret are replaced), "off" or "full".
        query: QueryMode = "masked";
    }

    /// The answers that the gateway gives by itself.
    pub struct ErrorsSpec in "[errors]" {
        /// HTML file in place of the built-in page; {{status}} {{title}} {{detail}} {{reason}} {{request_id}} are filled in.
        page: Option<Located<FilePath>>;
        /// Retry-After of 503 answers, 0s to 1h in whole seconds.
        retry_after: Located<Duration> = "5s", within "0s"..="1h";
    }
}
