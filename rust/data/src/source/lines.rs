//! One JSON object a line. Only newline bytes end a line: U+2028 is text.

use super::open::Input;
use super::{Content, Line, too_long};
use std::io::{BufRead, Read};

pub(super) struct Lines {
    pub(super) reader: Input,
    pub(super) name: String,
    pub(super) number: u64,
    pub(super) max_row_bytes: usize,
    pub(super) done: bool,
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
            let read = (&mut self.reader).take(self.max_row_bytes as u64).read_until(b'\n', &mut bytes);
            // One byte more tells a line that is too long from one that just fits. It has a place of its own: the vector
            // would double for it.
            let mut more = Vec::new();
            let read = match read {
                Ok(count) if count == self.max_row_bytes && bytes.last() != Some(&b'\n') => {
                    (&mut self.reader).take(1).read_until(b'\n', &mut more).map(|_| count)
                }
                read => read,
            };
            self.number += 1;
            match read {
                Ok(0) => self.done = true,
                Ok(_) if more.first().is_some_and(|&byte| byte != b'\n') => {
                    drop(bytes);
                    self.skip_line();
                    return Some(Line::new(&self.name, self.number, Err(too_long(self.max_row_bytes))));
                }
                Ok(_) => {
                    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
                        bytes.pop();
                    }
                    if !bytes.iter().all(u8::is_ascii_whitespace) {
                        return Some(Line::new(&self.name, self.number, Ok(Content::Json(bytes))));
                    }
                }
                Err(error) => {
                    self.done = true;
                    return Some(Line::new(&self.name, self.number, Err(super::open::broken(&error))));
                }
            }
        }
        None
    }
}
