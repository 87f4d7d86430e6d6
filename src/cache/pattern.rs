//! Names with `*` for any text, even none: cookies and query parameters. Knows neither.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A name, or several: `sessionid`, `utm_*`, `*-session`. Case counts, as it does in cookies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

/// Why a text is no [`Pattern`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadPattern {
    #[error("a name is empty; expected one such as \"sessionid\" or \"utm_*\"")]
    Empty,
    #[error("{0:?} is longer than a name gets; expected at most {LONGEST} bytes")]
    TooLong(String),
    #[error("{0:?} is no name; expected visible ASCII without , ; = & or space")]
    Character(String),
}

const LONGEST: usize = 256;

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name_byte = |byte: u8| byte.is_ascii_graphic() && !b",;=&".contains(&byte);
        if text.is_empty() {
            Err(BadPattern::Empty)
        } else if text.len() > LONGEST {
            Err(BadPattern::TooLong(text.to_owned()))
        } else if !text.bytes().all(is_name_byte) {
            Err(BadPattern::Character(text.to_owned()))
        } else {
            Ok(Self(text.into()))
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    /// In time of at most the product of both lengths.
    pub fn matches(&self, name: &[u8]) -> bool {
        let pattern = self.0.as_bytes();
        let (mut at, mut in_name) = (0, 0);
        // Where the last `*` stands, and how much of the name it has taken: longer on each failure.
        let mut star = None;
        while in_name < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, in_name));
                    at += 1;
                }
                Some(byte) if *byte == name[in_name] => {
                    at += 1;
                    in_name += 1;
                }
                _ => {
                    let Some((star_at, taken)) = star else {
                        return false;
                    };
                    star = Some((star_at, taken + 1));
                    at = star_at + 1;
                    in_name = taken + 1;
                }
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

/// Patterns that are known to be right.
pub(super) fn known(patterns: &[&str]) -> Vec<Pattern> {
    patterns
        .iter()
        .map(|text| text.parse().expect("a pattern of ours"))
        .collect()
}

pub(super) fn any_matches(patterns: &[Pattern], name: &[u8]) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, names, others) in [
            (
                "sessionid",
                &["sessionid"][..],
                &["", "Sessionid", "sessionid2"][..],
            ),
            ("utm_*", &["utm_", "utm_source"], &["utm", "xutm_"]),
            ("*-session", &["-session", "a-session"], &["a-session2"]),
            (
                "_*_session",
                &["_a_session", "__session"],
                &["_session", "a_session"],
            ),
            ("a*b*c", &["abc", "axbxbc", "abcbc"], &["ac", "abcb"]),
            ("*", &["", "a"], &[]),
            ("**a", &["a", "ba"], &["b"]),
        ] {
            let parsed: Pattern = pattern.parse().unwrap();
            for name in names {
                assert!(parsed.matches(name.as_bytes()), "{pattern} {name}");
            }
            for name in others {
                assert!(!parsed.matches(name.as_bytes()), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn what_no_name_holds_is_refused() {
        assert_eq!("".parse::<Pattern>(), Err(BadPattern::Empty));
        for text in ["a b", "a=b", "a;b", "a,b", "a&b", "ä", "a\n"] {
            let wrong = BadPattern::Character(text.to_owned());
            assert_eq!(text.parse::<Pattern>(), Err(wrong));
        }
        assert!("x".repeat(257).parse::<Pattern>().is_err());
    }

    proptest! {
        #[test]
        fn patterns_match_as_a_regular_expression_does(
            pattern in "[ab*]{1,8}",
            name in "[ab]{0,10}",
        ) {
            let expression = format!("^{}$", pattern.replace('*', ".*"));
            let expected = regex::Regex::new(&expression).unwrap().is_match(&name);
            let parsed: Pattern = pattern.parse().unwrap();
            prop_assert_eq!(parsed.matches(name.as_bytes()), expected);
            prop_assert_eq!(parsed.to_string(), pattern);
        }
    }
}
