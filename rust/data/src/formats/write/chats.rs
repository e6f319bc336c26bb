//! Conversations as rows. Feedback is written as its best reply.

use super::{AsText, Form, Written, only_text};
use crate::conversation::Message;
use crate::error::{Error, Result};
use crate::formats::turns::with_input;
use crate::record::{Context, Conversation, Record};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// The conversation that a record shows, and what is lost by taking it for one.
fn conversation<'a>(record: &'a Record, written: &mut Written) -> Result<Cow<'a, Conversation>> {
    let talk = |prompt: &[Message], reply: &[Message], context: &Context| {
        let messages = prompt.iter().chain(reply).cloned().collect();
        Ok(Cow::Owned(Conversation { messages, context: context.clone() }))
    };
    match record {
        Record::Conversation(talk) => Ok(Cow::Borrowed(talk)),
        Record::Preference(pair) => {
            written.lose("rejected");
            written.lose_if(pair.margin.is_some(), "margin");
            written.lose_if(pair.p.is_some(), "p");
            talk(&pair.prompt, &pair.chosen, &pair.context)
        }
        Record::Ranking(ranking) => {
            written.lose("all but the best reply");
            let first_best = ranking.responses.iter().rev().max_by(|one, other| one.score.total_cmp(&other.score));
            let best = first_best.ok_or_else(|| Error::data("the ranking has no reply"))?;
            talk(&ranking.prompt, &best.messages, &ranking.context)
        }
        Record::Unpaired(rated) if rated.label => {
            written.lose("label");
            talk(&rated.prompt, &rated.completion, &rated.context)
        }
        Record::Unpaired(_) => Err(Error::data("a bad reply is nothing to imitate")),
        Record::Text(_) => Err(Error::data("raw text has no turns")),
        Record::Steps(_) => Err(Error::data("rated steps are no conversation")),
    }
}

pub(super) fn messages(record: &Record) -> Result<Written> {
    let mut written = Written::default();
    let talk = conversation(record, &mut written)?;
    let messages = written.messages(&talk.messages, true);
    written.put("messages", messages);
    written.context(&talk.context);
    Ok(written)
}

pub(super) fn sharegpt(record: &Record) -> Result<Written> {
    let mut written = Written::default();
    let talk = conversation(record, &mut written)?;
    let mut turns: Vec<Map<String, Value>> = Vec::new();
    for message in &talk.messages {
        for turn in sharegpt_turns(message, &mut written)? {
            let from = |turn: &Map<String, Value>| turn["from"].clone();
            if turns
                .last()
                .is_some_and(|last| from(last) == from(&turn) && matches!(from(&turn).as_str(), Some("human" | "gpt")))
            {
                return Err(Error::data(format!("two turns of {} follow each other", from(&turn))));
            }
            turns.push(turn);
        }
    }
    written.put("conversations", turns.into_iter().map(Value::Object).collect::<Vec<_>>());
    // Readers of ShareGPT take tools as a string of JSON.
    if let Some(tools) = &talk.context.tools {
        written.put("tools", tools.to_string());
    }
    let context = Context { tools: None, ..talk.context.clone() };
    written.lose_context(&context);
    Ok(written)
}

fn sharegpt_turns(message: &Message, written: &mut Written) -> Result<Vec<Map<String, Value>>> {
    let from = match message.role.as_str() {
        "user" => "human",
        "assistant" => "gpt",
        "tool" => "observation",
        "system" => "system",
        other => return Err(Error::data(format!("ShareGPT has no turns of {other:?}"))),
    };
    let turn =
        |from: &str, value: Value| Map::from_iter([("from".to_owned(), from.into()), ("value".to_owned(), value)]);
    let content = message.content.as_deref().unwrap_or("");
    let calls = message.fields.get("tool_calls").and_then(Value::as_array).filter(|calls| !calls.is_empty());
    let mut turns = Vec::new();
    if calls.is_none() || !content.is_empty() {
        turns.push(turn(from, content.into()));
    }
    if let Some(calls) = calls {
        written.lose_if(!content.is_empty(), "content and tool_calls being one message");
        written.lose_if(calls.iter().any(|call| call.get("id").is_some()), "tool_calls.id");
        let functions: Vec<&Value> = calls.iter().map(|call| call.get("function").unwrap_or(call)).collect();
        let value = match functions.as_slice() {
            [one] => one.to_string(),
            many => json!(many).to_string(),
        };
        turns.push(turn("function_call", value.into()));
    }
    // Further fields stand on the turn, where this reader finds them and others pass them by.
    let Value::Object(fields) = written.message(message, true) else { return Ok(turns) };
    let rest: Vec<(String, Value)> =
        fields.into_iter().filter(|(name, _)| !matches!(name.as_str(), "role" | "content" | "tool_calls")).collect();
    for turn in &mut turns {
        turn.extend(rest.iter().cloned());
    }
    Ok(turns)
}

