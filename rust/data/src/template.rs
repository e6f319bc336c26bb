//! Chat templates, rendered as transformers renders them, under limits.
//!
//! A template comes with a model folder and is untrusted: its size, nesting and chain lengths are checked before it
//! is parsed (a parser that recurses overflows the stack on 20,000 `not`s), and a render has a budget of steps and of
//! output bytes.

use crate::error::{Error, Kind, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, ErrorKind, State};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;

const MAX_SOURCE: usize = 64 << 10;
const MAX_BLOCK: usize = 8 << 10;
const MAX_CHAIN: usize = 500;
const MAX_NESTING: usize = 60;
const FUEL: u64 = 5_000_000;
const MAX_OUTPUT: usize = 32 << 20;

/// Marks around what `{% generation %}` holds; see [`Template::render_marked`].
pub const GENERATION: (char, char) = ('\u{10F8F3}', '\u{10F8F4}');

/// A compiled chat template.
pub struct Template {
    env: Environment<'static>,
    special_tokens: BTreeMap<String, String>,
    has_generation: bool,
}

impl Template {
    /// Compile a template.
    ///
    /// `special_tokens` are the variables `bos_token`, `eos_token` and so on; `date` is what `strftime_now` sees,
    /// as (year, month, day).
    ///
    /// # Errors
    /// The source is too large, too deep, or not a template.
    pub fn new(source: &str, special_tokens: BTreeMap<String, String>, date: (i32, u32, u32)) -> Result<Self> {
        check_limits(source)?;
        let (source, has_generation) = without_generation_tags(source);
        let mut env = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        env.set_syntax(syntax.map_err(|e| template_error("the template syntax cannot be set", &e))?);
        env.set_fuel(Some(FUEL));
        env.set_recursion_limit(100);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_filter("tojson", tojson);
        env.add_test("iterable", |value: &Value| {
            value.is_undefined() || (!value.is_none() && value.try_iter().is_ok())
        });
        env.add_function("raise_exception", |message: String| -> std::result::Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        env.add_function("strftime_now", move |format: String| strftime(&format, date));
        env.add_function("__generation", |state: &mut State, kwargs: Kwargs| {
            let caller: Value = kwargs.get("caller")?;
            let body = caller.call(state, &[])?;
            let marked = state.lookup("__marked").is_some_and(|value| value.is_true());
            let text = if marked { format!("{}{body}{}", GENERATION.0, GENERATION.1) } else { body.to_string() };
            Ok::<_, minijinja::Error>(Value::from_safe_string(text))
        });
        env.add_template_owned("chat_template", source)
            .map_err(|e| template_error("the chat template cannot be compiled", &e))?;
        Ok(Self { env, special_tokens, has_generation })
    }

    /// Whether the template tags what the model generates.
    #[must_use]
    pub fn has_generation(&self) -> bool {
        self.has_generation
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// The template raises, runs out of its budget, or uses something that minijinja lacks.
    pub fn render(&self, messages: &impl Serialize, add_generation_prompt: bool) -> Result<String> {
        self.render_with(messages, add_generation_prompt, false)
    }

    /// As [`Template::render`], with [`GENERATION`] marks around the tagged parts.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_marked(&self, messages: &impl Serialize) -> Result<String> {
        self.render_with(messages, false, true)
    }

    fn render_with(&self, messages: &impl Serialize, add_generation_prompt: bool, marked: bool) -> Result<String> {
        let template =
            self.env.get_template("chat_template").map_err(|e| template_error("the chat template is missing", &e))?;
        let mut variables: BTreeMap<&str, Value> =
            self.special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str()))).collect();
        variables.insert("messages", Value::from(Serde(messages)));
        variables.insert("add_generation_prompt", Value::from(add_generation_prompt));
        variables.insert("tools", Value::from(()));
        variables.insert("documents", Value::from(()));
        variables.insert("__marked", Value::from(marked));
        let mut output = Capped(Vec::new());
        template.render_captured_to(Value::from(variables), &mut output).map_err(|error| {
            let what = match error.kind() {
                ErrorKind::OutOfFuel => "the chat template takes too many steps",
                ErrorKind::WriteFailure => "the chat template writes too much",
                _ => "the chat template fails on this conversation",
            };
            template_error(what, &error)
        })?;
        String::from_utf8(output.0)
            .map_err(|e| Error::new(Kind::Template, "the chat template writes broken UTF-8").because(e))
    }
}

