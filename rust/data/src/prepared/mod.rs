//! A prepared set: windows of ids and labels in Arrow files, read in place.

pub(crate) mod block;
mod file;
mod schema;

pub use file::Part;
pub(crate) use file::{PartWriter, part_name};
pub(crate) use schema::Column;
pub use schema::{FINGERPRINT, schema};

use crate::error::{Error, Kind, Result};
use crate::prepare::Report;
use crate::sample::IGNORE;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int8Type, Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use rayon::prelude::*;
use std::path::Path;

/// The report beside the Arrow files.
pub const REPORT_FILE: &str = "report.json";

/// A batch of windows as one flat row. Positions restart at every segment; a reply's go on where its parent ends.
#[derive(Debug, Default)]
pub struct Batch {
    /// Token ids.
    pub input_ids: Vec<i64>,
    /// Ids where scored, else -100.
    pub labels: Vec<i64>,
    /// Position of each token in its segment.
    pub position_ids: Vec<i64>,
    /// (start, length, parent) of each segment, flat; parent is a segment of the batch, or -1.
    pub segments: Vec<i64>,
    /// How much each token counts; empty when all count 1.
    pub weights: Vec<f32>,
}

/// Where the segments of some windows come from and what they are, one of each a segment.
#[derive(Debug, Default)]
pub struct Origins {
    /// The line's number among those that held something, over all files.
    pub row_ids: Vec<i64>,
    /// Which file of the report's list.
    pub sources: Vec<i64>,
    /// Which line or row of it.
    pub lines: Vec<i64>,
    /// Which record, counted over these windows.
    pub records: Vec<i64>,
    /// [`crate::sample::Role`] as a number.
    pub roles: Vec<i64>,
    /// A reply's score; NaN when there is none.
    pub scores: Vec<f32>,
    /// The number of the criterion that its record is about, or -1.
    pub criteria: Vec<i64>,
    /// How much its record counts.
    pub record_weights: Vec<f32>,
}

/// An open prepared set.
pub struct PreparedSet {
    parts: Vec<RecordBatch>,
    /// First window of each part, and the count of all at the end.
    starts: Vec<usize>,
    fingerprint: String,
    report: String,
}

impl PreparedSet {
    /// Open a prepared folder and check its bytes.
    ///
    /// # Errors
    /// A file is missing, damaged, or holds something else.
    pub fn open(folder: &Path) -> Result<Self> {
        let bad = |why: &dyn std::fmt::Display| {
            Error::data("the prepared set is damaged")
                .at(folder.display().to_string())
                .because(why)
                .fix("delete the folder and prepare again")
        };
        let report_path = folder.join(REPORT_FILE);
        if !report_path.is_file() {
            let error = Error::data("no prepared set here").at(folder.display().to_string());
            let parts = ["train", "validation"].map(|part| folder.join(part));
            if parts.iter().any(|part| part.join(REPORT_FILE).is_file()) {
                let [train, validation] = parts.map(|part| part.display().to_string());
                let why = "the folder holds the two sets of a split";
                return Err(error.because(why).fix(format!("name one of them: {train} or {validation}")));
            }
            return Err(error.fix("prepare the data first"));
        }
        let text =
            std::fs::read_to_string(&report_path).map_err(|e| Error::io("cannot read the report", &report_path, &e))?;
        let report: Report = serde_json::from_str(&text).map_err(|e| bad(&e))?;
        let read: Vec<Vec<RecordBatch>> =
            report.parts.par_iter().map(|part| file::read(folder, part)).collect::<Result<_>>()?;
        let parts: Vec<RecordBatch> = read.into_iter().flatten().collect();
        let mut starts = vec![0];
        for part in &parts {
            starts.push(starts[starts.len() - 1] + part.num_rows());
        }
        Ok(Self { parts, starts, fingerprint: report.fingerprint, report: text })
    }

    /// Whether a file of a set is there and whole.
    pub(crate) fn has(folder: &Path, part: &Part) -> bool {
        file::read(folder, part).is_ok()
    }

