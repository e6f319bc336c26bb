//! A file that is one JSON array: its elements are cut at the commas of the outermost level, whatever they hold.

use super::open::{Input, broken};
use super::{Content, Line, damaged, too_long};
use std::io::BufRead;

/// Where the cutter stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the array.
    Start,
    /// Before an element; after a comma there must be one.
    Between { after_comma: bool },
    /// In an element.
    Inside,
    /// Behind the array.
    End,
}

pub(super) struct Elements {
    reader: Input,
    name: String,
    max_row_bytes: usize,
    at: At,
    line: u64,
    /// Bytes of this line before the next one.
    column: u64,
    depth: u64,
    in_string: bool,
    escaped: bool,
    element: Vec<u8>,
    is_too_long: bool,
    /// Line and column of the element, and the line of the one before.
    place: (u64, u64),
    last_line: u64,
    failed: bool,
}

/// What one byte means.
enum Step {
    On,
    Element,
    Bad(&'static str),
}

impl Elements {
    pub(super) fn new(reader: Input, name: String, max_row_bytes: usize) -> Self {
        Self {
            reader,
            name,
            max_row_bytes,
            at: At::Start,
            line: 1,
            column: 0,
            depth: 0,
            in_string: false,
            escaped: false,
            element: Vec::new(),
            is_too_long: false,
            place: (1, 1),
            last_line: 0,
            failed: false,
        }
    }

    fn step(&mut self, byte: u8) -> Step {
        match self.at {
            _ if self.at != At::Inside && byte.is_ascii_whitespace() => Step::On,
            At::Start => {
                self.at = At::Between { after_comma: false };
                Step::On
            }
            At::Between { after_comma } => {
                self.place = (self.line, self.column);
                match byte {
                    b']' => {
                        self.at = At::End;
                        if after_comma { Step::Element } else { Step::On }
                    }
                    b',' => {
                        self.at = At::Between { after_comma: true };
                        Step::Element
                    }
                    _ => {
                        self.at = At::Inside;
                        self.inside(byte)
                    }
                }
            }
            At::Inside => self.inside(byte),
            At::End => Step::Bad("text follows the array's end"),
        }
    }

    fn inside(&mut self, byte: u8) -> Step {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b',' if self.depth == 0 => {
                    self.at = At::Between { after_comma: true };
                    return Step::Element;
                }
                b']' if self.depth == 0 => {
                    self.at = At::End;
                    return Step::Element;
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        if self.element.len() < self.max_row_bytes {
            self.element.push(byte);
        } else {
            self.is_too_long = true;
        }
        Step::On
    }

    fn line(&mut self, content: crate::error::Result<Content>) -> Line {
        let (line, column) = self.place;
        let mut made = Line::new(&self.name, line, Ok(Content::Json(Vec::new())));
        if line == self.last_line {
            made.location = format!("{}:{line}:{column}", self.name);
        }
        self.last_line = line;
        made.content = content.map_err(|error| error.at(made.location.clone()));
        made
    }

    fn cut(&mut self, reader: &mut Input) -> Option<Line> {
        while !self.failed {
            let buffer = match reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) => return Some(self.fail(broken(&error))),
            };
            if buffer.is_empty() {
                return (self.at != At::End).then(|| self.fail(damaged("the array is not closed")));
            }
            let mut found = (buffer.len(), Step::On);
            for (index, &byte) in buffer.iter().enumerate() {
                self.column += 1;
                let step = self.step(byte);
                if byte == b'\n' {
                    (self.line, self.column) = (self.line + 1, 0);
                }
                if !matches!(step, Step::On) {
                    found = (index + 1, step);
                    break;
                }
            }
            reader.consume(found.0);
            match found.1 {
                Step::On => {}
                Step::Element => return Some(self.element()),
                Step::Bad(why) => return Some(self.fail(damaged(why))),
            }
        }
        None
    }

    fn element(&mut self) -> Line {
        let bytes = std::mem::take(&mut self.element);
        let content = if self.is_too_long { Err(too_long(self.max_row_bytes)) } else { Ok(Content::Json(bytes)) };
        self.is_too_long = false;
        self.line(content)
    }

    fn fail(&mut self, error: crate::error::Error) -> Line {
        self.failed = true;
        self.place = (self.line, self.column.max(1));
        self.line(Err(error))
    }
}

impl Iterator for Elements {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        // Taken out, so that its buffer can be walked while `self` changes.
        let mut reader = std::mem::replace(&mut self.reader, Box::new(std::io::empty()));
        let line = self.cut(&mut reader);
        self.reader = reader;
        line
    }
}
