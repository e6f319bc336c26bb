//! The sizes of a Parquet column's pages, read from their headers before a decoder takes memory for them.
//!
//! Headers are Thrift structs in the compact protocol. Source: parquet.thrift, thrift-compact-protocol.md.

use super::damaged;
use crate::error::Result;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

/// Headers are some 50 bytes, and statistics may make them longer.
const MAX_BYTES: u64 = 1 << 24;
/// Rows of nothing but nulls take no bytes, yet a decoder counts them.
const MAX_VALUES: u64 = 1 << 26;
const MAX_DEPTH: usize = 16;

/// What the pages of one column of a row group need.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Pages {
    /// Bytes of the largest one.
    pub(super) largest: u64,
    /// Bytes of the dictionary, any entry of which may be each value.
    pub(super) dictionary: u64,
    /// Bytes of a value, on the average of the page where that is most.
    pub(super) value: f64,
}

/// Look at every header of a column that takes these bytes of the file.
pub(super) fn measure(file: &File, start: u64, length: u64) -> Result<Pages> {
    let mut reader = BufReader::with_capacity(256, file);
    reader.seek(SeekFrom::Start(start)).map_err(damaged)?;
    let mut found = Pages::default();
    let mut left = length;
    while left > 0 {
        let mut header = Header { reader: (&mut reader).take(left.min(MAX_BYTES)), page: [None; 3], values: 0 };
        header.fields(0, None)?;
        let used = left.min(MAX_BYTES) - header.reader.limit();
        let [Some(kind), Some(size), Some(compressed)] = header.page else {
            return Err(damaged("a page has no size"));
        };
        let values = header.values;
        let (Ok(size), Ok(compressed)) = (u64::try_from(size), u64::try_from(compressed)) else {
            return Err(damaged("a page has a negative size"));
        };
        if compressed > left - used || values > MAX_VALUES {
            return Err(damaged("a page is larger than its column"));
        }
        left -= used + compressed;
        found.largest = found.largest.max(size);
        if kind == 2 {
            found.dictionary = found.dictionary.max(size);
        } else if values > 0 {
            #[allow(clippy::cast_precision_loss)]
            let value = size as f64 / values as f64;
            found.value = found.value.max(value);
        }
        reader.seek_relative(i64::try_from(compressed).unwrap_or(i64::MAX)).map_err(damaged)?;
    }
    Ok(found)
}

struct Header<R> {
    reader: R,
    /// Type, size, compressed size.
    page: [Option<i64>; 3],
    values: u64,
}

impl<R: Read> Header<R> {
    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte).map_err(damaged)?;
        Ok(byte[0])
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(damaged("a page header's number is too long"))
    }

    fn integer(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    fn skip(&mut self, count: u64) -> Result<()> {
        let skipped = std::io::copy(&mut (&mut self.reader).take(count), &mut std::io::sink()).map_err(damaged)?;
        if skipped < count { Err(damaged("a page header is cut")) } else { Ok(()) }
    }

    /// The fields of a struct: the header's own, or those of its part `within`.
    fn fields(&mut self, depth: usize, within: Option<i64>) -> Result<()> {
        let mut field = 0_i64;
        loop {
            let byte = self.byte()?;
            if byte == 0 {
                return Ok(());
            }
            let kind = byte & 0x0f;
            field = match byte >> 4 {
                0 => self.integer()?,
                delta => field.saturating_add(delta.into()),
            };
            match (within, field, kind) {
                (None, 1..=3, 5) => {
                    let value = self.integer()?;
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                    self.page[field as usize - 1].replace(value);
                }
                // The number of values comes first in the headers of all kinds of pages.
                (Some(5 | 7 | 8), 1, 5) if depth == 1 => {
                    self.values = u64::try_from(self.integer()?).map_err(|_| damaged("a page has negative values"))?;
                }
                // A bool as a field lies in its kind.
                (_, _, 1 | 2) => {}
                _ => self.value(kind, depth, field)?,
            }
        }
    }

    fn value(&mut self, kind: u8, depth: usize, field: i64) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(damaged("a page header is nested too deep"));
        }
        match kind {
            1..=3 => self.skip(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.skip(8),
            8 => {
                let length = self.varint()?;
                self.skip(length)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
                (0..count).try_for_each(|_| self.value(byte & 0x0f, depth + 1, 0))
            }
            11 => {
                let count = self.varint()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                (0..count).try_for_each(|_| {
                    self.value(kinds >> 4, depth + 1, 0)?;
                    self.value(kinds & 0x0f, depth + 1, 0)
                })
            }
            12 => self.fields(depth + 1, Some(field)),
            _ => Err(damaged("a page header holds an unknown type")),
        }
    }
}
