//! The draws of a mixture.

use super::rates::{Exhaust, Leaf, Spec};
use crate::error::{Error, Kind, Result};
use crate::order::{Permutation, mix, random};
use serde::{Deserialize, Serialize};

/// Where a mixture stands: all its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The draws that were made.
    pub drawn: u64,
    /// How many of them each source gave.
    pub counts: Vec<u64>,
}

/// A stream of draws: draw t is of the source that a random number of (seed, epoch, t) picks, and of that source's next
/// row, in a random order that is another one for every pass.
///
/// Rank r of w takes the draws r, r + w, ... of this one stream, so nothing depends on how many read it.
#[derive(Debug, Clone)]
pub struct Mixture {
    leaves: Vec<Leaf>,
    exhaust: Exhaust,
    seed: u64,
    at: Position,
    cursors: Vec<Cursor>,
    table: Alias,
}

/// Where a source's pass stands: what its count says, kept so that a draw needs no division.
#[derive(Debug, Clone)]
struct Cursor {
    rows: u64,
    within: u64,
    order: Permutation,
}

impl Mixture {
    /// The draws of one epoch.
    ///
    /// # Errors
    /// As [`Spec::leaves`].
    pub fn new(spec: &Spec, seed: u64, epoch: u64) -> Result<Self> {
        let leaves = spec.leaves()?;
        let mut made = Self {
            at: Position { drawn: 0, counts: vec![0; leaves.len()] },
            exhaust: spec.exhaust,
            seed: mix(seed ^ mix(epoch.wrapping_add(0x6D69_7874_7572_6500))),
            cursors: Vec::new(),
            table: Alias::default(),
            leaves,
        };
        made.settle();
        Ok(made)
    }

    /// The sources, in the order that draws number them.
    #[must_use]
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// The state.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.at
    }

    /// Go on from a state.
    ///
    /// # Errors
    /// The state is not one of this mixture.
    pub fn restore(&mut self, position: Position) -> Result<()> {
        let total = position.counts.iter().try_fold(0u64, |sum, &count| sum.checked_add(count));
        if position.counts.len() != self.leaves.len() || total != Some(position.drawn) {
            return Err(Error::new(Kind::Usage, "the state is not one of this mixture")
                .because(format!(
                    "it counts {} sources and {} draws; there are {} sources",
                    position.counts.len(),
                    position.drawn,
                    self.leaves.len()
                ))
                .fix("make the mixture with the sources that it had when the state was saved"));
        }
        self.at = position;
        self.settle();
        Ok(())
    }

    /// The next draw as (source, row); `None` at the end.
    pub fn draw(&mut self) -> Option<(usize, u64)> {
        let source = self.choose()?;
        let cursor = &self.cursors[source];
        let row = cursor.order.get(cursor.within);
        self.count(source);
        Some((source, row))
    }

    /// Pass over draws, as [`Mixture::draw`] would make them, and return how many there were.
    pub fn skip(&mut self, draws: u64) -> u64 {
        for done in 0..draws {
            let Some(source) = self.choose() else { return done };
            self.count(source);
        }
        draws
    }

    /// The order of one of a source's passes.
    pub(super) fn order(&self, source: usize, pass: u64) -> Permutation {
        Permutation::new(self.leaves[source].rows, mix(self.seed ^ mix(source as u64 + 1)), pass)
    }

    fn cursor(&self, source: usize) -> Cursor {
        let (rows, count) = (self.leaves[source].rows, self.at.counts[source]);
        Cursor { rows, within: count % rows, order: self.order(source, count / rows) }
    }

    #[inline]
    fn choose(&self) -> Option<usize> {
        (!self.table.picks.is_empty()).then(|| self.table.pick(random(self.seed, self.at.drawn)))
    }

    #[inline]
    fn count(&mut self, source: usize) {
        self.at.drawn += 1;
        self.at.counts[source] += 1;
        let cursor = &mut self.cursors[source];
        cursor.within += 1;
        if cursor.within == cursor.rows {
            self.cursors[source] = self.cursor(source);
            if self.exhaust != Exhaust::Repeat {
                self.settle();
            }
        }
    }

    /// Make from the counts what draws need.
    fn settle(&mut self) {
        let is_done =
            |source: usize| self.exhaust != Exhaust::Repeat && self.at.counts[source] >= self.leaves[source].rows;
        let done: Vec<bool> = (0..self.leaves.len()).map(is_done).collect();
        let is_over = self.exhaust == Exhaust::Stop && done.contains(&true);
        let shares: Vec<f64> =
            self.leaves.iter().zip(&done).map(|(leaf, &done)| if done || is_over { 0.0 } else { leaf.share }).collect();
        self.table = Alias::new(&shares);
        self.cursors = (0..self.leaves.len()).map(|source| self.cursor(source)).collect();
    }
}

