//! Feedback as rows of TRL's formats and of HH.

use super::chats::transcript_text;
use super::{AsText, Form, Written};
use crate::conversation::Message;
use crate::error::{Error, Result};
use crate::formats::hh::{ASSISTANT, HUMAN, is_transcript};
use crate::record::{Context, Preference, Record, Steps};
use serde_json::Value;

fn wrong(record: &Record, wanted: &str) -> Error {
    let kind = record.kind();
    let article = if kind.starts_with('u') { "an" } else { "a" };
    Error::data(format!("{article} {kind} record holds no {wanted}"))
}

/// The prompt, and replies one by one, in one form.
fn sides(
    written: &mut Written,
    prompt: &[Message],
    context: &Context,
    replies: &[&[Message]],
    form: Form,
) -> Result<Vec<Value>> {
    if let Some(text) = AsText::wanted(prompt, context, replies, form)? {
        written.put("prompt", text.prompt.as_str());
        return Ok(replies.iter().map(|reply| text.reply(reply)).collect());
    }
    // No prompt is no column: an empty list is no conversation.
    if !prompt.is_empty() {
        let prompt = written.messages(prompt, false);
        written.put("prompt", prompt);
    }
    Ok(replies.iter().map(|reply| written.messages(reply, true)).collect())
}

pub(super) fn preference(record: &Record, form: Form) -> Result<Written> {
    let Record::Preference(pair) = record else { return Err(wrong(record, "second reply")) };
    let mut written = Written::default();
    let replies = [pair.chosen.as_slice(), &pair.rejected];
    let sides = sides(&mut written, &pair.prompt, &pair.context, &replies, form)?;
    for (name, side) in ["chosen", "rejected"].into_iter().zip(sides) {
        written.put(name, side);
    }
    for (name, value) in [("margin", pair.margin), ("p", pair.p)] {
        if let Some(value) = value {
            written.put(name, value);
        }
    }
    written.about(&pair.about);
    written.context(&pair.context);
    Ok(written)
}

pub(super) fn unpaired(record: &Record, form: Form) -> Result<Written> {
    let Record::Unpaired(rated) = record else { return Err(wrong(record, "label")) };
    let mut written = Written::default();
    for side in sides(&mut written, &rated.prompt, &rated.context, &[&rated.completion], form)? {
        written.put("completion", side);
    }
    written.put("label", rated.label);
    written.context(&rated.context);
    Ok(written)
}

pub(super) fn ranked(record: &Record, form: Form) -> Result<Written> {
    let Record::Ranking(ranking) = record else { return Err(wrong(record, "scores")) };
    let mut written = Written::default();
    let replies: Vec<&[Message]> = ranking.responses.iter().map(|response| response.messages.as_slice()).collect();
    let completions = sides(&mut written, &ranking.prompt, &ranking.context, &replies, form)?;
    written.put("completions", completions);
    written.put("scores", ranking.responses.iter().map(|response| response.score).collect::<Vec<f64>>());
    written.lose_if(ranking.responses.iter().any(|response| response.model.is_some()), "model");
    written.about(&ranking.about);
    written.context(&ranking.context);
    Ok(written)
}

/// One row a record: the longest chain of steps, of which the best rated end is taken.
pub(super) fn stepwise(record: &Record, form: Form) -> Result<Written> {
    let Record::Steps(solution) = record else { return Err(wrong(record, "rated steps")) };
    let mut written = Written::default();
    sides(&mut written, &solution.prompt, &solution.context, &[], form)?;
    let chain = longest(solution);
    written.lose_if(chain.len() < solution.steps.len(), "alternatives");
    let mut labels: Vec<Value> = Vec::new();
    for &at in &chain {
        let rating = solution.steps[at].rating;
        labels.push(rating.ok_or_else(|| Error::data("a step of the solution is not rated"))?.into());
    }
    written.put("completions", chain.iter().map(|&at| solution.steps[at].text.as_str()).collect::<Vec<_>>());
    written.put("labels", labels);
    written.context(&solution.context);
    Ok(written)
}

fn longest(solution: &Steps) -> Vec<usize> {
    let mut depths: Vec<usize> = Vec::new();
    for step in &solution.steps {
        // Steps stand behind the one that they follow.
        depths.push(step.parent.and_then(|parent| depths.get(parent)).map_or(1, |depth| depth + 1));
    }
    let end = (0..depths.len()).rev().max_by_key(|&at| (depths[at], solution.steps[at].rating));
    let mut chain: Vec<usize> =
        std::iter::successors(end, |&at| solution.steps[at].parent.filter(|&parent| parent < at)).collect();
    chain.reverse();
    chain
}

pub(super) fn hh(record: &Record) -> Result<Written> {
    let Record::Preference(pair) = record else { return Err(wrong(record, "second reply")) };
    let mut written = Written::default();
    let before = transcript(pair)?;
    for (name, reply) in [("chosen", &pair.chosen), ("rejected", &pair.rejected)] {
        let [reply] = reply.as_slice() else {
            return Err(Error::data(format!("{name} is more than one turn")));
        };
        written.put(name, format!("{before}{}", said(reply)?));
    }
    written.lose_if(pair.margin.is_some(), "margin");
    written.lose_if(pair.p.is_some(), "p");
    written.lose_context(&pair.context);
    Ok(written)
}

/// The transcript that the replies follow; the very text of a row that came as one.
fn transcript(pair: &Preference) -> Result<String> {
    if let Some(raw) = pair.context.raw_prompt.as_ref().filter(|raw| is_transcript(raw)) {
        return Ok(raw.clone());
    }
    let mut text = String::new();
    for (index, message) in pair.prompt.iter().enumerate() {
        let (role, mark) = [("user", HUMAN), ("assistant", ASSISTANT)][index % 2];
        if message.role != role {
            return Err(Error::data(
                "the turns of a transcript are a person's and an assistant's, one after the other",
            ));
        }
        text.push_str(&format!("{mark} {}", said(message)?));
    }
    if pair.prompt.len().is_multiple_of(2) {
        return Err(Error::data("a transcript ends with a person's turn before the replies"));
    }
    Ok(format!("{text}{ASSISTANT} "))
}

fn said(message: &Message) -> Result<&str> {
    let said = transcript_text(message)?;
    // It would be another turn for whoever reads the transcript.
    if said.contains(HUMAN) || said.contains(ASSISTANT) {
        return Err(Error::data("a turn holds the text that parts turns in a transcript"));
    }
    Ok(said)
}
