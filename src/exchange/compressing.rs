//! Whether the answer to a request is compressed, decided alike in both lanes: first what the client would take, then, when
//! the head of a response is there, what becomes of its body.

use std::sync::LazyLock;

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, ETAG, IF_NONE_MATCH, RANGE};
use http::{HeaderMap, StatusCode, Version};
use smallvec::SmallVec;

use super::Exchange;
use super::ingress::Parsed;
use crate::cache::cookies::{self, CookieRules, Kind};
use crate::cache::entity::{self, EntityTag};
use crate::cache::preference;
use crate::compression::encoder::Encoder;
use crate::compression::negotiation::choose;
use crate::compression::{Coding, Compression};
use crate::headers::encoding::Said;
use crate::headers::policy::Dressed;

/// What a client would take, of what its route offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    coding: Option<Coding>,
    /// The answer may hold a secret of this visitor, beside what somebody else has written into the URL.
    is_personal: bool,
}

impl Wish {
    /// Of a request as the client sent it.
    pub fn of(request: &Parsed<'_>, compression: &Compression) -> Self {
        let fields = request.headers;
        // A part is one of the body as it is, also where the whole is sent in its place. A body of HTTP/1.0 whose
        // length is not known ends with its connection, and nobody would see it cut short.
        if request.version < Version::HTTP_11
            || !fields.contains_key(ACCEPT_ENCODING)
            || fields.contains_key(RANGE)
        {
            return Self::default();
        }
        let accepted = preference::members(fields, &ACCEPT_ENCODING);
        let accepted: Option<SmallVec<[_; 8]>> = accepted.collect();
        let coding = accepted.and_then(|accepted| choose(&accepted, &compression.codings));
        Self {
            coding,
            is_personal: coding.is_some() && !compression.personal && is_personal(fields),
        }
    }
}

/// Cookies of which nobody knows what they mean count: a session has any name.
fn is_personal(fields: &HeaderMap) -> bool {
    static RULES: LazyLock<CookieRules> = LazyLock::new(CookieRules::default);
    let is_somebody = |(name, _): (&[u8], _)| RULES.kind(name) != Kind::Analytics;
    fields.contains_key(AUTHORIZATION) || cookies::pairs(fields).any(is_somebody)
}

/// Whose response it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// Stored, or about to be: it holds nobody's secret.
    Everybody,
    ThisClient,
}

/// What the head of a response says of being encoded; `None` where the route encodes nothing.
pub fn said(exchange: &Exchange, response: &impl Dressed) -> Option<Said> {
    let compression = exchange.route.as_ref()?.compression.as_ref()?;
    Some(Said::of(response, compression))
}

/// Whether a response depends on what codings its client accepts. The exchange keeps whether `Vary` is still to say so.
pub fn depends(exchange: &mut Exchange, response: &impl Dressed) -> bool {
    let said = said(exchange, response);
    depends_by(exchange, response.status(), said)
}

/// The same of a response with this status whose head was read before.
fn depends_by(exchange: &mut Exchange, status: StatusCode, said: Option<Said>) -> bool {
    let encodable = said.filter(|said| said.is_encodable(status));
    exchange.varies = encodable.is_some_and(|said| !said.varies);
    encodable.is_some()
}

/// The coding that a response is sent in; `None` leaves it as it is.
pub fn coding(exchange: &mut Exchange, response: &impl Dressed, whose: For) -> Option<Coding> {
    let said = said(exchange, response);
    coding_by(exchange, response.status(), said, whose)
}

/// The same of a response with this status whose head was read before.
pub fn coding_by(
    exchange: &mut Exchange,
    status: StatusCode,
    said: Option<Said>,
    whose: For,
) -> Option<Coding> {
    let said = said.filter(|_| depends_by(exchange, status, said))?;
    let wish = exchange.wish;
    let is_allowed = whose == For::Everybody || !wish.is_personal || said.is_public;
    let is_part = said.is_part || status == StatusCode::PARTIAL_CONTENT;
    wish.coding.filter(|_| is_allowed && !is_part)
}

/// What encodes a body on its way.
pub fn encoder(exchange: &Exchange, coding: Coding) -> Encoder {
    Encoder::new(coding, compression(exchange).levels.of(coding))
}

/// How the route of a response that has a coding compresses.
pub fn compression(exchange: &Exchange) -> &Compression {
    let route = exchange.route.as_ref();
    let compression = route.and_then(|route| route.compression.as_deref());
    compression.expect("who has chosen a coding has a route that compresses")
}

/// Whether a 304 is to name its version weakly: the client knows it by the tag of an encoded body, and a strong one would be
/// another version to it (RFC 9111 4.3.4).
pub fn is_known_weakly(
    exchange: &mut Exchange,
    request: &HeaderMap,
    response: &impl Dressed,
) -> bool {
    let route = exchange.route.as_ref();
    let compression = route.and_then(|route| route.compression.clone());
    let Some(compression) = compression.filter(|_| request.contains_key(IF_NONE_MATCH)) else {
        return false;
    };
    let mut is_weak = false;
    response.each(&ETAG, |value| is_weak = names_weakly(request, value));
    if is_weak {
        exchange.varies = !Said::of(response, &compression).varies;
    }
    is_weak
}

/// Whether a request names the version of this strong tag weakly, and not as it is.
pub fn names_weakly(request: &HeaderMap, tag: &[u8]) -> bool {
    let Some(tag) = EntityTag::parse(tag).filter(|tag| !tag.weak) else {
        return false;
    };
    let lists = |is: &dyn Fn(&EntityTag<'_>) -> bool| {
        entity::list_has(request, IF_NONE_MATCH, |known| is(&known))
    };
    lists(&|known| known.weak && known.weakly_equals(&tag))
        && !lists(&|known| known.strongly_equals(&tag))
}
