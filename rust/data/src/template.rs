//! Chat templates, rendered as transformers renders them, under limits.
//!
//! A template comes with a model folder and is untrusted: its size, nesting and chain lengths are checked before it
//! is parsed (a parser that recurses overflows the stack on 20,000 `not`s), and a render has a budget of steps and of
//! output bytes. What this engine cannot render, jinja2 does, in a process of its own: see [`Renderer`].

mod environment;
mod functions;
pub(crate) mod limits;
mod methods;
mod printable;
mod rewrite;
mod values;

use crate::error::{Error, Kind, Result};
use crate::record::Context;
use environment::{environment, raised};
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind};
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
pub(crate) use values::{REASONING, is_space};

/// Steps that a render may take, of a conversation of at most [`FEW`] messages without many tools, and of others.
const FUEL: [u64; 2] = [500_000, 5_000_000];
const FEW: usize = 100;
/// Steps that an instruction template may take.
pub(crate) const INSTRUCT_FUEL: u64 = 5_000_000;
const MAX_OUTPUT: usize = 32 << 20;
/// What transformers ends a message with to find where it stops; the space tells whether the template trims.
const CONTINUE: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// Marks around what `{% generation %}` holds, when they are asked for.
pub const GENERATION: (char, char) = ('\u{10F8F3}', '\u{10F8F4}');

/// Renders what the engine here cannot: jinja2 in a process of its own, slower.
pub trait Renderer: Send + Sync {
    /// The text for a request: a JSON object with `messages`, `tools`, `documents`, `add_generation_prompt` (a
    /// boolean), `marked` (a boolean: write [`GENERATION`] around what the tags hold) and `variables` (an object).
    ///
    /// # Errors
    /// The template raises, or exceeds a limit.
    fn render(&self, request: &str) -> Result<String>;
}

/// How a conversation is rendered, and what the template is given beside the messages.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RenderOptions {
    /// Whether the text ends where the model starts to speak.
    pub add_generation_prompt: bool,
    /// The field of the last message, `content` as a rule, that the text ends inside of.
    pub continue_final_message: Option<String>,
    /// Functions that the model may call, as a list of JSON schemas or that list as a string.
    pub tools: Option<Json>,
    /// Documents to answer from.
    pub documents: Option<Json>,
    /// Further variables of the template, by name.
    pub variables: Map<String, Json>,
}

/// What the template is given beside the messages, converted once for several renders.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) tools: Value,
    pub(crate) documents: Value,
    pub(crate) variables: Vec<(String, Value)>,
}

impl Given {
    pub(crate) fn new(tools: Option<&Json>, documents: Option<&Json>, variables: &Map<String, Json>) -> Result<Self> {
        let parsed;
        let tools = match tools {
            Some(Json::String(text)) => {
                parsed = serde_json::from_str(text)
                    .map_err(|e| Error::data("tools are a string, but not JSON").because(e))?;
                Some(&parsed)
            }
            other => other,
        };
        for (name, list) in [("tools", tools), ("documents", documents)] {
            if let Some(list) = list.filter(|list| !list.is_null())
                && !list.as_array().is_some_and(|items| items.iter().all(Json::is_object))
            {
                return Err(Error::data(format!("{name} are not a list of objects")));
            }
        }
        let convert = |json: Option<&Json>| json.map_or(Value::from(()), values::value);
        let variables = variables.iter().map(|(name, json)| (name.clone(), values::value(json))).collect();
        Ok(Self { tools: convert(tools), documents: convert(documents), variables })
    }

    pub(crate) fn of(context: &Context) -> Result<Self> {
        Self::new(context.tools.as_ref(), context.documents.as_ref(), &context.variables)
    }
}

/// JSON as the template sees it.
pub(crate) fn to_value(json: &Json) -> Value {
    values::value(json)
}

/// A message as the template sees it; `replaced` may give other values for its fields.
pub(crate) fn message(fields: &Map<String, Json>, replaced: &dyn Fn(&str) -> Option<Value>) -> Value {
    values::message(fields, replaced)
}

