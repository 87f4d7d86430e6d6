//! What the application learns about the connection it cannot see, and what must not travel past
//! one hop. Decides which claims of the peer survive; the trust itself is decided in `client`.

use std::fmt::Write;
use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use pingora_http::{HMap, ResponseHeader};

use crate::client::{RequestId, TraceParent};

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

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

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
    remove_where(request, |name| {
        is_claim(name) && (!trusted || name.as_str().contains('_'))
    });
    set(
        request,
        X_FORWARDED_FOR,
        continued(request, &X_FORWARDED_FOR, |chain| {
            write!(chain, "{}", arrival.peer.to_canonical())
        }),
    );
    set_port(request, arrival);
    if kept(request, &X_FORWARDED_PROTO, is_scheme).is_none() {
        set(
            request,
            X_FORWARDED_PROTO,
            if arrival.tls { "https" } else { "http" },
        );
    }
    if kept(request, &X_FORWARDED_HOST, is_host).is_none() {
        set(request, X_FORWARDED_HOST, arrival.host);
    }
    set(
        request,
        X_REAL_IP,
        arrival.client.to_canonical().to_string(),
    );
    if arrival.forwarded {
        set(
            request,
            FORWARDED,
            continued(request, &FORWARDED, |chain| write_forwarded(chain, arrival)),
        );
    }
    set(request, X_REQUEST_ID, arrival.request_id.as_str());
    let is_trace = |value: &[u8]| TraceParent::parse(value).is_some();
    if kept(request, &TRACEPARENT, is_trace).is_none() {
        // W3C Trace Context 3.3: without a valid traceparent its tracestate means nothing.
        request.remove(&TRACESTATE);
        set(request, TRACEPARENT, TraceParent::make(false).to_string());
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
    let trailers = mentions(request, &TE, "trailers");
    for name in nominated(request, keep_upgrade) {
        request.remove(&name);
    }
    for name in [
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &PROXY_AUTHORIZATION,
        &TE,
        &TRAILER,
        &HTTP2_SETTINGS,
    ] {
        request.remove(name);
    }
    request.remove(&CONNECTION);
    if keep_upgrade && request.contains_key(UPGRADE) {
        set(request, CONNECTION, "Upgrade");
    } else {
        request.remove(&UPGRADE);
    }
    if trailers {
        set(request, TE, "trailers");
    }
}

/// The same for a response; `keep_upgrade` for a 101 that was asked for.
pub fn strip_response_hop_by_hop(response: &mut ResponseHeader, keep_upgrade: bool) {
    for name in nominated(&response.headers, keep_upgrade) {
        response.remove_header(&name);
    }
    for name in [
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &PROXY_AUTHENTICATE,
        &TE,
        &TRAILER,
    ] {
        response.remove_header(name);
    }
    response.remove_header(&CONNECTION);
    if keep_upgrade && response.headers.contains_key(UPGRADE) {
        let set = response.insert_header("Connection", HeaderValue::from_static("Upgrade"));
        set.expect("a response is far from 32,768 fields");
    } else {
        response.remove_header(&UPGRADE);
    }
}

/// A field in which a peer says something about the connection, the client or the path that
/// applications are known to believe. `_` counts as `-`: CGI and WSGI make one variable of both.
fn is_claim(name: &HeaderName) -> bool {
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
    let same = |byte: u8, wanted: u8| byte == wanted || (byte == b'_' && wanted == b'-');
    let starts = |wanted: &str| {
        let name = name.as_str().as_bytes();
        name.len() >= wanted.len()
            && name
                .iter()
                .zip(wanted.as_bytes())
                .all(|(&byte, &wanted)| same(byte, wanted))
    };
    starts("x-forwarded")
        || CLAIMS
            .iter()
            .any(|claim| claim.len() == name.as_str().len() && starts(claim))
}

