//! Items to windows of pieces, a stretch of rows at a time.

use super::bins::{Bins, MAX_CAPACITY};
use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

/// How items are put into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Every item alone.
    None,
    /// Best-fit-decreasing over whole items.
    Bfd,
    /// The same, after items longer than the window are cut into windows and a rest.
    BfdSplit,
    /// One after the other, cut at every window border.
    Wrapped,
}

impl std::str::FromStr for Strategy {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "none" => Self::None,
            "bfd" => Self::Bfd,
            "bfd_split" => Self::BfdSplit,
            "wrapped" => Self::Wrapped,
            _ => {
                return Err(Error::new(Kind::Usage, format!("there is no packing strategy {name:?}"))
                    .fix("it is none, bfd, bfd_split or wrapped"));
            }
        })
    }
}

/// Tokens `start..start + length` of an item. Each is a segment of its own, whose first label is -100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The item, counted from 0 over all that were pushed.
    pub row: u64,
    /// Its first token.
    pub start: u32,
    /// Its tokens.
    pub length: u32,
}

/// Windows of pieces, flat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packs {
    /// Where each window begins in `pieces`, and the end of the last: one more than there are windows.
    pub offsets: Vec<usize>,
    /// The pieces, window by window.
    pub pieces: Vec<Piece>,
}

impl Packs {
    fn new() -> Self {
        Self { offsets: vec![0], pieces: Vec::new() }
    }

    /// How many windows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The windows.
    pub fn windows(&self) -> impl Iterator<Item = &[Piece]> {
        self.offsets.windows(2).map(|ends| &self.pieces[ends[0]..ends[1]])
    }

    /// The pieces that do not begin their item: each costs the label of one token that has lost what stood before it.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.pieces.iter().filter(|piece| piece.start > 0).count()
    }
}

/// What a packer holds between two pushes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackerState {
    /// The items that windows were made of.
    pub done: u64,
    /// The lengths of those that wait.
    pub pending: Vec<u32>,
    /// The open window of the wrapped strategy.
    pub open: Vec<Piece>,
}

/// A packer of a stream: after every `window_size` items it gives their windows.
///
/// What it gives depends on the lengths, the strategy, the capacity and the window size alone.
pub struct Packer {
    strategy: Strategy,
    capacity: u32,
    window_size: usize,
    state: PackerState,
    bins: Bins,
    /// The rows and starts of the pieces that are packed, and their lengths.
    cut: Vec<(u32, u32)>,
    lengths: Vec<u32>,
    rows: Vec<u32>,
}

impl Packer {
    /// A packer of windows of `capacity` tokens over stretches of `window_size` items.
    ///
    /// # Errors
    /// A capacity outside `1..=MAX_CAPACITY`, or a window size of 0 or beyond 2^31.
    pub fn new(strategy: Strategy, capacity: u32, window_size: usize) -> Result<Self> {
        if !(1..=MAX_CAPACITY).contains(&capacity) {
            let what = format!("the window's capacity is {capacity}");
            return Err(Error::new(Kind::Usage, what).fix(format!("it must be 1 to {MAX_CAPACITY} tokens")));
        }
        if !(1..=1 << 31).contains(&window_size) {
            let what = format!("{window_size} rows are to be packed together");
            return Err(Error::new(Kind::Usage, what).fix("it must be 1 to 2^31 rows"));
        }
        Ok(Self {
            strategy,
            capacity,
            window_size,
            state: PackerState { done: 0, pending: Vec::new(), open: Vec::new() },
            // The other strategies need no tables.
            bins: Bins::new(if matches!(strategy, Strategy::Bfd | Strategy::BfdSplit) { capacity } else { 1 }),
            cut: Vec::new(),
            lengths: Vec::new(),
            rows: Vec::new(),
        })
    }

    /// The state, from which [`Packer::restore`] goes on.
    #[must_use]
    pub fn state(&self) -> &PackerState {
        &self.state
    }

    /// Go on from a state of a packer that was made with the same arguments.
    pub fn restore(&mut self, state: PackerState) {
        self.state = state;
    }

    /// Take one item; windows, when it was the last of a stretch.
    ///
    /// # Errors
    /// An item longer than the window that the strategy does not cut. It is not taken: the caller drops and counts it.
    pub fn push(&mut self, length: u32) -> Result<Option<Packs>> {
        self.check(length)?;
        self.state.pending.push(length);
        Ok((self.state.pending.len() >= self.window_size).then(|| self.stretch()))
    }

    /// The windows of what waits, the open one too.
    pub fn flush(&mut self) -> Packs {
        let mut packs = self.stretch();
        if !self.state.open.is_empty() {
            packs.pieces.append(&mut self.state.open);
            packs.offsets.push(packs.pieces.len());
        }
        packs
    }

