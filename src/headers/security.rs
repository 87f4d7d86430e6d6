//! Security fields: what each preset sends, and a Content-Security-Policy from its directives.
//! Knows which words are right; when a field is sent is decided in `policy`.

use thiserror::Error;

use crate::word::{UnknownWord, choice};

choice! {
    /// Where a header policy starts from.
    #[derive(Default)]
    pub enum Preset: "preset" {
        /// What does not break an ordinary application.
        #[default]
        Basic = "basic",
        /// The list of the OWASP Secure Headers Project (2026-07), without the opt-in
        /// `Cross-Origin-Embedder-Policy`. Inline scripts, foreign sources and cross-origin embedding
        /// stop working until the application says otherwise in its own fields.
        Strict = "strict",
        /// Nothing is added for security and nothing of the application is removed.
        Off = "off",
    }
}

impl Preset {
    /// Fields sent where the application did not say, with their case on the wire.
    pub fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Basic => &BASIC,
            Self::Strict => &STRICT,
            Self::Off => &[],
        }
    }

    /// `Strict-Transport-Security` over https: one year for this host only, or, strictly, two
    /// years with all subdomains.
    pub fn hsts(self) -> Option<&'static str> {
        match self {
            Self::Basic => Some("max-age=31536000"),
            Self::Strict => Some("max-age=63072000; includeSubDomains"),
            Self::Off => None,
        }
    }

    /// Response fields that only tell an attacker what runs here.
    pub fn removed(self) -> &'static [&'static str] {
        match self {
            Self::Basic | Self::Strict => &REVEALING,
            Self::Off => &[],
        }
    }
}

const BASIC: [(&str, &str); 4] = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("X-Permitted-Cross-Domain-Policies", "none"),
];

const STRICT: [(&str, &str); 9] = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "deny"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Permitted-Cross-Domain-Policies", "none"),
    (
        "Content-Security-Policy",
        "default-src 'self'; form-action 'self'; base-uri 'self'; object-src 'none'; \
         frame-ancestors 'none'; upgrade-insecure-requests",
    ),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-DNS-Prefetch-Control", "off"),
    (
        "Permissions-Policy",
        "accelerometer=(), autoplay=(), camera=(), display-capture=(), encrypted-media=(), \
         geolocation=(), gyroscope=(), magnetometer=(), microphone=(), midi=(), payment=(), \
         screen-wake-lock=(), usb=(), xr-spatial-tracking=()",
    ),
];

const REVEALING: [&str; 9] = [
    "server",
    "x-powered-by",
    "x-generator",
    "x-aspnet-version",
    "x-aspnetmvc-version",
    "x-runtime",
    "x-version",
    "x-php-version",
    "x-powered-cms",
];

/// Why a directive of a Content-Security-Policy is not right.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CspError {
    #[error(transparent)]
    UnknownDirective(UnknownWord),
    #[error("source {found:?} of {directive} must be quoted: \"'{found}'\"")]
    Unquoted { directive: String, found: String },
    #[error("unknown keyword {found:?} of {directive}; expected {}, 'nonce-…' or 'sha256-…'", KEYWORDS.join(", "))]
    UnknownKeyword { directive: String, found: String },
    #[error(
        "source {found:?} of {directive} is empty or holds a space, comma, semicolon or control character"
    )]
    Separator { directive: String, found: String },
    #[error("{directive} takes no values, found {found:?}")]
    TakesNone { directive: String, found: String },
    #[error("'none' of {directive} stands alone")]
    NoneIsAlone { directive: String },
    #[error("{directive} is there twice; browsers would ignore the second")]
    Repeated { directive: String },
    #[error("{directive} needs a value")]
    Empty { directive: String },
}

/// The directives of CSP Level 3 and its neighbours.
pub const DIRECTIVES: &[&str] = &[
    "base-uri",
    "block-all-mixed-content",
    "child-src",
    "connect-src",
    "default-src",
    "fenced-frame-src",
    "font-src",
    "form-action",
    "frame-ancestors",
    "frame-src",
    "img-src",
    "manifest-src",
    "media-src",
    "object-src",
    "report-to",
    "report-uri",
    "require-trusted-types-for",
    "sandbox",
    "script-src",
    "script-src-attr",
    "script-src-elem",
    "style-src",
    "style-src-attr",
    "style-src-elem",
    "trusted-types",
    "upgrade-insecure-requests",
    "webrtc",
    "worker-src",
];
/// Those whose values are words of their own; the values of all others are sources.
const WORD_DIRECTIVES: [&str; 6] = [
    "report-uri",
    "report-to",
    "require-trusted-types-for",
    "trusted-types",
    "sandbox",
    "webrtc",
];
/// Those that stand alone.
const BARE_DIRECTIVES: [&str; 2] = ["upgrade-insecure-requests", "block-all-mixed-content"];

