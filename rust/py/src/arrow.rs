//! Tables in and out through the Arrow C data interface: no pyarrow is needed on either side.
//!
//! The one unsafe place of this crate. Producers hand over capsules; the specification says what they hold and that a
//! consumer moves the content out and marks it as released:
//! <https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html>.
#![allow(unsafe_code)]

use crate::errors::raise;
use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi};
use arrow_array::ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader};
use arrow_array::{RecordBatch, RecordBatchIterator, RecordBatchReader, StructArray};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};
use std::ffi::CStr;
use std::ptr::NonNull;

const STREAM: &CStr = c"arrow_array_stream";
const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";

/// A table as any library takes it that knows the Arrow C data interface: `pyarrow.table(t)`, `polars.from_arrow(t)`.
#[pyclass(frozen, module = "alignite._core")]
pub struct ArrowTable {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
}

#[pymethods]
impl ArrowTable {
    /// Take over a table, a record batch or a stream of them.
    #[new]
    #[pyo3(signature = (source: "object"))]
    fn new(source: &Bound<'_, PyAny>) -> PyResult<Self> {
        import(source)
    }

    /// Rows.
    fn __len__(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Names of the columns.
    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// The Arrow C stream of the record batches.
    #[pyo3(signature = (requested_schema: "object" = None) -> "object")]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // Consumers may ask for other types; the specification lets a producer answer with its own.
        let _ = requested_schema;
        let batches: Vec<Result<RecordBatch, ArrowError>> = self.batches.iter().cloned().map(Ok).collect();
        let reader = RecordBatchIterator::new(batches, self.schema.clone());
        PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(reader)), STREAM)
    }

    /// The Arrow C schema.
    #[pyo3(signature = () -> "object")]
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(self.schema.as_ref()).map_err(|error| not_arrow(py, &error))?;
        PyCapsule::new_with_value(py, schema, SCHEMA)
    }
}

fn not_arrow(py: Python<'_>, why: &dyn std::fmt::Display) -> PyErr {
    let fix =
        "give a pyarrow table, a polars frame, a datasets.Dataset in Arrow format, or anything with __arrow_c_stream__";
    raise(py, "DataError", "this is no Arrow table", None, Some(&why.to_string()), Some(fix))
}

/// The record batches behind an object's `__arrow_c_stream__` or `__arrow_c_array__`.
pub(crate) fn import(source: &Bound<'_, PyAny>) -> PyResult<ArrowTable> {
    let py = source.py();
    if source.hasattr("__arrow_c_stream__")? {
        let capsule = source.call_method0("__arrow_c_stream__")?;
        let pointer: NonNull<FFI_ArrowArrayStream> = pointer(&capsule, STREAM)?;
        // SAFETY: the capsule's name says that it holds a stream; from_raw moves it out and leaves an empty one behind,
        // which the capsule's destructor then has nothing to release of.
        let reader = unsafe { RecordBatchStreamReader::from_raw(pointer.as_ptr()) };
        let reader = reader.map_err(|error| not_arrow(py, &error))?;
        let schema = reader.schema();
        let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|error| not_arrow(py, &error))?;
        return Ok(ArrowTable { schema, batches });
    }
    if source.hasattr("__arrow_c_array__")? {
        let capsules = source.call_method0("__arrow_c_array__")?;
        let capsules = capsules.cast::<PyTuple>()?;
        let schema: NonNull<FFI_ArrowSchema> = pointer(&capsules.get_item(0)?, SCHEMA)?;
        let array: NonNull<FFI_ArrowArray> = pointer(&capsules.get_item(1)?, ARRAY)?;
        // SAFETY: the names say what the capsules hold. from_raw moves the array out and leaves a released one; the
        // schema is only read while its capsule lives.
        let data = unsafe { from_ffi(FFI_ArrowArray::from_raw(array.as_ptr()), schema.as_ref()) };
        let data = data.map_err(|error| not_arrow(py, &error))?;
        if !matches!(data.data_type(), DataType::Struct(_)) {
            return Err(not_arrow(py, &format!("it is an array of {}, not of rows", data.data_type())));
        }
        let batch = RecordBatch::from(StructArray::from(data));
        return Ok(ArrowTable { schema: batch.schema(), batches: vec![batch] });
    }
    Err(not_arrow(py, &format!("it is a {}", source.get_type().name()?)))
}

fn pointer<T>(capsule: &Bound<'_, PyAny>, name: &'static CStr) -> PyResult<NonNull<T>> {
    Ok(capsule.cast::<PyCapsule>()?.pointer_checked(Some(name))?.cast())
}
