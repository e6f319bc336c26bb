//! Filters, functions and methods that promptsource's templates use and minijinja lacks, as Jinja2 and Python have them.

use super::mutable::List;
use super::{DRAWS, Draws};
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, filters};
use std::collections::HashMap;

type Result<T> = std::result::Result<T, Error>;

pub(super) fn register(env: &mut Environment<'static>) {
    env.add_filter("choice", choice);
    env.add_filter("random", choice);
    env.add_filter("most_frequent", most_frequent);
    env.add_filter("highlight", |text: &str| format!("<span style='color: #F08080'>{text}</span>"));
    env.add_filter("truncate", truncate);
    env.add_filter("int", |state: &State, value: &Value, default: Option<Value>, base: Option<u32>, named: Kwargs| {
        filters::int(state, defined(value)?, default, base, named)
    });
    env.add_filter("float", |state: &State, value: &Value, default: Option<Value>, named: Kwargs| {
        filters::float(state, defined(value)?, default, named)
    });
    env.add_function("zip", zip);
    env.set_formatter(|output, state, value| match f64::try_from(value.clone()) {
        Ok(float) if value.kind() == ValueKind::Number && !value.is_integer() => {
            output.write_str(&repr(float)).map_err(Error::from)
        }
        _ => minijinja::escape_formatter(output, state, value),
    });
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

/// Jinja2 makes no number of what is not there, not even the default.
fn defined(value: &Value) -> Result<&Value> {
    if value.is_undefined() { Err(Error::from(ErrorKind::UndefinedError)) } else { Ok(value) }
}

/// `random.choice` with the row's own draws.
fn choice(state: &State, items: Value) -> Result<Value> {
    let drawn = state.lookup(DRAWS);
    let draws = drawn.as_ref().and_then(|value| value.downcast_object_ref::<Draws>());
    let draws = draws.ok_or_else(|| invalid("there is nothing to draw from"))?;
    let length =
        items.len().filter(|&length| length > 0).ok_or_else(|| invalid("cannot choose from an empty sequence"))?;
    let index = draws.below(length);
    match items.as_str() {
        Some(text) => Ok(Value::from(text.chars().nth(index).map(String::from).unwrap_or_default())),
        None => items.get_item(&Value::from(index)),
    }
}

/// The items that appear most often, in the order in which they come first; nothing for no items.
fn most_frequent(items: Value) -> Result<Value> {
    if !items.is_true() {
        return Ok(Value::from(()));
    }
    let mut counts: HashMap<Value, (usize, usize)> = HashMap::new();
    for (index, item) in items.try_iter()?.checked().enumerate() {
        counts.entry(item?).or_insert((index, 0)).1 += 1;
    }
    let most = counts.values().map(|(_, count)| *count).max().unwrap_or(0);
    let mut found: Vec<(usize, Value)> =
        counts.into_iter().filter(|(_, (_, count))| *count == most).map(|(item, (first, _))| (first, item)).collect();
    found.sort_by_key(|(first, _)| *first);
    Ok(Value::from(found.into_iter().map(|(_, item)| item).collect::<Vec<_>>()))
}

/// Jinja2's: a text that is at most 5 characters too long stays; a longer one is cut, with the word that the cut hits.
fn truncate(
    text: &str,
    length: Option<usize>,
    killwords: Option<bool>,
    end: Option<&str>,
    leeway: Option<usize>,
) -> Result<String> {
    let (length, end) = (length.unwrap_or(255), end.unwrap_or("..."));
    let kept = length
        .checked_sub(end.chars().count())
        .ok_or_else(|| invalid("truncate: the end is longer than the length"))?;
    if text.chars().count() <= length + leeway.unwrap_or(5) {
        return Ok(text.to_owned());
    }
    let cut: String = text.chars().take(kept).collect();
    let cut =
        if killwords.unwrap_or(false) { &cut } else { cut.rsplit_once(' ').map_or(cut.as_str(), |(head, _)| head) };
    Ok(format!("{cut}{end}"))
}

/// `repr` of a float, which Rust writes the same but for the exponent's sign and digits.
fn repr(float: f64) -> String {
    let text = format!("{float:?}");
    match text.split_once('e') {
        None if float.is_nan() => "nan".into(),
        None => text,
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}

fn zip(state: &State, lists: Rest<Value>) -> Result<Value> {
    let mut iterators = lists.iter().map(Value::try_iter).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    if iterators.is_empty() {
        return Ok(Value::from(rows));
    }
    loop {
        state.consume_fuel(iterators.len() as u64)?;
        let row: Option<Vec<Value>> = iterators.iter_mut().map(Iterator::next).collect();
        match row {
            Some(row) => rows.push(Value::from(row)),
            None => return Ok(Value::from(rows)),
        }
    }
}

/// Python's methods of texts, lists and mappings.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value> {
    match (name, value.kind(), args) {
        ("index", ValueKind::Seq, [item]) => {
            for (index, found) in value.try_iter()?.checked().enumerate() {
                if found? == *item {
                    return Ok(Value::from(index));
                }
            }
            Err(invalid(format!("{item} is not in the list")))
        }
        ("index", ValueKind::String, [part]) => {
            let (text, part) = (value.as_str().unwrap_or(""), part.as_str().unwrap_or(""));
            let at = text.find(part).ok_or_else(|| invalid("substring not found"))?;
            Ok(Value::from(text[..at].chars().count()))
        }
        // Python gives a list that can grow.
        ("split", ValueKind::String, _) => {
            let parts = minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)?;
            List::from_iterable(state, &parts)
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}