/// A compiled chat template.
pub struct Template {
    /// For few messages and for many; None when only the renderer outside can render it.
    env: Option<[Environment<'static>; 2]>,
    source: String,
    special_tokens: BTreeMap<String, String>,
    has_generation: bool,
    outside: Option<Arc<dyn Renderer>>,
    /// Renders that went outside.
    outside_count: AtomicU64,
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
        Self::open(source, special_tokens, date, None, true)
    }

    /// As [`Template::new`], with a renderer for what fails here; when `native` is false it renders everything.
    ///
    /// # Errors
    /// As [`Template::new`]; a source that does not compile is an error only when there is no other renderer.
    pub fn open(
        source: &str,
        special_tokens: BTreeMap<String, String>,
        date: (i32, u32, u32),
        outside: Option<Arc<dyn Renderer>>,
        native: bool,
    ) -> Result<Self> {
        limits::check(source)?;
        let (rewritten, has_generation) = rewrite::rewrite(source);
        let env = match environment(rewritten, date) {
            Ok(env) => Some(FUEL.map(|fuel| {
                let mut env = env.clone();
                env.set_fuel(Some(fuel));
                env
            }))
            .filter(|_| native || outside.is_none()),
            Err(_) if outside.is_some() => None,
            Err(error) => return Err(error),
        };
        let source = source.to_owned();
        Ok(Self { env, source, special_tokens, has_generation, outside, outside_count: AtomicU64::new(0) })
    }

    /// The template as it was given.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template tags what the model generates.
    #[must_use]
    pub fn has_generation(&self) -> bool {
        self.has_generation
    }

    /// Whether conversations are rendered here, and not outside of this process.
    #[must_use]
    pub fn is_native(&self) -> bool {
        self.env.is_some()
    }

    /// How many renders went outside of this process.
    #[must_use]
    pub fn outside_count(&self) -> u64 {
        self.outside_count.load(Ordering::Relaxed)
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// The template raises, or runs out of its budget; there is nothing to continue.
    pub fn render<'m>(
        &self,
        messages: impl IntoIterator<Item = &'m Map<String, Json>>,
        options: &RenderOptions,
    ) -> Result<String> {
        let given = Given::new(options.tools.as_ref(), options.documents.as_ref(), &options.variables)?;
        let mut messages: Vec<&Map<String, Json>> = messages.into_iter().collect();
        if messages.is_empty() {
            return Err(Error::data("a conversation has no messages"));
        }
        let Some(field) = &options.continue_final_message else {
            let values = messages.into_iter().map(|fields| message(fields, &|_| None)).collect();
            return self.render_values(values, &given, options.add_generation_prompt, false);
        };
        if options.add_generation_prompt {
            return Err(Error::new(Kind::Usage, "add_generation_prompt and continue_final_message exclude each other"));
        }
        let last = messages.pop().ok_or_else(|| Error::data("there is no message to continue"))?;
        let (last, said) = self.to_continue(last, field)?;
        let values = messages.into_iter().chain([&last]).map(|fields| message(fields, &|_| None)).collect();
        let mut text = self.render_values(values, &given, false, false)?;
        let swallowed = || {
            Error::new(Kind::Template, "the final message cannot be continued")
                .because("the template changes its end or leaves it out")
        };
        if !text.contains(said.trim_matches(is_space)) {
            return Err(swallowed());
        }
        let end = text.rfind(CONTINUE.trim_end()).ok_or_else(swallowed)?;
        let trims = !text[end..].starts_with(CONTINUE);
        text.truncate(end);
        if trims {
            text.truncate(text.trim_end_matches(is_space).len());
        }
        Ok(text)
    }

