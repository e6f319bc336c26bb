//! Files of any kind, from any bytes: no panic, no more rows than bytes, places that only rise.
#![no_main]

use alignite_data::source::Source;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    const NAMES: [&str; 8] =
        ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.arrow", "a.tar", "a.jsonl.gz"];
    let (kind, bytes) = input;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(NAMES[usize::from(kind) % NAMES.len()]);
    std::fs::write(&path, bytes).expect("a file");
    let source = Source::File(path);
    let Ok(lines) = source.lines(1 << 16) else {
        return;
    };
    let mut last = 0;
    for (count, line) in lines.enumerate() {
        assert!(line.number >= last, "line {} after line {last}", line.number);
        last = line.number;
        let _ = line.content.and_then(alignite_data::source::Content::row);
        if count > 10_000 {
            break;
        }
    }
});
