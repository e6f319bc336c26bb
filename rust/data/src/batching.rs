//! Batches of rows that are not packed: by tokens, and of similar length.
//!
//! Both are functions of the lengths, the seed and the epoch. No rank or worker takes part: each reads its share of one
//! global list.

use crate::error::{Error, Kind, Result};
use crate::order::Permutation;

/// Where batches of the rows in `order` begin and end: each takes rows in that order while they fit.
///
/// A batch costs the tokens of its rows, or, `padded`, its longest row times its rows; it holds at most `max_rows`.
/// Returns the ends as offsets into `order`, 0 first.
///
/// # Errors
/// A row alone is beyond the budget, there is no such row, or a batch may hold no row.
pub fn by_tokens(lengths: &[u32], order: &[i64], budget: u64, padded: bool, max_rows: usize) -> Result<Vec<i64>> {
    if max_rows == 0 {
        return Err(Error::new(Kind::Usage, "a batch may hold no row").fix("max_rows must be at least 1"));
    }
    let mut offsets = vec![0];
    let (mut rows, mut tokens, mut longest) = (0usize, 0u64, 0u64);
    for (at, &row) in (0i64..).zip(order) {
        let length = usize::try_from(row).ok().and_then(|row| lengths.get(row)).copied().map(u64::from);
        let length = length.ok_or_else(|| Error::new(Kind::Usage, format!("there is no row {row}")))?;
        if length > budget {
            return Err(Error::new(Kind::Usage, format!("a row of {length} tokens is beyond the budget of {budget}"))
                .at(format!("row {row}"))
                .fix("raise the budget, or cut or drop such rows"));
        }
        let cost =
            if padded { longest.max(length).saturating_mul(rows as u64 + 1) } else { tokens.saturating_add(length) };
        if rows == max_rows || cost > budget {
            offsets.push(at);
            (rows, tokens, longest) = (0, 0, 0);
        }
        rows += 1;
        tokens += length;
        longest = longest.max(length);
    }
    if rows > 0 {
        offsets.push(order.len() as i64);
    }
    Ok(offsets)
}

/// An order of all rows in which neighbours have similar lengths, as transformers' `group_by_length`: a random order,
/// cut into mega-batches of `megabatch` batches, each by falling length. The longest row of all comes first, so that a
/// batch that does not fit in memory fails at once.
///
/// # Errors
/// A batch or mega-batch of no rows.
pub fn length_grouped(lengths: &[u32], batch_size: usize, megabatch: usize, seed: u64, epoch: u64) -> Result<Vec<i64>> {
    let size = batch_size.saturating_mul(megabatch);
    if size == 0 {
        return Err(Error::new(Kind::Usage, "a batch has no rows").fix("batch_size and megabatch must be at least 1"));
    }
    let shuffle = Permutation::new(lengths.len() as u64, seed, epoch);
    let mut order: Vec<i64> = (0..lengths.len() as u64).map(|at| shuffle.get(at).cast_signed()).collect();
    let length = |row: i64| lengths[row as usize];
    for rows in order.chunks_mut(size) {
        rows.sort_by_key(|&row| std::cmp::Reverse(length(row)));
    }
    let longest = (0..order.len()).step_by(size).rev().max_by_key(|&at| length(order[at]));
    if let Some(at) = longest {
        order.swap(0, at);
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn batches_keep_the_order_and_the_budget_and_are_as_few_as_order_allows(
            lengths in prop::collection::vec(1u32..50, 0..100),
            budget in 50u64..200,
            padded: bool,
            max_rows in 1usize..9,
        ) {
            let order: Vec<i64> = (0..lengths.len() as i64).rev().collect();
            let offsets = by_tokens(&lengths, &order, budget, padded, max_rows).unwrap();
            let cost = |rows: &[i64]| {
                let each = rows.iter().map(|&row| u64::from(lengths[row as usize]));
                if padded { each.max().unwrap_or(0) * rows.len() as u64 } else { each.sum() }
            };
            prop_assert_eq!((offsets[0], *offsets.last().unwrap()), (0, order.len() as i64));
            for ends in offsets.windows(2) {
                let (start, end) = (ends[0] as usize, ends[1] as usize);
                prop_assert!(start < end && end - start <= max_rows && cost(&order[start..end]) <= budget);
                if end < order.len() {
                    prop_assert!(end - start == max_rows || cost(&order[start..=end]) > budget);
                }
            }
        }

        #[test]
        fn grouping_is_a_permutation_by_falling_length_in_each_mega_batch(
            lengths in prop::collection::vec(1u32..50, 1..300), seed: u64, batch_size in 1usize..5,
        ) {
            let order = length_grouped(&lengths, batch_size, 10, seed, 0).unwrap();
            let mut rows = order.clone();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len() as i64).collect::<Vec<_>>());
            let sorted: Vec<u32> = order.iter().map(|&row| lengths[row as usize]).collect();
            prop_assert_eq!(sorted[0], *lengths.iter().max().unwrap());
            for part in sorted.chunks(batch_size * 10) {
                // The first of a mega-batch may be the one that made room for the longest.
                prop_assert!(part[1..].is_sorted_by(|a, b| a >= b));
            }
        }
    }

    #[test]
    fn epochs_differ_and_wrong_arguments_are_refused() {
        let lengths: Vec<u32> = (0..100).map(|n| n % 7 + 1).collect();
        let take = |epoch| length_grouped(&lengths, 2, 5, 1, epoch).unwrap();
        assert_eq!(take(0), take(0));
        assert_ne!(take(0), take(1));
        assert!(length_grouped(&lengths, 0, 50, 1, 0).is_err());
        assert!(by_tokens(&lengths, &[0, 100], 50, false, 8).is_err());
        assert!(by_tokens(&lengths, &[-1], 50, false, 8).is_err());
        assert!(by_tokens(&lengths, &[6], 6, false, 8).is_err());
        assert!(by_tokens(&lengths, &[6], 7, false, 0).is_err());
        assert_eq!(by_tokens(&lengths, &[], 7, false, 1).unwrap(), [0]);
    }
}
