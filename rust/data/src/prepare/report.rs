//! What became of the rows, counted with reasons.

use crate::encode::Cut;
use crate::prepared::Part;
use crate::prepared::block::Window;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Examples that a report keeps of each reason.
const EXAMPLES: usize = 5;
/// What is said of a set without windows.
const EMPTY: &str = "the set is empty: no row of this shard or part is trained on";
/// Columns that are named; a file whose rows have keys of their own could have any number.
const MAX_COLUMNS: usize = 1000;

/// How often something happened, and where first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Rows.
    pub count: u64,
    /// The first few places.
    pub examples: Vec<String>,
    /// Their rows' numbers, in work that is to be joined: the first few of all shards are told by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<u64>,
}

/// What became of the rows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// The format that was found; formats, where files differ.
    pub format: String,
    /// Columns that the format does not read.
    #[serde(default)]
    pub unused_columns: Vec<String>,
    /// Rows that the files hold.
    pub rows: u64,
    /// Rows that are trained on.
    pub used: u64,
    /// Records in them; a row may hold several, and a mixture may take a row more than once.
    #[serde(default)]
    pub records: u64,
    /// Windows that were written.
    pub windows: u64,
    /// Tokens in them.
    pub tokens: u64,
    /// Scored tokens in them.
    pub scored_tokens: u64,
    /// Tokens as a share of windows times max_length.
    pub fill: f64,
    /// The longest window in tokens.
    pub longest: u64,
    /// Records that were shortened or split, by how.
    pub truncated: BTreeMap<String, Count>,
    /// Rows that are not trained on, by reason.
    pub dropped: BTreeMap<String, Count>,
    /// Rows that belong to the other part of a split.
    #[serde(default)]
    pub held_out: u64,
    /// Those among the dropped that could not be read.
    #[serde(default)]
    pub bad: u64,
    /// Records that are not, of rows of which others are, by reason.
    #[serde(default)]
    pub dropped_records: BTreeMap<String, Count>,
    /// Rows that are trained on and worth a look, by what they hold: reasoning that the template does not write, say.
    #[serde(default)]
    pub noticed: BTreeMap<String, Count>,
    /// Rows whose contents held control tokens as text.
    pub control_text: Count,
    /// Scored tokens that lost their loss as the first of a piece.
    #[serde(default)]
    pub lost_labels: u64,
    /// The files, as `sources` numbers them.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Hashes of what they held, in the same order.
    #[serde(default)]
    pub source_prints: Vec<String>,
    /// What ran, where it was not the usual: a slower tokenizer or template, and why.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What decides the content.
    pub fingerprint: String,
    /// What decides it but the data: options, tokenizer, template.
    #[serde(default)]
    pub identity: String,
    /// The same without what makes shards differ: sets that may be merged share it.
    #[serde(default)]
    pub base: String,
    /// Which part of the rows this is, as (number, of), when there are others.
    #[serde(default)]
    pub shard: Option<(u64, u64)>,
    /// Fingerprints of what was appended.
    #[serde(default)]
    pub appended: Vec<String>,
    /// The date that the template saw, YYYY-MM-DD; none when it does not ask for one.
    #[serde(default)]
    pub template_date: Option<String>,
    /// The Arrow files.
    #[serde(default)]
    pub parts: Vec<Part>,
    /// Whether an earlier set was taken instead of making one.
    #[serde(default)]
    pub reused: bool,
    /// Rows and tokens that were worked on in this call; not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<(u64, u64)>,
}

impl Report {
    /// A row that is trained on.
    pub(crate) fn used(&mut self, row: u64, place: &str, control_text: bool, notices: &BTreeSet<&'static str>) {
        self.used += 1;
        for &notice in notices {
            self.noticed.entry(notice.into()).or_default().add_row(row, place);
        }
        if control_text {
            self.control_text.add_row(row, place);
        }
    }

    /// Columns that the format does not read.
    pub(crate) fn unused(&mut self, columns: Vec<String>) {
        for column in columns {
            if self.unused_columns.len() < MAX_COLUMNS && !self.unused_columns.contains(&column) {
                self.unused_columns.push(column);
            }
        }
    }

    /// A record of it, and how it was shortened; what the packer splits is counted by the packer.
    pub(crate) fn record(&mut self, row: u64, place: &str, cut: Cut) {
        self.records += 1;
        if let Some(how) = how(cut).filter(|_| cut != Cut::Split) {
            self.truncated.entry(how.into()).or_default().add_row(row, place);
        }
    }

