//! Files of every kind, as rows in order, each with its place. Nothing is held but the rows being read.
//!
//! [`open`] tells a file's kind by its content, then by its name. [`lines`], [`array`], [`csv`] and [`tar`] read text
//! of any origin, compressed or from a pipe; [`arrow`] and [`parquet`] give batches that [`columnar`] turns into rows.

mod array;
mod arrow;
pub mod columnar;
mod csv;
mod fingerprint;
pub mod json;
mod lines;
mod open;
mod pages;
mod parquet;
mod tar;
#[cfg(test)]
mod tests;

pub use fingerprint::cache_folder;
pub use open::open;

use crate::error::{Error, Kind, Result};
use arrow_array::RecordBatch;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// The longest row that is read unless the caller says otherwise; a longer one is a bad row.
pub const MAX_ROW_BYTES: usize = 64 << 20;

/// What the error of a stream that breaks off says.
pub const DAMAGED: &str = "the file is damaged";

/// Where rows come from.
#[derive(Clone)]
pub enum Source {
    /// A file of any kind, or a folder that `datasets` saved.
    File(PathBuf),
    /// Lines that the caller holds, with a name to report them by.
    Memory(String, Vec<Vec<u8>>),
    /// Batches of columns that the caller holds, with a name to report them by.
    Table(String, Vec<RecordBatch>),
}

/// What a row is before anybody looks at it.
#[derive(Debug)]
pub enum Content {
    /// JSON that is not parsed yet: worker threads do that.
    Json(Vec<u8>),
    /// A row of a batch of columns: worker threads look into those.
    Cell(columnar::Cell),
    /// Fields.
    Row(Map<String, Value>),
}

impl Content {
    /// The row.
    ///
    /// # Errors
    /// As [`json::parse`].
    pub fn row(self) -> Result<Map<String, Value>> {
        match self {
            Self::Json(bytes) => json::parse(&bytes),
            Self::Cell(cell) => cell.fields(),
            Self::Row(row) => Ok(row),
        }
    }

    /// The row as one line of JSON.
    ///
    /// # Errors
    /// As [`Content::row`].
    pub fn json(self) -> Result<Vec<u8>> {
        match self {
            Self::Json(bytes) if !bytes.contains(&b'\n') => Ok(bytes),
            other => serde_json::to_vec(&json::Exact(&Value::Object(other.row()?)))
                .map_err(|e| Error::data("the row cannot be written as JSON").because(e)),
        }
    }

    /// Roughly the memory that it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Json(bytes) => bytes.len(),
            Self::Cell(cell) => cell.size(),
            Self::Row(row) => row.iter().map(|(key, value)| key.len() + json::size(value)).sum(),
        }
    }
}

/// One row and where it stands.
#[derive(Debug)]
pub struct Line {
    /// The row, or why it could not be read.
    pub content: Result<Content>,
    /// `file:line`; `file:row` where there are no lines; `file:line:column` when an element of an array is not the
    /// first on its line.
    pub location: String,
    /// The line or row, counted from 1.
    pub number: u64,
}

impl Line {
    fn new(name: &str, number: u64, content: Result<Content>) -> Self {
        let location = format!("{name}:{number}");
        Self { content: content.map_err(|error| error.at(location.clone())), location, number }
    }
}

/// Rows one at a time.
pub type Rows<'a> = Box<dyn Iterator<Item = Line> + Send + 'a>;

/// Whether what follows such an error is lost, so that it is no row to skip.
#[must_use]
pub fn is_fatal(error: &Error) -> bool {
    error.what == DAMAGED || error.kind == Kind::Resource
}

impl Source {
    /// The name that reports use.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Memory(name, _) | Self::Table(name, _) => name.clone(),
        }
    }

    /// A hash of the content, and of the name's ending where it decides how the content is read. Hashes of files are
    /// remembered in [`cache_folder`].
    ///
    /// # Errors
    /// The file cannot be read, or it is a pipe.
    pub fn fingerprint(&self) -> Result<u128> {
        match self {
            Self::Memory(_, lines) => {
                let mut hasher = xxhash_rust::xxh3::Xxh3::new();
                for line in lines {
                    hasher.update(line);
                    hasher.update(b"\n");
                }
                Ok(hasher.digest128())
            }
            Self::Table(_, batches) => fingerprint::of_batches(batches),
            Self::File(path) => {
                let content = fingerprint::of_path(path, cache_folder().as_deref())?;
                Ok(match open::ending(path) {
                    Some(ending) => xxhash_rust::xxh3::xxh3_128(format!("{ending} {content:032x}").as_bytes()),
                    None => content,
                })
            }
        }
    }

    /// The rows; lines with nothing but white space are none.
    ///
    /// After an error for which [`is_fatal`] holds nothing follows.
    ///
    /// # Errors
    /// The file cannot be opened, or it is of a kind that is not read.
    pub fn lines(&self, max_row_bytes: usize) -> Result<Rows<'_>> {
        match self {
            Self::Memory(name, lines) => Ok(Box::new(lines.iter().enumerate().map(move |(index, line)| {
                let content = if line.len() > max_row_bytes {
                    Err(too_long(max_row_bytes))
                } else {
                    Ok(Content::Json(line.clone()))
                };
                Line::new(name, index as u64 + 1, content)
            }))),
            Self::Table(name, batches) => {
                let batches = batches.clone().into_iter().map(Ok);
                Ok(columnar::rows(Box::new(batches), name.clone(), max_row_bytes))
            }
            Self::File(path) => open::open(path, max_row_bytes),
        }
    }
}

fn too_long(max_row_bytes: usize) -> Error {
    Error::data(format!("the row is longer than {max_row_bytes} bytes")).fix("split it, or raise max_row_bytes")
}

fn damaged(why: impl ToString) -> Error {
    Error::data(DAMAGED).because(why).fix("get the file again")
}
