//! A page that was asked for as a file, so that a cache would keep it (cache deception): its path ends
//! like that of a static file, and its content is something else.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::Suspicion;
use crate::cache::{Request, Response};

/// What is wrong with a response as the file that its path names. Errors name no file.
pub fn check(request: &Request<'_>, response: &Response<'_>) -> Option<Suspicion> {
    let kind = Kind::of_path(request.path)?;
    if !response.status.is_success() {
        return None;
    }
    let content = content_type(response.fields);
    if has_delimiter(request.path) && !content.as_deref().is_some_and(|it| kind.is_named(it)) {
        return Some(Suspicion::DeceptivePath);
    }
    let is_another = content.is_some_and(|content| kind.is_contradicted(&content));
    is_another.then_some(Suspicion::ContentType)
}

/// What the name of a static file promises.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Style,
    Script,
    Image,
    Font,
    Media,
    /// Text that programs read.
    Data,
    Document,
}

impl Kind {
    fn of_path(path: &str) -> Option<Self> {
        let (_, name) = path.rsplit_once('.')?;
        Some(match name.to_ascii_lowercase().as_str() {
            "css" => Self::Style,
            "js" | "mjs" => Self::Script,
            "png" | "jpg" | "jpeg" | "gif" | "webp" | "avif" | "svg" | "ico" | "bmp" => Self::Image,
            "woff" | "woff2" | "ttf" | "otf" | "eot" => Self::Font,
            "mp3" | "mp4" | "ogg" | "wav" | "webm" => Self::Media,
            "csv" | "json" | "map" | "txt" | "webmanifest" | "xml" => Self::Data,
            "gz" | "pdf" | "zip" => Self::Document,
            _ => return None,
        })
    }

    /// Whether a content type, in lower case, cannot be what the name promises. Servers call files by
    /// many names; a page or an answer of an interface is none of them.
    fn is_contradicted(self, content: &str) -> bool {
        let is_page = content.ends_with("html") || content.ends_with("html+xml");
        let is_json = content.ends_with("json");
        is_page || (is_json && !matches!(self, Self::Data | Self::Script))
    }

    /// Whether it says what the name promises.
    fn is_named(self, content: &str) -> bool {
        match self {
            Self::Style => content == "text/css",
            Self::Script => content.ends_with("javascript"),
            Self::Image => content.starts_with("image/"),
            Self::Font => content.contains("font"),
            Self::Media => content.starts_with("audio/") || content.starts_with("video/"),
            // An application's own answers are of these types too.
            Self::Data => false,
            Self::Document => content.ends_with("pdf") || content.ends_with("zip"),
        }
    }
}

fn content_type(fields: &HeaderMap) -> Option<String> {
    let value = fields.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or_default();
    Some(essence.trim().to_ascii_lowercase())
}

/// Whether some applications take a part of the path for something else: `;` and the encoded forms of
/// what ends a path, a segment or a text.
fn has_delimiter(path: &str) -> bool {
    // Hex digits of a canonical path are in upper case.
    const ENCODED: [&str; 6] = ["%00", "%0A", "%23", "%2F", "%3B", "%3F"];
    path.contains(';') || ENCODED.iter().any(|encoded| path.contains(encoded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::{get, response};

    fn found(path: &str, status: u16, content: &str) -> Option<Suspicion> {
        let mut asked = get(&[]);
        asked.path = path.to_owned();
        let answered = response(status, &[("content-type", content)]);
        check(&asked.head(), &answered.head())
    }

    #[test]
    fn a_page_under_the_name_of_a_file_is_no_file() {
        let page = "text/html; charset=utf-8";
        for (path, content, expected) in [
            ("/account/x.css", page, Some(Suspicion::ContentType)),
            ("/account/x.PNG", page, Some(Suspicion::ContentType)),
            ("/account/x.txt", page, Some(Suspicion::ContentType)),
            (
                "/api/me/x.css",
                "application/json",
                Some(Suspicion::ContentType),
            ),
            (
                "/api/me/x.js",
                "Application/XHTML+xml",
                Some(Suspicion::ContentType),
            ),
            ("/static/site.css", "text/css", None),
            ("/static/site.js", "text/plain", None),
            ("/static/font.woff2", "application/octet-stream", None),
            ("/static/site.js.map", "application/json", None),
            ("/feed.xml", "application/rss+xml", None),
            ("/index.html", page, None),
            ("/v1.2/page", page, None),
            ("/account", page, None),
        ] {
            assert_eq!(found(path, 200, content), expected, "{path} {content}");
        }
    }

    #[test]
    fn a_delimiter_before_the_name_of_a_file_must_bring_that_file() {
        for path in [
            "/account;x.css",
            "/account/;x.css",
            "/account%2Fx.css",
            "/account%3Bx.css",
            "/account%23x.css",
            "/account%3Fx.css",
            "/account%00x.css",
        ] {
            for content in ["text/html", "text/plain", "application/octet-stream"] {
                let expected = Some(Suspicion::DeceptivePath);
                assert_eq!(found(path, 200, content), expected, "{path} {content}");
            }
            assert_eq!(found(path, 200, "text/css"), None, "{path}");
        }
        assert_eq!(found("/a;b", 200, "text/html"), None);
        assert_eq!(found("/a%2Fb", 200, "text/html"), None);
    }

    #[test]
    fn an_error_is_no_file() {
        assert_eq!(found("/missing.css", 404, "text/html"), None);
        assert_eq!(found("/account;x.css", 404, "text/html"), None);
    }
}
