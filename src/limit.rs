//! What a client may do, and what becomes of one that does more. Knows addresses, times and counts; knows nothing of
//! requests, routes or plans.

pub mod ban;
