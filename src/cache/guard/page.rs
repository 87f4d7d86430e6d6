//! Two fills of one key, compared: whether they differ as the pages of two visitors do.
//!
//! Only what is labelled counts - a token by the name of its field, a name by its greeting, a mail
//! address by being the only one - and only where the same label has two values. News differ too.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Read;

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use memchr::memmem;

use super::Suspicion;

/// How much of a page is compared, in bytes.
const COMPARED: usize = 256 << 10;
/// The buffer of a decoder, in bytes.
const DECODED_AT_ONCE: usize = 4 << 10;
/// How far from its name a token may stand, in bytes.
const NEAR: usize = 256;
/// The shortest text that is taken for a token.
const TOKEN: usize = 16;
/// The longest name of a visitor.
const NAME: usize = 64;

/// What gives `new` away as one visitor's page, and `old` as another's. `fields` are those of `new`.
pub fn compare(fields: &HeaderMap, old: &[u8], new: &[u8]) -> Option<Suspicion> {
    if old == new || !is_text(fields) {
        return None;
    }
    let (old, new) = (decoded(fields, old)?, decoded(fields, new)?);
    let (old, new) = (Text::of(&old), Text::of(&new));
    type Labelled = for<'t> fn(&'t Text<'t>) -> Labels<'t>;
    let kinds: [(Suspicion, Labelled); 3] = [
        (Suspicion::Token, tokens),
        (Suspicion::Greeting, greetings),
        (Suspicion::MailAddress, mail_addresses),
    ];
    let differ = |labels: Labelled| labels_differ(&labels(&old), &labels(&new));
    let (suspicion, _) = kinds.into_iter().find(|(_, labels)| differ(*labels))?;
    Some(suspicion)
}

/// The beginning of a body as it was before its coding; `None` where that is not known, or broken.
fn decoded<'b>(fields: &HeaderMap, body: &'b [u8]) -> Option<Cow<'b, [u8]>> {
    let Some(coding) = fields.get(CONTENT_ENCODING) else {
        return Some(body.into());
    };
    let decoder: Box<dyn Read> = match coding.as_bytes() {
        b"gzip" => Box::new(flate2::read::GzDecoder::new(body)),
        b"br" => Box::new(brotli::Decompressor::new(body, DECODED_AT_ONCE)),
        b"zstd" => Box::new(zstd::Decoder::new(body).ok()?),
        _ => return None,
    };
    let mut text = Vec::new();
    decoder.take(COMPARED as u64).read_to_end(&mut text).ok()?;
    Some(text.into())
}

fn is_text(fields: &HeaderMap) -> bool {
    let Some(content) = fields.get(CONTENT_TYPE) else {
        return false;
    };
    let content = content.as_bytes().to_ascii_lowercase();
    let has = |word: &str| memmem::find(&content, word.as_bytes()).is_some();
    has("html") || has("json") || has("xml") || content.starts_with(b"text/plain")
}

/// A page, and the same in lower case.
struct Text<'t> {
    text: &'t [u8],
    lower: Vec<u8>,
}

impl<'t> Text<'t> {
    fn of(page: &'t [u8]) -> Self {
        let text = &page[..page.len().min(COMPARED)];
        Self {
            text,
            lower: text.to_ascii_lowercase(),
        }
    }
}

/// What stands under each label; `None` if that is several things.
type Labels<'t> = HashMap<&'t [u8], Option<&'t [u8]>>;

fn put<'t>(labels: &mut Labels<'t>, label: &'t [u8], value: &'t [u8]) {
    match labels.entry(label) {
        Entry::Vacant(place) => {
            place.insert(Some(value));
        }
        Entry::Occupied(mut place) => {
            if *place.get() != Some(value) {
                place.insert(None);
            }
        }
    }
}

fn labels_differ(old: &Labels<'_>, new: &Labels<'_>) -> bool {
    new.iter().any(|(label, value)| {
        let before = old.get(label).copied().flatten();
        matches!((before, value), (Some(before), Some(now)) if before != *now)
    })
}

/// By what the name of a token contains.
const TOKEN_NAMES: [&str; 6] = [
    "csrf",
    "xsrf",
    "authenticity_token",
    "requestverificationtoken",
    "sessionid",
    "session_id",
];

fn tokens<'t>(page: &'t Text<'t>) -> Labels<'t> {
    let mut labels = Labels::new();
    for name in TOKEN_NAMES {
        for at in memmem::find_iter(&page.lower, name) {
            let end = at + name.len();
            if let Some(token) = token_near(page.text, at, end) {
                put(&mut labels, &page.lower[at..end], token);
            }
        }
    }
    labels
}

