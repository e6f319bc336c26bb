//! Sketches whose share of equal entries estimates the Jaccard similarity of two sets.
//!
//! "Fast similarity sketching" (Dahlgaard, Knudsen, Thorup, FOCS 2017, algorithm 1): unbiased as MinHash is, with no
//! larger variance, but an element is hashed once or a few times instead of once for each entry.

use super::words::mix;

/// Entries of a sketch. The estimate's standard deviation is at most sqrt(J (1 - J) / SIZE), 0.035 at J = 0.8.
pub const SIZE: usize = 128;

/// One set's sketch, and the set itself as sorted half hashes, which tell exactly what the sketch estimates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch(pub(super) Box<[u32; SIZE]>, pub(super) Box<[u32]>);

impl Sketch {
    /// The sketch of a set of hashes that is not empty; an element may occur more than once.
    #[must_use]
    pub fn new(set: &[u64]) -> Self {
        let mut entries = [u64::MAX; SIZE];
        if !set.is_empty() {
            let mut round = 0;
            // In the second half of the rounds the round is the entry, so all are full in the end.
            while entries.contains(&u64::MAX) {
                for &element in set {
                    let hash = mix(element.wrapping_add((round as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
                    let entry = if round < SIZE { (hash >> 57) as usize } else { round - SIZE };
                    // An earlier round wins, then the smaller value.
                    let value = ((round as u64) << 48) | (hash & 0xFFFF_FFFF_FFFF);
                    entries[entry] = entries[entry].min(value);
                }
                round += 1;
            }
        }
        let mut halves: Vec<u32> = set.iter().map(|element| (element >> 32) as u32).collect();
        halves.sort_unstable();
        halves.dedup();
        Self(Box::new(entries.map(|value| value as u32)), halves.into())
    }

    /// The Jaccard similarity of two sets of sorted numbers; two empty ones are equal.
    #[must_use]
    pub fn jaccard(one: &[u32], other: &[u32]) -> f64 {
        let mut rest = other.iter().peekable();
        let mut shared = 0usize;
        for number in one {
            while rest.next_if(|next| *next < number).is_some() {}
            shared += usize::from(rest.next_if_eq(&number).is_some());
        }
        let union = one.len() + other.len() - shared;
        if union == 0 { 1.0 } else { shared as f64 / union as f64 }
    }
}

/// Bands and rows a band: the pair that makes the weighted sum of two errors least, the chance that sets below the
/// threshold share a band and that sets above it share none, each integrated over the similarities (the rule of
/// datasketch's `MinHashLSH`).
#[must_use]
pub fn bands(threshold: f64, weight_of_false: f64, weight_of_missed: f64) -> (usize, usize) {
    let mut best = (f64::INFINITY, (1, SIZE));
    for bands in 1..=SIZE {
        for rows in 1..=SIZE / bands {
            let exponents = (i32::try_from(rows).unwrap_or(i32::MAX), i32::try_from(bands).unwrap_or(i32::MAX));
            let missed = |s: f64| (1.0 - s.powi(exponents.0)).powi(exponents.1);
            let error = weight_of_false * integral(0.0, threshold, |s| 1.0 - missed(s))
                + weight_of_missed * integral(threshold, 1.0, missed);
            if error < best.0 {
                best = (error, (bands, rows));
            }
        }
    }
    best.1
}

/// Simpson's rule.
fn integral(from: f64, to: f64, f: impl Fn(f64) -> f64) -> f64 {
    const PARTS: u32 = 200;
    let width = (to - from) / f64::from(PARTS);
    let inner: f64 = (1..PARTS).map(|i| f(from + f64::from(i) * width) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    (f(from) + inner + f(to)) * width / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_entries_estimate_the_jaccard_similarity() {
        for (shared, own) in [(1, 1), (4, 1), (20, 5), (90, 5), (400, 50), (10, 90), (5000, 500)] {
            let exact = f64::from(shared) / f64::from(shared + 2 * own);
            let trials = 200;
            let mut errors = Vec::new();
            for trial in 0..trials {
                let element = |i: u32| mix(u64::from(i) + (trial << 32));
                let one: Vec<u64> = (0..shared + own).map(element).collect();
                let other: Vec<u64> = (0..shared).chain(shared + own..shared + 2 * own).map(element).collect();
                let (one, other) = (Sketch::new(&one), Sketch::new(&other));
                let equal = one.0.iter().zip(other.0.iter()).filter(|(a, b)| a == b).count();
                errors.push(equal as f64 / SIZE as f64 - exact);
            }
            let mean = errors.iter().sum::<f64>() / trials as f64;
            let deviation = (errors.iter().map(|e| e * e).sum::<f64>() / trials as f64).sqrt();
            let bound = (exact * (1.0 - exact) / SIZE as f64).sqrt();
            // Four standard errors of the mean; a quarter of slack for the measured deviation.
            assert!(mean.abs() < 4.0 * bound / (trials as f64).sqrt(), "{shared} {own}: {mean}");
            assert!(deviation < 1.25 * bound, "{shared} {own}: {deviation} over {bound}");
        }
    }

    #[test]
    fn bands_are_those_that_datasketch_chooses() {
        // datasketch 2.0's _optimal_param(threshold, 128, weight, 1 - weight).
        for (threshold, weight, expected) in [
            (0.5, 0.5, (25, 5)),
            (0.5, 0.05, (26, 3)),
            (0.7, 0.5, (14, 9)),
            (0.7, 0.1, (20, 6)),
            (0.8, 0.5, (9, 13)),
            (0.8, 0.05, (16, 8)),
            (0.9, 0.5, (5, 25)),
            (0.9, 0.05, (9, 14)),
        ] {
            assert_eq!(bands(threshold, weight, 1.0 - weight), expected, "{threshold} {weight}");
        }
    }

    #[test]
    fn a_sketch_is_of_a_set_whatever_its_order() {
        let set: Vec<u64> = (0..300).map(mix).collect();
        let again: Vec<u64> = set.iter().rev().chain(&set[..7]).copied().collect();
        assert_eq!(Sketch::new(&set), Sketch::new(&again));
        assert_eq!(Sketch::new(&[]), Sketch::new(&[]));
        assert_ne!(Sketch::new(&[1]), Sketch::new(&[2]));
    }
}
