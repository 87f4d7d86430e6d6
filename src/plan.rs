//! The configuration compiled: names resolved, live state carried over.
