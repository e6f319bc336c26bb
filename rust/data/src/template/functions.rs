//! Filters and functions that transformers gives to chat templates, to the byte.

use minijinja::ErrorKind;
use minijinja::value::{Kwargs, Value};
use std::fmt::Write as _;

/// `json.dumps(value, ensure_ascii=False, ...)`, which is what transformers' filter of this name does.
pub(super) fn tojson(value: &Value, kwargs: Kwargs) -> std::result::Result<Value, minijinja::Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let ensure_ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    let sort_keys: Option<bool> = kwargs.get("sort_keys")?;
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    kwargs.assert_all_used()?;
    if indent.is_some_and(|indent| indent > 64) || separators.iter().flatten().any(|text| text.len() > 16) {
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "indent is at most 64, separators 16 bytes"));
    }
    if value.is_undefined() {
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "Undefined is not JSON serializable"));
    }
    let json =
        serde_json::to_value(value).map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => {
            return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "separators needs two strings"));
        }
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let style = Style { indent, ascii: ensure_ascii.unwrap_or(false), sort: sort_keys.unwrap_or(false), item, key };
    let mut output = String::new();
    style.write(&json, 0, &mut output);
    Ok(Value::from_safe_string(output))
}

struct Style {
    indent: Option<usize>,
    ascii: bool,
    sort: bool,
    item: String,
    key: String,
}

impl Style {
    fn write(&self, value: &serde_json::Value, depth: usize, output: &mut String) {
        match value {
            serde_json::Value::String(text) => self.string(text, output),
            serde_json::Value::Array(items) => {
                self.list('[', ']', items.len(), depth, output, |index, output| {
                    self.write(&items[index], depth + 1, output)
                });
            }
            serde_json::Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                if self.sort {
                    entries.sort_by_key(|(key, _)| *key);
                }
                self.list('{', '}', entries.len(), depth, output, |index, output| {
                    self.string(entries[index].0, output);
                    output.push_str(&self.key);
                    self.write(entries[index].1, depth + 1, output);
                });
            }
            other => output.push_str(&other.to_string()),
        }
    }

    fn list(
        &self,
        open: char,
        close: char,
        count: usize,
        depth: usize,
        output: &mut String,
        mut each: impl FnMut(usize, &mut String),
    ) {
        output.push(open);
        for index in 0..count {
            if index > 0 {
                output.push_str(&self.item);
            }
            self.newline(depth + 1, output);
            each(index, output);
        }
        if count > 0 {
            self.newline(depth, output);
        }
        output.push(close);
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
