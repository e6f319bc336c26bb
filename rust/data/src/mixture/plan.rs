//! How often each row is taken, for a reader that streams files and cannot jump to drawn rows.

use super::draws::Mixture;
use super::joined::Joined;
use crate::error::{Error, Result};
use crate::order::Permutation;
use crate::source::{MAX_ROW_BYTES, Source, is_fatal};
use std::collections::BTreeMap;
use std::io::Write;

/// What was written of a plan.
#[derive(Debug, Default)]
pub struct Written {
    /// Draws.
    pub drawn: u64,
    /// Rows of the output: more than draws where a row holds several examples.
    pub rows: u64,
    /// By the name of a field, the draws that had it and were written without it.
    pub lost: BTreeMap<String, u64>,
}

pub(super) fn count(lost: &mut BTreeMap<String, u64>, name: String, copies: u64) {
    *lost.entry(name).or_default() += copies;
}

/// The draws of a stretch of a mixture's stream, as counts: O(1) memory for each source.
///
/// A source's rows are drawn pass after pass, each a permutation; what a stretch takes is a part of its first pass, whole
/// passes, and a part of its last one.
#[derive(Debug, Clone)]
pub struct Plan {
    parts: Vec<Part>,
    drawn: u64,
}

#[derive(Debug, Clone)]
struct Part {
    rows: u64,
    before: u64,
    after: u64,
    first: Permutation,
    last: Permutation,
}

impl Plan {
    /// The next `total` draws of a mixture, or as many as there are; the mixture is moved behind them.
    #[must_use]
    pub fn take(mixture: &mut Mixture, total: u64) -> Self {
        let before = mixture.position().clone();
        let drawn = mixture.skip(total);
        let parts = mixture.leaves().iter().enumerate().map(|(source, leaf)| {
            let (before, after) = (before.counts[source], mixture.position().counts[source]);
            let order = |count: u64| mixture.order(source, count / leaf.rows);
            Part { rows: leaf.rows, before, after, first: order(before), last: order(after) }
        });
        Self { parts: parts.collect(), drawn }
    }

    /// How many draws there are.
    #[must_use]
    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// How many draws are of a source.
    #[must_use]
    pub fn documents(&self, source: usize) -> u64 {
        self.parts[source].after - self.parts[source].before
    }

    /// How often the draws take this row, which must be below the source's rows.
    #[must_use]
    pub fn copies(&self, source: usize, row: u64) -> u64 {
        let part = &self.parts[source];
        // The times that a row is taken by the first `count` draws of its source.
        let taken = |count: u64, order: &Permutation| {
            count / part.rows + u64::from(!count.is_multiple_of(part.rows) && order.position(row) < count % part.rows)
        };
        taken(part.after, &part.last) - taken(part.before, &part.first)
    }

