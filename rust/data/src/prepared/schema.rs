//! The columns of a prepared file. docs/data_flow.md says the same to users.

use arrow_schema::{DataType, Field, Schema};
use std::sync::Arc;

/// The key of the fingerprint in the schema's metadata.
pub const FINGERPRINT: &str = "alignite.fingerprint";

/// Where a column stands in the schema.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(crate) enum Column {
    InputIds = 0,
    Labels,
    Weights,
    SeqLengths,
    NumScored,
    RowIds,
    Sources,
    Lines,
    Parents,
    Records,
    Roles,
    Scores,
    Criteria,
    RecordWeights,
}

/// Columns of a prepared file, one window a row.
///
/// - `input_ids`, `labels`: tokens of all segments; -100 is no loss.
/// - `weights`: null where every token counts 1.
/// - `seq_lengths`: tokens of each segment. `num_scored`: scored tokens of the window.
/// - `row_ids` counts the lines that held something, from 0, over all files; `sources` and `lines` say which file of
///   the report's list and which line or row of it. One of each a segment.
/// - `parents` (the segment of the window that a reply continues, or -1), `records` (which record of the window),
///   `roles` ([`crate::sample::Role`]) and `scores`: null where every segment is a record of its own.
/// - `criteria` (the number of the criterion that a segment's record is about, or -1) and `record_weights` (how much
///   the record counts): null where no record of the window says so.
#[must_use]
pub fn schema() -> Schema {
    let list = |name: &str, inner: DataType, large: bool, nullable: bool| {
        let item = Arc::new(Field::new("item", inner, false));
        Field::new(name, if large { DataType::LargeList(item) } else { DataType::List(item) }, nullable)
    };
    Schema::new(vec![
        list("input_ids", DataType::Int32, true, false),
        list("labels", DataType::Int32, true, false),
        list("weights", DataType::Float32, true, true),
        list("seq_lengths", DataType::Int32, false, false),
        Field::new("num_scored", DataType::Int32, false),
        list("row_ids", DataType::Int64, false, false),
        list("sources", DataType::Int32, false, false),
        list("lines", DataType::Int64, false, false),
        list("parents", DataType::Int32, false, true),
        list("records", DataType::Int32, false, true),
        list("roles", DataType::Int8, false, true),
        list("scores", DataType::Float32, false, true),
        list("criteria", DataType::Int32, false, true),
        list("record_weights", DataType::Float32, false, true),
    ])
}