const KEYWORDS: [&str; 9] = [
    "'self'",
    "'none'",
    "'unsafe-inline'",
    "'unsafe-eval'",
    "'unsafe-hashes'",
    "'strict-dynamic'",
    "'wasm-unsafe-eval'",
    "'report-sample'",
    "'inline-speculation-rules'",
];

/// A Content-Security-Policy, right as far as it goes.
///
/// Every directive name is a known one; keywords, nonces and hashes are quoted as CSP wants them;
/// `'none'` stands alone; nothing can smuggle in a second directive or policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Csp {
    value: String,
    /// Also those that were refused, to know the second of a name.
    seen: Vec<String>,
}

impl Csp {
    /// Appends a directive with its values, or leaves the policy without it.
    pub fn push(&mut self, directive: &str, values: &[impl AsRef<str>]) -> Result<(), CspError> {
        let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
        let name = directive.to_owned();
        let repeated = self.seen.contains(&name);
        self.seen.push(name.clone());
        check_directive(directive, &values)?;
        if repeated {
            return Err(CspError::Repeated { directive: name });
        }
        if !self.value.is_empty() {
            self.value.push_str("; ");
        }
        self.value.push_str(directive);
        for value in values {
            self.value.push(' ');
            self.value.push_str(value);
        }
        Ok(())
    }

    /// The value of the field; empty if there is no directive.
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// Whether there is a directive of this name.
pub fn known_directive(directive: &str) -> Result<(), CspError> {
    match DIRECTIVES.contains(&directive) {
        true => Ok(()),
        false => Err(CspError::UnknownDirective(UnknownWord::new(
            "directive",
            directive,
            DIRECTIVES,
        ))),
    }
}

/// Whether `value` can be one of the values of `directive`.
pub fn check_value(directive: &str, value: &str) -> Result<(), CspError> {
    if !is_one_word(value) {
        return Err(CspError::Separator {
            directive: directive.to_owned(),
            found: value.to_owned(),
        });
    }
    match WORD_DIRECTIVES.contains(&directive) || BARE_DIRECTIVES.contains(&directive) {
        true => Ok(()),
        false => check_source(directive, value),
    }
}

fn check_directive(directive: &str, values: &[&str]) -> Result<(), CspError> {
    let name = || directive.to_owned();
    known_directive(directive)?;
    let none = |value: &&str| value.eq_ignore_ascii_case("'none'");
    match values {
        [] if BARE_DIRECTIVES.contains(&directive) => {}
        [found, ..] if BARE_DIRECTIVES.contains(&directive) => {
            return Err(CspError::TakesNone {
                directive: name(),
                found: (*found).to_owned(),
            });
        }
        // `sandbox` and `trusted-types` alone are the strictest form.
        [] if !matches!(directive, "sandbox" | "trusted-types") => {
            return Err(CspError::Empty { directive: name() });
        }
        [_, _, ..] if !WORD_DIRECTIVES.contains(&directive) && values.iter().any(none) => {
            return Err(CspError::NoneIsAlone { directive: name() });
        }
        _ => {}
    }
    values
        .iter()
        .try_for_each(|value| check_value(directive, value))
}

fn is_one_word(value: &str) -> bool {
    !value.is_empty()
        && value
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b",;".contains(&byte))
}

