//! The cookies of a request, and which of them make it personal. Knows names, never what a value
//! means.

use http::HeaderMap;
use http::header::COOKIE;

use super::pattern::{Pattern, any_matches, known};
use crate::http1::grammar::trim;

/// Name and value of every cookie, in the order in which they were sent.
pub fn pairs(fields: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    fields
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b';'))
        .map(trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| match memchr::memchr(b'=', pair) {
            Some(equals) => (trim(&pair[..equals]), trim(&pair[equals + 1..])),
            // Applications differ in whether that is a name or a value.
            None => (pair, &b""[..]),
        })
}

/// What a cookie says of the visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who it is.
    Personal,
    /// Nothing that a page depends on.
    Analytics,
    Unknown,
}

/// Which cookies are personal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieRules {
    /// What the operator added; goes before everything else.
    added: Vec<Pattern>,
    analytics: Vec<Pattern>,
    personal: Vec<Pattern>,
}

impl Default for CookieRules {
    fn default() -> Self {
        Self {
            added: Vec::new(),
            analytics: known(ANALYTICS),
            personal: known(PERSONAL),
        }
    }
}

impl CookieRules {
    /// These are personal too, even if they look like analytics.
    pub fn with_personal(mut self, patterns: impl IntoIterator<Item = Pattern>) -> Self {
        self.added.extend(patterns);
        self
    }

    /// These say nothing of the visitor and change no page.
    pub fn with_analytics(mut self, patterns: impl IntoIterator<Item = Pattern>) -> Self {
        self.analytics.extend(patterns);
        self
    }

    /// Takes patterns off the default list, as they are written there.
    pub fn without_personal(mut self, patterns: &[Pattern]) -> Self {
        self.personal.retain(|pattern| !patterns.contains(pattern));
        self
    }

    pub fn kind(&self, name: &[u8]) -> Kind {
        // The prefixes of cookies that a browser guards; the name proper follows.
        let name = name
            .strip_prefix(b"__Host-")
            .or_else(|| name.strip_prefix(b"__Secure-"))
            .unwrap_or(name);
        if any_matches(&self.added, name) {
            Kind::Personal
        } else if any_matches(&self.analytics, name) {
            Kind::Analytics
        } else if any_matches(&self.personal, name) {
            Kind::Personal
        } else {
            Kind::Unknown
        }
    }

    pub fn is_personal(&self, fields: &HeaderMap) -> bool {
        pairs(fields).any(|(name, _)| self.kind(name) == Kind::Personal)
    }
}

/// Sessions, logins and tokens that a page embeds, as frameworks name them.
const PERSONAL: &[&str] = &[
    // Django; Starlette, FastAPI, Flask
    "sessionid",
    "messages",
    "csrftoken",
    "session",
    "remember_token",
    "fastapiusersauth",
    // Rails
    "_*_session",
    "_session_id",
    "remember_user_token",
    // Node; a large token of Auth.js comes in numbered parts
    "connect.sid",
    "koa.sess*",
    "*next-auth.session-token*",
    "*authjs.session-token*",
    // PHP
    "PHPSESSID",
    "laravel_session",
    "*-session",
    "XSRF-TOKEN",
    "wordpress_logged_in_*",
    "wp_woocommerce_session_*",
    // Java and .NET
    "JSESSIONID",
    "SESSION",
    ".AspNetCore.*",
    "ASP.NET_SessionId",
    // proxies and services that log visitors in
    "_oauth2_proxy*",
    "sb-*-auth-token*",
];

/// What measures visitors, or belongs to a network before us.
const ANALYTICS: &[&str] = &[
    "_ga*",
    "_gid",
    "_gat*",
    "_gcl_*",
    "__utm*",
    "utm*",
    "_fbp",
    "_fbc",
    "_hj*",
    "_pk_*",
    "_clck",
    "_clsk",
    "_uet*",
    "_ttp",
    "_tt_*",
    "ajs_*",
    "AMP_*",
    "amplitude_id*",
    "mp_*_mixpanel",
    "ph_*_posthog",
    "hubspotutk",
    "__hs*",
    "__cf_bm",
    "_cfuvid",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::fields;

    #[test]
    fn cookies_come_from_every_line_and_may_lack_a_value() {
        let fields = fields(&[("cookie", "a=1; b = 2;; c"), ("cookie", "a=x=y")]);
        let found: Vec<_> = pairs(&fields)
            .map(|(name, value)| {
                let text = |bytes| std::str::from_utf8(bytes).unwrap();
                (text(name), text(value))
            })
            .collect();
        assert_eq!(found, [("a", "1"), ("b", "2"), ("c", ""), ("a", "x=y")]);
    }

    #[test]
    fn sessions_of_the_usual_frameworks_are_personal() {
        let rules = CookieRules::default();
        for name in [
            "sessionid",
            "messages",
            "csrftoken",
            "session",
            "remember_token",
            "fastapiusersauth",
            "_shop_session",
            "_session_id",
            "remember_user_token",
            "connect.sid",
            "koa.sess",
            "koa.sess.sig",
            "next-auth.session-token",
            "next-auth.session-token.0",
            "__Secure-next-auth.session-token",
            "authjs.session-token",
            "PHPSESSID",
            "laravel_session",
            "shop-session",
            "XSRF-TOKEN",
            "wordpress_logged_in_0123",
            "wp_woocommerce_session_0123",
            "JSESSIONID",
            "SESSION",
            ".AspNetCore.Cookies",
            ".AspNetCore.CookiesC1",
            "ASP.NET_SessionId",
            "_oauth2_proxy",
            "_oauth2_proxy_1",
            "sb-abc-auth-token",
            "sb-abc-auth-token.1",
            "__Host-sessionid",
        ] {
            assert_eq!(rules.kind(name.as_bytes()), Kind::Personal, "{name}");
        }
    }

    #[test]
    fn analytics_cookies_never_make_a_request_personal() {
        let rules = CookieRules::default();
        for name in [
            "_ga",
            "_ga_ABC123",
            "_gid",
            "_fbp",
            "utm_source",
            "__utma",
            "_hjSession_1",
            "_gat_session",
        ] {
            assert_eq!(rules.kind(name.as_bytes()), Kind::Analytics, "{name}");
        }
        let visitor = fields(&[("cookie", "_ga=GA1.2.3; _gid=4; theme=dark")]);
        assert!(!rules.is_personal(&visitor));
        let user = fields(&[("cookie", "_ga=GA1.2.3"), ("cookie", "sessionid=x")]);
        assert!(rules.is_personal(&user));
        assert!(!rules.is_personal(&HeaderMap::new()));
    }

    #[test]
    fn the_operator_adds_and_removes() {
        let pattern = |text: &str| text.parse::<Pattern>().unwrap();
        let rules = CookieRules::default()
            .with_personal([pattern("_ga_member")])
            .with_analytics([pattern("consent")])
            .without_personal(&[pattern("csrftoken")]);
        assert_eq!(rules.kind(b"_ga_member"), Kind::Personal);
        assert_eq!(rules.kind(b"consent"), Kind::Analytics);
        assert_eq!(rules.kind(b"csrftoken"), Kind::Unknown);
        assert_eq!(rules.kind(b"sessionid"), Kind::Personal);
    }
}
