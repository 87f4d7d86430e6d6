//! What the gateway says of its backends when it is asked by SIGUSR2.

use serde_json::Value;

use super::gateway::Gateway;
use super::process::Signal;
use super::{PATIENCE, wait_for, wait_within};

/// One backend at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendStatus {
    pub backend: String,
    pub in_flight: u64,
    pub state: String,
    /// Requests that wait for any backend of its upstream.
    pub waiting: u64,
}

impl Gateway {
    /// The `count` backends that the configuration has, as they are now, in its order.
    ///
    /// All lines come from one look of the gateway's; not to be called from two threads at once.
    pub fn status(&self, count: usize) -> Vec<BackendStatus> {
        let position = self.log().position();
        self.signal(Signal::User2);
        wait_for("the status of every backend", || {
            let lines = self.log().lines_after(position);
            let status: Vec<_> = lines.iter().filter_map(|line| parse(line)).collect();
            (status.len() >= count).then_some(status)
        })
    }

    /// How many requests each backend is working on.
    pub fn in_flight(&self, count: usize) -> Vec<u64> {
        let status = self.status(count);
        status.iter().map(|backend| backend.in_flight).collect()
    }

    /// Waits until no backend works on anything; fails naming those that still do.
    pub fn wait_until_idle(&self, count: usize) {
        let mut last = Vec::new();
        let idle = wait_within(PATIENCE, || {
            last = self.status(count);
            let idle = last.iter().all(|backend| backend.in_flight == 0);
            idle.then_some(())
        });
        assert!(idle.is_some(), "requests are still counted: {last:?}");
    }

    /// Waits until the backend at `address` is in a state that begins with this word.
    pub fn wait_for_state(&self, count: usize, address: &str, state: &str) {
        wait_for(&format!("{address} to be {state}"), || {
            let status = self.status(count);
            let backend = status.iter().find(|backend| backend.backend == address)?;
            backend.state.starts_with(state).then_some(())
        });
    }
}

fn parse(line: &str) -> Option<BackendStatus> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["message"] != "status" {
        return None;
    }
    Some(BackendStatus {
        backend: line["backend"].as_str()?.to_owned(),
        in_flight: line["in_flight"].as_u64()?,
        state: line["state"].as_str()?.to_owned(),
        waiting: line["waiting"].as_u64()?,
    })
}
