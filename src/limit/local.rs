//! Buckets and counters of one gateway, in its memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bucket::{Bucket, Empty, Rate, Ticks, Turn};
use super::calendar::{self, Calendar, Count};
use super::key::Digest;
use super::quota::{Per, Quota};
use super::shared::script::Shape;
use super::table::Table;
use crate::moment::Moment;

/// A quota ready to be counted by.
#[derive(Clone, Debug)]
pub struct Meter {
    pub quota: Quota,
    measure: Measure,
}

#[derive(Clone, Debug)]
enum Measure {
    Rate(Rate),
    Calendar(Arc<Calendar>),
}

/// How a client stands with one quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Requests or bytes.
    pub left: u64,
    /// Until all is there again.
    pub reset: Duration,
}

/// A quota is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Until what was asked for is there.
    pub wait: Duration,
    pub standing: Standing,
}

impl Exceeded {
    /// How the client is told to stand: it can use no more than is left until what it asked for is there.
    pub fn told(self) -> Standing {
        Standing {
            reset: self.wait,
            ..self.standing
        }
    }
}

/// What is remembered of one client and one quota; and how much there is in all, as its bucket or counter measures, so
/// that clients with different quotas can be compared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Used {
    Bucket { bucket: Bucket, of: f32 },
    Count { count: Count, of: f32 },
}

impl Default for Used {
    fn default() -> Self {
        let bucket = Bucket::default();
        Self::Bucket { bucket, of: 1.0 }
    }
}

/// The buckets of one rule.
pub struct Local {
    zero: Instant,
    table: Table<Used>,
}

impl Meter {
    pub fn new(quota: Quota, zone: &jiff::tz::TimeZone) -> Self {
        let measure = match quota.per {
            Per::Period { period, burst } => Measure::Rate(Rate::new(quota.amount, period, burst)),
            Per::Calendar(span) => Measure::Calendar(Arc::new(Calendar::new(span, zone.clone()))),
        };
        Self { quota, measure }
    }

    /// What one of so many gateways lets in by itself: at least one request at once.
    pub fn share(&self, gateways: u64) -> Self {
        let gateways = gateways.max(1);
        let mut quota = self.quota;
        let measure = match (&self.measure, &mut quota.per) {
            (Measure::Rate(_), Per::Period { period, burst }) => {
                let amount = quota.amount;
                *period = period.saturating_mul(u32::try_from(gateways).unwrap_or(u32::MAX));
                *burst = (*burst / gateways).max(1);
                Measure::Rate(Rate::new(amount, *period, *burst))
            }
            (other, _) => {
                quota.amount = (quota.amount / gateways).max(1);
                other.clone()
            }
        };
        Self { quota, measure }
    }

    /// As all gateways count by it.
    pub fn shape(&self) -> Shape {
        Shape {
            burst: self.most(),
            interval: match &self.measure {
                Measure::Rate(rate) => rate.interval_micros(),
                Measure::Calendar(_) => 0.0,
            },
        }
    }

    pub fn is_calendar(&self) -> bool {
        matches!(self.measure, Measure::Calendar(_))
    }

    /// Begin and end of the stretch of the calendar that `unix` lies in, in microseconds; 0 and 0 for a bucket.
    pub fn window(&self, unix: i64) -> (i64, i64) {
        match &self.measure {
            Measure::Rate(_) => (0, 0),
            Measure::Calendar(calendar) => {
                let (begin, end) = calendar.stretch(unix);
                (begin * 1_000_000, end * 1_000_000)
            }
        }
    }

    /// The most that can be taken at once.
    pub fn most(&self) -> u64 {
        match &self.measure {
            Measure::Rate(rate) => rate.burst(),
            Measure::Calendar(_) => self.quota.amount,
        }
    }
}

impl Local {
    /// For at most `clients` buckets.
    pub fn new(clients: usize, zero: Instant) -> Self {
        Self {
            zero,
            table: Table::new(clients),
        }
    }

