//! The pass over the rows that makes a set.

use super::staging::{Progress, QUARANTINE_FILE, Staging};
use super::writer::{Block, Writer};
use super::{Count, PACKING_WINDOW, Preparer, Report, Tick};
use crate::encode::{Encoded, Left, Outcome};
use crate::error::{Error, Kind, Result};
use crate::formats::Format;
use crate::prepared::block::Item;
use crate::rows::{Selection, Spot, bad_row, each_row, names, reason_of};
use crate::source::Source;
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, Write};
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

/// Blocks that wait to be written while the next is encoded.
const WAITING: usize = 1;

impl Preparer {
    /// Make the blocks that `begun` does not hold, into the staging folder.
    pub(super) fn run(
        &self,
        sources: &[Source],
        staging: &Staging,
        begun: Progress,
        base: &str,
        fingerprint: &str,
        tick: &mut Tick<'_>,
    ) -> Result<Report> {
        let shard = self.options.shard;
        let first = begun.next_block;
        let block_of = |ordinal: u64| ordinal / PACKING_WINDOW as u64;
        let is_now = move |ordinal: u64| {
            let block = block_of(ordinal);
            block >= first && shard.is_none_or(|(number, of)| block % of == number)
        };
        let everything = first == 0 && shard.is_none();
        let selection = Selection { copies: None, now: (!everything).then(|| Box::new(is_now) as _) };
        let skip = self.options.on_bad_row == "skip";
        let writer = Writer::new(staging, self.packing, fingerprint, &begun);
        let quarantine = Quarantine::open(staging.folder.join(QUARANTINE_FILE))?;
        std::thread::scope(|scope| {
            let out = if self.threads() > 1 { Out::beside(scope, writer) } else { Out::Here(Box::new(writer)) };
            let begun_tokens = begun.report.tokens;
            let offset = (begun.rows_before, u32::try_from(begun.report.sources.len()).unwrap_or(u32::MAX));
            let mut work = Work { report: begun.report, block: first, items: Vec::new(), quarantine, offset, tokens: 0, out };
            // What the sink counts is told to the caller on the way.
            let tokens = Cell::new(begun_tokens);
            let read = each_row(
                self,
                sources,
                &selection,
                skip,
                &mut |rows| tick(rows, tokens.get()),
                |row| self.outcomes(row.format, row.fields),
                |spot, outcomes| {
                    work.take(&spot, outcomes, block_of(spot.ordinal))?;
                    tokens.set(begun_tokens + work.tokens);
                    Ok(())
                },
            );
            let (mut report, out) = match read {
                Ok(read) => {
                    let (mut report, out) = work.end()?;
                    report.add(&Report { format: read.format, unused_columns: read.unused, ..Report::default() });
                    (report, out)
                }
                Err(error) => {
                    // The writer's error, when there is one, is why the rows stopped.
                    return Err(work.out.finish(&mut Report::default()).err().unwrap_or(error));
                }
            };
            out.finish(&mut report)?;
            report.sources.extend(sources.iter().map(Source::name));
            report.identity = format!("{:032x}", self.identity);
            (report.base, report.fingerprint, report.shard) = (base.to_owned(), fingerprint.to_owned(), shard);
            if report.used == 0 && shard.is_none() {
                return Err(nothing_left(&report, sources));
            }
            Ok(report)
        })
    }

    /// What becomes of a row: of each of its records.
    pub(crate) fn outcomes(&self, format: &Format, fields: &Map<String, Value>) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(1);
        for record in format.read(fields)? {
            outcomes.append(&mut self.encoder.record(&record)?);
        }
        Ok(outcomes)
    }
}

fn nothing_left(report: &Report, sources: &[Source]) -> Error {
    let shown = |(reason, rows): (&String, &Count)| {
        let first = rows.examples.first().map(|place| format!(" (first: {place})")).unwrap_or_default();
        format!("{} rows: {reason}{first}", rows.count)
    };
    let reasons: Vec<String> = report.dropped.iter().map(shown).collect();
    Error::data("no row is left to train on")
        .at(names(sources))
        .because(reasons.join("; "))
        .fix("give rows with something that an assistant says, and a max_length that holds it")
}

struct Work<'scope> {
    report: Report,
    block: u64,
    items: Vec<Item>,
    quarantine: Quarantine,
    /// Rows and sources of the set that this is appended to.
    offset: (u64, u32),
    /// Tokens of what was encoded.
    tokens: u64,
    out: Out<'scope>,
}

