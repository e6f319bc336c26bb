//! Lists and mappings that grow (`append`, `pop`, `update`), which minijinja has not and promptsource's templates use.
//!
//! A list or mapping that is put into one that is there already goes in as a copy, so that nothing can contain itself.

use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Result<T> = std::result::Result<T, Error>;

const MAX_DEPTH: usize = 50;
const METHODS: [&str; 6] = [".append(", ".extend(", ".insert(", ".pop(", ".remove(", ".update("];

/// A Python list, and how deep what it was made of nests.
#[derive(Debug)]
pub(super) struct List(Mutex<Vec<Value>>, usize);

/// A Python dict, likewise; the order is that of insertion.
#[derive(Debug)]
struct Dict(Mutex<Entries>, usize);

#[derive(Debug, Default)]
struct Entries {
    positions: BTreeMap<Value, usize>,
    items: Vec<Option<(Value, Value)>>,
}

pub(super) fn register(env: &mut Environment<'static>) {
    env.add_function("__list", |state: &State, items: Value| List::from_iterable(state, &items));
    env.add_function("__dict", |state: &State, items: Value| {
        let mut entries = Entries::default();
        let depth = nesting(state, &items, MAX_DEPTH)?;
        entries.update(state, &items)?;
        Ok::<_, Error>(Value::from_object(Dict(Mutex::new(entries), depth)))
    });
    env.add_filter("list", |state: &State, items: Value| List::from_iterable(state, &items));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How deep lists and mappings nest: dropping a chain of them recurses, so there is a limit.
fn nesting(state: &State, value: &Value, left: usize) -> Result<usize> {
    if let Some(list) = value.downcast_object_ref::<List>() {
        return Ok(list.1);
    }
    if let Some(dict) = value.downcast_object_ref::<Dict>() {
        return Ok(dict.1);
    }
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map) {
        return Ok(0);
    }
    let mut deepest = 0;
    for item in value.try_iter()?.checked() {
        state.consume_fuel(1)?;
        let item = item?;
        let held = if value.kind() == ValueKind::Map { value.get_item(&item)? } else { item };
        let left = left.checked_sub(1).ok_or_else(too_deep)?;
        deepest = deepest.max(nesting(state, &held, left)?);
    }
    if deepest >= MAX_DEPTH { Err(too_deep()) } else { Ok(deepest + 1) }
}

fn too_deep() -> Error {
    invalid("lists nest too deep")
}

/// A copy that nobody changes, as deep as lists and mappings go.
fn frozen(state: &State, value: &Value, depth: usize) -> Result<Value> {
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map) {
        return Ok(value.clone());
    }
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    let mut items = Vec::new();
    for item in value.try_iter()?.checked() {
        state.consume_fuel(1)?;
        let item = item?;
        items.push(if value.kind() == ValueKind::Seq {
            (frozen(state, &item, depth + 1)?, Value::UNDEFINED)
        } else {
            let held = frozen(state, &value.get_item(&item)?, depth + 1)?;
            (item, held)
        });
    }
    if value.kind() == ValueKind::Map {
        let mut deepest = 0;
        for (_, held) in &items {
            deepest = deepest.max(nesting(state, held, MAX_DEPTH)?);
        }
        return Ok(Value::from_object(Dict(Mutex::new(Entries::from(items)), deepest + 1)));
    }
    let items: Vec<Value> = items.into_iter().map(|(item, _)| item).collect();
    Ok(if value.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) })
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.to_owned())
}

impl List {
    pub(super) fn from_iterable(state: &State, items: &Value) -> Result<Value> {
        if items.is_undefined() {
            return Ok(Value::from_object(Self(Mutex::default(), 1)));
        }
        let mut list = Vec::new();
        let mut depth = 0;
        for item in items.try_iter()?.checked() {
            state.consume_fuel(1)?;
            let item = item?;
            depth = depth.max(nesting(state, &item, MAX_DEPTH)?);
            list.push(item);
        }
        if depth >= MAX_DEPTH {
            return Err(too_deep());
        }
        Ok(Value::from_object(Self(Mutex::new(list), depth + 1)))
    }
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        lock(&self.0).get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(lock(&self.0).len())
    }

    fn call_method(self: &Arc<Self>, state: &mut State, method: &str, args: &[Value]) -> Result<Value> {
        let added = args.iter().map(|value| frozen(state, value, 0)).collect::<Result<Vec<_>>>()?;
        let mut items = lock(&self.0);
        let none = Value::from(());
        match (method, added.as_slice()) {
            ("append", [item]) => items.push(item.clone()),
            ("extend", [more]) => {
                for item in more.try_iter()?.checked() {
                    state.consume_fuel(1)?;
                    items.push(item?);
                }
            }
            ("insert", [at, item]) => {
                let at = position(at, items.len()).ok_or_else(|| invalid("insert takes an index"))?;
                items.insert(at, item.clone());
            }
            ("remove", [item]) => {
                let at = items.iter().position(|found| found == item);
                items.remove(at.ok_or_else(|| invalid("list.remove(x): x not in list"))?);
            }
            ("pop", at @ ([] | [_])) => {
                let at = at.first().map_or_else(|| items.len().checked_sub(1), |at| position(at, items.len()));
                let at = at.filter(|&at| at < items.len()).ok_or_else(|| invalid("pop index out of range"))?;
                return Ok(items.remove(at));
            }
            _ => return Err(Error::from(ErrorKind::UnknownMethod)),
        }
        Ok(none)
    }
}

