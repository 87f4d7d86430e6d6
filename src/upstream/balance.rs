//! Which of several backends takes the next request. Pure: load, weights, rotation and chance come in as values.

use std::{fmt, str::FromStr};

use http::HeaderName;
use thiserror::Error;

use crate::word::UnknownWord;

/// How an upstream spreads requests over its backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The fewest requests in flight for its weight.
    #[default]
    LeastConnections,
    /// In turn, as often as its weight, evenly interleaved.
    RoundRobin,
    /// The less loaded of two drawn at random.
    RandomTwo,
    /// The same backend for the same key while it is there. A request without the key goes by least connections.
    ConsistentHash(Affinity),
}

/// What of a request is hashed by [`Balance::ConsistentHash`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    ClientIp,
    Header(HeaderName),
    Cookie(String),
}

/// Every form a [`Balance`] is written in.
const FORMS: &[&str] = &[
    "least-connections",
    "round-robin",
    "random-two",
    "consistent-hash:client-ip",
    "consistent-hash:header:NAME",
    "consistent-hash:cookie:NAME",
];

#[derive(Debug, Error, PartialEq, Eq)]
pub enum BalanceError {
    #[error(transparent)]
    Unknown(UnknownWord),
    #[error("{0:?} is not a header name; expected letters, digits and -")]
    Header(String),
    #[error("{0:?} is not a cookie name; expected letters, digits, - and _")]
    Cookie(String),
}

/// One backend that could take the request.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Requests it is working on.
    pub in_flight: u32,
    /// Its share, already reduced during slow start. In any unit common to all candidates; at least 1.
    pub weight: u32,
    /// Hash of its address: what makes it itself for [`consistent`].
    pub identity: u64,
    /// What [`round_robin`] owes it; the caller keeps it between calls and starts it at 0.
    pub credit: i64,
}

/// The index of the candidate with the lowest (in flight + 1) / weight; ties go to the first at or after `rotation`.
///
/// `None` only for no candidates.
pub fn least_connections(candidates: &[Candidate], rotation: usize) -> Option<usize> {
    let count = candidates.len();
    let start = rotation.checked_rem(count)?;
    let mut best = start;
    for index in (start + 1..count).chain(0..start) {
        if less_loaded(&candidates[index], &candidates[best]) {
            best = index;
        }
    }
    Some(best)
}

/// Takes turns so that every window of a whole cycle holds each candidate `weight` times, spread out and not in a row.
///
/// Each candidate earns its weight and the richest pays the total, so credits always sum to what they summed to before.
pub fn round_robin(candidates: &mut [Candidate]) -> Option<usize> {
    let total: i64 = candidates
        .iter()
        .map(|candidate| i64::from(candidate.weight))
        .sum();
    let mut best = None;
    let mut most = i64::MIN;
    for (index, candidate) in candidates.iter_mut().enumerate() {
        candidate.credit += i64::from(candidate.weight);
        if candidate.credit > most {
            (best, most) = (Some(index), candidate.credit);
        }
    }
    candidates[best?].credit -= total;
    best
}

/// Draws two different candidates by weight and takes the less loaded; the first drawn on a tie.
pub fn random_two(candidates: &[Candidate], chance: [u64; 2]) -> Option<usize> {
    let first = draw(candidates, None, chance[0])?;
    let Some(second) = draw(candidates, Some(first), chance[1]) else {
        return Some(first);
    };
    Some(if less_loaded(&candidates[second], &candidates[first]) {
        second
    } else {
        first
    })
}

/// The candidate with the highest weighted rendezvous score for `key`.
///
/// Every candidate scores on its own, so adding or removing one moves only the keys it wins or held.
/// The expected share of a candidate is its weight over the total.
pub fn consistent(candidates: &[Candidate], key: u64) -> Option<usize> {
    let score = |candidate: &Candidate| {
        // 53 random bits, centred so that the value is never 0 nor 1.
        let uniform =
            ((mix(key ^ mix(candidate.identity)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        f64::from(candidate.weight) / -uniform.ln()
    };
    let scored = candidates.iter().map(score).enumerate();
    scored
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(index, _)| index)
}

/// A hash that is the same in every process and release: gateways behind one address agree on it.
pub fn hash(bytes: &[u8]) -> u64 {
    // FNV-1a, finished by `mix` because its high bits alone are poor for short keys.
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }))
}

