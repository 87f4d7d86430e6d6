//! Until when a stored response may be used (RFC 9111 4.2, RFC 5861). Computed once, when it is stored;
//! later only compared.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use http::header::{AGE, DATE, EXPIRES, LAST_MODIFIED};

use super::directives::{LONGEST, ResponseDirectives, delta_seconds};
use super::entity::single_date;
use super::policy::Policy;
use super::{Exchange, Response, list, targeted};

/// What decides about a response: the first valid targeted field, else `Cache-Control` and `Expires`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub directives: ResponseDirectives,
    targeted: bool,
    /// Whether the operator may give it a lifetime: not where any field of the origin forbids reuse,
    /// even one that does not decide.
    leaves_room: bool,
}

impl Said {
    pub fn by(response: &Response<'_>) -> Self {
        let plain = ResponseDirectives::parse(response.fields);
        match targeted::directives(response.fields) {
            None => Self {
                leaves_room: !plain.forbids_reuse(),
                directives: plain,
                targeted: false,
            },
            Some(directives) => Self {
                leaves_room: !plain.forbids_reuse() && !directives.forbids_reuse(),
                directives,
                targeted: true,
            },
        }
    }

    /// Whether the origin says how long it may be used.
    pub fn has_lifetime(&self, response: &Response<'_>) -> bool {
        self.lifetime().is_some() || self.expires_decides(response)
    }

    fn lifetime(&self) -> Option<Duration> {
        self.directives.lifetime()
    }

    fn expires_decides(&self, response: &Response<'_>) -> bool {
        !self.targeted && response.fields.contains_key(EXPIRES)
    }
}

/// Why a response has not been given a time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLifetime;

/// Until when a stored response is fresh, and until when its stale form may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// When its age was zero.
    pub(super) born: SystemTime,
    pub(super) lifetime: Duration,
    /// Equal to the end of its freshness where it must not be used stale.
    pub(super) while_revalidating: SystemTime,
    pub(super) on_error: SystemTime,
    /// Whether no permission makes it usable when stale.
    pub(super) never_stale: bool,
}

impl Freshness {
    /// The freshness of a response received just now.
    pub fn of(
        response: &Response<'_>,
        said: &Said,
        exchange: Exchange,
        policy: &Policy,
    ) -> Result<Self, NoLifetime> {
        let directives = &said.directives;
        let lifetime = if directives.no_cache.is_everything() {
            Duration::ZERO
        } else {
            lifetime(response, said, exchange.received, policy).ok_or(NoLifetime)?
        };
        let never_stale = directives.forbids_stale();
        let born = before(exchange.received, initial_age(response, exchange));
        let fresh = after(born, lifetime);
        let window = |said: Option<Duration>, policy: Duration| match never_stale {
            true => fresh,
            false => after(fresh, said.unwrap_or(policy)),
        };
        Ok(Self {
            born,
            lifetime,
            while_revalidating: window(
                directives.stale_while_revalidate,
                policy.stale_while_revalidate,
            ),
            on_error: window(directives.stale_if_error, policy.stale_if_error),
            never_stale,
        })
    }

    /// The same response, had its freshness ended by then.
    pub fn ended(self, by: SystemTime) -> Self {
        let fresh = self.fresh_until();
        let lifetime = by.duration_since(self.born).unwrap_or_default();
        if lifetime >= self.lifetime {
            return self;
        }
        let window = |end: SystemTime| after(by, end.duration_since(fresh).unwrap_or_default());
        Self {
            lifetime,
            while_revalidating: window(self.while_revalidating),
            on_error: window(self.on_error),
            ..self
        }
    }

