//! A task's instances: rows, templates, styles, demonstrations.

use super::few_shot::{self, Count};
use super::flan::Look;
use super::{Draws, Made, Pair, TemplateSet};
use crate::conversation::Message;
use crate::error::{Error, Kind, Result};
use crate::order::Permutation;
use crate::record::{Context, Conversation, Record, Text};
use crate::source::{Content, Line, MAX_ROW_BYTES, Source, is_fatal};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Zero-shot or few-shot, options shown or not.
pub const STYLES: [&str; 4] = ["zs_opt", "fs_opt", "zs_noopt", "fs_noopt"];

const CHUNK: usize = 256;

/// How instances are made.
#[derive(Debug, Clone, Deserialize)]
pub struct Options {
    /// Weights of [`STYLES`].
    pub styles: [f64; 4],
    /// `(A)` instead of `-` before options.
    pub letters: bool,
    /// Templates that each row is put into, drawn; 0 means all of them.
    pub templates_per_row: usize,
    /// Demonstrations, for the few-shot styles.
    pub few_shot: Option<FewShot>,
    /// Count bad rows instead of stopping at them.
    pub skip: bool,
    /// Stop after this many instances.
    pub max_examples: Option<u64>,
    /// Threads; 0 means all cores.
    pub num_threads: usize,
}

/// Which demonstrations stand before a question.
#[derive(Debug, Clone, Deserialize)]
pub struct FewShot {
    /// The fewest and the most of them, drawn evenly.
    pub k: (usize, usize),
    /// Tokens that the prompt may have.
    pub max_tokens: usize,
    /// Whether they are in the question's template, or each in one of its own.
    pub same_template: bool,
    /// Rows that they are drawn from: all, or a sample of this size where there are more.
    pub pool: usize,
    /// Whether their answers are learned too: instances are messages then.
    pub all_targets: bool,
}

/// One instance.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The demonstrations, apart.
    pub exemplars: Vec<Pair>,
    /// The question with all that stands before it, and its answer.
    pub pair: Pair,
    /// The bare question.
    pub question: String,
    /// The template: its position in the set.
    pub template: usize,
    /// One of [`STYLES`].
    pub style: &'static str,
    /// Demonstrations in the prompt.
    pub shots: usize,
    /// Whether options are shown.
    pub options: bool,
    /// The row, counted from 0 over all sources.
    pub row: u64,
}

/// What became of the rows.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Rows that were read.
    pub rows: u64,
    /// Instances that were made.
    pub instances: u64,
    /// Instances by the template's name.
    pub templates: BTreeMap<String, u64>,
    /// Instances by style.
    pub styles: BTreeMap<&'static str, u64>,
    /// What was not made, by reason.
    pub dropped: BTreeMap<String, u64>,
}

enum Outcome {
    Made(Box<Instance>),
    Dropped(&'static str),
}

/// A row that demonstrations are made of.
struct Shown {
    number: u64,
    row: Map<String, Value>,
}

/// A task: its templates and how they are used.
pub struct TaskSource<'a> {
    set: &'a TemplateSet,
    options: &'a Options,
    count: &'a Count<'a>,
    seed: u64,
}

impl<'a> TaskSource<'a> {
    /// Check that templates and options go together.
    ///
    /// # Errors
    /// Weights that are no weights, few-shot styles without demonstrations, or a range of shots that has none.
    pub fn new(set: &'a TemplateSet, options: &'a Options, count: &'a Count<'a>, seed: u64) -> Result<Self> {
        let usage = |what: &str, fix: &str| Err(Error::new(Kind::Usage, what).fix(fix));
        if options.styles.iter().any(|weight| !weight.is_finite() || *weight < 0.0)
            || options.styles.iter().sum::<f64>() <= 0.0
        {
            return usage("the styles' weights are not weights", "give numbers of at least 0, one of them above 0");
        }
        match &options.few_shot {
            None if options.styles[1] + options.styles[3] > 0.0 => {
                usage("there are few-shot styles and no few_shot", "give few_shot, or zs_ styles only")
            }
            Some(few) if few.k.0 == 0 || few.k.0 > few.k.1 || few.k.1 > 1000 => {
                usage("few_shot's k is no range", "give (least, most), from 1 to 1000")
            }
            _ => Ok(Self { set, options, count, seed }),
        }
    }

