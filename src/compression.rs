//! Bodies in fewer bytes (RFC 9110 8.4.1): which coding a client and an operator agree on, which types
//! are worth it, and the encoders. Knows no request and no route.
//!
//! - `coding`: the codings, and the levels of each
//! - `negotiation`: one of them by what a client accepts
//! - `media_type`: what is worth it
//! - `representation`: what the fields of a response say once its body is encoded
//! - `encoder`: a body in pieces, or whole

pub mod coding;
pub mod encoder;
pub mod media_type;
pub mod negotiation;
pub mod representation;

pub use coding::{Coding, Levels};

use media_type::MediaTypes;

/// How the responses of a route are compressed.
#[derive(Clone, Debug)]
pub struct Compression {
    /// What is offered; of equally welcome ones the first.
    pub codings: Vec<Coding>,
    pub types: MediaTypes,
    /// Bodies that are known to be shorter stay as they are, in bytes.
    pub min_size: u64,
    /// Also what may hold the secret of one visitor.
    pub personal: bool,
    /// Of bodies on their way.
    pub levels: Levels,
    /// Of stored bodies, each of which is encoded once.
    pub stored_levels: Levels,
}