    /// The message with the mark of its end, and what it says so far.
    fn to_continue(&self, last: &Map<String, Json>, field: &str) -> Result<(Map<String, Json>, String)> {
        let nothing = || Error::data(format!("the final message has no {field:?} to continue"));
        let mut last: Map<String, Json> = last
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if let Some(reasoning) = REASONING.iter().find_map(|name| last.get(*name)).cloned() {
            last.entry("thinking").or_insert_with(|| reasoning.clone());
            last.insert("reasoning_content".into(), reasoning);
        }
        let value = last.get(field).ok_or_else(nothing)?.clone();
        let fields: Vec<&str> = if REASONING.contains(&field) {
            REASONING.into_iter().filter(|name| last.get(*name) == Some(&value)).collect()
        } else {
            vec![field]
        };
        if !fields.iter().any(|name| self.source.contains(name)) {
            return Err(Error::new(Kind::Template, format!("the chat template does not read {field:?}")));
        }
        let said = match value {
            Json::String(text) => {
                for name in fields {
                    last.insert(name.into(), format!("{text}{CONTINUE}").into());
                }
                text
            }
            Json::Array(mut parts) => {
                let part = parts.iter_mut().rev().find_map(|part| part.get_mut("text")).ok_or_else(nothing)?;
                let text = part.as_str().ok_or_else(nothing)?.to_owned();
                *part = format!("{text}{CONTINUE}").into();
                last.insert(field.into(), parts.into());
                text
            }
            _ => return Err(nothing()),
        };
        Ok((last, said))
    }

    /// The text of messages as the template sees them; with `marked`, [`GENERATION`] marks in it.
    pub(crate) fn render_values(
        &self,
        messages: Vec<Value>,
        given: &Given,
        add_generation_prompt: bool,
        marked: bool,
    ) -> Result<String> {
        let few = messages.len() <= FEW && given.tools.len().unwrap_or(0) <= FEW / 2;
        let messages = Value::from(messages);
        let Some([small, large]) = &self.env else {
            return self.render_outside(&messages, given, add_generation_prompt, marked);
        };
        let env = if few { small } else { large };
        match self.render_here(env, &messages, given, add_generation_prompt, marked) {
            Err((_, true)) if self.outside.is_some() => {
                self.render_outside(&messages, given, add_generation_prompt, marked)
            }
            Ok(text)
                if self.outside.is_some()
                    && !self.is_plain(env, &messages, given, add_generation_prompt, marked, &text) =>
            {
                self.render_outside(&messages, given, add_generation_prompt, marked)
            }
            done => done.map_err(|(error, _)| error),
        }
    }

    /// Whether a render holds nothing that Python's `repr` may write otherwise. Texts without characters that it might
    /// are not rendered again.
    fn is_plain(
        &self,
        env: &Environment<'static>,
        messages: &Value,
        given: &Given,
        add_generation_prompt: bool,
        marked: bool,
        text: &str,
    ) -> bool {
        if !printable::holds_doubtful(text) {
            return true;
        }
        let changed = [messages, &given.tools, &given.documents].map(printable::replaced);
        let variables: Vec<Option<Value>> =
            given.variables.iter().map(|(_, value)| printable::replaced(value)).collect();
        if changed.iter().chain(&variables).all(Option::is_none) {
            return true;
        }
        let [new, tools, documents] = changed;
        let both = given.variables.iter().zip(variables);
        let other = Given {
            tools: tools.unwrap_or_else(|| given.tools.clone()),
            documents: documents.unwrap_or_else(|| given.documents.clone()),
            variables: both.map(|((name, old), new)| (name.clone(), new.unwrap_or_else(|| old.clone()))).collect(),
        };
        let messages = new.unwrap_or_else(|| messages.clone());
        let again = self.render_here(env, &messages, &other, add_generation_prompt, marked);
        again.is_ok_and(|again| printable::is_plain(text, &again))
    }

