//! Cleaning: filters, decontamination, exact and near duplicates, and rows held out for validation.
//!
//! A row goes through these in that order and is dropped for the first reason, so a row that something else drops is
//! never the one that its duplicates are dropped for. Near duplicates need two passes over the rows:
//!
//! ```text
//! let mut cleaner = Cleaner::new(options, folder)?;
//! if cleaner.needs_two_passes() {
//!     for each row, on any thread:    let seen = cleaner.sketch(&records);
//!     for each row, in order:         cleaner.observe(row, seen)?;
//!     cleaner.finish_pass(&pool)?;
//! }
//! for each row, on any thread:        let look = cleaner.look(&records, tokens);
//! for each row, in order:             let dropped = cleaner.verdict(row, &look)?;
//! ```
//!
//! Nothing depends on the number of threads. In memory a row takes 24 to 48 bytes for exact duplicates. For near ones it
//! takes at most 8 bytes (for a moment 15) and some 50 more where others seem like it; on disk about 460 and 4 a word until
//! the first pass is finished, then 270 and 4 a word.

mod contamination;
mod exact;
mod filters;
mod minhash;
mod options;
mod pieces;
mod repetition;
mod sketch;
mod spill;
mod split;
mod texts;
mod words;

pub use contamination::Contamination;
pub use options::{CleanOptions, Dedup, Part};
pub use pieces::{Piece, content_hash, pieces, text_of, turns};
pub use sketch::{Sketch, bands};
pub use split::is_held_out;
pub use texts::TextCleaner;

use crate::error::{Error, Kind, Result};
use crate::record::Record;
use crate::source::Source;
use exact::FirstRows;
use minhash::NearDuplicates;
use std::path::Path;

/// Why a row is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// What is counted; there are few different ones.
    pub reason: String,
    /// The earlier row that this one is like.
    pub like: Option<u32>,
    /// `file:line` of the evaluation set that it overlaps with.
    pub place: Option<String>,
}

impl Dropped {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), like: None, place: None }
    }
}

/// What a row shows by itself, before it is compared with others.
#[derive(Debug, Clone)]
pub struct Look {
    dropped: Option<Dropped>,
    hash: u128,
    /// Whether the row, if it stays, is held out for validation.
    pub held_out: bool,
}

/// Tells which rows to leave out.
pub struct Cleaner {
    options: CleanOptions,
    contamination: Contamination,
    exact: Option<FirstRows>,
    near: Option<NearDuplicates>,
}

impl Cleaner {
    /// A cleaner that reads the evaluation sets of its options; `folder` is where the first pass of near duplicates
    /// keeps files, in a folder of their own that goes away.
    ///
    /// # Errors
    /// An option is out of range, an evaluation set cannot be read, or the folder cannot be written.
    pub fn new(options: CleanOptions, folder: &Path) -> Result<Self> {
        options.check()?;
        let mut contamination = Contamination::new(options.decontaminate_ngram, options.decontaminate_share);
        for path in &options.decontaminate {
            contamination.add_file(&Source::File(path.clone()), &options.decontaminate_columns)?;
        }
        let exact = (options.dedup == Dedup::Exact).then(FirstRows::new);
        let near = match options.dedup {
            Dedup::Minhash => Some(NearDuplicates::new(options.dedup_threshold, folder)?),
            Dedup::None | Dedup::Exact => None,
        };
        Ok(Self { options, contamination, exact, near })
    }

    /// The evaluation sets, to add further texts to.
    pub fn contamination(&mut self) -> &mut Contamination {
        &mut self.contamination
    }

    /// Whether rows must be observed before there are verdicts.
    #[must_use]
    pub fn needs_two_passes(&self) -> bool {
        self.near.is_some()
    }

    /// What the first pass needs of a row; nothing when the row is dropped anyhow.
    #[must_use]
    pub fn sketch(&self, records: &[Record]) -> Option<Sketch> {
        self.sketch_pieces(&pieces(records), turns(records))
    }

