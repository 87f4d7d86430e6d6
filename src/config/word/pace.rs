//! How fast requests go to an upstream, written as a quota of requests.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::Word;
use crate::config::declare::Yields;
use crate::limit::quota::{Per, Quota, Unit};
use crate::upstream::Rate;

/// Requests that come while this gateway is late to send one on may catch up.
const LATENESS: Duration = Duration::from_millis(20);

/// A quota of requests in a period that begins at any moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaceQuota(Rate);

impl Yields<Rate> for PaceQuota {
    fn yields(self) -> Rate {
        self.0
    }
}

impl FromStr for PaceQuota {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let quota: Quota = text.parse().map_err(|wrong| format!("{wrong}"))?;
        let (Unit::Requests, Per::Period { period, burst }) = (quota.unit, quota.per) else {
            return Err(format!(
                r#"{text:?} is not a pace; expected requests in a period such as "10000 per minute, burst 100""#
            ));
        };
        let amount = u128::from(quota.amount);
        let period = period.as_nanos();
        let is_said = text.contains("burst");
        // Evenly, so that no period whatsoever holds more than the amount.
        let burst = match is_said {
            true => u128::from(burst),
            false => (1 + LATENESS.as_nanos() * amount / period).min(amount),
        };
        let flow = match is_said {
            true => amount,
            false => amount - burst + 1,
        };
        let every = Duration::from_nanos(period.div_ceil(flow) as u64);
        let burst = u32::try_from(burst).ok().and_then(NonZeroU32::new);
        let burst = burst.expect("a quota has bounds");
        Ok(Self(Rate { every, burst }))
    }
}

impl Word for PaceQuota {
    const EXPECTS: &'static str = r#"a pace such as "10000 per minute, burst 100""#;

    fn form() -> Json {
        json!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str) -> (u128, u32) {
        let rate = text.parse::<PaceQuota>().unwrap().yields();
        (rate.every.as_micros(), rate.burst.get())
    }

    #[test]
    fn with_a_burst_it_is_a_bucket_and_without_one_even() {
        assert_eq!(rate("10000 per minute, burst 100"), (6000, 100));
        assert_eq!(rate("10 per second"), (100_000, 1));
        assert_eq!(rate("1 per minute"), (60_000_000, 1));
        assert_eq!(rate("10000 per minute"), (6001, 4));
        for text in ["5000 per day", "10 MiB per second", "fast", "0 per second"] {
            assert!(text.parse::<PaceQuota>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn without_a_burst_no_period_holds_more_than_the_amount(amount in 1_u64..1_000_000, millis in 1_u64..3_600_000) {
            let rate = format!("{amount} per {millis}ms").parse::<PaceQuota>().unwrap().yields();
            let period = Duration::from_millis(millis).as_nanos();
            // Of a period without its last moment.
            let most = u128::from(rate.burst.get()) - 1 + period.div_ceil(rate.every.as_nanos());
            prop_assert!(most <= u128::from(amount), "{most} of {amount}");
        }
    }
}
