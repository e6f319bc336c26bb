//! The data path as Python sees it.

use crate::arrow::{ArrowTable, import};
use crate::errors::{detached, from_data};
use alignite_data::chat::Chat;
use alignite_data::conversation::Message;
use alignite_data::encode::Outcome;
use alignite_data::error::{Error, Kind};
use alignite_data::formats::Format;
use alignite_data::prepare;
use alignite_data::prepare::Tick;
use alignite_data::record::{Context, Record};
use alignite_data::source::Source;
use alignite_data::source::json::parse;
use alignite_data::survey::Wanted;
use alignite_data::template::{RenderOptions, Renderer};
use alignite_data::tokenize::{Backend, Tokens};
use numpy::{IntoPyArray, PyArray1};
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

/// Where rows come from: files, rows that the caller holds, or a table.
#[pyclass(frozen, module = "alignite._core")]
pub struct Sources(Vec<Source>);

#[pymethods]
impl Sources {
    /// Files of any kind, and folders that `datasets` saved.
    #[staticmethod]
    fn files(files: Vec<PathBuf>) -> Self {
        Self(files.into_iter().map(Source::File).collect())
    }

    /// Rows as JSON; `name` stands for the file in messages.
    #[staticmethod]
    fn rows(rows: Vec<Vec<u8>>, name: String) -> Self {
        Self(vec![Source::Memory(name, rows)])
    }

    /// A table: anything with `__arrow_c_stream__` or `__arrow_c_array__`. Its memory is used in place.
    #[staticmethod]
    #[pyo3(signature = (table: "object", name))]
    fn table(table: &Bound<'_, PyAny>, name: String) -> PyResult<Self> {
        Ok(Self(vec![Source::Table(name, import(table)?.batches)]))
    }
}

/// Turns rows into ids, labels and prepared sets, for one model's tokenizer and chat template.
#[pyclass(frozen, module = "alignite._core")]
pub struct Preparer {
    pub(crate) inner: prepare::Preparer,
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

    /// Prepare sources into a folder, or append them to the set in it, and return its report as JSON.
    ///
    /// `progress` is called with the rows and tokens done, about ten times a second and at the end.
    #[pyo3(signature = (sources, output_dir, progress: "collections.abc.Callable[[int, int], None] | None" = None, append=false))]
    fn prepare(
        &self,
        py: Python<'_>,
        sources: &Sources,
        output_dir: PathBuf,
        #[pyo3(from_py_with = optional)] progress: Option<Py<PyAny>>,
        append: bool,
    ) -> PyResult<String> {
        let report = watched(py, progress.as_ref(), |tick| {
            let (sources, folder) = (&sources.0, &output_dir);
            if append { self.inner.append(sources, folder, tick) } else { self.inner.prepare(sources, folder, tick) }
        })?;
        if let Some(progress) = progress {
            progress.call1(py, (report.rows, report.tokens))?;
        }
        Ok(serde_json::to_string(&report).unwrap_or_default())
    }

    /// The fingerprint that the set of these sources would have.
    fn fingerprint(&self, py: Python<'_>, sources: &Sources) -> PyResult<String> {
        detached(py, || self.inner.fingerprint(&sources.0))?.map_err(|error| from_data(py, &error))
    }

    /// Look at sources as `prepare` would with `on_bad_row` "skip", write nothing, and return what was seen as JSON.
    ///
    /// `num_rows` rows are shown in full: the first that are trained on, or those in `asked`, which names them by
    /// number, counted from 0 over all files, or by `file:line`.
    #[pyo3(signature = (sources, num_rows, asked, progress: "collections.abc.Callable[[int, int], None] | None" = None))]
    fn survey(
        &self,
        py: Python<'_>,
        sources: &Sources,
        num_rows: usize,
        asked: Vec<String>,
        #[pyo3(from_py_with = optional)] progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let wanted = Wanted { first: num_rows, asked };
        let survey = watched(py, progress.as_ref(), |tick| self.inner.survey(&sources.0, &wanted, tick))?;
        if let Some(progress) = progress {
            progress.call1(py, (survey.report.rows, survey.report.tokens))?;
        }
        Ok(serde_json::to_string(&survey).unwrap_or_default())
    }

