//! One reply against another, and replies that are good or bad by themselves.

use super::chats::last_turn;
use super::row::{Row, field, text, unscored};
use super::turns::{prompt as asked, side};
use crate::conversation::{Message, kind_of};
use crate::error::{Error, Result};
use crate::record::{About, Context, Preference, Record, Unpaired};
use serde_json::Value;

/// `chosen` and `rejected`, with the prompt in a column, in front of both, or in both places.
///
/// Two texts without a prompt are replies as a whole: nothing tells where a prompt would end, and what both say cancels
/// out when they are compared.
pub(super) fn preference(row: &Row<'_>) -> Result<Vec<Record>> {
    let mut prompt = asked(row)?;
    let mut chosen = side(row.need("chosen")?, row.column("chosen"), "assistant")?;
    let mut rejected = side(row.need("rejected")?, row.column("rejected"), "assistant")?;
    differ(&chosen, &rejected)?;
    if let ([before], [good], [bad]) = (prompt.as_slice(), chosen.as_mut_slice(), rejected.as_mut_slice())
        && before.bare
        && good.bare
        && bad.bare
    {
        let before = before.content.as_deref().unwrap_or_default();
        let after = |side: &Message| side.content.as_deref()?.strip_prefix(before).map(str::to_owned);
        if let (Some(one), Some(other)) = (after(good), after(bad)) {
            (*good, *bad) = (Message::bare("assistant", &one), Message::bare("assistant", &other));
        }
    }
    let shared = shared(&chosen, &rejected);
    if shared > 0 {
        let before = unscored(chosen.drain(..shared).collect());
        rejected.drain(..shared);
        prompt = joined(prompt, before)?;
    }
    for (name, reply) in [("chosen", &chosen), ("rejected", &rejected)] {
        let starts = reply.first().map(|message| message.role.as_str());
        if starts != Some("assistant") {
            return Err(Error::data("the prompts of chosen and rejected differ")
                .because(format!("{name} goes on with {}", starts.unwrap_or("nothing"))));
        }
    }
    let (margin, p) = (row.number("margin")?, row.number("p")?);
    if p.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
        return Err(Error::data("p is not between 0 and 1"));
    }
    let (about, context) = (row.about()?, row.context()?);
    Ok(vec![Record::Preference(Preference { prompt, chosen, rejected, margin, p, about, context })])
}

/// Messages that both replies begin with; each keeps its last one.
fn shared(chosen: &[Message], rejected: &[Message]) -> usize {
    let most = chosen.len().min(rejected.len()).saturating_sub(1);
    chosen.iter().zip(rejected).take(most).take_while(|(one, other)| one == other).count()
}

/// The prompt of a row that has it in a column and in front of both replies.
fn joined(mut prompt: Vec<Message>, before: Vec<Message>) -> Result<Vec<Message>> {
    let is_said = |message: &Message| before.iter().any(|other| other.content == message.content);
    // What the column says again is the same prompt; a system message may stand in the column alone.
    prompt.retain(|message| !is_said(message));
    let is_in_front = prompt.iter().all(|message| message.role == "system") && before[0].role != "system";
    // Or the column's prompt goes on in front of the replies with what the model said first.
    if prompt.is_empty() || is_in_front || before[0].role == "assistant" {
        return Ok(prompt.into_iter().chain(before).collect());
    }
    Err(Error::data("the prompt column is not what chosen and rejected begin with"))
}

/// Replies that are alike cannot be compared.
pub(super) fn differ(chosen: &[Message], rejected: &[Message]) -> Result<()> {
    if chosen == rejected { Err(Error::data("chosen and rejected are the same")) } else { Ok(()) }
}

/// GPT-4-LLM's `user_input`, `completion_a` (the better) and `completion_b`.
pub(super) fn gpt4_llm(row: &Row<'_>) -> Result<Vec<Record>> {
    let [chosen, rejected] =
        [row.text("completion_a")?, row.text("completion_b")?].map(|reply| vec![Message::bare("assistant", reply)]);
    differ(&chosen, &rejected)?;
    let prompt = unscored(vec![Message::bare("user", row.text("user_input")?)]);
    let (about, context) = (row.about()?, row.context()?);
    Ok(vec![Record::Preference(Preference { prompt, chosen, rejected, margin: None, p: None, about, context })])
}

