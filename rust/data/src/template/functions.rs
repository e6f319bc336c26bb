//! Filters and functions that transformers gives to chat templates, to the byte.

use super::values::{Exponent, Style, is_space};
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{ErrorKind, State};
use std::fmt::Write as _;

/// `json.dumps(value, ensure_ascii=False, ...)`, which is what transformers' filter of this name does.
pub(super) fn tojson(
    state: &State,
    value: &Value,
    places: Rest<Value>,
    kwargs: Kwargs,
) -> std::result::Result<Value, minijinja::Error> {
    let invalid = |why: String| minijinja::Error::new(ErrorKind::InvalidOperation, why);
    // transformers' order of arguments: ensure_ascii, indent, separators, sort_keys.
    let argument = |place: usize, name: &str| -> std::result::Result<Option<Value>, minijinja::Error> {
        let given = places.get(place).cloned().or(kwargs.get::<Option<Value>>(name)?);
        Ok(given.filter(|value| !value.is_none()))
    };
    let ascii = argument(0, "ensure_ascii")?.is_some_and(|flag| flag.is_true());
    let indent = argument(1, "indent")?.map(usize::try_from).transpose()?;
    let separators: Option<Vec<Value>> =
        argument(2, "separators")?.map(|pair| Ok::<_, minijinja::Error>(pair.try_iter()?.collect())).transpose()?;
    let sort = argument(3, "sort_keys")?.is_some_and(|flag| flag.is_true());
    kwargs.assert_all_used()?;
    let (item, key) = match separators.as_deref() {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some([item, key]) if item.as_str().is_some() && key.as_str().is_some() => (item.to_string(), key.to_string()),
        Some(_) => return Err(invalid("separators needs two strings".into())),
    };
    if indent.is_some_and(|indent| indent > 64) || item.len() > 16 || key.len() > 16 {
        return Err(invalid("indent is at most 64, separators 16 bytes".into()));
    }
    let mut output = String::new();
    let style = Style { indent, ascii, sort, item, key };
    style.write(value, 0, &mut output).map_err(invalid)?;
    // Serializing walks the whole value, which costs more than copying its bytes.
    state.consume_fuel((output.len() / 4) as u64)?;
    Ok(Value::from(output))
}

/// `str.strip`, with Python's white space.
pub(super) fn trim(text: &Value, chars: Option<&str>) -> Value {
    let text = text.as_str().map_or_else(|| text.to_string().into(), std::borrow::Cow::Borrowed);
    Value::from(match chars {
        Some(chars) => text.trim_matches(|c: char| chars.contains(c)),
        None => text.trim_matches(is_space),
    })
}

/// Text beyond ASCII is cased by jinja2: the two differ in final sigmas, ligatures and what parts words.
fn ascii_only(value: &Value, what: &str) -> std::result::Result<(), minijinja::Error> {
    let is_ascii = match value.as_str() {
        Some(text) => text.is_ascii() && !text.bytes().any(|byte| (0x1c..=0x1f).contains(&byte)),
        None => value.to_string().is_ascii(),
    };
    let refuse = || minijinja::Error::new(ErrorKind::InvalidOperation, format!("{what} of text beyond ASCII"));
    if is_ascii { Ok(()) } else { Err(refuse()) }
}

/// `title` of ASCII text.
pub(super) fn title(value: &Value) -> std::result::Result<String, minijinja::Error> {
    ascii_only(value, "title")?;
    Ok(minijinja::filters::title(value.to_string().into()))
}

/// `sort`, which ignores the case of texts, of ASCII.
pub(super) fn sort(state: &State, value: Value, kwargs: Kwargs) -> std::result::Result<Value, minijinja::Error> {
    let value = Value::from(value.try_iter()?.collect::<Vec<_>>());
    ascii_only(&value, "sort")?;
    minijinja::filters::sort(state, value, kwargs)
}

/// `unique`, which ignores case too.
pub(super) fn unique(state: &State, value: Value, kwargs: Kwargs) -> std::result::Result<Value, minijinja::Error> {
    let value = Value::from(value.try_iter()?.collect::<Vec<_>>());
    ascii_only(&value, "unique")?;
    minijinja::filters::unique(state, value, kwargs)
}

