//! Rows that were packed together, as one record batch.

use super::schema::schema;
use crate::error::{Error, Kind, Result};
use crate::sample::{IGNORE, Role, Sample};
use arrow_array::types::{ArrowPrimitiveType, Float32Type, Int8Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, GenericListArray, Int32Array, OffsetSizeTrait, PrimitiveArray, RecordBatch};
use arrow_buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::Field;
use std::ops::Range;
use std::sync::Arc;

/// A record and where it comes from.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// The line's number among those that held something, over all files.
    pub(crate) row: u64,
    /// Which file, which line.
    pub(crate) position: (u32, u64),
    pub(crate) sample: Sample,
}

/// A part of an item, or all of it, in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) item: usize,
    /// Its tokens. A record of several segments is never torn apart.
    pub(crate) tokens: Range<usize>,
}

/// What a block holds, as reports count it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Window {
    pub(crate) tokens: usize,
    pub(crate) scored: usize,
}

/// One column of lists that is filled row by row.
struct Lists<T: ArrowPrimitiveType, O: OffsetSizeTrait> {
    values: Vec<T::Native>,
    offsets: Vec<O>,
    valid: Option<Vec<bool>>,
}

impl<T: ArrowPrimitiveType, O: OffsetSizeTrait> Lists<T, O> {
    fn new(values: usize, rows: usize, nullable: bool) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(O::zero());
        Self { values: Vec::with_capacity(values), offsets, valid: nullable.then(|| Vec::with_capacity(rows)) }
    }

    fn close(&mut self, is_valid: bool) {
        self.offsets.push(O::usize_as(self.values.len()));
        if let Some(valid) = &mut self.valid {
            valid.push(is_valid);
        }
    }

    fn finish(self) -> ArrayRef {
        let values = PrimitiveArray::<T>::new(ScalarBuffer::from(self.values), None);
        let field = Arc::new(Field::new("item", values.data_type().clone(), false));
        let nulls = self.valid.filter(|valid| valid.contains(&false)).map(NullBuffer::from);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        Arc::new(GenericListArray::<O>::new(field, offsets, Arc::new(values), nulls))
    }
}

