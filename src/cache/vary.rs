//! Which requests one stored response answers (RFC 9111 4.1): the fields that `Vary` names, in a form
//! in which equal meaning is equal bytes.

use std::fmt;

use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_LANGUAGE, COOKIE, HeaderName, VARY};

use super::cookies::{self, Kind};
use super::frame::{Digest, Frame};
use super::list;
use super::pattern::{Pattern, any_matches};
use super::policy::Policy;
use super::preference::{self, Preferences};

/// The request fields that a response depends on, in alphabetic order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vary(Box<[HeaderName]>);

/// The values of those fields in one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant(Box<[u8]>);

impl Variant {
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The variant of these [`bytes`](Self::bytes).
    pub(super) fn read(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

/// The response depends on cookies, and the request has one of which nobody said that pages depend on
/// it, nor that they do not. It is the application's to answer, and the answer is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnnamedCookie;

impl Vary {
    /// `None` if any line has a `*`: then no request is like another. What is no field name is named
    /// by no request either.
    pub fn parse(response: &HeaderMap) -> Option<Self> {
        if list::members(response, VARY).any(|member| member == b"*") {
            return None;
        }
        Some(Self::on(list::names(response, VARY)))
    }

    fn on(names: impl Iterator<Item = HeaderName>) -> Self {
        let mut names: Vec<_> = names.collect();
        names.sort_by(|a: &HeaderName, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Self(names.into())
    }

    /// What [`Vary`]'s text stands for; `None` if it is no such text.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let names = text.split(|byte| *byte == b',');
        let names = names.map(|name| HeaderName::from_bytes(name).ok());
        let names: Option<Vec<_>> = names.collect();
        Some(Self::on(names?.into_iter()))
    }

    /// Whether every request is answered by the same response.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn names(&self) -> &[HeaderName] {
        &self.0
    }

    /// Where the answer to a request stands among its variants.
    pub fn variant(&self, request: &HeaderMap, policy: &Policy) -> Result<Variant, UnnamedCookie> {
        self.select(request, policy, None)
    }

    /// A second place for a response in one language: where the requests look whose favourite it is.
    /// An application that has a page in that language gives it to them, whatever else they accept.
    pub fn variant_of_response(
        &self,
        request: &HeaderMap,
        response: &HeaderMap,
        policy: &Policy,
    ) -> Option<Variant> {
        let mut languages = list::members(response, CONTENT_LANGUAGE);
        let language = languages.next().filter(|_| languages.next().is_none())?;
        self.in_language(request, policy, language)
    }

    /// Where a request looks that found nothing at [`Vary::variant`].
    pub fn variant_of_favourite(&self, request: &HeaderMap, policy: &Policy) -> Option<Variant> {
        let language = preference::favourite(request, ACCEPT_LANGUAGE)?;
        self.in_language(request, policy, language)
    }

    fn in_language(
        &self,
        request: &HeaderMap,
        policy: &Policy,
        language: &[u8],
    ) -> Option<Variant> {
        let varies = self.0.contains(&ACCEPT_LANGUAGE);
        let variant = self.select(request, policy, Some(language)).ok();
        variant.filter(|_| varies)
    }

    fn select(
        &self,
        request: &HeaderMap,
        policy: &Policy,
        language: Option<&[u8]>,
    ) -> Result<Variant, UnnamedCookie> {
        let mut frame = Frame::default();
        for name in &*self.0 {
            match language {
                Some(language) if *name == ACCEPT_LANGUAGE => {
                    frame.part(NAME, name.as_str().as_bytes());
                    frame.part_of(LANGUAGE, |out| {
                        out.extend(language.iter().map(u8::to_ascii_lowercase));
                    });
                }
                _ if *name == COOKIE => write_cookies(&mut frame, request, policy)?,
                _ => write_field(&mut frame, name, request),
            }
        }
        Ok(Variant(frame.into_bytes()))
    }
}

/// The names, with commas between them.
impl fmt::Display for Vary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.0.iter().enumerate() {
            f.write_str(if at > 0 { "," } else { "" })?;
            f.write_str(name.as_str())?;
        }
        Ok(())
    }
}

/// Tags of parts, also in the key.
pub(super) const NAME: u8 = b'n';
pub(super) const ABSENT: u8 = b'-';
const TEXT: u8 = b't';
const PREFERENCES: u8 = b'p';
const LANGUAGE: u8 = b'l';
pub(super) const COOKIE_NAME: u8 = b'c';
const COOKIE_VALUE: u8 = b'v';

