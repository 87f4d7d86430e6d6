//! What a cache may do beyond giving whole pages again: parts, HEAD, interim responses.

use crate::cache_test::{MINUTE, ask, get, in_front_of, page, send, told};
use crate::harness::origin::{Origin, Received, Reply};

const TEXT: &str = "0123456789";

/// Gives the range that is asked for, which is `bytes=N-M` or `bytes=N-`, or all.
fn with_ranges() -> Origin {
    Origin::with(|request: &Received| {
        let range = request.fields("range").concat();
        let Some((first, last)) = range.strip_prefix("bytes=").and_then(|r| r.split_once('-'))
        else {
            return page(&format!("ETag: \"a\"\r\n{MINUTE}"), TEXT);
        };
        let first: usize = first.parse().expect("a number");
        let last: usize = last.parse().unwrap_or(TEXT.len() - 1);
        let part = &TEXT[first..=last];
        Reply::raw(format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nETag: \"a\"\r\n\
             Content-Range: bytes {first}-{last}/{}\r\n{MINUTE}\r\n{part}",
            part.len(),
            TEXT.len()
        ))
    })
}

#[test]
fn early_hints_reach_the_client_that_fills_the_cache_and_nobody_else() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=60\r\n\r\npage";
    let origin = Origin::always(Reply::raw(format!("{hints}{answer}")));
    let gateway = in_front_of(&origin, "");
    let mut client = gateway.connect();
    send(&mut client, "GET", "/", "");
    let interim = client.head().expect("hints");
    assert_eq!(interim.status, 103);
    assert_eq!(interim.field("link"), Some("</a.css>; rel=preload"));
    assert_eq!(interim.field("x-cache"), None);
    let miss = client.response().expect("the page");
    assert_eq!(told(&miss), ("MISS", "page".to_owned()));
    let hit = get(&gateway, "/");
    assert_eq!((hit.status(), told(&hit).0), (200, "HIT"));
    assert_eq!(hit.field("link"), None);
}

#[test]
fn a_stored_part_answers_what_lies_within_it_and_two_become_the_whole() {
    let origin = with_ranges();
    let gateway = in_front_of(&origin, "");
    let part = |range: &str| {
        let answer = ask(&gateway, "GET", "/", &format!("Range: bytes={range}\r\n"));
        let (word, text) = told(&answer);
        assert_eq!(answer.status(), 206, "{range}");
        (word.to_owned(), text)
    };
    let told = |word: &str, text: &str| (word.to_owned(), text.to_owned());
    assert_eq!(part("0-4"), told("MISS", "01234"));
    assert_eq!(part("0-4"), told("HIT", "01234"));
    assert_eq!(part("1-3"), told("HIT", "123"));
    assert_eq!(part("5-9"), told("MISS", "56789"));
    assert_eq!(part("3-6"), told("HIT", "3456"));
    let whole = get(&gateway, "/");
    assert_eq!((whole.status(), whole.text()), (200, TEXT.to_owned()));
    assert_eq!(whole.field("x-cache"), Some("HIT"));
    assert_eq!(whole.field("content-range"), None);
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn a_stored_beginning_is_completed_by_asking_for_the_rest() {
    let origin = with_ranges();
    let gateway = in_front_of(&origin, "");
    ask(&gateway, "GET", "/", "Range: bytes=0-6\r\n");
    let whole = get(&gateway, "/");
    assert_eq!(
        (whole.status(), told(&whole)),
        (200, ("MISS", TEXT.to_owned()))
    );
    assert_eq!(whole.field("content-range"), None);
    let rest = &origin.received()[1];
    assert_eq!(rest.fields("range"), ["bytes=7-"]);
    assert_eq!(rest.fields("if-range"), ["\"a\""]);
    assert_eq!(told(&get(&gateway, "/")), ("HIT", TEXT.to_owned()));
}

#[test]
fn a_part_that_is_not_what_it_says_or_that_nobody_asked_for_is_not_stored() {
    let origin = Origin::always(Reply::raw(format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nETag: \"a\"\r\n\
         Content-Range: bytes 4-9/10\r\n{MINUTE}\r\n01234"
    )));
    let gateway = in_front_of(&origin, "");
    for _ in 0..2 {
        let answer = ask(&gateway, "GET", "/lies", "Range: bytes=-5\r\n");
        assert_eq!(told(&answer), ("MISS", "01234".to_owned()));
    }
    for _ in 0..2 {
        let answer = get(&gateway, "/unasked");
        assert_eq!(told(&answer), ("MISS", "01234".to_owned()));
    }
}

#[test]
fn the_answer_to_a_head_renews_the_stored_page_or_outdates_it() {
    let origin = Origin::with(|request: &Received| {
        let head = request.head_text();
        let tag = if head.contains("/changed") { "b" } else { "a" };
        match head.starts_with("HEAD") {
            true => Reply::raw(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nETag: \"{tag}\"\r\nX-A: new\r\n{MINUTE}\r\n"
            )),
            false => page(
                "ETag: \"a\"\r\nX-A: old\r\nCache-Control: max-age=60\r\nAge: 59\r\n",
                "page",
            ),
        }
    });
    let gateway = in_front_of(&origin, "honour_request = true");
    for (path, given) in [("/same", "HIT"), ("/changed", "MISS")] {
        get(&gateway, path);
        let head = ask(&gateway, "HEAD", path, "Cache-Control: no-cache\r\n");
        assert_eq!(head.field("x-a"), Some("new"));
        let answer = get(&gateway, path);
        assert_eq!(told(&answer), (given, "page".to_owned()), "{path}");
        let field = if given == "HIT" { "new" } else { "old" };
        assert_eq!(answer.field("x-a"), Some(field));
    }
}
