//! Pages that say they are for everybody and are not: none reaches a second visitor for long.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cache_test::{MINUTE, ask, configured, get, in_front_of, page, told};
use crate::harness::apps::{App, Gunicorn, Uvicorn};
use crate::harness::client::Connection;
use crate::harness::gateway::Gateway;
use crate::harness::origin::{Origin, Received, Reply};
use crate::harness::redis::RedisServer;
use crate::harness::wait_for;

/// Clients may have pages fetched anew, so that a test need not wait until they are stale.
const ANEW: &str = "honour_request = true";
const NO_CACHE: &str = "Cache-Control: no-cache\r\n";

const ADMIN: &str =
    "[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"a-token-of-the-test-0123456789abcdef\"";

/// What the interface for administration answers.
fn administer(gateway: &Gateway, line: &str, body: &str) -> serde_json::Value {
    let address = *gateway.addresses().last().expect("the admin listener");
    let mut client = Connection::open(address);
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a-token-of-the-test-0123456789abcdef\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    client.send(request.as_bytes()).expect("it reads");
    client.response().expect("an answer").json()
}

/// A page whose text `write` makes of who asks, by a cookie that nobody knows to be personal.
fn by_visitor(write: fn(&str) -> String) -> Origin {
    Origin::with(move |request: &Received| {
        let cookie = request.fields("cookie").concat();
        let who = cookie.strip_prefix("who=").unwrap_or_default();
        let fields = "Content-Type: text/html\r\nCache-Control: public, max-age=60\r\n";
        page(fields, &write(who))
    })
}

fn quarantined(gateway: &Gateway) -> Vec<String> {
    let lines = gateway.log().lines();
    lines
        .into_iter()
        .filter(|line| line.contains("quarantined: "))
        .collect()
}

#[test]
fn a_page_that_greets_its_visitor_is_caught_when_it_is_fetched_for_another() {
    type Write = fn(&str) -> String;
    let leaks: [(&str, Write); 2] = [
        ("greeting", |who| format!("<h1>Hello {who}!</h1>")),
        ("token", |who| {
            format!("<input name=\"csrf_token\" value=\"{who}0123456789abcdef\">")
        }),
    ];
    for (reason, write) in leaks {
        let origin = by_visitor(write);
        let gateway = in_front_of(&origin, ANEW);
        let visit = |who: &str, fields: &str| {
            ask(
                &gateway,
                "GET",
                "/",
                &format!("Cookie: who={who}\r\n{fields}"),
            )
        };
        visit("alice", "");
        assert_eq!(visit("bob", NO_CACHE).text(), write("bob"));
        let line = gateway.wait_for_log("the quarantine", |line| line.contains("quarantined: "));
        assert!(line.contains(reason), "{line}");
        for who in ["carol", "dave"] {
            let answer = visit(who, "");
            assert_eq!(told(&answer), ("BYPASS", write(who)));
        }
        assert_eq!(get(&gateway, "/other").field("x-cache"), Some("MISS"));
        assert_eq!(quarantined(&gateway).len(), 1);
    }
}

#[test]
fn a_page_dressed_up_as_a_file_is_not_stored() {
    let origin = by_visitor(|who| format!("<h1>Account of {who}</h1>"));
    let gateway = in_front_of(&origin, "");
    for path in ["/account/x.css", "/account;x.css", "/account%2Fx.css"] {
        for (word, who) in [("MISS", "alice"), ("BYPASS", "bob")] {
            let answer = ask(&gateway, "GET", path, &format!("Cookie: who={who}\r\n"));
            assert_eq!(
                told(&answer),
                (word, format!("<h1>Account of {who}</h1>")),
                "{path}"
            );
        }
    }
    gateway.wait_for_log("the reason", |line| line.contains("\"content_type\""));
    gateway.wait_for_log("the reason", |line| line.contains("\"deceptive_path\""));
}

#[test]
fn a_response_that_names_its_visitor_in_a_field_is_not_stored() {
    let origin = Origin::always(page(&format!("X-User-ID: 17\r\n{MINUTE}"), "page"));
    let gateway = in_front_of(&origin, "");
    for word in ["MISS", "BYPASS"] {
        assert_eq!(told(&get(&gateway, "/")), (word, "page".to_owned()));
    }
}

