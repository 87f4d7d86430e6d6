//! Networks by the million, and whether an address is in one of them: a few groups of numbers to look into, whatever the
//! networks are, so that nobody who chooses them can make it slow.

use std::net::IpAddr;

use ipnet::IpNet;

use super::unmap_network;

/// Boundaries of a group: few steps within, few groups on the way.
const WIDTH: usize = 16;

/// Many networks of both families, put together once.
#[derive(Debug, Default)]
pub struct NetworkSet {
    four: Boundaries<u32>,
    /// Networks of IPv6 by the half of the address that tells them apart.
    six: Boundaries<u64>,
    /// Parts of such networks.
    long_six: Boundaries<u128>,
}

impl NetworkSet {
    /// Networks in any order; those that overlap or touch count as one, and an IPv4-mapped IPv6 network is the IPv4
    /// network it maps.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut four, mut six, mut long_six) = (Vec::new(), Vec::new(), Vec::new());
        for network in networks {
            match unmap_network(network) {
                IpNet::V4(net) => four.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => {
                    let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                    match net.prefix_len() <= 64 {
                        true => six.push(((first >> 64) as u64, (last >> 64) as u64)),
                        false => long_six.push((first, last)),
                    }
                }
            }
        }
        Self {
            four: Boundaries::new(four),
            six: Boundaries::new(six),
            long_six: Boundaries::new(long_six),
        }
    }

    /// Whether `address` is in one of the networks. `::ffff:10.0.0.1` is 10.0.0.1.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(four) => self.four.contains(four.to_bits()),
            IpAddr::V6(six) => {
                let bits = six.to_bits();
                self.six.contains((bits >> 64) as u64) || self.long_six.contains(bits)
            }
        }
    }

    /// No address is in one of them.
    pub fn is_empty(&self) -> bool {
        self.four.is_empty() && self.six.is_empty() && self.long_six.is_empty()
    }
}

/// The bits of an address.
trait Bits: Copy + Ord {
    const MAX: Self;
    fn after(self) -> Option<Self>;
}

macro_rules! bits {
    ($($number:ty),+) => {$(
        impl Bits for $number {
            const MAX: Self = Self::MAX;

            fn after(self) -> Option<Self> {
                self.checked_add(1)
            }
        }
    )+};
}
bits!(u32, u64, u128);

/// Where ranges begin and where they are over, in turn and in order: what has an odd number of boundaries at or below it
/// is inside.
#[derive(Debug)]
struct Boundaries<T> {
    /// The last has all of them, and each before it the first of every group of the next.
    levels: Vec<Level<T>>,
}

/// Boundaries by groups that begin with a cache line.
#[derive(Debug)]
struct Level<T> {
    /// The last is filled up with the largest number.
    groups: Box<[Group<T>]>,
    len: usize,
}

#[derive(Debug)]
#[repr(align(64))]
struct Group<T>([T; WIDTH]);

impl<T> Default for Boundaries<T> {
    fn default() -> Self {
        Self { levels: Vec::new() }
    }
}

impl<T: Bits> Boundaries<T> {
    /// Of inclusive ranges.
    fn new(mut ranges: Vec<(T, T)>) -> Self {
        ranges.sort_unstable();
        let mut all: Vec<T> = Vec::with_capacity(ranges.len() * 2);
        // Where the range that is open is over; `None` within is at no number.
        let mut open: Option<Option<T>> = None;
        for (first, last) in ranges {
            let over = last.after();
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
        let mut levels = Vec::new();
        while all.len() > WIDTH {
            let above = all.iter().step_by(WIDTH).copied().collect();
            levels.push(Level::new(&all));
            all = above;
        }
        if !all.is_empty() {
            levels.push(Level::new(&all));
        }
        levels.reverse();
        Self { levels }
    }

    fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    fn contains(&self, value: T) -> bool {
        let mut below = 1;
        for level in &self.levels {
            // The group that begins with the last boundary above that is not beyond the value.
            let group = below - 1;
            let Group(boundaries) = &level.groups[group];
            let of_group = boundaries.partition_point(|boundary| *boundary <= value);
            below = level.len.min(group * WIDTH + of_group);
            if below == 0 {
                return false;
            }
        }
        !self.is_empty() && below % 2 == 1
    }
}

impl<T: Bits> Level<T> {
    fn new(all: &[T]) -> Self {
        let groups = all.chunks(WIDTH).map(|chunk| {
            let mut group = [T::MAX; WIDTH];
            group[..chunk.len()].copy_from_slice(chunk);
            Group(group)
        });
        Self {
            groups: groups.collect(),
            len: all.len(),
        }
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
        let short_six = (0u128..16, 50u8..=64).prop_map(|(low, length)| {
            let address = std::net::Ipv6Addr::from_bits(1 << 127 | low << 64);
            IpNet::new(address.into(), length).unwrap().trunc()
        });
        prop_oneof![4 => four, 4 => six, 1 => short_six]
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
                let far_six = IpAddr::from(std::net::Ipv6Addr::from_bits(1 << 127 | u128::from(probe) << 62));
                for address in [four, six, far_six] {
                    let expected = networks.iter().any(|network| network.contains(&address));
                    prop_assert_eq!(set.contains(address), expected, "{}", address);
                }
            }
        }
    }
}
