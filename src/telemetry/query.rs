//! Which part of a query may be written down.

use crate::word::choice;

choice! {
    /// How much of a query is written.
    #[derive(Default)]
    pub enum QueryMode: "query mode" {
        /// Values of parameters that look secret are replaced by `***`.
        #[default]
        Masked = "masked",
        Off = "off",
        Full = "full",
    }
}

impl QueryMode {
    /// A URL as it may be written.
    pub fn of_url(self, url: &str) -> String {
        let Some((place, query)) = url.split_once('?') else {
            return url.to_owned();
        };
        let mut text = format!("{place}?");
        self.each_piece(query, |piece| text += piece);
        text
    }

    /// Hands out the query as it may be written, piece by piece.
    pub(super) fn each_piece(self, query: &str, mut piece: impl FnMut(&str)) {
        match self {
            Self::Off => {}
            Self::Full => piece(query),
            Self::Masked => {
                for (index, parameter) in query.split('&').enumerate() {
                    if index > 0 {
                        piece("&");
                    }
                    mask(parameter, &mut piece);
                }
            }
        }
    }
}

/// One parameter. Some applications end it at `;` and some do not: behind the name of a secret
/// everything goes, up to the `&`.
fn mask(parameter: &str, piece: &mut impl FnMut(&str)) {
    for (index, part) in parameter.split(';').enumerate() {
        if index > 0 {
            piece(";");
        }
        match part.split_once('=') {
            Some((name, _)) if looks_secret(name) => {
                piece(name);
                return piece("=***");
            }
            Some((name, value)) if nests_a_secret(value) => {
                piece(name);
                return piece("=***");
            }
            _ => piece(part),
        }
    }
}

/// Whether a parameter of this name is likely to carry a secret: it contains a tell-tale word, in
/// any case, percent-encoded or not. `author` and `zipcode` lose their values too: a log may say
/// too little, never too much.
fn looks_secret(name: &str) -> bool {
    const WORDS: [&[u8]; 16] = [
        b"token",
        b"secret",
        b"passw",
        b"passphrase",
        b"pwd",
        b"key",
        b"auth",
        b"sig",
        b"session",
        b"jwt",
        b"credential",
        b"code",
        b"otp",
        b"ticket",
        b"sid",
        b"saml",
    ];
    let plain = decoded(name);
    WORDS
        .iter()
        .any(|word| plain.windows(word.len()).any(|window| window == *word))
}

/// Whether a value is a query or a URL of its own (`next=%2Fcb%3Ftoken%3D1`) that names a secret.
fn nests_a_secret(value: &str) -> bool {
    let once = decoded(value);
    let holds = |needle: &[u8]| once.windows(needle.len()).any(|window| window == needle);
    (holds(b"=") || holds(b"%3d")) && looks_secret(value)
}

/// Percent-decoded once, in lower case; what is no encoding stays as it is.
fn decoded(text: &str) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let encoded = match (first, after) {
            (b'%', &[high, low, ..]) => hex(high).zip(hex(low)),
            _ => None,
        };
        match encoded {
            Some((high, low)) => {
                plain.push((high << 4 | low).to_ascii_lowercase());
                rest = &after[2..];
            }
            None => {
                plain.push(first.to_ascii_lowercase());
                rest = after;
            }
        }
    }
    plain
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(query: &str) -> String {
        let mut text = String::new();
        QueryMode::Masked.each_piece(query, |piece| text.push_str(piece));
        text
    }

    #[test]
    fn values_of_secret_looking_parameters_are_masked() {
        let cases = [
            ("", ""),
            ("page=2&sort=name", "page=2&sort=name"),
            ("token=abc", "token=***"),
            ("a=1&access_token=abc&b=2", "a=1&access_token=***&b=2"),
            ("API-Key=abc", "API-Key=***"),
            (
                "X-Amz-Signature=abc&X-Amz-Date=1",
                "X-Amz-Signature=***&X-Amz-Date=1",
            ),
            ("PASSWORD=a%26b", "PASSWORD=***"),
            ("p%61ssword=x", "p%61ssword=***"),
            ("to%6Ben=x", "to%6Ben=***"),
            ("code=4%2F0&state=1", "code=***&state=1"),
            ("token=abc=def", "token=***"),
            ("token=abc;def&x=1", "token=***&x=1"),
            ("a=1;token=abc;def", "a=1;token=***"),
            ("token=", "token=***"),
            ("token", "token"),
            ("next=%2Fcb%3Ftoken%3Dabc&x=1", "next=***&x=1"),
            ("next=%2Fcb%3Fpage%3D2", "next=%2Fcb%3Fpage%3D2"),
            ("next=/cb?jwt=abc", "next=***"),
            ("q=token", "q=token"),
            ("q=100%", "q=100%"),
            ("&&", "&&"),
        ];
        for (query, expected) in cases {
            assert_eq!(masked(query), expected, "of {query}");
        }
    }

    #[test]
    fn the_other_modes_write_all_or_nothing() {
        for (mode, expected) in [(QueryMode::Full, "token=abc"), (QueryMode::Off, "")] {
            let mut text = String::new();
            mode.each_piece("token=abc", |piece| text.push_str(piece));
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn an_unknown_mode_is_named_with_the_known_ones() {
        let error = "all".parse::<QueryMode>().unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"unknown query mode "all"; expected: masked, off, full"#
        );
    }

    proptest! {
        #[test]
        fn a_secret_is_never_written(
            before in "([a-z]{1,5}=[a-z0-9%;]{0,5}&){0,3}",
            name in "[a-z]{0,4}(token|PassWord|sig|api_key)[a-z]{0,4}",
            separator in "[&;]",
            after in "(&[a-z]{1,5}=[a-z0-9]{0,5}){0,3}",
        ) {
            let query = format!("{before}x=1{separator}{name}=HIDDEN;HIDDEN=HIDDEN{after}");
            prop_assert!(!masked(&query).contains("HIDDEN"));
        }

        #[test]
        fn a_query_without_secrets_is_written_as_it_came(query in "([b-df-hj-m]{1,5}=[0-9%;&]{0,9}&?){0,5}") {
            prop_assert_eq!(masked(&query), query);
        }
    }
}
