//! Rows that are too short, too long, or no prose, each with a reason of its own.

use super::options::CleanOptions;
use super::repetition::repeats;

/// The first filter that a row does not pass; tokens are looked at when they are known.
pub(super) fn refused(options: &CleanOptions, text: &str, turns: usize, tokens: Option<usize>) -> Option<String> {
    let chars = (options.min_chars.is_some() || options.max_chars.is_some()).then(|| text.chars().count());
    let words = (options.min_words.is_some() || options.max_words.is_some()).then(|| text.split_whitespace().count());
    for (name, count, min, max) in [
        ("turns", Some(turns), options.min_turns, options.max_turns),
        ("chars", chars, options.min_chars, options.max_chars),
        ("words", words, options.min_words, options.max_words),
        ("tokens", tokens, options.min_tokens, options.max_tokens),
    ] {
        let Some(count) = count else { continue };
        if min.is_some_and(|min| count < min) {
            return Some(format!("shorter than min_{name}"));
        }
        if max.is_some_and(|max| count > max) {
            return Some(format!("longer than max_{name}"));
        }
    }
    if options.max_symbols.is_some_and(|max| symbols(text) > max) {
        return Some("more symbols than max_symbols".into());
    }
    options.max_repetition.and_then(|slack| repeats(text, slack)).map(|measure| format!("repetition: {measure}"))
}

/// The share of characters, white space aside, that are neither letters nor digits.
fn symbols(text: &str) -> f64 {
    let (mut all, mut symbols) = (0usize, 0usize);
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        all += 1;
        symbols += usize::from(!c.is_alphanumeric());
    }
    if all == 0 { 0.0 } else { symbols as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_has_its_own_reason_and_is_off_by_default() {
        let off = CleanOptions::default();
        assert_eq!(refused(&off, "", 0, Some(0)), None);
        assert_eq!(refused(&off, &"!? ".repeat(1000), 1000, Some(1 << 40)), None);
        let one = |change: fn(&mut CleanOptions), text: &str, tokens| {
            let mut options = CleanOptions::default();
            change(&mut options);
            refused(&options, text, 2, tokens)
        };
        // Two chars and two words each, on the border and beyond it.
        assert_eq!(one(|o| o.min_chars = Some(3), "\u{e9}!\u{e9}", None), None);
        assert_eq!(one(|o| o.min_chars = Some(4), "\u{e9}!\u{e9}", None).unwrap(), "shorter than min_chars");
        assert_eq!(one(|o| o.max_chars = Some(2), "\u{e9}!\u{e9}", None).unwrap(), "longer than max_chars");
        assert_eq!(one(|o| o.min_words = Some(3), "a b", None).unwrap(), "shorter than min_words");
        assert_eq!(one(|o| o.max_words = Some(1), "a b", None).unwrap(), "longer than max_words");
        assert_eq!(one(|o| o.min_tokens = Some(3), "a", Some(2)).unwrap(), "shorter than min_tokens");
        assert_eq!(one(|o| o.min_tokens = Some(3), "a", None), None);
        assert_eq!(one(|o| o.max_tokens = Some(1), "a", Some(2)).unwrap(), "longer than max_tokens");
        assert_eq!(one(|o| o.min_turns = Some(3), "a", None).unwrap(), "shorter than min_turns");
        assert_eq!(one(|o| o.max_turns = Some(1), "a", None).unwrap(), "longer than max_turns");
        assert_eq!(one(|o| o.max_symbols = Some(0.5), "a ! ! b", None), None);
        assert_eq!(one(|o| o.max_symbols = Some(0.4), "a ! ! b", None).unwrap(), "more symbols than max_symbols");
        let repeated = one(|o| o.max_repetition = Some(1.0), "a\na\na\nb", None);
        assert_eq!(repeated.unwrap(), "repetition: repeated lines");
    }
}
