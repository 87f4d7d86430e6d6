//! From an accepted head to a decision: who asks, for what, which route, and what it says.
//!
//! Both lanes call it with what they read, and it keeps the answers in the exchange.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, EXPECT, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use super::compressing::Wish;
use super::ingress::{self, Malformed, Parsed};
use super::{Asked, Exchange, barring, caching};
use crate::cache::purger::Purged;
use crate::cache::status::Forward;
use crate::cache::tombstones::{Purge, Strength};
use crate::client::{RequestId, client_address};
use crate::downstream::Downstream;
use crate::headers;
use crate::headers::cache::Told;
use crate::headers::encoding;
use crate::headers::forwarded::is_https;
use crate::headers::policy::{self, Dressed, Facts, HeaderPolicy};
use crate::plan::{Action, Plan, Route};
use crate::refusal::{Answer, Refusal};
use crate::route::Found;
use crate::route::rewrite::{Parts, Template};
use crate::target::Host;

/// What happens to a request that was let in.
pub enum Entry {
    /// It goes to the route's upstream.
    Forward,
    /// The gateway answers it.
    Answer(Box<Answer>),
    /// The gateway purges what it has stored, and answers with what became of that.
    Purge(Purge),
}

/// Decides over one request. Everything it learns stays in `exchange`.
pub fn enter(
    request: &Parsed<'_>,
    downstream: &Downstream,
    exchange: &mut Exchange,
) -> Result<Entry, Refusal> {
    identify(exchange, downstream, Some(request.headers));
    barring::check(exchange, downstream)?;
    // The bytes of an HTTP/1.x head were judged before; doing it again on what a parser made of them
    // holds where two parsers differ.
    let admitted =
        ingress::check_parsed(request, &exchange.plan.limits).map_err(Refusal::Malformed)?;
    let asked = Asked::from(admitted);
    if let Some(host) = &asked.host {
        check_authority(downstream, host)?;
    }
    exchange.asked = Some(asked);
    if request.method.as_str() == "PURGE" && !exchange.plan.purge_from.is_empty() {
        return purge(request.headers, exchange).map(Entry::Purge);
    }
    let asked = exchange.asked.as_ref().expect("set above");
    if let Some(port) = downstream.listener.redirect_https {
        let host = asked
            .host
            .as_ref()
            .ok_or(Refusal::Malformed(Malformed::HostMissing))?;
        return Ok(Entry::Answer(Box::new(to_https(host, asked, port))));
    }
    if &*asked.path == "*" {
        return Ok(Entry::Answer(Box::new(Answer::options())));
    }
    let route = find(&exchange.plan, asked, request.method)?;
    exchange.route = Some(route.clone());
    exchange.priority = route.priority;
    // Until the cache has been asked.
    exchange.cache = route.cache.as_ref().map(|_| match *request.method {
        Method::GET | Method::HEAD => Told::forwarded(Forward::Bypass, None),
        _ => Told::forwarded(Forward::Method, None),
    });
    if let Some(compression) = &route.compression {
        exchange.wish = Wish::of(request, compression);
    }
    if content_length(request.headers).is_some_and(|length| length > route.max_body) {
        let limit = route.max_body;
        return Err(Refusal::BodyTooLarge { limit });
    }
    let asked = exchange.asked.as_ref().expect("set above");
    Ok(match &route.action {
        Action::Forward(_) => Entry::Forward,
        Action::Redirect(status, template) => {
            Entry::Answer(Box::new(redirect(*status, &location(template, asked))))
        }
        Action::Respond(respond) => {
            let head_only = request.method == Method::HEAD;
            let answer = Answer::fixed(
                respond.status,
                &respond.content_type,
                respond.body.clone(),
                head_only,
            );
            Entry::Answer(Box::new(answer))
        }
    })
}

/// What a request of the method `PURGE` purges: all that is stored of its URL.
fn purge(fields: &HeaderMap, exchange: &Exchange) -> Result<Purge, Refusal> {
    let Exchange { plan, asked, .. } = exchange;
    if !plan.purge_from.contains(exchange.client) {
        return Err(Refusal::Forbidden);
    }
    let says = |name: &str, word: &str| {
        let value = fields.get(name).map(HeaderValue::as_bytes);
        value.is_some_and(|value| value.eq_ignore_ascii_case(word.as_bytes()))
    };
    let strength = match says("tollgate-purge", "soft") || says("fastly-soft-purge", "1") {
        true => Strength::Soft,
        false => Strength::Hard,
    };
    let asked = asked.as_ref().expect("it was read");
    Ok(Purge {
        scopes: vec![caching::url_scope(plan, asked)],
        strength,
    })
}

