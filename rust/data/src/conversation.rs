//! Messages: who says what, as rows of every chat format give them.

use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// Who speaks.
pub const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// One of [`ROLES`].
    pub role: String,
    /// The text, when the message has one.
    pub content: Option<String>,
    /// What the template sees: all that the row gave but null values, with `content` as one string. `train` and
    /// `weight`, which say what is learned, are not among it.
    pub fields: Map<String, Value>,
    /// Whether an assistant's turn is trained on.
    pub scored: bool,
    /// How much its loss counts; 1 unless the row says otherwise.
    pub weight: f64,
    /// Whether it stood alone in its column, as text and not as a message.
    pub bare: bool,
}

impl Message {
    /// A message of plain text.
    #[must_use]
    pub fn text(role: &str, content: &str) -> Self {
        let mut fields = Map::new();
        fields.insert("role".into(), role.into());
        fields.insert("content".into(), content.into());
        let scored = role == "assistant";
        Self { role: role.into(), content: Some(content.into()), fields, scored, weight: 1.0, bare: false }
    }

    /// Text that stood alone in its column.
    #[must_use]
    pub fn bare(role: &str, content: &str) -> Self {
        Self { bare: true, ..Self::text(role, content) }
    }

    /// One message as chat formats give it: `{role, content, ...}`.
    ///
    /// # Errors
    /// It is none, or it holds something else than text.
    pub fn read(item: &Value) -> Result<Self> {
        message(item)
    }
}

/// A column that is a list of messages.
///
/// # Errors
/// It is none, it is empty, or one of them is no message.
pub fn messages(value: &Value, name: &str) -> Result<Vec<Message>> {
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
            "function" | "ipython" | "observation" => Some("tool"),
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
        // What it says may be a call, or thoughts alone.
        None if ["tool_calls", "reasoning_content", "reasoning", "thinking"]
            .iter()
            .any(|k| fields.contains_key(*k)) =>
        {
            None
        }
        None => {
            return Err(Error::data(format!("the {role} message has no content"))
                .fix("messages are objects with role and content"));
        }
    };
    if let Some(content) = &content {
        fields.insert("content".into(), content.as_str().into());
    }
    let (scored, weight) = learned(&mut fields, &role)?;
    Ok(Message { role, content, fields, scored, weight, bare: false })
}

/// Whether and how much a message is learned: its `train` and `weight`, which no template sees.
fn learned(fields: &mut Map<String, Value>, role: &str) -> Result<(bool, f64)> {
    let is_assistant = role == "assistant";
    let train = match fields.shift_remove("train") {
        None => is_assistant,
        Some(Value::Bool(train)) => train,
        Some(other) => return Err(Error::data(format!("train is {}, not true or false", kind_of(&other)))),
    };
    if train && !is_assistant {
        return Err(Error::data(format!("a {role} message has train: true"))
            .fix("only what assistants say is learned; leave train out"));
    }
    let weight = match fields.shift_remove("weight") {
        None => 1.0,
        Some(value) => value
            .as_f64()
            .filter(|weight| (0.0..f64::INFINITY).contains(weight))
            .ok_or_else(|| Error::data(format!("weight is {value}, not a number of at least 0")))?,
    };
    Ok((train && weight > 0.0, weight))
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
pub(crate) fn distance(a: &str, b: &str) -> usize {
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

    #[test]
    fn a_role_that_is_nearly_right_is_suggested() {
        for (given, meant) in [("assitant", "assistant"), ("bot", "assistant"), ("ipython", "tool"), ("human", "user")]
        {
            let error = messages(&json!([{"role": given, "content": "x"}]), "messages").unwrap_err();
            assert!(error.fix.unwrap().contains(&format!("did you mean {meant:?}")), "{given}");
            assert_eq!(error.location.as_deref(), Some("messages[0]"));
        }
    }

    #[test]
    fn parts_join_and_nulls_go() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let read = Message::read(&json!({"role": "user", "content": parts, "name": null})).unwrap();
        assert_eq!(read.content.as_deref(), Some("ab"));
        assert!(!read.fields.contains_key("name"));
        for part in ["image", "image_url", "input_audio", "video"] {
            let error = Message::read(&json!({"role": "user", "content": [{"type": part}]})).unwrap_err();
            assert!(error.what.contains(part), "{error}");
        }
    }

    #[test]
    fn content_may_be_missing_where_something_else_is_said() {
        let call = json!({"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f"}}]});
        assert_eq!(Message::read(&call).unwrap().content, None);
        let thought = json!({"role": "assistant", "content": null, "reasoning_content": "hm"});
        assert_eq!(Message::read(&thought).unwrap().content, None);
        assert!(Message::read(&json!({"role": "assistant", "content": null})).is_err());
        let text = Message::read(&json!({"role": "assistant", "content": "", "tool_calls": []})).unwrap();
        assert_eq!(text.content.as_deref(), Some(""));
    }

    #[test]
    fn train_and_weight_say_what_is_learned_and_no_template_sees_them() {
        let read = |extra: Value| {
            let mut message = json!({"role": "assistant", "content": "a"});
            message.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            Message::read(&message)
        };
        let scored = |extra: Value| read(extra).map(|m| (m.scored, m.weight)).unwrap();
        assert_eq!(scored(json!({})), (true, 1.0));
        assert_eq!(scored(json!({"train": false})), (false, 1.0));
        assert_eq!(scored(json!({"weight": 0})), (false, 0.0));
        assert_eq!(scored(json!({"train": true, "weight": 0.5})), (true, 0.5));
        assert_eq!(read(json!({"train": false, "weight": 2})).unwrap().fields.len(), 2);
        for bad in [json!({"train": "no"}), json!({"weight": -1}), json!({"weight": "much"})] {
            assert!(read(bad).is_err());
        }
        assert!(Message::read(&json!({"role": "user", "content": "a", "train": true})).is_err());
        assert!(!Message::read(&json!({"role": "user", "content": "a", "train": false})).unwrap().scored);
    }
}
