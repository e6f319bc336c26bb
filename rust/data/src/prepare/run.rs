//! The pass over the rows that makes a set.

use super::left::{Places, Quarantine, REASONS, nothing_left};
use super::staging::{Progress, QUARANTINE_FILE, Staging};
use super::writer::{Block, Writer};
use super::{PACKING_WINDOW, Preparer, Report, Tick, Wanted};
use crate::clean::{Cleaner, Dropped, Look};
use crate::encode::{Encoded, Left, Outcome};
use crate::error::{Error, Kind, Result};
use crate::formats::Format;
use crate::prepared::block::Item;
use crate::record::Record;
use crate::rows::{Spot, bad_row, each_row, reason_of};
use crate::source::Source;
use serde_json::{Map, Value};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{Scope, ScopedJoinHandle};

/// Blocks that wait to be written while the next is encoded.
const WAITING: usize = 1;

impl Preparer {
    /// Make the blocks that `begun` does not hold, into the staging folder.
    pub(super) fn run(
        &self,
        sources: &[Source],
        staging: &Staging,
        mut begun: Progress,
        wanted: &Wanted,
        tick: &mut Tick<'_>,
    ) -> Result<Report> {
        let (options, first) = (&self.options, begun.next_block);
        let rows_done = first * PACKING_WINDOW as u64;
        begun.report.template_date.clone_from(&self.date);
        let outside = self.outside_count();
        let is_now = |row: u64| {
            let block = block_of(row);
            block >= first && options.shard.is_none_or(|(number, of)| block % of == number)
        };
        let skip = options.on_bad_row == "skip";
        let cleaner = self.cleaner(sources, staging, tick)?;
        let writer = Writer::new(staging, self.packing, options.part_bytes, &wanted.fingerprint, &begun, sources);
        let quarantine = Quarantine::open(staging.folder.join(QUARANTINE_FILE))?;
        std::thread::scope(|scope| {
            let out = if self.threads() > 1 { Out::beside(scope, writer) } else { Out::Here(Box::new(writer)) };
            let begun_tokens = begun.report.tokens;
            let offset = (begun.rows_before, u32::try_from(begun.report.sources.len()).unwrap_or(u32::MAX));
            let (block, part) = (first, options.part.as_deref());
            let mut work = Work {
                report: begun.report,
                block,
                items: Vec::new(),
                quarantine,
                offset,
                part,
                errors: BTreeMap::new(),
                places: Places::default(),
                sources,
                skip,
                tokens: 0,
                out,
            };
            // What the sink counts is told to the caller on the way.
            let tokens = Cell::new(begun_tokens);
            let read = each_row(
                self,
                sources,
                &is_now,
                skip,
                // Rows that were done before are only passed over.
                &mut |rows| tick(rows.max(rows_done), tokens.get()),
                |row| self.looked(row.format, row.fields, cleaner.as_ref()),
                |spot, looked| {
                    let looked = looked.and_then(|(outcomes, look)| match (&cleaner, look) {
                        (Some(cleaner), Some(look)) => {
                            Ok((outcomes, write(cleaner).verdict(spot.id, &look)?, look.held_out))
                        }
                        _ => Ok((outcomes, None, false)),
                    });
                    work.take(&spot, looked, block_of(spot.id))?;
                    tokens.set(begun_tokens + work.tokens);
                    Ok(())
                },
            );
            let errors = std::mem::take(&mut work.errors);
            let (mut report, out) = match read {
                Ok(read) => {
                    let (mut report, out) = work.end()?;
                    let mut found = Report { format: read.format, unused_columns: read.unused, ..Report::default() };
                    let names: Vec<String> =
                        (0..sources.len()).filter(|n| !read.sources.contains(n)).map(|n| sources[n].name()).collect();
                    if let Some(first) = names.first() {
                        found.say(format!("{} of {} files hold no row (first: {first})", names.len(), sources.len()));
                    }
                    report.add(&found);
                    (report, out)
                }
                Err(error) => {
                    // The writer's error, when there is one, is why the rows stopped.
                    return Err(work.out.finish(&mut Report::default()).err().unwrap_or(error));
                }
            };
            out.finish(&mut report)?;
            report.sources.extend(sources.iter().map(Source::name));
            report.source_prints.extend_from_slice(&wanted.prints);
            report.identity = self.identity();
            (report.base, report.fingerprint) = (wanted.base.clone(), wanted.fingerprint.clone());
            report.shard = options.shard;
            if options.shard.is_none() {
                report.forget_rows();
            }
            self.note(&mut report, outside);
            report.say_if_empty();
            if report.used == 0 && options.shard.is_none() && part.is_none() {
                return Err(nothing_left(&report, sources, errors));
            }
            Ok(report)
        })
    }

