//! Marks around what messages say, put in before a template is rendered and read out of its text.

use crate::conversation::Message;
use crate::error::{Error, Kind, Result};
use crate::template::{GENERATION, REASONING, is_space, message, to_value};
use minijinja::value::Value;
use serde_json::Value as Json;
use std::ops::Range;

const OPEN: char = '\u{10F8F1}';
const CLOSE: char = '\u{10F8F2}';
const INDEX: u32 = 0x10_0000;
const MAX_MARKS: usize = 60_000;
/// What templates cut contents at.
const THINK: [&str; 8] =
    ["<think>", "</think>", "<thinking>", "</thinking>", "[THINK]", "[/THINK]", "<seed:think>", "</seed:think>"];

/// What is marked; each level marks less, for templates that look at what is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// Contents, empty ones too, reasoning and the strings in tool calls.
    All,
    /// The same without empty contents.
    Filled,
    /// Contents that are not empty.
    Contents,
}

pub(super) const LEVELS: [Level; 3] = [Level::All, Level::Filled, Level::Contents];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Content,
    Reasoning,
    Call,
}

/// A marked piece of a message.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) message: usize,
    pub(super) part: Part,
    /// Where it lies in the message's content, for [`Part::Content`].
    pub(super) within: Range<usize>,
    /// Where it stands in the text.
    pub(super) places: Vec<Range<usize>>,
    open: Option<usize>,
}

/// The marks of one conversation.
pub(super) struct Marks {
    pub(super) leaves: Vec<Leaf>,
}

impl Marks {
    /// The messages as the template sees them, marked.
    pub(super) fn put(messages: &[Message], level: Level) -> Result<(Self, Vec<Value>)> {
        let mut marks = Self { leaves: Vec::with_capacity(messages.len()) };
        let values = messages.iter().enumerate().map(|(index, message)| marks.marked(index, message, level)).collect();
        if marks.leaves.len() > MAX_MARKS {
            return Err(Error::data(format!("a conversation has more than {MAX_MARKS} parts")));
        }
        Ok((marks, values))
    }

    fn marked(&mut self, index: usize, from: &Message, level: Level) -> Value {
        let speaks = from.role == "assistant";
        let calls = from.fields.get("tool_calls").filter(|calls| calls.as_array().is_some_and(|all| !all.is_empty()));
        let content = from.content.as_deref().and_then(|content| {
            let blank = content.chars().all(is_space);
            // An empty content that is marked is not empty, which templates ask for when there are calls.
            let skipped = blank && (level != Level::All || calls.is_some());
            (!skipped).then(|| Value::from(self.text(index, Part::Content, content, speaks)))
        });
        let wider = speaks && level != Level::Contents;
        let calls = calls.filter(|_| wider).map(|calls| to_value(&self.calls(index, calls)));
        let mut reasoning = None;
        if wider && let Some(name) = REASONING.iter().find(|name| from.fields.get(**name).is_some_and(Json::is_string))
        {
            let text = from.fields[*name].as_str().unwrap_or_default();
            if !text.chars().all(is_space) {
                reasoning = Some((text, Value::from(self.text(index, Part::Reasoning, text, true))));
            }
        }
        message(&from.fields, &|name| match name {
            "content" => content.clone(),
            "tool_calls" => calls.clone(),
            name if REASONING.contains(&name) => {
                let text = from.fields.get(name).and_then(Json::as_str);
                reasoning.as_ref().filter(|(first, _)| text == Some(first)).map(|(_, marked)| marked.clone())
            }
            _ => None,
        })
    }

    /// A text with marks inside its outer white space, and inside that of the pieces that templates cut it into.
    fn text(&mut self, message: usize, part: Part, text: &str, cut: bool) -> String {
        let mut output = String::with_capacity(text.len() + 24);
        let mut rest = text;
        loop {
            let offset = text.len() - rest.len();
            let tag = if cut && rest.contains(['<', '[']) {
                THINK.iter().filter_map(|tag| rest.find(tag).map(|at| (at, tag.len()))).min()
            } else {
                None
            };
            let (at, length) = tag.unwrap_or((rest.len(), 0));
            let piece = &rest[..at];
            let core = piece.trim_matches(is_space);
            let lead = if core.is_empty() { 0 } else { piece.len() - piece.trim_start_matches(is_space).len() };
            output.push_str(&piece[..lead]);
            // A text that is all white space is marked before it; a piece that is so is not marked.
            if !core.is_empty() || text.len() == piece.len() {
                let index = u32::try_from(self.leaves.len()).unwrap_or(u32::MAX);
                let mark = INDEX.checked_add(index).and_then(char::from_u32).unwrap_or(OPEN);
                let within = offset + lead..offset + lead + core.len();
                self.leaves.push(Leaf { message, part, within, places: Vec::new(), open: None });
                output.extend([OPEN, mark]);
                output.push_str(core);
                output.extend([CLOSE, mark]);
            }
            output.push_str(&piece[lead + core.len()..]);
            output.push_str(&rest[at..at + length]);
            rest = &rest[at + length..];
            if length == 0 {
                return output;
            }
        }
    }

