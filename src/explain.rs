//! `tollgate explain`: which route and policies a request would meet, by the code that serves it.

mod limits;

use std::fmt::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;

use futures::FutureExt;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method};

use crate::cache::admission;
use crate::cache::key::Key;
use crate::client::client_address;
use crate::exchange::caching::Described;
use crate::exchange::imagined::Imagined;
use crate::exchange::{Asked, barring, entry, ingress};
use crate::headers::host::HostSent;
use crate::limit::ban::{Mode, Terms};
use crate::plan::{Action, Caching, Forward, Plan, Rewrite, Route};
use crate::refusal::Refusal;
use crate::target::{BadUrl, Host, Url};
use crate::upstream::{Concurrency, Rate};

/// Why a request cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error(transparent)]
    Url(#[from] BadUrl),
    #[error("{0:?} is no header field; expected \"NAME: VALUE\"")]
    Header(String),
}

/// What would happen to `method url` with `headers` (each `NAME: VALUE`) from `client`, line by line.
pub fn explain(
    plan: &Arc<Plan>,
    method: &Method,
    url: &str,
    headers: &[String],
    client: Option<IpAddr>,
) -> Result<String, ExplainError> {
    let url: Url = url.parse()?;
    let mut text = String::new();
    let fields = fields(headers)?;
    let client = client.map(|peer| client_of(plan, peer, &fields));
    if let Some(client) = client
        && describe_client(&mut text, plan, client)
    {
        refused(&mut text, &Refusal::Denied);
        return Ok(text);
    }
    let mut imagined = match Imagined::read(plan, method.clone(), &url, fields) {
        Ok(imagined) => imagined,
        Err(malformed) => {
            refused(&mut text, &Refusal::Malformed(malformed));
            return Ok(text);
        }
    };
    let asked = imagined.asked();
    line(
        &mut text,
        "host",
        asked.host.as_ref().map_or("", Host::name),
    );
    line(&mut text, "path", &asked.path);
    if let Some(query) = &asked.query {
        line(&mut text, "query", query);
    }
    let dropped = ingress::unsafe_fields(imagined.fields(), plan.drop_unsafe_fields);
    for name in &dropped {
        line(&mut text, "drops", &format!("field {name}"));
    }
    match imagined.route() {
        Ok(route) => {
            let chosen = imagined.choose(&route, client, None).now_or_never();
            chosen.expect("without Redis it waits for nobody");
            describe(&mut text, &route, &imagined);
            limits::describe(&mut text, &route, &imagined);
            if let Some(caching) = &route.cache {
                describe_cache(&mut text, caching, &imagined.described());
            }
        }
        Err(refusal) => refused(&mut text, &refusal),
    }
    Ok(text)
}

/// The client behind trusted proxies.
pub(crate) fn client_of(plan: &Plan, peer: IpAddr, fields: &HeaderMap) -> IpAddr {
    let chain = fields.get_all("x-forwarded-for").iter();
    let chain: Vec<_> = chain.map(HeaderValue::as_bytes).collect();
    client_address(peer, &plan.trusted, chain.into_iter())
}

/// What is known of a client, and what it may be banned for; whether it is denied.
fn describe_client(text: &mut String, plan: &Plan, client: IpAddr) -> bool {
    line(text, "client", &client.to_string());
    if barring::is_allowed(plan, client) {
        line(
            text,
            "",
            "on the list clients.allow: never denied, never banned",
        );
        return false;
    }
    let deny = plan.lists.deny.as_ref();
    if deny.is_some_and(|deny| deny.contains(client)) {
        line(text, "", "on the list clients.deny");
        return true;
    }
    if barring::is_exempt(plan, client) {
        line(text, "", "a trusted proxy: no rule bans it");
        return false;
    }
    for rule in plan.bans.rules() {
        let Terms { first, up_to, .. } = rule.terms;
        let shadow = if rule.mode == Mode::Shadow {
            ", in shadow"
        } else {
            ""
        };
        let banned = format!(
            "by {} after {}: {first:?} to {up_to:?}, answered {}{shadow}",
            rule.name, rule.when, rule.answer
        );
        line(text, "banned", &banned);
    }
    false
}

fn describe(text: &mut String, route: &Route, imagined: &Imagined) {
    let asked = imagined.asked();
    line(text, "route", &route.name);
    match &route.action {
        Action::Forward(forward) => describe_forward(text, forward, asked),
        Action::Redirect(status, template) => {
            line(text, "action", &format!("redirect {status}"));
            line(text, "location", &entry::location(template, asked));
        }
        Action::Respond(respond) => {
            let bytes = respond.body.len();
            line(
                text,
                "action",
                &format!("respond {} with {bytes} bytes", respond.status),
            );
        }
    }
    for (index, rule) in route.headers.rules().iter().enumerate() {
        line(text, if index == 0 { "headers" } else { "" }, rule);
    }
    if let Some(compression) = &route.compression {
        let codings: Vec<_> = compression.codings.iter().map(|one| one.as_str()).collect();
        let above = compression.min_size;
        let rule = format!("{} from {above} bytes on", codings.join(", "));
        line(text, "compresses", &rule);
    }
    if matches!(route.action, Action::Forward(_)) {
        line(text, "priority", imagined.priority().as_str());
    }
    if route.max_body < u64::MAX {
        line(text, "max body", &format!("{} bytes", route.max_body));
    }
    line(
        text,
        "record",
        &format!(
            "{}, slow after {:?}",
            route.access.mode, route.access.slow_after
        ),
    );
}

