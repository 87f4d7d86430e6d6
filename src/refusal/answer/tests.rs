use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::limit::{Bound, Limited};

fn pages() -> Pages {
    Pages::built_in(Duration::from_millis(4200))
}

fn id() -> RequestId {
    RequestId::parse(b"id-1").unwrap()
}

fn answer(refusal: &Refusal, accept: Option<&str>) -> Answer {
    let id = id();
    let asked = Asked {
        accept: accept.map(str::as_bytes),
        head: false,
        request_id: &id,
    };
    refusal.answer(&asked, &pages())
}

fn field<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer
        .head
        .headers
        .get(name)
        .map(|value| value.to_str().unwrap())
}

fn not_found() -> Refusal {
    Refusal::NotFound {
        host: "a.example".into(),
        path: "/<script>".into(),
    }
}

#[test]
fn the_form_follows_accept() {
    use Form::{Html, Problem, Text};
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let cases = [
        ("", Problem),
        ("*/*", Problem),
        ("application/json", Problem),
        ("application/problem+json", Problem),
        ("application/vnd.api+json", Problem),
        ("APPLICATION/JSON", Problem),
        ("application/*", Problem),
        ("application/json, text/plain, */*", Problem),
        ("text/html", Html),
        (browser, Html),
        ("text/*", Html),
        ("*/*, text/html", Html),
        ("text/html;q=0.5, application/json;q=0.4", Html),
        ("text/html;q=0.4, application/json;q=0.5", Problem),
        ("text/plain", Text),
        ("text/plain, */*;q=0.1", Text),
        ("text/html;level=1;q=0.2, text/plain;q=0.3", Text),
        ("application/json;q=0, */*;q=0.5", Html),
        ("text/html;q=0, application/json;q=0", Text),
        ("image/png", Text),
        ("nonsense", Text),
        ("text/html;q=wrong, text/plain;q=0.1", Text),
        (" , text/html , ", Html),
    ];
    for (accept, expected) in cases {
        assert_eq!(preferred(accept.as_bytes()), expected, "of {accept:?}");
    }
}

#[test]
fn a_weight_is_read_as_rfc_9110_writes_it() {
    let cases = [
        ("q=1", Some(1000)),
        ("Q=1.000", Some(1000)),
        ("q=0", Some(0)),
        ("q=0.", Some(0)),
        ("q=0.5", Some(500)),
        ("q=0.123", Some(123)),
        ("q=0.1234", Some(0)),
        ("q=1.5", Some(0)),
        ("q=-1", Some(0)),
        ("q=", Some(0)),
        ("level=1", None),
        ("", None),
    ];
    for (parameter, expected) in cases {
        assert_eq!(quality(parameter.as_bytes()), expected, "of {parameter:?}");
    }
}

#[test]
fn a_problem_document_names_what_was_tried() {
    let answer = answer(&not_found(), None);
    assert_eq!(
        field(&answer, "content-type"),
        Some("application/problem+json")
    );
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"type":"about:blank","title":"Not Found","status":404,"#,
            r#""detail":"nothing is served at a.example/<script>","reason":"no_route","#,
            r#""request_id":"id-1","host":"a.example","path":"/<script>"}"#,
            "\n",
        )
    );
}

#[test]
fn the_page_escapes_what_it_is_told_and_loads_nothing() {
    let answer = answer(&not_found(), Some("text/html"));
    let html = std::str::from_utf8(&answer.body).unwrap();
    assert!(
        html.contains("nothing is served at a.example/&lt;script&gt;"),
        "{html}"
    );
    assert!(!html.contains("<script"), "{html}");
    assert!(!html.contains("http"), "{html}");
    assert!(html.contains("id-1") && html.contains("no_route"), "{html}");
    assert_eq!(field(&answer, "content-security-policy"), Some(OWN_CSP));
}

#[test]
fn the_plain_form_is_four_lines() {
    let answer = answer(&Refusal::UpstreamTimeout, Some("text/plain"));
    let expected = "504 Gateway Timeout\nthe application did not answer in time\n\
                    reason: upstream_timeout\nrequest: id-1\n";
    assert_eq!(answer.body, expected);
}

#[test]
fn every_answer_forbids_storing_and_states_its_length() {
    for accept in [None, Some("text/html"), Some("text/plain")] {
        let answer = answer(&Refusal::Forbidden, accept);
        assert_eq!(field(&answer, "cache-control"), Some("no-store"));
        assert_eq!(field(&answer, "vary"), Some("Accept"));
        assert_eq!(
            field(&answer, "content-length"),
            Some(answer.body.len().to_string().as_str())
        );
    }
}

