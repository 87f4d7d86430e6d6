//! One choice among the members of an upstream: who is up, not tried and below its cap, and of those the balance's.

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    Balance, LastResort, Lease, Member, Tried, Unavailable, Upstream,
    balance::{self, Candidate},
    intake::{Hold, Why},
    lease::Terms,
    passive::Standing,
    pause::Gate,
    queue::{Order, Refused},
};

impl Upstream {
    /// Picks and counts; `order` is the turn's, so its lock is held.
    pub(super) fn pick(
        &self,
        order: &mut Order,
        affinity: Option<u64>,
        tried: &Tried,
    ) -> Result<Lease, Refused> {
        let members = self.members.load();
        if members.is_empty() {
            return Err(Refused::Unavailable(Unavailable::NoBackends));
        }
        let now = Instant::now();
        let first = self.live.intake.may_take(&self.settings, now);
        let first = first.map_err(Refused::Held)?;
        let lone = members.len() == 1;
        let standings: Standings = members
            .iter()
            .map(|member| member.backend.standing(now, &self.settings, lone))
            .collect();
        let pick = Pick {
            upstream: self,
            members: &members,
            standings,
            affinity,
            lone,
            first,
            now,
        };

        let up = |index: usize| pick.standings[index].0 != Standing::Down;
        let fresh = |index: usize| !tried.contains(&members[index].backend);
        let backup = |index: usize| members[index].backup;
        let tiers: [&dyn Fn(usize) -> bool; 4] = [
            &|index| up(index) && fresh(index) && !backup(index),
            &|index| up(index) && fresh(index) && backup(index),
            &|index| up(index) && !backup(index),
            &|index| up(index) && backup(index),
        ];
        let last: [&dyn Fn(usize) -> bool; 2] = [&fresh, &|_| true];
        let last = if self.settings.last_resort == LastResort::TryAnyway {
            &last[..]
        } else {
            &[]
        };
        for tier in tiers.iter().chain(last) {
            if let Some(picked) = pick.among(order, tier) {
                return picked;
            }
        }
        Err(Refused::Unavailable(Unavailable::AllDown))
    }
}

/// What each member may do, and the part of its weight it has.
type Standings = SmallVec<[(Standing, u32); 16]>;

/// One choice over one view of the members.
struct Pick<'a> {
    upstream: &'a Upstream,
    members: &'a [Member],
    standings: Standings,
    affinity: Option<u64>,
    lone: bool,
    /// It would be the first after a pause of the whole upstream.
    first: bool,
    now: Instant,
}

