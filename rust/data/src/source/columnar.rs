//! Batches of columns as rows.

use super::{Content, Line, Rows, damaged, json, too_long};
use crate::error::{Error, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrowPrimitiveType, PrimitiveArray, RecordBatch, StructArray, downcast_dictionary_array};
use arrow_schema::{DataType, Field, Fields, TimeUnit};
use serde_json::{Map, Number, Value};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What a value takes at least, against the limit of a row.
const SMALLEST_VALUE: usize = 8;

/// The metadata by which Arrow marks text that is JSON; `datasets` stores its `Json` columns so.
const EXTENSION: (&str, &str) = ("ARROW:extension:name", "arrow.json");

pub(super) type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

struct Columns {
    batches: Batches,
    current: Option<(Arc<RecordBatch>, usize)>,
    name: String,
    number: u64,
    max_row_bytes: usize,
    done: bool,
}

pub(super) fn rows(batches: Batches, name: String, max_row_bytes: usize) -> Rows<'static> {
    Box::new(Columns { batches, current: None, name, number: 0, max_row_bytes, done: false })
}

/// Decoders may panic on a damaged file: that is an error of the file, not of the process.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(damaged(text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("its decoder gave up")))
    })
}

impl Iterator for Columns {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        loop {
            if let Some((batch, at)) = &mut self.current
                && *at < batch.num_rows()
            {
                let cell = Cell { batch: batch.clone(), row: *at, limit: self.max_row_bytes };
                *at += 1;
                self.number += 1;
                return Some(Line::new(&self.name, self.number, Ok(Content::Cell(cell))));
            }
            self.current = None;
            if self.done {
                return None;
            }
            match guarded(|| self.batches.next().transpose()) {
                Ok(Some(batch)) => self.current = Some((Arc::new(batch), 0)),
                Ok(None) => self.done = true,
                Err(error) => {
                    self.done = true;
                    return Some(Line::new(&self.name, self.number + 1, Err(error)));
                }
            }
        }
    }
}

/// One row of a batch of columns, which worker threads turn into fields.
#[derive(Debug, Clone)]
pub struct Cell {
    batch: Arc<RecordBatch>,
    row: usize,
    limit: usize,
}

impl Cell {
    /// The row's fields.
    ///
    /// # Errors
    /// It is too long, or holds something that is no text, number, truth value, list or object.
    pub fn fields(&self) -> Result<Map<String, Value>> {
        row(&self.batch, self.row, self.limit)
    }

    /// The row's fields, where a column that holds NaN or Infinity is told by [`json::is_nan`]: floats that are
    /// missing are often written so, and a column that nobody reads may hold anything.
    ///
    /// # Errors
    /// As [`Cell::fields`] otherwise.
    pub(crate) fn lenient(&self) -> Result<Map<String, Value>> {
        fields(&self.batch, self.row, self.limit, true)
    }

    /// Roughly the memory that it takes.
    pub(super) fn size(&self) -> usize {
        self.batch.get_array_memory_size() / self.batch.num_rows().max(1)
    }
}

/// One row of a batch of columns; at most about `limit` bytes of it.
///
/// # Errors
/// As [`Cell::fields`].
pub fn row(batch: &RecordBatch, row: usize, limit: usize) -> Result<Map<String, Value>> {
    fields(batch, row, limit, false)
}

fn fields(batch: &RecordBatch, row: usize, limit: usize, lenient: bool) -> Result<Map<String, Value>> {
    guarded(|| {
        let mut left = limit;
        let on_nan: OnNan = if lenient { |_| Ok(json::nan()) } else { |column| Err(nan(column).into()) };
        object(batch.schema_ref().fields(), batch.columns(), row, &mut left, on_nan).map_err(|error| match error {
            Bad::Long => too_long(limit),
            Bad::Nan => nan("?"),
            Bad::Row(error) => *error,
        })
    })
}

