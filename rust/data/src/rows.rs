//! The rows of sources, read in order and worked on in parallel, for whatever is made of them.

use crate::encode::Encoder;
use crate::error::{Error, Kind, Result};
use crate::formats::Format;
use crate::prepare::Preparer;
use crate::source::{Content, Rows, Source, is_fatal, json};
use rayon::prelude::*;
use serde_json::{Map, Value};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

/// Rows that are worked on between two looks at the caller.
const CHUNK: usize = 1024;
/// Rows of a source that its format is told from.
const SAMPLE: usize = 100;
/// Bytes that are kept of a row to show it.
const HEAD: usize = 400;
/// Chunks that are read ahead, and as many that are worked on ahead of the sink.
const AHEAD: usize = 4;
/// Bytes after which a chunk is closed, so that long rows are not held by the hundred.
const CHUNK_BYTES: usize = 8 << 20;

/// Where a row stands.
#[derive(Debug, Clone)]
pub(crate) struct Spot {
    /// The lines that held something, counted from 0 over all sources.
    pub(crate) id: u64,
    /// `file:line`.
    pub(crate) place: String,
    /// The same as numbers: which source, which line.
    pub(crate) position: (u32, u64),
    /// The start of the row as JSON, or of a line that is none; None when nothing of it could be held.
    pub(crate) head: Option<String>,
    /// Columns that no format reads and that are not among [`Read::unused`], since none of the first rows has them.
    pub(crate) unused: Vec<String>,
}

/// Which rows are worked on, by their number.
pub(crate) type Selection<'a> = dyn Fn(u64) -> bool + Sync + 'a;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// Rows, bad ones and those that are not wanted included.
    pub(crate) rows: u64,
    /// The formats' names; empty when there was no row to tell one from.
    pub(crate) format: String,
    /// Columns of the rows that formats are told from which no format reads.
    pub(crate) unused: Vec<String>,
    /// The sources that held something.
    pub(crate) sources: BTreeSet<usize>,
}

/// What a worker is given: the row, its format, and where it stands.
pub(crate) struct Row<'a> {
    pub(crate) encoder: &'a Encoder,
    pub(crate) format: &'a Format,
    pub(crate) fields: &'a Map<String, Value>,
}

/// A line, and whether it is worked on.
type Line = (Spot, Result<Content>, bool);

/// Lines of one source that follow each other.
struct Chunk {
    source: usize,
    lines: Vec<Line>,
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
    selection: &Selection<'_>,
    skip: bool,
    tick: &mut dyn FnMut(u64) -> bool,
    work: impl Fn(&Row<'_>) -> Result<T> + Sync + Send,
    mut sink: impl FnMut(Spot, Result<T>) -> Result<()>,
) -> Result<Read> {
    let (threads, max_row_bytes) = (preparer.threads(), preparer.options().max_row_bytes);
    let mut worker = Worker { preparer, skip, format: None, work: &work };
    let mut read = Read::default();
    let mut take = |made: Made<T>, read: &mut Read| -> Result<()> {
        read.rows = made.rows;
        for (spot, made) in made.of {
            match made {
                // Some are not the row's fault: an option that does not fit, a tokenizer that was caught at a difference.
                Err(error) if !skip || matches!(error.kind, Kind::Usage | Kind::Backend | Kind::Interrupted) => {
                    return Err(bad_row(error, &spot.place, skip));
                }
                made => sink(spot, made)?,
            }
        }
        if tick(read.rows) { Ok(()) } else { Err(Error::new(Kind::Interrupted, "stopped")) }
    };
    let chunks = Chunks::new(sources, selection, max_row_bytes);
    if threads == 1 {
        // One thread is the caller's own: nothing is started that a fork would lose.
        for chunk in chunks {
            let made = worker.job(chunk?, &mut read)?.run(|lines, each| lines.into_iter().filter_map(each).collect());
            take(made, &mut read)?;
        }
    } else {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::new(Kind::Resource, "cannot start worker threads").because(e))?;
        std::thread::scope(|readers| {
            let (send, receive) = sync_channel(AHEAD);
            readers.spawn(move || {
                for chunk in chunks {
                    let is_last = chunk.is_err();
                    if send.send(chunk).is_err() || is_last {
                        return;
                    }
                }
            });
            // Moved in here, so that a reader that waits to send is let go when the work ends early.
            let receive: Receiver<Result<Chunk>> = receive;
            pool.in_place_scope(|jobs| {
                // The workers go on with the next chunks while the sink takes one.
                let mut waiting: VecDeque<Receiver<Made<T>>> = VecDeque::with_capacity(AHEAD);
                let mut first = |waiting: &mut VecDeque<Receiver<Made<T>>>, read: &mut Read| {
                    let made = waiting.pop_front().map(|made| made.recv());
                    // A worker that panicked sends nothing; the pool raises its panic again when the work has ended.
                    let gone = |_| Error::new(Kind::Interrupted, "a worker has stopped");
                    made.map_or(Ok(()), |made| take(made.map_err(gone)?, read))
                };
                for chunk in receive {
                    // What comes before an error is taken first, whatever the threads' timing.
                    match chunk.and_then(|chunk| worker.job(chunk, &mut read)) {
                        Ok(job) => {
                            let (made, receive) = sync_channel(1);
                            jobs.spawn(move |_| {
                                let all = |lines: Vec<Line>, each: &Each<'_, T>| {
                                    lines.into_par_iter().filter_map(each).collect()
                                };
                                // Nobody waits for it when the work has ended early.
                                let _ = made.send(job.run(all));
                            });
                            waiting.push_back(receive);
                        }
                        Err(error) => {
                            while !waiting.is_empty() {
                                first(&mut waiting, &mut read)?;
                            }
                            return Err(error);
                        }
                    }
                    if waiting.len() == AHEAD {
                        first(&mut waiting, &mut read)?;
                    }
                }
                while !waiting.is_empty() {
                    first(&mut waiting, &mut read)?;
                }
                Ok(())
            })
        })?;
    }
    if read.rows == 0 {
        return Err(Error::data("the data is empty").at(names(sources)).fix("give files with rows in them"));
    }
    Ok(read)
}