/// A Python index, which counts from the end when it is negative, as one into a list of this length.
fn position(index: &Value, length: usize) -> Option<usize> {
    let index = index.as_i64()?;
    let length = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { (index + length).max(0) } else { index.min(length) }).ok()
}

impl Entries {
    fn update(&mut self, state: &State, items: &Value) -> Result<()> {
        if items.kind() != ValueKind::Map {
            return Err(invalid("update takes a mapping"));
        }
        for key in items.try_iter()?.checked() {
            state.consume_fuel(1)?;
            let key = key?;
            let value = items.get_item(&key)?;
            self.insert(key, value);
        }
        Ok(())
    }

    fn insert(&mut self, key: Value, value: Value) {
        match self.positions.get(&key) {
            Some(&at) => self.items[at] = Some((key, value)),
            None => {
                self.positions.insert(key.clone(), self.items.len());
                self.items.push(Some((key, value)));
            }
        }
    }

    fn from(items: Vec<(Value, Value)>) -> Self {
        let mut entries = Self::default();
        items.into_iter().for_each(|(key, value)| entries.insert(key, value));
        entries
    }
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let entries = lock(&self.0);
        let at = *entries.positions.get(key)?;
        entries.items[at].as_ref().map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(lock(&self.0).items.iter().flatten().map(|(key, _)| key.clone()).collect())
    }

    fn call_method(self: &Arc<Self>, state: &mut State, method: &str, args: &[Value]) -> Result<Value> {
        let added = args.iter().map(|value| frozen(state, value, 0)).collect::<Result<Vec<_>>>()?;
        let mut entries = lock(&self.0);
        match (method, added.as_slice()) {
            ("update", [items]) => entries.update(state, items).map(|()| Value::from(())),
            ("pop", [key] | [key, _]) => match entries.positions.remove(key) {
                Some(at) => Ok(entries.items[at].take().map(|(_, value)| value).unwrap_or_default()),
                None => added.get(1).cloned().ok_or_else(|| invalid("the mapping has no such key")),
            },
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// The template with its list and mapping literals made to grow, where it calls a method that changes them.
pub(super) fn rewrite(source: &str) -> String {
    if !METHODS.iter().any(|method| source.contains(method)) || source.contains("raw") {
        return source.to_owned();
    }
    let mut output = String::with_capacity(source.len() + 256);
    let mut rest = source;
    while let Some(start) = ["{%", "{{", "{#"].iter().filter_map(|open| rest.find(open)).min() {
        output.push_str(&rest[..start]);
        let close = match &rest[start..start + 2] {
            "{#" => {
                rest = rest[start..].find("#}").map_or("", |end| &rest[start + end + 2..]);
                continue;
            }
            "{%" => "%}",
            _ => "}}",
        };
        output.push_str(&rest[start..start + 2]);
        rest = block(&rest[start + 2..], close, &mut output);
    }
    output.push_str(rest);
    output
}

/// Rewrite one block up to its end and return what follows it.
fn block<'a>(body: &'a str, close: &str, output: &mut String) -> &'a str {
    let mut brackets: Vec<&str> = Vec::new();
    // Whether what stands before can be subscripted, which tells `a[0]` from `in [0]`.
    let mut value_before = false;
    let mut at = 0;
    while let Some(c) = body[at..].chars().next() {
        let word = body[at..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(body.len() - at);
        let (taken, written) = match c {
            _ if brackets.is_empty() && body[at..].starts_with(close) => {
                output.push_str(close);
                return &body[at + 2..];
            }
            '"' | '\'' => {
                value_before = true;
                let taken = string_length(&body[at..], c);
                (taken, &body[at..at + taken])
            }
            _ if word > 0 => {
                let text = &body[at..at + word];
                value_before = !matches!(text, "in" | "not" | "and" | "or" | "if" | "else" | "elif" | "is" | "set");
                (word, text)
            }
            '[' | '{' | '(' => {
                let (open, end) = match c {
                    '[' if !value_before => ("__list([", "])"),
                    '{' => ("__dict({", "})"),
                    '[' => ("[", "]"),
                    _ => ("(", ")"),
                };
                brackets.push(end);
                value_before = false;
                (1, open)
            }
            ']' | '}' | ')' => {
                value_before = true;
                (1, brackets.pop().unwrap_or(&body[at..=at]))
            }
            c => {
                value_before &= c.is_whitespace();
                (c.len_utf8(), &body[at..at + c.len_utf8()])
            }
        };
        output.push_str(written);
        at += taken;
    }
    ""
}

/// Bytes of the string literal that `text` begins with.
fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn only_literals_of_templates_that_change_them_are_rewritten() {
        assert_eq!(rewrite("{% set a = [1] %}{{ a[0] }}"), "{% set a = [1] %}{{ a[0] }}");
        assert_eq!(
            rewrite("{# [ #}x[{% set a = [b[0], '[', {'k': []}] %}{{ a.append(a[-1]) if 1 in [1] }}"),
            "x[{% set a = __list([b[0], '[', __dict({'k': __list([])})]) %}{{ a.append(a[-1]) if 1 in __list([1]) }}"
        );
        assert_eq!(rewrite("{{ a.append(\"\\\"]\") }} ["), "{{ a.append(\"\\\"]\") }} [");
    }
}
