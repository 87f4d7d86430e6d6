//! What the application learns about the connection it cannot see, and what must not travel past
//! one hop. Decides which claims of the peer survive; the trust itself is decided in `client`.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::LazyLock;

use http::header::{
    CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use pingora_http::HMap;
use smallvec::SmallVec;

use super::names::{Names, Places};
use super::policy::{Dressed, Name};
use crate::client::{RequestId, TraceParent};
use crate::short::Short;

/// What is known of one request's way to us.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Who opened the connection (or whom the PROXY header named).
    pub peer: IpAddr,
    /// Whether `peer` is a trusted proxy.
    pub peer_is_trusted: bool,
    /// Who is asking: [`crate::client::client_address`].
    pub client: IpAddr,
    /// The connection is TLS.
    pub tls: bool,
    /// Host as received, with its port if it had one.
    pub host: &'a str,
    /// The local port the connection came to; `None` on a Unix socket.
    pub port: Option<u16>,
    pub request_id: &'a RequestId,
    /// Also send RFC 7239 `Forwarded`.
    pub forwarded: bool,
}

impl Arrival<'_> {
    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static CONNECTION_NAME: Name = Name::of("connection", "Connection");

/// Whether the client's side of the request is https: our own TLS, or a trusted peer's word.
pub fn is_https(headers: &HMap, peer_is_trusted: bool, tls: bool) -> bool {
    match kept(headers, &X_FORWARDED_PROTO, is_scheme) {
        Some(scheme) if peer_is_trusted => scheme.as_bytes().eq_ignore_ascii_case(b"https"),
        _ => tls,
    }
}

/// Tells the application who asked, for which host, over what.
///
/// From an untrusted peer nothing it says about the connection survives (see `is_claim`). From a
/// trusted one `X-Forwarded-For` (and `Forwarded`, if sent) is continued by the peer's address, and
/// a single well-formed `-Proto`, `-Host`, `-Port` and `traceparent` is kept as it came. Without a
/// port from the peer, `X-Forwarded-Port` is that of the forwarded host, or the usual one of a
/// forwarded scheme, or the local port.
///
/// Call it after [`strip_hop_by_hop`], so that `Connection` cannot nominate what is set here.
pub fn towards_application(request: &mut HMap, arrival: &Arrival<'_>) {
    let trusted = arrival.peer_is_trusted;
    // Most peers say nothing: then nothing is looked up.
    let mut heard = false;
    for claim in found(request, is_claim) {
        if !trusted || !claim.as_str().bytes().all(is_plain) {
            request.remove(&claim);
        } else {
            heard = true;
        }
    }
    let mut peer = Short::<ADDRESS>::default();
    write_address(&mut peer, arrival.peer);
    match heard {
        true => continue_claims(request, arrival, peer.as_str()),
        false => announce(request, arrival, peer.as_bytes()),
    }
    if arrival.client == arrival.peer {
        set(request, X_REAL_IP, peer.as_bytes());
    } else {
        let mut client = Short::<ADDRESS>::default();
        write_address(&mut client, arrival.client);
        set(request, X_REAL_IP, client.as_bytes());
    }
    request.insert(X_REQUEST_ID, arrival.request_id.to_value());
}

/// What we know, where nobody has said anything before us.
fn announce(request: &mut HMap, arrival: &Arrival<'_>, peer: &[u8]) {
    set(request, X_FORWARDED_FOR, peer);
    if let Some(port) = arrival.port {
        request.insert(X_FORWARDED_PORT, port.into());
    }
    request.insert(
        X_FORWARDED_PROTO,
        HeaderValue::from_static(arrival.scheme()),
    );
    set(request, X_FORWARDED_HOST, arrival.host.as_bytes());
    if arrival.forwarded {
        let mut element = String::with_capacity(64);
        write_forwarded(&mut element, arrival).expect("memory takes every character");
        set(request, FORWARDED, element);
    }
    request.insert(TRACEPARENT, TraceParent::make(false).to_value());
}

