//! The full lane: one request from its head to its record.

pub mod exchange;
pub mod ingress;
pub mod refusal;