/// A request field: lines joined, no white space around commas; a list of preferences by its meaning.
pub(super) fn write_field(frame: &mut Frame, name: &HeaderName, request: &HeaderMap) {
    frame.part(NAME, name.as_str().as_bytes());
    if !request.contains_key(name) {
        return frame.part(ABSENT, b"");
    }
    if [ACCEPT_ENCODING, ACCEPT_LANGUAGE].contains(name)
        && let Some(preferences) = Preferences::parse(request, name)
    {
        return frame.part_of(PREFERENCES, |out| preferences.write(out));
    }
    frame.part_of(TEXT, |out| {
        let lines = request.get_all(name).iter();
        let members = lines.flat_map(|line| list::split(line.as_bytes()));
        for (at, member) in members.enumerate() {
            out.extend((at > 0).then_some(b','));
            out.extend_from_slice(member);
        }
    });
}

/// `Vary: Cookie` means the cookies that the policy names. With none named it means, for everybody, the
/// whole field; for anonymous visitors, that there is no cookie which a page could depend on.
fn write_cookies(
    frame: &mut Frame,
    request: &HeaderMap,
    policy: &Policy,
) -> Result<(), UnnamedCookie> {
    if !policy.is_anonymous() && policy.vary_cookies.is_empty() {
        write_field(frame, &COOKIE, request);
        return Ok(());
    }
    let is_settled = |name: &[u8]| {
        any_matches(&policy.vary_cookies, name)
            || any_matches(&policy.key_cookies, name)
            || policy.cookies.kind(name) == Kind::Analytics
    };
    if policy.is_anonymous() && cookies::pairs(request).any(|(name, _)| !is_settled(name)) {
        return Err(UnnamedCookie);
    }
    frame.part(NAME, COOKIE.as_str().as_bytes());
    write_named_cookies(frame, &policy.vary_cookies, request);
    Ok(())
}

