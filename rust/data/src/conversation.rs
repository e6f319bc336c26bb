//! A row of a data file as a conversation.

use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// Who speaks.
pub const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];

/// One message. `fields` holds everything the row gave but null values, with `content` as one string.
#[derive(Debug, Clone)]
pub struct Message {
    /// One of [`ROLES`].
    pub role: String,
    /// The text, when the message has one.
    pub content: Option<String>,
    /// What the template sees.
    pub fields: Map<String, Value>,
    /// Whether an assistant's turn is trained on.
    pub scored: bool,
}

impl Message {
    /// A message of plain text.
    #[must_use]
    pub fn text(role: &str, content: &str) -> Self {
        let mut fields = Map::new();
        fields.insert("role".into(), role.into());
        fields.insert("content".into(), content.into());
        Self { role: role.into(), content: Some(content.into()), fields, scored: role == "assistant" }
    }
}

/// How rows become conversations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// `messages`: a list of `{role, content}`.
    Messages,
    /// Two columns, each a string or a list of messages.
    Columns {
        /// The column of the prompt.
        prompt: String,
        /// The column of the completion.
        completion: String,
    },
    /// `instruction`, `input` (optional), `output`.
    Alpaca,
}

impl Format {
    /// The one format that fits every row of the sample, or, when a row is bad, the first row.
    ///
    /// # Errors
    /// None fits, or more than one does.
    pub fn detect(rows: &[Map<String, Value>]) -> Result<Self> {
        let candidates = [
            (Self::Messages, vec!["messages"]),
            (Self::columns("prompt", "completion"), vec!["prompt", "completion"]),
            (Self::Alpaca, vec!["instruction", "output"]),
        ];
        let fits = |keys: &[&str], rows: &[Map<String, Value>]| {
            rows.iter().all(|row| keys.iter().all(|key| row.contains_key(*key)))
        };
        let mut fitting: Vec<_> = candidates.iter().filter(|(_, keys)| fits(keys, rows)).cloned().collect();
        if fitting.is_empty() && !rows.is_empty() {
            fitting = candidates.into_iter().filter(|(_, keys)| fits(keys, &rows[..1])).collect();
        }
        if fitting.len() == 1 {
            return Ok(fitting.remove(0).0);
        }
        let mut found: Vec<&str> = rows.iter().flat_map(|row| row.keys().map(String::as_str)).collect();
        found.sort_unstable();
        found.dedup();
        let found = found.join(", ");
        let fix = "name the columns with prompt_column and completion_column";
        if fitting.is_empty() {
            return Err(Error::data("no known format fits the rows")
                .because(format!(
                    "the columns are {found}; known are messages, prompt and completion, instruction and output"
                ))
                .fix(fix));
        }
        Err(Error::data("more than one format fits the rows").because(format!("the columns are {found}")).fix(fix))
    }

    /// The name that reports use.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Messages => "messages".into(),
            Self::Columns { prompt, completion } => format!("{prompt}/{completion}"),
            Self::Alpaca => "alpaca".into(),
        }
    }

    /// Two columns by name.
    #[must_use]
    pub fn columns(prompt: &str, completion: &str) -> Self {
        Self::Columns { prompt: prompt.into(), completion: completion.into() }
    }

    /// The conversation of one row.
    ///
    /// # Errors
    /// A column is missing, or holds something else than this format asks for.
    pub fn read(&self, row: &Map<String, Value>) -> Result<Vec<Message>> {
        match self {
            Self::Messages => messages(column(row, "messages")?, "messages"),
            Self::Columns { prompt, completion } => {
                let mut turns = side(column(row, prompt)?, prompt, "user")?;
                for turn in &mut turns {
                    turn.scored = false;
                }
                let answer = side(column(row, completion)?, completion, "assistant")?;
                turns.extend(answer);
                Ok(turns)
            }
            Self::Alpaca => {
                let (prompt, output) = alpaca(row)?;
                Ok(vec![Message::text("user", &prompt), Message::text("assistant", output)])
            }
        }
    }

    /// Prompt and completion of one row as raw text, for training without a chat template.
    ///
    /// # Errors
    /// As [`Format::read`]; and conversations, which need a template.
    pub fn read_raw(&self, row: &Map<String, Value>) -> Result<(String, String)> {
        match self {
            Self::Messages => Err(Error::data("messages need a chat template")
                .fix("leave apply_chat_template on, or give prompt and completion columns")),
            Self::Columns { prompt, completion } => Ok((
                text(column(row, prompt)?, prompt)?.to_owned(),
                text(column(row, completion)?, completion)?.to_owned(),
            )),
            Self::Alpaca => alpaca(row).map(|(prompt, output)| (prompt, output.to_owned())),
        }
    }
}