impl<'scope> Work<'scope> {
    fn take(&mut self, spot: &Spot, outcomes: Result<Vec<Outcome>>, block: u64) -> Result<()> {
        if block != self.block {
            self.close_block()?;
            self.block = block;
        }
        self.report.rows += 1;
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes,
            Err(error) => {
                self.report.bad += 1;
                return self.left_out(spot, reason_of(&error), true);
            }
        };
        let row = spot.id + self.offset.0;
        let position = (spot.position.0 + self.offset.1, spot.position.1);
        let (mut used, mut control_text, mut reason) = (false, false, None);
        for outcome in outcomes {
            match outcome {
                Outcome::Used(Encoded { sample, cut, control_text: has_control }) => {
                    (used, control_text) = (true, control_text || has_control);
                    for _ in 0..spot.copies {
                        self.report.record(&spot.place, cut);
                        self.tokens += sample.len() as u64;
                        self.items.push(Item { row, position, sample: sample.clone() });
                    }
                }
                Outcome::Dropped(Left(why)) => {
                    reason.get_or_insert(why);
                }
            }
        }
        match (used, reason) {
            (false, reason) => return self.left_out(spot, reason.unwrap_or("the row holds no record").into(), false),
            (true, Some(reason)) => {
                self.report.dropped_records.entry(reason.into()).or_default().add(&spot.place);
            }
            (true, None) => {}
        }
        self.report.used(&spot.place, control_text);
        Ok(())
    }

    fn left_out(&mut self, spot: &Spot, reason: String, is_bad: bool) -> Result<()> {
        self.quarantine.write(spot, &reason, is_bad)?;
        self.report.dropped(&spot.place, reason);
        Ok(())
    }

    fn close_block(&mut self) -> Result<()> {
        let quarantine = self.quarantine.flush()?;
        let items = std::mem::take(&mut self.items);
        self.out.write(Block { number: self.block, items, rows: self.report.clone(), quarantine })
    }

    fn end(mut self) -> Result<(Report, Out<'scope>)> {
        self.close_block()?;
        Ok((self.report, self.out))
    }
}

/// Where blocks go: to the writer, or to its thread.
enum Out<'scope> {
    Here(Box<Writer<'scope>>),
    Beside(SyncSender<Block>, ScopedJoinHandle<'scope, Result<Writer<'scope>>>),
    /// The writer's thread has failed; its error waits.
    Gone,
}

impl<'scope> Out<'scope> {
    fn beside<'env>(scope: &'scope Scope<'scope, 'env>, mut writer: Writer<'scope>) -> Self {
        let (send, receive) = sync_channel::<Block>(WAITING);
        let work = move || {
            for block in receive {
                writer.write(block)?;
            }
            Ok(writer)
        };
        Self::Beside(send, scope.spawn(work))
    }

    fn write(&mut self, block: Block) -> Result<()> {
        match self {
            Self::Here(writer) => writer.write(block),
            Self::Beside(send, _) if send.send(block).is_ok() => Ok(()),
            // Finishing tells what the writer died of.
            Self::Beside(..) => Err(std::mem::replace(self, Self::Gone).finish(&mut Report::default()).err().unwrap_or_else(gone)),
            Self::Gone => Err(gone()),
        }
    }

    fn finish(self, report: &mut Report) -> Result<()> {
        match self {
            Self::Here(writer) => writer.finish(report),
            Self::Beside(send, thread) => {
                drop(send);
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?.finish(report)
            }
            Self::Gone => Ok(()),
        }
    }
}

fn gone() -> Error {
    Error::new(Kind::Resource, "the writer of the prepared set has stopped")
}

/// Rows that were left out, one a line: where, why, and for a bad row the start of its line.
struct Quarantine {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Quarantine {
    fn open(path: PathBuf) -> Result<Self> {
        let mut quarantine = Self { path, file: None };
        if quarantine.path.exists() {
            quarantine.begin()?;
        }
        Ok(quarantine)
    }

    fn fail(&self, error: &std::io::Error) -> Error {
        Error::io("cannot write the rows that are left out", &self.path, error)
    }

    fn begin(&mut self) -> Result<&mut BufWriter<File>> {
        let opened = OpenOptions::new().create(true).append(true).open(&self.path);
        let file = opened.map_err(|e| self.fail(&e))?;
        Ok(self.file.insert(BufWriter::new(file)))
    }

    fn write(&mut self, spot: &Spot, reason: &str, is_bad: bool) -> Result<()> {
        let mut line = json!({"where": spot.place, "reason": reason, "bad": is_bad});
        if let (Some(head), Some(fields)) = (&spot.head, line.as_object_mut()) {
            fields.insert("row".into(), head.as_str().into());
        }
        if self.file.is_none() {
            self.begin()?;
        }
        let written = self.file.as_mut().map_or(Ok(()), |file| writeln!(file, "{line}"));
        written.map_err(|e| self.fail(&e))
    }

    /// Bytes that are in the file now.
    fn flush(&mut self) -> Result<u64> {
        let length = match &mut self.file {
            Some(file) => file.flush().and_then(|()| file.stream_position()),
            None => Ok(0),
        };
        length.map_err(|e| self.fail(&e))
    }
}
