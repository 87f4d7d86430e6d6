//! The client's side of an exchange, in either version of HTTP.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{DATE, HeaderName, HeaderValue};
use http::response::Parts;
use http::{Method, StatusCode, Version};
use pingora_core::protocols::http::v2::server::HttpSession;
use pingora_http::ResponseHeader;
use tokio::sync::mpsc::UnboundedSender;

use super::fetch::Progress;
use super::ready::Head;
use super::request::Request;
use crate::downstream::connection::Connection;
use crate::exchange::{Exchange, entry};
use crate::headers::policy::Behind;
use crate::http1::{Framing, Malformed, ResponseHead};
use crate::moment::{date, system_now};
use crate::refusal::{After, Answer};

/// Bytes of the lines that [`Http1::head`] writes itself.
const OWN_LINES: usize = 128;
/// Fields that most responses gain.
const FIELDS_ADDED: usize = 16;

/// Whoever asked, and is answered.
pub(super) enum Client<'a> {
    Http1(Http1<'a>),
    Http2(Http2<'a>),
    /// A visit of our own: nobody leaves.
    Own(Box<Own>),
    /// A question of our own: nobody leaves, and nobody is written to.
    Nobody(Box<Question>),
}

/// What is asked for all who want to know.
pub(super) struct Question {
    pub request: Request,
    /// Whom interim responses are handed to.
    pub leader: Option<UnboundedSender<Progress>>,
}

impl Client<'_> {
    pub fn version(&self) -> Version {
        match self {
            Self::Http1(_) | Self::Own(_) | Self::Nobody(_) => Version::HTTP_11,
            Self::Http2(_) => Version::HTTP_2,
        }
    }

    /// What is asked, as it came. An error is a head that this lane cannot read.
    pub fn request(&self) -> Result<Request, Malformed> {
        match self {
            Self::Http1(client) => Request::read(&client.head),
            Self::Http2(client) => Ok(Request::from(client.0.req_header())),
            Self::Own(own) => Ok(own.request.clone()),
            Self::Nobody(question) => Ok(question.request.clone()),
        }
    }

    /// Ready when the client has left.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Http1(client) => client.connection.poll_gone(cx),
            Self::Http2(client) => Pin::new(&mut client.0.idle()).poll(cx).map(drop),
            Self::Own(_) | Self::Nobody(_) => Poll::Pending,
        }
    }

    /// Whether the connection may carry another request.
    pub fn keeps(&self) -> bool {
        match self {
            Self::Http1(client) => client.keep,
            Self::Http2(_) | Self::Own(_) | Self::Nobody(_) => true,
        }
    }

    /// Asks the client not to send another request on this connection, where that is said in an answer.
    pub fn keep_no_longer(&mut self) {
        if let Self::Http1(client) = self {
            client.keep = false;
        }
    }

    /// Sends an answer of ours.
    pub async fn answer(&mut self, answer: Box<Answer>, exchange: &Exchange) -> io::Result<()> {
        match self {
            Self::Http1(client) => client.answer(*answer, exchange).await,
            Self::Http2(client) => client.answer(*answer, exchange).await,
            Self::Own(_) | Self::Nobody(_) => Ok(()),
        }
    }

    /// Whether it can be sent interim responses.
    pub fn takes_interim(&self) -> bool {
        // The codec of HTTP/2 knows none.
        matches!(self, Self::Http1(_))
    }

    /// Passes an interim response on; `false` where that cannot be done.
    pub async fn interim(&mut self, head: &ResponseHead) -> io::Result<bool> {
        match self {
            Self::Http1(client) => client.interim(head).await.map(|()| true),
            // The codec knows no interim responses.
            Self::Http2(_) | Self::Own(_) => Ok(false),
            Self::Nobody(question) => Ok(question.leader.as_ref().is_some_and(|leader| {
                let interim = Progress::Interim(Box::new(head.clone()));
                leader.send(interim).is_ok()
            })),
        }
    }

    /// Begins an answer with what a backend said, dressed for this exchange. It may leave with the first of the body.
    pub fn head(
        &mut self,
        head: ResponseHead,
        method: &Method,
        exchange: &Exchange,
    ) -> io::Result<()> {
        let bodiless = *method == Method::HEAD
            || matches!(
                head.status(),
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        match self {
            Self::Http1(client) => {
                client.head(head, bodiless, exchange);
                Ok(())
            }
            Self::Http2(client) => client.head(&head, bodiless, exchange),
            Self::Own(_) | Self::Nobody(_) => Ok(()),
        }
    }

    /// Whether an answer may begin with a head that is ready.
    pub fn takes_ready(&self) -> bool {
        matches!(self, Self::Http1(_))
    }

    /// Begins an answer with a head that is ready, where the client takes such: its body follows as it is.
    pub fn ready(&mut self, head: &Head, exchange: &Exchange) {
        if let Self::Http1(client) = self {
            client.ready(head, exchange);
        }
    }

    /// Sends a piece of the body.
    pub async fn body(&mut self, piece: Bytes) -> io::Result<()> {
        match self {
            Self::Http1(client) => client.connection.put_body(&piece, client.chunked).await,
            Self::Http2(client) => failed(client.0.write_body(piece, false).await),
            Self::Own(own) => {
                own.keep(&piece);
                Ok(())
            }
            Self::Nobody(_) => Ok(()),
        }
    }

    /// Sends the last piece of the body, and with it that it is the last.
    pub async fn last(&mut self, piece: Bytes) -> io::Result<()> {
        match self {
            Self::Http2(client) => failed(client.0.write_body(piece, true).await),
            _ => {
                self.body(piece).await?;
                self.end().await
            }
        }
    }

    /// Ends the answer.
    pub async fn end(&mut self) -> io::Result<()> {
        match self {
            Self::Http1(client) => {
                let end: &[u8] = if client.chunked { b"0\r\n\r\n" } else { b"" };
                client.connection.put_all(end).await
            }
            Self::Http2(client) => failed(client.0.finish()),
            Self::Own(_) | Self::Nobody(_) => Ok(()),
        }
    }
}

