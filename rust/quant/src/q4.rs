//! Q4_0 and Q4_1: 32 values as 4-bit numbers. Byte i holds value i in its low half and value i + 16 in its high half.

use half::f16;

/// Q4_0: a scale (f16), then 16 bytes.
pub const BYTES_0: usize = 18;
/// Q4_1: a scale and a minimum (f16 each), then 16 bytes.
pub const BYTES_1: usize = 20;

/// value = scale * (q - 8)
pub fn dequantize_0(bytes: &[u8], output: &mut [f32]) {
    for (values, block) in output.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<BYTES_0>().0) {
        let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
        for (index, &byte) in block[2..].iter().enumerate() {
            values[index] = scale * (f32::from(byte & 15) - 8.0);
            values[index + 16] = scale * (f32::from(byte >> 4) - 8.0);
        }
    }
}

/// value = scale * q + minimum
pub fn dequantize_1(bytes: &[u8], output: &mut [f32]) {
    for (values, block) in output.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<BYTES_1>().0) {
        let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
        let minimum = f16::from_le_bytes([block[2], block[3]]).to_f32();
        for (index, &byte) in block[4..].iter().enumerate() {
            values[index] = scale * f32::from(byte & 15) + minimum;
            values[index + 16] = scale * f32::from(byte >> 4) + minimum;
        }
    }
}
