//! Cleaning of plain texts that a caller holds, on threads of its own.

use super::{CleanOptions, Cleaner, Contamination, Dropped, Look, Piece};
use crate::error::{Error, Kind, Result};
use rayon::prelude::*;
use std::path::Path;

/// A [`Cleaner`] of texts, a chunk at a time; rows are counted from 0 in each pass.
pub struct TextCleaner {
    cleaner: Cleaner,
    pool: rayon::ThreadPool,
    observed: u64,
    judged: u64,
}

impl TextCleaner {
    /// As [`Cleaner::new`]; 0 threads are all cores.
    ///
    /// # Errors
    /// As [`Cleaner::new`], or threads cannot be started.
    pub fn new(options: CleanOptions, folder: &Path, num_threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(crate::rows::threads(num_threads))
            .build()
            .map_err(|e| Error::new(Kind::Resource, "cannot start worker threads").because(e))?;
        Ok(Self { cleaner: Cleaner::new(options, folder)?, pool, observed: 0, judged: 0 })
    }

    /// The evaluation sets, to add texts to.
    pub fn contamination(&mut self) -> &mut Contamination {
        self.cleaner.contamination()
    }

    /// Whether texts must be observed before they are judged.
    #[must_use]
    pub fn needs_two_passes(&self) -> bool {
        self.cleaner.needs_two_passes()
    }

    /// The next texts of the first pass.
    ///
    /// # Errors
    /// As [`Cleaner::observe`].
    pub fn observe(&mut self, texts: &[&str]) -> Result<()> {
        let cleaner = &self.cleaner;
        let each = |text: &&str| cleaner.sketch_pieces(&[Piece::text(text)], 1);
        let sketches: Vec<_> = self.pool.install(|| texts.par_iter().map(each).collect());
        for sketch in sketches {
            self.cleaner.observe(self.observed, sketch)?;
            self.observed += 1;
        }
        Ok(())
    }

    /// End the first pass.
    ///
    /// # Errors
    /// As [`Cleaner::finish_pass`].
    pub fn finish_pass(&mut self) -> Result<()> {
        self.cleaner.finish_pass(&self.pool)
    }

