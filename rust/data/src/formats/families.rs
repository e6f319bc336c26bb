//! Every family: its names, its columns, and what tells it from others with the same columns.

use super::hh::is_transcript;
use super::row::Row;
use super::{chats, hh, pairs, rankings, steps};
use crate::error::Result;
use crate::record::Record;
use serde_json::Value;

/// Columns that stand for the same thing; the first that is there is read.
type Either = &'static [&'static str];

/// Data sets with the same columns.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) aliases: &'static [&'static str],
    /// What it holds, as [`Record::kind`] names it.
    pub(super) kind: &'static str,
    required: &'static [Either],
    optional: &'static [Either],
    /// Whether a row that has the columns is of this family.
    shape: fn(&Row<'_>) -> bool,
    pub(super) read: fn(&Row<'_>) -> Result<Vec<Record>>,
}

impl Family {
    /// All names that it knows columns by.
    pub(super) fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.required.iter().chain(self.optional).copied().flatten().copied()
    }

    /// Whether a row has the columns that this family cannot do without, whatever they hold.
    pub(super) fn is_possible(&self, row: &Row<'_>) -> bool {
        self.required.iter().all(|either| either.iter().any(|name| row.row.contains_key(row.column(name))))
    }

    /// Whether a row is of this family, so far as can be told without reading it.
    pub(super) fn fits(&self, row: &Row<'_>) -> bool {
        let has = |either: &Either| either.iter().any(|name| row.row.contains_key(row.column(name)));
        self.required.iter().all(has) && (self.shape)(row)
    }

    /// Whether a row is of this family, with something in each of its columns.
    pub(super) fn holds(&self, row: &Row<'_>) -> bool {
        self.required.iter().all(|either| row.any(either).is_some()) && (self.shape)(row)
    }

    /// The columns of a row that it reads.
    pub(super) fn used<'a>(&self, row: &Row<'a>) -> Vec<&'a str> {
        self.required.iter().chain(self.optional).filter_map(|either| Some(row.any(either)?.0)).collect()
    }
}

const TOOLS: Either = &["tools"];
const DOCUMENTS: Either = &["documents"];
const VARIABLES: Either = &["chat_template_kwargs"];
const CRITERION: Either = &["criterion"];
const WEIGHT: Either = &["weight"];
/// Where preference data keep what is asked.
const ASKED: Either = &["prompt", "conversations", "instruction", "question"];

/// The names of all families.
pub fn names() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.name)
}

pub(super) static PROMPT_COMPLETION: Family = Family {
    name: "prompt-completion",
    aliases: &["prompt/completion", "completion"],
    kind: "conversation",
    required: &[&["prompt"], &["completion"]],
    optional: &[TOOLS, DOCUMENTS, VARIABLES],
    shape: any,
    read: chats::prompt_completion,
};