    fn calls(&mut self, message: usize, calls: &Json) -> Json {
        let mut calls = calls.clone();
        for call in calls.as_array_mut().into_iter().flatten() {
            let holder =
                if call.get("function").is_some_and(Json::is_object) { call.get_mut("function") } else { Some(call) };
            if let Some(arguments) = holder.and_then(|holder| holder.get_mut("arguments")) {
                self.strings(message, arguments);
            }
        }
        calls
    }

    fn strings(&mut self, message: usize, value: &mut Json) {
        match value {
            Json::String(text) if !text.chars().all(is_space) => {
                *text = self.text(message, Part::Call, text, false);
            }
            Json::Array(items) => items.iter_mut().for_each(|item| self.strings(message, item)),
            Json::Object(map) => map.values_mut().for_each(|item| self.strings(message, item)),
            _ => {}
        }
    }

    /// Find the marks in a text; the text without them, and what the generation tags hold in it.
    pub(super) fn read(&mut self, marked: &str) -> Result<(String, Vec<Range<usize>>)> {
        let mut text = String::with_capacity(marked.len());
        let mut generated = Vec::new();
        let mut generation_start = None;
        let broken =
            || Error::new(Kind::Mask, "this template's turns cannot be marked").because("it takes contents apart");
        let mut rest = marked;
        // All marks start with the lead byte of planes 16 and up.
        while let Some(at) = rest.as_bytes().iter().position(|&byte| byte == 0xF4) {
            text.push_str(&rest[..at]);
            let mut chars = rest[at..].chars();
            match chars.next() {
                Some(c @ (OPEN | CLOSE)) => {
                    let index = chars.next().and_then(|mark| (mark as u32).checked_sub(INDEX)).ok_or_else(broken)?;
                    let leaf = self.leaves.get_mut(index as usize).ok_or_else(broken)?;
                    if c == OPEN {
                        leaf.open = Some(text.len());
                    } else {
                        let start = leaf.open.take().ok_or_else(broken)?;
                        leaf.places.push(start..text.len());
                    }
                }
                Some(c) if c == GENERATION.0 => generation_start = Some(text.len()),
                Some(c) if c == GENERATION.1 => {
                    generated.extend(generation_start.take().map(|start| start..text.len()));
                }
                Some(c) => text.push(c),
                None => {}
            }
            rest = chars.as_str();
        }
        text.push_str(rest);
        if self.leaves.iter().any(|leaf| leaf.open.is_some()) {
            return Err(broken());
        }
        Ok((text, generated))
    }

    /// Whether a message's reasoning stands in the text; None where it was not marked.
    pub(super) fn reasoning(&self, message: usize) -> Option<bool> {
        let mut leaves =
            self.leaves.iter().filter(|leaf| leaf.message == message && leaf.part == Part::Reasoning).peekable();
        leaves.peek()?;
        Some(leaves.any(|leaf| !leaf.places.is_empty()))
    }

    /// Where contents stand in the text, in its order, with the messages that they are of.
    pub(super) fn contents(&self) -> Vec<(usize, Range<usize>)> {
        let contents = self.leaves.iter().filter(|leaf| leaf.part == Part::Content);
        let mut all: Vec<_> =
            contents.flat_map(|leaf| leaf.places.iter().map(|place| (leaf.message, &leaf.within, place))).collect();
        all.sort_by_key(|(_, _, place)| place.start);
        let mut joined: Vec<(usize, Range<usize>, Range<usize>)> = Vec::new();
        for (message, within, place) in all {
            // Pieces that stand as far apart as in the content are the content as it was.
            if let Some(last) = joined.last_mut()
                && last.0 == message
                && within.start >= last.1.end
                && within.start - last.1.end == place.start - last.2.end
            {
                (last.1.end, last.2.end) = (within.end, place.end);
            } else {
                joined.push((message, within.clone(), place.clone()));
            }
        }
        joined.into_iter().map(|(message, _, place)| (message, place)).collect()
    }
}

/// Whether a text holds one of the characters that marks are made of.
#[must_use]
pub fn holds_marks(text: &str) -> bool {
    // All of them start with the UTF-8 lead byte of planes 16 and up, which text hardly ever holds.
    text.bytes().any(|byte| byte == 0xF4) && text.chars().any(|c| c as u32 >= INDEX)
}