    /// Who tells which rows to leave out, after a first pass over the rows where one is needed.
    fn cleaner(&self, sources: &[Source], staging: &Staging, tick: &mut Tick<'_>) -> Result<Option<RwLock<Cleaner>>> {
        if self.options.clean.is_off() {
            return Ok(None);
        }
        let mut cleaner = Cleaner::new(self.options.clean.clone(), &staging.folder)?;
        if cleaner.needs_two_passes() {
            let shared = RwLock::new(cleaner);
            each_row(
                self,
                sources,
                &|_| true,
                true,
                &mut |rows| tick(rows, 0),
                |row| Ok(read(&shared).sketch(&row.format.read(row.fields)?)),
                |spot, sketch| write(&shared).observe(spot.id, sketch.ok().flatten()),
            )?;
            let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads()).build();
            let pool = pool.map_err(|e| Error::new(Kind::Resource, "cannot start worker threads").because(e))?;
            cleaner = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
            cleaner.finish_pass(&pool)?;
        }
        Ok(Some(RwLock::new(cleaner)))
    }

    /// What becomes of a row, and what the cleaner needs of one that is used.
    fn looked(
        &self,
        format: &Format,
        fields: &Map<String, Value>,
        cleaner: Option<&RwLock<Cleaner>>,
    ) -> Result<(Vec<Outcome>, Option<Look>)> {
        let Some(cleaner) = cleaner else {
            return Ok((self.outcomes(format, fields)?, None));
        };
        let records = format.read(fields)?;
        let outcomes = self.encoded(&records)?;
        let tokens = |outcome: &Outcome| match outcome {
            Outcome::Used(encoded) => Some(encoded.whole_tokens),
            Outcome::Dropped(_) => None,
        };
        let used: Vec<usize> = outcomes.iter().filter_map(tokens).collect();
        let look = (!used.is_empty()).then(|| read(cleaner).look(&records, Some(used.iter().sum())));
        Ok((outcomes, look))
    }

    /// What becomes of a row: of each of its records.
    ///
    /// # Errors
    /// The row does not fit its format, or its scored tokens cannot be told.
    pub fn outcomes(&self, format: &Format, fields: &Map<String, Value>) -> Result<Vec<Outcome>> {
        self.encoded(&format.read(fields)?)
    }

    fn encoded(&self, records: &[Record]) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(records.len());
        for record in records {
            outcomes.append(&mut self.encoder.record(record)?);
        }
        Ok(outcomes)
    }

    /// Conversations that jinja2 has rendered so far.
    pub(crate) fn outside_count(&self) -> u64 {
        self.encoder.chat().map_or(0, |chat| chat.template().outside_count())
    }

    /// What ran slower than it might, and why; `outside` is the count before the run.
    pub(crate) fn note(&self, report: &mut Report, outside: u64) {
        if let ("reference", Some(why)) = self.encoder.tokenizer().name() {
            report.say(format!("the tokenizers library made the tokens: {why}"));
        }
        if self.outside_count() > outside {
            report.say("jinja2 rendered conversations that the Rust engine does not".into());
        }
    }
}

fn block_of(row: u64) -> u64 {
    row / PACKING_WINDOW as u64
}

