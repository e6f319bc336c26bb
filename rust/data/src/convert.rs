//! Rows of one format to rows of another, with every row and every lost field accounted for.

use crate::error::{Error, Kind, Result};
use crate::formats::write::{Form, Pairs, TARGETS, Target, derive, write};
use crate::formats::{Columns, Format};
use crate::prepare::Count;
use crate::rows::{names, reason_of};
use crate::source::json::{Exact, wide};
use crate::source::{Content, MAX_ROW_BYTES, Source, is_fatal};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

type Row = Map<String, Value>;

/// Rows that the format is told from.
const SAMPLE: usize = 100;
/// Rows between two looks at the caller.
const TICK: u64 = 1000;

/// What is converted into what.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The name of a [`Target`].
    pub to: String,
    /// The name of the rows' format; told from them when it is missing.
    pub format: Option<String>,
    /// Columns that go by other names than the format's.
    pub columns: Columns,
    /// Text or messages.
    pub form: Form,
    /// Which pairs of a ranking.
    pub pairs: Pairs,
    /// "error" or "skip".
    pub on_bad_row: String,
}

/// What became of the rows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The format that was found.
    pub format: String,
    /// Rows that were read.
    pub rows: u64,
    /// Rows that were written; one may give several.
    pub written: u64,
    /// By the name of a field, the rows that had it and that were written without it.
    pub lost: BTreeMap<String, u64>,
    /// Rows that were not converted, by reason.
    pub bad: BTreeMap<String, Count>,
}

struct Work<'a> {
    options: &'a Options,
    target: Target,
    format: Option<Format>,
    /// Rows that came before the format was told.
    waiting: Vec<(String, Result<Row>)>,
    report: Report,
    sink: &'a mut dyn FnMut(Value) -> Result<()>,
}

