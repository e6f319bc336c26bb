//! The lengths that packing is measured on.

use crate::order::random;

/// The median of the named generator is e to the power of this, about 245 tokens.
pub const MU: f64 = 5.5;
/// The spread of the named generator's logarithm.
pub const SIGMA: f64 = 1.0;
/// The named generator's window; longer draws are cut to it.
pub const CAP: u32 = 4096;

/// `count` lengths of the named lognormal generator: `exp(MU + SIGMA * z)`, rounded down, in `1..=CAP`, with z from
/// Box and Muller (1958) over a counter-based generator.
#[must_use]
pub fn lognormal(count: usize, seed: u64) -> Vec<u32> {
    (0..count as u64)
        .map(|row| {
            let unit = |at| ((random(seed, at) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
            let z = (-2.0 * unit(2 * row).ln()).sqrt() * (std::f64::consts::TAU * unit(2 * row + 1)).cos();
            ((MU + SIGMA * z).exp() as u32).clamp(1, CAP)
        })
        .collect()
}
