//! Best-fit-decreasing over bins that are found by the room they have left.

/// The longest window; tables of this many entries are held.
pub const MAX_CAPACITY: u32 = 1 << 24;

const NONE: u32 = u32::MAX;

/// The tables of one packing after another, kept so that a window of rows costs no allocation.
pub struct Bins {
    capacity: u32,
    /// Which amounts of room some open bin has.
    rooms: Rooms,
    /// The first and last bin of each amount of room, a queue through `next`. Only valid where `rooms` has it.
    first: Vec<u32>,
    last: Vec<u32>,
    next: Vec<u32>,
    order: Vec<u32>,
    counts: Vec<u32>,
    bin_of: Vec<u32>,
    sizes: Vec<u32>,
}

impl Bins {
    /// Tables for windows of `capacity`, which is clamped to `1..=MAX_CAPACITY`.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        let capacity = capacity.clamp(1, MAX_CAPACITY);
        let rooms = capacity as usize + 1;
        Self {
            capacity,
            rooms: Rooms::new(rooms),
            first: vec![NONE; rooms],
            last: vec![NONE; rooms],
            next: Vec::new(),
            order: Vec::new(),
            counts: Vec::new(),
            bin_of: Vec::new(),
            sizes: Vec::new(),
        }
    }

    /// Best-fit-decreasing (Johnson 1973): items in falling order of length, each into the fullest bin that still
    /// holds it. Of equal lengths the earlier item goes first; of bins with equal room, the one that has had it longest.
    ///
    /// Appends the items, bin by bin in the order the bins were opened and each bin's in the order they came, to `rows`
    /// and the end of each bin to `offsets`. A length above the capacity counts as the capacity: the item is alone.
    pub fn assign(&mut self, lengths: &[u32], offsets: &mut Vec<usize>, rows: &mut Vec<u32>) {
        self.sort(lengths);
        self.next.clear();
        self.sizes.clear();
        self.bin_of.clear();
        for &row in &self.order {
            let length = lengths[row as usize].min(self.capacity);
            let (bin, room) = match self.rooms.successor(length as usize) {
                Some(room) => {
                    let bin = self.first[room];
                    let after = self.next[bin as usize];
                    if after == NONE {
                        self.rooms.remove(room);
                    } else {
                        self.first[room] = after;
                    }
                    self.sizes[bin as usize] += 1;
                    (bin, room)
                }
                None => {
                    let bin = u32::try_from(self.sizes.len()).unwrap_or(NONE);
                    self.sizes.push(1);
                    self.next.push(NONE);
                    (bin, self.capacity as usize)
                }
            };
            self.bin_of.push(bin);
            let left = room - length as usize;
            if left > 0 {
                self.next[bin as usize] = NONE;
                if self.rooms.insert(left) {
                    self.first[left] = bin;
                } else {
                    self.next[self.last[left] as usize] = bin;
                }
                self.last[left] = bin;
            }
        }
        self.rooms.clear();
        self.collect(offsets, rows);
    }

    /// `order` becomes the items by falling length, equal ones by number.
    fn sort(&mut self, lengths: &[u32]) {
        let count = u32::try_from(lengths.len()).unwrap_or(NONE);
        let longest = self.capacity as usize;
        self.order.clear();
        // Counting costs a pass over all lengths that there may be, which must not outweigh the items.
        if longest > 8 * lengths.len() {
            self.order.extend(0..count);
            self.order.sort_by_key(|&row| std::cmp::Reverse(lengths[row as usize].min(self.capacity)));
            return;
        }
        self.counts.clear();
        self.counts.resize(longest + 1, 0);
        for &length in lengths {
            self.counts[longest - length.min(self.capacity) as usize] += 1;
        }
        let mut start = 0;
        for count in &mut self.counts {
            start += std::mem::replace(count, start);
        }
        self.order.resize(lengths.len(), 0);
        for (row, &length) in (0..count).zip(lengths) {
            let place = &mut self.counts[longest - length.min(self.capacity) as usize];
            self.order[*place as usize] = row;
            *place += 1;
        }
    }

    fn collect(&mut self, offsets: &mut Vec<usize>, rows: &mut Vec<u32>) {
        let base = rows.len();
        rows.resize(base + self.order.len(), 0);
        let mut start = 0;
        for size in &mut self.sizes {
            start += std::mem::replace(size, start);
            offsets.push(base + start as usize);
        }
        let rows = &mut rows[base..];
        for (&row, &bin) in self.order.iter().zip(&self.bin_of) {
            let place = &mut self.sizes[bin as usize];
            rows[*place as usize] = row;
            *place += 1;
        }
    }
}

/// A set of small numbers that finds the next one at or above a number: bits, and over every 64 words of them a bit
/// that says whether the word holds any.
struct Rooms {
    levels: Vec<Vec<u64>>,
}

