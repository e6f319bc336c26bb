//! Words and word n-grams as hashes, in one walk over a text.
//!
//! A word is a run of letters and digits in lower case, after NFC; in scripts that write no spaces each letter is a
//! word of its own, so that n-grams mean there what they mean elsewhere.

use std::borrow::Cow;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// FNV-1a's start and prime for 64 bits.
const START: u64 = 0xCBF2_9CE4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01B3;
/// What a sequence of words is multiplied by at each word: odd, without structure.
const STEP: u64 = 0x9E6C_63D0_876A_68E5;

/// Spread the bits of a number over all of it (the finalizer of splitmix64).
pub(super) fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Hand the hash of every word to `each`.
pub(super) fn words(text: &str, mut each: impl FnMut(u64)) {
    let text: Cow<'_, str> = if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        text.into()
    } else {
        text.nfc().collect::<String>().into()
    };
    let mut word = START;
    let step = |word: u64, unit: u32| (word ^ u64::from(unit)).wrapping_mul(PRIME);
    let mut end = |word: &mut u64| {
        if *word != START {
            each(mix(*word));
            *word = START;
        }
    };
    for c in text.chars() {
        if c.is_ascii() {
            if c.is_ascii_alphanumeric() {
                word = step(word, u32::from(c) | 0x20);
            } else {
                end(&mut word);
            }
        } else if !c.is_alphanumeric() {
            end(&mut word);
        } else if stands_alone(c) {
            end(&mut word);
            word = step(word, u32::from(c));
            end(&mut word);
        } else {
            word = c.to_lowercase().fold(word, |word, c| step(word, u32::from(c)));
        }
    }
    end(&mut word);
}

/// Letters of scripts that write no spaces between words: Thai to Tibetan, Myanmar, Khmer, kana, Han.
fn stands_alone(c: char) -> bool {
    matches!(u32::from(c), 0x0E00..=0x0FFF | 0x1000..=0x109F | 0x1780..=0x17FF
        | 0x3040..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x20000..=0x3FFFF)
}

/// Hand the hash of every n-gram of words to `each` and return the number of words.
///
/// A text of fewer words gives one hash, of all of them; one without words gives none. Different n-grams share a hash
/// with a chance of about n / 2^64.
pub(super) fn grams(text: &str, n: usize, seed: u64, mut each: impl FnMut(u64)) -> usize {
    let mut ring = vec![0; n];
    let oldest = (0..n).fold(1u64, |power, _| power.wrapping_mul(STEP));
    let (mut at, mut count, mut sum) = (0, 0, 0u64);
    words(text, |word| {
        sum = sum
            .wrapping_mul(STEP)
            .wrapping_add(word)
            .wrapping_sub(std::mem::replace(&mut ring[at], word).wrapping_mul(oldest));
        at = if at + 1 == n { 0 } else { at + 1 };
        count += 1;
        if count >= n {
            each(mix(sum ^ seed));
        }
    });
    if count > 0 && count < n {
        each(mix(sum ^ seed));
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Vec<u64> {
        let mut out = Vec::new();
        words(text, |word| out.push(word));
        out
    }

    #[test]
    fn words_are_letters_and_digits_in_lower_case() {
        assert_eq!(all("Hello, WORLD-42!"), all("hello world 42"));
        assert_eq!(all("Caf\u{e9} STRA\u{df}E"), all("cafe\u{301}, stra\u{df}e"));
        assert_eq!(all("\u{4f60}\u{597d}\u{ff0c}\u{4e16}\u{754c}").len(), 4);
        assert_eq!(all("").len() + all("... \u{3002}").len(), 0);
    }

    proptest! {
        #[test]
        fn rolling_is_hashing_each_n_gram_alone(words in prop::collection::vec("[a-c]{1,2}", 0..12), n in 1usize..6) {
            let mut rolled = Vec::new();
            let count = grams(&words.join(" "), n, 7, |gram| rolled.push(gram));
            prop_assert_eq!(count, words.len());
            let alone = |gram: &[String]| {
                let mut out = Vec::new();
                grams(&gram.join("-"), gram.len(), 7, |gram| out.push(gram));
                out[0]
            };
            let expected: Vec<u64> = if words.is_empty() {
                vec![]
            } else {
                words.windows(n.min(words.len())).map(alone).collect()
            };
            prop_assert_eq!(rolled, expected);
        }
    }
}
