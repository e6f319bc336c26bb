//! What became of the rows, counted with reasons.

use crate::encode::Cut;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Examples that a report keeps of each reason.
const EXAMPLES: usize = 5;

/// How often something happened, and where first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Count {
    /// Rows.
    pub count: u64,
    /// The first few places.
    pub examples: Vec<String>,
}

/// What became of the rows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// The format that was found.
    pub format: String,
    /// Rows that the files hold.
    pub rows: u64,
    /// Rows that are trained on.
    pub used: u64,
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
    /// Rows that were shortened, by how.
    pub truncated: BTreeMap<String, Count>,
    /// Rows that are not trained on, by reason.
    pub dropped: BTreeMap<String, Count>,
    /// Rows whose contents held control tokens as text.
    pub control_text: Count,
    /// What decides the content.
    pub fingerprint: String,
    /// Hash of the Arrow file.
    pub data_xxh3: String,
    /// Whether an earlier set was taken instead of making one.
    #[serde(default)]
    pub reused: bool,
}

impl Report {
    /// A row that is trained on.
    pub(crate) fn used(&mut self, place: &str, cut: Cut, control_text: bool) {
        self.used += 1;
        if let Some(how) = how(cut) {
            self.truncated.entry(how.into()).or_default().add(place);
        }
        if control_text {
            self.control_text.add(place);
        }
    }

    /// A row that is not.
    pub(crate) fn dropped(&mut self, place: &str, reason: String) {
        self.dropped.entry(reason).or_default().add(place);
    }

    /// A window of this many tokens.
    pub(crate) fn window(&mut self, tokens: usize, scored: usize) {
        self.windows += 1;
        self.tokens += tokens as u64;
        self.scored_tokens += scored as u64;
        self.longest = self.longest.max(tokens as u64);
    }

    /// What is known when all windows are.
    pub(crate) fn close(&mut self, max_length: usize) {
        let room = self.windows as f64 * max_length as f64;
        self.fill = if room > 0.0 { self.tokens as f64 / room } else { 0.0 };
    }
}

/// A cut in words.
pub(crate) fn how(cut: Cut) -> Option<&'static str> {
    match cut {
        Cut::Whole => None,
        Cut::AtTurn => Some("cut at a turn border"),
        Cut::Tail => Some("tail of the answer cut"),
    }
}

impl Count {
    pub(crate) fn add(&mut self, place: &str) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(place.to_owned());
        }
    }
}
