//! Conversations and text: what somebody says, and what is answered.

use super::row::{Row, field, list, same_length, text, unscored};
use super::turns::{behind_system, side, turns, with_input};
use crate::conversation::{Message, messages};
use crate::error::{Error, Result};
use crate::record::{Context, Conversation, Record, Text};
use serde_json::Value;

fn one(messages: Vec<Message>, context: Context) -> Result<Vec<Record>> {
    Ok(vec![Record::Conversation(Conversation { messages, context })])
}

fn answered(prompt: &str, answer: &str, context: Context) -> Record {
    let messages = vec![Message::bare("user", prompt), Message::bare("assistant", answer)];
    Record::Conversation(Conversation { messages, context })
}

/// OpenAI's `messages`.
pub(super) fn openai(row: &Row<'_>) -> Result<Vec<Record>> {
    one(messages(row.need("messages")?, row.column("messages"))?, row.context()?)
}

/// ShareGPT's `conversations`, which may hold OpenAI's messages just as well.
pub(super) fn sharegpt(row: &Row<'_>) -> Result<Vec<Record>> {
    let mut read = turns(row.need("conversations")?, row.column("conversations"))?;
    behind_system(row, &mut read)?;
    one(read, row.context()?)
}

/// `prompt` and `completion`, each text or messages; only the completion is learned.
pub(super) fn prompt_completion(row: &Row<'_>) -> Result<Vec<Record>> {
    let mut all = unscored(side(row.need("prompt")?, row.column("prompt"), "user")?);
    all.extend(side(row.need("completion")?, row.column("completion"), "assistant")?);
    one(all, row.context()?)
}

/// `instruction`, `input` and `output`, with `system` and the turns before in `history`.
pub(super) fn alpaca(row: &Row<'_>) -> Result<Vec<Record>> {
    let prompt = with_input(row.text("instruction")?, row.text_or_empty("input")?);
    let output = row.text("output")?;
    let mut all = Vec::new();
    for (index, pair) in row.get("history").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let at = format!("{}[{index}]", row.column("history"));
        let [asked, said] = list(pair, &at)? else {
            return Err(Error::data("a turn of the history is not an instruction and its answer").at(at));
        };
        all.extend([Message::text("user", text(asked, &at)?), Message::text("assistant", text(said, &at)?)]);
    }
    all.extend([Message::bare("user", &prompt), Message::bare("assistant", output)]);
    behind_system(row, &mut all)?;
    one(all, Context { asked: row.asked(), ..Context::default() })
}

/// Self-Instruct's `instruction` with several `instances` of `input` and `output`.
pub(super) fn self_instruct(row: &Row<'_>) -> Result<Vec<Record>> {
    let instruction = row.text("instruction")?;
    let instance = |(index, instance): (usize, &Value)| {
        let at = format!("{}[{index}]", row.column("instances"));
        let part = |name| field(instance, name, &at).and_then(|value| text(value, name).map_err(|e| e.at(at.clone())));
        let input = part("input")?;
        let asked = (!input.is_empty()).then(|| (instruction.to_owned(), input.to_owned()));
        let context = Context { asked, ..Context::default() };
        Ok(answered(&with_input(instruction, input), part("output")?, context))
    };
    row.list("instances")?.iter().enumerate().map(instance).collect()
}

/// FLAN's and P3's `inputs` and `targets`. In a template's turns the target stands without the space that begins it;
/// as raw text the two are parted by white space, one space where they have none of their own.
pub(super) fn inputs_targets(row: &Row<'_>) -> Result<Vec<Record>> {
    let (inputs, targets) = (row.text("inputs")?, row.text("targets")?);
    let target = targets.strip_prefix(' ').unwrap_or(targets);
    let is_parted = inputs.ends_with(char::is_whitespace) || target.starts_with(char::is_whitespace);
    let space = if targets.starts_with(' ') || !is_parted { " " } else { "" };
    let context = Context { raw_prompt: Some(format!("{inputs}{space}")), ..row.context()? };
    Ok(vec![answered(inputs, target, context)])
}

/// `question` and `answer`, as GSM8K has them.
pub(super) fn question_answer(row: &Row<'_>) -> Result<Vec<Record>> {
    Ok(vec![answered(row.text("question")?, row.text("answer")?, row.context()?)])
}

/// Plain `text`, all of which is learned.
pub(super) fn plain(row: &Row<'_>) -> Result<Vec<Record>> {
    Ok(vec![Record::Text(Text { prompt: String::new(), completion: row.text("text")?.to_owned() })])
}

/// A row whose completion is rated: its last assistant turn, and what stands before.
pub(super) fn last_turn(value: &Value, name: &str) -> Result<(Vec<Message>, Vec<Message>)> {
    let mut prompt = turns(value, name)?;
    match prompt.pop() {
        Some(last) if last.role == "assistant" => Ok((unscored(prompt), vec![last])),
        _ => Err(Error::data(format!("{name} does not end with an assistant's turn"))),
    }
}