/// Threads that work when so many are asked for; 0 asks for as many as there are cores. More than a few for each core
/// only take memory and the time to start them.
pub(crate) fn threads(asked: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if asked == 0 { cores } else { asked.min(4 * cores) }
}

/// The sources as messages name them.
pub(crate) fn names(sources: &[Source]) -> String {
    sources.iter().map(Source::name).collect::<Vec<_>>().join(", ")
}

/// The lines of all sources, in chunks; a chunk never spans two sources.
struct Chunks<'a> {
    sources: &'a [Source],
    selection: &'a Selection<'a>,
    next_source: usize,
    max_row_bytes: usize,
    lines: Option<Rows<'a>>,
    in_source: u64,
    id: u64,
}

impl<'a> Chunks<'a> {
    fn new(sources: &'a [Source], selection: &'a Selection<'a>, max_row_bytes: usize) -> Self {
        Self { sources, selection, max_row_bytes, next_source: 0, lines: None, in_source: 0, id: 0 }
    }

    fn read(&mut self) -> Result<Option<Chunk>> {
        loop {
            if self.lines.is_none() {
                let Some(source) = self.sources.get(self.next_source) else {
                    return Ok(None);
                };
                self.lines = Some(source.lines(self.max_row_bytes)?);
                (self.next_source, self.in_source) = (self.next_source + 1, 0);
            }
            let source = self.next_source - 1;
            // The first chunk is the sample that the format is told from, the same one whatever is wanted.
            let size = if self.in_source == 0 { SAMPLE } else { CHUNK };
            let mut chunk = Chunk { source, lines: Vec::with_capacity(size) };
            let mut bytes = 0;
            while chunk.lines.len() < size && bytes < CHUNK_BYTES {
                let Some(line) = self.lines.as_mut().and_then(Iterator::next) else {
                    self.lines = None;
                    break;
                };
                let spot = Spot {
                    id: self.id,
                    place: line.location,
                    position: (u32::try_from(source).unwrap_or(u32::MAX), line.number),
                    head: None,
                    unused: Vec::new(),
                };
                let is_now = (self.selection)(self.id);
                let is_sample = self.in_source < SAMPLE as u64;
                self.in_source += 1;
                self.id += 1;
                // What follows the damage is lost, and nobody knows how much: that is no row to skip.
                if let Err(error) = &line.content
                    && is_fatal(error)
                {
                    return Err(bad_row(error.clone(), &spot.place, false));
                }
                bytes += line.content.as_ref().map_or(0, Content::size);
                if is_now || is_sample {
                    chunk.lines.push((spot, line.content, is_now));
                }
            }
            if !chunk.lines.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }
}

impl Iterator for Chunks<'_> {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Result<Chunk>> {
        self.read().transpose()
    }
}

struct Worker<'a, W> {
    preparer: &'a Preparer,
    skip: bool,
    /// Of the source that is read now.
    format: Option<(usize, Arc<Format>)>,
    work: &'a W,
}

/// A chunk that any thread may work on.
struct Job<'a, W> {
    encoder: &'a Encoder,
    format: Option<Arc<Format>>,
    lines: Vec<Line>,
    work: &'a W,
}

/// What became of a chunk's rows, in order, and the rows that were read by its end.
struct Made<T> {
    rows: u64,
    of: Vec<(Spot, Result<T>)>,
}

/// What becomes of a line that is worked on.
type Each<'a, T> = dyn Fn(Line) -> Option<(Spot, Result<T>)> + Sync + 'a;