#[test]
fn head_gets_the_head_of_get_and_no_body() {
    let id = id();
    let asked = Asked {
        accept: None,
        head: true,
        request_id: &id,
    };
    let head = Refusal::Forbidden.answer(&asked, &pages());
    let get = answer(&Refusal::Forbidden, None);
    assert_eq!(head.head.headers, get.head.headers);
    assert!(head.body.is_empty());
    let wire = head.to_wire(After::Close, UNIX_EPOCH, |_| {});
    assert!(wire.ends_with(b"\r\n\r\n"));
}

#[test]
fn retry_after_is_whole_seconds_and_never_early() {
    let seconds = |refusal: &Refusal| {
        answer(refusal, None)
            .head
            .headers
            .get("retry-after")
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let throttled = |millis| {
        Refusal::Limited(Limited {
            bound: Bound::Quota,
            policy: "api".into(),
            status: StatusCode::TOO_MANY_REQUESTS,
            retry_after: Duration::from_millis(millis),
        })
    };
    assert_eq!(seconds(&throttled(1)).as_deref(), Some("1"));
    assert_eq!(seconds(&throttled(1001)).as_deref(), Some("2"));
    assert_eq!(seconds(&throttled(2000)).as_deref(), Some("2"));
    assert_eq!(seconds(&throttled(0)), None);
    for refusal in [
        Refusal::QueueFull,
        Refusal::QueueTimeout,
        Refusal::UpstreamUnavailable,
        Refusal::Draining,
        Refusal::TooManyConnections,
    ] {
        assert_eq!(seconds(&refusal).as_deref(), Some("5"), "{refusal:?}");
    }
    for refusal in [
        Refusal::UpstreamTimeout,
        Refusal::UpstreamReset,
        Refusal::Forbidden,
    ] {
        assert_eq!(seconds(&refusal), None, "{refusal:?}");
    }
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let answer = answer(
        &Refusal::MethodNotAllowed {
            allow: "GET, HEAD".into(),
        },
        None,
    );
    assert_eq!(field(&answer, "allow"), Some("GET, HEAD"));
}

#[test]
fn the_wire_is_a_whole_response() {
    let content_type = HeaderValue::from_static("text/plain");
    let wire = |after| {
        let answer = Answer::fixed(StatusCode::OK, &content_type, "ok\n".into(), false);
        String::from_utf8(answer.to_wire(after, UNIX_EPOCH, |_| {}).to_vec()).unwrap()
    };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\
                Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
    assert_eq!(
        wire(After::Close),
        format!("{head}Connection: close\r\n\r\nok\n")
    );
    assert_eq!(wire(After::Keep), format!("{head}\r\nok\n"));
    assert_eq!(
        wire(After::KeepHttp10),
        format!("{head}Connection: keep-alive\r\n\r\nok\n")
    );
}

#[test]
fn a_status_without_content_has_no_length() {
    let content_type = HeaderValue::from_static("text/plain");
    let answer = Answer::fixed(StatusCode::NO_CONTENT, &content_type, "ok".into(), false);
    assert!(answer.head.headers.is_empty() && answer.body.is_empty());
    let redirect = Answer::redirect(
        StatusCode::PERMANENT_REDIRECT,
        HeaderValue::from_static("/x"),
    );
    assert_eq!(field(&redirect, "location"), Some("/x"));
    assert_eq!(field(&redirect, "content-length"), Some("0"));
}

proptest! {
    #[test]
    fn any_path_is_json_and_any_page_is_inert(path in any::<String>()) {
        let refusal = Refusal::NotFound { host: "a".into(), path: path.clone() };
        let json: serde_json::Value = serde_json::from_slice(&answer(&refusal, None).body).unwrap();
        prop_assert_eq!(json["path"].as_str(), Some(path.as_str()));
        let page = answer(&refusal, Some("text/html"));
        let tags = |html: &[u8]| html.iter().filter(|&&byte| byte == b'<').count();
        prop_assert_eq!(tags(&page.body), tags(&answer(&Refusal::Forbidden, Some("text/html")).body));
    }

    #[test]
    fn no_accept_field_is_too_odd(accept in proptest::collection::vec(any::<u8>(), 0..64)) {
        preferred(&accept);
    }
}
