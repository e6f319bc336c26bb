//! Hashes of what is read and written, piece by piece.

use std::io::{Read, Result, Write};
use xxhash_rust::xxh3::Xxh3;

/// The hash of all that a reader gives; no more than a piece of it is in memory.
pub(crate) fn of_reader(reader: &mut impl Read) -> Result<u128> {
    let mut hasher = Xxh3::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hasher.digest128()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// A writer whose bytes are hashed on their way.
pub(crate) struct Hashed<W> {
    pub(crate) inner: W,
    hasher: Xxh3,
}

impl<W> Hashed<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, hasher: Xxh3::new() }
    }

    /// The hash of what was written.
    pub(crate) fn digest(&self) -> u128 {
        self.hasher.digest128()
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> Result<()> {
        self.inner.flush()
    }
}
