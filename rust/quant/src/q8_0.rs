//! Q8_0: 32 values as int8 with one scale; value = scale * q.

use half::f16;

/// A scale (f16), then 32 int8.
pub const BYTES: usize = 34;

/// Whole blocks to values.
pub fn dequantize(bytes: &[u8], output: &mut [f32]) {
    for (values, block) in output.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<BYTES>().0) {
        let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
        for (value, &q) in values.iter_mut().zip(&block[2..]) {
            *value = scale * f32::from(q.cast_signed());
        }
    }
}
