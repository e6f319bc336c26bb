//! Quantized tensor formats, in pure Rust: one file a format or family of types.

pub mod error;
pub mod gguf;
pub mod plain;
pub mod q4;
pub mod q8_0;
pub mod tensor_type;
