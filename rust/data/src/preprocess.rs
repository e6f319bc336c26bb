//! Tables to tables: the rows of Arrow record batches as token windows, for whoever holds them.

use crate::encode::{Encoded, Outcome};
use crate::error::{Error, Kind, Result};
use crate::formats::Format;
use crate::prepare::Preparer;
use crate::prepared::block::{Item, Piece, record_batch};
use crate::prepared::schema;
use crate::rows::reason_of;
use crate::sample::Sample;
use crate::source::columnar;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use rayon::prelude::*;
use std::sync::Arc;

/// The column that says why a row has no tokens.
pub const ERROR: &str = "_error";

/// The columns that [`Preparer::table`] returns: a prepared file's, and [`ERROR`].
#[must_use]
pub fn table_schema() -> SchemaRef {
    let mut fields: Vec<Field> = schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new(ERROR, DataType::Utf8, true));
    Arc::new(Schema::new(fields))
}

impl Preparer {
    /// Encode the rows of record batches: a row of the result for each record, in order, as a window of its own, or,
    /// with `pack`, windows of up to 10,000 rows packed together. A row that cannot be used is a window without tokens
    /// whose [`ERROR`] says why. `row_ids` counts the rows of the batches from 0.
    ///
    /// Unless the format is named, each row tells its own by the columns that hold something: the result does not depend
    /// on which rows come together.
    ///
    /// # Errors
    /// No format has the table's columns, a record is of a kind that is not taken, or, with `on_bad_row` "error", a row is
    /// bad.
    pub fn table(&self, batches: &[RecordBatch], pack: bool) -> Result<RecordBatch> {
        let places: Vec<(&RecordBatch, usize)> =
            batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row))).collect();
        let limit = self.options().max_row_bytes;
        let options = self.options();
        let named = if options.format.is_some() || options.prompt_column.is_some() {
            Some(self.format(&[])?)
        } else {
            if let Some(batch) = batches.first() {
                let schema = batch.schema();
                let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
                Format::columns_fit(&names, &options.columns)?;
            }
            None
        };
        let encode = |&(batch, row): &(&RecordBatch, usize)| -> Result<Vec<Outcome>> {
            let fields = columnar::row(batch, row, limit)?;
            match &named {
                Some(format) => self.outcomes(format, &fields),
                None => {
                    let format = Format::of_row(&fields, &options.columns)?;
                    if !options.kinds.is_empty() && !options.kinds.iter().any(|kind| kind == format.kind()) {
                        let kinds = options.kinds.join(" or ");
                        return Err(Error::data(format!("the row holds {} data, not {kinds}", format.kind())));
                    }
                    self.outcomes(&format, &fields)
                }
            }
        };
        let made: Vec<Result<Vec<Outcome>>> = if self.threads() > 1 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads()).build();
            let pool = pool.map_err(|e| Error::new(Kind::Resource, "cannot start worker threads").because(e))?;
            pool.install(|| places.par_iter().map(encode).collect())
        } else {
            places.iter().map(encode).collect()
        };
        let mut items = Vec::with_capacity(made.len());
        let mut errors: Vec<Option<String>> = Vec::with_capacity(made.len());
        let mut push = |row: usize, sample: Sample, error: Option<String>| {
            items.push(Item { row: row as u64, position: (0, row as u64 + 1), sample });
            errors.push(error);
        };
        for (row, outcomes) in made.into_iter().enumerate() {
            let outcomes = match outcomes {
                Ok(outcomes) => outcomes,
                Err(error) if error.kind == Kind::Usage || self.options().on_bad_row == "error" => {
                    return Err(crate::rows::bad_row(error, &format!("row {row}"), false));
                }
                Err(error) => {
                    push(row, Sample::default(), Some(reason_of(&error)));
                    continue;
                }
            };
            let mut reason = Some("the row holds no record");
            for outcome in outcomes {
                match outcome {
                    Outcome::Used(Encoded { sample, .. }) => {
                        push(row, sample, None);
                        reason = None;
                    }
                    Outcome::Dropped(left) => reason = reason.and(Some(left.0)),
                }
            }
            if let Some(reason) = reason {
                push(row, Sample::default(), Some(reason.into()));
            }
        }
        self.windows_of(items, errors, pack)
    }

    fn windows_of(&self, items: Vec<Item>, errors: Vec<Option<String>>, pack: bool) -> Result<RecordBatch> {
        let (windows, errors) = if pack {
            let (used, left): (Vec<_>, Vec<_>) = items.into_iter().zip(errors).partition(|(_, error)| error.is_none());
            let (mut items, _): (Vec<Item>, Vec<_>) = used.into_iter().unzip();
            let (mut windows, mut start) = (Vec::new(), 0);
            for chunk in items.chunks(crate::prepare::PACKING_WINDOW) {
                let mut packed = self.packing().windows(chunk)?.windows;
                packed.iter_mut().flatten().for_each(|piece| piece.item += start);
                windows.append(&mut packed);
                start += chunk.len();
            }
            let mut errors: Vec<Option<String>> = vec![None; windows.len()];
            for (item, error) in left {
                windows.push(vec![Piece { item: items.len(), tokens: 0..0 }]);
                items.push(item);
                errors.push(error);
            }
            ((items, windows), errors)
        } else {
            let whole = |(index, item): (usize, &Item)| vec![Piece { item: index, tokens: 0..item.sample.len() }];
            let windows = items.iter().enumerate().map(whole).collect();
            ((items, windows), errors)
        };
        let (batch, _) = record_batch(&windows.0, &windows.1)?;
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        columns.push(Arc::new(StringArray::from(errors)));
        RecordBatch::try_new(table_schema(), columns)
            .map_err(|e| Error::new(Kind::Resource, "windows do not fit together").because(e))
    }
}
