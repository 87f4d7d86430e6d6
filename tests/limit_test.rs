//! Throttling by one gateway: what clients are let do, and what they are told.

use crate::harness::client::{Connection, get};
use crate::harness::gateway::Gateway;
use crate::harness::origin::{Origin, Reply};
use crate::harness::process::Signal;
use crate::harness::response::Response;
use crate::harness::wait_for;

/// A gateway before the origin, with these lines of configuration.
fn gateway(origin: &Origin, lines: &str) -> Gateway {
    Gateway::start(&config(origin, lines))
}

fn config(origin: &Origin, lines: &str) -> String {
    format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [upstream.app]
        backends = ["{}"]
        {lines}
        "#,
        origin.address()
    )
}

fn asked(gateway: &Gateway, path: &str, fields: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test.example\r\n{fields}\r\n");
    ask(&mut Connection::open(gateway.address()), &request)
}

fn ask(client: &mut Connection, request: &str) -> Response {
    client.send(request.as_bytes()).expect("it is taken");
    client.response().expect("an answer")
}

fn statuses(gateway: &Gateway, path: &str, fields: &str, times: usize) -> Vec<u16> {
    let all = (0..times).map(|_| asked(gateway, path, fields).status());
    all.collect()
}

const THREE: &str = r#"
    [limit.api]
    quota = "3 per hour"
    key = "header:x-api-key | client-ip"
    [[route]]
    upstream = "app"
    limit = ["api"]
"#;

const BY_A_PROXY: &str = r#"trusted_proxies = ["127.0.0.1"]"#;

/// Three an hour for each address, and room for a hundred of them.
fn crowded(clients: &str, rest: &str) -> String {
    format!(
        r#"
        [admin]
        listen = "127.0.0.1:0"
        token = "0123456789abcdef-of-the-test"
        [clients]
        {clients}
        {rest}
        [limit.api]
        quota = "3 per hour"
        key = "client-ip"
        max_clients = 100
        [[route]]
        upstream = "app"
        limit = ["api"]
        "#
    )
}

/// How many buckets are remembered.
fn buckets(gateway: &Gateway) -> u64 {
    let admin = gateway.addresses().last().expect("the admin listener");
    let request = "GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer 0123456789abcdef-of-the-test\r\n\r\n";
    let page = ask(&mut Connection::open(*admin), request).text();
    let sample = "tollgate_limit_buckets{limit=\"api\"}";
    let line = page.lines().find_map(|line| line.strip_prefix(sample));
    let value = line.unwrap_or_else(|| panic!("{sample} in {page}"));
    value.trim().parse().expect("a number")
}

#[test]
fn who_has_used_its_quota_is_refused_and_told_when_to_come_back_on_a_connection_that_stays() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = gateway(&origin, THREE);
    let mut client = Connection::open(gateway.address());
    for left in (0..3).rev() {
        let response = ask(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.field("ratelimit-policy"),
            Some(r#""api";q=3;w=3600"#)
        );
        let reset = 1200 * (3 - left);
        assert_eq!(
            response.field("ratelimit"),
            Some(&*format!(r#""api";r={left};t={reset}"#))
        );
    }
    for _ in 0..2 {
        let refused = ask(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(refused.status(), 429);
        let after: u64 = refused
            .field("retry-after")
            .expect("it is told")
            .parse()
            .expect("seconds");
        assert!((1190..=1320).contains(&after), "{after}");
        let problem: serde_json::Value = refused.json();
        assert_eq!(problem["violated-policies"], serde_json::json!(["api"]));
        assert_eq!(problem["reason"], "too_many_requests");
        assert!(
            refused
                .field("ratelimit")
                .expect("it is told")
                .starts_with(r#""api";r=0;t="#)
        );
    }
    assert_eq!(origin.received().len(), 3);
}

#[test]
fn each_key_has_its_own_bucket_and_who_has_none_is_its_address() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = gateway(&origin, THREE);
    assert_eq!(
        statuses(&gateway, "/", "X-API-Key: one\r\n", 4),
        [200, 200, 200, 429]
    );
    assert_eq!(
        statuses(&gateway, "/", "X-API-Key: two\r\n", 4),
        [200, 200, 200, 429]
    );
    assert_eq!(statuses(&gateway, "/", "", 4), [200, 200, 200, 429]);
    // Whatever an untrusted client says of its address.
    assert_eq!(
        statuses(&gateway, "/", "X-Forwarded-For: 203.0.113.9\r\n", 1),
        [429]
    );
}

#[test]
fn a_new_name_for_every_request_is_no_new_bucket_for_every_request() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = gateway(&origin, THREE);
    let mut client = Connection::open(gateway.address());
    let mut admitted = 0;
    for number in 0..300 {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: made-up-{number}\r\n\r\n");
        admitted += usize::from(ask(&mut client, &request).status() == 200);
    }
    // 100 names, a few more for the time it took, and the bucket of the address.
    assert!((100..=115).contains(&admitted), "{admitted}");
}

#[test]
fn whatever_a_client_says_of_its_address_it_is_one_client() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = gateway(&origin, &crowded("", ""));
    let mut client = Connection::open(gateway.address());
    let mut admitted = 0;
    for number in 0..50 {
        // In both lanes.
        let method = ["GET", "DELETE"][number % 2];
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.{number}\r\nX-Real-IP: 203.0.113.{number}\r\n\
             Forwarded: for=203.0.113.{number}\r\nCF-Connecting-IP: 203.0.113.{number}\r\n\r\n"
        );
        admitted += usize::from(ask(&mut client, &request).status() == 200);
    }
    assert_eq!(admitted, 3);
    assert_eq!(buckets(&gateway), 1);
}

