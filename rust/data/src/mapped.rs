//! A file mapped into memory: the one unsafe place of this crate.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// A mapped file that several hold.
#[derive(Clone)]
pub struct Mapped(Arc<Mmap>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Mapped {
    /// Take the pages that were looked at out of this process's memory; they come back when they are looked at again.
    ///
    /// Linux maps 64 KiB around every byte that is read, so a glance at each column of a large set would count as
    /// gigabytes.
    pub fn forget_pages(&self) {
        #[cfg(unix)]
        // SAFETY: the pages are a file's, mapped for reading, so nothing is in them that the file does not hold.
        // Refusing the advice costs nothing but the memory.
        let _ = unsafe { self.0.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }
}

/// Map a file for reading.
///
/// # Errors
/// The file cannot be opened or mapped.
pub fn map(path: &Path) -> Result<Mapped> {
    let file = File::open(path).map_err(|e| Error::io("cannot open the file", path, &e))?;
    // SAFETY: prepared files are written under another name, renamed into place and never changed, so the bytes stay
    // as they are while the map lives. Someone who truncates one from outside gets a bus error, as with any map.
    let mapped = unsafe { Mmap::map(&file) }.map_err(|e| Error::io("cannot map the file", path, &e))?;
    Ok(Mapped(Arc::new(mapped)))
}
