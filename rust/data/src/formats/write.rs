//! Records to rows of other formats, with the names of what a format cannot say.

mod chats;
mod feedback;
#[cfg(test)]
mod tests;

use crate::conversation::{Message, distance};
use crate::error::{Error, Kind, Result};
use crate::record::{About, Context, Preference, Ranking, Record, Unpaired};
use serde_json::{Map, Value};

/// A format that rows are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `messages`.
    Messages,
    /// ShareGPT's `conversations`.
    ShareGpt,
    /// `instruction`, `input`, `output`, with `system` and `history` where they are needed.
    Alpaca,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// `prompt`, `chosen`, `rejected`.
    Preference,
    /// `prompt`, `completion`, `label`.
    Unpaired,
    /// `prompt`, `completions`, `labels`.
    Stepwise,
    /// `prompt`, `completions`, `scores`.
    Ranked,
    /// HH's transcripts `chosen` and `rejected`.
    Hh,
}

/// Every target by name.
pub const TARGETS: [(&str, Target); 9] = [
    ("messages", Target::Messages),
    ("sharegpt", Target::ShareGpt),
    ("alpaca", Target::Alpaca),
    ("prompt-completion", Target::PromptCompletion),
    ("preference", Target::Preference),
    ("unpaired", Target::Unpaired),
    ("stepwise", Target::Stepwise),
    ("ranked", Target::Ranked),
    ("hh", Target::Hh),
];

impl Target {
    /// Whether records of this kind can be written so, some of them at least.
    #[must_use]
    pub fn takes(self, kind: &str) -> bool {
        match self {
            Self::Messages | Self::ShareGpt | Self::Alpaca | Self::PromptCompletion => {
                !matches!(kind, "text" | "steps")
            }
            Self::Preference | Self::Hh => matches!(kind, "preference" | "ranking"),
            Self::Unpaired => matches!(kind, "unpaired" | "preference"),
            Self::Stepwise => kind == "steps",
            Self::Ranked => kind == "ranking",
        }
    }

    /// The target of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn parse(name: &str) -> Result<Self> {
        if let Some((_, target)) = TARGETS.iter().find(|(known, _)| *known == name) {
            return Ok(*target);
        }
        let near = TARGETS.iter().map(|(known, _)| *known).min_by_key(|known| distance(known, name)).unwrap_or("");
        let near = if distance(near, name) <= 3 { format!("did you mean {near:?}? ") } else { String::new() };
        let all: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        Err(Error::new(Kind::Usage, format!("rows cannot be written as {name:?}"))
            .fix(format!("{near}formats to write are {}", all.join(", "))))
    }
}

/// Whether sides are written as text or as lists of messages, where a format takes both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// As the row had them.
    #[default]
    Auto,
    /// As text; a row that holds more is an error.
    Text,
    /// As messages.
    Messages,
}

/// Which pairs of a ranking are made into preferences; ties never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pairs {
    /// Each reply against each that has a lower score.
    #[default]
    All,
    /// The best against the worst.
    BestWorst,
}

/// A row, and the names of what it does not say any more.
#[derive(Debug, Default)]
pub struct Written {
    /// The row.
    pub row: Map<String, Value>,
    /// Fields of the record that the format has no place for.
    pub lost: Vec<String>,
}

impl Written {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.row.insert(name.into(), value.into());
    }

    fn lose(&mut self, name: impl Into<String>) {
        let name = name.into();
        if !self.lost.contains(&name) {
            self.lost.push(name);
        }
    }

    fn lose_if(&mut self, is_there: bool, name: &str) {
        if is_there {
            self.lose(name);
        }
    }

    /// What a comparison says of itself.
    fn about(&mut self, about: &About) {
        if let Some(criterion) = &about.criterion {
            self.put("criterion", criterion.clone());
        }
        if let Some(weight) = about.weight {
            self.put("weight", weight);
        }
    }

    /// What a template is given beside the messages, in columns of their own.
    fn context(&mut self, context: &Context) {
        for (name, value) in [("tools", &context.tools), ("documents", &context.documents)] {
            if let Some(value) = value {
                self.put(name, value.clone());
            }
        }
        if !context.variables.is_empty() {
            self.put("chat_template_kwargs", context.variables.clone());
        }
    }

    /// The same where there are no such columns.
    fn lose_context(&mut self, context: &Context) {
        self.lose_if(context.tools.is_some(), "tools");
        self.lose_if(context.documents.is_some(), "documents");
        self.lose_if(!context.variables.is_empty(), "chat_template_kwargs");
    }

    /// A message as a chat format has it; `scored` is what its place says of an assistant's turn.
    fn message(&mut self, message: &Message, scored: bool) -> Value {
        let mut fields = message.fields.clone();
        let is_assistant = message.role == "assistant";
        if is_assistant && scored && !message.scored && message.weight > 0.0 {
            fields.insert("train".into(), false.into());
        }
        if message.weight != 1.0 {
            // An answer that its place leaves unlearned weighs nothing.
            if is_assistant && !scored {
                self.lose("weight");
            } else {
                fields.insert("weight".into(), message.weight.into());
            }
        }
        fields.into()
    }

    fn messages(&mut self, messages: &[Message], scored: bool) -> Value {
        messages.iter().map(|message| self.message(message, scored)).collect()
    }
}

