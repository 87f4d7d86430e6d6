//! An HTTP/1.1 connection to a backend: bytes that a gate has judged, with a deadline for every wait.
//!
//! Whoever reads here may believe what it reads: the gate sees the bytes first and refuses what two programs could read
//! differently.

use std::{
    fmt,
    io::{self, IoSlice},
    os::fd::{AsRawFd, RawFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::http1::{ResponseGate, ResponseLimits};

use super::{Deadline, Endpoint, Transport, deadline::Timer, outgoing::Outgoing, socket::Socket};

/// A connection over one [`Transport`].
pub(super) struct Wire {
    socket: Socket,
    endpoint: Endpoint,
    transport: Arc<Transport>,
    phase: Phase,
    gate: ResponseGate,
    outgoing: Outgoing,
    /// The backend took no more of the request in time: what has not been answered by now will not be.
    jammed: bool,
    last_write: Instant,
    last_read: Instant,
    /// Since when a read or a write has been pending without progress.
    reading_since: Option<Instant>,
    writing_since: Option<Instant>,
    read_timer: Timer,
    write_timer: Timer,
}

/// What the connection is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not used since it was made or taken from the pool: nothing is awaited.
    Idle,
    /// A request is being sent, or its response head awaited.
    Head,
    /// After the head.
    Body,
    /// After a 101.
    Tunnel,
}

impl Wire {
    /// A connection on which nothing is under way.
    pub fn new(socket: Socket, endpoint: Endpoint, transport: Arc<Transport>) -> Self {
        let now = Instant::now();
        let limits = ResponseLimits {
            head_bytes: transport.settings().max_response_head,
            ..ResponseLimits::default()
        };
        Self {
            socket,
            endpoint,
            transport,
            phase: Phase::Idle,
            gate: ResponseGate::new(limits),
            outgoing: Outgoing::nothing(),
            jammed: false,
            last_write: now,
            last_read: now,
            reading_since: None,
            writing_since: None,
            read_timer: Timer::default(),
            write_timer: Timer::default(),
        }
    }

    /// Whether a request was sent whole and its response has been read whole.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Body && self.gate.is_idle() && self.outgoing.is_whole()
    }

    /// Whether nothing more of a response is awaited, even if the connection is of no further use.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Body && (self.gate.is_idle() || self.gate.has_failed())
    }

    /// Whether the request under way asks to leave HTTP.
    pub fn asks_to_upgrade(&self) -> bool {
        self.gate.asks_to_upgrade()
    }

    /// Lets the connection rest for another request. To be called when it [is done](Self::is_done) and its backend did
    /// not say that it closes it.
    pub fn rest(self) {
        let idle = self.transport.idle();
        idle.put(&self.transport, &self.endpoint, self.socket);
    }

    /// When a pending read has taken too long, and what that means.
    fn read_deadline(&self) -> Option<(Instant, Deadline)> {
        let timeouts = &self.transport.settings().timeouts;
        match self.phase {
            Phase::Idle => None,
            // The client is still sending: its pauses are not the backend's, but they end.
            Phase::Head if !self.outgoing.is_whole() => {
                Some((self.last_write + timeouts.write, Deadline::Request))
            }
            Phase::Head => Some((self.last_write + timeouts.first_byte, Deadline::FirstByte)),
            // From when we began to wait, not from the last byte: a slow client may have kept us from reading.
            Phase::Body => Some((self.reading_since? + timeouts.read, Deadline::Read)),
            Phase::Tunnel => Some((
                self.last_read.max(self.last_write) + timeouts.websocket_idle,
                Deadline::Idle,
            )),
        }
    }

    /// Judges what was read, nothing being the end of the stream; how much of it is of the response.
    fn arrived(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.last_read = Instant::now();
        if bytes.is_empty() {
            // Before a response head it is for the reader to say: a connection that rested may close at any time.
            let cut_short = self.phase == Phase::Body && self.gate.eof().is_err();
            return if cut_short {
                Err(io::ErrorKind::UnexpectedEof.into())
            } else {
                Ok(0)
            };
        }
        let mut length = bytes.len();
        if let Err(bad) = self.gate.feed(bytes) {
            // What is whole is passed on whether or not more came with it: applications that answer HEAD with a body
            // are not rare, and how their bytes fall into reads is chance.
            let whole = self.gate.whole_before();
            length = whole.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, bad))?;
        }
        if self.phase == Phase::Head && !self.gate.in_head() {
            self.phase = if self.gate.is_tunnel() {
                Phase::Tunnel
            } else {
                Phase::Body
            };
        }
        Ok(length)
    }

    /// The first `written` bytes of these parts were taken. They begin a request if the connection was idle: a head is
    /// written in one piece.
    fn sent(&mut self, parts: &[IoSlice<'_>], written: usize) {
        self.last_write = Instant::now();
        if self.phase == Phase::Idle {
            let head = parts.iter().find(|part| !part.is_empty());
            let head: &[u8] = head.map_or(&[], |part| part);
            self.phase = Phase::Head;
            self.gate.request_started(head);
            self.outgoing = Outgoing::request(head);
        }
        if self.phase == Phase::Head {
            let mut left = written;
            for part in parts {
                let taken = left.min(part.len());
                self.outgoing.written(&part[..taken]);
                left -= taken;
            }
        }
    }

    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        write: impl FnOnce(Pin<&mut Socket>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let result = write(Pin::new(&mut self.socket), cx);
        if result.is_pending() {
            ready!(self.poll_write_deadline(cx));
            self.jammed = true;
            return Poll::Ready(Err(Deadline::Write.passed()));
        }
        self.writing_since = None;
        if let Poll::Ready(Ok(written)) = result {
            self.sent(parts, written);
        }
        result
    }

    fn poll_write_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.writing_since.get_or_insert_with(Instant::now);
        let at = since + self.transport.settings().timeouts.write;
        self.write_timer.poll(cx, Some(at))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.socket).poll_read(cx, buf) {
            this.reading_since = None;
            result?;
            let judged = this.arrived(&buf.filled()[before..]);
            // A read that fails has read nothing.
            buf.set_filled(before + judged.as_ref().copied().unwrap_or_default());
            return Poll::Ready(judged.map(drop));
        }
        if this.jammed {
            return Poll::Ready(Err(Deadline::Write.passed()));
        }
        this.reading_since.get_or_insert_with(Instant::now);
        let deadline = this.read_deadline();
        ready!(this.read_timer.poll(cx, deadline.map(|(at, _)| at)));
        let (_, deadline) = deadline.expect("only a deadline makes the timer ready");
        Poll::Ready(Err(deadline.passed()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .poll_write_with(cx, &[IoSlice::new(bytes)], |socket, cx| {
                socket.poll_write(cx, bytes)
            })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_with(cx, parts, |socket, cx| {
            socket.poll_write_vectored(cx, parts)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(result) = Pin::new(&mut this.socket).poll_flush(cx) {
            this.writing_since = None;
            return Poll::Ready(result);
        }
        ready!(this.poll_write_deadline(cx));
        this.jammed = true;
        Poll::Ready(Err(Deadline::Write.passed()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("socket", &self.socket)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        time::{advance, timeout},
    };

    use super::*;
    use crate::upstream::{
        Settings, Timeouts,
        testing::{settings, upstream},
    };

    const SHORT: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(20);

    /// A connection with these timeouts, and its far end.
    async fn pair(timeouts: Timeouts) -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let near = TcpStream::connect(address).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let transport = upstream(
            Settings {
                timeouts,
                ..settings()
            },
            1,
        )
        .transport
        .clone();
        let stream = Wire::new(Socket::Tcp(near), Endpoint::Tcp(address), transport);
        (stream, far)
    }

    fn reason(error: &io::Error) -> Option<Deadline> {
        error.get_ref()?.downcast_ref().copied()
    }

    /// Sends a request and receives `head`, without the paused clock moving.
    async fn begin(stream: &mut Wire, far: &mut TcpStream, head: &[u8]) {
        let request = b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        far.write_all(head).await.unwrap();
        receive(stream).await;
    }

    async fn receive(stream: &mut Wire) {
        while is_quiet(stream).await {
            tokio::task::yield_now().await;
        }
    }

    /// Polls for a read once: true if it waits.
    async fn is_quiet(stream: &mut Wire) -> bool {
        read_once(stream).await.is_pending()
    }

    async fn read_once(stream: &mut Wire) -> Poll<io::Result<()>> {
        let mut bytes = [0; 64];
        poll_fn(|cx| {
            Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut bytes)))
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_lives_while_either_side_speaks() {
        let (mut stream, mut far) = pair(Timeouts::default()).await;
        begin(
            &mut stream,
            &mut far,
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        )
        .await;
        for _ in 0..3 {
            advance(Duration::from_secs(3000)).await;
            stream.write_all(b"ping").await.unwrap();
            assert!(is_quiet(&mut stream).await);
            advance(Duration::from_secs(3000)).await;
            far.write_all(b"pong").await.unwrap();
            receive(&mut stream).await;
        }
        advance(Duration::from_secs(3599)).await;
        assert!(is_quiet(&mut stream).await);
        advance(Duration::from_secs(2)).await;
        let Poll::Ready(Err(error)) = read_once(&mut stream).await else {
            panic!("not ended")
        };
        assert_eq!(reason(&error), Some(Deadline::Idle));
    }

    #[tokio::test]
    async fn a_backend_that_reads_nothing_is_given_up() {
        let (mut stream, _far) = pair(Timeouts {
            write: SHORT,
            ..Timeouts::default()
        })
        .await;
        let piece = vec![0; 1 << 20];
        let error = async {
            loop {
                if let Err(error) = stream.write_all(&piece).await {
                    return error;
                }
            }
        };
        let error = timeout(LONG, error).await.unwrap();
        assert_eq!(reason(&error), Some(Deadline::Write));
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_is_not_late_while_its_request_is_still_sent() {
        let (mut stream, mut far) = pair(Timeouts::default()).await;
        for _ in 0..5 {
            stream.write_all(b"part of a long upload").await.unwrap();
            advance(Duration::from_secs(50)).await;
            assert!(is_quiet(&mut stream).await);
        }
        far.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        receive(&mut stream).await;
    }

    #[tokio::test]
    async fn a_head_over_its_limit_is_an_error_and_interim_heads_count() {
        let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(3000);
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(70_000));
        for (response, why) in [
            (
                flood,
                "too many interim responses came before the final one",
            ),
            (long, "the head is larger than max_response_head"),
        ] {
            let (mut stream, mut far) = pair(Timeouts::default()).await;
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            far.write_all(response.as_bytes()).await.unwrap();
            let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.to_string(), why);
        }
    }
}
