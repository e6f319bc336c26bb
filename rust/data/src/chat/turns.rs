//! How a template opens and closes the model's turns, learned from conversations of a few words.

use super::marks::{Level, Marks, Part};
use crate::conversation::Message;
use crate::template::{Given, Template, is_limit};
use minijinja::value::Value;
use serde_json::{Map, Value as Json, json};
use std::cell::Cell;
use std::cmp::Reverse;
use std::ops::Range;

/// What a template writes around the model's turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// What it writes before the model speaks: the generation prompt.
    pub(super) prompt: String,
    /// The start of it that the history has too: without `<think>`, say, where old turns have none.
    pub(super) header: String,
    /// How plain turns and turns of tool calls are closed.
    plain: Close,
    calls: Close,
    /// Texts of the control tokens.
    control: Vec<String>,
}

#[derive(Debug, Default, Clone)]
struct Close {
    /// Tokens that close; empty when they could not be learned.
    tokens: Vec<String>,
    /// What the next message starts with, its first token included, when that closes and the last turn stays open
    /// (GLM).
    next: Option<String>,
}

const THOUGHTS: [&str; 6] = ["<think", "<seed:think", "[THINK]", "<|channel>thought", "◁think▷", "<|think"];

/// Where a turn ends.
pub(super) enum End {
    /// Before and after its end token.
    At(Range<usize>),
    /// Nothing ends it; the next message would, which starts with this.
    Open(String),
    /// Its end token is missing.
    Missing,
}

impl Turns {
    /// What it writes when rows give it these variables.
    pub(super) fn learn(template: &Template, control: Vec<String>, variables: &Map<String, Json>) -> Self {
        let mut turns = Self { control, ..Self::default() };
        let (user, bot) = (Message::text("user", "x"), Message::text("assistant", "y"));
        let template = &Probed { template, exhausted: Cell::new(false) };
        let render = |messages: &[Message], prompt: bool, given: &Given| {
            let values = messages.iter().map(|from| crate::template::message(&from.fields, &|_| None)).collect();
            template.render(values, given, prompt)
        };
        let Ok(nothing) = Given::new(None, None, variables) else { return turns };
        let asked = std::slice::from_ref(&user);
        if let (Some(plain), Some(prompted)) = (render(asked, false, &nothing), render(asked, true, &nothing)) {
            turns.prompt = prompted.strip_prefix(plain.as_str()).unwrap_or("").to_owned();
        }
        let once = [user.clone(), bot.clone()];
        let twice = [user.clone(), bot.clone(), user.clone(), bot.clone()];
        let mut headers: Vec<String> = Vec::new();
        for (messages, turn) in [(&once[..], 1), (&twice[..], 1), (&twice[..], 3)] {
            if let Some(gap) = gap_before(template, messages, turn, &nothing) {
                headers.push(longest_header(&turns.prompt, &gap));
            }
        }
        turns.header = headers.into_iter().min_by_key(String::len).unwrap_or_else(|| turns.prompt.clone());
        if let Some(at) = THOUGHTS.iter().filter_map(|mark| turns.header.find(mark)).min() {
            turns.header.truncate(at);
        }
        if turns.header != turns.prompt && turns.controls(&turns.header).is_empty() {
            turns.header.clear();
        }
        turns.plain = turns.closing(template, &once[..2], &twice[..3], &nothing);
        let schema = json!([{"type": "function", "function": {"name": "f", "description": "d", "parameters": {
            "type": "object", "properties": {"a": {"type": "string", "description": "e"}}, "required": ["a"]}}}]);
        let Ok(tools) = Given::new(Some(&schema), None, variables) else { return turns };
        for arguments in [json!({"a": "b"}), json!("{\"a\": \"b\"}")] {
            let call =
                json!([{"id": "call00001", "type": "function", "function": {"name": "f", "arguments": arguments}}]);
            let mut caller = Message::text("assistant", "");
            caller.fields.insert("tool_calls".into(), call);
            let mut result = Message::text("tool", "z");
            result.fields.insert("name".into(), "f".into());
            result.fields.insert("tool_call_id".into(), "call00001".into());
            let called = [user.clone(), caller, result, bot.clone()];
            turns.calls = turns.closing(template, &called[..2], &called, &tools);
            if !turns.calls.tokens.is_empty() {
                break;
            }
        }
        turns
    }

