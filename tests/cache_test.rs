//! What is answered from memory, and above all what is not.

use std::sync::{Arc, Condvar, Mutex};

use serde_json::Value;

use crate::harness::client::Connection;
use crate::harness::gateway::{Gateway, tollgate};
use crate::harness::h2_client::H2;
use crate::harness::origin::{Origin, Received, Reply};
use crate::harness::process::Signal;
use crate::harness::response::{Broken, Response};
use crate::harness::wait_for;

/// One route with a policy of these keys, on a listener of HTTP/1.1 and one of HTTP/2.
pub fn in_front_of(origin: &Origin, policy: &str) -> Gateway {
    configured(origin, policy, "")
}

pub fn configured(origin: &Origin, policy: &str, rest: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0", {{ address = "127.0.0.1:0", h2c = true }}]
        [log]
        access = "all"
        [upstream.app]
        backends = ["{}"]
        max_fails = 0
        timeouts = {{ connect = "1s" }}
        [cache.policy.pages]
        {policy}
        [[route]]
        upstream = "app"
        cache = "pages"
        {rest}
        "#,
        origin.address()
    ))
}

/// 200 with these fields, each line with its end.
pub fn page(fields: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::raw(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    ))
}

/// Numbers its pages, so that a test sees which one it was given.
pub fn counting(fields: &'static str) -> Origin {
    let count = Mutex::new(0);
    Origin::with(move |_| {
        let mut count = count.lock().expect("no holder panics");
        *count += 1;
        page(fields, &format!("page {count}"))
    })
}

pub fn ask(gateway: &Gateway, method: &str, path: &str, fields: &str) -> Response {
    try_ask(gateway, method, path, fields).expect("an answer")
}

pub fn try_ask(
    gateway: &Gateway,
    method: &str,
    path: &str,
    fields: &str,
) -> Result<Response, Broken> {
    let mut client = gateway.connect();
    send(&mut client, method, path, fields);
    client.response_to(method)
}

pub fn send(client: &mut Connection, method: &str, path: &str, fields: &str) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
    client.send(request.as_bytes()).expect("the gateway reads");
}

pub fn get(gateway: &Gateway, path: &str) -> Response {
    ask(gateway, "GET", path, "")
}

/// `X-Cache` and body.
pub fn told(response: &Response) -> (&str, String) {
    (
        response.field("x-cache").unwrap_or_default(),
        response.text(),
    )
}

/// Holds requests until it is opened.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().expect("no holder panics") = true;
        self.0.1.notify_all();
    }

    pub fn pass(&self) {
        let open = self.0.0.lock().expect("no holder panics");
        let passed = self.0.1.wait_while(open, |open| !*open);
        drop(passed.expect("no holder panics"));
    }
}

pub const MINUTE: &str = "Cache-Control: max-age=60\r\n";

#[test]
fn a_page_is_asked_for_once() {
    let origin = counting(MINUTE);
    let gateway = in_front_of(&origin, "");
    let miss = get(&gateway, "/");
    assert_eq!(told(&miss), ("MISS", "page 1".to_owned()));
    let status = miss.field("cache-status").expect("it is always told");
    assert!(
        status.starts_with("tollgate; fwd=uri-miss; stored; ttl="),
        "{status}"
    );
    let stored = get(&gateway, "/");
    assert_eq!(told(&stored).0, "HIT");
    assert_eq!(stored.text(), "page 1");
    assert!(stored.field("age").is_some());
    let status = stored.field("cache-status").expect("it is always told");
    assert!(status.starts_with("tollgate; hit; ttl="), "{status}");
    assert_eq!(origin.received().len(), 1);
    assert_eq!(get(&gateway, "/other").text(), "page 2");
}

#[test]
fn without_a_policy_nothing_is_stored_nor_told() {
    let origin = counting(MINUTE);
    let rest = "[[route]]\npath = \"/plain\"\nupstream = \"app\"";
    let gateway = configured(&origin, "", rest);
    for number in 1..=2 {
        let answer = get(&gateway, "/plain");
        assert_eq!(answer.text(), format!("page {number}"));
        assert_eq!(answer.field("x-cache"), None);
        assert_eq!(answer.field("cache-status"), None);
    }
}