/// What trusted hops have said, with our own word behind it and in its gaps.
fn continue_claims(request: &mut HMap, arrival: &Arrival<'_>, peer: &str) {
    let chain = continued(request, &X_FORWARDED_FOR, |chain| chain.write_str(peer));
    set(request, X_FORWARDED_FOR, chain);
    set_port(request, arrival);
    if kept(request, &X_FORWARDED_PROTO, is_scheme).is_none() {
        set(request, X_FORWARDED_PROTO, arrival.scheme());
    }
    if kept(request, &X_FORWARDED_HOST, is_host).is_none() {
        set(request, X_FORWARDED_HOST, arrival.host);
    }
    if arrival.forwarded {
        let elements = continued(request, &FORWARDED, |list| write_forwarded(list, arrival));
        set(request, FORWARDED, elements);
    }
    let is_trace = |value: &[u8]| TraceParent::parse(value).is_some();
    if kept(request, &TRACEPARENT, is_trace).is_none() {
        // W3C Trace Context 3.3: without a valid traceparent its tracestate means nothing.
        request.remove(&TRACESTATE);
        request.insert(TRACEPARENT, TraceParent::make(false).to_value());
    }
}

/// The longest text of an IPv6 address.
const ADDRESS: usize = 39;

fn write_address(text: &mut Short<ADDRESS>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(four) => {
            let [a, b, c, d] = four.octets();
            text.push_decimal(a);
            for octet in [b, c, d] {
                text.push(b".");
                text.push_decimal(octet);
            }
        }
        IpAddr::V6(six) => write!(text, "{six}").expect("an address has at most 39 characters"),
    }
}

/// Before the other fields are filled in: what a peer said of them counts, what we say does not.
fn set_port(request: &mut HMap, arrival: &Arrival<'_>) {
    let headers = &*request;
    if kept(headers, &X_FORWARDED_PORT, is_port).is_some() {
        return;
    }
    let of_host = || {
        let host = kept(headers, &X_FORWARDED_HOST, is_host)?.to_str().ok()?;
        let (_, port) = host.rsplit_once(':')?;
        port.parse::<u16>().ok()
    };
    let of_scheme = || {
        let scheme = kept(headers, &X_FORWARDED_PROTO, is_scheme)?;
        Some(if scheme.as_bytes().eq_ignore_ascii_case(b"https") {
            443
        } else {
            80
        })
    };
    match of_host().or_else(of_scheme).or(arrival.port) {
        Some(port) => set(request, X_FORWARDED_PORT, port),
        None => drop(request.remove(&X_FORWARDED_PORT)),
    }
}

/// The list that trusted hops have begun, with our element behind it.
fn continued(
    headers: &HMap,
    name: &HeaderName,
    element: impl FnOnce(&mut String) -> std::fmt::Result,
) -> String {
    let mut list = String::with_capacity(64);
    for line in headers.get_all(name) {
        if let Ok(line) = line.to_str()
            && !line.trim().is_empty()
        {
            list.push_str(line.trim());
            list.push_str(", ");
        }
    }
    element(&mut list).expect("memory takes every character");
    list
}

/// RFC 7239 4: the element of our hop.
fn write_forwarded(element: &mut String, arrival: &Arrival<'_>) -> std::fmt::Result {
    // RFC 7239 6: an IPv6 address is bracketed and therefore quoted.
    match arrival.peer.to_canonical() {
        IpAddr::V4(address) => write!(element, "for={address}")?,
        IpAddr::V6(address) => write!(element, "for=\"[{address}]\"")?,
    }
    element.push_str(if arrival.tls {
        ";proto=https"
    } else {
        ";proto=http"
    });
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    match arrival.host {
        "" => Ok(()),
        host if host.bytes().all(is_token) => write!(element, ";host={host}"),
        host if is_host(host.as_bytes()) => write!(element, ";host=\"{host}\""),
        _ => Ok(()),
    }
}

/// Removes what belongs to the connection and not to the message (RFC 9110 7.6.1): `Connection`
/// and every field it nominates, `Keep-Alive`, `Proxy-*` of the connection, `Trailer`, `Upgrade`,
/// `HTTP2-Settings`. `TE` survives as `TE: trailers` if it said so, which gRPC needs. With
/// `keep_upgrade`, `Upgrade` stays and `Connection` names it alone.
///
/// `Transfer-Encoding`, `Content-Length` and `Host` are never touched: framing belongs to the
/// codec, and a nomination of them is an attack.
pub fn strip_hop_by_hop(request: &mut HMap, keep_upgrade: bool) {
    let mut found = Places::new();
    let names = request.keys().map(|name| name.as_str().as_bytes());
    found.extend(names.filter_map(|name| OF_REQUEST.place(name)));
    // Most requests have none: then nothing is looked up.
    if found.is_empty() {
        return;
    }
    let trailers = mentions(request, &TE, "trailers");
    let lines = request.get_all(CONNECTION).iter();
    let nominated: Nominated = lines
        .flat_map(|line| nominated_by(line.as_bytes()))
        .collect();
    let found = found.iter().map(|place| &OF_REQUEST[*place]);
    for name in nominated.iter().chain(found) {
        if !(keep_upgrade && name == UPGRADE) {
            request.remove(name);
        }
    }
    if keep_upgrade && request.contains_key(UPGRADE) {
        set(request, CONNECTION, "Upgrade");
    }
    if trailers {
        set(request, TE, "trailers");
    }
}