    fn check(&self, length: u32) -> Result<()> {
        if length > self.capacity && matches!(self.strategy, Strategy::None | Strategy::Bfd) {
            let row = self.state.done + self.state.pending.len() as u64;
            return Err(Error::new(Kind::Usage, format!("a length is {length}, which is beyond the window"))
                .at(format!("row {row}"))
                .because(format!("the window holds {} tokens", self.capacity))
                .fix("cut or drop such rows before packing, or use bfd_split or wrapped"));
        }
        Ok(())
    }

    fn stretch(&mut self) -> Packs {
        let pending = std::mem::take(&mut self.state.pending);
        let mut packs = Packs::new();
        self.window(&pending, &mut packs);
        self.state.pending = pending;
        self.state.pending.clear();
        packs
    }

    /// The windows of these items, after those in `packs`.
    fn window(&mut self, items: &[u32], packs: &mut Packs) {
        let first = self.state.done;
        self.state.done += items.len() as u64;
        match self.strategy {
            Strategy::None => {
                for (row, &length) in (first..).zip(items) {
                    packs.pieces.push(Piece { row, start: 0, length });
                    packs.offsets.push(packs.pieces.len());
                }
            }
            Strategy::Bfd => {
                self.rows.clear();
                let base = packs.pieces.len();
                let from = packs.offsets.len();
                self.bins.assign(items, &mut packs.offsets, &mut self.rows);
                packs.offsets[from..].iter_mut().for_each(|end| *end += base);
                packs.pieces.extend(self.rows.iter().map(|&row| Piece {
                    row: first + u64::from(row),
                    start: 0,
                    length: items[row as usize],
                }));
            }
            Strategy::BfdSplit => {
                self.cut.clear();
                self.lengths.clear();
                for (row, &length) in (0..).zip(items) {
                    let mut start = 0;
                    while length - start > self.capacity {
                        self.cut.push((row, start));
                        self.lengths.push(self.capacity);
                        start += self.capacity;
                    }
                    self.cut.push((row, start));
                    self.lengths.push(length - start);
                }
                self.rows.clear();
                let base = packs.pieces.len();
                let from = packs.offsets.len();
                self.bins.assign(&self.lengths, &mut packs.offsets, &mut self.rows);
                packs.offsets[from..].iter_mut().for_each(|end| *end += base);
                packs.pieces.extend(self.rows.iter().map(|&piece| {
                    let (row, start) = self.cut[piece as usize];
                    Piece { row: first + u64::from(row), start, length: self.lengths[piece as usize] }
                }));
            }
            Strategy::Wrapped => self.wrap(first, items, packs),
        }
    }

    fn wrap(&mut self, first: u64, items: &[u32], packs: &mut Packs) {
        let open = &mut self.state.open;
        let mut room = self.capacity - open.iter().map(|piece| piece.length).sum::<u32>();
        for (row, &length) in (first..).zip(items) {
            let mut start = 0;
            while start < length {
                let part = room.min(length - start);
                open.push(Piece { row, start, length: part });
                start += part;
                room -= part;
                if room == 0 {
                    packs.pieces.append(open);
                    packs.offsets.push(packs.pieces.len());
                    room = self.capacity;
                }
            }
        }
    }
}

/// All windows of a table of lengths.
///
/// # Errors
/// As [`Packer::new`] and [`Packer::push`].
pub fn pack(lengths: &[u32], strategy: Strategy, capacity: u32, window_size: usize) -> Result<Packs> {
    let mut packer = Packer::new(strategy, capacity, window_size)?;
    let mut packs = Packs::new();
    packs.pieces.reserve(lengths.len());
    for items in lengths.chunks(window_size) {
        if let Some(&length) = items.iter().find(|&&length| packer.check(length).is_err()) {
            packer.state.done += items.iter().position(|&other| other == length).unwrap_or(0) as u64;
            packer.check(length)?;
        }
        packer.window(items, &mut packs);
    }
    let rest = packer.flush();
    for window in rest.windows() {
        packs.pieces.extend_from_slice(window);
        packs.offsets.push(packs.pieces.len());
    }
    Ok(packs)
}

#[cfg(test)]
mod tests {
    use super::Strategy; // proptest has a trait of this name
    use super::*;
    use crate::pack::lengths::{CAP, lognormal};
    use proptest::prelude::*;

    const ALL: [Strategy; 4] = [Strategy::None, Strategy::Bfd, Strategy::BfdSplit, Strategy::Wrapped];

    fn fill(packs: &Packs, capacity: u32) -> f64 {
        let tokens: u64 = packs.pieces.iter().map(|piece| u64::from(piece.length)).sum();
        tokens as f64 / (packs.len() as f64 * f64::from(capacity))
    }

