//! Security fields: what each preset sends, and a Content-Security-Policy from its directives.
//! Knows which words are right; when a field is sent is decided in `policy`.

use std::str::FromStr;

use thiserror::Error;

/// Where a header policy starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Preset {
    /// What does not break an ordinary application.
    #[default]
    Basic,
    /// The list of the OWASP Secure Headers Project (2026-07), without the opt-in
    /// `Cross-Origin-Embedder-Policy`. Inline scripts, foreign sources and cross-origin embedding
    /// stop working until the application says otherwise in its own fields.
    Strict,
    /// Nothing is added for security and nothing of the application is removed.
    Off,
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

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(word: &str) -> Result<Self, UnknownPreset> {
        match word {
            "basic" => Ok(Self::Basic),
            "strict" => Ok(Self::Strict),
            "off" => Ok(Self::Off),
            _ => Err(UnknownPreset(word.to_owned())),
        }
    }
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("unknown preset {0:?}; expected basic, strict or off")]
pub struct UnknownPreset(pub String);

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
    #[error("unknown directive {found:?}{}", hint(.near))]
    UnknownDirective {
        found: String,
        near: Option<&'static str>,
    },
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

fn hint(near: &Option<&'static str>) -> String {
    near.map(|name| format!("; did you mean {name}?"))
        .unwrap_or_default()
}

/// Directives of CSP Level 3 and its neighbours whose values are sources.
const SOURCE_DIRECTIVES: [&str; 20] = [
    "default-src",
    "script-src",
    "script-src-elem",
    "script-src-attr",
    "style-src",
    "style-src-elem",
    "style-src-attr",
    "img-src",
    "font-src",
    "connect-src",
    "media-src",
    "object-src",
    "frame-src",
    "child-src",
    "worker-src",
    "manifest-src",
    "fenced-frame-src",
    "base-uri",
    "form-action",
    "frame-ancestors",
];
/// Directives whose values are words of their own.
const WORD_DIRECTIVES: [&str; 6] = [
    "report-uri",
    "report-to",
    "require-trusted-types-for",
    "trusted-types",
    "sandbox",
    "webrtc",
];
/// Directives that stand alone.
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

/// The value of a `Content-Security-Policy` field, directives in the order given.
///
/// Every directive name is a known one; keywords, nonces and hashes are quoted as CSP wants them;
/// `'none'` stands alone; nothing can smuggle in a second directive or policy.
pub fn content_security_policy<'a, S: AsRef<str> + 'a>(
    directives: impl IntoIterator<Item = (&'a str, &'a [S])>,
) -> Result<String, Vec<CspError>> {
    let mut problems = Vec::new();
    let mut policy = String::new();
    let mut seen = Vec::new();
    for (directive, values) in directives {
        let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
        problems.extend(check_directive(directive, &values).err());
        if seen.contains(&directive) {
            problems.push(CspError::Repeated {
                directive: directive.to_owned(),
            });
        }
        seen.push(directive);
        if !policy.is_empty() {
            policy.push_str("; ");
        }
        policy.push_str(directive);
        for value in values {
            policy.push(' ');
            policy.push_str(value);
        }
    }
    if problems.is_empty() {
        Ok(policy)
    } else {
        Err(problems)
    }
}

fn check_directive(directive: &str, values: &[&str]) -> Result<(), CspError> {
    let name = || directive.to_owned();
    if let Some(found) = values.iter().find(|value| !is_one_word(value)) {
        return Err(CspError::Separator {
            directive: name(),
            found: (*found).to_owned(),
        });
    }
    if BARE_DIRECTIVES.contains(&directive) {
        return match values.first() {
            Some(found) => Err(CspError::TakesNone {
                directive: name(),
                found: (*found).to_owned(),
            }),
            None => Ok(()),
        };
    }
    if WORD_DIRECTIVES.contains(&directive) {
        // `sandbox` and `trusted-types` alone are the strictest form.
        return match values {
            [] if !matches!(directive, "sandbox" | "trusted-types") => {
                Err(CspError::Empty { directive: name() })
            }
            _ => Ok(()),
        };
    }
    if !SOURCE_DIRECTIVES.contains(&directive) {
        return Err(CspError::UnknownDirective {
            found: name(),
            near: nearest(directive),
        });
    }
    if values.is_empty() {
        return Err(CspError::Empty { directive: name() });
    }
    if values.len() > 1
        && values
            .iter()
            .any(|value| value.eq_ignore_ascii_case("'none'"))
    {
        return Err(CspError::NoneIsAlone { directive: name() });
    }
    values
        .iter()
        .try_for_each(|source| check_source(directive, source))
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

fn nearest(found: &str) -> Option<&'static str> {
    let known = SOURCE_DIRECTIVES
        .iter()
        .chain(&WORD_DIRECTIVES)
        .chain(&BARE_DIRECTIVES);
    known
        .map(|name| (strsim::damerau_levenshtein(found, name), *name))
        .filter(|(distance, _)| *distance <= 3)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(directives: &[(&str, &[&str])]) -> Result<String, String> {
        let directives = directives.iter().map(|(name, sources)| (*name, *sources));
        content_security_policy(directives).map_err(|problems| {
            let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
            said.join("\n")
        })
    }

    #[test]
    fn a_preset_is_read_by_its_word() {
        assert_eq!("strict".parse(), Ok(Preset::Strict));
        let error = "Strict".parse::<Preset>().unwrap_err().to_string();
        assert_eq!(
            error,
            r#"unknown preset "Strict"; expected basic, strict or off"#
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
        let cases: [(&str, &[&str], &str); 11] = [
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
            (
                "default-scr",
                &["'self'"],
                r#"unknown directive "default-scr"; did you mean default-src?"#,
            ),
            (
                "whatever-else",
                &["'self'"],
                r#"unknown directive "whatever-else""#,
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
        let directives: Vec<(&str, Vec<&str>)> = value
            .split("; ")
            .map(|directive| {
                let mut words = directive.split(' ');
                (words.next().unwrap(), words.collect())
            })
            .collect();
        let built = content_security_policy(
            directives
                .iter()
                .map(|(name, sources)| (*name, &sources[..])),
        );
        assert_eq!(built.as_deref(), Ok(*value));
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
