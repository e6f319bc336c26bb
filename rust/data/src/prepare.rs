//! From files to a prepared folder, in bounded memory, with every row accounted for.

mod report;
mod staging;

pub(crate) use report::how;
pub use report::{Count, Report};
use staging::{Staging, check_target};

use crate::chat::Chat;
use crate::conversation::Format;
use crate::encode::{Encoded, Encoder, IGNORE, Outcome};
use crate::error::{Error, Kind, Result};
use crate::pack::best_fit_decreasing;
use crate::prepared::{DATA_FILE, FINGERPRINT, REPORT_FILE, schema};
use crate::rows::{Spot, each_row, names, reason_of};
use crate::source::Source;
use crate::template::Template;
use arrow_array::builder::{Int32Builder, Int64Builder, LargeListBuilder, ListBuilder};
use arrow_array::{ArrayRef, Int32Array, RecordBatch};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows that are packed together, and written as one record batch.
pub(crate) const PACKING_WINDOW: usize = 10_000;
/// The version of what is written; a change of behaviour changes it, so that old sets are made anew.
const REVISION: u32 = 1;

/// What decides how rows become windows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The longest window in tokens.
    pub max_length: usize,
    /// "none" or "bfd".
    pub packing: String,
    /// Columns that hold prompt and completion, both or neither.
    pub prompt_column: Option<String>,
    /// See `prompt_column`.
    pub completion_column: Option<String>,
    /// Whether rows go through the chat template.
    pub apply_chat_template: bool,
    /// "error" or "skip".
    pub on_bad_row: String,
    /// The date that templates see, (year, month, day).
    pub template_date: (i32, u32, u32),
    /// The token that ends raw text.
    pub eos_token: Option<String>,
    /// Threads; 0 means all cores. Does not change the result.
    #[serde(default, skip_serializing)]
    pub num_threads: usize,
    /// "auto", "reference" or "fast": what makes the tokens. Does not change the result.
    #[serde(default = "auto", skip_serializing)]
    pub tokenizer_backend: String,
}

fn auto() -> String {
    "auto".into()
}

/// Turns rows into prepared sets.
pub struct Preparer {
    encoder: Encoder,
    options: Options,
    /// Hash of everything but the sources.
    identity: u128,
}

impl Preparer {
    /// A preparer for one model's tokenizer and template.
    ///
    /// # Errors
    /// An option is out of range, or the tokenizer or template cannot be used.
    pub fn new(
        tokenizer_json: &[u8],
        template: Option<&str>,
        special_tokens: BTreeMap<String, String>,
        options: Options,
    ) -> Result<Self> {
        let usage = |what: &str| Err(Error::new(Kind::Usage, what));
        if options.max_length < 2 {
            return usage("max_length must be at least 2");
        }
        if !matches!(options.packing.as_str(), "none" | "bfd")
            || !matches!(options.on_bad_row.as_str(), "error" | "skip")
        {
            return usage("packing is none or bfd, on_bad_row is error or skip");
        }
        if options.prompt_column.is_some() != options.completion_column.is_some() {
            return usage("prompt_column and completion_column go together");
        }
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        let settings = serde_json::to_string(&options).unwrap_or_default();
        let tokens = serde_json::to_string(&special_tokens).unwrap_or_default();
        let version = format!("{} {REVISION}", env!("CARGO_PKG_VERSION"));
        let template = template.filter(|_| options.apply_chat_template);
        for part in [
            tokenizer_json,
            template.unwrap_or("").as_bytes(),
            tokens.as_bytes(),
            settings.as_bytes(),
            version.as_bytes(),
        ] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let make_chat = |control: Vec<String>| match template {
            Some(source) => {
                Template::new(source, special_tokens, options.template_date).map(|t| Some(Chat::new(t, control)))
            }
            None if options.apply_chat_template => {
                Err(Error::new(Kind::Template, "the model folder has no chat template")
                    .fix("add chat_template.jinja to it, or set apply_chat_template to false for raw text"))
            }
            None => Ok(None),
        };
        let encoder = Encoder::new(
            tokenizer_json,
            &options.tokenizer_backend,
            make_chat,
            options.eos_token.as_deref(),
            options.max_length,
        )?;
        Ok(Self { encoder, identity: hasher.digest128(), options })
    }

