//! Who has acknowledged which of our purges. They may come before it is known who is asked.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::wire::Acknowledgement;

/// The purges that somebody waits for.
#[derive(Default)]
pub struct Acknowledgements(Arc<Mutex<HashMap<u64, watch::Sender<HashSet<u64>>>>>);

impl Acknowledgements {
    /// Waits for another purge, until the value is dropped.
    pub fn expect(&self) -> Awaited {
        let (sender, heard) = watch::channel(HashSet::new());
        let token = super::random();
        self.0.lock().insert(token, sender);
        Awaited {
            all: self.0.clone(),
            token,
            heard,
        }
    }

    pub fn hear(&self, acknowledgement: &Acknowledgement) {
        let all = self.0.lock();
        let awaited = acknowledgement
            .tokens
            .iter()
            .filter_map(|token| all.get(token));
        for heard in awaited {
            heard.send_if_modified(|heard| heard.insert(acknowledgement.instance));
        }
    }
}

/// One purge that is waited for.
pub struct Awaited {
    all: Arc<Mutex<HashMap<u64, watch::Sender<HashSet<u64>>>>>,
    token: u64,
    heard: watch::Receiver<HashSet<u64>>,
}

impl Awaited {
    /// What the others are to acknowledge it by.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Waits until each of these has acknowledged it.
    pub async fn all(&mut self, instances: Vec<u64>) {
        let is_everybody =
            |heard: &HashSet<u64>| instances.iter().all(|instance| heard.contains(instance));
        let everybody = self.heard.wait_for(is_everybody).await;
        everybody.expect("it is listed for as long as it is awaited");
    }

    pub fn has(&self, instance: u64) -> bool {
        self.heard.borrow().contains(&instance)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.all.lock().remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_purge_is_acknowledged_by_all_when_each_of_them_has() {
        let acknowledgements = Acknowledgements::default();
        let mut awaited = acknowledgements.expect();
        let token = awaited.token();
        let hear = |instance, tokens| acknowledgements.hear(&Acknowledgement { instance, tokens });
        hear(1, vec![token]);
        hear(2, vec![token + 1]);
        assert!(awaited.all(vec![1]).now_or_never().is_some());
        assert!(awaited.all(vec![1, 2]).now_or_never().is_none());
        assert!(awaited.has(1) && !awaited.has(2));
        hear(2, vec![token + 1, token]);
        assert!(awaited.all(vec![1, 2]).now_or_never().is_some());
        drop(awaited);
        assert!(acknowledgements.0.lock().is_empty());
    }
}
