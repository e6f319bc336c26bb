//! Chat templates, rendered as transformers renders them, under limits.
//!
//! A template comes with a model folder and is untrusted: its size, nesting and chain lengths are checked before it
//! is parsed (a parser that recurses overflows the stack on 20,000 `not`s), and a render has a budget of steps and of
//! output bytes.

mod functions;
pub(crate) mod limits;

use crate::error::{Error, Kind, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, ErrorKind, State};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;

pub(crate) const FUEL: u64 = 5_000_000;
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
        limits::check(source)?;
        let (source, has_generation) = without_generation_tags(source);
        let mut env = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        env.set_syntax(syntax.map_err(|e| template_error("the template syntax cannot be set", &e))?);
        env.set_fuel(Some(FUEL));
        env.set_recursion_limit(100);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_filter("tojson", functions::tojson);
        env.add_test("iterable", |value: &Value| {
            value.is_undefined() || (!value.is_none() && value.try_iter().is_ok())
        });
        env.add_function("raise_exception", |message: String| -> std::result::Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        env.add_function("strftime_now", move |format: String| functions::strftime(&format, date));
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
