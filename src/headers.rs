//! Fields towards the application and towards the client.

pub mod forwarded;
pub mod policy;
pub mod security;
