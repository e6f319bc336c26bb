//! Converters between formats as Python sees them.

use crate::data::watched;
use crate::errors::{detached, from_data, raise};
use alignite_data::convert::{Options, convert, convert_to_file};
use alignite_data::prepare::Tick;
use alignite_data::source::Source;
use alignite_data::source::json::Exact;
use pyo3::prelude::*;
use std::path::PathBuf;

fn options(py: Python<'_>, json: &str) -> PyResult<Options> {
    serde_json::from_str(json).map_err(|error| {
        raise(py, "UsageError", "the options of a conversion cannot be read", None, Some(&error.to_string()), None)
    })
}

/// Convert files of rows into a new JSONL file, and return the report as JSON.
///
/// `progress` is called with the rows done and 0, about ten times a second and at the end.
#[pyfunction]
#[pyo3(signature = (files, output, options_json, progress: "collections.abc.Callable[[int, int], None] | None" = None))]
pub fn convert_files(
    py: Python<'_>,
    files: Vec<PathBuf>,
    output: PathBuf,
    options_json: &str,
    #[pyo3(from_py_with = crate::data::optional)] progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let options = options(py, options_json)?;
    let sources: Vec<Source> = files.into_iter().map(Source::File).collect();
    let work = |tick: &mut Tick<'_>| convert_to_file(&sources, &options, &output, &mut |rows| tick(rows, 0));
    let report = watched(py, progress.as_ref(), work)?;
    if let Some(progress) = progress {
        progress.call1(py, (report.rows, 0))?;
    }
    Ok(serde_json::to_string(&report).unwrap_or_default())
}

/// Convert JSON rows that the caller holds; gives the rows as JSON and the report. `name` stands for the file in messages.
#[pyfunction]
#[pyo3(signature = (rows, name, options_json))]
pub fn convert_rows(
    py: Python<'_>,
    rows: Vec<Vec<u8>>,
    name: String,
    options_json: &str,
) -> PyResult<(Vec<String>, String)> {
    let options = options(py, options_json)?;
    let sources = [Source::Memory(name, rows)];
    let done = detached(py, || {
        let mut made = Vec::new();
        let report = convert(&sources, &options, &mut |_| true, &mut |row| {
            made.push(serde_json::to_string(&Exact(&row)).unwrap_or_default());
            Ok(())
        })?;
        Ok((made, serde_json::to_string(&report).unwrap_or_default()))
    })?;
    done.map_err(|error| from_data(py, &error))
}

/// The names of the formats that are read, and of those that are written.
#[pyfunction]
#[pyo3(signature = ())]
pub fn format_names() -> (Vec<&'static str>, Vec<&'static str>) {
    let written = alignite_data::formats::write::TARGETS.iter().map(|(name, _)| *name);
    (alignite_data::formats::names().collect(), written.collect())
}
