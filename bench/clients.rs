//! What it costs to find out whether a client is on a list of a million networks, and whether it is banned; and to count it
//! among the heaviest.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ipnet::IpNet;
use tollgate::client::network_set::NetworkSet;
use tollgate::limit::ban::{Bans, Settings};
use tollgate::limit::heavy::{Heavy, Known};
use tollgate::limit::key::{Digest, Prefixes};

const MILLION: usize = 1_000_000;
/// Addresses that are asked for in turn: more than the caches hold the way to.
const PROBES: usize = 1 << 16;

/// Numbers that look random and are the same in every run (SplitMix64).
fn numbers() -> impl Iterator<Item = u64> {
    (1u64..).map(|turn| {
        let number = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    })
}

fn network(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length)
        .expect("a length of its family")
        .trunc()
}

fn four(number: u64) -> IpAddr {
    Ipv4Addr::from_bits(number as u32).into()
}

/// All of one /32, as those of one provider are.
fn six(number: u64) -> IpAddr {
    Ipv6Addr::from_bits(0x2a01_04f8 << 96 | u128::from(number) << 32).into()
}

fn lists(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("list_of_a_million");
    let addresses = || numbers().take(MILLION);
    type Case = (&'static str, NetworkSet, fn(u64) -> IpAddr);
    let sets: [Case; 3] = [
        (
            "ipv4",
            NetworkSet::new(addresses().map(|number| network(four(number), 32))),
            four,
        ),
        (
            "ipv4_networks",
            NetworkSet::new(
                addresses().map(|number| network(four(number), 20 + (number >> 40) as u8 % 13)),
            ),
            four,
        ),
        (
            "ipv6",
            NetworkSet::new(addresses().map(|number| network(six(number), 64))),
            six,
        ),
    ];
    for (name, set, address) in &sets {
        for (what, from) in [("listed", 0), ("not_listed", MILLION)] {
            let probes: Vec<_> = numbers().skip(from).take(PROBES).map(*address).collect();
            let mut turn = 0;
            group.bench_function(BenchmarkId::new(*name, what), |bencher| {
                bencher.iter(|| {
                    turn = (turn + 1) % PROBES;
                    black_box(set.contains(probes[turn]))
                });
            });
        }
    }
}

fn bans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ban_check");
    for count in [0, 1, 100_000] {
        let settings = Settings {
            prefixes: Prefixes::default(),
            most: count.max(1),
        };
        let bans = Bans::new(Vec::new(), 1, settings, None);
        let now = Instant::now();
        for number in numbers().take(count) {
            let client = bans.standing().client(four(number));
            bans.standing()
                .ban_by_hand(client, Duration::from_secs(3600), None, now);
        }
        let probes: Vec<_> = numbers().skip(MILLION).take(PROBES).map(four).collect();
        let mut turn = 0;
        group.bench_function(BenchmarkId::new("not_banned", count), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % PROBES;
                black_box(bans.check(probes[turn], now, || false))
            });
        });
    }
}

fn sketch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sketch");
    for (who, clients) in [("one_of_a_few", 100), ("one_of_many", PROBES)] {
        let now = Instant::now();
        let heavy = Heavy::new(now);
        let halves = numbers().zip(numbers().skip(MILLION)).take(clients);
        let known: Vec<_> = halves
            .map(|(one, other)| Known {
                digest: Digest([one, other]),
                address: None,
            })
            .collect();
        let mut turn = 0;
        group.bench_function(who, |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % clients;
                heavy.count(known[turn], false, now);
            });
        });
    }
}

criterion_group!(benches, lists, bans, sketch);
criterion_main!(benches);
