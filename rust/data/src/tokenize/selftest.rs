//! Strings made to trip a tokenizer, and whether two backends agree on them.

use super::{Backend, Reference, Tokens};
use rustc_hash::FxHashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

const STRINGS: usize = 2000;
const SEED: u64 = 0x5EED;

/// Pieces that strings are made of; the tokens of the vocabulary come to them.
const PIECES: [&str; 100] = [
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "\t",
    "\u{b}",
    "\u{c}",
    "\u{85}",
    "\u{a0}",
    "\u{2003}",
    "\u{2028}",
    "\u{3000}",
    "\u{200b}",
    "\u{feff}",
    "\0",
    "\u{4}",
    "\u{1b}",
    "\u{7f}",
    "\u{ad}",
    "\u{fffd}",
    "'s",
    "'S",
    "'t",
    "'T",
    "'re",
    "'RE",
    "'Re",
    "'ve",
    "'VE",
    "'m",
    "'ll",
    "'LL",
    "'lL",
    "'d",
    "'D",
    "'\u{17f}",
    "\u{2019}s",
    "'",
    "''",
    "a",
    "I",
    "the",
    "The",
    "THE",
    "don",
    "iPhone",
    "camelCase",
    "ABCdef",
    "\u{e9}",
    "e\u{301}",
    "\u{1e9b}\u{323}",
    "a\u{300}\u{316}",
    "\u{300}",
    "\u{20dd}",
    "ǅ",
    "ʰ",
    "ª",
    "ß",
    "İ",
    "ﬁ",
    "К",
    "Ελληνικά",
    "русский",
    "العربية",
    "עברית",
    "हिन्दी",
    "ไทย",
    "한국어",
    "\u{1112}\u{1161}\u{11ab}",
    "日本語",
    "中文字",
    "カタカナ",
    "・ー",
    "〇",
    "1",
    "12",
    "123",
    "1234",
    "2024",
    "3.14",
    "٣",
    "²",
    "Ⅷ",
    "½",
    "𝟘",
    "👍",
    "👨‍👩‍👧",
    "🇩🇪",
    "🏽",
    "!",
    "...",
    "#$%",
    "://",
    "/\n",
    "_",
    "—",
    "€",
];

/// Numbers as good as random ones (Vigna's splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }
}

/// The strings for a tokenizer.
pub(super) fn strings(library: &tokenizers::Tokenizer) -> Vec<String> {
    let random = &mut Random(SEED);
    let decoder = library.get_added_tokens_decoder();
    let mut added: Vec<&str> = decoder.values().map(|token| token.content.as_str()).collect();
    added.sort_unstable();
    let ids = library.get_vocab_size(true);
    let mut strings = vec![String::new()];
    for run in ["a", " ", "\n", " \n", "1", "!", "\u{301}", "ab", "中", "👍", "A", "\t", "=-"] {
        strings.push(run.repeat(500));
        strings.push(format!("{}x{}", run.repeat(61), run.repeat(7)));
    }
    strings.extend(added.iter().take(300).map(|token| format!("a {token} b{token}{token}\n{token} ")));
    while strings.len() < STRINGS {
        let mut text = String::new();
        for _ in 0..1 + random.below(12) {
            match random.below(12) {
                0..=5 => text.push_str(PIECES[random.below(PIECES.len())]),
                6 => text.push_str(&PIECES[random.below(PIECES.len())].repeat(1 + random.below(9))),
                7 | 8 => {
                    let id = random.below(ids) as u32;
                    text.push_str(&library.decode(&[id], false).unwrap_or_default());
                }
                9 if !added.is_empty() => text.push_str(added[random.below(added.len())]),
                // A special token's text, but for a character.
                10 if !added.is_empty() => {
                    let token = added[random.below(added.len())];
                    let lost = random.below(token.chars().count());
                    text.extend(token.chars().enumerate().filter(|(index, _)| *index != lost).map(|(_, c)| c));
                }
                _ => text.extend(char::from_u32(random.below(0x3_2000) as u32)),
            }
        }
        strings.push(text);
    }
    strings
}

/// Whether the backend agrees with the reference on the strings, in both modes, or where it does not.
pub(super) fn run(backend: &dyn Backend, reference: &Reference) -> Result<(), String> {
    let library = reference.library();
    let decoder = library.get_added_tokens_decoder();
    let added = decoder.values().map(|token| &token.content);
    let added = aho_corasick::AhoCorasick::new(added).map_err(|error| error.to_string())?;
    let (mut found, mut expected) = (Tokens::default(), Tokens::default());
    for text in strings(library) {
        for literal in [false, true] {
            // The two modes differ in nothing else.
            if literal && !added.is_match(&text) {
                continue;
            }
            let theirs = reference.encode(&text, literal, &mut expected);
            let ours = backend.encode(&text, literal, &mut found);
            if theirs.is_err() || ours.is_err() || !found.same(&expected, &text) {
                let shown: String = text.chars().take(60).collect();
                return Err(format!("it gives other tokens than the reference for {shown:?}"));
            }
        }
    }
    Ok(())
}

/// The same, and the outcome of each tokenizer.json is remembered while the process lives.
pub(super) fn verdict(tokenizer_json: &[u8], backend: &dyn Backend, reference: &Reference) -> Result<(), String> {
    static SEEN: LazyLock<Mutex<FxHashMap<u128, Result<(), String>>>> = LazyLock::new(Mutex::default);
    let hash = xxhash_rust::xxh3::xxh3_128(tokenizer_json);
    let seen = || SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = seen().get(&hash) {
        return known.clone();
    }
    let outcome = run(backend, reference);
    seen().insert(hash, outcome.clone());
    outcome
}
