//! Text to tokens behind one trait: the `tokenizers` library, and a faster backend that is used when it agrees with it.
//!
//! The fast backend is compared with the library when it is loaded, on some 2,000 strings made to trip it, and while it
//! runs, on one text in [`CHECK_EVERY`]. Nothing rests on it being right: a difference is an error of kind
//! [`Kind::Backend`], after which the library does the work, and what was made before is to be made again.

mod added;
mod bpe;
mod cache;
mod classes;
mod fast;
mod reference;
mod selftest;
mod split;

pub use fast::Fast;
pub use reference::{Reference, read};

use crate::error::{Error, Kind, Result};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// One text in so many is encoded by the reference, too, and compared.
pub const CHECK_EVERY: u64 = 1000;

/// Tokens of a text, and the bytes that they stand for.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// Their ids.
    pub ids: Vec<u32>,
    /// The byte of the text that each ends before.
    ends: Vec<u32>,
    /// The byte that each starts at; empty when that is always the end of the one before.
    starts: Vec<u32>,
}

impl Tokens {
    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The byte that a token starts at.
    #[must_use]
    pub fn start(&self, index: usize) -> usize {
        match self.starts.get(index) {
            Some(&start) => start as usize,
            None if index == 0 => 0,
            None => self.end(index - 1),
        }
    }

    /// The byte that a token ends before.
    #[must_use]
    pub fn end(&self, index: usize) -> usize {
        self.ends[index] as usize
    }

    /// How many tokens end at this byte or before.
    #[must_use]
    pub fn ending_by(&self, byte: usize) -> usize {
        self.ends.partition_point(|&end| end as usize <= byte)
    }

    /// How many tokens start before this byte.
    #[must_use]
    pub fn starting_before(&self, byte: usize) -> usize {
        (0..self.len()).rposition(|index| self.start(index) < byte).map_or(0, |index| index + 1)
    }

    /// The whole characters that a token stands for a part of. Tokens that are parts of one character share its bytes.
    #[must_use]
    pub fn range(&self, index: usize, text: &str) -> Range<usize> {
        let (mut start, mut end) = (self.start(index), self.end(index));
        while start > 0 && start < text.len() && !text.is_char_boundary(start) {
            start -= 1;
        }
        while end < text.len() && !text.is_char_boundary(end) {
            end += 1;
        }
        start..end
    }

    /// Append a token.
    pub fn push(&mut self, id: u32, range: Range<usize>) {
        let (start, end) = (range.start as u32, range.end as u32);
        let follows = start == self.ends.last().copied().unwrap_or(0);
        if self.starts.is_empty() && !follows && !self.ends.is_empty() {
            self.starts.push(0);
            self.starts.extend(&self.ends[..self.ends.len() - 1]);
        }
        if !self.starts.is_empty() || !follows {
            self.starts.push(start);
        }
        self.ids.push(id);
        self.ends.push(end);
    }

    /// Append the tokens of a piece of the text that starts at `offset` of it.
    pub fn append(&mut self, piece: &Self, offset: usize) {
        for index in 0..piece.len() {
            self.push(piece.ids[index], piece.start(index) + offset..piece.end(index) + offset);
        }
    }

    /// Whether others are the same ids for the same characters of the text.
    #[must_use]
    pub fn same(&self, other: &Self, text: &str) -> bool {
        self.ids == other.ids && (0..self.len()).all(|index| self.range(index, text) == other.range(index, text))
    }

    /// Forget all, and make room for so many.
    fn restart(&mut self, room: usize) -> (&mut Vec<u32>, &mut Vec<u32>) {
        self.starts.clear();
        for list in [&mut self.ids, &mut self.ends] {
            list.clear();
            list.reserve(room);
        }
        (&mut self.ids, &mut self.ends)
    }
}

/// Something that makes tokens of text.
pub trait Backend: Send + Sync {
    /// The tokens of a text in place of what `out` holds. With `literal` the text of a special token is text.
    ///
    /// # Errors
    /// This text cannot be encoded.
    fn encode(&self, text: &str, literal: bool, out: &mut Tokens) -> Result<()>;
}

/// The backend that was asked for, or the one that can do the work.
pub struct Chosen {
    reference: Arc<Reference>,
    fast: Option<Box<dyn Backend>>,
    reason: Option<String>,
    /// Set when the fast backend was caught at a difference.
    caught: OnceLock<String>,
    texts: AtomicU64,
}

impl Chosen {
    /// The backend of a tokenizer.json by name: "auto", "reference" or "fast".
    ///
    /// # Errors
    /// The file cannot be used, there is no such backend, or "fast" cannot do this tokenizer exactly.
    pub fn new(tokenizer_json: &[u8], name: &str) -> Result<Self> {
        if !matches!(name, "auto" | "reference" | "fast") {
            return Err(Error::new(Kind::Usage, "tokenizer_backend is auto, reference or fast"));
        }
        let json = read(tokenizer_json)?;
        let reference = Arc::new(Reference::new(&json)?);
        let fast = match name {
            "reference" => Err("tokenizer_backend says so".to_owned()),
            _ => Fast::new(&reference, &json).and_then(|fast| {
                selftest::verdict(tokenizer_json, &fast, &reference)?;
                Ok(Box::new(fast) as Box<dyn Backend>)
            }),
        };
        match fast {
            Err(why) if name == "fast" => Err(Error::new(Kind::Tokenizer, "the fast tokenizer backend cannot be used")
                .because(why)
                .fix("set tokenizer_backend to auto")),
            Err(why) => Ok(Self::with(reference, None, Some(why))),
            Ok(fast) => Ok(Self::with(reference, Some(fast), None)),
        }
    }

    fn with(reference: Arc<Reference>, fast: Option<Box<dyn Backend>>, reason: Option<String>) -> Self {
        Self { reference, fast, reason, caught: OnceLock::new(), texts: AtomicU64::new(0) }
    }

    /// "fast" or "reference", and for the reference why it is used.
    #[must_use]
    pub fn name(&self) -> (&'static str, Option<&str>) {
        match (self.caught.get(), &self.reason) {
            (None, None) => ("fast", None),
            (caught, reason) => ("reference", caught.or(reason.as_ref()).map(String::as_str)),
        }
    }

    /// The library.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Whether the reference gives the same tokens; if not it does the work from now on.
    ///
    /// # Errors
    /// The reference cannot encode this text.
    pub fn recheck(&self, text: &str, literal: bool, tokens: &Tokens) -> Result<bool> {
        let mut expected = Tokens::default();
        self.reference.encode(text, literal, &mut expected)?;
        let same = tokens.same(&expected, text);
        if !same {
            self.caught.get_or_init(|| "it gave other tokens than the reference while it ran".into());
        }
        Ok(same)
    }
}

impl Backend for Chosen {
    /// See [`Backend::encode`].
    ///
    /// # Errors
    /// Also of kind [`Kind::Backend`], once, when the fast backend is found to differ.
    fn encode(&self, text: &str, literal: bool, out: &mut Tokens) -> Result<()> {
        let Some(fast) = self.fast.as_ref().filter(|_| self.caught.get().is_none()) else {
            return self.reference.encode(text, literal, out);
        };
        fast.encode(text, literal, out)?;
        let count = self.texts.fetch_add(1, Ordering::Relaxed);
        if count.is_multiple_of(CHECK_EVERY) && !self.recheck(text, literal, out)? {
            return Err(Error::new(Kind::Backend, "the fast tokenizer backend gave other tokens than the reference")
                .fix("prepare again: the reference does the work from now on; and report the row as a bug"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
