//! Fields towards the application and towards the client: functions of plain values over pingora's
//! header types, which keep the case of names on the wire. Knows nothing of sessions or routes.

pub mod cache;
pub mod encoding;
pub mod forwarded;
pub mod host;
pub mod limit;
pub mod names;
pub mod policy;
pub mod security;
