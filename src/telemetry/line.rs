//! How a line of the log is written: its time, and text that cannot break out of it.

use std::fmt;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Format;

/// A WARN line of the log about itself.
pub(super) fn warning(line: &mut Vec<u8>, format: Format, now: SystemTime, message: &str) {
    let time = Timestamp(now);
    match format {
        Format::Json => {
            put(
                line,
                format_args!("{{\"timestamp\":\"{time}\",\"level\":\"WARN\",\"message\":\""),
            );
            escape_json(line, message);
            line.extend_from_slice(b"\",\"target\":\"tollgate::telemetry\"}\n");
        }
        Format::Text => put(
            line,
            format_args!("{time}  WARN tollgate::telemetry: {message}\n"),
        ),
    }
}

pub(super) fn put(line: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    line.write_fmt(text).expect("memory takes every byte");
}

/// Milliseconds to the microsecond: `53.214`.
pub(super) struct Millis(pub Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

/// RFC 3339 in UTC to the microsecond, as `tracing` writes it.
pub(super) struct Timestamp(pub SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
            second / 3600,
            second / 60 % 60,
            second % 60,
            since.subsec_micros(),
        )
    }
}

/// The Gregorian date of a day since 1970-01-01. Counting years from March puts the leap day last,
/// so the months before it always have the same lengths.
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970_FROM_MARCH_0: u64 = 719_468;
    const ERA: u64 = 146_097;
    let days = days_since_1970 + DAYS_TO_1970_FROM_MARCH_0;
    let (era, day_of_era) = (days / ERA, days % ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// The inside of a JSON string.
pub fn escape_json(line: &mut Vec<u8>, text: &str) {
    let is_odd = |byte: u8| matches!(byte, b'"' | b'\\' | 0..0x20 | 0x7f);
    // Most texts have nothing of that; without early exit, so that it compiles to vector instructions.
    if !text.bytes().fold(false, |odd, byte| odd | is_odd(byte)) {
        return line.extend_from_slice(text.as_bytes());
    }
    for byte in text.bytes() {
        match byte {
            b'"' => line.extend_from_slice(br#"\""#),
            b'\\' => line.extend_from_slice(br"\\"),
            0..0x20 | 0x7f => put(line, format_args!("\\u{byte:04x}")),
            _ => line.push(byte),
        }
    }
}

/// A value without spaces or quotes is written bare, so a line splits at its spaces; a character
/// that could break that, or the line, or deceive on a terminal, is written as `\u{..}`.
pub(super) fn escape_text(line: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        match character {
            ' ' | '"' | '\\' | '\0'..='\x1f' | '\x7f'..='\u{9f}' => escape(line, character),
            // Line and paragraph separators, and what turns the direction of writing.
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                escape(line, character);
            }
            _ => line.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn escape(line: &mut Vec<u8>, character: char) {
    put(line, format_args!("{}", character.escape_unicode()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ];
        for (second, expected) in cases {
            let time = UNIX_EPOCH + Duration::from_secs(second);
            assert_eq!(Timestamp(time).to_string(), expected);
        }
    }

    #[test]
    fn text_that_would_deceive_a_terminal_is_spelled_out() {
        let mut line = Vec::new();
        escape_text(&mut line, "é\u{1b}[2J\u{202e}\u{9b}\u{2028}");
        assert_eq!(line, r"é\u{1b}[2J\u{202e}\u{9b}\u{2028}".as_bytes());
    }

    #[test]
    fn a_warning_of_the_log_looks_like_any_message() {
        let mut line = Vec::new();
        warning(&mut line, Format::Json, UNIX_EPOCH, "2 \"lines\"");
        let object: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(object["message"], "2 \"lines\"");
        line.clear();
        warning(&mut line, Format::Text, UNIX_EPOCH, "2 lines");
        let text = b"1970-01-01T00:00:00.000000Z  WARN tollgate::telemetry: 2 lines\n";
        assert_eq!(line, text);
    }
}
