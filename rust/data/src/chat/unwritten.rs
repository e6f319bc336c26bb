//! What a row holds and its text does not. transformers leaves it out as well, without a word.

use super::marks::Marks;
use super::{Chat, plain};
use crate::conversation::Message;
use crate::record::Context;
use crate::template::{Given, REASONING, is_space};
use minijinja::value::Value;
use serde_json::Value as Json;

impl Chat {
    /// What of a conversation that is rendered as `text` the template does not write. Tool calls are not among it: a
    /// row whose calls are lost is an error.
    pub(super) fn unwritten(
        &self,
        messages: &[Message],
        context: &Context,
        given: &Given,
        text: &str,
        marks: &Marks,
    ) -> Vec<&'static str> {
        let mut found = Vec::new();
        let is_lost = |(index, message): (usize, &Message)| {
            let reasoning = REASONING.iter().find_map(|name| message.fields.get(*name)).and_then(Json::as_str);
            let reasoning = reasoning.map(|text| text.trim_matches(is_space)).filter(|text| !text.is_empty());
            reasoning.is_some_and(|reasoning| match marks.reasoning(index) {
                Some(is_written) => !is_written,
                None => !text.contains(reasoning),
            })
        };
        if messages.iter().enumerate().any(is_lost) {
            found.push("reasoning is not written by this template");
        }
        // Rendered once more, without them; rows that have none pay nothing.
        let changes_nothing = |name: &str, without: Given| {
            let again = || self.template.render_values(plain(messages), &without, false, false);
            !self.template.source().contains(name) || again().is_ok_and(|again| again == text)
        };
        let is_there = |list: &Option<Json>| list.as_ref().and_then(Json::as_array).is_some_and(|all| !all.is_empty());
        let none = || Value::from(());
        if is_there(&context.tools) && changes_nothing("tools", Given { tools: none(), ..given.clone() }) {
            found.push("tools are not written by this template");
        }
        if is_there(&context.documents) && changes_nothing("documents", Given { documents: none(), ..given.clone() }) {
            found.push("documents are not written by this template");
        }
        found
    }
}
