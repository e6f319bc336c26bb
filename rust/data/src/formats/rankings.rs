//! Several replies to one prompt, with scores, ratings or ranks.

use super::chats::paired;
use super::hh::{is_transcript, turns};
use super::row::{Row, field, number, text, unscored};
use super::turns::{prompt as asked, side};
use crate::conversation::Message;
use crate::error::{Error, Result};
use crate::record::{About, Context, Ranking, Record, Response};
use serde_json::Value;

fn record(prompt: Vec<Message>, responses: Vec<Response>, about: About, context: Context) -> Vec<Record> {
    vec![Record::Ranking(Ranking { prompt, responses, about, context })]
}

fn said(reply: &str, score: f64, model: Option<&Value>) -> Response {
    let model = model.and_then(Value::as_str).map(str::to_owned);
    Response { messages: vec![Message::bare("assistant", reply)], score, model }
}

/// `prompt`, `completions` and `scores`, of which higher is better.
pub(super) fn ranked(row: &Row<'_>) -> Result<Vec<Record>> {
    scored(row, asked(row)?, "completions")
}

/// RRHF's `query`, `responses` and `scores`.
pub(super) fn rrhf(row: &Row<'_>) -> Result<Vec<Record>> {
    scored(row, unscored(side(row.need("query")?, row.column("query"), "user")?), "responses")
}

fn scored<'a>(row: &Row<'a>, prompt: Vec<Message>, name: &'a str) -> Result<Vec<Record>> {
    let (replies, scores) = paired(row, name, "scores")?;
    let response = |(index, (reply, score)): (usize, (&Value, &Value))| {
        let messages = side(reply, &format!("{}[{index}]", row.column(name)), "assistant")?;
        Ok(Response { messages, score: number(score, &format!("{}[{index}]", row.column("scores")))?, model: None })
    };
    let responses = replies.iter().zip(scores).enumerate().map(response).collect::<Result<_>>()?;
    Ok(record(prompt, responses, row.about()?, row.context()?))
}

/// Nectar's `answers`, whose `rank` is 1 for the best: the score is the rank's negative.
pub(super) fn nectar(row: &Row<'_>) -> Result<Vec<Record>> {
    let given = row.text("prompt")?;
    let mut context = Context::default();
    let prompt = if is_transcript(given) {
        context.raw_prompt = Some(given.to_owned());
        turns(given.trim_end())?
    } else {
        unscored(vec![Message::bare("user", given)])
    };
    let response = |(index, answer): (usize, &Value)| {
        let at = format!("{}[{index}]", row.column("answers"));
        let part = |name| field(answer, name, &at);
        Ok(said(text(part("answer")?, &at)?, -number(part("rank")?, &at)?, answer.get("model")))
    };
    let responses = row.list("answers")?.iter().enumerate().map(response).collect::<Result<_>>()?;
    Ok(record(prompt, responses, About::default(), context))
}

/// UltraFeedback's `completions`, each rated in several aspects: the score is the mean of the ratings that are numbers.
///
/// Its `overall_score` is known to be 1 where 10 was meant, so that it only stands in where no aspect is rated.
pub(super) fn ultrafeedback(row: &Row<'_>) -> Result<Vec<Record>> {
    let prompt = unscored(vec![Message::bare("user", row.text("instruction")?)]);
    let response = |(index, completion): (usize, &Value)| {
        let at = format!("{}[{index}]", row.column("completions"));
        let reply = text(field(completion, "response", &at)?, &at)?;
        let ratings: Vec<f64> = ratings(completion).collect();
        let score = match completion.get("overall_score") {
            _ if !ratings.is_empty() => ratings.iter().sum::<f64>() / ratings.len() as f64,
            Some(overall) => number(overall, "overall_score").map_err(|error| error.at(at))?,
            None => return Err(Error::data("a completion has no rating that is a number").at(at)),
        };
        Ok(said(reply, score, completion.get("model")))
    };
    let responses = row.list("completions")?.iter().enumerate().map(response).collect::<Result<_>>()?;
    Ok(record(prompt, responses, About::default(), Context::default()))
}

