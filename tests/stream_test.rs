//! Bodies on their way: nothing is held back, nothing piles up, and who leaves is noticed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;

use crate::harness::client::{Connection, get};
use crate::harness::gateway::Gateway;
use crate::harness::h2_client::runtime;
use crate::harness::origin::{Origin, Reply};
use crate::harness::port::bind_free;
use crate::harness::{PATIENCE, stats, wait_for};

/// A backend that the test plays itself, one connection after the other, and its gateway.
struct Setup {
    listener: TcpListener,
    gateway: Gateway,
}

impl Setup {
    fn new(upstream: &str) -> Self {
        let (listener, address) = bind_free();
        let gateway = Gateway::start(&format!(
            r#"
            [server]
            listen = [{{ address = "127.0.0.1:0", h2c = true }}]
            [upstream.app]
            backends = ["{address}"]
            max_body = "8 GiB"
            {upstream}
            [[route]]
            upstream = "app"
            [log]
            access = "all"
            "#
        ));
        Self { listener, gateway }
    }

    /// The next connection of the gateway, after the head of its request.
    fn accept(&self) -> TcpStream {
        let (mut socket, _) = self.listener.accept().expect("the gateway connects");
        socket.set_read_timeout(Some(PATIENCE)).expect("above zero");
        socket
            .set_write_timeout(Some(PATIENCE))
            .expect("above zero");
        socket.set_nodelay(true).expect("TCP has the option");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(exactly(&mut socket, 1));
        }
        socket
    }

    /// A client that has sent these bytes.
    fn client(&self, bytes: &[u8]) -> Connection {
        let mut client = self.gateway.connect();
        client.send(bytes).expect("the gateway reads");
        client
    }
}

fn exactly(socket: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    socket.read_exact(&mut bytes).expect("bytes in time");
    bytes
}

/// Writes zeros until nobody takes any for a while; how many were taken.
fn pour(socket: &mut TcpStream) -> usize {
    let block = [0; 64 * 1024];
    let patience = Some(Duration::from_millis(500));
    socket.set_write_timeout(patience).expect("above zero");
    let mut taken = 0;
    while let Ok(length) = socket.write(&block) {
        taken += length;
        assert!(taken < 1 << 30, "whoever reads this holds a gibibyte");
    }
    taken
}

/// What the buffers of two sockets may take on the way, and the gateway's own.
const IN_BUFFERS: usize = 48 * 1024 * 1024;
const GROWTH_KIB: u64 = 16 * 1024;

