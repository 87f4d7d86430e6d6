//! Fills the cache before visitors come: every page is asked for as a visitor would ask, by the same
//! code, within the same limits on backends.

pub mod popular;
pub mod sitemap;

use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use http::header::{ACCEPT_ENCODING, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::cache::scope::Scope;
use crate::downstream::{Downstream, TlsFacts};
use crate::express::{self, Request, Visit};
use crate::gateway::Gateway;
use crate::listen::ListenerSettings;
use crate::plan::{Manner, Visits, WarmUp};
use crate::target::Url;

/// What the requests say of themselves.
const AGENT: HeaderValue = HeaderValue::from_static("tollgate-warm-up");
/// Sitemaps that are read in one run, those of indexes included.
const MOST_MAPS: usize = 1000;
/// How often a page is asked for that the application was too busy to give.
const TRIES: u32 = 3;
/// How long such a page waits.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether a run is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Failures of which the reason is logged, in one run.
const MOST_LOGGED: u64 = 10;

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Visits that are known of so far.
    pub pages: u64,
    /// Visits that were answered with a success.
    pub done: u64,
    /// Of these, those that were stored already.
    pub hits: u64,
    pub failed: u64,
    pub ended: bool,
}

/// For humans, in one line.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pages,
            done,
            hits,
            failed,
            ..
        } = self;
        write!(
            f,
            "{done} of {pages} pages were given, {hits} of them were stored already; {failed} failed"
        )
    }
}

/// Another run is under way.
#[derive(Debug)]
pub struct UnderWay;

/// Warms the cache of one gateway, one run at a time.
pub struct Warmer {
    gateway: Arc<Gateway>,
    /// The listeners whose visitors the requests pose as: without TLS, and with.
    plain: Arc<Downstream>,
    listener: Arc<ListenerSettings>,
    run: Mutex<Option<watch::Receiver<Progress>>>,
    /// The purge of everything that was the last one at the start.
    purged: u64,
}

impl Warmer {
    /// `listener` is any of the gateway's. Whatever is purged from here on is followed by a run.
    pub fn new(gateway: Arc<Gateway>, listener: Arc<ListenerSettings>) -> Arc<Self> {
        Arc::new(Self {
            purged: gateway.memory().tombstones().last_of(&Scope::Everything),
            gateway,
            plain: downstream(&listener, None),
            listener,
            run: Mutex::default(),
        })
    }

    /// Begins a run. It ends by itself; when the gateway goes away, early.
    pub fn start(
        self: &Arc<Self>,
        visits: Visits,
        manner: Manner,
    ) -> Result<watch::Receiver<Progress>, UnderWay> {
        let mut run = self.run.lock();
        if run.as_ref().is_some_and(|run| !run.borrow().ended) {
            return Err(UnderWay);
        }
        let (progress, watched) = watch::channel(Progress::default());
        *run = Some(watched.clone());
        let run = Run {
            warmer: self.clone(),
            manner,
            progress,
        };
        tokio::spawn(run.all(visits));
        Ok(watched)
    }

    /// How far the last run has come; `None` if there was none.
    pub fn progress(&self) -> Option<Progress> {
        self.run.lock().as_ref().map(|run| *run.borrow())
    }

    /// Begins the runs of the plan in force, for as long as the process lives.
    pub async fn keep_to_plan(self: Arc<Self>) {
        let mut begun: Option<Instant> = None;
        let tombstones = self.gateway.memory().tombstones();
        let last_purged = || tombstones.last_of(&Scope::Everything);
        let mut purged = self.purged;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let Some(warm_up) = self.gateway.plan().warm.clone() else {
                continue;
            };
            let is_due = match begun {
                None => warm_up.at_start,
                Some(begun) => warm_up.every.is_some_and(|every| begun.elapsed() >= every),
            };
            begun.get_or_insert_with(Instant::now);
            let last = last_purged();
            let is_purged = warm_up.after_purge && purged < last;
            if !is_due && !is_purged {
                purged = last;
                continue;
            }
            if is_due {
                begun = Some(Instant::now());
            }
            let WarmUp { visits, manner, .. } = &*warm_up;
            match self.start(visits.clone(), manner.clone()) {
                Ok(_) => {
                    begun = Some(Instant::now());
                    purged = last;
                }
                // What that run has stored before the purge is gone: another one follows it.
                Err(UnderWay) if is_purged => {}
                Err(UnderWay) => tracing::warn!("warm-up: the run before has not ended"),
            }
        }
    }

    async fn visit(&self, url: &Url, fields: &HeaderMap, most: usize) -> Option<Visit> {
        let downstream = match url.https {
            false => self.plain.clone(),
            true => downstream(&self.listener, Some(url)),
        };
        let mut fields = fields.clone();
        let host = HeaderValue::try_from(url.authority()).expect("an authority is visible text");
        fields.insert(HOST, host);
        fields.insert(USER_AGENT, AGENT);
        let request = Request {
            method: Method::GET,
            target: Bytes::copy_from_slice(url.target().as_bytes()),
            authority: None,
            user_agent: Some(AGENT),
            fields,
        };
        express::visit(&self.gateway, &downstream, request, most).await
    }
}