pub(super) static FAMILIES: [&Family; 19] = [
    &Family {
        name: "messages",
        aliases: &["openai", "chat", "chatml"],
        kind: "conversation",
        required: &[&["messages"]],
        optional: &[TOOLS, DOCUMENTS, VARIABLES],
        shape: any,
        read: chats::openai,
    },
    &Family {
        name: "sharegpt",
        aliases: &["conversations", "vicuna"],
        kind: "conversation",
        required: &[&["conversations"]],
        optional: &[&["system"], TOOLS, DOCUMENTS, VARIABLES],
        shape: any,
        read: chats::sharegpt,
    },
    &PROMPT_COMPLETION,
    &Family {
        name: "alpaca",
        aliases: &[],
        kind: "conversation",
        required: &[&["instruction"], &["output"]],
        optional: &[&["input"], &["system"], &["history"]],
        shape: any,
        read: chats::alpaca,
    },
    &Family {
        name: "self-instruct",
        aliases: &[],
        kind: "conversation",
        required: &[&["instruction"], &["instances"]],
        optional: &[],
        shape: any,
        read: chats::self_instruct,
    },
    &Family {
        name: "inputs-targets",
        aliases: &["flan", "p3", "t0"],
        kind: "conversation",
        required: &[&["inputs"], &["targets"]],
        optional: &[TOOLS, DOCUMENTS, VARIABLES],
        shape: any,
        read: chats::inputs_targets,
    },
    &Family {
        name: "question-answer",
        aliases: &["gsm8k"],
        kind: "conversation",
        required: &[&["question"], &["answer"]],
        optional: &[TOOLS, DOCUMENTS, VARIABLES],
        shape: |row| is_text(row, "question") && is_text(row, "answer"),
        read: chats::question_answer,
    },
    &Family {
        name: "text",
        aliases: &[],
        kind: "text",
        required: &[&["text"]],
        optional: &[],
        shape: any,
        read: chats::plain,
    },
    &Family {
        name: "preference",
        aliases: &["dpo"],
        kind: "preference",
        required: &[&["chosen"], &["rejected"]],
        optional: &[
            ASKED,
            &["input"],
            &["system"],
            &["margin"],
            &["p"],
            CRITERION,
            WEIGHT,
            TOOLS,
            DOCUMENTS,
            VARIABLES,
        ],
        shape: |row| !transcripts(row),
        read: pairs::preference,
    },
    &Family {
        name: "hh",
        aliases: &["hh-rlhf"],
        kind: "preference",
        required: &[&["chosen"], &["rejected"]],
        optional: &[&["prompt"], &["margin"], CRITERION, WEIGHT, TOOLS, DOCUMENTS, VARIABLES],
        shape: transcripts,
        read: hh::read,
    },
    &Family {
        name: "gpt4-llm",
        aliases: &["gpt-4-llm"],
        kind: "preference",
        required: &[&["user_input"], &["completion_a"], &["completion_b"]],
        optional: &[CRITERION, WEIGHT, TOOLS, DOCUMENTS, VARIABLES],
        shape: any,
        read: pairs::gpt4_llm,
    },
    &Family {
        name: "summarize-from-feedback",
        aliases: &["summarize"],
        kind: "preference",
        required: &[&["info"], &["summaries"], &["choice"]],
        optional: &[],
        shape: any,
        read: pairs::summarize,
    },
    &Family {
        name: "unpaired",
        aliases: &["kto"],
        kind: "unpaired",
        required: &[&["label", "kto_tag"], &["completion", "output", "messages", "conversations"]],
        optional: &[&["prompt", "instruction", "question"], &["input"], &["system"], TOOLS, DOCUMENTS, VARIABLES],
        shape: |row| row.any(&["label", "kto_tag"]).is_some_and(|(_, value)| pairs::label(value).is_some()),
        read: pairs::unpaired,
    },
    &Family {
        name: "ranked",
        aliases: &["ranking"],
        kind: "ranking",
        required: &[ASKED, &["completions"], &["scores"]],
        optional: &[&["input"], &["system"], CRITERION, WEIGHT, TOOLS, DOCUMENTS, VARIABLES],
        shape: any,
        read: rankings::ranked,
    },
    &Family {
        name: "rrhf",
        aliases: &[],
        kind: "ranking",
        required: &[&["query"], &["responses"], &["scores"]],
        optional: &[CRITERION, WEIGHT, TOOLS, DOCUMENTS, VARIABLES],
        shape: any,
        read: rankings::rrhf,
    },
    &Family {
        name: "nectar",
        aliases: &[],
        kind: "ranking",
        required: &[&["prompt"], &["answers"]],
        optional: &[],
        shape: |row| first_has(row, "answers", "rank"),
        read: rankings::nectar,
    },
    &Family {
        name: "ultrafeedback",
        aliases: &[],
        kind: "ranking",
        required: &[&["instruction"], &["completions"]],
        optional: &[],
        shape: |row| first_has(row, "completions", "response"),
        read: rankings::ultrafeedback,
    },
    &Family {
        name: "stepwise",
        aliases: &["prm"],
        kind: "steps",
        required: &[ASKED, &["completions"], &["labels"]],
        optional: &[&["input"], &["system"], TOOLS, DOCUMENTS, VARIABLES],
        shape: any,
        read: steps::stepwise,
    },
    &Family {
        name: "prm800k",
        aliases: &[],
        kind: "steps",
        required: &[&["question"], &["label"]],
        optional: &[],
        shape: |row| row.get("label").is_some_and(|label| label.get("steps").is_some()),
        read: steps::prm800k,
    },
];

fn any(_: &Row<'_>) -> bool {
    true
}

fn is_text(row: &Row<'_>, name: &str) -> bool {
    row.row.get(row.column(name)).is_some_and(Value::is_string)
}

fn first_has(row: &Row<'_>, name: &str, field: &str) -> bool {
    row.row.get(row.column(name)).and_then(|items| items.get(0)?.get(field)).is_some()
}

/// Whether chosen, or the prompt before it, reads like a transcript of HH.
fn transcripts(row: &Row<'_>) -> bool {
    let reads_like = |name| row.get(name).and_then(Value::as_str).is_some_and(is_transcript);
    (reads_like("chosen") && reads_like("rejected"))
        || (reads_like("prompt") && is_text(row, "chosen") && is_text(row, "rejected"))
}
