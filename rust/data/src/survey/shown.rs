//! One row in full: its text in pieces, with what becomes of each.

use crate::encode::{Cut, Encoder, IGNORE, Kept, Left, Whole};
use crate::error::Error;
use crate::prepare::how;
use crate::record::Record;
use crate::rows::Spot;
use serde::Serialize;
use serde_json::{Map, Value};
use std::ops::Range;

/// Characters that are shown of a row that has no tokens.
const HEAD: usize = 400;

/// A row as a reader wants to see it.
#[derive(Debug, Default, Serialize)]
pub struct Shown {
    /// The row, counted from 0 over all sources.
    pub row: u64,
    /// `file:line`.
    pub place: String,
    /// "used", "cut", "dropped" or "bad".
    pub fate: &'static str,
    /// How it was cut, or why it is left out.
    pub reason: Option<String>,
    /// More about a bad row.
    pub why: Option<String>,
    /// How a bad row can be mended.
    pub fix: Option<String>,
    /// The start of the row's line, when there are no tokens to show.
    pub line: Option<String>,
    /// Tokens before the row is cut.
    pub tokens: usize,
    /// Scored tokens before the row is cut.
    pub scored_tokens: usize,
    /// Tokens that are trained on: the first so many.
    pub kept_tokens: usize,
    /// Scored tokens among them.
    pub kept_scored_tokens: usize,
    /// What the row itself says; the rest is the template's.
    pub turns: Vec<Turn>,
    /// The whole text, before it is cut.
    pub pieces: Vec<Piece>,
}

/// The tokens of one content.
#[derive(Debug, PartialEq, Serialize)]
pub struct Turn {
    /// A message's role; prompt or completion for raw text.
    pub role: String,
    /// Its first token.
    pub start: usize,
    /// The token after its last.
    pub stop: usize,
    /// How much its tokens count.
    pub weight: f32,
}

/// The fewest tokens that are whole characters together.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// The characters; U+FFFD where the cut goes through a character.
    pub text: String,
    /// The place of the first of `ids` in the row.
    pub position: usize,
    /// The tokens; none for text that the tokenizer leaves out.
    pub ids: Vec<u32>,
    /// Whether the model is to say it.
    pub scored: bool,
    /// "text", "control" for a control token, or "literal" for text that reads like one.
    pub kind: &'static str,
}

impl Shown {
    pub(super) fn tokens(spot: &Spot, encoder: &Encoder, whole: &Whole, fate: Kept<(usize, Cut)>) -> Self {
        let (kept, reason) = match fate {
            Ok((kept, cut)) => (kept, how(cut)),
            Err(Left(reason)) => (0, Some(reason)),
        };
        let scored = |labels: &[i32]| labels.iter().filter(|&&label| label != IGNORE).count();
        let turn = |(role, range): &(String, Range<usize>)| {
            let start = whole.tokens.ending_by(range.start);
            let stop = whole.tokens.starting_before(range.end);
            let stop = stop.max(start);
            let scored = (start..stop).find(|&at| whole.labels[at] != IGNORE);
            let weight = scored.and_then(|at| whole.weights.get(at).copied()).unwrap_or(1.0);
            Turn { role: role.clone(), start, stop, weight }
        };
        Self {
            row: spot.id,
            place: spot.place.clone(),
            fate: match (fate, reason) {
                (Err(_), _) => "dropped",
                (Ok(_), Some(_)) => "cut",
                (Ok(_), None) => "used",
            },
            reason: reason.map(str::to_owned),
            tokens: whole.tokens.len(),
            scored_tokens: scored(&whole.labels),
            kept_tokens: kept,
            kept_scored_tokens: scored(&whole.labels[..kept]),
            turns: whole.contents.iter().map(turn).collect(),
            pieces: pieces(encoder, whole, kept),
            ..Self::default()
        }
    }

    /// A record that compares or rates replies: each of its replies behind the prompt, before anything is left out.
    pub(super) fn feedback(spot: &Spot, encoder: &Encoder, record: &Record, left: Option<Left>) -> Vec<Self> {
        let wholes = encoder.wholes(record).unwrap_or_default();
        if wholes.is_empty() {
            let reason = left.map_or("the row holds no record", |Left(reason)| reason);
            return vec![Self::left(spot, reason, String::new())];
        }
        let shown = |(name, whole): (String, Whole)| {
            let fate = left.map_or(Ok((whole.tokens.len(), Cut::Whole)), Err);
            Self { place: format!("{} ({name})", spot.place), ..Self::tokens(spot, encoder, &whole, fate) }
        };
        wholes.into_iter().map(shown).collect()
    }

    pub(super) fn left(spot: &Spot, reason: &str, head: String) -> Self {
        let (row, place) = (spot.id, spot.place.clone());
        Self { row, place, fate: "dropped", reason: Some(reason.into()), line: Some(head), ..Self::default() }
    }

    pub(super) fn bad(spot: &Spot, reason: String, error: Error) -> Self {
        Self {
            row: spot.id,
            place: spot.place.clone(),
            fate: "bad",
            reason: Some(reason),
            why: error.why,
            fix: error.fix,
            line: spot.head.clone(),
            ..Self::default()
        }
    }
}

/// The start of a row as JSON.
pub(super) fn head(row: &Map<String, Value>) -> String {
    serde_json::to_string(row).unwrap_or_default().chars().take(HEAD).collect()
}

fn pieces(encoder: &Encoder, whole: &Whole, kept: usize) -> Vec<Piece> {
    let Whole { text, tokens, labels, .. } = whole;
    let literal = if whole.control_text { encoder.control_texts(whole) } else { Vec::new() };
    let is_literal = |range: &Range<usize>| {
        let next = literal.partition_point(|(other, _)| other.end <= range.start);
        literal.get(next).is_some_and(|(other, _)| other.start < range.end)
    };
    let mut pieces = Vec::new();
    let left_out = |from: usize, to: usize, position: usize, pieces: &mut Vec<Piece>| {
        if let Some(text) = text.get(from..to).filter(|text| !text.is_empty()) {
            pieces.push(Piece { text: text.into(), position, ids: Vec::new(), scored: false, kind: "text" });
        }
    };
    let mut done = 0;
    let mut first = 0;
    while first < tokens.len() {
        let mut range = tokens.range(first, text);
        let mut next = first + 1;
        let mut is_broken = range.start < done;
        while next < tokens.len() && tokens.range(next, text).start < range.end {
            // A cut through a character leaves two halves, of which neither can be shown.
            if next == kept {
                is_broken = true;
                break;
            }
            range.end = range.end.max(tokens.range(next, text).end);
            next += 1;
        }
        left_out(done, range.start, first, &mut pieces);
        let ids = tokens.ids[first..next].to_vec();
        let is_control = ids.len() == 1 && encoder.is_control(ids[0]);
        let shown = match text.get(range.clone()) {
            _ if is_broken => "\u{FFFD}".into(),
            Some(text) => text.to_owned(),
            // The end token of raw text lies behind it.
            None => encoder.token(ids[0]).unwrap_or_default(),
        };
        pieces.push(Piece {
            text: shown,
            position: first,
            ids,
            scored: labels[first..next].iter().any(|&label| label != IGNORE),
            kind: if is_control {
                "control"
            } else if is_literal(&range) {
                "literal"
            } else {
                "text"
            },
        });
        done = done.max(range.end);
        first = next;
    }
    left_out(done, text.len(), tokens.len(), &mut pieces);
    pieces
}
