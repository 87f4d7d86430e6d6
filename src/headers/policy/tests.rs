use proptest::prelude::*;

use super::*;

fn pairs(entries: &[(&str, &'static str)]) -> Vec<(FieldName, HeaderValue)> {
    entries
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
        .collect()
}

fn response(fields: &[(&'static str, &str)]) -> ResponseHeader {
    let mut response = ResponseHeader::build(200, None).unwrap();
    for (name, value) in fields {
        response.append_header(*name, *value).unwrap();
    }
    response
}

fn finished(
    settings: &PolicySettings,
    https: bool,
    mut response: ResponseHeader,
) -> ResponseHeader {
    let id = RequestId::parse(b"id-1").unwrap();
    let facts = Facts {
        https,
        request_id: &id,
        elapsed: Duration::from_micros(53_914),
        connect: None,
        first_byte: Some(Duration::from_micros(53_249)),
        cache: None,
    };
    HeaderPolicy::new(settings).finish(&mut response, &facts);
    response
}

fn preset(preset: Preset) -> PolicySettings {
    PolicySettings {
        preset,
        ..PolicySettings::default()
    }
}

fn all<'a>(response: &'a ResponseHeader, name: &str) -> Vec<&'a str> {
    let values = response.headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

fn names(response: &ResponseHeader) -> Vec<String> {
    let mut names: Vec<String> = response.headers.keys().map(ToString::to_string).collect();
    names.sort_unstable();
    names
}

#[test]
fn each_preset_sends_its_list() {
    let always = ["server-timing", "x-request-id", "x-request-time"];
    let basic = [
        "referrer-policy",
        "strict-transport-security",
        "x-content-type-options",
        "x-frame-options",
        "x-permitted-cross-domain-policies",
    ];
    let strict = [
        "content-security-policy",
        "cross-origin-opener-policy",
        "cross-origin-resource-policy",
        "permissions-policy",
        "x-dns-prefetch-control",
    ];
    let lists: [(Preset, Vec<&str>); 3] = [
        (Preset::Off, always.to_vec()),
        (Preset::Basic, [&always[..], &basic].concat()),
        (Preset::Strict, [&always[..], &basic, &strict].concat()),
    ];
    for (word, mut expected) in lists {
        expected.sort_unstable();
        assert_eq!(
            names(&finished(&preset(word), true, response(&[]))),
            expected,
            "{word:?}"
        );
    }
}

#[test]
fn strict_transport_security_is_only_sent_over_https() {
    let year = "max-age=31536000";
    let years = "max-age=63072000; includeSubDomains";
    let own = Hsts::MaxAge(Duration::from_secs(60));
    let cases = [
        (Preset::Basic, Hsts::OfPreset, Some(year)),
        (Preset::Strict, Hsts::OfPreset, Some(years)),
        (Preset::Off, Hsts::OfPreset, None),
        (Preset::Basic, Hsts::Never, None),
        (Preset::Basic, own, Some("max-age=60")),
        (Preset::Off, own, Some("max-age=60")),
        (Preset::Strict, own, Some("max-age=60; includeSubDomains")),
    ];
    for (preset, hsts, expected) in cases {
        let settings = PolicySettings {
            preset,
            hsts,
            ..PolicySettings::default()
        };
        let over = |https| finished(&settings, https, response(&[]));
        let sent = over(true);
        assert_eq!(
            all(&sent, "strict-transport-security").first().copied(),
            expected
        );
        assert!(all(&over(false), "strict-transport-security").is_empty());
    }
    let set = pairs(&[("strict-transport-security", "max-age=1; preload")]);
    let settings = PolicySettings {
        set,
        ..preset(Preset::Basic)
    };
    let sent = finished(&settings, true, response(&[]));
    assert_eq!(
        all(&sent, "strict-transport-security"),
        ["max-age=1; preload"]
    );
    let plain = finished(&settings, false, response(&[]));
    assert!(all(&plain, "strict-transport-security").is_empty());
}

#[test]
fn the_application_is_heard_before_a_default_and_not_before_a_set() {
    let settings = PolicySettings {
        set: pairs(&[("X-Robots-Tag", "none")]),
        default: pairs(&[("Referrer-Policy", "same-origin"), ("X-Own", "d")]),
        add: pairs(&[("Link", "</b.css>")]),
        remove: ["X-Gone", "X-Permitted-Cross-Domain-Policies"]
            .map(|name| name.parse().unwrap())
            .into(),
        ..preset(Preset::Basic)
    };
    let said = response(&[
        ("X-Frame-Options", "DENY"),
        ("X-Robots-Tag", "all"),
        ("X-Own", "application"),
        ("Link", "</a.css>"),
        ("X-Gone", "1"),
        ("Server", "gunicorn"),
        ("X-Powered-By", "PHP/8"),
    ]);
    let sent = finished(&settings, false, said);
    assert_eq!(all(&sent, "x-frame-options"), ["DENY"]);
    assert_eq!(all(&sent, "x-robots-tag"), ["none"]);
    assert_eq!(all(&sent, "x-own"), ["application"]);
    assert_eq!(all(&sent, "link"), ["</a.css>", "</b.css>"]);
    assert_eq!(all(&sent, "referrer-policy"), ["same-origin"]);
    let gone = [
        "x-gone",
        "server",
        "x-powered-by",
        "x-permitted-cross-domain-policies",
    ];
    assert!(gone.iter().all(|name| all(&sent, name).is_empty()));
}

#[test]
fn off_leaves_the_application_as_it_is() {
    let sent = finished(
        &preset(Preset::Off),
        true,
        response(&[("Server", "gunicorn")]),
    );
    assert_eq!(all(&sent, "server"), ["gunicorn"]);
}

#[test]
fn a_server_field_of_the_operators_own_is_sent() {
    let settings = PolicySettings {
        set: pairs(&[("Server", "edge")]),
        ..preset(Preset::Strict)
    };
    assert_eq!(
        all(
            &finished(&settings, true, response(&[("Server", "x")])),
            "server"
        ),
        ["edge"]
    );
}

#[test]
fn a_policy_of_the_operator_takes_the_place_of_the_presets() {
    let mut csp = Csp::default();
    csp.push("default-src", &["'self'"]).unwrap();
    let enforced = PolicySettings {
        csp,
        ..preset(Preset::Strict)
    };
    let sent = finished(&enforced, true, response(&[]));
    assert_eq!(
        all(&sent, "content-security-policy"),
        ["default-src 'self'"]
    );
    let reported = PolicySettings {
        csp_report_only: true,
        ..enforced.clone()
    };
    let sent = finished(&reported, true, response(&[]));
    assert!(all(&sent, "content-security-policy").is_empty());
    assert_eq!(
        all(&sent, "content-security-policy-report-only"),
        ["default-src 'self'"]
    );
    let own = response(&[("Content-Security-Policy", "default-src *")]);
    let sent = finished(&enforced, true, own);
    assert_eq!(all(&sent, "content-security-policy"), ["default-src *"]);
    let set = PolicySettings {
        set: pairs(&[("Content-Security-Policy", "default-src data:")]),
        ..enforced
    };
    let sent = finished(&set, true, response(&[]));
    assert_eq!(all(&sent, "content-security-policy"), ["default-src data:"]);
}

#[test]
fn id_and_times_are_ours_and_server_timing_is_continued() {
    let said = response(&[
        ("X-Request-ID", "forged"),
        ("X-Request-Time", "0s"),
        ("Server-Timing", "db;dur=5"),
    ]);
    let sent = finished(&preset(Preset::Off), true, said);
    assert_eq!(all(&sent, "x-request-id"), ["id-1"]);
    assert_eq!(all(&sent, "x-request-time"), ["0.053s"]);
    let ours = "first-byte;dur=53.2, total;dur=53.9";
    assert_eq!(all(&sent, "server-timing"), ["db;dur=5", ours]);
}

#[test]
fn the_longest_times_are_written_too() {
    let id = RequestId::make();
    let facts = Facts {
        https: true,
        request_id: &id,
        elapsed: Duration::MAX,
        connect: Some(Duration::MAX),
        first_byte: Some(Duration::MAX),
        cache: None,
    };
    assert!(server_timing(&facts).as_bytes().len() > 100);
    assert!(request_time(Duration::MAX).as_bytes().len() > 20);
}

#[test]
fn an_informational_response_only_gets_its_id() {
    let switching = ResponseHeader::build(101, None).unwrap();
    let sent = finished(&preset(Preset::Strict), true, switching);
    assert_eq!(names(&sent), ["x-request-id"]);
}

#[test]
fn names_keep_the_case_they_were_written_in() {
    let set = pairs(&[("X-MiXed", "1")]);
    let settings = PolicySettings {
        set,
        ..preset(Preset::Strict)
    };
    let mut wire = Vec::new();
    finished(&settings, true, response(&[])).header_to_h1_wire(&mut wire);
    let wire = String::from_utf8(wire).unwrap();
    for name in [
        "X-MiXed: 1\r\n",
        "X-Frame-Options: deny\r\n",
        "X-Request-ID: id-1\r\n",
    ] {
        assert!(wire.contains(name), "{wire}");
    }
}

#[test]
fn the_operators_request_fields_reach_the_application() {
    let settings = PolicySettings {
        request_set: pairs(&[("X-Tenant", "a")]),
        request_remove: vec!["Cookie".parse().unwrap()],
        ..PolicySettings::default()
    };
    let mut request = HMap::new();
    request.insert("cookie", HeaderValue::from_static("a=1"));
    request.insert("x-tenant", HeaderValue::from_static("forged"));
    HeaderPolicy::new(&settings).prepare(&mut request);
    assert_eq!(request["x-tenant"], "a");
    assert!(!request.contains_key("cookie"));
}

#[test]
fn no_policy_touches_what_frames_a_message() {
    let why = |text: &str| text.parse::<FieldName>().unwrap_err().to_string();
    assert_eq!(
        why("Bad Name"),
        r#""Bad Name" is not a header name; expected letters, digits and -"#
    );
    assert_eq!(
        why("Host"),
        r#"field "host" is set by the upstream; expected host = "…" there"#
    );
    for name in ["Content-Length", "Connection", "TE"] {
        let lower = name.to_ascii_lowercase();
        let end = "frames the message or belongs to its connection; no policy may touch it";
        assert_eq!(why(name), format!("field {lower:?} {end}"));
    }
}

#[test]
fn a_response_on_the_wire_gains_what_the_map_would_have() {
    let settings = PolicySettings {
        set: pairs(&[("X-Frame-Options", "DENY")]),
        add: pairs(&[("Link", "</a.css>; rel=preload")]),
        ..PolicySettings::default()
    };
    let backend = || {
        response(&[
            ("Server", "x"),
            ("X-Frame-Options", "ALLOW"),
            ("Link", "</b>"),
        ])
    };
    let mut mapped = finished(&settings, true, backend());
    let mut head = backend();
    let mut lines = Vec::new();
    let id = RequestId::parse(b"id-1").unwrap();
    let facts = Facts {
        https: true,
        request_id: &id,
        elapsed: Duration::from_micros(1500),
        connect: None,
        first_byte: None,
        cache: None,
    };
    HeaderPolicy::new(&settings).finish(
        &mut OnWire {
            head: &mut head,
            lines: &mut lines,
        },
        &facts,
    );
    let mut wire = Vec::new();
    head.header_to_h1_wire(&mut wire);
    wire.extend_from_slice(&lines);
    let mut expected = Vec::new();
    mapped.remove_header("x-request-time");
    mapped.remove_header("server-timing");
    mapped.header_to_h1_wire(&mut expected);
    let sorted = |text: &[u8]| {
        let text = String::from_utf8(text.to_vec()).unwrap();
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| {
                !line.starts_with("X-Request-Time") && !line.starts_with("Server-Timing")
            })
            .map(str::to_owned)
            .collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(&wire), sorted(&expected));
    assert!(
        String::from_utf8(lines)
            .unwrap()
            .contains("X-Request-Time: 0.001s\r\n")
    );
}

#[test]
fn a_response_of_http2_gains_what_the_map_would_have() {
    let settings = PolicySettings {
        set: pairs(&[("X-Frame-Options", "DENY")]),
        default: pairs(&[("X-Frame-Options", "ALLOW"), ("Referrer-Policy", "origin")]),
        add: pairs(&[("Link", "</a.css>; rel=preload")]),
        ..PolicySettings::default()
    };
    let silent: &[_] = &[("Content-Type", "text/plain")];
    let talking: &[_] = &[
        ("Server", "x"),
        ("X-Frame-Options", "SAMEORIGIN"),
        ("Referrer-Policy", "unsafe-url"),
        ("X-Request-ID", "forged"),
        ("X-Request-Time", "0s"),
        ("Link", "</b>"),
    ];
    for said in [silent, talking] {
        let mapped = finished(&settings, true, response(said));
        let id = RequestId::parse(b"id-1").unwrap();
        let facts = Facts {
            https: true,
            request_id: &id,
            elapsed: Duration::from_micros(53_914),
            connect: None,
            first_byte: Some(Duration::from_micros(53_249)),
            cache: None,
        };
        let mut parts = Parts::from(response(said));
        HeaderPolicy::new(&settings).finish(&mut parts, &facts);
        assert_eq!(parts.headers, mapped.headers);
        assert_eq!(mapped.headers["x-frame-options"], "DENY");
        // It would fill the client's table with what never comes again.
        assert!(parts.headers["x-request-id"].is_sensitive());
        assert!(!parts.headers["x-frame-options"].is_sensitive());
    }
}

proptest! {
    #[test]
    fn any_time_is_written_to_its_unit(micros in 0..10_000_000_000_u64) {
        let time = request_time(Duration::from_micros(micros));
        let time = std::str::from_utf8(time.as_bytes()).unwrap();
        let seconds: f64 = time.strip_suffix('s').unwrap().parse().unwrap();
        prop_assert!((seconds - micros as f64 / 1e6).abs() < 0.001);
    }

    #[test]
    fn finish_never_takes_away_what_the_application_said_of_security(
        value in "[a-z' ]{1,20}[a-z]",
        strict in any::<bool>(),
    ) {
        let word = if strict { Preset::Strict } else { Preset::Basic };
        for (name, _) in word.fields() {
            let sent = finished(&preset(word), true, response(&[(name, &value)]));
            prop_assert_eq!(all(&sent, name), [value.as_str()]);
        }
    }
}
