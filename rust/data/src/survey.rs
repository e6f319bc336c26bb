//! What preparing would make of the data, without making it: counts, lengths, duplicates, and some rows in full.

mod shown;

pub use shown::{Piece, Shown, Turn};

use crate::encode::{Cut, Encoded, Encoder, IGNORE, Kept, Left, Outcome, Whole};
use crate::error::{Error, Kind, Result};
use crate::prepare::{Count, PACKING_WINDOW, Preparer, Report, SPLIT, Tick, how};
use crate::prepared::block::{Item, held};
use crate::record::Record;
use crate::rows::{Row, Spot, each_row, names, reason_of};
use crate::sample::Sample;
use crate::source::Source;
use serde::Serialize;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Rows that are shown beside the first ones, one for each thing that may happen to a row.
const EXAMPLES: usize = 8;
/// Pairs of places that are kept of duplicates.
const PAIRS: usize = 5;

/// Which rows are shown in full.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The first so many that are trained on, unless some are asked for.
    pub first: usize,
    /// Rows by number, counted from 0 over all files, or by `file:line`.
    pub asked: Vec<String>,
}

/// What a pass over the data saw.
#[derive(Debug, Default, Serialize)]
pub struct Survey {
    /// What preparing would report, less what only a written set has.
    pub report: Report,
    /// Rows among the dropped that preparing stops at, unless `on_bad_row` is "skip".
    pub bad: Count,
    /// Tokens of each row that could be tokenized, before it is cut.
    pub tokens: Spread,
    /// Scored tokens of the same rows.
    pub scored_tokens: Spread,
    /// Tokens of the rows that are trained on, before they are cut.
    pub uncut_tokens: u64,
    /// Rows that are trained on and have the very tokens of an earlier one.
    pub duplicates: Duplicates,
    /// Control tokens whose text stands in what rows say, and in how many rows that are trained on.
    pub control_tokens: BTreeMap<String, u64>,
    /// The rows that were wanted.
    pub rows: Vec<Shown>,
    /// A row for each thing that happened to rows and is not among `rows`.
    pub examples: Vec<Shown>,
}

/// How a number is spread over rows. Percentiles are nearest-rank: a number that some row has, and that so many
/// percent of the rows do not exceed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// How many rows.
    pub rows: u64,
    /// The sum.
    pub total: u64,
    /// The smallest.
    pub min: u64,
    /// Half of the rows have no more.
    pub p50: u64,
    /// 90 percent have no more.
    pub p90: u64,
    /// 95 percent have no more.
    pub p95: u64,
    /// 99 percent have no more.
    pub p99: u64,
    /// The largest.
    pub max: u64,
}

/// Rows that say again what an earlier row said.
#[derive(Debug, Default, Serialize)]
pub struct Duplicates {
    /// Rows.
    pub count: u64,
    /// The first few, each with the earlier row's place.
    pub examples: Vec<(String, String)>,
}

/// How often each number stood; exact, and as long as there are different numbers.
#[derive(Default)]
struct Histogram(BTreeMap<u64, u64>);

impl Histogram {
    fn add(&mut self, value: usize) {
        *self.0.entry(value as u64).or_default() += 1;
    }

    fn spread(&self) -> Spread {
        let rows: u64 = self.0.values().sum();
        let at = |percent: u64| {
            let rank = (u128::from(rows) * u128::from(percent)).div_ceil(100).max(1);
            let mut seen = 0;
            let reached = |&(_, &count): &(&u64, &u64)| {
                seen += u128::from(count);
                seen >= rank
            };
            self.0.iter().find(reached).map_or(0, |(&value, _)| value)
        };
        let total = self.0.iter().map(|(value, count)| value * count).sum();
        Spread { rows, total, min: at(0), p50: at(50), p90: at(90), p95: at(95), p99: at(99), max: at(100) }
    }
}