/// `dictsort`, which ignores case too.
pub(super) fn dictsort(value: &Value, kwargs: Kwargs) -> std::result::Result<Value, minijinja::Error> {
    ascii_only(value, "dictsort")?;
    minijinja::filters::dictsort(value, kwargs)
}

/// What a loop goes over: Python does not iterate None.
pub(super) fn each(value: Value) -> std::result::Result<Value, minijinja::Error> {
    if value.is_none() {
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "None is not iterable"));
    }
    Ok(value)
}

const MAX_DEPTH: usize = 100;

/// What a namespace keeps: values that loops could otherwise nest, one in the other, until dropping them overflows the
/// stack.
pub(super) fn kept(state: &State, value: Value) -> std::result::Result<Value, minijinja::Error> {
    flat(state, value, 0)
}

fn flat(state: &State, value: Value, depth: usize) -> std::result::Result<Value, minijinja::Error> {
    let refuse = |why: &str| Err(minijinja::Error::new(ErrorKind::InvalidOperation, why.to_owned()));
    if depth > MAX_DEPTH {
        // A limit, which jinja2 is not asked about.
        return Err(minijinja::Error::new(ErrorKind::OutOfFuel, "a namespace keeps values that nest too deep"));
    }
    match value.kind() {
        ValueKind::Seq if value.is_tuple() => {
            for item in value.try_iter()? {
                state.consume_fuel(1)?;
                flat(state, item, depth + 1)?;
            }
            Ok(value)
        }
        // Lists anew: what is computed when it is asked for may hold another such list, and so on.
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter()? {
                state.consume_fuel(1)?;
                items.push(flat(state, item, depth + 1)?);
            }
            Ok(Value::from(items))
        }
        ValueKind::Map => {
            if value.as_object().is_some_and(|object| object.type_name().contains("Namespace")) {
                return refuse("a namespace inside of a namespace");
            }
            for key in value.try_iter()? {
                state.consume_fuel(1)?;
                flat(state, value.get_item(&key)?, depth + 1)?;
            }
            Ok(value)
        }
        ValueKind::Plain if value.downcast_object_ref::<Exponent>().is_none() => {
            refuse("a namespace keeps something that is not data")
        }
        _ => Ok(value),
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// `datetime.strftime` at midnight of a date.
pub(super) fn strftime(
    format: &str,
    (year, month, day): (i32, u32, u32),
) -> std::result::Result<String, minijinja::Error> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month_index = (month as usize).clamp(1, 12) - 1;
    let day_of_year: u32 = lengths[..month_index].iter().sum::<u32>() + day;
    let before = year - 1;
    let weekday =
        (i64::from(before) * 365 + i64::from(before / 4 - before / 100 + before / 400) + i64::from(day_of_year)) % 7;
    let (month_name, day_name) = (MONTHS[month_index], DAYS[usize::try_from(weekday).unwrap_or(0)]);
    let mut output = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            output.push(c);
            continue;
        }
        let _ = match chars.next() {
            Some('Y') => write!(output, "{year:04}"),
            Some('y') => write!(output, "{:02}", year % 100),
            Some('m') => write!(output, "{month:02}"),
            Some('d') => write!(output, "{day:02}"),
            Some('e') => write!(output, "{day:2}"),
            Some('-') => match chars.next() {
                Some('d') => write!(output, "{day}"),
                Some('m') => write!(output, "{month}"),
                other => return Err(unknown_directive(other)),
            },
            Some('B') => write!(output, "{month_name}"),
            Some('b' | 'h') => write!(output, "{}", &month_name[..3]),
            Some('A') => write!(output, "{day_name}"),
            Some('a') => write!(output, "{}", &day_name[..3]),
            Some('j') => write!(output, "{day_of_year:03}"),
            Some('H' | 'M' | 'S') => write!(output, "00"),
            Some('I') => write!(output, "12"),
            Some('p') => write!(output, "AM"),
            Some('F') => write!(output, "{year:04}-{month:02}-{day:02}"),
            Some('%') => write!(output, "%"),
            other => return Err(unknown_directive(other)),
        };
    }
    Ok(output)
}

fn unknown_directive(directive: Option<char>) -> minijinja::Error {
    let name = directive.map_or_else(|| "nothing".to_owned(), |c| format!("{c:?}"));
    minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know the directive {name}"))
}
