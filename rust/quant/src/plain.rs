//! Unquantized types: F32, F16, BF16, little endian.

use half::{bf16, f16};

/// F32.
pub fn f32(bytes: &[u8], output: &mut [f32]) {
    for (value, chunk) in output.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *value = f32::from_le_bytes(*chunk);
    }
}

/// IEEE half precision.
pub fn half(bytes: &[u8], output: &mut [f32]) {
    for (value, chunk) in output.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *value = f16::from_le_bytes(*chunk).to_f32();
    }
}

/// The upper half of a float.
pub fn brain(bytes: &[u8], output: &mut [f32]) {
    for (value, chunk) in output.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *value = bf16::from_le_bytes(*chunk).to_f32();
    }
}
