//! The connection before it is a request: sockets, TLS, PROXY protocol, guards.

pub mod certificates;
pub mod connection;
pub mod guard;
pub mod listener;
pub mod proxy_protocol;
