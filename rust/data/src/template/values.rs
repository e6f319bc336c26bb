//! Data as templates see it: as Python would have it.

use crate::error::{Error, Kind, Result};
use crate::source::json::wide;
use minijinja::value::{Object, ObjectRepr, Value, ValueKind};
use serde_json::{Map, Value as Json};
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// A float that Python writes with an exponent and Rust without; the others are plain floats.
#[derive(Debug)]
pub(super) struct Exponent(pub(super) f64);

impl Object for Exponent {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&float(self.0))
    }
}

/// Python's `repr` of a float.
pub(super) fn float(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_nan() {
        "nan".into()
    } else if value.is_infinite() {
        if value > 0.0 { "inf".into() } else { "-inf".into() }
    } else if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let shortest = format!("{value:e}");
        let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        format!("{digits}e{sign}{exponent:0>2}")
    } else {
        let mut shortest = value.to_string();
        if !shortest.contains('.') {
            shortest.push_str(".0");
        }
        shortest
    }
}

/// JSON as template data.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => {
            if let Some(number) = number.as_i64() {
                Value::from(number)
            } else if let Some(number) = number.as_u64() {
                Value::from(number)
            } else {
                let number = number.as_f64().unwrap_or(f64::NAN);
                let magnitude = number.abs();
                if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
                    Value::from_object(Exponent(number))
                } else {
                    Value::from(number)
                }
            }
        }
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(value).collect::<Vec<_>>()),
        Json::Object(map) => match wide(json).map(|digits| (digits.parse::<i128>(), digits.parse::<u128>())) {
            Some((Ok(number), _)) => Value::from(number),
            Some((_, Ok(number))) => Value::from(number),
            _ => Value::from_pairs(map.iter().map(|(key, item)| (key.as_str(), value(item)))),
        },
    }
}

/// Names that a message's reasoning goes by; transformers copies it from the first that is there.
pub(crate) const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A message, with its reasoning under the names that templates read, and without null values.
pub(super) fn message(fields: &Map<String, Json>, replaced: &dyn Fn(&str) -> Option<Value>) -> Value {
    let reasoning = REASONING.iter().find(|name| fields.get(**name).is_some_and(|value| !value.is_null()));
    let field = |name: &str| replaced(name).or_else(|| fields.get(name).filter(|json| !json.is_null()).map(value));
    let kept = fields.keys().filter(|name| !fields[name.as_str()].is_null());
    let Some(&reasoning) = reasoning else {
        return Value::from_pairs(kept.filter_map(|name| field(name).map(|value| (name.as_str(), value))));
    };
    let text = field(reasoning);
    let mut pairs: Vec<(&str, Option<Value>)> = Vec::with_capacity(fields.len() + 2);
    pairs.push(("thinking", field("thinking").or_else(|| text.clone())));
    for name in kept.filter(|name| *name != "thinking") {
        pairs.push((name, if name == "reasoning_content" { text.clone() } else { field(name) }));
    }
    if reasoning != "reasoning_content" {
        pairs.push(("reasoning_content", text));
    }
    Value::from_pairs(pairs.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))))
}

/// Python's `str.isspace` of one character, which is what `strip` and `split` take away.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// How `json.dumps` writes.
pub(super) struct Style {
    pub(super) indent: Option<usize>,
    pub(super) ascii: bool,
    pub(super) sort: bool,
    pub(super) item: String,
    pub(super) key: String,
}

const MAX_DEPTH: usize = 200;

impl Style {
    /// `json.dumps(value)` with only non-ASCII text left as it is.
    pub(super) fn plain() -> Self {
        Self { indent: None, ascii: false, sort: false, item: ", ".into(), key: ": ".into() }
    }

    /// Write a value as Python does.
    ///
    /// # Errors
    /// It is undefined or an object that JSON does not know, as in Python; or it nests too deep.
    pub(super) fn write(&self, value: &Value, depth: usize, output: &mut String) -> std::result::Result<(), String> {
        if depth > MAX_DEPTH {
            return Err("it nests too deep for JSON".into());
        }
        match value.kind() {
            ValueKind::None => output.push_str("null"),
            ValueKind::Bool => output.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => {
                let _ = write!(output, "{value}");
            }
            ValueKind::Number => output.push_str(&json_float(f64::try_from(value.clone()).unwrap_or(f64::NAN))),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), output),
            ValueKind::Seq => {
                let items: Vec<Value> = value.try_iter().map_err(|error| error.to_string())?.collect();
                self.list('[', ']', items.len(), depth, output, |index, output| {
                    self.write(&items[index], depth + 1, output)
                })?;
            }
            ValueKind::Map => {
                let keys = value.try_iter().map_err(|error| error.to_string())?;
                let mut entries = Vec::with_capacity(value.len().unwrap_or(0));
                for key in keys {
                    let name = match key.kind() {
                        ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
                        ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                            let mut name = String::new();
                            self.write(&key, depth, &mut name)?;
                            name
                        }
                        kind => return Err(format!("keys must be str, int, float, bool or None, not {kind}")),
                    };
                    let item = value.get_item(&key).map_err(|error| error.to_string())?;
                    entries.push((name, item));
                }
                if self.sort {
                    entries.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.list('{', '}', entries.len(), depth, output, |index, output| {
                    self.string(&entries[index].0, output);
                    output.push_str(&self.key);
                    self.write(&entries[index].1, depth + 1, output)
                })?;
            }
            _ => match value.downcast_object_ref::<Exponent>() {
                Some(Exponent(number)) => output.push_str(&json_float(*number)),
                None => return Err(format!("{} is not JSON serializable", value.kind())),
            },
        }
        Ok(())
    }

    fn list(
        &self,
        open: char,
        close: char,
        count: usize,
        depth: usize,
        output: &mut String,
        mut each: impl FnMut(usize, &mut String) -> std::result::Result<(), String>,
    ) -> std::result::Result<(), String> {
        output.push(open);
        for index in 0..count {
            if index > 0 {
                output.push_str(&self.item);
            }
            self.newline(depth + 1, output);
            each(index, output)?;
        }
        if count > 0 {
            self.newline(depth, output);
        }
        output.push(close);
        Ok(())
    }

    fn newline(&self, depth: usize, output: &mut String) {
        if let Some(indent) = self.indent {
            output.push('\n');
            output.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&self, text: &str, output: &mut String) {
        output.push('"');
        for c in text.chars() {
            match c {
                '"' => output.push_str("\\\""),
                '\\' => output.push_str("\\\\"),
                '\n' => output.push_str("\\n"),
                '\r' => output.push_str("\\r"),
                '\t' => output.push_str("\\t"),
                '\u{8}' => output.push_str("\\b"),
                '\u{c}' => output.push_str("\\f"),
                c if (c as u32) < 0x20 || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(output, "\\u{unit:04x}");
                    }
                }
                c => output.push(c),
            }
        }
        output.push('"');
    }
}

fn json_float(number: f64) -> String {
    match float(number).as_str() {
        "nan" => "NaN".into(),
        "inf" => "Infinity".into(),
        "-inf" => "-Infinity".into(),
        other => other.to_owned(),
    }
}

/// Template data as JSON text, for a renderer outside of this process.
pub(super) fn json(value: &Value) -> Result<String> {
    let mut output = String::new();
    Style::plain()
        .write(value, 0, &mut output)
        .map_err(|why| Error::new(Kind::Template, "a conversation cannot be written as JSON").because(why))?;
    Ok(output)
}
