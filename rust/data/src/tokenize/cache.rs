//! Words that were seen before, with their tokens: most words of a text are a few thousand common ones.

use super::bpe::{Bpe, Piece, Scratch};
use rustc_hash::FxHashMap;

/// Words of at most this many bytes are kept in a table whose slots are their own keys.
const PACKED: usize = 15;
/// Tokens that fit into a slot.
const TOKENS: usize = 3;
/// Slots, a power of two: 2 MiB, about the second-level cache of a core.
const SLOTS: usize = 1 << 16;
/// Words that do not fit into slots: at most so many bytes each, and so many of them.
const LONGEST: usize = 256;
const LONG_WORDS: usize = 1 << 14;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// The word's bytes and, at the top, how many they are; 0 for an empty slot.
    key: u128,
    ids: [u32; TOKENS],
    ends: [u8; TOKENS],
    count: u8,
}

/// The memory of one thread at work.
pub(super) struct Cache {
    slots: Box<[Slot]>,
    long: FxHashMap<Box<[u8]>, Box<[Piece]>>,
    pieces: Vec<Piece>,
    scratch: Scratch,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![Slot::default(); SLOTS].into(),
            long: FxHashMap::default(),
            pieces: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// Append the tokens of `text[start..end]` and their ends; false when one of its bytes has no token.
    #[inline]
    pub(super) fn encode(
        &mut self,
        bpe: &Bpe,
        text: &[u8],
        (start, end): (usize, usize),
        ids: &mut Vec<u32>,
        ends: &mut Vec<u32>,
    ) -> bool {
        let length = end - start;
        // The length of the text fits into 32 bits, which its reader has checked.
        let offset = start as u32;
        if length > PACKED {
            return self.long(bpe, &text[start..end], offset, ids, ends);
        }
        let key = pack(text, start, length);
        let place = slot(key);
        let found = &self.slots[place];
        if found.key != key {
            return self.miss(bpe, &text[start..end], key, offset, ids, ends);
        }
        if found.count == 1 {
            ids.push(found.ids[0]);
            ends.push(end as u32);
        } else {
            for index in 0..usize::from(found.count).min(TOKENS) {
                ids.push(found.ids[index]);
                ends.push(offset + u32::from(found.ends[index]));
            }
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn miss(
        &mut self,
        bpe: &Bpe,
        word: &[u8],
        key: u128,
        offset: u32,
        ids: &mut Vec<u32>,
        ends: &mut Vec<u32>,
    ) -> bool {
        self.pieces.clear();
        if let Some(pieces) = self.long.get(word) {
            append(pieces, offset, ids, ends);
            return true;
        }
        if !bpe.encode(word, &mut self.scratch, &mut self.pieces) {
            return false;
        }
        append(&self.pieces, offset, ids, ends);
        if self.pieces.len() > TOKENS {
            self.keep(word);
            return true;
        }
        let mut made = Slot { key, count: self.pieces.len() as u8, ..Slot::default() };
        for (index, &(id, end)) in self.pieces.iter().enumerate() {
            made.ids[index] = id;
            made.ends[index] = end as u8;
        }
        self.slots[slot(key)] = made;
        true
    }

    fn long(&mut self, bpe: &Bpe, word: &[u8], offset: u32, ids: &mut Vec<u32>, ends: &mut Vec<u32>) -> bool {
        if word.len() <= LONGEST
            && let Some(pieces) = self.long.get(word)
        {
            append(pieces, offset, ids, ends);
            return true;
        }
        self.pieces.clear();
        let is_whole = bpe.encode(word, &mut self.scratch, &mut self.pieces);
        append(&self.pieces, offset, ids, ends);
        if is_whole && word.len() <= LONGEST {
            self.keep(word);
        }
        is_whole
    }

    fn keep(&mut self, word: &[u8]) {
        if self.long.len() >= LONG_WORDS {
            self.long.clear();
        }
        self.long.insert(word.into(), self.pieces.as_slice().into());
    }
}

fn append(pieces: &[Piece], offset: u32, ids: &mut Vec<u32>, ends: &mut Vec<u32>) {
    ids.extend(pieces.iter().map(|&(id, _)| id));
    ends.extend(pieces.iter().map(|&(_, end)| offset + end));
}

/// A word's bytes as one number, with its length at the top.
#[inline(always)]
fn pack(text: &[u8], start: usize, length: usize) -> u128 {
    let bytes = match text.get(start..start + 16).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()) {
        Some(bytes) => u128::from_le_bytes(bytes) & !(u128::MAX << (8 * length)),
        None => {
            let mut bytes = [0; 16];
            bytes[..length].copy_from_slice(&text[start..start + length]);
            u128::from_le_bytes(bytes)
        }
    };
    bytes | (length as u128) << 120
}

#[inline(always)]
fn slot(key: u128) -> usize {
    let (low, high) = (key as u64, (key >> 64) as u64);
    let mixed = (low ^ high.rotate_left(23)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 48) as usize % SLOTS
}
