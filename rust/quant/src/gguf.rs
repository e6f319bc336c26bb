//! GGUF files, versions 2 and 3, little endian.
//!
//! The file is untrusted. Every length is checked against the bytes that are left before anything is allocated for
//! it, so that no file makes this take more memory than a small multiple of its size.

use crate::error::{Error, Result};
use crate::tensor_type::TensorType;
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

const MAX_DEPTH: usize = 4;
const MAX_DIMENSIONS: u32 = 4;

/// A metadata value; numbers keep their sign and their being whole or not.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Unsigned.
    Unsigned(u64),
    /// Signed.
    Signed(i64),
    /// f32 or f64.
    Float(f64),
    /// Boolean.
    Bool(bool),
    /// Text.
    Text(String),
    /// A list of one type.
    List(Vec<Value>),
}

/// One tensor: where its bytes are and how to read them.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its shape, outermost dimension first, as torch has it (GGUF stores it the other way round).
    pub shape: Vec<usize>,
    /// Its type.
    pub kind: TensorType,
    range: Range<usize>,
}

impl Tensor {
    /// How many values it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has none; no tensor of a file does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An open file.
#[derive(Debug)]
pub struct Gguf {
    bytes: Bytes,
    /// By key.
    pub metadata: BTreeMap<String, Value>,
    /// In file order.
    pub tensors: Vec<Tensor>,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl Gguf {
    /// Map a file and read its head.
    ///
    /// # Errors
    /// The file cannot be opened, is malformed, or holds a tensor type that is not read.
    #[allow(unsafe_code)]
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::Open(e.to_string()))?;
        // SAFETY: the map is read only while this object lives. A file that someone else cuts short meanwhile gives a
        // bus error, as with any reader that maps; nothing is ever written through it.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::Open(e.to_string()))?;
        Self::read(Bytes::Mapped(map))
    }

    /// Read bytes in memory.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Self::read(Bytes::Owned(bytes))
    }

    fn read(bytes: Bytes) -> Result<Self> {
        let mut cursor = Cursor { bytes: &bytes, at: 0 };
        if cursor.take(4).ok() != Some(b"GGUF".as_slice()) {
            return Err(malformed(0, "this is not a GGUF file"));
        }
        let version = cursor.u32()?;
        if version != 2 && version != 3 {
            let swapped = version.swap_bytes();
            return Err(if swapped == 2 || swapped == 3 {
                Error::Unsupported("the file is big endian, which is not read".into())
            } else {
                Error::Unsupported(format!("GGUF version {version} is not read; versions 2 and 3 are"))
            });
        }
        let tensor_count = cursor.u64()?;
        let value_count = cursor.u64()?;
        let mut metadata = BTreeMap::new();
        // A key and a value take 13 bytes at least, a tensor's head 32: a count that cannot fit is refused at once.
        for _ in 0..cursor.count(value_count, 13)? {
            let at = cursor.at;
            let key = cursor.text()?;
            let kind = cursor.u32()?;
            let value = cursor.value(kind, 0)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(malformed(at, format!("the key {key:?} stands twice")));
            }
        }
        let mut heads = Vec::new();
        for _ in 0..cursor.count(tensor_count, 32)? {
            heads.push(cursor.tensor()?);
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Unsigned(n)) if n.is_power_of_two() && *n <= 1 << 16 => usize::try_from(*n).unwrap_or(32),
            Some(_) => {
                return Err(Error::Unsupported("general.alignment is not a power of two".into()));
            }
        };
        let start = cursor
            .at
            .checked_next_multiple_of(alignment)
            .ok_or_else(|| malformed(cursor.at, "the data's start overflows"))?;
        let tensors = place(heads, start, alignment, bytes.len())?;
        Ok(Self { bytes, metadata, tensors })
    }

    /// Values of a tensor, as float32 in its own order.
    #[must_use]
    pub fn values(&self, tensor: &Tensor) -> Vec<f32> {
        let mut output = vec![0.0; tensor.len()];
        tensor.kind.dequantize(&self.bytes[tensor.range.clone()], &mut output);
        output
    }
}

struct Head {
    tensor: Tensor,
    offset: u64,
    at: usize,
}

fn place(heads: Vec<Head>, start: usize, alignment: usize, size: usize) -> Result<Vec<Tensor>> {
    let mut tensors = Vec::with_capacity(heads.len());
    let mut names = std::collections::BTreeSet::new();
    for Head { mut tensor, offset, at } in heads {
        let name = &tensor.name;
        let (values, bytes) = tensor.kind.block();
        let row = tensor.shape.last().copied().unwrap_or(0);
        if row % values != 0 {
            return Err(malformed(
                at,
                format!("rows of {name:?} hold {row} values, which are not whole blocks of {values}"),
            ));
        }
        let length = tensor
            .shape
            .iter()
            .try_fold(1usize, |all, &n| all.checked_mul(n))
            .and_then(|n| (n / values).checked_mul(bytes));
        let begin = usize::try_from(offset).ok().filter(|o| o % alignment == 0).and_then(|o| start.checked_add(o));
        let range = begin.zip(length).and_then(|(begin, length)| Some(begin..begin.checked_add(length)?));
        match range {
            Some(range) if range.end <= size && !range.is_empty() => tensor.range = range,
            _ => {
                return Err(malformed(at, format!("the data of {name:?} lies outside the file or is misaligned")));
            }
        }
        if !names.insert(name.clone()) {
            return Err(malformed(at, format!("the tensor {name:?} stands twice")));
        }
        tensors.push(tensor);
    }
    let mut by_place: Vec<&Tensor> = tensors.iter().collect();
    by_place.sort_by_key(|tensor| tensor.range.start);
    if let Some(pair) = by_place.windows(2).find(|pair| pair[0].range.end > pair[1].range.start) {
        return Err(malformed(
            pair[1].range.start,
            format!("the tensors {:?} and {:?} overlap", pair[0].name, pair[1].name),
        ));
    }
    Ok(tensors)
}

