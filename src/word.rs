//! Words that operators choose from a list, and what is said of one that is not on it. Knows no list.

use std::cmp::Reverse;

use thiserror::Error;

/// A type whose values are words of a list.
pub trait Choice: Sized + 'static {
    /// Every word, in the order in which messages name them.
    const WORDS: &'static [&'static str];
    /// `a word: "keep", "refuse"`: what is expected where something else than a word is found.
    const EXPECTS: &'static str;
}

/// A word that is not on its list. Displays with the list, and with the word that was probably meant.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}", unknown(.what, .found, "expected", .expected))]
pub struct UnknownWord {
    what: &'static str,
    found: String,
    expected: &'static [&'static str],
}

impl UnknownWord {
    /// `what` is the kind of word, such as `log level`.
    pub fn new(what: &'static str, found: &str, expected: &'static [&'static str]) -> Self {
        Self {
            what,
            found: found.to_owned(),
            expected,
        }
    }
}

/// Declares enums of words: each variant with the word it is written as, parsed and displayed so.
macro_rules! choice {
    ($(
        $(#[$about:meta])*
        pub enum $name:ident: $what:literal {
            $(#[$first_doc:meta])* $first:ident = $first_word:literal,
            $( $(#[$doc:meta])* $variant:ident = $word:literal, )*
        }
    )+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $(#[$first_doc])* $first,
            $( $(#[$doc])* $variant, )*
        }

        impl $name {
            /// Every one, in the order of their declaration.
            pub const ALL: [Self; <Self as $crate::word::Choice>::WORDS.len()] =
                [Self::$first $(, Self::$variant)*];

            /// The word it is written as.
            pub fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_word,
                    $( Self::$variant => $word, )*
                }
            }
        }

        impl $crate::word::Choice for $name {
            const WORDS: &'static [&'static str] = &[$first_word, $($word),*];
            const EXPECTS: &'static str =
                concat!("a word: \"", $first_word, "\"" $(, ", \"", $word, "\"")*);
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::word::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $first_word => Ok(Self::$first),
                    $( $word => Ok(Self::$variant), )*
                    _ => {
                        let words = <Self as $crate::word::Choice>::WORDS;
                        Err($crate::word::UnknownWord::new($what, text, words))
                    }
                }
            }
        }
    )+};
}
pub(crate) use choice;

/// A text that may be a URL without its user and password, whatever else is wrong with it: messages repeat what they
/// find fault with.
pub fn without_credentials(text: &str) -> String {
    let Some((before, host)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    match before.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://***@{host}"),
        None => format!("***@{host}"),
    }
}

/// The known word that `found` was probably meant to be.
pub fn did_you_mean<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // 0.8 accepts one slip in a short word and a transposition anywhere, and refuses mere resemblance.
    let found = found.to_lowercase();
    known
        .into_iter()
        .map(|word| (word, word.to_lowercase()))
        .filter(|(_, lower)| strsim::damerau_levenshtein(&found, lower) <= 1 + lower.len() / 3)
        .map(|(word, lower)| (word, (strsim::jaro_winkler(&found, &lower) * 1000.0) as u32))
        .filter(|(_, score)| *score >= 800)
        .min_by_key(|(_, score)| Reverse(*score))
        .map(|(word, _)| word)
}

/// `unknown <what> "<found>"; did you mean "<word>"? <label>: <all known words>`.
pub fn unknown(what: &str, found: &str, label: &str, known: &[&str]) -> String {
    let all = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    match did_you_mean(found, known.iter().copied()) {
        Some(word) => format!("unknown {what} {found:?}; did you mean {word:?}? {label}: {all}"),
        None => format!("unknown {what} {found:?}; {label}: {all}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    choice! {
        pub enum Mode: "mode" {
            Keep = "keep",
            Refuse = "refuse",
        }
    }

    #[test]
    fn an_unknown_word_is_answered_with_the_list_and_the_word_that_was_meant() {
        assert_eq!("keep".parse(), Ok(Mode::Keep));
        assert_eq!(Mode::ALL.map(Mode::as_str), Mode::WORDS[..]);
        assert_eq!(Mode::Refuse.to_string(), "refuse");
        assert_eq!(
            "Keep".parse::<Mode>().unwrap_err().to_string(),
            r#"unknown mode "Keep"; did you mean "keep"? expected: keep, refuse"#
        );
        assert_eq!(Mode::EXPECTS, r#"a word: "keep", "refuse""#);
    }

    #[test]
    fn a_slip_is_recognised_and_a_different_word_is_not() {
        let keys = ["upstream", "redirect", "respond", "host", "headers"];
        assert_eq!(did_you_mean("upstrem", keys), Some("upstream"));
        assert_eq!(did_you_mean("header", keys), Some("headers"));
        assert_eq!(did_you_mean("timeout", keys), None);
        assert_eq!(did_you_mean("apii", ["api", "static"]), Some("api"));
    }
}
