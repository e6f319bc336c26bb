//! What is written is read back as the same record, whatever the texts are.

use super::{Form, Target, derive, write};
use crate::conversation::Message;
use crate::formats::Format;
use crate::record::{About, Context, Conversation, Preference, Ranking, Record, Response, Step, Steps, Unpaired};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

/// Texts with what readers look for in them.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(" ".to_owned()),
        Just("\n\n".to_owned()),
        Just("Human:".to_owned()),
        Just("{\"a\": 1}".to_owned()),
        any::<char>().prop_map(String::from),
        "[a-z]{1,4}",
    ];
    vec(piece, 1..5).prop_map(|pieces| pieces.concat())
}

fn reply() -> impl Strategy<Value = Vec<Message>> {
    text().prop_map(|text| vec![Message::bare("assistant", &text)])
}

/// One text, or turns that end with a person's; nothing of it is learned.
fn prompt() -> impl Strategy<Value = Vec<Message>> {
    let turns = vec((text(), text()), 0..3);
    (turns, text(), any::<bool>()).prop_map(|(turns, last, bare)| {
        if bare {
            return super::super::row::unscored(vec![Message::bare("user", &last)]);
        }
        let before = turns.iter().flat_map(|(q, a)| [Message::text("user", q), Message::text("assistant", a)]);
        super::super::row::unscored(before.chain([Message::text("user", &last)]).collect())
    })
}

fn talk() -> impl Strategy<Value = Conversation> {
    let turn = (text(), text(), any::<bool>(), prop_oneof![Just(1.0), Just(0.5)]);
    (any::<bool>(), vec(turn, 1..4), any::<bool>()).prop_map(|(system, turns, tools)| {
        let mut messages = Vec::new();
        if system {
            messages.push(Message::text("system", "s"));
        }
        for (asked, said, scored, weight) in turns {
            messages.extend([
                Message::text("user", &asked),
                Message { scored, weight, ..Message::text("assistant", &said) },
            ]);
        }
        let tools = tools.then(|| json!([{"type": "function", "function": {"name": "f"}}]));
        Conversation { messages, context: Context { tools, ..Context::default() } }
    })
}

/// The record that is read from what a record is written as, when nothing is lost.
fn back(record: &Record, target: Target) -> Record {
    let written = write(record, target, Form::Auto).unwrap();
    assert!(written.lost.is_empty(), "{:?}", written.lost);
    let row = written.row;
    // A prompt of several messages is no bare text, and a row is read without knowing what it was.
    let mut read = Format::detect(std::slice::from_ref(&row)).unwrap().read(&row).unwrap();
    assert_eq!(read.len(), 1);
    read.remove(0)
}

/// Text and messages of one text say the same; which of the two a row had is not what is compared.
fn plain(mut record: Record) -> Record {
    let sides: Vec<&mut Vec<Message>> = match &mut record {
        Record::Preference(pair) => vec![&mut pair.prompt, &mut pair.chosen, &mut pair.rejected],
        Record::Unpaired(rated) => vec![&mut rated.prompt, &mut rated.completion],
        Record::Ranking(ranking) => {
            let replies = ranking.responses.iter_mut().map(|response| &mut response.messages);
            std::iter::once(&mut ranking.prompt).chain(replies).collect()
        }
        Record::Steps(steps) => vec![&mut steps.prompt],
        Record::Conversation(talk) => vec![&mut talk.messages],
        Record::Text(_) => Vec::new(),
    };
    for message in sides.into_iter().flatten() {
        message.bare = false;
    }
    record
}

fn same(record: Record, target: Target) {
    assert_eq!(plain(back(&record, target)), plain(record));
}