#[test]
fn a_hit_carries_nothing_of_the_request_that_caused_it() {
    let origin = counting(
        "Cache-Control: max-age=60\r\nX-Request-ID: of-the-app\r\nServer-Timing: db;dur=5\r\n\
         X-RateLimit-Remaining: 3\r\nSurrogate-Key: news\r\n",
    );
    let gateway = in_front_of(&origin, "");
    let first = get(&gateway, "/");
    let second = get(&gateway, "/");
    assert_eq!(told(&second), ("HIT", "page 1".to_owned()));
    assert_ne!(first.field("x-request-id"), second.field("x-request-id"));
    assert_eq!(second.head.fields("x-request-id").count(), 1);
    assert_eq!(second.head.fields("cache-status").count(), 1);
    for name in ["x-ratelimit-remaining", "surrogate-key", "set-cookie"] {
        assert_eq!(second.field(name), None, "{name}");
    }
    assert_eq!(first.field("surrogate-key"), None);
    let timing = second.field("server-timing").unwrap_or_default();
    assert!(!timing.contains("db"), "{timing}");
    assert!(timing.starts_with("cache;desc=\"HIT\", "), "{timing}");
}

#[test]
fn the_cookie_that_a_304_sets_is_for_the_one_who_asked() {
    let gate = Gate::default();
    let origin = {
        let gate = gate.clone();
        let count = Mutex::new(0);
        Origin::with(move |request| {
            if !request.head_text().contains("if-none-match") {
                return page("Cache-Control: max-age=60\r\nETag: \"v1\"\r\n", "page");
            }
            gate.pass();
            let mut count = count.lock().expect("no holder panics");
            *count += 1;
            Reply::raw(format!(
                "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nCache-Control: private\r\n\
                 Set-Cookie: session={count}\r\n\r\n"
            ))
        })
    };
    let gateway = in_front_of(&origin, "audience = \"rfc9111\"");
    get(&gateway, "/");
    let mut visitors = [gateway.connect(), gateway.connect()];
    for (number, visitor) in visitors.iter_mut().enumerate() {
        send(visitor, "GET", "/", "Cache-Control: no-cache\r\n");
        if number == 0 {
            origin.wait_for_requests(2);
        }
    }
    // By then the second visitor has been heard too.
    get(&gateway, "/other");
    gate.open();
    let cookies = visitors.map(|mut visitor| {
        let answer = visitor.response().expect("an answer");
        assert_eq!(answer.text(), "page");
        answer.field("set-cookie").map(str::to_owned)
    });
    assert!(cookies[0].is_some(), "{cookies:?}");
    assert_ne!(cookies[0], cookies[1]);
}

#[test]
fn fifty_misses_at_once_ask_once() {
    let gate = Gate::default();
    let origin = {
        let gate = gate.clone();
        Origin::with(move |_| {
            gate.pass();
            page(MINUTE, "page")
        })
    };
    let gateway = in_front_of(&origin, "");
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let mut client = gateway.connect();
            send(&mut client, "GET", "/", "");
            client
        })
        .collect();
    origin.wait_for_requests(1);
    gate.open();
    for mut client in clients {
        assert_eq!(client.response().expect("an answer").text(), "page");
    }
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn a_client_that_leaves_does_not_stop_what_it_caused() {
    let gate = Gate::default();
    let origin = {
        let gate = gate.clone();
        Origin::with(move |_| {
            gate.pass();
            page(MINUTE, "page")
        })
    };
    let gateway = in_front_of(&origin, "");
    let mut client = gateway.connect();
    send(&mut client, "GET", "/", "");
    origin.wait_for_requests(1);
    client.reset();
    gateway.wait_for_log("its record", |line| line.contains("client_left"));
    gate.open();
    assert_eq!(get(&gateway, "/").text(), "page");
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn those_who_wait_read_what_has_arrived() {
    let gate = Gate::default();
    let origin = Origin::always(
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 8\r\nCache-Control: max-age=60\r\n\r\nhalf")
            .then_stall(),
    );
    let gateway = in_front_of(&origin, "");
    let mut clients: Vec<_> = (0..2).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        send(client, "GET", "/", "");
    }
    for client in &mut clients {
        client.head().expect("a head before the end of the body");
        let mut read = Vec::new();
        while read.len() < 4 {
            read.extend(client.some().expect("the first half"));
        }
        assert_eq!(read, b"half");
    }
    assert_eq!(origin.received().len(), 1);
    gate.open();
}