/// A record as a worker leaves it.
enum Looked {
    Tokens { whole: Box<Whole>, fate: Kept<(usize, Cut)>, hash: u128, control: BTreeSet<String>, sample: Sample },
    Feedback { record: Box<Record>, outcomes: Vec<Outcome> },
    Left { reason: &'static str, head: String },
}

fn look(row: &Row<'_>) -> Result<Vec<Looked>> {
    let encoder = row.encoder;
    let mut all = Vec::with_capacity(1);
    for record in row.format.read(row.fields)? {
        all.push(match record {
            Record::Conversation(_) | Record::Text(_) => match encoder.whole(&record)? {
                Ok(whole) => look_at(encoder, whole),
                Err(Left(reason)) => Looked::Left { reason, head: shown::head(row.fields) },
            },
            feedback => Looked::Feedback { outcomes: encoder.record(&feedback)?, record: Box::new(feedback) },
        });
    }
    Ok(all)
}

fn look_at(encoder: &Encoder, whole: Whole) -> Looked {
    let fate = encoder.cut(&whole);
    let control = match fate {
        Ok(_) if whole.control_text => {
            encoder.control_texts(&whole).into_iter().map(|(_, token)| token.to_owned()).collect()
        }
        _ => BTreeSet::new(),
    };
    let kept = fate.map_or(0, |(kept, _)| kept);
    let ids = whole.tokens.ids[..kept].iter().map(|id| id.cast_signed()).collect();
    let sample = Sample::whole(ids, whole.labels[..kept].to_vec());
    Looked::Tokens { hash: hash(whole.tokens.ids.iter().copied()), whole: Box::new(whole), fate, control, sample }
}

fn place_of(sources: &[Source], (source, line): (u32, u64)) -> String {
    let name = sources.get(source as usize).map(Source::name).unwrap_or_default();
    format!("{name}:{line}")
}

fn hash(ids: impl Iterator<Item = u32>) -> u128 {
    let bytes: Vec<u8> = ids.flat_map(u32::to_le_bytes).collect();
    xxhash_rust::xxh3::xxh3_128(&bytes)
}

enum Asked {
    Row(u64),
    Place(String),
}

impl Asked {
    fn is(&self, spot: &Spot) -> bool {
        match self {
            Self::Row(id) => spot.id == *id,
            // The file may be named without its folder.
            Self::Place(place) => {
                let rest = spot.place.strip_suffix(place.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with(['/', '\\']))
            }
        }
    }
}

struct Work<'a> {
    preparer: &'a Preparer,
    sources: &'a [Source],
    first: usize,
    asked: Vec<(Asked, bool)>,
    survey: Survey,
    tokens: Histogram,
    scored: Histogram,
    pending: Vec<Item>,
    block: u64,
    /// By the hash of a row's tokens, where it stood first: at most some 100 bytes a row.
    seen: HashMap<u128, (u32, u64)>,
    /// What `rows` and `examples` show already.
    happened: HashSet<String>,
}

impl Preparer {
    /// Walk over all sources as [`Preparer::prepare`] does with `on_bad_row` "skip", and write nothing.
    ///
    /// `tick` is as there.
    ///
    /// # Errors
    /// A source cannot be read or is empty, no format fits its rows, or a row that is asked for does not exist.
    pub fn survey(&self, sources: &[Source], wanted: &Wanted, tick: &mut Tick<'_>) -> Result<Survey> {
        let asked = wanted.asked.iter().map(|text| {
            let row = text.parse().map_or_else(|_| Asked::Place(text.clone()), Asked::Row);
            (row, false)
        });
        let mut work = Work {
            preparer: self,
            sources,
            first: wanted.first,
            asked: asked.collect(),
            survey: Survey::default(),
            tokens: Histogram::default(),
            scored: Histogram::default(),
            pending: Vec::new(),
            block: 0,
            seen: HashMap::new(),
            happened: HashSet::new(),
        };
        let read = each_row(self, sources, &|_| true, true, &mut |rows| tick(rows, 0), look, |spot, looked| {
            work.take(&spot, looked)
        })?;
        (work.survey.report.rows, work.survey.report.format) = (read.rows, read.format);
        work.survey.report.unused(read.unused);
        work.survey.report.forget_rows();
        if let Some(missing) = work.asked.iter().position(|(_, found)| !found) {
            return Err(Error::new(Kind::Usage, format!("there is no row {}", wanted.asked[missing]))
                .at(names(sources))
                .fix(format!("rows are 0 to {}, or file:line of a line that is not blank", read.rows - 1)));
        }
        work.finish()
    }
}