/// The error of a column that is read and holds no number.
pub(crate) fn nan(column: &str) -> Error {
    Error::data("NaN and Infinity are no numbers")
        .at(format!("column {column}"))
        .fix("write null where a number is missing")
}

/// What becomes of a column that holds NaN.
type OnNan = fn(&str) -> std::result::Result<Value, Bad>;

enum Bad {
    Long,
    Nan,
    Row(Box<Error>),
}

impl From<Error> for Bad {
    fn from(error: Error) -> Self {
        Self::Row(Box::new(error))
    }
}

fn object(
    fields: &Fields,
    columns: &[arrow_array::ArrayRef],
    row: usize,
    left: &mut usize,
    on_nan: OnNan,
) -> std::result::Result<Map<String, Value>, Bad> {
    let mut made = Map::with_capacity(fields.len());
    for (field, column) in fields.iter().zip(columns) {
        let found = value(field, column.as_ref(), row, left).or_else(|bad| match bad {
            Bad::Nan => on_nan(field.name()),
            Bad::Row(error) => Err((*error).at(format!("column {}", field.name())).into()),
            Bad::Long => Err(bad),
        })?;
        if made.insert(field.name().clone(), found).is_some() {
            return Err(Error::data(format!("two columns are named {:?}", field.name())).fix("rename one").into());
        }
    }
    Ok(made)
}

fn list(field: &Field, items: &dyn Array, left: &mut usize) -> std::result::Result<Value, Bad> {
    // Checked before anything is made: a list of nulls takes no bytes of the file.
    if items.len() > *left / SMALLEST_VALUE {
        return Err(Bad::Long);
    }
    (0..items.len())
        .map(|item| value(field, items, item, left))
        .collect::<std::result::Result<_, _>>()
        .map(Value::Array)
}

fn primitive<T: ArrowPrimitiveType>(array: &dyn Array) -> &PrimitiveArray<T> {
    array.as_primitive::<T>()
}

fn value(field: &Field, array: &dyn Array, row: usize, left: &mut usize) -> std::result::Result<Value, Bad> {
    *left = left.checked_sub(SMALLEST_VALUE).ok_or(Bad::Long)?;
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int8 => primitive::<Int8Type>(array).value(row).into(),
        DataType::Int16 => primitive::<Int16Type>(array).value(row).into(),
        DataType::Int32 => primitive::<Int32Type>(array).value(row).into(),
        DataType::Int64 => primitive::<Int64Type>(array).value(row).into(),
        DataType::UInt8 => primitive::<UInt8Type>(array).value(row).into(),
        DataType::UInt16 => primitive::<UInt16Type>(array).value(row).into(),
        DataType::UInt32 => primitive::<UInt32Type>(array).value(row).into(),
        DataType::UInt64 => primitive::<UInt64Type>(array).value(row).into(),
        DataType::Float16 => float(primitive::<Float16Type>(array).value(row).into())?,
        DataType::Float32 => float(primitive::<Float32Type>(array).value(row).into())?,
        DataType::Float64 => float(primitive::<Float64Type>(array).value(row))?,
        DataType::Utf8 => text(field, array.as_string::<i32>().value(row), left)?,
        DataType::LargeUtf8 => text(field, array.as_string::<i64>().value(row), left)?,
        DataType::Utf8View => text(field, array.as_string_view().value(row), left)?,
        DataType::Binary => bytes(field, array.as_binary::<i32>().value(row), left)?,
        DataType::LargeBinary => bytes(field, array.as_binary::<i64>().value(row), left)?,
        DataType::BinaryView => bytes(field, array.as_binary_view().value(row), left)?,
        DataType::FixedSizeBinary(_) => bytes(field, array.as_fixed_size_binary().value(row), left)?,
        DataType::List(item) => list(item, &array.as_list::<i32>().value(row), left)?,
        DataType::LargeList(item) => list(item, &array.as_list::<i64>().value(row), left)?,
        DataType::ListView(item) => list(item, &array.as_list_view::<i32>().value(row), left)?,
        DataType::LargeListView(item) => list(item, &array.as_list_view::<i64>().value(row), left)?,
        DataType::FixedSizeList(item, _) => list(item, &array.as_fixed_size_list().value(row), left)?,
        DataType::Struct(fields) => {
            Value::Object(object(fields, array.as_struct().columns(), row, left, |_| Err(Bad::Nan))?)
        }
        DataType::Map(..) => map(&array.as_map().value(row), left)?,
        DataType::Dictionary(_, _) => downcast_dictionary_array!(
            array => {
                let key = array.key(row).ok_or_else(|| damaged("a dictionary key is out of range"))?;
                value(field, array.values().as_ref(), key, left)?
            },
            other => return Err(unread(other))
        ),
        DataType::Date32 => iso(primitive::<Date32Type>(array).value_as_date(row).map(|date| date.to_string()))?,
        DataType::Date64 => iso(primitive::<Date64Type>(array).value_as_date(row).map(|date| date.to_string()))?,
        DataType::Timestamp(unit, zone) => {
            let time = match unit {
                TimeUnit::Second => primitive::<TimestampSecondType>(array).value_as_datetime(row),
                TimeUnit::Millisecond => primitive::<TimestampMillisecondType>(array).value_as_datetime(row),
                TimeUnit::Microsecond => primitive::<TimestampMicrosecondType>(array).value_as_datetime(row),
                TimeUnit::Nanosecond => primitive::<TimestampNanosecondType>(array).value_as_datetime(row),
            };
            // Where there is a zone the values are in UTC, and stay so.
            let zone = if zone.is_some() { "+00:00" } else { "" };
            iso(time.map(|time| format!("{}{zone}", time.format("%Y-%m-%dT%H:%M:%S%.f"))))?
        }
        DataType::Decimal128(..) => Value::String(primitive::<Decimal128Type>(array).value_as_string(row)),
        DataType::Decimal256(..) => Value::String(primitive::<Decimal256Type>(array).value_as_string(row)),
        other => return Err(unread(other)),
    })
}