fn column<'a>(row: &'a Map<String, Value>, name: &str) -> Result<&'a Value> {
    row.get(name).ok_or_else(|| {
        let found: Vec<&str> = row.keys().map(String::as_str).collect();
        Error::data(format!("no column {name:?}"))
            .because(format!("the row has {}", if found.is_empty() { "no columns".into() } else { found.join(", ") }))
            .fix("name the columns with prompt_column and completion_column")
    })
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value.as_str().ok_or_else(|| Error::data(format!("column {name:?} holds {}, not a string", kind_of(value))))
}

fn alpaca(row: &Map<String, Value>) -> Result<(String, &str)> {
    let instruction = text(column(row, "instruction")?, "instruction")?;
    let input = match row.get("input") {
        None | Some(Value::Null) => "",
        Some(value) => text(value, "input")?,
    };
    let output = text(column(row, "output")?, "output")?;
    let prompt = if input.is_empty() { instruction.to_owned() } else { format!("{instruction}\n\n{input}") };
    Ok((prompt, output))
}

fn side(value: &Value, name: &str, role: &str) -> Result<Vec<Message>> {
    match value {
        Value::String(content) => Ok(vec![Message::text(role, content)]),
        Value::Array(_) => messages(value, name),
        other => {
            Err(Error::data(format!("column {name:?} holds {}, not a string or a list of messages", kind_of(other))))
        }
    }
}

fn messages(value: &Value, name: &str) -> Result<Vec<Message>> {
    let Value::Array(items) = value else {
        return Err(Error::data(format!("column {name:?} holds {}, not a list of messages", kind_of(value))));
    };
    if items.is_empty() {
        return Err(Error::data(format!("column {name:?} is an empty list")));
    }
    items
        .iter()
        .enumerate()
        .map(|(index, item)| message(item).map_err(|error| error.at(format!("{name}[{index}]"))))
        .collect()
}

fn message(item: &Value) -> Result<Message> {
    let Value::Object(given) = item else {
        return Err(Error::data(format!("a message is {}, not an object", kind_of(item))));
    };
    // transformers drops null values before it renders, so that templates need not tell null from absent.
    let mut fields: Map<String, Value> =
        given.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone())).collect();
    let role = match fields.get("role") {
        Some(Value::String(role)) => role.clone(),
        Some(other) => {
            return Err(Error::data(format!("role is {}, not a string", kind_of(other))));
        }
        None => {
            let keys: Vec<&str> = given.keys().map(String::as_str).collect();
            return Err(Error::data("a message has no role")
                .because(format!("its fields are {}", keys.join(", ")))
                .fix("messages are objects with role and content"));
        }
    };
    if !ROLES.contains(&role.as_str()) {
        let other = match role.to_lowercase().as_str() {
            "bot" | "gpt" | "model" | "ai" | "chatbot" => Some("assistant"),
            "human" | "prompter" => Some("user"),
            _ => None,
        };
        let near = ROLES.iter().min_by_key(|known| distance(known, &role)).copied().unwrap_or("user");
        let (near, error) = (other.unwrap_or(near), Error::data(format!("unknown role {role:?}")));
        return Err(if other.is_some() || distance(near, &role) <= 3 {
            error.fix(format!("did you mean {near:?}? roles are {}", ROLES.join(", ")))
        } else {
            error.fix(format!("roles are {}", ROLES.join(", ")))
        });
    }
    let content = match fields.get("content") {
        Some(Value::String(content)) => Some(content.clone()),
        Some(Value::Array(parts)) => Some(joined(parts)?),
        Some(other) => {
            return Err(Error::data(format!("content is {}, not a string", kind_of(other))));
        }
        None if fields.contains_key("tool_calls") => None,
        None => {
            return Err(Error::data(format!("the {role} message has no content"))
                .fix("messages are objects with role and content"));
        }
    };
    if let Some(content) = &content {
        fields.insert("content".into(), content.as_str().into());
    }
    let scored = role == "assistant";
    Ok(Message { role, content, fields, scored })
}

