//! Packing and batching as Python sees them.

use crate::errors::{detached, from_data, raise};
use alignite_data::batching;
use alignite_data::pack::{Packs, Strategy, pack as pack_lengths};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

type Array<'py> = Bound<'py, PyArray1<i64>>;

/// Lengths as Rust holds them; none may be negative or beyond 2^32.
fn lengths(py: Python<'_>, lengths: &PyReadonlyArray1<'_, i64>) -> PyResult<Vec<u32>> {
    let found = lengths.as_array().iter().map(|&n| u32::try_from(n).map_err(|_| n)).collect::<Result<Vec<_>, _>>();
    found
        .map_err(|n| raise(py, "UsageError", &format!("a length is {n}"), None, None, Some("it must be 0 to 2^32 - 1")))
}

fn arrays<'py>(py: Python<'py>, packs: &Packs) -> (Array<'py>, Array<'py>, Array<'py>, Array<'py>) {
    let offsets: Vec<i64> = packs.offsets.iter().map(|&end| end as i64).collect();
    let count = packs.pieces.len();
    let (mut rows, mut starts, mut lengths) =
        (Vec::with_capacity(count), Vec::with_capacity(count), Vec::with_capacity(count));
    for piece in &packs.pieces {
        rows.push(piece.row.cast_signed());
        starts.push(i64::from(piece.start));
        lengths.push(i64::from(piece.length));
    }
    (offsets.into_pyarray(py), rows.into_pyarray(py), starts.into_pyarray(py), lengths.into_pyarray(py))
}

/// Pack rows of these lengths: (offsets, rows, starts, lengths), each int64; window w holds the pieces
/// `offsets[w]..offsets[w + 1]`.
#[pyfunction]
#[pyo3(signature = (lengths: "numpy.typing.NDArray[numpy.int64]", capacity, strategy, window_size) -> "tuple[numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64]]")]
#[allow(clippy::type_complexity)]
pub fn pack<'py>(
    py: Python<'py>,
    lengths: PyReadonlyArray1<'py, i64>,
    capacity: u32,
    strategy: &str,
    window_size: usize,
) -> PyResult<(Array<'py>, Array<'py>, Array<'py>, Array<'py>)> {
    let lengths = self::lengths(py, &lengths)?;
    let packs = detached(py, || {
        let strategy: Strategy = strategy.parse()?;
        pack_lengths(&lengths, strategy, capacity, window_size)
    })?;
    Ok(arrays(py, &packs.map_err(|error| from_data(py, &error))?))
}

/// Where batches of the rows in `order` end, 0 first: each takes rows in that order while they fit.
#[pyfunction]
#[pyo3(signature = (lengths: "numpy.typing.NDArray[numpy.int64]", order: "numpy.typing.NDArray[numpy.int64]", budget, padded, max_rows) -> "numpy.typing.NDArray[numpy.int64]")]
pub fn batches_by_tokens<'py>(
    py: Python<'py>,
    lengths: PyReadonlyArray1<'py, i64>,
    order: PyReadonlyArray1<'py, i64>,
    budget: u64,
    padded: bool,
    max_rows: usize,
) -> PyResult<Array<'py>> {
    let lengths = self::lengths(py, &lengths)?;
    let order = order.as_array().to_vec();
    let offsets = detached(py, || batching::by_tokens(&lengths, &order, budget, padded, max_rows))?;
    Ok(offsets.map_err(|error| from_data(py, &error))?.into_pyarray(py))
}

/// An order of all rows in which neighbours have similar lengths.
#[pyfunction]
#[pyo3(signature = (lengths: "numpy.typing.NDArray[numpy.int64]", batch_size, megabatch, seed, epoch) -> "numpy.typing.NDArray[numpy.int64]")]
pub fn length_grouped<'py>(
    py: Python<'py>,
    lengths: PyReadonlyArray1<'py, i64>,
    batch_size: usize,
    megabatch: usize,
    seed: u64,
    epoch: u64,
) -> PyResult<Array<'py>> {
    let lengths = self::lengths(py, &lengths)?;
    let order = detached(py, || batching::length_grouped(&lengths, batch_size, megabatch, seed, epoch))?;
    Ok(order.map_err(|error| from_data(py, &error))?.into_pyarray(py))
}