    /// Of each of the next texts, why it is left out, and whether it is held out for validation if it is not.
    ///
    /// # Errors
    /// As [`Cleaner::verdict`].
    pub fn judge(&mut self, texts: &[&str]) -> Result<Vec<(Option<Dropped>, bool)>> {
        let cleaner = &self.cleaner;
        let each = |text: &&str| cleaner.look_pieces(&[Piece::text(text)], 1, None);
        let looks: Vec<Look> = self.pool.install(|| texts.par_iter().map(each).collect());
        let mut judged = Vec::with_capacity(texts.len());
        for look in looks {
            let dropped = self.cleaner.verdict(self.judged, &look)?;
            self.judged += 1;
            judged.push((dropped, look.held_out));
        }
        Ok(judged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clean::Dedup;
    use proptest::prelude::*;

    type Verdict = (Option<Dropped>, bool);

    fn run(options: &CleanOptions, texts: &[&str], threads: usize, chunk: usize) -> Vec<Verdict> {
        let folder = tempfile::tempdir().unwrap();
        let mut cleaner = TextCleaner::new(options.clone(), folder.path(), threads).unwrap();
        if cleaner.needs_two_passes() {
            for texts in texts.chunks(chunk) {
                cleaner.observe(texts).unwrap();
            }
            cleaner.finish_pass().unwrap();
        }
        texts.chunks(chunk).flat_map(|texts| cleaner.judge(texts).unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn the_first_stays_and_cleaning_again_drops_nothing(
            picks in prop::collection::vec((0usize..12, 0usize..3), 0..60),
            minhash in any::<bool>(),
            min_chars in prop::option::of(0usize..200),
        ) {
            // Texts of one source are variants of each other: the same, or one word more.
            let sources: Vec<String> = (0..12).map(|i| (0..40).map(|j| format!("s{i}w{j} ")).collect()).collect();
            let texts: Vec<String> =
                picks.iter().map(|&(source, more)| sources[source].clone() + ["", "one", "two"][more]).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let dedup = if minhash { Dedup::Minhash } else { Dedup::Exact };
            let options = CleanOptions { dedup, min_chars, split_share: 0.5, ..CleanOptions::default() };
            let verdicts = run(&options, &texts, 1, 100);
            prop_assert_eq!(&verdicts, &run(&options, &texts, 3, 7));
            let same = |a: usize, b: usize| if minhash { picks[a].0 == picks[b].0 } else { picks[a] == picks[b] };
            let long = |row: usize| texts[row].chars().count() >= min_chars.unwrap_or(0);
            for (row, (dropped, _)) in verdicts.iter().enumerate() {
                let first = (0..row).find(|&earlier| long(earlier) && same(earlier, row));
                let expected = match (long(row), first) {
                    (false, _) => Some(("shorter than min_chars", None)),
                    (true, Some(first)) => Some((if minhash { "near duplicate" } else { "exact duplicate" }, Some(first as u32))),
                    (true, None) => None,
                };
                let found = dropped.as_ref().map(|dropped| (dropped.reason.as_str(), dropped.like));
                prop_assert_eq!(found, expected);
            }
            let kept: Vec<(&str, bool)> =
                texts.iter().zip(&verdicts).filter(|(_, v)| v.0.is_none()).map(|(text, v)| (*text, v.1)).collect();
            let again = run(&options, &kept.iter().map(|kept| kept.0).collect::<Vec<_>>(), 1, 100);
            for ((_, held_out), verdict) in kept.iter().zip(&again) {
                prop_assert_eq!(verdict, &(None, *held_out));
            }
        }
    }

    #[test]
    fn the_first_row_that_passes_all_else_stays_for_its_near_duplicates() {
        let text: String = (0..60).map(|i| format!("w{i} ")).collect();
        let (short, long) = (text.trim_end().to_owned(), text.clone() + "and more");
        let options = CleanOptions { dedup: Dedup::Minhash, min_words: Some(61), ..CleanOptions::default() };
        let reasons: Vec<Option<String>> = run(&options, &[&short, &long, &long], 1, 100)
            .into_iter()
            .map(|(dropped, _)| dropped.map(|dropped| dropped.reason))
            .collect();
        assert_eq!(reasons, [Some("shorter than min_words".into()), None, Some("near duplicate".into())]);
    }

    #[test]
    fn an_evaluation_set_is_named_with_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("eval.jsonl");
        std::fs::write(&file, "{\"q\": \"one two three\"}\n{\"q\": \"a b c d e f g\"}\n").unwrap();
        let options =
            CleanOptions { decontaminate: vec![file.clone()], decontaminate_ngram: 6, ..CleanOptions::default() };
        let verdicts = run(&options, &["x A, B, C, D, E, F y", "a b c d e"], 2, 100);
        let dropped = verdicts[0].0.as_ref().unwrap();
        assert_eq!(dropped.reason, format!("overlaps with {}", file.display()));
        assert_eq!(dropped.place, Some(format!("{}:2", file.display())));
        assert_eq!(verdicts[1].0, None);
    }

    #[test]
    fn one_giant_text_and_many_empty_ones_are_rows_like_others() {
        let giant = "a lot of words that say the same again and again ".repeat(420_000);
        let texts = ["", giant.as_str(), "", &giant[..giant.len() - 1]];
        let options = CleanOptions { dedup: Dedup::Minhash, ..CleanOptions::default() };
        let likes: Vec<Option<u32>> =
            run(&options, &texts, 2, 2).into_iter().map(|(dropped, _)| dropped.and_then(|d| d.like)).collect();
        assert_eq!(likes, [None, None, Some(0), Some(1)]);
    }

    #[test]
    fn options_that_mean_nothing_are_refused_by_name() {
        let default = CleanOptions::default;
        for (name, options) in [
            ("dedup_threshold", CleanOptions { dedup_threshold: f64::NAN, ..default() }),
            ("dedup_ngram", CleanOptions { dedup_ngram: 0, ..default() }),
            ("decontaminate_ngram", CleanOptions { decontaminate_ngram: 0, ..default() }),
            ("split_share", CleanOptions { split_share: 1.0, ..default() }),
            ("max_symbols", CleanOptions { max_symbols: Some(-0.1), ..default() }),
            ("min_chars", CleanOptions { min_chars: Some(2), max_chars: Some(1), ..default() }),
        ] {
            let error = TextCleaner::new(options, Path::new("."), 1).err().unwrap();
            assert_eq!((error.kind, error.location.as_deref()), (Kind::Usage, Some(name)));
        }
        assert!(default().is_off() && default().check().is_ok());
    }
}
