//! How rows of several sources become rows of one file, whose format is told once.

use super::plan::count;
use crate::convert::converted;
use crate::error::{Error, Kind, Result};
use crate::formats::Format;
use crate::formats::write::{Form, Pairs, Target};
use crate::source::json::Exact;
use crate::source::{Content, MAX_ROW_BYTES, Source};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Rows that a file's format is told from, as many as when it is prepared.
const SAMPLE: usize = 100;

/// What the rows are written as, and what they were.
#[derive(Debug, Default)]
pub struct Joined {
    /// The format of the output, when rows are converted; `None` leaves them as they are.
    pub to: Option<&'static str>,
    /// Of each source, the formats of its files.
    pub formats: Vec<String>,
    files: Vec<Vec<Option<Format>>>,
}

impl Joined {
    /// Rows stay as they are when all files are of one format; otherwise they become what the kind of record has for
    /// its own: conversations become messages.
    ///
    /// # Errors
    /// A file cannot be read, no format fits some of the files, or they hold records that no one format can say.
    pub fn of(names: &[String], sources: &[Vec<Source>]) -> Result<Self> {
        let mut told: Vec<Vec<Result<Format>>> = Vec::new();
        for files in sources {
            told.push(files.iter().map(format_of).collect::<Result<_>>()?);
        }
        let shown = |files: &Vec<Result<Format>>| {
            let mut names: Vec<String> =
                files.iter().map(|format| format.as_ref().map_or("unknown".into(), Format::name)).collect();
            names.dedup();
            names.join(", ")
        };
        let formats: Vec<String> = told.iter().map(shown).collect();
        let mut all: Vec<String> =
            told.iter().flatten().map(|format| format.as_ref().map_or(String::new(), Format::name)).collect();
        all.sort_unstable();
        all.dedup();
        if all.len() <= 1 {
            return Ok(Self { to: None, formats, files: Vec::new() });
        }
        let listed = names.iter().zip(&formats).map(|(name, format)| format!("{name}: {format}"));
        let listed = listed.collect::<Vec<_>>().join("; ");
        let mut files = Vec::new();
        let mut kinds: Vec<&'static str> = Vec::new();
        for of_source in told {
            let mut formats = Vec::new();
            for format in of_source {
                let format = format.map_err(|error| {
                    let fix = "convert that source first (alignite convert --format --columns), or leave it out";
                    error.fix(fix)
                })?;
                kinds.push(format.kind());
                formats.push(Some(format));
            }
            files.push(formats);
        }
        kinds.sort_unstable();
        kinds.dedup();
        let to = match kinds.as_slice() {
            ["conversation"] => "messages",
            ["preference"] => "preference",
            ["unpaired"] => "unpaired",
            ["ranking"] => "ranked",
            ["steps"] => "stepwise",
            _ => {
                return Err(Error::new(
                    Kind::Usage,
                    format!("the sources hold {}, which no one file can hold together", kinds.join(" and ")),
                )
                .at("output")
                .because(listed)
                .fix("mix sources of one kind, or convert the others first (alignite convert)"));
            }
        };
        Ok(Self { to: Some(to), formats, files })
    }

    /// The lines that a row is written as, each with its line break, and how many; what is lost is counted.
    pub(super) fn lines(
        &self,
        (source, file): (usize, usize),
        content: Content,
        copies: u64,
        lost: &mut BTreeMap<String, u64>,
    ) -> Result<(Vec<u8>, u64)> {
        let format = self.files.get(source).and_then(|files| files.get(file)?.as_ref());
        let (Some(to), Some(format)) = (self.to, format) else {
            let mut bytes = content.json()?;
            bytes.push(b'\n');
            return Ok((bytes, 1));
        };
        let (rows, names) = converted(format, &content.row()?, Target::parse(to)?, Form::Auto, Pairs::All)?;
        for name in names {
            count(lost, name, copies);
        }
        let mut bytes = Vec::new();
        for row in &rows {
            let row: &Map<String, Value> = row;
            serde_json::to_writer(&mut bytes, &Exact(&Value::Object(row.clone())))
                .map_err(|error| Error::data("the row cannot be written as JSON").because(error))?;
            bytes.push(b'\n');
        }
        Ok((bytes, rows.len() as u64))
    }
}

/// The format of a file's first rows; the inner error says that none fits them.
fn format_of(file: &Source) -> Result<Result<Format>> {
    let lines = file.lines(MAX_ROW_BYTES)?.take(SAMPLE);
    let sample: Vec<Map<String, Value>> = lines.filter_map(|line| line.content.and_then(Content::row).ok()).collect();
    Ok(Format::detect(&sample).map_err(|error| error.at(file.name())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(files: &[&str]) -> Result<Joined> {
        let source = |row: &&str| vec![Source::Memory("f".into(), vec![row.as_bytes().to_vec()])];
        let sources: Vec<_> = files.iter().map(source).collect();
        let names: Vec<String> = (0..files.len()).map(|index| format!("s{index}")).collect();
        Joined::of(&names, &sources)
    }

    #[test]
    fn formats_that_differ_become_one_and_kinds_that_differ_are_refused() {
        let (gsm, flan) = (r#"{"question": "q", "answer": "a"}"#, r#"{"inputs": "q", "targets": "a"}"#);
        let pair = r#"{"prompt": "q", "chosen": "a", "rejected": "b"}"#;
        let hh = r#"{"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}"#;
        assert_eq!(joined(&[gsm, gsm]).unwrap().to, None);
        assert_eq!(joined(&[r#"{"a": 1}"#, r#"{"b": 1}"#]).unwrap().to, None);
        assert_eq!(joined(&[gsm, flan]).unwrap().to, Some("messages"));
        assert_eq!(joined(&[pair, hh]).unwrap().to, Some("preference"));
        let error = joined(&[gsm, pair]).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        assert_eq!(error.why.as_deref(), Some("s0: question-answer; s1: preference"));
        assert!(joined(&[gsm, r#"{"text": "t"}"#]).unwrap_err().what.contains("conversation and text"));
        assert!(joined(&[gsm, r#"{"a": 1}"#]).unwrap_err().what.contains("no known format"));
    }
}