fn read(cleaner: &RwLock<Cleaner>) -> RwLockReadGuard<'_, Cleaner> {
    cleaner.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(cleaner: &RwLock<Cleaner>) -> RwLockWriteGuard<'_, Cleaner> {
    cleaner.write().unwrap_or_else(PoisonError::into_inner)
}

/// What became of a row: of its records, whether it is left out all the same, and whether it is held out.
type Looked = (Vec<Outcome>, Option<Dropped>, bool);

struct Work<'scope> {
    report: Report,
    block: u64,
    items: Vec<Item>,
    quarantine: Quarantine,
    /// Rows and sources of the set that this is appended to.
    offset: (u64, u32),
    /// Which part of a split is made.
    part: Option<&'scope str>,
    /// The first error of each of the first reasons.
    errors: BTreeMap<String, Error>,
    /// Where rows stand, for those that later ones are like.
    places: Places,
    sources: &'scope [Source],
    skip: bool,
    /// Tokens of what was encoded.
    tokens: u64,
    out: Out<'scope>,
}

impl<'scope> Work<'scope> {
    fn take(&mut self, spot: &Spot, looked: Result<Looked>, block: u64) -> Result<()> {
        if block != self.block {
            self.close_block()?;
            self.block = block;
        }
        self.report.rows += 1;
        let row = spot.id + self.offset.0;
        self.report.unused(spot.unused.clone());
        self.places.note(spot);
        let outcomes = match looked {
            Ok((_, Some(Dropped { reason, like, place }), _)) => {
                let like = like.and_then(|row| self.places.find(u64::from(row), self.sources)).or(place);
                let at = like.as_ref().map(|like| format!("{} (like {like})", spot.place));
                self.quarantine.write(row, spot, &reason, false, like.as_deref())?;
                self.report.dropped(row, &at.unwrap_or_else(|| spot.place.clone()), reason);
                return Ok(());
            }
            Ok((outcomes, None, held_out)) => {
                if self.part.is_some_and(|part| (part == "validation") != held_out) {
                    self.report.held_out += 1;
                    return Ok(());
                }
                outcomes
            }
            Err(error) => {
                self.report.bad += 1;
                let reason = reason_of(&error);
                if self.errors.len() < REASONS && !self.errors.contains_key(&reason) {
                    // Of a set without a row its own fix is said, and not how such rows are passed over.
                    let fix = error.fix.clone();
                    self.errors.insert(reason.clone(), Error { fix, ..bad_row(error, &spot.place, self.skip) });
                }
                return self.left_out(spot, reason, true);
            }
        };
        let position = (spot.position.0 + self.offset.1, spot.position.1);
        let (mut used, mut control_text, mut reasons, mut notices) = (false, false, Vec::new(), BTreeSet::new());
        for outcome in outcomes {
            match outcome {
                Outcome::Used(Encoded { sample, cut, control_text: has_control, notices: own, .. }) => {
                    notices.extend(own);
                    (used, control_text) = (true, control_text || has_control);
                    self.report.record(row, &spot.place, cut);
                    self.tokens += sample.len() as u64;
                    self.items.push(Item { row, position, sample });
                }
                Outcome::Dropped(Left(why)) => reasons.push(why),
            }
        }
        if !used {
            let reason = reasons.first().copied().unwrap_or("the row holds no record");
            return self.left_out(spot, reason.into(), false);
        }
        for reason in reasons {
            self.report.dropped_records.entry(reason.into()).or_default().add_row(row, &spot.place);
        }
        self.report.used(row, &spot.place, control_text, &notices);
        Ok(())
    }

    fn left_out(&mut self, spot: &Spot, reason: String, is_bad: bool) -> Result<()> {
        let row = spot.id + self.offset.0;
        self.quarantine.write(row, spot, &reason, is_bad, None)?;
        self.report.dropped(row, &spot.place, reason);
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
            Self::Beside(..) => {
                Err(std::mem::replace(self, Self::Gone).finish(&mut Report::default()).err().unwrap_or_else(gone))
            }
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
