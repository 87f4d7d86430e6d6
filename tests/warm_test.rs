//! Pages that are asked for before visitors come.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::cache_test::{Gate, ask};
use crate::harness::client::get;
use crate::harness::gateway::{Gateway, tollgate};
use crate::harness::origin::{Origin, Reply};
use crate::harness::process::Signal;
use crate::harness::redis::RedisServer;

/// A gateway that warms its cache by these lines of `[cache.warm]`.
fn gateway(origin: &Origin, warm: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [cache.policy.pages]
        [cache.warm]
        {warm}
        [upstream.app]
        backends = ["{}"]
        [[route]]
        upstream = "app"
        cache = "pages"
        "#,
        origin.address()
    ))
}

/// The record of the end of a run.
fn wait_for_end(gateway: &Gateway) -> String {
    gateway.wait_for_log("the end of the warm-up", |line| {
        line.contains("warm-up ended")
    })
}

fn packed(text: &str) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(text.as_bytes()).expect("memory takes it");
    packer.finish().expect("memory takes it")
}

/// 200 with this body, good for a minute.
fn page(body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nCache-Control: max-age=60\r\n\r\n",
        body.len()
    );
    Reply::raw([head.as_bytes(), body].concat())
}

#[test]
fn the_first_visitor_of_a_warmed_page_is_given_what_is_stored() {
    let index = "<sitemapindex><sitemap><loc>http://test.example/more.xml.gz</loc></sitemap></sitemapindex>";
    let map = "<urlset><url><loc>http://test.example/mapped?a=1&amp;b=2</loc></url>\
               <url><loc>http://test.example/gone</loc></url></urlset>";
    let origin = Origin::with(move |request| {
        let head = request.head_text();
        match head.split(' ').nth(1).unwrap_or_default() {
            "/sitemap.xml" => page(index),
            "/more.xml.gz" => page(packed(map)),
            "/gone" => Reply::status(404, "no such page"),
            path => page(path),
        }
    });
    let gateway = gateway(
        &origin,
        r#"
        urls = ["http://test.example/named"]
        sitemaps = ["http://test.example/sitemap.xml"]
        headers = { "Accept-Language" = "de" }
        "#,
    );
    let record = wait_for_end(&gateway);
    for expected in ["\"pages\":3", "\"done\":2", "\"failed\":1"] {
        assert!(record.contains(expected), "{record}");
    }
    let asked = origin.received().len();
    for path in ["/named", "/mapped?a=1&b=2"] {
        let page = get(gateway.address(), path);
        assert_eq!(page.field("x-cache"), Some("HIT"), "{path}");
        assert_eq!(page.text(), path);
    }
    assert_eq!(origin.received().len(), asked);
    let heads = origin
        .received()
        .iter()
        .map(|request| request.head_text())
        .collect::<Vec<_>>();
    let named = heads.iter().find(|head| head.starts_with("GET /named "));
    let named = named.expect("it was asked for");
    assert!(named.contains("accept-language: de"), "{named}");
    assert!(named.contains("tollgate-warm-up"), "{named}");
}

#[test]
fn a_warm_up_spends_nobodys_quota_and_is_refused_nothing() {
    let origin = Origin::with(|_| page("page"));
    let gateway = Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [cache.policy.pages]
        [cache.warm]
        urls = ["http://a.test/1", "http://a.test/2", "http://a.test/3"]
        [limit.visitors]
        quota = "2 per hour"
        [upstream.app]
        backends = ["{}"]
        [[route]]
        upstream = "app"
        cache = "pages"
        limit = ["visitors"]
        "#,
        origin.address()
    ));
    let record = wait_for_end(&gateway);
    assert!(record.contains("\"done\":3"), "{record}");
    // The gateway asks from the address that this visitor has.
    let visits: Vec<u16> = (0..3)
        .map(|_| get(gateway.address(), "/").status())
        .collect();
    assert_eq!(visits, [200, 200, 429]);
}

