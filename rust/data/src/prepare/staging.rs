//! Where a set is written: a folder beside its target, renamed into place when it is whole.
//!
//! The folder's name is fixed, so that work that was killed is found and gone on with. Whoever holds the lock beside it
//! is the one writer; others wait, and then find the set.

use super::Report;
use crate::error::{Error, Kind, Result};
use crate::prepared::{PreparedSet, REPORT_FILE};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Rows that were left out, one a line.
pub const QUARANTINE_FILE: &str = "quarantine.jsonl";
const PROGRESS_FILE: &str = "progress.json";
const WAIT: Duration = Duration::from_millis(100);

/// Whether a folder holds nothing but a prepared set, which is what preparing may replace.
pub(super) fn check_target(folder: &Path) -> Result<()> {
    let refuse = |why: String| {
        Err(Error::new(Kind::Resource, "the prepared set would replace something else")
            .at(folder.display().to_string())
            .because(why)
            .fix("choose a folder that does not exist yet"))
    };
    if folder.is_symlink() || (folder.exists() && !folder.is_dir()) {
        return refuse("it is a file or a link".into());
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let number = name.strip_prefix("data-").and_then(|rest| rest.strip_suffix(".arrow"));
        let is_part = number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
        if !is_part && name != REPORT_FILE && name != QUARANTINE_FILE {
            return refuse(format!("it holds {name}"));
        }
    }
    Ok(())
}

/// Whether a set that is made from sources with these hashes holds everything that was appended to the one in its folder.
pub(super) fn check_appended(folder: &Path, prints: &[String]) -> Result<()> {
    let text = std::fs::read_to_string(folder.join(REPORT_FILE)).unwrap_or_default();
    let Some(old) = serde_json::from_str::<Report>(&text).ok().filter(|old| !old.appended.is_empty()) else {
        return Ok(());
    };
    let lost = |(_, print): &(&String, &String)| !prints.contains(print);
    let lost: Vec<&str> =
        old.sources.iter().zip(&old.source_prints).filter(lost).map(|(name, _)| name.as_str()).collect();
    if lost.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, "the folder holds a set with more appended, which these data would replace")
        .at(folder.display().to_string())
        .because(format!("it has the rows of {} and these data have not", lost.join(", ")))
        .fix("append to it, choose another folder, or delete this one to make its set anew"))
}

/// How far the work is, written when a part is on the disk.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) report: Report,
    /// Blocks that need not be made again: all before this one.
    pub(super) next_block: u64,
    /// Bytes of the quarantine file.
    pub(super) quarantine: u64,
    /// Rows of the set that this is appended to.
    pub(super) rows_before: u64,
}

/// A folder beside the target that becomes it.
pub(super) struct Staging {
    pub(super) folder: PathBuf,
    lock_path: PathBuf,
    _lock: File,
    /// What to do with the folder when the work ends early.
    pub(super) keep: bool,
}

