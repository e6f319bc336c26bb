//! Mixtures, curricula and samples as Python sees them.

use crate::errors::{detached, from_data, raise};
use alignite_data::error::{Error, Kind};
use alignite_data::mixture::{self, Joined, Plan, Spec, Written};
use alignite_data::reservoir::{self, Reservoir};
use alignite_data::source::Source;
use alignite_data::stages::{self, Stage};
use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

type Array<'py> = Bound<'py, PyArray1<i64>>;

fn read<T: DeserializeOwned>(py: Python<'_>, json: &str, what: &str) -> PyResult<T> {
    serde_json::from_str(json).map_err(|error| {
        raise(py, "UsageError", &format!("{what} cannot be read"), None, Some(&error.to_string()), None)
    })
}

fn step_is_0() -> Error {
    Error::new(Kind::Usage, "the step is 0").fix("it must be at least 1")
}

/// Draws from several sources by rates.
#[pyclass(module = "alignite._core")]
pub struct Mixture {
    inner: mixture::Mixture,
}

#[pymethods]
impl Mixture {
    /// A mixture from its description as JSON.
    #[new]
    #[pyo3(signature = (spec_json, seed, epoch))]
    fn new(py: Python<'_>, spec_json: &str, seed: u64, epoch: u64) -> PyResult<Self> {
        let spec: Spec = read(py, spec_json, "the mixture")?;
        let inner = mixture::Mixture::new(&spec, seed, epoch).map_err(|error| from_data(py, &error))?;
        Ok(Self { inner })
    }

    /// (name, rows, share of the draws) of each source.
    fn sources(&self) -> Vec<(String, u64, f64)> {
        self.inner.leaves().iter().map(|leaf| (leaf.name.clone(), leaf.rows, leaf.share)).collect()
    }

    /// (draws made, of each source).
    fn position(&self) -> (u64, Vec<u64>) {
        (self.inner.position().drawn, self.inner.position().counts.clone())
    }

    /// Go on from a position.
    #[pyo3(signature = (drawn, counts))]
    fn restore(&mut self, py: Python<'_>, drawn: u64, counts: Vec<u64>) -> PyResult<()> {
        self.inner.restore(mixture::Position { drawn, counts }).map_err(|error| from_data(py, &error))
    }

    /// Pass over draws; how many there were.
    #[pyo3(signature = (draws))]
    fn skip(&mut self, py: Python<'_>, draws: u64) -> PyResult<u64> {
        let inner = &mut self.inner;
        detached(py, move || inner.skip(draws))
    }