/// The first token in the element that the name stands in, or behind it.
fn token_near(text: &[u8], at: usize, end: usize) -> Option<&[u8]> {
    let first = at.saturating_sub(NEAR);
    let before = &text[first..at];
    let opened = memchr::memrchr2(b'<', b'>', before).filter(|open| before[*open] == b'<');
    let start = opened.map_or(at, |open| first + open);
    let rest = &text[end..text.len().min(end + NEAR)];
    let stop = end + memchr::memchr(b'>', rest).unwrap_or(rest.len());
    runs(&text[start..stop], is_of_token)
        .map(|(_, run)| run)
        .find(|run| is_token(run))
}

fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+' | b'/' | b'=')
}

/// Long, and of letters and digits: no word, no number. No path, no digest of a script.
fn is_token(run: &[u8]) -> bool {
    run.len() >= TOKEN
        && run.iter().any(u8::is_ascii_digit)
        && run.iter().any(u8::is_ascii_alphabetic)
        && !run.starts_with(b"/")
        && !run.starts_with(b"sha")
}

/// What is said to a visitor by name.
const GREETINGS: [&str; 12] = [
    "hello",
    "hi",
    "hallo",
    "hola",
    "bonjour",
    "welcome",
    "welcome back",
    "willkommen",
    "logged in as",
    "signed in as",
    "angemeldet als",
    "your account,",
];

/// What follows a greeting and is nobody's name.
const NOBODY: [&str; 12] = [
    "a", "again", "all", "and", "back", "everyone", "guest", "in", "our", "the", "there", "to",
];

fn greetings<'t>(page: &'t Text<'t>) -> Labels<'t> {
    let mut labels = Labels::new();
    for greeting in GREETINGS {
        for at in memmem::find_iter(&page.lower, greeting) {
            let end = at + greeting.len();
            let begins_word = at == 0 || !page.lower[at - 1].is_ascii_alphanumeric();
            if let Some(name) = name_behind(&page.text[end..]).filter(|_| begins_word) {
                put(&mut labels, &page.lower[at..end], name);
            }
        }
    }
    labels
}

/// The one or two words behind a greeting, if they end like a name.
fn name_behind(rest: &[u8]) -> Option<&[u8]> {
    let rest = &rest[..rest.len().min(2 * NAME)];
    let gap = rest
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b',' | b':'))
        .count();
    // As in `Hello <b>Alice</b>`.
    let opened = rest[gap..].starts_with(b"<");
    let tag = match opened {
        true => memchr::memchr(b'>', &rest[gap..])? + 1,
        false => 0,
    };
    let name = &rest[gap + tag..];
    let is_of_name =
        |byte: &u8| byte.is_ascii_alphanumeric() || !byte.is_ascii() || b" ._@'-".contains(byte);
    let length = name.iter().take_while(|byte| is_of_name(byte)).count();
    let ends = name.get(length).is_some_and(|byte| b"<!,".contains(byte));
    let name = name[..length].trim_ascii();
    let words = name.split(|byte| *byte == b' ').count();
    let first = name.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_nobody = NOBODY
        .iter()
        .any(|nobody| first.eq_ignore_ascii_case(nobody.as_bytes()));
    let is_name = gap > 0 && ends && !name.is_empty() && name.len() <= NAME && words <= 2;
    (is_name && !is_nobody).then_some(name)
}

fn mail_addresses<'t>(page: &'t Text<'t>) -> Labels<'t> {
    let mut labels = Labels::new();
    let is_of_address = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+' | b'%' | b'@')
    };
    for (at, run) in runs(page.text, is_of_address) {
        // One to write to is on everybody's page. Of several, nobody knows whose they are.
        if is_mail_address(run) && !page.text[..at].ends_with(b"mailto:") {
            put(&mut labels, b"", run);
        }
    }
    labels
}

fn is_mail_address(run: &[u8]) -> bool {
    let Some(sign) = memchr::memchr(b'@', run) else {
        return false;
    };
    let (name, host) = (&run[..sign], &run[sign + 1..]);
    let dot = memchr::memrchr(b'.', host);
    !name.is_empty()
        && !host.contains(&b'@')
        && dot.is_some_and(|dot| dot > 0 && host[dot + 1..].iter().all(u8::is_ascii_alphabetic))
}