/// A gateway that can be told to warm its cache, and does nothing of itself.
fn told_to(origin: &Origin) -> Gateway {
    let warm = "at_start = false\nurls = [\"http://test.example/listed\"]\n\
                [admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"a-token-of-the-test\"";
    gateway(origin, warm)
}

/// Exit code and what `tollgate cache warm` says.
fn command(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String) {
    let config = gateway.config_path();
    let config = ["--config", config.to_str().expect("UTF-8 paths")];
    let output = tollgate(&[&["cache", "warm"], arguments, &config].concat());
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code(), text)
}

#[test]
fn an_operator_has_pages_asked_for_and_learns_which_share_was_given() {
    let origin = Origin::with(|request| match request.head_text() {
        head if head.starts_with("GET /gone ") => Reply::status(404, "no such page"),
        _ => page("page"),
    });
    let gateway = told_to(&origin);
    let (code, text) = command(&gateway, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("1 of 1 pages were given"), "{text}");
    let named = [
        "--url",
        "http://test.example/named",
        "http://test.example/gone",
    ];
    let (code, text) = command(&gateway, &named);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("1 of 2 pages were given"), "{text}");
    assert!(text.contains("1 failed"), "{text}");
    for path in ["/listed", "/named"] {
        let page = get(gateway.address(), path);
        assert_eq!(page.field("x-cache"), Some("HIT"), "{path}");
    }
    let (code, text) = command(&gateway, &["--url", "named"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("is no absolute URL"), "{text}");
}

#[test]
fn one_warm_up_is_under_way_at_a_time() {
    let gate = Gate::default();
    let origin = {
        let gate = gate.clone();
        Origin::with(move |_| {
            gate.pass();
            page("page")
        })
    };
    let gateway = told_to(&origin);
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| command(&gateway, &[]));
        origin.wait_for_requests(1);
        let second = command(&gateway, &[]);
        gate.open();
        (first.join().expect("it ends"), second)
    });
    assert_eq!(first.0, Some(0), "{}", first.1);
    assert_eq!(second.0, Some(1), "{}", second.1);
    assert!(second.1.contains("a warm-up is under way"), "{}", second.1);
}

/// A gateway that remembers pages in this Redis and asks for as many at its start.
fn remembering(origin: &Origin, redis: &RedisServer, policy: &str, warm: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [redis]
        nodes = ["{}"]
        deadline = "1s"
        [cache.policy.pages]
        redis = false
        {policy}
        [admin]
        listen = "127.0.0.1:0"
        token = "a-token-of-the-test"
        [cache.warm]
        concurrency = 1
        {warm}
        [upstream.app]
        backends = ["{}"]
        [[route]]
        upstream = "app"
        cache = "pages"
        "#,
        redis.url(),
        origin.address()
    ))
}

/// Ends it in peace.
fn end(mut gateway: Gateway) {
    gateway.signal(Signal::Terminate);
    assert!(gateway.wait_for_exit().success());
}

/// The targets of the requests from this one on.
fn targets(origin: &Origin, from: usize) -> Vec<String> {
    let received = origin.received();
    let heads = received[from..].iter().map(|request| request.head_text());
    let target = |head: String| head.split(' ').nth(1).unwrap_or_default().to_owned();
    heads.map(target).collect()
}

fn visit(gateway: &Gateway, path: &str, fields: &str, times: usize) {
    for _ in 0..times {
        ask(gateway, "GET", path, fields);
    }
}