/// summarize-from-feedback's `info`, two `summaries` and the `choice` between them, as the prompt of a summary.
pub(super) fn summarize(row: &Row<'_>) -> Result<Vec<Record>> {
    let info = row.object("info")?;
    let part = |name: &str| info.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let prompt = match (part("post"), part("article")) {
        (Some(post), _) => {
            let lines = [("SUBREDDIT: r/", part("subreddit")), ("TITLE: ", part("title")), ("POST: ", Some(post))];
            let lines = lines.iter().filter_map(|(name, said)| said.map(|said| format!("{name}{said}\n\n")));
            format!("{}TL;DR:", lines.collect::<String>())
        }
        (None, Some(article)) => format!("Article: {article}\n\nTL;DR:"),
        (None, None) => return Err(Error::data("info has no post and no article")),
    };
    let [one, other] = row.list("summaries")? else {
        return Err(Error::data("summaries are not two"));
    };
    let (better, worse) = match row.need("choice")?.as_u64() {
        Some(0) => (one, other),
        Some(1) => (other, one),
        _ => return Err(Error::data("choice is not 0 or 1")),
    };
    let reply = |summary| -> Result<_> {
        let said = text(field(summary, "text", "summaries")?, "text")?;
        Ok(vec![Message::bare("assistant", said.trim_start())])
    };
    let (chosen, rejected) = (reply(better)?, reply(worse)?);
    differ(&chosen, &rejected)?;
    let context = Context { raw_prompt: Some(format!("{prompt} ")), ..Context::default() };
    let prompt = unscored(vec![Message::bare("user", &prompt)]);
    let about = About::default();
    Ok(vec![Record::Preference(Preference { prompt, chosen, rejected, margin: None, p: None, about, context })])
}

/// A completion, or a conversation's last turn, with `label` or `kto_tag`.
pub(super) fn unpaired(row: &Row<'_>) -> Result<Vec<Record>> {
    let (name, value) = row.any(&["label", "kto_tag"]).ok_or_else(|| Error::data("the label is missing"))?;
    let label = label(value).ok_or_else(|| {
        Error::data(format!("column {name:?} holds {}, not a label", kind_of(value)))
            .fix("a label is true or false, 1 or 0, \"good\" or \"bad\"")
    })?;
    let (prompt, completion) = match row.any(&["completion", "output"]) {
        Some((name, value)) => (asked(row)?, side(value, name, "assistant")?),
        None => match row.any(&["messages", "conversations"]) {
            Some((name, value)) => last_turn(value, name)?,
            None => (Vec::new(), side(row.need("completion")?, row.column("completion"), "assistant")?),
        },
    };
    Ok(vec![Record::Unpaired(Unpaired { prompt, completion, label, context: row.context()? })])
}