    /// How the second message is closed, told from a conversation that it ends and from one that goes on.
    fn closing(&self, template: &Probed<'_>, ends: &[Message], goes_on: &[Message], given: &Given) -> Close {
        let (Some(last), Some(middle)) = (gap_after(template, ends, 1, given), gap_after(template, goes_on, 1, given))
        else {
            return Close::default();
        };
        let shared = &last[..common_start(&last, &middle).len()];
        let mut tokens: Vec<String> =
            self.controls(shared).last().map(|at| shared[at.clone()].to_owned()).into_iter().collect();
        let mut next = None;
        if tokens.is_empty() {
            let first = |text: &str| self.first_control(text, None);
            let ends = first(&last).map(|at| last[at].to_owned());
            if ends.is_none() && shared == last {
                let rest = &middle[shared.len()..];
                let at = first(rest).filter(|at| rest[..at.start].chars().all(crate::template::is_space));
                next = at.map(|at| rest[..at.end].to_owned());
            }
            if ends.is_some() || next.is_some() {
                tokens.extend(ends);
                tokens.extend(first(&middle).map(|at| middle[at].to_owned()));
            }
        }
        Close { tokens, next }
    }

    /// The control tokens of a text, in order; of two at one place the longer is the one that the tokenizer takes.
    fn controls(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(at) = self.first_control(&text[from..], None) {
            found.push(from + at.start..from + at.end);
            from += at.end;
        }
        found
    }

    /// The first control token of a text, or the first of these.
    fn first_control(&self, text: &str, among: Option<&[String]>) -> Option<Range<usize>> {
        let tokens = among.unwrap_or(&self.control).iter();
        let places = tokens.filter_map(|token| text.find(token.as_str()).map(|at| (at, Reverse(token.len()))));
        places.min().map(|(at, Reverse(length))| at..at + length)
    }

    /// Where a turn ends in what the template writes after it; `is_last` when no message follows.
    pub(super) fn end(&self, after: &str, calls: bool, is_last: bool) -> End {
        // A template that drops calls closes such turns as others.
        let close = if calls && !self.calls.tokens.is_empty() { &self.calls } else { &self.plain };
        let any = close.next.is_some() || close.tokens.is_empty();
        match (self.first_control(after, if any { None } else { Some(&close.tokens) }), &close.next) {
            (Some(at), _) => End::At(at),
            (None, Some(next)) if is_last => End::Open(next.clone()),
            (None, _) => End::Missing,
        }
    }
}

/// A template that is not asked again once it exceeded its limits.
struct Probed<'a> {
    template: &'a Template,
    exhausted: Cell<bool>,
}

impl Probed<'_> {
    fn render(&self, values: Vec<Value>, given: &Given, prompt: bool) -> Option<String> {
        if self.exhausted.get() {
            return None;
        }
        let made = self.template.render_values(values, given, prompt, false);
        self.exhausted.set(made.as_ref().is_err_and(is_limit));
        made.ok()
    }
}

/// The part of a generation prompt that ends what the history writes before a turn.
fn longest_header(prompt: &str, gap: &str) -> String {
    let mut ends: Vec<usize> = prompt.char_indices().map(|(at, c)| at + c.len_utf8()).collect();
    ends.reverse();
    let end = ends.into_iter().find(|&end| gap.contains(&prompt[..end])).unwrap_or(0);
    // Not into a token: two tokens may start alike.
    let header = &prompt[..end];
    let cut = header.rfind(['<', '[']).filter(|&at| !header[at..].contains(['>', ']']));
    header[..cut.unwrap_or(end)].to_owned()
}

fn common_start<'a>(a: &'a str, b: &str) -> &'a str {
    let length = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum();
    &a[..length]
}

/// What the template writes between the message before this one and this one's first word, and after its last word.
fn gaps(template: &Probed<'_>, messages: &[Message], turn: usize, given: &Given) -> Option<(String, String)> {
    let (mut marks, values) = Marks::put(messages, Level::Filled).ok()?;
    let marked = template.render(values, given, false)?;
    let (text, _) = marks.read(&marked).ok()?;
    let places = |of: &dyn Fn(usize) -> bool| {
        let leaves = marks.leaves.iter().filter(|leaf| of(leaf.message) && leaf.part != Part::Reasoning);
        leaves.flat_map(|leaf| leaf.places.iter().cloned()).collect::<Vec<_>>()
    };
    let own = places(&|message| message == turn);
    let (start, end) = (own.iter().map(|place| place.start).min()?, own.iter().map(|place| place.end).max()?);
    let before = places(&|message| message < turn).iter().map(|place| place.end).filter(|&at| at <= start).max();
    let after = places(&|message| message > turn).iter().map(|place| place.start).filter(|&at| at >= end).min();
    Some((text[before.unwrap_or(0)..start].to_owned(), text[end..after.unwrap_or(text.len())].to_owned()))
}

fn gap_before(template: &Probed<'_>, messages: &[Message], turn: usize, given: &Given) -> Option<String> {
    gaps(template, messages, turn, given).map(|(before, _)| before)
}

fn gap_after(template: &Probed<'_>, messages: &[Message], turn: usize, given: &Given) -> Option<String> {
    gaps(template, messages, turn, given).map(|(_, after)| after)
}
