//! Cleaning of texts as Python sees it.

use crate::errors::{detached, from_data, raise};
use alignite_data::clean;
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Tells which texts to leave out, a chunk at a time; rows are counted from 0 in each pass.
///
/// A chunk is a list of strings, or (offsets, bytes) of an Arrow string column, which is not copied.
#[pyclass(module = "alignite._core")]
pub struct TextCleaner {
    inner: clean::TextCleaner,
}

type Judged<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<bool>>, BTreeMap<usize, (String, Option<String>)>);

#[pymethods]
impl TextCleaner {
    /// Read the evaluation sets that the options name; `folder` holds files while near duplicates are looked for.
    #[new]
    #[pyo3(signature = (options_json, folder, num_threads=0))]
    fn new(py: Python<'_>, options_json: &str, folder: PathBuf, num_threads: usize) -> PyResult<Self> {
        let options = serde_json::from_str(options_json).map_err(|error| {
            raise(py, "UsageError", "the cleaning options cannot be read", None, Some(&error.to_string()), None)
        })?;
        let inner = detached(py, || clean::TextCleaner::new(options, &folder, num_threads))?;
        inner.map(|inner| Self { inner }).map_err(|error| from_data(py, &error))
    }

    /// Whether texts must be observed, and the pass finished, before they are judged.
    #[getter]
    fn needs_two_passes(&self) -> bool {
        self.inner.needs_two_passes()
    }

    /// Add a text of an evaluation set.
    fn add_evaluation(&mut self, file: &str, line: u64, text: &str) {
        self.inner.contamination().add_text(file, line, text);
    }

    /// Texts of evaluation sets that are too short to tell anything.
    #[getter]
    fn evaluation_left_out(&mut self) -> u64 {
        self.inner.contamination().left_out()
    }

    /// The next texts of the first pass.
    #[pyo3(signature = (texts: "list[str] | tuple[numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.uint8]]"))]
    fn observe(&mut self, py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<()> {
        let texts = Texts::new(texts)?;
        let texts = texts.strings(py)?;
        let inner = &mut self.inner;
        detached(py, || inner.observe(&texts))?.map_err(|error| from_data(py, &error))
    }

    /// End the first pass.
    fn finish_pass(&mut self, py: Python<'_>) -> PyResult<()> {
        let inner = &mut self.inner;
        detached(py, || inner.finish_pass())?.map_err(|error| from_data(py, &error))
    }

    /// Judge the next texts.
    ///
    /// Returns for each text the row of the first that it is a duplicate of, or its own row; whether it is held out
    /// for validation; and, by place in the chunk, of those that are left out the reason and what it overlaps with.
    #[pyo3(signature = (first_row, texts: "list[str] | tuple[numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.uint8]]") -> "tuple[numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.bool], dict[int, tuple[str, str | None]]]")]
    fn judge<'py>(&mut self, py: Python<'py>, first_row: i64, texts: &Bound<'py, PyAny>) -> PyResult<Judged<'py>> {
        let texts = Texts::new(texts)?;
        let texts = texts.strings(py)?;
        let inner = &mut self.inner;
        let judged = detached(py, || inner.judge(&texts))?.map_err(|error| from_data(py, &error))?;
        let mut firsts = Vec::with_capacity(judged.len());
        let mut held_out = Vec::with_capacity(judged.len());
        let mut dropped = BTreeMap::new();
        for (row, (drop, held)) in judged.into_iter().enumerate() {
            firsts.push(drop.as_ref().and_then(|d| d.like).map_or(first_row + row as i64, i64::from));
            held_out.push(held && drop.is_none());
            if let Some(drop) = drop {
                dropped.insert(row, (drop.reason, drop.place));
            }
        }
        Ok((firsts.into_pyarray(py), held_out.into_pyarray(py), dropped))
    }
}

/// Texts that Python holds.
enum Texts<'py> {
    Strings(Vec<PyBackedStr>),
    Arrow(PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, u8>),
}

impl<'py> Texts<'py> {
    fn new(texts: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok((offsets, bytes)) = texts.extract() {
            return Ok(Self::Arrow(offsets, bytes));
        }
        let mut strings = Vec::with_capacity(texts.len()?);
        for (row, text) in texts.try_iter()?.enumerate() {
            let text = text?.extract::<PyBackedStr>();
            strings.push(text.map_err(|error| no_text(texts.py(), row, &error.to_string()))?);
        }
        Ok(Self::Strings(strings))
    }

    fn strings(&self, py: Python<'_>) -> PyResult<Vec<&str>> {
        match self {
            Self::Strings(strings) => Ok(strings.iter().map(|text| &**text).collect()),
            Self::Arrow(offsets, bytes) => {
                let (offsets, bytes) = (offsets.as_slice()?, bytes.as_slice()?);
                let each = |(row, ends): (usize, &[i64])| {
                    let start = usize::try_from(ends[0]).unwrap_or(usize::MAX);
                    let stop = usize::try_from(ends[1]).unwrap_or(usize::MAX);
                    let bytes = bytes.get(start..stop).ok_or_else(|| no_text(py, row, "its offsets are outside"))?;
                    std::str::from_utf8(bytes).map_err(|error| no_text(py, row, &error.to_string()))
                };
                offsets.windows(2).enumerate().map(each).collect()
            }
        }
    }
}

fn no_text(py: Python<'_>, row: usize, why: &str) -> PyErr {
    raise(py, "DataError", &format!("row {row} of the chunk is no text"), None, Some(why), Some("give strings"))
}
