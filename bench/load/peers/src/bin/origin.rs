//! The application behind every proxy: one thread, one epoll, prepared answers. It must cost less
//! than any proxy measured against it, so it does nothing per request but find the end of the head
//! and write bytes that were made at start.
//!
//! `origin ADDRESS:PORT [unchanged]`. Answers `GET /1k` and `GET /64k`, whatever their query, with 1 KiB and 64 KiB, and
//! `HEAD /1k` without them; where it is `unchanged`, `GET /1k` with 304. Keeps connections alive, serves pipelined
//! requests in order. Anything else is answered 404 and closed. Bodies of requests are not read: no case of the bench
//! sends one.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::exit;

use peers::epoll::Epoll;
use peers::head::end_of_head;

/// A head that has not ended within this many bytes closes its connection.
const LONGEST_HEAD: usize = 16 * 1024;
const EVENTS: usize = 256;

/// Longer than any run: who stores answers asks once.
const LIFETIME: &str = "Cache-Control: public, max-age=3600\r\n";

/// Of both answers; the load generator asks for 304 with it.
const ETAG: &str = "ETag: \"1\"\r\n";

struct Answers {
    small: Vec<u8>,
    small_head: Vec<u8>,
    large: Vec<u8>,
    missing: Vec<u8>,
}

impl Answers {
    fn prepare(unchanged: bool) -> Self {
        let head = |status: &str, fields: &str, body: usize| {
            format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\n\
                 Content-Length: {body}\r\n{fields}\r\n"
            )
            .into_bytes()
        };
        let page = |body: usize| {
            let filler = (b'a'..=b'z').cycle().take(body);
            let head = head("200 OK", &format!("{LIFETIME}{ETAG}"), body);
            head.into_iter().chain(filler).collect()
        };
        Self {
            small: if unchanged {
                format!("HTTP/1.1 304 Not Modified\r\n{LIFETIME}{ETAG}\r\n").into_bytes()
            } else {
                page(1024)
            },
            small_head: head("200 OK", &format!("{LIFETIME}{ETAG}"), 1024),
            large: page(64 * 1024),
            missing: head("404 Not Found", "Connection: close\r\n", 0),
        }
    }

    /// The answer, and whether the connection closes after it.
    fn to(&self, head: &[u8]) -> (&[u8], bool) {
        if asks_for(head, b"GET /1k") {
            (&self.small, false)
        } else if asks_for(head, b"GET /64k") {
            (&self.large, false)
        } else if asks_for(head, b"HEAD /1k") {
            (&self.small_head, false)
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

fn receive(socket: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into a buffer we hold exclusively.
    let received = unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
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

fn serve(listener: &TcpListener, answers: &Answers) -> io::Result<()> {
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
                connection.readable(answers, &mut buffer)
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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (address, unchanged) = match words[..] {
        [address] => (address, false),
        [address, "unchanged"] => (address, true),
        _ => {
            eprintln!("usage: origin ADDRESS:PORT [unchanged]");
            exit(2);
        }
    };
    let answers = Answers::prepare(unchanged);
    let outcome = TcpListener::bind(address).and_then(|listener| serve(&listener, &answers));
    if let Err(error) = outcome {
        eprintln!("origin on {address}: {error}");
        exit(1);
    }
}
