//! What other gateways do about a page that is to be fetched: one of all asks the origin.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::fetch::{Fetch, Stored};
use crate::cache::entry::Entry;
use crate::cache::memory::Found;
use crate::cache::redis::{Look, SharedCache, Sharing, Sought, Turn, Waited};
use crate::exchange::attempt::forwarding;

/// What was found out before the origin is asked.
pub(super) enum Others {
    /// It is this gateway's turn, or each for itself.
    None,
    /// Another gateway is asking, and nobody here waits for it.
    Asking,
    /// Another gateway has stored what will do.
    Stored(Arc<Entry>),
}

impl Fetch {
    /// Waits for the gateway that asks already, if there is one, no longer than for the head of a
    /// response. Without an answer from Redis nobody waits.
    pub(super) async fn await_others(&mut self) -> Others {
        let gateway = self.gateway.clone();
        let shared = gateway.shared_cache().zip(self.caching.sharing);
        let Some((shared, sharing)) = shared.filter(|_| self.awaits_others) else {
            return Others::None;
        };
        let until = Instant::now() + self.first_byte();
        loop {
            let variant = self.variant;
            let patience = &mut self.patience;
            match shared.take(&self.key, variant, &sharing, patience).await {
                Ok(Turn::Ours(held)) => {
                    // What another one has stored since we looked.
                    if let Some(entry) = self.find_anew(shared, &sharing).await {
                        held.stored();
                        return Others::Stored(entry);
                    }
                    self.held = Some(held);
                    return Others::None;
                }
                Ok(Turn::Theirs) if self.leader.is_none() => return Others::Asking,
                Ok(Turn::Theirs) => {}
                Ok(Turn::NothingComes) | Err(_) => return Others::None,
            }
            let patience = &self.patience;
            match shared.wait(&self.key, variant, until, patience).await {
                Ok(Waited::Ended) => {
                    if let Some(entry) = self.find_anew(shared, &sharing).await {
                        return Others::Stored(entry);
                    }
                }
                Ok(Waited::InVain) | Err(_) => return Others::None,
            }
        }
    }

    fn first_byte(&self) -> Duration {
        let (_, forward) = forwarding(&self.exchange);
        match &forward.transport {
            Some(transport) => transport.settings().timeouts.first_byte,
            None => forward.upstream.settings().timeouts.first_byte,
        }
    }

    /// Keeps an entry here, and for the other gateways. `has_body`: they have its body probably.
    pub(super) fn keep(&mut self, entry: &Arc<Entry>, has_body: bool) -> bool {
        let is_fresh = entry.facts.freshness.is_fresh(SystemTime::now());
        let held = self.held.take().filter(|_| is_fresh);
        let memory = self.gateway.memory();
        let policy = self.policy_of(&entry.fields());
        // What there is no room for is as what is evicted at once: it may be given to others.
        let stored = memory.store(&self.key, entry.clone(), policy);
        let is_stored = stored.unwrap_or(true);
        let shared = self.gateway.shared_cache().zip(self.caching.sharing);
        // A part there would stand where the whole could.
        let is_shared = is_stored && entry.facts.part().is_none();
        if let Some((shared, sharing)) = shared.filter(|_| is_shared) {
            shared.store(&self.key, entry.clone(), &sharing, has_body, held);
        }
        is_stored
    }

    /// What is fresh now for all gateways and newer than what is held, and from now on in memory.
    async fn find_anew(&mut self, shared: &SharedCache, sharing: &Sharing) -> Option<Arc<Entry>> {
        let memory = self.gateway.memory();
        let policy = &self.caching.policy;
        let sought = Sought {
            key: &self.key,
            fields: &self.request.fields,
            policy,
            sharing,
            tombstones: memory.tombstones(),
        };
        let found = shared.find(&sought, Look::Anew, &mut self.patience).await;
        match found.ok()? {
            Found::Entry(entry)
                if entry.facts.freshness.is_fresh(SystemTime::now()) && self.is_news(&entry) =>
            {
                // It is given, kept or not.
                let _ = memory.store(&self.key, entry.clone(), policy);
                Some(entry)
            }
            Found::OtherVariants(variant) => {
                self.variant = Some(variant);
                None
            }
            _ => None,
        }
    }

    /// Whether it is another answer than the one that is asked about, which may be fresh itself.
    fn is_news(&self, entry: &Entry) -> bool {
        match &self.stored {
            Stored::Stale(held) => entry.received() > held.received(),
            Stored::Part(..) | Stored::Nothing => true,
        }
    }
}