#[test]
fn who_turns_the_guard_off_has_what_the_application_says() {
    let origin = Origin::always(page(&format!("X-User-ID: 17\r\n{MINUTE}"), "page"));
    let gateway = in_front_of(&origin, "quarantine = \"0s\"");
    for word in ["MISS", "HIT"] {
        assert_eq!(told(&get(&gateway, "/")), (word, "page".to_owned()));
    }
}

/// An application that builds its links from whatever field names a host.
fn believing() -> Origin {
    Origin::with(|request: &Received| {
        let host = ["x-host", "x-forwarded-host"].map(|name| request.fields(name).concat());
        page(MINUTE, &format!("links to {}{}", host[0], host[1]))
    })
}

#[test]
fn nobody_can_have_links_to_another_host_stored() {
    let origin = believing();
    let gateway = in_front_of(&origin, "");
    let poison = "X-Host: evil.example\r\nX-Forwarded-Host: evil.example\r\n";
    ask(&gateway, "GET", "/", poison);
    assert_eq!(
        told(&get(&gateway, "/")),
        ("HIT", "links to a.example".to_owned())
    );
}

#[test]
fn another_host_in_the_words_of_a_trusted_proxy_must_be_part_of_the_key() {
    let origin = believing();
    let trusting = "[clients]\ntrusted_proxies = [\"127.0.0.1/32\"]";
    let forwarded = "X-Forwarded-Host: shop.example\r\n";
    let gateway = configured(&origin, "", trusting);
    for _ in 0..2 {
        let answer = ask(&gateway, "GET", "/", forwarded);
        assert_eq!(
            told(&answer),
            ("BYPASS", "links to shop.example".to_owned())
        );
    }
    let gateway = configured(&origin, "key_headers = [\"X-Forwarded-Host\"]", trusting);
    for word in ["MISS", "HIT"] {
        let answer = ask(&gateway, "GET", "/", forwarded);
        assert_eq!(told(&answer), (word, "links to shop.example".to_owned()));
    }
    assert_eq!(told(&get(&gateway, "/")).0, "MISS");
}

/// Several visitors ask for each page, each time anew. None may be taken for personal.
fn crawl(app: &App, paths: &[&str]) {
    let gateway = Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [upstream.app]
        backends = ["{}"]
        [cache.policy.pages]
        ttl = "60s"
        {ANEW}
        [[route]]
        upstream = "app"
        cache = "pages"
        "#,
        app.address()
    ));
    for path in paths {
        for visitor in 0..3 {
            let fields = format!("Cookie: _ga=GA1.{visitor}; theme=dark{visitor}\r\n{NO_CACHE}");
            let answer = ask(&gateway, "GET", path, &fields);
            assert_ne!(answer.field("x-cache"), Some("BYPASS"), "{path}");
        }
    }
    assert_eq!(quarantined(&gateway), [""; 0]);
}

#[test]
fn no_page_of_the_django_site_is_taken_for_personal() {
    let site = Gunicorn::start("alpha", &[]);
    let paths = [
        "/",
        "/articles/article-1",
        "/articles/article-2",
        "/feedback",
        "/login",
        "/me",
        "/slow",
        "/headers",
        "/whoami",
        "/download?bytes=100",
        "/status/404",
        "/nowhere.css",
    ];
    crawl(&site, &paths);
}

#[test]
fn no_answer_of_the_fastapi_service_is_taken_for_personal() {
    let service = Uvicorn::start("beta", &[]);
    let paths = [
        "/api/items",
        "/stream",
        "/headers",
        "/whoami",
        "/openapi.json",
        "/docs",
    ];
    crawl(&service, &paths);
}

#[test]
fn an_error_in_place_of_a_file_is_no_deception() {
    let origin = Origin::always(Reply::raw(format!(
        "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nContent-Type: text/html\r\n{MINUTE}\r\ngone"
    )));
    let gateway = in_front_of(&origin, "");
    for word in ["MISS", "HIT"] {
        assert_eq!(
            told(&get(&gateway, "/missing.css")),
            (word, "gone".to_owned())
        );
    }
}