#[test]
fn a_body_that_is_cut_short_breaks_every_answer_and_is_not_stored() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nCache-Control: max-age=60\r\n\r\n";
    let origin = Origin::in_turn([
        Reply::raw(format!("{head}half")).then_close(),
        Reply::raw(format!("{head}complete")),
    ]);
    let gateway = in_front_of(&origin, "");
    assert!(try_ask(&gateway, "GET", "/", "").is_err());
    assert_eq!(told(&get(&gateway, "/")), ("MISS", "complete".to_owned()));
    assert_eq!(told(&get(&gateway, "/")), ("HIT", "complete".to_owned()));
}

#[test]
fn a_visitor_who_is_somebody_is_neither_stored_nor_served() {
    let origin = counting(MINUTE);
    let gateway = in_front_of(&origin, "");
    let fields = [
        "Cookie: _ga=1; sessionid=abc\r\n",
        "Cookie: csrftoken=abc\r\n",
        "Authorization: Basic YTpi\r\n",
    ];
    for (before, fields) in fields.into_iter().enumerate() {
        let answer = ask(&gateway, "GET", "/", fields);
        assert_eq!(told(&answer), ("BYPASS", format!("page {}", before + 1)));
    }
    assert_eq!(told(&get(&gateway, "/")), ("MISS", "page 4".to_owned()));
    let answer = ask(&gateway, "GET", "/", fields[0]);
    assert_eq!(told(&answer), ("BYPASS", "page 5".to_owned()));
    let analytics = ask(&gateway, "GET", "/", "Cookie: _ga=GA1.2; _gid=x\r\n");
    assert_eq!(told(&analytics), ("HIT", "page 4".to_owned()));
}

#[test]
fn a_response_that_is_for_one_visitor_is_not_stored() {
    for fields in [
        "Cache-Control: max-age=60\r\nSet-Cookie: sessionid=1\r\n",
        "Cache-Control: private, max-age=60\r\n",
        "Cache-Control: no-store\r\n",
        "Cache-Control: max-age=60\r\nVary: *\r\n",
        "",
    ] {
        let origin = counting(fields);
        let gateway = in_front_of(&origin, "");
        for number in 1..=3 {
            let answer = get(&gateway, "/");
            assert_eq!(
                told(&answer),
                ("MISS", format!("page {number}")),
                "{fields}"
            );
        }
    }
}

#[test]
fn why_it_is_not_stored_stands_in_the_record() {
    let origin = counting("Cache-Control: private\r\n");
    let gateway = in_front_of(&origin, "");
    get(&gateway, "/");
    let line = gateway.wait_for_log("its record", |line| line.contains("\"cache\":\"miss\""));
    let record: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(record["cache"], "miss");
    assert_eq!(record["cache_detail"], "private");
    assert_eq!(record["attempts"], 1);
}

#[test]
fn the_ttl_of_the_route_is_for_pages_without_a_lifetime() {
    let origin = counting("");
    let gateway = in_front_of(&origin, "ttl = \"60s\"");
    get(&gateway, "/");
    assert_eq!(told(&get(&gateway, "/")), ("HIT", "page 1".to_owned()));
}