/// Who the requests seem to come from: this machine, over TLS where the URL says https.
fn downstream(listener: &Arc<ListenerSettings>, url: Option<&Url>) -> Arc<Downstream> {
    let host = |url: &Url| {
        let authority = url.authority().parse::<http::uri::Authority>();
        let authority = authority.expect("a URL has an authority");
        authority.host().to_ascii_lowercase()
    };
    Arc::new(Downstream {
        peer: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        local: None,
        tls: url.map(|url| TlsFacts {
            version: "TLSv1.3",
            server_name: Some(host(url)),
            h2: false,
            client: None,
        }),
        listener: listener.clone(),
        is_own: true,
        added: Mutex::default(),
        reset: AtomicBool::new(false),
    })
}

/// One run.
struct Run {
    warmer: Arc<Warmer>,
    manner: Manner,
    progress: watch::Sender<Progress>,
}

impl Run {
    async fn all(self, visits: Visits) {
        let mut urls = visits.urls;
        urls.extend(popular::hottest(&self.warmer.gateway, visits.popular).await);
        urls.extend(self.of_sitemaps(visits.sitemaps).await);
        let mut seen = HashSet::new();
        urls.retain(|url| seen.insert(url.clone()));
        if urls.len() > self.manner.most {
            let most = self.manner.most;
            tracing::warn!(
                pages = urls.len(),
                most,
                "warm-up: more pages than one run takes"
            );
            urls.truncate(most);
        }
        self.progress
            .send_modify(|progress| progress.pages = urls.len() as u64);
        let mut pace = interval(Duration::from_secs(1) / self.manner.rate);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let paced =
            futures::stream::unfold((urls.into_iter(), pace), |(mut urls, mut pace)| async {
                let url = urls.next()?;
                pace.tick().await;
                Some((url, (urls, pace)))
            });
        let concurrency = self.manner.concurrency;
        paced
            .for_each_concurrent(concurrency, |url| self.page(url))
            .await;
        self.progress.send_modify(|progress| progress.ended = true);
        let Progress {
            pages,
            done,
            hits,
            failed,
            ..
        } = *self.progress.borrow();
        tracing::info!(pages, done, hits, failed, "warm-up ended");
    }

    async fn page(&self, url: Url) {
        for attempt in 1.. {
            if self.warmer.gateway.is_draining() {
                return;
            }
            let visit = self.warmer.visit(&url, &self.manner.fields, 0).await;
            let status = visit.as_ref().map(|visit| visit.status);
            let is_busy = matches!(
                status,
                Some(StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
            );
            if is_busy && attempt < TRIES {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            return self.note(&url, visit);
        }
    }

    fn note(&self, url: &Url, visit: Option<Visit>) {
        let visit = visit.filter(|visit| visit.status.is_success());
        let mut failures = 0;
        self.progress.send_modify(|progress| match &visit {
            Some(visit) => {
                progress.done += 1;
                progress.hits += u64::from(visit.is_hit());
            }
            None => {
                progress.failed += 1;
                failures = progress.failed;
            }
        });
        if visit.is_none() && failures <= MOST_LOGGED {
            // As visitors have asked for it: what looks secret is not written.
            let query = self.warmer.gateway.plan().access.query;
            let url = query.of_url(&url.to_string());
            tracing::warn!(%url, "warm-up: the page was not given");
        }
    }

    /// The pages of sitemaps, and of those that these name.
    async fn of_sitemaps(&self, maps: Vec<Url>) -> Vec<Url> {
        // A sitemap is to be read here, not shown.
        let mut fields = self.manner.fields.clone();
        fields.remove(ACCEPT_ENCODING);
        let mut pages = Vec::new();
        let mut seen: HashSet<Url> = HashSet::new();
        let mut left = maps;
        while let Some(url) = left.pop() {
            if !seen.insert(url.clone()) || self.warmer.gateway.is_draining() {
                continue;
            }
            if seen.len() > MOST_MAPS || pages.len() > self.manner.most {
                tracing::warn!(%url, "warm-up: the sitemap was left out, one run reads no more");
                break;
            }
            let visit = self.warmer.visit(&url, &fields, sitemap::LONGEST).await;
            let visit = visit.filter(|visit| visit.status.is_success());
            let Some(body) = visit.and_then(|visit| visit.body) else {
                tracing::warn!(%url, "warm-up: the sitemap was not given");
                continue;
            };
            let read = spawn_blocking(move || sitemap::read(&body)).await;
            match read.expect("reading does not panic") {
                Ok(sitemap) => {
                    pages.extend(sitemap.pages.iter().filter_map(|page| parsed(page)));
                    left.extend(sitemap.maps.iter().filter_map(|map| parsed(map)));
                    left.truncate(MOST_MAPS);
                }
                Err(error) => {
                    let error = crate::telemetry::chain(&error);
                    tracing::warn!(%url, %error, "warm-up: the sitemap cannot be read");
                }
            }
            let known = pages.len() as u64;
            self.progress.send_modify(|progress| progress.pages = known);
        }
        pages
    }
}

fn parsed(url: &str) -> Option<Url> {
    let parsed = url.parse();
    parsed
        .map_err(|error| tracing::warn!("warm-up: {error}"))
        .ok()
}
