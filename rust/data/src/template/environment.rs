//! The template engine with what transformers gives to chat templates.

use super::{functions, methods, template_error, values};
use crate::error::Result;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, ErrorKind};

/// What a template says no with; jinja2 would say the same.
#[derive(Debug, thiserror::Error)]
#[error("raised by the template")]
struct Raised;

pub(super) fn raised(error: &minijinja::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.is::<Raised>() {
            return true;
        }
        cause = inner.source();
    }
    false
}

pub(super) fn environment(source: String, date: (i32, u32, u32)) -> Result<Environment<'static>> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    env.set_syntax(syntax.map_err(|e| template_error("the template syntax cannot be set", &e))?);
    env.set_recursion_limit(100);
    env.set_unknown_method_callback(methods::call);
    env.add_filter("tojson", functions::tojson);
    env.add_filter("trim", functions::trim);
    env.add_filter("title", functions::title);
    env.add_filter("sort", functions::sort);
    env.add_filter("unique", functions::unique);
    env.add_filter("dictsort", functions::dictsort);
    env.add_test("iterable", |value: &Value| value.is_undefined() || (!value.is_none() && value.try_iter().is_ok()));
    // Python's test asks for a length and for items by place or key.
    env.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map)
    });
    env.add_test("number", |value: &Value| {
        matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
            || value.downcast_object_ref::<values::Exponent>().is_some()
    });
    env.add_test("float", |value: &Value| {
        (value.kind() == ValueKind::Number && !value.is_integer())
            || value.downcast_object_ref::<values::Exponent>().is_some()
    });
    env.add_function("raise_exception", |message: String| -> std::result::Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message).with_source(Raised))
    });
    env.add_function("strftime_now", move |format: String| functions::strftime(&format, date));
    env.add_function("__each", functions::each);
    env.add_function("__kept", functions::kept);
    env.add_template_owned("chat_template", source)
        .map_err(|e| template_error("the chat template cannot be compiled", &e))?;
    Ok(env)
}