struct Capped(Vec<u8>);

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(std::io::Error::other("more than 32 MiB"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn template_error(what: &str, error: &minijinja::Error) -> Error {
    let line = error.line().map(|line| format!(" (line {line} of the template)")).unwrap_or_default();
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    Error::new(Kind::Template, what).because(format!("{detail}{line}"))
}

/// Refuse what could overflow the parser's stack, by a scan that does not recurse.
fn check_limits(source: &str) -> Result<()> {
    let refuse = |why: String| Err(Error::new(Kind::Template, "the chat template is refused").because(why));
    if source.len() > MAX_SOURCE {
        return refuse(format!("it is {} bytes long, the limit is {MAX_SOURCE}", source.len()));
    }
    let mut rest = source;
    let (mut open, mut branches) = (0usize, 0usize);
    while let Some(start) = rest.find("{%").into_iter().chain(rest.find("{{")).min() {
        let statement = rest[start..].starts_with("{%");
        let body = &rest[start + 2..];
        let end = body.find(if statement { "%}" } else { "}}" }).unwrap_or(body.len());
        let block = &body[..end];
        if block.len() > MAX_BLOCK {
            return refuse(format!("a block is longer than {MAX_BLOCK} bytes"));
        }
        let mut depth = 0usize;
        let mut operators = 0usize;
        for byte in block.bytes() {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                b'|' | b'.' | b'-' | b'+' | b'~' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' => operators += 1,
                _ => {}
            }
            if depth > MAX_NESTING {
                return refuse(format!("brackets nest deeper than {MAX_NESTING}"));
            }
        }
        let words = block.split(|c: char| !c.is_alphanumeric() && c != '_');
        operators += words.filter(|word| matches!(*word, "not" | "and" | "or" | "if" | "else" | "in" | "is")).count();
        if operators > MAX_CHAIN {
            return refuse(format!("a block chains more than {MAX_CHAIN} operators"));
        }
        if statement {
            let word = block.trim_start_matches(['-', '+']).trim_start();
            let word = word.split(|c: char| !c.is_alphanumeric()).next().unwrap_or("");
            match word {
                "if" | "for" | "macro" | "call" | "filter" | "block" | "with" | "generation" => open += 1,
                "elif" => branches += 1,
                word if word.starts_with("end") => open = open.saturating_sub(1),
                _ => {}
            }
            if open > MAX_NESTING || branches > MAX_CHAIN {
                return refuse(format!("blocks nest deeper than {MAX_NESTING} or branch more than {MAX_CHAIN} times"));
            }
        }
        rest = &body[end..];
    }
    Ok(())
}

/// `{% generation %}` as a call block, which keeps white-space control and scoping as transformers has them.
fn without_generation_tags(source: &str) -> (String, bool) {
    let mut output = String::with_capacity(source.len() + 64);
    let mut found = false;
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else {
            break;
        };
        let tag = &rest[start..start + length + 2];
        let inner = tag[2..tag.len() - 2].trim_matches(['-', '+']).trim();
        output.push_str(&rest[..start]);
        match inner {
            "generation" => output.push_str(&tag.replace("generation", "call __generation()")),
            "endgeneration" => output.push_str(&tag.replace("endgeneration", "endcall")),
            _ => output.push_str(tag),
        }
        found |= inner == "generation";
        rest = &rest[start + length + 2..];
    }
    output.push_str(rest);
    (output, found)
}

/// `json.dumps(value, ensure_ascii=False, ...)`, which is what transformers' filter of this name does.
fn tojson(value: &Value, kwargs: Kwargs) -> std::result::Result<Value, minijinja::Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let ensure_ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    let sort_keys: Option<bool> = kwargs.get("sort_keys")?;
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    kwargs.assert_all_used()?;
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
fn strftime(format: &str, (year, month, day): (i32, u32, u32)) -> std::result::Result<String, minijinja::Error> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, messages: &serde_json::Value) -> Result<String> {
        Template::new(source, BTreeMap::new(), (2026, 11, 24))?.render(messages, false)
    }

    #[test]
    fn json_is_pythons() {
        let value = json!([{"b": "<é\u{1}>", "a": [1, 2.5, null, true]}]);
        assert_eq!(
            render("{{ messages[0] | tojson }}", &value).unwrap(),
            "{\"b\": \"<é\\u0001>\", \"a\": [1, 2.5, null, true]}"
        );
        assert_eq!(
            render(
                "{{ messages[0] | tojson(indent=1, sort_keys=true, ensure_ascii=true) }}",
                &json!([{"b": "é", "a": []}])
            )
            .unwrap(),
            "{\n \"a\": [],\n \"b\": \"\\u00e9\"\n}"
        );
    }

    #[test]
    fn dates_are_given() {
        assert_eq!(render("{{ strftime_now('%d %b %Y, %A, %j') }}", &json!([])).unwrap(), "24 Nov 2026, Tuesday, 328");
        assert!(render("{{ strftime_now('%Q') }}", &json!([])).is_err());
    }

    #[test]
    fn hostile_templates_are_refused_before_they_are_parsed() {
        for source in [
            "{{ ".to_owned() + &"not ".repeat(20_000) + "1 }}",
            "{{ ".to_owned() + &"-".repeat(5_000) + "1 }}",
            "{{ a".to_owned() + &"|upper".repeat(1_000) + " }}",
            "{{ a".to_owned() + &".a".repeat(3_000) + " }}",
            "{{ ".to_owned() + &"(".repeat(200) + "1" + &")".repeat(200) + " }}",
            "{% if a %}".repeat(200) + &"{% endif %}".repeat(200),
            "{% if a %}".to_owned() + &"{% elif a %}".repeat(2_000) + "{% endif %}",
            "x".repeat(70_000),
        ] {
            assert_eq!(render(&source, &json!([])).unwrap_err().what, "the chat template is refused");
        }
    }

    #[test]
    fn loops_run_out_of_fuel() {
        let source = "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
        assert_eq!(render(source, &json!([])).unwrap_err().what, "the chat template takes too many steps");
    }

    #[test]
    fn generation_tags_change_nothing_but_marks() {
        let source = "a\n{%- generation -%}\n b \n{%- endgeneration %}\nc{% generation %}\nd\n{% endgeneration %}";
        let template = Template::new(source, BTreeMap::new(), (2026, 1, 1)).unwrap();
        assert!(template.has_generation());
        assert_eq!(template.render(&json!([]), false).unwrap(), "abcd\n");
        let marked = template.render_marked(&json!([])).unwrap();
        assert_eq!(marked.replace([GENERATION.0], "<").replace([GENERATION.1], ">"), "a<b>c<d\n>");
    }
}
