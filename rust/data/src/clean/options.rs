//! What cleaning is asked to do; everything is off by default.

use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How duplicates are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dedup {
    /// They stay.
    #[default]
    None,
    /// The same content.
    Exact,
    /// Nearly the same words (MinHash).
    Minhash,
}

/// Which part of a record counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// All of it.
    #[default]
    Record,
    /// What is answered.
    Prompt,
    /// What is learned: from the last assistant turn on, or all replies.
    Reply,
}

/// What is left out of a set, and which rows are held out for validation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CleanOptions {
    /// How duplicates are told; the first row stays.
    pub dedup: Dedup,
    /// What makes rows duplicates.
    pub dedup_on: Part,
    /// Whether exact duplicates may differ in case, white space and Unicode form (NFC).
    pub dedup_fold: bool,
    /// Jaccard similarity of word n-grams from which rows are near duplicates.
    pub dedup_threshold: f64,
    /// Words of an n-gram of near duplicates.
    pub dedup_ngram: usize,
    /// Files of evaluation sets that no row may overlap with.
    pub decontaminate: Vec<PathBuf>,
    /// Columns of these files that count; empty means all strings.
    pub decontaminate_columns: Vec<String>,
    /// Words that a row must share in sequence with an evaluation set to be dropped.
    pub decontaminate_ngram: usize,
    /// Share of a row's n-grams above which it is dropped; 0 drops it for a single one.
    pub decontaminate_share: f64,
    /// What the filters below look at.
    pub filter_on: Part,
    /// Fewest characters.
    pub min_chars: Option<usize>,
    /// Most characters.
    pub max_chars: Option<usize>,
    /// Fewest words, split at white space.
    pub min_words: Option<usize>,
    /// Most words.
    pub max_words: Option<usize>,
    /// Fewest tokens of the row.
    pub min_tokens: Option<usize>,
    /// Most tokens of the row, before it is cut.
    pub max_tokens: Option<usize>,
    /// Fewest messages of the row.
    pub min_turns: Option<usize>,
    /// Most messages of the row.
    pub max_turns: Option<usize>,
    /// Largest share of characters that are neither letters, digits nor white space.
    pub max_symbols: Option<f64>,
    /// Gopher's limits on repeated lines, paragraphs and n-grams, times this; 1 is the paper's.
    pub max_repetition: Option<f64>,
    /// Share of the rows that is held out for validation, by a hash of the content.
    pub split_share: f64,
    /// Which rows that are.
    pub split_seed: u64,
}

impl Default for CleanOptions {
    fn default() -> Self {
        Self {
            dedup: Dedup::None,
            dedup_on: Part::Record,
            dedup_fold: false,
            dedup_threshold: 0.8,
            dedup_ngram: 5,
            decontaminate: Vec::new(),
            decontaminate_columns: Vec::new(),
            decontaminate_ngram: 13,
            decontaminate_share: 0.0,
            filter_on: Part::Record,
            min_chars: None,
            max_chars: None,
            min_words: None,
            max_words: None,
            min_tokens: None,
            max_tokens: None,
            min_turns: None,
            max_turns: None,
            max_symbols: None,
            max_repetition: None,
            split_share: 0.0,
            split_seed: 0,
        }
    }
}

impl CleanOptions {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.dedup == Dedup::None
            && self.decontaminate.is_empty()
            && self.split_share == 0.0
            && [
                self.min_chars,
                self.max_chars,
                self.min_words,
                self.max_words,
                self.min_tokens,
                self.max_tokens,
                self.min_turns,
                self.max_turns,
            ]
            .iter()
            .all(Option::is_none)
            && self.max_symbols.is_none()
            && self.max_repetition.is_none()
    }

    /// Refuse values that mean nothing.
    ///
    /// # Errors
    /// Names the option and what it may be.
    pub fn check(&self) -> Result<()> {
        let wrong = |name: &str, value: String, fix: &str| {
            Err(Error::new(Kind::Usage, format!("{name} is {value}")).at(name).fix(format!("it must be {fix}")))
        };
        if !(self.dedup_threshold > 0.0 && self.dedup_threshold <= 1.0) {
            return wrong("dedup_threshold", self.dedup_threshold.to_string(), "above 0 and at most 1");
        }
        for (name, n) in [("dedup_ngram", self.dedup_ngram), ("decontaminate_ngram", self.decontaminate_ngram)] {
            if !(1..=100).contains(&n) {
                return wrong(name, n.to_string(), "from 1 to 100");
            }
        }
        for (name, share) in [("decontaminate_share", self.decontaminate_share), ("split_share", self.split_share)] {
            if !(0.0..1.0).contains(&share) {
                return wrong(name, share.to_string(), "at least 0 and below 1");
            }
        }
        for (name, limit) in [("max_symbols", self.max_symbols), ("max_repetition", self.max_repetition)] {
            if limit.is_some_and(|limit| !(limit >= 0.0 && limit.is_finite())) {
                return wrong(name, format!("{:?}", limit.unwrap_or_default()), "at least 0");
            }
        }
        for (name, low, high) in [
            ("chars", self.min_chars, self.max_chars),
            ("words", self.min_words, self.max_words),
            ("tokens", self.min_tokens, self.max_tokens),
            ("turns", self.min_turns, self.max_turns),
        ] {
            if let (Some(low), Some(high)) = (low, high)
                && low > high
            {
                return wrong(&format!("min_{name}"), low.to_string(), &format!("at most max_{name}, {high}"));
            }
        }
        Ok(())
    }
}
