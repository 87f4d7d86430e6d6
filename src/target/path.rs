//! The path and query of a request in canonical form (RFC 3986 6.2.2), or why there is none.
//!
//! What has one meaning everywhere is rewritten: needless percent-encoding, hex case, dot segments.
//! What two programs read differently is refused. What is merely unusual stays text: `%2F`, `%252e`,
//! empty segments, `;` parameters.

use std::borrow::Cow;

use thiserror::Error;

use super::segment::{Dots, Segment, is_plain};
use crate::word::choice;

/// Why a target is refused. [`BadPath::reason`] is stable; the text is for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("{}", self.detail())]
pub enum BadPath {
    NotAbsolute,
    Fragment,
    Control,
    Character,
    Backslash,
    NotAscii,
    PercentEncoding,
    EncodedControl,
    Overlong,
    AboveRoot,
    HiddenDotSegment,
    Parameter,
}

impl BadPath {
    /// Every variant, for tables and tests.
    pub const ALL: [BadPath; 12] = [
        BadPath::NotAbsolute,
        BadPath::Fragment,
        BadPath::Control,
        BadPath::Character,
        BadPath::Backslash,
        BadPath::NotAscii,
        BadPath::PercentEncoding,
        BadPath::EncodedControl,
        BadPath::Overlong,
        BadPath::AboveRoot,
        BadPath::HiddenDotSegment,
        BadPath::Parameter,
    ];

    /// Stable snake_case code.
    pub fn reason(self) -> &'static str {
        self.row().0
    }

    /// One English sentence, without a full stop.
    pub fn detail(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> (&'static str, &'static str) {
        match self {
            BadPath::NotAbsolute => ("path_not_absolute", "the path does not begin with a slash"),
            BadPath::Fragment => ("target_fragment", "the target has a fragment"),
            BadPath::Control => (
                "target_control",
                "the target has a control character or a space",
            ),
            BadPath::Character => (
                "path_character",
                "the path has a character that must be percent-encoded",
            ),
            BadPath::Backslash => ("path_backslash", "the path has a backslash"),
            BadPath::NotAscii => (
                "target_not_ascii",
                "the target has a byte that is not ASCII",
            ),
            BadPath::PercentEncoding => (
                "path_percent_encoding",
                "a percent sign in the path is not followed by two hexadecimal digits",
            ),
            BadPath::EncodedControl => (
                "target_encoded_control",
                "the target has a percent-encoded control character",
            ),
            BadPath::Overlong => (
                "path_overlong_utf8",
                "the path has an overlong UTF-8 sequence",
            ),
            BadPath::AboveRoot => ("path_above_root", "the path climbs above its root"),
            BadPath::HiddenDotSegment => (
                "path_hidden_dot_segment",
                "the path hides a dot segment behind a parameter or an encoded separator",
            ),
            BadPath::Parameter => ("path_parameter", "path parameters are not accepted here"),
        }
    }
}

choice! {
    /// What is done with a `;` in a path segment.
    #[derive(Default)]
    pub enum PathParameters: "path_parameters mode" {
        /// `;x=1` is text and part of the segment.
        #[default]
        Keep = "keep",
        /// A path with a `;` is refused.
        Refuse = "refuse",
    }
}

/// The settings of canonicalisation; the same for a whole gateway, as every decision shares its
/// result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathRules {
    /// `//` becomes `/` before dot segments are resolved. Otherwise empty segments are text.
    pub merge_slashes: bool,
    pub parameters: PathParameters,
}

