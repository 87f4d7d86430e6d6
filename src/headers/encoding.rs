//! What a response says of being encoded: whether it may be, and that it depends on what the client accepts.

use http::StatusCode;

use super::policy::{Dressed, Name};
use crate::compression::Compression;
use crate::http1::grammar;

static VARY: Name = Name::of("vary", "Vary");

/// What is said in a head. Every response that may be encoded is asked, those that are sent as they are too: the lines are
/// read once, and most are passed over by the length of their name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// It is of a type that is worth it.
    is_worth_it: bool,
    /// It is known to be shorter than that.
    is_short: bool,
    is_encoded: bool,
    /// `no-transform`.
    is_fixed: bool,
    /// It is the same for everybody.
    pub is_public: bool,
    /// It is a part of a body.
    pub is_part: bool,
    /// `Vary` says that it depends on what codings the client accepts.
    pub varies: bool,
}

impl Said {
    pub fn of(response: &impl Dressed, compression: &Compression) -> Self {
        let mut said = Self::default();
        response.each_line(|name, value| {
            let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
            match name.len() {
                4 if is(b"vary") => {
                    said.varies |= lists(value, b"accept-encoding") || lists(value, b"*");
                }
                12 if is(b"content-type") => said.is_worth_it = compression.types.have(value),
                13 if is(b"cache-control") => {
                    said.is_fixed |= lists(value, b"no-transform");
                    said.is_public |= lists(value, b"public");
                }
                13 if is(b"content-range") => said.is_part = true,
                14 if is(b"content-length") => {
                    let length = grammar::decimal(value);
                    said.is_short = length.is_some_and(|length| length < compression.min_size);
                }
                16 if is(b"content-encoding") => said.is_encoded = true,
                _ => {}
            }
        });
        said
    }

    /// Whether the body may be encoded, as far as type, size, status and the application's word go.
    pub fn is_encodable(&self, status: StatusCode) -> bool {
        let has_body = status >= StatusCode::OK
            && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
        let is_free = !self.is_encoded && !self.is_fixed;
        has_body && self.is_worth_it && !self.is_short && is_free
    }
}

/// Says that a response depends on what codings its client accepts.
pub fn vary(response: &mut impl Dressed) {
    response.add(&VARY, b"Accept-Encoding");
}

fn lists(value: &[u8], wanted: &[u8]) -> bool {
    grammar::list(value).any(|member| member.eq_ignore_ascii_case(wanted))
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
            let said = Said::of(&head, &compression());
            assert_eq!(
                said.is_encodable(head.status),
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
            let said = Said::of(&response(200, &[("vary", value)]), &compression());
            assert_eq!(said.varies, expected, "{value}");
        }
    }
}
