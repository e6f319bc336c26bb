//! CSV and TSV with a header row. Cells are text: nobody can know whether `007` was meant as a number.
//!
//! Read as RFC 4180 says; a quote inside of an unquoted cell and text behind a closing quote are kept as they stand.

use super::open::{Input, broken};
use super::{Content, Line, Rows, damaged, too_long};
use crate::error::{Error, Result};
use serde_json::{Map, Value};

struct Records {
    reader: Input,
    delimiter: u8,
    headers: Vec<String>,
    name: String,
    max_row_bytes: usize,
    /// The line of the next byte.
    line: u64,
    /// The line of the record.
    start: u64,
    done: bool,
}

/// One record.
struct Record {
    cells: Vec<Vec<u8>>,
    is_too_long: bool,
}

/// Where the parser stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before a record.
    Start,
    /// Before a cell of a record.
    Cell,
    Plain,
    Quoted,
    /// Behind a quote that may close the cell or stand before another.
    Quote,
}

pub(super) fn open(reader: Input, name: String, delimiter: u8, max_row_bytes: usize) -> Result<Rows<'static>> {
    let mut records =
        Records { reader, delimiter, headers: Vec::new(), name, max_row_bytes, line: 1, start: 1, done: false };
    let at = format!("{}:1", records.name);
    let header = records.record().map_err(|error| error.at(&at))?;
    let Some(header) = header else { return Ok(Box::new(std::iter::empty())) };
    if header.is_too_long {
        return Err(too_long(max_row_bytes).at(at));
    }
    if header.cells.iter().any(|cell| cell.contains(&b'\r')) {
        return Err(Error::data("the lines end with CR alone")
            .at(at)
            .fix("save the file with LF at the ends of lines"));
    }
    if let [only] = header.cells.as_slice()
        && let Some(other) = [b';', b'\t', b','].into_iter().find(|byte| *byte != delimiter && only.contains(byte))
    {
        let (is, other) = (char::from(delimiter), char::from(other));
        return Err(Error::data(format!("the columns are parted by {other:?}, not by {is:?}"))
            .at(at)
            .because(format!("the header is {:?}", String::from_utf8_lossy(only)))
            .fix("save it with commas as .csv, or with tabs as .tsv"));
    }
    for cell in header.cells {
        let cell = String::from_utf8(cell)
            .map_err(|e| Error::data("the header row is not UTF-8").at(&at).because(e).fix("save the file as UTF-8"))?;
        if records.headers.contains(&cell) {
            return Err(Error::data(format!("two columns are named {cell:?}")).at(&at).fix("rename one"));
        }
        records.headers.push(cell);
    }
    Ok(Box::new(records))
}

impl Records {
    /// The next record; lines without anything are none.
    fn record(&mut self) -> Result<Option<Record>> {
        let mut record = Record { cells: Vec::new(), is_too_long: false };
        self.start = self.line;
        let (mut at, mut cell, mut length) = (At::Start, Vec::new(), 0);
        loop {
            let buffer = self.reader.fill_buf().map_err(|error| broken(&error))?;
            if buffer.is_empty() {
                match at {
                    At::Start => return Ok(None),
                    At::Quoted => return Err(damaged("a quote is not closed")),
                    _ => record.cells.push(cell),
                }
                return Ok(Some(record));
            }
            let mut used = 0;
            let mut is_done = false;
            for &byte in buffer {
                used += 1;
                let is_end = byte == b'\n' && at != At::Quoted;
                self.line += u64::from(byte == b'\n');
                if is_end {
                    if at == At::Start {
                        self.start = self.line;
                        continue;
                    }
                    // The line ends with CR LF.
                    if at != At::Quote && cell.last() == Some(&b'\r') {
                        cell.pop();
                    }
                    is_done = true;
                    break;
                }
                if byte == b'\r' && matches!(at, At::Start | At::Quote) {
                    continue;
                }
                if byte == self.delimiter && at != At::Quoted {
                    record.cells.push(std::mem::take(&mut cell));
                    at = At::Cell;
                    continue;
                }
                at = match (at, byte) {
                    (At::Start | At::Cell, b'"') => {
                        at = At::Quoted;
                        continue;
                    }
                    (At::Quoted, b'"') => {
                        at = At::Quote;
                        continue;
                    }
                    (At::Quote, b'"') | (At::Quoted, _) => At::Quoted,
                    _ => At::Plain,
                };
                length += 1;
                if length <= self.max_row_bytes {
                    cell.push(byte);
                } else {
                    record.is_too_long = true;
                }
            }
            self.reader.consume(used);
            if is_done {
                record.cells.push(cell);
                return Ok(Some(record));
            }
        }
    }

    fn row(&self, record: Record) -> Result<Content> {
        if record.is_too_long {
            return Err(too_long(self.max_row_bytes));
        }
        if record.cells.len() != self.headers.len() {
            let (found, expected) = (record.cells.len(), self.headers.len());
            return Err(Error::data(format!("the row has {found} columns, the header has {expected}"))
                .fix("quote values that hold the delimiter"));
        }
        let mut row = Map::with_capacity(self.headers.len());
        for (header, cell) in self.headers.iter().zip(record.cells) {
            let cell = String::from_utf8(cell)
                .map_err(|e| Error::data("the row is not UTF-8").because(e).fix("save the file as UTF-8"))?;
            row.insert(header.clone(), Value::String(cell));
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
        match self.record() {
            Ok(Some(record)) => Some(Line::new(&self.name, self.start, self.row(record))),
            Ok(None) => None,
            Err(error) => {
                self.done = true;
                Some(Line::new(&self.name, self.start, Err(error)))
            }
        }
    }
}
