//! Arrow IPC files and streams, and the folders of them that `datasets` saves.
//!
//! A file is a stream between two marks, so both are read as a stream, without seeking or mapping: a mapped file that
//! shrinks kills the process. Every length is checked before memory is taken for it.

use super::columnar::{self, Batches, guarded};
use super::open::{Input, broken, file};
use super::{Rows, damaged};
use crate::error::{Error, Kind, Result};
use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::{MessageHeader, root_as_message};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

pub(super) const MAGIC: &[u8] = b"ARROW1\0\0";
/// Stands before the length of each message.
pub(super) const CONTINUATION: [u8; 4] = [0xff; 4];

/// The longest description of a batch.
const MAX_HEADER: u32 = 64 << 20;
/// The largest batch, compressed or not.
const MAX_BATCH: i64 = 512 << 20;

struct Messages {
    reader: Input,
    decoder: StreamDecoder,
    /// What the decoder has not taken yet: it gives a batch without bytes only when more come.
    buffer: Buffer,
    done: bool,
}

/// The rows of a stream whose first bytes are [`MAGIC`] or [`CONTINUATION`].
pub(super) fn open(reader: Input, name: String, max_row_bytes: usize) -> Result<Rows<'static>> {
    Ok(columnar::rows(batches(reader).map_err(|error| error.at(name.clone()))?, name, max_row_bytes))
}

fn batches(mut reader: Input) -> Result<Batches> {
    let head = reader.fill_buf().map_err(|error| broken(&error))?;
    if head.starts_with(MAGIC) {
        reader.consume(MAGIC.len());
    }
    Ok(Box::new(Messages { reader, decoder: StreamDecoder::new(), buffer: Buffer::default(), done: false }))
}

impl Messages {
    /// Append so many bytes, which were found to be few enough to take memory for.
    fn append(&mut self, message: &mut Vec<u8>, count: usize) -> Result<()> {
        message.try_reserve_exact(count).map_err(damaged)?;
        let read = (&mut self.reader).take(count as u64).read_to_end(message).map_err(|error| broken(&error))?;
        if read < count { Err(damaged("it ends before its end mark")) } else { Ok(()) }
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        let mut message = Vec::new();
        self.append(&mut message, 8)?;
        if message[..4] != CONTINUATION {
            return Err(damaged("a message has no mark before it"));
        }
        let length = u32::from_le_bytes([message[4], message[5], message[6], message[7]]);
        if length == 0 {
            self.done = true;
            return Ok(message);
        }
        if length > MAX_HEADER {
            return Err(damaged(format!("a message's header has {length} bytes")));
        }
        self.append(&mut message, length as usize)?;
        let end = message.len();
        let body = checked_body(&message[8..])?;
        self.append(&mut message, body)?;
        check_compressed(&message[8..end], &message[end..])?;
        Ok(message)
    }

    fn batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            while !self.buffer.is_empty() {
                let found = guarded(|| self.decoder.decode(&mut self.buffer).map_err(damaged))?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            if self.done {
                return Ok(None);
            }
            self.buffer = self.message()?.into();
        }
    }
}

/// The length of what follows a message's header.
fn checked_body(header: &[u8]) -> Result<usize> {
    let message = root_as_message(header).map_err(|error| damaged(format!("{error:?}")))?;
    let length = message.bodyLength();
    if length > MAX_BATCH {
        return Err(too_large(length));
    }
    let rows = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch().map(|batch| batch.length()),
        MessageHeader::DictionaryBatch => {
            message.header_as_dictionary_batch().and_then(|batch| batch.data()).map(|batch| batch.length())
        }
        _ => None,
    };
    // Columns of nothing have rows without bytes; more than this is a damaged number.
    if rows.is_some_and(|rows| !(0..=MAX_BATCH).contains(&rows)) {
        return Err(damaged("a batch has an absurd number of rows"));
    }
    usize::try_from(length).map_err(|_| damaged("a batch has a negative length"))
}