/// A connection of HTTP/1.1 with one request on it.
pub(super) struct Http1<'a> {
    pub connection: &'a mut Connection,
    /// The head of the request.
    pub head: Bytes,
    /// The connection may carry another request.
    pub keep: bool,
    /// The body of the answer is sent in chunks.
    pub chunked: bool,
}

impl Http1<'_> {
    fn answer(
        &mut self,
        answer: Answer,
        exchange: &Exchange,
    ) -> impl Future<Output = io::Result<()>> {
        let after = if self.keep { After::Keep } else { After::Close };
        let wire = answer.to_wire(after, system_now(), |answer| entry::dress(exchange, answer));
        let connection = &mut *self.connection;
        async move { connection.put_all(&wire).await }
    }

    async fn interim(&mut self, head: &ResponseHead) -> io::Result<()> {
        let mut wire = BytesMut::with_capacity(head.longest() + b"\r\n".len());
        head.write(&mut wire);
        wire.put_slice(b"\r\n");
        self.connection.put_all(&wire).await
    }

    /// Gathers the head that the client receives; it leaves with the first bytes of the body, or when those keep it waiting.
    fn head(&mut self, mut head: ResponseHead, bodiless: bool, exchange: &Exchange) {
        let framing = head.framing();
        // In chunks where there is a body and nobody knows its length.
        self.chunked = !bodiless && !matches!(framing, Framing::Length(_));
        entry::dress(exchange, &mut head);
        // Among what is gathered already: it leaves with the first bytes of the body.
        let wire = self.connection.gathering(head.longest() + OWN_LINES);
        head.write(wire);
        if !head.has(&DATE) {
            wire.put_slice(b"Date: ");
            wire.put_slice(&date(system_now()));
            wire.put_slice(b"\r\n");
        }
        if self.chunked && framing != Framing::Chunked {
            wire.put_slice(b"Transfer-Encoding: chunked\r\n");
        }
        self.end_of_head();
    }

    fn end_of_head(&mut self) {
        let end: &[u8] = match self.keep {
            true => b"\r\n",
            false => b"Connection: close\r\n\r\n",
        };
        self.connection.gather(end);
    }

    /// Gathers a head that lacks what is said of this request.
    fn ready(&mut self, head: &Head, exchange: &Exchange) {
        thread_local! {
            static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        LINES.with_borrow_mut(|lines| {
            lines.clear();
            let status = head.status;
            entry::sign(exchange, &mut Behind { status, lines });
            let room = head.lines.len() + lines.len() + OWN_LINES;
            let wire = self.connection.gathering(room);
            wire.put_slice(&head.lines);
            wire.put_slice(lines);
            self.chunked = false;
            self.end_of_head();
        });
    }
}

/// The gateway itself.
pub(super) struct Own {
    request: Request,
    body: BytesMut,
    /// How long a body is kept; `None` once it was longer.
    most: Option<usize>,
}

impl Own {
    /// Keeps a body of up to `most` bytes.
    pub fn new(request: Request, most: usize) -> Self {
        Self {
            request,
            body: BytesMut::new(),
            most: Some(most),
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        self.most = self
            .most
            .filter(|most| self.body.len() + piece.len() <= *most);
        match self.most {
            Some(_) => self.body.extend_from_slice(piece),
            None => self.body = BytesMut::new(),
        }
    }

    /// What was kept, unless there was more.
    pub fn body(self) -> Option<Bytes> {
        self.most.map(|_| self.body.freeze())
    }
}

/// A stream of HTTP/2.
pub(super) struct Http2<'a>(pub &'a mut HttpSession);

impl Http2<'_> {
    async fn answer(&mut self, mut answer: Answer, exchange: &Exchange) -> io::Result<()> {
        entry::dress(exchange, &mut answer.head);
        let bodiless = answer.body.is_empty();
        failed(
            self.0
                .write_response_header(Box::new(answer.head), bodiless),
        )?;
        if bodiless {
            return Ok(());
        }
        failed(self.0.write_body(answer.body, true).await)
    }

    fn head(&mut self, head: &ResponseHead, bodiless: bool, exchange: &Exchange) -> io::Result<()> {
        let empty = bodiless || head.framing() == Framing::Length(0);
        let lines = head.lines();
        let room = lines.len() + FIELDS_ADDED;
        let mut response = ResponseHeader::build_no_case(head.status(), Some(room))
            .map_err(|_| io::ErrorKind::InvalidData)?;
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name).map_err(|_| io::ErrorKind::InvalidData)?;
            let value =
                HeaderValue::from_maybe_shared(value).map_err(|_| io::ErrorKind::InvalidData)?;
            failed(response.append_header(name, value))?;
        }
        let mut response = Parts::from(response);
        entry::dress(exchange, &mut response);
        failed(
            self.0
                .write_response_header(Box::new(response.into()), empty),
        )
    }
}

/// pingora's failures as those of a write to a client, which is all that is known of them.
fn failed<T>(result: pingora_core::Result<T>) -> io::Result<T> {
    result.map_err(|_| io::ErrorKind::ConnectionAborted.into())
}
