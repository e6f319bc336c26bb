//! Shards joined to one set.

use super::options::PART_BYTES;
use super::staging::{QUARANTINE_FILE, Staging, check_appended, check_target};
use super::writer::Parts;
use super::{Report, Tick, existing};
use crate::error::{Error, Kind, Result};
use crate::prepared::PreparedSet;
use serde::Deserialize;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Join the shards of one set, made anywhere, to the set that one machine would have made.
///
/// # Errors
/// A folder holds no shard, the shards are of different sets, or one is missing or given twice.
pub fn merge(folders: &[PathBuf], target: &Path, tick: &mut Tick<'_>) -> Result<Report> {
    let mut shards = Vec::with_capacity(folders.len());
    for folder in folders {
        let set = PreparedSet::open(folder)?;
        let report: Report = serde_json::from_str(set.report())
            .map_err(|e| Error::data("the report cannot be read").at(folder.display().to_string()).because(e))?;
        let Some((number, of)) = report.shard else {
            return Err(Error::new(Kind::Usage, "this set is not a shard")
                .at(folder.display().to_string())
                .fix("prepare the parts with shard 0/N to N-1/N"));
        };
        shards.push((number, of, folder, set, report));
    }
    shards.sort_by_key(|shard| shard.0);
    let Some((_, of, first_folder, _, first)) = shards.first() else {
        return Err(Error::new(Kind::Usage, "there is nothing to merge"));
    };
    let (of, base) = (*of, first.base.clone());
    if let Some(other) = shards.iter().find(|shard| shard.1 != of || shard.4.base != base) {
        return Err(Error::new(Kind::Usage, "these shards are not of one set")
            .at(other.2.display().to_string())
            .because(format!(
                "its data, options or the date that its template saw differ from {}'s",
                first_folder.display()
            ))
            .fix("prepare all shards from the same files with the same options"));
    }
    let numbers: Vec<u64> = shards.iter().map(|shard| shard.0).collect();
    if numbers != (0..of).collect::<Vec<_>>() {
        return Err(Error::new(Kind::Usage, "a shard is missing or given twice")
            .because(format!("of {of} shards these are given: {numbers:?}"))
            .fix("give every shard once"));
    }
    if let Some(report) = existing(target, &base) {
        return Ok(report);
    }
    check_target(target)?;
    let mut staging = Staging::lock(target, &mut || tick(0, 0))?;
    if let Some(report) = existing(target, &base) {
        return Ok(report);
    }
    check_appended(target, &first.source_prints)?;
    staging.begin(&base, false)?;
    let mut blocks: Vec<(u64, usize, usize)> = Vec::new();
    for (index, (.., report)) in shards.iter().enumerate() {
        let numbers = report.parts.iter().flat_map(|part| &part.blocks);
        blocks.extend(numbers.enumerate().map(|(batch, &block)| (block, index, batch)));
    }
    blocks.sort_unstable();
    let mut parts = Parts::new(&staging.folder, &base, Vec::new(), PART_BYTES);
    for (block, shard, batch) in blocks {
        let missing = || Error::data("a shard's report disagrees with its files");
        let batch = shards[shard].3.batches().get(batch).ok_or_else(missing)?;
        parts.write(block, batch)?;
        if !tick(0, 0) {
            return Err(Error::new(Kind::Interrupted, "stopped"));
        }
    }
    let mut report = Report::default();
    shards.iter().for_each(|shard| report.add(&shard.4));
    report.forget_rows();
    report.say_if_empty();
    join_left_out(shards.iter().map(|shard| shard.2.as_path()), &staging.folder.join(QUARANTINE_FILE))?;
    (report.parts, report.sources) = (parts.finish()?, first.sources.clone());
    (report.source_prints, report.identity) = (first.source_prints.clone(), first.identity.clone());
    report.template_date.clone_from(&first.template_date);
    (report.fingerprint, report.base) = (base.clone(), base);
    // Each shard's room is a whole number of tokens.
    let room: f64 = shards.iter().filter(|s| s.4.fill > 0.0).map(|s| (s.4.tokens as f64 / s.4.fill).round()).sum();
    report.fill = if room > 0.0 { report.tokens as f64 / room } else { 0.0 };
    staging.publish(target, &report)?;
    report.work = Some((0, 0));
    Ok(report)
}

/// The rows that shards left out, in the rows' order; each shard has its own in order.
fn join_left_out<'a>(folders: impl Iterator<Item = &'a Path>, to: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Numbered {
        row_id: u64,
    }

    let mut files = Vec::new();
    for path in folders.map(|folder| folder.join(QUARANTINE_FILE)).filter(|path| path.exists()) {
        let file = File::open(&path).map_err(|e| Error::io("cannot read the rows that are left out", &path, &e))?;
        files.push((BufReader::new(file).lines(), path));
    }
    if files.is_empty() {
        return Ok(());
    }
    let count = files.len();
    let mut next = |index: usize| -> Result<Option<(u64, usize, String)>> {
        let (lines, path) = &mut files[index];
        let Some(line) = lines.next() else { return Ok(None) };
        let line = line.map_err(|e| Error::io("cannot read the rows that are left out", path, &e))?;
        let numbered: Numbered = serde_json::from_str(&line).map_err(|e| {
            Error::data("the rows that are left out cannot be read").at(path.display().to_string()).because(e)
        })?;
        Ok(Some((numbered.row_id, index, line)))
    };
    let mut heads = BinaryHeap::new();
    for index in 0..count {
        heads.extend(next(index)?.map(Reverse));
    }
    let failed = |e: std::io::Error| Error::io("cannot write the rows that are left out", to, &e);
    let mut file = BufWriter::new(File::create(to).map_err(failed)?);
    while let Some(Reverse((_, index, line))) = heads.pop() {
        writeln!(file, "{line}").map_err(failed)?;
        heads.extend(next(index)?.map(Reverse));
    }
    file.flush().map_err(failed)
}
