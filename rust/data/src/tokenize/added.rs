//! The tokens that stand outside the vocabulary, cut out of a text before anything else sees it.

use aho_corasick::{AhoCorasick, MatchKind};

struct Token {
    id: u32,
    special: bool,
    takes_left: bool,
    takes_right: bool,
}

/// Tokens of one kind, found by one automaton: leftmost first, and of those at one place the longest.
struct Set {
    automaton: AhoCorasick,
    tokens: Vec<Token>,
}

/// Added tokens as the `tokenizers` library treats them.
pub(super) struct Added {
    /// Those that are looked for in the text as it stands, before the others.
    plain: Option<Set>,
    /// Those that are looked for in normalized text; here that is the same text.
    normalized: Option<Set>,
}

impl Added {
    /// The added tokens of a tokenizer, or why they cannot be used here.
    pub(super) fn new(tokenizer: &tokenizers::Tokenizer) -> Result<Self, String> {
        let all = tokenizer.get_added_tokens_decoder();
        let is_special = |text: &str| tokenizer.get_added_vocabulary().is_special_token(text);
        if all.values().any(|token| token.single_word) {
            return Err("an added token must be a single word".into());
        }
        // Such a token would begin in what the one before it has taken.
        if all.values().any(|token| token.rstrip)
            && all.values().any(|token| token.content.starts_with(char::is_whitespace))
        {
            return Err("an added token starts with a space, and another one takes the spaces after it".into());
        }
        if all.values().any(|token| token.normalized && !unicode_normalization::is_nfc(&token.content)) {
            return Err("an added token is not in normal form".into());
        }
        let set = |normalized: bool| {
            let mut chosen: Vec<_> = all.iter().filter(|(_, token)| token.normalized == normalized).collect();
            chosen.sort_by_key(|(id, _)| **id);
            if chosen.is_empty() {
                return Ok(None);
            }
            let automaton = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(chosen.iter().map(|(_, token)| &token.content))
                .map_err(|error| error.to_string())?;
            let tokens = chosen.iter().map(|(id, token)| Token {
                id: **id,
                special: is_special(&token.content),
                takes_left: token.lstrip,
                takes_right: token.rstrip,
            });
            Ok::<_, String>(Some(Set { automaton, tokens: tokens.collect() }))
        };
        Ok(Self { plain: set(false)?, normalized: set(true)? })
    }

    /// Hand the parts of a text to `part` in order: bounds, and the id of an added token.
    #[inline]
    pub(super) fn each(&self, text: &str, literal: bool, part: &mut impl FnMut(usize, usize, Option<u32>)) {
        let Some(plain) = &self.plain else { return cut(self.normalized.as_ref(), text, 0, literal, part) };
        cut(Some(plain), text, 0, literal, &mut |start, end, id| match id {
            None => cut(self.normalized.as_ref(), &text[start..end], start, literal, part),
            found => part(start, end, found),
        });
    }
}

fn cut(set: Option<&Set>, text: &str, offset: usize, literal: bool, part: &mut impl FnMut(usize, usize, Option<u32>)) {
    let mut done = 0;
    for found in
        set.iter().flat_map(|set| set.automaton.find_iter(text).map(|found| (&set.tokens[found.pattern()], found)))
    {
        let (token, (mut start, mut end)) = (found.0, (found.1.start(), found.1.end()));
        if literal && token.special {
            continue;
        }
        if token.takes_left {
            start = text[..start].trim_end().len().max(done);
        }
        if token.takes_right {
            end = text.len() - text[end..].trim_start().len();
        }
        if done < start {
            part(offset + done, offset + start, None);
        }
        part(offset + start, offset + end, Some(token.id));
        done = end;
    }
    if done < text.len() {
        part(offset + done, offset + text.len(), None);
    }
}
