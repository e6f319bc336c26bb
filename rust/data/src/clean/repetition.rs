//! How much a text repeats itself.
//!
//! The measures and limits are those of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1). A first occurrence is no
//! repetition, so what says anything once passes, however short it is; characters are those of words, without spaces.

use super::words::mix;
use rustc_hash::{FxHashMap, FxHashSet};
use xxhash_rust::xxh3::xxh3_64;

/// Limits on the words inside the most frequent n-gram, by n.
const TOP: [(usize, f64); 3] = [(2, 0.20), (3, 0.18), (4, 0.16)];
/// Limits on the words inside n-grams that occurred before, by n.
const REPEATED: [(usize, f64); 6] = [(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)];
/// Limit on lines, and on paragraphs, that occurred before, as a share of their number.
const UNITS: f64 = 0.30;
/// The same as a share of characters.
const UNIT_CHARS: f64 = 0.20;

/// The first measure that is above its limit times `slack`.
pub(super) fn repeats(text: &str, slack: f64) -> Option<&'static str> {
    for (unit, by_count, by_chars) in [
        ("\n", "repeated lines", "characters in repeated lines"),
        ("\n\n", "repeated paragraphs", "characters in repeated paragraphs"),
    ] {
        let (count, chars) = units(text, unit);
        if count > UNITS * slack {
            return Some(by_count);
        }
        if chars > UNIT_CHARS * slack {
            return Some(by_chars);
        }
    }
    let words: Vec<(u64, usize)> =
        text.split_whitespace().map(|word| (xxh3_64(word.as_bytes()), word.chars().count())).collect();
    let total: usize = words.iter().map(|word| word.1).sum();
    let above = |chars: usize, limit: f64| chars as f64 > limit * slack * total as f64;
    // What does not repeat n words does not repeat more of them.
    for (n, limit) in TOP {
        match most_frequent(&words, n) {
            0 => return None,
            chars if above(chars, limit) => return Some("one frequent n-gram"),
            _ => {}
        }
    }
    for (n, limit) in REPEATED {
        match repeated(&words, n) {
            0 => return None,
            chars if above(chars, limit) => return Some("repeated n-grams"),
            _ => {}
        }
    }
    None
}

/// The share of units that occurred before, and the share of the characters in them.
fn units(text: &str, separator: &str) -> (f64, f64) {
    let mut seen = FxHashSet::default();
    let (mut count, mut chars, mut again, mut chars_again) = (0usize, 0usize, 0usize, 0usize);
    for unit in text.split(separator).map(str::trim).filter(|unit| !unit.is_empty()) {
        let length = unit.chars().count();
        count += 1;
        chars += length;
        if !seen.insert(xxh3_64(unit.as_bytes())) {
            again += 1;
            chars_again += length;
        }
    }
    let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    (share(again, count), share(chars_again, chars))
}

fn hash(gram: &[(u64, usize)]) -> u64 {
    gram.iter().fold(0, |hash, word| mix(hash ^ word.0))
}

/// Characters of the n-gram that occurs most often, times how often, when that is more than once.
fn most_frequent(words: &[(u64, usize)], n: usize) -> usize {
    let mut counts: FxHashMap<u64, (usize, usize)> = FxHashMap::default();
    for gram in words.windows(n) {
        let entry = counts.entry(hash(gram)).or_insert((0, gram.iter().map(|word| word.1).sum()));
        entry.0 += 1;
    }
    // Of equally frequent ones the longest, so that the order of a table decides nothing.
    counts.values().copied().max().filter(|top| top.0 > 1).map_or(0, |(count, chars)| count * chars)
}

/// Characters inside n-grams that occurred before, each counted once.
fn repeated(words: &[(u64, usize)], n: usize) -> usize {
    let mut seen = FxHashSet::default();
    let (mut at, mut chars) = (0, 0);
    while at + n <= words.len() {
        let gram = &words[at..at + n];
        if seen.insert(hash(gram)) {
            at += 1;
        } else {
            chars += gram.iter().map(|word| word.1).sum::<usize>();
            at += n;
        }
    }
    chars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_once_is_no_repetition() {
        for text in ["", "Yes.", "Paris", "one two three four five six seven eight nine ten", "a\nb\n\nc"] {
            assert_eq!(repeats(text, 1.0), None, "{text}");
        }
    }

    #[test]
    fn each_measure_is_found_and_slack_lets_it_pass() {
        let lines = "alpha beta\ngamma delta\nalpha beta\nalpha beta\nepsilon zeta";
        assert_eq!(repeats(lines, 1.0), Some("repeated lines"));
        assert_eq!(units(lines, "\n"), (0.4, 20.0 / 53.0));
        // One long line twice among many short ones: few lines, many characters.
        let long = "x".repeat(60);
        let short = "abcdefghijklmnopqrst".chars().map(|c| format!("{c}\n")).collect::<String>();
        assert_eq!(repeats(&format!("{long}\n{short}{long}"), 1.0), Some("characters in repeated lines"));
        assert_eq!(repeats(&format!("same\n\nsame\n\n{short}"), 1.0), Some("repeated paragraphs"));
        assert_eq!(repeats("big dog and big dog or big dog", 1.0), Some("one frequent n-gram"));
        assert_eq!(most_frequent(&[(1, 3), (2, 3), (1, 3), (2, 3)], 2), 12);
        let unique = |from: u32, to: u32| (from..to).map(|i| format!("w{i}")).collect::<Vec<_>>().join(" ");
        let again = format!("{} {} {}", unique(10, 30), unique(30, 70), unique(10, 30));
        assert_eq!(repeats(&again, 1.0), Some("repeated n-grams"));
        assert_eq!(repeats(&again, 3.0), None);
        assert_eq!(repeats(lines, f64::MAX), None);
    }
}
