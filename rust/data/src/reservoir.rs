//! A uniform sample of a stream whose length is not known.

use crate::order::random;

/// Algorithm L (Li 1994): tells which items of a stream enter a sample of `size`, and in whose place, in
/// O(size * (1 + log(count / size))) steps. Items between are passed over unseen.
#[derive(Debug, Clone)]
pub struct Reservoir {
    size: u64,
    seed: u64,
    drawn: u64,
    weight: f64,
    next: u64,
}

impl Reservoir {
    /// A sample of `size` items.
    #[must_use]
    pub fn new(size: u64, seed: u64) -> Self {
        Self { size, seed, drawn: 0, weight: 1.0, next: 0 }
    }

    /// The next item that enters, counted from 0, and its place in the sample.
    ///
    /// The first `size` items take the places in order; each later one puts out the one that holds its place.
    pub fn advance(&mut self) -> Option<(u64, u64)> {
        if self.size == 0 {
            return None;
        }
        let item = self.next;
        self.next = item.saturating_add(1);
        if item < self.size {
            if self.next == self.size {
                self.skip();
            }
            return Some((item, item));
        }
        let place = (u128::from(self.bits()) * u128::from(self.size)) >> 64;
        self.skip();
        Some((item, u64::try_from(place).unwrap_or(0)))
    }

    fn skip(&mut self) {
        self.weight *= (self.unit().ln() / self.size as f64).exp();
        let gap = (self.unit().ln() / (-self.weight).ln_1p()).floor();
        self.next = self.next.saturating_add(gap as u64);
    }

    fn bits(&mut self) -> u64 {
        self.drawn += 1;
        random(self.seed, self.drawn)
    }

    /// Uniform inside (0, 1).
    fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }
}

/// An order of the places of a sample of `size`, by which every beginning of it is a uniform sample too.
#[must_use]
pub fn sample_order(size: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..size).collect();
    // Fisher and Yates; counters from the top keep clear of the reservoir's own.
    for last in (1..size).rev() {
        let other = (u128::from(random(seed, u64::MAX - last as u64)) * (last as u128 + 1)) >> 64;
        order.swap(last, usize::try_from(other).unwrap_or(0));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(count: u64, size: usize, seed: u64) -> Vec<u64> {
        let mut held = Vec::new();
        let mut reservoir = Reservoir::new(size as u64, seed);
        while let Some((item, place)) = reservoir.advance().filter(|&(item, _)| item < count) {
            let place = usize::try_from(place).unwrap();
            if place == held.len() { held.push(item) } else { held[place] = item }
        }
        let order = sample_order(held.len(), seed);
        order.into_iter().map(|place| held[place]).collect()
    }

    #[test]
    fn every_item_is_as_likely_in_the_sample_and_in_its_beginning() {
        let (runs, count, size) = (20_000u64, 20u64, 5usize);
        for beginning in [size, 2] {
            let mut seen = vec![0f64; count as usize];
            for seed in 0..runs {
                for item in &sample(count, size, seed)[..beginning] {
                    seen[*item as usize] += 1.0;
                }
            }
            let expected = runs as f64 * beginning as f64 / count as f64;
            let chi_square: f64 = seen.iter().map(|n| (n - expected).powi(2) / expected).sum();
            // The 99.9% point for 19 degrees of freedom; draws without replacement spread less than that.
            assert!(chi_square < 43.8, "{chi_square}");
        }
    }

    #[test]
    fn a_sample_has_no_item_twice_and_depends_on_the_seed() {
        for (count, size) in [(0, 5), (3, 5), (5, 5), (6, 5), (100_000, 100), (10, 0)] {
            let mut items = sample(count, size, 7);
            assert_eq!(items, sample(count, size, 7));
            items.sort_unstable();
            items.dedup();
            assert_eq!(items.len() as u64, count.min(size as u64));
            assert!(items.iter().all(|&item| item < count));
        }
        assert_ne!(sample(1000, 10, 1), sample(1000, 10, 2));
    }
}
