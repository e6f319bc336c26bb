//! JSON text as a row, or the reason why it is none. Nothing is rounded, replaced or dropped on the way.

use crate::error::{Error, Result};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::fmt;

/// The only key of the object that stands for an integer of 65 to 128 bits, which [`Value`] cannot hold as a number.
const WIDE: &str = "$alignite::integer";

/// One row.
///
/// # Errors
/// It is not UTF-8, not JSON, nested more than 127 deep, not an object, or it holds NaN, a lone surrogate, the same key
/// twice, or an integer of more than 128 bits.
pub fn parse(bytes: &[u8]) -> Result<Map<String, Value>> {
    match value(bytes)? {
        Value::Object(row) if !row.contains_key(WIDE) => Ok(row),
        other => {
            Err(Error::data(format!("the line is {}, not an object", kind(&other))).fix("write one JSON object a line"))
        }
    }
}

/// One value, as exactly as [`parse`] reads it.
///
/// # Errors
/// As there.
pub fn value(bytes: &[u8]) -> Result<Value> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Error::data("the line is not UTF-8").because(e).fix("save the file as UTF-8"))?;
    let large = Cell::new(false);
    let parsed = read(text, Exactly { large: &large, widen: false });
    if large.get() && parsed.is_ok() {
        // A float of this size may have been an integer; rare enough to look a second time.
        let quoted = quote_wide(text)?;
        return read(&quoted, Exactly { large: &large, widen: true }).map_err(|error| not_json(text, &error));
    }
    parsed.map_err(|error| not_json(text, &error))
}

fn read(text: &str, seed: Exactly<'_>) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

fn not_json(text: &str, error: &serde_json::Error) -> Error {
    if error.is_data() {
        // Ours: it says what is wrong, and the place that serde adds is of no use.
        let what = error.to_string();
        return Error::data(what.split(" at line ").next().unwrap_or_default().to_owned()).fix("mend the row");
    }
    if text.contains("}\r{") {
        return Error::data("the lines end with CR alone").fix("save the file with LF at the ends of lines");
    }
    let line = text.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default().as_bytes();
    // The place is that of the first character that does not fit or of the one before.
    let mut near = (0..3).filter_map(|skip| line.get(error.column().saturating_sub(2) + skip..));
    if near.any(|rest| rest.starts_with(b"NaN") || rest.starts_with(b"Infinity")) {
        return Error::data("NaN and Infinity are not JSON").because(error).fix("write null, or leave the key out");
    }
    let what = error.to_string();
    if what.contains("surrogate") || what.contains("unexpected end of hex escape") {
        return Error::data("half a surrogate pair is not text").because(error).fix("write whole characters");
    }
    if what.starts_with("number out of range") {
        return Error::data("a number is out of range").because(error).fix("write it as text");
    }
    if what.starts_with("recursion limit exceeded") {
        return Error::data("the row is nested more than 127 deep").fix("write such data as text");
    }
    Error::data("the line is not JSON").because(error).fix("write one JSON object a line")
}

fn kind(value: &Value) -> &'static str {
    if wide(value).is_some() { "a number" } else { crate::conversation::kind_of(value) }
}

/// Roughly the memory that a value takes.
pub(super) fn size(value: &Value) -> usize {
    let inner = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + size(value)).sum(),
        _ => 0,
    };
    inner + size_of::<Value>()
}

/// The digits of an integer that is too wide for [`Number`].
#[must_use]
pub fn wide(value: &Value) -> Option<&str> {
    let map = value.as_object()?;
    if map.len() == 1 { map.get(WIDE)?.as_str() } else { None }
}

/// The only key of the object that stands for a column that holds NaN or Infinity, which JSON does not know.
const NAN: &str = "$alignite::nan";

/// What stands for a column that holds NaN or Infinity.
pub(super) fn nan() -> Value {
    Value::Object(std::iter::once((NAN.to_owned(), Value::Null)).collect())
}

/// Whether a column holds NaN or Infinity.
pub(crate) fn is_nan(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.len() == 1 && map.contains_key(NAN))
}

/// A value that is written with its wide integers as the numbers they are.
pub struct Exact<'a>(pub &'a Value);

/// The same of an object's fields.
pub(crate) struct ExactFields<'a>(&'a Map<String, Value>);

impl Exact<'_> {
    pub(crate) fn fields(fields: &Map<String, Value>) -> ExactFields<'_> {
        ExactFields(fields)
    }
}

impl Serialize for ExactFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            if is_nan(value) {
                object.serialize_entry(key, "NaN")?;
            } else {
                object.serialize_entry(key, &Exact(value))?;
            }
        }
        object.end()
    }
}

impl Serialize for Exact<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(&Exact(item)))?;
                list.end()
            }
            Value::Object(map) => {
                if let Some(digits) = wide(self.0) {
                    if let Ok(number) = digits.parse::<i128>() {
                        return serializer.serialize_i128(number);
                    }
                    if let Ok(number) = digits.parse::<u128>() {
                        return serializer.serialize_u128(number);
                    }
                }
                let mut object = serializer.serialize_map(Some(map.len()))?;
                map.iter().try_for_each(|(key, value)| object.serialize_entry(key, &Exact(value)))?;
                object.end()
            }
            other => other.serialize(serializer),
        }
    }
}

