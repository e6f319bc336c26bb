//! Rows that are left out: written down one by one, and what is said when no other is there.

use super::{Count, Report};
use crate::error::{Error, Kind, Result};
use crate::rows::{Spot, names};
use crate::source::Source;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;

/// Reasons whose first error is kept.
pub(super) const REASONS: usize = 100;

/// The error of a set without a row: the reason that most rows have says how it can be mended.
pub(super) fn nothing_left(report: &Report, sources: &[Source], mut errors: BTreeMap<String, Error>) -> Error {
    let mut reasons: Vec<(&String, &Count)> = report.dropped.iter().collect();
    reasons.sort_by_key(|(_, rows)| std::cmp::Reverse(rows.count));
    let shown = |(reason, rows): &(&String, &Count)| {
        let first = rows.examples.first().map(|place| format!(" (first: {place})")).unwrap_or_default();
        format!("{} rows: {reason}{first}", rows.count)
    };
    let why = reasons.iter().take(5).map(shown).collect::<Vec<_>>().join("; ");
    let most = reasons.first().map_or("", |(reason, _)| reason.as_str());
    let error = Error::data("no row is left to train on").at(names(sources)).because(why);
    match errors.remove(most) {
        // The template suits no row: its own error says more than a count.
        Some(own) if matches!(own.kind, Kind::Mask | Kind::Template) => {
            let rows = reasons.first().map_or(0, |(_, rows)| rows.count);
            let count = format!("so it is with {rows} of {} rows", report.rows);
            let fix = own.fix.unwrap_or_else(|| "use another template or other rows, or train on raw text".into());
            let why = own.why.map_or_else(|| count.clone(), |why| format!("{why}; {count}"));
            Error { why: Some(why), fix: Some(fix), ..own }
        }
        Some(Error { fix: Some(fix), .. }) => error.fix(fix),
        Some(_) => error.fix("mend the rows; `alignite preview` shows them"),
        None if most.contains("max_length") => error.fix("raise max_length"),
        None if most.contains("duplicate") || most.contains("overlaps") => {
            error.fix("give other data, or leave out the cleaning that drops it (dedup, decontaminate)")
        }
        None => error.fix("give rows with something that an assistant says"),
    }
}

/// Where rows stand by their numbers, in one step for all rows that follow each other line by line.
#[derive(Default)]
pub(super) struct Places(Vec<(u64, (u32, u64))>);

impl Places {
    pub(super) fn note(&mut self, spot: &Spot) {
        let (source, line) = spot.position;
        let goes_on = self.0.last().is_some_and(|&(id, (of, first))| of == source && spot.id - id + first == line);
        if !goes_on {
            self.0.push((spot.id, spot.position));
        }
    }

    /// `file:line` of a row that was noted.
    pub(super) fn find(&self, row: u64, sources: &[Source]) -> Option<String> {
        let at = self.0.partition_point(|&(id, _)| id <= row).checked_sub(1)?;
        let (id, (source, line)) = self.0[at];
        Some(format!("{}:{}", sources.get(source as usize)?.name(), row - id + line))
    }
}

/// Rows that were left out, one a line: where, why, the start of the row, and which row it is like.
pub(super) struct Quarantine {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Quarantine {
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let mut quarantine = Self { path, file: None };
        if quarantine.path.exists() {
            quarantine.begin()?;
        }
        Ok(quarantine)
    }

    fn fail(&self, error: &std::io::Error) -> Error {
        Error::io("cannot write the rows that are left out", &self.path, error)
    }

    fn begin(&mut self) -> Result<&mut BufWriter<File>> {
        let opened = OpenOptions::new().create(true).append(true).open(&self.path);
        // A file that is appended to stands at its start until something is written.
        let opened = opened.and_then(|mut file| file.seek(SeekFrom::End(0)).map(|_| file));
        let file = opened.map_err(|e| self.fail(&e))?;
        Ok(self.file.insert(BufWriter::new(file)))
    }

    pub(super) fn write(
        &mut self,
        row: u64,
        spot: &Spot,
        reason: &str,
        is_bad: bool,
        like: Option<&str>,
    ) -> Result<()> {
        let mut line = json!({"where": spot.place, "row_id": row, "reason": reason, "bad": is_bad, "row": spot.head});
        if let (Some(like), Some(fields)) = (like, line.as_object_mut()) {
            fields.insert("like".into(), like.into());
        }
        if self.file.is_none() {
            self.begin()?;
        }
        let written = self.file.as_mut().map_or(Ok(()), |file| writeln!(file, "{line}"));
        written.map_err(|e| self.fail(&e))
    }

    /// Bytes that are in the file now.
    pub(super) fn flush(&mut self) -> Result<u64> {
        let length = match &mut self.file {
            Some(file) => file.flush().and_then(|()| file.stream_position()),
            None => Ok(0),
        };
        length.map_err(|e| self.fail(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quarantine_file_is_as_long_as_it_is_when_nothing_is_added() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quarantine.jsonl");
        assert_eq!(Quarantine::open(path.clone()).unwrap().flush().unwrap(), 0);
        std::fs::write(&path, "{}\n").unwrap();
        assert_eq!(Quarantine::open(path).unwrap().flush().unwrap(), 3);
    }
}