/// Convert all rows of sources and hand them to `sink` in their order.
///
/// `tick` is called with the rows done; when it says false the work stops.
///
/// # Errors
/// An option is wrong, a source cannot be read, no format fits the rows, a row is bad and `on_bad_row` is "error", no
/// row could be converted, or the sink fails.
pub fn convert(
    sources: &[Source],
    options: &Options,
    tick: &mut dyn FnMut(u64) -> bool,
    sink: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<Report> {
    if !matches!(options.on_bad_row.as_str(), "error" | "skip") {
        return Err(Error::new(Kind::Usage, "on_bad_row is error or skip"));
    }
    let target = Target::parse(&options.to)?;
    let mut work = Work { options, target, format: None, waiting: Vec::new(), report: Report::default(), sink };
    for source in sources {
        for line in source.lines(MAX_ROW_BYTES)? {
            let row = line.content.and_then(Content::row);
            if let Err(error) = &row
                && is_fatal(error)
            {
                return Err(error.clone().at(line.location));
            }
            work.report.rows += 1;
            let rows = work.report.rows;
            match work.format {
                Some(_) => work.take(line.location, row)?,
                None => work.waiting.push((line.location, row)),
            }
            if work.waiting.len() >= SAMPLE {
                work.begin()?;
            }
            if rows.is_multiple_of(TICK) && !tick(rows) {
                return Err(Error::new(Kind::Interrupted, "stopped"));
            }
        }
    }
    work.begin()?;
    let report = work.report;
    if report.written == 0 {
        let shown = |(reason, rows): (&String, &Count)| format!("{} rows: {reason}", rows.count);
        let reasons: Vec<String> = report.bad.iter().map(shown).collect();
        let error = Error::data("no row could be converted").at(names(sources));
        return Err(if reasons.is_empty() {
            error.because("there are none")
        } else {
            error.because(reasons.join("; "))
        });
    }
    Ok(report)
}

/// Convert into a JSONL file, gzipped when its name ends with `.gz`; the file is there whole or not at all.
///
/// # Errors
/// As [`convert`]; the file is there already or cannot be written.
pub fn convert_to_file(
    sources: &[Source],
    options: &Options,
    output: &Path,
    tick: &mut dyn FnMut(u64) -> bool,
) -> Result<Report> {
    if output.exists() {
        return Err(Error::new(Kind::Resource, "the output file is there already")
            .at(output.display().to_string())
            .fix("name another file, or delete this one"));
    }
    let cannot = |path: &Path, error: &std::io::Error| Error::io("cannot write the converted rows", path, error);
    let name = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let partial = output.with_file_name(format!(".{name}.{}.partial", std::process::id()));
    let file = File::create(&partial).map_err(|error| cannot(output, &error))?;
    let file = BufWriter::with_capacity(1 << 18, file);
    let done = if name.ends_with(".gz") {
        let mut packer = GzEncoder::new(file, Compression::default());
        convert_to(sources, options, tick, &mut packer, output).and_then(|report| {
            packer.finish().and_then(|mut file| file.flush()).map(|()| report).map_err(|e| cannot(output, &e))
        })
    } else {
        let mut file = file;
        convert_to(sources, options, tick, &mut file, output)
            .and_then(|report| file.flush().map(|()| report).map_err(|e| cannot(output, &e)))
    };
    let done = done
        .and_then(|report| std::fs::rename(&partial, output).map(|()| report).map_err(|error| cannot(output, &error)));
    if done.is_err() {
        // What was written is of no use; that it cannot be deleted matters less than why it failed.
        let _ = std::fs::remove_file(&partial);
    }
    done
}

fn convert_to(
    sources: &[Source],
    options: &Options,
    tick: &mut dyn FnMut(u64) -> bool,
    out: &mut dyn Write,
    output: &Path,
) -> Result<Report> {
    convert(sources, options, tick, &mut |row| {
        serde_json::to_writer(&mut *out, &Exact(&row))
            .map_err(std::io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
            .map_err(|error| Error::io("cannot write the converted rows", output, &error))
    })
}

impl Work<'_> {
    /// Tell the format from the rows that wait, and convert them.
    fn begin(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let sample: Vec<Row> = waiting.iter().filter_map(|(_, row)| row.as_ref().ok().cloned()).collect();
        if self.format.is_none() && !sample.is_empty() {
            let format = Format::choose(&sample, self.options.format.as_deref(), &self.options.columns);
            let format = format.map_err(|error| error.at(waiting[0].0.clone()))?;
            if !self.target.takes(format.kind()) {
                return Err(cannot_become(&format, &self.options.to));
            }
            self.report.format = format.name();
            self.format = Some(format);
        }
        waiting.into_iter().try_for_each(|(place, row)| self.take(place, row))
    }

    fn take(&mut self, place: String, row: Result<Row>) -> Result<()> {
        match row.and_then(|row| self.converted(&row)) {
            Ok((rows, lost)) => {
                for name in lost {
                    *self.report.lost.entry(name).or_default() += 1;
                }
                self.report.written += rows.len() as u64;
                rows.into_iter().try_for_each(|row| (self.sink)(row.into()))
            }
            Err(error) if self.options.on_bad_row == "skip" => {
                self.report.bad.entry(reason_of(&error)).or_default().add(&place);
                Ok(())
            }
            Err(mut error) => {
                if let Some(inner) = error.location.replace(place.clone())
                    && inner != place
                {
                    error.what = format!("{inner}: {}", error.what);
                }
                let fix = error.fix.map(|fix| format!("{fix}; ")).unwrap_or_default();
                error.fix = Some(format!("{fix}mend the row, or set on_bad_row to skip, which counts such rows"));
                Err(error)
            }
        }
    }

    fn converted(&self, row: &Row) -> Result<(Vec<Row>, Vec<String>)> {
        let Some(format) = &self.format else { return Ok((Vec::new(), Vec::new())) };
        converted(format, row, self.target, self.options.form, self.options.pairs)
    }
}

/// No row of the format can be written so, whatever is mended in it.
fn cannot_become(format: &Format, to: &str) -> Error {
    let targets: Vec<&str> =
        TARGETS.iter().filter(|(_, target)| target.takes(format.kind())).map(|(name, _)| *name).collect();
    let fix = if targets.is_empty() {
        "prepare it as it is".to_owned()
    } else {
        format!("it can become {}", targets.join(", "))
    };
    Error::new(Kind::Usage, format!("{} data cannot become {to}", format.name()))
        .because(format!("its rows hold {} records", format.kind()))
        .fix(fix)
}

/// What a row is written as, and the names of what is lost of it, each once.
pub(crate) fn converted(
    format: &Format,
    row: &Row,
    target: Target,
    form: Form,
    pairs: Pairs,
) -> Result<(Vec<Row>, Vec<String>)> {
    let mut rows = Vec::new();
    let mut lost: Vec<String> = format.unused_in(row).map(|name| format!("column {name}")).collect();
    // Scores are read as doubles, which have not every integer above 2^53.
    if ["scores", "margin"].iter().filter_map(|name| row.get(*name)).any(is_rounded) {
        lost.push("digits of a score above 2^53".into());
    }
    for record in format.read(row)? {
        let (records, names) = derive(record, target, pairs)?;
        lost.extend(names.into_iter().map(str::to_owned));
        for record in &records {
            let written = write(record, target, form)?;
            rows.push(written.row);
            lost.extend(written.lost);
        }
    }
    lost.sort_unstable();
    lost.dedup();
    Ok((rows, lost))
}

fn is_rounded(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(is_rounded),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), Some(double)) => double as i128 != i128::from(whole),
            _ => number.as_u64().is_some_and(|whole| whole as f64 as u128 != u128::from(whole)),
        },
        other => wide(other).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn options(to: &str, on_bad_row: &str) -> Options {
        let given =
            json!({"to": to, "format": null, "columns": {}, "form": "auto", "pairs": "all", "on_bad_row": on_bad_row});
        serde_json::from_value(given).unwrap()
    }

    fn run(rows: &[Value], options: &Options) -> Result<(Vec<Value>, Report)> {
        let lines = rows.iter().map(|row| row.to_string().into_bytes()).collect();
        let mut made = Vec::new();
        let report = convert(&[Source::Memory("row".into(), lines)], options, &mut |_| true, &mut |row| {
            made.push(row);
            Ok(())
        })?;
        Ok((made, report))
    }

    #[test]
    fn rows_and_what_they_lose_are_counted() {
        let rows = [
            json!({"prompt": "q", "chosen": "a", "rejected": "b", "margin": 1.5, "id": 1}),
            json!({"prompt": "q", "chosen": "a", "rejected": "a", "id": 2}),
            json!({"prompt": "q", "chosen": "c", "rejected": "d"}),
            json!([]),
        ];
        let (made, report) = run(&rows, &options("unpaired", "skip")).unwrap();
        assert_eq!(made[0], json!({"prompt": "q", "completion": "a", "label": true}));
        assert_eq!(made[1], json!({"prompt": "q", "completion": "b", "label": false}));
        assert_eq!((report.rows, report.written, report.format.as_str()), (4, 4, "preference"));
        assert_eq!(report.lost, BTreeMap::from([("column id".into(), 1), ("margin".into(), 1)]));
        assert_eq!(report.bad["chosen and rejected are the same"].examples, ["row:2"]);
        assert_eq!(report.bad["the line is a list, not an object"].count, 1);
        let error = run(&rows, &options("unpaired", "error")).unwrap_err();
        assert_eq!(error.location.as_deref(), Some("row:2"));
        let error = run(&rows[..1], &options("stepwise", "skip")).unwrap_err();
        assert_eq!((error.kind, &*error.what), (Kind::Usage, "preference data cannot become stepwise"));
        assert!(
            error.fix.unwrap().ends_with("messages, sharegpt, alpaca, prompt-completion, preference, unpaired, hh")
        );
        assert!(run(&rows, &options("sharegtp", "skip")).unwrap_err().fix.unwrap().contains("\"sharegpt\""));
    }

    #[test]
    fn a_ranking_gives_strict_pairs() {
        let row = json!({"prompt": "q", "completions": ["a", "b", "c", "d"], "scores": [1, 3, 2, 1]});
        let (made, report) = run(std::slice::from_ref(&row), &options("preference", "error")).unwrap();
        let pairs: Vec<(&str, &str)> =
            made.iter().map(|row| (row["chosen"].as_str().unwrap(), row["rejected"].as_str().unwrap())).collect();
        assert_eq!(pairs, [("b", "c"), ("b", "a"), ("b", "d"), ("c", "a"), ("c", "d")]);
        assert_eq!(report.lost, BTreeMap::from([("scores".into(), 1)]));
        let best_worst = Options { pairs: Pairs::BestWorst, ..options("preference", "error") };
        let (made, _) = run(std::slice::from_ref(&row), &best_worst).unwrap();
        assert_eq!(made, [json!({"prompt": "q", "chosen": "b", "rejected": "d"})]);
        let ties = json!({"prompt": "q", "completions": ["a", "b"], "scores": [1, 1]});
        assert!(run(&[ties], &options("preference", "error")).unwrap_err().what.contains("different scores"));
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let rows =
            |rows: &[&str]| [Source::Memory("row".into(), rows.iter().map(|row| row.as_bytes().to_vec()).collect())];
        let good = rows(&[r#"{"question": "q", "answer": "a"}"#]);
        for name in ["out.jsonl", "out.jsonl.gz"] {
            let output = folder.path().join(name);
            convert_to_file(&good, &options("messages", "error"), &output, &mut |_| true).unwrap();
            let line = Source::File(output.clone()).lines(MAX_ROW_BYTES).unwrap().next().unwrap().content.unwrap();
            assert_eq!(line.row().unwrap()["messages"][1], json!({"role": "assistant", "content": "a"}));
            let again = convert_to_file(&good, &options("messages", "error"), &output, &mut |_| true);
            assert!(again.unwrap_err().what.contains("there already"));
        }
        let broken = rows(&[r#"{"question": "q", "answer": "a"}"#, "nonsense"]);
        let output = folder.path().join("broken.jsonl");
        assert!(convert_to_file(&broken, &options("messages", "error"), &output, &mut |_| true).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let nowhere = folder.path().join("no/such/folder.jsonl");
        assert!(convert_to_file(&good, &options("messages", "error"), &nowhere, &mut |_| true).is_err());
    }
}