/// A record as a row of a format.
///
/// # Errors
/// The format cannot say what the record says: a conversation has no second reply, a transcript no tools.
pub fn write(record: &Record, target: Target, form: Form) -> Result<Written> {
    match target {
        Target::Messages => chats::messages(record),
        Target::ShareGpt => chats::sharegpt(record),
        Target::Alpaca => chats::alpaca(record),
        Target::PromptCompletion => chats::prompt_completion(record, form),
        Target::Preference => feedback::preference(record, form),
        Target::Unpaired => feedback::unpaired(record, form),
        Target::Stepwise => feedback::stepwise(record, form),
        Target::Ranked => feedback::ranked(record, form),
        Target::Hh => feedback::hh(record),
    }
}

/// What a record is written as: mostly itself; a preference as two unpaired replies, a ranking as preferences.
///
/// The second value names what is lost.
///
/// # Errors
/// A ranking has no two replies with different scores.
pub fn derive(record: Record, target: Target, pairs: Pairs) -> Result<(Vec<Record>, Vec<&'static str>)> {
    match (record, target) {
        (Record::Preference(pair), Target::Unpaired) => {
            let About { criterion, weight } = &pair.about;
            let about = [("criterion", criterion.is_some()), ("weight", weight.is_some())];
            let lost = [("margin", pair.margin.is_some()), ("p", pair.p.is_some())].into_iter().chain(about);
            let lost = lost.filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect();
            let one = |completion, label| {
                let (prompt, context) = (pair.prompt.clone(), pair.context.clone());
                Record::Unpaired(Unpaired { prompt, completion, label, context })
            };
            Ok((vec![one(pair.chosen.clone(), true), one(pair.rejected.clone(), false)], lost))
        }
        (Record::Ranking(ranking), Target::Preference | Target::Hh) => {
            let mut lost = vec!["scores"];
            if ranking.responses.iter().any(|response| response.model.is_some()) {
                lost.push("model");
            }
            Ok((preferences(&ranking, pairs)?, lost))
        }
        (record, _) => Ok((vec![record], Vec::new())),
    }
}

fn preferences(ranking: &Ranking, pairs: Pairs) -> Result<Vec<Record>> {
    let mut order: Vec<usize> = (0..ranking.responses.len()).collect();
    let score = |index: usize| ranking.responses[index].score;
    // Stable, so that of equal replies the first one stands for them.
    order.sort_by(|&one, &other| score(other).total_cmp(&score(one)));
    let last = order.len().saturating_sub(1);
    let mut made = Vec::new();
    for (place, &better) in order.iter().enumerate() {
        for (other, &worse) in order.iter().enumerate().skip(place + 1) {
            if score(better) <= score(worse) || (pairs == Pairs::BestWorst && (place, other) != (0, last)) {
                continue;
            }
            let reply = |index: usize| ranking.responses[index].messages.clone();
            made.push(Record::Preference(Preference {
                prompt: ranking.prompt.clone(),
                chosen: reply(better),
                rejected: reply(worse),
                margin: None,
                p: None,
                about: ranking.about.clone(),
                context: ranking.context.clone(),
            }));
        }
    }
    if made.is_empty() {
        return Err(Error::data("no two replies have different scores"));
    }
    Ok(made)
}

/// A prompt and replies as text: how they are joined is the raw prompt's matter.
struct AsText {
    prompt: String,
    /// What each reply begins with: the space that the raw prompt ends with.
    space: &'static str,
}

impl AsText {
    /// None where the prompt is more than one text.
    fn of(prompt: &[Message], context: &Context) -> Option<Self> {
        if let Some(raw) = &context.raw_prompt {
            return Some(match raw.strip_suffix(' ') {
                Some(before) => Self { prompt: before.into(), space: " " },
                None => Self { prompt: raw.clone(), space: "" },
            });
        }
        match prompt {
            [] => Some(Self { prompt: String::new(), space: "" }),
            [only] if only.role == "user" => Some(Self { prompt: only_text(only)?.into(), space: "" }),
            _ => None,
        }
    }

    /// The sides as text, or None when they are to be messages.
    ///
    /// # Errors
    /// They are to be text and are more.
    fn wanted(prompt: &[Message], context: &Context, replies: &[&[Message]], form: Form) -> Result<Option<Self>> {
        let one = |reply: &&[Message]| matches!(reply, [only] if only.role == "assistant" && only_text(only).is_some());
        let text = Self::of(prompt, context).filter(|_| replies.iter().all(one));
        let is_bare = |messages: &[Message]| messages.iter().all(|message| message.bare);
        match form {
            Form::Messages => Ok(None),
            Form::Text => text.map(Some).ok_or_else(|| {
                Error::data("the row holds more than texts").fix("leave form out, or set it to messages")
            }),
            Form::Auto => {
                let had_text =
                    replies.iter().all(|reply| is_bare(reply)) && (context.raw_prompt.is_some() || is_bare(prompt));
                Ok(text.filter(|_| had_text))
            }
        }
    }

    fn reply(&self, reply: &[Message]) -> Value {
        let said: String = reply.iter().filter_map(|message| message.content.as_deref()).collect();
        format!("{}{said}", self.space).into()
    }
}

/// The content of a message that has nothing else.
fn only_text(message: &Message) -> Option<&str> {
    let is_plain = message.fields.keys().all(|name| matches!(name.as_str(), "role" | "content"));
    message.content.as_deref().filter(|_| is_plain)
}
