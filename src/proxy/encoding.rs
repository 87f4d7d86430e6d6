//! The body of a response on its way through pingora, encoded piece by piece.

use std::any::Any;

use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pingora_core::Result;
use pingora_core::modules::http::{HttpModule, HttpModuleBuilder, Module};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::compression::encoder::Encoder;
use crate::compression::representation;
use crate::exchange::Exchange;
use crate::exchange::compressing::{self, For};

/// Decides over a final response, and makes its head that of the body that is sent.
pub fn begin(
    session: &mut Session,
    response: &mut ResponseHeader,
    exchange: &mut Exchange,
) -> Result<()> {
    let request = &session.downstream_session.req_header().headers;
    if response.status == StatusCode::NOT_MODIFIED {
        if compressing::is_known_weakly(exchange, request, response) {
            change(response, representation::weaken)?;
        }
        return Ok(());
    }
    let Some(coding) = compressing::coding(exchange, response, For::ThisClient) else {
        return Ok(());
    };
    change(response, |fields| {
        representation::encode(fields, coding, None)
    })?;
    if session.req_header().method == Method::HEAD {
        return Ok(());
    }
    if !session.is_http2() {
        response.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    *encoder(session) = Some(compressing::encoder(exchange, coding));
    Ok(())
}

/// What was meant for a response that is not sent is not for the one in its place.
pub fn forget(session: &mut Session) {
    *encoder(session) = None;
}

fn encoder(session: &mut Session) -> &mut Option<Encoder> {
    let encoding = session.downstream_modules_ctx.get_mut::<Encoding>();
    &mut encoding.expect("every request has its modules").0
}

/// Without pingora's second map, which keeps how names were spelled.
fn change(response: &mut ResponseHeader, change: impl FnOnce(&mut HeaderMap)) -> Result<()> {
    let unset = ResponseHeader::build_no_case(StatusCode::OK, Some(0))?;
    let mut parts = Parts::from(std::mem::replace(response, unset));
    change(&mut parts.headers);
    *response = parts.into();
    Ok(())
}

/// Gives each request its [`Encoding`].
pub struct Encodings;

impl HttpModuleBuilder for Encodings {
    fn init(&self) -> Module {
        Box::new(Encoding(None))
    }
}

/// A module rather than a hook: hooks do not see every end of a body.
struct Encoding(Option<Encoder>);

impl Encoding {
    fn rest(&mut self) -> Option<Bytes> {
        self.0.take().map(Encoder::finish)
    }
}

impl HttpModule for Encoding {
    /// pingora does not say whether more is at hand, so every piece leaves at once.
    fn response_body_filter(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        let Some(encoder) = &mut self.0 else {
            return Ok(());
        };
        let mut encoded = Vec::new();
        if let Some(piece) = body.take() {
            encoded.extend(encoder.push(&piece));
        }
        if end {
            encoded.extend(self.rest().unwrap_or_default());
        } else {
            encoded.extend(encoder.flush());
        }
        *body = (!encoded.is_empty()).then(|| encoded.into());
        Ok(())
    }

    /// The trailers are of the body as it was.
    fn response_trailer_filter(
        &mut self,
        _trailers: &mut Option<Box<HeaderMap>>,
    ) -> Result<Option<Bytes>> {
        Ok(self.rest())
    }

    fn response_done_filter(&mut self) -> Result<Option<Bytes>> {
        Ok(self.rest())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
