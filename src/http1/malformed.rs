//! Every reason why a request may not enter, with its status, in one table.
//!
//! Both HTTP versions use it. Knows nothing of how a refusal is written.

use http::StatusCode;
use thiserror::Error;

use crate::target::{BadHost, BadPath};

/// Why a message may not enter. Each variant has a stable reason code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("{}", self.detail())]
pub enum Malformed {
    /// A TLS ClientHello where plaintext HTTP was expected.
    TlsOnPlaintext,
    /// `PRI * HTTP/2.0` where HTTP/1.x was expected.
    Http2Preface,
    EmptyLines,
    BareLineFeed,
    BareCarriageReturn,
    ControlCharacter,
    RequestLineNotAscii,
    RequestLineSpacing,
    RequestLineTooLong,
    Http09,
    MethodInvalid,
    MethodUnknown,
    MethodTunnel,
    MethodTrace,
    VersionInvalid,
    VersionUnsupported,
    TargetForm,
    TargetScheme,
    Path(BadPath),
    HeadTooLarge,
    TooManyFields,
    FieldFolded,
    FieldNameEmpty,
    FieldNameInvalid,
    FieldNameSpace,
    FieldColonMissing,
    FieldValueInvalid,
    HostMissing,
    HostRepeated,
    HostDisagrees,
    Host(BadHost),
    ContentLengthInvalid,
    ContentLengthRepeated,
    TransferEncodingUnsupported,
    TransferEncodingInvalid,
    TransferEncodingRepeated,
    TransferEncodingInHttp10,
    FramingConflict,
    ConnectionInvalid,
    ConnectionNominatesProtected,
    ExpectationUnknown,
    ConnectionFieldInHttp2,
    TeInHttp2,
    ChunkSizeInvalid,
    ChunkSizeTooLarge,
    ChunkExtensionInvalid,
    ChunkExtensionsTooLong,
    ChunkLineEnd,
    ChunkDataEnd,
    TrailerInvalid,
    TrailerForbidden,
    TrailersTooLarge,
}

impl Malformed {
    /// Every variant that carries nothing. The others are in [`BadHost::ALL`] and [`BadPath::ALL`].
    pub const PLAIN: [Malformed; 50] = [
        Malformed::TlsOnPlaintext,
        Malformed::Http2Preface,
        Malformed::EmptyLines,
        Malformed::BareLineFeed,
        Malformed::BareCarriageReturn,
        Malformed::ControlCharacter,
        Malformed::RequestLineNotAscii,
        Malformed::RequestLineSpacing,
        Malformed::RequestLineTooLong,
        Malformed::Http09,
        Malformed::MethodInvalid,
        Malformed::MethodUnknown,
        Malformed::MethodTunnel,
        Malformed::MethodTrace,
        Malformed::VersionInvalid,
        Malformed::VersionUnsupported,
        Malformed::TargetForm,
        Malformed::TargetScheme,
        Malformed::HeadTooLarge,
        Malformed::TooManyFields,
        Malformed::FieldFolded,
        Malformed::FieldNameEmpty,
        Malformed::FieldNameInvalid,
        Malformed::FieldNameSpace,
        Malformed::FieldColonMissing,
        Malformed::FieldValueInvalid,
        Malformed::HostMissing,
        Malformed::HostRepeated,
        Malformed::HostDisagrees,
        Malformed::ContentLengthInvalid,
        Malformed::ContentLengthRepeated,
        Malformed::TransferEncodingUnsupported,
        Malformed::TransferEncodingInvalid,
        Malformed::TransferEncodingRepeated,
        Malformed::TransferEncodingInHttp10,
        Malformed::FramingConflict,
        Malformed::ConnectionInvalid,
        Malformed::ConnectionNominatesProtected,
        Malformed::ExpectationUnknown,
        Malformed::ConnectionFieldInHttp2,
        Malformed::TeInHttp2,
        Malformed::ChunkSizeInvalid,
        Malformed::ChunkSizeTooLarge,
        Malformed::ChunkExtensionInvalid,
        Malformed::ChunkExtensionsTooLong,
        Malformed::ChunkLineEnd,
        Malformed::ChunkDataEnd,
        Malformed::TrailerInvalid,
        Malformed::TrailerForbidden,
        Malformed::TrailersTooLarge,
    ];