fn check_source(directive: &str, source: &str) -> Result<(), CspError> {
    let lower = source.to_ascii_lowercase();
    let is_keyword = |word: &str| {
        KEYWORDS
            .iter()
            .any(|keyword| keyword.trim_matches('\'') == word)
    };
    let is_cryptic = |word: &str| {
        ["nonce-", "sha256-", "sha384-", "sha512-"]
            .iter()
            .any(|start| {
                word.strip_prefix(start)
                    .is_some_and(|rest| !rest.is_empty())
            })
    };
    match lower
        .strip_prefix('\'')
        .and_then(|rest| rest.strip_suffix('\''))
    {
        Some(word) if is_keyword(word) || is_cryptic(word) => Ok(()),
        Some(_) => Err(CspError::UnknownKeyword {
            directive: directive.to_owned(),
            found: source.to_owned(),
        }),
        None if lower.contains('\'') => Err(CspError::UnknownKeyword {
            directive: directive.to_owned(),
            found: source.to_owned(),
        }),
        // A host could be called "self", but nobody means it.
        None if is_keyword(&lower) || is_cryptic(&lower) => Err(CspError::Unquoted {
            directive: directive.to_owned(),
            found: source.to_owned(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(directives: &[(&str, &[&str])]) -> Result<String, String> {
        let mut policy = Csp::default();
        let problems: Vec<String> = directives
            .iter()
            .filter_map(|(name, sources)| policy.push(name, sources).err())
            .map(|problem| problem.to_string())
            .collect();
        match problems.is_empty() {
            true => Ok(policy.value),
            false => Err(problems.join("\n")),
        }
    }

    #[test]
    fn a_preset_is_read_by_its_word() {
        assert_eq!("strict".parse(), Ok(Preset::Strict));
        let error = "Strict".parse::<Preset>().unwrap_err().to_string();
        assert_eq!(
            error,
            r#"unknown preset "Strict"; did you mean "strict"? expected: basic, strict, off"#
        );
    }

    #[test]
    fn directives_are_written_in_order() {
        let written = policy(&[
            ("default-src", &["'self'"]),
            ("img-src", &["'self'", "data:", "https://*.example:443/a"]),
            (
                "script-src",
                &["'nonce-cmFuZG9t'", "'sha256-YWJj='", "'strict-dynamic'"],
            ),
            ("object-src", &["'none'"]),
            ("sandbox", &[]),
            ("report-to", &["csp"]),
            ("upgrade-insecure-requests", &[]),
        ]);
        let expected = "default-src 'self'; img-src 'self' data: https://*.example:443/a; \
                        script-src 'nonce-cmFuZG9t' 'sha256-YWJj=' 'strict-dynamic'; \
                        object-src 'none'; sandbox; report-to csp; upgrade-insecure-requests";
        assert_eq!(written.as_deref(), Ok(expected));
    }

    #[test]
    fn a_wrong_directive_says_what_would_be_right() {
        let cases: [(&str, &[&str], &str); 9] = [
            (
                "default-src",
                &["self"],
                r#"source "self" of default-src must be quoted: "'self'""#,
            ),
            (
                "script-src",
                &["sha256-YWJj"],
                r#"source "sha256-YWJj" of script-src must be quoted: "'sha256-YWJj'""#,
            ),
            ("img-src", &[], "img-src needs a value"),
            ("report-uri", &[], "report-uri needs a value"),
            (
                "img-src",
                &["'none'", "data:"],
                "'none' of img-src stands alone",
            ),
            (
                "img-src",
                &["data:; script-src *"],
                r#"source "data:; script-src *" of img-src is empty or holds a space, comma, semicolon or control character"#,
            ),
            (
                "img-src",
                &[""],
                r#"source "" of img-src is empty or holds a space, comma, semicolon or control character"#,
            ),
            (
                "upgrade-insecure-requests",
                &["1"],
                r#"upgrade-insecure-requests takes no values, found "1""#,
            ),
            (
                "script-src",
                &["'unsafe-inlin'"],
                "unknown keyword \"'unsafe-inlin'\" of script-src; expected 'self', 'none', 'unsafe-inline', 'unsafe-eval', 'unsafe-hashes', 'strict-dynamic', 'wasm-unsafe-eval', 'report-sample', 'inline-speculation-rules', 'nonce-…' or 'sha256-…'",
            ),
        ];
        for (directive, sources, expected) in cases {
            assert_eq!(policy(&[(directive, sources)]), Err(expected.to_owned()));
        }
    }

    #[test]
    fn an_unknown_directive_is_answered_with_the_known_ones() {
        let all = DIRECTIVES.join(", ");
        assert_eq!(
            policy(&[("default-scr", &["'self'"])]),
            Err(format!(
                r#"unknown directive "default-scr"; did you mean "default-src"? expected: {all}"#
            ))
        );
        assert_eq!(
            policy(&[("whatever-else", &["'self'"])]),
            Err(format!(
                r#"unknown directive "whatever-else"; expected: {all}"#
            ))
        );
    }

    #[test]
    fn every_wrong_directive_is_said_at_once() {
        let problems = policy(&[
            ("img-src", &["self"]),
            ("img-src", &["data:"]),
            ("font-src", &[]),
        ]);
        let expected = "source \"self\" of img-src must be quoted: \"'self'\"\n\
                        img-src is there twice; browsers would ignore the second\n\
                        font-src needs a value";
        assert_eq!(problems, Err(expected.to_owned()));
    }

    #[test]
    fn the_strict_presets_own_policy_is_right() {
        let fields = Preset::Strict.fields();
        let (_, value) = fields
            .iter()
            .find(|(name, _)| *name == "Content-Security-Policy")
            .unwrap();
        let mut built = Csp::default();
        for directive in value.split("; ") {
            let mut words = directive.split(' ');
            let name = words.next().unwrap();
            built.push(name, &words.collect::<Vec<_>>()).unwrap();
        }
        assert_eq!(built.value(), *value);
    }

    proptest! {
        #[test]
        fn no_source_can_begin_a_directive_of_its_own(source in any::<String>()) {
            if let Ok(written) = policy(&[("img-src", &[&source])]) {
                prop_assert_eq!(written.split([';', ',']).count(), 1);
                prop_assert_eq!(written.split_ascii_whitespace().count(), 2);
            }
        }
    }
}
