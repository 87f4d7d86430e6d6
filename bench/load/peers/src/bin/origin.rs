//! The application behind every proxy: one thread, one epoll, prepared answers. It must cost less
//! than any proxy measured against it, so it does nothing per request but find the end of the head
//! and write bytes that were made at start.
//!
//! `origin ADDRESS:PORT`. Answers `GET /1k` and `GET /64k`, whatever their query, with 1 KiB and 64 KiB, keeps
//! connections alive, serves pipelined requests in order. Anything else is answered 404 and closed. Bodies of
//! requests are not read: no case of the bench sends one.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::exit;

/// A head that has not ended within this many bytes closes its connection.
const LONGEST_HEAD: usize = 16 * 1024;
const EVENTS: usize = 256;

/// Longer than any run: who stores answers asks once.
const LIFETIME: &str = "Cache-Control: public, max-age=3600\r\n";

struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
    missing: Vec<u8>,
}

impl Answers {
    fn prepare() -> Self {
        let answer = |status: &str, field: &str, body: usize| {
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\n\
                 Content-Length: {body}\r\n{field}\r\n"
            );
            let filler = (b'a'..=b'z').cycle().take(body);
            head.into_bytes().into_iter().chain(filler).collect()
        };
        Self {
            small: answer("200 OK", LIFETIME, 1024),
            large: answer("200 OK", LIFETIME, 64 * 1024),
            missing: answer("404 Not Found", "Connection: close\r\n", 0),
        }
    }

    /// The answer, and whether the connection closes after it.
    fn to(&self, head: &[u8]) -> (&[u8], bool) {
        if asks_for(head, b"GET /1k") {
            (&self.small, false)
        } else if asks_for(head, b"GET /64k") {
            (&self.large, false)
        } else {
            (&self.missing, true)
        }
    }
}

/// Whether the target of a request ends after `beginning`, or its query begins there.
fn asks_for(head: &[u8], beginning: &[u8]) -> bool {
    let rest = head.strip_prefix(beginning);
    matches!(rest, Some([b' ' | b'?', ..]))
}

struct Connection {
    stream: TcpStream,
    /// Bytes received and not yet answered: empty, unless a head arrived in pieces or pipelined.
    input: Vec<u8>,
    /// Bytes that the socket would not take yet: empty, unless the peer reads slowly.
    output: Vec<u8>,
    closing: bool,
}

/// Whether the connection lives on.
#[derive(PartialEq)]
enum Fate {
    Open,
    Closed,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            closing: false,
        }
    }

    fn readable(&mut self, answers: &Answers, buffer: &mut [u8]) -> Fate {
        let received = match receive(self.stream.as_raw_fd(), buffer) {
            Ok(0) => return Fate::Closed,
            Ok(received) => &buffer[..received],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Fate::Open,
            Err(_) => return Fate::Closed,
        };
        // The common case is one whole head in one read: it is answered without a copy.
        if self.input.is_empty() {
            return self.answer(answers, received);
        }
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(received);
        self.answer(answers, &input)
    }

    fn answer(&mut self, answers: &Answers, mut input: &[u8]) -> Fate {
        while !self.closing {
            let Some(end) = end_of_head(input) else { break };
            let (answer, close) = answers.to(&input[..end]);
            self.closing = close;
            input = &input[end..];
            if self.send(answer) == Fate::Closed {
                return Fate::Closed;
            }
        }
        if self.closing {
            return if self.output.is_empty() {
                Fate::Closed
            } else {
                Fate::Open
            };
        }
        if input.len() > LONGEST_HEAD {
            return Fate::Closed;
        }
        self.input.extend_from_slice(input);
        Fate::Open
    }

    fn send(&mut self, answer: &[u8]) -> Fate {
        if !self.output.is_empty() {
            self.output.extend_from_slice(answer);
            return Fate::Open;
        }
        match self.stream.write(answer) {
            Ok(sent) => self.output.extend_from_slice(&answer[sent..]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.output.extend_from_slice(answer);
            }
            Err(_) => return Fate::Closed,
        }
        Fate::Open
    }

    fn writable(&mut self) -> Fate {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Fate::Open,
                Err(_) => return Fate::Closed,
            }
        }
        if self.closing {
            Fate::Closed
        } else {
            Fate::Open
        }
    }

    /// While an answer waits to be taken nothing more is read: the peer's own pace is the bound.
    fn interest(&self) -> u32 {
        if self.output.is_empty() {
            libc::EPOLLIN as u32
        } else {
            libc::EPOLLOUT as u32
        }
    }
}

