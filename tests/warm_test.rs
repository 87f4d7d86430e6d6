//! Pages that are asked for before visitors come.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::cache_test::Gate;
use crate::harness::client::get;
use crate::harness::gateway::{Gateway, tollgate};
use crate::harness::origin::{Origin, Reply};

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
