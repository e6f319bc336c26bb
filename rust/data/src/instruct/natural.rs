//! Super-NaturalInstructions' task files: a definition, examples and instances, encoded as Tk-Instruct encodes them.

use super::{Draws, Made, Pair, strip};
use crate::error::{Error, Kind, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A task file without its instances, and which parts of it are used.
#[derive(Debug, Deserialize)]
pub struct Task {
    #[serde(rename = "Definition")]
    definition: Definition,
    #[serde(rename = "Positive Examples", default)]
    positive: Vec<Example>,
    #[serde(rename = "Negative Examples", default)]
    negative: Vec<Example>,
    /// Whether the definition is given.
    #[serde(default = "yes")]
    description: bool,
    /// Negative examples that are given with positive ones.
    #[serde(default)]
    negatives: usize,
    /// Whether examples are explained.
    #[serde(default)]
    explanations: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Definition {
    One(String),
    Some(Vec<String>),
}

/// A solved example of a task file.
#[derive(Debug, Deserialize)]
struct Example {
    input: String,
    output: String,
    explanation: Option<String>,
}

impl Task {
    /// # Errors
    /// There is no definition.
    pub(super) fn check(&self) -> Result<()> {
        match &self.definition {
            Definition::Some(all) if all.is_empty() => {
                Err(Error::new(Kind::Template, "the task has no definition").fix("get the task file again"))
            }
            _ => Ok(()),
        }
    }

    /// The positive examples that may be shown before this input: not itself.
    #[must_use]
    pub fn usable(&self, input: &str) -> usize {
        self.positive.iter().filter(|example| strip(&example.input) != strip(input)).count()
    }

    /// The prompt of an input, with this many positive examples; negative ones come with the first of them.
    #[must_use]
    pub fn prompt(&self, input: &str, shots: usize) -> String {
        let mut output = String::new();
        if self.description {
            let definition = match &self.definition {
                Definition::One(text) => text.as_str(),
                Definition::Some(all) => all.first().map_or("", String::as_str),
            };
            sentence(&mut output, "Definition: ", definition);
            output.push('\n');
        }
        let usable = self.positive.iter().filter(|example| strip(&example.input) != strip(input));
        self.examples(&mut output, "Positive", usable.take(shots));
        if shots > 0 {
            let usable = self.negative.iter().filter(|example| strip(&example.input) != strip(input));
            self.examples(&mut output, "Negative", usable.take(self.negatives));
        }
        output.push_str("Now complete the following example -\n");
        sentence(&mut output, "Input: ", input);
        output.push_str("Output: ");
        output
    }

    fn examples<'a>(&self, output: &mut String, kind: &str, examples: impl Iterator<Item = &'a Example>) {
        for (index, example) in examples.enumerate() {
            output.push_str(&format!(" {kind} Example {} -\n", index + 1));
            sentence(output, "Input: ", &example.input);
            sentence(output, " Output: ", &example.output);
            if let (true, Some(explanation)) = (self.explanations, &example.explanation) {
                sentence(output, " Explanation: ", explanation);
            }
            output.push('\n');
        }
    }
}

/// A line that ends in punctuation, be it added.
fn sentence(output: &mut String, label: &str, text: &str) {
    output.push_str(label);
    output.push_str(strip(text));
    if !output.ends_with(|c: char| c.is_ascii_punctuation()) {
        output.push('.');
    }
    output.push('\n');
}

/// The input of an instance, bare, and one of its outputs, drawn.
pub(super) fn answer(row: &Map<String, Value>, draws: &Draws) -> Result<Made> {
    let Some(Value::String(input)) = row.get("input") else {
        return Err(Error::data("no column \"input\" with a text").fix("give a task file's Instances"));
    };
    let output = match row.get("output") {
        Some(Value::String(output)) => Some(output.as_str()),
        Some(Value::Array(all)) if !all.is_empty() => all[draws.below(all.len())].as_str(),
        _ => None,
    };
    let Some(output) = output else {
        return Err(Error::data("no column \"output\" with texts").fix("give a task file's Instances"));
    };
    Ok(match strip(output) {
        "" => Made::Dropped("the target is empty"),
        target => Made::Pair(Pair { prompt: input.clone(), target: target.to_owned() }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task(extra: Value) -> Task {
        let mut given = json!({
            "Definition": ["Tell the sentiment"],
            "Positive Examples": [
                {"input": "Good film!", "output": "positive", "explanation": "praise"},
                {"input": "Bad film.", "output": "negative"}
            ],
            "Negative Examples": [{"input": "Fine.", "output": "negative.", "explanation": "it is praise"}],
            "Contributors": ["somebody"]
        });
        given.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(given).unwrap()
    }

    #[test]
    fn the_encoding_is_tk_instructs() {
        assert_eq!(
            task(json!({})).prompt(" I slept ", 2),
            "Definition: Tell the sentiment.\n\n Positive Example 1 -\nInput: Good film!\n Output: positive.\n\n \
             Positive Example 2 -\nInput: Bad film.\n Output: negative.\n\nNow complete the following example -\n\
             Input: I slept.\nOutput: "
        );
        assert_eq!(
            task(json!({"description": false, "negatives": 1, "explanations": true})).prompt("Bad film.", 2),
            " Positive Example 1 -\nInput: Good film!\n Output: positive.\n Explanation: praise.\n\n Negative Example 1 \
             -\nInput: Fine.\n Output: negative.\n Explanation: it is praise.\n\nNow complete the following example -\n\
             Input: Bad film.\nOutput: "
        );
    }

    #[test]
    fn one_of_the_outputs_is_drawn() {
        let row = json!({"input": "a", "output": ["x", "y"]});
        let mut seen: Vec<String> = (0..20)
            .map(|number| match answer(row.as_object().unwrap(), &Draws::new(0, number, "")).unwrap() {
                Made::Pair(pair) => pair.target,
                Made::Dropped(reason) => reason.into(),
            })
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, ["x", "y"]);
    }
}
