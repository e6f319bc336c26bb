//! The tensor types of GGUF that are read, and how to turn them into floats.

use crate::{plain, q4, q8_0};
use rayon::prelude::*;

/// A type by its number in GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorType {
    /// 0
    F32,
    /// 1
    F16,
    /// 2
    Q4_0,
    /// 3
    Q4_1,
    /// 8
    Q8_0,
    /// 30
    Bf16,
}

/// Names of the types that GGUF numbers, for errors about those that are not read.
const NAMES: [(u32, &str); 20] = [
    (6, "Q5_0"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (14, "Q6_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (28, "F64"),
    (29, "IQ1_M"),
];

impl TensorType {
    /// The type of this number.
    ///
    /// # Errors
    /// It is not read; the error is its name.
    pub fn from_number(number: u32) -> Result<Self, String> {
        Ok(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            30 => Self::Bf16,
            other => {
                let name = NAMES.iter().find(|(number, _)| *number == other).map(|(_, name)| *name);
                return Err(name.map_or_else(|| format!("number {other}"), str::to_owned));
            }
        })
    }

    /// (values, bytes) of a block.
    #[must_use]
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, q4::BYTES_0),
            Self::Q4_1 => (32, q4::BYTES_1),
            Self::Q8_0 => (32, q8_0::BYTES),
        }
    }

    /// Whole blocks to values, on all threads; `bytes` must hold exactly `output`'s blocks.
    pub fn dequantize(self, bytes: &[u8], output: &mut [f32]) {
        let (values, size) = self.block();
        let part = 1 << 16; // values a task: a multiple of every block
        output.par_chunks_mut(part).zip(bytes.par_chunks(part / values * size)).for_each(
            |(output, bytes)| match self {
                Self::F32 => plain::f32(bytes, output),
                Self::F16 => plain::half(bytes, output),
                Self::Bf16 => plain::brain(bytes, output),
                Self::Q4_0 => q4::dequantize_0(bytes, output),
                Self::Q4_1 => q4::dequantize_1(bytes, output),
                Self::Q8_0 => q8_0::dequantize(bytes, output),
            },
        );
    }
}
