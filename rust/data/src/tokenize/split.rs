//! Text to words as the reference's regular expressions split it, by hand-written scanners.
//!
//! A pattern is recognised by its exact text; each scanner walks through its alternatives in their order. The comments
//! name the alternative, and why no backtracking is needed beyond what is written.

use super::classes::{Classes, DIGIT, LETTER, LOWER, MARK, NUMBER, SIGN, SPACE, UPPER, decode};
use serde_json::Value;

const GPT2: [&str; 2] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
];
/// cl100k and Llama 3, with possessive marks and without; they change nothing.
const LLAMA3: [&str; 2] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 3.5: marks are letters of words.
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's tekken: o200k without contractions, one digit at a time.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// DeepSeek V3: three splits, one after the other.
const DEEPSEEK: [&str; 3] = [
    r"\p{N}{1,3}",
    "[一-龥\u{3040}-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
];

/// The patterns that have a scanner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    /// The whole text is one word.
    None,
    Gpt2,
    /// `letters` are the classes that words are made of.
    Words {
        letters: u8,
        digits: usize,
    },
    Cased {
        contractions: bool,
        digits: usize,
    },
    DeepSeek,
}

/// Splits text into words.
pub(super) struct Splitter {
    classes: &'static Classes,
    pattern: Pattern,
    /// Each digit is a word, before the pattern sees the text.
    single_digits: bool,
}

impl Splitter {
    /// The splitter of a tokenizer.json's `pre_tokenizer`, or why it has none.
    pub(super) fn new(pre_tokenizer: &Value) -> Result<Self, String> {
        let parts = match pre_tokenizer["type"].as_str() {
            Some("Sequence") => pre_tokenizer["pretokenizers"].as_array().map(Vec::as_slice).unwrap_or_default(),
            _ => std::slice::from_ref(pre_tokenizer),
        };
        let unknown = || Err("its way of splitting text has no scanner here".to_owned());
        let Some((bytes, splits)) = parts.split_last() else { return unknown() };
        if bytes["type"] != "ByteLevel" || bytes["add_prefix_space"] != false {
            return Err("it is no byte-level tokenizer, or adds a space before the text".into());
        }
        let use_regex = bytes["use_regex"].as_bool().unwrap_or(true);
        let patterns: Option<Vec<&str>> = splits.iter().map(isolated).collect();
        let (pattern, single_digits) = match (splits, patterns.as_deref()) {
            ([], _) => (if use_regex { Pattern::Gpt2 } else { Pattern::None }, false),
            ([digits], _) if use_regex && digits["type"] == "Digits" && digits["individual_digits"] == true => {
                (Pattern::Gpt2, true)
            }
            (_, Some(patterns)) if !use_regex => match recognise(patterns) {
                Some(pattern) => (pattern, false),
                None => return unknown(),
            },
            _ => return unknown(),
        };
        let classes = Classes::get().ok_or("the classes of characters cannot be read")?;
        Ok(Self { classes, pattern, single_digits })
    }

    /// Hand each word's bounds to `word`, in order and without gaps.
    #[inline]
    pub(super) fn split(&self, text: &[u8], mut word: impl FnMut(usize, usize)) {
        if !self.single_digits {
            return self.by_pattern(text, 0, &mut word);
        }
        let mut at = 0;
        while at < text.len() {
            let digit = self.classes.run_without(text, at, DIGIT);
            self.by_pattern(&text[at..digit], at, &mut word);
            at = digit;
            while at < text.len() {
                let (class, length) = self.classes.at(text, at);
                if class & DIGIT == 0 {
                    break;
                }
                word(at, at + length);
                at += length;
            }
        }
    }

    /// The same for a piece of the text that starts at `offset` of it.
    #[inline(always)]
    fn by_pattern(&self, text: &[u8], offset: usize, word: &mut impl FnMut(usize, usize)) {
        match self.pattern {
            Pattern::None if text.is_empty() => {}
            Pattern::None => word(offset, offset + text.len()),
            Pattern::Gpt2 => each(text, offset, word, |at| self.gpt2(text, at)),
            Pattern::Words { letters: LETTER, digits } => {
                each(text, offset, word, |at| self.words(text, at, LETTER, digits));
            }
            Pattern::Words { letters, digits } => {
                each(text, offset, word, |at| self.words(text, at, letters, digits));
            }
            Pattern::Cased { contractions, digits } => {
                each(text, offset, word, |at| self.cased(text, at, contractions, digits));
            }
            Pattern::DeepSeek => self.deepseek(text, offset, word),
        }
    }

    #[inline(always)]
    fn gpt2(&self, text: &[u8], at: usize) -> usize {
        let first = text[at];
        if first == b'\'' {
            let length = match text[at + 1..] {
                [b's' | b't' | b'm' | b'd', ..] => 2,
                [b'r' | b'v', b'e', ..] | [b'l', b'l', ..] => 3,
                _ => 0,
            };
            if length > 0 {
                return at + length;
            }
        }
        // " ?" goes with a letter, a number or a sign, and never with a space.
        let start = if first == b' ' && at + 1 < text.len() { at + 1 } else { at };
        let (class, length) = self.classes.at(text, start);
        if class & LETTER != 0 {
            self.classes.run(text, start + length, LETTER)
        } else if class & NUMBER != 0 {
            self.classes.run(text, start + length, NUMBER)
        } else if class & SPACE == 0 {
            self.classes.run_without(text, start + length, SPACE | LETTER | NUMBER)
        } else {
            self.spaces(text, at)
        }
    }

