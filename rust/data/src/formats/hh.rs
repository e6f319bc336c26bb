//! Anthropic's HH transcripts: `\n\nHuman: ...\n\nAssistant: ...`, twice, alike up to the last reply.

use super::row::{Row, unscored};
use crate::conversation::Message;
use crate::error::{Error, Result};
use crate::record::{Context, Preference, Record};

/// What stands before each turn of a person.
pub(super) const HUMAN: &str = "\n\nHuman:";
/// What stands before each turn of the model.
pub(super) const ASSISTANT: &str = "\n\nAssistant:";

/// Whether a text reads like a transcript.
pub(super) fn is_transcript(text: &str) -> bool {
    text.trim_start().starts_with(HUMAN.trim_start()) && text.contains(ASSISTANT)
}

/// `chosen` and `rejected`, each a transcript, or a `prompt` that is one and the replies.
pub(super) fn read(row: &Row<'_>) -> Result<Vec<Record>> {
    let prompt = row.text_or_empty("prompt")?;
    let whole = |name| {
        let side = row.text(name)?;
        Ok::<_, Error>(if side.starts_with(prompt) { side.to_owned() } else { format!("{prompt}{side}") })
    };
    let (chosen, rejected) = (whole("chosen")?, whole("rejected")?);
    let ((before, good), (other, bad)) = (split(&chosen, "chosen")?, split(&rejected, "rejected")?);
    let turns = turns(before)?;
    if before != other {
        return Err(Error::data("the prompts of chosen and rejected differ")
            .because("the two transcripts are not alike up to their last replies"));
    }
    let has_space = good.starts_with(' ') && bad.starts_with(' ');
    let reply = |text: &str, name: &str| {
        let reply = if has_space { &text[1..] } else { text };
        if reply.contains(HUMAN) {
            return Err(Error::data("the turns of the transcript do not alternate")
                .because(format!("{name} ends with a turn of {:?}", HUMAN.trim_start())));
        }
        if reply.trim().is_empty() {
            return Err(Error::data(format!("the last reply of {name} is empty")));
        }
        Ok(vec![Message::bare("assistant", reply)])
    };
    let raw_prompt = Some(format!("{before}{}", if has_space { " " } else { "" }));
    let (chosen, rejected) = (reply(good, "chosen")?, reply(bad, "rejected")?);
    super::pairs::differ(&chosen, &rejected)?;
    let context = Context { raw_prompt, ..row.context()? };
    Ok(vec![Record::Preference(Preference {
        prompt: turns,
        chosen,
        rejected,
        margin: row.number("margin")?,
        p: None,
        about: row.about()?,
        context,
    })])
}

/// A transcript before and behind the LAST mark of the assistant, which the first part keeps.
fn split<'a>(text: &'a str, name: &str) -> Result<(&'a str, &'a str)> {
    let at =
        text.rfind(ASSISTANT).ok_or_else(|| Error::data(format!("{name} holds no {:?}", ASSISTANT.trim_start())))?;
    Ok(text.split_at(at + ASSISTANT.len()))
}

/// The turns of a transcript that ends where the assistant is to speak.
pub(super) fn turns(before: &str) -> Result<Vec<Message>> {
    let mut marks: Vec<(usize, &str, &str)> = [(HUMAN, "user"), (ASSISTANT, "assistant")]
        .iter()
        .flat_map(|&(mark, role)| places(before, mark, role))
        .collect();
    marks.sort_unstable();
    if marks.first().is_none_or(|&(at, ..)| !before[..at].trim().is_empty()) {
        return Err(Error::data("the transcript does not begin with \"Human:\""));
    }
    let mut read = Vec::new();
    for (index, &(at, mark, role)) in marks.iter().enumerate() {
        if role != ["user", "assistant"][index % 2] {
            return Err(Error::data("the turns of the transcript do not alternate"));
        }
        let end = marks.get(index + 1).map_or(before.len(), |&(next, ..)| next);
        let said = &before[at + mark.len()..end];
        read.push(Message::text(role, said.strip_prefix(' ').unwrap_or(said)));
    }
    match read.pop() {
        Some(last) if last.role == "assistant" && last.content.as_deref() == Some("") => Ok(unscored(read)),
        _ => Err(Error::data("the turns of the transcript do not alternate")),
    }
}

fn places<'a>(text: &str, mark: &'a str, role: &'a str) -> Vec<(usize, &'a str, &'a str)> {
    // A copied transcript may have lost the empty lines before its first turn.
    let head = mark.trim_start();
    let first = text.starts_with(head).then_some((0, head, role));
    first.into_iter().chain(text.match_indices(mark).map(|(at, _)| (at, mark, role))).collect()
}

#[cfg(test)]
mod tests {
    use crate::error::Result;
    use crate::formats::Format;
    use crate::record::{Preference, Record};
    use serde_json::{Value, json};

    fn read(row: Value) -> Result<Preference> {
        let row = row.as_object().unwrap();
        match Format::detect(std::slice::from_ref(row))?.read(row)?.remove(0) {
            Record::Preference(pair) => Ok(pair),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pair_is_split_at_its_last_reply() {
        let before = "\n\nHuman: hi \n\nAssistant: Yes, Human: that is\n\nme.\n\nHuman: so\n\nAssistant:";
        let pair =
            read(json!({"chosen": format!("{before} I am A."), "rejected": format!("{before} I am B.")})).unwrap();
        let said: Vec<(&str, &str)> =
            pair.prompt.iter().map(|m| (m.role.as_str(), m.content.as_deref().unwrap())).collect();
        assert_eq!(said, [("user", "hi "), ("assistant", "Yes, Human: that is\n\nme."), ("user", "so")]);
        assert!(pair.prompt.iter().all(|m| !m.scored));
        assert_eq!(pair.chosen[0].content.as_deref(), Some("I am A."));
        assert_eq!(pair.rejected[0].content.as_deref(), Some("I am B."));
        assert_eq!(pair.context.raw_prompt, Some(format!("{before} ")));
        // The same with the prompt in a column of its own.
        let apart = read(json!({"prompt": before, "chosen": " I am A.", "rejected": " I am B."})).unwrap();
        assert_eq!(apart, pair);
    }

    #[test]
    fn odd_rows_are_told_apart() {
        let h = |turns: &str| format!("\n\nHuman: q{turns}");
        for (chosen, rejected, reason) in [
            ("\n\nAssistant: a\n\nAssistant: b", "\n\nAssistant: a\n\nAssistant: c", "do not alternate"),
            (
                "\n\nAssistant: a\n\nHuman: x\n\nAssistant: b",
                "\n\nAssistant: a",
                "prompts of chosen and rejected differ",
            ),
            ("\n\nAssistant: a", "\n\nAssistant:", "last reply of rejected is empty"),
            ("\n\nAssistant: ", "\n\nAssistant: a", "last reply of chosen is empty"),
            ("\n\nAssistant: a", "\n\nAssistant: a", "are the same"),
            ("\n\nAssistant: a\n\nHuman: more", "\n\nAssistant: b", "do not alternate"),
        ] {
            let error = read(json!({"chosen": h(chosen), "rejected": h(rejected)})).unwrap_err();
            assert!(error.what.contains(reason), "{chosen:?}: {error}");
        }
    }
}
