//! Quantized tensor formats, in pure Rust: one file a format.
