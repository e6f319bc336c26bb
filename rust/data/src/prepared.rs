//! A prepared set: windows of ids and labels in an Arrow file, read in place.

use crate::encode::IGNORE;
use crate::error::{Error, Result};
use crate::mapped;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Int32Array, LargeListArray, ListArray, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::root_as_footer;
use arrow_schema::{DataType, Field, Schema};
use std::path::Path;
use std::sync::Arc;

/// The Arrow file inside a prepared folder.
pub const DATA_FILE: &str = "data.arrow";
/// The report beside it.
pub const REPORT_FILE: &str = "report.json";
/// The key of the fingerprint in the schema's metadata.
pub const FINGERPRINT: &str = "alignite.fingerprint";

/// Columns of a prepared file. `row_ids` counts the lines that held something, from 0, over all files.
#[must_use]
pub fn schema() -> Schema {
    let list = |large: bool, inner: DataType| {
        let item = Arc::new(Field::new("item", inner, false));
        if large { DataType::LargeList(item) } else { DataType::List(item) }
    };
    Schema::new(vec![
        Field::new("input_ids", list(true, DataType::Int32), false),
        Field::new("labels", list(true, DataType::Int32), false),
        Field::new("seq_lengths", list(false, DataType::Int32), false),
        Field::new("row_ids", list(false, DataType::Int64), false),
        Field::new("num_scored", DataType::Int32, false),
    ])
}

/// A batch of windows as one flat row; positions restart at every segment.
#[derive(Debug, Default)]
pub struct Batch {
    /// Token ids.
    pub input_ids: Vec<i64>,
    /// Ids where scored, else -100.
    pub labels: Vec<i64>,
    /// Position of each token in its segment.
    pub position_ids: Vec<i64>,
    /// (start, length, parent) of each segment, flat; parent is -1.
    pub segments: Vec<i64>,
}

struct Columns {
    ids: LargeListArray,
    labels: LargeListArray,
    lengths: ListArray,
    scored: Int32Array,
}

/// An open prepared set.
pub struct PreparedSet {
    parts: Vec<Columns>,
    /// First window of each part, and the count of all at the end.
    starts: Vec<usize>,
    fingerprint: String,
    report: String,
}

impl PreparedSet {
    /// Open a prepared folder.
    ///
    /// # Errors
    /// A file is missing, damaged, or holds something else.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(DATA_FILE);
        let place = path.display().to_string();
        let bad = |why: &dyn std::fmt::Display| {
            Error::data("the prepared set is damaged")
                .at(place.clone())
                .because(why)
                .fix("delete the folder and prepare again")
        };
        if !path.is_file() {
            return Err(Error::data("no prepared set here")
                .at(folder.display().to_string())
                .fix("prepare the data first"));
        }
        let report_path = folder.join(REPORT_FILE);
        let report =
            std::fs::read_to_string(&report_path).map_err(|e| Error::io("cannot read the report", &report_path, &e))?;
        let expected = serde_json::from_str::<serde_json::Value>(&report).map_err(|e| bad(&e))?;
        let map = mapped::map(&path)?;
        let hash = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&map));
        if expected.get("data_xxh3").and_then(serde_json::Value::as_str) != Some(hash.as_str()) {
            return Err(bad(&"its bytes are not those that were written"));
        }
        let buffer = Buffer::from(bytes::Bytes::from_owner(map));
        let (schema_found, batches) = read(&buffer).map_err(|e| bad(&e))?;
        if schema_found.fields() != schema().fields() {
            return Err(bad(&"its columns are not a prepared set's"));
        }
        let fingerprint = schema_found.metadata().get(FINGERPRINT).cloned().unwrap_or_default();
        let mut parts = Vec::with_capacity(batches.len());
        let mut starts = vec![0];
        for batch in &batches {
            let part = Columns {
                ids: batch.column(0).as_list::<i64>().clone(),
                labels: batch.column(1).as_list::<i64>().clone(),
                lengths: batch.column(2).as_list::<i32>().clone(),
                scored: batch.column(4).as_primitive::<Int32Type>().clone(),
            };
            let _ = batch.column(3).as_list::<i32>().values().as_primitive::<Int64Type>();
            for window in 0..batch.num_rows() {
                let count = part.ids.value_length(window);
                let lengths = part.lengths.value(window);
                let total: i64 =
                    lengths.as_primitive::<Int32Type>().values().iter().map(|&n| i64::from(n.max(0))).sum();
                if part.labels.value_length(window) != count || total != count {
                    return Err(bad(&format!("window {window} disagrees with its lengths")));
                }
            }
            starts.push(starts[starts.len() - 1] + batch.num_rows());
            parts.push(part);
        }
        Ok(Self { parts, starts, fingerprint, report })
    }

    /// How many windows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What decides the content.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// report.json as it was written.
    #[must_use]
    pub fn report(&self) -> &str {
        &self.report
    }

    fn locate(&self, window: usize) -> Result<(&Columns, usize)> {
        if window >= self.len() {
            let what = format!("there is no window {window}");
            return Err(Error::new(crate::error::Kind::Usage, what).because(format!("the set has {}", self.len())));
        }
        let part = self.starts.partition_point(|&start| start <= window) - 1;
        Ok((&self.parts[part], window - self.starts[part]))
    }

    /// Tokens of a window.
    ///
    /// # Errors
    /// There is no such window.
    pub fn window_tokens(&self, window: usize) -> Result<i64> {
        self.locate(window).map(|(part, row)| part.ids.value_length(row))
    }

    /// Scored tokens of a window.
    ///
    /// # Errors
    /// There is no such window.
    pub fn window_scored(&self, window: usize) -> Result<i64> {
        self.locate(window).map(|(part, row)| i64::from(part.scored.value(row)))
    }

    /// These windows as one flat batch.
    ///
    /// # Errors
    /// There is no such window.
    pub fn batch(&self, windows: &[usize]) -> Result<Batch> {
        let mut batch = Batch::default();
        let total: i64 = windows.iter().map(|&window| self.window_tokens(window)).sum::<Result<i64>>()?;
        let total = usize::try_from(total).unwrap_or(0);
        batch.input_ids.reserve_exact(total);
        batch.labels.reserve_exact(total);
        batch.position_ids.reserve_exact(total);
        for &window in windows {
            let (part, row) = self.locate(window)?;
            let ids = part.ids.value(row);
            let labels = part.labels.value(row);
            let mut start = batch.input_ids.len();
            batch.input_ids.extend(ids.as_primitive::<Int32Type>().values().iter().map(|&id| i64::from(id)));
            batch.labels.extend(labels.as_primitive::<Int32Type>().values().iter().map(|&label| i64::from(label)));
            for &length in part.lengths.value(row).as_primitive::<Int32Type>().values() {
                let length = usize::try_from(length).unwrap_or(0);
                batch.position_ids.extend(0..length as i64);
                batch.segments.extend([start as i64, length as i64, -1]);
                if let Some(first) = batch.labels.get_mut(start) {
                    *first = i64::from(IGNORE);
                }
                start += length;
            }
        }
        Ok(batch)
    }
}

fn read(buffer: &Buffer) -> std::result::Result<(Schema, Vec<RecordBatch>), Box<dyn std::error::Error>> {
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