/// The longest runs of bytes of a kind, each with where it begins.
fn runs(text: &[u8], is: impl Fn(u8) -> bool) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].iter().position(|byte| is(*byte))?;
        let length = text[start..].iter().take_while(|byte| is(**byte)).count();
        at = start + length;
        Some((start, &text[start..at]))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::cache::testing::fields;

    fn found(old: &str, new: &str) -> Option<Suspicion> {
        let html = fields(&[("content-type", "text/html; charset=utf-8")]);
        compare(&html, old.as_bytes(), new.as_bytes())
    }

    const ONE: &str = "k3J9dPq7Rz2mXw8sT5vB";
    const OTHER: &str = "Zp4nLc6Hy1fQe0gUu9aD";

    #[test]
    fn tokens_that_differ_are_of_two_visitors() {
        for page in [
            "<form><input type=\"hidden\" name=\"csrfmiddlewaretoken\" value=\"TOKEN\"></form>",
            "<input value='TOKEN' name='authenticity_token'>",
            "<meta name=\"csrf-token\" content=\"TOKEN==\">",
            "<script>window.app = {\"csrfToken\":\"TOKEN\"}</script>",
            "<a href=\"/cart?sessionid=TOKEN\">cart</a>",
        ] {
            let with = |token: &str| page.replace("TOKEN", token);
            assert_eq!(
                found(&with(ONE), &with(OTHER)),
                Some(Suspicion::Token),
                "{page}"
            );
            assert_eq!(found(&with(ONE), &with(ONE)), None);
            let with_news = format!("<p>news</p>{}", with(OTHER));
            assert_eq!(found(&with(ONE), &with_news), Some(Suspicion::Token));
        }
    }

    #[test]
    fn names_that_differ_are_of_two_visitors() {
        for page in [
            "<h1>Hello NAME</h1>",
            "<p>Hi, NAME!</p>",
            "<p>Welcome back, NAME!</p>",
            "<p>Welcome back <b class=\"user\">NAME</b></p>",
            "<nav>Logged in as NAME <a href=/>x</a></nav>",
        ] {
            let with = |name: &str| page.replace("NAME", name);
            let expected = Some(Suspicion::Greeting);
            assert_eq!(
                found(&with("alice"), &with("Bob Baker")),
                expected,
                "{page}"
            );
        }
        let with = |address: &str| format!("<p>Account: <i>{address}</i></p>");
        let expected = Some(Suspicion::MailAddress);
        assert_eq!(found(&with("a@a.example"), &with("b@b.example")), expected);
    }

    #[test]
    fn news_are_no_visitors() {
        for (old, new) in [
            ("<p>12:00:01</p>", "<p>12:00:02</p>"),
            (
                "<h1>Welcome to our summer sale</h1>",
                "<h1>Welcome to our autumn sale</h1>",
            ),
            ("<p>Hi-fi speakers</p>", "<p>Hi-fi cables</p>"),
            ("<p>This shows a thing.</p>", "<p>This shows another.</p>"),
            (
                "<script src=\"/app.3f9c1a7b2d4e5f60.js\">",
                "<script src=\"/app.a1b2c3d4e5f60718.js\">",
            ),
            (
                "<a href=\"mailto:ann@shop.example\">",
                "<a href=\"mailto:bob@shop.example\">",
            ),
            (
                "<i>ann@a.example</i>: yes <i>bob@a.example</i>: no",
                "<i>cat@a.example</i>: yes <i>dan@a.example</i>: no",
            ),
            (
                "<!-- request 0123456789abcdef0123456789abcdef -->",
                "<!-- request fedcba9876543210fedcba9876543210 -->",
            ),
            ("<h1>Hello</h1>", "<h1>Hello <b>alice</b></h1>"),
        ] {
            assert_eq!(found(old, new), None, "{old} {new}");
        }
    }

    #[test]
    fn what_is_no_text_is_not_compared() {
        let (old, new) = (b"Hello alice<", b"Hello robert<");
        let html = ("content-type", "text/html");
        for lines in [
            vec![("content-type", "image/png")],
            vec![],
            vec![html, ("content-encoding", "gzip")],
            vec![html, ("content-encoding", "unknown")],
        ] {
            assert_eq!(compare(&fields(&lines), old, new), None);
        }
    }

    #[test]
    fn pages_are_compared_as_they_were_before_their_coding() {
        let encoded = |page: &str| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            encoder.write_all(page.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let gzip = fields(&[("content-type", "text/html"), ("content-encoding", "gzip")]);
        let (old, new) = (
            encoded("<h1>Hello alice</h1>"),
            encoded("<h1>Hello bob</h1>"),
        );
        assert_eq!(compare(&gzip, &old, &new), Some(Suspicion::Greeting));
    }
}