/// The alias method (Walker 1977; Vose 1991): a draw from any distribution in one step.
#[derive(Debug, Clone, Default)]
struct Alias {
    /// Below the threshold the column's own number, above it the other.
    picks: Vec<(u64, usize)>,
}

impl Alias {
    /// Empty when no share is above 0.
    fn new(shares: &[f64]) -> Self {
        let total: f64 = shares.iter().sum();
        if total.is_nan() || total <= 0.0 {
            return Self::default();
        }
        let mut scaled: Vec<f64> = shares.iter().map(|share| share / total * shares.len() as f64).collect();
        let largest = (0..shares.len()).max_by(|&a, &b| shares[a].total_cmp(&shares[b])).unwrap_or(0);
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..shares.len()).partition(|&at| scaled[at] < 1.0);
        let mut picks: Vec<(u64, usize)> = (0..shares.len()).map(|at| (u64::MAX, at)).collect();
        while let Some(low) = small.pop() {
            // Rounding may leave a small one without a large one: a source of share 0 must not come of that.
            let Some(&high) = large.last() else {
                if shares[low] == 0.0 {
                    picks[low] = (0, largest);
                }
                continue;
            };
            picks[low] = ((scaled[low] * 18_446_744_073_709_551_616.0) as u64, high);
            scaled[high] -= 1.0 - scaled[low];
            if scaled[high] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Self { picks }
    }

