//! Python's methods of str, list and dict, where they are missing or differ elsewhere.
//!
//! What a template may call and this does not know is an error; the caller then asks jinja2.

use super::values::is_space;
use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

type Made = Result<Value, Error>;

pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Made {
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            // The engine charges for what comes out; what goes in is read too.
            state.consume_fuel((text.len() / 64) as u64)?;
            match string(state, text, method, args) {
                Err(error) if error.kind() == ErrorKind::UnknownMethod => {
                    unknown_method_callback(state, value, method, args)
                }
                done => done,
            }
        }
        ValueKind::Seq if method == "index" => {
            let (wanted,): (&Value,) = from_args(args)?;
            let place = value.try_iter()?.position(|item| item == *wanted);
            place.map(Value::from).ok_or_else(|| invalid("the value is not in the list"))
        }
        ValueKind::Seq | ValueKind::Map if method == "copy" => {
            let () = from_args(args)?;
            Ok(value.clone())
        }
        _ => unknown_method_callback(state, value, method, args),
    }
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.into())
}

fn string(state: &State, text: &str, method: &str, args: &[Value]) -> Made {
    let done = match method {
        "strip" => strip(text, args, true, true)?,
        "lstrip" => strip(text, args, true, false)?,
        "rstrip" => strip(text, args, false, true)?,
        "removeprefix" | "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            let cut = if method == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            Value::from(cut.unwrap_or(text))
        }
        "partition" | "rpartition" => {
            let (mark,): (&str,) = from_args(args)?;
            if mark.is_empty() {
                return Err(invalid("empty separator"));
            }
            let found = if method == "partition" { text.split_once(mark) } else { text.rsplit_once(mark) };
            let parts = match found {
                Some((before, after)) => [before, mark, after],
                None if method == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from).to_vec()))
        }
        "split" | "rsplit" => {
            let (mark, most, kwargs): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
            let mark = mark.or(kwargs.get::<Option<Value>>("sep")?).filter(|mark| !mark.is_none());
            let most = most.or(kwargs.get("maxsplit")?).and_then(|most| usize::try_from(most).ok());
            kwargs.assert_all_used()?;
            let mark = match &mark {
                None => None,
                Some(mark) => Some(mark.as_str().ok_or_else(|| invalid("must be str or None"))?),
            };
            Value::from(split(text, mark, most, method == "rsplit")?)
        }
        "splitlines" => {
            let (keep, kwargs): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.or(kwargs.get("keepends")?).unwrap_or(false);
            kwargs.assert_all_used()?;
            Value::from(split_lines(text, keep))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let (part, bounds): (&str, Rest<Value>) = from_args(args)?;
            let Some((inside, offset)) = slice(text, &bounds)? else {
                return match method {
                    "count" => Ok(Value::from(0)),
                    "find" | "rfind" => Ok(Value::from(-1)),
                    _ => Err(invalid("substring not found")),
                };
            };
            if method == "count" {
                return Ok(Value::from(inside.matches(part).count()));
            }
            let found = if method.starts_with('r') { inside.rfind(part) } else { inside.find(part) };
            match found {
                Some(at) => Value::from(offset + inside[..at].chars().count()),
                None if method.ends_with("find") => Value::from(-1),
                None => return Err(invalid("substring not found")),
            }
        }
        "startswith" | "endswith" => {
            let (part, bounds): (&Value, Rest<Value>) = from_args(args)?;
            let parts: Vec<Value> = match part.kind() {
                ValueKind::String => vec![part.clone()],
                ValueKind::Seq if part.is_tuple() => part.try_iter()?.collect(),
                kind => return Err(invalid(format!("{method} takes a str or a tuple of str, not {kind}"))),
            };
            let inside = slice(text, &bounds)?;
            let mut any = false;
            for part in &parts {
                let part = part.as_str().ok_or_else(|| invalid("a tuple of str is needed"))?;
                any |= inside.is_some_and(|(text, _)| {
                    if method == "startswith" { text.starts_with(part) } else { text.ends_with(part) }
                });
            }
            Value::from(any)
        }
        "zfill" => {
            let (width,): (i64,) = from_args(args)?;
            let fill = missing(state, text, width)?;
            let signed = text.starts_with(['+', '-']);
            let (sign, digits) = text.split_at(usize::from(signed));
            Value::from(format!("{sign}{}{digits}", "0".repeat(fill)))
        }
        "ljust" | "rjust" | "center" => {
            let (width, with): (i64, Option<&str>) = from_args(args)?;
            let with = with.unwrap_or(" ");
            if with.chars().count() != 1 {
                return Err(invalid("the fill character must be one character"));
            }
            let fill = missing(state, text, width)?;
            let before = match method {
                "ljust" => 0,
                "rjust" => fill,
                // CPython gives the odd place to the left when the width is odd.
                _ => fill / 2 + (fill & usize::try_from(width).unwrap_or(0) & 1),
            };
            Value::from(format!("{}{text}{}", with.repeat(before), with.repeat(fill - before)))
        }
        "isspace" => Value::from(!text.is_empty() && text.chars().all(is_space)),
        "isdecimal" | "isdigit" | "isnumeric" if text.is_ascii() => {
            Value::from(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        }
        // Unicode's digits differ between these three.
        "isdecimal" | "isdigit" | "isnumeric" => return Err(invalid(format!("{method} of text beyond ASCII"))),
        "swapcase" | "title" | "casefold" if !text.is_ascii() => {
            return Err(invalid(format!("{method} of text beyond ASCII")));
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swap = |c: char| if c.is_ascii_uppercase() { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        "casefold" => {
            let () = from_args(args)?;
            Value::from(text.to_ascii_lowercase())
        }
        "title" => {
            let () = from_args(args)?;
            let mut inside = false;
            let title = text.chars().map(|c| {
                let cased = if inside { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() };
                inside = c.is_ascii_alphabetic();
                cased
            });
            Value::from(title.collect::<String>())
        }
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            if items.is_none() || items.is_undefined() {
                return Err(invalid("can only join an iterable"));
            }
            for item in items.try_iter()? {
                if item.as_str().is_none() {
                    return Err(invalid(format!("join takes str, not {}", item.kind())));
                }
            }
            return Err(Error::from(ErrorKind::UnknownMethod));
        }
        "replace" => {
            let (old, new, count, kwargs): (&str, &str, Option<i64>, Kwargs) = from_args(args)?;
            let count = count.or(kwargs.get("count")?);
            kwargs.assert_all_used()?;
            let most = count.and_then(|count| usize::try_from(count).ok());
            let places = (text.len() / old.len().max(1) + 1).min(most.unwrap_or(usize::MAX));
            charge(state, places.saturating_mul(new.len().saturating_sub(old.len())))?;
            Value::from(most.map_or_else(|| text.replace(old, new), |most| text.replacen(old, new, most)))
        }
        "format" => {
            charge_format(state, text)?;
            return Err(Error::from(ErrorKind::UnknownMethod));
        }
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    };
    Ok(done)
}