pub(super) fn alpaca(record: &Record) -> Result<Written> {
    let mut written = Written::default();
    let talk = conversation(record, &mut written)?;
    let (system, turns) = match talk.messages.split_first() {
        Some((first, rest)) if first.role == "system" => (Some(first), rest),
        _ => (None, &talk.messages[..]),
    };
    let alternates = turns.iter().enumerate().all(|(index, turn)| turn.role == ["user", "assistant"][index % 2]);
    if turns.is_empty() || turns.len() % 2 == 1 || !alternates {
        return Err(Error::data("Alpaca's turns are a user's and an assistant's, one after the other"));
    }
    for message in &talk.messages {
        for name in message.fields.keys().filter(|name| !matches!(name.as_str(), "role" | "content")) {
            written.lose(name.as_str());
        }
        let is_assistant = message.role == "assistant";
        written.lose_if(is_assistant && !message.scored && message.weight > 0.0, "train");
        written.lose_if(message.weight != 1.0, "weight");
    }
    let said = |message: &Message| Value::from(message.content.as_deref().unwrap_or(""));
    let (history, last) = turns.split_at(turns.len() - 2);
    // The same two columns again, where the turn is still what they said together.
    let asked =
        talk.context.asked.as_ref().filter(|(asked, input)| said(&last[0]) == with_input(asked, input).as_str());
    match asked {
        Some((instruction, input)) => {
            written.put("instruction", instruction.as_str());
            written.put("input", input.as_str());
        }
        None => {
            written.put("instruction", said(&last[0]));
            written.put("input", "");
        }
    }
    written.put("output", said(&last[1]));
    if let Some(system) = system {
        written.put("system", said(system));
    }
    if !history.is_empty() {
        written
            .put("history", history.chunks(2).map(|pair| json!([said(&pair[0]), said(&pair[1])])).collect::<Vec<_>>());
    }
    written.lose_context(&talk.context);
    Ok(written)
}

/// The completion begins behind the last turn that is not the assistant's or a tool's, or where learning begins.
pub(super) fn prompt_completion(record: &Record, form: Form) -> Result<Written> {
    let mut written = Written::default();
    if let Record::Text(text) = record {
        if text.prompt.is_empty() {
            return Err(Error::data("raw text has no prompt"));
        }
        written.put("prompt", text.prompt.as_str());
        written.put("completion", text.completion.as_str());
        return Ok(written);
    }
    let talk = conversation(record, &mut written)?;
    let asked = talk.messages.iter().rposition(|m| !matches!(m.role.as_str(), "assistant" | "tool"));
    let learned = talk.messages.iter().position(|message| message.scored);
    let (Some(asked), Some(learned)) = (asked, learned) else {
        return Err(Error::data("the conversation has no prompt and answer"));
    };
    let (prompt, completion) = talk.messages.split_at((asked + 1).max(learned));
    if completion.is_empty() {
        return Err(Error::data("the conversation does not end with an answer"));
    }
    written.lose_if(prompt.iter().any(|message| message.scored), "earlier answers being learned");
    match AsText::wanted(prompt, &talk.context, &[completion], form)? {
        Some(text) => {
            written.lose_if(completion.iter().any(|message| message.weight != 1.0), "weight");
            written.put("completion", text.reply(completion));
            written.row.shift_insert(0, "prompt".into(), text.prompt.into());
        }
        None => {
            let (prompt, completion) = (written.messages(prompt, false), written.messages(completion, true));
            written.put("prompt", prompt);
            written.put("completion", completion);
        }
    }
    written.context(&talk.context);
    Ok(written)
}

/// The text of a turn that a transcript can hold.
pub(super) fn transcript_text(message: &Message) -> Result<&str> {
    only_text(message).ok_or_else(|| Error::data("a transcript has no place for a message's further fields"))
}
