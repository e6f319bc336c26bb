//! Packing: which rows share a window.
//!
//! [`Packer`] takes the lengths of items one by one and gives windows of pieces. An item is whatever must stay whole: a
//! row, or a record of several segments (a preference pair, a ranked list), whose length is then the sum of its parts.
//! Only [`Strategy::BfdSplit`] and [`Strategy::Wrapped`] cut items.

mod bins;
pub mod lengths;
mod packer;

pub use bins::{Bins, MAX_CAPACITY};
pub use packer::{Packer, PackerState, Packs, Piece, Strategy, pack};

/// Best-fit-decreasing in the form that the preparing of files takes: windows of row indices, in the order of their
/// first row; rows in a window are in row order. A row longer than `capacity` gets a window of its own.
#[must_use]
pub fn best_fit_decreasing(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let capacity = u32::try_from(capacity).unwrap_or(MAX_CAPACITY).clamp(1, MAX_CAPACITY);
    let lengths: Vec<u32> = lengths.iter().map(|&n| u32::try_from(n).unwrap_or(capacity).min(capacity)).collect();
    let (mut offsets, mut rows) = (vec![0], Vec::new());
    Bins::new(capacity).assign(&lengths, &mut offsets, &mut rows);
    let mut windows: Vec<Vec<usize>> = offsets
        .windows(2)
        .map(|ends| {
            let mut window: Vec<usize> = rows[ends[0]..ends[1]].iter().map(|&row| row as usize).collect();
            window.sort_unstable();
            window
        })
        .collect();
    windows.sort_by_key(|window| window[0]);
    windows
}