proptest! {
    #[test]
    fn conversations_come_back(talk in talk()) {
        let record = Record::Conversation(talk);
        same(record.clone(), Target::Messages);
        same(record, Target::ShareGpt);
    }

    #[test]
    fn alpaca_comes_back_or_says_what_it_lost(talk in talk()) {
        let written = write(&Record::Conversation(talk.clone()), Target::Alpaca, Form::Auto).unwrap();
        let format = Format::detect(std::slice::from_ref(&written.row)).unwrap();
        prop_assert_eq!(format.name(), "alpaca");
        let read = format.read(&written.row).unwrap().remove(0);
        let whole = plain(read) == plain(Record::Conversation(talk));
        prop_assert_eq!(whole, written.lost.is_empty(), "{:?}", written.lost);
    }

    #[test]
    fn prompts_and_completions_come_back(prompt in prompt(), reply in reply()) {
        let messages = prompt.into_iter().chain(reply).collect();
        same(Record::Conversation(Conversation { messages, context: Context::default() }), Target::PromptCompletion);
    }

    #[test]
    fn feedback_comes_back(prompt in prompt(), good in reply(), bad in reply(), label: bool, score in -1e6..1e6, more in vec(reply(), 0..3)) {
        let context = Context::default();
        let about = About { criterion: Some("helpful".into()), weight: Some(0.5) };
        let rated = Unpaired { prompt: prompt.clone(), completion: good.clone(), label, context: context.clone() };
        same(Record::Unpaired(rated), Target::Unpaired);
        let response = |messages: Vec<Message>, score| Response { messages, score, model: None };
        let mut responses = vec![response(good.clone(), score), response(bad.clone(), -score)];
        responses.extend(more.into_iter().map(|reply| response(reply, 0.5)));
        same(Record::Ranking(Ranking { prompt: prompt.clone(), responses, about: about.clone(), context: context.clone() }), Target::Ranked);
        prop_assume!(good != bad);
        // A reply that begins with the prompt is taken for a whole text; a row that says so needs messages.
        let begins = |reply: &[Message]| reply[0].content.as_ref().unwrap().starts_with(prompt[0].content.as_ref().unwrap().as_str());
        prop_assume!(!(begins(&good) && begins(&bad)));
        let pair = Preference { prompt, chosen: good, rejected: bad, margin: Some(score), p: Some(0.25), about, context };
        same(Record::Preference(pair.clone()), Target::Preference);
        let (two, lost) = derive(Record::Preference(pair), Target::Unpaired, super::Pairs::All).unwrap();
        prop_assert_eq!((two.len(), lost), (2, vec!["margin", "p", "criterion", "weight"]));
    }

    #[test]
    fn steps_come_back(prompt in prompt(), steps in vec((text(), -1_i8..=1), 1..5)) {
        let step = |(index, (text, rating)): (usize, (String, i8))| Step { text, rating: Some(rating), parent: index.checked_sub(1) };
        let steps = steps.into_iter().enumerate().map(step).collect();
        same(Record::Steps(Steps { prompt, steps, left_out: Vec::new(), context: Context::default() }), Target::Stepwise);
    }

    #[test]
    fn transcripts_come_back_byte_for_byte(turns in vec((text(), text()), 0..3), last in text(), good in text(), bad in text(), space: bool) {
        let texts = turns.iter().flat_map(|(q, a)| [q, a]).chain([&last, &good, &bad]);
        prop_assume!(texts.clone().all(|text| !text.contains("\n\nHuman:")) && good != bad);
        prop_assume!(!good.trim().is_empty() && !bad.trim().is_empty());
        let mut before: String = turns.iter().map(|(q, a)| format!("\n\nHuman: {q}\n\nAssistant:{a}")).collect();
        before += &format!("\n\nHuman:{last}\n\nAssistant:{}", if space { " " } else { "" });
        // Pieces may make up a mark of their own across a border.
        prop_assume!(before.matches("\n\nHuman:").count() == turns.len() + 1 && !format!("{before}{good}{bad}").contains("Human:\n\nHuman:"));
        let row = json!({"chosen": format!("{before}{good}"), "rejected": format!("{before}{bad}")});
        let row = row.as_object().unwrap();
        let format = Format::detect(std::slice::from_ref(row)).unwrap();
        prop_assert_eq!(format.name(), "hh");
        let record = format.read(row).unwrap().remove(0);
        prop_assert_eq!(&write(&record, Target::Hh, Form::Auto).unwrap().row, row);
        // TRL's form in between changes nothing.
        let pair = write(&record, Target::Preference, Form::Auto).unwrap().row;
        let joined = |side: &str| format!("{}{}", pair["prompt"].as_str().unwrap(), pair[side].as_str().unwrap());
        prop_assert_eq!(&joined("chosen"), row["chosen"].as_str().unwrap());
        let again = Format::detect(std::slice::from_ref(&pair)).unwrap().read(&pair).unwrap().remove(0);
        prop_assert_eq!(&write(&again, Target::Hh, Form::Auto).unwrap().row, row);
    }

    #[test]
    fn no_row_breaks_a_reader(keys in vec(0_usize..24, 0..5), seed in any::<u64>()) {
        const NAMES: [&str; 24] = [
            "messages", "conversations", "prompt", "completion", "chosen", "rejected", "completions", "scores", "labels",
            "label", "instruction", "input", "output", "instances", "history", "system", "question", "answer", "answers",
            "query", "responses", "info", "tools", "text",
        ];
        let values = [
            json!(null), json!(""), json!("\n\nHuman: a\n\nAssistant: b"), json!([]), json!({}), json!(-1), json!(true),
            json!([{"role": "user", "content": "q"}]), json!([{"from": "gpt", "value": []}]), json!({"steps": [{}]}),
            json!([[null]]), json!([{"response": "a", "rank": "b", "annotations": []}]), json!([1, "x"]), json!("[1"),
        ];
        let mut state = seed;
        let mut row = serde_json::Map::new();
        for key in keys {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            row.insert(NAMES[key].into(), values[(state >> 33) as usize % values.len()].clone());
        }
        for name in crate::formats::names() {
            let format = Format::parse(name).unwrap();
            for record in format.read(&row).unwrap_or_default() {
                for (_, target) in super::TARGETS {
                    for record in derive(record.clone(), target, super::Pairs::All).map(|made| made.0).unwrap_or_default() {
                        let _ = write(&record, target, Form::Auto);
                    }
                }
            }
        }
    }
}
