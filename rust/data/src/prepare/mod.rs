//! From files to a prepared folder, in bounded memory, with every row accounted for.

mod append;
mod left;
mod merge;
mod options;
mod packing;
mod report;
mod run;
mod staging;
mod writer;

pub use merge::merge;
pub use options::Options;
pub(crate) use packing::Packing;
pub use report::{Count, Report};
pub(crate) use report::{SPLIT, how};
pub use staging::QUARANTINE_FILE;

use crate::chat::Chat;
use crate::clean::Dedup;
use crate::encode::Encoder;
use crate::error::{Error, Kind, Result};
use crate::formats::Format;
use crate::prepared::REPORT_FILE;
use crate::source::Source;
use crate::template::{Renderer, Template};
use serde_json::{Map, Value};
use staging::{Progress, Staging, check_appended, check_target};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Rows that make up a block, which is packed by itself.
pub(crate) const PACKING_WINDOW: usize = 10_000;
/// The version of what is written; a change of behaviour changes it, so that old sets are made anew.
const REVISION: u32 = 4;

/// Hears of the rows and tokens done, and says whether to go on.
pub type Tick<'a> = dyn FnMut(u64, u64) -> bool + 'a;

/// Turns rows into prepared sets.
pub struct Preparer {
    encoder: Encoder,
    options: Options,
    packing: Packing,
    /// Hash of everything but the sources.
    identity: u128,
    /// The date, when the template asks for it.
    date: Option<String>,
}

/// What a set is known by.
struct Wanted {
    fingerprint: String,
    /// The same without what makes shards differ.
    base: String,
    /// Hashes of the sources.
    prints: Vec<String>,
}

impl Preparer {
    /// A preparer for one model's tokenizer and template.
    ///
    /// # Errors
    /// An option is out of range, or the tokenizer or template cannot be used.
    pub fn new(
        tokenizer_json: &[u8],
        template: Option<&str>,
        special_tokens: BTreeMap<String, String>,
        options: Options,
    ) -> Result<Self> {
        Self::with_renderer(tokenizer_json, template, special_tokens, options, None, true)
    }

    /// The same, with a renderer for what the template engine fails on, or for everything unless `native`.
    ///
    /// # Errors
    /// As [`Preparer::new`].
    pub fn with_renderer(
        tokenizer_json: &[u8],
        template: Option<&str>,
        special_tokens: BTreeMap<String, String>,
        options: Options,
        renderer: Option<Arc<dyn Renderer>>,
        native: bool,
    ) -> Result<Self> {
        let packing = options.check()?;
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        let template = template.filter(|_| options.apply_chat_template);
        let (year, month, day) = options.template_date;
        let date =
            template.filter(|source| source.contains("strftime_now")).map(|_| format!("{year:04}-{month:02}-{day:02}"));
        let mut settings = options.clone();
        if date.is_none() {
            // Nobody asks for it, so the set of another day is the same.
            settings.template_date = (0, 0, 0);
        }
        let settings = serde_json::to_string(&settings).unwrap_or_default();
        let tokens = serde_json::to_string(&special_tokens).unwrap_or_default();
        let version = format!("{} {REVISION}", env!("CARGO_PKG_VERSION"));
        for part in [
            tokenizer_json,
            template.unwrap_or("").as_bytes(),
            tokens.as_bytes(),
            settings.as_bytes(),
            version.as_bytes(),
        ] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let make_chat = |control: Vec<String>| match template {
            Some(source) => {
                let template = Template::open(source, special_tokens, options.template_date, renderer, native)?;
                Ok(Some(Chat::new(template, control, options.mask.clone())))
            }
            None if options.apply_chat_template => {
                Err(Error::new(Kind::Template, "the model folder has no chat template")
                    .fix("add chat_template.jinja to it, or set apply_chat_template to false for raw text"))
            }
            None => Ok(None),
        };
        let encoder = Encoder::new(
            tokenizer_json,
            &options.tokenizer_backend,
            make_chat,
            options.eos_token.as_deref(),
            options.max_length,
            packing.splits(),
        )?
        .with_criteria(options.criteria.clone());
        Ok(Self { encoder, packing, identity: hasher.digest128(), date, options })
    }

    /// What decides how rows become windows.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Threads that work; one is the caller's own.
    pub(crate) fn threads(&self) -> usize {
        crate::rows::threads(self.options.num_threads)
    }

    /// Hash of what decides a set but the data.
    fn identity(&self) -> String {
        format!("{:032x}", self.identity)
    }

    /// How samples share windows.
    pub(crate) fn packing(&self) -> Packing {
        self.packing
    }

