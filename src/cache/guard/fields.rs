//! Fields by which a page is one visitor's, or could be made somebody else's.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use crate::cache::Policy;

/// Response fields that speak of the visitor, where they have a value that means somebody.
const PERSONAL: [&str; 22] = [
    "authentication-info",
    "remote-user",
    "x-account-id",
    "x-auth-token",
    "x-auth-user",
    "x-authenticated-user",
    "x-authenticated-userid",
    "x-csrf-token",
    "x-csrftoken",
    "x-customer-id",
    "x-forwarded-email",
    "x-forwarded-user",
    "x-member-id",
    "x-remote-user",
    "x-session-id",
    "x-user",
    "x-user-email",
    "x-user-id",
    "x-user-name",
    "x-userid",
    "x-username",
    "x-xsrf-token",
];

/// Request fields that applications and frameworks are known to believe about host, path or method,
/// and that are no part of the key: what such a field makes of a page would be everybody's (cache
/// poisoning). Those of a proxy's own kind are dropped for untrusted peers everywhere.
const BELIEVED: [&str; 16] = [
    "x-backend-host",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-uri",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
    "x-script-name",
];

/// Whether a response field names a visitor.
pub fn is_personal(response: &HeaderMap) -> bool {
    let names_somebody = |value: &HeaderValue| {
        let value = value.as_bytes().trim_ascii();
        const NOBODY: [&str; 8] = ["", "-", "0", "anonymous", "guest", "none", "null", "public"];
        !NOBODY
            .iter()
            .any(|nobody| value.eq_ignore_ascii_case(nobody.as_bytes()))
    };
    // Looked up in the map only where a name could be one of them.
    let names = response
        .keys()
        .filter(|name| PERSONAL.contains(&name.as_str()));
    names
        .into_iter()
        .any(|name| response.get_all(name).iter().any(names_somebody))
}

/// Takes from a question for everybody what could make the answer somebody's.
pub fn remove_believed(request: &mut HeaderMap, policy: &Policy) {
    let believed = BELIEVED.map(HeaderName::from_static);
    for name in believed
        .iter()
        .filter(|name| !policy.key_headers.contains(name))
    {
        request.remove(name);
    }
}

/// Whether a request of a trusted proxy names another host than the one that is part of the key.
pub fn names_another_host(request: &HeaderMap, host: &str, policy: &Policy) -> bool {
    const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
    let mut named = request.get_all(FORWARDED_HOST).iter();
    !policy.key_headers.contains(&FORWARDED_HOST)
        && named.any(|named| !named.as_bytes().eq_ignore_ascii_case(host.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::{anonymous, fields};

    #[test]
    fn a_field_that_names_somebody_is_personal() {
        for (name, value, expected) in [
            ("x-user", "alice", true),
            ("X-User-ID", "17", true),
            ("x-csrf-token", "abc", true),
            ("x-user", "", false),
            ("x-user", "Anonymous", false),
            ("x-user-id", "0", false),
            ("x-user-agent-class", "mobile", false),
            ("x-powered-by", "alice", false),
        ] {
            let response = fields(&[("content-type", "text/html"), (name, value)]);
            assert_eq!(is_personal(&response), expected, "{name}: {value}");
        }
    }

    #[test]
    fn what_applications_believe_is_not_asked_unless_it_is_part_of_the_key() {
        let sent = [
            ("x-host", "evil"),
            ("x-original-url", "/admin"),
            ("accept", "a"),
        ];
        let mut request = fields(&sent);
        remove_believed(&mut request, &anonymous());
        assert_eq!(request, fields(&[("accept", "a")]));
        let keyed = Policy {
            key_headers: vec![HeaderName::from_static("x-host")],
            ..anonymous()
        };
        let mut request = fields(&sent);
        remove_believed(&mut request, &keyed);
        assert_eq!(request, fields(&[("x-host", "evil"), ("accept", "a")]));
    }

    #[test]
    fn a_forwarded_host_must_be_the_one_of_the_key() {
        let names = |value: &str| {
            let request = fields(&[("x-forwarded-host", value)]);
            names_another_host(&request, "a.example", &anonymous())
        };
        assert!(!names("A.example") && names("evil.example"));
        assert!(!names_another_host(
            &fields::<&str>(&[]),
            "a.example",
            &anonymous()
        ));
    }
}
