//! How long a poll may stay pending. The timer is made only by a wait, and moved only when it fires.

use std::{
    error::Error,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep_until};

/// The wait for a backend that took too long; inside the [`io::Error`] of a stream.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Deadline {
    #[error("the connection was not made in time")]
    Connect,
    #[error("the response head did not arrive in time")]
    FirstByte,
    #[error("the request stopped coming from its client")]
    Request,
    #[error("the response body paused for too long")]
    Read,
    #[error("the backend accepted nothing for too long")]
    Write,
    #[error("the tunnel was idle for too long")]
    Idle,
}

impl Deadline {
    /// The deadline that an error of pingora's came from, if it did.
    pub fn of(error: &pingora_core::Error) -> Option<Self> {
        let mut cause = error
            .cause
            .as_deref()
            .map(|cause| cause as &(dyn Error + 'static));
        while let Some(error) = cause {
            if let Some(deadline) = error.downcast_ref::<Self>() {
                return Some(*deadline);
            }
            if let Some(error) = error.downcast_ref::<io::Error>()
                && let Some(deadline) = error
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<Self>())
            {
                return Some(*deadline);
            }
            if let Some(error) = error.downcast_ref::<Box<pingora_core::Error>>() {
                return Self::of(error);
            }
            cause = error.source();
        }
        None
    }

    pub(super) fn passed(self) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, self)
    }
}

/// One direction's timer.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Ready once `at` has passed; `None` never is. To be polled whenever the operation it guards is pending.
    pub fn poll(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        let Some(at) = at else {
            self.sleep = None;
            return Poll::Pending;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        // A later deadline waits until the timer fires: progress, the usual case, costs no timer operation.
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= at {
                self.sleep = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }
}
