//! A record as the texts that cleaning looks at.

use super::options::Part;
use crate::conversation::Message;
use crate::record::Record;
use serde_json::{Map, Value};
use std::borrow::Cow;
use unicode_normalization::UnicodeNormalization;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// One text of a record, or what else makes records different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    kind: Kind,
    /// Which reply or field it is; the same words elsewhere are something else.
    tag: &'static str,
    role: Cow<'a, str>,
    text: Cow<'a, str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Prompt,
    Reply,
    /// Labels, scores, tools: no text of the record, but part of what it says.
    Meta,
}

impl<'a> Piece<'a> {
    /// A text without a role.
    #[must_use]
    pub fn text(text: &'a str) -> Self {
        Self { kind: Kind::Reply, tag: "", role: "".into(), text: text.into() }
    }

    fn meta(tag: &'static str, text: String) -> Self {
        Self { kind: Kind::Meta, tag, role: "".into(), text: text.into() }
    }

    /// The words.
    #[must_use]
    pub fn content(&self) -> &str {
        &self.text
    }

    /// A number for where the text stands: its role and the reply or field that it is.
    pub(super) fn seed(&self) -> u64 {
        if self.tag.is_empty() && self.role.is_empty() {
            return 0;
        }
        xxh3_64(self.role.as_bytes()) ^ xxh3_64(self.tag.as_bytes()).rotate_left(1)
    }

    fn is_in(&self, part: Part) -> bool {
        match part {
            Part::Record => true,
            Part::Prompt => self.kind == Kind::Prompt,
            Part::Reply => self.kind == Kind::Reply,
        }
    }
}

/// The pieces of a row's records, in order.
#[must_use]
pub fn pieces(records: &[Record]) -> Vec<Piece<'_>> {
    let mut all = Vec::new();
    for record in records {
        of(record, &mut all);
    }
    all
}

/// How many messages a row's records hold.
#[must_use]
pub fn turns(records: &[Record]) -> usize {
    let side = |record: &Record| match record {
        Record::Conversation(c) => c.messages.len(),
        Record::Text(text) => 1 + usize::from(!text.prompt.is_empty()),
        Record::Preference(p) => p.prompt.len() + p.chosen.len().max(p.rejected.len()),
        Record::Ranking(r) => r.prompt.len() + r.responses.iter().map(|r| r.messages.len()).max().unwrap_or(0),
        Record::Steps(s) => s.prompt.len() + 1,
        Record::Unpaired(u) => u.prompt.len() + u.completion.len(),
    };
    records.iter().map(side).sum()
}

/// The texts of one part of a row, a line each: what filters look at.
#[must_use]
pub fn text_of<'a>(pieces: &'a [Piece<'_>], part: Part) -> Cow<'a, str> {
    let texts: Vec<&str> = texts(pieces, part).map(Piece::content).collect();
    if let [text] = texts[..] { text.into() } else { texts.join("\n").into() }
}

/// The pieces of one part that are text.
pub(super) fn texts<'a, 'b>(pieces: &'a [Piece<'b>], part: Part) -> impl Iterator<Item = &'a Piece<'b>> {
    pieces.iter().filter(move |piece| piece.kind != Kind::Meta && piece.is_in(part))
}

/// The part that makes a row the same as others: all of it when it has nothing in that part, since having no prompt is
/// not the same prompt.
pub(super) fn compared(pieces: &[Piece<'_>], part: Part) -> Part {
    if texts(pieces, part).next().is_some() { part } else { Part::Record }
}

/// A hash of all that a part says; with `fold`, whatever its case, white space and Unicode form.
#[must_use]
pub fn content_hash(pieces: &[Piece<'_>], part: Part, fold: bool) -> u128 {
    let mut hasher = Xxh3::new();
    for piece in pieces.iter().filter(|piece| piece.is_in(part)) {
        let text: Cow<'_, str> = if fold { folded(&piece.text).into() } else { piece.text.as_ref().into() };
        for bytes in [piece.tag.as_bytes(), piece.role.as_bytes(), text.as_bytes()] {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
    }
    hasher.digest128()
}

fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.nfc().flat_map(char::to_lowercase));
    }
    out
}