impl<'a, T, W> Worker<'a, W>
where
    W: Fn(&Row<'_>) -> Result<T>,
{
    /// The work on a chunk; the first chunk of a source tells its format.
    fn job(&mut self, mut chunk: Chunk, read: &mut Read) -> Result<Job<'a, W>> {
        let index = chunk.source;
        read.sources.insert(index);
        if self.format.as_ref().is_none_or(|(of, _)| *of != index) {
            chunk.lines = self.format_told(index, chunk.lines)?;
            self.tell(read);
        }
        // Until there is a format there are only bad rows.
        let format = self.format.as_ref().filter(|(of, _)| *of == index).map(|(_, format)| format.clone());
        Ok(Job { encoder: self.preparer.encoder(), format, lines: chunk.lines, work: self.work })
    }

    fn format_told(&mut self, source: usize, told: Vec<Line>) -> Result<Vec<Line>> {
        let (mut sample, mut lines) = (Vec::with_capacity(told.len()), Vec::with_capacity(told.len()));
        let mut first = None;
        for (mut spot, content, is_now) in told {
            first.get_or_insert_with(|| spot.place.clone());
            let fields = parsed(content, &mut spot);
            match &fields {
                Ok(fields) => sample.push(fields.clone()),
                Err(error) if is_now && !self.skip => return Err(bad_row(error.clone(), &spot.place, false)),
                Err(_) => {}
            }
            lines.push((spot, fields.map(Content::Row), is_now));
        }
        if let (false, Some(first)) = (sample.is_empty(), first) {
            let found = self.preparer.format(&sample).map_err(|error| error.at(first))?;
            self.format = Some((source, Arc::new(found)));
        }
        Ok(lines)
    }

    /// Note the format of the source that is read now.
    fn tell(&self, read: &mut Read) {
        let Some((_, format)) = &self.format else {
            return;
        };
        let name = format.name();
        if !read.format.split(", ").any(|known| known == name) {
            read.format = if read.format.is_empty() { name } else { format!("{}, {name}", read.format) };
        }
        for column in format.unused() {
            if !read.unused.contains(column) {
                read.unused.push(column.clone());
            }
        }
    }
}

impl<T, W> Job<'_, W>
where
    W: Fn(&Row<'_>) -> Result<T> + Sync,
{
    /// `all` takes every line to `each`, here or on many threads.
    fn run(self, all: impl FnOnce(Vec<Line>, &Each<'_, T>) -> Vec<(Spot, Result<T>)>) -> Made<T> {
        let rows = self.lines.last().map_or(0, |(spot, ..)| spot.id + 1);
        let (format, encoder, work) = (self.format.as_deref(), self.encoder, self.work);
        let each = |(mut spot, content, is_now): Line| {
            is_now.then(|| {
                let made = parsed(content, &mut spot).and_then(|fields| {
                    let format = format.ok_or_else(|| Error::data("no row tells the format"))?;
                    let new = format.unused_in(&fields).filter(|name| !format.unused().iter().any(|old| old == name));
                    spot.unused = new.map(str::to_owned).collect();
                    work(&Row { encoder, format, fields: &fields })
                });
                (spot, made)
            })
        };
        Made { rows, of: all(self.lines, &each) }
    }
}

/// A line as a row, whose start is left in the spot.
fn parsed(content: Result<Content>, spot: &mut Spot) -> Result<Map<String, Value>> {
    let fields = match content? {
        Content::Row(fields) => fields,
        Content::Cell(cell) => cell.lenient()?,
        Content::Json(bytes) => {
            spot.head = Some(start_of(&bytes));
            return json::parse(&bytes);
        }
    };
    if spot.head.is_none() {
        let mut head = Head(Vec::with_capacity(HEAD));
        // It fails when the start is full.
        let _ = serde_json::to_writer(&mut head, &json::Exact::fields(&fields));
        spot.head = Some(start_of(&head.0));
    }
    Ok(fields)
}

fn start_of(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(HEAD)];
    match std::str::from_utf8(start) {
        // The cut goes through a character.
        Err(error) if error.error_len().is_none() => {
            String::from_utf8_lossy(&start[..error.valid_up_to()]).into_owned()
        }
        _ => String::from_utf8_lossy(start).into_owned(),
    }
}

/// The first bytes of what is written.
struct Head(Vec<u8>);

impl std::io::Write for Head {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() >= HEAD {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        let room = bytes.len().min(HEAD - self.0.len());
        self.0.extend_from_slice(&bytes[..room]);
        Ok(room)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Row errors keep their own place (`messages[1]`) in the cause, since the file and line matter more.
pub(crate) fn bad_row(mut error: Error, place: &str, skips: bool) -> Error {
    if let Some(inner) = error.location.replace(place.to_owned())
        && inner != place
    {
        error.what = format!("{inner}: {}", error.what);
    }
    const OTHERWISE: &str = "mend the row, or set on_bad_row to skip; `alignite preview` shows all such rows";
    let otherwise = if skips { "mend the row; `alignite preview` shows all such rows" } else { OTHERWISE };
    if matches!(error.kind, Kind::Data) && !is_fatal(&error) {
        error.fix = Some(match error.fix {
            Some(fix) => format!("{fix}; {otherwise}"),
            None => otherwise.into(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_some_a_core_at_most() {
        let cores = threads(0);
        assert!(cores >= 1);
        assert_eq!((threads(1), threads(5000)), (1, 4 * cores));
    }
}
