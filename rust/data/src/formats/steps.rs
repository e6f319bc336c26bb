//! Solutions whose steps are rated.

use super::chats::paired;
use super::row::{Row, field, list, text, unscored};
use super::turns::prompt as asked;
use crate::conversation::{Message, kind_of};
use crate::error::{Error, Result};
use crate::record::{Context, Record, Step, Steps};
use serde_json::Value;

/// `prompt`, `completions` (the steps) and `labels`: true and false, or 1 right, 0 neutral, -1 wrong.
pub(super) fn stepwise(row: &Row<'_>) -> Result<Vec<Record>> {
    let (texts, labels) = paired(row, "completions", "labels")?;
    let step = |(index, (said, label)): (usize, (&Value, &Value))| {
        let rating = match label {
            Value::Bool(right) => Some(if *right { 1 } else { -1 }),
            other => rating(other),
        };
        // Reasons are what rows are counted by, so this one says itself what is allowed.
        let rating =
            rating.ok_or_else(|| Error::data(format!("labels[{index}] is {label}, not true, false, -1, 0 or 1")))?;
        let text = text(said, &format!("completions[{index}]"))?.to_owned();
        Ok(Step { text, rating: Some(rating), parent: index.checked_sub(1) })
    };
    let steps = texts.iter().zip(labels).enumerate().map(step).collect::<Result<_>>()?;
    Ok(vec![Record::Steps(Steps { prompt: asked(row)?, steps, left_out: Vec::new(), context: row.context()? })])
}

fn rating(value: &Value) -> Option<i8> {
    match value.as_f64() {
        Some(-1.0) => Some(-1),
        Some(0.0) => Some(0),
        Some(1.0) => Some(1),
        _ => None,
    }
}

const UNRATED: &str = "an alternative step without a rating, which is left out";
const UNRATED_CHOSEN: &str = "a chosen step without a rating, which only leads on";
const HUMAN_BESIDE: &str = "a human step beside a chosen one, which is left out";
const BEHIND_WRONG: &str = "steps behind a wrong one, which are left out";
const BEHIND_NONE: &str = "steps behind one that none was gone on from, which are left out";

/// PRM800K: at each step several completions are rated, and one of them, or a human's, is gone on from.
///
/// Alternatives hang on the chosen steps before them, never on one another. Behind a chosen step that is wrong nothing
/// is read: what follows it says nothing about the problem.
pub(super) fn prm800k(row: &Row<'_>) -> Result<Vec<Record>> {
    let problem = text(field(row.need("question")?, "problem", "question")?, "problem")?;
    let label = row.need("label")?;
    if label.get("finish_reason").and_then(Value::as_str) == Some("bad_problem") {
        return Err(Error::data("the labeler found the problem itself bad"));
    }
    let mut steps: Vec<Step> = Vec::new();
    let mut left_out = Vec::new();
    let mut parent = None;
    let given = list(field(label, "steps", "label")?, "label.steps")?;
    for (index, step) in given.iter().enumerate() {
        let at = format!("label.steps[{index}]");
        let chosen = step.get("chosen_completion").filter(|value| !value.is_null());
        let chosen = chosen
            .map(|value| value.as_u64().ok_or_else(|| Error::data("chosen_completion is no number").at(at.clone())));
        let chosen = chosen.transpose()?;
        let completions = match step.get("completions") {
            None | Some(Value::Null) => &[][..],
            Some(Value::Array(completions)) => completions.as_slice(),
            Some(other) => {
                return Err(Error::data(format!("completions is {}, not a list", kind_of(other))).at(at));
            }
        };
        let mut next = None;
        for (number, completion) in completions.iter().enumerate() {
            let is_chosen = chosen == Some(number as u64);
            let read = completion_step(completion, parent, &at)?;
            if is_chosen {
                next = Some(steps.len());
            }
            // An alternative without a rating tells nothing.
            match read.rating {
                None if !is_chosen => {
                    left_out.push(UNRATED);
                    continue;
                }
                None => left_out.push(UNRATED_CHOSEN),
                Some(_) => {}
            }
            steps.push(read);
        }
        if chosen.is_some() && next.is_none() {
            return Err(Error::data("chosen_completion is none of the completions").at(at));
        }
        if let Some(human) = step.get("human_completion").filter(|value| !value.is_null()) {
            if next.is_some() {
                left_out.push(HUMAN_BESIDE);
            } else {
                next = Some(steps.len());
                steps.push(completion_step(human, parent, &at)?);
            }
        }
        match next {
            Some(next) if steps[next].rating != Some(-1) => parent = Some(next),
            stopped => {
                let why = if stopped.is_some() { BEHIND_WRONG } else { BEHIND_NONE };
                left_out.extend((index + 1 < given.len()).then_some(why));
                break;
            }
        }
    }
    if steps.iter().all(|step| step.rating.is_none()) {
        return Err(Error::data("no step is rated"));
    }
    let prompt = unscored(vec![Message::bare("user", problem)]);
    Ok(vec![Record::Steps(Steps { prompt, steps, left_out, context: Context::default() })])
}

