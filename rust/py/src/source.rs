//! Rows of files as Python sees them, before they are anything's training data.

use crate::errors::{detached, from_data, raise};
use alignite_data::source::json::Exact;
use alignite_data::source::{Content, MAX_ROW_BYTES, Rows, open};
use pyo3::prelude::*;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The rows of a file of any kind, one after the other, as (place, JSON, reason): one of the last two is None.
///
/// A row that cannot be read has the reason; after damage to the file itself there are no more rows.
#[pyclass(frozen, module = "alignite._core")]
pub struct FileRows {
    inner: Mutex<Rows<'static>>,
}

#[pymethods]
impl FileRows {
    /// Open a file, or a folder that `datasets` saved.
    #[new]
    #[pyo3(signature = (path, max_row_bytes=MAX_ROW_BYTES))]
    fn new(py: Python<'_>, path: PathBuf, max_row_bytes: usize) -> PyResult<Self> {
        let rows = detached(py, || open(&path, max_row_bytes))?.map_err(|error| from_data(py, &error))?;
        Ok(Self { inner: Mutex::new(rows) })
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[allow(clippy::type_complexity)]
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<(String, Option<String>, Option<String>)>> {
        let line = detached(py, || {
            let line = self.inner.lock().unwrap_or_else(PoisonError::into_inner).next()?;
            let row = line.content.and_then(Content::row).map(Value::Object);
            Some((line.location, row.map(|row| serde_json::to_string(&Exact(&row)))))
        })?;
        let Some((place, row)) = line else { return Ok(None) };
        match row {
            Ok(Ok(json)) => Ok(Some((place, Some(json), None))),
            Ok(Err(error)) => {
                Err(raise(py, "InternalError", "a row cannot be written as JSON", None, Some(&error.to_string()), None))
            }
            Err(error) => {
                let why = error.why.map(|why| format!(" ({why})")).unwrap_or_default();
                Ok(Some((place, None, Some(format!("{}{why}", error.what)))))
            }
        }
    }
}
