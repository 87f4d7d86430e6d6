//! The Django site behind the cache: a crowd of visitors, some of whom are somebody.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;

use crate::harness::apps::{Gunicorn, PASSWORD};
use crate::harness::client::Connection;
use crate::harness::gateway::Gateway;
use crate::harness::visitor::Visitor;

const ANONYMOUS: usize = 50;
/// Visitors who are there at once. Who waits for a page that is being fetched for another is no hit.
const AT_ONCE: usize = 5;
const REQUESTS_EACH: usize = 40;
/// Those with lower numbers have written comments, which everybody may read.
const USERS: std::ops::Range<usize> = 10..30;
/// As many pages as the visitors look at.
const ARTICLES: usize = 10;

/// The users that a page names, without the authors of comments.
fn named(text: &str) -> BTreeSet<&str> {
    let is_digit = |c: char| c.is_ascii_digit();
    let found = text.match_indices("user").filter_map(|(at, word)| {
        let number = &text[at + word.len()..];
        let end = number.find(|c| !is_digit(c)).unwrap_or(number.len());
        let is_author = number[..end]
            .parse::<usize>()
            .is_ok_and(|it| it < USERS.start);
        (end > 0 && !is_author).then(|| &text[at..at + word.len() + end])
    });
    found.collect()
}

/// Looks at the front page and at articles in turn; how many came from the cache.
fn look_around(address: SocketAddr, visitor: usize) -> usize {
    let mut client = Connection::open(address);
    (0..REQUESTS_EACH)
        .filter(|number| {
            let path = match (visitor + number) % (ARTICLES + 1) {
                0 => "/".to_owned(),
                article => format!("/articles/article-{article}"),
            };
            let request = format!(
                "GET {path}?utm_source=mail{number} HTTP/1.1\r\nHost: test.example\r\n\
                 Cookie: _ga=GA1.{visitor}.{number}; _gid=x{visitor}; _fbp=fb.1.{number}\r\n\r\n"
            );
            client.send(request.as_bytes()).expect("the gateway reads");
            let page = client.response().expect("a page");
            assert_eq!(page.status(), 200, "{path}");
            assert_eq!(named(&page.text()), BTreeSet::new(), "{path}");
            page.field("x-cache") == Some("HIT")
        })
        .count()
}

/// Logs in and looks at a few pages, each of which carries the user's name and no other.
fn use_account(address: SocketAddr, user: usize) {
    let name = format!("user{user}");
    let mut visitor = Visitor::new(address, "test.example");
    visitor.log_in(&name, PASSWORD);
    let article = format!("/articles/article-{}", 1 + user % ARTICLES);
    for path in ["/me", &article, "/"] {
        let page = visitor.get(path);
        let status = page.field("cache-status").unwrap_or_default();
        assert_eq!(page.field("x-cache"), Some("BYPASS"), "{path}");
        assert!(!status.contains("stored"), "{path}: {status}");
        assert_eq!(
            named(&page.text()),
            BTreeSet::from([name.as_str()]),
            "{path}"
        );
    }
}

#[test]
fn no_visitor_of_the_django_site_is_shown_the_page_of_another() {
    let site = Gunicorn::start("alpha", &[]);
    let gateway = Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [upstream.app]
        backends = ["{}"]
        [cache.policy.pages]
        ttl = "60s"
        [[route]]
        upstream = "app"
        cache = "pages"
        "#,
        site.address()
    ));
    let address = gateway.address();
    let users: Vec<_> = USERS
        .map(|user| thread::spawn(move || use_account(address, user)))
        .collect();
    let visitors: Vec<_> = (0..AT_ONCE)
        .map(|first| {
            let visitors = (first..ANONYMOUS).step_by(AT_ONCE);
            thread::spawn(move || -> usize {
                visitors.map(|visitor| look_around(address, visitor)).sum()
            })
        })
        .collect();
    for user in users {
        user.join().expect("a user has seen no other");
    }
    let hits: usize = visitors
        .into_iter()
        .map(|visitors| visitors.join().expect("no visitor has seen a user"))
        .sum();
    let asked = ANONYMOUS * REQUESTS_EACH;
    assert!(hits * 100 > asked * 95, "{hits} of {asked} from the cache");
    let log = gateway.log().lines();
    assert!(
        !log.iter().any(|line| line.contains("quarantined: ")),
        "{log:?}"
    );
    // Who comes when all have left sees nobody either.
    look_around(address, ANONYMOUS);
}
