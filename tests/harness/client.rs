//! An HTTP/1 client that sends exactly the bytes it is given.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::PATIENCE;
use super::response::{Broken, Head, Response};
use super::wire::{Body, Wire};

/// What a connection runs over: TCP or TLS over TCP.
pub trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

pub struct Connection {
    wire: Wire<Box<dyn Stream>>,
    socket: TcpStream,
}

impl Connection {
    /// Connects; panics naming the address when nobody listens.
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address)
            .unwrap_or_else(|error| panic!("no connection to {address}: {error}"))
    }

    /// As [`Connection::open`], for a test that expects to be refused.
    pub fn try_open(address: SocketAddr) -> io::Result<Self> {
        let socket = try_connect(address)?;
        let stream = socket.try_clone()?;
        Ok(Self::over(socket, Box::new(stream)))
    }

    /// Speaks through `stream`, which runs over `socket`.
    pub fn over(socket: TcpStream, stream: Box<dyn Stream>) -> Self {
        Self {
            wire: Wire::new(stream),
            socket,
        }
    }

    /// The TCP connection below: its ports, its options.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Sends these bytes; an error when the peer no longer wants them, which a peer that has
    /// refused early may do.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.stream().write_all(bytes)?;
        self.wire.stream().flush()
    }

    /// Says that no more bytes will follow, and goes on reading.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Ends the connection with RST, as a client that crashes.
    pub fn reset(self) {
        reset_on_close(&self.socket);
    }

    /// The next head, of an interim (1xx) response too.
    pub fn head(&mut self) -> Result<Head, Broken> {
        Head::parse(&self.wire.head()?)
    }

    /// The body that follows `head`, handed to `sink` as it arrives.
    pub fn body(&mut self, head: &Head, sink: impl FnMut(&[u8])) -> Result<Body, Broken> {
        self.wire.body(head.framing("GET")?, sink)
    }

    /// The next chunk of a body in chunks; empty for the last one.
    pub fn chunk(&mut self) -> Result<Vec<u8>, Broken> {
        let mut chunk = Vec::new();
        self.wire
            .chunk(&mut |bytes| chunk.extend_from_slice(bytes))?;
        Ok(chunk)
    }

    /// Whatever arrives next, at least one byte; nothing when the peer has closed.
    pub fn some(&mut self) -> Result<Vec<u8>, Broken> {
        self.wire.some()
    }

    /// The next final response to a request of any method but HEAD.
    pub fn response(&mut self) -> Result<Response, Broken> {
        self.response_to("GET")
    }

    /// The next final response to a request of this method; interim responses are passed over.
    pub fn response_to(&mut self, method: &str) -> Result<Response, Broken> {
        loop {
            let head = self.head()?;
            if (100..200).contains(&head.status) && head.status != 101 {
                continue;
            }
            let mut body = Vec::new();
            let framing = head.framing(method)?;
            let end = self
                .wire
                .body(framing, |bytes| body.extend_from_slice(bytes))?;
            return Ok(Response {
                head,
                body,
                trailers: end.trailers,
            });
        }
    }

    /// GET on this connection, which stays open.
    pub fn get(&mut self, path: &str) -> Result<Response, Broken> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test.example\r\n\r\n").as_bytes())?;
        self.response()
    }

    /// GET of a body that its sender gives up; panics when what arrives could be taken for whole.
    pub fn get_broken_off(&mut self, path: &str) {
        let end = self.get(path).expect_err("no whole response");
        assert!(
            matches!(end, Broken::Truncated | Broken::Reset),
            "{path}: {end}"
        );
    }

    /// Waits until the peer closes; an error when it sends more, or stays.
    pub fn wait_for_close(&mut self) -> Result<(), Broken> {
        match self.some() {
            Ok(bytes) if bytes.is_empty() => Ok(()),
            Ok(bytes) => Err(Broken::Malformed(
                String::from_utf8_lossy(&bytes).into_owned(),
            )),
            Err(Broken::Reset) => Ok(()),
            Err(broken) => Err(broken),
        }
    }
}

/// GET over a connection of its own; panics when no whole response arrives.
pub fn get(address: SocketAddr, path: &str) -> Response {
    match Connection::open(address).get(path) {
        Ok(response) => response,
        Err(broken) => panic!("GET {path} from {address}: {broken}"),
    }
}

/// Sends these bytes and returns all that comes back until the peer closes, resets, or has been
/// silent for `patience`.
pub fn raw(address: SocketAddr, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let mut socket = connect(address);
    socket
        .set_read_timeout(Some(patience))
        .expect("a timeout above zero");
    // A peer that refuses early closes before it has read everything: its answer still counts.
    let sent = socket.write_all(bytes);
    let mut answer = Vec::new();
    let mut block = [0; 16 * 1024];
    while let Ok(length @ 1..) = socket.read(&mut block) {
        answer.extend_from_slice(&block[..length]);
    }
    if let Err(error) = sent
        && answer.is_empty()
    {
        panic!("{address} took only a part of the request and said nothing: {error}");
    }
    answer
}

/// A TCP connection on which no read or write lasts longer than [`PATIENCE`]; panics when nobody
/// listens.
pub fn connect(address: SocketAddr) -> TcpStream {
    try_connect(address).unwrap_or_else(|error| panic!("no connection to {address}: {error}"))
}

fn try_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Makes the coming close of this socket an RST in place of a FIN.
pub fn reset_on_close(socket: &TcpStream) {
    let linger = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
    linger.expect("TCP has the option");
}