/// What became of a purge, as its client is told: 202 if some gateway may not have heard of it.
pub fn purged(purged: &Purged) -> Answer {
    let status = match purged.is_everywhere() {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    let json = HeaderValue::from_static("application/json");
    let body = serde_json::to_vec(purged).expect("it is JSON");
    Answer::fixed(status, &json, body.into(), false)
}

/// The fields of a request that go no further than this gateway, whatever the application is.
pub fn unwelcome(version: Version, fields: &HeaderMap, plan: &Plan) -> Vec<HeaderName> {
    let mut names = ingress::unsafe_fields(fields, plan.drop_unsafe_fields);
    if !ingress::asks_to_upgrade(version, fields) {
        // pingora takes the field alone for an upgrade.
        names.push(UPGRADE);
    }
    if version == Version::HTTP_10 {
        // RFC 9110 10.1.1: there it means nothing, and its client would not know the interim answer.
        names.push(EXPECT);
    }
    names
}

/// The route of a request, or why it has none.
pub fn find(plan: &Plan, asked: &Asked, method: &Method) -> Result<Arc<Route>, Refusal> {
    let host = asked.host.as_ref().map(Host::name);
    match plan.routes.lookup(host, method, &asked.path) {
        Found::Route(route) => Ok(route.value.clone()),
        Found::MethodNotAllowed { allow } => Err(Refusal::MethodNotAllowed { allow }),
        Found::NotFound => Err(Refusal::NotFound {
            host: host.unwrap_or_default().to_owned(),
            path: asked.path.to_string(),
        }),
    }
}

/// Who is asking, and the name of this request. Without the fields of one only the connection speaks.
pub fn identify(exchange: &mut Exchange, downstream: &Downstream, request: Option<&HeaderMap>) {
    let peer = downstream.peer_ip();
    let trusted = exchange.plan.trusted.contains(peer);
    exchange.client = peer;
    exchange.limiting.is_free = downstream.is_own;
    exchange.https = downstream.tls.is_some();
    let tls = downstream.tls.as_ref();
    exchange.limiting.client.certificate = tls.and_then(|tls| tls.client.clone());
    let Some(fields) = request.filter(|_| trusted) else {
        return;
    };
    let chain = fields.get_all("x-forwarded-for");
    let chain: Vec<&[u8]> = chain.iter().map(HeaderValue::as_bytes).collect();
    exchange.client = client_address(peer, &exchange.plan.trusted, chain.into_iter());
    exchange.https = is_https(fields, trusted, exchange.https);
    if let Some(id) = fields.get("x-request-id") {
        exchange.request_id = RequestId::accept(Some(id.as_bytes()), trusted);
    }
}

/// The fields that every answer to this request carries, ours and the application's.
pub fn dress(exchange: &Exchange, response: &mut impl Dressed) {
    policy(exchange).finish(response, &facts(exchange));
    if exchange.varies {
        encoding::vary(response);
    }
    tell(exchange, response);
}

/// What of [`dress`] is the same for every request that is answered with this head, by this route and protocol.
pub fn give(exchange: &Exchange, response: &mut impl Dressed) {
    policy(exchange).give(response, exchange.https);
    if exchange.varies {
        encoding::vary(response);
    }
}

/// What of [`dress`] is another one each time.
pub fn sign(exchange: &Exchange, response: &mut impl Dressed) {
    policy::sign(response, &facts(exchange));
    tell(exchange, response);
}

/// Whether a head says something itself of what [`sign`] says.
pub fn is_signed(response: &impl Dressed) -> bool {
    headers::cache::is_said(response) || headers::limit::is_said(response)
}

fn policy(exchange: &Exchange) -> &HeaderPolicy {
    match &exchange.route {
        Some(route) => &route.headers,
        None => &exchange.plan.default_headers,
    }
}

fn facts(exchange: &Exchange) -> Facts<'_> {
    Facts {
        https: exchange.https,
        request_id: &exchange.request_id,
        elapsed: exchange.began.elapsed(),
        connect: exchange.attempt.connect_time(),
        first_byte: exchange.attempt.first_byte_time(),
        cache: exchange.cache.as_ref().map(Told::disposition),
    }
}

/// What the cache did, and how the client stands.
fn tell(exchange: &Exchange, response: &mut impl Dressed) {
    if let Some(told) = &exchange.cache {
        told.finish(response);
    }
    if let Some(route) = &exchange.route
        && !exchange.limiting.taken.is_empty()
    {
        let (taken, rules) = (&exchange.limiting.taken, exchange.limiting.rules(route));
        let (stood, concurrency) = (taken.standings(rules), taken.concurrency(rules));
        headers::limit::finish(response, stood, concurrency);
    }
}

/// Where a redirect leads this request.
pub fn location(template: &Template, asked: &Asked) -> String {
    template.fill(&Parts {
        host: asked.host.as_ref().map_or("", Host::name),
        path: &asked.path,
        query: asked.query.as_deref(),
    })
}

/// RFC 9110 7.4: a request for a name that this TLS connection did not prove is misdirected.
fn check_authority(downstream: &Downstream, host: &Host) -> Result<(), Refusal> {
    let (Some(tls), Some(store)) = (&downstream.tls, &downstream.listener.certificates) else {
        return Ok(());
    };
    match &tls.server_name {
        Some(name)
            if name != host.name()
                && store.name_for(Some(name)) != store.name_for(Some(host.name())) =>
        {
            Err(Refusal::Misdirected)
        }
        _ => Ok(()),
    }
}

fn content_length(fields: &HeaderMap) -> Option<u64> {
    let length = fields.get(CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// 308 keeps the method: a form posted to http arrives at https as it was meant.
fn to_https(host: &Host, asked: &Asked, port: u16) -> Answer {
    let host = host.name();
    let port = match port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let path = if asked.path.starts_with('/') {
        &asked.path
    } else {
        "/"
    };
    let query = asked.query.as_ref().map(|query| format!("?{query}"));
    let location = format!("https://{host}{port}{path}{}", query.unwrap_or_default());
    redirect(StatusCode::PERMANENT_REDIRECT, &location)
}

fn redirect(status: StatusCode, location: &str) -> Answer {
    // Templates and canonical parts are visible ASCII, checked where each entered.
    let location = HeaderValue::try_from(location).expect("canonical text is a field value");
    Answer::redirect(status, location)
}
