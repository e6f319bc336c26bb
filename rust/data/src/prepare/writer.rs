//! Blocks of encoded rows to the files of a set.
//!
//! A block is what a fixed number of rows became: it is packed by itself and is one record batch. So what a block holds
//! depends on its own rows only, and work can be cut at blocks: to go on after a kill, or to be spread over machines
//! whose shards are merged to the very set that one machine would have made.

use super::report::SPLIT;
use super::staging::{Progress, Staging};
use super::{Packing, Report};
use crate::error::{Error, Result};
use crate::prepared::block::{Item, record_batch};
use crate::prepared::{Part, PartWriter, part_name};
use crate::source::Source;
use arrow_array::{Array, RecordBatch};
use std::path::{Path, PathBuf};

/// A block that is read and encoded.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) number: u64,
    pub(super) items: Vec<Item>,
    /// What became of the rows up to and with this block, windows aside.
    pub(super) rows: Report,
    /// Bytes of the quarantine file by then.
    pub(super) quarantine: u64,
}

/// Record batches to files; a new file is begun when one has grown large.
pub(super) struct Parts {
    folder: PathBuf,
    fingerprint: String,
    open: Option<PartWriter>,
    open_bytes: usize,
    part_bytes: usize,
    done: Vec<Part>,
}

impl Parts {
    /// Go on behind the files that are done.
    pub(super) fn new(folder: &Path, fingerprint: &str, done: Vec<Part>, part_bytes: usize) -> Self {
        Self { folder: folder.into(), fingerprint: fingerprint.into(), open: None, open_bytes: 0, part_bytes, done }
    }

    /// Write one block; true when it was the last of a file, which is on the disk now.
    pub(super) fn write(&mut self, block: u64, batch: &RecordBatch) -> Result<bool> {
        let part = match &mut self.open {
            Some(part) => part,
            None => self.open.insert(PartWriter::new(&self.folder, part_name(self.done.len()), &self.fingerprint)?),
        };
        part.write(block, batch)?;
        self.open_bytes += size(batch)?;
        let is_full = self.open_bytes >= self.part_bytes;
        if is_full {
            self.close()?;
        }
        Ok(is_full)
    }

    fn close(&mut self) -> Result<()> {
        self.open_bytes = 0;
        if let Some(part) = self.open.take() {
            self.done.push(part.finish()?);
        }
        Ok(())
    }

    /// All files, the last one closed.
    pub(super) fn finish(mut self) -> Result<Vec<Part>> {
        self.close()?;
        Ok(self.done)
    }
}

/// Bytes of the values, wherever they lie: a batch of a mapped file counts as when it was made.
fn size(batch: &RecordBatch) -> Result<usize> {
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size());
    sizes.sum::<std::result::Result<_, _>>().map_err(|e| Error::data("the size of a block cannot be told").because(e))
}

/// Writes blocks in order.
pub(super) struct Writer<'a> {
    staging: &'a Staging,
    packing: Packing,
    parts: Parts,
    rows_before: u64,
    /// Windows only, and what their borders tear.
    written: Report,
    /// The names of the sources, as items number them.
    sources: Vec<String>,
}

impl<'a> Writer<'a> {
    /// Go on where `begun` ends.
    pub(super) fn new(
        staging: &'a Staging,
        packing: Packing,
        part_bytes: usize,
        fingerprint: &str,
        begun: &Progress,
        sources: &[Source],
    ) -> Self {
        let done = &begun.report;
        let written = Report {
            windows: done.windows,
            tokens: done.tokens,
            scored_tokens: done.scored_tokens,
            longest: done.longest,
            lost_labels: done.lost_labels,
            truncated: done.truncated.clone().into_iter().filter(|(how, _)| how == SPLIT).collect(),
            fingerprint: fingerprint.into(),
            ..Report::default()
        };
        let parts = Parts::new(&staging.folder, fingerprint, done.parts.clone(), part_bytes);
        let sources = done.sources.iter().cloned().chain(sources.iter().map(Source::name)).collect();
        Self { staging, packing, parts, rows_before: begun.rows_before, written, sources }
    }

    /// Pack and write one block.
    pub(super) fn write(&mut self, block: Block) -> Result<()> {
        if block.items.is_empty() {
            return Ok(());
        }
        let packed = self.packing.windows(&block.items)?;
        let (batch, held) = record_batch(&block.items, &packed.windows)?;
        self.written.lost_labels += packed.lost_labels;
        for torn in packed.torn {
            let (row, (source, line)) = (block.items[torn].row, block.items[torn].position);
            let name = self.sources.get(source as usize).map_or("", String::as_str);
            self.written.truncated.entry(SPLIT.into()).or_default().add_row(row, &format!("{name}:{line}"));
        }
        held.into_iter().for_each(|window| self.written.window(window));
        if self.parts.write(block.number, &batch)? {
            let mut report = block.rows;
            self.tell(&mut report);
            (report.fingerprint, report.parts) = (self.written.fingerprint.clone(), self.parts.done.clone());
            let (next_block, quarantine, rows_before) = (block.number + 1, block.quarantine, self.rows_before);
            self.staging.note(&Progress { report, next_block, quarantine, rows_before })?;
        }
        Ok(())
    }

    fn tell(&self, report: &mut Report) {
        let written = &self.written;
        (report.windows, report.tokens, report.scored_tokens) =
            (written.windows, written.tokens, written.scored_tokens);
        (report.longest, report.lost_labels) = (written.longest, written.lost_labels);
        report.truncated.extend(written.truncated.clone());
    }

    /// Close the last file and add what was written to the report.
    pub(super) fn finish(self, report: &mut Report) -> Result<()> {
        self.tell(report);
        report.parts = self.parts.finish()?;
        report.close(self.packing.max_length);
        Ok(())
    }
}
