//! CSV and TSV with a header row. Cells are text: nobody can know whether `007` was meant as a number.

use super::open::{Input, broken};
use super::{Content, Line, Rows, damaged};
use crate::error::{Error, Kind, Result};
use csv::{ByteRecord, Reader, ReaderBuilder};
use serde_json::{Map, Value};
use std::io::{self, Read};

/// Lets no record take more than so many bytes: after a quote that is never closed, the rest of the file is one record.
struct Bounded {
    inner: Input,
    left: usize,
}

const TOO_LONG: &str = "a record is longer than max_row_bytes";

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other(TOO_LONG));
        }
        let count = buffer.len().min(self.left);
        let count = self.inner.read(&mut buffer[..count])?;
        self.left -= count;
        Ok(count)
    }
}

struct Records {
    reader: Reader<Bounded>,
    headers: Vec<String>,
    record: ByteRecord,
    name: String,
    max_row_bytes: usize,
    done: bool,
}

/// Bytes that the CSV parser reads ahead.
const AHEAD: usize = 1 << 16;

pub(super) fn open(reader: Input, name: String, delimiter: u8, max_row_bytes: usize) -> Result<Rows<'static>> {
    let bounded = Bounded { inner: reader, left: max_row_bytes.saturating_add(AHEAD) };
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .has_headers(true)
        .buffer_capacity(AHEAD)
        .from_reader(bounded);
    let at = format!("{name}:1");
    let found = reader.byte_headers().map_err(|error| failure(error).at(&at))?.clone();
    let mut headers: Vec<String> = Vec::with_capacity(found.len());
    for header in &found {
        let header = std::str::from_utf8(header)
            .map_err(|e| Error::data("the header row is not UTF-8").at(&at).because(e).fix("save the file as UTF-8"))?;
        if headers.iter().any(|other| other == header) {
            return Err(Error::data(format!("two columns are named {header:?}")).at(&at).fix("rename one"));
        }
        headers.push(header.to_owned());
    }
    Ok(Box::new(Records { reader, headers, record: ByteRecord::new(), name, max_row_bytes, done: false }))
}

fn failure(error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) if error.to_string() == TOO_LONG => {
            Error::new(Kind::Resource, TOO_LONG).fix("look for a quote that is not closed, or raise max_row_bytes")
        }
        csv::ErrorKind::Io(error) => broken(&error),
        other => damaged(format!("{other:?}")),
    }
}

impl Records {
    fn row(&self) -> Result<Content> {
        if self.record.len() != self.headers.len() {
            let (found, expected) = (self.record.len(), self.headers.len());
            return Err(Error::data(format!("the row has {found} columns, the header has {expected}"))
                .fix("quote values that hold the delimiter"));
        }
        let mut row = Map::with_capacity(self.headers.len());
        for (header, cell) in self.headers.iter().zip(&self.record) {
            let cell = std::str::from_utf8(cell)
                .map_err(|e| Error::data("the row is not UTF-8").because(e).fix("save the file as UTF-8"))?;
            row.insert(header.clone(), Value::String(cell.to_owned()));
        }
        Ok(Content::Row(row))
    }
}

impl Iterator for Records {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        if self.done {
            return None;
        }
        self.reader.get_mut().left = self.max_row_bytes.saturating_add(AHEAD);
        let start = self.reader.position().line();
        let read = self.reader.read_byte_record(&mut self.record);
        // Where the record starts, not where the one before ends.
        let line = self.record.position().map_or(start, csv::Position::line);
        match read {
            Ok(true) => Some(Line::new(&self.name, line, self.row())),
            Ok(false) => None,
            Err(error) => {
                self.done = true;
                Some(Line::new(&self.name, start, Err(failure(error))))
            }
        }
    }
}
