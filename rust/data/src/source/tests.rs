//! Every kind of file by the rows that come out of it.

use super::*;
use std::io::Write;
use std::path::Path;

/// Each row as its place without the folder, and its JSON or the reason why there is none.
fn rows_of(name: &str, content: &[u8], max_row_bytes: usize) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    rows(&path, max_row_bytes)
}

fn rows(path: &Path, max_row_bytes: usize) -> Vec<(String, String)> {
    let source = Source::File(path.to_owned());
    let place = |text: &str| text.rsplit('/').next().unwrap().to_owned();
    let found = match source.lines(max_row_bytes) {
        Ok(found) => found,
        Err(error) => return vec![(place(&error.location.unwrap()), error.what)],
    };
    found
        .map(|line| {
            let row = line.content.and_then(Content::row);
            (place(&line.location), row.map_or_else(|error| error.what, |row| serde_json::to_string(&row).unwrap()))
        })
        .collect()
}

fn check(name: &str, content: &[u8], expected: &[(&str, &str)]) {
    let found = rows_of(name, content, 1000);
    let found: Vec<(&str, &str)> = found.iter().map(|(place, row)| (place.as_str(), row.as_str())).collect();
    assert_eq!(found, expected, "{name}");
}

fn gzip(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        let mut encoder = flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap();
    }
    bytes
}

fn zst(part: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(part, 1).unwrap()
}

#[test]
fn only_newlines_split_and_blank_lines_keep_the_count() {
    let content = "\u{feff}{\"a\":\"\u{2028}\u{85}\"}\r\n\n  \n{\"a\":1}";
    check("a.txt", content.as_bytes(), &[("a.txt:1", "{\"a\":\"\u{2028}\u{85}\"}"), ("a.txt:4", "{\"a\":1}")]);
    check("a.jsonl", b"", &[]);
    check("a.jsonl", b"\n \n", &[]);
}

#[test]
fn a_long_line_is_one_bad_row() {
    let long = format!("{{\"a\":\"{}\"}}\n{{\"b\":2}}\n", "x".repeat(2000));
    let expected = [("a:1", "the row is longer than 1000 bytes"), ("a:2", "{\"b\":2}")];
    check("a", long.as_bytes(), &expected);
    let array = format!("[{},{{\"b\":2}}]", long.lines().next().unwrap());
    check("a", array.as_bytes(), &[expected[0], ("a:1:2011", "{\"b\":2}")]);
    let fits = format!("{{\"a\":\"{}\"}}", "x".repeat(992));
    check("a", format!("{fits}\n").as_bytes(), &[("a:1", &fits)]);
}

#[test]
fn compression_is_told_by_content_and_parts_are_joined() {
    let expected = [("a:1", "{\"a\":1}"), ("a:2", "{\"b\":2}")];
    let (one, two): (&[u8], &[u8]) = (b"{\"a\":1}\n{\"b\"", b":2}\n");
    check("a", &gzip(&[one, two]), &expected);
    check("a", &[zst(one), zst(two)].concat(), &expected);
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zst(one), &zst(two)].concat();
    check("a", &skipped, &expected);
}

#[test]
fn a_cut_compressed_file_ends_with_an_error_at_its_line() {
    let text: Vec<u8> = (0..500).flat_map(|n| format!("{{\"a\":{n}}}\n").into_bytes()).collect();
    for whole in [gzip(&[&text]), zst(&text)] {
        for cut in [whole.len() / 2, whole.len() - 5, whole.len() - 1] {
            let found = rows_of("a", &whole[..cut], 1000);
            let (place, why) = found.last().unwrap();
            assert_eq!((why.as_str(), place), (DAMAGED, &format!("a:{}", found.len())));
        }
    }
}

#[test]
fn a_zstd_window_over_the_limit_is_a_limit_of_the_machine() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(b"{}\n").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.zst");
    std::fs::write(&path, encoder.finish().unwrap()).unwrap();
    let error = Source::File(path).lines(1000).err().unwrap();
    assert_eq!((error.kind, error.what.as_str()), (Kind::Resource, "the zstd window is larger than 128 MiB"));
}