    /// Takes `cost`, or nothing.
    pub fn take(
        &self,
        client: Digest,
        meter: &Meter,
        cost: u64,
        now: Moment,
    ) -> Result<Standing, Exceeded> {
        let taken = self.take_turn(client, meter, cost, Duration::ZERO, now);
        taken.map(|(standing, _)| standing)
    }

    /// Takes `cost` that will be there within `patience`, or nothing. A counter of the calendar has no turns.
    pub fn take_turn(
        &self,
        client: Digest,
        meter: &Meter,
        cost: u64,
        patience: Duration,
        now: Moment,
    ) -> Result<(Standing, Turn), Exceeded> {
        self.change(client, meter, now, |used, now| {
            let taken = used.take(meter, cost, patience, now);
            let standing = used.standing(meter, now);
            match taken {
                Ok(turn) => Ok((standing, turn)),
                Err(wait) => Err(Exceeded { wait, standing }),
            }
        })
    }

    /// Gives back what was promised and is not waited for, where that delays nobody and hurries nobody.
    pub fn give_turn_back(
        &self,
        client: Digest,
        meter: &Meter,
        cost: u64,
        turn: Turn,
        now: Moment,
    ) {
        let at = self.at(now);
        self.table
            .look(client, |used| used.give_turn_back(meter, cost, turn, at));
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&self, client: Digest, meter: &Meter, cost: u64, now: Moment) {
        let at = self.at(now);
        self.table
            .look(client, |used| used.give_back(meter, cost, at));
    }

    /// Takes what has been used already, be it there or not.
    pub fn debit(&self, client: Digest, meter: &Meter, cost: u64, now: Moment) -> Standing {
        self.change(client, meter, now, |used, now| {
            used.debit(meter, cost, now);
            used.standing(meter, now)
        })
    }

    /// How a client stands. Nothing changes by it.
    pub fn standing(&self, client: Digest, meter: &Meter, now: Moment) -> Standing {
        self.seen(client, meter).standing(meter, self.at(now))
    }

    /// How a client stands, or by what [`Local::take_turn`] would hold it back. Nothing changes by it.
    pub fn look(
        &self,
        client: Digest,
        meter: &Meter,
        cost: u64,
        patience: Duration,
        now: Moment,
    ) -> Result<Standing, Exceeded> {
        let at = self.at(now);
        let mut used = self.seen(client, meter);
        let standing = used.standing(meter, at);
        match used.take(meter, cost, patience, at) {
            Ok(_) => Ok(standing),
            Err(wait) => Err(Exceeded { wait, standing }),
        }
    }

    /// Whether anything is remembered of a client.
    pub fn knows(&self, client: Digest) -> bool {
        self.table.look(client, |_| ()).is_some()
    }

    /// Forgets what a client has used; whether there was something.
    pub fn reset(&self, client: Digest) -> bool {
        self.table.remove(client).is_some()
    }

    /// Forgets, in one piece of the table, those who have everything there again.
    pub fn clean(&self, piece: usize, now: Moment) {
        let at = self.at(now);
        self.table.clean(piece, |used| !used.is_whole(at));
    }

    pub fn pieces(&self) -> usize {
        self.table.pieces()
    }

    /// Buckets that are remembered.
    pub fn buckets(&self) -> usize {
        self.table.clients()
    }

    fn change<R>(
        &self,
        client: Digest,
        meter: &Meter,
        now: Moment,
        change: impl FnOnce(&mut Used, At) -> R,
    ) -> R {
        let at = self.at(now);
        let worth = |used: &Used| used.worth(at);
        self.table.with(client, worth, |used| {
            used.fit(meter);
            change(used, at)
        })
    }

    /// What is remembered of a client, as this quota counts.
    fn seen(&self, client: Digest, meter: &Meter) -> Used {
        let mut used = self.table.look(client, |used| *used).unwrap_or_default();
        used.fit(meter);
        used
    }

