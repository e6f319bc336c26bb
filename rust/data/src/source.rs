//! Lines of JSONL files, plain or gzipped, one at a time.

use crate::error::{Error, Result};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// The longest line that is read; a longer one is a bad row.
pub const MAX_LINE: usize = 64 << 20;

/// What the error of a stream that breaks off says.
pub const DAMAGED: &str = "the file is damaged";

/// Where lines come from.
pub enum Source {
    /// A file; `.gz` by its first bytes, not by its name.
    File(PathBuf),
    /// Lines that the caller holds, with a name to report them by.
    Memory(String, Vec<Vec<u8>>),
}

/// One line and where it stands.
pub struct Line {
    /// The bytes without the line's end, or why they could not be read.
    pub bytes: Result<Vec<u8>>,
    /// `file:line`.
    pub location: String,
    /// The line, counted from 1.
    pub number: u64,
}

impl Source {
    /// The name that reports use.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Memory(name, _) => name.clone(),
        }
    }

    /// A hash of the content that decides what is prepared.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn fingerprint(&self) -> Result<u128> {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        match self {
            Self::Memory(_, lines) => {
                for line in lines {
                    hasher.update(line);
                    hasher.update(b"\n");
                }
            }
            Self::File(path) => {
                let mut file = open(path)?;
                let mut buffer = vec![0; 1 << 20];
                loop {
                    let count = file.read(&mut buffer).map_err(|e| Error::io("cannot read the file", path, &e))?;
                    if count == 0 {
                        break;
                    }
                    hasher.update(&buffer[..count]);
                }
            }
        }
        Ok(hasher.digest128())
    }

    /// The lines that hold more than white space.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn lines(&self) -> Result<Box<dyn Iterator<Item = Line> + Send + '_>> {
        match self {
            Self::Memory(name, lines) => Ok(Box::new(lines.iter().enumerate().map(move |(index, line)| Line {
                bytes: Ok(line.clone()),
                location: format!("{name}:{}", index + 1),
                number: index as u64 + 1,
            }))),
            Self::File(path) => {
                let mut reader = BufReader::with_capacity(1 << 18, open(path)?);
                let head = reader.fill_buf().map_err(|e| Error::io("cannot read the file", path, &e))?;
                let reader: Box<dyn BufRead + Send> = if head.starts_with(&[0x1f, 0x8b]) {
                    Box::new(BufReader::with_capacity(1 << 18, MultiGzDecoder::new(reader)))
                } else {
                    Box::new(reader)
                };
                Ok(Box::new(Lines { reader, name: path.display().to_string(), number: 0, done: false }))
            }
        }
    }
}

fn open(path: &Path) -> Result<File> {
    if path.is_dir() {
        return Err(Error::data("the data path is a folder").at(path.display().to_string()).fix("name files or globs"));
    }
    File::open(path).map_err(|error| {
        let error = Error::io("cannot open the data file", path, &error);
        Error { kind: crate::error::Kind::Data, ..error }.fix("check the path")
    })
}

struct Lines {
    reader: Box<dyn BufRead + Send>,
    name: String,
    number: u64,
    done: bool,
}

impl Lines {
    /// Read on to the line's end without keeping it; damage on the way is found by the next line.
    fn skip_line(&mut self) {
        while let Ok(buffer) = self.reader.fill_buf() {
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let count = end.map_or(buffer.len(), |end| end + 1);
            self.reader.consume(count);
            if end.is_some() || count == 0 {
                return;
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        while !self.done {
            let mut bytes = Vec::new();
            // One byte more than allowed tells a line that is too long from one that just fits.
            let read = (&mut self.reader).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut bytes);
            self.number += 1;
            let location = format!("{}:{}", self.name, self.number);
            match read {
                Ok(0) => self.done = true,
                Ok(_) if bytes.len() > MAX_LINE && bytes.last() != Some(&b'\n') => {
                    self.skip_line();
                    let error = Error::data("a line is longer than 64 MiB")
                        .fix("is this a JSON array? one object a line is read");
                    return Some(Line { bytes: Err(error.at(location.clone())), location, number: self.number });
                }
                Ok(_) => {
                    if self.number == 1 && bytes.starts_with(&[0xEF, 0xBB, 0xBF]) {
                        bytes.drain(..3);
                    }
                    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
                        bytes.pop();
                    }
                    if !bytes.iter().all(u8::is_ascii_whitespace) {
                        return Some(Line { bytes: Ok(bytes), location, number: self.number });
                    }
                }
                Err(error) => {
                    self.done = true;
                    let error = Error::data(DAMAGED).because(error).fix("get the file again");
                    return Some(Line { bytes: Err(error.at(location.clone())), location, number: self.number });
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines_of(content: &[u8]) -> Vec<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, content).unwrap();
        let source = Source::File(path);
        let lines = source.lines().unwrap();
        lines
            .map(|line| {
                let number = line.location.rsplit(':').next().unwrap().to_owned();
                (number, String::from_utf8(line.bytes.unwrap()).unwrap())
            })
            .collect()
    }

    #[test]
    fn only_newlines_split_and_blank_lines_keep_the_count() {
        let found = lines_of("\u{feff}a\u{2028}b\r\n\n  \nc".as_bytes());
        assert_eq!(found, [("1".into(), "a\u{2028}b".into()), ("4".into(), "c".into())]);
    }

    #[test]
    fn gzip_is_told_by_its_content_and_members_are_joined() {
        let mut bytes = Vec::new();
        for part in ["one\n", "two\n"] {
            let mut encoder = flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::fast());
            encoder.write_all(part.as_bytes()).unwrap();
            encoder.finish().unwrap();
        }
        assert_eq!(lines_of(&bytes), [("1".into(), "one".into()), ("2".into(), "two".into())]);
    }

    #[test]
    fn a_cut_gzip_file_is_an_error_at_its_line() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&b"some text that is long enough\n".repeat(100)).unwrap();
        let mut bytes = encoder.finish().unwrap();
        bytes.truncate(bytes.len() - 10);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gz");
        std::fs::write(&path, bytes).unwrap();
        let source = Source::File(path);
        let last = source.lines().unwrap().last().unwrap();
        assert_eq!(last.bytes.unwrap_err().what, "the file is damaged");
    }
}
