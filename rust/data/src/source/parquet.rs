//! Parquet, one row group after the other, in batches that fit memory.

use super::columnar::{self, guarded};
use super::open::file;
use super::pages::{Pages, measure};
use super::{Rows, damaged};
use crate::error::{Error, Kind, Result};
use arrow_array::RecordBatch;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use std::fs::File;
use std::path::Path;

pub(super) const MAGIC: &[u8] = b"PAR1";

/// The most rows of a batch.
const ROWS: f64 = 1024.0;
/// What a batch's values should take at most.
const BATCH_BYTES: f64 = (16 << 20) as f64;
/// What they may take when every value is a dictionary's longest.
const WORST_BYTES: f64 = (128 << 20) as f64;
/// The largest pages of all columns together: so much is in memory at once.
const MAX_PAGES: u64 = 512 << 20;

struct Groups {
    file: File,
    length: u64,
    metadata: ArrowReaderMetadata,
    next: usize,
    reader: Option<ParquetRecordBatchReader>,
}

pub(super) fn open(path: &Path, max_row_bytes: usize) -> Result<Rows<'static>> {
    let name = path.display().to_string();
    let file = file(path)?;
    let length = file.metadata().map_err(|error| Error::io("cannot read the file", path, &error))?.len();
    let read = guarded(|| ArrowReaderMetadata::load(&file, Default::default()).map_err(damaged));
    let metadata = read.map_err(|error| error.at(name.clone()))?;
    let mut groups = Groups { file, length, metadata, next: 0, reader: None };
    let batches = std::iter::from_fn(move || groups.batch().transpose());
    Ok(columnar::rows(Box::new(batches), name, max_row_bytes))
}

impl Groups {
    fn batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(reader) = &mut self.reader
                && let Some(batch) = guarded(|| reader.next().transpose().map_err(damaged))?
            {
                return Ok(Some(batch));
            }
            if self.next >= self.metadata.metadata().num_row_groups() {
                return Ok(None);
            }
            let rows = self.batch_rows(self.next)?;
            let file = self.file.try_clone().map_err(damaged)?;
            self.reader = Some(guarded(|| {
                ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                    .with_row_groups(vec![self.next])
                    .with_batch_size(rows)
                    .build()
                    .map_err(damaged)
            })?);
            self.next += 1;
        }
    }

    /// How many rows of a row group are decoded at a time.
    fn batch_rows(&self, group: usize) -> Result<usize> {
        let group = self.metadata.metadata().row_group(group);
        #[allow(clippy::cast_precision_loss)]
        let rows = group.num_rows().max(1) as f64;
        let (mut pages, mut row, mut worst) = (0_u64, 0.0, 0.0);
        for column in group.columns() {
            let (start, length) = guarded(|| Ok(column.byte_range()))?;
            if start.checked_add(length).is_none_or(|end| end > self.length) {
                return Err(damaged("a column lies outside of the file"));
            }
            let Pages { largest, dictionary, value } = measure(&self.file, start, length)?;
            #[allow(clippy::cast_precision_loss)]
            let values = column.num_values().max(0) as f64 / rows;
            pages = pages.saturating_add(largest);
            row += value * values;
            #[allow(clippy::cast_precision_loss)]
            let entry = dictionary as f64;
            worst += entry * values;
        }
        if pages > MAX_PAGES {
            return Err(Error::new(Kind::Resource, "the pages of a row group are larger than 512 MiB")
                .because(format!("they take {pages} bytes"))
                .fix("write the file again with pages of 1 MiB, which is the default"));
        }
        let fit = (BATCH_BYTES / f64::max(row, 1.0)).min(WORST_BYTES / f64::max(worst, 1.0));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rows = fit.clamp(1.0, ROWS) as usize;
        Ok(rows)
    }
}