    proptest! {
        #[test]
        fn every_token_once_no_window_over_its_size_and_a_stream_is_the_table(
            lengths in prop::collection::vec(1u32..=100, 0..200),
            capacity in 1u32..=64,
            window_size in 1usize..50,
            stop in 0usize..200,
        ) {
            for strategy in ALL {
                let lengths: Vec<u32> = match strategy {
                    Strategy::None | Strategy::Bfd => lengths.iter().map(|&n| n.min(capacity)).collect(),
                    _ => lengths.clone(),
                };
                let packs = pack(&lengths, strategy, capacity, window_size).unwrap();
                let mut pieces = packs.pieces.clone();
                pieces.sort_by_key(|piece| (piece.row, piece.start));
                let (mut row, mut start) = (0, 0);
                for piece in pieces {
                    prop_assert_eq!((piece.row, piece.start), (row as u64, start));
                    prop_assert!(piece.length > 0);
                    start += piece.length;
                    if start == lengths[row] {
                        (row, start) = (row + 1, 0);
                    }
                }
                prop_assert_eq!((row, start), (lengths.len(), 0));
                for window in packs.windows() {
                    prop_assert!(!window.is_empty());
                    prop_assert!(window.iter().map(|piece| piece.length).sum::<u32>() <= capacity);
                }

                // A stream that is stopped, saved as JSON and continued gives the same windows.
                let mut packer = Packer::new(strategy, capacity, window_size).unwrap();
                let mut windows: Vec<Vec<Piece>> = Vec::new();
                for (row, &length) in lengths.iter().enumerate() {
                    if row == stop {
                        let state = serde_json::to_string(packer.state()).unwrap();
                        packer = Packer::new(strategy, capacity, window_size).unwrap();
                        packer.restore(serde_json::from_str(&state).unwrap());
                    }
                    if let Some(packs) = packer.push(length).unwrap() {
                        windows.extend(packs.windows().map(<[Piece]>::to_vec));
                    }
                }
                windows.extend(packer.flush().windows().map(<[Piece]>::to_vec));
                prop_assert_eq!(windows, packs.windows().map(<[Piece]>::to_vec).collect::<Vec<_>>());
            }
        }

        // Records of several segments are packed by their sums, so that no record is torn.
        #[test]
        fn a_record_of_segments_stays_in_one_window(
            records in prop::collection::vec(prop::collection::vec(1u32..20, 1..4), 1..80)
        ) {
            let lengths: Vec<u32> = records.iter().map(|segments| segments.iter().sum()).collect();
            let packs = pack(&lengths, Strategy::Bfd, 60, 10_000).unwrap();
            let mut seen = 0;
            for window in packs.windows() {
                let segments: Vec<u32> =
                    window.iter().flat_map(|piece| records[usize::try_from(piece.row).unwrap()].clone()).collect();
                prop_assert!(segments.iter().sum::<u32>() <= 60);
                seen += window.len();
            }
            prop_assert_eq!(seen, records.len());
            prop_assert_eq!(packs.cuts(), 0);
        }
    }

    #[test]
    fn the_named_lognormal_lengths_fill_their_windows() {
        let packs = pack(&lognormal(100_000, 0), Strategy::Bfd, CAP, 10_000).unwrap();
        assert!(fill(&packs, CAP) >= 0.999, "{}", fill(&packs, CAP));
    }

    #[test]
    fn cuts_are_counted() {
        let pieces = |packs: &Packs| packs.pieces.iter().map(|p| (p.row, p.start, p.length)).collect::<Vec<_>>();
        let split = pack(&[5, 2, 3, 1], Strategy::BfdSplit, 4, 10).unwrap();
        assert_eq!(pieces(&split), [(0, 0, 4), (2, 0, 3), (0, 4, 1), (1, 0, 2), (3, 0, 1)]);
        assert_eq!((split.offsets.as_slice(), split.cuts()), ([0, 1, 3, 5].as_slice(), 1));
        let wrapped = pack(&[5, 2, 3, 1], Strategy::Wrapped, 4, 2).unwrap();
        assert_eq!(pieces(&wrapped), [(0, 0, 4), (0, 4, 1), (1, 0, 2), (2, 0, 1), (2, 1, 2), (3, 0, 1)]);
        assert_eq!((wrapped.offsets.as_slice(), wrapped.cuts()), ([0, 1, 4, 6].as_slice(), 2));
    }

    #[test]
    fn what_cannot_be_packed_is_named() {
        let error = pack(&[1, 2, 9, 3], Strategy::Bfd, 4, 2).unwrap_err();
        assert_eq!(error.location.as_deref(), Some("row 2"));
        assert!(Packer::new(Strategy::Bfd, 0, 10).is_err());
        assert!(Packer::new(Strategy::Bfd, u32::MAX, 10).is_err());
        assert!(Packer::new(Strategy::Bfd, 10, 0).is_err());
        assert!("first_fit".parse::<Strategy>().is_err());
    }
}