#[test]
fn an_operator_sees_what_is_kept_out_and_lets_it_in_again() {
    let origin = Origin::always(page(&format!("X-User-ID: 17\r\n{MINUTE}"), "page"));
    let gateway = configured(&origin, "", ADMIN);
    get(&gateway, "/");
    let call = |line: &str, body: &str| administer(&gateway, line, body);
    let listed = call("GET /cache/quarantine", "");
    let one = &listed["quarantined"][0];
    assert_eq!(one["reason"], "personal_field");
    let key = one["key"].as_str().expect("a text").to_owned();
    assert!(key.contains("http://a.example/"), "{key}");
    let order = serde_json::json!({ "key": key }).to_string();
    assert_eq!(call("POST /cache/release", &order)["released"], 1);
    get(&gateway, "/");
    let listed = call("GET /cache/quarantine", "");
    let order = serde_json::json!({ "id": listed["quarantined"][0]["id"] }).to_string();
    assert_eq!(call("POST /cache/release", &order)["released"], 1);
    for wrong in [r#"{"id": "x"}"#, r#"{"id": "x", "key": "y"}"#] {
        assert!(call("POST /cache/release", wrong)["error"].is_string());
    }
    assert_eq!(
        call("GET /cache/quarantine", "")["quarantined"][0],
        serde_json::Value::Null
    );
    assert_eq!(told(&get(&gateway, "/")).0, "MISS");
}

#[test]
fn what_visitors_send_is_not_in_the_log_of_a_quarantine() {
    let origin = Origin::always(page(&format!("X-User-ID: 17\r\n{MINUTE}"), "page"));
    let policy = "key_headers = [\"x-device\"]\nkey_cookies = [\"basket\"]";
    let gateway = in_front_of(&origin, policy);
    ask(
        &gateway,
        "GET",
        "/",
        "X-Device: s3cret\r\nCookie: basket=s3cret\r\n",
    );
    let line = gateway.wait_for_log("the quarantine", |line| line.contains("quarantined: "));
    assert!(line.contains("x-device=* basket=*"), "{line}");
    assert!(!gateway.log().lines().concat().contains("s3cret"));
}

#[test]
fn a_page_that_one_gateway_keeps_out_is_stored_by_no_other_until_it_is_released() {
    let redis = RedisServer::start();
    let count = AtomicUsize::new(0);
    // It looks personal to the first who asks only.
    let origin = Origin::with(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => page(&format!("X-User-ID: 17\r\n{MINUTE}"), "page"),
        _ => page(MINUTE, "page"),
    });
    let rest = format!("{ADMIN}\n[redis]\nnodes = [{:?}]", redis.url());
    let start = || configured(&origin, "", &rest);
    let is_kept_out = |gateway: &Gateway| told(&get(gateway, "/")).0 == "BYPASS";
    let (first, second) = (start(), start());
    assert_eq!(told(&get(&first, "/")).0, "MISS");
    let hears = |gateway: &Gateway| {
        wait_for("the quarantine to be heard of", || {
            is_kept_out(gateway).then_some(())
        });
    };
    hears(&second);
    let later = start();
    assert!(
        is_kept_out(&later),
        "it reads what it was not there to hear"
    );
    redis.command::<()>(&["FLUSHALL"]);
    wait_for("Redis to be told again", || {
        let keys: u64 = redis.command(&["HLEN", "tollgate:{purge}:quarantined"]);
        (keys == 3).then_some(())
    });
    let listed = administer(&second, "GET /cache/quarantine", "");
    assert_eq!(listed["quarantined"][0]["reason"], "personal_field");
    let order = serde_json::json!({ "key": listed["quarantined"][0]["key"] });
    let released = administer(&second, "POST /cache/release", &order.to_string());
    assert_eq!(released["released"], 1, "{released}");
    assert_eq!(released["missing"], serde_json::json!([]), "{released}");
    for gateway in [&first, &second, &later] {
        assert!(!is_kept_out(gateway));
    }
    assert!(!is_kept_out(&start()), "nor by who comes later");
}
