//! The data path as Python sees it.

use crate::errors::{detached, from_data};
use alignite_data::chat::Chat;
use alignite_data::conversation::{Format, Message};
use alignite_data::encode::Outcome;
use alignite_data::error::{Error, Kind};
use alignite_data::order::Permutation;
use alignite_data::prepare;
use alignite_data::prepared;
use alignite_data::record::Context;
use alignite_data::rows::parse;
use alignite_data::source::Source;
use alignite_data::survey::Wanted;
use alignite_data::template::{RenderOptions, Renderer};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn options(py: Python<'_>, json: &str) -> PyResult<prepare::Options> {
    serde_json::from_str(json).map_err(|error| {
        crate::errors::raise(py, "UsageError", "the data options cannot be read", None, Some(&error.to_string()), None)
    })
}

/// Turns rows into ids, labels and prepared sets, for one model's tokenizer and chat template.
#[pyclass(frozen, module = "alignite._core")]
pub struct Preparer {
    inner: prepare::Preparer,
}

#[pymethods]
impl Preparer {
    /// Read a tokenizer.json and compile a chat template.
    ///
    /// `renderer` takes a request and returns a text; it renders what the engine here fails on, and everything when
    /// `native` is false.
    #[new]
    #[pyo3(signature = (tokenizer_json, template, special_tokens, options_json, renderer: "collections.abc.Callable[[str], str] | None" = None, native=true))]
    fn new(
        py: Python<'_>,
        tokenizer_json: Vec<u8>,
        template: Option<String>,
        special_tokens: BTreeMap<String, String>,
        options_json: &str,
        #[pyo3(from_py_with = optional)] renderer: Option<Py<PyAny>>,
        native: bool,
    ) -> PyResult<Self> {
        let options = options(py, options_json)?;
        let inner = detached(py, move || {
            let renderer = renderer.map(|callable| Arc::new(Outside(callable)) as Arc<dyn Renderer>);
            let template = template.as_deref();
            prepare::Preparer::with_renderer(&tokenizer_json, template, special_tokens, options, renderer, native)
        })?;
        inner.map(|inner| Self { inner }).map_err(|error| from_data(py, &error))
    }

    /// Prepare files into a folder and return its report as JSON.
    ///
    /// `progress` is called with the rows done, about ten times a second and at the end.
    #[pyo3(signature = (files, output_dir, progress: "collections.abc.Callable[[int], None] | None" = None))]
    fn prepare_files(
        &self,
        py: Python<'_>,
        files: Vec<PathBuf>,
        output_dir: PathBuf,
        #[pyo3(from_py_with = optional)] progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        self.prepare(py, files.into_iter().map(Source::File).collect(), output_dir, progress)
    }

    /// Prepare JSON rows that the caller holds; `name` stands for the file in messages.
    #[pyo3(signature = (rows, name, output_dir, progress: "collections.abc.Callable[[int], None] | None" = None))]
    fn prepare_rows(
        &self,
        py: Python<'_>,
        rows: Vec<Vec<u8>>,
        name: String,
        output_dir: PathBuf,
        #[pyo3(from_py_with = optional)] progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        self.prepare(py, vec![Source::Memory(name, rows)], output_dir, progress)
    }

    /// The fingerprint that the set of these files would have.
    fn fingerprint_files(&self, py: Python<'_>, files: Vec<PathBuf>) -> PyResult<String> {
        let sources: Vec<Source> = files.into_iter().map(Source::File).collect();
        detached(py, || self.inner.fingerprint(&sources))?.map_err(|error| from_data(py, &error))
    }

    /// The fingerprint that the set of these rows would have.
    fn fingerprint_rows(&self, py: Python<'_>, rows: Vec<Vec<u8>>) -> PyResult<String> {
        let sources = [Source::Memory("row".into(), rows)];
        detached(py, || self.inner.fingerprint(&sources))?.map_err(|error| from_data(py, &error))
    }

    /// Look at files as `prepare_files` would with `on_bad_row` "skip", write nothing, and return what was seen as JSON.
    ///
    /// `num_rows` rows are shown in full: the first that are trained on, or those in `asked`, which names them by
    /// number, counted from 0 over all files, or by `file:line`.
    #[pyo3(signature = (files, num_rows, asked, progress: "collections.abc.Callable[[int], None] | None" = None))]
    fn survey_files(
        &self,
        py: Python<'_>,
        files: Vec<PathBuf>,
        num_rows: usize,
        asked: Vec<String>,
        #[pyo3(from_py_with = optional)] progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        self.survey(py, files.into_iter().map(Source::File).collect(), num_rows, asked, progress)
    }