/// Two lists that go together.
pub(super) fn paired<'a>(row: &Row<'a>, one: &'a str, other: &'a str) -> Result<(&'a [Value], &'a [Value])> {
    let (first, second) = (row.list(one)?, row.list(other)?);
    same_length((row.column(one), first.len()), (row.column(other), second.len()))?;
    Ok((first, second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Format;
    use serde_json::json;

    fn talks(row: Value) -> Result<Vec<Conversation>> {
        let row = row.as_object().unwrap();
        let records = Format::detect(std::slice::from_ref(row))?.read(row)?;
        let talk = |record| match record {
            Record::Conversation(talk) => talk,
            other => panic!("{other:?}"),
        };
        Ok(records.into_iter().map(talk).collect())
    }

    fn said(talk: &Conversation) -> Vec<(&str, &str, bool)> {
        talk.messages.iter().map(|m| (m.role.as_str(), m.content.as_deref().unwrap_or("-"), m.scored)).collect()
    }

    #[test]
    fn tools_and_their_calls_are_kept_as_given() {
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let call = json!({"function": {"name": "f", "arguments": "{\"x\": 1.0}"}});
        let row = |tools: Value| {
            json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null, "tool_calls": [call]}],
                "tools": tools, "documents": [{"text": "d"}], "chat_template_kwargs": {"enable_thinking": false}})
        };
        for given in [tools.clone(), Value::String(tools.to_string())] {
            let talk = talks(row(given)).unwrap().remove(0);
            assert_eq!(talk.context.tools, Some(tools.clone()));
            assert_eq!(talk.context.documents, Some(json!([{"text": "d"}])));
            assert_eq!(talk.context.variables["enable_thinking"], json!(false));
            assert_eq!(talk.messages[1].fields["tool_calls"], json!([call]));
            assert_eq!(said(&talk)[1], ("assistant", "-", true));
        }
        assert_eq!(talks(row(json!(""))).unwrap()[0].context.tools, None);
        for bad in [json!("not json"), json!({}), json!("3")] {
            assert!(talks(row(bad)).is_err());
        }
    }

    #[test]
    fn only_the_completion_is_scored() {
        let prompt = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]);
        let talk = &talks(json!({"prompt": prompt, "completion": "d"})).unwrap()[0];
        assert_eq!(said(talk).iter().map(|turn| turn.2).collect::<Vec<_>>(), [false, false, false, true]);
        assert_eq!(talk.raw(), None);
    }

    #[test]
    fn alpaca_has_two_forms_and_a_history() {
        let with_input = talks(json!({"instruction": "a", "input": "b", "output": "c"})).unwrap();
        assert_eq!(said(&with_input[0]), [("user", "a\n\nb", false), ("assistant", "c", true)]);
        assert_eq!(with_input[0].raw().unwrap().prompt, "a\n\nb");
        let long = json!({"instruction": "q2", "input": "", "output": "a2", "system": "s", "history": [["q1", "a1"]]});
        let long = talks(long).unwrap();
        let wanted = [
            ("system", "s", false),
            ("user", "q1", false),
            ("assistant", "a1", true),
            ("user", "q2", false),
            ("assistant", "a2", true),
        ];
        assert_eq!(said(&long[0]), wanted);
        assert!(talks(json!({"instruction": "q", "output": "a", "history": [["alone"]]})).is_err());
        assert!(talks(json!({"instruction": "q", "input": 3, "output": "a"})).is_err());
    }

    #[test]
    fn a_row_of_self_instruct_holds_several_examples() {
        let row = json!({"instruction": "Sort.", "instances": [{"input": "b a", "output": "a b"}, {"input": "", "output": "-"}]});
        let talks = talks(row).unwrap();
        assert_eq!(said(&talks[0]), [("user", "Sort.\n\nb a", false), ("assistant", "a b", true)]);
        assert_eq!(said(&talks[1]), [("user", "Sort.", false), ("assistant", "-", true)]);
    }

    #[test]
    fn a_space_parts_inputs_from_targets() {
        let raw = |inputs: &str, targets: &str| {
            let talk = talks(json!({"inputs": inputs, "targets": targets})).unwrap().remove(0);
            let raw = talk.raw().unwrap();
            (raw.prompt, raw.completion, talk.messages[1].content.clone().unwrap())
        };
        for (inputs, targets, prompt, target) in
            [("i", "t", "i ", "t"), ("i", " t", "i ", "t"), ("i\n", "t", "i\n", "t"), ("i", "\nt", "i", "\nt")]
        {
            assert_eq!(raw(inputs, targets), (prompt.into(), target.into(), target.into()), "{inputs:?} {targets:?}");
        }
    }

    #[test]
    fn sharegpt_may_start_with_the_model_and_have_any_length() {
        let talk = &talks(
            json!({"conversations": [{"from": "gpt", "value": "hi"}, {"from": "human", "value": "q"}], "system": "s"}),
        )
        .unwrap()[0];
        assert_eq!(said(talk), [("system", "s", false), ("assistant", "hi", true), ("user", "q", false)]);
        let twice = json!({"conversations": [{"from": "system", "value": "other"}], "system": "s"});
        assert!(talks(twice).unwrap_err().what.contains("different things"));
    }

    #[test]
    fn rows_with_images_are_not_read_as_text() {
        let row = |images: Value| json!({"messages": [{"role": "user", "content": "<image>?"}], "images": images});
        for none in [json!(null), json!([]), json!("")] {
            assert_eq!(talks(row(none)).unwrap().len(), 1);
        }
        for some in [json!(["a.png"]), json!("a.png"), json!({"bytes": ""})] {
            assert!(talks(row(some)).unwrap_err().what.contains("only text is read"));
        }
    }
}
