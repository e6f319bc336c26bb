//! What a template may hold, told before it is parsed: a parser that recurses overflows the stack on 20,000 `not`s.

use crate::error::{Error, Kind, Result};

const MAX_SOURCE: usize = 64 << 10;
const MAX_BLOCK: usize = 8 << 10;
const MAX_CHAIN: usize = 500;
const MAX_NESTING: usize = 60;

/// Refuse what could overflow the parser's stack, by a scan that does not recurse.
pub(crate) fn check(source: &str) -> Result<()> {
    let refuse = |why: String| Err(Error::new(Kind::Template, "the chat template is refused").because(why));
    if source.len() > MAX_SOURCE {
        return refuse(format!("it is {} bytes long, the limit is {MAX_SOURCE}", source.len()));
    }
    let mut rest = source;
    let (mut open, mut branches) = (0usize, 0usize);
    while let Some(start) = ["{%", "{{", "{#"].iter().filter_map(|open| rest.find(open)).min() {
        if rest[start..].starts_with("{#") {
            rest = rest[start..].find("#}").map_or("", |end| &rest[start + end + 2..]);
            continue;
        }
        let statement = rest[start..].starts_with("{%");
        let body = &rest[start + 2..];
        let end = block_end(body, if statement { b"%}" } else { b"}}" });
        let block = &body[..end];
        if block.contains("**") || longest_number(block) > 6 {
            // Python computes these exactly, at compile time and however large.
            return refuse("a block holds a power or a number of more than 6 digits".into());
        }
        if block.len() > MAX_BLOCK {
            return refuse(format!("a block is longer than {MAX_BLOCK} bytes"));
        }
        let mut depth = 0usize;
        let mut operators = 0usize;
        for byte in block.bytes() {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                b'|' | b'.' | b'-' | b'+' | b'~' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' => operators += 1,
                _ => {}
            }
            if depth > MAX_NESTING {
                return refuse(format!("brackets nest deeper than {MAX_NESTING}"));
            }
        }
        let words = block.split(|c: char| !c.is_alphanumeric() && c != '_');
        operators += words.filter(|word| matches!(*word, "not" | "and" | "or" | "if" | "else" | "in" | "is")).count();
        if operators > MAX_CHAIN {
            return refuse(format!("a block chains more than {MAX_CHAIN} operators"));
        }
        if statement {
            let word = block.trim_start_matches(['-', '+']).trim_start();
            let word = word.split(|c: char| !c.is_alphanumeric()).next().unwrap_or("");
            match word {
                "if" | "for" | "macro" | "call" | "filter" | "block" | "with" | "generation" => open += 1,
                "elif" => branches += 1,
                word if word.starts_with("end") => open = open.saturating_sub(1),
                _ => {}
            }
            if open > MAX_NESTING || branches > MAX_CHAIN {
                return refuse(format!("blocks nest deeper than {MAX_NESTING} or branch more than {MAX_CHAIN} times"));
            }
        }
        rest = body.get(end + 2..).unwrap_or("");
    }
    Ok(())
}

/// Where a block's closing tag stands; one inside a string closes nothing.
pub(super) fn block_end(body: &str, close: &[u8; 2]) -> usize {
    let bytes = body.as_bytes();
    let mut quote = None;
    let mut at = 0;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, _) if bytes[at..].starts_with(close) => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Digits of the longest number outside strings.
fn longest_number(block: &str) -> usize {
    let mut quote = None;
    let (mut longest, mut run) = (0, 0);
    let mut bytes = block.bytes();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (Some(_), b'\\') => {
                bytes.next();
            }
            (Some(open), byte) if byte == open => quote = None,
            (None, b'"' | b'\'') => quote = Some(byte),
            _ => {}
        }
        run = if quote.is_none() && (byte.is_ascii_digit() || byte == b'_' && run > 0) { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}