    /// What decides how rows become windows.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Which rows of these lengths, at most [`PACKING_WINDOW`] of them, share a window.
    pub(crate) fn windows(&self, lengths: &[usize]) -> Vec<Vec<usize>> {
        if self.options.packing == "bfd" {
            best_fit_decreasing(lengths, self.options.max_length)
        } else {
            (0..lengths.len()).map(|row| vec![row]).collect()
        }
    }

    /// The encoder.
    #[must_use]
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The format of one row, by the options or by its columns.
    ///
    /// # Errors
    /// No format fits.
    pub fn format(&self, rows: &[Map<String, Value>]) -> Result<Format> {
        match (&self.options.prompt_column, &self.options.completion_column) {
            (Some(prompt), Some(completion)) => Ok(Format::columns(prompt, completion)),
            _ => Format::detect(rows),
        }
    }

    /// Prepare sources into a folder, or take what is there when its fingerprint says it is the same.
    ///
    /// `tick` is called with the rows done about ten times a second; when it says false the work stops.
    ///
    /// # Errors
    /// A source cannot be read, a row is bad and `on_bad_row` is "error", no row is left, or the folder cannot be
    /// written.
    pub fn prepare(&self, sources: &[Source], folder: &Path, tick: &mut dyn FnMut(u64) -> bool) -> Result<Report> {
        let fingerprint = self.fingerprint(sources)?;
        if let Some(report) = existing(folder, &fingerprint) {
            return Ok(report);
        }
        check_target(folder)?;
        let staging = Staging::new(folder)?;
        let mut work = Work::new(self, &staging.0.join(DATA_FILE), &fingerprint)?;
        work.run(sources, tick)?;
        let mut report = work.finish()?;
        report.fingerprint = fingerprint;
        let map = crate::mapped::map(&staging.0.join(DATA_FILE))?;
        report.data_xxh3 = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&map));
        drop(map);
        staging.publish(folder, &report)?;
        Ok(report)
    }

    /// A hash of everything that decides what these sources would be prepared into.
    ///
    /// # Errors
    /// A source cannot be read.
    pub fn fingerprint(&self, sources: &[Source]) -> Result<String> {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(&self.identity.to_le_bytes());
        for source in sources {
            hasher.update(&source.fingerprint()?.to_le_bytes());
        }
        Ok(format!("{:032x}", hasher.digest128()))
    }
}

fn existing(folder: &Path, fingerprint: &str) -> Option<Report> {
    let report = std::fs::read_to_string(folder.join(REPORT_FILE)).ok()?;
    let mut report: Report = serde_json::from_str(&report).ok()?;
    // Opening checks the bytes; a damaged set is made anew.
    let set = crate::prepared::PreparedSet::open(folder).ok()?;
    report.reused = true;
    (report.fingerprint == fingerprint && set.fingerprint() == fingerprint).then_some(report)
}

struct Work<'a> {
    preparer: &'a Preparer,
    writer: FileWriter<BufWriter<File>>,
    path: PathBuf,
    pending: Vec<(i64, Encoded)>,
    report: Report,
}

impl<'a> Work<'a> {
    fn new(preparer: &'a Preparer, path: &Path, fingerprint: &str) -> Result<Self> {
        let metadata = [(FINGERPRINT.to_owned(), fingerprint.to_owned())];
        let schema = schema().with_metadata(HashMap::from(metadata));
        let file = File::create(path).map_err(|e| Error::io("cannot write the prepared set", path, &e))?;
        let writer = FileWriter::try_new_buffered(file, &schema).map_err(|e| arrow(path, &e))?;
        Ok(Self { preparer, writer, path: path.to_owned(), pending: Vec::new(), report: Report::default() })
    }