fn joined(parts: &[Value]) -> Result<String> {
    let mut all = String::new();
    for part in parts {
        let kind = part.get("type").and_then(Value::as_str);
        let text = part.as_str().or_else(|| part.get("text").and_then(Value::as_str).filter(|_| kind == Some("text")));
        let Some(text) = text else {
            return Err(Error::data(format!("content has a part of type {:?}", kind.unwrap_or("none")))
                .fix("only text parts are read"));
        };
        all.push_str(text);
    }
    Ok(all)
}

/// A JSON value's type in words.
#[must_use]
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Levenshtein distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn formats_are_told_apart() {
        let messages = row(json!({"messages": [{"role": "user", "content": "a"}], "id": 1}));
        assert_eq!(Format::detect(std::slice::from_ref(&messages)).unwrap(), Format::Messages);
        let alpaca = row(json!({"instruction": "a", "input": "b", "output": "c"}));
        assert_eq!(Format::detect(std::slice::from_ref(&alpaca)).unwrap(), Format::Alpaca);
        assert_eq!(Format::Alpaca.read(&alpaca).unwrap()[0].content.as_deref(), Some("a\n\nb"));
        let error = Format::detect(&[row(json!({"question": "a", "answer": "b"}))]).unwrap_err();
        assert!(error.why.unwrap().contains("answer, question"));
        assert!(Format::detect(&[row(json!({"messages": [], "prompt": "", "completion": ""}))]).is_err());
        // A row that does not fit is found when it is read, with its line.
        assert_eq!(Format::detect(&[messages, alpaca.clone()]).unwrap(), Format::Messages);
        assert!(Format::Messages.read(&alpaca).is_err());
    }

    #[test]
    fn a_role_that_is_nearly_right_is_suggested() {
        let error =
            Format::Messages.read(&row(json!({"messages": [{"role": "assitant", "content": "x"}]}))).unwrap_err();
        assert!(error.fix.unwrap().contains("did you mean \"assistant\""));
        let error = Format::Messages.read(&row(json!({"messages": [{"role": "bot", "content": "x"}]}))).unwrap_err();
        assert!(error.fix.unwrap().contains("did you mean \"assistant\""));
        assert_eq!(error.location.as_deref(), Some("messages[0]"));
    }

    #[test]
    fn parts_join_and_nulls_go() {
        let given = json!({"messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": null}
        ]});
        let read = Format::Messages.read(&row(given)).unwrap();
        assert_eq!(read[0].content.as_deref(), Some("ab"));
        assert!(!read[0].fields.contains_key("name"));
        let image = json!({"messages": [{"role": "user", "content": [{"type": "image"}]}]});
        assert!(Format::Messages.read(&row(image)).is_err());
    }

    #[test]
    fn only_the_completion_is_scored() {
        let given = row(json!({
            "prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
            "completion": "d"
        }));
        let read = Format::columns("prompt", "completion").read(&given).unwrap();
        assert_eq!(read.iter().map(|m| m.scored).collect::<Vec<_>>(), [false, false, false, true]);
    }
}
