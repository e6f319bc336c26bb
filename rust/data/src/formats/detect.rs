//! Which family rows are of.

use super::families::{FAMILIES, Family};
use super::row::{NAME_COLUMNS, Row};
use super::{Columns, Format};
use crate::error::{Error, Kind, Result};
use serde_json::{Map, Value};

impl Format {
    /// The format told from rows, whose columns may go by other names.
    ///
    /// Each row speaks for the family that reads most of its columns, so that a family with more columns wins over one
    /// whose columns it has too; rows that no family fits say nothing. The family that most rows speak for wins.
    ///
    /// # Errors
    /// No family fits a row, or two have as many rows for them; or `columns` names one that no row or no family has.
    pub fn detect_with(rows: &[Map<String, Value>], columns: &Columns) -> Result<Self> {
        let known = |family: &&Family| columns.keys().all(|name| family.columns().any(|known| known == name));
        let families: Vec<&'static Family> = FAMILIES.into_iter().filter(known).collect();
        if families.is_empty() {
            let names: Vec<&str> = columns.keys().map(String::as_str).collect();
            return Err(Error::new(Kind::Usage, "no format has such columns")
                .at("columns")
                .because(format!("they are {}", names.join(", ")))
                .fix("write NAME=COLUMN with the names of one format, such as prompt=question completion=answer"));
        }
        have(rows, columns.values())?;
        let mut scores = vec![0_usize; families.len()];
        for row in rows {
            let row = Row { row, columns };
            let read = |family: &&Family| if family.fits(&row) { family.used(&row).len().max(1) } else { 0 };
            let read: Vec<usize> = families.iter().map(read).collect();
            let most = read.iter().copied().max().unwrap_or(0);
            for (score, read) in scores.iter_mut().zip(&read) {
                *score += usize::from(most > 0 && *read == most);
            }
        }
        let best = scores.iter().copied().max().unwrap_or(0);
        let leading: Vec<&'static Family> =
            families.iter().zip(&scores).filter(|(_, score)| **score == best).map(|(family, _)| *family).collect();
        if let (0, [row]) = (best, rows)
            && let Some((name, Value::Array(items))) = row.iter().next()
            && row.len() == 1
            && items.first().is_some_and(Value::is_object)
        {
            return Err(Error::data(format!("the only row is an object whose {name:?} is a list of {}", items.len()))
                .fix("write that list alone, or one object of it a line"));
        }
        if best == 0 {
            return Err(Error::data("no known format fits the rows")
                .because(format!(
                    "the columns are {}; known are messages, conversations, prompt and completion, instruction and \
                     output, chosen and rejected, text, and more",
                    found(rows)
                ))
                .fix(NAME_COLUMNS));
        }
        if let [family] = leading.as_slice() {
            return Ok(Self { family, columns: columns.clone(), unused: Vec::new(), is_told: true }.seen(rows));
        }
        let mut told: Vec<(&str, usize)> = families.iter().map(|family| family.name).zip(scores).collect();
        told.retain(|(_, score)| *score > 0);
        told.sort_by_key(|(_, score)| std::cmp::Reverse(*score));
        let told: Vec<String> = told.iter().map(|(name, score)| format!("{name} {score}")).collect();
        Err(Error::data("more than one format fits the rows")
            .because(format!("the columns are {}; rows for each: {}", found(rows), told.join(", ")))
            .fix(NAME_COLUMNS))
    }
}

/// Whether these columns are there, in one row at least.
pub(super) fn have<'a>(rows: &[Map<String, Value>], columns: impl Iterator<Item = &'a String>) -> Result<()> {
    for column in columns {
        if !rows.is_empty() && !rows.iter().any(|row| row.contains_key(column)) {
            return Err(Error::data(format!("no row has a column {column:?}"))
                .because(format!("the columns are {}", found(rows)))
                .fix(NAME_COLUMNS));
        }
    }
    Ok(())
}