    #[inline(always)]
    fn words(&self, text: &[u8], at: usize, letters: u8, digits: usize) -> usize {
        let first = text[at];
        if first == b'\''
            && let Some(end) = contraction(text, at)
        {
            return end;
        }
        let (class, length) = self.classes.at(text, at);
        if class & letters != 0 {
            return self.classes.run(text, at + length, letters);
        }
        if class & NUMBER != 0 {
            return self.numbers(text, at + length, digits);
        }
        let next = at + length;
        let next_class = if next < text.len() { self.classes.at(text, next).0 } else { SPACE };
        // [^\r\n\p{L}\p{N}]?\p{L}+: what stands here is neither letter nor number.
        if next_class & letters != 0 && !matches!(first, b'\r' | b'\n') {
            return self.classes.run(text, next, letters);
        }
        // ` ?[^\s\p{L}\p{N}]+[\r\n]*`
        let signs = SPACE | LETTER | NUMBER | letters;
        if class & SPACE == 0 || (first == b' ' && next_class & signs == 0) {
            let end = self.classes.run_without(text, next, signs);
            return newlines(text, end);
        }
        self.spaces_by_line(text, at)
    }

    #[inline(always)]
    fn cased(&self, text: &[u8], at: usize, contractions: bool, digits: usize) -> usize {
        const WORD: u8 = LETTER | MARK;
        let first = text[at];
        let (class, length) = self.classes.at(text, at);
        let next = at + length;
        let next_class = if next < text.len() { self.classes.at(text, next).0 } else { SPACE };
        // A mark may be the character before the word, too, but the word ends at the same place.
        let start = if class & WORD != 0 {
            Some(at)
        } else if class & NUMBER == 0 && !matches!(first, b'\r' | b'\n') && next_class & WORD != 0 {
            Some(next)
        } else {
            None
        };
        if let Some(start) = start {
            let end = self.cased_word(text, start);
            let contracted = if contractions && text.get(end) == Some(&b'\'') { contraction(text, end) } else { None };
            return contracted.unwrap_or(end);
        }
        if class & NUMBER != 0 {
            return self.numbers(text, next, digits);
        }
        let signs = SPACE | LETTER | NUMBER;
        if class & SPACE == 0 || (first == b' ' && next_class & signs == 0) {
            let end = self.classes.run_without(text, next, signs);
            let more = text[end..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n' | b'/')).count();
            return end + more;
        }
        self.spaces_by_line(text, at)
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`, or the same with `+` and `*`, from a letter or
    /// mark at `start`.
    fn cased_word(&self, text: &[u8], start: usize) -> usize {
        let mut at = start;
        // The end of the last character of the first run that the second run may begin with.
        let mut turn = None;
        while at < text.len() {
            let (class, length) = self.classes.at(text, at);
            if class & (LETTER | MARK) == 0 || class & LOWER != 0 {
                break;
            }
            at += length;
            if class & UPPER == 0 {
                turn = Some(at);
            }
        }
        let lower = at;
        while at < text.len() {
            let (class, length) = self.classes.at(text, at);
            if class & (LETTER | MARK) == 0 || class & UPPER != 0 {
                break;
            }
            at += length;
        }
        // Without a second run the first gives characters back until there is one; if it has none to give, the other
        // alternative takes it whole.
        if at > lower { at } else { turn.unwrap_or(lower) }
    }

    fn deepseek(&self, text: &[u8], offset: usize, word: &mut impl FnMut(usize, usize)) {
        let mut at = 0;
        while at < text.len() {
            let number = self.classes.run_without(text, at, NUMBER);
            let mut from = at;
            while from < number {
                let (mut end, mut is_cjk) = (from, false);
                while end < number {
                    let (length, cjk) = if text[end] < 0x80 {
                        (1, false)
                    } else {
                        let (code, length) = decode(text, end);
                        (length, matches!(code, 0x4E00..=0x9FA5 | 0x3040..=0x30FF))
                    };
                    if end > from && cjk != is_cjk {
                        break;
                    }
                    is_cjk = cjk;
                    end += length;
                }
                self.deepseek_piece(&text[from..end], offset + from, word);
                from = end;
            }
            at = number;
            let run = self.classes.run(text, at, NUMBER);
            while at < run {
                // Numbers alone match nothing of the last pattern, so that they stay one word.
                let end = self.numbers(&text[..run], at + self.classes.at(text, at).1, 3);
                word(offset + at, offset + end);
                at = end;
            }
        }
    }

    /// The last of the three splits; what it does not match is a word, too.
    fn deepseek_piece(&self, text: &[u8], offset: usize, word: &mut impl FnMut(usize, usize)) {
        let (mut at, mut gap) = (0, 0);
        while at < text.len() {
            match self.deepseek_word(text, at) {
                Some(end) => {
                    if gap < at {
                        word(offset + gap, offset + at);
                    }
                    word(offset + at, offset + end);
                    (at, gap) = (end, end);
                }
                None => at += self.classes.at(text, at).1,
            }
        }
        if gap < at {
            word(offset + gap, offset + at);
        }
    }

    fn deepseek_word(&self, text: &[u8], at: usize) -> Option<usize> {
        let first = text[at];
        let next_letter = text.get(at + 1).is_some_and(u8::is_ascii_alphabetic);
        if first.is_ascii_punctuation() && next_letter {
            return Some(at + 1 + text[at + 1..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count());
        }
        let (class, length) = self.classes.at(text, at);
        if class & (LETTER | MARK) != 0 {
            return Some(self.classes.run(text, at + length, LETTER | MARK));
        }
        let next = at + length;
        let next_class = if next < text.len() { self.classes.at(text, next).0 } else { SPACE };
        if class & SIGN == 0 && !matches!(first, b'\r' | b'\n') && next_class & (LETTER | MARK) != 0 {
            return Some(self.classes.run(text, next, LETTER | MARK));
        }
        if class & SIGN != 0 || (first == b' ' && next_class & SIGN != 0) {
            return Some(newlines(text, self.classes.run(text, next, SIGN)));
        }
        (class & SPACE != 0).then(|| self.spaces_by_line(text, at))
    }

    /// `\p{N}{1,most}` from its second character.
    #[inline(always)]
    fn numbers(&self, text: &[u8], mut at: usize, most: usize) -> usize {
        for _ in 1..most {
            if at == text.len() {
                break;
            }
            let (class, length) = self.classes.at(text, at);
            if class & NUMBER == 0 {
                break;
            }
            at += length;
        }
        at
    }

    /// `\s+(?!\S)|\s+` from a space: before a word all but the last one, which the word may take.
    #[inline(always)]
    fn spaces(&self, text: &[u8], at: usize) -> usize {
        let mut end = at;
        let mut last = at;
        while end < text.len() {
            let (class, length) = self.classes.at(text, end);
            if class & SPACE == 0 {
                return if last > at { last } else { end };
            }
            last = end;
            end += length;
        }
        end
    }

    /// `\s*[\r\n]+|\s+(?!\S)|\s+` from a space: up to the last newline of the run, if there is one.
    #[inline(always)]
    fn spaces_by_line(&self, text: &[u8], at: usize) -> usize {
        let run = self.classes.run(text, at, SPACE);
        match text[at..run].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
            Some(newline) => at + newline + 1,
            None => self.spaces(text, at),
        }
    }
}

#[inline(always)]
fn each(text: &[u8], offset: usize, word: &mut impl FnMut(usize, usize), mut next: impl FnMut(usize) -> usize) {
    let mut at = 0;
    while at < text.len() {
        let end = next(at);
        word(offset + at, offset + end);
        at = end;
    }
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)` at an apostrophe. The long s folds to s.
#[inline]
fn contraction(text: &[u8], at: usize) -> Option<usize> {
    let lower = |index: usize| text.get(at + index).map_or(0, u8::to_ascii_lowercase);
    match (lower(1), lower(2)) {
        (b's' | b't' | b'm' | b'd', _) => Some(at + 2),
        (b'r' | b'v', b'e') | (b'l', b'l') | (0xC5, 0xBF) => Some(at + 3),
        _ => None,
    }
}

/// `[\r\n]*`
#[inline(always)]
fn newlines(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// The regular expression of a `Split` that keeps everything, else None.
fn isolated(split: &Value) -> Option<&str> {
    let keeps = split["type"] == "Split" && split["behavior"] == "Isolated" && split["invert"] == false;
    if keeps { split["pattern"]["Regex"].as_str() } else { None }
}

fn recognise(patterns: &[&str]) -> Option<Pattern> {
    match patterns {
        [one] if GPT2.contains(one) => Some(Pattern::Gpt2),
        [one] if LLAMA3.contains(one) => Some(Pattern::Words { letters: LETTER, digits: 3 }),
        [one] if *one == QWEN2 => Some(Pattern::Words { letters: LETTER, digits: 1 }),
        [one] if *one == QWEN35 => Some(Pattern::Words { letters: LETTER | MARK, digits: 1 }),
        [one] if *one == O200K => Some(Pattern::Cased { contractions: true, digits: 3 }),
        [one] if *one == TEKKEN => Some(Pattern::Cased { contractions: false, digits: 1 }),
        _ if *patterns == DEEPSEEK => Some(Pattern::DeepSeek),
        _ => None,
    }
}

/// The patterns that have a scanner.
#[cfg(test)]
pub(super) fn known_patterns() -> Vec<Vec<&'static str>> {
    let single = GPT2.into_iter().chain(LLAMA3).chain([QWEN2, QWEN35, O200K, TEKKEN]);
    single.map(|pattern| vec![pattern]).chain([DEEPSEEK.to_vec(), Vec::new()]).collect()
}
