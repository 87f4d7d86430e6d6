//! The byte stream of one client connection, as pingora reads and writes it.
//!
//! Between requests the accept loop owns it and reads heads from it. During a request it hands its
//! lane the bytes of that message and not one of the next, so what the ingress checked is
//! what is forwarded. Knows framing; knows nothing of routes.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::Downstream;
use super::sending::Sending;
use super::socket::Socket;
use crate::http1::body::BodyScanner;
use crate::stream::forward_stream;

/// Bytes of later, pipelined requests that are kept while one is served. Beyond it the client
/// is read no further until the answer is out.
const MAX_PIPELINED: usize = 64 * 1024;

/// Small writes gather up to this size: a head and the start of its body leave in one call.
const WRITE_BUFFER: usize = 8 * 1024;

/// Room that one read of heads asks for.
const READ_SIZE: usize = 4 * 1024;

/// How long, and for how many bytes, a client may go on sending after an answer that ends its
/// connection.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// The time after an answer that ends its connection.
struct Farewell {
    over: Pin<Box<tokio::time::Sleep>>,
    dropped: usize,
}

impl Farewell {
    fn begin() -> Self {
        Self {
            over: Box::pin(tokio::time::sleep(LINGER)),
            dropped: 0,
        }
    }
}

/// Plaintext or TLS over one socket.
#[derive(Debug)]
pub enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// Which bytes a read may hand out.
#[derive(Debug)]
enum Message {
    /// Every byte: HTTP/2, or a tunnel after 101.
    Opaque,
    /// The body of the request being served.
    Body(BodyScanner),
    /// The body is over (or there was none): what arrives belongs to later requests.
    Ended,
}

/// One client connection.
pub struct Connection {
    transport: Transport,
    /// Read from the socket and not yet handed out.
    pending: BytesMut,
    sending: Sending,
    /// Written by a lane and not yet sent.
    unsent: BytesMut,
    message: Message,
    /// The request asks to upgrade and no final answer has been written yet.
    upgrade_wanted: bool,
    /// Set when the write side has been closed before everything was read.
    farewell: Option<Farewell>,
    proxy_digest: Arc<ProxyDigest>,
    socket_digest: Arc<SocketDigest>,
    downstream: Arc<Downstream>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("downstream", &self.downstream)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// `send_timeout` is the longest that a write may make no progress.
    pub fn new(transport: Transport, downstream: Arc<Downstream>, send_timeout: Duration) -> Self {
        let fd = transport.fd();
        let socket_digest = SocketDigest::from_raw_fd(fd);
        // Preset, or pingora asks the kernel for each.
        let _ = socket_digest.peer_addr.set(downstream.peer.map(Into::into));
        let _ = socket_digest
            .local_addr
            .set(downstream.local.map(Into::into));
        // The one slot of a pingora digest that is free for its user and reaches HTTP/2 too.
        let nothing = ResponseHeader::build_no_case(200, Some(0)).expect("200 is a status");
        let proxy_digest = ProxyDigest::new(Box::new(nothing), Some(Box::new(downstream.clone())));
        Self {
            transport,
            pending: BytesMut::new(),
            sending: Sending::within(send_timeout),
            unsent: BytesMut::new(),
            message: Message::Opaque,
            upgrade_wanted: false,
            farewell: None,
            proxy_digest: Arc::new(proxy_digest),
            socket_digest: Arc::new(socket_digest),
            downstream,
        }
    }

    pub fn downstream(&self) -> &Arc<Downstream> {
        &self.downstream
    }

    /// What has been read and belongs to no request yet.
    pub fn pending(&self) -> &BytesMut {
        &self.pending
    }

