//! How long a client may take nothing of what it asked for.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// The deadline of every write to one client. It begins when the kernel takes no more, and ends
/// with any progress; a connection that is never held up has no timer.
pub(super) struct Sending {
    timeout: Duration,
    held_up: Option<Pin<Box<Sleep>>>,
}

impl Sending {
    pub fn within(timeout: Duration) -> Self {
        Self {
            timeout,
            held_up: None,
        }
    }

    /// Passes `step` on, or fails with `TimedOut` when there has been none for too long.
    pub fn bound<T>(
        &mut self,
        cx: &mut Context<'_>,
        step: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if step.is_ready() {
            self.held_up = None;
            return step;
        }
        let timeout = self.timeout;
        let over = self.held_up.get_or_insert_with(|| Box::pin(sleep(timeout)));
        over.as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}
