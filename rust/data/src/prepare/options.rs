//! What decides how rows become windows.

use super::Packing;
use crate::chat::MaskOptions;
use crate::clean::{CleanOptions, Dedup};
use crate::error::{Error, Kind, Result};
use crate::formats::Columns;
use crate::source::MAX_ROW_BYTES;
use serde::{Deserialize, Serialize};

/// What decides how rows become windows. Fields that do not change the result are not serialized.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The longest window in tokens.
    pub max_length: usize,
    /// How rows share a window: "none", "bfd", "bfd_split" or "wrapped".
    pub packing: String,
    /// The format of the rows; told from them without it.
    #[serde(default)]
    pub format: Option<String>,
    /// By the name that the format knows a column by, the column's own name.
    #[serde(default)]
    pub columns: Columns,
    /// Columns that hold prompt and completion, both or neither.
    pub prompt_column: Option<String>,
    /// See `prompt_column`.
    pub completion_column: Option<String>,
    /// Whether rows go through the chat template.
    pub apply_chat_template: bool,
    /// "error" or "skip".
    pub on_bad_row: String,
    /// The date that templates see, (year, month, day).
    pub template_date: (i32, u32, u32),
    /// The token that ends raw text.
    pub eos_token: Option<String>,
    /// Which parts of a turn are scored.
    #[serde(default)]
    pub mask: MaskOptions,
    /// Kinds of records that are taken; all when empty.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// The names of what replies are compared by; a record's criterion is one of them, or its place.
    #[serde(default)]
    pub criteria: Vec<String>,
    /// The longest row in bytes.
    #[serde(default = "max_row_bytes")]
    pub max_row_bytes: usize,
    /// Which rows are left out or held out.
    #[serde(default)]
    pub clean: CleanOptions,
    /// "train" leaves out the rows that `clean` holds out, "validation" all others.
    #[serde(default)]
    pub part: Option<String>,
    /// Make every `of`-th block only, counted from `number`: (number, of).
    #[serde(default, skip_serializing)]
    pub shard: Option<(u64, u64)>,
    /// Bytes after which a new file of the set is begun.
    #[serde(default = "part_bytes", skip_serializing)]
    pub part_bytes: usize,
    /// "auto", "reference" or "fast": what makes the tokens. Does not change the result.
    #[serde(default = "auto", skip_serializing)]
    pub tokenizer_backend: String,
    /// Threads; 0 means all cores. Does not change the result.
    #[serde(default, skip_serializing)]
    pub num_threads: usize,
}

/// Bytes after which a new file of a set is begun, unless the caller says otherwise.
pub(super) const PART_BYTES: usize = 512 << 20;

fn part_bytes() -> usize {
    PART_BYTES
}

fn auto() -> String {
    "auto".into()
}

fn max_row_bytes() -> usize {
    MAX_ROW_BYTES
}

impl Options {
    /// Whether the options fit each other, and how they pack.
    pub(super) fn check(&self) -> Result<Packing> {
        let usage = |what: &str| Err(Error::new(Kind::Usage, what));
        if self.max_length < 2 {
            return usage("max_length must be at least 2");
        }
        if !matches!(self.on_bad_row.as_str(), "error" | "skip") {
            return usage("on_bad_row is error or skip");
        }
        if self.prompt_column.is_some() != self.completion_column.is_some() {
            return usage("prompt_column and completion_column go together");
        }
        if self.shard.is_some_and(|(number, of)| number >= of) {
            return usage("shard is (number, of), and the number is below of");
        }
        self.clean.check()?;
        if !matches!(self.part.as_deref(), None | Some("train" | "validation")) {
            return usage("part is train or validation");
        }
        if self.clean.dedup != Dedup::None && self.shard.is_some() {
            return Err(Error::new(Kind::Usage, "a shard alone cannot tell duplicates")
                .because("which row is the first depends on the rows of other shards")
                .fix("leave out dedup or shard"));
        }
        Packing::new(&self.packing, self.max_length)
    }
}