    /// Stable snake_case code, e.g. `bare_line_feed`.
    pub fn reason(self) -> &'static str {
        self.row().1
    }

    /// 400, 405, 414, 417, 431, 501 or 505.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().0).expect("the table holds valid statuses")
    }

    /// One English sentence for the client, without a full stop.
    pub fn detail(self) -> &'static str {
        self.row().2
    }

    #[rustfmt::skip]
    fn row(self) -> (u16, &'static str, &'static str) {
        use Malformed::*;
        match self {
            TlsOnPlaintext => (400, "tls_on_plaintext", "a TLS handshake was sent to a plaintext port"),
            Http2Preface => (505, "http2_preface", "HTTP/2 with prior knowledge is not spoken on this port"),
            EmptyLines => (400, "empty_lines", "too many empty lines precede the request line"),
            BareLineFeed => (400, "bare_line_feed", "a line ends in a bare line feed"),
            BareCarriageReturn => (400, "bare_carriage_return", "a carriage return is not followed by a line feed"),
            ControlCharacter => (400, "control_character", "the head has a control character"),
            RequestLineNotAscii => (400, "request_line_not_ascii", "the request line has a byte that is not ASCII"),
            RequestLineSpacing => (400, "request_line_spacing", "the request line is not method, target and version with one space between"),
            RequestLineTooLong => (414, "request_line_too_long", "the request line is longer than this server accepts"),
            Http09 => (400, "http_0_9", "the request line has no version"),
            MethodInvalid => (400, "method_invalid", "the method is not a token"),
            MethodUnknown => (501, "method_unknown", "the method is not one that this server could know"),
            MethodTunnel => (405, "method_connect", "this server opens no tunnels"),
            MethodTrace => (405, "method_trace", "this server does not echo requests"),
            VersionInvalid => (400, "version_invalid", "the version is not HTTP, a slash and two digits"),
            VersionUnsupported => (505, "version_unsupported", "the version is neither HTTP/1.1 nor HTTP/1.0"),
            TargetForm => (400, "target_form", "the target is neither a path nor an absolute http URL"),
            TargetScheme => (400, "target_scheme", "the scheme of the target is neither http nor https"),
            Path(bad) => (400, bad.reason(), bad.detail()),
            HeadTooLarge => (431, "head_too_large", "the head is larger than this server accepts"),
            TooManyFields => (431, "too_many_fields", "the head has more fields than this server accepts"),
            FieldFolded => (400, "field_folded", "a field line begins with white space"),
            FieldNameEmpty => (400, "field_name_empty", "a field has no name"),
            FieldNameInvalid => (400, "field_name_invalid", "a field name is not a token"),
            FieldNameSpace => (400, "field_name_space", "white space stands between a field name and its colon"),
            FieldColonMissing => (400, "field_colon_missing", "a field line has no colon"),
            FieldValueInvalid => (400, "field_value_invalid", "a field value has a control character"),
            HostMissing => (400, "host_missing", "the request names no host"),
            HostRepeated => (400, "host_repeated", "the request has more than one Host field"),
            HostDisagrees => (400, "host_disagrees", "the Host field and the target name different hosts"),
            Host(bad) => (400, bad.reason(), bad.detail()),
            ContentLengthInvalid => (400, "content_length_invalid", "Content-Length is not a plain decimal number"),
            ContentLengthRepeated => (400, "content_length_repeated", "the request has more than one Content-Length field"),
            TransferEncodingUnsupported => (501, "transfer_encoding_unsupported", "the only transfer coding accepted is chunked"),
            TransferEncodingInvalid => (400, "transfer_encoding_invalid", "Transfer-Encoding is not a list of codings with chunked at its end"),
            TransferEncodingRepeated => (400, "transfer_encoding_repeated", "the request has more than one Transfer-Encoding field"),
            TransferEncodingInHttp10 => (400, "transfer_encoding_in_http_1_0", "HTTP/1.0 has no transfer codings"),
            FramingConflict => (400, "framing_conflict", "the request has both Content-Length and Transfer-Encoding"),
            ConnectionInvalid => (400, "connection_invalid", "the Connection field is not a list of tokens"),
            ConnectionNominatesProtected => (400, "connection_nominates_protected", "the Connection field names a field that is not hop-by-hop"),
            ExpectationUnknown => (417, "expectation_unknown", "the only expectation known is 100-continue"),
            ConnectionFieldInHttp2 => (400, "connection_field_in_http_2", "HTTP/2 has no connection-specific fields"),
            TeInHttp2 => (400, "te_in_http_2", "in HTTP/2 the TE field may only say trailers"),
            ChunkSizeInvalid => (400, "chunk_size_invalid", "a chunk size is not a hexadecimal number"),
            ChunkSizeTooLarge => (400, "chunk_size_too_large", "a chunk size is larger than any body could be"),
            ChunkExtensionInvalid => (400, "chunk_extension_invalid", "a chunk extension is not a name and a value"),
            ChunkExtensionsTooLong => (400, "chunk_extensions_too_long", "the chunk extensions are longer than this server accepts"),
            ChunkLineEnd => (400, "chunk_line_end", "a chunk size line does not end in CR LF"),
            ChunkDataEnd => (400, "chunk_data_end", "the data of a chunk is not followed by CR LF"),
            TrailerInvalid => (400, "trailer_invalid", "a trailer is not a valid field line"),
            TrailerForbidden => (400, "trailer_forbidden", "a trailer has a name that is only allowed in the head"),
            TrailersTooLarge => (431, "trailers_too_large", "the trailers are larger than this server accepts"),
        }
    }
}

impl From<BadHost> for Malformed {
    fn from(bad: BadHost) -> Self {
        Malformed::Host(bad)
    }
}

impl From<BadPath> for Malformed {
    fn from(bad: BadPath) -> Self {
        Malformed::Path(bad)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all() -> impl Iterator<Item = Malformed> {
        let hosts = BadHost::ALL.into_iter().map(Malformed::Host);
        let paths = BadPath::ALL.into_iter().map(Malformed::Path);
        Malformed::PLAIN.into_iter().chain(hosts).chain(paths)
    }

    #[test]
    fn every_reason_is_its_own_and_snake_case() {
        let mut seen = HashSet::new();
        for malformed in all() {
            let reason = malformed.reason();
            assert!(seen.insert(reason), "{reason} twice");
            assert!(
                reason
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
                "{reason}"
            );
        }
    }

    #[test]
    fn every_status_is_one_that_blames_the_request_or_names_what_is_missing() {
        for malformed in all() {
            let status = malformed.status().as_u16();
            assert!(
                [400, 405, 414, 417, 431, 501, 505].contains(&status),
                "{malformed:?}"
            );
        }
    }

    #[test]
    fn every_detail_is_a_sentence_without_a_full_stop() {
        for malformed in all() {
            let detail = malformed.detail();
            assert!(detail.len() > 10 && !detail.ends_with('.'), "{detail}");
            assert_eq!(malformed.to_string(), detail);
        }
    }
}
