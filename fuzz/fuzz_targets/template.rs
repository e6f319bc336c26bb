//! Chat templates of any text on one conversation: an answer or an error, soon, and never a signal.
#![no_main]

use alignite_data::template::{RenderOptions, Template};
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use std::collections::BTreeMap;

fuzz_target!(|source: &str| {
    let Ok(template) = Template::new(source, BTreeMap::new(), (2026, 1, 1)) else {
        return;
    };
    let messages = json!([
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u <|im_end|>"},
        {"role": "assistant", "content": "a", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1.5}}}]},
    ]);
    let messages: Vec<_> = messages.as_array().into_iter().flatten().filter_map(|m| m.as_object().cloned()).collect();
    let _ = template.render(&messages, &RenderOptions::default());
});
