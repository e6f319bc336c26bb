//! A row under the names that readers ask for.

use super::Columns;
use crate::conversation::{Message, kind_of};
use crate::error::{Error, Result};
use crate::record::{About, Context};
use serde_json::{Map, Value};

/// What columns that do not fit are told.
pub(super) const NAME_COLUMNS: &str =
    "name the columns with prompt_column and completion_column, or with columns, or name the format";

/// A row whose columns go by the names that formats know them by.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) row: &'a Map<String, Value>,
    pub(super) columns: &'a Columns,
}

impl<'a> Row<'a> {
    /// The column that stands for this name.
    pub(super) fn column(&self, name: &'a str) -> &'a str {
        self.columns.get(name).map_or(name, String::as_str)
    }

    /// A column that may be missing; null is missing.
    pub(super) fn get(&self, name: &'a str) -> Option<&'a Value> {
        self.row.get(self.column(name)).filter(|value| !value.is_null())
    }

    /// The first of these columns that is there, with its name.
    pub(super) fn any(&self, names: &[&'a str]) -> Option<(&'a str, &'a Value)> {
        names.iter().find_map(|name| Some((self.column(name), self.get(name)?)))
    }

    /// A column that must be there, but may be null.
    pub(super) fn need(&self, name: &'a str) -> Result<&'a Value> {
        let column = self.column(name);
        self.row.get(column).ok_or_else(|| {
            let found: Vec<&str> = self.row.keys().map(String::as_str).collect();
            Error::data(format!("no column {column:?}"))
                .because(format!(
                    "the row has {}",
                    if found.is_empty() { "no columns".into() } else { found.join(", ") }
                ))
                .fix(NAME_COLUMNS)
        })
    }

    /// A column that must be text.
    pub(super) fn text(&self, name: &'a str) -> Result<&'a str> {
        text(self.need(name)?, self.column(name))
    }

    /// A column that is text or missing; empty when missing.
    pub(super) fn text_or_empty(&self, name: &'a str) -> Result<&'a str> {
        self.get(name).map_or(Ok(""), |value| text(value, self.column(name)))
    }

    /// A column that must be a list with something in it.
    pub(super) fn list(&self, name: &'a str) -> Result<&'a [Value]> {
        list(self.need(name)?, self.column(name))
    }

    /// A column that must be an object.
    pub(super) fn object(&self, name: &'a str) -> Result<&'a Map<String, Value>> {
        let value = self.need(name)?;
        value.as_object().ok_or_else(|| {
            Error::data(format!("column {:?} holds {}, not an object", self.column(name), kind_of(value)))
        })
    }

    /// A column that is a number or missing.
    pub(super) fn number(&self, name: &'a str) -> Result<Option<f64>> {
        self.get(name).map(|value| number(value, self.column(name))).transpose()
    }

    /// What a comparison says of itself: `criterion` and `weight`.
    pub(super) fn about(&self) -> Result<About> {
        let weight = self.number("weight")?;
        if weight.is_some_and(|weight| weight < 0.0) {
            return Err(Error::data(format!("column {:?} is below 0", self.column("weight")))
                .fix("give how much the record counts: 0 or more, 1 by default"));
        }
        Ok(About { criterion: self.get("criterion").cloned(), weight })
    }

    /// What a template is given beside the messages: `tools`, `documents`, `chat_template_kwargs`, each as JSON or as
    /// a string of it.
    pub(super) fn context(&self) -> Result<Context> {
        let variables = match self.json("chat_template_kwargs")? {
            None => Map::new(),
            Some(Value::Object(variables)) => variables,
            Some(other) => {
                return Err(Error::data(format!("chat_template_kwargs is {}, not an object", kind_of(&other))));
            }
        };
        let a_list = |name: &'a str| match self.json(name)? {
            Some(value) if !value.is_array() => {
                Err(Error::data(format!("column {:?} holds {}, not a list", self.column(name), kind_of(&value))))
            }
            value => Ok(value),
        };
        Ok(Context {
            tools: a_list("tools")?,
            documents: a_list("documents")?,
            variables,
            raw_prompt: None,
            asked: self.asked(),
        })
    }

    /// An instruction and its input, which a prompt joins.
    pub(super) fn asked(&self) -> Option<(String, String)> {
        let (_, instruction) = self.any(&["instruction", "question"])?;
        let input = self.get("input")?.as_str().filter(|input| !input.is_empty())?;
        Some((instruction.as_str()?.to_owned(), input.to_owned()))
    }

    fn json(&self, name: &'a str) -> Result<Option<Value>> {
        match self.get(name) {
            // Columns of mixed types are often kept as JSON text, since Arrow has no type for them.
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            Some(Value::String(text)) => {
                serde_json::from_str(text).map(|value: Value| Some(value).filter(|value| !value.is_null())).map_err(
                    |e| Error::data(format!("column {:?} is text that is not JSON", self.column(name))).because(e),
                )
            }
            value => Ok(value.cloned()),
        }
    }
}

/// Text, or an error that names its place.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value.as_str().ok_or_else(|| Error::data(format!("column {name:?} holds {}, not a string", kind_of(value))))
}

/// A list with something in it, or an error that names its place.
pub(super) fn list<'a>(value: &'a Value, name: &str) -> Result<&'a [Value]> {
    match value {
        Value::Array(items) if items.is_empty() => Err(Error::data(format!("column {name:?} is an empty list"))),
        Value::Array(items) => Ok(items),
        other => Err(Error::data(format!("column {name:?} holds {}, not a list", kind_of(other)))),
    }
}

/// A finite number, or a string of one.
pub(super) fn number(value: &Value, name: &str) -> Result<f64> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    };
    number
        .filter(|number: &f64| number.is_finite())
        .ok_or_else(|| Error::data(format!("{name} is {value}, not a number")).fix("give a finite number"))
}

/// Two columns that go together, item by item.
pub(super) fn same_length(one: (&str, usize), other: (&str, usize)) -> Result<()> {
    if one.1 == other.1 {
        return Ok(());
    }
    Err(Error::data(format!("{} has {} items, {} has {}", one.0, one.1, other.0, other.1)))
}

/// A field of an object that stands inside a column.
pub(super) fn field<'a>(item: &'a Value, name: &str, at: &str) -> Result<&'a Value> {
    item.get(name).ok_or_else(|| Error::data(format!("there is no {name}")).at(at))
}

/// Replies are learned; nothing of a prompt is.
pub(super) fn unscored(mut prompt: Vec<Message>) -> Vec<Message> {
    for message in &mut prompt {
        message.scored = false;
    }
    prompt
}