    /// Make the instances of all rows and hand them to `sink`, in the order of the rows; it says whether to go on.
    ///
    /// # Errors
    /// A source cannot be read, the sink fails, or, unless rows are skipped, a row is bad or a template fails on one.
    pub fn each(&self, sources: &[Source], mut sink: impl FnMut(Vec<Instance>) -> Result<bool>) -> Result<Report> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(crate::rows::threads(self.options.num_threads))
            .build()
            .map_err(|e| Error::new(Kind::Resource, "cannot start worker threads").because(e))?;
        let pool = self.pool(sources)?;
        let mut report = Report::default();
        let mut chunk: Vec<(u64, Line)> = Vec::with_capacity(CHUNK);
        for source in sources {
            for line in source.lines(MAX_ROW_BYTES)? {
                chunk.push((report.rows, line));
                report.rows += 1;
                if chunk.len() == CHUNK && !self.flush(&threads, &mut chunk, &pool, &mut report, &mut sink)? {
                    return Ok(report);
                }
            }
        }
        self.flush(&threads, &mut chunk, &pool, &mut report, &mut sink)?;
        if report.rows == 0 {
            return Err(Error::data("the data is empty").fix("give a file with one JSON object a line"));
        }
        Ok(report)
    }

    fn flush(
        &self,
        threads: &rayon::ThreadPool,
        chunk: &mut Vec<(u64, Line)>,
        pool: &[Shown],
        report: &mut Report,
        sink: &mut impl FnMut(Vec<Instance>) -> Result<bool>,
    ) -> Result<bool> {
        let work = |(number, line): (u64, Line)| {
            let row = line.content.and_then(Content::row);
            let damaged = row.as_ref().is_err_and(is_fatal);
            let made = row.and_then(|row| self.row(number, &row, pool));
            (number, damaged, made.map_err(|error| at(error, &line.location)))
        };
        let done: Vec<_> = threads.install(|| chunk.par_drain(..).map(work).collect());
        let mut instances = Vec::new();
        for (number, damaged, outcomes) in done {
            let outcomes = match outcomes {
                Ok(outcomes) => outcomes,
                Err(error) if damaged || !self.options.skip => return Err(error),
                Err(error) => {
                    *report.dropped.entry(error.what).or_default() += 1;
                    continue;
                }
            };
            for outcome in outcomes {
                if self.options.max_examples.is_some_and(|most| report.instances >= most) {
                    report.rows = number;
                    sink(instances)?;
                    return Ok(false);
                }
                match outcome {
                    Outcome::Dropped(reason) => *report.dropped.entry(reason.into()).or_default() += 1,
                    Outcome::Made(instance) => {
                        report.instances += 1;
                        let name = &self.set.templates[instance.template].name;
                        *report.templates.entry(name.clone()).or_default() += 1;
                        *report.styles.entry(instance.style).or_default() += 1;
                        instances.push(*instance);
                    }
                }
            }
        }
        sink(instances)
    }

    /// The rows that demonstrations are drawn from; bad ones are found when their turn comes.
    fn pool(&self, sources: &[Source]) -> Result<Vec<Shown>> {
        let mut pool = Vec::new();
        let Some(few) = &self.options.few_shot else { return Ok(pool) };
        if self.options.styles[1] + self.options.styles[3] == 0.0
            || self.set.templates.iter().all(|template| template.natural().is_some())
        {
            return Ok(pool);
        }
        let draws = Draws::new(self.seed, 0, "pool");
        let (mut number, mut usable) = (0, 0);
        for source in sources {
            for line in source.lines(MAX_ROW_BYTES)? {
                if let Ok(row) = line.content.and_then(Content::row) {
                    usable += 1;
                    if pool.len() < few.pool {
                        pool.push(Shown { number, row });
                    } else if let Some(place) = pool.get_mut(draws.below(usable)) {
                        *place = Shown { number, row };
                    }
                }
                number += 1;
            }
        }
        Ok(pool)
    }

    fn row(&self, number: u64, row: &Map<String, Value>, pool: &[Shown]) -> Result<Vec<Outcome>> {
        let draws = Draws::new(self.seed, number, "row");
        let all: Vec<usize> = (0..self.set.templates.len()).collect();
        if self.options.templates_per_row == 0 {
            return all.iter().map(|template| self.instance(number, row, &[*template], pool, &draws)).collect();
        }
        let mut left = all;
        let mut outcomes = Vec::new();
        for _ in 0..self.options.templates_per_row.min(left.len()) {
            let outcome = self.instance(number, row, &left, pool, &draws)?;
            if let Outcome::Made(instance) = &outcome {
                left.retain(|&template| template != instance.template);
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    fn instance(
        &self,
        number: u64,
        row: &Map<String, Value>,
        allowed: &[usize],
        pool: &[Shown],
        draws: &Draws,
    ) -> Result<Outcome> {
        let (shots, mut options) = self.style(draws);
        let able = |options| -> Vec<usize> {
            allowed.iter().copied().filter(|&template| self.set.templates[template].can(options)).collect()
        };
        let mut candidates = able(options);
        if candidates.is_empty() {
            options = !options;
            candidates = able(options);
        }
        let index = candidates[draws.below(candidates.len())];
        let template = &self.set.templates[index];
        let style = STYLES[usize::from(shots) + if options { 0 } else { 2 }];
        let look = Look { options, letters: self.options.letters };
        let pair = match template.apply(row, number, self.seed, look)? {
            Made::Pair(pair) => pair,
            Made::Dropped(reason) => return Ok(Outcome::Dropped(reason)),
        };
        let few = self.options.few_shot.as_ref().filter(|_| shots);
        let wanted = few.map_or(0, |few| few.k.0 + draws.below(few.k.1 - few.k.0 + 1));
        let max_tokens = few.map_or(0, |few| few.max_tokens);
        let (exemplars, prompt, given) = if let Some(task) = template.natural() {
            let mut given = wanted.min(task.usable(&pair.prompt));
            while given > 0 && (self.count)(&task.prompt(&pair.prompt, given))? > max_tokens {
                given -= 1;
            }
            (Vec::new(), task.prompt(&pair.prompt, given), given)
        } else if let Some(few) = few {
            let drawn = self.exemplars(few, wanted, (number, row), (index, look), pool, &pair, draws)?;
            if drawn.is_empty() {
                return Ok(Outcome::Dropped("there is no other row to show"));
            }
            let given = few_shot::fitting(&drawn, &pair.prompt, max_tokens, self.count)?;
            let prompt = few_shot::text(&drawn[..given], &pair.prompt);
            (drawn[..given].to_vec(), prompt, given)
        } else {
            (Vec::new(), pair.prompt.clone(), 0)
        };
        if shots && given == 0 {
            return Ok(Outcome::Dropped("no exemplar fits into the token budget"));
        }
        Ok(Outcome::Made(Box::new(Instance {
            exemplars,
            question: pair.prompt,
            pair: Pair { prompt, target: pair.target },
            template: index,
            style,
            shots: given,
            options,
            row: number,
        })))
    }

    /// Whether few-shot, and whether with options.
    fn style(&self, draws: &Draws) -> (bool, bool) {
        let weights = &self.options.styles;
        let mut left = draws.unit() * weights.iter().sum::<f64>();
        let mut chosen = 0;
        for (index, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            chosen = index;
            if left < *weight {
                break;
            }
            left -= weight;
        }
        (chosen % 2 == 1, chosen < 2)
    }

    /// Demonstrations, in drawn order: never the question's row, nor one that says the same.
    #[allow(clippy::too_many_arguments)]
    fn exemplars(
        &self,
        few: &FewShot,
        wanted: usize,
        (number, row): (u64, &Map<String, Value>),
        (index, look): (usize, Look),
        pool: &[Shown],
        question: &Pair,
        draws: &Draws,
    ) -> Result<Vec<Pair>> {
        let mut found = Vec::with_capacity(wanted);
        let able: Vec<usize> =
            (0..self.set.templates.len()).filter(|&at| self.set.templates[at].can(look.options)).collect();
        let order = Permutation::new(pool.len() as u64, draws.bits(), 0);
        // Rows that cannot be shown cost a try; a pool full of them must not cost all of it for every question.
        let tries = pool.len().min(wanted * 16 + 64);
        for position in 0..tries as u64 {
            if found.len() == wanted {
                break;
            }
            let shown = &pool[usize::try_from(order.get(position)).unwrap_or(0)];
            if shown.number == number || shown.row == *row {
                continue;
            }
            let at = if few.same_template { index } else { able[draws.below(able.len())] };
            match self.set.templates[at].apply(&shown.row, shown.number, self.seed, look) {
                Ok(Made::Pair(pair)) if pair.prompt != question.prompt => found.push(pair),
                Err(error) if !self.options.skip => return Err(error),
                _ => {}
            }
        }
        Ok(found)
    }

    /// An instance as a row that a data set is prepared from: prompt and completion, or messages when the
    /// demonstrations' answers are learned too; and where it comes from.
    #[must_use]
    pub fn to_row(&self, instance: &Instance) -> Value {
        let template = &self.set.templates[instance.template];
        let mut row = Map::new();
        if self.options.few_shot.as_ref().is_some_and(|few| few.all_targets) {
            let turns = Self::turns(instance);
            let turns = turns.map(|(role, content)| json!({"role": role, "content": content}));
            row.insert("messages".into(), turns.collect());
        } else {
            row.insert("prompt".into(), instance.pair.prompt.as_str().into());
            row.insert("completion".into(), instance.pair.target.as_str().into());
        }
        row.insert("task".into(), self.set.task.as_str().into());
        row.insert("template_id".into(), template.id.as_str().into());
        row.insert("style".into(), instance.style.into());
        row.insert("shots".into(), instance.shots.into());
        row.insert("options".into(), instance.options.into());
        row.insert("row".into(), instance.row.into());
        Value::Object(row)
    }

    /// The same as a record; `chat` tells whether a chat template follows.
    #[must_use]
    pub fn to_record(&self, instance: &Instance, chat: bool) -> Record {
        if self.options.few_shot.as_ref().is_some_and(|few| few.all_targets) {
            let messages = Self::turns(instance).map(|(role, content)| Message::text(role, content)).collect();
            return Record::Conversation(Conversation { messages, context: Context::default() });
        }
        let Pair { prompt, target } = instance.pair.clone();
        if !chat {
            return Record::Text(Text { prompt, completion: target });
        }
        let messages = vec![Message::text("user", &prompt), Message::text("assistant", &target)];
        Record::Conversation(Conversation { messages, context: Context::default() })
    }

    fn turns(instance: &Instance) -> impl Iterator<Item = (&'static str, &str)> {
        // A task file's examples are part of its prompt, with no turns of their own.
        let question = if instance.exemplars.is_empty() { &instance.pair.prompt } else { &instance.question };
        let exemplars = instance
            .exemplars
            .iter()
            .flat_map(|pair| [("user", pair.prompt.as_str()), ("assistant", pair.target.as_str())]);
        exemplars.chain([("user", question.as_str()), ("assistant", instance.pair.target.as_str())])
    }
}

/// The line matters more than the template, which stays in the cause.
fn at(mut error: Error, place: &str) -> Error {
    if let Some(inner) = error.location.replace(place.to_owned())
        && inner != place
    {
        error.why = Some(error.why.map_or_else(|| inner.clone(), |why| format!("{inner}: {why}")));
    }
    error
}

#[cfg(test)]
mod tests;
