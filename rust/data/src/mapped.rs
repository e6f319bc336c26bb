//! A file mapped into memory: the one unsafe place of this crate.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;

/// Map a file for reading.
///
/// # Errors
/// The file cannot be opened or mapped.
pub fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|e| Error::io("cannot open the file", path, &e))?;
    // SAFETY: prepared files are written under another name, renamed into place and never changed, so the bytes stay
    // as they are while the map lives. Someone who truncates one from outside gets a bus error, as with any map.
    unsafe { Mmap::map(&file) }.map_err(|e| Error::io("cannot map the file", path, &e))
}
