//! webdataset tar files: members that share a name up to the first dot are one row.
//!
//! A `.json` member gives the row's columns, any other member the column of its extension; `__key__` is the shared name.
//! Members without an extension or hidden ones belong to no row. Source: the webdataset format as `datasets` reads it.

use super::open::{Input, broken};
use super::{Content, Line, damaged, json, too_long};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::io::{self, Read};
use tar::{EntryType, Header};

const BLOCK: usize = 512;
/// The longest name or extended header that is read.
const MAX_NAME: u64 = 1 << 20;

/// Whether a block is a tar header, of any of the formats: its checksum says so.
pub(super) fn is_header(block: &[u8]) -> bool {
    block.len() >= BLOCK && checked(&block[..BLOCK]).is_some()
}

fn checked(block: &[u8]) -> Option<&Header> {
    let header = Header::from_byte_slice(block);
    // The checksum field counts as spaces.
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    let expected = sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..]);
    (header.cksum().ok()? == expected && block[0] != 0).then_some(header)
}

/// A member as its name, its bytes and why they could not be taken.
struct Member {
    key: String,
    extension: String,
    content: Result<Vec<u8>>,
}

pub(super) struct Samples {
    reader: Input,
    name: String,
    max_row_bytes: usize,
    number: u64,
    /// The first member of the next sample.
    next: Option<Member>,
    done: bool,
}

impl Samples {
    pub(super) fn new(reader: Input, name: String, max_row_bytes: usize) -> Self {
        Self { reader, name, max_row_bytes, number: 0, next: None, done: false }
    }

    fn exactly(&mut self, count: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(count).read_to_end(&mut bytes)?;
        if (read as u64) < count { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.reader).take(count), &mut io::sink())?;
        if skipped < count { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// The next member that belongs to a sample; none at the archive's end.
    fn member(&mut self) -> Result<Option<Member>> {
        let broken = |error: io::Error| broken(&error);
        let mut long_name: Option<String> = None;
        let mut long_size: Option<u64> = None;
        loop {
            let block = self.exactly(BLOCK as u64).map_err(broken)?;
            if block.iter().all(|&byte| byte == 0) {
                return Ok(None);
            }
            let header = checked(&block).ok_or_else(|| damaged("a header's checksum is wrong"))?;
            let size = long_size.take().map_or_else(|| header.entry_size(), Ok).map_err(|e| damaged(&e))?;
            let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
            let kind = header.entry_type();
            let extended = matches!(kind, EntryType::GNULongName | EntryType::XHeader);
            if extended && size > MAX_NAME {
                return Err(damaged("a member's name is longer than 1 MiB"));
            }
            let path = long_name.take().unwrap_or_else(|| String::from_utf8_lossy(&header.path_bytes()).into_owned());
            if extended {
                let bytes = self.exactly(size).map_err(broken)?;
                self.skip(padding).map_err(broken)?;
                if kind == EntryType::GNULongName {
                    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
                    long_name = Some(String::from_utf8_lossy(&bytes[..end]).into_owned());
                } else {
                    for extension in tar::PaxExtensions::new(&bytes) {
                        let extension = extension.map_err(|e| damaged(&e))?;
                        match extension.key_bytes() {
                            b"path" => long_name = Some(String::from_utf8_lossy(extension.value_bytes()).into_owned()),
                            b"size" => long_size = extension.value().ok().and_then(|value| value.parse().ok()),
                            _ => {}
                        }
                    }
                }
                continue;
            }
            let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous);
            let end = size.checked_add(padding).ok_or_else(|| damaged("a member's size is absurd"))?;
            let Some((key, extension)) = split(&path).filter(|_| is_file) else {
                self.skip(end).map_err(broken)?;
                continue;
            };
            let (key, extension) = (key.to_owned(), extension.to_owned());
            let content = if size > self.max_row_bytes as u64 {
                self.skip(end).map_err(broken)?;
                Err(too_long(self.max_row_bytes).because(path))
            } else {
                let bytes = self.exactly(size).map_err(broken)?;
                self.skip(padding).map_err(broken)?;
                Ok(bytes)
            };
            return Ok(Some(Member { key, extension, content }));
        }
    }

    fn fail(&mut self, error: Error) -> Line {
        self.done = true;
        Line::new(&self.name, self.number + 1, Err(error))
    }

    fn sample(&mut self, first: Member) -> Result<Result<Map<String, Value>>> {
        let key = first.key.clone();
        let mut row = Ok(Map::from_iter([("__key__".to_owned(), Value::String(key.clone()))]));
        let mut left = self.max_row_bytes;
        let mut member = Some(first);
        while let Some(found) = member {
            if found.key != key {
                self.next = Some(found);
                return Ok(row);
            }
            row = row.and_then(|mut row| {
                left = found
                    .content
                    .as_ref()
                    .map_or(Some(left), |bytes| left.checked_sub(bytes.len()))
                    .ok_or_else(|| too_long(self.max_row_bytes))?;
                add(&mut row, found)?;
                Ok(row)
            });
            member = self.member()?;
        }
        self.done = true;
        Ok(row)
    }
}

/// Folder and name up to the first dot, and what follows it.
fn split(path: &str) -> Option<(&str, &str)> {
    let start = path.rfind('/').map_or(0, |slash| slash + 1);
    let dot = start + path[start..].find('.')?;
    (dot > start && dot + 1 < path.len()).then(|| (&path[..dot], &path[dot + 1..]))
}

fn add(row: &mut Map<String, Value>, member: Member) -> Result<()> {
    let name = format!("{}.{}", member.key, member.extension);
    let bytes = member.content?;
    let insert = |row: &mut Map<String, Value>, key: String, value: Value| match row.insert(key.clone(), value) {
        None => Ok(()),
        Some(_) => Err(Error::data(format!("two members give the column {key:?}")).because(&name).fix("rename one")),
    };
    if member.extension == "json" {
        return match json::value(&bytes).map_err(|error| error.at(name.clone()))? {
            Value::Object(columns) => columns.into_iter().try_for_each(|(key, value)| insert(row, key, value)),
            other => insert(row, member.extension, other),
        };
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        Error::data(format!("a member of kind {} is not text", member.extension))
            .because(&name)
            .fix("text is trained on: leave images and sounds out")
    })?;
    let value = match (member.extension.as_str(), text.trim().parse::<i64>()) {
        ("cls", Ok(class)) => class.into(),
        _ => Value::String(text),
    };
    insert(row, member.extension, value)
}

impl Iterator for Samples {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        if self.done && self.next.is_none() {
            return None;
        }
        let first = match self.next.take() {
            Some(member) => member,
            None => match self.member() {
                Ok(Some(member)) => member,
                Ok(None) => {
                    self.done = true;
                    return None;
                }
                Err(error) => return Some(self.fail(error)),
            },
        };
        match self.sample(first) {
            Ok(row) => {
                self.number += 1;
                Some(Line::new(&self.name, self.number, row.map(Content::Row)))
            }
            Err(error) => Some(self.fail(error)),
        }
    }
}
