//! The answer of a backend on its way to the client.

use std::time::SystemTime;

use bytes::{BufMut, BytesMut};
use http::header::DATE;
use http::{Method, StatusCode};

use super::{Lane, Unanswered, fault, watched};
use crate::exchange::{attempt, entry};
use crate::headers::forwarded::strip_response_hop_by_hop;
use crate::http1::{Framing, ResponseHead};
use crate::upstream::Origin;

/// Bytes of the lines that [`Lane::deliver`] writes itself.
const OWN_LINES: usize = 128;

impl Lane<'_> {
    /// Passes a final response on, piece by piece as it comes.
    pub(super) async fn deliver(
        &mut self,
        mut origin: Origin,
        mut response: ResponseHead,
    ) -> Result<(), Unanswered> {
        let chunked = self.is_chunked(&response);
        self.keep &= !self.gateway.is_draining();
        self.exchange.status = response.status().as_u16();
        self.put_head(&mut response, chunked);
        loop {
            let piece = watched(self.connection, origin.body()).await;
            match self.present(piece)? {
                Ok(Some(piece)) => {
                    self.sent += piece.len() as u64;
                    let written = self.connection.put_body(&piece, chunked).await;
                    self.taken(written)?;
                }
                Ok(None) => break,
                Err(error) => {
                    attempt::broke_off(&mut self.exchange, fault(&error), &error, false);
                    // What the client has is all it gets: its end is missing, and so it knows.
                    self.exchange.refusal = None;
                    self.exchange.truncated = true;
                    return Err(Unanswered::Broken);
                }
            }
        }
        // The backend is free now, whenever the client has taken the rest.
        origin.finish();
        self.exchange.attempt.lease = None;
        let end: &[u8] = if chunked { b"0\r\n\r\n" } else { b"" };
        let written = self.connection.put_all(end).await;
        self.taken(written)?;
        Ok(())
    }

    /// Whether the client is to receive the body in chunks: where nobody knows its length, and there is one.
    fn is_chunked(&self, response: &ResponseHead) -> bool {
        let bodiless = matches!(
            response.status(),
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        self.request.method != Method::HEAD
            && !bodiless
            && !matches!(response.framing(), Framing::Length(_))
    }

    /// Gathers the head that the client receives; it leaves with the first bytes of the body, or when those keep it waiting.
    fn put_head(&mut self, response: &mut ResponseHead, chunked: bool) {
        let coded = response.framing() == Framing::Chunked;
        strip_response_hop_by_hop(response, false);
        entry::dress(&self.exchange, response);
        let mut head = BytesMut::with_capacity(response.longest() + OWN_LINES);
        response.write(&mut head);
        if !response.has(&DATE) {
            let now = httpdate::HttpDate::from(SystemTime::now());
            head.put_slice(format!("Date: {now}\r\n").as_bytes());
        }
        if chunked && !coded {
            head.put_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if !self.keep {
            head.put_slice(b"Connection: close\r\n");
        }
        head.put_slice(b"\r\n");
        self.connection.gather(&head);
    }
}
