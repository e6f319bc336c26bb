//! A set with more added to it.

use super::staging::{Progress, QUARANTINE_FILE, Staging, check_target};
use super::{Preparer, Report, Tick, Wanted, derived, shown};
use crate::clean::Dedup;
use crate::error::{Error, Kind, Result};
use crate::prepared::PreparedSet;
use crate::source::Source;
use std::borrow::Cow;
use std::path::Path;

/// Files that a note names.
const NAMED: usize = 3;

impl Preparer {
    /// Add sources to the set in a folder. What the set holds already, told by its content, is not added again.
    ///
    /// # Errors
    /// As [`Preparer::prepare`]; or the folder holds no set, one that was made with other options, or a shard; or rows
    /// would have to be compared with those of the set.
    pub fn append(&self, sources: &[Source], folder: &Path, tick: &mut Tick<'_>) -> Result<Report> {
        if self.options.clean.dedup != Dedup::None {
            return Err(Error::new(Kind::Usage, "duplicates cannot be told when data are appended")
                .because("which rows are new depends on the rows of the set, and it keeps only their tokens")
                .fix("leave out dedup, or prepare all data as a new set"));
        }
        let prints: Vec<u128> = sources.iter().map(Source::fingerprint).collect::<Result<_>>()?;
        let staging = Staging::lock(folder, &mut || tick(0, 0))?;
        let set = PreparedSet::open(folder)?;
        check_target(folder)?;
        let mut old: Report = serde_json::from_str(set.report())
            .map_err(|e| Error::data("the report cannot be read").at(folder.display().to_string()).because(e))?;
        drop(set);
        if old.shard.is_some() || self.options.shard.is_some() {
            return Err(Error::new(Kind::Usage, "a shard is not appended to")
                .at(folder.display().to_string())
                .fix("merge the shards, and append to their set without shard"));
        }
        if old.identity != self.identity() {
            return Err(Error::new(Kind::Usage, "the set was made with other options, or for another model")
                .at(folder.display().to_string())
                .fix("append with the options of the set, or prepare a new one"));
        }
        let (there, new): (Vec<usize>, Vec<usize>) =
            (0..sources.len()).partition(|&index| old.source_prints.contains(&shown(prints[index])));
        if new.is_empty() {
            old.reused = true;
            return Ok(old);
        }
        let added = self.wanted_of(new.iter().map(|&index| prints[index]).collect())?;
        let sources = if there.is_empty() {
            Cow::Borrowed(sources)
        } else {
            let mut names: Vec<String> = there.iter().take(NAMED).map(|&index| sources[index].name()).collect();
            if there.len() > NAMED {
                names.push(format!("{} more", there.len() - NAMED));
            }
            old.say(format!("in the set before, and not added again: {}", names.join(", ")));
            Cow::Owned(new.into_iter().map(|index| sources[index].clone()).collect())
        };
        let fingerprint = derived(&old.fingerprint, &added.fingerprint);
        let wanted = Wanted { fingerprint, base: old.base.clone(), prints: added.prints };
        old.appended.push(added.fingerprint);
        self.make(&sources, staging, &wanted, folder, &|staging| taken_over(folder, &old, staging).map(Some), tick)
    }
}

/// The set as a beginning: its files in the staging folder too.
fn taken_over(folder: &Path, old: &Report, staging: &Staging) -> Result<Progress> {
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
    Ok(Progress { rows_before: old.rows, report: old.clone(), ..Progress::default() })
}
