//! Whether a request may be looked up, and whether its response may be stored; if not, the one reason
//! (RFC 9111 3). Reads each head once, so that nothing is read again for a hit.

use std::time::SystemTime;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_LOCATION, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, StatusCode};

use super::directives::{RequestDirectives, Scope};
use super::entity::Validators;
use super::freshness::{Failure, Freshness, Said};
use super::guard::Suspicion;
use super::invalidation::Place;
use super::partial::Part;
use super::policy::Policy;
use super::status::Forward;
use super::tags::{self, Tag};
use super::vary::{UnnamedCookie, Variant, Vary};
use super::{Exchange, Request, Response, stored};
use crate::http1::grammar::decimal;
use crate::weight;
use crate::word::choice;

choice! {
    /// Why the cache is not asked.
    pub enum Bypass: "reason to bypass" {
        /// Neither GET nor HEAD.
        Method = "method",
        /// It has a body, which the key does not know.
        RequestBody = "request_body",
        /// It wants to leave HTTP.
        Upgrade = "upgrade",
        /// `no-store` of a client that is honoured.
        RequestNoStore = "request_no_store",
        Authorization = "authorization",
        PersonalCookie = "personal_cookie",
        /// A trusted proxy names another host than the one that is part of the key.
        ForwardedHost = "forwarded_host",
        /// Its page looked personal a while ago.
        Quarantined = "quarantined",
    }
}

impl Bypass {
    pub fn forward(self) -> Forward {
        match self {
            Self::Method => Forward::Method,
            _ => Forward::Bypass,
        }
    }
}

choice! {
    /// Why a response is not stored.
    pub enum NotStored: "reason not to store" {
        /// The response to this method answers no later request.
        Method = "method",
        RequestBody = "request_body",
        Upgrade = "upgrade",
        RequestNoStore = "request_no_store",
        /// The request has credentials, and the response does not say that it is for everybody.
        Authorization = "authorization",
        PersonalCookie = "personal_cookie",
        /// Of a status that says something of the request, not of the resource.
        Status = "status",
        /// `must-understand`, and the status is unknown.
        NotUnderstood = "not_understood",
        NoStore = "no_store",
        Private = "private",
        /// `no-cache`, and there is no validator to ask again by.
        NoCache = "no_cache",
        SetsCookie = "sets_cookie",
        /// It clears what the visitor's browser has stored.
        ClearsSiteData = "clears_site_data",
        VaryStar = "vary_star",
        /// It varies on cookies, and the request has one that the policy does not name.
        VaryCookie = "vary_cookie",
        /// A 206 with several parts, of unknown length, or with other bytes than it says.
        Partial = "partial",
        TooLarge = "too_large",
        TooManyTags = "too_many_tags",
        /// Neither the origin nor the route says for how long.
        NoLifetime = "no_lifetime",
        /// Stale from the beginning, and there is no validator to ask again by.
        AlreadyStale = "already_stale",
        /// The body ended early, or failed.
        Incomplete = "incomplete",
        /// As many variants as the policy allows are stored.
        TooManyVariants = "too_many_variants",
        ForwardedHost = "forwarded_host",
        /// A response field names the visitor.
        PersonalField = "personal_field",
        /// It is no file of the type that its path names.
        ContentType = "content_type",
        /// A file's name behind a delimiter, and no such file.
        DeceptivePath = "deceptive_path",
        /// Its page looked personal a while ago, or now.
        Quarantined = "quarantined",
        /// It was declared outdated while it was fetched.
        Outdated = "outdated",
        /// The application names a policy that there is not, or not for this route.
        UnknownPolicy = "unknown_policy",
    }
}

impl From<Suspicion> for NotStored {
    fn from(suspicion: Suspicion) -> Self {
        match suspicion {
            Suspicion::PersonalField => Self::PersonalField,
            Suspicion::ContentType => Self::ContentType,
            Suspicion::DeceptivePath => Self::DeceptivePath,
            Suspicion::Token | Suspicion::MailAddress | Suspicion::Greeting => Self::Quarantined,
        }
    }
}

impl From<Bypass> for NotStored {
    fn from(bypass: Bypass) -> Self {
        match bypass {
            Bypass::Method => Self::Method,
            Bypass::RequestBody => Self::RequestBody,
            Bypass::Upgrade => Self::Upgrade,
            Bypass::RequestNoStore => Self::RequestNoStore,
            Bypass::Authorization => Self::Authorization,
            Bypass::PersonalCookie => Self::PersonalCookie,
            Bypass::ForwardedHost => Self::ForwardedHost,
            Bypass::Quarantined => Self::Quarantined,
        }
    }
}

/// Whether a request may be answered from the cache; with what it asks of it.
pub fn may_look_up(request: &Request<'_>, policy: &Policy) -> Result<RequestDirectives, Bypass> {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Err(Bypass::Method);
    }
    if has_body(request.fields) {
        return Err(Bypass::RequestBody);
    }
    unconditional(request, policy)
}

