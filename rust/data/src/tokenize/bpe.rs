//! Byte-pair merging of one word: of all pairs that a merge is known for, always the one of the lowest rank, and of
//! equal ones the first (Sennrich et al. 2016, arXiv:1508.07909, on bytes).

use rustc_hash::FxHashMap;
use serde_json::{Map, Value};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Words up to this many bytes are searched for the best pair at each step, which beats a heap there.
const SHORT: usize = 40;
/// No token, no merge, no neighbour.
const NONE: u32 = u32::MAX;

/// A token and where it ends in its word.
pub(super) type Piece = (u32, u32);

/// The merges of a vocabulary.
pub(super) struct Bpe {
    /// The token of each byte.
    bytes: [u32; 256],
    /// By both tokens: the rank, and the token that they become.
    merges: FxHashMap<u64, (u32, u32)>,
    /// Words that are a token without any merging, under `ignore_merges`.
    whole: Option<FxHashMap<Box<[u8]>, u32>>,
}

/// Space for the work on one word, used again for the next.
#[derive(Default)]
pub(super) struct Scratch {
    tokens: Vec<u32>,
    /// Rank of the merge of each token with the next one.
    ranks: Vec<u32>,
    /// Where each token starts; in long words, the token after it.
    next: Vec<u32>,
    previous: Vec<u32>,
    heap: BinaryHeap<Reverse<u64>>,
}