#[test]
fn what_a_client_wrote_before_its_proxy_did_is_not_its_address() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = gateway(&origin, &crowded(BY_A_PROXY, ""));
    let mut client = Connection::open(gateway.address());
    let mut admitted = 0;
    for number in 0..50 {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.{number}, 127.0.0.1, 192.0.2.7\r\n\r\n"
        );
        admitted += usize::from(ask(&mut client, &request).status() == 200);
    }
    assert_eq!(admitted, 3);
    assert_eq!(buckets(&gateway), 1);
}

#[test]
fn a_flood_of_ten_times_the_clients_that_are_remembered_ends_no_ban_and_refills_no_bucket() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = gateway(
        &origin,
        &crowded(
            BY_A_PROXY,
            "[ban.pushy]\nwhen = \"2 refusals in 1 hour\"\nfor = \"1h\"\n[bans]\nmax_clients = 100",
        ),
    );
    let mut proxy = Connection::open(gateway.address());
    let mut status = |client: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n");
        ask(&mut proxy, &request).status()
    };
    let (banned, limited) = ("192.0.2.1", "192.0.2.2");
    let mut statuses =
        |client: &str, times: usize| -> Vec<u16> { (0..times).map(|_| status(client)).collect() };
    assert_eq!(statuses(limited, 4), [200, 200, 200, 429]);
    assert_eq!(statuses(banned, 5), [200, 200, 200, 429, 429]);
    wait_for("the ban", || (statuses(banned, 1) == [403]).then_some(()));
    for number in 0..1_000 {
        let client = format!("198.51.{}.{}", 100 + number / 250, number % 250);
        assert_eq!(statuses(&client, 1), [200], "{client}");
    }
    assert_eq!(statuses(banned, 1), [403]);
    assert_eq!(statuses(limited, 1), [429]);
    assert!(
        (90..=101).contains(&buckets(&gateway)),
        "{}",
        buckets(&gateway)
    );
}

