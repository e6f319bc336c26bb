//! Sets that are made of sets: shards joined, and a set with more appended.

use super::options::PART_BYTES;
use super::staging::{Progress, QUARANTINE_FILE, Staging, check_target};
use super::writer::Parts;
use super::{Preparer, Report, Tick, derived, existing};
use crate::error::{Error, Kind, Result};
use crate::prepared::PreparedSet;
use crate::source::Source;
use std::io::Write;
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
            .because(format!("its data or options differ from those of {}", first_folder.display()))
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
    let staging = Staging::lock(target, &mut || tick(0, 0))?;
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
    for (.., folder, _, shard) in &shards {
        report.add(shard);
        let rows = std::fs::read(folder.join(QUARANTINE_FILE)).unwrap_or_default();
        if !rows.is_empty() {
            let path = staging.folder.join(QUARANTINE_FILE);
            let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
            let written = file.and_then(|mut file| file.write_all(&rows));
            written.map_err(|e| Error::io("cannot write the rows that are left out", &path, &e))?;
        }
    }
    (report.parts, report.sources) = (parts.finish()?, first.sources.clone());
    (report.fingerprint, report.base) = (base.clone(), base);
    let filled: f64 = shards.iter().filter(|s| s.4.fill > 0.0).map(|s| s.4.tokens as f64 / s.4.fill).sum();
    report.fill = if filled > 0.0 { report.tokens as f64 / filled } else { 0.0 };
    staging.publish(target, &report)?;
    Ok(report)
}

impl Preparer {
    /// Add sources to the set in a folder. What was appended before is not appended again.
    ///
    /// # Errors
    /// As [`Preparer::prepare`]; or the folder holds no set, or one that was made with other options.
    pub fn append(&self, sources: &[Source], folder: &Path, tick: &mut Tick<'_>) -> Result<Report> {
        let added = self.fingerprint(sources)?;
        let mut staging = Staging::lock(folder, &mut || tick(0, 0))?;
        let set = PreparedSet::open(folder)?;
        let mut old: Report = serde_json::from_str(set.report())
            .map_err(|e| Error::data("the report cannot be read").at(folder.display().to_string()).because(e))?;
        if old.base == added || old.appended.contains(&added) {
            old.reused = true;
            return Ok(old);
        }
        let identity = format!("{:032x}", self.identity);
        if old.identity != identity {
            return Err(Error::new(Kind::Usage, "the set was made with other options, or for another model")
                .at(folder.display().to_string())
                .fix("append with the options of the set, or prepare a new one"));
        }
        let fingerprint = derived(&old.fingerprint, &added);
        let mut begun = staging.begin(&fingerprint, self.resumes())?;
        if begun.report.parts.is_empty() {
            for part in &old.parts {
                let (from, to) = (folder.join(&part.file), staging.folder.join(&part.file));
                let linked = std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(|_| ()));
                linked.map_err(|e| Error::io("cannot take over a file of the set", &to, &e))?;
            }
            let left_out = folder.join(QUARANTINE_FILE);
            if left_out.exists() {
                let to = staging.folder.join(QUARANTINE_FILE);
                std::fs::copy(&left_out, &to).map_err(|e| Error::io("cannot take over a file of the set", &to, &e))?;
            }
            begun = Progress { rows_before: old.rows, report: old.clone(), ..Progress::default() };
        }
        drop(set);
        let base = old.base.clone();
        let mut made = self.run(sources, &staging, begun.clone(), &base, &fingerprint, tick);
        if made.as_ref().is_err_and(|error| error.kind == Kind::Backend) {
            made = self.run(sources, &staging, begun, &base, &fingerprint, tick);
        }
        match made {
            Ok(mut report) => {
                report.appended.push(added);
                staging.publish(folder, &report)?;
                Ok(report)
            }
            Err(error) => {
                staging.keep = error.kind == Kind::Interrupted && staging.has_progress();
                Err(error)
            }
        }
    }
}
