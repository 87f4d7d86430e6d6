//! What one request has learned so far, and every decision over it: filled from top to bottom as the
//! request moves on. Plain values only, so that both lanes take the same decisions.

pub mod attempt;
pub mod barring;
pub mod caching;
pub mod compressing;
pub mod entry;
pub mod imagined;
pub mod ingress;
pub mod limiting;
pub mod planning;
pub mod record;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::compressing::Wish;
use self::ingress::Admitted;
use self::limiting::Limiting;
use crate::client::RequestId;
use crate::headers::cache::Told;
use crate::moment::Moment;
use crate::plan::{Plan, Route};
use crate::refusal::Refusal;
use crate::target::Host;
use crate::upstream::{Backend, Lease, Priority, Tried, Upstream};

/// One request and its answer.
pub struct Exchange {
    pub began: Instant,
    /// When it last went on: what is decided without a wait is decided at one moment.
    pub moment: Moment,
    /// Pinned for the whole request: no request sees a new route with an old upstream.
    pub plan: Arc<Plan>,
    pub request_id: RequestId,
    /// Who is asking, behind trusted proxies.
    pub client: IpAddr,
    pub https: bool,
    /// Present once the request has been let in.
    pub asked: Option<Asked>,
    pub route: Option<Arc<Route>>,
    /// Who goes first where requests wait for an upstream: what the route says, until a plan of the client's says more.
    pub priority: Priority,
    pub attempt: Attempt,
    pub limiting: Limiting,
    /// What the cache had to do with it, on a route that has a policy.
    pub cache: Option<Told>,
    /// The coding that the client would take, on a route that compresses.
    pub wish: Wish,
    /// The answer depends on what codings the client accepts, and does not say so yet.
    pub varies: bool,
    /// The answer is ours, for this reason.
    pub refusal: Option<Refusal>,
    pub request_body_bytes: u64,
    /// Nobody asked but we: no client is answered by it.
    pub is_own: bool,
    /// Status sent to the client; 0 while none was.
    pub status: u16,
    /// The client left before its answer was whole.
    pub aborted: bool,
    /// The backend broke off after its answer had begun, so the client's answer is cut short.
    pub truncated: bool,
}

/// What is asked for, in canonical form.
#[derive(Clone)]
pub struct Asked {
    /// `None` for HTTP/1.0 without a Host.
    pub host: Option<Host>,
    /// `*` for `OPTIONS *`.
    pub path: Box<str>,
    /// Without its `?`.
    pub query: Option<Box<str>>,
}

impl From<Admitted<'_>> for Asked {
    fn from(admitted: Admitted<'_>) -> Self {
        let (path, query) = match admitted.target {
            Some(target) => {
                let query = target.query().map(Into::into);
                (target.into_path().into(), query)
            }
            None => ("*".into(), None),
        };
        Self {
            host: admitted.host,
            path,
            query,
        }
    }
}

/// The attempts to have a backend answer, and the one that is under way.
#[derive(Default)]
pub struct Attempt {
    pub upstream: Option<Arc<Upstream>>,
    /// Counts as load on its backend while it lives.
    pub lease: Option<Lease>,
    /// The lease was taken and nobody has connected by it yet.
    pub fresh: bool,
    pub tried: Tried,
    pub count: u32,
    /// Where the latest attempt went, for the record; outlives the lease.
    pub backend: Option<Arc<Backend>>,
    pub began: Option<Instant>,
    pub connected: Option<Instant>,
    /// When the latest part of the request's body was passed on.
    pub uploaded: Option<Instant>,
    /// Set when a response head has been accepted.
    pub first_byte: Option<Instant>,
    /// A pooled connection was used.
    pub reused: bool,
    /// Pooled connections that turned out to be closed already.
    pub stale: u32,
}

impl Exchange {
    pub fn new(plan: Arc<Plan>) -> Self {
        let moment = Moment::now();
        Self {
            began: moment.instant,
            moment,
            plan,
            request_id: RequestId::make(),
            client: IpAddr::from([0, 0, 0, 0]),
            https: false,
            asked: None,
            route: None,
            priority: Priority::default(),
            attempt: Attempt::default(),
            limiting: Limiting::default(),
            cache: None,
            wish: Wish::default(),
            varies: false,
            refusal: None,
            request_body_bytes: 0,
            is_own: false,
            status: 0,
            aborted: false,
            truncated: false,
        }
    }
}

impl Exchange {
    /// A question of our own to the origin, about what this request asks for.
    pub fn question(&self) -> Self {
        Self {
            request_id: self.request_id,
            client: self.client,
            https: self.https,
            asked: self.asked.clone(),
            route: self.route.clone(),
            priority: self.priority,
            ..Self::new(self.plan.clone())
        }
    }

    /// Why the answer is not simply the application's: a stable code for the record.
    pub fn reason(&self) -> Option<&'static str> {
        match &self.refusal {
            Some(refusal) => Some(refusal.reason()),
            None if self.truncated => Some("upstream_truncated"),
            None if self.aborted => Some("client_left"),
            None => None,
        }
    }
}

impl Attempt {
    /// What a record says of it. The load on the backend stays with the one who caused it.
    pub fn seen(&self) -> Self {
        Self {
            upstream: self.upstream.clone(),
            lease: None,
            tried: Tried::default(),
            backend: self.backend.clone(),
            ..*self
        }
    }

    /// How long the connection took; `None` on a pooled one.
    pub fn connect_time(&self) -> Option<Duration> {
        if self.reused {
            return None;
        }
        Some(self.connected?.duration_since(self.began?))
    }

    /// How long the backend has had the request, an upload left out: that takes as long as its client likes.
    pub fn work_time(&self) -> Option<Duration> {
        let asked = self
            .connected?
            .max(self.uploaded.unwrap_or(self.connected?));
        Some(
            self.first_byte
                .unwrap_or_else(Instant::now)
                .saturating_duration_since(asked),
        )
    }

    /// From the connection to the response head.
    pub fn first_byte_time(&self) -> Option<Duration> {
        Some(self.first_byte?.duration_since(self.connected?))
    }
}