    /// RFC 9111 4.2.3; the `Age` field has it in whole seconds.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.born).unwrap_or_default()
    }

    pub fn fresh_until(&self) -> SystemTime {
        after(self.born, self.lifetime)
    }

    pub fn is_fresh(&self, now: SystemTime) -> bool {
        // Not by the age alone: a clock set back must not refresh what was never fresh.
        self.has_lifetime() && now < self.fresh_until()
    }

    /// Whether it ever was fresh, or is for nobody without a question to the origin.
    pub fn has_lifetime(&self) -> bool {
        !self.lifetime.is_zero()
    }

    /// How long it stays fresh; zero if it is not.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        let fresh = self.lifetime.saturating_sub(self.age(now));
        fresh.min(self.lifetime)
    }

    /// How long ago it stopped being fresh; zero if it is.
    pub fn staleness(&self, now: SystemTime) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// Seconds that it stays fresh, negative since it is stale, each begun one as a whole: the `ttl` of
    /// `Cache-Status`.
    pub fn ttl(&self, now: SystemTime) -> i64 {
        let seconds = |duration: Duration| {
            let begun = duration
                .as_secs()
                .saturating_add(u64::from(duration.subsec_nanos() > 0));
            i64::try_from(begun).unwrap_or(i64::MAX)
        };
        match self.is_fresh(now) {
            true => seconds(self.remaining(now)),
            false => -seconds(self.staleness(now)),
        }
    }

    /// Whether a client that accepts it may be given it stale.
    pub fn may_be_stale(&self) -> bool {
        !self.never_stale
    }

    /// Whether it answers at once although it is stale, while the origin is asked.
    pub fn serves_while_revalidating(&self, now: SystemTime) -> bool {
        now < self.while_revalidating
    }

    /// Whether it answers in place of a failed origin.
    pub fn serves_on(&self, failure: Failure, now: SystemTime) -> bool {
        failure.counts() && (self.is_fresh(now) || now < self.on_error)
    }

    /// Until when it answers at once although it is stale.
    pub fn while_revalidating_until(&self) -> SystemTime {
        self.while_revalidating
    }

    /// Until when it answers in place of a failed origin.
    pub fn on_error_until(&self) -> SystemTime {
        self.on_error
    }

    /// When no request can be given it any more without a successful question to the origin.
    pub fn usable_until(&self) -> SystemTime {
        let fresh = self.fresh_until();
        fresh.max(self.while_revalidating).max(self.on_error)
    }
}

/// How an origin failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Refused, closed, or did not answer in time.
    NoAnswer,
    Status(StatusCode),
}

impl Failure {
    /// RFC 5861 4.
    fn counts(self) -> bool {
        match self {
            Self::NoAnswer => true,
            Self::Status(status) => matches!(status.as_u16(), 500 | 502..=504),
        }
    }
}

/// `s-maxage`, `max-age`, `Expires`, then what the operator allows.
fn lifetime(
    response: &Response<'_>,
    said: &Said,
    received: SystemTime,
    policy: &Policy,
) -> Option<Duration> {
    let explicit = said.lifetime().or_else(|| {
        said.expires_decides(response)
            .then(|| expires(response, received))
    });
    explicit.or_else(|| {
        let operator =
            heuristic(response, said, received, policy).or_else(|| policy.ttl_for(response.status));
        operator.filter(|lifetime| said.leaves_room && !lifetime.is_zero())
    })
}

/// Counted from the time of receipt where there is no valid `Date` (RFC 9110 6.6.1).
fn date(response: &Response<'_>, received: SystemTime) -> SystemTime {
    single_date(response.fields, DATE, received).unwrap_or(received)
}

/// What is no date, or more than one, is in the past (RFC 9111 5.3).
fn expires(response: &Response<'_>, received: SystemTime) -> Duration {
    single_date(response.fields, EXPIRES, received)
        .and_then(|expires| expires.duration_since(date(response, received)).ok())
        .unwrap_or_default()
        .min(LONGEST)
}

fn heuristic(
    response: &Response<'_>,
    said: &Said,
    received: SystemTime,
    policy: &Policy,
) -> Option<Duration> {
    let heuristic = policy.heuristic?;
    // RFC 9110 15.1.
    let is_cacheable = matches!(
        response.status.as_u16(),
        200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    );
    if !is_cacheable && !said.directives.public {
        return None;
    }
    let modified = single_date(response.fields, LAST_MODIFIED, received)?;
    let unchanged = date(response, received).duration_since(modified).ok()?;
    let guess = unchanged.min(LONGEST) * heuristic.percent / 100;
    (!guess.is_zero()).then_some(guess.min(heuristic.longest))
}

/// RFC 9111 4.2.3, as if every hop before had measured in whole seconds.
fn initial_age(response: &Response<'_>, exchange: Exchange) -> Duration {
    let apparent = exchange
        .received
        .duration_since(date(response, exchange.received))
        .unwrap_or_default();
    let delay = exchange
        .received
        .duration_since(exchange.sent)
        .unwrap_or_default();
    let corrected = match received_age(response) {
        // As much as a counter of 31 bits holds: it has overflowed somewhere.
        age if age >= LONGEST - Duration::from_secs(1) => LONGEST,
        age => age + delay,
    };
    Duration::from_secs(apparent.as_secs())
        .max(corrected)
        .min(LONGEST)
}

/// The first member of the first line counts; what is no number was not sent (RFC 9111 5.1).
fn received_age(response: &Response<'_>) -> Duration {
    let first = response.fields.get(AGE).map(|line| line.as_bytes());
    first
        .and_then(|line| list::split(line).next())
        .and_then(delta_seconds)
        .unwrap_or_default()
}

fn after(time: SystemTime, duration: Duration) -> SystemTime {
    time.checked_add(duration).unwrap_or(time)
}

fn before(time: SystemTime, duration: Duration) -> SystemTime {
    time.checked_sub(duration).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