    /// Of the next `draws` the first and every `step`-th after it, as (sources, rows), both int64; fewer at the end.
    #[pyo3(signature = (draws, step) -> "tuple[numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64]]")]
    fn draw<'py>(&mut self, py: Python<'py>, draws: u64, step: u64) -> PyResult<(Array<'py>, Array<'py>)> {
        if step == 0 {
            return Err(from_data(py, &step_is_0()));
        }
        let inner = &mut self.inner;
        let (sources, rows) = detached(py, move || {
            let (mut sources, mut rows) = (Vec::new(), Vec::new());
            let mut at = 0;
            while at < draws {
                let Some((source, row)) = inner.draw() else { break };
                sources.push(source as i64);
                rows.push(row.cast_signed());
                let others = (step - 1).min(draws - at - 1);
                if inner.skip(others) < others {
                    break;
                }
                at += others + 1;
            }
            (sources, rows)
        })?;
        Ok((sources.into_pyarray(py), rows.into_pyarray(py)))
    }

    /// Write the rows of the next `total` draws to a file, source by source, each as often as it is drawn.
    ///
    /// `files` are each source's, in order. Gives the rows, what they are written as (None: as they are), each source's
    /// formats, and (name, rows) of what is lost.
    #[pyo3(signature = (files, total, output))]
    #[allow(clippy::type_complexity)]
    fn write_rows(
        &mut self,
        py: Python<'_>,
        files: Vec<Vec<PathBuf>>,
        total: u64,
        output: PathBuf,
    ) -> PyResult<(u64, Option<&'static str>, Vec<String>, Vec<(String, u64)>)> {
        let inner = &mut self.inner;
        let mut failure = None;
        let written = detached(py, || {
            let sources: Vec<Vec<Source>> =
                files.into_iter().map(|files| files.into_iter().map(Source::File).collect()).collect();
            let names: Vec<String> = inner.leaves().iter().map(|leaf| leaf.name.clone()).collect();
            let joined = Joined::of(&names, &sources)?;
            let io = |error| Error::io("the output cannot be written", &output, &error);
            let mut out = BufWriter::with_capacity(1 << 20, File::create(&output).map_err(io)?);
            let mut last = Instant::now();
            let Written { rows, lost, .. } =
                Plan::take(inner, total).write(&sources, &joined, &mut out, &mut |_| {
                    if last.elapsed() < Duration::from_millis(100) {
                        return true;
                    }
                    last = Instant::now();
                    Python::attach(|py| py.check_signals()).map_err(|error| failure = Some(error)).is_ok()
                })?;
            out.flush().map_err(io)?;
            Ok((rows, joined.to, joined.formats, lost.into_iter().collect()))
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        written.map_err(|error| from_data(py, &error))
    }
}

/// Draws of several mixtures in turn.
#[pyclass(module = "alignite._core")]
pub struct Curriculum {
    inner: stages::Curriculum,
}

#[pymethods]
impl Curriculum {
    /// A curriculum from its stages as JSON.
    #[new]
    #[pyo3(signature = (stages_json, seed))]
    fn new(py: Python<'_>, stages_json: &str, seed: u64) -> PyResult<Self> {
        let stages: Vec<Stage> = read(py, stages_json, "the stages")?;
        let inner = stages::Curriculum::new(stages, seed).map_err(|error| from_data(py, &error))?;
        Ok(Self { inner })
    }

    /// The names of the sources, as draws number them.
    fn names(&self) -> Vec<String> {
        self.inner.names().to_vec()
    }

    /// The state as JSON.
    fn state(&self) -> String {
        serde_json::to_string(&self.inner.state()).unwrap_or_default()
    }

    /// Go on from a state.
    #[pyo3(signature = (state_json))]
    fn restore(&mut self, py: Python<'_>, state_json: &str) -> PyResult<()> {
        let state = read(py, state_json, "the state")?;
        self.inner.restore(state).map_err(|error| from_data(py, &error))
    }

    /// Of the next `draws` the first and every `step`-th after it, as (stages, sources, rows), all int64.
    #[pyo3(signature = (draws, step) -> "tuple[numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64]]")]
    fn draw<'py>(&mut self, py: Python<'py>, draws: u64, step: u64) -> PyResult<(Array<'py>, Array<'py>, Array<'py>)> {
        let inner = &mut self.inner;
        let columns = detached(py, move || {
            let mut columns = (Vec::new(), Vec::new(), Vec::new());
            for at in 0..draws {
                let Some((stage, source, row)) = inner.draw()? else { break };
                if at.checked_rem(step).ok_or_else(step_is_0)? == 0 {
                    columns.0.push(stage as i64);
                    columns.1.push(source as i64);
                    columns.2.push(row.cast_signed());
                }
            }
            Ok(columns)
        })?;
        let (stages, sources, rows) = columns.map_err(|error| from_data(py, &error))?;
        Ok((stages.into_pyarray(py), sources.into_pyarray(py), rows.into_pyarray(py)))
    }
}

/// The items of a stream that enter a uniform sample, as an iterator of (item, place).
#[pyclass(module = "alignite._core")]
pub struct SampleSteps {
    inner: Reservoir,
}

#[pymethods]
impl SampleSteps {
    #[new]
    #[pyo3(signature = (size, seed))]
    fn new(size: u64, seed: u64) -> Self {
        Self { inner: Reservoir::new(size, seed) }
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&mut self) -> Option<(u64, u64)> {
        self.inner.advance()
    }
}

/// An order of the places of a sample by which every beginning of it is a sample too.
#[pyfunction]
#[pyo3(signature = (size, seed))]
pub fn sample_order(size: usize, seed: u64) -> Vec<usize> {
    reservoir::sample_order(size, seed)
}

/// The rows of each file.
#[pyfunction]
#[pyo3(signature = (files))]
pub fn count_rows(py: Python<'_>, files: Vec<PathBuf>) -> PyResult<Vec<u64>> {
    let sources: Vec<Source> = files.into_iter().map(Source::File).collect();
    detached(py, || mixture::count_rows(&sources))?.map_err(|error| from_data(py, &error))
}