#[test]
fn the_first_quota_that_is_used_up_refuses_and_the_others_are_not_charged() {
    let origin = Origin::always(Reply::ok("ok"));
    let config = r#"
        [limit.narrow]
        quota = "1 per hour"
        key = "path"
        [limit.wide]
        quota = ["100 per hour", "3 per day"]
        [[route]]
        upstream = "app"
        limit = ["wide", "narrow"]
    "#;
    let gateway = gateway(&origin, config);
    assert_eq!(statuses(&gateway, "/a", "", 3), [200, 429, 429]);
    assert_eq!(statuses(&gateway, "/b", "", 1), [200]);
    let last = asked(&gateway, "/c", "");
    let told = last.field("ratelimit").expect("it is told");
    assert!(
        told.contains(r#""wide";r=97"#) && told.contains(r#""wide-2";r=0"#),
        "{told}"
    );
    let refused = asked(&gateway, "/d", "");
    let problem: serde_json::Value = refused.json();
    assert_eq!(problem["violated-policies"], serde_json::json!(["wide-2"]));
}

#[test]
fn a_refusal_tells_of_every_quota_and_when_the_last_of_them_lets_the_request_through() {
    let origin = Origin::always(Reply::ok("ok"));
    let config = r#"
        [limit.api]
        quota = ["2 per minute", "2 per hour"]
        [limit.site]
        quota = "100 per hour"
        key = "host"
        [[route]]
        upstream = "app"
        limit = ["api", "site"]
    "#;
    let gateway = gateway(&origin, config);
    let admitted = asked(&gateway, "/", "");
    let policies = r#""api";q=2;w=60, "api-2";q=2;w=3600, "site";q=100;w=3600"#;
    assert_eq!(admitted.field("ratelimit-policy"), Some(policies));
    assert_eq!(statuses(&gateway, "/", "", 1), [200]);

    let refused = asked(&gateway, "/", "");
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.field("ratelimit-policy"), Some(policies));
    // Not after half a minute, when the first would allow it: the second refuses it then.
    let told = |name| refused.field(name).expect("it is told");
    let after: u64 = told("retry-after").parse().expect("seconds");
    assert!((1790..=1980).contains(&after), "{after}");
    let [first, second, site] = [
        r#""api";r=0;t="#,
        r#""api-2";r=0;t="#,
        r#""site";r=98;t=72"#,
    ];
    let limits = told("ratelimit");
    assert!(
        limits.starts_with(first) && limits.contains(second) && limits.contains(site),
        "{limits}"
    );
}

#[test]
fn posts_and_http_2_and_redirects_are_counted_like_any_request() {
    let origin = Origin::always(Reply::ok("ok"));
    let config = r#"
        [limit.all]
        quota = "2 per hour"
        key = "route"
        [[route]]
        upstream = "app"
        limit = ["all"]
        [[route]]
        path = "/old"
        redirect = { to = "/new" }
        limit = ["all"]
    "#;
    let gateway = gateway(&origin, config);
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    let mut client = Connection::open(gateway.address());
    let all: Vec<u16> = (0..3).map(|_| ask(&mut client, post).status()).collect();
    assert_eq!(all, [200, 200, 429]);
    assert_eq!(statuses(&gateway, "/old", "", 3), [308, 308, 429]);
}