#[test]
fn elements_of_an_array_have_their_lines() {
    let content = b"\n [\n  {\"a\": [1, {\"]\": \"],\\\"\"}]},\n  {\n\"b\":\n2}, 3, {\"c\": 4},\n\n{\"d\": 5}\n]\n \n";
    let expected = [
        ("a.json:3", r#"{"a":[1,{"]":"],\""}]}"#),
        ("a.json:4", r#"{"b":2}"#),
        ("a.json:6", "the line is a number, not an object"),
        ("a.json:6:8", r#"{"c":4}"#),
        ("a.json:8", r#"{"d":5}"#),
    ];
    check("a.json", content, &expected);
    check("a.json", b"[]", &[]);
    check("a.json", b"[{},]", &[("a.json:1", "{}"), ("a.json:1:5", "the line is not JSON")]);
    check("a.json", b"[{}", &[("a.json:1", DAMAGED)]);
    check("a.json", b"[{}] {}", &[("a.json:1", "{}"), ("a.json:1:6", DAMAGED)]);
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    assert_eq!(rows_of("a.json", &deep, 1 << 20), [("a.json:1".into(), "the row is nested more than 127 deep".into())]);
}

#[test]
fn csv_records_have_the_line_they_start_at() {
    let content = b"\xEF\xBB\xBFp,c\r\n\"a\nb\",\"1,\"\"2\"\"\"\r\n\r\nx,y\nx,y,z\nx\n\xff,y\n,007\n";
    let expected = [
        ("a.csv:2", r#"{"p":"a\nb","c":"1,\"2\""}"#),
        ("a.csv:5", r#"{"p":"x","c":"y"}"#),
        ("a.csv:6", "the row has 3 columns, the header has 2"),
        ("a.csv:7", "the row has 1 columns, the header has 2"),
        ("a.csv:8", "the row is not UTF-8"),
        ("a.csv:9", r#"{"p":"","c":"007"}"#),
    ];
    check("a.csv", content, &expected);
    check("a.tsv.gz", &gzip(&[b"p\tc\n1,2\t3\n"]), &[("a.tsv.gz:2", r#"{"p":"1,2","c":"3"}"#)]);
    let long = [b"p,c\n\"".to_vec(), b"x\n".repeat(1000), b"\",y\nx,y".to_vec()].concat();
    let expected = [("a.csv:2", "the row is longer than 1000 bytes"), ("a.csv:1003", r#"{"p":"x","c":"y"}"#)];
    check("a.csv", &long, &expected);
    check("a.csv", b"p,c\na,b\n\"x\ny,z\n", &[("a.csv:2", r#"{"p":"a","c":"b"}"#), ("a.csv:3", DAMAGED)]);
    check("a.csv", b"p,c\na\"b,\"c\"d\n", &[("a.csv:2", r#"{"p":"a\"b","c":"cd"}"#)]);
    check("a.csv", b"", &[]);
}

fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn members_of_a_tar_that_share_a_name_are_a_row() {
    let long = format!("{}/x.y.txt", "d".repeat(200));
    let tar = tar_of(&[
        ("d/1.json", b"{\"a\": 1}"),
        ("d/1.txt", b"one"),
        ("d/1.cls", b"7\n"),
        ("README", b"not a row"),
        ("d/._1.txt", b"not a row either"),
        ("d/2.jpg", b"\xff\xd8"),
        ("d/2.txt", b"two"),
        ("e/2.json", b"[1]"),
        (&long, b"long"),
        ("f.txt", &[b'x'; 2000]),
        ("g.json", b"{\"txt\": 1}"),
        ("g.txt", b""),
    ]);
    let folder = "d".repeat(200);
    let long = format!(r#"{{"__key__":"{folder}/x","y.txt":"long"}}"#);
    let expected = [
        ("a:1", r#"{"__key__":"d/1","a":1,"txt":"one","cls":7}"#),
        ("a:2", "a member of kind jpg is not text"),
        ("a:3", r#"{"__key__":"e/2","json":[1]}"#),
        ("a:4", long.as_str()),
        ("a:5", "the row is longer than 1000 bytes"),
        ("a:6", "two members give the column \"txt\""),
    ];
    check("a", &tar, &expected);
    check("a", &gzip(&[&tar]), &expected);
    let found = rows_of("a", &tar[..tar.len() - 1024 - 600], 1000);
    assert_eq!(found.last().unwrap(), &("a:5".into(), DAMAGED.into()));
}

#[test]
fn other_kinds_are_named() {
    for (content, what) in [(&b"PK\x03\x04zip"[..], "a zip archive"), (b"BZh9", "a bzip2 file")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, content).unwrap();
        let error = Source::File(path).lines(1000).err().unwrap();
        assert_eq!(error.what, format!("this is {what}, which is not read"));
    }
}