/// The ratings of every aspect that are numbers; "N/A" is none. An aspect may be rated several times over.
fn ratings(completion: &Value) -> impl Iterator<Item = f64> {
    let aspects = completion.get("annotations").and_then(Value::as_object).into_iter().flat_map(|all| all.values());
    let each = aspects.flat_map(|aspect| match aspect {
        Value::Array(many) => many.iter().collect(),
        one => vec![one],
    });
    each.filter_map(|aspect| number(aspect.get("Rating")?, "Rating").ok())
}

#[cfg(test)]
mod tests {
    use crate::error::Result;
    use crate::formats::Format;
    use crate::record::{Ranking, Record};
    use serde_json::{Value, json};

    fn read(row: Value) -> Result<(String, Ranking)> {
        let row = row.as_object().unwrap();
        let format = Format::detect(std::slice::from_ref(row))?;
        match format.read(row)?.remove(0) {
            Record::Ranking(ranking) => Ok((format.name(), ranking)),
            other => panic!("{other:?}"),
        }
    }

    fn best(ranking: &Ranking) -> &str {
        let best = ranking.responses.iter().max_by(|a, b| a.score.total_cmp(&b.score)).unwrap();
        best.messages[0].content.as_deref().unwrap()
    }

    #[test]
    fn scores_and_ranks_run_in_opposite_directions() {
        let (name, ranked) =
            read(json!({"prompt": "q", "completions": ["bad", "good"], "scores": [-1, "2.5"]})).unwrap();
        assert_eq!((name.as_str(), best(&ranked)), ("ranked", "good"));
        let (name, rrhf) = read(json!({"query": "q", "responses": ["good", "bad"], "scores": [2, 1]})).unwrap();
        assert_eq!((name.as_str(), best(&rrhf)), ("rrhf", "good"));
        let answers = json!([{"answer": "bad", "rank": 7.0, "model": "m"}, {"answer": "good", "rank": 1.0}]);
        let (name, nectar) = read(json!({"prompt": "\n\nHuman: q\n\nAssistant: ", "answers": answers})).unwrap();
        assert_eq!((name.as_str(), best(&nectar)), ("nectar", "good"));
        assert_eq!(nectar.responses[0].model.as_deref(), Some("m"));
        assert_eq!(nectar.prompt[0].content.as_deref(), Some("q"));
        assert_eq!(nectar.context.raw_prompt.as_deref(), Some("\n\nHuman: q\n\nAssistant: "));
    }

    #[test]
    fn ratings_are_strings_and_some_are_none() {
        let completion = |said: &str, ratings: [&str; 2], overall: f64| {
            let [one, two] = ratings.map(|rating| json!({"Rating": rating, "Rationale": "x"}));
            json!({"response": said, "annotations": {"honesty": one, "truthfulness": two}, "overall_score": overall})
        };
        let rows = json!({"instruction": "q", "models": ["a", "b"], "completions": [
            completion("good", ["5", "N/A"], 1.0), completion("fair", ["4", "5"], 8.0), completion("none", ["N/A", "N/A"], 2.0)
        ]});
        let (name, ranking) = read(rows).unwrap();
        assert_eq!(name, "ultrafeedback");
        assert_eq!(ranking.responses.iter().map(|r| r.score).collect::<Vec<_>>(), [5.0, 4.5, 2.0]);
        let unrated = json!({"instruction": "q", "completions": [{"response": "a", "annotations": {}}]});
        assert!(read(unrated).unwrap_err().what.contains("no rating"));
    }

    #[test]
    fn what_does_not_go_together_is_an_error() {
        for (scores, reason) in
            [(json!([1]), "2 items"), (json!([1, "N/A"]), "not a number"), (json!([]), "empty list")]
        {
            let error = read(json!({"prompt": "q", "completions": ["a", "b"], "scores": scores})).unwrap_err();
            assert!(error.what.contains(reason), "{error}");
        }
    }
}