fn describe_cache(text: &mut String, caching: &Caching, described: &Described<'_>) {
    let policy = &caching.policy;
    let name = format!("{} for {}", caching.name, policy.audience);
    line(text, "cache", &name);
    for of_type in &caching.kinds.types {
        let (media, name) = &of_type.said;
        line(text, "", &format!("{media} by {name}"));
    }
    match admission::may_look_up(&described.request(), policy) {
        Ok(_) => {
            let key = Key::of(&described.request(), &caching.scope, policy);
            line(text, "looked up", &key.with_values().to_string());
        }
        Err(bypass) => line(text, "looked up", &format!("no: {bypass}")),
    }
}

fn describe_forward(text: &mut String, forward: &Forward, asked: &Asked) {
    let upstream = &forward.upstream;
    line(
        text,
        "action",
        &format!("forward to upstream {}", upstream.settings().name),
    );
    line(text, "sends path", &forward.rewrite.apply(&asked.path));
    if !matches!(forward.rewrite, Rewrite::Keep) {
        line(text, "", "(rewritten from the route's prefix)");
    }
    let host = match &forward.host {
        HostSent::Client => "as received".to_owned(),
        HostSent::Backend => "the backend's address".to_owned(),
        HostSent::Name(name) => String::from_utf8_lossy(name.as_bytes()).into_owned(),
    };
    line(text, "sends host", &host);
    line(text, "balance", &upstream.settings().balance.to_string());
    for backend in upstream.status() {
        let role = if backend.backup { ", backup" } else { "" };
        line(
            text,
            "backend",
            &format!("{} weight {}{role}", backend.address, backend.weight),
        );
    }
    let settings = upstream.settings();
    if let Some(Concurrency { min, max, .. }) = &settings.concurrency {
        line(text, "concurrency", &format!("adaptive, {min} to {max}"));
    }
    if let Some(pace) = &settings.pace {
        let left_alone = format!("left alone for {:?} at most", pace.longest_pause);
        let rate = pace.rate.map_or(left_alone.clone(), |rate| {
            let Rate { every, burst } = rate;
            format!("one each {every:?}, {burst} at once, {left_alone}")
        });
        line(text, "pace", &rate);
    }
    let retry = &forward.retry;
    let mut on: Vec<String> = [
        (retry.on.connect, "connect"),
        (retry.on.reset, "reset"),
        (retry.on.timeout, "timeout"),
    ]
    .into_iter()
    .filter(|(named, _)| *named)
    .map(|(_, word)| word.to_owned())
    .collect();
    on.extend(
        retry
            .on
            .statuses
            .iter()
            .map(|status| status.as_str().to_owned()),
    );
    line(
        text,
        "attempts",
        &format!("{} on {}", retry.attempts, on.join(", ")),
    );
    let timeouts = forward
        .transport
        .as_ref()
        .map_or(&upstream.settings().timeouts, |transport| {
            &transport.settings().timeouts
        });
    line(
        text,
        "timeouts",
        &format!(
            "connect {:?}, first byte {:?}, read {:?}, write {:?}",
            timeouts.connect, timeouts.first_byte, timeouts.read, timeouts.write
        ),
    );
}

fn refused(text: &mut String, refusal: &Refusal) {
    line(
        text,
        "refused",
        &format!("{} {}", refusal.status().as_u16(), refusal.reason()),
    );
    if let Refusal::Malformed(malformed) = refusal {
        line(text, "because", malformed.detail());
    }
    if let Refusal::MethodNotAllowed { allow } = refusal {
        line(text, "allowed", allow);
    }
}

/// Request fields, each `NAME: VALUE`.
pub(crate) fn fields(headers: &[String]) -> Result<HeaderMap, ExplainError> {
    let mut fields = HeaderMap::new();
    for header in headers {
        let invalid = || ExplainError::Header(header.clone());
        let (name, value) = header.split_once(':').ok_or_else(invalid)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| invalid())?;
        let value = HeaderValue::try_from(value.trim()).map_err(|_| invalid())?;
        fields.append(name, value);
    }
    Ok(fields)
}

/// One line of an explanation.
pub(crate) fn write_line(out: &mut impl Write, what: &str, value: &str) -> fmt::Result {
    writeln!(out, "{what:<12}{value}")
}

fn line(text: &mut String, what: &str, value: &str) {
    write_line(text, what, value).expect("a string takes every write");
}