#[test]
fn variants_stand_side_by_side() {
    let origin = Origin::with(|request: &Received| {
        let language = request.fields("x-language").join("");
        page(
            "Cache-Control: max-age=60\r\nVary: X-Language\r\n",
            &language,
        )
    });
    let gateway = in_front_of(&origin, "");
    for (word, _) in [("MISS", 1), ("HIT", 2)] {
        for language in ["de", "en"] {
            let answer = ask(&gateway, "GET", "/", &format!("X-Language: {language}\r\n"));
            assert_eq!(told(&answer), (word, language.to_owned()));
        }
    }
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn parameters_of_campaigns_do_not_count_and_are_not_asked() {
    let origin = counting(MINUTE);
    let gateway = in_front_of(&origin, "sort_query = true");
    get(&gateway, "/?b=2&utm_source=x&a=1");
    let again = get(&gateway, "/?a=1&b=2&fbclid=y");
    assert_eq!(told(&again), ("HIT", "page 1".to_owned()));
    let request = origin.received()[0].head_text();
    assert!(request.starts_with("GET /?a=1&b=2 HTTP/1.1"), "{request}");
}

#[test]
fn what_is_larger_than_allowed_streams_on_and_is_not_stored() {
    let large = "x".repeat(3 << 20);
    let chunks = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{MINUTE}\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    for reply in [Reply::raw(chunks), page(MINUTE, &large)] {
        let origin = Origin::always(reply);
        let gateway = in_front_of(&origin, "largest_object = \"1 KiB\"");
        for _ in 0..2 {
            assert!(get(&gateway, "/").text() == large);
        }
        assert_eq!(origin.received().len(), 2);
    }
}

/// Gave only the rest of the page, and took the next answer for its end.
#[test]
fn a_page_whose_beginning_is_stored_is_given_whole_to_who_is_logged_in() {
    let origin = Origin::with(|request| match request.fields("range").first() {
        None => page("ETag: \"a\"\r\nCache-Control: max-age=60\r\n", "0123456789"),
        Some(range) => {
            let span = range.strip_prefix("bytes=").expect("a range of bytes");
            let (first, last) = span.split_once('-').expect("a span");
            let first: usize = first.parse().expect("a place");
            let last = last.parse().unwrap_or(9);
            let part = &"0123456789"[first..=last];
            let length = part.len();
            Reply::raw(format!(
                "HTTP/1.1 206 Partial\r\nContent-Range: bytes {first}-{last}/10\r\nContent-Length: {length}\r\n\
                 ETag: \"a\"\r\nCache-Control: max-age=60\r\n\r\n{part}"
            ))
        }
    });
    let gateway = in_front_of(&origin, "audience = \"rfc9111\"");
    let part = ask(&gateway, "GET", "/", "Range: bytes=0-3\r\n");
    assert_eq!((part.status(), part.text().as_str()), (206, "0123"));
    let mut client = gateway.connect();
    for _ in 0..2 {
        send(&mut client, "GET", "/", "Authorization: Basic eA==\r\n");
        let whole = client.response().expect("an answer");
        assert_eq!((whole.status(), whole.text().as_str()), (200, "0123456789"));
    }
}

#[test]
fn a_stored_page_answers_conditions_ranges_and_head() {
    let origin = Origin::always(page(
        "Cache-Control: max-age=60\r\nETag: \"v1\"\r\nContent-Type: text/plain\r\n",
        "0123456789",
    ));
    let gateway = in_front_of(&origin, "");
    get(&gateway, "/");
    let head = ask(&gateway, "HEAD", "/", "");
    assert_eq!(head.field("content-length"), Some("10"));
    assert_eq!(told(&head), ("HIT", String::new()));

    let unchanged = ask(&gateway, "GET", "/", "If-None-Match: W/\"v1\"\r\n");
    assert_eq!(unchanged.status(), 304);
    assert_eq!(unchanged.field("etag"), Some("\"v1\""));
    assert_eq!(unchanged.field("content-type"), None);
    assert_eq!(
        ask(&gateway, "GET", "/", "If-None-Match: \"v2\"\r\n").status(),
        200
    );

    let part = ask(&gateway, "GET", "/", "Range: bytes=2-4\r\n");
    assert_eq!((part.status(), part.text()), (206, "234".to_owned()));
    assert_eq!(part.field("content-range"), Some("bytes 2-4/10"));
    let beyond = ask(&gateway, "GET", "/", "Range: bytes=10-\r\n");
    assert_eq!(beyond.status(), 416);
    assert_eq!(beyond.field("content-range"), Some("bytes */10"));
    let parts = ask(&gateway, "GET", "/", "Range: bytes=0-1,8-9\r\n");
    assert_eq!(parts.status(), 206);
    let text = parts.text();
    assert!(
        text.contains("\r\n\r\n01\r\n") && text.contains("\r\n\r\n89\r\n"),
        "{text}"
    );
    let other = ask(
        &gateway,
        "GET",
        "/",
        "Range: bytes=2-4\r\nIf-Range: \"v0\"\r\n",
    );
    assert_eq!(
        (other.status(), other.text()),
        (200, "0123456789".to_owned())
    );
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn a_condition_that_the_stored_page_does_not_meet_is_for_the_application() {
    let origin = Origin::with(
        |request: &Received| match request.fields("if-match").is_empty() {
            true => page("Cache-Control: max-age=60\r\nETag: \"v1\"\r\n", "page"),
            false => Reply::status(412, "another"),
        },
    );
    let gateway = in_front_of(&origin, "");
    for _ in 0..2 {
        let answer = ask(&gateway, "GET", "/", "If-Match: \"v2\"\r\n");
        assert_eq!(answer.status(), 412);
    }
    assert_eq!(told(&get(&gateway, "/")), ("HIT", "page".to_owned()));
    assert_eq!(
        ask(&gateway, "GET", "/", "If-Match: \"v1\"\r\n").status(),
        200
    );
}

/// Two minutes old when it arrives, and good for one.
const STALE: &str = "Age: 120\r\nCache-Control: max-age=60";

#[test]
fn a_stale_page_is_revalidated_and_fresh_again() {
    let origin = Origin::in_turn([
        page(&format!("{STALE}\r\nETag: \"v1\"\r\nX-A: old\r\n"), "page"),
        Reply::raw(
            "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nCache-Control: max-age=60\r\nX-A: new\r\n\r\n",
        ),
    ]);
    let gateway = in_front_of(&origin, "");
    assert_eq!(get(&gateway, "/").field("age"), Some("120"));
    let revalidated = get(&gateway, "/");
    assert_eq!(told(&revalidated), ("REVALIDATED", "page".to_owned()));
    assert_eq!(revalidated.field("x-a"), Some("new"));
    let status = revalidated.field("cache-status").unwrap_or_default();
    let expected = "tollgate; fwd=stale; fwd-status=304; stored; ttl=";
    assert!(status.starts_with(expected), "{status}");
    assert_eq!(origin.received()[1].fields("if-none-match"), ["\"v1\""]);
    assert_eq!(told(&get(&gateway, "/")), ("HIT", "page".to_owned()));
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn a_stale_page_answers_while_it_is_fetched_anew() {
    let old = format!("{STALE}, stale-while-revalidate=600\r\n");
    let origin = Origin::in_turn([page(&old, "old"), page(MINUTE, "new")]);
    let gateway = in_front_of(&origin, "");
    get(&gateway, "/");
    assert_eq!(told(&get(&gateway, "/")), ("STALE", "old".to_owned()));
    wait_for("the new page", || {
        Some(get(&gateway, "/")).filter(|answer| told(answer) == ("HIT", "new".to_owned()))
    });
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn a_page_that_is_asked_for_often_is_renewed_before_it_expires_and_nobody_waits() {
    let gate = Gate::default();
    let origin = {
        let gate = gate.clone();
        let is_first = Mutex::new(true);
        Origin::with(move |request: &Received| {
            let fields = "Cache-Control: max-age=10\r\n";
            if request.head.starts_with(b"GET /cold ") {
                return page(fields, "cold");
            }
            if std::mem::take(&mut *is_first.lock().expect("no holder panics")) {
                return page(fields, "old");
            }
            gate.pass();
            page(fields, "new")
        })
    };
    let policy = "refresh_ahead = \"1h\"\nrefresh_hits = 5\nstale_while_revalidate = \"0s\"";
    let gateway = in_front_of(&origin, policy);
    for path in ["/hot", "/cold"] {
        get(&gateway, path);
    }
    wait_for("the question before the end", || {
        assert_eq!(told(&get(&gateway, "/hot")), ("HIT", "old".to_owned()));
        (origin.received().len() > 2).then_some(())
    });
    assert_eq!(told(&get(&gateway, "/hot")), ("HIT", "old".to_owned()));
    assert_eq!(told(&get(&gateway, "/cold")), ("HIT", "cold".to_owned()));
    gate.open();
    wait_for("the new page", || {
        let answer = get(&gateway, "/hot");
        assert_eq!(answer.field("x-cache"), Some("HIT"));
        (answer.text() == "new").then_some(())
    });
    assert_eq!(origin.received().len(), 3);
}

#[test]
fn a_stale_page_stands_in_for_an_application_that_fails() {
    let fields = format!("{STALE}, stale-if-error=600\r\n");
    let mut origin = Origin::in_turn([page(&fields, "page"), Reply::status(503, "oops")]);
    let gateway = in_front_of(&origin, "");
    get(&gateway, "/");
    assert_eq!(told(&get(&gateway, "/")), ("STALE", "page".to_owned()));
    origin.refuse();
    assert_eq!(told(&get(&gateway, "/")), ("STALE", "page".to_owned()));
    assert_eq!(get(&gateway, "/other").status(), 502);
}

#[test]
fn a_change_outdates_the_page() {
    let origin = counting(MINUTE);
    let gateway = in_front_of(&origin, "");
    get(&gateway, "/");
    assert_eq!(told(&get(&gateway, "/")), ("HIT", "page 1".to_owned()));
    let changed = ask(&gateway, "POST", "/", "Content-Length: 0\r\n");
    assert_eq!(told(&changed), ("BYPASS", "page 2".to_owned()));
    let status = changed.field("cache-status");
    assert_eq!(status, Some("tollgate; fwd=method"));
    assert_eq!(told(&get(&gateway, "/")), ("MISS", "page 3".to_owned()));
}

#[test]
fn what_was_asked_for_before_a_change_is_not_given_after_it() {
    let gate = Gate::default();
    let origin = {
        let gate = gate.clone();
        let first = Mutex::new(true);
        Origin::with(move |request: &Received| {
            let is_get = request.head.starts_with(b"GET");
            if is_get && std::mem::take(&mut *first.lock().expect("no holder panics")) {
                gate.pass();
                return page(MINUTE, "old");
            }
            page(MINUTE, "new")
        })
    };
    let gateway = in_front_of(&origin, "");
    let mut early = gateway.connect();
    send(&mut early, "GET", "/", "");
    origin.wait_for_requests(1);
    ask(&gateway, "POST", "/", "Content-Length: 0\r\n");
    assert_eq!(told(&get(&gateway, "/")), ("MISS", "new".to_owned()));
    gate.open();
    assert_eq!(early.response().expect("an answer").text(), "old");
    assert_eq!(told(&get(&gateway, "/")), ("HIT", "new".to_owned()));
}

#[test]
fn an_application_outdates_groups_of_pages_by_its_answer_to_a_change() {
    let origin = Origin::with(|request: &Received| {
        if request.head.starts_with(b"POST") {
            return page("Cache-Group-Invalidation: \"news\"\r\n", "done");
        }
        page(
            "Cache-Control: max-age=60\r\nCache-Groups: \"news\", \"all\"\r\n",
            "page",
        )
    });
    let gateway = in_front_of(&origin, "");
    for path in ["/1", "/2"] {
        get(&gateway, path);
        assert_eq!(told(&get(&gateway, path)).0, "HIT");
    }
    ask(&gateway, "POST", "/publish", "Content-Length: 0\r\n");
    for path in ["/1", "/2"] {
        assert_eq!(told(&get(&gateway, path)).0, "MISS");
        assert_eq!(told(&get(&gateway, path)).0, "HIT");
    }
}

#[test]
fn a_change_that_the_application_refused_outdates_nothing() {
    let origin = Origin::with(
        |request: &Received| match request.head.starts_with(b"POST") {
            true => Reply::status(500, "no"),
            false => page(MINUTE, "page"),
        },
    );
    let gateway = in_front_of(&origin, "");
    get(&gateway, "/");
    ask(&gateway, "POST", "/", "Content-Length: 0\r\n");
    assert_eq!(told(&get(&gateway, "/")).0, "HIT");
}

#[test]
fn clients_of_http2_are_given_the_same() {
    let origin = counting(MINUTE);
    let gateway = in_front_of(&origin, "");
    get(&gateway, "/");
    let h2 = H2::cleartext(gateway.addresses()[1]);
    let hit = h2.get("http://a.example/").expect("an answer").response;
    assert_eq!(hit.headers()["x-cache"], "HIT");
    assert_eq!(hit.body(), b"page 1");
    assert!(hit.headers().contains_key("age"));
    let miss = h2.get("http://a.example/2").expect("an answer").response;
    assert_eq!(miss.headers()["x-cache"], "MISS");
    assert_eq!(told(&get(&gateway, "/2")), ("HIT", "page 2".to_owned()));
}

#[test]
fn who_wants_nobody_asked_is_told_that_nothing_is_stored() {
    let origin = counting(MINUTE);
    let gateway = in_front_of(&origin, "honour_request = true");
    let only = "Cache-Control: only-if-cached\r\n";
    assert_eq!(ask(&gateway, "GET", "/", only).status(), 504);
    get(&gateway, "/");
    assert_eq!(ask(&gateway, "GET", "/", only).text(), "page 1");
    let anew = ask(&gateway, "GET", "/", "Cache-Control: no-cache\r\n");
    assert_eq!(told(&anew), ("MISS", "page 2".to_owned()));
}

#[test]
fn a_visitor_cannot_make_the_application_work() {
    let origin = counting(MINUTE);
    let gateway = in_front_of(&origin, "");
    get(&gateway, "/");
    let fields = "Cache-Control: no-cache, no-store\r\nPragma: no-cache\r\n";
    assert_eq!(told(&ask(&gateway, "GET", "/", fields)).0, "HIT");
}

#[test]
fn a_trusted_client_is_told_the_key() {
    let origin = counting("Cache-Control: private\r\n");
    let rest = "[clients]\ntrusted_proxies = [\"127.0.0.1\"]";
    let gateway = configured(&origin, "", rest);
    let answer = get(&gateway, "/x?a=1");
    let status = answer.field("cache-status").unwrap_or_default();
    assert!(
        status.contains("key=\"http://a.example/x?a=1 route="),
        "{status}"
    );
    assert!(status.ends_with("; detail=private"), "{status}");
}

#[test]
fn a_reload_keeps_what_is_stored_by_the_same_policy() {
    let origin = counting(MINUTE);
    let gateway = in_front_of(&origin, "");
    get(&gateway, "/");
    let config = std::fs::read_to_string(gateway.config_path()).expect("it was written");
    let reload = |text: &str| {
        let position = gateway.log().position();
        gateway.write_config(text);
        gateway.signal(Signal::Hangup);
        gateway.wait_for_log_after(position, "the reload", |line| {
            line.contains("\"reloaded\"") && line.contains("SIGHUP")
        });
    };
    reload(&config.replace("[log]", "[log]\nslow_after = \"9s\""));
    assert_eq!(told(&get(&gateway, "/")), ("HIT", "page 1".to_owned()));
    reload(&config.replace(
        "[cache.policy.pages]",
        "[cache.policy.pages]\npersonal_cookies = [\"who\"]",
    ));
    assert_eq!(told(&get(&gateway, "/")), ("MISS", "page 2".to_owned()));
}

#[test]
fn the_size_of_the_memory_needs_a_restart() {
    let origin = counting(MINUTE);
    let gateway = in_front_of(&origin, "");
    let config = std::fs::read_to_string(gateway.config_path()).expect("it was written");
    gateway.write_config(&config.replace("[log]", "[cache]\nmemory = \"1 GiB\"\n[log]"));
    gateway.signal(Signal::Hangup);
    let line = gateway.wait_for_log("the refusal", |line| line.contains("reload refused"));
    assert!(line.contains("cache.memory differs"), "{line}");
}

#[test]
fn explain_says_the_policy_the_key_and_why_not() {
    let origin = counting(MINUTE);
    let gateway = in_front_of(&origin, "");
    let path = gateway.config_path();
    let explain = |header: &str| {
        let path = path.to_str().expect("UTF-8");
        let url = "http://a.example/x?b=1&utm_source=y";
        let output = tollgate(&["explain", "--config", path, "GET", url, "-H", header]);
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let visitor = explain("Cookie: _ga=1");
    assert!(
        visitor.contains("cache       pages for anonymous\n"),
        "{visitor}"
    );
    let key = "looked up   http://a.example/x?b=1 route=";
    assert!(visitor.contains(key), "{visitor}");
    let user = explain("Cookie: sessionid=1");
    assert!(user.contains("looked up   no: personal_cookie\n"), "{user}");
}
