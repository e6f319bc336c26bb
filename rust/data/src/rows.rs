//! The rows of sources, read in order and worked on in parallel, for whatever is made of them.

use crate::conversation::Format;
use crate::encode::Encoder;
use crate::error::{Error, Kind, Result};
use crate::prepare::Preparer;
use crate::source::{DAMAGED, Source};
use rayon::prelude::*;
use serde_json::{Map, Value};

/// Rows that are worked on between two looks at the caller.
const CHUNK: usize = 256;
/// Rows that the format is told from.
const SAMPLE: usize = 100;
/// Bytes that are kept of a line that is no row.
const HEAD: usize = 400;

/// Where a row stands.
pub(crate) struct Spot {
    /// The lines that held something, counted from 0 over all sources.
    pub(crate) id: u64,
    /// `file:line`.
    pub(crate) place: String,
    /// The same as numbers: which source, which line.
    pub(crate) position: (u32, u64),
    /// The start of the line, when it is no row.
    pub(crate) head: Option<String>,
}

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// Rows, bad ones included.
    pub(crate) rows: u64,
    /// The format's name; empty when there was no row to tell it from.
    pub(crate) format: String,
}

struct Reader<'a, W, S> {
    preparer: &'a Preparer,
    pool: rayon::ThreadPool,
    skip: bool,
    format: Option<Format>,
    chunk: Vec<(Spot, Result<Map<String, Value>>)>,
    work: W,
    sink: S,
}

/// Hand every row to `work`, on all threads, and what becomes of it to `sink`, in the order of the sources.
///
/// `tick` is called with the rows done after each chunk; when it says false the work stops. With `skip` a bad row
/// comes to the sink as its error, otherwise it ends the work.
///
/// # Errors
/// A source cannot be read, no format fits the rows, a row is bad and `skip` is not set, or the sink fails.
pub(crate) fn each_row<T: Send>(
    preparer: &Preparer,
    sources: &[Source],
    skip: bool,
    tick: &mut dyn FnMut(u64) -> bool,
    work: impl Fn(&Encoder, &Format, &Map<String, Value>) -> Result<T> + Sync + Send,
    sink: impl FnMut(Spot, Result<T>) -> Result<()>,
) -> Result<Read> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(preparer.options().num_threads)
        .build()
        .map_err(|e| Error::new(Kind::Resource, "cannot start worker threads").because(e))?;
    let mut read = Read::default();
    let mut reader = Reader { preparer, pool, skip, format: None, chunk: Vec::with_capacity(CHUNK), work, sink };
    for (index, source) in sources.iter().enumerate() {
        for line in source.lines()? {
            let head = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(HEAD)]).into_owned();
            let (row, head) = match line.bytes {
                Ok(bytes) => match parse(&bytes) {
                    Ok(row) => (Ok(row), None),
                    Err(error) => (Err(error), Some(head(&bytes))),
                },
                Err(error) => (Err(error), None),
            };
            // What follows the damage is lost, and nobody knows how much: that is no row to skip.
            if let Err(error) = &row
                && error.what == DAMAGED
            {
                return Err(bad_row(error.clone(), &line.location));
            }
            let position = (u32::try_from(index).unwrap_or(u32::MAX), line.number);
            reader.chunk.push((Spot { id: read.rows, place: line.location, position, head }, row));
            read.rows += 1;
            if reader.chunk.len() >= if reader.format.is_none() { SAMPLE } else { CHUNK } {
                reader.flush()?;
                if !tick(read.rows) {
                    return Err(Error::new(Kind::Interrupted, "stopped"));
                }
            }
        }
    }
    reader.flush()?;
    read.format = reader.format.as_ref().map(Format::name).unwrap_or_default();
    tick(read.rows);
    if read.rows == 0 {
        return Err(Error::data("the data is empty").at(names(sources)).fix("give a file with one JSON object a line"));
    }
    Ok(read)
}

/// The sources as messages name them.
pub(crate) fn names(sources: &[Source]) -> String {
    sources.iter().map(Source::name).collect::<Vec<_>>().join(", ")
}

impl<T, W, S> Reader<'_, W, S>
where
    T: Send,
    W: Fn(&Encoder, &Format, &Map<String, Value>) -> Result<T> + Sync + Send,
    S: FnMut(Spot, Result<T>) -> Result<()>,
{
    fn flush(&mut self) -> Result<()> {
        if !self.skip
            && let Some(position) = self.chunk.iter().position(|(_, row)| row.is_err())
        {
            let (spot, row) = self.chunk.swap_remove(position);
            return row.map(|_| ()).map_err(|error| bad_row(error, &spot.place));
        }
        if self.format.is_none() {
            let sample: Vec<Map<String, Value>> =
                self.chunk.iter().filter_map(|(_, row)| row.as_ref().ok().cloned()).collect();
            if !sample.is_empty() {
                let found = self.preparer.format(&sample);
                self.format = Some(found.map_err(|error| error.at(self.chunk[0].0.place.clone()))?);
            }
        }
        let done: Vec<(Spot, Result<T>)> = match &self.format {
            Some(format) => {
                let (encoder, work) = (self.preparer.encoder(), &self.work);
                let each = |(spot, row): (Spot, Result<Map<String, Value>>)| {
                    (spot, row.and_then(|row| work(encoder, format, &row)))
                };
                self.pool.install(|| self.chunk.par_drain(..).map(each).collect())
            }
            // Until there is a format there are only bad rows.
            None => self.chunk.drain(..).filter_map(|(spot, row)| Some((spot, Err(row.err()?)))).collect(),
        };
        for (spot, made) in done {
            match made {
                // Not the row's fault: the whole set is to be made again.
                Err(error) if !self.skip || error.kind == Kind::Backend => return Err(bad_row(error, &spot.place)),
                made => (self.sink)(spot, made)?,
            }
        }
        Ok(())
    }
}

/// Row errors keep their own place (`messages[1]`) in the cause, since the file and line matter more.
fn bad_row(mut error: Error, place: &str) -> Error {
    if let Some(inner) = error.location.replace(place.to_owned())
        && inner != place
    {
        error.what = format!("{inner}: {}", error.what);
    }
    const OTHERWISE: &str = "mend the row, or set on_bad_row to skip; `alignite preview` shows all such rows";
    if matches!(error.kind, Kind::Data) && error.what != DAMAGED {
        error.fix = Some(match error.fix {
            Some(fix) => format!("{fix}; {OTHERWISE}"),
            None => OTHERWISE.into(),
        });
    }
    error
}

/// What a report says of a bad row.
pub(crate) fn reason_of(error: &Error) -> String {
    match &error.location {
        Some(inner) if !inner.contains(':') => format!("{} ({inner})", error.what),
        _ => error.what.clone(),
    }
}

/// One line as a row.
///
/// # Errors
/// It is not UTF-8, not JSON, nested too deep, or not an object.
pub fn parse(bytes: &[u8]) -> Result<Map<String, Value>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Error::data("the line is not UTF-8").because(e).fix("save the file as UTF-8"))?;
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(row)) => Ok(row),
        Ok(other) => Err(Error::data(format!("the line is {}, not an object", crate::conversation::kind_of(&other)))
            .fix("write one JSON object a line")),
        Err(error) => Err(Error::data("the line is not JSON").because(error).fix("write one JSON object a line")),
    }
}
