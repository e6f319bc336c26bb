//! Rust errors and panics as the classes of `alignite.errors`.

use alignite_data::error::{Error, Kind};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// An error of the class `name` of `alignite.errors`.
pub fn raise(
    py: Python<'_>,
    name: &str,
    what: &str,
    location: Option<&str>,
    why: Option<&str>,
    fix: Option<&str>,
) -> PyErr {
    let made = py
        .import("alignite.errors")
        .and_then(|module| module.getattr(name))
        .and_then(|class| class.call1((what, location, why, fix)));
    match made {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// A data error as its Python class.
pub fn from_data(py: Python<'_>, error: &Error) -> PyErr {
    let name = match error.kind {
        Kind::Interrupted => {
            // A pending signal's own exception, when it was a signal that stopped the work.
            return py.check_signals().err().unwrap_or_else(|| PyKeyboardInterrupt::new_err("stopped"));
        }
        Kind::Data => "DataError",
        Kind::Template => "TemplateError",
        Kind::Mask => "MaskError",
        Kind::Tokenizer | Kind::Backend => "TokenizerError",
        Kind::Resource => "ResourceError",
        Kind::Usage => "UsageError",
    };
    let otherwise = match error.kind {
        Kind::Template | Kind::Mask => Some(
            "use a chat template that renders such conversations, on_bad_row: skip to leave rows out and count them, \
             or apply_chat_template: false for raw text",
        ),
        _ => None,
    };
    let fix = error.fix.as_deref().or(otherwise);
    raise(py, name, &error.what, error.location.as_deref(), error.why.as_deref(), fix)
}

/// Run work without the GIL; a panic becomes `InternalError`, which `except Exception` sees.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    py.detach(|| catch_unwind(AssertUnwindSafe(work))).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        raise(
            py,
            "InternalError",
            "the Rust core failed; this is a bug in alignite",
            None,
            Some(text),
            Some("report it with the command and the versions that `alignite doctor` prints"),
        )
    })
}