/// Integers that fit no 64 bits, outside of strings, as the objects that stand for them.
fn quote_wide(text: &str) -> Result<String> {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len() + 64);
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'0'..=b'9' if !in_string => {
                let rest = &bytes[at..];
                let length = rest.iter().take_while(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
                let end = at + length.count();
                let token = &text[at..end];
                let digits = token.strip_prefix('-').unwrap_or(token);
                // With a leading zero it is no JSON number: left for the parser to refuse.
                let is_integer = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
                if is_integer && token.parse::<i64>().is_err() && token.parse::<u64>().is_err() {
                    if token.parse::<i128>().is_err() && token.parse::<u128>().is_err() {
                        return Err(Error::data("an integer has more than 128 bits").fix("write it as text"));
                    }
                    out.push_str(&text[copied..at]);
                    out.push_str(&format!("{{\"{WIDE}\":\"{token}\"}}"));
                    copied = end;
                }
                at = end.max(at + 1);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    out.push_str(&text[copied..]);
    Ok(out)
}

#[derive(Clone, Copy)]
struct Exactly<'a> {
    /// Set when a float is seen that an integer of more than 64 bits would become.
    large: &'a Cell<bool>,
    /// Whether [`WIDE`] was written by [`quote_wide`].
    widen: bool,
}

impl<'de> DeserializeSeed<'de> for Exactly<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Exactly<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
        // From here on integers do not fit 64 bits.
        if value.abs() >= 9.2e18 {
            self.large.set(true);
        }
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> std::result::Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if key == WIDE && !self.widen {
                return Err(A::Error::custom("the key $alignite::integer is reserved"));
            }
            let value = access.next_value_seed(self)?;
            match map.entry(key) {
                serde_json::map::Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                serde_json::map::Entry::Occupied(entry) => {
                    let what = format!("the key {:?} is there twice", entry.key());
                    return Err(A::Error::custom(what));
                }
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().what
    }

    #[test]
    fn what_is_no_row_says_why() {
        for (text, expected) in [
            ("null", "the line is null, not an object"),
            ("340282366920938463463374607431768211455", "the line is a number, not an object"),
            (r#"{"a": NaN}"#, "NaN and Infinity are not JSON"),
            (r#"{"a": [1, -Infinity]}"#, "NaN and Infinity are not JSON"),
            (r#"{"a": "\ud800"}"#, "half a surrogate pair is not text"),
            (r#"{"a": "\ud800x"}"#, "half a surrogate pair is not text"),
            (r#"{"a": "\udc00"}"#, "half a surrogate pair is not text"),
            (r#"{"a": {"b": 1, "b": 2}}"#, r#"the key "b" is there twice"#),
            (r#"{"a": 340282366920938463463374607431768211456}"#, "an integer has more than 128 bits"),
            (r#"{"$alignite::integer": "1"}"#, "the key $alignite::integer is reserved"),
            (r#"{"a": 1e30, "$alignite::integer": "1"}"#, "the key $alignite::integer is reserved"),
            (r#"{"a": 1"#, "the line is not JSON"),
            (r#"{"a": 1} 2"#, "the line is not JSON"),
            ("{\"a\": \"\u{1}\"}", "the line is not JSON"),
        ] {
            assert_eq!(reason(text), expected, "{text}");
        }
        assert_eq!(parse(b"{\"a\": \"\xff\"}").unwrap_err().what, "the line is not UTF-8");
        let deep = format!("{{\"a\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(reason(&deep), "the row is nested more than 127 deep");
    }

    #[test]
    fn numbers_keep_every_digit() {
        let text = concat!(
            r#"{"a":9223372036854775808,"b":-9223372036854775809,"c":340282366920938463463374607431768211455,"#,
            r#""d":[1e300,0.1,-1.5],"e":"18446744073709551616 \" 18446744073709551616"}"#
        );
        let row = Value::Object(parse(text.as_bytes()).unwrap());
        assert_eq!(row["a"], 9_223_372_036_854_775_808_u64);
        assert_eq!(wide(&row["b"]), Some("-9223372036854775809"));
        assert_eq!(serde_json::to_string(&Exact(&row)).unwrap(), text.replace("1e300", "1e+300"));
    }

    proptest::proptest! {
        #[test]
        fn what_other_parsers_read_is_read_alike(text in r#"[\[\]{},:"\\ua-e0-9.+\- ]{0,24}"#) {
            let ours = value(text.as_bytes());
            let theirs = serde_json::from_str::<Value>(&text);
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => {
                    if wide(&ours).is_none() && !text.contains("00000000") { proptest::prop_assert_eq!(ours, theirs); }
                }
                (Err(error), Ok(_)) => proptest::prop_assert!(
                    error.what.contains("twice") || error.what.contains("128 bits"), "{}: {}", text, error.what
                ),
                (Ok(_), Err(error)) => proptest::prop_assert!(false, "{}: {}", text, error),
                (Err(_), Err(_)) => {}
            }
        }
    }
}