    /// The same for JSON rows that the caller holds; `name` stands for the file in messages.
    #[pyo3(signature = (rows, name, num_rows, asked, progress: "collections.abc.Callable[[int], None] | None" = None))]
    fn survey_rows(
        &self,
        py: Python<'_>,
        rows: Vec<Vec<u8>>,
        name: String,
        num_rows: usize,
        asked: Vec<String>,
        #[pyo3(from_py_with = optional)] progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        self.survey(py, vec![Source::Memory(name, rows)], num_rows, asked, progress)
    }

    /// One JSON row as (ids, labels, reason): two int32 arrays, empty when the row would be dropped for the reason.
    #[pyo3(signature = (row_json) -> "tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.int32], str | None]")]
    #[allow(clippy::type_complexity)]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        row_json: &[u8],
    ) -> PyResult<(Bound<'py, PyArray1<i32>>, Bound<'py, PyArray1<i32>>, Option<String>)> {
        let outcome = detached(py, || {
            let row = parse(row_json)?;
            let format = self.inner.format(std::slice::from_ref(&row))?;
            self.inner.encoder().row(&format, &row)
        })?;
        match outcome.map_err(|error| from_data(py, &error))? {
            Outcome::Used(row) => Ok((row.ids.into_pyarray(py), row.labels.into_pyarray(py), None)),
            Outcome::Dropped(reason) => {
                Ok((Vec::new().into_pyarray(py), Vec::new().into_pyarray(py), Some(reason.into())))
            }
        }
    }

    /// The chat template's text of a JSON list of messages.
    ///
    /// `options_json` may hold `add_generation_prompt`, `continue_final_message` (the name of a field), `tools`,
    /// `documents` and `variables`.
    #[pyo3(signature = (messages_json, add_generation_prompt=false, options_json="{}"))]
    fn render(
        &self,
        py: Python<'_>,
        messages_json: &str,
        add_generation_prompt: bool,
        options_json: &str,
    ) -> PyResult<String> {
        let text = detached(py, || {
            let messages: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(messages_json)
                .map_err(|e| Error::data("the messages are not a JSON list of objects").because(e))?;
            let mut options: RenderOptions = serde_json::from_str(options_json)
                .map_err(|e| Error::new(Kind::Usage, "the render options cannot be read").because(e))?;
            options.add_generation_prompt |= add_generation_prompt;
            chat(&self.inner)?.template().render(&messages, &options)
        })?;
        text.map_err(|error| from_data(py, &error))
    }

    /// What is scored in a conversation: its text, and (start, end, weight) of the scored parts, in characters.
    ///
    /// `options_json` may hold `tools`, `documents` and `variables`.
    #[pyo3(signature = (messages_json, options_json="{}"))]
    #[allow(clippy::type_complexity)]
    fn scored(
        &self,
        py: Python<'_>,
        messages_json: &str,
        options_json: &str,
    ) -> PyResult<(String, Vec<(usize, usize, f32)>)> {
        let found = detached(py, || {
            let (messages, context) = (messages(messages_json)?, context(options_json)?);
            let rendered = chat(&self.inner)?.render(&messages, &context)?;
            let spans = rendered.scored.iter().map(|span| {
                let start = rendered.text[..span.range.start].chars().count();
                (start, start + rendered.text[span.range.clone()].chars().count(), span.weight)
            });
            let spans = spans.collect();
            Ok((rendered.text, spans))
        })?;
        found.map_err(|error| from_data(py, &error))
    }

    /// A prompt's text, up to where the model starts to speak, and what it must emit to give this reply.
    ///
    /// `options_json` as for `scored`.
    #[pyo3(signature = (prompt_json, reply_json, options_json="{}"))]
    fn render_reply(
        &self,
        py: Python<'_>,
        prompt_json: &str,
        reply_json: &str,
        options_json: &str,
    ) -> PyResult<(String, String)> {
        let made = detached(py, || {
            let (prompt, reply) = (messages(prompt_json)?, messages(reply_json)?);
            let reply = chat(&self.inner)?.render_reply(&prompt, &reply, &context(options_json)?)?;
            Ok((reply.prompt_text, reply.reply_text))
        })?;
        made.map_err(|error| from_data(py, &error))
    }

    /// Whether the chat template is rendered here, and how many renders went to jinja2.
    fn renders(&self) -> (bool, u64) {
        let template = self.inner.encoder().chat().map(|chat| chat.template());
        template.map_or((true, 0), |template| (template.is_native(), template.outside_count()))
    }

    /// Ids of a text as it stands; the text of a control token becomes that token.
    #[pyo3(signature = (text) -> "numpy.typing.NDArray[numpy.int64]")]
    fn ids<'py>(&self, py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let ids = detached(py, || self.inner.encoder().ids(text))?.map_err(|error| from_data(py, &error))?;
        Ok(ids.into_iter().map(i64::from).collect::<Vec<_>>().into_pyarray(py))
    }

    /// The text of ids.
    #[pyo3(signature = (ids, skip_special_tokens=false))]
    fn decode(&self, py: Python<'_>, ids: Vec<u32>, skip_special_tokens: bool) -> PyResult<String> {
        detached(py, || self.inner.encoder().decode(&ids, skip_special_tokens))?.map_err(|error| from_data(py, &error))
    }
}