fn found(rows: &[Map<String, Value>]) -> String {
    let mut found: Vec<&str> = rows.iter().flat_map(|row| row.keys().map(String::as_str)).collect();
    found.sort_unstable();
    found.dedup();
    found.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows(given: Value) -> Vec<Map<String, Value>> {
        given.as_array().unwrap().iter().map(|row| row.as_object().unwrap().clone()).collect()
    }

    fn name(given: Value) -> String {
        Format::detect(&rows(given)).unwrap().name()
    }

    #[test]
    fn every_family_is_told_by_its_columns() {
        let message = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]);
        let turns = json!([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]);
        let hh = |reply: &str| format!("\n\nHuman: q\n\nAssistant: {reply}");
        for (wanted, row) in [
            ("messages", json!({"messages": message, "tools": "[]", "id": 1})),
            ("messages", json!({"prompt": "q", "prompt_id": "x", "messages": message})),
            ("sharegpt", json!({"id": "1", "conversations": turns, "system": "s"})),
            ("prompt-completion", json!({"prompt": "q", "completion": "a", "label": "physics"})),
            ("prompt-completion", json!({"prompt": "q", "completion": "a", "text": "qa"})),
            ("alpaca", json!({"instruction": "i", "input": "", "output": "o", "text": "all of it"})),
            ("self-instruct", json!({"instruction": "i", "instances": [], "name": "n"})),
            ("inputs-targets", json!({"inputs": "i", "targets": "t", "task": "x"})),
            ("question-answer", json!({"question": "q", "answer": "a"})),
            ("text", json!({"text": "t", "meta": {}})),
            ("preference", json!({"chosen": message, "rejected": turns})),
            ("preference", json!({"prompt": "q", "chosen": message, "rejected": message, "messages": message})),
            ("preference", json!({"system": "s", "question": "q", "chosen": "a", "rejected": "b"})),
            ("hh", json!({"chosen": hh("a"), "rejected": hh("b")})),
            ("hh", json!({"prompt": hh(""), "chosen": " a", "rejected": " b"})),
            ("gpt4-llm", json!({"user_input": "q", "completion_a": "a", "completion_b": "b"})),
            ("summarize-from-feedback", json!({"info": {}, "summaries": [], "choice": 0, "worker": "w"})),
            ("unpaired", json!({"prompt": "q", "completion": "a", "label": true})),
            ("unpaired", json!({"conversations": turns, "kto_tag": 0})),
            ("unpaired", json!({"instruction": "i", "input": "", "output": "o", "kto_tag": "false"})),
            ("ranked", json!({"prompt": "q", "completions": ["a"], "scores": [1]})),
            ("rrhf", json!({"query": "q", "responses": ["a"], "scores": [1]})),
            ("nectar", json!({"prompt": "q", "answers": [{"answer": "a", "rank": 1}], "turns": 1})),
            ("ultrafeedback", json!({"instruction": "q", "completions": [{"response": "a"}], "models": []})),
            ("stepwise", json!({"prompt": "q", "completions": ["a"], "labels": [true]})),
            ("prm800k", json!({"question": {"problem": "q"}, "label": {"steps": []}, "labeler": "l"})),
        ] {
            assert_eq!(name(json!([row])), wanted, "{row}");
        }
        let all: Vec<&str> = crate::formats::names().collect();
        assert!(all.iter().all(|name| Format::parse(name).unwrap().name() == *name));
    }

    #[test]
    fn rows_that_fit_nothing_do_not_spoil_it() {
        let given = json!([{}, {"x": 1}, {"messages": "broken"}, {"prompt": "q", "completion": "a"}, {"messages": []}]);
        let format = Format::detect(&rows(given)).unwrap();
        assert_eq!(format.name(), "messages");
        assert_eq!(format.unused(), ["completion", "prompt", "x"]);
    }

    #[test]
    fn a_tie_shows_the_scores() {
        let error =
            Format::detect(&rows(json!([{"messages": [], "text": "t"}, {"messages": [], "text": "t"}]))).unwrap_err();
        assert!(error.why.unwrap().ends_with("rows for each: messages 2, text 2"));
        let error = Format::detect(&rows(json!([{"a": "x", "b": "y"}]))).unwrap_err();
        assert!(error.why.unwrap().starts_with("the columns are a, b; known are"));
    }

    #[test]
    fn columns_may_go_by_other_names() {
        let given = rows(json!([{"q": "what?", "a": "that", "completion": "x"}]));
        let map =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Columns>();
        let format = Format::detect_with(&given, &map(&[("prompt", "q"), ("completion", "a")])).unwrap();
        assert_eq!(format.name(), "prompt-completion (completion=a prompt=q)");
        assert_eq!(format.unused(), ["completion"]);
        assert_eq!(format.read_raw(&given[0]).unwrap()[0].completion, "that");
        let named = Format::choose(&given, Some("alpaca"), &map(&[("instruction", "q"), ("output", "a")])).unwrap();
        assert_eq!(named.kind(), "conversation");
        assert!(
            Format::choose(&given, Some("alpaca"), &map(&[("prompt", "q")])).unwrap_err().what.contains("no column")
        );
        assert!(Format::detect_with(&given, &map(&[("prompt", "nowhere")])).unwrap_err().what.contains("nowhere"));
        assert!(Format::detect_with(&given, &map(&[("promt", "q")])).is_err());
        assert!(Format::parse("share_gpt").unwrap_err().fix.unwrap().starts_with("did you mean \"sharegpt\""));
    }
}
