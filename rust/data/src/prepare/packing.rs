//! Which samples share a window.

use crate::error::Result;
use crate::pack::{Strategy, pack};
use crate::prepared::block::{Item, Piece};
use crate::sample::IGNORE;

/// How samples share windows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packing {
    strategy: Strategy,
    pub(crate) max_length: usize,
}

/// Samples in windows.
pub(crate) struct Packed {
    pub(crate) windows: Vec<Vec<Piece>>,
    /// Scored tokens that lose their label as the first of a piece.
    pub(crate) lost_labels: u64,
    /// The samples that are in several pieces.
    pub(crate) torn: Vec<usize>,
}

impl Packing {
    pub(super) fn new(name: &str, max_length: usize) -> Result<Self> {
        Ok(Self { strategy: name.parse()?, max_length })
    }

    /// Whether rows that are longer than a window are split instead of cut.
    pub(super) fn splits(self) -> bool {
        matches!(self.strategy, Strategy::BfdSplit | Strategy::Wrapped)
    }

    /// The windows of samples of these lengths, each as pieces.
    pub(crate) fn pack(self, lengths: &[usize]) -> Result<Vec<Vec<Piece>>> {
        let lengths: Vec<u32> = lengths.iter().map(|&length| u32::try_from(length).unwrap_or(u32::MAX)).collect();
        let packs =
            pack(&lengths, self.strategy, u32::try_from(self.max_length).unwrap_or(u32::MAX), lengths.len().max(1))?;
        let piece = |piece: &crate::pack::Piece| {
            let start = piece.start as usize;
            Piece {
                item: usize::try_from(piece.row).unwrap_or(usize::MAX),
                tokens: start..start + piece.length as usize,
            }
        };
        Ok(packs.windows().map(|window| window.iter().map(piece).collect()).collect())
    }

    /// The windows of these samples.
    pub(crate) fn windows(self, items: &[Item]) -> Result<Packed> {
        let lengths: Vec<usize> = items.iter().map(|item| item.sample.len()).collect();
        let windows = self.pack(&lengths)?;
        let is_lost =
            |piece: &&Piece| piece.tokens.start > 0 && items[piece.item].sample.labels[piece.tokens.start] != IGNORE;
        let lost_labels = windows.iter().flatten().filter(is_lost).count() as u64;
        let mut torn: Vec<usize> =
            windows.iter().flatten().filter(|piece| piece.tokens.start > 0).map(|piece| piece.item).collect();
        torn.sort_unstable();
        torn.dedup();
        Ok(Packed { windows, lost_labels, torn })
    }
}
