//! Where a set is written: a folder beside its target, renamed into place when it is whole.

use super::Report;
use crate::error::{Error, Kind, Result};
use crate::prepared::{DATA_FILE, REPORT_FILE};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Preparing replaces its folder whole, so the folder must hold nothing else.
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
        if name != DATA_FILE && name != REPORT_FILE {
            return refuse(format!("it holds {}", name.display()));
        }
    }
    Ok(())
}

/// One publisher at a time in this process; between processes the run folder's lock sees to it.
static PUBLISHING: Mutex<()> = Mutex::new(());
static STAGINGS: AtomicU64 = AtomicU64::new(0);

/// A folder beside the target that becomes it, or goes away.
pub(super) struct Staging(pub(super) PathBuf);

impl Staging {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let number = STAGINGS.fetch_add(1, Ordering::Relaxed);
        let path = folder.with_file_name(format!(".{name}.{}.{number}.tmp", std::process::id()));
        let parent = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(|e| Error::io("cannot make the output folder", parent, &e))?;
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).map_err(|e| Error::io("cannot make the output folder", &path, &e))?;
        Ok(Self(path))
    }

    pub(super) fn publish(self, folder: &Path, report: &Report) -> Result<()> {
        let path = self.0.join(REPORT_FILE);
        let fail = |e: &std::io::Error| Error::io("cannot write the prepared set", folder, e);
        let json = serde_json::to_string_pretty(report).unwrap_or_default();
        std::fs::write(&path, json).map_err(|e| fail(&e))?;
        for file in [&path, &self.0.join(DATA_FILE), &self.0] {
            File::open(file).and_then(|file| file.sync_all()).map_err(|e| fail(&e))?;
        }
        let _one = PUBLISHING.lock();
        if folder.exists() {
            let old = self.0.with_extension("old");
            std::fs::rename(folder, &old).map_err(|e| fail(&e))?;
            std::fs::rename(&self.0, folder).map_err(|e| fail(&e))?;
            let _ = std::fs::remove_dir_all(old);
        } else {
            std::fs::rename(&self.0, folder).map_err(|e| fail(&e))?;
        }
        let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(|e| fail(&e))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