impl Rooms {
    fn new(size: usize) -> Self {
        let mut levels = vec![vec![0; size.div_ceil(64)]];
        while let Some(words) = levels.last().map(Vec::len).filter(|&words| words > 1) {
            levels.push(vec![0; words.div_ceil(64)]);
        }
        Self { levels }
    }

    /// Whether it was not there before.
    fn insert(&mut self, value: usize) -> bool {
        let is_new = self.levels[0][value / 64] & (1 << (value % 64)) == 0;
        let mut at = value;
        for level in &mut self.levels {
            let word = &mut level[at / 64];
            let had_any = *word != 0;
            *word |= 1 << (at % 64);
            if had_any {
                break;
            }
            at /= 64;
        }
        is_new
    }

    fn remove(&mut self, value: usize) {
        let mut at = value;
        for level in &mut self.levels {
            let word = &mut level[at / 64];
            *word &= !(1 << (at % 64));
            if *word != 0 {
                break;
            }
            at /= 64;
        }
    }

    fn clear(&mut self) {
        for level in &mut self.levels {
            level.fill(0);
        }
    }

    /// The smallest member that is at least `value`.
    fn successor(&self, value: usize) -> Option<usize> {
        let mut at = value;
        for height in 0..self.levels.len() {
            let above = self.levels[height].get(at / 64).map_or(0, |word| word & (u64::MAX << (at % 64)));
            if above != 0 {
                let mut found = at / 64 * 64 + above.trailing_zeros() as usize;
                for level in self.levels[..height].iter().rev() {
                    found = found * 64 + level[found].trailing_zeros() as usize;
                }
                return Some(found);
            }
            at = at / 64 + 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    // The same rule, by looking at every bin each time; `since` is when a bin came to the room it has.
    fn slow(lengths: &[u32], capacity: u32) -> Vec<Vec<u32>> {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&row| (std::cmp::Reverse(lengths[row]), row));
        let mut bins: Vec<(u32, usize, Vec<u32>)> = Vec::new();
        for (now, row) in order.into_iter().enumerate() {
            let best = (0..bins.len())
                .filter(|&bin| bins[bin].0 >= lengths[row].max(1))
                .min_by_key(|&bin| (bins[bin].0, bins[bin].1));
            let best = best.unwrap_or_else(|| {
                bins.push((capacity, now, Vec::new()));
                bins.len() - 1
            });
            bins[best].0 -= lengths[row];
            bins[best].1 = now;
            bins[best].2.push(u32::try_from(row).unwrap());
        }
        bins.into_iter().map(|bin| bin.2).collect()
    }

    fn packed(bins: &mut Bins, lengths: &[u32]) -> Vec<Vec<u32>> {
        let (mut offsets, mut rows) = (vec![0], Vec::new());
        bins.assign(lengths, &mut offsets, &mut rows);
        offsets.windows(2).map(|ends| rows[ends[0]..ends[1]].to_vec()).collect()
    }

    proptest! {
        #[test]
        fn is_the_slow_twin_and_keeps_every_row_once_within_the_window(
            lengths in prop::collection::vec(0u32..=64, 0..200),
            capacity in prop::sample::select(vec![64u32, 65, 127, 4096, 300_000]),
        ) {
            let mut bins = Bins::new(capacity);
            let windows = packed(&mut bins, &lengths);
            let mut rows: Vec<u32> = windows.iter().flatten().copied().collect();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..u32::try_from(lengths.len()).unwrap()).collect::<Vec<_>>());
            for window in &windows {
                prop_assert!(window.iter().map(|&row| lengths[row as usize]).sum::<u32>() <= capacity);
            }
            prop_assert_eq!(&windows, &slow(&lengths, capacity));
            prop_assert_eq!(packed(&mut bins, &lengths), windows, "tables that were used before");
        }

        #[test]
        fn rooms_are_an_ordered_set(
            size in 1usize..300_000,
            steps in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..200),
        ) {
            let (mut rooms, mut twin) = (Rooms::new(size), BTreeSet::new());
            for (value, is_insert) in steps {
                let value = value.index(size);
                if is_insert {
                    prop_assert_eq!(rooms.insert(value), twin.insert(value));
                } else {
                    rooms.remove(value);
                    twin.remove(&value);
                }
                for from in [0, value / 2, value, value + 1, size - 1] {
                    prop_assert_eq!(rooms.successor(from), twin.range(from..).next().copied());
                }
            }
        }
    }

    #[test]
    fn of_bins_with_equal_room_the_one_that_waited_longest_is_filled() {
        // Bin 1 comes to room 2 with the 6, before bin 0 does with the 3: TRL's queue gives it the 2.
        assert_eq!(packed(&mut Bins::new(20), &[15, 12, 6, 3, 2]), [vec![0, 3], vec![1, 2, 4]]);
    }
}