    #[inline]
    fn pick(&self, bits: u64) -> usize {
        // The product's upper half is a column, its lower half is uniform within it.
        let wide = u128::from(bits) * self.picks.len() as u128;
        let column = (wide >> 64) as usize;
        let (threshold, other) = self.picks[column];
        if (wide as u64) < threshold { column } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(rows: &[u64], weights: &[f64], exhaust: Exhaust) -> Spec {
        let sources = rows.iter().zip(weights).enumerate().map(|(index, (&rows, &weight))| super::super::Node {
            name: index.to_string(),
            rows: Some(rows),
            weight: Some(weight),
            ..Default::default()
        });
        Spec { sources: sources.collect(), rate: super::super::Rate::Weights, exhaust, ..Default::default() }
    }

    fn take(mixture: &mut Mixture, count: usize) -> Vec<(usize, u64)> {
        std::iter::from_fn(|| mixture.draw()).take(count).collect()
    }

    #[test]
    fn a_million_draws_have_the_shares() {
        let weights = [0.40, 0.32, 0.20, 0.05, 0.03];
        let mut mixture = Mixture::new(&spec(&[1000; 5], &weights, Exhaust::Repeat), 0, 0).unwrap();
        mixture.skip(1_000_000);
        let chi_square: f64 =
            mixture.position().counts.iter().zip(weights).map(|(&n, w)| (n as f64 - w * 1e6).powi(2) / (w * 1e6)).sum();
        assert!(chi_square < 18.467, "the 99.9% point for 4 degrees of freedom: {chi_square}");
    }

    #[test]
    fn every_pass_is_a_permutation_and_another_one() {
        let mut mixture = Mixture::new(&spec(&[40, 7], &[1.0, 1.0], Exhaust::Repeat), 3, 0).unwrap();
        let rows: Vec<u64> = take(&mut mixture, 400).into_iter().filter(|d| d.0 == 0).map(|d| d.1).collect();
        let passes: Vec<&[u64]> = rows.chunks_exact(40).collect();
        assert!(passes.len() > 3 && passes[0] != passes[1] && passes[1] != passes[2]);
        for pass in passes {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..40).collect::<Vec<_>>());
        }
        let mut other = Mixture::new(&spec(&[40, 7], &[1.0, 1.0], Exhaust::Repeat), 3, 1).unwrap();
        mixture.restore(Position { drawn: 0, counts: vec![0, 0] }).unwrap();
        assert_ne!(take(&mut mixture, 50), take(&mut other, 50), "epochs differ");
    }

    #[test]
    fn exhaustion() {
        let draws =
            |exhaust| take(&mut Mixture::new(&spec(&[5, 100, 9], &[1.0, 1.0, 0.0], exhaust), 1, 0).unwrap(), 1000);
        let stop = draws(Exhaust::Stop);
        assert_eq!((stop.iter().filter(|d| d.0 == 0).count(), stop.last().unwrap().0), (5, 0));
        let mut drop = draws(Exhaust::Drop);
        assert_eq!(drop[..stop.len()], stop);
        drop.sort_unstable();
        let all: Vec<(usize, u64)> = (0..5).map(|row| (0, row)).chain((0..100).map(|row| (1, row))).collect();
        assert_eq!(drop, all, "each row once, and nothing of weight 0");
        assert_eq!(draws(Exhaust::Repeat).len(), 1000);
    }

    proptest! {
        #[test]
        fn resumed_draws_and_the_ranks_of_any_world_are_the_one_stream(
            rows in prop::collection::vec(1u64..30, 1..5),
            weights in prop::collection::vec(1.0f64..9.0, 5),
            exhaust in prop::sample::select(vec![Exhaust::Repeat, Exhaust::Stop, Exhaust::Drop]),
            seed: u64,
            stops in prop::array::uniform2(0u64..60),
            world in 1usize..5,
        ) {
            let spec = spec(&rows, &weights, exhaust);
            let new = || Mixture::new(&spec, seed, 0).unwrap();
            let whole = take(&mut new(), 200);
            // Twice in one epoch, the second time after passing over draws.
            let mut first = new();
            let mut parts = take(&mut first, stops[0] as usize);
            let mut second = new();
            second.restore(serde_json::from_str(&serde_json::to_string(first.position()).unwrap()).unwrap()).unwrap();
            parts.extend(take(&mut second, stops[1] as usize));
            let mut third = new();
            third.skip(parts.len() as u64);
            prop_assert_eq!(third.position(), second.position());
            parts.extend(take(&mut third, 200 - parts.len()));
            prop_assert_eq!(&parts, &whole);
            let mut gathered = vec![None; whole.len()];
            for rank in 0..world {
                let mut mixture = new();
                mixture.skip(rank as u64);
                for at in (rank..whole.len()).step_by(world) {
                    gathered[at] = mixture.draw();
                    mixture.skip(world as u64 - 1);
                }
            }
            prop_assert_eq!(gathered.into_iter().flatten().collect::<Vec<_>>(), whole);
        }

        #[test]
        fn the_alias_table_holds_the_shares(shares in prop::collection::vec(0.0f64..1.0, 1..20)) {
            prop_assume!(shares.iter().sum::<f64>() > 0.0);
            let table = Alias::new(&shares);
            let mut mass = vec![0.0; shares.len()];
            for (column, &(threshold, other)) in table.picks.iter().enumerate() {
                let below = threshold as f64 / 18_446_744_073_709_551_616.0;
                mass[column] += below / shares.len() as f64;
                mass[other] += (1.0 - below) / shares.len() as f64;
            }
            let total: f64 = shares.iter().sum();
            for (mass, share) in mass.iter().zip(&shares) {
                prop_assert!((mass - share / total).abs() < 1e-12);
                prop_assert!(*share > 0.0 || *mass == 0.0);
            }
        }
    }
}
