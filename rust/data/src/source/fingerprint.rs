//! A hash of what files hold, remembered so that a large file is not read again to find that it has not changed.

use super::arrow;
use super::open::{file, is_pipe};
use crate::error::{Error, Result};
use crate::hashing::{self, Hashed};
use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use xxhash_rust::xxh3::Xxh3;

/// Files below this size are hashed faster than a hash is looked up worth its file.
const SMALLEST: u64 = 1 << 20;
/// A file that changed less long ago may change again without its time telling.
const RACY: Duration = Duration::from_secs(2);

/// Where hashes are remembered: `$XDG_CACHE_HOME/alignite/fingerprints`, else below `~/.cache`.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("alignite").join("fingerprints"))
}

/// Of a file, or of a saved folder's files in their order.
pub(super) fn of_path(path: &Path, cache: Option<&Path>) -> Result<u128> {
    if !path.is_dir() {
        return of_file(path, cache);
    }
    let mut hasher = Xxh3::new();
    for part in arrow::saved_files(path)? {
        hasher.update(&of_file(&part, cache)?.to_le_bytes());
    }
    Ok(hasher.digest128())
}

/// Of batches of columns: their types and values, and where one batch ends.
pub(super) fn of_batches(batches: &[RecordBatch]) -> Result<u128> {
    let mut hashed = Hashed::new(std::io::sink());
    if let Some(first) = batches.first() {
        let written = StreamWriter::try_new(&mut hashed, &first.schema())
            .and_then(|mut writer| batches.iter().try_for_each(|batch| writer.write(batch)));
        written.map_err(|e| Error::data("the table cannot be read").because(e))?;
    }
    Ok(hashed.digest())
}

fn of_file(path: &Path, cache: Option<&Path>) -> Result<u128> {
    let mut file = file(path)?;
    let failed = |e: &std::io::Error| Error::io("cannot read the file", path, e);
    let before = file.metadata().map_err(|e| failed(&e))?;
    if is_pipe(&before) {
        return Err(Error::data("a pipe can be read only once, so it has no fingerprint")
            .at(path.display().to_string())
            .fix("write it to a file first"));
    }
    let entry = cache.and_then(|folder| Some(folder.join(name(&before)?)));
    if let Some(known) = entry.as_deref().and_then(remembered) {
        return Ok(known);
    }
    let hash = hashing::of_reader(&mut file).map_err(|e| failed(&e))?;
    if let Some(entry) = entry
        && is_settled(&file, &before)
    {
        remember(&entry, hash);
    }
    Ok(hash)
}

/// What a file's content is known by; no name for small files.
#[cfg(unix)]
fn name(metadata: &Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    if metadata.len() < SMALLEST {
        return None;
    }
    let mut hasher = Xxh3::new();
    hasher.update(&metadata.dev().to_le_bytes());
    hasher.update(&metadata.ino().to_le_bytes());
    hasher.update(&metadata.size().to_le_bytes());
    // The change time cannot be set, as the modification time can by `touch`, `cp -p` and `rsync`.
    for time in [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()] {
        hasher.update(&time.to_le_bytes());
    }
    Some(format!("{:032x}", hasher.digest128()))
}

#[cfg(not(unix))]
fn name(_: &Metadata) -> Option<String> {
    None
}

fn remembered(entry: &Path) -> Option<u128> {
    let text = std::fs::read_to_string(entry).ok()?;
    u128::from_str_radix(text.strip_suffix('\n').filter(|hash| hash.len() == 32)?, 16).ok()
}

/// Whether the file stayed as it was while it was read, and had done so for a while.
fn is_settled(file: &File, before: &Metadata) -> bool {
    let Ok(after) = file.metadata() else { return false };
    let (Ok(changed), now) = (after.modified(), SystemTime::now()) else { return false };
    let age = now.duration_since(changed).unwrap_or_default();
    name(before) == name(&after) && age > RACY && changed_before(&after, now)
}

#[cfg(unix)]
fn changed_before(metadata: &Metadata, now: SystemTime) -> bool {
    use std::os::unix::fs::MetadataExt;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(metadata.ctime().max(0).cast_unsigned()) + RACY < now
}

#[cfg(not(unix))]
fn changed_before(_: &Metadata, _: SystemTime) -> bool {
    false
}

/// Losing an entry costs time only, so failures are silent.
fn remember(entry: &Path, hash: u128) {
    let Some(folder) = entry.parent() else { return };
    let staged = folder.join(format!("{:032x}.{}", hash, std::process::id()));
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&staged, format!("{hash:032x}\n")));
    if written.and_then(|()| std::fs::rename(&staged, entry)).is_err() {
        let _ = std::fs::remove_file(&staged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(path: &Path, seconds: u64) {
        let then = SystemTime::now() - Duration::from_secs(seconds);
        File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
    }

    #[test]
    fn a_hash_is_remembered_only_when_the_file_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let (path, cache) = (folder.path().join("a"), folder.path().join("cache"));
        std::fs::write(&path, vec![1; SMALLEST as usize]).unwrap();
        age(&path, 60);
        let first = of_path(&path, Some(&cache)).unwrap();
        // The change time is fresh although the modification time is not.
        assert!(!cache.exists());
        std::thread::sleep(RACY + Duration::from_millis(1100));
        assert_eq!(of_path(&path, Some(&cache)).unwrap(), first);
        let entry = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
        assert_eq!(std::fs::read_to_string(&entry).unwrap(), format!("{first:032x}\n"));
        // The entry is believed, and a damaged one is not.
        std::fs::write(&entry, format!("{:032x}\n", 7)).unwrap();
        assert_eq!(of_path(&path, Some(&cache)).unwrap(), 7);
        std::fs::write(&entry, "half").unwrap();
        assert_eq!(of_path(&path, Some(&cache)).unwrap(), first);
        // Same size and time of modification, other content.
        std::fs::write(&path, vec![2; SMALLEST as usize]).unwrap();
        age(&path, 60);
        assert_ne!(of_path(&path, Some(&cache)).unwrap(), first);
    }
}
