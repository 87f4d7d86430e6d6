//! From an accepted head to a decision: who asks, for what, which route, and what it says.
//!
//! The decisions are functions of plain values in `client`, `ingress`, `target` and `route`;
//! this file reads those values out of pingora's session and keeps the answers.

use std::time::Instant;

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, StatusCode, Version};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::exchange::{Asked, Exchange};
use super::ingress;
use super::refusal::{Answer, Refusal};
use crate::accept::downstream::Downstream;
use crate::client::{RequestId, client_address};
use crate::headers::forwarded::is_https;
use crate::headers::policy::Facts;
use crate::plan::{Action, Plan, Redirect};
use crate::route::Found;
use crate::target::{Host, Target};

/// What happens to a request that was let in.
pub enum Entry {
    /// It goes to the route's upstream.
    Forward,
    /// The gateway answers it.
    Answer(Answer),
}

/// Decides over one request. Everything it learns stays in `exchange`.
pub fn enter(session: &mut Session, exchange: &mut Exchange) -> Result<Entry, Refusal> {
    let downstream = session
        .digest()
        .and_then(Downstream::of)
        .expect("accept gives every connection its facts")
        .clone();
    let request = session.req_header_mut();
    identify(exchange, &downstream, Some(request));
    if request.version == Version::HTTP_2 {
        ingress::check_parsed(request)?;
    }
    let dropped = exchange.plan.drop_unsafe_fields;
    ingress::drop_unsafe_fields(request, dropped);
    let asked = canonical(request, &exchange.plan)?;
    if let Some(host) = &asked.host {
        check_authority(&downstream, host)?;
    }
    let asked = exchange.asked.insert(asked);
    if let Some(port) = downstream.listener.redirect_https {
        return Ok(Entry::Answer(to_https(asked, port)));
    }
    let plan = exchange.plan.clone();
    let host = asked.host.as_ref().map(Host::name);
    let route = match plan
        .routes
        .find(host, asked.target.path(), &request.method)
    {
        Found::Route(route) => route,
        Found::MethodNotAllowed(allow) => return Err(Refusal::MethodNotAllowed { allow }),
        Found::NotFound => {
            return Err(Refusal::NotFound {
                host: host.unwrap_or_default().to_owned(),
                path: asked.target.path().to_owned(),
            });
        }
    };
    exchange.route = Some(route.clone());
    if content_length(request).is_some_and(|length| length > route.max_body) {
        return Err(Refusal::BodyTooLarge {
            limit: route.max_body,
        });
    }
    match &route.action {
        Action::Forward(_) => Ok(Entry::Forward),
        Action::Redirect(redirect) => Ok(Entry::Answer(redirect_to(redirect, asked, exchange.https))),
        Action::Respond(respond) => Ok(Entry::Answer(respond.clone())),
    }
}

/// Who is asking, and the name of this request. Without a `request` only the connection speaks.
pub fn identify(
    exchange: &mut Exchange,
    downstream: &Downstream,
    request: Option<&RequestHeader>,
) {
    let peer = downstream.peer_ip();
    let trusted = exchange.plan.trusted.contains(peer);
    let tls = downstream.tls.is_some();
    exchange.client = peer;
    exchange.https = tls;
    let Some(request) = request else { return };
    if trusted {
        let chain = request.headers.get_all("x-forwarded-for");
        let chain: Vec<&[u8]> = chain.iter().map(HeaderValue::as_bytes).collect();
        exchange.client = client_address(peer, &exchange.plan.trusted, chain.into_iter());
        exchange.https = is_https(&request.headers, trusted, tls);
        let id = request.headers.get("x-request-id");
        exchange.request_id = RequestId::accept(id.map(HeaderValue::as_bytes), trusted);
    }
}

/// The fields that every answer to this request carries, ours and the application's.
pub fn dress(exchange: &Exchange, response: &mut ResponseHeader) {
    let policy = match &exchange.route {
        Some(route) => &route.headers,
        None => &exchange.plan.default_headers,
    };
    let facts = Facts {
        https: exchange.https,
        request_id: &exchange.request_id,
        elapsed: Instant::now().duration_since(exchange.began),
        connect: exchange.attempt.connect_time(),
        first_byte: exchange.attempt.first_byte_time(),
    };
    policy.finish(response, &facts);
}

/// Host and target in the form that is routed and forwarded.
fn canonical(request: &RequestHeader, plan: &Plan) -> Result<Asked, Refusal> {
    let parts = ingress::parts(request)?;
    let host = parts.host.map(Host::parse).transpose()?;
    let target = Target::parse(parts.target, &plan.path_rules)?;
    Ok(Asked { host, target })
}

/// RFC 9110 7.4: a request for a name that this TLS connection did not prove is misdirected.
fn check_authority(downstream: &Downstream, host: &Host) -> Result<(), Refusal> {
    let (Some(tls), Some(store)) = (&downstream.tls, &downstream.listener.certificates) else {
        return Ok(());
    };
    match &tls.server_name {
        Some(name) if name != host.name() && !store.same_certificate(name, host.name()) => {
            Err(Refusal::Misdirected)
        }
        _ => Ok(()),
    }
}

fn content_length(request: &RequestHeader) -> Option<u64> {
    let length = request.headers.get(CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

fn to_https(asked: &Asked, port: u16) -> Answer {
    let redirect = Redirect::to_https(port);
    redirect_to(&redirect, asked, false)
}

fn redirect_to(redirect: &Redirect, asked: &Asked, https: bool) -> Answer {
    let host = asked.host.as_ref().map(Host::to_string).unwrap_or_default();
    let location = redirect.location(&host, &asked.target, https);
    let mut head = ResponseHeader::build(redirect.status, Some(4)).expect("a checked status");
    // The template and the canonical target are printable ASCII, both checked where they entered.
    let location = HeaderValue::try_from(location).expect("canonical text is a field value");
    set(&mut head, LOCATION, location);
    set(&mut head, CONTENT_LENGTH, HeaderValue::from_static("0"));
    Answer::new(head, bytes::Bytes::new())
}

fn set(head: &mut ResponseHeader, name: http::HeaderName, value: HeaderValue) {
    head.insert_header(name, value)
        .expect("types that are right already");
}
