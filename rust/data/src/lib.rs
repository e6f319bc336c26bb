//! alignite's data path: file rows to exact training batches, in pure Rust.
