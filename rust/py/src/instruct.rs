//! Instruction templates as Python sees them.

use crate::data::Preparer;
use crate::errors::{detached, from_data, raise};
use alignite_data::error::{Error, Kind, Result};
use alignite_data::instruct::task::{Options, TaskSource};
use alignite_data::instruct::{self, Draws, p3};
use alignite_data::source::Source;
use alignite_data::source::json::parse;
use pyo3::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A template in PromptSource's form: Jinja with `|||` between prompt and target.
#[pyclass(frozen, module = "alignite._core")]
pub struct PromptTemplate {
    inner: p3::Template,
    id: String,
}

#[pymethods]
impl PromptTemplate {
    /// Compile a template; `truncate` cuts every value to so many characters.
    #[new]
    #[pyo3(signature = (jinja, answer_choices=None, truncate=None, id="template".to_owned()))]
    fn new(
        py: Python<'_>,
        jinja: &str,
        answer_choices: Option<&str>,
        truncate: Option<usize>,
        id: String,
    ) -> PyResult<Self> {
        let inner = detached(py, || p3::Template::new(&id, jinja, answer_choices, truncate))?;
        inner.map(|inner| Self { inner, id }).map_err(|error| from_data(py, &error))
    }

    /// The parts that `|||` separates, of one JSON row; what is drawn depends on seed, row number and id.
    #[pyo3(signature = (row_json, seed=0, number=0))]
    fn parts(&self, py: Python<'_>, row_json: &[u8], seed: u64, number: u64) -> PyResult<Vec<String>> {
        detached(py, || self.inner.parts(&parse(row_json)?, &Draws::new(seed, number, &self.id)))?
            .map_err(|error| from_data(py, &error))
    }
}

/// The templates of one task.
#[pyclass(frozen, module = "alignite._core")]
pub struct TemplateSet {
    inner: Arc<instruct::TemplateSet>,
}

#[pymethods]
impl TemplateSet {
    /// Compile the templates of a JSON text: `kind` is p3, flan or natural.
    #[new]
    #[pyo3(signature = (json, truncate=None))]
    fn new(py: Python<'_>, json: &str, truncate: Option<usize>) -> PyResult<Self> {
        let inner = detached(py, || instruct::TemplateSet::parse(json, truncate))?;
        inner.map(|inner| Self { inner: Arc::new(inner) }).map_err(|error| from_data(py, &error))
    }

    /// The task's name.
    #[getter]
    fn task(&self) -> &str {
        &self.inner.task
    }

    /// (id, name) of each template.
    fn templates(&self) -> Vec<(String, String)> {
        self.inner.templates.iter().map(|template| (template.id.clone(), template.name.clone())).collect()
    }

    /// The instances of the rows of files, or of JSON rows that the caller holds, in chunks.
    ///
    /// `count` counts the tokens of a text: a `Preparer`, or a callable.
    #[pyo3(signature = (files, rows: "collections.abc.Sequence[bytes] | None", options_json, seed, count: "Preparer | collections.abc.Callable[[str], int] | None" = None))]
    fn instances(
        &self,
        py: Python<'_>,
        files: Vec<PathBuf>,
        rows: Option<Vec<Vec<u8>>>,
        options_json: &str,
        seed: u64,
        count: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Instances> {
        let options: Options = serde_json::from_str(options_json).map_err(|error| {
            raise(py, "UsageError", "the task's options cannot be read", None, Some(&error.to_string()), None)
        })?;
        let count = match count {
            None => Counter::Nothing,
            Some(count) => match count.cast::<Preparer>() {
                Ok(preparer) => Counter::Preparer(preparer.clone().unbind()),
                Err(_) => Counter::Callable(count.unbind()),
            },
        };
        let set = Arc::clone(&self.inner);
        let sources: Vec<Source> = match rows {
            Some(rows) => vec![Source::Memory("row".into(), rows)],
            None => files.into_iter().map(Source::File).collect(),
        };
        let (sender, receiver) = sync_channel(2);
        std::thread::spawn(move || {
            let made = catch_unwind(AssertUnwindSafe(|| make(&set, &sources, &options, seed, &count, &sender)));
            // Where nobody listens any more there is nobody to tell.
            let _ = match made {
                Ok(Ok(report)) => sender.send(Sent::Done(report)),
                Ok(Err(error)) => sender.send(Sent::Failed(error)),
                Err(_) => Ok(()),
            };
        });
        Ok(Instances { receiver: Mutex::new(receiver), report: Mutex::new(None) })
    }
}

enum Counter {
    Nothing,
    Preparer(Py<Preparer>),
    Callable(Py<PyAny>),
}

impl Counter {
    fn count(&self, text: &str) -> Result<usize> {
        match self {
            Self::Nothing => Err(Error::new(Kind::Usage, "nothing counts tokens").fix("give few_shot a tokenizer")),
            Self::Preparer(preparer) => preparer.get().inner.encoder().ids(text).map(|ids| ids.len()),
            Self::Callable(callable) => {
                let counted =
                    Python::try_attach(|py| callable.call1(py, (text,)).and_then(|value| value.extract::<usize>(py)));
                let failed = |why: String| Error::new(Kind::Usage, "the token counter fails").because(why);
                counted.ok_or_else(|| failed("Python is ending".into()))?.map_err(|error| failed(error.to_string()))
            }
        }
    }
}

enum Sent {
    Rows(Vec<String>),
    Done(String),
    Failed(Error),
}

fn make(
    set: &instruct::TemplateSet,
    sources: &[Source],
    options: &Options,
    seed: u64,
    count: &Counter,
    sender: &SyncSender<Sent>,
) -> Result<String> {
    let counted = |text: &str| count.count(text);
    let task = TaskSource::new(set, options, &counted, seed)?;
    let report = task.each(sources, |instances| {
        let rows = instances.iter().map(|instance| task.to_row(instance).to_string()).collect();
        Ok(sender.send(Sent::Rows(rows)).is_ok())
    })?;
    Ok(serde_json::to_string(&report).unwrap_or_default())
}

/// Instances as they are made, in the order of the rows: an iterator of chunks, each a list of JSON rows.
#[pyclass(frozen, module = "alignite._core")]
pub struct Instances {
    receiver: Mutex<Receiver<Sent>>,
    report: Mutex<Option<String>>,
}

#[pymethods]
impl Instances {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Vec<String>>> {
        loop {
            let sent = py.detach(|| {
                let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
                receiver.recv_timeout(Duration::from_millis(100))
            });
            py.check_signals()?;
            match sent {
                Ok(Sent::Rows(rows)) => return Ok(Some(rows)),
                Ok(Sent::Done(report)) => {
                    *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
                    return Ok(None);
                }
                Ok(Sent::Failed(error)) => return Err(from_data(py, &error)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if self.report().is_some() => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => {
                    let why = "the thread that made the rows is gone";
                    return Err(raise(
                        py,
                        "InternalError",
                        "the Rust core failed; this is a bug in alignite",
                        None,
                        Some(why),
                        None,
                    ));
                }
            }
        }
    }

    /// What became of the rows, as JSON; None until the last instance was taken.
    #[getter]
    fn report(&self) -> Option<String> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