    /// How many windows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What decides the content.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// report.json as it was written.
    #[must_use]
    pub fn report(&self) -> &str {
        &self.report
    }

    /// The windows as Arrow has them, in order; the memory is the mapped files'.
    #[must_use]
    pub fn batches(&self) -> &[RecordBatch] {
        &self.parts
    }

    fn locate(&self, window: usize) -> Result<(&RecordBatch, usize)> {
        if window >= self.len() {
            let what = format!("there is no window {window}");
            return Err(Error::new(Kind::Usage, what).because(format!("the set has {}", self.len())));
        }
        let part = self.starts.partition_point(|&start| start <= window) - 1;
        Ok((&self.parts[part], window - self.starts[part]))
    }

    /// Tokens of a window.
    ///
    /// # Errors
    /// There is no such window.
    pub fn window_tokens(&self, window: usize) -> Result<i64> {
        self.locate(window).map(|(part, row)| column(part, Column::InputIds).as_list::<i64>().value_length(row))
    }

    /// Scored tokens of a window.
    ///
    /// # Errors
    /// There is no such window.
    pub fn window_scored(&self, window: usize) -> Result<i64> {
        let scored = |part: &RecordBatch, row| column(part, Column::NumScored).as_primitive::<Int32Type>().value(row);
        self.locate(window).map(|(part, row)| i64::from(scored(part, row)))
    }

    /// These windows as one flat batch.
    ///
    /// # Errors
    /// There is no such window.
    pub fn batch(&self, windows: &[usize]) -> Result<Batch> {
        let mut batch = Batch::default();
        let total: i64 = windows.iter().map(|&window| self.window_tokens(window)).sum::<Result<i64>>()?;
        let total = usize::try_from(total).unwrap_or(0);
        batch.input_ids.reserve_exact(total);
        batch.labels.reserve_exact(total);
        batch.position_ids.reserve_exact(total);
        for &window in windows {
            let (part, row) = self.locate(window)?;
            let mut start = batch.input_ids.len();
            let base = batch.segments.len() / 3;
            batch.input_ids.extend(int32(part, Column::InputIds, row).iter().map(|&id| i64::from(id)));
            batch.labels.extend(int32(part, Column::Labels, row).iter().map(|&label| i64::from(label)));
            let parents = column(part, Column::Parents);
            let parents = if parents.is_null(row) { Vec::new() } else { int32(part, Column::Parents, row) };
            for (segment, &length) in int32(part, Column::SeqLengths, row).iter().enumerate() {
                let length = i64::from(length);
                let parent = parents.get(segment).and_then(|&parent| usize::try_from(parent).ok());
                let from = parent.map_or(0, |parent| batch.segments[3 * (base + parent) + 1]);
                batch.position_ids.extend(from..from + length);
                batch.segments.extend([start as i64, length, parent.map_or(-1, |parent| (base + parent) as i64)]);
                // A reply's first token is predicted from its prompt's last one, any other first token from nothing.
                if let (None, Some(first)) = (parent, batch.labels.get_mut(start)) {
                    *first = i64::from(IGNORE);
                }
                start += usize::try_from(length).unwrap_or(0);
            }
            let weights = column(part, Column::Weights);
            if !weights.is_null(row) {
                batch.weights.resize(start - weights.as_list::<i64>().value(row).len(), 1.0);
                batch
                    .weights
                    .extend_from_slice(weights.as_list::<i64>().value(row).as_primitive::<Float32Type>().values());
            }
        }
        if !batch.weights.is_empty() {
            batch.weights.resize(batch.input_ids.len(), 1.0);
        }
        Ok(batch)
    }

