//! The whole Python surface of the Rust core, on one screen.
mod data;
mod errors;
mod gguf;

use pyo3::prelude::*;

/// alignite's Rust core; import it through `alignite.native` only.
#[pymodule(gil_used = true)]
mod _core {
    use super::*;

    #[pymodule_export]
    use super::data::{PreparedSet, Preparer, shuffled};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