/// A canonical path and the query as it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target<'a> {
    path: Cow<'a, str>,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Canonicalises an origin-form target, `/path?query`.
    ///
    /// The path: percent-encoded unreserved characters are decoded, hex digits upper-cased, dot
    /// segments (plain or encoded) resolved, `[ ] ^ { | }` percent-encoded as browsers forget to.
    /// The query: kept byte for byte, any visible ASCII; only `#`, white space, controls, bytes
    /// above 0x7E and an encoded NUL are refused there.
    ///
    /// Applying it to its own result changes nothing. A canonical path is borrowed, not copied.
    pub fn parse(raw: &'a [u8], rules: &PathRules) -> Result<Self, BadPath> {
        let (path, query) = match memchr::memchr(b'?', raw) {
            Some(mark) => (&raw[..mark], Some(&raw[mark + 1..])),
            None => (raw, None),
        };
        let path = canonical_path(path, rules)?;
        let query = query.map(check_query).transpose()?;
        Ok(Target { path, query })
    }

    /// Canonicalises what follows the authority in an absolute-form target, where an empty path
    /// means `/` (RFC 9110 4.2.3).
    pub fn after_authority(raw: &'a [u8], rules: &PathRules) -> Result<Self, BadPath> {
        match raw {
            [] => Target::parse(b"/", rules),
            [b'?', query @ ..] => Ok(Target {
                path: Cow::Borrowed("/"),
                query: Some(check_query(query)?),
            }),
            _ => Target::parse(raw, rules),
        }
    }

    /// Begins with `/`, has no `.` or `..` segment.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What followed the first `?`; `Some("")` when nothing did.
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The path, taken out.
    pub fn into_path(self) -> Cow<'a, str> {
        self.path
    }

    /// Whether the path came as it is now, so that forwarding needs no rewrite.
    pub fn is_as_sent(&self) -> bool {
        matches!(self.path, Cow::Borrowed(_))
    }
}

fn check_query(query: &[u8]) -> Result<&str, BadPath> {
    let is_bad = |byte: u8| !matches!(byte, 0x21..=0x7e) || byte == b'#';
    if let Some(&bad) = query.iter().find(|&&byte| is_bad(byte)) {
        return Err(match bad {
            b'#' => BadPath::Fragment,
            0x80.. => BadPath::NotAscii,
            _ => BadPath::Control,
        });
    }
    if query.windows(3).any(|text| text == b"%00") {
        return Err(BadPath::EncodedControl);
    }
    Ok(std::str::from_utf8(query).expect("visible ASCII"))
}

fn canonical_path<'a>(raw: &'a [u8], rules: &PathRules) -> Result<Cow<'a, str>, BadPath> {
    let Some(b'/') = raw.first() else {
        return Err(match raw.first() {
            Some(b'#') => BadPath::Fragment,
            _ => BadPath::NotAbsolute,
        });
    };
    if is_plain(raw) {
        return Ok(Cow::Borrowed(
            std::str::from_utf8(raw).expect("plain path bytes are ASCII"),
        ));
    }
    let mut as_sent = true;
    let mut depth = 0usize;
    let mut segments = raw[1..].split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let found = Segment::read(segment, rules)?;
        let merged = rules.merge_slashes && segment.is_empty() && segments.peek().is_some();
        match found.dots {
            Dots::None if merged => as_sent = false,
            Dots::None => {
                depth += 1;
                as_sent &= found.as_sent;
            }
            Dots::One => as_sent = false,
            Dots::Two => {
                depth = depth.checked_sub(1).ok_or(BadPath::AboveRoot)?;
                as_sent = false;
            }
        }
    }
    if as_sent {
        return Ok(Cow::Borrowed(
            std::str::from_utf8(raw).expect("only ASCII segments are left"),
        ));
    }
    Ok(Cow::Owned(rewrite(raw, rules)?))
}