/// A Python callable that renders.
struct Outside(Py<PyAny>);

impl Renderer for Outside {
    fn render(&self, request: &str) -> Result<String, Error> {
        Python::attach(|py| {
            let made = self.0.call1(py, (request,)).and_then(|text| text.extract::<String>(py));
            made.map_err(|error| {
                if !error.is_instance_of::<PyException>(py) {
                    // Ctrl-C and the like.
                    return Error::new(Kind::Interrupted, "stopped");
                }
                let text = |name: &str| error.value(py).getattr(name).and_then(|value| value.extract::<String>()).ok();
                let what = text("what").unwrap_or_else(|| "the chat template cannot be rendered".to_owned());
                Error::new(Kind::Template, what).because(text("why").unwrap_or_else(|| error.to_string()))
            })
        })
    }
}

fn chat(preparer: &prepare::Preparer) -> Result<&Chat, Error> {
    preparer.encoder().chat().ok_or_else(|| Error::new(Kind::Template, "there is no chat template"))
}

fn messages(json: &str) -> Result<Vec<Message>, Error> {
    let list = serde_json::from_str(json).map_err(|e| Error::data("the messages are not JSON").because(e))?;
    let row = serde_json::Map::from_iter([("messages".to_owned(), list)]);
    Format::Messages.read(&row)
}

fn context(json: &str) -> Result<Context, Error> {
    let options: RenderOptions = serde_json::from_str(json)
        .map_err(|e| Error::new(Kind::Usage, "the render options cannot be read").because(e))?;
    Ok(Context { tools: options.tools, documents: options.documents, variables: options.variables })
}

fn optional(value: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
    Ok((!value.is_none()).then(|| value.clone().unbind()))
}

impl Preparer {
    fn prepare(
        &self,
        py: Python<'_>,
        sources: Vec<Source>,
        output_dir: PathBuf,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let report =
            watched(py, progress, |tick| self.inner.prepare(&sources, &output_dir, tick), |report| report.rows)?;
        Ok(serde_json::to_string(&report).unwrap_or_default())
    }

    fn survey(
        &self,
        py: Python<'_>,
        sources: Vec<Source>,
        first: usize,
        asked: Vec<String>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let wanted = Wanted { first, asked };
        let survey =
            watched(py, progress, |tick| self.inner.survey(&sources, &wanted, tick), |survey| survey.report.rows)?;
        Ok(serde_json::to_string(&survey).unwrap_or_default())
    }
}

/// Run work without the GIL that ticks with the rows done; `progress` hears of them about ten times a second, and of
/// all of them at the end.
fn watched<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(&mut dyn FnMut(u64) -> bool) -> alignite_data::error::Result<T> + Send,
    rows: impl FnOnce(&T) -> u64,
) -> PyResult<T> {
    let mut failure = None;
    let done = detached(py, || {
        let mut last = Instant::now();
        work(&mut |rows| {
            if last.elapsed() < Duration::from_millis(100) {
                return true;
            }
            last = Instant::now();
            let told = Python::attach(|py| {
                py.check_signals()?;
                progress.as_ref().map_or(Ok(()), |progress| progress.call1(py, (rows,)).map(|_| ()))
            });
            told.map_err(|error| failure = Some(error)).is_ok()
        })
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    let done = done.map_err(|error| from_data(py, &error))?;
    if let Some(progress) = progress {
        progress.call1(py, (rows(&done),))?;
    }
    Ok(done)
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

    /// These windows as one flat row: input_ids, labels, position_ids (tokens,), segments (n, 3), all int64.
    ///
    /// The arrays own the memory that Rust filled; torch.from_numpy takes them without a copy.
    #[pyo3(signature = (windows: "numpy.typing.NDArray[numpy.int64]") -> "tuple[numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64]]")]
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
        ))
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
