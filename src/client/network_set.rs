//! Networks by the million, and whether an address is in one of them: a few steps of one cache line each, whatever the
//! networks are, so that nobody who chooses them can make it slow.

use std::net::IpAddr;

use ipnet::IpNet;

use super::unmap_network;

/// Keys that are compared in one step: those of IPv4 fill a cache line.
const WIDTH: usize = 16;

/// Many networks of both families, put together once.
#[derive(Debug, Default)]
pub struct NetworkSet {
    four: Boundaries<u32>,
    six: Boundaries<u128>,
}

impl NetworkSet {
    /// Networks in any order; those that overlap or touch count as one, and an IPv4-mapped IPv6 network is the IPv4
    /// network it maps.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for network in networks {
            match unmap_network(network) {
                IpNet::V4(net) => four.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => six.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self {
            four: Boundaries::new(four, |last| last.checked_add(1)),
            six: Boundaries::new(six, |last| last.checked_add(1)),
        }
    }

    /// Whether `address` is in one of the networks. `::ffff:10.0.0.1` is 10.0.0.1.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(four) => self.four.contains(four.to_bits()),
            IpAddr::V6(six) => self.six.contains(six.to_bits()),
        }
    }

    /// No address is in one of them.
    pub fn is_empty(&self) -> bool {
        self.four.levels.is_empty() && self.six.levels.is_empty()
    }
}

/// Where ranges begin and where they are over, in turn and in order: what has an odd number of boundaries at or below it
/// is inside.
#[derive(Debug)]
struct Boundaries<T> {
    /// The last has all of them, and each before it the first of every [`WIDTH`] of the next.
    levels: Vec<Box<[T]>>,
}

impl<T> Default for Boundaries<T> {
    fn default() -> Self {
        Self { levels: Vec::new() }
    }
}

impl<T: Copy + Ord> Boundaries<T> {
    /// Of inclusive ranges; `after` is the next number, if there is one.
    fn new(mut ranges: Vec<(T, T)>, after: impl Fn(T) -> Option<T>) -> Self {
        ranges.sort_unstable();
        let mut all: Vec<T> = Vec::with_capacity(ranges.len() * 2);
        // Where the range that is open is over; `None` within is at no number.
        let mut open: Option<Option<T>> = None;
        for (first, last) in ranges {
            let over = after(last);
            match &mut open {
                Some(end) if end.is_none_or(|end| first <= end) => {
                    *end = end.zip(over).map(|(end, over)| end.max(over));
                }
                _ => {
                    all.extend(open.flatten());
                    all.push(first);
                    open = Some(over);
                }
            }
        }
        all.extend(open.flatten());
        Self::over(all)
    }

    fn over(all: Vec<T>) -> Self {
        if all.is_empty() {
            return Self::default();
        }
        let mut levels = vec![all.into_boxed_slice()];
        while levels[0].len() > WIDTH {
            let above = levels[0].iter().step_by(WIDTH).copied().collect();
            levels.insert(0, above);
        }
        Self { levels }
    }

    fn contains(&self, value: T) -> bool {
        let mut below = 0;
        for (depth, level) in self.levels.iter().enumerate() {
            // The group begins with the last boundary above that is not beyond the value.
            let begin = if depth == 0 { 0 } else { (below - 1) * WIDTH };
            let end = level.len().min(begin + WIDTH);
            let group = &level[begin..end];
            below = begin + group.iter().filter(|&&boundary| boundary <= value).count();
            if below == 0 {
                return false;
            }
        }
        below % 2 == 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(networks: &[&str]) -> NetworkSet {
        NetworkSet::new(networks.iter().map(|text| text.parse().unwrap()))
    }

    #[test]
    fn a_set_holds_its_networks_in_either_family_and_form() {
        let set = set(&[
            "10.0.0.0/9",
            "10.128.0.0/9",
            "10.1.0.0/16",
            "255.255.255.0/24",
            "::ffff:172.16.0.0/108",
            "2001:db8::/32",
            "ffff::/16",
        ]);
        for (address, expected) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("255.255.254.255", false),
            ("255.255.255.255", true),
            ("172.20.0.1", true),
            ("::ffff:172.20.0.1", true),
            ("172.32.0.0", false),
            ("2001:db7:ffff::", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("::", false),
        ] {
            assert_eq!(
                set.contains(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn everything_and_nothing_are_sets_too() {
        let nothing = set(&[]);
        assert!(nothing.is_empty() && !nothing.contains("10.0.0.1".parse().unwrap()));
        let everything = set(&["0.0.0.0/0", "10.0.0.0/8", "::/0"]);
        for address in ["0.0.0.0", "255.255.255.255", "::", "2001:db8::1"] {
            assert!(everything.contains(address.parse().unwrap()), "{address}");
        }
    }

    fn network() -> impl Strategy<Value = IpNet> {
        // Few addresses, so that networks touch, nest and repeat.
        let four = (0u32..2048, 20u8..=32).prop_map(|(low, length)| {
            let address = std::net::Ipv4Addr::from_bits(low << 3);
            IpNet::new(address.into(), length).unwrap().trunc()
        });
        let six = (0u128..2048, 110u8..=128).prop_map(|(low, length)| {
            let address = std::net::Ipv6Addr::from_bits(1 << 127 | low << 3);
            IpNet::new(address.into(), length).unwrap().trunc()
        });
        prop_oneof![four, six]
    }

    proptest! {
        #[test]
        fn a_set_says_what_asking_each_network_says(
            networks in prop::collection::vec(network(), 0..600),
            probes in prop::collection::vec(0u32..16_384, 1..200),
        ) {
            let set = NetworkSet::new(networks.iter().copied());
            for probe in probes {
                let four = IpAddr::from(std::net::Ipv4Addr::from_bits(probe));
                let six = IpAddr::from(std::net::Ipv6Addr::from_bits(1 << 127 | u128::from(probe)));
                for address in [four, six] {
                    let expected = networks.iter().any(|network| network.contains(&address));
                    prop_assert_eq!(set.contains(address), expected, "{}", address);
                }
            }
        }
    }
}
