//! Tollgate: a caching reverse proxy and rate-limit gateway.

pub mod accept;
pub mod banner;
pub mod certs;
pub mod client;
pub mod config;
pub mod demo;
pub mod descriptors;
pub mod explain;
pub mod headers;
pub mod http1;
pub mod plan;
pub mod proxy;
pub mod reload;
pub mod route;
pub mod server;
pub mod target;
pub mod telemetry;
pub mod upgrade;
pub mod upstream;
