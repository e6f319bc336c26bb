//! The formats of instruction, chat and feedback data: a row to the records that it holds.
//!
//! A format is a family of data sets with the same columns, and which column goes by which of the family's names. It is
//! named, or told from the first rows. docs/cli.md lists the families.

mod chats;
mod detect;
mod families;
mod hh;
mod pairs;
mod rankings;
mod row;
mod steps;
mod told;
mod turns;
pub mod write;

pub use families::names;
use families::{FAMILIES, Family};
use row::Row;

use crate::conversation::distance;
use crate::error::{Error, Kind, Result};
use crate::record::{Record, Text};
use crate::source::columnar;
use crate::source::json::is_nan;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// By the name that a format knows a column by, the column's own name.
pub type Columns = BTreeMap<String, String>;

/// Columns of what a text model does not see, and what the texts beside it are about.
const MEDIA: [&str; 6] = ["image", "images", "audio", "audios", "video", "videos"];

/// How rows become records.
#[derive(Debug, Clone)]
pub struct Format {
    family: &'static Family,
    columns: Columns,
    unused: Vec<String>,
    /// Whether it was told from rows, and not named.
    is_told: bool,
}

impl Format {
    /// The family of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn parse(name: &str) -> Result<Self> {
        let wanted = name.to_lowercase().replace(['_', ' '], "-");
        if let Some(family) = FAMILIES.iter().find(|family| family.name == wanted || family.aliases.contains(&&*wanted))
        {
            return Ok(Self::of(family));
        }
        let all: Vec<&str> = names().collect();
        let near =
            all.iter().min_by_key(|known| distance(known, &wanted)).filter(|known| distance(known, &wanted) <= 3);
        let near = near.map(|near| format!("did you mean {near:?}? ")).unwrap_or_default();
        Err(Error::new(Kind::Usage, format!("there is no format {name:?}"))
            .fix(format!("{near}formats are {}", all.join(", "))))
    }

    /// The format of these rows: the one named, or told from the rows, with columns that go by other names.
    ///
    /// # Errors
    /// There is no such format, it has no such columns, or no family wins.
    pub fn choose(rows: &[Map<String, Value>], name: Option<&str>, columns: &Columns) -> Result<Self> {
        match name {
            None => Self::detect_with(rows, columns),
            Some(name) => {
                detect::have(rows, columns.values())?;
                Ok(Self::parse(name)?.with_columns(columns)?.seen(rows))
            }
        }
    }

    /// The format told from rows; see [`Format::detect_with`].
    ///
    /// # Errors
    /// No family wins.
    pub fn detect(rows: &[Map<String, Value>]) -> Result<Self> {
        Self::detect_with(rows, &Columns::new())
    }

    /// The same, reading other columns under the names that the family knows.
    ///
    /// # Errors
    /// The family has no column of such a name.
    pub fn with_columns(mut self, columns: &Columns) -> Result<Self> {
        for name in columns.keys() {
            if !self.family.columns().any(|known| known == name) {
                let known: Vec<&str> = self.family.columns().collect();
                return Err(Error::new(Kind::Usage, format!("format {} has no column {name:?}", self.family.name))
                    .at("columns")
                    .fix(format!("its columns are {}", known.join(", "))));
            }
        }
        self.columns = columns.clone();
        Ok(self)
    }

    /// Two columns of these rows by name, each text or messages.
    ///
    /// # Errors
    /// No row has one of them.
    pub fn columns(rows: &[Map<String, Value>], prompt: &str, completion: &str) -> Result<Self> {
        let columns = [("prompt", prompt), ("completion", completion)];
        let columns: Columns = columns.into_iter().map(|(name, column)| (name.into(), column.into())).collect();
        detect::have(rows, columns.values())?;
        let columns = columns.into_iter().filter(|(name, column)| name != column).collect();
        Ok(Self { columns, ..Self::of(&families::PROMPT_COMPLETION) }.seen(rows))
    }

    /// The name that reports use, with the columns that go by other names.
    #[must_use]
    pub fn name(&self) -> String {
        if self.columns.is_empty() {
            return self.family.name.into();
        }
        let columns: Vec<String> = self.columns.iter().map(|(name, column)| format!("{name}={column}")).collect();
        // Reports part formats by commas.
        format!("{} ({})", self.family.name, columns.join(" "))
    }

    /// What its rows hold, as [`Record::kind`] names it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.family.kind
    }

    /// Columns of the rows that it was told from which it does not read, sorted.
    #[must_use]
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Columns of a row that it does not read.
    pub fn unused_in<'a>(&'a self, row: &'a Map<String, Value>) -> impl Iterator<Item = &'a str> {
        let used = self.family.used(&self.view(row));
        row.iter()
            .filter(move |(name, value)| !value.is_null() && !used.contains(&name.as_str()))
            .map(|(name, _)| &**name)
    }

    /// What one row holds; mostly one record.
    ///
    /// # Errors
    /// A column is missing, or holds something else than this format asks for; or the row comes with images or sound.
    pub fn read(&self, row: &Map<String, Value>) -> Result<Vec<Record>> {
        for name in MEDIA {
            let is_there =
                row.get(name).is_some_and(|value| !matches!(value, Value::Null) && !is_empty(value) && !is_nan(value));
            if is_there && !self.columns.values().any(|column| column == name) {
                return Err(Error::data(format!("the row has something in column {name:?}, and only text is read"))
                    .fix("leave such rows out, or take the column away where the text is enough"));
            }
        }
        let view = self.view(row);
        self.check_columns(&view)?;
        (self.family.read)(&view)
    }

    /// A row that cannot be read whatever else it holds: NaN in a column that is read, or feedback which this format does not
    /// read, where a bad reply would be trained on as a good one.
    fn check_columns(&self, row: &Row<'_>) -> Result<()> {
        let used = self.family.used(row);
        if let Some(column) = used.iter().find(|column| row.row.get(**column).is_some_and(is_nan)) {
            return Err(columnar::nan(column));
        }
        if used.len() == row.row.len() {
            return Ok(());
        }
        let is_feedback = |family: &&&Family| !matches!(family.kind, "conversation" | "text");
        let other = FAMILIES.iter().filter(is_feedback).find(|family| {
            self.is_told && family.kind != self.family.kind && family.holds(row) && family.used(row).len() > used.len()
        });
        let Some(other) = other else { return Ok(()) };
        let unread: Vec<&str> = other.used(row).into_iter().filter(|column| !used.contains(column)).collect();
        let (what, own) = (unread.join(" and "), self.family.name);
        Err(Error::data(format!("the row has {what}, as {} data have, among {own} data", other.kind))
            .because(format!("the first rows told format {own}, which does not read that"))
            .fix("keep such rows in a file of their own, or name the format"))
    }

    /// Prompts and completions of one row as raw text, for training without a chat template.
    ///
    /// # Errors
    /// As [`Format::read`]; and conversations, which need a template.
    pub fn read_raw(&self, row: &Map<String, Value>) -> Result<Vec<Text>> {
        let raw = |record| match record {
            Record::Text(text) => Ok(text),
            Record::Conversation(talk) => talk.raw().ok_or_else(|| {
                Error::data("messages need a chat template")
                    .fix("leave apply_chat_template on, or give prompt and completion columns of text")
            }),
            other => Err(Error::data(format!("a row holds {}, not text", other.kind()))),
        };
        self.read(row)?.into_iter().map(raw).collect()
    }

    fn of(family: &'static Family) -> Self {
        Self { family, columns: Columns::new(), unused: Vec::new(), is_told: false }
    }

    /// With the columns of these rows that it does not read.
    fn seen(mut self, rows: &[Map<String, Value>]) -> Self {
        let mut unused: Vec<String> = rows.iter().flat_map(|row| self.unused_in(row)).map(str::to_owned).collect();
        unused.sort_unstable();
        unused.dedup();
        self.unused = unused;
        self
    }

    fn view<'a>(&'a self, row: &'a Map<String, Value>) -> Row<'a> {
        Row { row, columns: &self.columns }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