#[test]
fn a_shadow_counts_and_refuses_nobody() {
    let origin = Origin::always(Reply::ok("ok"));
    let config = r#"
        [admin]
        listen = "127.0.0.1:0"
        token = "a-token-for-the-test"
        [limit.tried]
        quota = "1 per hour"
        mode = "shadow"
        [[route]]
        upstream = "app"
        limit = ["tried"]
    "#;
    let gateway = gateway(&origin, config);
    assert_eq!(statuses(&gateway, "/", "", 4), [200; 4]);
    assert!(asked(&gateway, "/", "").field("ratelimit").is_none());
    let metrics =
        "GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a-token-for-the-test\r\n\r\n";
    let metrics = ask(&mut Connection::open(gateway.addresses()[1]), metrics);
    let text = String::from_utf8(metrics.body).expect("text");
    for line in [
        r#"tollgate_limit_requests_total{limit="tried",outcome="admitted"} 1"#,
        r#"tollgate_limit_requests_total{limit="tried",outcome="shadowed"} 4"#,
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn what_the_cache_answers_costs_what_the_limit_says() {
    let page =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=60\r\nX-Cost: 9\r\n\r\nhi";
    let origin = Origin::with(move |_| Reply::raw(page));
    let config = r#"
        [limit.free]
        quota = "2 per hour"
        cache_hit_cost = 0
        [cache.policy.pages]
        [[route]]
        upstream = "app"
        limit = ["free"]
        cache = "pages"
    "#;
    let gateway = gateway(&origin, config);
    assert_eq!(statuses(&gateway, "/a", "", 5), [200; 5]);
    assert_eq!(statuses(&gateway, "/b", "", 5), [200; 5]);
    let hit = asked(&gateway, "/a", "");
    assert!(
        hit.field("ratelimit")
            .expect("it is told")
            .starts_with(r#""free";r=0"#)
    );
    assert_eq!(statuses(&gateway, "/c", "", 2), [429, 429]);
    assert_eq!(statuses(&gateway, "/a", "", 1), [200]);
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn costs_are_those_of_method_and_path_and_at_last_what_the_application_says() {
    let page = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Cost: 6\r\n\r\nhi";
    let origin = Origin::with(move |_| Reply::raw(page));
    let config = r#"
        [limit.dear]
        quota = "10 per hour"
        costs = [{ path = "/search", cost = 5 }]
        key = "path"
        [limit.said]
        quota = "10 per hour"
        cost_header = "X-Cost"
        key = "host"
        [[route]]
        path = "/search"
        upstream = "app"
        limit = ["dear"]
        [[route]]
        upstream = "app"
        limit = ["said"]
    "#;
    let gateway = gateway(&origin, config);
    assert_eq!(statuses(&gateway, "/search", "", 3), [200, 200, 429]);
    // 6 of 10, then 12 of 10: the debt is paid before the next one is let in.
    assert_eq!(statuses(&gateway, "/x", "", 3), [200, 200, 429]);
}

#[test]
fn each_limit_is_told_its_cost_by_its_own_field() {
    let page = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Cost: 1\r\nX-Tokens: 900\r\n\r\nhi";
    let origin = Origin::with(move |_| Reply::raw(page));
    let config = r#"
        [limit.requests]
        quota = "10 per hour"
        cost_header = "X-Cost"
        [limit.tokens]
        quota = "1000 per hour"
        cost_header = "X-Tokens"
        [[route]]
        upstream = "app"
        limit = ["requests", "tokens"]
    "#;
    let gateway = gateway(&origin, config);
    // 900 of 1000, then 1800 of 1000.
    assert_eq!(statuses(&gateway, "/", "", 3), [200, 200, 429]);
}

#[test]
fn bytes_are_counted_when_they_have_passed() {
    let origin = Origin::always(Reply::ok(&"x".repeat(1500)));
    let config = r#"
        [limit.volume]
        quota = "2 KiB per hour"
        [[route]]
        upstream = "app"
        limit = ["volume"]
    "#;
    let gateway = gateway(&origin, config);
    let mut client = Connection::open(gateway.address());
    let all: Vec<u16> = (0..3)
        .map(|_| ask(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").status())
        .collect();
    assert_eq!(all, [200, 200, 429]);
}

#[test]
fn who_is_exempt_is_not_counted() {
    let origin = Origin::always(Reply::ok("ok"));
    let config = r#"
        [limit.api]
        quota = "1 per hour"
        exempt = { paths = ["/healthz"], headers = { "X-Internal" = "let me in" } }
        [[route]]
        upstream = "app"
        limit = ["api"]
    "#;
    let gateway = gateway(&origin, config);
    assert_eq!(statuses(&gateway, "/healthz", "", 3), [200; 3]);
    assert_eq!(
        statuses(&gateway, "/", "X-Internal: let me in\r\n", 3),
        [200; 3]
    );
    assert_eq!(
        statuses(&gateway, "/", "X-Internal: let me out\r\n", 2),
        [200, 429]
    );
}

#[test]
fn a_reload_keeps_what_was_used() {
    let origin = Origin::always(Reply::ok("ok"));
    let gateway = gateway(&origin, THREE);
    assert_eq!(get(gateway.address(), "/").status(), 200);
    assert_eq!(get(gateway.address(), "/").status(), 200);
    gateway.write_config(&config(
        &origin,
        &THREE.replace("3 per hour", "30 per hour"),
    ));
    gateway.signal(Signal::Hangup);
    gateway.wait_for_log("the reload", |line| line.contains("\"reloaded\""));
    let after = get(gateway.address(), "/");
    assert!(
        after
            .field("ratelimit")
            .expect("it is told")
            .starts_with(r#""api";r=27"#)
    );
}

/// A backend that answers when the test says so.
fn gated() -> (Origin, std::sync::mpsc::Sender<()>) {
    let (release, gate) = std::sync::mpsc::channel();
    let gate = std::sync::Mutex::new(gate);
    let origin = Origin::with(move |_| {
        // The test may end with requests still waiting.
        let _ = gate.lock().expect("no holder panics").recv();
        Reply::ok("done")
    });
    (origin, release)
}

const TWO_AT_ONCE: &str = r#"
    [limit.work]
    in_flight = 2
    key = "header:x-api-key | client-ip"
    [[route]]
    upstream = "app"
    limit = ["work"]
"#;

#[test]
fn a_client_has_as_many_requests_under_way_as_it_may_in_both_lanes() {
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (origin, release) = gated();
        let gateway = gateway(&origin, TWO_AT_ONCE);
        let mut clients: Vec<_> = (0..2).map(|_| gateway.connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(request.as_bytes()).expect("it is taken");
            origin.wait_for_requests(number + 1);
        }
        let mut third = gateway.connect();
        let refused = ask(&mut third, request);
        assert_eq!(refused.status(), 429);
        let problem: serde_json::Value = refused.json();
        assert_eq!(problem["reason"], "too_many_in_flight");
        let policy = r#""work";q=2;qu="concurrent-requests""#;
        assert_eq!(refused.field("ratelimit-policy"), Some(policy));
        assert_eq!(refused.field("ratelimit"), Some(r#""work";r=0"#));
        let other = request.replace("Host: a\r\n", "Host: a\r\nX-API-Key: another\r\n");
        let mut another = gateway.connect();
        another.send(other.as_bytes()).expect("it is taken");
        origin.wait_for_requests(3);

        for _ in 0..3 {
            release.send(()).expect("the origin lives");
        }
        for client in clients.iter_mut().chain([&mut another]) {
            assert_eq!(client.response().expect("an answer").status(), 200);
        }
        // On the connections that are kept: what is over no longer counts.
        for client in clients.iter_mut().chain([&mut third]) {
            release.send(()).expect("the origin lives");
            wait_for("a place", || {
                (ask(client, request).status() == 200).then_some(())
            });
        }
    }
}

#[test]
fn a_tunnel_counts_until_its_client_leaves() {
    const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let origin = Origin::with(|request| match request.head_text().contains("/ws") {
        true => Reply::raw(SWITCHING).then_stall(),
        false => Reply::ok("ok"),
    });
    let gateway = gateway(&origin, TWO_AT_ONCE);
    let open = || {
        let mut client = gateway.connect();
        client.send(UPGRADE.as_bytes()).expect("it is taken");
        let status = client.head().expect("a head").status;
        (client, status)
    };
    let tunnels = [open(), open()];
    assert!(tunnels.iter().all(|(_, status)| *status == 101));
    assert_eq!(open().1, 429);
    assert_eq!(asked(&gateway, "/", "").status(), 429);
    let [(gone, _), _kept] = tunnels;
    gone.reset();
    wait_for("its place", || {
        (asked(&gateway, "/", "").status() == 200).then_some(())
    });
}

#[test]
fn a_slow_download_counts_until_its_client_has_it_or_leaves() {
    let body = "x".repeat(64 << 20);
    let origin = Origin::with(move |request| match request.head_text().contains("/file") {
        true => Reply::ok(&body),
        false => Reply::ok("ok"),
    });
    let gateway = gateway(&origin, TWO_AT_ONCE);
    let download = || {
        let mut client = gateway.connect();
        let request = b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n";
        client.send(request).expect("it is taken");
        assert_eq!(client.head().expect("a head").status, 200);
        client
    };
    let (first, _second) = (download(), download());
    assert_eq!(asked(&gateway, "/", "").status(), 429);
    first.reset();
    wait_for("its place", || {
        (asked(&gateway, "/", "").status() == 200).then_some(())
    });
}

#[test]
fn a_refusal_for_a_full_quota_holds_no_place() {
    let origin = Origin::always(Reply::ok("ok"));
    let lines = THREE.replace("[limit.api]", "[limit.api]\nin_flight = 2");
    let gateway = gateway(&origin, &lines);
    let statuses = statuses(&gateway, "/", "", 6);
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429]);
    let refused = asked(&gateway, "/", "");
    let problem: serde_json::Value = refused.json();
    assert_eq!(problem["reason"], "too_many_requests");
    let policy = r#""api";q=3;w=3600, "api-in-flight";q=2;qu="concurrent-requests""#;
    assert_eq!(refused.field("ratelimit-policy"), Some(policy));
}