    /// The flag of an error says whether jinja2 might do better.
    fn render_here(
        &self,
        env: &Environment<'static>,
        messages: &Value,
        given: &Given,
        add_generation_prompt: bool,
        marked: bool,
    ) -> std::result::Result<String, (Error, bool)> {
        let template = env
            .get_template("chat_template")
            .map_err(|e| (template_error("the chat template is missing", &e), true))?;
        let tokens = self.special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str())));
        let others = given.variables.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let (opened, closed) = if marked { GENERATION } else { ('\0', '\0') };
        let mark = |mark: char| if marked { Value::from(mark) } else { Value::from("") };
        let own = [
            ("messages", messages.clone()),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("tools", given.tools.clone()),
            ("documents", given.documents.clone()),
            ("__opened", mark(opened)),
            ("__closed", mark(closed)),
        ];
        let mut output = Capped(Vec::with_capacity(1024));
        let variables = Value::from_pairs(tokens.chain(others).chain(own));
        template.render_captured_to(variables, &mut output).map_err(|error| {
            let is_limit = matches!(error.kind(), ErrorKind::OutOfFuel | ErrorKind::WriteFailure);
            let again = !is_limit && !raised(&error);
            let what = match error.kind() {
                ErrorKind::OutOfFuel => "the chat template takes too many steps",
                ErrorKind::WriteFailure => "the chat template writes too much",
                _ => "the chat template fails on this conversation",
            };
            (template_error(what, &error), again)
        })?;
        String::from_utf8(output.0)
            .map_err(|e| (Error::new(Kind::Template, "the chat template writes broken UTF-8").because(e), false))
    }

    fn render_outside(
        &self,
        messages: &Value,
        given: &Given,
        add_generation_prompt: bool,
        marked: bool,
    ) -> Result<String> {
        let outside = self
            .outside
            .as_ref()
            .ok_or_else(|| Error::new(Kind::Template, "there is no other renderer for the chat template"))?;
        self.outside_count.fetch_add(1, Ordering::Relaxed);
        let tokens = self.special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str())));
        let others = given.variables.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let request = Value::from_pairs([
            ("messages", messages.clone()),
            ("tools", given.tools.clone()),
            ("documents", given.documents.clone()),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("marked", Value::from(marked)),
            ("variables", Value::from_pairs(tokens.chain(others))),
        ]);
        outside.render(&values::json(&request)?)
    }
}

/// Whether a template exceeded its limits, and would again.
pub(crate) fn is_limit(error: &Error) -> bool {
    error.what.contains("too many steps") || error.what.contains("too much")
}

/// Output that may not grow past a limit.
pub(crate) struct Capped(pub(crate) Vec<u8>);

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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, messages: &Json) -> Result<String> {
        let template = Template::new(source, BTreeMap::new(), (2026, 11, 24))?;
        let messages = messages.as_array().unwrap();
        template.render(messages.iter().map(|message| message.as_object().unwrap()), &RenderOptions::default())
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
        assert_eq!(
            render("{{ strftime_now('%d %b %Y, %A, %j') }}", &json!([{}])).unwrap(),
            "24 Nov 2026, Tuesday, 328"
        );
        assert!(render("{{ strftime_now('%Q') }}", &json!([{}])).is_err());
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
            assert_eq!(render(&source, &json!([{}])).unwrap_err().what, "the chat template is refused");
        }
    }

    #[test]
    fn loops_run_out_of_fuel() {
        let source = "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
        assert_eq!(render(source, &json!([{}])).unwrap_err().what, "the chat template takes too many steps");
    }

    #[test]
    fn generation_tags_change_nothing_but_marks() {
        let source = "a\n{%- generation -%}\n b \n{%- endgeneration %}\nc{% generation %}\nd\n{% endgeneration %}";
        let template = Template::new(source, BTreeMap::new(), (2026, 1, 1)).unwrap();
        assert!(template.has_generation());
        let given = Given::new(None, None, &Map::new()).unwrap();
        assert_eq!(template.render_values(Vec::new(), &given, false, false).unwrap(), "abcd\n");
        let marked = template.render_values(Vec::new(), &given, false, true).unwrap();
        assert_eq!(marked.replace([GENERATION.0], "<").replace([GENERATION.1], ">"), "a<b>c<d\n>");
    }
}
