//! The fast backend against the library, for each pattern that has a scanner.

use super::split::known_patterns;
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A byte-level vocabulary with merges of common pairs, some added tokens, and this way of splitting.
fn tokenizer(pre_tokenizer: &Value, normalizer: Value, ignore_merges: bool) -> Vec<u8> {
    let letters: Vec<String> = (0..=255_u8).map(super::bpe::letter).map(String::from).collect();
    let mut vocab: Vec<String> = letters;
    let mut merges = Vec::new();
    let pairs =
        "h e|t he|Ġ the|Ġ Ġ|ĠĠ ĠĠ|i n|in g|Ġ a|1 2|12 3|' s|Ċ Ċ|Ã ©|a a|aa aa|aaaa aaaa|a n|an d|e r|r e|Ġ '|ä ¸|ä¸ Ń";
    for pair in pairs.split('|') {
        let (left, right) = pair.split_once(' ').unwrap();
        merges.push(json!([left, right]));
        vocab.push(format!("{left}{right}"));
    }
    // A word that merges do not lead to.
    vocab.push("Ġwhole".into());
    let vocab: serde_json::Map<String, Value> =
        vocab.iter().enumerate().map(|(id, text)| (text.clone(), id.into())).collect();
    let token = |id: usize, text: &str, special: bool, normalized: bool, lstrip: bool| {
        json!({"id": vocab.len() + id, "content": text, "single_word": false, "lstrip": lstrip, "rstrip": id == 4,
            "normalized": normalized, "special": special})
    };
    let added = [
        token(0, "<|end|>", true, false, false),
        token(1, "<|end|>>", true, false, false),
        token(2, "<think>", false, false, false),
        token(3, "<mask>", true, false, true),
        token(4, "<pad>", true, true, false),
        token(5, "end|", false, true, false),
    ];
    serde_json::to_vec(&json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": byte_level(true),
        "model": {"type": "BPE", "ignore_merges": ignore_merges, "vocab": vocab, "merges": merges},
    }))
    .unwrap()
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn splitters() -> Vec<Value> {
    let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let by = |patterns: &[&str]| {
        let mut parts: Vec<Value> = patterns.iter().map(split).collect();
        parts.push(byte_level(false));
        json!({"type": "Sequence", "pretokenizers": parts})
    };
    let mut all: Vec<Value> = known_patterns().iter().map(|patterns| by(patterns)).collect();
    all.push(byte_level(true));
    all.push(
        json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level(true)]}),
    );
    all
}

/// For each splitter the library and the fast backend.
static BACKENDS: LazyLock<Vec<(Arc<Reference>, Fast)>> = LazyLock::new(|| {
    let make = |(index, splitter): (usize, &Value)| {
        let normalizer = if index % 2 == 1 { json!({"type": "NFC"}) } else { Value::Null };
        let json = read(&tokenizer(splitter, normalizer, index % 3 == 1)).unwrap();
        let reference = Arc::new(Reference::new(&json).unwrap());
        let fast = Fast::new(&reference, &json).unwrap();
        (reference, fast)
    };
    splitters().iter().enumerate().map(make).collect()
});

fn agree(text: &str) {
    for (index, (reference, fast)) in BACKENDS.iter().enumerate() {
        for literal in [false, true] {
            let (mut found, mut expected) = (Tokens::default(), Tokens::default());
            reference.encode(text, literal, &mut expected).unwrap();
            fast.encode(text, literal, &mut found).unwrap();
            assert!(found.same(&expected, text), "splitter {index}, {literal}: {text:?}\n{found:?}\n{expected:?}");
        }
    }
}

#[test]
fn the_self_test_passes_for_each_pattern() {
    for (reference, fast) in BACKENDS.iter() {
        selftest::run(fast, reference).unwrap();
    }
}

#[test]
fn every_kind_of_character_splits_alike_wherever_it_stands() {
    let text = |c: &char| format!("'{c} {c}{c}a{c}1{c}\n{c}A{c}e {c}'s \n");
    let kinds = classes::Classes::get().unwrap();
    let mut seen = std::collections::HashMap::<u8, usize>::new();
    // The table's own test covers every code point; here a few of each kind are enough, and those that fold to ASCII.
    let is_new = |c: &char| {
        let count = seen.entry(kinds.at(c.to_string().as_bytes(), 0).0).or_default();
        *count += 1;
        *count <= 12
    };
    let all =
        ('\0'..='\u{3100}').chain('\u{4dff}'..'\u{4e03}').chain('\u{9fa4}'..'\u{9fa8}').chain('\u{fb00}'..'\u{fb07}');
    let some: Vec<char> = all.filter(|c| *c < '\u{250}' || *c >= '\u{3000}').collect();
    let some: Vec<char> = (0..0x11_0000).filter_map(char::from_u32).filter(is_new).chain(some).collect();
    for chars in some.chunks(100) {
        agree(&chars.iter().map(text).collect::<String>());
    }
}

