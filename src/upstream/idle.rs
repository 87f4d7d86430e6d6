//! Connections to backends that rest between two requests.
//!
//! At most `keepalive` of them to one endpoint, each for at most `keepalive_idle`. The one that rested least is taken
//! first, so that the others may end. Those that their backend has closed are closed here too, within [`SWEEP`].

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, ReadBuf},
    runtime::Handle,
    task::coop::unconstrained,
    time::{Instant, sleep},
};

use super::{Endpoint, Transport, socket::Socket};

/// How often resting connections are looked after while there are any.
const SWEEP: Duration = Duration::from_secs(1);

/// The resting connections of one transport.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<Resting>);

#[derive(Debug, Default)]
struct Resting {
    /// By endpoint, the one that came last at the end.
    sockets: HashMap<Endpoint, Vec<Rested>>,
    /// A task looks after them.
    swept: bool,
}

#[derive(Debug)]
struct Rested {
    socket: Socket,
    since: Instant,
}

impl Rested {
    /// The backend has neither closed it nor said anything, which it has no cause to.
    fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        let read = poll_fn(|cx| Pin::new(&mut self.socket).poll_read(cx, &mut byte));
        // To a task that has done its share of work in one go every socket looks quiet.
        unconstrained(read).now_or_never().is_none()
    }
}

impl Idle {
    /// A connection to `endpoint` that has rested for less than `longest`.
    pub fn take(&self, endpoint: &Endpoint, longest: Duration) -> Option<Socket> {
        let mut resting = self.0.lock();
        let sockets = resting.sockets.get_mut(endpoint)?;
        loop {
            let mut rested = sockets.pop_if(|rested| rested.since.elapsed() < longest)?;
            if rested.is_quiet() {
                return Some(rested.socket);
            }
        }
    }

    /// Lets a connection on which nothing is under way rest, if there is room; otherwise it is closed.
    pub fn put(&self, transport: &Arc<Transport>, endpoint: &Endpoint, socket: Socket) {
        let room = transport.settings().keepalive;
        let rested = Rested {
            socket,
            since: Instant::now(),
        };
        let mut resting = self.0.lock();
        match resting.sockets.get_mut(endpoint) {
            Some(sockets) if sockets.len() >= room => return,
            Some(sockets) => sockets.push(rested),
            None if room == 0 => return,
            None => drop(resting.sockets.insert(endpoint.clone(), vec![rested])),
        }
        if resting.swept {
            return;
        }
        // Without a runtime the process is ending, and everything in it.
        if let Ok(runtime) = Handle::try_current() {
            resting.swept = true;
            runtime.spawn(sweep(Arc::downgrade(transport)));
        }
    }

    /// Closes what has rested too long or was closed by its backend; `false` when nothing is left.
    fn sweep(&self, longest: Duration) -> bool {
        let mut resting = self.0.lock();
        resting.sockets.retain(|_, sockets| {
            sockets.retain_mut(|rested| rested.since.elapsed() < longest && rested.is_quiet());
            !sockets.is_empty()
        });
        resting.swept = !resting.sockets.is_empty();
        resting.swept
    }
}

/// Looks after the resting connections until there are none, or nobody uses the transport any more.
async fn sweep(transport: Weak<Transport>) {
    loop {
        sleep(SWEEP).await;
        let Some(transport) = transport.upgrade() else {
            return;
        };
        if !transport.idle().sweep(transport.settings().keepalive_idle) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::upstream::{
        Settings,
        testing::{seconds, settings, upstream},
    };

    struct Bench {
        transport: Arc<Transport>,
        endpoint: Endpoint,
        listener: TcpListener,
    }

    impl Bench {
        async fn new(keepalive: usize) -> Self {
            let settings = Settings {
                keepalive,
                keepalive_idle: seconds(60),
                ..settings()
            };
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            Self {
                transport: upstream(settings, 1).transport.clone(),
                endpoint: Endpoint::Tcp(listener.local_addr().unwrap()),
                listener,
            }
        }

        /// Lets one more connection rest; its far end.
        async fn rest(&self) -> TcpStream {
            let near = TcpStream::connect(self.listener.local_addr().unwrap());
            let socket = Socket::Tcp(near.await.unwrap());
            let (far, _) = self.listener.accept().await.unwrap();
            self.transport
                .idle()
                .put(&self.transport, &self.endpoint, socket);
            far
        }

        fn take(&self, longest: Duration) -> Option<Socket> {
            self.transport.idle().take(&self.endpoint, longest)
        }

        fn count(&self) -> usize {
            let resting = self.transport.idle().0.lock();
            resting.sockets.values().map(Vec::len).sum()
        }
    }

    #[tokio::test]
    async fn no_more_connections_rest_than_asked_for() {
        for keepalive in [0, 2] {
            let bench = Bench::new(keepalive).await;
            let mut far = Vec::new();
            for _ in 0..4 {
                far.push(bench.rest().await);
            }
            assert_eq!(bench.count(), keepalive);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_rested_too_long_is_not_taken() {
        let bench = Bench::new(4).await;
        let _far = bench.rest().await;
        tokio::time::advance(seconds(2)).await;
        assert!(bench.take(seconds(1)).is_none());
        assert!(bench.take(seconds(60)).is_some());
    }

    #[tokio::test]
    async fn a_connection_that_its_backend_closed_or_spoke_on_is_not_taken() {
        let bench = Bench::new(4).await;
        let mut chatty = bench.rest().await;
        chatty.write_all(b"HTTP/1.1 408 \r\n\r\n").await.unwrap();
        drop(bench.rest().await);
        // Both are noticed once the news has arrived, which takes no time that we could wait for by name.
        while bench.count() > 0 {
            bench.transport.idle().sweep(seconds(60));
            tokio::task::yield_now().await;
        }
        assert!(bench.take(seconds(60)).is_none());
    }

    #[tokio::test]
    async fn however_many_connections_a_backend_closes_at_once_none_is_taken_for_alive() {
        const MANY: usize = 300;
        let bench = Bench::new(MANY).await;
        for _ in 0..MANY {
            let near = TcpStream::connect(bench.listener.local_addr().unwrap());
            let near = near.await.unwrap();
            drop(bench.listener.accept().await.unwrap());
            near.readable().await.unwrap();
            let idle = bench.transport.idle();
            idle.put(&bench.transport, &bench.endpoint, Socket::Tcp(near));
        }
        assert!(bench.take(seconds(60)).is_none());
        assert_eq!(bench.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn resting_connections_end_by_themselves() {
        let bench = Bench::new(4).await;
        let _far = [bench.rest().await, bench.rest().await];
        tokio::time::sleep(seconds(59)).await;
        assert_eq!(bench.count(), 2);
        tokio::time::sleep(seconds(2)).await;
        assert_eq!(bench.count(), 0);
        assert!(!bench.transport.idle().0.lock().swept);
    }
}