/// The rules that hold for every method.
fn unconditional(request: &Request<'_>, policy: &Policy) -> Result<RequestDirectives, Bypass> {
    let fields = request.fields;
    let directives = RequestDirectives::parse(fields, policy.honoured_of(request));
    if fields.contains_key(UPGRADE) {
        Err(Bypass::Upgrade)
    } else if directives.no_store {
        Err(Bypass::RequestNoStore)
    } else if policy.is_anonymous() && fields.contains_key(AUTHORIZATION) {
        Err(Bypass::Authorization)
    } else if policy.is_anonymous() && policy.cookies.is_personal(fields) {
        Err(Bypass::PersonalCookie)
    } else {
        Ok(directives)
    }
}

fn has_body(fields: &HeaderMap) -> bool {
    let length = fields.get(CONTENT_LENGTH);
    length.is_some_and(|length| decimal(length.as_bytes()) != Some(0))
        || fields.contains_key(TRANSFER_ENCODING)
}

/// A response that may be stored.
#[derive(Clone, Debug)]
pub struct Admission {
    pub facts: Facts,
    pub validators: Validators,
    /// What is stored of its fields.
    pub fields: HeaderMap,
}

impl Admission {
    /// When nothing can come of it any more.
    pub fn keep_until(&self, policy: &Policy) -> SystemTime {
        let usable = self.facts.freshness.usable_until();
        let kept = usable.checked_add(policy.keep_for_validation);
        kept.filter(|_| self.validators.exist()).unwrap_or(usable)
    }
}

/// What later requests are decided by.
#[derive(Clone, Debug)]
pub struct Facts {
    pub status: StatusCode,
    pub freshness: Freshness,
    pub vary: Vary,
    pub variant: Variant,
    /// What few have.
    pub(super) rare: Option<Box<Rare>>,
    /// Its body is sent as it is.
    pub no_transform: bool,
}

/// Beside the others, as it takes as much room as they do.
#[derive(Clone, Debug)]
pub(super) struct Rare {
    variant_in_language: Option<Variant>,
    tags: Box<[Tag]>,
    part: Option<Part>,
}

impl Rare {
    /// `None` where there is nothing of it.
    pub fn of(
        variant_in_language: Option<Variant>,
        tags: Box<[Tag]>,
        part: Option<Part>,
    ) -> Option<Box<Self>> {
        let is_any = variant_in_language.is_some() || !tags.is_empty() || part.is_some();
        is_any.then(|| {
            Box::new(Self {
                variant_in_language,
                tags,
                part,
            })
        })
    }

    /// Bytes of memory that it takes.
    fn weight(&self) -> usize {
        let in_language = self.variant_in_language.as_ref();
        let tags = self.tags.iter();
        let tags = tags.map(|tag| weight::of_piece(tag.name().len()));
        weight::of_piece(size_of::<Self>())
            + in_language.map_or(0, |variant| weight::of_piece(variant.bytes().len()))
            + weight::of_piece(size_of_val(&*self.tags))
            + tags.sum::<usize>()
    }
}

impl Facts {
    /// Bytes of memory that it takes besides itself.
    pub fn weight(&self) -> usize {
        weight::of_piece(size_of_val(self.vary.names()))
            + weight::of_piece(self.variant.bytes().len())
            + self.rare.as_ref().map_or(0, |rare| rare.weight())
    }

    /// Where requests look for it too, whose favourite language it is in.
    pub fn variant_in_language(&self) -> Option<&Variant> {
        self.rare.as_ref()?.variant_in_language.as_ref()
    }

    pub fn tags(&self) -> &[Tag] {
        self.rare.as_ref().map_or(&[], |rare| &rare.tags)
    }

    /// Set if it is a 206.
    pub fn part(&self) -> Option<Part> {
        self.rare.as_ref()?.part
    }

    pub fn set_part(&mut self, part: Option<Part>) {
        let (variant_in_language, tags) = match self.rare.take() {
            Some(rare) => (rare.variant_in_language, rare.tags),
            None => Default::default(),
        };
        self.rare = Rare::of(variant_in_language, tags, part);
    }
}

