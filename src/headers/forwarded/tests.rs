use proptest::prelude::*;

use pingora_http::ResponseHeader;

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
        name in "[xX][-_.][fF]orwarded[-_.~](for|proto|host|by)?",
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
        prop_assert!(request.keys().all(|name| name.as_str().bytes().all(is_plain)));
    }
}