impl Work<'_> {
    fn take(&mut self, spot: &Spot, looked: Result<Vec<Looked>>) -> Result<()> {
        let block = spot.id / PACKING_WINDOW as u64;
        if block != self.block {
            self.pack()?;
            self.block = block;
        }
        self.survey.report.unused(spot.unused.clone());
        let looked = match looked {
            Ok(looked) => looked,
            Err(error) => {
                let reason = reason_of(&error);
                self.survey.report.dropped(spot.id, &spot.place, reason.clone());
                self.survey.report.bad += 1;
                self.survey.bad.add(&spot.place);
                self.keep(spot, false, Some(&reason.clone()), |spot| vec![Shown::bad(spot, reason, error)]);
                return Ok(());
            }
        };
        let (mut is_used, mut control_text, mut reasons, mut notices) = (false, false, Vec::new(), BTreeSet::new());
        for looked in looked {
            let fate = match looked {
                Looked::Tokens { whole, fate, hash, control, sample } => {
                    control_text |= fate.is_ok() && whole.control_text;
                    notices.extend(whole.notices.iter().copied());
                    self.tokens(spot, &whole, fate, hash, control, sample)
                }
                Looked::Feedback { record, outcomes } => {
                    for outcome in &outcomes {
                        match outcome {
                            Outcome::Used(encoded) => notices.extend(encoded.notices.iter().copied()),
                            Outcome::Dropped(Left(why)) => reasons.push(*why),
                        }
                    }
                    is_used |= self.feedback(spot, &record, outcomes).is_ok();
                    continue;
                }
                Looked::Left { reason, head } => {
                    self.keep(spot, false, Some(reason), |spot| vec![Shown::left(spot, reason, head)]);
                    Err(Left(reason))
                }
            };
            match fate {
                Ok(()) => is_used = true,
                Err(Left(why)) => reasons.push(why),
            }
        }
        let report = &mut self.survey.report;
        if is_used {
            for reason in reasons {
                report.dropped_records.entry(reason.into()).or_default().add(&spot.place);
            }
            report.used(spot.id, &spot.place, control_text, &notices);
        } else {
            let reason = reasons.first().copied().unwrap_or("the row holds no record");
            report.dropped(spot.id, &spot.place, reason.into());
        }
        Ok(())
    }

    fn tokens(
        &mut self,
        spot: &Spot,
        whole: &Whole,
        fate: Kept<(usize, Cut)>,
        hash: u128,
        control: BTreeSet<String>,
        sample: Sample,
    ) -> Kept<()> {
        let scored = |labels: &[i32]| labels.iter().filter(|&&label| label != IGNORE).count();
        self.tokens.add(whole.tokens.len());
        self.scored.add(scored(&whole.labels));
        let what = match fate {
            Ok((_, cut)) => how(cut),
            Err(Left(reason)) => Some(reason),
        };
        let what = what.or(whole.notices.first().copied()).or((!control.is_empty()).then_some("control tokens"));
        if let Ok((_, cut)) = fate {
            self.survey.report.record(spot.id, &spot.place, cut);
            self.survey.uncut_tokens += whole.tokens.len() as u64;
            self.pending.push(Item { row: spot.id, position: spot.position, sample });
            for token in control {
                *self.survey.control_tokens.entry(token).or_default() += 1;
            }
            self.duplicate(hash, spot);
        }
        let encoder = self.preparer.encoder();
        self.keep(spot, fate.is_ok(), what, |spot| vec![Shown::tokens(spot, encoder, whole, fate)]);
        fate.map(|_| ())
    }

    fn feedback(&mut self, spot: &Spot, record: &Record, outcomes: Vec<Outcome>) -> Kept<()> {
        let (mut fate, mut what) = (Err(Left("the row holds no record")), None);
        for outcome in outcomes {
            match outcome {
                Outcome::Used(Encoded { sample, cut, notices, .. }) => {
                    self.tokens.add(sample.len());
                    self.scored.add(sample.labels.iter().filter(|&&label| label != IGNORE).count());
                    self.duplicate(hash(sample.ids.iter().map(|id| id.cast_unsigned())), spot);
                    self.survey.report.record(spot.id, &spot.place, cut);
                    self.survey.uncut_tokens += sample.len() as u64;
                    self.pending.push(Item { row: spot.id, position: spot.position, sample });
                    what = what.or(how(cut)).or(notices.first().copied());
                    fate = Ok(());
                }
                Outcome::Dropped(left) if fate.is_err() => fate = Err(left),
                Outcome::Dropped(_) => {}
            }
        }
        let encoder = self.preparer.encoder();
        let what = what.or(fate.err().map(|Left(reason)| reason));
        self.keep(spot, fate.is_ok(), what, |spot| Shown::feedback(spot, encoder, record, fate.err()));
        fate
    }

    fn duplicate(&mut self, hash: u128, spot: &Spot) {
        match self.seen.entry(hash) {
            Entry::Vacant(entry) => {
                entry.insert(spot.position);
            }
            Entry::Occupied(entry) => {
                let found = &mut self.survey.duplicates;
                found.count += 1;
                if found.examples.len() < PAIRS {
                    found.examples.push((spot.place.clone(), place_of(self.sources, *entry.get())));
                }
            }
        }
    }

    /// Keep a row when it is wanted, or the first that something happened to.
    fn keep(&mut self, spot: &Spot, is_used: bool, what: Option<&str>, make: impl FnOnce(&Spot) -> Vec<Shown>) {
        let survey = &mut self.survey;
        if !self.asked.is_empty() {
            let mut is_asked = false;
            for (asked, found) in &mut self.asked {
                if asked.is(spot) {
                    (*found, is_asked) = (true, true);
                }
            }
            if is_asked {
                survey.rows.extend(make(spot));
            }
            return;
        }
        let is_first = is_used && survey.rows.len() < self.first;
        let is_example = self.first > 0
            && survey.examples.len() < EXAMPLES
            && what.is_some_and(|what| !self.happened.contains(what));
        if is_first || is_example {
            self.happened.extend(what.map(str::to_owned));
            if is_first { &mut survey.rows } else { &mut survey.examples }.extend(make(spot));
        }
    }

    fn pack(&mut self) -> Result<()> {
        let items = std::mem::take(&mut self.pending);
        let packed = self.preparer.packing().windows(&items)?;
        let report = &mut self.survey.report;
        held(&items, &packed.windows).into_iter().for_each(|window| report.window(window));
        report.lost_labels += packed.lost_labels;
        for torn in packed.torn {
            let place = place_of(self.sources, items[torn].position);
            report.truncated.entry(SPLIT.into()).or_default().add(&place);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Survey> {
        self.pack()?;
        self.survey.report.close(self.preparer.options().max_length);
        self.survey.tokens = self.tokens.spread();
        self.survey.scored_tokens = self.scored.spread();
        Ok(self.survey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numbers_that_rows_have() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.spread(), Spread::default());
        histogram.add(7);
        let one = Spread { rows: 1, total: 7, min: 7, p50: 7, p90: 7, p95: 7, p99: 7, max: 7 };
        assert_eq!(histogram.spread(), one);
        let mut histogram = Histogram::default();
        (1..=200).rev().for_each(|value| histogram.add(value * 10));
        let many = Spread { rows: 200, total: 201_000, min: 10, p50: 1000, p90: 1800, p95: 1900, p99: 1980, max: 2000 };
        assert_eq!(histogram.spread(), many);
    }

    #[test]
    fn a_row_is_asked_for_by_number_or_place() {
        let spot =
            Spot { id: 3, place: "data/rows.jsonl:12".into(), position: (0, 12), head: None, unused: Vec::new() };
        for (asked, is) in [("data/rows.jsonl:12", true), ("rows.jsonl:12", true), ("s.jsonl:12", false), ("12", false)]
        {
            assert_eq!(Asked::Place(asked.into()).is(&spot), is, "{asked}");
        }
        assert!(Asked::Row(3).is(&spot));
        assert!(!Asked::Row(12).is(&spot));
    }
}