impl Pick<'_> {
    /// A backend of this tier; `None` if it has none, [`Refused::Held`] if all it has are at their cap, want to be left
    /// alone, or the pace does not allow it.
    fn among(
        &self,
        order: &mut Order,
        tier: &dyn Fn(usize) -> bool,
    ) -> Option<Result<Lease, Refused>> {
        let cap = match self.upstream.settings.max_connections {
            0 => u32::MAX,
            cap => cap,
        };
        let mut hold: Option<Hold> = None;
        let mut indices: SmallVec<[usize; 16]> = SmallVec::new();
        let mut candidates: SmallVec<[Candidate; 16]> = SmallVec::new();
        for (index, member) in self
            .members
            .iter()
            .enumerate()
            .filter(|(index, _)| tier(*index))
        {
            let in_flight = member.backend.in_flight();
            if in_flight >= cap {
                let until = hold.and_then(|hold| hold.until);
                hold = Some(Hold {
                    until,
                    ..Hold::CAPS
                });
                continue;
            }
            if let Some(until) = self.left_alone(member) {
                let why = hold.map_or(Why::Pause, |hold| hold.why);
                let sooner = hold.and_then(|hold| hold.until).unwrap_or(until);
                let until = Some(until.min(sooner));
                hold = Some(Hold { why, until });
                continue;
            }
            indices.push(index);
            candidates.push(Candidate {
                in_flight,
                weight: member.weight * self.standings[index].1,
                identity: member.backend.identity(),
                credit: member.backend.credit(),
            });
        }
        let Some(chosen) = self.choose(order, &mut candidates) else {
            return hold.map(|hold| Err(Refused::Held(hold)));
        };
        if let Some(pacer) = &self.upstream.pacer
            && let Err(until) = pacer.take()
        {
            let every = pacer.rate().every;
            return Some(Err(Refused::Held(Hold {
                why: Why::Pace { every },
                until: Some(until),
            })));
        }
        if self.upstream.settings.balance == Balance::RoundRobin {
            for (index, candidate) in indices.iter().zip(&candidates) {
                self.members[*index].backend.set_credit(candidate.credit);
            }
        }
        let index = indices[chosen];
        // As a last resort too: if it answers although it is down, it is up.
        let trial = self.standings[index].0 != Standing::Up;
        let backend = self.members[index].backend.clone();
        let paused = self.upstream.settings.pace.is_some()
            && backend.pause().lock().gate(self.now) == Gate::Trial;
        let terms = Terms {
            lone: self.lone,
            trial,
            first: self.first || paused,
        };
        Some(Ok(Lease::new(self.upstream, backend, terms)))
    }

    /// Until when this backend wants to be left alone, if it does.
    fn left_alone(&self, member: &Member) -> Option<Instant> {
        self.upstream.settings.pace.as_ref()?;
        match member.backend.pause().lock().gate(self.now) {
            Gate::Closed { until } => Some(until),
            Gate::Open | Gate::Trial => None,
        }
    }

    fn choose(&self, order: &mut Order, candidates: &mut [Candidate]) -> Option<usize> {
        match (&self.upstream.settings.balance, self.affinity) {
            (Balance::ConsistentHash(_), Some(key)) => balance::consistent(candidates, key),
            (Balance::LeastConnections | Balance::ConsistentHash(_), _) => {
                balance::least_connections(candidates, order.rotation())
            }
            (Balance::RandomTwo, _) => {
                balance::random_two(candidates, [order.chance(), order.chance()])
            }
            (Balance::RoundRobin, _) => balance::round_robin(candidates),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokio::time::advance;

    use super::*;
    use crate::upstream::{
        Affinity, Failure, Priority, State,
        testing::{lease, loads, only, seconds, seeds, settings, take_down, upstream, with},
    };

    #[tokio::test]
    async fn requests_in_flight_are_spread_evenly() {
        let upstream = upstream(settings(), 3);
        let mut held = Vec::new();
        for _ in 0..7 {
            held.push(lease(&upstream).await);
        }
        let mut spread = loads(&upstream);
        spread.sort_unstable();
        assert_eq!(spread, [2, 2, 3]);
    }

    #[tokio::test]
    async fn round_robin_follows_the_weights() {
        let mut backends = seeds(&["192.0.2.1:80", "192.0.2.2:80"]);
        backends[0].weight = 3;
        let upstream = Upstream::new(
            with(|settings| settings.balance = Balance::RoundRobin),
            backends,
            None,
        );
        let mut turns = [0; 2];
        for _ in 0..40 {
            let lease = lease(&upstream).await;
            turns[usize::from(lease.to_string() == "192.0.2.2:80")] += 1;
        }
        assert_eq!(turns, [30, 10]);
    }

    #[tokio::test]
    async fn a_key_keeps_its_backend_until_that_is_down() {
        let settings =
            with(|settings| settings.balance = Balance::ConsistentHash(Affinity::ClientIp));
        let upstream = upstream(settings, 4);
        let key = Some(balance::hash(b"198.51.100.7"));
        let home = upstream
            .lease(Priority::Normal, key, &Tried::default())
            .await
            .unwrap()
            .to_string();
        for _ in 0..10 {
            assert_eq!(
                upstream
                    .lease(Priority::Normal, key, &Tried::default())
                    .await
                    .unwrap()
                    .to_string(),
                home
            );
        }
        let index = upstream
            .status()
            .iter()
            .position(|backend| backend.address == home)
            .unwrap();
        take_down(&upstream, index).await;
        assert_ne!(
            upstream
                .lease(Priority::Normal, key, &Tried::default())
                .await
                .unwrap()
                .to_string(),
            home
        );
    }

    #[tokio::test]
    async fn a_retry_goes_elsewhere_while_there_is_an_elsewhere() {
        let upstream = upstream(settings(), 3);
        let mut tried = Tried::default();
        let mut met = HashSet::new();
        for _ in 0..3 {
            let lease = upstream
                .lease(Priority::Normal, None, &tried)
                .await
                .unwrap();
            assert!(met.insert(lease.to_string()));
            tried.add(&lease);
        }
        assert!(upstream.lease(Priority::Normal, None, &tried).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_backend_rests_and_then_one_request_tries() {
        let upstream = upstream(settings(), 2);
        take_down(&upstream, 0).await;
        for _ in 0..10 {
            assert_eq!(lease(&upstream).await.to_string(), "192.0.2.2:80");
        }

        advance(seconds(10)).await;
        let prefer_first = only(&upstream, 0);
        let mut trial = upstream
            .lease(Priority::Normal, None, &prefer_first)
            .await
            .unwrap();
        assert_eq!(trial.to_string(), "192.0.2.1:80");
        let other = upstream
            .lease(Priority::Normal, None, &prefer_first)
            .await
            .unwrap();
        assert_eq!(other.to_string(), "192.0.2.2:80");

        trial.succeeded();
        assert_eq!(upstream.status()[0].state, State::Up);
        assert_eq!(
            upstream
                .lease(Priority::Normal, None, &prefer_first)
                .await
                .unwrap()
                .to_string(),
            "192.0.2.1:80"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_whose_client_went_away_is_left_to_the_next_request() {
        let upstream = upstream(settings(), 2);
        take_down(&upstream, 0).await;
        advance(seconds(10)).await;
        let prefer_first = only(&upstream, 0);
        drop(
            upstream
                .lease(Priority::Normal, None, &prefer_first)
                .await
                .unwrap(),
        );
        assert_eq!(
            upstream
                .lease(Priority::Normal, None, &prefer_first)
                .await
                .unwrap()
                .to_string(),
            "192.0.2.1:80"
        );
    }

    #[tokio::test]
    async fn the_only_backend_is_never_taken_down_by_traffic() {
        let upstream = upstream(settings(), 1);
        for _ in 0..20 {
            lease(&upstream).await.failed(Failure::Timeout);
        }
        assert_eq!(upstream.status()[0].state, State::Up);
    }

    #[tokio::test]
    async fn when_all_are_down_the_last_resort_decides() {
        for (last_resort, expected) in [
            (LastResort::Unavailable, Err(Unavailable::AllDown)),
            (LastResort::TryAnyway, Ok(())),
        ] {
            let upstream = upstream(with(|settings| settings.last_resort = last_resort), 2);
            take_down(&upstream, 0).await;
            take_down(&upstream, 1).await;
            assert_eq!(
                upstream
                    .lease(Priority::Normal, None, &Tried::default())
                    .await
                    .map(drop),
                expected
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn backups_serve_only_while_no_primary_can() {
        let mut backends = seeds(&["192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"]);
        backends[2].backup = true;
        let upstream = Upstream::new(settings(), backends, None);
        let mut held = Vec::new();
        for _ in 0..10 {
            held.push(lease(&upstream).await);
        }
        assert_eq!(loads(&upstream), [5, 5, 0]);
        take_down(&upstream, 0).await;
        take_down(&upstream, 1).await;
        assert_eq!(lease(&upstream).await.to_string(), "192.0.2.3:80");

        advance(seconds(10)).await;
        assert_ne!(lease(&upstream).await.to_string(), "192.0.2.3:80");
    }

    #[tokio::test(start_paused = true)]
    async fn a_recovered_backend_takes_load_slowly() {
        let upstream = upstream(with(|settings| settings.slow_start = seconds(100)), 2);
        take_down(&upstream, 0).await;
        advance(seconds(10)).await;
        upstream
            .lease(Priority::Normal, None, &only(&upstream, 0))
            .await
            .unwrap()
            .succeeded();
        assert_eq!(upstream.status()[0].state, State::Rising(10));

        let mut held = Vec::new();
        for _ in 0..11 {
            held.push(lease(&upstream).await);
        }
        assert_eq!(loads(&upstream), [1, 10]);
        held.clear();

        advance(seconds(50)).await;
        assert_eq!(upstream.status()[0].state, State::Rising(55));
        advance(seconds(50)).await;
        assert_eq!(upstream.status()[0].state, State::Up);
    }

    #[tokio::test]
    async fn no_backends_is_said_at_once() {
        let upstream = Upstream::new(settings(), seeds(&["app.example:80"]), None);
        assert_eq!(
            upstream
                .lease(Priority::Normal, None, &Tried::default())
                .await
                .unwrap_err(),
            Unavailable::NoBackends
        );
    }

    #[tokio::test]
    async fn a_backend_that_answers_as_a_last_resort_is_up() {
        let upstream = upstream(
            with(|settings| settings.last_resort = LastResort::TryAnyway),
            2,
        );
        take_down(&upstream, 0).await;
        take_down(&upstream, 1).await;
        upstream
            .lease(Priority::Normal, None, &only(&upstream, 1))
            .await
            .unwrap()
            .succeeded();
        assert_eq!(upstream.status()[1].state, State::Up);
        assert_eq!(lease(&upstream).await.to_string(), "192.0.2.2:80");
    }
}
