//! Labelled rows as instructions: templates that people wrote, demonstrations before the question.
//!
//! A [`TemplateSet`] holds a task's templates, in one of three published forms: PromptSource's Jinja templates
//! ([`p3`]), FLAN's patterns with fields ([`flan`]), and Super-NaturalInstructions' task files ([`natural`]).
//! [`few_shot`] puts solved examples before a question, and [`task`] makes a task's instances from its rows. Whatever
//! is drawn is a function of (seed, row, template), so that the order of work and the process do not matter.

pub mod few_shot;
pub mod flan;
pub mod natural;
pub mod p3;
pub mod task;

use crate::error::{Error, Kind, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::atomic::{AtomicU64, Ordering};

/// Draws that depend on nothing but what they were made from (splitmix64).
#[derive(Debug)]
pub struct Draws(AtomicU64);

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

impl Draws {
    /// The draws for one use of a seed: a row's, or one of a template on a row.
    #[must_use]
    pub fn new(seed: u64, row: u64, purpose: &str) -> Self {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(&row.to_le_bytes());
        hasher.update(purpose.as_bytes());
        Self(AtomicU64::new(hasher.digest()))
    }

    /// The next 64 bits.
    pub fn bits(&self) -> u64 {
        let mut x = self.0.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// A number below `n`, which must not be 0.
    pub fn below(&self, n: usize) -> usize {
        usize::try_from((u128::from(self.bits()) * n as u128) >> 64).unwrap_or(0)
    }

    /// A number from 0 up to, not including, 1.
    #[allow(clippy::cast_precision_loss)]
    pub fn unit(&self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What a template made of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// An input and what answers it.
    Pair(Pair),
    /// Nothing to learn from, for this reason.
    Dropped(&'static str),
}

/// An input and what answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What is asked.
    pub prompt: String,
    /// What answers it.
    pub target: String,
}

/// One template.
#[derive(Debug)]
pub struct Template {
    /// What instances name it by.
    pub id: String,
    /// What people call it.
    pub name: String,
    body: Body,
}

#[derive(Debug)]
enum Body {
    P3 { template: p3::Template, options: bool },
    Flan(flan::Pattern),
    Natural(natural::Task),
}

impl Template {
    /// A template in PromptSource's form; `options` tells whether its prompt shows the choices.
    ///
    /// # Errors
    /// As [`p3::Template::new`].
    pub fn p3(
        id: &str,
        name: &str,
        jinja: &str,
        answer_choices: Option<&str>,
        options: bool,
        truncate: Option<usize>,
    ) -> Result<Self> {
        let template = p3::Template::new(id, jinja, answer_choices, truncate)
            .map_err(|error| error.at(format!("template {name:?}")))?;
        Ok(Self { id: id.into(), name: name.into(), body: Body::P3 { template, options } })
    }

    /// Whether it can show the choices, or be without them.
    #[must_use]
    pub fn can(&self, options: bool) -> bool {
        match &self.body {
            Body::P3 { options: shown, .. } => *shown == options,
            Body::Flan(pattern) => !options || pattern.has_options(),
            Body::Natural(_) => !options,
        }
    }

    /// The pair that a row makes.
    ///
    /// # Errors
    /// The row lacks what the template asks for, or the template fails on it or runs out of its budget.
    pub fn apply(&self, row: &Map<String, Value>, number: u64, seed: u64, look: flan::Look) -> Result<Made> {
        let draws = Draws::new(seed, number, &self.id);
        let made = match &self.body {
            Body::P3 { template, .. } => template.pair(row, &draws),
            Body::Flan(pattern) => pattern.apply(row, look),
            Body::Natural(_) => natural::answer(row, &draws),
        };
        made.map_err(|error| error.at(format!("template {:?}", self.name)))
    }

    /// The task file that it is, if it is one: its prompt is made with its own examples.
    #[must_use]
    pub fn natural(&self) -> Option<&natural::Task> {
        if let Body::Natural(task) = &self.body { Some(task) } else { None }
    }
}

/// The templates of one task.
#[derive(Debug)]
pub struct TemplateSet {
    /// The task's name, which instances carry.
    pub task: String,
    /// Its templates, at least one.
    pub templates: Vec<Template>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Given {
    P3 { task: String, templates: Vec<GivenTemplate> },
    Flan { task: String, patterns: Vec<(String, String)> },
    Natural { task: String, file: natural::Task },
}

#[derive(Deserialize)]
struct GivenTemplate {
    id: String,
    name: String,
    jinja: String,
    answer_choices: Option<String>,
    #[serde(default)]
    choices_in_prompt: bool,
}

impl TemplateSet {
    /// A set from the JSON that the Python side makes of a template file.
    ///
    /// # Errors
    /// It is no such JSON, has no template, or a template does not compile.
    pub fn parse(json: &str, truncate: Option<usize>) -> Result<Self> {
        let given: Given = serde_json::from_str(json).map_err(|error| {
            Error::new(Kind::Template, "the templates cannot be read")
                .because(error)
                .fix("P3, FLAN and Super-NaturalInstructions files are read; see the docs")
        })?;
        let (task, templates) = match given {
            Given::P3 { task, templates } => {
                let made = templates.iter().map(|given| {
                    let choices = given.answer_choices.as_deref();
                    Template::p3(&given.id, &given.name, &given.jinja, choices, given.choices_in_prompt, truncate)
                });
                (task, made.collect::<Result<Vec<_>>>()?)
            }
            Given::Flan { task, patterns } => {
                let made = patterns.iter().enumerate().map(|(index, (input, target))| Template {
                    id: format!("{task}/{index}"),
                    name: index.to_string(),
                    body: Body::Flan(flan::Pattern::new(input, target)),
                });
                let made = made.collect();
                (task, made)
            }
            Given::Natural { task, file } => {
                file.check()?;
                let template = Template { id: task.clone(), name: task.clone(), body: Body::Natural(file) };
                (task, vec![template])
            }
        };
        if templates.is_empty() {
            return Err(Error::new(Kind::Template, "there is no template").at(task).fix("give at least one"));
        }
        Ok(Self { task, templates })
    }
}

/// `str.strip` of Python, which strips four control characters that Unicode does not call white space.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_a_function_of_what_they_are_for() {
        let take = |seed, row, id| {
            let draws = Draws::new(seed, row, id);
            (draws.bits(), draws.below(10), draws.unit())
        };
        assert_eq!(take(1, 2, "a"), take(1, 2, "a"));
        assert_ne!(take(1, 2, "a"), take(2, 2, "a"));
        assert_ne!(take(1, 2, "a"), take(1, 3, "a"));
        assert_ne!(take(1, 2, "a"), take(1, 2, "b"));
        let draws = Draws::new(0, 0, "");
        let mut seen = [0; 7];
        (0..7000).for_each(|_| seen[draws.below(7)] += 1);
        assert!(seen.iter().all(|&count| (850..1150).contains(&count)), "{seen:?}");
    }
}
