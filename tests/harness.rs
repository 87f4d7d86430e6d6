//! What the integration tests are made of: the gateway, the applications behind it, an origin that
//! misbehaves on request, and clients that say exactly what they are told.
//!
//! Waiting is always for an event and always has a deadline ([`PATIENCE`] unless a test says
//! otherwise); nothing sleeps in the hope that something has happened by then.

pub mod apps;
pub mod client;
pub mod coding;
pub mod corpus;
pub mod forwarder;
pub mod gateway;
pub mod h2_client;
pub mod h2_frames;
pub mod h2_origin;
pub mod load;
pub mod log;
pub mod name_server;
pub mod origin;
pub mod port;
pub mod process;
pub mod redis;
pub mod response;
pub mod stats;
pub mod status;
pub mod tls;
pub mod tls_origin;
pub mod visitor;
pub mod wire;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen at once.
///
/// Long, because the suite shares two cores with compilers and Python; it is only ever spent by a
/// test that fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The time between two looks at something that cannot notify us.
const GLANCE: Duration = Duration::from_millis(5);

/// Asks `look` until it answers, and panics with `what` when [`PATIENCE`] is spent.
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    match wait_within(PATIENCE, look) {
        Some(value) => value,
        None => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Asks `look` until it answers or the time is over.
pub fn wait_within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = look() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(GLANCE);
    }
}

/// A path inside the repository.
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