/// Index after the blank line that ends the first head.
fn end_of_head(input: &[u8]) -> Option<usize> {
    let blank = input.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(blank + 4)
}

fn receive(socket: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into a buffer we hold exclusively.
    let received = unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

struct Epoll {
    descriptor: RawFd,
}

impl Epoll {
    fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        match unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(Self { descriptor }),
        }
    }

    fn control(&self, operation: i32, socket: RawFd, interest: u32) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest,
            u64: socket as u64,
        };
        // SAFETY: `event` outlives the call, which only reads it.
        match unsafe { libc::epoll_ctl(self.descriptor, operation, socket, &mut event) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    fn wait<'a>(&self, events: &'a mut [libc::epoll_event]) -> io::Result<&'a [libc::epoll_event]> {
        let room = i32::try_from(events.len()).expect("a few hundred events");
        // SAFETY: the kernel writes at most `room` events into a slice of that length.
        let ready = unsafe { libc::epoll_wait(self.descriptor, events.as_mut_ptr(), room, -1) };
        match usize::try_from(ready) {
            Ok(ready) => Ok(&events[..ready]),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(&[]),
                error => Err(error),
            },
        }
    }
}

/// Connections by descriptor: descriptors are small integers, so a table beats a map.
#[derive(Default)]
struct Connections(Vec<Option<Connection>>);

impl Connections {
    fn insert(&mut self, connection: Connection) {
        let slot = connection.stream.as_raw_fd() as usize;
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        self.0[slot] = Some(connection);
    }
}

fn serve(listener: &TcpListener) -> io::Result<()> {
    let answers = Answers::prepare();
    let epoll = Epoll::new()?;
    let mut connections = Connections::default();
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    let mut buffer = vec![0; LONGEST_HEAD];
    listener.set_nonblocking(true)?;
    epoll.control(
        libc::EPOLL_CTL_ADD,
        listener.as_raw_fd(),
        libc::EPOLLIN as u32,
    )?;

    loop {
        for event in epoll.wait(&mut events)? {
            let socket = event.u64 as RawFd;
            if socket == listener.as_raw_fd() {
                accept(listener, &epoll, &mut connections)?;
                continue;
            }
            let Some(connection) = connections.0[socket as usize].as_mut() else {
                continue;
            };
            let interest = connection.interest();
            let fate = if event.events & libc::EPOLLOUT as u32 != 0 {
                connection.writable()
            } else {
                connection.readable(&answers, &mut buffer)
            };
            if fate == Fate::Closed {
                // Closing the descriptor also takes it out of the epoll.
                connections.0[socket as usize] = None;
            } else if connection.interest() != interest {
                epoll.control(libc::EPOLL_CTL_MOD, socket, connection.interest())?;
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &Epoll, connections: &mut Connections) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        epoll.control(
            libc::EPOLL_CTL_ADD,
            stream.as_raw_fd(),
            libc::EPOLLIN as u32,
        )?;
        connections.insert(Connection::new(stream));
    }
}

fn main() {
    let Some(address) = std::env::args().nth(1) else {
        eprintln!("usage: origin ADDRESS:PORT");
        exit(2);
    };
    let outcome = TcpListener::bind(&address).and_then(|listener| serve(&listener));
    if let Err(error) = outcome {
        eprintln!("origin on {address}: {error}");
        exit(1);
    }
}