    /// The encoder.
    #[must_use]
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The format of rows, by the options or by their columns.
    ///
    /// # Errors
    /// No format fits, or the rows hold records of a kind that is not taken.
    pub fn format(&self, rows: &[Map<String, Value>]) -> Result<Format> {
        let options = &self.options;
        let format = match (&options.prompt_column, &options.completion_column) {
            (Some(prompt), Some(completion)) => Format::columns(rows, prompt, completion)?,
            _ => Format::choose(rows, options.format.as_deref(), &options.columns)?,
        };
        if options.kinds.is_empty() || options.kinds.iter().any(|kind| kind == format.kind()) {
            return Ok(format);
        }
        let imitates = options.kinds.iter().any(|kind| kind == "conversation");
        let fix = match format.kind() {
            "steps" => "`alignite prm` learns from rated steps; or name another format",
            _ if imitates => {
                "`alignite convert --to messages` makes conversations of the best replies; or name another format"
            }
            "unpaired" => {
                "`alignite preference --objective kto` learns from replies with labels; or name another format"
            }
            "preference" | "ranking" => {
                "`alignite dpo` and `alignite reward` learn from comparisons; or name another format"
            }
            _ => "`alignite sft` learns from conversations; or name another format",
        };
        Err(Error::data(format!("the rows hold {} data, not {}", format.kind(), options.kinds.join(" or ")))
            .because(format!("their format is {}", format.name()))
            .fix(fix))
    }

    /// Prepare sources into a folder, or take what is there when its fingerprint says it is the same.
    ///
    /// One process makes a set: others that ask for it wait. Work that was killed is gone on with. `tick` is called with
    /// the rows done after every few rows; when it says false the work stops.
    ///
    /// # Errors
    /// A source cannot be read, a row is bad and `on_bad_row` is "error", no row is left, the folder cannot be written,
    /// or it holds something that would be lost.
    pub fn prepare(&self, sources: &[Source], folder: &Path, tick: &mut Tick<'_>) -> Result<Report> {
        let wanted = self.wanted(sources)?;
        if let Some(report) = existing(folder, &wanted.fingerprint) {
            return Ok(report);
        }
        check_target(folder)?;
        let staging = Staging::lock(folder, &mut || tick(0, 0))?;
        if let Some(report) = existing(folder, &wanted.fingerprint) {
            return Ok(report);
        }
        check_appended(folder, &wanted.prints)?;
        self.make(sources, staging, &wanted, folder, &|_| Ok(None), tick)
    }

    /// Make a set, or go on with it; `start` may give another beginning than none.
    fn make(
        &self,
        sources: &[Source],
        mut staging: Staging,
        wanted: &Wanted,
        folder: &Path,
        start: &dyn Fn(&Staging) -> Result<Option<Progress>>,
        tick: &mut Tick<'_>,
    ) -> Result<Report> {
        loop {
            let mut begun = staging.begin(&wanted.fingerprint, self.resumes())?;
            if begun.next_block == 0 {
                begun = start(&staging)?.unwrap_or(begun);
            }
            let before = (begun.report.rows, begun.report.tokens);
            match self.run(sources, &staging, begun, wanted, tick) {
                Ok(mut report) => {
                    staging.publish(folder, &report)?;
                    report.work = Some((report.rows - before.0, report.tokens - before.1));
                    return Ok(report);
                }
                // Caught at a difference: the reference does all the work, from the start.
                Err(error) if error.kind == Kind::Backend => staging.wipe(),
                Err(error) => {
                    staging.keep = error.kind == Kind::Interrupted && staging.has_progress();
                    return Err(error);
                }
            }
        }
    }

    /// A hash of everything that decides what these sources would be prepared into.
    ///
    /// # Errors
    /// A source cannot be read.
    pub fn fingerprint(&self, sources: &[Source]) -> Result<String> {
        self.wanted(sources).map(|wanted| wanted.fingerprint)
    }

    /// Whether blocks that are done need not be looked at again: not where later rows are compared with earlier ones.
    fn resumes(&self) -> bool {
        self.options.clean.dedup == Dedup::None
    }

    fn wanted(&self, sources: &[Source]) -> Result<Wanted> {
        self.wanted_of(sources.iter().map(Source::fingerprint).collect::<Result<_>>()?)
    }

    /// The same, of sources with these fingerprints.
    fn wanted_of(&self, prints: Vec<u128>) -> Result<Wanted> {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(&self.identity.to_le_bytes());
        prints.iter().for_each(|print| hasher.update(&print.to_le_bytes()));
        for path in &self.options.clean.decontaminate {
            hasher.update(&Source::File(path.clone()).fingerprint()?.to_le_bytes());
        }
        let base = format!("{:032x}", hasher.digest128());
        let fingerprint = match self.options.shard {
            None => base.clone(),
            Some((number, of)) => derived(&base, &format!("shard {number} of {of}")),
        };
        Ok(Wanted { fingerprint, base, prints: prints.into_iter().map(shown).collect() })
    }
}

/// A fingerprint as reports write it.
fn shown(print: u128) -> String {
    format!("{print:032x}")
}

/// The fingerprint of something that is made of another and one more thing.
pub(crate) fn derived(base: &str, with: &str) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(format!("{base} {with}").as_bytes()))
}

fn existing(folder: &Path, fingerprint: &str) -> Option<Report> {
    let report = std::fs::read_to_string(folder.join(REPORT_FILE)).ok()?;
    let mut report: Report = serde_json::from_str(&report).ok()?;
    // Opening checks the bytes; a damaged set is made anew.
    let set = (report.fingerprint == fingerprint).then(|| crate::prepared::PreparedSet::open(folder).ok())??;
    report.reused = true;
    (set.fingerprint() == fingerprint).then_some(report)
}
