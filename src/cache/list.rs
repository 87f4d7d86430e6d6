//! Fields as lists (RFC 9110 5.6.1): members over several lines, commas within quoted strings left
//! alone. Knows no field.

use http::HeaderMap;
use http::header::{AsHeaderName, HeaderName};

use crate::http1::grammar::trim;

/// The members of every line of a field, trimmed, empty ones left out.
pub fn members(fields: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    fields
        .get_all(name)
        .iter()
        .flat_map(|line| split(line.as_bytes()))
        .filter(|member| !member.is_empty())
}

/// Members that are tokens and may name a field.
pub fn names(fields: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = HeaderName> {
    members(fields, name).filter_map(|member| HeaderName::from_bytes(member).ok())
}

/// What commas separate in one line, trimmed, empty members included.
///
/// A quote that is never closed does not begin a quoted string, and no later one does: what follows it
/// is not hidden. Takes time in proportion to the line.
pub fn split(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    let mut has_strings = true;
    std::iter::from_fn(move || {
        let text = rest?;
        let end = member_end(text, &mut has_strings);
        rest = text.get(end + 1..);
        Some(trim(&text[..end]))
    })
}

fn member_end(text: &[u8], has_strings: &mut bool) -> usize {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at = match byte {
            b',' => return at,
            b'"' if *has_strings => quoted_end(text, at).unwrap_or_else(|| {
                // Once only: a line of quotes would be searched to its end from each of them.
                *has_strings = false;
                at + 1
            }),
            _ => at + 1,
        };
    }
    text.len()
}

/// Behind the quote that closes the one at `open`.
fn quoted_end(text: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// What a quoted string holds, its escapes resolved; `None` for any other text.
pub fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    if text.first() != Some(&b'"') || quoted_end(text, 0)? != text.len() {
        return None;
    }
    let mut inner = text[1..text.len() - 1].iter();
    let mut content = Vec::with_capacity(inner.len());
    while let Some(&byte) = inner.next() {
        content.push(match byte {
            b'\\' => *inner.next()?,
            byte => byte,
        });
    }
    Some(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(line: &str) -> Vec<&str> {
        let text = |member| std::str::from_utf8(member).unwrap();
        split(line.as_bytes()).map(text).collect()
    }

    #[test]
    fn commas_separate_except_within_quoted_strings() {
        for (line, expected) in [
            ("", vec![""]),
            ("a", vec!["a"]),
            ("a,b", vec!["a", "b"]),
            (" a\t, b ,", vec!["a", "b", ""]),
            (r#"a="x, y", b"#, vec![r#"a="x, y""#, "b"]),
            (r#""\",",b"#, vec![r#""\",""#, "b"]),
            (r#"x="a, no-store"#, vec![r#"x="a"#, "no-store"]),
            (r#"x="a\"#, vec![r#"x="a\"#]),
        ] {
            assert_eq!(pieces(line), expected, "{line}");
        }
    }

    #[test]
    fn a_line_of_unclosed_quotes_is_read_in_no_time() {
        let line = format!("\"{}", "\\\"".repeat(1 << 20));
        assert_eq!(pieces(&line), [line.as_str()]);
    }

    #[test]
    fn members_come_from_every_line() {
        let mut fields = HeaderMap::new();
        fields.append("vary", " a,, b".parse().unwrap());
        fields.append("vary", "".parse().unwrap());
        fields.append("vary", "c".parse().unwrap());
        let found: Vec<_> = members(&fields, "vary").collect();
        assert_eq!(found, [b"a", b"b", b"c"]);
    }

    #[test]
    fn only_a_whole_quoted_string_is_unquoted() {
        for (text, expected) in [
            (r#""""#, Some("")),
            (r#""a, b""#, Some("a, b")),
            (r#""a\"b\\""#, Some(r#"a"b\"#)),
            ("a", None),
            (r#"""#, None),
            (r#""a"b"#, None),
            (r#""a\""#, None),
            ("'a'", None),
            ("", None),
        ] {
            let found = unquote(text.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_but_commas_and_white_space_is_lost(line in r#"[ab",\\ ]{0,24}"#) {
            let strip = |text: &str| text.replace([',', ' '], "");
            prop_assert_eq!(strip(&pieces(&line).concat()), strip(&line));
        }
    }
}
