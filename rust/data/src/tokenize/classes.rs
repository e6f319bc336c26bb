//! What kind of character each code point is, as the reference's regular expressions see it.

use std::sync::OnceLock;
use tokenizers::utils::SysRegex;

/// `\p{L}`
pub(super) const LETTER: u8 = 1;
/// `\p{N}`
pub(super) const NUMBER: u8 = 2;
/// `\s`
pub(super) const SPACE: u8 = 4;
/// `[\p{Lu}\p{Lt}]`
pub(super) const UPPER: u8 = 8;
/// `\p{Ll}`
pub(super) const LOWER: u8 = 16;
/// `\p{M}`
pub(super) const MARK: u8 = 32;
/// `[\p{P}\p{S}]`
pub(super) const SIGN: u8 = 64;
/// `char::is_numeric`, which the `Digits` splitter asks instead of a regular expression.
pub(super) const DIGIT: u8 = 128;

const PATTERNS: [(&str, u8); 7] = [
    (r"\p{L}+", LETTER),
    (r"\p{N}+", NUMBER),
    (r"\s+", SPACE),
    (r"[\p{Lu}\p{Lt}]+", UPPER),
    (r"\p{Ll}+", LOWER),
    (r"\p{M}+", MARK),
    (r"[\p{P}\p{S}]+", SIGN),
];

/// The classes of every code point.
pub(super) struct Classes {
    ascii: [u8; 128],
    /// By code point.
    all: Vec<u8>,
}

impl Classes {
    /// The table, made from the reference's own engine when it is first asked for, so that its version of Unicode
    /// decides.
    pub(super) fn get() -> Option<&'static Self> {
        static TABLE: OnceLock<Option<Classes>> = OnceLock::new();
        TABLE.get_or_init(Self::make).as_ref()
    }

    fn make() -> Option<Self> {
        let mut all = vec![0; 0x11_0000];
        // Planes 4 to 13 are empty, 15 and 16 are private: characters of no class, as a test checks.
        let text: String = (0..0x4_0000).chain(0xE_0000..0xF_0000).filter_map(char::from_u32).collect();
        for (pattern, class) in PATTERNS {
            for (start, end) in SysRegex::new(pattern).ok()?.find_iter(&text) {
                text[start..end].chars().for_each(|c| all[c as usize] |= class);
            }
        }
        text.chars().filter(|c| c.is_numeric()).for_each(|c| all[c as usize] |= DIGIT);
        let mut ascii = [0; 128];
        ascii.copy_from_slice(&all[..128]);
        Some(Self { ascii, all })
    }

    /// The class of the character that starts at `at`, and its bytes.
    #[inline(always)]
    pub(super) fn at(&self, text: &[u8], at: usize) -> (u8, usize) {
        let lead = text[at];
        if lead < 0x80 { (self.ascii[usize::from(lead & 0x7F)], 1) } else { self.wide(text, at) }
    }

    fn wide(&self, text: &[u8], at: usize) -> (u8, usize) {
        let (code, length) = decode(text, at);
        (self.all[code as usize], length)
    }

    /// The end of the run of characters from `at` that have any of these classes.
    #[inline(always)]
    pub(super) fn run(&self, text: &[u8], mut at: usize, any: u8) -> usize {
        while at < text.len() {
            let (class, length) = self.at(text, at);
            if class & any == 0 {
                break;
            }
            at += length;
        }
        at
    }

    /// The end of the run of characters from `at` that have none of these classes.
    #[inline(always)]
    pub(super) fn run_without(&self, text: &[u8], mut at: usize, none: u8) -> usize {
        while at < text.len() {
            let (class, length) = self.at(text, at);
            if class & none != 0 {
                break;
            }
            at += length;
        }
        at
    }
}

/// The code point that starts at `at`, and its bytes; `text` is UTF-8 and the character is not ASCII.
#[inline]
pub(super) fn decode(text: &[u8], at: usize) -> (u32, usize) {
    let low = |index: usize| u32::from(text[at + index] & 0x3F);
    let lead = u32::from(text[at]);
    match lead {
        0..0xE0 => ((lead & 0x1F) << 6 | low(1), 2),
        0xE0..0xF0 => ((lead & 0x0F) << 12 | low(1) << 6 | low(2), 3),
        _ => ((lead & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3), 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_point_has_the_engines_classes() {
        let classes = Classes::get().unwrap();
        for (pattern, class) in PATTERNS {
            let regex = SysRegex::new(pattern).unwrap();
            let text: String = (0..=0x10_FFFF).filter_map(char::from_u32).collect();
            let mut expected = vec![false; 0x11_0000];
            for (start, end) in regex.find_iter(&text) {
                text[start..end].chars().for_each(|c| expected[c as usize] = true);
            }
            for c in text.chars() {
                let mut bytes = [0; 4];
                let (found, length) = classes.at(c.encode_utf8(&mut bytes).as_bytes(), 0);
                assert_eq!((found & class != 0, length), (expected[c as usize], c.len_utf8()), "{pattern} {c:?}");
                assert_eq!(found & DIGIT != 0, c.is_numeric(), "{c:?}");
            }
        }
    }
}