    /// The rows of a table (anything with `__arrow_c_stream__` or `__arrow_c_array__`) as a table of windows: a row for
    /// each record, or packed. What cannot be used is a row without tokens whose `_error` says why.
    #[pyo3(signature = (table: "object", pack=false))]
    fn table(&self, py: Python<'_>, table: &Bound<'_, PyAny>, pack: bool) -> PyResult<ArrowTable> {
        let table = import(table)?;
        let batch = detached(py, || self.inner.table(&table.batches, pack))?.map_err(|error| from_data(py, &error))?;
        Ok(ArrowTable { schema: batch.schema(), batches: vec![batch] })
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
            let mut outcomes = self.inner.outcomes(&format, &row)?;
            match outcomes.len() {
                1 => Ok(outcomes.remove(0)),
                count => Err(Error::data(format!("the row holds {count} examples, not one"))),
            }
        })?;
        match outcome.map_err(|error| from_data(py, &error))? {
            Outcome::Used(row) => Ok((row.sample.ids.into_pyarray(py), row.sample.labels.into_pyarray(py), None)),
            Outcome::Dropped(reason) => {
                Ok((Vec::new().into_pyarray(py), Vec::new().into_pyarray(py), Some(reason.0.into())))
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

    /// What makes the tokens, "fast" or "reference", and for the reference why it is used.
    #[getter]
    fn tokenizer_backend(&self) -> (&'static str, Option<String>) {
        let (name, reason) = self.inner.encoder().tokenizer().name();
        (name, reason.map(str::to_owned))
    }

    /// Ids of a text as it stands; the text of a control token becomes that token.
    #[pyo3(signature = (text) -> "numpy.typing.NDArray[numpy.int64]")]
    fn ids<'py>(&self, py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let ids = detached(py, || self.inner.encoder().ids(text))?.map_err(|error| from_data(py, &error))?;
        Ok(ids.into_iter().map(i64::from).collect::<Vec<_>>().into_pyarray(py))
    }

    /// Tokens of a text as (ids, ends), two int64 arrays; `ends` are the bytes that each token's characters end before.
    ///
    /// With `literal` the text of a special token is text.
    #[pyo3(signature = (text, literal=false) -> "tuple[numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.int64]]")]
    #[allow(clippy::type_complexity)]
    fn tokens<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        literal: bool,
    ) -> PyResult<(Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>)> {
        let mut tokens = Tokens::default();
        let made = detached(py, || self.inner.encoder().tokenizer().encode(text, literal, &mut tokens))?;
        made.map_err(|error| from_data(py, &error))?;
        let ends = (0..tokens.len()).map(|index| tokens.range(index, text).end as i64).collect::<Vec<_>>();
        let ids = tokens.ids.iter().copied().map(i64::from).collect::<Vec<_>>();
        Ok((ids.into_pyarray(py), ends.into_pyarray(py)))
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
                // An error of ours in its parts: as one text it would have a why and a fix inside of its why.
                let why = text("why").or_else(|| text("what").is_none().then(|| error.to_string()));
                let what = text("what").unwrap_or_else(|| "the chat template cannot be rendered".to_owned());
                Error { why, fix: text("fix"), ..Error::new(Kind::Template, what) }
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
    match Format::parse("messages")?.read(&row)?.pop() {
        Some(Record::Conversation(talk)) => Ok(talk.messages),
        _ => Err(Error::data("these are no messages")),
    }
}

fn context(json: &str) -> Result<Context, Error> {
    let options: RenderOptions = serde_json::from_str(json)
        .map_err(|e| Error::new(Kind::Usage, "the render options cannot be read").because(e))?;
    let RenderOptions { tools, documents, variables, .. } = options;
    Ok(Context { tools, documents, variables, ..Context::default() })
}

pub(crate) fn optional(value: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
    Ok((!value.is_none()).then(|| value.clone().unbind()))
}

/// Run work without the GIL that ticks with the rows and tokens done; `progress` hears of them about ten times a second.
pub(crate) fn watched<T: Send>(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    work: impl FnOnce(&mut Tick<'_>) -> alignite_data::error::Result<T> + Send,
) -> PyResult<T> {
    let mut failure = None;
    let done = detached(py, || {
        let mut last = Instant::now();
        work(&mut |rows, tokens| {
            if last.elapsed() < Duration::from_millis(100) {
                return true;
            }
            last = Instant::now();
            let told = Python::attach(|py| {
                py.check_signals()?;
                progress.map_or(Ok(()), |progress| progress.call1(py, (rows, tokens)).map(|_| ()))
            });
            told.map_err(|error| failure = Some(error)).is_ok()
        })
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    done.map_err(|error| from_data(py, &error))
}
