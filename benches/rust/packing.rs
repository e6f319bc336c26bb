//! Packing, mixture and shuffle draws: `cargo bench -p alignite-data --bench packing`.
#![allow(missing_docs, clippy::unwrap_used)]

use alignite_data::mixture::{Mixture, Node, Spec};
use alignite_data::order::Permutation;
use alignite_data::pack::lengths::{CAP, lognormal};
use alignite_data::pack::{Strategy, pack};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const ROWS: usize = 1_000_000;
const DRAWS: u64 = 1_000_000;

fn packing(criterion: &mut Criterion) {
    let lengths = lognormal(ROWS, 0);
    let mut group = criterion.benchmark_group("packing, lognormal(5.5, 1.0), cap 4096, sequences");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(20);
    for (name, strategy, window) in [
        ("bfd, windows of 10k", Strategy::Bfd, 10_000),
        ("bfd, one window", Strategy::Bfd, ROWS),
        ("bfd_split, windows of 10k", Strategy::BfdSplit, 10_000),
        ("wrapped", Strategy::Wrapped, 10_000),
    ] {
        let packs = pack(&lengths, strategy, CAP, window).unwrap();
        let tokens: u64 = packs.pieces.iter().map(|piece| u64::from(piece.length)).sum();
        let fill = tokens as f64 / (packs.len() as f64 * f64::from(CAP));
        assert!(fill >= 0.999, "{name}: {fill}");
        group
            .bench_function(name, |bencher| bencher.iter(|| pack(black_box(&lengths), strategy, CAP, window).unwrap()));
    }
}

fn draws(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("draws");
    group.throughput(Throughput::Elements(DRAWS)).sample_size(20);
    for sources in [3u64, 1000] {
        // Sources of very different sizes; the passes of the small ones end often.
        let node = |index: u64| Node { name: index.to_string(), rows: Some(100 + index * index), ..Default::default() };
        let spec = Spec { sources: (0..sources).map(node).collect(), temperature: Some(2.0), ..Default::default() };
        let mut mixture = Mixture::new(&spec, 0, 0).unwrap();
        group.bench_function(format!("mixture of {sources}"), |bencher| {
            bencher.iter(|| (0..DRAWS).fold(0, |sum, _| sum ^ mixture.draw().unwrap().1));
        });
    }
    // Just above a power of 2 is the worst: half of all values are walked on.
    for len in [1_000_000u64, (1 << 30) + 1] {
        let order = Permutation::new(len, 0, 0);
        group.bench_function(format!("shuffle of {len}"), |bencher| {
            bencher.iter(|| (0..DRAWS).fold(0, |sum, at| sum ^ order.get(black_box(at))));
        });
    }
}

criterion_group!(benches, packing, draws);
criterion_main!(benches);