/// The finaliser of splitmix64: every input bit reaches every output bit.
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Compares (in flight + 1) / weight by cross-multiplication: exact, and no division.
fn less_loaded(a: &Candidate, b: &Candidate) -> bool {
    (u64::from(a.in_flight) + 1) * u64::from(b.weight)
        < (u64::from(b.in_flight) + 1) * u64::from(a.weight)
}

fn draw(candidates: &[Candidate], except: Option<usize>, chance: u64) -> Option<usize> {
    let others = || {
        candidates
            .iter()
            .enumerate()
            .filter(move |(index, _)| Some(*index) != except)
    };
    let total: u64 = others()
        .map(|(_, candidate)| u64::from(candidate.weight))
        .sum();
    let mut ticket = chance.checked_rem(total)?;
    for (index, candidate) in others() {
        let weight = u64::from(candidate.weight);
        if ticket < weight {
            return Some(index);
        }
        ticket -= weight;
    }
    None
}

impl FromStr for Balance {
    type Err = BalanceError;

    fn from_str(text: &str) -> Result<Self, BalanceError> {
        Ok(match text {
            "least-connections" => Self::LeastConnections,
            "round-robin" => Self::RoundRobin,
            "random-two" => Self::RandomTwo,
            "consistent-hash:client-ip" => Self::ConsistentHash(Affinity::ClientIp),
            _ => {
                if let Some(name) = text.strip_prefix("consistent-hash:header:") {
                    let name = name
                        .parse()
                        .map_err(|_| BalanceError::Header(name.into()))?;
                    Self::ConsistentHash(Affinity::Header(name))
                } else if let Some(name) = text.strip_prefix("consistent-hash:cookie:") {
                    // A cookie name is a token (RFC 6265 4.1.1), as a field name is; but its case counts.
                    HeaderName::from_bytes(name.as_bytes())
                        .map_err(|_| BalanceError::Cookie(name.into()))?;
                    Self::ConsistentHash(Affinity::Cookie(name.into()))
                } else {
                    let unknown = UnknownWord::new("balance", text, FORMS);
                    return Err(BalanceError::Unknown(unknown));
                }
            }
        })
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeastConnections => f.write_str("least-connections"),
            Self::RoundRobin => f.write_str("round-robin"),
            Self::RandomTwo => f.write_str("random-two"),
            Self::ConsistentHash(Affinity::ClientIp) => f.write_str("consistent-hash:client-ip"),
            Self::ConsistentHash(Affinity::Header(name)) => {
                write!(f, "consistent-hash:header:{name}")
            }
            Self::ConsistentHash(Affinity::Cookie(name)) => {
                write!(f, "consistent-hash:cookie:{name}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        let candidate = |(index, &weight)| Candidate {
            in_flight: 0,
            weight,
            identity: hash(format!("10.0.0.{index}:80").as_bytes()),
            credit: 0,
        };
        weights.iter().enumerate().map(candidate).collect()
    }

    #[test]
    fn no_candidates_is_no_choice() {
        assert_eq!(least_connections(&[], 7), None);
        assert_eq!(round_robin(&mut []), None);
        assert_eq!(random_two(&[], [1, 2]), None);
        assert_eq!(consistent(&[], 1), None);
    }

    #[test]
    fn equal_backends_take_turns() {
        let idle = candidates(&[1, 1, 1]);
        let chosen: Vec<_> = (0..6)
            .map(|turn| least_connections(&idle, turn).unwrap())
            .collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_heavy_backend_is_interleaved_and_not_served_in_a_row() {
        let mut backends = candidates(&[5, 1, 1]);
        let chosen: Vec<_> = (0..7)
            .map(|_| round_robin(&mut backends).unwrap())
            .collect();
        assert_eq!(chosen, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn balance_words_are_printed_as_they_were_written() {
        for text in [
            "least-connections",
            "round-robin",
            "random-two",
            "consistent-hash:client-ip",
            "consistent-hash:header:x-user",
            "consistent-hash:cookie:SID",
        ] {
            assert_eq!(text.parse::<Balance>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_unknown_balance_names_the_known_ones() {
        let error = "least-conections"
            .parse::<Balance>()
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            r#"unknown balance "least-conections"; did you mean "least-connections"? expected: least-connections, round-robin, random-two, consistent-hash:client-ip, consistent-hash:header:NAME, consistent-hash:cookie:NAME"#
        );
        for text in [
            "consistent-hash",
            "consistent-hash:",
            "consistent-hash:header:",
            "consistent-hash:header:a b",
            "consistent-hash:cookie:",
            "consistent-hash:cookie:a b",
        ] {
            assert!(text.parse::<Balance>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_meets_the_same_backend_in_every_release() {
        // Changing this moves every client's session: it is a decision, not a refactoring.
        assert_eq!(hash(b"192.0.2.1"), 5_552_405_930_031_864_309);
        let chosen: Vec<_> = (0..8)
            .map(|key| consistent(&candidates(&[1, 1, 1]), mix(key)).unwrap())
            .collect();
        assert_eq!(chosen, [2, 0, 2, 2, 0, 0, 2, 2]);
    }

    proptest! {
        #[test]
        fn equal_backends_stay_within_one(count in 1_usize..40, arrivals in 0_usize..400, rotation: usize) {
            let mut backends = candidates(&vec![1; count]);
            for turn in 0..arrivals {
                let chosen = least_connections(&backends, rotation.wrapping_add(turn)).unwrap();
                backends[chosen].in_flight += 1;
            }
            let load = || backends.iter().map(|backend| backend.in_flight);
            prop_assert!(load().max().unwrap() - load().min().unwrap() <= 1);
        }

        #[test]
        fn load_follows_weight(weights in prop::collection::vec(1_u32..20, 1..12)) {
            let mut backends = candidates(&weights);
            let total: u32 = weights.iter().sum();
            for turn in 0..total * 10 {
                let chosen = least_connections(&backends, turn as usize).unwrap();
                backends[chosen].in_flight += 1;
            }
            for backend in &backends {
                prop_assert!(backend.in_flight.abs_diff(backend.weight * 10) <= 1, "{backend:?}");
            }
        }

        #[test]
        fn a_cycle_of_turns_holds_each_backend_as_often_as_its_weight(weights in prop::collection::vec(1_u32..30, 1..12)) {
            let mut backends = candidates(&weights);
            let mut turns = vec![0; weights.len()];
            for _ in 0..weights.iter().sum() {
                turns[round_robin(&mut backends).unwrap()] += 1;
            }
            prop_assert_eq!(turns, weights);
            prop_assert!(backends.iter().all(|backend| backend.credit == 0));
        }

        #[test]
        fn two_drawn_are_different_and_the_less_loaded_wins(loads in prop::collection::vec(0_u32..9, 2..12), a: u64, b: u64) {
            let mut backends = candidates(&vec![1; loads.len()]);
            for (backend, load) in backends.iter_mut().zip(&loads) {
                backend.in_flight = *load;
            }
            let first = draw(&backends, None, a).unwrap();
            let second = draw(&backends, Some(first), b).unwrap();
            prop_assert_ne!(first, second);
            prop_assert_eq!(loads[random_two(&backends, [a, b]).unwrap()], loads[first].min(loads[second]));
        }

        #[test]
        fn a_removed_backend_moves_only_its_own_keys(
            weights in prop::collection::vec(1_u32..9, 2..12),
            gone: prop::sample::Index,
            keys in prop::collection::vec(any::<u64>(), 1..200),
        ) {
            let all = candidates(&weights);
            let mut fewer = all.clone();
            let gone = fewer.remove(gone.index(all.len())).identity;
            for key in keys {
                let before = all[consistent(&all, key).unwrap()].identity;
                let after = fewer[consistent(&fewer, key).unwrap()].identity;
                prop_assert!(before == gone || before == after);
            }
        }
    }

    #[test]
    fn keys_and_draws_are_shared_by_weight() {
        let backends = candidates(&[1, 2, 5]);
        let mut keys = [0_u32; 3];
        let mut draws = [0_u32; 3];
        for key in 0..80_000 {
            keys[consistent(&backends, mix(key)).unwrap()] += 1;
            draws[draw(&backends, None, mix(key)).unwrap()] += 1;
        }
        for (index, weight) in [1, 2, 5].into_iter().enumerate() {
            assert!(keys[index].abs_diff(weight * 10_000) < 500, "{keys:?}");
            assert!(draws[index].abs_diff(weight * 10_000) < 500, "{draws:?}");
        }
    }
}