impl Staging {
    /// Take the lock of a target; `tick` is asked while another holds it. What an earlier run left stays until
    /// [`Staging::begin`].
    pub(super) fn lock(target: &Path, tick: &mut dyn FnMut() -> bool) -> Result<Self> {
        let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(|e| Error::io("cannot make the output folder", parent, &e))?;
        let (folder, lock_path) = (parent.join(format!(".{name}.preparing")), parent.join(format!(".{name}.lock")));
        loop {
            let open = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
            let lock = open.map_err(|e| Error::io("cannot make the lock of the output folder", &lock_path, &e))?;
            match lock.try_lock() {
                // Another writer may have finished and taken the file away between the two calls.
                Ok(()) if is_still(&lock, &lock_path) => {
                    let staging = Self { folder, lock_path, _lock: lock, keep: true };
                    staging.recover(target)?;
                    return Ok(staging);
                }
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) if tick() => std::thread::sleep(WAIT),
                Err(std::fs::TryLockError::WouldBlock) => return Err(Error::new(Kind::Interrupted, "stopped")),
                Err(std::fs::TryLockError::Error(e)) => {
                    return Err(Error::io("cannot lock the output folder", &lock_path, &e));
                }
            }
        }
    }

    /// Where the set that is replaced is kept until the new one stands in its place.
    fn old(&self) -> PathBuf {
        self.folder.with_extension("old")
    }

    /// Put back the set of a run that was killed when it had taken the old one away and not yet put the new one there.
    fn recover(&self, target: &Path) -> Result<()> {
        let old = self.old();
        if old.is_dir() && !target.exists() && !target.is_symlink() {
            std::fs::rename(&old, target).map_err(|e| Error::io("cannot put the earlier set back", target, &e))?;
        }
        Ok(())
    }

    /// What an earlier run left, when it was making the same set and its parts are whole; else an empty folder.
    pub(super) fn begin(&mut self, fingerprint: &str, resumes: bool) -> Result<Progress> {
        self.keep = false;
        let text = std::fs::read_to_string(self.folder.join(PROGRESS_FILE)).unwrap_or_default();
        if let Ok(progress) = serde_json::from_str::<Progress>(&text)
            && resumes
            && progress.report.fingerprint == fingerprint
            && progress.report.parts.iter().all(|part| PreparedSet::has(&self.folder, part))
            && self.cut_quarantine(progress.quarantine).is_ok()
        {
            return Ok(progress);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
        std::fs::create_dir(&self.folder).map_err(|e| Error::io("cannot make the output folder", &self.folder, &e))?;
        Ok(Progress::default())
    }

    /// Whether there is something to go on with.
    pub(super) fn has_progress(&self) -> bool {
        self.folder.join(PROGRESS_FILE).exists()
    }

    /// Forget what was made.
    pub(super) fn wipe(&self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }

    fn cut_quarantine(&self, length: u64) -> std::io::Result<()> {
        let path = self.folder.join(QUARANTINE_FILE);
        if length == 0 {
            return std::fs::remove_file(path).or(Ok(()));
        }
        let file = OpenOptions::new().write(true).open(path)?;
        if file.metadata()?.len() < length {
            return Err(std::io::Error::other("it is too short"));
        }
        file.set_len(length)
    }

    /// Note how far the work is.
    pub(super) fn note(&self, progress: &Progress) -> Result<()> {
        let path = self.folder.join(PROGRESS_FILE);
        let new = path.with_extension("new");
        let json = serde_json::to_string(progress).unwrap_or_default();
        let written = std::fs::write(&new, json)
            .and_then(|()| File::open(&new)?.sync_all())
            .and_then(|()| std::fs::rename(&new, &path));
        written.map_err(|e| Error::io("cannot write the prepared set", &path, &e))
    }

    /// Make the folder the target.
    pub(super) fn publish(mut self, target: &Path, report: &Report) -> Result<()> {
        let path = self.folder.join(REPORT_FILE);
        let fail = |e: &std::io::Error| Error::io("cannot write the prepared set", target, e);
        let json = serde_json::to_string_pretty(report).unwrap_or_default();
        std::fs::write(&path, json).map_err(|e| fail(&e))?;
        let _ = std::fs::remove_file(self.folder.join(PROGRESS_FILE));
        for file in [&path, &self.folder] {
            File::open(file).and_then(|file| file.sync_all()).map_err(|e| fail(&e))?;
        }
        // Something else may have come into it while the set was made.
        check_target(target)?;
        if target.exists() {
            let old = self.old();
            let _ = std::fs::remove_dir_all(&old);
            std::fs::rename(target, &old).map_err(|e| fail(&e))?;
            std::fs::rename(&self.folder, target).map_err(|e| fail(&e))?;
            let _ = std::fs::remove_dir_all(old);
        } else {
            std::fs::rename(&self.folder, target).map_err(|e| fail(&e))?;
        }
        self.keep = true;
        let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(|e| fail(&e))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
        // While the lock is held, so that whoever waits for it sees that the file is gone.
        let _ = std::fs::remove_file(&self.lock_path);
    }
}

#[cfg(unix)]
fn is_still(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |metadata: std::io::Result<std::fs::Metadata>| metadata.ok().map(|m| (m.dev(), m.ino()));
    let there = place(path.metadata());
    there.is_some() && place(file.metadata()) == there
}

#[cfg(not(unix))]
fn is_still(_: &File, path: &Path) -> bool {
    path.exists()
}