/// Whether a response may be stored; with what is stored of it.
///
/// Says nothing of the body, which may turn out [`NotStored::TooLarge`] or [`NotStored::Incomplete`].
pub fn may_store(
    request: &Request<'_>,
    response: &Response<'_>,
    exchange: Exchange,
    policy: &Policy,
) -> Result<Admission, NotStored> {
    let said = Said::by(response);
    check_method(request, response, &said, policy)?;
    check_prohibitions(request, response, &said, policy)?;
    if policy.is_anonymous() {
        check_visitor(response)?;
    }
    let part = part(response)?;
    let length = response.fields.get(CONTENT_LENGTH);
    let length = length.and_then(|length| decimal(length.as_bytes()));
    if length.is_some_and(|length| length > policy.largest_object) {
        return Err(NotStored::TooLarge);
    }
    let vary = Vary::parse(response.fields).ok_or(NotStored::VaryStar)?;
    let variant = vary
        .variant(request.fields, policy)
        .map_err(|UnnamedCookie| NotStored::VaryCookie)?;
    let tags = tags::of(response.fields, &policy.tags).map_err(|_| NotStored::TooManyTags)?;
    let freshness =
        Freshness::of(response, &said, exchange, policy).map_err(|_| NotStored::NoLifetime)?;
    let validators = Validators::of(response.fields, exchange.received);
    check_use(&freshness, &validators, response, &said, exchange.received)?;
    let facts = Facts {
        status: response.status,
        freshness,
        rare: Rare::of(
            vary.variant_of_response(request.fields, response.fields, policy),
            tags,
            part,
        ),
        variant,
        vary,
        no_transform: said.directives.no_transform,
    };
    let fields = stored::kept(response.fields, &said.directives, policy, exchange.received);
    Ok(Admission {
        facts,
        validators,
        fields,
    })
}

/// GET; and POST where the response says that it is what a GET would have brought, and for how long
/// (RFC 9110 9.3.3).
fn check_method(
    request: &Request<'_>,
    response: &Response<'_>,
    said: &Said,
    policy: &Policy,
) -> Result<(), NotStored> {
    match *request.method {
        Method::GET => may_look_up(request, policy)?,
        Method::POST if !policy.is_anonymous() => {
            let place = Place::named_by(CONTENT_LOCATION, response.fields, request);
            let is_of_url = place.is_some_and(|place| place.is_target_of(request));
            if !is_of_url || !said.has_lifetime(response) {
                return Err(NotStored::Method);
            }
            unconditional(request, policy)?
        }
        _ => return Err(NotStored::Method),
    };
    Ok(())
}

/// What the response, or its status, forbids to any shared cache.
fn check_prohibitions(
    request: &Request<'_>,
    response: &Response<'_>,
    said: &Said,
    policy: &Policy,
) -> Result<(), NotStored> {
    let directives = &said.directives;
    if is_of_request(response.status) {
        return Err(NotStored::Status);
    }
    if directives.must_understand {
        // Then `no-store` is for caches that do not know what this means (RFC 9111 5.2.2.3).
        if response.status.canonical_reason().is_none() {
            return Err(NotStored::NotUnderstood);
        }
    } else if directives.no_store {
        return Err(NotStored::NoStore);
    }
    let is_private = match &directives.private {
        Scope::Everything => true,
        // What surrounds the named fields was made for one visitor too.
        Scope::Fields(_) => policy.is_anonymous(),
        Scope::Nothing => false,
    };
    if is_private {
        return Err(NotStored::Private);
    }
    let is_for_all =
        directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    if request.fields.contains_key(AUTHORIZATION) && !is_for_all {
        return Err(NotStored::Authorization);
    }
    Ok(())
}

/// What must not be done to a visitor who is another one.
fn check_visitor(response: &Response<'_>) -> Result<(), NotStored> {
    let mut names = response.fields.keys();
    match names.find(|name| stored::acts_on_visitor(name)) {
        None => Ok(()),
        Some(name) if stored::sets_cookie(name) => Err(NotStored::SetsCookie),
        Some(_) => Err(NotStored::ClearsSiteData),
    }
}

/// Statuses that answer the conditions, the range, the credentials, the pace or the connection of one
/// request; some must not be stored by their definition (RFC 6585).
fn is_of_request(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        100..=199 | 304 | 407 | 408 | 412 | 416 | 417 | 421 | 425 | 426 | 428 | 429 | 431 | 511
    )
}

fn part(response: &Response<'_>) -> Result<Option<Part>, NotStored> {
    if response.status != StatusCode::PARTIAL_CONTENT {
        return Ok(None);
    }
    let part = Part::of(response.fields).ok_or(NotStored::Partial)?;
    Ok(Some(part))
}

/// Whether anything can come of storing it.
fn check_use(
    freshness: &Freshness,
    validators: &Validators,
    response: &Response<'_>,
    said: &Said,
    received: SystemTime,
) -> Result<(), NotStored> {
    let is_revalidated = validators.exist() && response.status.is_success();
    // The route's own window is for what was once fresh.
    let stands_in = said.directives.stale_if_error.is_some()
        && freshness.serves_on(Failure::NoAnswer, received);
    if freshness.is_fresh(received)
        || is_revalidated
        || freshness.serves_while_revalidating(received)
        || stands_in
    {
        Ok(())
    } else if said.directives.no_cache.is_everything() {
        Err(NotStored::NoCache)
    } else {
        Err(NotStored::AlreadyStale)
    }
}

#[cfg(test)]
mod tests;
