//! A connection that waits for bytes of a head. One timer and one watch serve all its waits: a request that comes in time
//! neither sets nor clears anything.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::downstream::connection::Connection;

/// The waits of one connection. `F` is ready when the gateway is ending.
pub struct Rest<'a, F> {
    ending: Pin<&'a mut F>,
    is_ending: bool,
    /// Goes off at the deadline, or before it: then it is set anew.
    timer: Pin<&'a mut Sleep>,
}

impl<'a, F: Future<Output = ()>> Rest<'a, F> {
    pub fn new(ending: Pin<&'a mut F>, timer: Pin<&'a mut Sleep>) -> Self {
        Self {
            ending,
            is_ending: false,
            timer,
        }
    }

    /// Waits for bytes no longer than `patience`, and no longer than `last_call` once the gateway is ending. `None`: none
    /// came in time.
    pub async fn read(
        &mut self,
        connection: &mut Connection,
        patience: Duration,
        last_call: Duration,
    ) -> Option<io::Result<usize>> {
        let mut deadline = None;
        let mut is_called = false;
        poll_fn(|cx| {
            if let Poll::Ready(read) = connection.poll_read_more(cx) {
                return Poll::Ready(Some(read));
            }
            let deadline = deadline.get_or_insert_with(|| Instant::now() + patience);
            self.is_ending = self.is_ending || self.ending.as_mut().poll(cx).is_ready();
            if self.is_ending && !std::mem::replace(&mut is_called, true) {
                *deadline = (*deadline).min(Instant::now() + last_call);
            }
            self.poll_past(*deadline, cx).map(|()| None)
        })
        .await
    }

    /// Waits for bytes until the deadline, whatever else comes. `None`: none came in time.
    pub async fn read_until(
        &mut self,
        connection: &mut Connection,
        deadline: Instant,
    ) -> Option<io::Result<usize>> {
        poll_fn(|cx| {
            if let Poll::Ready(read) = connection.poll_read_more(cx) {
                return Poll::Ready(Some(read));
            }
            self.poll_past(deadline, cx).map(|()| None)
        })
        .await
    }

    /// Ready when the deadline is past.
    fn poll_past(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.deadline() > deadline.into() {
            self.timer.as_mut().reset(deadline.into());
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.timer.deadline() >= deadline.into() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline.into());
        }
    }
}
