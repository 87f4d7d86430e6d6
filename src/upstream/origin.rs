//! One request without a body to a backend over HTTP/1.1, and its response, piece by piece.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http1::{BodyScanner, Framing, ResponseHead, answer::end_of_head};

use super::{Lease, Transport, connect, connect::ConnectFailed, wire::Wire};

/// Room for the first read: most responses fit whole.
const FIRST_READ: usize = 8 << 10;
/// The most that one piece of a body may measure, so what a slow client makes us hold.
const LARGEST_PIECE: usize = 64 << 10;
/// Room for a read of a body whose length nobody knows.
const USUAL_PIECE: usize = 16 << 10;
/// With less room left than this a read gets a new buffer.
const LEAST_ROOM: usize = 2 << 10;

/// The connection, from the request to the last byte of the response. Every wait has the deadline of its transport;
/// dropping it closes the connection.
pub struct Origin {
    wire: Wire,
    /// Read and not handed out yet.
    read: BytesMut,
    /// What is left of the body, once the final head is there.
    body: BodyScanner,
    /// The backend keeps the connection open after this response.
    keeps: bool,
}

impl Origin {
    /// A connection to the leased backend, and whether it had rested. `transport` is that of a route with timeouts of its
    /// own; `rested`: one that rested will do, which the request must then be able to outlive.
    pub async fn connect(
        lease: &Lease,
        transport: Option<&Arc<Transport>>,
        rested: bool,
    ) -> Result<(Self, bool), ConnectFailed> {
        let transport = transport.unwrap_or(lease.transport());
        let rest = match rested {
            true => transport.rest(true),
            false => Duration::ZERO,
        };
        let (wire, rested) = connect::connect(transport, lease.backend().endpoint(), rest).await?;
        let origin = Self {
            wire,
            read: BytesMut::new(),
            body: BodyScanner::new(Framing::None),
            keeps: false,
        };
        Ok((origin, rested))
    }

    /// Sends the request: one whole head.
    pub async fn send(&mut self, head: &[u8]) -> io::Result<()> {
        self.wire.write_all(head).await?;
        self.wire.flush().await
    }

    /// The next response head: any number of interim ones, then the final one. `method` is what was asked.
    pub async fn head(&mut self, method: &Method) -> io::Result<ResponseHead> {
        let end = loop {
            if let Some(end) = end_of_head(&self.read) {
                break end;
            }
            if self.read.capacity() - self.read.len() < LEAST_ROOM {
                self.read.reserve(FIRST_READ);
            }
            if self.wire.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = ResponseHead::read(self.read.split_to(end).freeze())
            .ok_or(io::ErrorKind::InvalidData)?;
        let status = head.status();
        let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        let framing = head.framing();
        self.keeps = head.keeps_connection();
        self.body = match framing {
            _ if status.is_informational() || bodiless || method == Method::HEAD => {
                BodyScanner::new(Framing::None)
            }
            Framing::None => BodyScanner::until_close(),
            framing => BodyScanner::new(framing),
        };
        Ok(head)
    }

    /// The next piece of the body without its framing; `None` at its end. An error is a body cut short.
    pub async fn body(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.body.done() {
                return Ok(None);
            }
            if !self.read.is_empty() {
                let malformed = |why| io::Error::new(io::ErrorKind::InvalidData, why);
                let (taken, data) = self.body.data(&self.read).map_err(malformed)?;
                let piece = self.read.split_to(taken).freeze();
                if !data.is_empty() {
                    return Ok(Some(piece.slice(data)));
                }
                continue;
            }
            let room = match self.body.left() {
                Some(left) => {
                    usize::try_from(left).map_or(LARGEST_PIECE, |left| left.min(LARGEST_PIECE))
                }
                None => USUAL_PIECE,
            };
            if self.read.capacity() < room.min(LEAST_ROOM) {
                self.read.reserve(room);
            }
            if self.wire.read_buf(&mut self.read).await? == 0 {
                // The wire has judged that it may end here.
                self.body = BodyScanner::new(Framing::None);
            }
        }
    }

    /// Whether the response has been handed out whole.
    pub fn is_over(&self) -> bool {
        self.body.done()
    }

    /// Ends with the response: the connection rests where the backend keeps it.
    pub fn finish(self) {
        if self.keeps && self.wire.is_done() {
            self.wire.rest();
        }
    }
}