/// The same for a response; `keep_upgrade` for a 101 that was asked for.
pub fn strip_response_hop_by_hop(response: &mut impl Dressed, keep_upgrade: bool) {
    let mut found = Places::new();
    response.each_name(|name| found.extend(OF_RESPONSE.place(name)));
    if found.is_empty() {
        return;
    }
    let mut nominated = Nominated::new();
    response.each(&CONNECTION, |line| nominated.extend(nominated_by(line)));
    let found = found.iter().map(|place| &OF_RESPONSE[*place]);
    for name in nominated.iter().chain(found) {
        if !(keep_upgrade && name == UPGRADE) {
            response.remove(name);
        }
    }
    if keep_upgrade && response.has(&UPGRADE) {
        response.add(&CONNECTION_NAME, b"Upgrade");
    }
}

type Nominated = SmallVec<[HeaderName; 4]>;

/// What belongs to the connection in either direction.
const OF_CONNECTION: [&str; 6] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];

static OF_REQUEST: LazyLock<Names> =
    LazyLock::new(|| of_connection(&["proxy-authorization", "http2-settings"]));
static OF_RESPONSE: LazyLock<Names> = LazyLock::new(|| of_connection(&["proxy-authenticate"]));

fn of_connection(more: &[&'static str]) -> Names {
    let names = OF_CONNECTION.iter().chain(more).copied();
    Names::new(names.map(HeaderName::from_static))
}

/// A field in which a peer says something about the connection, the client or the path that
/// applications are known to believe. What is no letter and no digit counts as `-`: CGI makes one
/// variable of them all.
fn is_claim(name: &str) -> bool {
    const CLAIMS: [&str; 12] = [
        "forwarded",
        "x-real-ip",
        "x-request-id",
        "traceparent",
        "tracestate",
        "x-client-ip",
        "x-cluster-client-ip",
        "true-client-ip",
        "x-url-scheme",
        "x-original-url",
        "x-rewrite-url",
        "front-end-https",
    ];
    // The first letters of all of them: most fields are told apart by it.
    let (b'f' | b't' | b'x') = name.as_bytes()[0] else {
        return false;
    };
    let same = |byte: u8, wanted: u8| byte == wanted || (!is_plain(byte) && wanted == b'-');
    let starts = |wanted: &str| {
        name.len() >= wanted.len()
            && name
                .bytes()
                .zip(wanted.bytes())
                .all(|(byte, wanted)| same(byte, wanted))
    };
    starts("x-forwarded")
        || CLAIMS
            .iter()
            .any(|claim| claim.len() == name.len() && starts(claim))
}

/// Of a name that means itself everywhere.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// The names that are there and wanted.
fn found(headers: &HMap, wanted: impl Fn(&str) -> bool) -> SmallVec<[HeaderName; 8]> {
    let names = headers.keys().filter(|name| wanted(name.as_str()));
    names.cloned().collect()
}

/// The one value of `name`, if there is exactly one and it is right.
fn kept<'a>(
    headers: &'a HMap,
    name: &HeaderName,
    is_right: impl Fn(&[u8]) -> bool,
) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|value| is_right(value.as_bytes()))?;
    values.next().is_none().then_some(value)
}

fn is_scheme(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"http") || value.eq_ignore_ascii_case(b"https")
}

fn is_host(value: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~[]:".contains(byte);
    !value.is_empty() && value.len() <= 255 + 6 && value.iter().all(allowed)
}

fn is_port(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| {
        text.bytes().all(|byte| byte.is_ascii_digit())
            && text.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// The names that one line of `Connection` nominates, without those that must never go.
fn nominated_by(line: &[u8]) -> impl Iterator<Item = HeaderName> {
    line.split(|&byte| byte == b',')
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name))
}

fn mentions(headers: &HMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .any(|found| found.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Sets a field, or removes it where there is nothing to say: an empty value (HTTP/1.0 without a
/// Host), or one that is no field value, which a checked request does not have.
fn set(request: &mut HMap, name: HeaderName, value: impl TryInto<HeaderValue>) {
    match value.try_into() {
        Ok(value) if !value.is_empty() => {
            request.insert(name, value);
        }
        _ => drop(request.remove(name)),
    }
}

#[cfg(test)]
mod tests;
