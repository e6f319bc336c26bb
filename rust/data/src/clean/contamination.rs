//! Rows that share a run of words with an evaluation set.

use super::options::Part;
use super::pieces::{Piece, texts};
use super::words::grams;
use crate::error::{Error, Result};
use crate::source::{Content, MAX_ROW_BYTES, Source};
use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

/// Words below which a text of an evaluation set is left out: "yes" and "42" are answers to everything.
const FEWEST: usize = 4;

/// The n-grams of evaluation sets, as hashes: 12 to 28 bytes each, and no text.
///
/// Hashes have 64 bits, so among E n-grams a row of r n-grams is dropped by mistake with a chance of about
/// E r n / 2^64: below 1e-8 for ten million n-grams and a row of a thousand words.
pub struct Contamination {
    n: usize,
    share: f64,
    files: Vec<String>,
    /// The file and line of each text.
    places: Vec<(u32, u64)>,
    grams: FxHashMap<u64, u32>,
    /// Texts of fewer than n words: they match a message that is the same as a whole.
    whole: FxHashMap<u64, u32>,
    left_out: u64,
}

impl Contamination {
    /// Without texts yet; a row is dropped when more than `share` of its n-grams are found.
    #[must_use]
    pub fn new(n: usize, share: f64) -> Self {
        let (grams, whole) = (FxHashMap::default(), FxHashMap::default());
        Self { n, share, files: Vec::new(), places: Vec::new(), grams, whole, left_out: 0 }
    }

    /// Add the strings of a file's rows: all, or those below `columns`.
    ///
    /// # Errors
    /// The file cannot be read or holds no rows, a row is bad, or a column is in no row.
    pub fn add_file(&mut self, source: &Source, columns: &[String]) -> Result<()> {
        let mut missing: Vec<&String> = columns.iter().collect();
        let mut is_empty = true;
        for line in source.lines(MAX_ROW_BYTES)? {
            let row = line.content.and_then(Content::row).map_err(|error| error.at(line.location))?;
            is_empty = false;
            missing.retain(|column| !row.contains_key(*column));
            self.add_row(&source.name(), line.number, &row, columns);
        }
        if is_empty {
            return Err(Error::data("the evaluation set holds no rows, so that nothing could overlap with it")
                .at(source.name())
                .fix("check the file of decontaminate"));
        }
        if let Some(column) = missing.first() {
            return Err(Error::data(format!("no row of the evaluation set has a column {column:?}"))
                .at(source.name())
                .fix("name its columns with decontaminate_columns, or leave it empty to take all strings"));
        }
        Ok(())
    }

    /// Add the strings of one row: all, or those below `columns`.
    pub fn add_row(&mut self, file: &str, line: u64, row: &Map<String, Value>, columns: &[String]) {
        let mut open: Vec<&Value> = match columns {
            [] => row.values().collect(),
            columns => columns.iter().filter_map(|column| row.get(column)).collect(),
        };
        while let Some(value) = open.pop() {
            match value {
                Value::String(text) => self.add_text(file, line, text),
                Value::Array(items) => open.extend(items),
                Value::Object(fields) => open.extend(fields.values()),
                _ => {}
            }
        }
    }

    /// Add one text.
    pub fn add_text(&mut self, file: &str, line: u64, text: &str) {
        let mut found = Vec::new();
        let count = grams(text, self.n, 0, |gram| found.push(gram));
        if count < FEWEST.min(self.n) {
            self.left_out += u64::from(count > 0);
            return;
        }
        if self.files.last().is_none_or(|last| last != file) {
            self.files.push(file.to_owned());
        }
        let place = self.places.len() as u32;
        self.places.push((self.files.len() as u32 - 1, line));
        let into = if count < self.n { &mut self.whole } else { &mut self.grams };
        for gram in found {
            // The first place that holds an n-gram is named.
            into.entry(gram).or_insert(place);
        }
    }

    /// Texts of evaluation sets that are too short to tell anything.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The first evaluation file and line that a row overlaps with, if it does by more than the share.
    pub(super) fn find(&self, pieces: &[Piece<'_>]) -> Option<(&str, u64)> {
        if self.places.is_empty() {
            return None;
        }
        let (mut total, mut hits, mut first) = (0u64, 0u64, None);
        for piece in texts(pieces, Part::Record) {
            let mut last = None;
            let mut piece_hits = 0;
            let count = grams(piece.content(), self.n, 0, |gram| {
                total += 1;
                last = Some(gram);
                if let Some(&place) = self.grams.get(&gram) {
                    piece_hits += 1;
                    first.get_or_insert(place);
                }
            });
            if count < self.n
                && let Some(&place) = last.and_then(|gram| self.whole.get(&gram))
            {
                piece_hits = 1;
                first.get_or_insert(place);
            }
            hits += piece_hits;
        }
        let (file, line) = self.places[first? as usize];
        (hits as f64 > self.share * total as f64).then(|| (self.files[file as usize].as_str(), line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(contamination: &Contamination, text: &str) -> Option<(String, u64)> {
        contamination.find(&[Piece::text(text)]).map(|(file, line)| (file.to_owned(), line))
    }

    #[test]
    fn a_run_of_words_is_found_whatever_its_case_and_punctuation() {
        let mut set = Contamination::new(5, 0.0);
        let row =
            serde_json::json!({"id": "x", "turns": [{"content": "one two three four five six"}], "answer": "yes"});
        set.add_row("eval.jsonl", 7, row.as_object().unwrap(), &[]);
        set.add_text("other.jsonl", 1, "What is the capital?");
        assert_eq!(set.left_out(), 2);
        assert_eq!(found(&set, "And: TWO, three -- four\nfive; six!"), Some(("eval.jsonl".into(), 7)));
        assert_eq!(found(&set, "two three four five"), None);
        assert_eq!(found(&set, "one two three 4 five six"), None);
        assert_eq!(found(&set, "yes"), None);
        // A short text is found as a whole message only.
        assert_eq!(found(&set, "what is the CAPITAL"), Some(("other.jsonl".into(), 1)));
        assert_eq!(found(&set, "tell me what is the capital"), None);
    }

    #[test]
    fn columns_and_the_share_narrow_it() {
        let row = serde_json::json!({"question": "a b c d e", "answer": "f g h i j"});
        let mut set = Contamination::new(5, 0.0);
        set.add_row("e", 1, row.as_object().unwrap(), &["question".into()]);
        assert!(found(&set, "a b c d e").is_some() && found(&set, "f g h i j").is_none());
        // One n-gram of five is 20%.
        let long = "a b c d e v w x y";
        let mut set = Contamination::new(5, 0.19);
        set.add_text("e", 1, "a b c d e");
        assert!(found(&set, long).is_some());
        let mut set = Contamination::new(5, 0.2);
        set.add_text("e", 1, "a b c d e");
        assert!(found(&set, long).is_none());
    }

    #[test]
    fn a_bad_evaluation_row_or_column_has_a_place() {
        let rows =
            |rows: &[&str]| Source::Memory("eval".into(), rows.iter().map(|row| row.as_bytes().to_vec()).collect());
        let mut set = Contamination::new(13, 0.0);
        let error = set.add_file(&rows(&["{\"a\": \"b\"}", "{"]), &[]).unwrap_err();
        assert_eq!(error.location.as_deref(), Some("eval:2"));
        let error = set.add_file(&rows(&["{\"a\": \"b\"}"]), &["c".into()]).unwrap_err();
        assert!(error.what.contains("\"c\"") && error.location.as_deref() == Some("eval"));
    }
}