/// The cookies of these names, whatever the order of the request's other cookies.
pub(super) fn write_named_cookies(frame: &mut Frame, named: &[Pattern], request: &HeaderMap) {
    for pattern in named {
        for (name, value) in cookies::pairs(request).filter(|(name, _)| pattern.matches(name)) {
            frame.part(COOKIE_NAME, name);
            frame.part(COOKIE_VALUE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::pattern::known;
    use crate::cache::testing::{anonymous, fields, rfc9111};

    fn vary(lines: &[&str]) -> Option<Vary> {
        let lines: Vec<_> = lines.iter().map(|line| ("vary", *line)).collect();
        Vary::parse(&fields(&lines))
    }

    fn same(vary_on: &str, a: &[(&str, &str)], b: &[(&str, &str)]) -> bool {
        let vary = vary(&[vary_on]).unwrap();
        let variant = |lines: &[(&str, &str)]| vary.variant(&fields(lines), &rfc9111());
        variant(a) == variant(b)
    }

    #[test]
    fn a_star_on_any_line_makes_every_request_different() {
        for lines in [
            &["*"][..],
            &["*, *"],
            &["*", "*"],
            &[", *"],
            &["", "*"],
            &["*, foo"],
            &["foo, *"],
            &["foo", "bar, *"],
        ] {
            assert_eq!(vary(lines), None, "{lines:?}");
        }
        assert!(vary(&[]).unwrap().is_empty());
        assert_eq!(
            vary(&["Foo, bar", "foo,a b"]).unwrap().names(),
            ["bar", "foo"]
        );
    }

    #[test]
    fn all_named_fields_must_be_equal_and_absence_equals_only_absence() {
        let all = [("foo", "1"), ("bar", "abc"), ("baz", "789")];
        let named = "Foo, Bar, Baz";
        assert!(same(named, &all, &all));
        assert!(same(named, &all, &[all[2], all[0], all[1]]));
        assert!(same(named, &all, &[all[0], all[1], all[2], ("other", "2")]));
        assert!(!same(named, &all, &[("foo", "2"), all[1], all[2]]));
        assert!(!same(named, &all, &all[..2]));
        assert!(!same(named, &[], &all));
        assert!(!same(named, &[("foo", "")], &[]));
        assert!(same(named, &[], &[]));
        assert!(!same(named, &[("foo", "1")], &[("bar", "1")]));
    }

    #[test]
    fn lines_are_joined_and_space_around_commas_does_not_matter() {
        assert!(same(
            "Foo",
            &[("foo", "1, 2")],
            &[("foo", "1"), ("foo", "2")]
        ));
        assert!(same("Foo", &[("foo", "1,2")], &[("foo", " 1, 2 ")]));
        assert!(!same("Foo", &[("foo", "1, 2")], &[("foo", "2, 1")]));
        assert!(!same("Foo", &[("foo", "\"a,b\"")], &[("foo", "\"a, b\"")]));
    }

    #[test]
    fn encodings_and_languages_are_compared_by_meaning() {
        let language = |a, b| {
            same(
                "Accept-Language",
                &[("accept-language", a)],
                &[("accept-language", b)],
            )
        };
        assert!(language("en, de", "de, en"));
        assert!(language("en, de", "eN, De"));
        assert!(language("en, de", " en ,   de"));
        assert!(language("en, de;q=0.5", "de;q=0.7, en;q=0.8"));
        assert!(!language("en, de;q=0.5", "de, en;q=0.5"));
        let encoding = |a, b| {
            same(
                "Accept-Encoding",
                &[("accept-encoding", a)],
                &[("accept-encoding", b)],
            )
        };
        assert!(encoding("gzip, deflate, br", "br,deflate,gzip"));
        assert!(!encoding("gzip, br", "gzip"));
        assert!(!encoding("a>b", "a, b;q=0.5"));
    }

    #[test]
    fn a_page_in_the_favourite_language_answers() {
        let vary = vary(&["Accept-Language, Foo"]).unwrap();
        let policy = rfc9111();
        let stored = |request: &[(&str, &str)], language| {
            let response = fields(&[("content-language", language)]);
            vary.variant_of_response(&fields(request), &response, &policy)
        };
        let wanted =
            |request: &[(&str, &str)]| vary.variant_of_favourite(&fields(request), &policy);
        let german = stored(&[("accept-language", "en, de")], "De");
        assert!(german.is_some());
        assert_eq!(wanted(&[("accept-language", "fr;q=0.5, de;q=1.0")]), german);
        assert_ne!(wanted(&[("accept-language", "fr")]), german);
        assert_ne!(
            wanted(&[("accept-language", "de"), ("foo", "1")]),
            german,
            "the other fields still count"
        );
        assert_eq!(wanted(&[("accept-language", "en, de")]), None);
        assert_eq!(stored(&[("accept-language", "en, de")], "de, en"), None);
    }

    #[test]
    fn analytics_cookies_do_not_fragment_the_cache() {
        let vary = vary(&["Cookie"]).unwrap();
        let variant = |line| vary.variant(&fields(&[("cookie", line)]), &anonymous());
        let nobody = vary.variant(&HeaderMap::new(), &anonymous());
        assert!(nobody.is_ok());
        assert_eq!(variant("_ga=1; _gid=2"), nobody);
        assert_eq!(variant("_ga=3"), nobody);
    }

    #[test]
    fn vary_on_cookies_is_satisfied_by_the_named_cookies_only() {
        let vary = vary(&["Cookie"]).unwrap();
        let policy = Policy {
            vary_cookies: known(&["theme", "lang"]),
            ..anonymous()
        };
        let variant = |line| vary.variant(&fields(&[("cookie", line)]), &policy);
        assert_eq!(
            variant("theme=dark; lang=de; _ga=1"),
            variant("lang=de; theme=dark")
        );
        assert_ne!(variant("theme=dark"), variant("theme=light"));
        assert_ne!(variant("theme=dark"), variant("lang=dark"));
        assert_eq!(variant("theme=dark; mysite_sid=1"), Err(UnnamedCookie));
    }

    #[test]
    fn a_cookie_of_the_key_needs_no_second_name() {
        let vary = vary(&["Cookie"]).unwrap();
        let policy = Policy {
            key_cookies: known(&["country"]),
            ..anonymous()
        };
        let request = fields(&[("cookie", "country=de")]);
        assert!(vary.variant(&request, &policy).is_ok());
    }

    #[test]
    fn a_session_under_a_name_of_its_own_is_no_anonymous_visitor() {
        let vary = vary(&["Cookie"]).unwrap();
        let request = fields(&[("cookie", "mysite_sid=abc")]);
        assert_eq!(vary.variant(&request, &anonymous()), Err(UnnamedCookie));
    }

    #[test]
    fn for_everybody_vary_on_cookies_compares_the_whole_field() {
        assert!(same("Cookie", &[("cookie", "a=1")], &[("cookie", "a=1")]));
        assert!(!same("Cookie", &[("cookie", "a=1")], &[("cookie", "a=2")]));
    }
}
