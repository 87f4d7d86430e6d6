//! Which policy a response is stored by: its route's, or another one for its kind of data.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::cache::Policy;
use crate::cache::admission::NotStored;
use crate::cache::stored::TOLLGATE_CACHE_POLICY;
use crate::compression::media_type::{MediaType, MediaTypes};

/// The policies of one route beside its own. They differ from it only in what is decided by the
/// response: what a request is looked up by is the route's own.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    /// The first that fits.
    pub types: Vec<OfType>,
    /// Those that an application may name, by name.
    pub named: BTreeMap<Box<str>, Policy>,
}

/// A policy for responses of some content types.
#[derive(Clone, Debug)]
pub struct OfType {
    /// As the operator wrote them, and how the policy is named.
    pub said: (MediaType, Box<str>),
    types: MediaTypes,
    policy: Policy,
}

impl OfType {
    pub fn new(media: &MediaType, name: &str, policy: Policy) -> Self {
        Self {
            said: (media.clone(), name.into()),
            types: MediaTypes::from_iter([media]),
            policy,
        }
    }
}

impl Kinds {
    /// The policy for a response with these fields, on a route whose own is `route`.
    pub fn of<'p>(
        &'p self,
        response: &HeaderMap,
        route: &'p Policy,
    ) -> Result<&'p Policy, NotStored> {
        if let Some(name) = response.get(TOLLGATE_CACHE_POLICY) {
            let name = name.to_str().ok();
            let named = name.and_then(|name| self.named.get(name.trim()));
            return named.ok_or(NotStored::UnknownPolicy);
        }
        let content = response.get(CONTENT_TYPE);
        let by_type = content.and_then(|content| {
            let mut types = self.types.iter();
            types.find(|one| one.types.have(content.as_bytes()))
        });
        Ok(by_type.map_or(route, |one| &one.policy))
    }

    /// The longest body that any of them stores, or the route's own.
    pub fn largest_object(&self, route: &Policy) -> u64 {
        let of_types = self.types.iter().map(|one| &one.policy);
        let all = of_types.chain(self.named.values()).chain([route]);
        all.map(|policy| policy.largest_object).fold(0, u64::max)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;
    fn lasting(seconds: u64) -> Policy {
        Policy {
            ttl: Some(Duration::from_secs(seconds)),
            ..Policy::anonymous()
        }
    }

    #[test]
    fn the_name_in_the_response_goes_before_its_type_and_that_before_the_route() {
        let of = |text: &str, policy| OfType::new(&text.parse().unwrap(), "assets", policy);
        let kinds = Kinds {
            types: vec![of("image/svg+xml", lasting(1)), of("image/*", lasting(2))],
            named: BTreeMap::from([("assets".into(), lasting(3))]),
        };
        let route = lasting(60);
        let chosen = |name: Option<&'static str>, content: &'static str| {
            let mut fields = HeaderMap::new();
            fields.insert(CONTENT_TYPE, HeaderValue::from_static(content));
            if let Some(name) = name {
                fields.insert(TOLLGATE_CACHE_POLICY, HeaderValue::from_static(name));
            }
            let policy = kinds.of(&fields, &route)?;
            Ok(policy.ttl.unwrap().as_secs())
        };
        assert_eq!(chosen(None, "text/html"), Ok(60));
        assert_eq!(chosen(None, "image/png; q=1"), Ok(2));
        assert_eq!(chosen(None, "image/svg+xml"), Ok(1));
        assert_eq!(chosen(Some("assets"), "image/png"), Ok(3));
        assert_eq!(
            chosen(Some("asets"), "image/png"),
            Err(NotStored::UnknownPolicy)
        );
    }
}
