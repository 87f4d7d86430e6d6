//! How many retries an upstream affords: a share of its recent requests, so that retries cannot multiply an outage.
//! Pure; the clock comes in.

use tokio::time::Instant;

/// What counts as recent, in seconds.
const WINDOW: u64 = 10;
/// Retries per window that low traffic may always make.
const FLOOR: u64 = 10;

/// Requests and retries of the last ten seconds.
#[derive(Default)]
pub struct Budget {
    began: Option<Instant>,
    slots: [Slot; WINDOW as usize],
}

/// One second's counts.
#[derive(Clone, Copy, Default)]
struct Slot {
    second: u64,
    requests: u64,
    retries: u64,
}

impl Budget {
    /// Counts a request's first attempt.
    pub fn request(&mut self, now: Instant) {
        self.slot(now).requests += 1;
    }

    /// Takes one retry, if fewer than `percent` of the recent requests or than the floor of 10 have been made.
    ///
    /// 0 percent allows none.
    pub fn retry(&mut self, now: Instant, percent: u32) -> bool {
        let second = self.slot(now).second;
        let recent = self
            .slots
            .iter()
            .filter(|slot| slot.second + WINDOW > second);
        let (requests, retries) = recent.fold((0, 0), |(requests, retries), slot| {
            (requests + slot.requests, retries + slot.retries)
        });
        let allowed = if percent == 0 {
            0
        } else {
            FLOOR.max(requests * u64::from(percent) / 100)
        };
        if retries >= allowed {
            return false;
        }
        self.slot(now).retries += 1;
        true
    }

    fn slot(&mut self, now: Instant) -> &mut Slot {
        let began = *self.began.get_or_insert(now);
        let second = now.saturating_duration_since(began).as_secs();
        let slot = &mut self.slots[(second % WINDOW) as usize];
        if slot.second != second {
            *slot = Slot {
                second,
                ..Slot::default()
            };
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    const BUDGET_WINDOW: Duration = Duration::from_secs(WINDOW);

    fn spend(budget: &mut Budget, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| budget.retry(now, 20)).count()
    }

    #[test]
    fn a_fifth_of_the_recent_requests_may_be_retried() {
        let now = Instant::now();
        let mut budget = Budget::default();
        for _ in 0..1000 {
            budget.request(now);
        }
        assert_eq!(spend(&mut budget, now, 1000), 200);
    }

    #[test]
    fn low_traffic_may_retry_all_the_same() {
        let mut budget = Budget::default();
        let now = Instant::now();
        budget.request(now);
        assert_eq!(spend(&mut budget, now, 100), 10);
        assert_eq!(spend(&mut budget, now + BUDGET_WINDOW, 100), 10);
    }

    #[test]
    fn requests_long_past_pay_for_nothing() {
        let now = Instant::now();
        let mut budget = Budget::default();
        for _ in 0..1000 {
            budget.request(now);
        }
        assert_eq!(spend(&mut budget, now + BUDGET_WINDOW, 1000), 10);
    }

    #[test]
    fn a_budget_of_nothing_allows_no_retry() {
        assert!(!Budget::default().retry(Instant::now(), 0));
    }

    proptest! {
        #[test]
        fn no_window_holds_more_retries_than_its_share(steps in prop::collection::vec((0_u64..4, 0_usize..60, 0_usize..60), 1..60)) {
            let start = Instant::now();
            let mut budget = Budget::default();
            let mut second = 0;
            let mut history: Vec<(u64, u64, u64)> = Vec::new();
            for (pause, requests, tries) in steps {
                second += pause;
                let now = start + Duration::from_secs(second);
                (0..requests).for_each(|_| budget.request(now));
                let made = spend(&mut budget, now, tries) as u64;
                history.push((second, requests as u64, made));
                let recent = || history.iter().filter(|(at, ..)| at + WINDOW > second);
                let requests: u64 = recent().map(|(_, requests, _)| requests).sum();
                let retries: u64 = recent().map(|(.., retries)| retries).sum();
                prop_assert!(made == 0 || retries <= FLOOR.max(requests / 5));
            }
        }
    }
}