fn remove_where(request: &mut HMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = request
        .keys()
        .filter(|name| unwanted(name))
        .cloned()
        .collect();
    for name in names {
        request.remove(&name);
    }
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

/// The names a `Connection` field nominates, without those that must never go.
fn nominated(headers: &HMap, keep_upgrade: bool) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name))
        .filter(|name| !(keep_upgrade && name == UPGRADE))
        .collect()
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(fields: &[(&'static str, &str)]) -> HMap {
        let mut request = HMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.append(name, HeaderValue::from_str(value).unwrap());
        }
        request
    }

    fn id() -> RequestId {
        RequestId::parse(b"id-1").unwrap()
    }

    fn arrival(id: &RequestId) -> Arrival<'_> {
        Arrival {
            peer: [203, 0, 113, 9].into(),
            peer_is_trusted: false,
            client: [203, 0, 113, 9].into(),
            tls: true,
            host: "shop.example",
            port: Some(8443),
            request_id: id,
            forwarded: false,
        }
    }

    fn from_proxy(id: &RequestId) -> Arrival<'_> {
        Arrival {
            peer: [10, 0, 0, 1].into(),
            peer_is_trusted: true,
            tls: false,
            ..arrival(id)
        }
    }

    fn field<'a>(request: &'a HMap, name: &str) -> Option<&'a str> {
        let mut values = request.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} is there twice");
        value
    }

    const CLAIMS: [(&str, &str); 14] = [
        ("X-Forwarded-For", "1.1.1.1"),
        ("X-Forwarded-For", "2.2.2.2"),
        ("x_forwarded_for", "3.3.3.3"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Port", "1"),
        ("X-Forwarded-User", "admin"),
        ("X-Real-IP", "1.1.1.1"),
        ("Forwarded", "for=1.1.1.1"),
        ("X-Request-ID", "forged"),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("tracestate", "a=1"),
        ("X-Original-URL", "/admin"),
        ("Accept", "text/html"),
    ];

    #[test]
    fn nothing_an_untrusted_peer_claims_reaches_the_application() {
        let id = id();
        let mut request = request(&CLAIMS);
        towards_application(&mut request, &arrival(&id));
        assert_eq!(field(&request, "x-forwarded-for"), Some("203.0.113.9"));
        assert_eq!(field(&request, "x-forwarded-proto"), Some("https"));
        assert_eq!(field(&request, "x-forwarded-host"), Some("shop.example"));
        assert_eq!(field(&request, "x-forwarded-port"), Some("8443"));
        assert_eq!(field(&request, "x-real-ip"), Some("203.0.113.9"));
        assert_eq!(field(&request, "x-request-id"), Some("id-1"));
        let made = field(&request, "traceparent").unwrap();
        assert!(TraceParent::parse(made.as_bytes()).is_some_and(|trace| !trace.is_sampled()));
        assert_ne!(made, CLAIMS[10].1);
        for gone in [
            "x_forwarded_for",
            "x-forwarded-user",
            "forwarded",
            "tracestate",
            "x-original-url",
        ] {
            assert_eq!(field(&request, gone), None, "{gone}");
        }
        assert_eq!(field(&request, "accept"), Some("text/html"));
    }

    #[test]
    fn what_a_trusted_peer_says_is_continued() {
        let id = id();
        let mut request = request(&CLAIMS);
        let arrival = Arrival {
            forwarded: true,
            client: [2, 2, 2, 2].into(),
            ..from_proxy(&id)
        };
        towards_application(&mut request, &arrival);
        assert_eq!(
            field(&request, "x-forwarded-for"),
            Some("1.1.1.1, 2.2.2.2, 10.0.0.1")
        );
        assert_eq!(field(&request, "x_forwarded_for"), None);
        assert_eq!(field(&request, "x-forwarded-proto"), Some("https"));
        assert_eq!(field(&request, "x-forwarded-host"), Some("evil.example"));
        assert_eq!(field(&request, "x-forwarded-port"), Some("1"));
        assert_eq!(field(&request, "x-forwarded-user"), Some("admin"));
        assert_eq!(field(&request, "x-real-ip"), Some("2.2.2.2"));
        let expected = "for=1.1.1.1, for=10.0.0.1;proto=http;host=shop.example";
        assert_eq!(field(&request, "forwarded"), Some(expected));
        assert_eq!(field(&request, "traceparent"), Some(CLAIMS[10].1));
        assert_eq!(field(&request, "tracestate"), Some("a=1"));
    }

    #[test]
    fn a_trusted_peers_broken_or_repeated_word_is_replaced_by_ours() {
        let id = id();
        let mut request = request(&[
            ("X-Forwarded-Proto", "gopher"),
            ("X-Forwarded-Host", "a.example"),
            ("X-Forwarded-Host", "b.example"),
            ("X-Forwarded-Port", "70000"),
            (
                "traceparent",
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            ),
            ("tracestate", "a=1"),
        ]);
        towards_application(&mut request, &from_proxy(&id));
        assert_eq!(field(&request, "x-forwarded-proto"), Some("http"));
        assert_eq!(field(&request, "x-forwarded-host"), Some("shop.example"));
        assert_eq!(field(&request, "x-forwarded-port"), Some("8443"));
        assert_eq!(field(&request, "tracestate"), None);
        assert!(TraceParent::parse(field(&request, "traceparent").unwrap().as_bytes()).is_some());
    }

    #[test]
    fn the_port_is_the_one_the_client_used() {
        let id = id();
        let cases: [(&[(&str, &str)], &str); 4] = [
            (&[("X-Forwarded-Proto", "https")], "443"),
            (&[("X-Forwarded-Proto", "http")], "80"),
            (
                &[
                    ("X-Forwarded-Proto", "https"),
                    ("X-Forwarded-Host", "a.example:444"),
                ],
                "444",
            ),
            (&[], "8443"),
        ];
        for (fields, expected) in cases {
            let mut request = request(fields);
            towards_application(&mut request, &from_proxy(&id));
            assert_eq!(
                field(&request, "x-forwarded-port"),
                Some(expected),
                "{fields:?}"
            );
        }
        let mut request = request(&[]);
        towards_application(
            &mut request,
            &Arrival {
                port: None,
                host: "",
                ..arrival(&id)
            },
        );
        assert_eq!(field(&request, "x-forwarded-port"), None);
        assert_eq!(field(&request, "x-forwarded-host"), None);
    }

    #[test]
    fn forwarded_quotes_what_is_no_token() {
        let id = id();
        let cases = [
            (
                "2001:db8::17",
                "a.example:8443",
                r#"for="[2001:db8::17]";proto=https;host="a.example:8443""#,
            ),
            (
                "::ffff:192.0.2.1",
                "a.example",
                "for=192.0.2.1;proto=https;host=a.example",
            ),
            (
                "192.0.2.1",
                "[::1]",
                r#"for=192.0.2.1;proto=https;host="[::1]""#,
            ),
            ("192.0.2.1", "", "for=192.0.2.1;proto=https"),
            ("192.0.2.1", "a\"b", "for=192.0.2.1;proto=https"),
        ];
        for (peer, host, expected) in cases {
            let mut request = request(&[]);
            let arrival = Arrival {
                peer: peer.parse().unwrap(),
                host,
                forwarded: true,
                ..arrival(&id)
            };
            towards_application(&mut request, &arrival);
            assert_eq!(field(&request, "forwarded"), Some(expected));
        }
    }

    #[test]
    fn the_scheme_is_a_trusted_peers_word_or_our_own_tls() {
        let https = request(&[("X-Forwarded-Proto", "HTTPS")]);
        let http = request(&[("X-Forwarded-Proto", "http")]);
        let odd = request(&[("X-Forwarded-Proto", "https,http")]);
        let cases = [
            (&https, true, false, true),
            (&https, false, false, false),
            (&http, true, true, false),
            (&http, false, true, true),
            (&odd, true, false, false),
        ];
        for (request, trusted, tls, expected) in cases {
            assert_eq!(is_https(request, trusted, tls), expected);
        }
    }

    #[test]
    fn fields_of_the_connection_end_with_it() {
        let mut request = request(&[
            ("Host", "a.example"),
            ("Connection", "keep-alive, X-Mine , upgrade"),
            (
                "Connection",
                "host, content-length, transfer-encoding, \"bad\"",
            ),
            ("Content-Length", "3"),
            ("Transfer-Encoding", "chunked"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("Proxy-Authorization", "Basic eDp5"),
            ("TE", "gzip, Trailers"),
            ("Trailer", "X-Sum"),
            ("Upgrade", "websocket"),
            ("HTTP2-Settings", "AAMAAABk"),
            ("X-Mine", "1"),
            ("X-Other", "1"),
        ]);
        strip_hop_by_hop(&mut request, false);
        let mut names: Vec<&str> = request.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "content-length",
                "host",
                "te",
                "transfer-encoding",
                "x-other"
            ]
        );
        assert_eq!(field(&request, "te"), Some("trailers"));
    }

    #[test]
    fn a_websocket_keeps_its_upgrade_and_nothing_else_of_the_connection() {
        let mut request = request(&[
            ("Connection", "keep-alive, Upgrade, X-Mine"),
            ("Upgrade", "websocket"),
            ("X-Mine", "1"),
        ]);
        strip_hop_by_hop(&mut request, true);
        assert_eq!(field(&request, "connection"), Some("Upgrade"));
        assert_eq!(field(&request, "upgrade"), Some("websocket"));
        assert_eq!(field(&request, "x-mine"), None);
        assert_eq!(field(&request, "te"), None);
    }

    #[test]
    fn a_response_loses_the_connection_of_its_backend() {
        let response = || {
            let mut response = ResponseHeader::build(200, None).unwrap();
            for (name, value) in [
                ("Connection", "close, X-Internal"),
                ("Keep-Alive", "timeout=5"),
                ("Proxy-Connection", "close"),
                ("Proxy-Authenticate", "Basic"),
                ("Trailer", "X-Sum"),
                ("Upgrade", "h2c"),
                ("Content-Length", "3"),
                ("X-Internal", "1"),
                ("X-Other", "1"),
            ] {
                response.append_header(name, value).unwrap();
            }
            response
        };
        let names = |response: &ResponseHeader| {
            let mut names: Vec<String> = response.headers.keys().map(ToString::to_string).collect();
            names.sort_unstable();
            names
        };
        let mut plain = response();
        strip_response_hop_by_hop(&mut plain, false);
        assert_eq!(names(&plain), ["content-length", "x-other"]);
        let mut switching = response();
        strip_response_hop_by_hop(&mut switching, true);
        assert_eq!(
            names(&switching),
            ["connection", "content-length", "upgrade", "x-other"]
        );
        assert_eq!(switching.headers["connection"], "Upgrade");
    }

    proptest! {
        #[test]
        fn an_untrusted_peer_has_no_say_in_what_it_is_called(
            lines in proptest::collection::vec("[0-9a-z.:, \\[\\]]{0,40}", 0..4),
            name in "[xX][-_][fF]orwarded[-_](for|proto|host|by)?",
        ) {
            let id = id();
            let mut request = request(&[]);
            for line in &lines {
                let value = HeaderValue::from_str(line).unwrap();
                request.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.clone());
                request.append(X_FORWARDED_FOR, value);
            }
            towards_application(&mut request, &arrival(&id));
            prop_assert_eq!(field(&request, "x-forwarded-for"), Some("203.0.113.9"));
            prop_assert_eq!(field(&request, "x-forwarded-proto"), Some("https"));
            prop_assert!(request.keys().all(|name| !name.as_str().contains('_')));
        }
    }
}
