//! Packing: which rows share a window.

use std::collections::BTreeMap;

/// Best-fit-decreasing (Johnson 1973): rows in falling order of length, each into the fullest window that still
/// holds it. Ties go to the earlier row and the earlier window, so the result depends on the lengths alone.
///
/// Returns windows of row indices, in the order of their first row; rows in a window are in row order. Every length
/// must be at most `capacity`.
#[must_use]
pub fn best_fit_decreasing(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&row| (std::cmp::Reverse(lengths[row]), row));
    let mut windows: Vec<Vec<usize>> = Vec::new();
    // Windows by the room they have left, oldest first among equals.
    let mut by_room: BTreeMap<(usize, usize), ()> = BTreeMap::new();
    for row in order {
        let length = lengths[row];
        debug_assert!(length <= capacity);
        let found = by_room.range((length, 0)..).next().map(|(&key, ())| key);
        let (room, window) = match found {
            Some((room, window)) => {
                by_room.remove(&(room, window));
                (room, window)
            }
            None => {
                windows.push(Vec::new());
                (capacity, windows.len() - 1)
            }
        };
        windows[window].push(row);
        by_room.insert((room - length, window), ());
    }
    for window in &mut windows {
        window.sort_unstable();
    }
    windows.sort_by_key(|window| window[0]);
    windows
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // The same rule, by looking at every window each time.
    fn slow(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&row| (std::cmp::Reverse(lengths[row]), row));
        let mut windows: Vec<(usize, Vec<usize>)> = Vec::new();
        for row in order {
            let best = (0..windows.len()).filter(|&w| windows[w].0 >= lengths[row]).min_by_key(|&w| (windows[w].0, w));
            match best {
                Some(w) => {
                    windows[w].0 -= lengths[row];
                    windows[w].1.push(row);
                }
                None => windows.push((capacity - lengths[row], vec![row])),
            }
        }
        let mut windows: Vec<Vec<usize>> = windows.into_iter().map(|(_, w)| w).collect();
        windows.iter_mut().for_each(|w| w.sort_unstable());
        windows.sort_by_key(|w| w[0]);
        windows
    }

    proptest! {
        #[test]
        fn every_row_once_none_too_full_and_equal_to_the_slow_twin(
            lengths in prop::collection::vec(1usize..=64, 0..200)
        ) {
            let windows = best_fit_decreasing(&lengths, 64);
            let mut rows: Vec<usize> = windows.iter().flatten().copied().collect();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
            for window in &windows {
                prop_assert!(window.iter().map(|&row| lengths[row]).sum::<usize>() <= 64);
            }
            prop_assert_eq!(windows, slow(&lengths, 64));
        }
    }
}
