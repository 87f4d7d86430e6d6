//! The file's shape, and what is wrong with it.

pub mod problem;
pub mod schema;
pub mod spec;
pub mod word;