/// A completion `{text, rating}`; a human's may be its text alone.
fn completion_step(completion: &Value, parent: Option<usize>, at: &str) -> Result<Step> {
    let said = if completion.is_string() { completion } else { field(completion, "text", at)? };
    let rating = match completion.get("rating") {
        None | Some(Value::Null) => None,
        Some(value) => {
            Some(rating(value).ok_or_else(|| Error::data(format!("a rating is {value}, not -1, 0 or 1")).at(at))?)
        }
    };
    Ok(Step { text: text(said, "text").map_err(|error| error.at(at))?.to_owned(), rating, parent })
}

#[cfg(test)]
mod tests {
    use crate::error::Result;
    use crate::formats::Format;
    use crate::record::{Record, Steps};
    use serde_json::{Value, json};

    fn read(row: Value) -> Result<Steps> {
        let row = row.as_object().unwrap();
        match Format::detect(std::slice::from_ref(row))?.read(row)?.remove(0) {
            Record::Steps(steps) => Ok(steps),
            other => panic!("{other:?}"),
        }
    }

    /// Each rated step behind the texts that lead to it.
    fn samples(steps: &Steps) -> Vec<(String, i8)> {
        let path = |index: usize| {
            let mut path = vec![index];
            while let Some(parent) = steps.steps[path[path.len() - 1]].parent {
                path.push(parent);
            }
            path.iter().rev().map(|&at| steps.steps[at].text.as_str()).collect::<Vec<_>>().join(" ")
        };
        (0..steps.steps.len()).filter_map(|at| Some((path(at), steps.steps[at].rating?))).collect()
    }

    fn completions(ratings: &[(&str, i8)]) -> Vec<Value> {
        ratings.iter().map(|(text, rating)| json!({"text": text, "rating": rating, "flagged": false})).collect()
    }

    fn row(steps: Value) -> Value {
        json!({"labeler": "x", "question": {"problem": "1+1?"}, "label": {"steps": steps, "finish_reason": "solution"}})
    }

    #[test]
    fn alternatives_hang_on_the_chosen_steps() {
        // 2 x 3 x 2 completions give 7 samples; the cross product would be 12.
        let steps = json!([
            {"completions": completions(&[("a1", 1), ("a2", -1)]), "human_completion": null, "chosen_completion": 0},
            {"completions": completions(&[("b1", -1), ("b2", 0), ("b3", 1)]), "human_completion": null, "chosen_completion": 2},
            {"completions": completions(&[("c1", -1), ("c2", 1)]), "human_completion": null, "chosen_completion": 1}
        ]);
        let found = samples(&read(row(steps)).unwrap());
        let wanted =
            [("a1", 1), ("a2", -1), ("a1 b1", -1), ("a1 b2", 0), ("a1 b3", 1), ("a1 b3 c1", -1), ("a1 b3 c2", 1)];
        assert_eq!(found, wanted.map(|(path, rating)| (path.to_owned(), rating)));
    }

    #[test]
    fn a_human_step_is_gone_on_from_where_none_was_chosen() {
        let steps = json!([
            {"completions": completions(&[("a1", -1)]), "human_completion": {"text": "h", "rating": null}, "chosen_completion": null},
            {"completions": completions(&[("b1", 1)]), "human_completion": null, "chosen_completion": 0},
            {"completions": completions(&[("c1", -1)]), "human_completion": null, "chosen_completion": 0},
            {"completions": completions(&[("d1", 1)]), "human_completion": null, "chosen_completion": 0}
        ]);
        let found = samples(&read(row(steps)).unwrap());
        assert_eq!(found, [("a1", -1), ("h b1", 1), ("h b1 c1", -1)].map(|(path, rating)| (path.to_owned(), rating)));
    }

    #[test]
    fn what_prm800k_cannot_mean_is_an_error() {
        let step = |chosen: Value| json!([{"completions": completions(&[("a", 1)]), "chosen_completion": chosen}]);
        assert!(read(row(step(json!(1)))).unwrap_err().what.contains("none of the completions"));
        assert!(read(row(step(json!("x")))).unwrap_err().what.contains("no number"));
        assert!(read(row(json!([{"completions": [{"text": "a", "rating": 5}]}]))).is_err());
        assert!(read(row(json!([{"completions": [{"text": "a", "rating": null}], "chosen_completion": 0}]))).is_err());
        let mut bad = row(step(json!(0)));
        bad["label"]["finish_reason"] = "bad_problem".into();
        assert!(read(bad).unwrap_err().what.contains("bad"));
    }

    #[test]
    fn labels_are_booleans_or_ratings() {
        let steps = |labels: Value| read(json!({"prompt": "q", "completions": ["a", "b", "c"], "labels": labels}));
        let ratings = |labels: Value| steps(labels).unwrap().steps.iter().map(|step| step.rating).collect::<Vec<_>>();
        assert_eq!(ratings(json!([true, false, true])), [Some(1), Some(-1), Some(1)]);
        assert_eq!(ratings(json!([1, 0, -1])), [Some(1), Some(0), Some(-1)]);
        assert_eq!(steps(json!([1, 1, 1])).unwrap().steps[2].parent, Some(1));
        for bad in [json!([true, true]), json!([2, 0, 1]), json!(["good", "bad", "bad"])] {
            assert!(steps(bad).is_err());
        }
        for bad in [json!([1, 1, 2]), json!([1, 1, "good"])] {
            assert!(steps(bad).unwrap_err().what.ends_with(", not true, false, -1, 0 or 1"));
        }
    }
}
