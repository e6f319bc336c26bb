//! Which samples share a window.

use crate::error::{Error, Kind, Result};
use crate::pack::best_fit_decreasing;
use crate::prepared::block::{Item, Piece};

/// How samples share windows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packing {
    pub(crate) bfd: bool,
    pub(crate) max_length: usize,
}

impl Packing {
    pub(super) fn new(name: &str, max_length: usize) -> Result<Self> {
        match name {
            "none" => Ok(Self { bfd: false, max_length }),
            "bfd" => Ok(Self { bfd: true, max_length }),
            _ => Err(Error::new(Kind::Usage, "packing is none, bfd, bfd_split or wrapped")),
        }
    }

    /// Whether rows that are longer than a window are split instead of cut.
    pub(super) fn splits(self) -> bool {
        false
    }

    /// The windows of these samples, and how many scored tokens lose their label as the first of a piece.
    pub(crate) fn windows(self, items: &[Item]) -> (Vec<Vec<Piece>>, u64) {
        let lengths: Vec<usize> = items.iter().map(|item| item.sample.len()).collect();
        let whole = |item: usize| Piece { item, tokens: 0..lengths[item] };
        let windows = if self.bfd {
            let bins = best_fit_decreasing(&lengths, self.max_length);
            bins.into_iter().map(|rows| rows.into_iter().map(whole).collect()).collect()
        } else {
            (0..lengths.len()).map(|item| vec![whole(item)]).collect()
        };
        (windows, 0)
    }
}