impl Bpe {
    /// The merges of a tokenizer.json's `model`, or why they cannot be used here.
    pub(super) fn new(model: &Value) -> Result<Self, String> {
        let is_empty = |name: &str| matches!(&model[name], Value::Null) || model[name] == "";
        let off = |name: &str| matches!(&model[name], Value::Null | Value::Bool(false));
        // A file without a type is taken for BPE when it has merges.
        if !model["type"].is_null() && model["type"] != "BPE" {
            return Err("its model is not BPE".into());
        }
        let is_plain = model["dropout"].as_f64().is_none_or(|dropout| dropout == 0.0)
            && is_empty("continuing_subword_prefix")
            && is_empty("end_of_word_suffix")
            && off("byte_fallback");
        if !is_plain {
            return Err("its model has dropout, byte fallback, or prefixes or suffixes of words".into());
        }
        let (Some(vocab), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array()) else {
            return Err("its vocabulary or merges are missing".into());
        };
        let unreadable = || "its merges cannot be read".to_owned();
        let letters = letters();
        let mut bytes = [NONE; 256];
        for (&letter, &byte) in &letters {
            let mut buffer = [0; 4];
            if let Some(id) = vocab.get(&*letter.encode_utf8(&mut buffer)) {
                bytes[usize::from(byte)] = id_of(id).ok_or_else(unreadable)?;
            }
        }
        let mut table = FxHashMap::with_capacity_and_hasher(merges.len(), rustc_hash::FxBuildHasher);
        let lines = merges.iter().filter(|merge| !merge.as_str().is_some_and(|text| text.starts_with("#version")));
        let mut joined = String::new();
        for (rank, merge) in lines.enumerate() {
            let pair = match merge {
                Value::String(text) => text.split_once(' '),
                Value::Array(pair) => match pair.as_slice() {
                    [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
                    _ => None,
                },
                _ => None,
            };
            let (left, right) = pair.ok_or_else(unreadable)?;
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            let id = |token: &str| vocab.get(token).and_then(id_of).ok_or_else(unreadable);
            let rank = u32::try_from(rank).map_err(|_| unreadable())?;
            table.insert(key(id(left)?, id(right)?), (rank, id(&joined)?));
        }
        let whole = if off("ignore_merges") { None } else { Some(whole_words(vocab, &letters)) };
        Ok(Self { bytes, merges: table, whole })
    }

    /// Append the tokens of a word; false when one of its bytes has no token.
    pub(super) fn encode(&self, word: &[u8], scratch: &mut Scratch, out: &mut Vec<Piece>) -> bool {
        let Ok(length) = u32::try_from(word.len()) else { return false };
        if let Some(whole) = &self.whole
            && let Some(&id) = whole.get(word)
        {
            out.push((id, length));
            return true;
        }
        let Scratch { tokens, ranks, .. } = scratch;
        tokens.clear();
        tokens.extend(word.iter().map(|&byte| self.bytes[usize::from(byte)]));
        if tokens.contains(&NONE) {
            return false;
        }
        ranks.clear();
        ranks.extend(tokens.windows(2).map(|pair| self.merge(pair[0], pair[1]).0));
        ranks.push(NONE);
        if word.len() <= SHORT {
            self.short(scratch, length, out)
        } else {
            self.long(scratch, length, out)
        }
        true
    }

    fn short(&self, Scratch { tokens, ranks, next: starts, .. }: &mut Scratch, length: u32, out: &mut Vec<Piece>) {
        starts.clear();
        starts.extend(0..length);
        loop {
            let (mut at, mut best) = (0, NONE);
            for (index, &rank) in ranks.iter().enumerate() {
                if rank < best {
                    (at, best) = (index, rank);
                }
            }
            if best == NONE {
                break;
            }
            tokens[at] = self.merge(tokens[at], tokens[at + 1]).1;
            tokens.remove(at + 1);
            starts.remove(at + 1);
            ranks.remove(at + 1);
            ranks[at] = tokens.get(at + 1).map_or(NONE, |&next| self.merge(tokens[at], next).0);
            if at > 0 {
                ranks[at - 1] = self.merge(tokens[at - 1], tokens[at]).0;
            }
        }
        let ends = starts[1..].iter().copied().chain([length]);
        out.extend(tokens.iter().copied().zip(ends));
    }

    /// The same with a heap of pairs and a list of tokens, so that the work does not grow with the square of the length.
    fn long(&self, scratch: &mut Scratch, length: u32, out: &mut Vec<Piece>) {
        let Scratch { tokens, ranks, next, previous, heap } = scratch;
        next.clear();
        next.extend(1..=length);
        previous.clear();
        previous.push(NONE);
        previous.extend(0..length - 1);
        heap.clear();
        let entry = |rank: u32, at: u32| Reverse(u64::from(rank) << 32 | u64::from(at));
        let pairs = ranks.iter().zip(0..).filter(|&(&rank, _)| rank != NONE);
        heap.extend(pairs.map(|(&rank, at)| entry(rank, at)));
        while let Some(Reverse(top)) = heap.pop() {
            let (rank, at) = ((top >> 32) as u32, (top & u64::from(NONE)) as usize);
            // The pair may have gone since it was put there.
            if ranks[at] != rank {
                continue;
            }
            let right = next[at] as usize;
            tokens[at] = self.merge(tokens[at], tokens[right]).1;
            ranks[right] = NONE;
            next[at] = next[right];
            ranks[at] = NONE;
            if next[at] < length {
                let after = next[at] as usize;
                previous[after] = at as u32;
                ranks[at] = self.merge(tokens[at], tokens[after]).0;
                if ranks[at] != NONE {
                    heap.push(entry(ranks[at], at as u32));
                }
            }
            if previous[at] != NONE {
                let before = previous[at] as usize;
                ranks[before] = self.merge(tokens[before], tokens[at]).0;
                if ranks[before] != NONE {
                    heap.push(entry(ranks[before], previous[at]));
                }
            }
        }
        let mut at = 0;
        while at < length {
            out.push((tokens[at as usize], next[at as usize]));
            at = next[at as usize];
        }
    }

    #[inline]
    fn merge(&self, left: u32, right: u32) -> (u32, u32) {
        self.merges.get(&key(left, right)).copied().unwrap_or((NONE, NONE))
    }
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

fn id_of(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| id != NONE)
}

fn whole_words(vocab: &Map<String, Value>, letters: &FxHashMap<char, u8>) -> FxHashMap<Box<[u8]>, u32> {
    // An entry with other letters stands for no bytes, and no word can be it.
    let word = |(text, id): (&String, &Value)| {
        let bytes: Option<Box<[u8]>> = text.chars().map(|letter| letters.get(&letter).copied()).collect();
        Some((bytes?, id_of(id)?))
    };
    vocab.iter().filter_map(word).collect()
}

/// The letters that vocabularies write bytes with (Radford et al. 2019): printable ones as themselves, the others as
/// the letters from U+0100 on.
fn letters() -> FxHashMap<char, u8> {
    let is_printed = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let printed = (0..=255).filter(is_printed).map(|byte| (char::from(byte), byte));
    let others = (0..=255).filter(|byte| !is_printed(byte)).zip('\u{100}'..).map(|(byte, letter)| (letter, byte));
    printed.chain(others).collect()
}

/// The letter that stands for a byte.
#[cfg(test)]
pub(super) fn letter(byte: u8) -> char {
    letters().into_iter().find_map(|(letter, other)| (other == byte).then_some(letter)).unwrap()
}
