//! Prepared sets as Python sees them, and the order that they are read in.

use crate::data::watched;
use crate::errors::{detached, from_data};
use alignite_data::order::Permutation;
use alignite_data::{export, prepare, prepared};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1};
use pyo3::prelude::*;
use std::path::PathBuf;

/// Join the shards of a set; returns the report as JSON.
#[pyfunction]
pub fn merge_prepared(py: Python<'_>, folders: Vec<PathBuf>, output_dir: PathBuf) -> PyResult<String> {
    let report = watched(py, None, |tick| prepare::merge(&folders, &output_dir, tick))?;
    Ok(serde_json::to_string(&report).unwrap_or_default())
}

/// An open prepared set: windows of tokens in an Arrow file that is mapped, not read.
#[pyclass(frozen, module = "alignite._core")]
pub struct PreparedSet {
    inner: prepared::PreparedSet,
}

#[pymethods]
impl PreparedSet {
    /// Open a prepared folder and check its bytes.
    #[new]
    #[pyo3(signature = (folder))]
    fn new(py: Python<'_>, folder: PathBuf) -> PyResult<Self> {
        let inner = detached(py, || prepared::PreparedSet::open(&folder))?;
        inner.map(|inner| Self { inner }).map_err(|error| from_data(py, &error))
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }

    /// A hash of everything that decides the content.
    #[getter]
    fn fingerprint(&self) -> &str {
        self.inner.fingerprint()
    }

    /// report.json as text.
    #[getter]
    fn report(&self) -> &str {
        self.inner.report()
    }

    /// Tokens of each of these windows.
    #[pyo3(signature = (windows: "numpy.typing.NDArray[numpy.int64]") -> "numpy.typing.NDArray[numpy.int64]")]
    fn window_tokens<'py>(
        &self,
        py: Python<'py>,
        windows: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let counts =
            indices(py, &windows)?.into_iter().map(|w| self.inner.window_tokens(w)).collect::<Result<Vec<_>, _>>();
        counts.map(|counts| counts.into_pyarray(py)).map_err(|error| from_data(py, &error))
    }

    /// Scored tokens of each of these windows.
    #[pyo3(signature = (windows: "numpy.typing.NDArray[numpy.int64]") -> "numpy.typing.NDArray[numpy.int64]")]
    fn window_scored<'py>(
        &self,
        py: Python<'py>,
        windows: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let counts =
            indices(py, &windows)?.into_iter().map(|w| self.inner.window_scored(w)).collect::<Result<Vec<_>, _>>();
        counts.map(|counts| counts.into_pyarray(py)).map_err(|error| from_data(py, &error))
    }

    /// These windows as one flat row: input_ids, labels, position_ids (tokens,), segments (n, 3), all int64, and
    /// float32 weights (tokens,) or None.
    ///
    /// The arrays own the memory that Rust filled; torch.from_numpy takes them without a copy.
    #[pyo3(signature = (windows: "numpy.typing.NDArray[numpy.int64]") -> "tuple[numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.float32] | None]")]
    #[allow(clippy::type_complexity)]
    fn batch<'py>(
        &self,
        py: Python<'py>,
        windows: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<(
        Bound<'py, PyArray1<i64>>,
        Bound<'py, PyArray1<i64>>,
        Bound<'py, PyArray1<i64>>,
        Bound<'py, PyArray2<i64>>,
        Option<Bound<'py, PyArray1<f32>>>,
    )> {
        let windows = indices(py, &windows)?;
        let batch = detached(py, || self.inner.batch(&windows))?.map_err(|error| from_data(py, &error))?;
        let segments = batch.segments.into_pyarray(py);
        let count = segments.len()? / 3;
        Ok((
            batch.input_ids.into_pyarray(py),
            batch.labels.into_pyarray(py),
            batch.position_ids.into_pyarray(py),
            numpy::PyArrayMethods::reshape(&segments, [count, 3])?,
            (!batch.weights.is_empty()).then(|| batch.weights.into_pyarray(py)),
        ))
    }

    /// Where the segments of these windows come from: row_ids, sources, lines, records, roles (int64), scores (float32);
    /// and of their records criteria (int64) and weights (float32).
    #[pyo3(signature = (windows: "numpy.typing.NDArray[numpy.int64]") -> "tuple[numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.float32]]")]
    #[allow(clippy::type_complexity)]
    fn origins<'py>(
        &self,
        py: Python<'py>,
        windows: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<(
        Bound<'py, PyArray1<i64>>,
        Bound<'py, PyArray1<i64>>,
        Bound<'py, PyArray1<i64>>,
        Bound<'py, PyArray1<i64>>,
        Bound<'py, PyArray1<i64>>,
        Bound<'py, PyArray1<f32>>,
        Bound<'py, PyArray1<i64>>,
        Bound<'py, PyArray1<f32>>,
    )> {
        let windows = indices(py, &windows)?;
        let origins = self.inner.origins(&windows).map_err(|error| from_data(py, &error))?;
        Ok((
            origins.row_ids.into_pyarray(py),
            origins.sources.into_pyarray(py),
            origins.lines.into_pyarray(py),
            origins.records.into_pyarray(py),
            origins.roles.into_pyarray(py),
            origins.scores.into_pyarray(py),
            origins.criteria.into_pyarray(py),
            origins.record_weights.into_pyarray(py),
        ))
    }

    /// Write all windows as one Parquet file.
    fn to_parquet(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        watched(py, None, |tick| export::to_parquet(&self.inner, &path, tick))
    }

    /// Write all records as Megatron's indexed files PREFIX.bin and .idx, and their labels as PREFIX_labels.
    fn to_megatron(&self, py: Python<'_>, prefix: PathBuf) -> PyResult<()> {
        watched(py, None, |tick| export::to_megatron(&self.inner, &prefix, tick))
    }
}

fn indices(py: Python<'_>, windows: &PyReadonlyArray1<'_, i64>) -> PyResult<Vec<usize>> {
    windows
        .as_array()
        .iter()
        .map(|&window| {
            usize::try_from(window).map_err(|_| {
                crate::errors::raise(py, "UsageError", &format!("there is no window {window}"), None, None, None)
            })
        })
        .collect()
}

/// Items at positions `start..stop` of the order of one epoch: a permutation of `0..n` that needs no memory.
#[pyfunction]
#[pyo3(signature = (n, seed, epoch, start, stop) -> "numpy.typing.NDArray[numpy.int64]")]
pub fn shuffled(
    py: Python<'_>,
    n: u64,
    seed: u64,
    epoch: u64,
    start: u64,
    stop: u64,
) -> PyResult<Bound<'_, PyArray1<i64>>> {
    if start > stop || stop > n {
        let what = format!("positions {start}..{stop} are not inside 0..{n}");
        return Err(crate::errors::raise(py, "UsageError", &what, None, None, None));
    }
    let order = Permutation::new(n, seed, epoch);
    let items: Vec<i64> = (start..stop).map(|position| order.get(position).cast_signed()).collect();
    Ok(items.into_pyarray(py))
}
