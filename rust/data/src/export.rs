//! Prepared sets for other stacks: Parquet, and Megatron's indexed files.

use crate::error::{Error, Kind, Result};
use crate::prepare::Tick;
use crate::prepared::{Column, PreparedSet};
use crate::sample::IGNORE;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int32Type};
use arrow_array::{Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

fn fail(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Resource, "cannot write the export")
        .at(path.display().to_string())
        .because(why)
        .fix("check the path, its permissions and the free space")
}

/// Make the folder of a file that is to be new.
fn check_new(path: &Path) -> Result<()> {
    if path.exists() {
        return Err(Error::new(Kind::Resource, "the output file is there already")
            .at(path.display().to_string())
            .fix("name another file, or delete this one"));
    }
    path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(|e| fail(path, &e))
}

fn publish(from: &Path, to: &Path) -> Result<()> {
    File::open(from).and_then(|file| file.sync_all()).map_err(|e| fail(to, &e))?;
    std::fs::rename(from, to).map_err(|e| fail(to, &e))
}

/// Write the windows as one Parquet file with the columns of the prepared set.
///
/// # Errors
/// The file is there already or cannot be written.
pub fn to_parquet(set: &PreparedSet, path: &Path, tick: &mut Tick<'_>) -> Result<()> {
    check_new(path)?;
    let new = temporary(path);
    let level = ZstdLevel::try_new(3).map_err(|e| fail(path, &e))?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let file = File::create(&new).map_err(|e| fail(path, &e))?;
    let mut writer = ArrowWriter::try_new(file, std::sync::Arc::new(crate::prepared::schema()), Some(properties))
        .map_err(|e| fail(path, &e))?;
    for (index, batch) in set.batches().iter().enumerate() {
        writer.write(batch).and_then(|()| writer.flush()).map_err(|e| fail(path, &e))?;
        if !tick(index as u64, 0) {
            let _ = std::fs::remove_file(&new);
            return Err(Error::new(Kind::Interrupted, "stopped"));
        }
    }
    writer.close().map_err(|e| fail(path, &e))?;
    publish(&new, path)
}

/// Write the records as Megatron's indexed data set: `PREFIX.bin` and `PREFIX.idx` hold ids, and, since a .bin holds
/// ids only, `PREFIX_labels.bin` and `PREFIX_labels.idx` the labels, one for each id.
///
/// Each record is a document of one sequence. Everything is 32-bit, little-endian.
///
/// # Errors
/// The set says more than ids and labels, or a file is there already or cannot be written.
pub fn to_megatron(set: &PreparedSet, prefix: &Path, tick: &mut Tick<'_>) -> Result<()> {
    set.batches().iter().try_for_each(check_plain)?;
    let mut ids = Indexed::new(prefix, "")?;
    let mut labels = Indexed::new(prefix, "_labels")?;
    for (index, batch) in set.batches().iter().enumerate() {
        let column = |which: Column| batch.column(which as usize);
        for row in 0..batch.num_rows() {
            let numbers = |which: Column| column(which).as_list::<i64>().value(row);
            let (tokens, targets) = (numbers(Column::InputIds), numbers(Column::Labels));
            let (tokens, targets) = (tokens.as_primitive::<Int32Type>(), targets.as_primitive::<Int32Type>());
            let lengths = column(Column::SeqLengths).as_list::<i32>().value(row);
            let mut start = 0;
            for &length in lengths.as_primitive::<Int32Type>().values() {
                let end = start + usize::try_from(length).unwrap_or(0);
                ids.sequence(&tokens.values()[start..end])?;
                let mut of = targets.values()[start..end].to_vec();
                if let Some(first) = of.first_mut() {
                    *first = IGNORE;
                }
                labels.sequence(&of)?;
                start = end;
            }
        }
        if !tick(index as u64, 0) {
            return Err(Error::new(Kind::Interrupted, "stopped"));
        }
    }
    ids.finish()?;
    labels.finish()
}

/// Whether Megatron's files can say all of a batch: a rejected reply must not come out labelled like a chosen one.
fn check_plain(batch: &RecordBatch) -> Result<()> {
    let column = |which: Column| batch.column(which as usize);
    let refused = |what: &str| {
        Err(Error::new(Kind::Usage, format!("Megatron's files have no place for {what}, which the set holds"))
            .at("to")
            .fix("export to parquet, which keeps every column"))
    };
    if column(Column::Roles).null_count() < batch.num_rows() {
        return refused("the roles and scores of compared and rated replies");
    }
    let weights = column(Column::Weights).as_list::<i64>();
    let labels = column(Column::Labels).as_list::<i64>();
    for row in (0..batch.num_rows()).filter(|&row| !weights.is_null(row)) {
        let (weights, labels) = (weights.value(row), labels.value(row));
        let mut pairs =
            weights.as_primitive::<Float32Type>().values().iter().zip(labels.as_primitive::<Int32Type>().values());
        if pairs.any(|(&weight, &label)| label != IGNORE && weight != 1.0) {
            return refused("weights other than 1");
        }
    }
    Ok(())
}

/// One .bin and its .idx: a magic word, a version, a type code, counts, then lengths, byte offsets and the index of
/// each document's first sequence, with the count of all sequences at the end.
struct Indexed {
    bin: PathBuf,
    idx: PathBuf,
    data: BufWriter<File>,
    lengths: Vec<i32>,
    documents: Vec<i64>,
}

impl Indexed {
    fn new(prefix: &Path, suffix: &str) -> Result<Self> {
        let name = prefix.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let bin = prefix.with_file_name(format!("{name}{suffix}.bin"));
        check_new(&bin)?;
        let data = File::create(temporary(&bin)).map_err(|e| fail(&bin, &e))?;
        let idx = prefix.with_file_name(format!("{name}{suffix}.idx"));
        check_new(&idx)?;
        Ok(Self { bin, idx, data: BufWriter::new(data), lengths: Vec::new(), documents: Vec::new() })
    }

    fn sequence(&mut self, values: &[i32]) -> Result<()> {
        self.documents.push(self.lengths.len() as i64);
        self.lengths.push(i32::try_from(values.len()).map_err(|e| fail(&self.bin, &e))?);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.data.write_all(&bytes).map_err(|e| fail(&self.bin, &e))
    }

    fn finish(mut self) -> Result<()> {
        const INT32: u8 = 4;
        self.data.flush().map_err(|e| fail(&self.bin, &e))?;
        self.documents.push(self.lengths.len() as i64);
        let new = temporary(&self.idx);
        let mut index = BufWriter::new(File::create(&new).map_err(|e| fail(&self.idx, &e))?);
        let mut put = |bytes: &[u8]| index.write_all(bytes).map_err(|e| fail(&self.idx, &e));
        put(b"MMIDIDX\x00\x00")?;
        put(&1u64.to_le_bytes())?;
        put(&[INT32])?;
        put(&(self.lengths.len() as u64).to_le_bytes())?;
        put(&(self.documents.len() as u64).to_le_bytes())?;
        for length in &self.lengths {
            put(&length.to_le_bytes())?;
        }
        let mut offset = 0i64;
        for length in &self.lengths {
            put(&offset.to_le_bytes())?;
            offset += 4 * i64::from(*length);
        }
        for document in &self.documents {
            put(&document.to_le_bytes())?;
        }
        index.flush().map_err(|e| fail(&self.idx, &e))?;
        publish(&temporary(&self.bin), &self.bin)?;
        publish(&new, &self.idx)
    }
}