/// Windows of pieces as one record batch of [`schema`], and what each of them holds.
pub(crate) fn record_batch(items: &[Item], windows: &[Vec<Piece>]) -> Result<(RecordBatch, Vec<Window>)> {
    let tokens: usize = windows.iter().flatten().map(|piece| piece.tokens.len()).sum();
    let (count, pieces) = (windows.len(), windows.iter().map(Vec::len).sum());
    let mut ids = Lists::<Int32Type, i64>::new(tokens, count, false);
    let mut labels = Lists::<Int32Type, i64>::new(tokens, count, false);
    let mut weights = Lists::<Float32Type, i64>::new(0, count, true);
    let mut lengths = Lists::<Int32Type, i32>::new(pieces, count, false);
    let mut rows = Lists::<Int64Type, i32>::new(pieces, count, false);
    let mut sources = Lists::<Int32Type, i32>::new(pieces, count, false);
    let mut lines = Lists::<Int64Type, i32>::new(pieces, count, false);
    let mut parents = Lists::<Int32Type, i32>::new(0, count, true);
    let mut records = Lists::<Int32Type, i32>::new(0, count, true);
    let mut roles = Lists::<Int8Type, i32>::new(0, count, true);
    let mut scores = Lists::<Float32Type, i32>::new(0, count, true);
    let mut criteria = Lists::<Int32Type, i32>::new(0, count, true);
    let mut record_weights = Lists::<Float32Type, i32>::new(0, count, true);
    let mut held = Vec::with_capacity(count);
    for window in windows {
        let start = labels.values.len();
        let weighted = window.iter().any(|piece| !items[piece.item].sample.weights.is_empty());
        let structured =
            window.iter().any(|piece| items[piece.item].sample.segments.iter().any(|s| s.role != Role::Whole));
        let has_criteria = structured && window.iter().any(|piece| items[piece.item].sample.criterion.is_some());
        let counts = structured && window.iter().any(|piece| items[piece.item].sample.record_weight.is_some());
        let mut segment_count = 0_i32;
        for (record, piece) in window.iter().enumerate() {
            let Item { row, position, sample } = &items[piece.item];
            let first = labels.values.len();
            ids.values.extend_from_slice(&sample.ids[piece.tokens.clone()]);
            labels.values.extend_from_slice(&sample.labels[piece.tokens.clone()]);
            // Nothing stands before a segment's first token that it could be predicted from.
            if let Some(label) = labels.values.get_mut(first) {
                *label = IGNORE;
            }
            if weighted {
                if sample.weights.is_empty() {
                    weights.values.extend(piece.tokens.clone().map(|_| 1.0));
                } else {
                    weights.values.extend_from_slice(&sample.weights[piece.tokens.clone()]);
                }
            }
            let base = segment_count;
            let mut segment = |length: usize| -> Result<()> {
                lengths.values.push(number(length)?);
                rows.values.push(row.cast_signed());
                sources.values.push(position.0.cast_signed());
                lines.values.push(position.1.cast_signed());
                segment_count += 1;
                Ok(())
            };
            if piece.tokens.is_empty() {
                // A row that could not be used: a window without segments, which says which row it was.
                rows.values.push(row.cast_signed());
            } else if piece.tokens.len() != sample.len() {
                segment(piece.tokens.len())?;
            } else {
                sample.segments.iter().try_for_each(|s| segment(s.length))?;
            }
            if structured {
                for s in &sample.segments {
                    parents.values.push(s.parent.map_or(Ok(-1), |parent| Ok(base + number(parent)?))?);
                    records.values.push(number(record)?);
                    roles.values.push(s.role as i8);
                    scores.values.push(s.score);
                }
                let of = sample.segments.len();
                if has_criteria {
                    criteria.values.extend(std::iter::repeat_n(sample.criterion.unwrap_or(-1), of));
                }
                if counts {
                    record_weights.values.extend(std::iter::repeat_n(sample.record_weight.unwrap_or(1.0), of));
                }
            }
        }
        ids.close(true);
        labels.close(true);
        weights.close(weighted);
        lengths.close(true);
        rows.close(true);
        sources.close(true);
        lines.close(true);
        parents.close(structured);
        records.close(structured);
        roles.close(structured);
        scores.close(structured);
        criteria.close(has_criteria);
        record_weights.close(counts);
        let scored = labels.values[start..].iter().filter(|&&label| label != IGNORE).count();
        held.push(Window { tokens: labels.values.len() - start, scored });
    }
    let scored = held.iter().map(|window| number(window.scored)).collect::<Result<Vec<i32>>>()?;
    let columns: Vec<ArrayRef> = vec![
        ids.finish(),
        labels.finish(),
        weights.finish(),
        lengths.finish(),
        Arc::new(Int32Array::from(scored)),
        rows.finish(),
        sources.finish(),
        lines.finish(),
        parents.finish(),
        records.finish(),
        roles.finish(),
        scores.finish(),
        criteria.finish(),
        record_weights.finish(),
    ];
    let batch = RecordBatch::try_new(Arc::new(schema()), columns);
    Ok((batch.map_err(|e| Error::new(Kind::Resource, "windows do not fit together").because(e))?, held))
}

/// What windows hold, without making them.
pub(crate) fn held(items: &[Item], windows: &[Vec<Piece>]) -> Vec<Window> {
    let scored = |piece: &Piece| {
        let labels = &items[piece.item].sample.labels[piece.tokens.clone()];
        labels.iter().skip(1).filter(|&&label| label != IGNORE).count()
    };
    let window = |pieces: &Vec<Piece>| Window {
        tokens: pieces.iter().map(|piece| piece.tokens.len()).sum(),
        scored: pieces.iter().map(scored).sum(),
    };
    windows.iter().map(window).collect()
}

fn number(value: usize) -> Result<i32> {
    i32::try_from(value).map_err(|_| Error::data("a row has more than 2^31 tokens"))
}
