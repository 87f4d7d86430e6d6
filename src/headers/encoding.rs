//! What a response says of being encoded: whether it may be, and that it depends on what the client accepts.

use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, VARY,
};

use super::policy::{Dressed, Name};
use crate::compression::Compression;
use crate::http1::grammar;

static VARY_NAME: Name = Name::of("vary", "Vary");

/// Whether the body may be encoded, as far as type, size, status and the application's word go.
pub fn is_encodable(response: &impl Dressed, compression: &Compression) -> bool {
    let status = response.status();
    let has_body = status >= StatusCode::OK
        && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    let mut is_worth_it = false;
    response.each(&CONTENT_TYPE, |value| {
        is_worth_it = compression.types.have(value)
    });
    if !has_body || !is_worth_it || response.has(&CONTENT_ENCODING) {
        return false;
    }
    response.each(&CONTENT_LENGTH, |value| {
        is_worth_it &= grammar::decimal(value).is_none_or(|length| length >= compression.min_size);
    });
    is_worth_it && !lists(response, &CACHE_CONTROL, b"no-transform")
}

/// Whether it is a part of a body, which is one of the body as it is.
pub fn is_part(response: &impl Dressed) -> bool {
    response.status() == StatusCode::PARTIAL_CONTENT || response.has(&CONTENT_RANGE)
}

/// Whether the application says that it is the same for everybody.
pub fn is_public(response: &impl Dressed) -> bool {
    lists(response, &CACHE_CONTROL, b"public")
}

/// Whether `Vary` says already that it depends on what codings the client accepts.
pub fn varies(response: &impl Dressed) -> bool {
    lists(response, &VARY, b"accept-encoding") || lists(response, &VARY, b"*")
}

/// Says it.
pub fn vary(response: &mut impl Dressed) {
    response.add(&VARY_NAME, b"Accept-Encoding");
}

fn lists(response: &impl Dressed, name: &HeaderName, wanted: &[u8]) -> bool {
    let mut found = false;
    response.each(name, |value| {
        found |= grammar::list(value).any(|member| member.eq_ignore_ascii_case(wanted));
    });
    found
}

#[cfg(test)]
mod tests {
    use pingora_http::ResponseHeader;

    use super::*;
    use crate::compression::media_type::MediaType;
    use crate::compression::{Coding, Levels};

    fn compression() -> Compression {
        let levels = Levels {
            br: 1,
            zstd: 1,
            gzip: 1,
        };
        let text: MediaType = "text/*".parse().unwrap();
        Compression {
            codings: vec![Coding::Gzip],
            types: [&text].into_iter().collect(),
            min_size: 100,
            personal: false,
            levels,
            stored_levels: levels,
        }
    }

    fn response(status: u16, lines: &[(&'static str, &'static str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(status, None).unwrap();
        for (name, value) in lines {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn only_what_is_worth_it_and_free_to_be_changed_is_encoded() {
        const TEXT: (&str, &str) = ("content-type", "text/html; charset=utf-8");
        for (status, lines, expected) in [
            (200, &[TEXT][..], true),
            (404, &[TEXT], true),
            (204, &[TEXT], false),
            (304, &[TEXT], false),
            (101, &[TEXT], false),
            (200, &[], false),
            (200, &[("content-type", "image/png")], false),
            (200, &[TEXT, ("content-length", "100")], true),
            (200, &[TEXT, ("content-length", "99")], false),
            (200, &[TEXT, ("content-encoding", "br")], false),
            (200, &[TEXT, ("content-encoding", "identity")], false),
            (
                200,
                &[TEXT, ("cache-control", "max-age=1, No-Transform")],
                false,
            ),
            (
                200,
                &[
                    TEXT,
                    ("cache-control", "a"),
                    ("cache-control", "no-transform"),
                ],
                false,
            ),
            (200, &[TEXT, ("cache-control", "private")], true),
        ] {
            let head = response(status, lines);
            assert_eq!(
                is_encodable(&head, &compression()),
                expected,
                "{status} {lines:?}"
            );
        }
    }

    #[test]
    fn vary_is_said_once() {
        for (value, expected) in [
            ("Cookie", false),
            ("Cookie, accept-ENCODING", true),
            ("*", true),
            ("Accept-Encoding-X", false),
        ] {
            assert_eq!(
                varies(&response(200, &[("vary", value)])),
                expected,
                "{value}"
            );
        }
    }
}
