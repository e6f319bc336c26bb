//! GGUF files as Python sees them.
