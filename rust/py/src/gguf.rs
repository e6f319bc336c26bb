//! GGUF files as Python sees them.

use crate::errors::{detached, from_data, raise};
use alignite_data::gguf_tokenizer;
use alignite_quant::error::Error;
use alignite_quant::gguf;
use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::path::PathBuf;

/// An open GGUF file (versions 2 and 3).
#[pyclass(frozen, module = "alignite._core")]
pub struct Gguf {
    inner: gguf::Gguf,
    path: String,
}

impl Gguf {
    fn raise(py: Python<'_>, path: &str, error: &Error) -> PyErr {
        match error {
            Error::Open(why) => {
                raise(py, "GgufError", "the GGUF file cannot be opened", Some(path), Some(why), Some("check the path"))
            }
            Error::Malformed { offset, what } => raise(
                py,
                "GgufError",
                "the GGUF file is damaged",
                Some(&format!("{path}, byte {offset}")),
                Some(what),
                Some("get the file again"),
            ),
            Error::Unsupported(what) => raise(
                py,
                "GgufError",
                what,
                Some(path),
                None,
                Some("convert the file with llama.cpp, or use another one"),
            ),
        }
    }
}

fn to_python<'py>(py: Python<'py>, value: &gguf::Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        gguf::Value::Unsigned(n) => n.into_pyobject(py)?.into_any(),
        gguf::Value::Signed(n) => n.into_pyobject(py)?.into_any(),
        gguf::Value::Float(x) => x.into_pyobject(py)?.into_any(),
        gguf::Value::Bool(b) => b.into_pyobject(py)?.to_owned().into_any(),
        gguf::Value::Text(text) => text.into_pyobject(py)?.into_any(),
        gguf::Value::List(items) => {
            let items = items.iter().map(|item| to_python(py, item)).collect::<PyResult<Vec<_>>>()?;
            PyList::new(py, items)?.into_any()
        }
    })
}

#[pymethods]
impl Gguf {
    /// Map a file and read its head; every length in it is checked first.
    #[new]
    #[pyo3(signature = (path))]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let name = path.display().to_string();
        match detached(py, || gguf::Gguf::open(&path))? {
            Ok(inner) => Ok(Self { inner, path: name }),
            Err(error) => Err(Self::raise(py, &name, &error)),
        }
    }

    /// Metadata by key: numbers, texts, booleans and lists of them.
    #[pyo3(signature = () -> "dict[str, object]")]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (key, value) in &self.inner.metadata {
            dict.set_item(key, to_python(py, value)?)?;
        }
        Ok(dict)
    }

    /// (name, shape, type) of each tensor in file order; shapes as torch has them, outermost first.
    #[pyo3(signature = () -> "list[tuple[str, list[int], str]]")]
    fn tensors(&self) -> Vec<(String, Vec<usize>, String)> {
        let tensors = self.inner.tensors.iter();
        tensors
            .map(|tensor| (tensor.name.clone(), tensor.shape.clone(), format!("{:?}", tensor.kind).to_uppercase()))
            .collect()
    }

    /// A tensor's bytes in row order as `dtype` (float32, bfloat16 or float16), little endian.
    ///
    /// `rotary_heads` is the number of heads of a query or key projection whose rows llama.cpp interleaved; they
    /// are put back into the order that transformers has. 0 leaves the rows as they are.
    #[pyo3(signature = (name, dtype="float32", rotary_heads=0) -> "numpy.typing.NDArray[numpy.uint8]")]
    fn tensor<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        dtype: &str,
        rotary_heads: usize,
    ) -> PyResult<Bound<'py, PyArray1<u8>>> {
        let Some(tensor) = self.inner.tensors.iter().find(|tensor| tensor.name == name) else {
            return Err(raise(
                py,
                "GgufError",
                &format!("the file has no tensor {name:?}"),
                Some(&self.path),
                None,
                None,
            ));
        };
        let rows = tensor.shape[0];
        if rotary_heads > 0 && !rows.is_multiple_of(2 * rotary_heads) {
            let what = format!("{name:?} has {rows} rows, which {rotary_heads} heads cannot share");
            return Err(raise(py, "GgufError", &what, Some(&self.path), None, None));
        }
        let bytes = detached(py, || {
            let mut values = self.inner.values(tensor);
            if rotary_heads > 0 {
                values = deinterleave(&values, rows, rotary_heads);
            }
            match dtype {
                "float32" => Some(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()),
                "bfloat16" => {
                    Some(values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect())
                }
                "float16" => Some(values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect()),
                _ => None,
            }
        })?;
        match bytes {
            Some(bytes) => Ok(bytes.into_pyarray(py)),
            None => Err(raise(
                py,
                "UsageError",
                &format!("dtype is {dtype:?}"),
                None,
                None,
                Some("float32, bfloat16 or float16"),
            )),
        }
    }
}

/// llama.cpp pairs row i of a head's first half with row i of its second half; transformers keeps the halves apart.
fn deinterleave(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let width = values.len() / rows;
    let head = rows / heads;
    let mut output = Vec::with_capacity(values.len());
    for row in 0..rows {
        let (which, inside) = (row / head, row % head);
        let (half, index) = (inside / (head / 2), inside % (head / 2));
        let from = which * head + 2 * index + half;
        output.extend_from_slice(&values[from * width..(from + 1) * width]);
    }
    output
}

/// tokenizer.json of a GGUF file's byte-level BPE tokenizer, from its lists and the name of its pre-tokenizer.
#[pyfunction]
#[pyo3(signature = (tokens: "collections.abc.Sequence[str]", types: "collections.abc.Sequence[int]", merges: "collections.abc.Sequence[str]", pre) -> "str")]
pub fn gguf_tokenizer_json(
    py: Python<'_>,
    tokens: Vec<String>,
    types: Vec<i64>,
    merges: Vec<String>,
    pre: &str,
) -> PyResult<String> {
    detached(py, || gguf_tokenizer::tokenizer_json(&tokens, &types, &merges, pre))?
        .map_err(|error| from_data(py, &error))
}
