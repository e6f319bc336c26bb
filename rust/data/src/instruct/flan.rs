//! FLAN's templates: two patterns with fields in braces, and options that are shown or left out.

use super::{Made, Pair};
use crate::error::{Error, Result};
use minijinja::value::{Serde, Value as Jinja};
use serde_json::{Map, Value};
use std::borrow::Cow;

const OPTIONS: &str = "options_";

/// How options are shown, if they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whether they are.
    pub options: bool,
    /// `(A) a` on each line instead of `- a`.
    pub letters: bool,
}

/// A pattern of the input and one of the target.
///
/// A field is `{name}`: the row's column of this name. `{options_}` is the row's list `options`, written out. A
/// pattern is inverted when its input holds the answer and its target the question; that needs nothing of its own.
#[derive(Debug)]
pub struct Pattern {
    input: Vec<Piece>,
    target: Vec<Piece>,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(String),
}

impl Pattern {
    /// Read the two patterns. Braces around anything else than a name are text.
    #[must_use]
    pub fn new(input: &str, target: &str) -> Self {
        Self { input: pieces(input), target: pieces(target) }
    }

    /// Whether a side shows options.
    #[must_use]
    pub fn has_options(&self) -> bool {
        let shows = |piece: &Piece| matches!(piece, Piece::Field(name) if name == OPTIONS);
        self.input.iter().chain(&self.target).any(shows)
    }

    /// The pair of a row. Without options `{options_}` goes, with the white space before it.
    ///
    /// # Errors
    /// The row lacks a column, or its options are no list of at most 26 (with letters).
    pub fn apply(&self, row: &Map<String, Value>, look: Look) -> Result<Made> {
        let pair = Pair { prompt: fill(&self.input, row, look)?, target: fill(&self.target, row, look)? };
        Ok(if pair.target.trim().is_empty() { Made::Dropped("the target is empty") } else { Made::Pair(pair) })
    }
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut found = Vec::new();
    let (mut text, mut rest) = (String::new(), pattern);
    while let Some(open) = rest.find('{') {
        let after = &rest[open + 1..];
        let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
        if after[end..].starts_with('}') {
            text.push_str(&rest[..open]);
            if !text.is_empty() {
                found.push(Piece::Text(std::mem::take(&mut text)));
            }
            found.push(Piece::Field(after[..end].to_owned()));
            rest = &after[end + 1..];
        } else {
            text.push_str(&rest[..=open]);
            rest = after;
        }
    }
    text.push_str(rest);
    if !text.is_empty() {
        found.push(Piece::Text(text));
    }
    found
}

fn fill(pieces: &[Piece], row: &Map<String, Value>, look: Look) -> Result<String> {
    let mut output = String::new();
    for (index, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Text(text) => {
                let goes =
                    !look.options && matches!(pieces.get(index + 1), Some(Piece::Field(name)) if name == OPTIONS);
                output.push_str(if goes { text.trim_end() } else { text });
            }
            Piece::Field(name) if name == OPTIONS && !look.options => {}
            Piece::Field(name) if name == OPTIONS && !row.contains_key(OPTIONS) => {
                output.push_str(&options(row, look.letters)?);
            }
            Piece::Field(name) => output.push_str(&text(row, name)?),
        }
    }
    Ok(output)
}

/// A column as text; what is no text is written as Python's `str` writes it.
fn text<'a>(row: &'a Map<String, Value>, name: &str) -> Result<Cow<'a, str>> {
    match row.get(name) {
        Some(Value::String(text)) => Ok(text.into()),
        Some(Value::Null) => Err(Error::data(format!("column {name:?} is null")).fix("give a text")),
        Some(other) => Ok(Jinja::from(Serde(other)).to_string().into()),
        None => {
            let found: Vec<&str> = row.keys().map(String::as_str).collect();
            Err(Error::data(format!("no column {name:?}"))
                .because(format!("the row has {}", found.join(", ")))
                .fix("rename the rows' columns as the templates name them"))
        }
    }
}

fn options(row: &Map<String, Value>, letters: bool) -> Result<String> {
    let Some(Value::Array(items)) = row.get("options") else {
        return Err(Error::data("no column \"options\" with a list")
            .fix("give the options of each row, or only styles without options (zs_noopt, fs_noopt)"));
    };
    if letters && items.len() > 26 {
        return Err(Error::data(format!("the row has {} options", items.len())).fix("letters are given to 26 at most"));
    }
    let mut output = String::from("OPTIONS:");
    for (letter, item) in ('A'..).zip(items) {
        output.push_str(&if letters { format!("\n({letter}) ") } else { "\n- ".to_owned() });
        match item {
            Value::String(text) => output.push_str(text),
            other => output.push_str(&Jinja::from(Serde(other)).to_string()),
        }
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DASHES: Look = Look { options: true, letters: false };

    fn apply(input: &str, target: &str, row: Value, look: Look) -> Result<(String, String)> {
        match Pattern::new(input, target).apply(row.as_object().unwrap(), look)? {
            Made::Pair(pair) => Ok((pair.prompt, pair.target)),
            Made::Dropped(reason) => Ok((reason.into(), String::new())),
        }
    }

    #[test]
    fn options_have_two_looks_and_may_be_left_out() {
        let row = json!({"premise": "It {rains}.", "options": ["yes", "no", 3], "answer": "no"});
        let pattern = ("{premise}\nWet?\n\n{options_}\nA:", "{answer}");
        let made = |look| apply(pattern.0, pattern.1, row.clone(), look).unwrap();
        assert_eq!(made(DASHES), ("It {rains}.\nWet?\n\nOPTIONS:\n- yes\n- no\n- 3\nA:".into(), "no".into()));
        let letters = Look { options: true, letters: true };
        assert_eq!(made(letters).0, "It {rains}.\nWet?\n\nOPTIONS:\n(A) yes\n(B) no\n(C) 3\nA:");
        assert_eq!(made(Look { options: false, letters: false }).0, "It {rains}.\nWet?\nA:");
    }

    #[test]
    fn an_inverted_pattern_asks_for_the_question() {
        let row = json!({"question": "Who wrote Emma?", "answer": "Jane Austen"});
        let (input, target) = apply("Ask something whose answer is: {answer}", "{question}", row, DASHES).unwrap();
        assert!(input.contains("Jane Austen") && !input.contains("Emma"));
        assert_eq!(target, "Who wrote Emma?");
    }

    #[test]
    fn braces_around_other_things_are_text_and_values_are_pythons() {
        assert_eq!(
            pieces("a {b c} {d}{"),
            [Piece::Text("a {b c} ".into()), Piece::Field("d".into()), Piece::Text("{".into())]
        );
        let row = json!({"a": [1, null, true, "x"], "b": 1.0, "t": "y"});
        assert_eq!(apply("{a} {b}", "{t}", row, DASHES).unwrap().0, "[1, None, True, 'x'] 1.0");
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(apply("{a}", "{b}", json!({"a": 1}), DASHES).unwrap_err().what, "no column \"b\"");
        assert!(apply("{options_}", "b", json!({"options": "a"}), DASHES).is_err());
        assert_eq!(apply("a", "{b}", json!({"b": " "}), DASHES).unwrap().0, "the target is empty");
    }
}