fn of<'a>(record: &'a Record, out: &mut Vec<Piece<'a>>) {
    let context = match record {
        Record::Conversation(conversation) => {
            let messages = &conversation.messages;
            let reply = messages.iter().rposition(|m| m.role == "assistant").unwrap_or(messages.len());
            side(&messages[..reply], Kind::Prompt, "", out);
            side(&messages[reply..], Kind::Reply, "", out);
            &conversation.context
        }
        Record::Text(text) => {
            if !text.prompt.is_empty() {
                let role = "prompt".into();
                out.push(Piece { kind: Kind::Prompt, tag: "", role, text: text.prompt.as_str().into() });
            }
            out.push(Piece::text(&text.completion));
            return;
        }
        Record::Preference(pair) => {
            side(&pair.prompt, Kind::Prompt, "", out);
            side(&pair.chosen, Kind::Reply, "chosen", out);
            side(&pair.rejected, Kind::Reply, "rejected", out);
            out.push(Piece::meta("preference", format!("{:?} {:?}", pair.margin, pair.p)));
            &pair.context
        }
        Record::Ranking(ranking) => {
            side(&ranking.prompt, Kind::Prompt, "", out);
            for response in &ranking.responses {
                out.push(Piece::meta("score", response.score.to_string()));
                side(&response.messages, Kind::Reply, "response", out);
            }
            &ranking.context
        }
        Record::Steps(steps) => {
            side(&steps.prompt, Kind::Prompt, "", out);
            for step in &steps.steps {
                let text = step.text.as_str().into();
                out.push(Piece { kind: Kind::Reply, tag: "step", role: "assistant".into(), text });
                out.push(Piece::meta("rating", step.rating.map_or_else(String::new, |rating| rating.to_string())));
            }
            &steps.context
        }
        Record::Unpaired(unpaired) => {
            side(&unpaired.prompt, Kind::Prompt, "", out);
            side(&unpaired.completion, Kind::Reply, "", out);
            out.push(Piece::meta("label", unpaired.label.to_string()));
            &unpaired.context
        }
    };
    for (tag, value) in [("tools", &context.tools), ("documents", &context.documents)] {
        if let Some(value) = value {
            out.push(Piece::meta(tag, value.to_string()));
        }
    }
    if !context.variables.is_empty() {
        out.push(Piece::meta("variables", json(&context.variables)));
    }
}

fn side<'a>(messages: &'a [Message], kind: Kind, tag: &'static str, out: &mut Vec<Piece<'a>>) {
    for message in messages {
        let role = Cow::from(message.role.as_str());
        // A message without content still separates its neighbours, so it is a piece too.
        let text = message.content.as_deref().unwrap_or("").into();
        out.push(Piece { kind, tag, role: role.clone(), text });
        // Tool calls and reasoning are said as well, under other names than `content`.
        let mut rest =
            message.fields.iter().filter(|(name, _)| !matches!(name.as_str(), "role" | "content")).peekable();
        if rest.peek().is_some() {
            let rest: Map<String, Value> = rest.map(|(name, value)| (name.clone(), value.clone())).collect();
            out.push(Piece { kind, tag: "fields", role, text: json(&rest).into() });
        }
    }
}

fn json(map: &Map<String, Value>) -> String {
    serde_json::to_string(map).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Context, Conversation, Unpaired};

    fn chat(turns: &[(&str, &str)]) -> Record {
        let messages = turns.iter().map(|(role, text)| Message::text(role, text)).collect();
        Record::Conversation(Conversation { messages, context: Context::default() })
    }

    #[test]
    fn parts_are_prompt_and_reply() {
        let records = [chat(&[("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")])];
        let pieces = pieces(&records);
        assert_eq!(text_of(&pieces, Part::Prompt), "a\nb\nc");
        assert_eq!(text_of(&pieces, Part::Reply), "d");
        assert_eq!(text_of(&pieces, Part::Record), "a\nb\nc\nd");
        assert_eq!(turns(&records), 4);
    }

    #[test]
    fn whatever_a_record_says_is_in_its_hash() {
        let label = |label| {
            Record::Unpaired(Unpaired {
                prompt: vec![Message::text("user", "q")],
                completion: vec![Message::text("assistant", "a")],
                label,
                context: Context::default(),
            })
        };
        let mut call = Message::text("assistant", "b");
        call.fields.insert("tool_calls".into(), serde_json::json!([{"name": "f"}]));
        let with_call = Conversation {
            messages: vec![Message::text("user", "a"), call],
            context: Context { tools: Some(serde_json::json!([])), ..Context::default() },
        };
        let mut without_tools = with_call.clone();
        without_tools.context.tools = None;
        let different = [
            chat(&[("user", "a"), ("assistant", "b")]),
            chat(&[("user", "ab"), ("assistant", "")]),
            chat(&[("assistant", "a"), ("user", "b")]),
            chat(&[("user", "a"), ("assistant", "B ")]),
            Record::Conversation(with_call),
            Record::Conversation(without_tools),
            label(true),
            label(false),
        ];
        let hash = |record: &Record, fold| content_hash(&pieces(std::slice::from_ref(record)), Part::Record, fold);
        let hashes: std::collections::HashSet<u128> = different.iter().map(|record| hash(record, false)).collect();
        assert_eq!(hashes.len(), different.len());
        assert_eq!(hash(&different[0], true), hash(&different[3], true));
        let composed = chat(&[("user", "caf\u{e9}")]);
        let decomposed = chat(&[("user", " Cafe\u{301}\n")]);
        assert_eq!(hash(&composed, true), hash(&decomposed, true));
        assert_ne!(hash(&composed, false), hash(&decomposed, false));
    }
}