/// Compressed columns say how long they become.
fn check_compressed(header: &[u8], body: &[u8]) -> Result<()> {
    let message = root_as_message(header).map_err(|error| damaged(format!("{error:?}")))?;
    let dictionary = message.header_as_dictionary_batch().and_then(|batch| batch.data());
    let Some(batch) = message.header_as_record_batch().or(dictionary) else { return Ok(()) };
    let (Some(_), Some(buffers)) = (batch.compression(), batch.buffers()) else { return Ok(()) };
    let mut total = 0_i64;
    for buffer in buffers {
        if buffer.length() < 8 {
            continue;
        }
        let start = usize::try_from(buffer.offset()).unwrap_or(usize::MAX);
        let found = body.get(start..).and_then(|rest| rest.first_chunk::<8>());
        let length = i64::from_le_bytes(*found.ok_or_else(|| damaged("a column lies outside of its batch"))?);
        // -1 marks a column that is left as it is.
        total = total.saturating_add(if length == -1 { buffer.length() } else { length.max(0) });
    }
    if total > MAX_BATCH { Err(too_large(total)) } else { Ok(()) }
}

fn too_large(length: i64) -> Error {
    Error::new(Kind::Resource, "a batch is larger than 512 MiB")
        .because(format!("it has {length} bytes"))
        .fix("write it in smaller batches, such as max_chunksize=1000, or as Parquet")
}

impl Iterator for Messages {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batch().transpose()
    }
}

/// The rows of a folder that `Dataset.save_to_disk` wrote, in order.
pub(super) fn saved(folder: &Path, max_row_bytes: usize) -> Result<Rows<'static>> {
    let name = folder.display().to_string();
    let parts = saved_files(folder)?;
    let mut parts = parts.into_iter();
    let mut open: Option<Batches> = None;
    let mut next = move || -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batches) = &mut open
                && let Some(batch) = batches.next().transpose()?
            {
                return Ok(Some(batch));
            }
            let Some(part) = parts.next() else { return Ok(None) };
            // What the other files hold would be lost, so a missing one is damage.
            let opened = file(&part).map_err(|error| damaged(&error))?;
            let reader = Box::new(BufReader::with_capacity(1 << 18, opened));
            open = Some(batches(reader)?);
        }
    };
    Ok(columnar::rows(Box::new(std::iter::from_fn(move || next().transpose())), name, max_row_bytes))
}

/// The files of such a folder in order.
pub(super) fn saved_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let name = || folder.display().to_string();
    let state = folder.join("state.json");
    let Ok(text) = std::fs::read(&state) else {
        return Err(Error::data("the data path is a folder").at(name()).fix("name files or globs"));
    };
    let bad = |why: &str| Error::data("the saved data set cannot be read").at(state.display().to_string()).because(why);
    let state = super::json::parse(&text).map_err(|error| bad(&error.what).fix("save the data set again"))?;
    for key in ["_indices_files", "_indices_data_files"] {
        if state.get(key).and_then(|files| files.as_array()).is_some_and(|files| !files.is_empty()) {
            return Err(
                bad("its rows are chosen by a file of indices").fix("call flatten_indices() before you save it")
            );
        }
    }
    let files = state.get("_data_files").and_then(|files| files.as_array());
    let files = files.ok_or_else(|| bad("it names no data files").fix("save the data set again"))?;
    let path = |file: &serde_json::Value| {
        let name = file.get("filename").and_then(|name| name.as_str()).unwrap_or_default();
        let is_plain = !name.is_empty() && Path::new(name).file_name().is_some_and(|plain| plain == name);
        is_plain.then(|| folder.join(name))
    };
    let files: Option<Vec<PathBuf>> = files.iter().map(path).collect();
    files.ok_or_else(|| bad("it names a file outside of the folder").fix("save the data set again"))
}
