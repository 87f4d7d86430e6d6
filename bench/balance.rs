//! What it costs to choose one backend of 2, 16 and 256, by each algorithm.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tollgate::upstream::balance::{
    Candidate, consistent, hash, least_connections, random_two, round_robin,
};

const BACKENDS: [usize; 3] = [2, 16, 256];

/// Unequal loads and weights, so that no comparison ends early.
fn candidates(count: usize) -> Vec<Candidate> {
    (0..count as u32)
        .map(|index| Candidate {
            in_flight: index * 7 % 13,
            weight: 1 + index % 3,
            identity: hash(&index.to_le_bytes()),
            credit: 0,
        })
        .collect()
}

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for count in BACKENDS {
        let mut backends = candidates(count);
        let mut turn = 0_usize;
        group.bench_function(BenchmarkId::new("least-connections", count), |bench| {
            bench.iter(|| {
                turn += 1;
                least_connections(black_box(&backends), turn)
            });
        });
        group.bench_function(BenchmarkId::new("random-two", count), |bench| {
            bench.iter(|| {
                turn += 1;
                random_two(black_box(&backends), [turn as u64, turn as u64 * 31])
            });
        });
        group.bench_function(BenchmarkId::new("consistent-hash", count), |bench| {
            bench.iter(|| {
                turn += 1;
                consistent(black_box(&backends), turn as u64)
            });
        });
        group.bench_function(BenchmarkId::new("round-robin", count), |bench| {
            bench.iter(|| round_robin(black_box(&mut backends)));
        });
    }
    group.finish();
}

criterion_group!(benches, pick);
criterion_main!(benches);
