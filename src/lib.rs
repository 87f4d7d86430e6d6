//! Tollgate: a caching reverse proxy and rate-limit gateway.

pub mod accept;
pub mod address;
pub mod banner;
pub mod certificates;
pub mod certs;
pub mod client;
pub mod config;
pub mod demo;
pub mod downstream;
pub mod explain;
pub mod headers;
pub mod http1;
pub mod listen;
pub mod plan;
pub mod proxy;
pub mod refusal;
pub mod reload;
pub mod route;
pub mod server;
pub mod target;
pub mod telemetry;
pub mod upgrade;
pub mod upstream;
mod word;
