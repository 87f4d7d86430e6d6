//! What the fields of a response say once its body is encoded: it is another representation of the same
//! resource (RFC 9110 8.8.1).

use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue,
};

use super::Coding;

/// Digests of the bytes that are not sent: of the content, and of the representation, to which its coding
/// belongs (RFC 9530 2 and 3, RFC 3230, RFC 1864).
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Makes these fields those of the encoded body, of `length` bytes where that is known.
///
/// The tag becomes weak: it marks the same content, not the same bytes. Parts are given of the body as it is.
/// `Vary` is for the caller to see to, who says it of every representation.
pub fn encode(fields: &mut HeaderMap, coding: Coding, length: Option<usize>) {
    fields.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
    match length {
        Some(length) => fields.insert(CONTENT_LENGTH, HeaderValue::from(length)),
        None => fields.remove(CONTENT_LENGTH),
    };
    fields.remove(ACCEPT_RANGES);
    for digest in &DIGESTS {
        fields.remove(digest);
    }
    weaken(fields);
}

/// Makes the tag a weak one. What is no tag goes.
pub fn weaken(fields: &mut HeaderMap) {
    let Some(tag) = fields.get(ETAG) else {
        return;
    };
    let weak = match tag.as_bytes() {
        [b'W', b'/', ..] => return,
        [b'"', ..] => HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()),
        _ => {
            fields.remove(ETAG);
            return;
        }
    };
    fields.insert(
        ETAG,
        weak.expect("a value with visible letters before it is one"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn what_was_said_of_the_bytes_is_not_said_of_others() {
        let mut response = fields(&[
            ("content-type", "text/html"),
            ("content-length", "9999"),
            ("accept-ranges", "bytes"),
            ("etag", "\"v1\""),
            ("last-modified", "x"),
            ("content-digest", "sha-256=:x:"),
            ("repr-digest", "sha-256=:x:"),
            ("digest", "sha-256=x"),
            ("content-md5", "x"),
        ]);
        let encoded = [
            ("content-type", "text/html"),
            ("etag", "W/\"v1\""),
            ("last-modified", "x"),
            ("content-encoding", "br"),
        ];
        encode(&mut response, Coding::Br, None);
        assert_eq!(response, fields(&encoded));
        encode(&mut response, Coding::Br, Some(7));
        assert_eq!(response[CONTENT_LENGTH], "7");
    }

    #[test]
    fn a_tag_becomes_weak_once() {
        for (tag, expected) in [
            ("\"a\"", Some("W/\"a\"")),
            ("W/\"a\"", Some("W/\"a\"")),
            ("a", None),
        ] {
            let mut response = fields(&[("etag", tag)]);
            weaken(&mut response);
            let weak = response.get(ETAG).map(HeaderValue::as_bytes);
            assert_eq!(weak, expected.map(str::as_bytes), "{tag}");
        }
    }
}
