//! What kind of file a path is: by its first bytes, then by its name.

use super::lines::Lines;
use super::{Rows, array, arrow, csv, damaged, parquet, tar};
use crate::error::{Error, Kind, Result};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

/// Bytes that may still be compressed.
pub(super) type Input = Box<dyn BufRead + Send>;

const BUFFER: usize = 1 << 18;
/// What compression adds to a name.
const GZIP: [&str; 2] = [".gz", ".gzip"];
const ZSTD: [&str; 2] = [".zst", ".zstd"];
/// Enough to see a tar header.
const HEAD: usize = 512;
/// The largest zstd window as a power of two: 128 MiB, what `zstd` itself accepts without being asked.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Kinds that are told apart so that the message is not "not JSON".
const FOREIGN: [(&[u8], &str, &str); 5] = [
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "an xz file", "unpack it with `xz -d`, or use zstd"),
    (b"BZh", "a bzip2 file", "unpack it with `bunzip2`, or use zstd"),
    (b"PK\x03\x04", "a zip archive", "unpack it with `unzip`"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"SQLite format 3\0", "an SQLite data base", "export it as CSV or JSONL"),
];

/// The rows of a file of any kind, or of a folder that `datasets` saved; see [`super::Source::lines`].
///
/// # Errors
/// It cannot be opened, or it is of a kind that is not read.
pub fn open(path: &Path, max_row_bytes: usize) -> Result<Rows<'static>> {
    let name = path.display().to_string();
    if path.is_dir() {
        return arrow::saved(path, max_row_bytes);
    }
    let file = file(path)?;
    let (head, reader) = peek(Box::new(BufReader::with_capacity(BUFFER, file)), HEAD)
        .map_err(|error| broken(&error).at(name.clone()))?;
    if head.starts_with(parquet::MAGIC) {
        if std::fs::metadata(path).is_ok_and(|metadata| is_pipe(&metadata)) {
            return Err(Error::data("Parquet is not read from a pipe").at(name).fix("write it to a file first"));
        }
        return parquet::open(path, max_row_bytes);
    }
    let (reader, stem): (Input, String) = if head.starts_with(&[0x1f, 0x8b]) {
        (Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(reader))), stem(&name, &GZIP))
    } else if is_zstd(&head) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(reader).map_err(|error| damaged(error).at(&name))?;
        decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|error| damaged(error).at(&name))?;
        (Box::new(BufReader::with_capacity(BUFFER, decoder)), stem(&name, &ZSTD))
    } else {
        return plain(head, reader, name.clone(), &name, max_row_bytes);
    };
    let (head, reader) = peek(reader, HEAD).map_err(|error| broken(&error).at(format!("{name}:1")))?;
    if head.starts_with(parquet::MAGIC) {
        return Err(Error::data("a compressed Parquet file is not read")
            .at(name)
            .fix("unpack it: Parquet compresses its own columns"));
    }
    plain(head, reader, name, &stem, max_row_bytes)
}

/// The end of a file's name, where the same bytes under another name would be read in another way.
pub(super) fn ending(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let stem = [GZIP, ZSTD].as_flattened().iter().find_map(|packed| name.strip_suffix(packed)).unwrap_or(&name);
    let start = [".csv", ".tsv", ".tar"].into_iter().find_map(|kind| stem.strip_suffix(kind))?.len();
    (!path.is_dir()).then(|| name[start..].to_owned())
}

/// `stem` is the name without what compression added to it.
fn plain(head: Vec<u8>, mut reader: Input, name: String, stem: &str, max_row_bytes: usize) -> Result<Rows<'static>> {
    if let Some((_, what, fix)) = FOREIGN.iter().find(|(magic, ..)| head.starts_with(magic)) {
        return Err(Error::data(format!("this is {what}, which is not read")).at(name).fix(*fix));
    }
    if head.starts_with(&[0x1f, 0x8b]) || is_zstd(&head) {
        return Err(Error::data("the file is compressed twice").at(name).fix("unpack it once"));
    }
    if head.starts_with(arrow::MAGIC) || head.starts_with(&arrow::CONTINUATION) {
        return arrow::open(reader, name, max_row_bytes);
    }
    let extension = Path::new(stem).extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    if tar::is_header(&head) || (extension == "tar" && head.iter().all(|&byte| byte == 0)) {
        return Ok(Box::new(tar::Samples::new(reader, name, max_row_bytes)));
    }
    let wanted = match extension.as_str() {
        "parquet" => Some("Parquet"),
        "arrow" | "feather" | "ipc" => Some("Arrow"),
        _ => None,
    };
    if let (Some(kind), false) = (wanted, head.is_empty()) {
        return Err(damaged(format!("its name says {kind}, and it does not begin as such files do")).at(name));
    }
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        return Err(Error::data("the file is UTF-16, not UTF-8").at(name).fix("save the file as UTF-8"));
    }
    let mut text = &head[..];
    if let Some(rest) = text.strip_prefix(b"\xEF\xBB\xBF") {
        reader.consume(3);
        text = rest;
    }
    if extension == "csv" || extension == "tsv" {
        let delimiter = if extension == "csv" { b',' } else { b'\t' };
        return csv::open(reader, name, delimiter, max_row_bytes);
    }
    let text = text.trim_ascii_start();
    if text.strip_prefix(b"{").is_some_and(|rest| rest.starts_with(b"\n") || rest.starts_with(b"\r\n")) {
        return Err(Error::data("the file holds an object that is spread over several lines")
            .at(name)
            .fix("write one JSON object a line, or an array of them"));
    }
    if text.starts_with(b"[") {
        return Ok(Box::new(array::Elements::new(reader, name, max_row_bytes)));
    }
    Ok(Box::new(Lines { reader, name, number: 0, max_row_bytes, done: false }))
}

/// A file or pipe that is open for reading.
pub(super) fn file(path: &Path) -> Result<File> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    let (file, metadata) = opened.map_err(|error| {
        let error = Error::io("cannot open the data file", path, &error);
        Error { kind: Kind::Data, ..error }.fix("check the path")
    })?;
    if metadata.is_file() || is_pipe(&metadata) {
        return Ok(file);
    }
    Err(Error::data("the data path is neither a file nor a pipe")
        .at(path.display().to_string())
        .fix("name files or globs"))
}

#[cfg(unix)]
pub(super) fn is_pipe(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&metadata.file_type())
}

#[cfg(not(unix))]
pub(super) fn is_pipe(_: &std::fs::Metadata) -> bool {
    false
}

/// The first bytes, and a reader that still gives them.
fn peek(mut reader: Input, count: usize) -> io::Result<(Vec<u8>, Input)> {
    let mut head = Vec::with_capacity(count);
    (&mut reader).take(count as u64).read_to_end(&mut head)?;
    Ok((head.clone(), Box::new(Cursor::new(head).chain(reader))))
}

fn is_zstd(head: &[u8]) -> bool {
    // The second is a frame of the user's own, which may come first and is skipped.
    head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || (head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18])
}

fn stem(name: &str, endings: &[&str]) -> String {
    endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name).to_owned()
}

/// What a read error means: the machine's limit or the file's damage.
pub(super) fn broken(error: &io::Error) -> Error {
    if error.to_string().contains("too much memory") {
        return Error::new(Kind::Resource, "the zstd window is larger than 128 MiB")
            .because(error)
            .fix("compress the file again without --long, or with --long=27");
    }
    damaged(error)
}