    fn run(&mut self, sources: &[Source], tick: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        let preparer = self.preparer;
        let skip = preparer.options.on_bad_row == "skip";
        let read = each_row(preparer, sources, skip, tick, Encoder::row, |spot, outcome| self.take(&spot, outcome))?;
        (self.report.rows, self.report.format) = (read.rows, read.format);
        self.flush(true)?;
        if self.report.used == 0 {
            let shown = |(reason, rows): (&String, &Count)| {
                let first = rows.examples.first().map(|place| format!(" (first: {place})")).unwrap_or_default();
                format!("{} rows: {reason}{first}", rows.count)
            };
            let reasons: Vec<String> = self.report.dropped.iter().map(shown).collect();
            return Err(Error::data("no row is left to train on")
                .at(names(sources))
                .because(reasons.join("; "))
                .fix("give rows with something that an assistant says, and a max_length that holds it"));
        }
        Ok(())
    }

    fn take(&mut self, spot: &Spot, outcome: Result<Outcome>) -> Result<()> {
        match outcome {
            Ok(Outcome::Used(encoded)) => {
                self.report.used(&spot.place, encoded.cut, encoded.control_text);
                self.pending.push((i64::try_from(spot.id).unwrap_or(i64::MAX), encoded));
            }
            Ok(Outcome::Dropped(reason)) => self.report.dropped(&spot.place, reason.into()),
            Err(error) => self.report.dropped(&spot.place, reason_of(&error)),
        }
        self.flush(false)
    }

    fn flush(&mut self, all: bool) -> Result<()> {
        while self.pending.len() >= PACKING_WINDOW || (all && !self.pending.is_empty()) {
            let rest = self.pending.split_off(self.pending.len().min(PACKING_WINDOW));
            let rows = std::mem::replace(&mut self.pending, rest);
            self.write(&rows)?;
        }
        Ok(())
    }

    fn write(&mut self, rows: &[(i64, Encoded)]) -> Result<()> {
        let lengths: Vec<usize> = rows.iter().map(|(_, row)| row.ids.len()).collect();
        let windows = self.preparer.windows(&lengths);
        let item32 = Arc::new(Field::new("item", DataType::Int32, false));
        let item64 = Arc::new(Field::new("item", DataType::Int64, false));
        let mut ids = LargeListBuilder::new(Int32Builder::new()).with_field(item32.clone());
        let mut labels = LargeListBuilder::new(Int32Builder::new()).with_field(item32.clone());
        let mut lengths = ListBuilder::new(Int32Builder::new()).with_field(item32);
        let mut row_ids = ListBuilder::new(Int64Builder::new()).with_field(item64);
        let mut scored = Vec::with_capacity(windows.len());
        for window in &windows {
            let mut count = 0;
            let mut total = 0;
            for &row in window {
                let (id, row) = &rows[row];
                ids.values().append_slice(&row.ids);
                labels.values().append_slice(&row.labels);
                lengths.values().append_value(i32::try_from(row.ids.len()).unwrap_or(i32::MAX));
                row_ids.values().append_value(*id);
                count += row.labels.iter().filter(|&&label| label != IGNORE).count();
                total += row.ids.len();
            }
            ids.append(true);
            labels.append(true);
            lengths.append(true);
            row_ids.append(true);
            scored.push(i32::try_from(count).unwrap_or(i32::MAX));
            self.report.window(total, count);
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(ids.finish()),
            Arc::new(labels.finish()),
            Arc::new(lengths.finish()),
            Arc::new(row_ids.finish()),
            Arc::new(Int32Array::from(scored)),
        ];
        let schema: Arc<Schema> = self.writer.schema().clone();
        let batch = RecordBatch::try_new(schema, columns).map_err(|e| arrow(&self.path, &e))?;
        self.writer.write(&batch).map_err(|e| arrow(&self.path, &e))
    }

    fn finish(mut self) -> Result<Report> {
        self.writer.finish().map_err(|e| arrow(&self.path, &e))?;
        self.report.close(self.preparer.options.max_length);
        Ok(self.report)
    }
}

fn arrow(path: &Path, error: &arrow_schema::ArrowError) -> Error {
    Error::new(Kind::Resource, "cannot write the prepared set")
        .at(path.display().to_string())
        .because(error)
        .fix("check that the folder is writable and the disk has room")
}