    fn at(&self, now: Moment) -> At {
        At {
            ticks: Ticks::since(self.zero, now.instant),
            unix: calendar::unix(now.system),
        }
    }
}

/// A moment as buckets and counters measure it.
#[derive(Clone, Copy)]
struct At {
    ticks: Ticks,
    unix: i64,
}

impl Used {
    /// What was counted by another kind of quota says nothing of this one.
    fn fit(&mut self, meter: &Meter) {
        *self = match (&meter.measure, *self) {
            (Measure::Rate(rate), used) => Self::Bucket {
                bucket: match used {
                    Self::Bucket { bucket, .. } => bucket,
                    Self::Count { .. } => Bucket::default(),
                },
                of: rate.depth() as f32,
            },
            (Measure::Calendar(_), used) => Self::Count {
                count: match used {
                    Self::Count { count, .. } => count,
                    Self::Bucket { .. } => Count::default(),
                },
                of: meter.quota.amount as f32,
            },
        };
    }

    fn take(
        &mut self,
        meter: &Meter,
        cost: u64,
        patience: Duration,
        at: At,
    ) -> Result<Turn, Duration> {
        match (self, &meter.measure) {
            (Self::Bucket { bucket, .. }, Measure::Rate(rate)) => {
                let taken = bucket.take_turn(rate, cost, patience, at.ticks);
                taken.map_err(|Empty { wait }| wait)
            }
            (Self::Count { count, .. }, Measure::Calendar(calendar)) => {
                let taken = count.take(calendar, meter.quota.amount, cost, at.unix);
                taken.map(|()| Turn::default())
            }
            _ => unreachable!("it was made to fit"),
        }
    }

    fn give_turn_back(&mut self, meter: &Meter, cost: u64, turn: Turn, at: At) {
        match (&mut *self, &meter.measure) {
            (Self::Bucket { bucket, .. }, Measure::Rate(rate)) => {
                bucket.give_turn_back(rate, cost, turn, at.ticks);
            }
            _ => self.give_back(meter, cost, at),
        }
    }

    fn give_back(&mut self, meter: &Meter, cost: u64, at: At) {
        match (self, &meter.measure) {
            (Self::Bucket { bucket, .. }, Measure::Rate(rate)) => {
                bucket.give_back(rate, cost, at.ticks)
            }
            (Self::Count { count, .. }, Measure::Calendar(_)) => count.give_back(cost, at.unix),
            // A reload has made it another kind meanwhile, which begins with nothing used.
            _ => {}
        }
    }

    fn debit(&mut self, meter: &Meter, cost: u64, at: At) {
        match (self, &meter.measure) {
            (Self::Bucket { bucket, .. }, Measure::Rate(rate)) => {
                bucket.debit(rate, cost, at.ticks)
            }
            (Self::Count { count, .. }, Measure::Calendar(calendar)) => {
                count.debit(calendar, cost, at.unix);
            }
            _ => unreachable!("it was made to fit"),
        }
    }

    fn standing(&self, meter: &Meter, at: At) -> Standing {
        match (self, &meter.measure) {
            (Self::Bucket { bucket, .. }, Measure::Rate(rate)) => Standing {
                left: bucket.left(rate, at.ticks),
                reset: bucket.until_full(rate, at.ticks),
            },
            (Self::Count { count, .. }, Measure::Calendar(calendar)) => Standing {
                left: meter.quota.amount.saturating_sub(count.used(at.unix)),
                reset: count.until_end(calendar, at.unix),
            },
            _ => unreachable!("it was made to fit"),
        }
    }

    fn is_whole(&self, at: At) -> bool {
        match self {
            Self::Bucket { bucket, .. } => bucket.is_full(at.ticks),
            Self::Count { count, .. } => count.is_over(at.unix),
        }
    }