    fn sketch_pieces(&self, pieces: &[Piece<'_>], turns: usize) -> Option<Sketch> {
        if self.near.is_none() || self.refused(pieces, turns, None).is_some() {
            return None;
        }
        let part = pieces::compared(pieces, self.options.dedup_on);
        Some(minhash::sketch(pieces::texts(pieces, part), self.options.dedup_ngram))
    }

    /// Take note of a row in the first pass; rows come in order, and rows that are bad need not come.
    ///
    /// # Errors
    /// The disk is full, or the row is out of order.
    pub fn observe(&mut self, row: u64, sketch: Option<Sketch>) -> Result<()> {
        match (&mut self.near, sketch) {
            (Some(near), Some(sketch)) => near.add(number(row)?, &sketch),
            _ => Ok(()),
        }
    }

    /// End the first pass; the threads of the pool sort.
    ///
    /// # Errors
    /// The files of the pass cannot be written or read.
    pub fn finish_pass(&mut self, pool: &rayon::ThreadPool) -> Result<()> {
        self.near.as_mut().map_or(Ok(()), |near| near.close(pool))
    }

    /// Look at a row by itself. `tokens` is the row's length before it is cut, where that is known.
    #[must_use]
    pub fn look(&self, records: &[Record], tokens: Option<usize>) -> Look {
        self.look_pieces(&pieces(records), turns(records), tokens)
    }

    fn look_pieces(&self, pieces: &[Piece<'_>], turns: usize, tokens: Option<usize>) -> Look {
        let options = &self.options;
        let dropped = self.refused(pieces, turns, tokens);
        let wanted = dropped.is_none() && (self.exact.is_some() || options.split_share > 0.0);
        let part = pieces::compared(pieces, options.dedup_on);
        let hash = if wanted { content_hash(pieces, part, options.dedup_fold) } else { 0 };
        let held_out = wanted && is_held_out(hash, options.split_seed, options.split_share);
        Look { dropped, hash, held_out }
    }

    fn refused(&self, pieces: &[Piece<'_>], turns: usize, tokens: Option<usize>) -> Option<Dropped> {
        let text = text_of(pieces, self.options.filter_on);
        if let Some(reason) = filters::refused(&self.options, &text, turns, tokens) {
            return Some(Dropped::new(reason));
        }
        let (file, line) = self.contamination.find(pieces)?;
        Some(Dropped { place: Some(format!("{file}:{line}")), ..Dropped::new(format!("overlaps with {file}")) })
    }

    /// Whether a row is left out, and why; rows come in order.
    ///
    /// # Errors
    /// The first pass is not finished, or there are more than 2^32 rows.
    pub fn verdict(&mut self, row: u64, look: &Look) -> Result<Option<Dropped>> {
        if look.dropped.is_some() {
            return Ok(look.dropped.clone());
        }
        if let Some(exact) = &mut self.exact
            && let Some(first) = exact.enter(look.hash, number(row)?)
        {
            return Ok(Some(Dropped { like: Some(first), ..Dropped::new("exact duplicate") }));
        }
        if let Some(near) = &mut self.near
            && let Some(first) = near.enter(number(row)?)?
        {
            return Ok(Some(Dropped { like: Some(first), ..Dropped::new("near duplicate") }));
        }
        Ok(None)
    }
}

fn number(row: u64) -> Result<u32> {
    u32::try_from(row).map_err(|_| {
        Error::new(Kind::Resource, "more than 4294967295 rows cannot be compared with each other")
            .at("dedup")
            .fix("prepare the set in parts")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::Message;
    use crate::record::{Context, Conversation, Text};

    fn chat(prompt: &str, reply: &str) -> Vec<Record> {
        let messages = vec![Message::text("user", prompt), Message::text("assistant", reply)];
        vec![Record::Conversation(Conversation { messages, context: Context::default() })]
    }

    fn reasons(options: CleanOptions, rows: &[(Vec<Record>, usize)]) -> Vec<Option<String>> {
        let folder = tempfile::tempdir().unwrap();
        let mut cleaner = Cleaner::new(options, folder.path()).unwrap();
        if cleaner.needs_two_passes() {
            for (row, (records, _)) in rows.iter().enumerate() {
                let sketch = cleaner.sketch(records);
                cleaner.observe(row as u64, sketch).unwrap();
            }
            let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
            cleaner.finish_pass(&pool).unwrap();
        }
        let mut verdict = |(row, (records, tokens)): (usize, &(Vec<Record>, usize))| {
            let look = cleaner.look(records, Some(*tokens));
            cleaner.verdict(row as u64, &look).unwrap().map(|dropped| dropped.reason)
        };
        rows.iter().enumerate().map(&mut verdict).collect()
    }

    #[test]
    fn rows_with_the_same_prompt_are_duplicates_when_asked_and_rows_without_one_are_not() {
        let text = |completion: &str| vec![Record::Text(Text { prompt: String::new(), completion: completion.into() })];
        let rows = [chat("question", "one"), chat("question", "two"), text("a"), text("b"), text("a"), vec![]]
            .map(|records| (records, 1));
        for (dedup, reason) in [(Dedup::Exact, "exact duplicate"), (Dedup::Minhash, "near duplicate")] {
            let on = |dedup_on| CleanOptions { dedup, dedup_on, ..CleanOptions::default() };
            let again = Some(reason.to_owned());
            assert_eq!(reasons(on(Part::Prompt), &rows), [None, again.clone(), None, None, again.clone(), None]);
            assert_eq!(reasons(on(Part::Record), &rows), [None, None, None, None, again, None]);
        }
    }

    #[test]
    fn a_row_that_only_its_tokens_drop_leaves_its_place_to_the_next_duplicate() {
        let rows = [5, 50, 50].map(|tokens| (chat("question", "answer"), tokens));
        for (dedup, reason) in [(Dedup::Exact, "exact duplicate"), (Dedup::Minhash, "near duplicate")] {
            let options = CleanOptions { dedup, min_tokens: Some(10), ..CleanOptions::default() };
            let expected = [Some("shorter than min_tokens".into()), None, Some(reason.into())];
            assert_eq!(reasons(options, &rows), expected);
        }
    }

    #[test]
    fn filters_see_the_part_that_is_asked_for() {
        let rows = [(chat("a long question", "ok"), 1), (chat("q", "a long answer"), 1)];
        let options = CleanOptions { filter_on: Part::Reply, min_words: Some(2), ..CleanOptions::default() };
        assert_eq!(reasons(options, &rows), [Some("shorter than min_words".into()), None]);
        let options = CleanOptions { filter_on: Part::Prompt, min_words: Some(2), ..CleanOptions::default() };
        assert_eq!(reasons(options, &rows), [None, Some("shorter than min_words".into())]);
        let options = CleanOptions { min_turns: Some(3), ..CleanOptions::default() };
        assert_eq!(reasons(options, &rows), ["shorter than min_turns"; 2].map(|reason| Some(reason.into())));
    }
}
