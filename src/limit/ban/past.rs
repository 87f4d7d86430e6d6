//! Who was banned before: what a further ban grows by. Bounded; what is to be forgotten first goes first.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::client::Client;

/// Offences of clients, until they are forgotten.
#[derive(Debug)]
pub struct Past {
    most: usize,
    offences: HashMap<Client, (u32, Instant)>,
    /// The same, by when they are forgotten.
    order: BTreeSet<(Instant, Client)>,
}

impl Past {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            offences: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    /// How often this client was banned, as far as that is not forgotten.
    pub fn offences(&self, client: &Client, now: Instant) -> u32 {
        match self.offences.get(client) {
            Some((offences, until)) if *until > now => *offences,
            _ => 0,
        }
    }

    /// Remembers that it was banned so often, until then.
    pub fn remember(&mut self, client: Client, offences: u32, until: Instant) {
        self.forget(&client);
        self.offences.insert(client, (offences, until));
        self.order.insert((until, client));
        if self.order.len() > self.most {
            self.forget_first();
        }
    }

    pub fn forget(&mut self, client: &Client) {
        if let Some((_, until)) = self.offences.remove(client) {
            self.order.remove(&(until, *client));
        }
    }

    /// Gives back the room of what is forgotten, of at most so many.
    pub fn tidy(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            match self.order.first() {
                Some((until, _)) if *until <= now => self.forget_first(),
                _ => return,
            }
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, client)) = self.order.pop_first() {
            self.offences.remove(&client);
        }
        if self.offences.is_empty() {
            self.offences = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn offences_are_remembered_until_then_and_within_bounds() {
        let mut past = Past::new(2);
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let [one, two, three] =
            ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|text| text.parse().unwrap());
        past.remember(one, 1, at(10));
        past.remember(one, 2, at(30));
        past.remember(two, 1, at(20));
        assert_eq!(
            (past.offences(&one, at(0)), past.offences(&two, at(0))),
            (2, 1)
        );
        assert_eq!(
            (past.offences(&one, at(20)), past.offences(&two, at(20))),
            (2, 0)
        );
        past.remember(three, 1, at(40));
        assert_eq!(
            past.offences(&two, at(0)),
            0,
            "it was to be forgotten first"
        );
        past.tidy(at(30), 10);
        assert_eq!((past.offences.len(), past.order.len()), (1, 1));
    }
}