/// Builds the canonical path of segments that were all found valid.
fn rewrite(raw: &[u8], rules: &PathRules) -> Result<String, BadPath> {
    let mut path = String::with_capacity(raw.len() + 8);
    let mut segments = raw[1..].split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match Segment::read(segment, rules)?.dots {
            Dots::None if rules.merge_slashes && segment.is_empty() && !last => {}
            Dots::None => {
                path.push('/');
                Segment::push_canonical(&mut path, segment);
            }
            Dots::One | Dots::Two => {
                if Segment::read(segment, rules)?.dots == Dots::Two {
                    let parent = path.rfind('/').ok_or(BadPath::AboveRoot)?;
                    path.truncate(parent);
                }
                if last {
                    path.push('/');
                }
            }
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MERGE: PathRules = PathRules {
        merge_slashes: true,
        parameters: PathParameters::Keep,
    };
    const STRICT: PathRules = PathRules {
        merge_slashes: false,
        parameters: PathParameters::Refuse,
    };

    fn canonical(raw: &str) -> Result<String, BadPath> {
        canonical_by(raw, &PathRules::default())
    }

    fn canonical_by(raw: &str, rules: &PathRules) -> Result<String, BadPath> {
        Target::parse(raw.as_bytes(), rules).map(|target| target.path().to_owned())
    }

    #[test]
    fn paths_that_mean_the_same_become_the_same() {
        let cases = [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/%61%7E%2d", "/a~-"),
            ("/%c3%a9", "/%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/./a", "/a"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../c", "/a/c"),
            ("/a/%2E%2e/b", "/b"),
            ("/a/.%2e", "/"),
            ("/a/%2e", "/a/"),
            ("/...", "/..."),
            ("/.a/..b/c..", "/.a/..b/c.."),
            ("/a|b^c{d}[e]", "/a%7Cb%5Ec%7Bd%7D%5Be%5D"),
        ];
        for (raw, expected) in cases {
            assert_eq!(canonical(raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn what_is_only_unusual_stays_text() {
        for raw in [
            "/%252e%252e/a",
            "/a%2Fb",
            "/a%5Cb",
            "//a",
            "/a//b/",
            "/a;x=1/b",
            "/a;/b",
            "/a:b@c!$&'()*+,=",
            "/%C0%41",
        ] {
            let target = Target::parse(raw.as_bytes(), &PathRules::default());
            let expected = if raw == "/%C0%41" { "/%C0A" } else { raw };
            assert_eq!(target.unwrap().path(), expected);
        }
    }

    #[test]
    fn a_dot_segment_removes_an_empty_segment_too() {
        assert_eq!(canonical("//..").as_deref(), Ok("/"));
        assert_eq!(canonical("/a//../b").as_deref(), Ok("/a/b"));
        assert_eq!(canonical("//../.."), Err(BadPath::AboveRoot));
    }

    #[test]
    fn slashes_are_merged_before_dot_segments_are_resolved() {
        let cases = [
            ("//", "/"),
            ("//a", "/a"),
            ("/a///b//", "/a/b/"),
            ("/a//../b", "/b"),
            ("/a//.", "/a/"),
        ];
        for (raw, expected) in cases {
            assert_eq!(canonical_by(raw, &MERGE).as_deref(), Ok(expected), "{raw}");
        }
        assert_eq!(canonical_by("//..", &MERGE), Err(BadPath::AboveRoot));
    }

    #[test]
    fn parameters_are_refused_where_the_setting_says_so() {
        assert_eq!(canonical_by("/a;x/b", &STRICT), Err(BadPath::Parameter));
        assert_eq!(canonical_by("/a;/b", &STRICT), Err(BadPath::Parameter));
        assert_eq!(canonical_by("/a%3Bx", &STRICT).as_deref(), Ok("/a%3Bx"));
    }

    #[test]
    fn a_hidden_dot_segment_is_refused_whatever_the_settings() {
        for raw in [
            "/a/..;/b",
            "/a/.;x/b",
            "/a/%2e.;x=1",
            "/a/..%3b/b",
            "/..%2f",
            "/a/%2e%2e%5ca",
            "/a%2f../b",
            "/a%2F.",
            "/a%5c%2e%2e",
            "/a%2f..;x",
            "/a%2f.%2fb",
        ] {
            for rules in [PathRules::default(), MERGE, STRICT] {
                assert_eq!(
                    canonical_by(raw, &rules),
                    Err(BadPath::HiddenDotSegment),
                    "{raw}"
                );
            }
        }
    }

    #[test]
    fn the_query_is_kept_byte_for_byte() {
        let raw = b"/?a=%zz&b=|^{}\\\"<>`[]'%2e%2E/../?;+";
        let target = Target::parse(raw, &PathRules::default()).unwrap();
        assert_eq!(target.query().map(str::as_bytes), Some(&raw[2..]));
        assert_eq!(
            Target::parse(b"/?", &PathRules::default()).unwrap().query(),
            Some("")
        );
        assert_eq!(
            Target::parse(b"/", &PathRules::default()).unwrap().query(),
            None
        );
    }

    #[test]
    fn a_query_with_what_ends_or_splits_a_message_is_refused() {
        let cases: [(&[u8], BadPath); 6] = [
            (b"/?a#b", BadPath::Fragment),
            (b"/?a b", BadPath::Control),
            (b"/?a\r\n", BadPath::Control),
            (b"/?a\x7f", BadPath::Control),
            (b"/?\xe9", BadPath::NotAscii),
            (b"/?a%00", BadPath::EncodedControl),
        ];
        for (raw, why) in cases {
            assert_eq!(Target::parse(raw, &PathRules::default()), Err(why));
        }
    }

    #[test]
    fn an_empty_path_after_an_authority_is_the_root() {
        let after = |raw: &'static str| {
            let target = Target::after_authority(raw.as_bytes(), &PathRules::default()).unwrap();
            (target.path().to_owned(), target.query())
        };
        assert_eq!(after(""), ("/".to_owned(), None));
        assert_eq!(after("?a"), ("/".to_owned(), Some("a")));
        assert_eq!(after("/a?b"), ("/a".to_owned(), Some("b")));
    }

    #[test]
    fn a_canonical_path_is_borrowed() {
        for raw in ["/", "/a/b.html?x=y", "/a%20b/%C3%A9", "//a", "/a;b"] {
            let target = Target::parse(raw.as_bytes(), &PathRules::default()).unwrap();
            assert!(target.is_as_sent(), "{raw}");
        }
    }

    #[test]
    fn every_reason_is_its_own() {
        let mut reasons: Vec<_> = BadPath::ALL.iter().map(|bad| bad.reason()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), BadPath::ALL.len());
    }

    fn rules() -> impl Strategy<Value = PathRules> {
        any::<(bool, bool)>().prop_map(|(merge_slashes, refuse)| PathRules {
            merge_slashes,
            parameters: if refuse {
                PathParameters::Refuse
            } else {
                PathParameters::Keep
            },
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn the_canonical_form_of_a_path_is_itself(
            raw in prop_oneof![
                "(/|[.]|%2[eEfF]|%5[cC]|%25|%41|%c0|%af|;|a|\\||\\?){0,12}".prop_map(|text| format!("/{text}")),
                "/[!-~]{0,20}",
            ],
            rules in rules(),
        ) {
            let Ok(once) = Target::parse(raw.as_bytes(), &rules) else {
                return Ok(());
            };
            let twice = Target::parse(once.path().as_bytes(), &rules);
            prop_assert_eq!(twice.as_ref().map(Target::path), Ok(once.path()));
            prop_assert!(twice.unwrap().is_as_sent());

            let path = once.path();
            prop_assert!(path.starts_with('/'));
            prop_assert!(path.bytes().all(|byte| matches!(byte, 0x21..=0x7e)));
            prop_assert!(!path.split('/').any(|segment| segment == "." || segment == ".."));
            prop_assert!(!rules.merge_slashes || !path.contains("//"));
            prop_assert_eq!(once.is_as_sent(), raw.split('?').next() == Some(path));

            // Nobody who decodes once more, or splits at what is encoded, climbs either.
            let decoded = path.to_ascii_lowercase().replace("%2f", "/").replace("%5c", "/");
            let dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
            prop_assert!(!decoded.split('/').any(dots), "{}", path);
        }

        #[test]
        fn no_bytes_make_path_parsing_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..40), rules in rules(),
        ) {
            let _ = Target::parse(&[b"/", bytes.as_slice()].concat(), &rules);
            let _ = Target::after_authority(&bytes, &rules);
        }
    }
}
