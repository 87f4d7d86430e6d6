//! The HTTP/1.x wire grammar, strictly: what a head and a body must look like.

pub mod body;
pub mod head;