/// Pay for the widths that a format asks for, before they are made.
fn charge_format(state: &State, format: &str) -> Result<(), Error> {
    let mut numbers = format.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let widest = numbers.try_fold(0usize, |widest, digits| digits.parse().ok().map(|width| widest.max(width)));
    let computed = format.split('{').any(|part| part.contains(':') && !part.contains('}'));
    match widest.filter(|&widest| widest <= 100_000 && !computed) {
        Some(widest) => charge(state, widest.saturating_mul(format.matches('{').count()).saturating_mul(4)),
        None => Err(Error::new(ErrorKind::OutOfFuel, "a format asks for too much width")),
    }
}

/// Pay for text before it is made.
fn charge(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / 64) as u64)
}

/// How many characters a text lacks to this width.
fn missing(state: &State, text: &str, width: i64) -> Result<usize, Error> {
    let fill = usize::try_from(width).unwrap_or(0).saturating_sub(text.chars().count());
    charge(state, fill.saturating_mul(4))?;
    Ok(fill)
}

fn strip(text: &str, args: &[Value], left: bool, right: bool) -> Made {
    let (chars,): (Option<&Value>,) = from_args(args)?;
    let chars = match chars.filter(|chars| !chars.is_none()) {
        None => None,
        Some(chars) => Some(chars.as_str().ok_or_else(|| invalid("strip takes a str"))?),
    };
    let is_cut = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(is_cut) } else { text };
    Ok(Value::from(if right { text.trim_end_matches(is_cut) } else { text }))
}

/// The part of a text between two places counted in characters, and where it starts; None when they cross.
fn slice<'a>(text: &'a str, bounds: &[Value]) -> Result<Option<(&'a str, usize)>, Error> {
    if bounds.is_empty() {
        return Ok(Some((text, 0)));
    }
    let count = text.chars().count();
    let place = |index: usize, absent: usize| match bounds.get(index) {
        None => Ok(absent),
        Some(bound) if bound.is_none() => Ok(absent),
        Some(bound) => {
            let bound = i64::try_from(bound.clone())?;
            let from_end = usize::try_from(bound.unsigned_abs()).unwrap_or(usize::MAX);
            Ok::<_, Error>(if bound < 0 { count.saturating_sub(from_end) } else { from_end })
        }
    };
    let (start, end) = (place(0, 0)?, place(1, count)?.min(count));
    if start > end {
        return Ok(None);
    }
    let byte = |place: usize| text.char_indices().nth(place).map_or(text.len(), |(at, _)| at);
    Ok(Some((&text[byte(start)..byte(end)], start)))
}

fn split(text: &str, mark: Option<&str>, most: Option<usize>, from_right: bool) -> Result<Vec<Value>, Error> {
    let most = most.unwrap_or(usize::MAX - 1);
    let mut parts: Vec<&str> = Vec::new();
    match mark {
        Some("") => return Err(invalid("empty separator")),
        Some(mark) if from_right => {
            parts.extend(text.rsplitn(most + 1, mark));
            parts.reverse();
        }
        Some(mark) => parts.extend(text.splitn(most + 1, mark)),
        None if from_right => {
            let mut rest = text.trim_end_matches(is_space);
            while !rest.is_empty() {
                let cut = if parts.len() < most { rest.rfind(is_space) } else { None };
                let start = cut.map_or(0, |at| at + rest[at..].chars().next().map_or(1, char::len_utf8));
                parts.push(&rest[start..]);
                rest = rest[..start].trim_end_matches(is_space);
            }
            parts.reverse();
        }
        None => {
            let mut rest = text.trim_start_matches(is_space);
            while !rest.is_empty() {
                let cut = if parts.len() < most { rest.find(is_space) } else { None };
                parts.push(&rest[..cut.unwrap_or(rest.len())]);
                rest = rest[cut.unwrap_or(rest.len())..].trim_start_matches(is_space);
            }
        }
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

fn split_lines(text: &str, keep: bool) -> Vec<Value> {
    const ENDS: [char; 10] =
        ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ENDS) {
        let end = if rest[at..].starts_with("\r\n") {
            at + 2
        } else {
            at + rest[at..].chars().next().map_or(1, char::len_utf8)
        };
        lines.push(Value::from(&rest[..if keep { end } else { at }]));
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        lines.push(Value::from(rest));
    }
    lines
}