    /// Who has used more of its quota is worth more: it would gain more by being forgotten. In millionths of the quota,
    /// so that nobody is driven out by those who have used little of a larger one.
    fn worth(&self, at: At) -> u32 {
        let (used, of) = match self {
            Self::Bucket { bucket, of } => (bucket.missing(at.ticks), of),
            Self::Count { count, of } => (count.used(at.unix), of),
        };
        (used as f32 / of * 1e6) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Digest = Digest([1, 2]);

    fn meter(quota: &str) -> Meter {
        Meter::new(quota.parse().unwrap(), &jiff::tz::TimeZone::UTC)
    }

    fn later(moment: Moment, by: Duration) -> Moment {
        Moment {
            instant: moment.instant + by,
            system: moment.system + by,
        }
    }

    #[test]
    fn a_client_is_told_how_it_stands_and_when_to_come_back() {
        let now = Moment::now();
        let local = Local::new(100, now.instant);
        let meter = meter("60 per minute, burst 2");
        assert_eq!(
            local.take(CLIENT, &meter, 1, now),
            Ok(Standing {
                left: 1,
                reset: Duration::from_secs(1)
            })
        );
        local.take(CLIENT, &meter, 1, now).unwrap();
        let exceeded = local.take(CLIENT, &meter, 1, now).unwrap_err();
        assert_eq!(exceeded.wait, Duration::from_secs(1));
        assert_eq!(
            exceeded.standing,
            Standing {
                left: 0,
                reset: Duration::from_secs(2)
            }
        );
        assert!(local.take(Digest([3, 2]), &meter, 1, now).is_ok());
        assert!(
            local
                .take(CLIENT, &meter, 1, later(now, exceeded.wait))
                .is_ok()
        );
    }

    #[test]
    fn who_has_everything_again_is_forgotten() {
        let now = Moment::now();
        let local = Local::new(100, now.instant);
        local
            .take(CLIENT, &meter("60 per minute, burst 2"), 1, now)
            .unwrap();
        local
            .take(Digest([9, 9]), &meter("5 per day"), 1, now)
            .unwrap();
        let clean = |now| (0..local.pieces()).for_each(|piece| local.clean(piece, now));
        clean(later(now, Duration::from_millis(900)));
        assert_eq!(local.buckets(), 2);
        clean(later(now, Duration::from_secs(1)));
        clean(later(now, Duration::from_secs(86_400)));
        assert_eq!(local.buckets(), 0);
    }

    /// What is in memory for each client, times three halves: a slot of three is free at least.
    #[test]
    fn a_client_takes_at_most_100_bytes() {
        let slot = std::mem::size_of::<Option<(u64, Used)>>();
        assert_eq!(slot, 32);
        // Just grown, a piece is a third full.
        assert!(slot * 3 <= 100);
    }

    #[test]
    fn who_has_used_up_a_small_quota_stays_when_others_use_a_little_of_large_ones() {
        let now = Moment::now();
        let (small, large) = (meter("5 per day"), meter("100_000 per month"));
        let (fast, slow) = (meter("5 per second"), meter("1000 per hour"));
        let local = Local::new(1_000, now.instant);
        let client = |number: u64| {
            let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            Digest([mixed ^ mixed >> 32, mixed])
        };
        for (number, meter) in [(0, &small), (1, &fast)] {
            local.take(client(number), meter, 5, now).unwrap();
        }
        for number in 2..20_000 {
            match number % 2 {
                0 => local.debit(client(number), &large, 100, now),
                _ => local.debit(client(number), &slow, 10, now),
            };
        }
        for (number, meter) in [(0, &small), (1, &fast)] {
            assert_eq!(local.standing(client(number), meter, now).left, 0);
        }
    }

    #[test]
    fn a_reload_that_makes_a_rate_a_day_begins_the_day() {
        let now = Moment::now();
        let local = Local::new(100, now.instant);
        local.take(CLIENT, &meter("1 per minute"), 1, now).unwrap();
        assert_eq!(
            local
                .take(CLIENT, &meter("5 per day"), 1, now)
                .unwrap()
                .left,
            4
        );
    }
}
