//! Exact duplicates, by a hash of 128 bits.

use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;

/// Tables that grow one at a time, so that growing never doubles the memory of all.
const TABLES: usize = 256;

/// The first row of each content.
///
/// A row takes 24 to 48 bytes: 20 and one of the table's, which is between half and seven eighths full.
pub(super) struct FirstRows(Vec<FxHashMap<[u32; 4], u32>>);

impl FirstRows {
    pub(super) fn new() -> Self {
        Self((0..TABLES).map(|_| FxHashMap::default()).collect())
    }

    /// The earlier row of this content, or none, and then this row is its first.
    pub(super) fn enter(&mut self, hash: u128, row: u32) -> Option<u32> {
        let key = [hash as u32, (hash >> 32) as u32, (hash >> 64) as u32, (hash >> 96) as u32];
        match self.0[(hash >> 120) as usize].entry(key) {
            Entry::Occupied(first) => Some(*first.get()),
            Entry::Vacant(free) => {
                free.insert(row);
                None
            }
        }
    }
}
