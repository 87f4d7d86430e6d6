//! What a request must be to enter: framing, Host, target, limits of size.

use http::StatusCode;

/// Why a message may not enter. Each variant has a stable reason code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    BareLineFeed,
}

impl Malformed {
    /// Stable snake_case code, e.g. `bare_line_feed`.
    pub fn reason(self) -> &'static str {
        "bare_line_feed"
    }

    /// 400, 414, 421, 431, 501 or 505.
    pub fn status(self) -> StatusCode {
        StatusCode::BAD_REQUEST
    }

    /// One English sentence for the client, without a full stop.
    pub fn detail(self) -> &'static str {
        "a line ends in a bare line feed"
    }
}