/// Whether a reply is good, in any of the ways that files say it.
pub(super) fn label(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(label) => Some(*label),
        Value::Number(number) => match number.as_f64()? {
            1.0 => Some(true),
            0.0 => Some(false),
            _ => None,
        },
        Value::String(text) => match text.trim().to_lowercase().as_str() {
            "true" | "1" | "good" | "desirable" | "positive" | "chosen" | "yes" => Some(true),
            "false" | "0" | "bad" | "undesirable" | "negative" | "rejected" | "no" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Format;
    use serde_json::json;

    fn read(row: Value) -> Result<Record> {
        let row = row.as_object().unwrap();
        Format::detect(std::slice::from_ref(row))?.read(row).map(|mut records| records.remove(0))
    }

    fn pair(row: Value) -> Result<(Vec<String>, Vec<String>, Vec<String>)> {
        match read(row)? {
            Record::Preference(pair) => Ok((said(&pair.prompt), said(&pair.chosen), said(&pair.rejected))),
            other => panic!("{other:?}"),
        }
    }

    fn said(side: &[Message]) -> Vec<String> {
        side.iter().map(|m| format!("{} {}", m.role, m.content.as_deref().unwrap_or("-"))).collect()
    }

    fn talk(turns: &[&str]) -> Value {
        turns
            .iter()
            .map(|turn| turn.split_once(' ').unwrap())
            .map(|(role, said)| json!({"role": role, "content": said}))
            .collect()
    }

    #[test]
    fn the_prompt_may_stand_anywhere() {
        let (u, a, b) = ("user q", "assistant a", "assistant b");
        let wanted = (vec![u.to_owned()], vec![a.to_owned()], vec![b.to_owned()]);
        for row in [
            json!({"prompt": "q", "chosen": "a", "rejected": "b"}),
            json!({"prompt": "q", "chosen": "qa", "rejected": "qb"}),
            json!({"prompt": talk(&[u]), "chosen": talk(&[a]), "rejected": talk(&[b])}),
            json!({"prompt": talk(&[u]), "chosen": talk(&[u, a]), "rejected": talk(&[u, b])}),
            json!({"prompt": "q", "chosen": talk(&[u, a]), "rejected": talk(&[u, b])}),
            json!({"chosen": talk(&[u, a]), "rejected": talk(&[u, b])}),
            json!({"prompt": "q", "chosen": talk(&[a])[0], "rejected": talk(&[b])[0]}),
            json!({"conversations": [{"from": "human", "value": "q"}],
                "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}}),
            json!({"user_input": "q", "completion_a": "a", "completion_b": "b"}),
        ] {
            assert_eq!(pair(row.clone()).unwrap(), wanted, "{row}");
        }
        let orca = json!({"system": "s", "question": "q", "chosen": talk(&[u, a]), "rejected": talk(&[u, b])});
        assert_eq!(pair(orca).unwrap().0, ["system s", "user q"]);
    }

    #[test]
    fn nothing_of_a_reply_goes_into_the_prompt() {
        // TRL would take "The sky is" for the prompt.
        let (prompt, chosen, rejected) =
            pair(json!({"chosen": "The sky is blue.", "rejected": "The sky is green."})).unwrap();
        assert_eq!(
            (prompt.len(), &*chosen[0], &*rejected[0]),
            (0, "assistant The sky is blue.", "assistant The sky is green.")
        );
        let longer = json!({"chosen": talk(&["user q", "assistant a"]), "rejected": talk(&["user q", "assistant a", "user q2", "assistant b"])});
        let (prompt, chosen, rejected) = pair(longer).unwrap();
        assert_eq!((prompt.len(), chosen.len(), rejected.len()), (1, 1, 3));
    }

    #[test]
    fn sides_that_cannot_be_compared_are_errors() {
        for (chosen, rejected, reason) in [
            (talk(&["user q", "assistant a"]), talk(&["user q", "assistant a"]), "are the same"),
            (
                talk(&["user q", "assistant a"]),
                talk(&["user other", "assistant a"]),
                "prompts of chosen and rejected differ",
            ),
            (json!("a"), json!(3), "a number, not a string"),
        ] {
            let error = pair(json!({"chosen": chosen, "rejected": rejected})).unwrap_err();
            assert!(error.what.contains(reason), "{error}");
        }
        let other = json!({"prompt": "elsewhere", "chosen": talk(&["user q", "assistant a"]), "rejected": talk(&["user q", "assistant b"])});
        assert!(pair(other).unwrap_err().what.contains("not what chosen and rejected begin with"));
    }

    #[test]
    fn margins_and_probabilities_are_numbers() {
        let read = |extra: (&str, Value)| {
            let mut row = json!({"prompt": "q", "chosen": "a", "rejected": "b"});
            row[extra.0] = extra.1;
            read(row)
        };
        let Record::Preference(pair) = read(("margin", json!("0.5"))).unwrap() else { panic!() };
        assert_eq!(pair.margin, Some(0.5));
        assert!(read(("margin", json!("much"))).is_err());
        assert!(read(("p", json!(1.5))).is_err());
    }

    #[test]
    fn summaries_are_replies_to_their_post() {
        let info = json!({"post": "Long.", "title": "T", "subreddit": "s", "article": null});
        let row = json!({"info": info, "summaries": [{"text": " one"}, {"text": " two"}], "choice": 1, "worker": "w"});
        let Record::Preference(read) = read(row).unwrap() else { panic!() };
        assert_eq!(said(&read.prompt), ["user SUBREDDIT: r/s\n\nTITLE: T\n\nPOST: Long.\n\nTL;DR:"]);
        assert_eq!(
            (said(&read.chosen), said(&read.rejected)),
            (vec!["assistant two".into()], vec!["assistant one".into()])
        );
        for (key, bad) in [("choice", json!(2)), ("summaries", json!([{"text": "a"}])), ("info", json!({}))] {
            let mut row = json!({"info": {"article": "A"}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 0});
            row[key] = bad;
            assert!(pair(row).is_err());
        }
    }

    #[test]
    fn labels_are_said_in_many_ways() {
        for (label, wanted) in
            [(json!(true), true), (json!(0), false), (json!(1.0), true), (json!("False"), false), (json!("good"), true)]
        {
            let Record::Unpaired(read) = read(json!({"prompt": "q", "completion": "a", "label": label})).unwrap()
            else {
                panic!()
            };
            assert_eq!(
                (read.label, said(&read.prompt), said(&read.completion)),
                (wanted, vec!["user q".into()], vec!["assistant a".into()])
            );
        }
        let Record::Unpaired(kto) =
            read(json!({"messages": talk(&["user q", "assistant a"]), "kto_tag": false})).unwrap()
        else {
            panic!()
        };
        assert_eq!(
            (said(&kto.prompt), said(&kto.completion), kto.label),
            (vec!["user q".into()], vec!["assistant a".into()], false)
        );
        let format = Format::parse("unpaired").unwrap();
        for bad in [json!({"completion": "a", "label": 2}), json!({"completion": "a"}), json!({"label": true})] {
            assert!(format.read(bad.as_object().unwrap()).is_err());
        }
    }
}
