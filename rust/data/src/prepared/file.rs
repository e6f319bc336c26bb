//! The Arrow files of a prepared set: one record batch a block, a new file when one has grown large.

use super::schema::{FINGERPRINT, schema};
use crate::error::{Error, Kind, Result};
use crate::hashing::{self, Hashed};
use crate::mapped;
use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::root_as_footer;
use arrow_ipc::writer::FileWriter;
use arrow_schema::Schema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file of a prepared set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name in the folder.
    pub file: String,
    /// What its schema calls the set that it was written for.
    pub fingerprint: String,
    /// Its windows.
    pub windows: u64,
    /// A hash of its bytes.
    pub xxh3: String,
    /// The block of rows that each of its record batches was made of.
    pub blocks: Vec<u64>,
}

/// The name of a part.
pub(crate) fn part_name(index: usize) -> String {
    format!("data-{index:05}.arrow")
}

/// Writes one part.
pub(crate) struct PartWriter {
    writer: FileWriter<BufWriter<Hashed<File>>>,
    path: PathBuf,
    part: Part,
}

impl PartWriter {
    /// A new file in a folder; the fingerprint stands in its schema.
    pub(crate) fn new(folder: &Path, name: String, fingerprint: &str) -> Result<Self> {
        let path = folder.join(&name);
        let schema = schema().with_metadata(HashMap::from([(FINGERPRINT.to_owned(), fingerprint.to_owned())]));
        let file = File::create(&path).map_err(|e| Error::io("cannot write the prepared set", &path, &e))?;
        let writer = FileWriter::try_new_buffered(Hashed::new(file), &schema).map_err(|e| cannot_write(&path, &e))?;
        Ok(Self { writer, path, part: Part { file: name, fingerprint: fingerprint.into(), ..Part::default() } })
    }

    /// Append one block.
    pub(crate) fn write(&mut self, block: u64, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(|e| cannot_write(&self.path, &e))?;
        self.part.windows += batch.num_rows() as u64;
        self.part.blocks.push(block);
        Ok(())
    }

    /// Close the file; it is on the disk when this returns.
    pub(crate) fn finish(mut self) -> Result<Part> {
        let failed = |e: &std::io::Error| Error::io("cannot write the prepared set", &self.path, e);
        let buffered = self.writer.into_inner().map_err(|e| cannot_write(&self.path, &e))?;
        let hashed = buffered.into_inner().map_err(|e| failed(e.error()))?;
        hashed.inner.sync_all().map_err(|e| failed(&e))?;
        self.part.xxh3 = format!("{:032x}", hashed.digest());
        Ok(self.part)
    }
}

fn cannot_write(path: &Path, error: &arrow_schema::ArrowError) -> Error {
    Error::new(Kind::Resource, "cannot write the prepared set")
        .at(path.display().to_string())
        .because(error)
        .fix("check that the folder is writable and the disk has room")
}

/// The record batches of a part; their memory is the mapped file's.
pub(crate) fn read(folder: &Path, part: &Part) -> Result<Vec<RecordBatch>> {
    let path = folder.join(&part.file);
    let bad = |why: &dyn std::fmt::Display| {
        Error::data("the prepared set is damaged")
            .at(path.display().to_string())
            .because(why)
            .fix("delete the folder and prepare again")
    };
    if Path::new(&part.file).file_name() != Some(part.file.as_ref()) || !path.is_file() {
        return Err(bad(&"the file is missing"));
    }
    // Pages of a map would count as this process's memory.
    let found = File::open(&path).and_then(|mut file| hashing::of_reader(&mut file));
    let found = found.map_err(|e| Error::io("cannot read the prepared set", &path, &e))?;
    if format!("{found:032x}") != part.xxh3 {
        return Err(bad(&"its bytes are not those that were written"));
    }
    let map = mapped::map(&path)?;
    let (found, batches) = decode(&Buffer::from(bytes::Bytes::from_owner(map.clone()))).map_err(|e| bad(&e))?;
    if found.fields() != schema().fields() {
        return Err(bad(&"its columns are not a prepared set's"));
    }
    if found.metadata().get(FINGERPRINT).is_none_or(|of| *of != part.fingerprint) {
        return Err(bad(&"it belongs to another set than its report"));
    }
    batches.iter().try_for_each(super::check).map_err(|why| bad(&why))?;
    map.forget_pages();
    Ok(batches)
}

fn decode(buffer: &Buffer) -> std::result::Result<(Schema, Vec<RecordBatch>), Box<dyn std::error::Error>> {
    let trailer = buffer.len().checked_sub(10).ok_or("it is too short")?;
    let footer_length = read_footer_length(buffer[trailer..].try_into()?)?;
    let footer_start = trailer.checked_sub(footer_length).ok_or("its footer is longer than the file")?;
    let footer = root_as_footer(&buffer[footer_start..trailer]).map_err(|e| e.to_string())?;
    let schema = try_fb_to_schema(footer.schema().ok_or("it has no schema")?)?;
    let decoder = FileDecoder::new(Arc::new(schema.clone()), footer.version());
    let mut batches = Vec::new();
    for block in footer.recordBatches().iter().flatten() {
        let (offset, head, body) = (block.offset(), i64::from(block.metaDataLength()), block.bodyLength());
        let length = head.checked_add(body).filter(|&n| n >= 0).ok_or("a block's length overflows")?;
        let end = offset.checked_add(length).ok_or("a block's end overflows")?;
        if offset < 0 || usize::try_from(end)? > footer_start {
            return Err("a block lies outside the file".into());
        }
        let data = buffer.slice_with_length(usize::try_from(offset)?, usize::try_from(length)?);
        batches.extend(decoder.read_record_batch(block, &data)?);
    }
    Ok((schema, batches))
}
