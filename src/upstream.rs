//! A named set of backends, and the lease of one of them.

pub mod backend;
pub mod balance;
pub mod health;
pub mod peer;
pub mod resolve;
