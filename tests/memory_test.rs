//! What the cache takes of the machine's memory.

use crate::harness::gateway::Gateway;
use crate::harness::origin::{Origin, Reply};
use crate::harness::stats::rss_kib;

/// Pages of 8 to 40 KiB, each of another size than those around it.
fn page(path: &str) -> Reply {
    let number: usize = path
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .expect("a number");
    let length = (8 << 10) + number * 7919 % (32 << 10);
    let lifetime = match path.starts_with("/stored/") {
        true => "max-age=3600",
        false => "no-store",
    };
    let body = "x".repeat(length);
    Reply::raw(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nCache-Control: {lifetime}\r\n\r\n{body}"
    ))
}

#[test]
fn the_configured_size_is_what_the_cache_takes() {
    let origin = Origin::with(|request| {
        let head = request.head_text();
        page(head.split(' ').nth(1).expect("a target"))
    });
    let gateway = Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [upstream.app]
        backends = ["{}"]
        [cache]
        memory = "16 MiB"
        [cache.policy.pages]
        [[route]]
        upstream = "app"
        cache = "pages"
        "#,
        origin.address()
    ));
    let visit = |kind: &str, pages: usize| {
        let mut client = gateway.connect();
        for number in 0..pages {
            let request = format!("GET /{kind}/{number} HTTP/1.1\r\nHost: a.example\r\n\r\n");
            client.send(request.as_bytes()).expect("the gateway reads");
            let response = client.response_to("GET").expect("an answer");
            assert_eq!(response.status(), 200);
        }
    };
    visit("passed", 200);
    let base = rss_kib(gateway.pid());
    visit("stored", 1500);
    let grown = rss_kib(gateway.pid()).saturating_sub(base);
    // 35 MiB came by. The rest is what a process that works longer needs: buffers, tables, a build for tests.
    assert!((12 << 10..24 << 10).contains(&grown), "{grown} KiB");
}
