//! Every reason why an upstream's bytes are not a response, in one table. Always a 502.

use thiserror::Error;

use super::framing::BadFraming;
use super::grammar::BadField;
use super::lines::BadLine;
use super::malformed::Malformed;

/// Why the bytes of an upstream are not a response to what was asked. The connection must be
/// discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("{}", self.detail())]
pub enum BadResponse {
    UnsolicitedBytes,
    StatusLine,
    StatusOutOfRange,
    BareLineFeed,
    BareCarriageReturn,
    ControlCharacter,
    HeadTooLarge,
    TooManyFields,
    FieldFolded,
    FieldInvalid,
    ContentLengthInvalid,
    ContentLengthRepeated,
    TransferEncodingUnsupported,
    TransferEncodingRepeated,
    TransferEncodingInHttp10,
    FramingConflict,
    FramingForbidden,
    InterimInHttp10,
    TooManyInterim,
    UnsolicitedUpgrade,
    UpgradeUnnamed,
    Body(Malformed),
    ClosedBeforeHead,
    ClosedInHead,
    ClosedInBody,
    OverlappingRequest,
}

impl BadResponse {
    /// Every variant but [`BadResponse::Body`], for tables and tests.
    pub const PLAIN: [BadResponse; 25] = [
        BadResponse::UnsolicitedBytes,
        BadResponse::StatusLine,
        BadResponse::StatusOutOfRange,
        BadResponse::BareLineFeed,
        BadResponse::BareCarriageReturn,
        BadResponse::ControlCharacter,
        BadResponse::HeadTooLarge,
        BadResponse::TooManyFields,
        BadResponse::FieldFolded,
        BadResponse::FieldInvalid,
        BadResponse::ContentLengthInvalid,
        BadResponse::ContentLengthRepeated,
        BadResponse::TransferEncodingUnsupported,
        BadResponse::TransferEncodingRepeated,
        BadResponse::TransferEncodingInHttp10,
        BadResponse::FramingConflict,
        BadResponse::FramingForbidden,
        BadResponse::InterimInHttp10,
        BadResponse::TooManyInterim,
        BadResponse::UnsolicitedUpgrade,
        BadResponse::UpgradeUnnamed,
        BadResponse::ClosedBeforeHead,
        BadResponse::ClosedInHead,
        BadResponse::ClosedInBody,
        BadResponse::OverlappingRequest,
    ];

    /// Stable snake_case code.
    pub fn reason(self) -> &'static str {
        self.row().0
    }

    /// One English sentence for the log, without a full stop.
    pub fn detail(self) -> &'static str {
        self.row().1
    }

    #[rustfmt::skip]
    fn row(self) -> (&'static str, &'static str) {
        use BadResponse::*;
        match self {
            UnsolicitedBytes => ("unsolicited_bytes", "bytes came that no request asked for"),
            StatusLine => ("status_line", "the status line is not version, status and reason"),
            StatusOutOfRange => ("status_out_of_range", "the status is outside 100 to 599"),
            BareLineFeed => ("bare_line_feed", "a line ends in a bare line feed"),
            BareCarriageReturn => ("bare_carriage_return", "a carriage return is not followed by a line feed"),
            ControlCharacter => ("control_character", "the head has a control character"),
            HeadTooLarge => ("head_too_large", "the head is larger than max_response_head"),
            TooManyFields => ("too_many_fields", "the head has too many fields"),
            FieldFolded => ("field_folded", "a field line begins with white space"),
            FieldInvalid => ("field_invalid", "a field line is not a name, a colon and a value"),
            ContentLengthInvalid => ("content_length_invalid", "Content-Length is not a plain decimal number"),
            ContentLengthRepeated => ("content_length_repeated", "there is more than one Content-Length field"),
            TransferEncodingUnsupported => ("transfer_encoding_unsupported", "the transfer coding is not chunked alone"),
            TransferEncodingRepeated => ("transfer_encoding_repeated", "there is more than one Transfer-Encoding field"),
            TransferEncodingInHttp10 => ("transfer_encoding_in_http_1_0", "an HTTP/1.0 response has a transfer coding"),
            FramingConflict => ("framing_conflict", "there are both Content-Length and Transfer-Encoding"),
            FramingForbidden => ("framing_forbidden", "a response that has no body announces one"),
            InterimInHttp10 => ("interim_in_http_1_0", "an HTTP/1.0 response has an interim status"),
            TooManyInterim => ("too_many_interim", "too many interim responses came before the final one"),
            UnsolicitedUpgrade => ("unsolicited_upgrade", "the protocol was switched though no request asked for it"),
            UpgradeUnnamed => ("upgrade_unnamed", "the protocol was switched to one that no Upgrade field names"),
            Body(bad) => (bad.reason(), bad.detail()),
            ClosedBeforeHead => ("closed_before_head", "the connection ended before a response began"),
            ClosedInHead => ("closed_in_head", "the connection ended within a response head"),
            ClosedInBody => ("closed_in_body", "the connection ended within a response body"),
            OverlappingRequest => ("overlapping_request", "a request was written before the last response ended"),
        }
    }
}

impl From<BadLine> for BadResponse {
    fn from(bad: BadLine) -> Self {
        match bad {
            BadLine::LineFeed => BadResponse::BareLineFeed,
            BadLine::CarriageReturn => BadResponse::BareCarriageReturn,
            BadLine::Control | BadLine::NotAscii => BadResponse::ControlCharacter,
            BadLine::FirstLineTooLong | BadLine::HeadTooLarge => BadResponse::HeadTooLarge,
            BadLine::TooManyFields => BadResponse::TooManyFields,
        }
    }
}

impl From<BadField> for BadResponse {
    fn from(bad: BadField) -> Self {
        match bad {
            BadField::Folded => BadResponse::FieldFolded,
            BadField::NameEmpty
            | BadField::NameInvalid
            | BadField::NameSpace
            | BadField::ColonMissing => BadResponse::FieldInvalid,
        }
    }
}

impl From<BadFraming> for BadResponse {
    fn from(bad: BadFraming) -> Self {
        match bad {
            BadFraming::LengthInvalid => BadResponse::ContentLengthInvalid,
            BadFraming::LengthRepeated => BadResponse::ContentLengthRepeated,
            BadFraming::CodingUnsupported | BadFraming::CodingInvalid => {
                BadResponse::TransferEncodingUnsupported
            }
            BadFraming::CodingRepeated => BadResponse::TransferEncodingRepeated,
            BadFraming::CodingInHttp10 => BadResponse::TransferEncodingInHttp10,
            BadFraming::Conflict => BadResponse::FramingConflict,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_is_its_own() {
        let reasons: HashSet<_> = BadResponse::PLAIN.iter().map(|bad| bad.reason()).collect();
        assert_eq!(reasons.len(), BadResponse::PLAIN.len());
    }

    #[test]
    fn a_fault_of_the_body_keeps_its_own_reason() {
        let bad = BadResponse::Body(Malformed::ChunkDataEnd);
        assert_eq!(bad.reason(), "chunk_data_end");
        assert_eq!(bad.to_string(), Malformed::ChunkDataEnd.detail());
    }
}