    /// Write the drawn rows of files, source by source, each row as often as it is drawn.
    ///
    /// # Errors
    /// A file cannot be read or holds other than the rows that were counted, a row cannot be written as the others, or
    /// `out` cannot be written.
    pub fn write(
        &self,
        sources: &[Vec<Source>],
        joined: &Joined,
        out: &mut impl Write,
        tick: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Written> {
        let mut written = Written::default();
        for (source, (part, files)) in self.parts.iter().zip(sources).enumerate() {
            let mut row = 0;
            for (index, file) in files.iter().enumerate() {
                for line in file.lines(MAX_ROW_BYTES)? {
                    if row >= part.rows {
                        return Err(changed(&file.name()));
                    }
                    let copies = self.copies(source, row);
                    row += 1;
                    if copies > 0 {
                        let lines = line
                            .content
                            .and_then(|content| joined.lines((source, index), content, copies, &mut written.lost));
                        let (bytes, rows) = lines.map_err(|error| misfit(error, &line.location))?;
                        for _ in 0..copies {
                            out.write_all(&bytes).map_err(|error| {
                                Error::new(crate::error::Kind::Resource, "the output cannot be written")
                                    .because(error)
                                    .fix("check the folder and the free space")
                            })?;
                        }
                        written.drawn += copies;
                        written.rows += copies * rows;
                    }
                    if !tick(written.drawn) {
                        return Err(Error::new(crate::error::Kind::Interrupted, "stopped"));
                    }
                }
            }
            if row != part.rows {
                return Err(changed(&files.last().map(Source::name).unwrap_or_default()));
            }
        }
        Ok(written)
    }
}

/// A drawn row that cannot be written: its own place inside the row goes before what is wrong.
fn misfit(mut error: Error, place: &str) -> Error {
    if let Some(inner) = error.location.replace(place.to_owned())
        && inner != place
    {
        error.what = format!("{inner}: {}", error.what);
    }
    if error.fix.is_none() {
        error.fix = Some("mend the row, or make the source with alignite convert --on_bad_row skip".into());
    }
    error
}

fn changed(name: &str) -> Error {
    Error::data("the file has not the rows that were counted").at(name).fix("let nothing write to it, and run again")
}

/// The rows of each file: its lines that hold more than white space.
///
/// # Errors
/// A file cannot be opened, or breaks off.
pub fn count_rows(files: &[Source]) -> Result<Vec<u64>> {
    files
        .iter()
        .map(|file| {
            let mut rows = 0;
            for line in file.lines(MAX_ROW_BYTES)? {
                match line.content {
                    Err(error) if is_fatal(&error) => return Err(error),
                    _ => rows += 1,
                }
            }
            Ok(rows)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixture::{Exhaust, Node, Spec};
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn spec(rows: &[u64], exhaust: Exhaust) -> Spec {
        let node =
            |(index, &rows): (usize, &u64)| Node { name: index.to_string(), rows: Some(rows), ..Default::default() };
        Spec {
            sources: rows.iter().enumerate().map(node).collect(),
            temperature: Some(3.0),
            exhaust,
            ..Default::default()
        }
    }

    proptest! {
        #[test]
        fn a_plan_has_the_counts_of_the_draws(
            rows in prop::collection::vec(1u64..30, 1..4),
            exhaust in prop::sample::select(vec![Exhaust::Repeat, Exhaust::Stop, Exhaust::Drop]),
            seed: u64,
            skipped in 0u64..50,
            total in 0u64..200,
        ) {
            let mut mixture = Mixture::new(&spec(&rows, exhaust), seed, 0).unwrap();
            mixture.skip(skipped);
            let mut draws = mixture.clone();
            let plan = Plan::take(&mut mixture, total);
            let mut counts: HashMap<(usize, u64), u64> = HashMap::new();
            for _ in 0..total {
                if let Some(draw) = draws.draw() {
                    *counts.entry(draw).or_default() += 1;
                }
            }
            prop_assert_eq!(draws.position(), mixture.position());
            prop_assert_eq!(plan.drawn(), counts.values().sum::<u64>());
            for (source, &rows) in rows.iter().enumerate() {
                for row in 0..rows {
                    prop_assert_eq!(plan.copies(source, row), counts.get(&(source, row)).copied().unwrap_or(0));
                }
            }
        }
    }

    #[test]
    fn the_drawn_rows_are_written_and_a_changed_file_is_noticed() {
        let lines = |name: &str, count: usize| {
            Source::Memory(name.into(), (0..count).map(|row| format!("{name}{row}").into_bytes()).collect())
        };
        let sources = [vec![lines("a", 3), lines("b", 2)], vec![lines("c", 4)]];
        assert_eq!(count_rows(&sources[0]).unwrap(), [3, 2]);
        let plan = Plan::take(&mut Mixture::new(&spec(&[5, 4], Exhaust::Repeat), 0, 0).unwrap(), 40);
        let mut out = Vec::new();
        assert_eq!(plan.write(&sources, &Joined::default(), &mut out, &mut |_| true).unwrap().rows, 40);
        let names = ["a0", "a1", "a2", "b0", "b1"];
        let expected: String = (0..2)
            .flat_map(|source| (0..[5, 4][source]).map(move |row| (source, row)))
            .map(|(source, row)| {
                let name = if source == 0 { names[row].to_owned() } else { format!("c{row}") };
                format!("{name}\n").repeat(plan.copies(source, row as u64) as usize)
            })
            .collect();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let shorter = [vec![lines("a", 3)], vec![lines("c", 4)]];
        assert!(plan.write(&shorter, &Joined::default(), &mut Vec::new(), &mut |_| true).is_err());
    }
}
