//! Work that several ask for at once and that is done once. Knows nothing of what is asked.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// What is under way, by name.
pub(super) struct Flights<T: Clone>(Mutex<HashMap<Box<str>, Joined<T>>>);

/// What everybody waits for who has asked for the same.
type Joined<T> = Shared<BoxFuture<'static, Option<T>>>;

impl<T: Clone> Default for Flights<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// Does `work`, or waits for the same work of somebody else. It goes on when those who wait leave.
    /// `None`: it has panicked, or the process ends.
    pub async fn join(
        self: &Arc<Self>,
        name: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (joined, ours) = {
            let mut under_way = self.0.lock();
            match under_way.get(name) {
                Some(joined) => (joined.clone(), None),
                None => {
                    let (done, outcome) = oneshot::channel();
                    let joined = outcome.map(Result::ok).boxed().shared();
                    under_way.insert(name.into(), joined.clone());
                    (joined, Some(done))
                }
            }
        };
        if let Some(done) = ours {
            let listed = Listed {
                flights: self.clone(),
                name: name.into(),
            };
            // Not while it is locked: a runtime that ends drops the task here and now, and that takes its
            // name away.
            tokio::spawn(async move {
                let listed = listed;
                let outcome = work.await;
                // Before anybody has it: who asks then asks anew.
                drop(listed);
                let _ = done.send(outcome);
            });
        }
        joined.await
    }
}

/// Removes its name however the work ends.
struct Listed<T: Clone> {
    flights: Arc<Flights<T>>,
    name: Box<str>,
}

impl<T: Clone> Drop for Listed<T> {
    fn drop(&mut self) {
        self.flights.0.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use tokio::runtime::Runtime;

    use super::*;

    #[tokio::test]
    async fn many_ask_and_the_work_is_done_once() {
        let flights = Arc::new(Flights::default());
        let count = Arc::new(AtomicUsize::new(0));
        let (open, gate) = oneshot::channel::<()>();
        let gate = gate.shared();
        let work = || {
            let (count, gate) = (count.clone(), gate.clone());
            async move {
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                let _ = gate.await;
                number
            }
        };
        let (one, other) = (flights.join("a", work()), flights.join("a", work()));
        let opening = async {
            tokio::task::yield_now().await;
            open.send(()).unwrap();
        };
        let (one, other, ()) = tokio::join!(one, other, opening);
        assert_eq!((one, other), (Some(1), Some(1)));
        assert_eq!(
            flights.join("a", work()).await,
            Some(2),
            "the next asks anew"
        );
    }

    #[tokio::test]
    async fn work_that_panics_is_none_and_can_be_done_again() {
        let flights = Arc::new(Flights::default());
        assert_eq!(
            flights.join("a", async { panic!("on purpose") }).await,
            None::<()>
        );
        assert_eq!(flights.join("a", async {}).await, Some(()));
    }

    #[test]
    fn a_look_up_while_the_process_ends_does_not_hang() {
        let runtime = Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let (ended, end) = mpsc::channel();
        thread::spawn(move || {
            let _inside = handle.enter();
            let flights = Arc::new(Flights::default());
            let mut look = pin!(flights.join("a", async {}));
            // The runtime may still be ending, and let go of the work a moment later.
            let outcome = loop {
                match look.as_mut().now_or_never() {
                    Some(outcome) => break outcome,
                    None => thread::yield_now(),
                }
            };
            let _ = ended.send(outcome);
        });
        let outcome = end.recv_timeout(Duration::from_secs(5));
        assert_eq!(outcome, Ok(None), "it is as if nothing stood there");
    }
}
