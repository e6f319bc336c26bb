//! The sides of records: text that stands alone, one message, lists of messages, and ShareGPT's turns.

use super::row::{Row, list, text, unscored};
use crate::conversation::{Message, kind_of, messages};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};

/// The prompt or reply that a column holds: a string, a list of messages or turns, or one message.
pub(super) fn side(value: &Value, name: &str, role: &str) -> Result<Vec<Message>> {
    match value {
        Value::String(content) => Ok(vec![Message::bare(role, content)]),
        Value::Array(_) => turns(value, name),
        Value::Object(_) => turns(&Value::Array(vec![value.clone()]), name),
        other => {
            Err(Error::data(format!("column {name:?} holds {}, not a string or a list of messages", kind_of(other))))
        }
    }
}

/// A list of messages `{role, content}` or of ShareGPT's turns `{from, value}`.
pub(super) fn turns(value: &Value, name: &str) -> Result<Vec<Message>> {
    if value.get(0).is_some_and(|first| first.get("from").is_some()) {
        sharegpt(value, name)
    } else {
        messages(value, name)
    }
}

/// ShareGPT's turns; the first may be anybody's, and so may the last.
fn sharegpt(value: &Value, name: &str) -> Result<Vec<Message>> {
    let mut read: Vec<Message> = Vec::new();
    let mut before = "";
    for (index, item) in list(value, name)?.iter().enumerate() {
        let (from, message) = turn(item).map_err(|error| error.at(format!("{name}[{index}]")))?;
        // A part of the talk is missing between them; the model would learn to answer nobody.
        if from == before && matches!(message.role.as_str(), "user" | "assistant") {
            return Err(Error::data(format!("two turns of {from:?} follow each other")).at(format!("{name}[{index}]")));
        }
        before = from;
        read.push(message);
    }
    Ok(read)
}

fn turn(item: &Value) -> Result<(&str, Message)> {
    let Value::Object(given) = item else {
        return Err(Error::data(format!("a turn is {}, not an object", kind_of(item))));
    };
    let from = text(given.get("from").unwrap_or(&Value::Null), "from")?;
    let role = match from.to_lowercase().as_str() {
        "human" | "user" | "prompter" => "user",
        "gpt" | "assistant" | "model" | "bot" | "ai" | "chatgpt" | "gpt4" | "bard" | "bing" | "claude"
        | "function_call" => "assistant",
        "system" => "system",
        "observation" | "tool" | "function" | "function_response" | "ipython" => "tool",
        _ => {
            return Err(Error::data(format!("a turn is from {from:?}"))
                .fix("turns are from human, gpt, system, observation or function_call"));
        }
    };
    let said = given.get("value").filter(|value| !value.is_null());
    let said = said.ok_or_else(|| Error::data(format!("the turn of {from:?} has no value")))?;
    let mut message = Map::new();
    message.insert("role".into(), role.into());
    if from == "function_call" {
        message.insert("content".into(), "".into());
        message.insert("tool_calls".into(), calls(text(said, "value")?)?);
    } else {
        message.insert("content".into(), said.clone());
    }
    message.extend(
        given.iter().filter(|(key, _)| !matches!(key.as_str(), "from" | "value")).map(|(k, v)| (k.clone(), v.clone())),
    );
    Ok((from, Message::read(&Value::Object(message))?))
}

/// The calls of a `function_call` turn: JSON of one `{name, arguments}`, or of a list of them.
fn calls(text: &str) -> Result<Value> {
    let wrong = || Error::data("a function_call is not JSON of a name and arguments");
    let given: Value = serde_json::from_str(text).map_err(|e| wrong().because(e))?;
    let given = match given {
        Value::Array(calls) => calls,
        one => vec![one],
    };
    if given.is_empty() || !given.iter().all(|call| call.get("name").is_some_and(Value::is_string)) {
        return Err(wrong());
    }
    Ok(given.into_iter().map(|call| json!({"type": "function", "function": call})).collect())
}

/// What a row asks, under any of the names that preference data use, behind its `system` column; none is no message.
pub(super) fn prompt(row: &Row<'_>) -> Result<Vec<Message>> {
    let mut prompt = match row.any(&["prompt", "conversations"]) {
        Some((name, value)) => side(value, name, "user")?,
        None => match row.any(&["instruction", "question"]) {
            Some((name, value)) => {
                let (asked, input) = (text(value, name)?, row.text_or_empty("input")?);
                vec![Message::bare("user", &with_input(asked, input))]
            }
            None => Vec::new(),
        },
    };
    behind_system(row, &mut prompt)?;
    // TRL's rows without a prompt have an empty string for it.
    if let [only] = prompt.as_slice()
        && only.bare
        && only.content.as_deref() == Some("")
    {
        prompt.clear();
    }
    Ok(unscored(prompt))
}

/// Alpaca's instruction and its input.
pub(super) fn with_input(instruction: &str, input: &str) -> String {
    if input.is_empty() { instruction.to_owned() } else { format!("{instruction}\n\n{input}") }
}

/// Put the `system` column first; two that differ contradict each other.
pub(super) fn behind_system(row: &Row<'_>, turns: &mut Vec<Message>) -> Result<()> {
    let system = row.text_or_empty("system")?;
    if system.is_empty() {
        return Ok(());
    }
    match turns.first() {
        Some(first) if first.role == "system" && first.content.as_deref() != Some(system) => {
            Err(Error::data("the system column and the first message say different things"))
        }
        Some(first) if first.role == "system" => Ok(()),
        _ => {
            turns.insert(0, Message::text("system", system));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sharegpt_goes_by_many_names() {
        let given = json!([
            {"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "GPT", "value": "a"},
            {"from": "user", "value": "q"}, {"from": "chatgpt", "value": "a", "weight": 0},
            {"from": "observation", "value": "o"}
        ]);
        let read = turns(&given, "conversations").unwrap();
        let roles: Vec<&str> = read.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user", "assistant", "tool"]);
        let scored: Vec<bool> = read.iter().map(|message| message.scored).collect();
        assert_eq!(scored, [false, false, true, false, false, false]);
    }

    #[test]
    fn calls_of_functions_keep_their_arguments_as_given() {
        let call = |value: &str| turns(&json!([{"from": "function_call", "value": value}]), "c");
        let one = call(r#"{"name": "f", "arguments": "{\"x\": 1}"}"#).unwrap();
        let calls = &one[0].fields["tool_calls"];
        assert_eq!(calls, &json!([{"type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]));
        let two = call(r#"[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {"x": 1}}]"#).unwrap();
        assert_eq!(two[0].fields["tool_calls"][1]["function"]["arguments"], json!({"x": 1}));
        for bad in ["f(x)", "[]", "{}", "[1]", "{\"name\": 1}"] {
            assert!(call(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_turn_that_nobody_answers_is_told() {
        let twice = json!([{"from": "human", "value": "a"}, {"from": "human", "value": "b"}]);
        let error = turns(&twice, "conversations").unwrap_err();
        assert_eq!(error.location.as_deref(), Some("conversations[1]"));
        assert!(error.what.contains("follow each other"));
        for bad in
            [json!([{"from": "narrator", "value": "a"}]), json!([{"from": "gpt"}]), json!([{"from": 3, "value": ""}])]
        {
            assert!(turns(&bad, "c").is_err());
        }
    }
}
