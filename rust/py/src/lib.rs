//! The whole Python surface of the Rust core, on one screen.
mod data;
mod errors;
mod gguf;
mod mixture;
mod pack;

use pyo3::prelude::*;

/// alignite's Rust core; import it through `alignite.native` only.
#[pymodule(gil_used = true)]
mod _core {
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
    #[pymodule_export]
    use super::data::{PreparedSet, Preparer, shuffled};
    #[pymodule_export]
    use super::gguf::{Gguf, gguf_tokenizer_json};
    #[pymodule_export]
    use super::mixture::{Curriculum, Mixture, SampleSteps, count_rows, sample_order};
    #[pymodule_export]
    use super::pack::{batches_by_tokens, length_grouped, pack};
}
