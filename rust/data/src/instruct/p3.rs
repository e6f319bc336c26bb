//! PromptSource's templates: Jinja with `|||` between prompt and target.
//!
//! Rendered as promptsource 0.2.3 renders them with `truncate=False`, with three differences that are on purpose.
//! The separator is marked in the template before it is rendered, not hidden in the values, so that a value may hold
//! `|||` at any depth. `choice` and `random` draw from a seed. And a template has limits, as chat templates have: it
//! comes with a data set and is untrusted.

mod mutable;
mod python;

use super::{Draws, Made, Pair, strip};
use crate::error::{Error, Kind, Result};
use crate::template::{Capped, INSTRUCT_FUEL, limits};
use minijinja::value::{Object, Serde, Value};
use minijinja::{Environment, ErrorKind};
use serde_json::Map;
use std::collections::BTreeMap;

const SEPARATOR: &str = "|||";
/// What stands for the separator while a template is rendered: private characters, so that no filter changes them.
const MARK: char = '\u{10F8F5}';
const MARKS: &str = "\u{10F8F5}\u{10F8F5}\u{10F8F5}";
const CHOICES: &str = "answer_choices";
const DRAWS: &str = "__draws";

impl Object for Draws {}

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    env: Environment<'static>,
    has_choices: bool,
}

impl Template {
    /// Compile a template.
    ///
    /// `answer_choices` is an expression that renders to the choices with `|||` between them. With `truncate` every
    /// value is cut to so many characters, which is what promptsource does unless it is told otherwise (2048).
    ///
    /// # Errors
    /// A source is too large, too deep, or not a template.
    pub fn new(id: &str, jinja: &str, answer_choices: Option<&str>, truncate: Option<usize>) -> Result<Self> {
        let mut env = Environment::new();
        env.set_fuel(Some(INSTRUCT_FUEL));
        env.set_recursion_limit(100);
        env.set_unknown_method_callback(python::method);
        python::register(&mut env);
        mutable::register(&mut env);
        let cut = truncate.map(|length| jinja.replace("}}", &format!(" | string | truncate({length}) }}}}")));
        for (name, source) in [("jinja", Some(cut.as_deref().unwrap_or(jinja))), (CHOICES, answer_choices)] {
            let Some(source) = source else { continue };
            limits::check(source).map_err(|error| refused(&error, id))?;
            let source = mutable::rewrite(&source.replace(SEPARATOR, MARKS));
            env.add_template_owned(name, source).map_err(|e| failed("the template cannot be compiled", &e))?;
        }
        Ok(Self { env, has_choices: answer_choices.is_some() })
    }

    /// The parts that `|||` separates, each stripped.
    ///
    /// # Errors
    /// The row has a column `answer_choices`, or the template fails on it or runs out of its budget.
    pub fn parts(&self, row: &Map<String, serde_json::Value>, draws: &Draws) -> Result<Vec<String>> {
        if row.contains_key(CHOICES) {
            return Err(Error::data("the row has a column \"answer_choices\"")
                .because("templates see their answer choices by this name")
                .fix("rename the column"));
        }
        // A row that holds the mark is rendered with another character in its place.
        let other = if holds(row.values(), MARK) { Some(free_mark(row)?) } else { None };
        let mut variables: BTreeMap<&str, Value> = BTreeMap::new();
        for (name, value) in row.iter().filter(|(name, _)| !name.starts_with("__")) {
            let value = match other {
                Some(other) => Value::from(Serde(&replaced(value, MARK, other))),
                None => Value::from(Serde(value)),
            };
            variables.insert(name, value);
        }
        variables.insert(DRAWS, Value::from_object(Draws::new(draws.bits(), 0, "")));
        let split = |text: &str| -> Vec<String> { text.split(MARKS).map(|part| strip(part).to_owned()).collect() };
        let choices =
            if self.has_choices { Value::from(split(&self.render(CHOICES, &variables)?)) } else { Value::from(()) };
        variables.insert(CHOICES, choices);
        let mut parts = split(&self.render("jinja", &variables)?);
        if let Some(other) = other {
            parts.iter_mut().for_each(|part| *part = part.replace(other, &MARK.to_string()));
        }
        Ok(parts)
    }

    /// The pair that a row makes, or why it makes none.
    ///
    /// # Errors
    /// As [`Template::parts`].
    pub fn pair(&self, row: &Map<String, serde_json::Value>, draws: &Draws) -> Result<Made> {
        let mut parts = self.parts(row, draws)?;
        if parts.len() > 2 {
            return Ok(Made::Dropped("the template has more than one |||"));
        }
        let target = if parts.len() == 2 { parts.pop() } else { None };
        Ok(match (parts.pop(), target) {
            (_, None) => Made::Dropped("the template has no target for the row"),
            (_, Some(target)) if target.is_empty() => Made::Dropped("the target is empty"),
            (Some(prompt), Some(_)) if prompt.is_empty() => Made::Dropped("the prompt is empty"),
            (prompt, Some(target)) => Made::Pair(Pair { prompt: prompt.unwrap_or_default(), target }),
        })
    }

    fn render(&self, name: &str, variables: &BTreeMap<&str, Value>) -> Result<String> {
        let template = self.env.get_template(name).map_err(|e| failed("the template is missing", &e))?;
        let mut output = Capped(Vec::new());
        template.render_captured_to(Value::from(variables.clone()), &mut output).map_err(|error| {
            let what = match error.kind() {
                ErrorKind::OutOfFuel => "the template takes too many steps",
                ErrorKind::WriteFailure => "the template writes too much",
                _ => "the template fails on this row",
            };
            failed(what, &error)
        })?;
        String::from_utf8(output.0)
            .map_err(|e| Error::new(Kind::Template, "the template writes broken UTF-8").because(e))
    }
}

fn refused(error: &Error, id: &str) -> Error {
    Error::new(Kind::Template, "the template is refused")
        .at(format!("template {id}"))
        .because(error.why.as_deref().unwrap_or(&error.what))
        .fix("templates of data sets are untrusted; leave this one out")
}

fn failed(what: &str, error: &minijinja::Error) -> Error {
    let line = error.line().map(|line| format!(" (line {line} of the template)")).unwrap_or_default();
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    Error::new(Kind::Template, what)
        .because(format!("{detail}{line}"))
        .fix("mend the template or the row, or set on_bad_row to skip")
}

fn holds<'a>(values: impl IntoIterator<Item = &'a serde_json::Value>, mark: char) -> bool {
    values.into_iter().any(|value| match value {
        serde_json::Value::String(text) => text.contains(mark),
        serde_json::Value::Array(items) => holds(items, mark),
        serde_json::Value::Object(map) => map.keys().any(|key| key.contains(mark)) || holds(map.values(), mark),
        _ => false,
    })
}

fn free_mark(row: &Map<String, serde_json::Value>) -> Result<char> {
    ('\u{10F900}'..='\u{10FAFF}')
        .find(|&mark| !holds(row.values(), mark))
        .ok_or_else(|| Error::data("the row holds every private character that could stand for |||"))
}

fn replaced(value: &serde_json::Value, from: char, to: char) -> serde_json::Value {
    let text = |text: &str| text.replace(from, &to.to_string());
    match value {
        serde_json::Value::String(given) => text(given).into(),
        serde_json::Value::Array(items) => items.iter().map(|item| replaced(item, from, to)).collect(),
        serde_json::Value::Object(map) => {
            map.iter().map(|(key, item)| (text(key), replaced(item, from, to))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