    /// Where the segments of these windows come from and what they are.
    ///
    /// # Errors
    /// There is no such window.
    pub fn origins(&self, windows: &[usize]) -> Result<Origins> {
        let mut origins = Origins::default();
        let mut records = 0;
        for &window in windows {
            let (part, row) = self.locate(window)?;
            let long =
                |which| column(part, which).as_list::<i32>().value(row).as_primitive::<Int64Type>().values().to_vec();
            let count = int32(part, Column::SeqLengths, row).len();
            origins.row_ids.extend(long(Column::RowIds));
            origins.lines.extend(long(Column::Lines));
            origins.sources.extend(int32(part, Column::Sources, row).into_iter().map(i64::from));
            if column(part, Column::Roles).is_null(row) {
                origins.records.extend(records..records + count as i64);
                origins.roles.extend(std::iter::repeat_n(0, count));
                origins.scores.extend(std::iter::repeat_n(f32::NAN, count));
            } else {
                let value = |which| column(part, which).as_list::<i32>().value(row);
                origins.records.extend(int32(part, Column::Records, row).into_iter().map(|r| records + i64::from(r)));
                origins
                    .roles
                    .extend(value(Column::Roles).as_primitive::<Int8Type>().values().iter().map(|&r| i64::from(r)));
                origins.scores.extend_from_slice(value(Column::Scores).as_primitive::<Float32Type>().values());
            }
            if column(part, Column::Criteria).is_null(row) {
                origins.criteria.extend(std::iter::repeat_n(-1, count));
            } else {
                origins.criteria.extend(int32(part, Column::Criteria, row).into_iter().map(i64::from));
            }
            let counts = column(part, Column::RecordWeights);
            if counts.is_null(row) {
                origins.record_weights.extend(std::iter::repeat_n(1.0, count));
            } else {
                let counts = counts.as_list::<i32>().value(row);
                origins.record_weights.extend_from_slice(counts.as_primitive::<Float32Type>().values());
            }
            records = origins.records.last().map_or(records, |last| last + 1);
        }
        Ok(origins)
    }
}

fn column(part: &RecordBatch, which: Column) -> &dyn Array {
    part.column(which as usize).as_ref()
}

/// The numbers of one list, large or not.
fn int32(part: &RecordBatch, which: Column, row: usize) -> Vec<i32> {
    let column = column(part, which);
    let values = match column.as_list_opt::<i64>() {
        Some(lists) => lists.value(row),
        None => column.as_list::<i32>().value(row),
    };
    values.as_primitive::<Int32Type>().values().to_vec()
}

/// Whether a batch's columns fit each other, so that reading it cannot go wrong.
fn check(part: &RecordBatch) -> std::result::Result<(), String> {
    let lengths = column(part, Column::SeqLengths).as_list::<i32>();
    for window in 0..part.num_rows() {
        let wrong = |what: &str| Err(format!("window {window}: its {what} disagree with its lengths"));
        let tokens = column(part, Column::InputIds).as_list::<i64>().value_length(window);
        let segments = lengths.value(window);
        let segments = segments.as_primitive::<Int32Type>().values();
        if segments.iter().any(|&n| n < 0) || segments.iter().map(|&n| i64::from(n)).sum::<i64>() != tokens {
            return wrong("tokens");
        }
        let is_long = |which| {
            let column = column(part, which);
            column.is_null(window) || column.as_list::<i64>().value_length(window) == tokens
        };
        let is_many = |which| {
            let column = column(part, which);
            column.is_null(window)
                || usize::try_from(column.as_list::<i32>().value_length(window)) == Ok(segments.len())
        };
        if ![Column::Labels, Column::Weights].into_iter().all(is_long) {
            return wrong("labels");
        }
        use Column::{Criteria, Lines, Parents, RecordWeights, Records, Roles, RowIds, Scores, Sources};
        let each = [RowIds, Sources, Lines, Parents, Records, Roles, Scores, Criteria, RecordWeights];
        if !each.into_iter().all(is_many) {
            return wrong("segments");
        }
        if !column(part, Parents).is_null(window) {
            let parents = int32(part, Parents, window);
            if parents.iter().enumerate().any(|(index, &parent)| usize::try_from(parent).is_ok_and(|p| p >= index)) {
                return wrong("parents");
            }
        }
    }
    Ok(())
}
