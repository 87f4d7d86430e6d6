//! A backend that does what a test tells it, however wrong: raw bytes, silence, resets, refusals.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::client::reset_on_close;
use super::port::bind_free;
use super::response::{Broken, request_framing};
use super::wire::Wire;
use super::{PATIENCE, wait_for};

/// How much of each request body is kept for the test to look at.
const BODY_KEPT: usize = 1024 * 1024;

/// What to send for one request, and how to go on.
#[derive(Clone, Debug)]
pub struct Reply {
    bytes: Vec<u8>,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum End {
    KeepAlive,
    Close,
    Reset,
    Stall,
}

impl Reply {
    /// Exactly these bytes; then the connection serves the next request.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self {
            bytes: bytes.as_ref().to_vec(),
            end: End::KeepAlive,
        }
    }

    /// 200 with this body.
    pub fn ok(body: &str) -> Self {
        Self::status(200, body)
    }

    /// This status with this body.
    pub fn status(status: u16, body: &str) -> Self {
        let length = body.len();
        Self::raw(format!(
            "HTTP/1.1 {status} Test\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    /// Nothing at all: combined with an end, a backend that dies on the request.
    pub fn nothing() -> Self {
        Self::raw("")
    }

    /// Closes after the bytes.
    pub fn then_close(self) -> Self {
        Self {
            end: End::Close,
            ..self
        }
    }

    /// Sends RST after the bytes.
    pub fn then_reset(self) -> Self {
        Self {
            end: End::Reset,
            ..self
        }
    }

    /// Says no more after the bytes, until the peer gives up.
    pub fn then_stall(self) -> Self {
        Self {
            end: End::Stall,
            ..self
        }
    }
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// Which accepted connection brought it, from 0.
    pub connection: usize,
    /// The request line and fields with the empty line, byte for byte.
    pub head: Vec<u8>,
    /// The body without framing, up to the first MiB.
    pub body: Vec<u8>,
    /// Its whole length.
    pub body_bytes: u64,
}

impl Received {
    pub fn head_text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }

    /// The lines of the head that carry this field, whatever its case; their values.
    pub fn fields(&self, name: &str) -> Vec<String> {
        let head = self.head_text();
        head.lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }
}

type Script = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// A listening backend. Closes everything when it is dropped.
pub struct Origin {
    address: SocketAddr,
    state: Arc<State>,
    listening: Option<(TcpListener, JoinHandle<()>)>,
}

struct State {
    inner: Mutex<Inner>,
}

struct Inner {
    script: Script,
    /// Answer when the head is there, before the body is read.
    at_head: bool,
    accepted: usize,
    open: HashMap<usize, TcpStream>,
    /// Connections before this number end with RST.
    resetting: usize,
    received: Vec<Received>,
}

impl Origin {
    /// Gives every request the same reply.
    pub fn always(reply: Reply) -> Self {
        Self::with(move |_| reply.clone())
    }

    /// Gives the requests these replies in turn, and the last one to all that follow.
    pub fn in_turn(replies: impl IntoIterator<Item = Reply>) -> Self {
        let mut left: Vec<_> = replies.into_iter().collect();
        left.reverse();
        let left = Mutex::new(left);
        Self::with(move |_| {
            let mut left = left.lock().expect("no holder panics");
            match left.len() {
                0 => panic!("an origin needs at least one reply"),
                1 => left[0].clone(),
                _ => left.pop().expect("two or more"),
            }
        })
    }

    /// Gives each request the reply that `script` chooses once its body has been read.
    pub fn with(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::on(bind_free(), script)
    }

    /// Gives every request the same reply, on the port of `other` and another address of loopback:
    /// a second address of one name.
    pub fn beside(other: &Self, ip: Ipv4Addr, reply: Reply) -> Self {
        let address = SocketAddr::from((ip, other.address.port()));
        let listener = TcpListener::bind(address)
            .unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
        Self::on((listener, address), move |_| reply.clone())
    }

    fn on(
        (listener, address): (TcpListener, SocketAddr),
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let inner = Inner {
            script: Arc::new(script),
            at_head: false,
            accepted: 0,
            open: HashMap::new(),
            resetting: 0,
            received: Vec::new(),
        };
        let state = Arc::new(State {
            inner: Mutex::new(inner),
        });
        let mut origin = Self {
            address,
            state,
            listening: None,
        };
        origin.listen(listener);
        origin
    }

    /// From now on replies before reading the body, as a server that has seen enough.
    pub fn replying_at_head(self) -> Self {
        self.state.lock().at_head = true;
        self
    }

    /// From now on gives this reply to every request.
    pub fn reply_with(&self, reply: Reply) {
        self.answer(move |_| reply.clone());
    }

    /// From now on gives each request the reply that `script` chooses.
    pub fn answer(&self, script: impl Fn(&Received) -> Reply + Send + Sync + 'static) {
        self.state.lock().script = Arc::new(script);
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port: new connections are refused, those that exist are reset.
    pub fn refuse(&mut self) {
        if let Some((listener, thread)) = self.listening.take() {
            // Wakes the thread in accept and ends the listening at once.
            let _ = socket2::SockRef::from(&listener).shutdown(Shutdown::Both);
            thread.join().expect("the accepting thread does not panic");
        }
        self.reset_connections();
    }

    /// Opens the same port again after [`Origin::refuse`].
    pub fn accept_again(&mut self) {
        if self.listening.is_none() {
            let address = self.address;
            let what = format!("{address} to be free again");
            let listener = wait_for(&what, || TcpListener::bind(address).ok());
            self.listen(listener);
        }
    }

    /// Ends every open connection with RST.
    pub fn reset_connections(&self) {
        let mut inner = self.state.lock();
        inner.resetting = inner.accepted;
        for socket in inner.open.values() {
            // Wakes the thread that reads, without the FIN of a whole shutdown before the RST.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    /// How many connections were ever accepted.
    pub fn accepted(&self) -> usize {
        self.state.lock().accepted
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.state.lock().open.len()
    }

    /// The requests so far, in the order of their arrival.
    pub fn received(&self) -> Vec<Received> {
        self.state.lock().received.clone()
    }

    /// The requests so far, which are forgotten: for a test of so many that it looks at some at a time.
    pub fn take_received(&self) -> Vec<Received> {
        std::mem::take(&mut self.state.lock().received)
    }

    /// Waits until this many requests have arrived and returns them all.
    pub fn wait_for_requests(&self, count: usize) -> Vec<Received> {
        wait_for(&format!("{count} requests at {}", self.address), || {
            let received = self.received();
            (received.len() >= count).then_some(received)
        })
    }

    fn listen(&mut self, listener: TcpListener) {
        let state = Arc::clone(&self.state);
        let accepting = listener.try_clone().expect("descriptors are left");
        let thread = std::thread::spawn(move || {
            while let Ok((socket, _)) = accepting.accept() {
                let state = Arc::clone(&state);
                let number = state.admit(&socket);
                std::thread::spawn(move || {
                    let end = state.serve(number, &socket);
                    match end {
                        End::Close if !state.resets(number) => {
                            let _ = socket.shutdown(Shutdown::Write);
                        }
                        _ => reset_on_close(&socket),
                    }
                    // Only now, with the other descriptor of this socket, does it really close.
                    state.lock().open.remove(&number);
                });
            }
        });
        self.listening = Some((listener, thread));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.refuse();
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }

    fn admit(&self, socket: &TcpStream) -> usize {
        socket
            .set_write_timeout(Some(PATIENCE))
            .expect("a timeout above zero");
        let mut inner = self.lock();
        let number = inner.accepted;
        inner.accepted += 1;
        inner
            .open
            .insert(number, socket.try_clone().expect("descriptors are left"));
        number
    }

    fn resets(&self, connection: usize) -> bool {
        connection < self.lock().resetting
    }

    fn serve(&self, connection: usize, socket: &TcpStream) -> End {
        let mut wire = Wire::new(socket.try_clone().expect("descriptors are left"));
        loop {
            match self.exchange(connection, &mut wire) {
                Ok(End::KeepAlive) => {}
                Ok(End::Stall) => {
                    while wire.some().is_ok_and(|bytes| !bytes.is_empty()) {}
                    return End::Close;
                }
                Ok(end) => return end,
                // The peer left, or speaks no HTTP: its test sees what was received until then.
                Err(_) => return End::Close,
            }
        }
    }

    fn exchange(&self, connection: usize, wire: &mut Wire<TcpStream>) -> Result<End, Broken> {
        let head = wire.head()?;
        if self.resets(connection) {
            // It came in the moment between the word and the end.
            return Ok(End::Close);
        }
        let framing = request_framing(&head)?;
        let mut request = Received {
            connection,
            head,
            body: Vec::new(),
            body_bytes: 0,
        };
        let at_head = self.lock().at_head;
        if at_head {
            return self.reply(request, wire);
        }
        let expects = request
            .fields("expect")
            .iter()
            .any(|value| value == "100-continue");
        if expects {
            wire.stream().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = wire.body(framing, |bytes| {
            let room = BODY_KEPT - request.body.len();
            request
                .body
                .extend_from_slice(&bytes[..bytes.len().min(room)]);
        })?;
        request.body_bytes = body.bytes;
        self.reply(request, wire)
    }

    fn reply(&self, request: Received, wire: &mut Wire<TcpStream>) -> Result<End, Broken> {
        let script = {
            let mut inner = self.lock();
            inner.received.push(request.clone());
            Arc::clone(&inner.script)
        };
        let reply = script(&request);
        wire.stream().write_all(&reply.bytes)?;
        Ok(reply.end)
    }
}
