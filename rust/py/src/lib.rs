//! The whole Python surface of the Rust core, on one screen.
mod arrow;
mod clean;
mod convert;
mod data;
mod errors;
mod gguf;
mod instruct;
mod mixture;
mod pack;
mod prepared;
mod source;

use pyo3::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// alignite's Rust core; import it through `alignite.native` only.
#[pymodule(gil_used = true)]
mod _core {
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
    #[pymodule_export]
    use super::arrow::ArrowTable;
    #[pymodule_export]
    use super::clean::TextCleaner;
    #[pymodule_export]
    use super::convert::{convert_files, convert_rows, format_names};
    #[pymodule_export]
    use super::data::{Preparer, Sources};
    #[pymodule_export]
    use super::gguf::{Gguf, gguf_tokenizer_json};
    #[pymodule_export]
    use super::instruct::{Instances, PromptTemplate, TemplateSet};
    #[pymodule_export]
    use super::mixture::{Curriculum, Mixture, SampleSteps, count_rows, sample_order};
    #[pymodule_export]
    use super::pack::{batches_by_tokens, length_grouped, pack};
    #[pymodule_export]
    use super::prepared::{PreparedSet, merge_prepared, shuffled};
    #[pymodule_export]
    use super::source::FileRows;
}
