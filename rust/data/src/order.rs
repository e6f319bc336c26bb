//! The order in which windows are read: a permutation that is computed, not stored.
//!
//! A Feistel network over the smallest even number of bits that holds `n`, walked until the value falls inside
//! (cycle walking), is a bijection on `0..n` whose state is nothing but (seed, epoch, position). Any number of
//! workers and ranks can look up any part of one global order.

const ROUNDS: u64 = 6;

/// A permutation of `0..len`.
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    len: u64,
    left_bits: u32,
    right_bits: u32,
    keys: [u64; ROUNDS as usize],
}

impl Permutation {
    /// The order of one epoch.
    #[must_use]
    pub fn new(len: u64, seed: u64, epoch: u64) -> Self {
        let bits = (64 - len.saturating_sub(1).leading_zeros()).max(2);
        let mut keys = [0; ROUNDS as usize];
        let mut state = mix(seed ^ mix(epoch.wrapping_add(0x9E37_79B9_7F4A_7C15)));
        for key in &mut keys {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            *key = mix(state);
        }
        Self { len, left_bits: bits / 2, right_bits: bits - bits / 2, keys }
    }

    /// The item at `position`; `position` must be below `len`.
    #[must_use]
    pub fn get(&self, position: u64) -> u64 {
        debug_assert!(position < self.len);
        let mut value = position;
        loop {
            value = self.step(value);
            if value < self.len {
                return value;
            }
        }
    }

    /// The position of `item`, which must be below `len`: the inverse of [`Permutation::get`].
    #[must_use]
    pub fn position(&self, item: u64) -> u64 {
        debug_assert!(item < self.len);
        let mut value = item;
        loop {
            value = self.step_back(value);
            if value < self.len {
                return value;
            }
        }
    }

    // Two halves of unequal width keep the domain below 2n instead of 4n, so that few walks are needed: odd rounds
    // change the left half, even rounds the right one.
    fn step(&self, value: u64) -> u64 {
        let left_mask = (1u64 << self.left_bits) - 1;
        let right_mask = (1u64 << self.right_bits) - 1;
        let mut left = value >> self.right_bits;
        let mut right = value & right_mask;
        for (round, key) in self.keys.iter().enumerate() {
            if round % 2 == 0 {
                right ^= mix(left ^ key) & right_mask;
            } else {
                left ^= mix(right ^ key) & left_mask;
            }
        }
        (left << self.right_bits) | right
    }

    fn step_back(&self, value: u64) -> u64 {
        let left_mask = (1u64 << self.left_bits) - 1;
        let right_mask = (1u64 << self.right_bits) - 1;
        let mut left = value >> self.right_bits;
        let mut right = value & right_mask;
        for (round, key) in self.keys.iter().enumerate().rev() {
            if round % 2 == 0 {
                right ^= mix(left ^ key) & right_mask;
            } else {
                left ^= mix(right ^ key) & left_mask;
            }
        }
        (left << self.right_bits) | right
    }
}

/// A random number that depends on the seed and a counter alone.
#[must_use]
pub fn random(seed: u64, counter: u64) -> u64 {
    mix(mix(seed.wrapping_add(0x9E37_79B9_7F4A_7C15)) ^ mix(counter.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

/// The finalizer of splitmix64.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_a_bijection(len in 1u64..3000, seed: u64, epoch in 0u64..5) {
            let order = Permutation::new(len, seed, epoch);
            let mut seen = vec![false; usize::try_from(len).unwrap()];
            for position in 0..len {
                let item = usize::try_from(order.get(position)).unwrap();
                prop_assert!(!std::mem::replace(&mut seen[item], true));
                prop_assert_eq!(order.position(item as u64), position);
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let take = |seed, epoch| -> Vec<u64> {
            let order = Permutation::new(1000, seed, epoch);
            (0..20).map(|p| order.get(p)).collect()
        };
        assert_eq!(take(1, 0), take(1, 0));
        assert_ne!(take(1, 0), take(1, 1));
        assert_ne!(take(1, 0), take(2, 0));
    }

    #[test]
    fn large_domains_stay_inside() {
        let len = 10_000_000_019;
        let order = Permutation::new(len, 7, 3);
        assert!((0..10_000).all(|p| order.get(p) < len));
    }
}
