//! The tokenizer of a GGUF file as a tokenizer.json.
//!
//! GGUF names the way a text is split before byte-pair merging in `tokenizer.ggml.pre`. A reader that ignores it
//! gives other ids (transformers does: numbers come out wrong under `smollm`), so only names whose split is known to
//! equal llama.cpp's are read.

use crate::error::{Error, Kind, Result};
use serde_json::{Value, json};

/// The names of `tokenizer.ggml.pre` that are read.
pub const KNOWN: [&str; 4] = ["smollm", "gpt-2", "llama-bpe", "qwen2"];

const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// tokenizer.json of a byte-level BPE tokenizer (`tokenizer.ggml.model` = `gpt2`).
///
/// # Errors
/// `pre` is not in [`KNOWN`], or the lists do not fit together.
pub fn tokenizer_json(tokens: &[String], types: &[i64], merges: &[String], pre: &str) -> Result<String> {
    let bad = |what: String| Error::new(Kind::Tokenizer, what).at("tokenizer.ggml");
    if tokens.len() != types.len() {
        return Err(bad(format!("there are {} tokens and {} token types", tokens.len(), types.len())));
    }
    let (pre_tokenizer, ignore_merges) = split(pre).ok_or_else(|| {
        bad(format!("the pre-tokenizer {pre:?} is not known"))
            .because("another one's splits would give other ids than the model was trained on")
            .fix(format!("known are {}; use the tokenizer.json of the original model", KNOWN.join(", ")))
    })?;
    let mut vocab = serde_json::Map::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        if vocab.insert(token.clone(), id.into()).is_some() {
            return Err(bad(format!("the token {token:?} stands twice")));
        }
    }
    let added: Vec<Value> = tokens
        .iter()
        .zip(types)
        .enumerate()
        .filter(|(_, (_, kind))| matches!(**kind, CONTROL | USER_DEFINED))
        .map(|(id, (token, &kind))| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind == CONTROL,
            })
        })
        .collect();
    let merges = merges
        .iter()
        .map(|merge| {
            // The first character is never the separator: a space inside a token is written as another character.
            let first = merge.chars().next().map_or(0, char::len_utf8);
            let at = merge[first..]
                .find(' ')
                .map(|at| at + first)
                .ok_or_else(|| bad(format!("the merge {merge:?} is not two tokens")))?;
            Ok(json!([merge[..at], merge[at + 1..]]))
        })
        .collect::<Result<Vec<Value>>>()?;
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges,
            "vocab": vocab, "merges": merges,
        },
    })
    .to_string())
}

/// The split of a name, and whether a piece that is a token as a whole is taken without merging.
fn split(pre: &str) -> Option<(Value, bool)> {
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let by = |pattern: &str| {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            bytes(false),
        ]})
    };
    let words = |digits: &str| {
        format!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    };
    match pre {
        "smollm" => Some((
            json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, bytes(true)]}),
            false,
        )),
        "gpt-2" => Some((bytes(true), false)),
        "llama-bpe" => Some((by(&words(r"\p{N}{1,3}")), true)),
        "qwen2" => Some((by(&words(r"\p{N}")), false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_vocabulary_round_trips() {
        let tokens: Vec<String> = ["<|end|>", "a", "b", "ab", "1"].map(String::from).to_vec();
        let json = tokenizer_json(&tokens, &[3, 1, 1, 1, 1], &["a b".into()], "smollm").unwrap();
        let tokenizer = tokenizers::Tokenizer::from_bytes(json.as_bytes()).unwrap();
        let ids = |text: &str| tokenizer.encode(text, false).unwrap().get_ids().to_vec();
        assert_eq!(ids("ab11<|end|>ba"), [3, 4, 4, 0, 2, 1]);
    }

    #[test]
    fn what_is_not_known_is_named() {
        let error = tokenizer_json(&["a".into()], &[1], &[], "superbpe").unwrap_err();
        assert!(error.fix.unwrap().contains("smollm"));
        assert!(tokenizer_json(&["a".into()], &[], &[], "smollm").is_err());
        assert!(tokenizer_json(&["a".into(), "a".into()], &[1, 1], &[], "smollm").is_err());
        assert!(tokenizer_json(&["a".into()], &[1], &["a".into()], "smollm").is_err());
    }
}
