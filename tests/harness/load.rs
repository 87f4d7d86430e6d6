//! Many clients at once, for as long as a test wants: what a kill, a reload or an upgrade must not
//! be seen by.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::client::Connection;
use super::response::{Broken, Response};
use super::wait_for;

/// Clients that send one request after another on connections that they keep.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

/// What all clients have seen together.
#[derive(Debug, Default)]
pub struct Tally {
    /// Whole responses, by status.
    pub statuses: BTreeMap<u16, usize>,
    /// Whole responses with status 200, by body: which instance answered, if asked for `/whoami`.
    pub bodies: BTreeMap<String, usize>,
    /// Requests sent again because a kept connection was closed under them before any answer, as
    /// every HTTP client does (RFC 9112 9.3.1). Not failures.
    pub replayed: usize,
    /// Requests that ended in any other way: refused connections, truncated or missing responses.
    pub failures: Vec<String>,
}

struct Shared {
    address: SocketAddr,
    request: String,
    stopping: AtomicBool,
    begun: AtomicUsize,
    done: AtomicUsize,
    tally: Mutex<Tally>,
}

impl Load {
    /// Starts this many clients that GET `path`, and returns when each has had its first answer or
    /// failure: what a test breaks next, it breaks under all of them.
    pub fn start(address: SocketAddr, path: &str, clients: usize) -> Self {
        Self::with_fields(address, path, clients, "")
    }

    /// As [`Load::start`], with a new connection for each request: one that is refused, or lost
    /// before its answer, is a failure.
    pub fn start_on_new_connections(address: SocketAddr, path: &str, clients: usize) -> Self {
        Self::with_fields(address, path, clients, "Connection: close\r\n")
    }

    fn with_fields(address: SocketAddr, path: &str, clients: usize, fields: &str) -> Self {
        let shared = Arc::new(Shared {
            address,
            request: format!("GET {path} HTTP/1.1\r\nHost: test.example\r\n{fields}\r\n"),
            stopping: AtomicBool::new(false),
            begun: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            tally: Mutex::default(),
        });
        let client = |_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.run())
        };
        let clients: Vec<_> = (0..clients).map(client).collect();
        let load = Self { shared, clients };
        wait_for("every client's first request", || {
            (load.shared.begun.load(Ordering::Relaxed) == load.clients.len()).then_some(())
        });
        load
    }

    /// How many requests have ended, well or badly.
    pub fn done(&self) -> usize {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Waits until this many more requests have ended: the event to wait for between two acts.
    pub fn wait_for_more(&self, requests: usize) {
        let wanted = self.done() + requests;
        wait_for(&format!("{wanted} requests of load"), || {
            (self.done() >= wanted).then_some(())
        });
    }

    /// Lets every client finish its request and returns what they have seen.
    pub fn stop(mut self) -> Tally {
        self.join();
        std::mem::take(&mut *self.shared.tally())
    }

    fn join(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client
                .join()
                .expect("a client records failures and does not panic");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.join();
    }
}

impl Shared {
    fn run(&self) {
        let mut kept = None;
        let first = self.exchange(&mut kept);
        self.record(first);
        self.begun.fetch_add(1, Ordering::Relaxed);
        while !self.stopping.load(Ordering::Relaxed) {
            let outcome = self.exchange(&mut kept);
            self.record(outcome);
        }
    }

    fn exchange(&self, kept: &mut Option<Connection>) -> Result<Response, String> {
        if let Some(mut connection) = kept.take() {
            match self.ask(&mut connection) {
                Err(Broken::Closed | Broken::Reset) => self.tally().replayed += 1,
                Err(broken) => return Err(broken.to_string()),
                Ok(response) => return Ok(keep(kept, connection, response)),
            }
        }
        let mut connection =
            Connection::try_open(self.address).map_err(|error| error.to_string())?;
        match self.ask(&mut connection) {
            Ok(response) => Ok(keep(kept, connection, response)),
            Err(broken) => Err(broken.to_string()),
        }
    }

    fn ask(&self, connection: &mut Connection) -> Result<Response, Broken> {
        connection.send(self.request.as_bytes())?;
        connection.response()
    }

    fn record(&self, outcome: Result<Response, String>) {
        let mut tally = self.tally();
        match outcome {
            Ok(response) => {
                *tally.statuses.entry(response.status()).or_default() += 1;
                if response.status() == 200 {
                    *tally.bodies.entry(response.text()).or_default() += 1;
                }
            }
            Err(failure) => tally.failures.push(failure),
        }
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no holder panics")
    }
}

/// Keeps the connection for the next request unless the response ends it.
fn keep(kept: &mut Option<Connection>, connection: Connection, response: Response) -> Response {
    let closes = |option: &str| option.eq_ignore_ascii_case("close");
    if !response.head.fields("connection").any(closes) {
        *kept = Some(connection);
    }
    response
}