    /// Reads more bytes of a head. Returns how many; 0 is the end of the stream.
    pub fn poll_read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Room of the stack: a connection that waits for its next request owns none.
        let mut room = [MaybeUninit::uninit(); READ_SIZE];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.transport).poll_read(cx, &mut read))?;
        self.pending.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Takes the first `head` bytes as one request's head; the following reads hand out its
    /// body and nothing more.
    pub fn begin_request(&mut self, head: usize, body: BodyScanner, upgrade: bool) -> BytesMut {
        let head = self.pending.split_to(head);
        self.message = if body.done() {
            Message::Ended
        } else {
            Message::Body(body)
        };
        self.upgrade_wanted = upgrade;
        head
    }

    /// Takes a head that gains fields; `false` is anything else.
    fn take_answer(&mut self, written: &[u8]) -> bool {
        if !written.starts_with(b"HTTP/1.") {
            return false;
        }
        let interim = written.get(9) == Some(&b'1') && written.get(9..12) != Some(b"101");
        let Some(head) = written.strip_suffix(b"\r\n").filter(|_| !interim) else {
            return false;
        };
        let added = self.downstream.take_added();
        if added.is_empty() {
            return false;
        }
        for part in [head, &added, b"\r\n"] {
            self.unsent.extend_from_slice(part);
        }
        true
    }

    /// Drops `bytes` at the front of what has been read.
    pub fn discard(&mut self, bytes: usize) {
        self.pending.advance(bytes);
    }

    /// Gives the read buffer back while the connection idles.
    pub fn release_buffers(&mut self) {
        if self.pending.is_empty() {
            self.pending = BytesMut::new();
        }
        if self.unsent.is_empty() {
            self.unsent = BytesMut::new();
        }
    }

    /// Makes every byte from here on readable as it comes.
    pub fn make_opaque(&mut self) {
        self.message = Message::Opaque;
    }

    /// Writes a last answer and closes so that the client can still read it.
    pub async fn close_after(mut self: Box<Self>, answer: &[u8]) {
        // A client that is gone already needs no farewell: errors and delays mean the same here.
        let farewell = async {
            self.transport.write_all(answer).await?;
            self.transport.shutdown().await?;
            self.farewell = Some(Farewell::begin());
            poll_fn(|cx| self.poll_linger(cx)).await;
            io::Result::Ok(())
        };
        let _ = pingora_timeout::timeout(LINGER, farewell).await;
    }

    /// Reads and drops what the client still sends, for a bounded time. Closing with unread bytes
    /// would make the kernel send RST, which destroys the answer on its way.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(farewell) = &mut self.farewell else {
            return Poll::Ready(());
        };
        if farewell.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut sink = [0; 4096];
        while farewell.dropped < LINGER_BYTES {
            let mut sink = ReadBuf::new(&mut sink);
            match ready!(Pin::new(&mut self.transport).poll_read(cx, &mut sink)) {
                Ok(()) if !sink.filled().is_empty() => farewell.dropped += sink.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }

    /// Whether bytes of this client are known to be unread.
    fn has_unread(&self) -> bool {
        !self.pending.is_empty() || matches!(self.message, Message::Body(_))
    }

    /// Makes the end of this connection an RST: where only its end marks that of a body, an
    /// orderly one would make a whole answer of one that broke off. A Unix socket has no RST.
    fn reset_at_end(&self) {
        let socket = match &self.transport {
            Transport::Plain(socket) => socket,
            Transport::Tls(tls) => tls.get_ref().0,
        };
        // Refused by the kernel only for a socket that has ended.
        let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }

    /// Reads pipelined bytes ahead until the socket has no more, for the sake of noticing that
    /// the client is gone. Ready only at the end of the stream or on an error.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.pending.len() >= MAX_PIPELINED {
                return Poll::Pending;
            }
            let mut chunk = [0; 1024];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.transport).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.pending.extend_from_slice(chunk.filled());
        }
    }

    /// Fills `buf` with bytes of the body only; those of the next message go to `pending`.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Message::Body(scanner) = &mut self.message else {
            unreachable!("called in a body only");
        };
        if self.pending.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.transport).poll_read(cx, buf))?;
            let read = &buf.filled()[before..];
            let mine = scanner.feed(read).map_err(malformed)?;
            self.pending.extend_from_slice(&read[mine..]);
            buf.set_filled(before + mine);
        } else {
            let offered = self.pending.len().min(buf.remaining());
            let mine = scanner.feed(&self.pending[..offered]).map_err(malformed)?;
            buf.put_slice(&self.pending[..mine]);
            self.pending.advance(mine);
        }
        if scanner.done() {
            self.message = Message::Ended;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_through(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let step = Pin::new(&mut self.transport).poll_write(cx, buf);
        self.sending.bound(cx, step)
    }

    /// Sends what was gathered.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let step = Pin::new(&mut self.transport).poll_write(cx, &self.unsent);
            let sent = ready!(self.sending.bound(cx, step))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Where bytes are gathered, with room for so many more.
    pub fn gathering(&mut self, room: usize) -> &mut BytesMut {
        self.unsent.reserve(room);
        &mut self.unsent
    }

    /// Gathers bytes to be sent with the next write, or as soon as their reader has to wait.
    pub fn gather(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// Sends `bytes` and all that was gathered before.
    pub async fn put_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(bytes).await?;
        poll_fn(|cx| Pin::new(&mut *self).poll_flush(cx)).await
    }

    /// Sends a piece of a body, with the framing of a chunk if it is to be one. What is small is gathered.
    pub async fn put_body(&mut self, piece: &[u8], chunked: bool) -> io::Result<()> {
        if !chunked {
            return self.put(piece).await;
        }
        let mut size = [0; 18];
        self.gather(chunk_size(piece.len(), &mut size));
        self.put(piece).await?;
        self.gather(b"\r\n");
        Ok(())
    }

    async fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = poll_fn(|cx| self.poll_put(cx, bytes)).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Ready when the client has left. Until then sends what was gathered, so that nothing waits with whoever waits here,
    /// and reads pipelined requests ahead.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Poll::Ready(Err(_)) = Pin::new(&mut *self).poll_flush(cx) {
            return Poll::Ready(());
        }
        self.poll_ahead(cx).map(drop)
    }

    /// Gathers what is small, and writes what is not behind what was gathered.
    fn poll_put(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.unsent.len() + buf.len() <= WRITE_BUFFER {
            self.unsent.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        if self.unsent.is_empty() {
            return self.poll_write_through(cx, buf);
        }
        let both = [IoSlice::new(&self.unsent), IoSlice::new(buf)];
        let step = Pin::new(&mut self.transport).poll_write_vectored(cx, &both);
        let sent = ready!(self.sending.bound(cx, step))?;
        let gathered = self.unsent.len();
        self.unsent.advance(sent.min(gathered));
        if sent > gathered {
            Poll::Ready(Ok(sent - gathered))
        } else {
            // None of `buf` went yet: what was gathered goes first, then the caller tries again.
            ready!(self.poll_send(cx))?;
            self.poll_write_through(cx, buf)
        }
    }

    /// Watches the heads that pingora writes: 101 turns the connection into a tunnel, any
    /// other final answer settles that it stays HTTP.
    fn note_answer(&mut self, written: &[u8]) {
        if self.upgrade_wanted && written.starts_with(b"HTTP/1.") {
            match written.get(9..12) {
                Some(b"101") => {
                    self.make_opaque();
                    self.upgrade_wanted = false;
                }
                Some([b'1', ..]) => {}
                _ => self.upgrade_wanted = false,
            }
        }
    }
}