#[test]
fn long_words_are_exact_and_do_not_take_the_square_of_their_length() {
    agree(&"a".repeat(1000));
    agree(&"the123 and".repeat(100).replace(' ', "x"));
    let (_, fast) = &BACKENDS[0];
    let start = std::time::Instant::now();
    let mut tokens = Tokens::default();
    fast.encode(&"a".repeat(2_000_000), false, &mut tokens).unwrap();
    assert_eq!(tokens.len(), 250_000);
    assert!(start.elapsed().as_secs() < 20);
}

#[test]
fn what_is_not_known_goes_to_the_reference() {
    let reason = |change: fn(&mut Value)| {
        let mut json: Value = serde_json::from_slice(&tokenizer(&byte_level(true), Value::Null, false)).unwrap();
        change(&mut json);
        let chosen = Chosen::new(&serde_json::to_vec(&json).unwrap(), "auto").unwrap();
        assert!(Chosen::new(&serde_json::to_vec(&json).unwrap(), "fast").is_err());
        let (name, reason) = chosen.name();
        assert_eq!(name, "reference");
        reason.unwrap().to_owned()
    };
    assert!(reason(|json| json["normalizer"] = json!({"type": "Lowercase"})).contains("changes text"));
    assert!(reason(|json| json["pre_tokenizer"]["add_prefix_space"] = true.into()).contains("space"));
    assert!(reason(|json| json["model"]["byte_fallback"] = true.into()).contains("byte fallback"));
    assert!(reason(|json| json["added_tokens"][0]["single_word"] = true.into()).contains("single word"));
    let split = json!({"type": "Sequence", "pretokenizers": [{"type": "Punctuation"}, byte_level(false)]});
    let json = tokenizer(&split, Value::Null, false);
    assert!(Chosen::new(&json, "auto").unwrap().name().1.unwrap().contains("scanner"));
    assert_eq!(Chosen::new(&json, "reference").unwrap().name().0, "reference");
    assert!(Chosen::new(&json, "quick").is_err());
}

/// A backend that is right but for one character.
struct Wrong(Arc<Reference>);

impl Backend for Wrong {
    fn encode(&self, text: &str, literal: bool, out: &mut Tokens) -> Result<()> {
        self.0.encode(&text.replace('\u{e9}', "e"), literal, out)
    }
}

#[test]
fn a_wrong_backend_is_caught_when_it_is_loaded_and_while_it_runs() {
    let (reference, _) = &BACKENDS[0];
    let wrong = || Wrong(Arc::clone(reference));
    assert!(selftest::run(&wrong(), reference).unwrap_err().contains("other tokens"));
    let chosen = Chosen::with(Arc::clone(reference), Some(Box::new(wrong())), None);
    let mut tokens = Tokens::default();
    let caught = (0..=CHECK_EVERY).find_map(|_| chosen.encode("caf\u{e9}", false, &mut tokens).err()).unwrap();
    assert_eq!(caught.kind, Kind::Backend);
    assert_eq!(chosen.name().0, "reference");
    // From now on the tokens are the reference's.
    chosen.encode("caf\u{e9}", false, &mut tokens).unwrap();
    assert!(chosen.recheck("caf\u{e9}", false, &tokens).unwrap());
}

#[test]
fn tokens_know_their_bytes_with_gaps_and_without() {
    let mut tokens = Tokens::default();
    tokens.push(1, 0..2);
    tokens.push(2, 2..5);
    tokens.push(3, 6..7);
    tokens.push(4, 7..8);
    assert_eq!(
        (0..4).map(|index| tokens.start(index)..tokens.end(index)).collect::<Vec<_>>(),
        [0..2, 2..5, 6..7, 7..8]
    );
    let mut later = Tokens::default();
    later.append(&tokens, 3);
    assert_eq!((later.start(0), later.end(0), later.start(2)), (3, 5, 9));
    assert_eq!(tokens.range(0, "a\u{e9}bcdefg"), 0..3);
}

fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<char>().prop_map(String::from),
        "[a-zA-Z '\\n\\r\\t0-9éЖ中ʰªǅ\u{301}\u{17f}/_.,!]{1,6}",
        "[ \\n\\u{a0}\\u{3000}\\u{2028}]{1,5}",
        prop::sample::select(vec![
            "<|end|>", "<|end|>>", "<think>", " <mask>", "<pad>  ", "end|", "<|end", "'S", "'rE", " whole"
        ])
        .prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_gives_the_references_tokens(text in any_text()) {
        agree(&text);
    }
}