    /// A row that is not, or a record of one.
    pub(crate) fn dropped(&mut self, row: u64, place: &str, reason: String) {
        self.dropped.entry(reason).or_default().add_row(row, place);
    }

    /// Say something about the set, once.
    pub(crate) fn say(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// What a set is called that nothing came to.
    pub(super) fn say_if_empty(&mut self) {
        if self.windows == 0 {
            self.say(EMPTY.into());
        }
    }

    /// Leave out the numbers of the examples' rows, which only joining needs.
    pub(crate) fn forget_rows(&mut self) {
        let counts = [&mut self.truncated, &mut self.dropped, &mut self.dropped_records, &mut self.noticed].into_iter();
        counts.flat_map(BTreeMap::values_mut).chain([&mut self.control_text]).for_each(|count| count.rows.clear());
    }

    /// A window.
    pub(crate) fn window(&mut self, window: Window) {
        self.windows += 1;
        self.tokens += window.tokens as u64;
        self.scored_tokens += window.scored as u64;
        self.longest = self.longest.max(window.tokens as u64);
    }

    /// What is known when all windows are.
    pub(crate) fn close(&mut self, max_length: usize) {
        self.unused_columns.sort_unstable();
        let room = self.windows as f64 * max_length as f64;
        self.fill = if room > 0.0 { self.tokens as f64 / room } else { 0.0 };
    }

    /// Add another set's counts.
    pub(crate) fn add(&mut self, other: &Self) {
        for name in other.format.split(", ").filter(|name| !name.is_empty()) {
            if self.format.is_empty() {
                self.format = name.into();
            } else if !self.format.split(", ").any(|known| known == name) {
                self.format = format!("{}, {name}", self.format);
            }
        }
        self.unused(other.unused_columns.clone());
        // One shard's emptiness is not the set's.
        other.notes.iter().filter(|note| *note != EMPTY).for_each(|note| self.say(note.clone()));
        self.rows += other.rows;
        self.used += other.used;
        self.records += other.records;
        self.windows += other.windows;
        self.tokens += other.tokens;
        self.scored_tokens += other.scored_tokens;
        self.longest = self.longest.max(other.longest);
        self.bad += other.bad;
        self.held_out += other.held_out;
        self.lost_labels += other.lost_labels;
        self.control_text.join(&other.control_text);
        for (mine, theirs) in [
            (&mut self.truncated, &other.truncated),
            (&mut self.dropped, &other.dropped),
            (&mut self.dropped_records, &other.dropped_records),
            (&mut self.noticed, &other.noticed),
        ] {
            for (reason, count) in theirs {
                mine.entry(reason.clone()).or_default().join(count);
            }
        }
    }
}

/// What happens to a record that a window's border tears.
pub(crate) const SPLIT: &str = "split into pieces";

/// A cut in words.
pub(crate) fn how(cut: Cut) -> Option<&'static str> {
    match cut {
        Cut::Whole => None,
        Cut::AtTurn => Some("cut at a turn border"),
        Cut::Tail => Some("tail of the answer cut"),
        Cut::Prompt => Some("old turns of the prompt left out"),
        Cut::Split => Some(SPLIT),
    }
}

impl Count {
    pub(crate) fn add(&mut self, place: &str) {
        self.count += 1;
        // Several records of a row stand in one place.
        if self.examples.len() < EXAMPLES && self.examples.last().is_none_or(|last| last != place) {
            self.examples.push(place.to_owned());
        }
    }

    pub(crate) fn add_row(&mut self, row: u64, place: &str) {
        let known = self.examples.len();
        self.add(place);
        if self.examples.len() > known {
            self.rows.push(row);
        }
    }

    /// The first places by the rows' numbers, where both know them.
    fn join(&mut self, other: &Self) {
        self.count += other.count;
        let rows = std::mem::take(&mut self.rows).into_iter().chain(other.rows.iter().copied());
        let examples = std::mem::take(&mut self.examples).into_iter().chain(other.examples.iter().cloned());
        let mut all: Vec<(u64, String)> = rows.zip(examples).collect();
        all.sort_by_key(|(row, _)| *row);
        all.truncate(EXAMPLES);
        (self.rows, self.examples) = all.into_iter().unzip();
    }
}
