//! What does not stay in memory: band hashes in files by hash, sketches in a file by row.

use super::sketch::{SIZE, Sketch};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Files that band hashes are spread over; one at a time is in memory.
const PARTS: usize = 64;
/// Bytes of an entry: a band's hash and a row.
const ENTRY: usize = 12;
/// Bytes of a row's sketch: 16 bits of each entry, which are equal by chance once in 65,536.
const KEPT: usize = 2 * SIZE;
/// The same, and where the row's set begins in the file of sets, and how many numbers it has.
const RECORD: usize = KEPT + 12;

static SPILLS: AtomicU64 = AtomicU64::new(0);

/// Files in a folder of their own that goes away with this.
pub(super) struct Spill {
    folder: PathBuf,
    parts: Vec<Option<BufWriter<File>>>,
    sketches: BufWriter<File>,
    sets: BufWriter<File>,
    /// Bytes of the sets so far.
    end: u64,
    rows: u32,
}

impl Spill {
    pub(super) fn new(parent: &Path) -> Result<Self> {
        let number = SPILLS.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!(".cleaning.{}.{number}.tmp", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).map_err(|e| failed(&folder, &e))?;
        // The sketches' file is made first, so that a failure below already cleans up.
        let made = create(&folder.join("sketches")).and_then(|file| Ok((file, create(&folder.join("sets"))?)));
        let (sketches, sets) = made.inspect_err(|_| {
            let _ = std::fs::remove_dir_all(&folder);
        })?;
        let mut spill = Self { folder, parts: Vec::new(), sketches, sets, end: 0, rows: 0 };
        for part in 0..PARTS {
            let file = create(&spill.part(part))?;
            spill.parts.push(Some(file));
        }
        Ok(spill)
    }

    fn part(&self, part: usize) -> PathBuf {
        self.folder.join(format!("bands-{part}"))
    }

    /// Keep a row's sketch and the hashes of its bands; rows come in order, and may leave gaps.
    pub(super) fn write(&mut self, row: u32, sketch: &Sketch, bands: impl Iterator<Item = u64>) -> Result<()> {
        let folder = &self.folder;
        let mut bytes = [0; RECORD];
        for gap in self.rows..=row {
            if gap == row {
                for (to, entry) in bytes[..KEPT].chunks_exact_mut(2).zip(sketch.0.iter()) {
                    to.copy_from_slice(&(*entry as u16).to_le_bytes());
                }
                bytes[KEPT..KEPT + 8].copy_from_slice(&self.end.to_le_bytes());
                bytes[KEPT + 8..].copy_from_slice(&(sketch.1.len() as u32).to_le_bytes());
            }
            self.sketches.write_all(&bytes).map_err(|e| failed(folder, &e))?;
        }
        for number in &sketch.1 {
            self.sets.write_all(&number.to_le_bytes()).map_err(|e| failed(folder, &e))?;
        }
        self.end += 4 * sketch.1.len() as u64;
        self.rows = row.saturating_add(1);
        for hash in bands {
            let mut entry = [0; ENTRY];
            entry[..8].copy_from_slice(&hash.to_le_bytes());
            entry[8..].copy_from_slice(&row.to_le_bytes());
            if let Some(part) = &mut self.parts[(hash >> 58) as usize] {
                part.write_all(&entry).map_err(|e| failed(folder, &e))?;
            }
        }
        Ok(())
    }

    /// Nothing more is written; the sketches can be read.
    pub(super) fn close(&mut self) -> Result<Sketches> {
        for part in &mut self.parts {
            part.take().map_or(Ok(()), |mut part| part.flush()).map_err(|e| failed(&self.folder, &e))?;
        }
        self.sketches.flush().and_then(|()| self.sets.flush()).map_err(|e| failed(&self.folder, &e))?;
        let path = self.folder.join("sketches");
        let open = |name: &str| File::open(self.folder.join(name)).map_err(|e| failed(&path, &e));
        Ok(Sketches { file: open("sketches")?, sets: open("sets")?, path: path.clone() })
    }

    /// The entries of each part, one part at a time.
    pub(super) fn entries(&self) -> impl Iterator<Item = Result<Vec<(u64, u32)>>> + '_ {
        (0..PARTS).map(|part| {
            let path = self.part(part);
            let read = || {
                let file = File::open(&path)?;
                let count = file.metadata()?.len() as usize / ENTRY;
                let mut file = BufReader::with_capacity(1 << 16, file);
                let mut entries = Vec::with_capacity(count);
                let mut entry = [0; ENTRY];
                for _ in 0..count {
                    file.read_exact(&mut entry)?;
                    let [a, b, c, d, e, f, g, h, i, j, k, l] = entry;
                    entries.push((u64::from_le_bytes([a, b, c, d, e, f, g, h]), u32::from_le_bytes([i, j, k, l])));
                }
                std::fs::remove_file(&path)?;
                Ok(entries)
            };
            read().map_err(|e: std::io::Error| failed(&path, &e))
        })
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The sketches and sets of all rows, on disk: open files, which may have lost their names.
pub(super) struct Sketches {
    file: File,
    sets: File,
    path: PathBuf,
}

impl Sketches {
    /// A row's sketch, as much of it as was kept.
    pub(super) fn get(&self, row: u32) -> Result<[u8; KEPT]> {
        let mut bytes = [0; KEPT];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(u64::from(row) * RECORD as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e| failed(&self.path, &e))?;
        Ok(bytes)
    }

    /// A row's set, sorted.
    pub(super) fn set(&self, row: u32) -> Result<Vec<u32>> {
        let (mut file, mut sets) = (&self.file, &self.sets);
        let mut read = || {
            let mut head = [0; RECORD - KEPT];
            file.seek(SeekFrom::Start(u64::from(row) * RECORD as u64 + KEPT as u64))?;
            file.read_exact(&mut head)?;
            let [a, b, c, d, e, f, g, h, i, j, k, l] = head;
            let count = u32::from_le_bytes([i, j, k, l]) as usize;
            let mut bytes = vec![0; 4 * count];
            sets.seek(SeekFrom::Start(u64::from_le_bytes([a, b, c, d, e, f, g, h])))?;
            sets.read_exact(&mut bytes)?;
            Ok(bytes.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
        };
        read().map_err(|e: std::io::Error| failed(&self.path, &e))
    }

    /// The estimated similarity of two sketches.
    pub(super) fn similarity(one: &[u8; KEPT], other: &[u8; KEPT]) -> f64 {
        let equal = one.chunks_exact(2).zip(other.chunks_exact(2)).filter(|(a, b)| a == b).count();
        equal as f64 / SIZE as f64
    }
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    File::create(path).map(|file| BufWriter::with_capacity(1 << 15, file)).map_err(|e| failed(path, &e))
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::io("cannot keep the sketches of near duplicates", path, error)
        .fix("free about 500 bytes a row and 4 a word where the output goes, or use dedup: exact, which needs no files")
}