fn malformed(offset: usize, what: impl Into<String>) -> Error {
    Error::Malformed { offset, what: what.into() }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        if count > self.left() {
            return Err(malformed(self.at, format!("the file ends here, {count} more bytes are due")));
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things of at least `size` bytes each, which must still be there.
    fn count(&self, count: u64, size: usize) -> Result<usize> {
        usize::try_from(count).ok().filter(|&n| n <= self.left() / size).ok_or_else(|| {
            malformed(self.at, format!("a count of {count} does not fit into the {} bytes left", self.left()))
        })
    }

    fn text(&mut self) -> Result<String> {
        let at = self.at;
        let length = self.u64()?;
        let length = self.count(length, 1)?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| malformed(at, "a text is not UTF-8"))?;
        Ok(text.to_owned())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value> {
        Ok(match kind {
            0 => Value::Unsigned(u64::from(self.array::<1>()?[0])),
            1 => Value::Signed(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Unsigned(u64::from(self.u32()?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => match self.array::<1>()?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(malformed(self.at - 1, format!("a boolean is {other}"))),
            },
            8 => Value::Text(self.text()?),
            9 => {
                if depth == MAX_DEPTH {
                    return Err(malformed(self.at, format!("lists nest deeper than {MAX_DEPTH}")));
                }
                let inner = self.u32()?;
                let size = match inner {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    8 | 10..=12 => 8,
                    9 => 12,
                    other => {
                        return Err(malformed(self.at - 4, format!("there is no value type {other}")));
                    }
                };
                let count = self.u64()?;
                let count = self.count(count, size)?;
                // Grows as values are read, so an element that does not parse ends it early.
                let mut list = Vec::new();
                for _ in 0..count {
                    list.push(self.value(inner, depth + 1)?);
                }
                Value::List(list)
            }
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => {
                return Err(malformed(self.at - 4, format!("there is no value type {other}")));
            }
        })
    }

    fn tensor(&mut self) -> Result<Head> {
        let at = self.at;
        let name = self.text()?;
        let dimensions = self.u32()?;
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return Err(malformed(at, format!("the tensor {name:?} has {dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = usize::try_from(self.u64()?).ok().filter(|&size| size > 0);
            shape.push(size.ok_or_else(|| malformed(at, format!("the tensor {name:?} has a dimension of no size")))?);
        }
        shape.reverse();
        let kind = self.u32()?;
        let kind = TensorType::from_number(kind).map_err(|kind| {
            Error::Unsupported(format!(
                "the tensor {name:?} is of type {kind}, which is not read; F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are"
            ))
        })?;
        let offset = self.u64()?;
        Ok(Head { tensor: Tensor { name, shape, kind, range: 0..0 }, offset, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(2u64.to_le_bytes());
        bytes.extend(2u64.to_le_bytes());
        let text = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        };
        text(&mut bytes, "general.architecture");
        bytes.extend(8u32.to_le_bytes());
        text(&mut bytes, "llama");
        text(&mut bytes, "list");
        bytes.extend(9u32.to_le_bytes());
        bytes.extend(4u32.to_le_bytes());
        bytes.extend(2u64.to_le_bytes());
        bytes.extend([1, 0, 0, 0, 2, 0, 0, 0]);
        for (name, kind, offset) in [("a", 8u32, 0u64), ("b", 0, 64)] {
            text(&mut bytes, name);
            bytes.extend(1u32.to_le_bytes());
            bytes.extend(32u64.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend([0, 0x3C]);
        bytes.extend(0..32u8);
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend((0..32u8).flat_map(|n| f32::from(n).to_le_bytes()));
        bytes
    }

    #[test]
    fn a_small_file_is_read() {
        let file = Gguf::from_bytes(small()).unwrap();
        assert_eq!(file.metadata["general.architecture"], Value::Text("llama".into()));
        assert_eq!(file.metadata["list"], Value::List(vec![Value::Unsigned(1), Value::Unsigned(2)]));
        let expected: Vec<f32> = (0..32u8).map(f32::from).collect();
        assert_eq!(file.values(&file.tensors[0]), expected);
        assert_eq!(file.values(&file.tensors[1]), expected);
    }

    #[test]
    fn every_cut_is_an_error() {
        let bytes = small();
        for length in 0..bytes.len() {
            assert!(Gguf::from_bytes(bytes[..length].to_vec()).is_err(), "cut at {length}");
        }
    }

    proptest! {
        #[test]
        fn no_change_of_bytes_makes_it_panic(changes in prop::collection::vec((0usize..400, any::<u8>()), 1..6)) {
            let mut bytes = small();
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            if let Ok(file) = Gguf::from_bytes(bytes) {
                for tensor in &file.tensors {
                    prop_assert_eq!(file.values(tensor).len(), tensor.len());
                }
            }
        }

        #[test]
        fn no_count_is_believed(at in 8usize..200, count: u64) {
            let mut bytes = small();
            let end = (at + 8).min(bytes.len());
            bytes[at..end].copy_from_slice(&count.to_le_bytes()[..end - at]);
            let _ = Gguf::from_bytes(bytes);
        }
    }
}