fn unread(kind: &DataType) -> Bad {
    Error::data(format!("columns of type {kind} are not read")).fix("drop the column, or write it as text").into()
}

fn float(number: f64) -> std::result::Result<Value, Bad> {
    Number::from_f64(number).map(Value::Number).ok_or(Bad::Nan)
}

fn text(field: &Field, text: &str, left: &mut usize) -> std::result::Result<Value, Bad> {
    *left = left.checked_sub(text.len()).ok_or(Bad::Long)?;
    if field.metadata().get(EXTENSION.0).is_some_and(|name| name == EXTENSION.1) {
        return Ok(json::value(text.as_bytes())?);
    }
    Ok(Value::String(text.to_owned()))
}

fn bytes(field: &Field, bytes: &[u8], left: &mut usize) -> std::result::Result<Value, Bad> {
    let found = std::str::from_utf8(bytes).map_err(|_| {
        Error::data("the column holds bytes that are not text").fix("text is trained on: leave images and sounds out")
    })?;
    text(field, found, left)
}

fn iso(text: Option<String>) -> std::result::Result<Value, Bad> {
    text.map(Value::String).ok_or_else(|| Error::data("a date is out of range").fix("mend the row").into())
}

fn map(entries: &StructArray, left: &mut usize) -> std::result::Result<Value, Bad> {
    let (DataType::Struct(fields), [keys, values]) = (entries.data_type(), entries.columns()) else {
        return Err(damaged("a map has no keys and values").into());
    };
    let mut made = Map::new();
    for entry in 0..entries.len() {
        let key = match value(&fields[0], keys, entry, left)? {
            Value::String(key) => key,
            other => return Err(Error::data(format!("a map's key is {other}, not text")).fix("use text keys").into()),
        };
        if made.contains_key(&key) {
            return Err(Error::data(format!("the key {key:?} is there twice")).fix("mend the row").into());
        }
        let found = value(&fields[1], values, entry, left)?;
        made.insert(key, found);
    }
    Ok(Value::Object(made))
}
