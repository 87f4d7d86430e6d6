//! The HTTP/1.x wire grammar, strictly: what a head and a body must look like (RFC 9112).
//!
//! Pure functions over bytes: no sockets, no clock, no settings beyond limits of size. Everything
//! here gives the same answer however the bytes were cut into reads.

pub mod answer;
pub mod bad_response;
pub mod body;
pub mod framing;
pub mod grammar;
pub mod head;
pub mod lines;
pub mod malformed;
pub mod packed;
pub mod request_line;
pub mod response;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod properties;

pub use answer::ResponseHead;
pub use body::BodyScanner;
pub use framing::Framing;
pub use head::{HeadScanner, Limits, RequestHead};
pub use malformed::Malformed;
pub use packed::PackedHead;
pub use response::{BadResponse, ResponseGate, ResponseLimits};
