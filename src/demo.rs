//! `tollgate demo`: three small backends, the gateway.toml over them, and what to try.
//! Knows nothing of how the gateway is run; the backends are an HTTP/1.1 server of their own, just
//! large enough to be proxied.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

mod http;
mod page;

/// How long "mortal" answers, and how long it is then gone, again and again.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    pub alive: Duration,
    pub dead: Duration,
}

/// What "slow" takes longer for a page.
const LATENCY: Duration = Duration::from_millis(200);

/// One backend of the demonstration.
#[derive(Debug)]
struct Backend {
    name: &'static str,
    /// Waited before each answer, health probes excepted.
    latency: Duration,
    /// Answers begun since the start, health probes excepted.
    served: AtomicU64,
}

impl Backend {
    fn new(name: &'static str, latency: Duration) -> Arc<Self> {
        Arc::new(Backend {
            name,
            latency,
            served: AtomicU64::new(0),
        })
    }

    /// The number of the answer that begins now, from 1.
    fn count(&self) -> u64 {
        self.served.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Starts "swift", "slow" and "mortal" as tasks of the current runtime, each on a free port of
/// 127.0.0.1; their addresses in this order.
///
/// They run until the runtime ends. While "mortal" is gone its port refuses; when it goes its
/// connections are closed, whatever was on them.
///
/// An error means that no port could be had.
pub async fn backends(rhythm: Rhythm) -> io::Result<Vec<SocketAddr>> {
    let (swift, at_swift) = listen().await?;
    let (slow, at_slow) = listen().await?;
    let (mortal, at_mortal) = listen().await?;
    tokio::spawn(serve(Backend::new("swift", Duration::ZERO), swift));
    tokio::spawn(serve(Backend::new("slow", LATENCY), slow));
    let backend = Backend::new("mortal", Duration::ZERO);
    tokio::spawn(live_and_die(backend, mortal, at_mortal, rhythm));
    Ok(vec![at_swift, at_slow, at_mortal])
}

async fn listen() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Accepts and answers until it is dropped, and with it every connection it accepted.
async fn serve(backend: Arc<Backend>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(backend.clone(), stream));
                }
                // Out of descriptors, say: the ones in use may be given back soon.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(backend: Arc<Backend>, stream: TcpStream) {
    // An error is the peer's end of the connection; there is nobody to tell.
    let _ = http::answer_all(&backend, stream).await;
}

async fn live_and_die(
    backend: Arc<Backend>,
    listener: TcpListener,
    address: SocketAddr,
    rhythm: Rhythm,
) {
    let mut listener = listener;
    loop {
        let end = Instant::now() + rhythm.alive;
        tokio::select! {
            () = serve(backend.clone(), listener) => {}
            () = sleep_until(end) => {}
        }
        sleep(rhythm.dead).await;
        listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                // Another program has the port for the moment.
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        };
    }
}

/// The gateway.toml of the demonstration, for `backends` behind a listener on `listen`.
pub fn config(backends: &[SocketAddr], listen: SocketAddr) -> String {
    let backends: Vec<String> = backends.iter().map(|at| format!("\"{at}\"")).collect();
    let backends = backends.join(", ");
    format!(
        r#"# The gateway of `tollgate demo`.

[server]
listen = ["{listen}"]
drain = "2s"
watch = false

[log]
format = "text"
access = "errors"
slow_after = "1s"

[upstream.demo]
backends = [{backends}]   # swift, slow, mortal
balance = "least-connections"
max_fails = 1
fail_timeout = "2s"
timeouts = {{ connect = "1s", first_byte = "10s", read = "10s", write = "10s" }}
health = {{ path = "/healthz", every = "1s", timeout = "1s", status = "200", healthy_after = 2, unhealthy_after = 2 }}
retry = {{ attempts = 3, on = ["connect", "reset", "502", "503", "504"] }}

[[route]]
name = "pages"
path = "/"
methods = ["GET", "HEAD"]
upstream = "demo"

[[route]]
name = "strict"
path = "/strict"
upstream = "demo"
headers = "strict"

[[route]]
name = "about"
path = "/about"
respond = {{ status = 200, body = "answered by the gateway itself\n", content_type = "text/plain; charset=utf-8" }}

[[route]]
name = "moved"
path = "/old"
redirect = {{ status = 308, to = "/{{?query}}" }}
"#
    )
}

/// What the demonstration prints once the gateway listens: where it is and what to try.
/// No line is longer than 80 columns.
pub fn guide(listen: SocketAddr, rhythm: Rhythm) -> String {
    let at = format!("http://{listen}");
    let Rhythm { alive, dead } = rhythm;
    format!(
        r#"
  Tollgate is in front of three backends: swift, slow (+200 ms), and mortal,
  which lives for {alive:?} and is then gone for {dead:?}, again and again.

      {at}/            reload it: the page names its backend
      {at}/strict      the same under strict security headers

  Try in another terminal (Ctrl-C here ends the demo):

    who answers, and how many requests each has had
      for i in $(seq 9); do curl -s {at}/api/time; done

    mortal dies under load and nobody notices: half a minute of nothing but 200
      seq 600 | xargs -P8 -n1 sh -c 'sleep 0.4; curl -so /dev/null \
        -w "%{{http_code}}\n" {at}/' | sort | uniq -c

    what the gateway adds for the client: request ID, timing, security
      curl -si {at}/strict | sed '/^.$/q'

    a stream arrives as it is written, one line every half second
      curl -N {at}/stream

    too slow: a warning here with the time split into its parts
      curl -s {at}/slow

    answered without a backend: a fixed response, a redirect, a 405
      curl -s {at}/about
      curl -si {at}/old
      curl -si -X POST {at}/

    an error of the application passes through, and is logged here
      curl -si {at}/error
"#
    )
}

#[cfg(test)]
mod tests;