impl Drop for Connection {
    /// An answer that broke off leaves as far as it came, so that its client sees it cut short
    /// rather than no answer at all. Only what the kernel takes at once: nobody can wait here.
    fn drop(&mut self) {
        let mut nobody = Context::from_waker(Waker::noop());
        // The client may be gone, which is one reason for being dropped.
        let _ = self.poll_send(&mut nobody);
        if self.downstream.ends_with_reset() {
            self.reset_at_end();
        }
    }
}

/// The line that begins a chunk of `length` bytes (RFC 9112 7.1), which is not zero.
fn chunk_size(length: usize, line: &mut [u8; 18]) -> &[u8] {
    let mut free = &mut line[..];
    write!(free, "{length:x}\r\n").expect("sixteen digits and a line end fit");
    let free = free.len();
    &line[..18 - free]
}

/// A violation of the body's framing ends the connection; nothing after it can be trusted.
fn malformed(violation: crate::http1::Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, violation)
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Whoever reads here waits: what was gathered must not wait with it. Otherwise a body that
        // comes slowly would keep the head of its own response back, and TLS the end of what it
        // has taken from us.
        if let Poll::Ready(Err(error)) = Pin::new(&mut *this).poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        match this.message {
            Message::Ended => this.poll_ahead(cx),
            Message::Body(_) => this.poll_body(cx, buf),
            Message::Opaque if this.pending.is_empty() => {
                Pin::new(&mut this.transport).poll_read(cx, buf)
            }
            Message::Opaque => {
                let offered = this.pending.len().min(buf.remaining());
                buf.put_slice(&this.pending.split_to(offered));
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.note_answer(buf);
        if this.take_answer(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        this.poll_put(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(first) = bufs.iter().find(|buf| !buf.is_empty()) {
            this.note_answer(first);
        }
        ready!(this.poll_send(cx))?;
        let step = Pin::new(&mut this.transport).poll_write_vectored(cx, bufs);
        this.sending.bound(cx, step)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        let step = Pin::new(&mut self.transport).poll_flush(cx);
        self.sending.bound(cx, step)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        if self.farewell.is_none() {
            let step = Pin::new(&mut self.transport).poll_shutdown(cx);
            ready!(self.sending.bound(cx, step))?;
            if !self.has_unread() {
                return Poll::Ready(Ok(()));
            }
            self.farewell = Some(Farewell::begin());
        }
        self.poll_linger(cx).map(Ok)
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        // The client may be gone already; there is nobody left to tell.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Connection {
    fn id(&self) -> RawFd {
        self.transport.fd()
    }
}

impl Ssl for Connection {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        None
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        let tls = self.downstream.tls.as_ref()?;
        Some(if tls.h2 { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.proxy_digest.clone())
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.socket_digest.clone())
    }
}

impl Peek for Connection {}

impl Transport {
    fn fd(&self) -> RawFd {
        match self {
            Self::Plain(socket) => socket.as_raw_fd(),
            Self::Tls(tls) => tls.get_ref().0.as_raw_fd(),
        }
    }
}

forward_stream!(Transport { Plain, Tls });

#[cfg(test)]
mod tests;
