//! Pages that are asked for before visitors come.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::client::get;
use crate::harness::gateway::Gateway;
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