#[test]
fn the_most_hit_pages_of_the_last_run_are_stored_before_the_first_visitor_comes() {
    let redis = RedisServer::start();
    let origin = Origin::with(|request| page(request.head_text().lines().next().unwrap_or("")));
    let first = remembering(&origin, &redis, "", "popular = 3");
    wait_for_end(&first);
    for (path, hits) in [
        ("/rare", 1),
        ("/a?x=1&utm_source=mail", 3),
        ("/best", 9),
        ("/b", 5),
    ] {
        visit(&first, path, "", 1 + hits);
    }
    // Nobody in particular is to be found there, and nothing that a key has beside the URL.
    visit(&first, "/mine", "Cookie: sessionid=1\r\n", 20);
    end(first);
    let asked = origin.received().len();
    let second = remembering(&origin, &redis, "", "popular = 3");
    wait_for_end(&second);
    assert_eq!(targets(&origin, asked), ["/best", "/b", "/a?x=1"]);
    let hit = ask(&second, "GET", "/best", "");
    assert_eq!(hit.field("x-cache"), Some("HIT"));
    let (code, text) = command(&second, &["--popular", "2"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("2 of 2 pages were given, 2 of them"),
        "{text}"
    );
    // What it has asked itself is no reason to ask again.
    visit(&second, "/late", "", 1 + 2);
    end(second);
    let remembered: Vec<String> = redis.command(&["ZREVRANGE", "tollgate:popular", "0", "-1"]);
    let pages = ["/best", "/b", "/a?x=1"].map(|path| format!("http://a.example{path}"));
    assert_eq!(remembered, pages);
    let life: i64 = redis.command(&["TTL", "tollgate:popular"]);
    assert!((1..=7 * 24 * 3600).contains(&life), "{life}");
}

#[test]
fn a_page_that_is_stored_by_a_cookie_or_a_header_is_not_remembered() {
    let redis = RedisServer::start();
    let origin = Origin::with(|_| page("page"));
    let policy = "key_cookies = [\"country\"]\nkey_headers = [\"X-Device\"]";
    let gateway = remembering(&origin, &redis, policy, "popular = 10");
    for fields in ["Cookie: country=de\r\n", "X-Device: phone\r\n"] {
        visit(&gateway, "/chosen", fields, 5);
    }
    visit(&gateway, "/plain", "", 2);
    end(gateway);
    let remembered: Vec<String> = redis.command(&["ZREVRANGE", "tollgate:popular", "0", "-1"]);
    assert_eq!(remembered, ["http://a.example/plain"]);
}

#[test]
fn the_hits_of_all_gateways_count_and_what_was_asked_for_long_ago_fades() {
    let redis = RedisServer::start();
    let origin = Origin::with(|_| page("page"));
    let gateways = [(); 2].map(|()| remembering(&origin, &redis, "", "popular = 2"));
    // Four half-lives ago, of 20 hits, and one that is forgotten.
    let now: Vec<String> = redis.command(&["TIME"]);
    let now: f64 = now[0].parse().expect("seconds");
    for (hits, ago, path) in [(20.0, 4.0, "old"), (20.0, 13.0, "forgotten")] {
        let score = now / (6.0 * 3600.0) + f64::log2(hits) - ago;
        let url = format!("http://a.example/{path}");
        redis.command::<()>(&["ZADD", "tollgate:popular", &score.to_string(), &url]);
    }
    for (gateway, own) in gateways.iter().zip(["/one", "/other"]) {
        visit(gateway, "/both", "", 1 + 3);
        visit(gateway, own, "", 1 + 4);
    }
    let [one, other] = gateways;
    end(one);
    let of = |path: &str| format!("http://a.example{path}");
    let remembered =
        || -> Vec<String> { redis.command(&["ZREVRANGE", "tollgate:popular", "0", "-1"]) };
    assert_eq!(remembered(), [of("/one"), of("/both")]);
    end(other);
    assert_eq!(remembered()[0], of("/both"), "3 and 3 are more than 4");
}

#[test]
fn a_gateway_whose_redis_is_away_warms_what_it_is_told_to() {
    let redis = RedisServer::start();
    let origin = Origin::with(|_| page("page"));
    redis.pause();
    let warm = "popular = 3\nurls = [\"http://a.example/named\"]";
    let gateway = remembering(&origin, &redis, "", warm);
    let record = wait_for_end(&gateway);
    assert!(record.contains("\"done\":1"), "{record}");
    redis.resume();
}
