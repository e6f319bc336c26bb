//! Which rows are held out, by their content alone: adding rows moves none, and the same content is on one side.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Whether the content of this hash belongs to the `share` that is held out.
#[must_use]
pub fn is_held_out(hash: u128, seed: u64, share: f64) -> bool {
    // 53 bits fill a double between 0 and 1.
    let position = (xxh3_64_with_seed(&hash.to_le_bytes(), seed) >> 11) as f64 / (1u64 << 53) as f64;
    position < share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_held_out_and_a_larger_share_holds_the_smaller() {
        let hashes: Vec<u128> = (0..20_000u64).map(|i| xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes())).collect();
        let held = |share, seed| -> Vec<bool> { hashes.iter().map(|&hash| is_held_out(hash, seed, share)).collect() };
        let (small, large, other) = (held(0.02, 0), held(0.1, 0), held(0.02, 1));
        let count = small.iter().filter(|&&held| held).count();
        // Five standard deviations of a binomial around 400.
        assert!((300..500).contains(&count), "{count}");
        assert!(small.iter().zip(&large).all(|(small, large)| !small || *large));
        assert_ne!(small, other);
        assert!(held(0.0, 0).iter().all(|held| !held));
    }
}