#[test]
fn each_event_arrives_before_the_next_is_sent() {
    let setup = Setup::new("");
    let mut client = setup.client(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut backend = setup.accept();
    let head =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    backend.write_all(head).expect("the gateway reads");
    assert_eq!(
        client.head().expect("the head before any event").status,
        200
    );
    let mut slowest = Duration::ZERO;
    for number in 0..50 {
        let event = format!("data: {number:04}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        let sent = Instant::now();
        backend
            .write_all(chunk.as_bytes())
            .expect("the gateway reads");
        let mut received = String::new();
        while !received.contains(&event) {
            let bytes = client.some().expect("the event");
            received.push_str(&String::from_utf8_lossy(&bytes));
        }
        slowest = slowest.max(sent.elapsed());
    }
    assert!(
        slowest < Duration::from_secs(1),
        "an event took {slowest:?}"
    );
}

#[test]
fn the_head_of_a_response_does_not_wait_for_its_body() {
    let setup = Setup::new("");
    let mut client = setup.client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut backend = setup.accept();
    backend
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        .expect("the gateway reads");
    let head = client.head().expect("the head alone");
    backend.write_all(b"body").expect("the gateway reads");
    let body = client.body(&head, |_| ()).expect("the body");
    assert_eq!(body.bytes, 4);
}

#[test]
fn an_upload_reaches_the_backend_as_it_comes() {
    let setup = Setup::new("");
    let mut client = setup.client(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n");
    let mut backend = setup.accept();
    for _ in 0..10 {
        client.send(b"part").expect("the gateway reads");
        assert_eq!(exactly(&mut backend, 4), b"part");
    }

    let setup = Setup::new("");
    let chunked = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = setup.client(chunked);
    let mut backend = setup.accept();
    for _ in 0..10 {
        client.send(b"4\r\npart\r\n").expect("the gateway reads");
        assert_eq!(exactly(&mut backend, 9), b"4\r\npart\r\n");
    }
}

#[test]
fn a_client_that_does_not_read_stops_its_backend() {
    let setup = Setup::new("");
    get_once(&setup);
    let before = stats::rss_kib(setup.gateway.pid());
    let mut client = setup.client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut backend = setup.accept();
    backend
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        .expect("the gateway reads");
    let poured = pour(&mut backend);
    assert!(poured < IN_BUFFERS, "{poured} bytes were taken");
    let grown = stats::rss_kib(setup.gateway.pid()).saturating_sub(before);
    assert!(grown < GROWTH_KIB, "the gateway grew by {grown} KiB");
    // What was taken was not lost.
    drop(backend);
    let head = client.head().expect("a head");
    let mut received = 0;
    let end = client.body(&head, |bytes| received += bytes.len());
    assert!(end.is_err(), "a truncated body passed for a whole one");
    assert_eq!(received, poured);
}

#[test]
fn a_backend_that_does_not_read_stops_its_client() {
    let setup = Setup::new("");
    get_once(&setup);
    let before = stats::rss_kib(setup.gateway.pid());
    let client = setup.client(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    let _backend = setup.accept();
    let poured = pour(&mut client.socket().try_clone().expect("descriptors are left"));
    assert!(poured < IN_BUFFERS, "{poured} bytes were taken");
    let grown = stats::rss_kib(setup.gateway.pid()).saturating_sub(before);
    assert!(grown < GROWTH_KIB, "the gateway grew by {grown} KiB");
}

/// Warms the gateway up: what its first request allocates is not of the stream's.
fn get_once(setup: &Setup) {
    let mut client = setup.client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut backend = setup.accept();
    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    backend.write_all(answer).expect("the gateway reads");
    assert_eq!(client.response().expect("a response").status(), 200);
}

#[test]
fn a_client_that_leaves_frees_its_backend() {
    let setup = Setup::new("");
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let leave: [fn(Connection); 2] = [drop, Connection::reset];
    for (number, leave) in leave.into_iter().enumerate() {
        // While the backend thinks.
        let client = setup.client(request);
        let mut backend = setup.accept();
        leave(client);
        let mut rest = Vec::new();
        let left = Instant::now();
        let _ = backend.read_to_end(&mut rest);
        assert!(left.elapsed() < Duration::from_secs(5), "way {number}");

        // While it sends.
        let mut client = setup.client(request);
        let mut backend = setup.accept();
        backend
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
            .expect("the gateway reads");
        client.head().expect("the head");
        leave(client);
        wait_for("the gateway to close", || {
            backend.write_all(b"1\r\nx\r\n").err()
        });
    }
}

#[test]
fn a_cancelled_http2_stream_frees_its_backend() {
    let setup = Setup::new("");
    let runtime = runtime();
    let address = setup.gateway.address();
    let (sender, stream) = runtime.block_on(async {
        let sender = h2_sender(address).await;
        let mut sender = sender.ready().await.expect("an open connection");
        let request = Request::get("http://a/").body(()).expect("valid");
        let (_, stream) = sender
            .send_request(request, true)
            .expect("an open connection");
        (sender, stream)
    });
    let mut backend = setup.accept();
    let mut stream = stream;
    runtime.block_on(async { stream.send_reset(h2::Reason::CANCEL) });
    let left = Instant::now();
    let _ = backend.read_to_end(&mut Vec::new());
    assert!(left.elapsed() < Duration::from_secs(5));
    drop(sender);
}

// Five seconds: a tunnel must be seen to live longer than its limit on silence, and then to end by it.
#[test]
fn a_silent_websocket_is_closed_and_one_in_use_is_not() {
    const SILENCE: Duration = Duration::from_secs(2);
    let setup = Setup::new(
        "timeouts = { websocket_idle = \"2s\", read = \"200ms\" }\nmax_fails = 1\nfail_timeout = \"1h\"",
    );
    let (mut client, mut backend) = tunnel(&setup);
    let (mut listening, mut speaking) = tunnel(&setup);
    let opened = Instant::now();
    let mut said = opened;
    while opened.elapsed() < SILENCE + SILENCE / 4 {
        // The pace of the conversation: well below the limit, above every other timeout.
        std::thread::sleep(SILENCE / 8);
        client.send(b"ping").expect("the tunnel is open");
        assert_eq!(exactly(&mut backend, 4), b"ping");
        backend.write_all(b"pong").expect("the tunnel is open");
        assert_eq!(client.some().expect("the tunnel is open"), b"pong");
        speaking.write_all(b"news").expect("the tunnel is open");
        assert_eq!(listening.some().expect("the tunnel is open"), b"news");
        said = Instant::now();
    }
    for client in [&mut client, &mut listening] {
        client
            .wait_for_close()
            .expect("not a byte more, and the end");
    }
    assert!(said.elapsed() >= SILENCE / 2, "{:?}", said.elapsed());
    assert_eq!(backend.read(&mut [0]).expect("the gateway closes"), 0);
    // Silence is no fault of the backend: it is not taken out of service.
    get_once(&setup);
}

#[test]
fn a_tunnel_stays_open_when_the_backend_is_quick_to_agree() {
    let setup = Setup::new("");
    for _ in 0..200 {
        let (mut client, mut backend) = tunnel(&setup);
        client.send(b"ping").expect("the tunnel is open");
        assert_eq!(exactly(&mut backend, 4), b"ping");
        backend.write_all(b"pong").expect("the tunnel is open");
        assert_eq!(client.some().expect("the tunnel is open"), b"pong");
    }
}

/// A WebSocket through the gateway: the client's end and the backend's.
fn tunnel(setup: &Setup) -> (Connection, TcpStream) {
    let mut client = setup.client(
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let mut backend = setup.accept();
    backend
        .write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )
        .expect("the gateway reads");
    assert_eq!(client.head().expect("a head").status, 101);
    (client, backend)
}

// Ten seconds or so: half a GiB each way through an unoptimised gateway.
#[test]
fn http2_bodies_pass_at_constant_memory() {
    const SIZE: usize = 512 * 1024 * 1024;
    const BLOCK: usize = 1024 * 1024;
    let setup = Setup::new("");
    get_once(&setup);
    let pid = setup.gateway.pid();
    let limit = stats::rss_kib(pid) + 32 * 1024;
    let stays_small = move || assert!(stats::rss_kib(pid) < limit, "the gateway grew");
    let address = setup.gateway.address();
    let backend = std::thread::spawn(move || {
        let mut down = setup.accept();
        let head =
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n");
        down.write_all(head.as_bytes()).expect("the gateway reads");
        let block = vec![0; BLOCK];
        for _ in 0..SIZE / BLOCK {
            down.write_all(&block).expect("the gateway reads");
        }
        let mut up = setup.accept();
        let mut block = vec![0; BLOCK];
        for _ in 0..SIZE / BLOCK {
            up.read_exact(&mut block).expect("the whole body");
        }
        up.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
            .expect("the gateway reads");
        setup
    });
    runtime().block_on(async {
        let mut sender = h2_sender(address)
            .await
            .ready()
            .await
            .expect("an open connection");
        let request = Request::get("http://a/").body(()).expect("valid");
        let (response, _) = sender
            .send_request(request, true)
            .expect("an open connection");
        let mut body = response.await.expect("a response").into_body();
        let (mut received, mut unchecked) = (0, 0);
        while let Some(data) = body.data().await {
            let length = data.expect("the whole body").len();
            body.flow_control()
                .release_capacity(length)
                .expect("an open stream");
            received += length;
            unchecked += length;
            if unchecked >= 4 * BLOCK {
                unchecked = 0;
                stays_small();
            }
        }
        assert_eq!(received, SIZE);

        let mut sender = sender.ready().await.expect("an open connection");
        let request = Request::put("http://a/")
            .header("content-length", SIZE)
            .body(())
            .expect("valid");
        let (response, mut stream) = sender.send_request(request, false).expect("open");
        let block = Bytes::from(vec![0; 64 * 1024]);
        let (mut left, mut unchecked) = (SIZE, 0);
        while left > 0 {
            stream.reserve_capacity(block.len());
            let granted = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
            let granted = granted.expect("an open stream").expect("an open stream");
            let length = granted.min(left).min(block.len());
            left -= length;
            stream
                .send_data(block.slice(..length), left == 0)
                .expect("an open stream");
            unchecked += length;
            if unchecked >= 4 * BLOCK {
                unchecked = 0;
                stays_small();
            }
        }
        assert_eq!(response.await.expect("a response").status(), 200);
    });
    backend.join().expect("the backend does not panic");
}

async fn h2_sender(address: std::net::SocketAddr) -> h2::client::SendRequest<Bytes> {
    let socket = tokio::net::TcpStream::connect(address)
        .await
        .expect("it listens");
    socket.set_nodelay(true).expect("TCP has the option");
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 22);
    let (sender, connection) = builder.handshake(socket).await.expect("an HTTP/2 server");
    tokio::spawn(async { connection.await.ok() });
    sender
}

#[test]
fn two_thousand_idle_connections_take_little_memory() {
    const CONNECTIONS: u64 = 2000;
    // The goal is 12 KiB in a release build; an idle connection owns about 2.5 in any.
    const EACH_KIB: u64 = 6;
    allow_descriptors(2 * CONNECTIONS);
    let origin = Origin::always(Reply::ok("x"));
    let gateway = Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        max_connections_per_client = 4000
        [upstream.app]
        backends = ["{}"]
        [[route]]
        upstream = "app"
        "#,
        origin.address()
    ));
    let open = |count: u64| -> Vec<Connection> {
        (0..count)
            .map(|_| {
                let mut client = gateway.connect();
                assert_eq!(client.get("/").expect("a response").status(), 200);
                client
            })
            .collect()
    };
    let _warm = open(100);
    let before = stats::rss_kib(gateway.pid());
    let _idle = open(CONNECTIONS);
    let grown = stats::rss_kib(gateway.pid()).saturating_sub(before);
    assert!(
        grown <= CONNECTIONS * EACH_KIB,
        "{grown} KiB for {CONNECTIONS} connections"
    );
    assert_eq!(get(gateway.address(), "/").status(), 200);
}

/// Raises this process's limit on open files, which shells set to 1024; the gateway raises its own.
fn allow_descriptors(wanted: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls only read and write the struct.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_cur.max(wanted + 1000).min(limit.rlim_max);
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    assert!(
        done && limit.rlim_cur > wanted,
        "the system allows too few open files"
    );
}
